# SPDX-License-Identifier: Apache-2.0
"""Where bodies touch that both stand on the support: sharp concave seams of one surface."""

from itertools import combinations

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
_CUT_CREASE = 22.0  # degrees; a surface is cut where it bends inwards by more
_SHARP_SEAM = 48.0  # degrees, median of a seam: bodies touch in sharper ones, fillets are softer
_MIN_SEAM = 0.6  # of the smaller body's width in the image; shorter seams are necks of one body
_HALF = np.s_[::2, ::2]
_STANDING_HEIGHT = 0.025  # metres above the support; what comes nearer stands on it


def split_at_creases(labels: np.ndarray, frame: Frame, height: np.ndarray) -> np.ndarray:
    """Split surfaces that a sharp concave seam crosses from end to end, found at half the size."""
    coarse, height = labels[_HALF], height[_HALF]
    if not coarse.any():
        return labels
    distance = np.nanmedian(measured(frame.depth)[_HALF][coarse > 0])
    step = 2 * int(np.clip(round(_CREASE_REACH * frame.camera.fx / distance / 2), 2, 20))
    crease = _crease_angles(frame, step)
    # Everything meets its support in a crease; that one separates nothing.
    crease[(height < 0.02) | (coarse == 0)] = 0.0
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (step // 2 + 1,) * 2)
    cut = cv2.dilate((crease > _CUT_CREASE).astype(np.uint8), disc) > 0
    sharpness = cv2.dilate(crease, square(frame, 3))
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
        cores = _without_specks(cores, max(least, 0.08 * np.count_nonzero(mask)))
        if len(np.unique(cores)) < 3:
            continue
        nearest = cores.ravel()[nearest_pixels(cores)[0]]
        parts = _soft_seams_closed(np.where(mask, nearest, 0), sharpness[window], height[window])
        joined = np.zeros(cores.max() + 1, int)
        joined[nearest[mask]] = parts[mask]
        whole = np.s_[2 * window[0].start:2 * window[0].stop,
                      2 * window[1].start:2 * window[1].stop]
        mask = labels[whole] == label
        parts = joined[nearest].repeat(2, axis=0).repeat(2, axis=1)
        split[whole][mask] = split.max() + parts[:mask.shape[0], :mask.shape[1]][mask]
    return split


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


def _soft_seams_closed(
    parts: np.ndarray, sharpness: np.ndarray, height: np.ndarray,
) -> np.ndarray:
    """
    Join parts again, the softest seam first, until all seams that are left are sharp.

    Parts that do not reach down to the support stand on the other part, as a goblet's bowl does.
    """
    parts = parts.copy()
    while True:
        standing = {part for part in np.unique(parts[parts > 0])
                    if np.percentile(height[parts == part], 3) < _STANDING_HEIGHT}
        seams = {pair: _seam_sharpness(parts, pair, sharpness, standing.issuperset(pair))
                 for pair in combinations(np.unique(parts[parts > 0]), 2)}
        softest = min(seams, key=lambda pair: seams[pair], default=None)
        if softest is None or seams[softest] >= _SHARP_SEAM:
            return parts
        parts[parts == softest[0]] = softest[1]


def _seam_sharpness(
    parts: np.ndarray, pair: tuple[int, int], sharpness: np.ndarray, both_stand: bool,
) -> float:
    """Return the median crease along the seam of two parts, degrees; 0 for those of one body."""
    one, other = (parts == label for label in pair)
    seam = (cv2.dilate(one.astype(np.uint8), np.ones((3, 3))) > 0) & other
    length = np.count_nonzero(seam)
    if not length:
        return np.inf
    width = np.sqrt(min(np.count_nonzero(one), np.count_nonzero(other)))
    is_neck = length < _MIN_SEAM * width
    return float(np.median(sharpness[seam])) if both_stand and not is_neck else 0.0


def _without_specks(labels: np.ndarray, min_pixels: float) -> np.ndarray:
    sizes = np.bincount(labels.ravel())
    return np.where(sizes[labels] >= min_pixels, labels, 0)
