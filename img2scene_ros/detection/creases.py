# SPDX-License-Identifier: Apache-2.0
"""Where surfaces bend inwards: bodies touch there, or parts of one body meet."""

import cv2
import numpy as np

from img2scene_ros.depth import measured
from img2scene_ros.detection.labelling import nearest_pixels
from img2scene_ros.detection.labelling import square
from img2scene_ros.detection.labelling import widened
from img2scene_ros.detection.labelling import windows_of
from img2scene_ros.detection.surfaces import surface_normals
from img2scene_ros.types import Frame

_CREASE_REACH = 0.0075  # metres to either side over which a surface's bend is taken
_LEAST_PART = 0.05  # of a surface; smaller parts are not cut off
_CUT_CREASE = 22.0  # degrees; a surface is cut where it bends inwards by more
_HALF = np.s_[::2, ::2]


def cut_at_creases(
    labels: np.ndarray, frame: Frame, height: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """
    Cut surfaces along concave creases that cross them, found at half the size.

    :param labels: (H, W) int32 of surfaces, 0 = none
    :param height: (H, W) metres above the support
    :return: labels of parts, (H, W) int32; the degrees by which the surface bends inwards near
        every second pixel of every second row, float32
    """
    coarse, height = labels[_HALF], height[_HALF]
    if not coarse.any():
        return labels, np.zeros(coarse.shape, np.float32)
    distance = np.nanmedian(measured(frame.depth)[_HALF][coarse > 0])
    step = 2 * int(np.clip(round(_CREASE_REACH * frame.camera.fx / distance / 2), 2, 20))
    crease = _crease_angles(frame, step)
    # Everything meets its support in a crease; that one separates nothing.
    crease[(height < 0.02) | (coarse == 0)] = 0.0
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (step // 2 + 1,) * 2)
    cut = cv2.dilate((crease > _CUT_CREASE).astype(np.uint8), disc) > 0
    least = 75 * (frame.shape[1] / 640) ** 2
    split = labels.copy()
    for label, whole in windows_of(labels).items():
        rows, columns = (slice(part.start // 2, part.stop // 2 + 1) for part in whole)
        window = widened([(rows, columns)], 1, (coarse.shape[0], coarse.shape[1]))
        mask = coarse[window] == label
        if not cut[window][mask].any():
            continue
        cores = cv2.erode((mask & ~cut[window]).astype(np.uint8), np.ones((3, 3)))
        _, cores = cv2.connectedComponents(cores, connectivity=4)
        cores = _without_specks(cores, max(least, _LEAST_PART * np.count_nonzero(mask)))
        if len(np.unique(cores)) < 3:
            continue
        parts = cores.ravel()[nearest_pixels(cores)[0]]
        whole = np.s_[2 * window[0].start:2 * window[0].stop,
                      2 * window[1].start:2 * window[1].stop]
        mask = labels[whole] == label
        parts = parts.repeat(2, axis=0).repeat(2, axis=1)
        split[whole][mask] = split.max() + parts[:mask.shape[0], :mask.shape[1]][mask]
    return split, cv2.dilate(crease, square(frame, 3))


def _crease_angles(frame: Frame, step: int) -> np.ndarray:
    """
    Return by how many degrees the surface bends inwards at every second pixel, float32.

    :param step: pixels to either side, an even number
    """
    points = cv2.split(measured(frame.points)[_HALF])
    normals = cv2.split(surface_normals(frame, max(2, step // 4 * 2), every=2))
    crease, apart = np.zeros_like(points[2]), step // 2
    for down, right in ((0, apart), (apart, 0)):
        one, middle, other = (
            np.s_[way * down:way * down - 2 * down or None,
                  way * right:way * right - 2 * right or None] for way in (0, 1, 2))
        across = [axis[other] - axis[one] for axis in points]
        length = np.sqrt(sum(axis * axis for axis in across))
        rise = [np.arcsin(np.clip(sum(
            normal[end] * axis for normal, axis in zip(normals, across)) / length, -1.0, 1.0))
            for end in (one, other)]
        # Across a depth jump there is no surface to bend.
        reach = np.float32(8 * step / frame.camera.fx) * points[2][middle]
        angle = np.degrees(rise[0] - rise[1])
        angle[~(np.isfinite(angle) & (length < reach))] = 0.0
        np.maximum(crease[middle], angle, out=crease[middle])
    return crease


def _without_specks(labels: np.ndarray, min_pixels: float) -> np.ndarray:
    sizes = np.bincount(labels.ravel())
    return np.where(sizes[labels] >= min_pixels, labels, 0)
