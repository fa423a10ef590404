"""Depth images: metres out of whatever a camera sends."""

import numpy as np
import pytest

from img2scene_ros.depth import metric_depth
from img2scene_ros.errors import InputError


def test_integer_depth_is_millimetres():
    depth = metric_depth(np.array([[0, 1, 750, 65535]], np.uint16))
    assert depth.dtype == np.float32
    np.testing.assert_allclose(depth, [[np.nan, 0.001, 0.75, 65.535]], rtol=1e-6)


@pytest.mark.parametrize('kind', [np.float32, np.float64])
def test_float_depth_is_metres(kind):
    raw = np.array([[0.0, -0.5, np.nan, np.inf, -np.inf, 0.75]], kind)
    depth = metric_depth(raw)
    assert depth.dtype == np.float32
    np.testing.assert_array_equal(depth, np.array([[np.nan] * 5 + [0.75]], np.float32))


def test_converting_depth_leaves_the_message_as_it_was():
    raw = np.array([[0.0, 0.75]], np.float32)
    raw.flags.writeable = False
    metric_depth(raw)
    np.testing.assert_array_equal(raw, np.array([[0.0, 0.75]], np.float32))


@pytest.mark.parametrize('raw, named', [
    (np.zeros((3, 4), np.uint8), 'uint8'),
    (np.zeros((3, 4), np.int32), 'int32'),
    (np.zeros((3, 4, 3), np.uint16), r'\(3, 4, 3\)'),
])
def test_refuses_other_kinds_of_depth(raw, named):
    with pytest.raises(InputError, match=named):
        metric_depth(raw)
