# SPDX-License-Identifier: Apache-2.0
"""A crop as channels: what is there, what is missing, and depth in relation to the cube."""

import numpy as np
import pytest

from img2scene_ros.models.channels import CHANNELS
from img2scene_ros.models.channels import crop_channels

pytestmark = pytest.mark.usefixtures('one_thread')

COLOR = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
MASK = np.arange(64).reshape(8, 8) % 3 == 0


def test_color_is_normalised_as_imagenet():
    channels = crop_channels(np.full((8, 8, 3), 255, np.uint8), None, None, 1.0, 0.3)
    assert channels.shape == (CHANNELS, 8, 8) and channels.dtype == np.float32
    np.testing.assert_allclose(channels[:3, 0, 0], [2.2489, 2.4286, 2.6400], atol=1e-3)


def test_absent_channels_are_zero():
    channels = crop_channels(COLOR, None, None, 1.0, 0.3)
    assert not channels[3:].any()
    assert (crop_channels(COLOR, MASK, None, 1.0, 0.3)[3] == MASK).all()


@pytest.mark.parametrize('anchor', (0.5, 2.0))
def test_depth_counts_in_cube_sides_from_the_anchor(anchor):
    half_field = 0.25  # the cube is half as wide as the anchor is deep
    depth = np.full((8, 8), anchor)
    depth[0, 0], depth[0, 1], depth[0, 2], depth[0, 3] = (
        1.125 * anchor, 0.75 * anchor, np.nan, 9 * anchor)
    channels = crop_channels(COLOR, MASK, depth, anchor, half_field)
    np.testing.assert_allclose(channels[4, 0, :5], [0.25, -0.5, 0.0, 1.0, 0.0], atol=1e-6)
    np.testing.assert_array_equal(channels[5, 0, :5], [1, 1, 0, 1, 1])
