# SPDX-License-Identifier: Apache-2.0
"""Detection: which objects a frame shows, as boxes and, where possible, masks."""

from collections.abc import Iterable
from collections.abc import Sequence
from typing import Protocol

import cv2
import numpy as np

from img2scene_ros.errors import OptionError
from img2scene_ros.options import Configurable
from img2scene_ros.types import Detection
from img2scene_ros.types import Frame


class Detector(Configurable, Protocol):
    """Finds objects."""

    def detect(self, frame: Frame) -> list[Detection]:
        """
        Find the objects in a frame.

        :raises Img2SceneError: the frame lacks what this detector needs
        """


def check_labels(labels: Iterable[str], known: Iterable[str], what: str) -> None:
    """
    Make sure that a filter of class names names none that a detector does not know.

    :raises OptionError: it does
    """
    unknown = sorted(set(labels) - set(known))
    if unknown:
        raise OptionError(
            f"option 'labels' names {', '.join(map(repr, unknown))}, which {what} does not know; "
            f'it knows {shortened(sorted(set(known)))}')


def shortened(names: Sequence[str], most: int = 12) -> str:
    """Return the first of some names, and how many there are more."""
    rest = f' and {len(names) - most} more' if len(names) > most else ''
    return ', '.join(names[:most]) + rest


def bbox_of(mask: np.ndarray) -> np.ndarray:
    """
    Return the tight box around a mask.

    :param mask: (H, W) bool, not empty
    :return: (4,) float, xmin, ymin, xmax, ymax in pixels, the upper ends exclusive
    """
    xmin, ymin, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return np.array([xmin, ymin, xmin + width, ymin + height], float)


def box_iou(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """
    Return the intersection over union of every pair of boxes.

    :param one: (N, 4) xmin, ymin, xmax, ymax
    :param other: (M, 4)
    :return: (N, M)
    """
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    shared = (high - low).clip(0).prod(axis=-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=-1) for boxes in (one, other)]
    return shared / np.maximum(areas[0][:, None] + areas[1][None] - shared, 1e-12)


def without_overlap(
    order: np.ndarray, boxes: np.ndarray, scores: np.ndarray, max_iou: float,
) -> np.ndarray:
    """
    Drop boxes that cover a better one: greedy non-maximum suppression.

    :param order: (K,) indices of the boxes to look at, best first
    :param boxes: (N, 4) xmin, ymin, xmax, ymax
    :param scores: (N,)
    :param max_iou: what is allowed; 1 keeps all
    :return: the indices that are left, in the same order
    """
    if max_iou == 1.0 or not len(order):
        return order
    corner, size = boxes[order, :2], boxes[order, 2:] - boxes[order, :2]
    kept = cv2.dnn.NMSBoxes(
        np.hstack([corner, size]).tolist(), scores[order].tolist(), 0.0, max_iou)
    return order[np.sort(np.asarray(kept, int).ravel())]


def mask_iou(one: np.ndarray, other: np.ndarray) -> float:
    """Return the intersection over union of two bool arrays of one shape; 0 of empty ones."""
    return float(np.count_nonzero(one & other) / max(np.count_nonzero(one | other), 1))
