# SPDX-License-Identifier: Apache-2.0
"""Boxes count the edges of pixels, cameras their centres: no source may mix them."""

import numpy as np
import pytest
from pinhole import ball_ahead

from img2scene_ros.localization import DistanceSource
from img2scene_ros.localization.fixed import FixedDistance
from img2scene_ros.localization.plane import PlaneDistance
from img2scene_ros.localization.sensor import SensorDistance
from img2scene_ros.localization.size_prior import SizePriorDistance
from img2scene_ros.models.crop import crop_view


@pytest.mark.parametrize('source', [
    SensorDistance(), PlaneDistance(), SizePriorDistance(), FixedDistance()])
def test_a_ball_on_the_optical_axis_is_placed_on_it(source: DistanceSource) -> None:
    """Half a pixel would be 1 mm at a distance of 1 m."""
    frame, ball, support = ball_ahead()
    found = source.place(frame, ball, support)
    assert found.position[:2] / found.position[2] == pytest.approx((0, 0), abs=1e-5)


def test_a_crop_looks_at_the_middle_of_the_object() -> None:
    """Its axis is the optical axis, on which the ball is."""
    frame, ball, _ = ball_ahead()
    np.testing.assert_allclose(
        crop_view(frame.camera, ball.bbox).rotation, np.eye(3), atol=1e-5)
