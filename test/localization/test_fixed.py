# SPDX-License-Identifier: Apache-2.0
"""Places at a fixed distance."""

import numpy as np
import pytest

from img2scene_ros.camera import Camera
from img2scene_ros.localization.fixed import FixedDistance
from img2scene_ros.localization.fixed import FixedOptions
from img2scene_ros.types import Detection
from img2scene_ros.types import Frame


def test_on_the_ray_at_the_distance() -> None:
    """The centre is on the bbox centre's ray; pixels 400 to 499 have their middle at 449.5."""
    frame = Frame(np.zeros((480, 640, 3), np.uint8), Camera(640, 480, 500, 500, 320, 240))
    detection = Detection('cup', 0.9, np.array([400.0, 100.0, 500.0, 180.0]))
    placement = FixedDistance(FixedOptions(distance=2.0)).place(frame, detection, None)
    assert np.linalg.norm(placement.position) == pytest.approx(2.0)
    assert frame.camera.project(placement.position) == pytest.approx((449.5, 139.5))
    assert placement.depth_source == 'fixed'
    # 100 x 80 pixels at that depth, by similar triangles.
    depth = placement.position[2]
    assert placement.size[1:] == pytest.approx((100 * depth / 500, 80 * depth / 500))
    along = placement.position / 2.0
    assert np.sqrt((placement.position_std * along) @ (placement.position_std * along)) > 0.3
