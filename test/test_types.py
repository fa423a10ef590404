# SPDX-License-Identifier: Apache-2.0
"""Frames refuse what does not fit, and tell what they show."""

import numpy as np
import pytest

from img2scene_ros.camera import Camera
from img2scene_ros.depth import metric_depth
from img2scene_ros.errors import InputError
from img2scene_ros.types import Frame

SMALL = Camera(4, 3, 5.0, 5.0, 1.5, 1.0)


def color(width: int = 4, height: int = 3) -> np.ndarray:
    return np.zeros((height, width, 3), np.uint8)


def test_points_are_what_the_camera_unprojects(recorded):
    frame = recorded('ycb_1')
    v, u = np.mgrid[:480, :640]
    expected = frame.camera.unproject(np.stack([u, v], axis=-1), frame.depth)
    np.testing.assert_allclose(frame.points, expected, atol=1e-5)
    seen = np.isfinite(frame.depth)
    np.testing.assert_array_equal(np.isfinite(frame.points).all(axis=-1), seen)
    pixels = frame.camera.project(frame.points[seen])
    np.testing.assert_allclose(pixels, np.stack([u, v], axis=-1)[seen], atol=1e-3)


def test_a_frame_without_depth_has_no_points():
    frame = Frame(color(), SMALL)
    assert frame.points is None
    assert not frame.has_depth


@pytest.mark.parametrize('empty', [0.0, np.nan, np.inf, -1.0])
def test_a_depth_image_without_a_reading_counts_as_none(empty):
    frame = Frame(color(), SMALL, metric_depth(np.full((3, 4), empty, np.float32)))
    assert not frame.has_depth


@pytest.mark.parametrize('picture, named', [
    (np.zeros((3, 4), np.uint8), r'\(3, 4\)'),
    (np.zeros((3, 4, 4), np.uint8), r'\(3, 4, 4\)'),
    (np.zeros((3, 4, 3), np.float32), 'float32'),
    (np.zeros((0, 0, 3), np.uint8), 'empty'),
])
def test_refuses_pictures_that_are_not_rgb_bytes(picture, named):
    with pytest.raises(InputError, match=named):
        Frame(picture, SMALL)


def test_refuses_the_calibration_of_another_picture():
    with pytest.raises(InputError, match='4x3.*8x6'):
        Frame(color(8, 6), SMALL)


def test_refuses_depth_of_another_size():
    with pytest.raises(InputError, match='depth.*2x3.*4x3'):
        Frame(color(), SMALL, np.ones((3, 2), np.float32))
