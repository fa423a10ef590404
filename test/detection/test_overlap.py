# SPDX-License-Identifier: Apache-2.0
"""How much boxes and masks overlap."""

import numpy as np

from img2scene_ros.detection import box_iou
from img2scene_ros.detection import mask_iou


def test_iou_of_boxes():
    one = np.array([[0, 0, 10, 10], [0, 0, 4, 2]], float)
    other = np.array([[5, 0, 15, 10], [20, 20, 30, 30], [0, 0, 10, 10]], float)
    np.testing.assert_allclose(box_iou(one, other), [[1 / 3, 0, 1], [0, 0, 0.08]])
    assert box_iou(np.zeros((0, 4)), other).shape == (0, 3)


def test_iou_of_masks() -> None:
    one, other, nothing = np.zeros((3, 4, 4), bool)
    one[:2], other[1:] = True, True
    assert mask_iou(one, other) == 0.25 and mask_iou(one, one) == 1.0
    assert mask_iou(one, nothing) == mask_iou(nothing, nothing) == 0.0
