# SPDX-License-Identifier: Apache-2.0
"""Pictures whose pixels are labelled by object, 0 = none: where labels are, which are near."""

from collections.abc import Sequence

import cv2
import numpy as np
from scipy import ndimage

from img2scene_ros.types import Frame

Window = tuple[slice, slice]  # rows and columns of a part of the picture


def nearest_pixels(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    Return which pixel with a label is nearest to each.

    :param labels: (H, W) int, 0 = none; at least one has a label
    :return: its position in the flattened picture, and how far it is in pixels, (H, W) each
    """
    distance, numbers = cv2.distanceTransformWithLabels(
        (labels == 0).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    at = np.flatnonzero(labels)
    positions = np.zeros(len(at) + 1, np.int64)
    positions[numbers.ravel()[at]] = at
    return positions[numbers], distance


def windows_of(labels: np.ndarray) -> dict[int, Window]:
    """Return the part of the picture that each label takes."""
    return {label: window for label, window in enumerate(ndimage.find_objects(labels), 1)
            if window is not None}


def widened(windows: Sequence[Window], margin: int, shape: tuple[int, int]) -> Window:
    """Return the part of the picture that holds some others and what is around them."""
    rows, columns = (slice(max(0, min(part.start for part in parts) - margin),
                           min(size, max(part.stop for part in parts) + margin))
                     for parts, size in zip(zip(*windows), shape))
    return rows, columns


def square(frame: Frame, pixels: int) -> np.ndarray:
    """Return a kernel of that many pixels at a picture width of 640, of an odd size."""
    size = 2 * round(pixels * frame.shape[1] / 640 / 2 - 0.5) + 1
    return np.ones((max(3, size),) * 2, np.uint8)
