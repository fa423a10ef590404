# SPDX-License-Identifier: Apache-2.0
"""Where surfaces bend inwards or jump: bodies touch there, or parts of one body meet."""

import cv2
import numpy as np

from img2scene_ros.depth import measured
from img2scene_ros.detection.labelling import nearest_pixels
from img2scene_ros.detection.labelling import square
from img2scene_ros.detection.labelling import widened
from img2scene_ros.detection.labelling import windows_of
from img2scene_ros.detection.surfaces import surface_normals
from img2scene_ros.types import Frame

_REACH = 0.0075  # metres to either side over which bends and jumps are taken
_LEAST_PART = 0.01  # of a surface; smaller parts are not cut off
# A surface is cut where it bends inwards by more than so many degrees, or jumps by so many
# deviations of its depth, over so many pixels of every second row and column; fewer are noise.
_CUT_BEND, _CUT_JUMP, _LEAST_EDGE = 22.0, 2.5, 12
_HALF = np.s_[::2, ::2]


def cut_at_edges(
    labels: np.ndarray, frame: Frame, height: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """
    Cut surfaces along concave creases and jumps that cross them, found at half the size.

    :param labels: (H, W) int32 of surfaces, 0 = none
    :param height: (H, W) metres above the support
    :return: labels of parts, (H, W) int32, and the degrees by which surfaces bend inwards near
        every second pixel of every second row, (H / 2, W / 2) float32
    """
    coarse = labels[_HALF]
    if not coarse.any():
        return labels, np.zeros(coarse.shape, np.float32)
    distance = np.nanmedian(measured(frame.depth)[_HALF][coarse > 0])
    step = 2 * int(np.clip(round(_REACH * frame.camera.fx / distance / 2), 2, 20))
    bend, jump = _edges(frame, coarse, height[_HALF], step)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (step // 2 + 1,) * 2)
    cut = cv2.dilate((bend > _CUT_BEND).astype(np.uint8), disc) > 0
    cut = _without_specks(_connected(cut | (jump > _CUT_JUMP), 8), _LEAST_EDGE) > 0
    parts = _parts(labels, cut, 75 * (frame.shape[1] / 640) ** 2)
    return parts, cv2.dilate(bend, square(frame, 3))


def _parts(labels: np.ndarray, cut: np.ndarray, least: float) -> np.ndarray:
    """
    Label the parts that surfaces fall into where they are cut.

    :param labels: (H, W) int32 of surfaces, 0 = none
    :param cut: bool, at half the size
    :param least: pixels of a part, at half the size
    """
    coarse, split = labels[_HALF], labels.copy()
    for label, whole in windows_of(labels).items():
        rows, columns = (slice(part.start // 2, part.stop // 2 + 1) for part in whole)
        window = widened([(rows, columns)], 1, (coarse.shape[0], coarse.shape[1]))
        mask = coarse[window] == label
        if not cut[window][mask].any():
            continue
        cores = _connected(cv2.erode((mask & ~cut[window]).view(np.uint8), np.ones((3, 3))), 4)
        cores = _without_specks(cores, max(least, _LEAST_PART * np.count_nonzero(mask)))
        if len(np.unique(cores)) < 3:
            continue
        parts = cores.ravel()[nearest_pixels(cores)[0]]
        whole = np.s_[2 * window[0].start:2 * window[0].stop,
                      2 * window[1].start:2 * window[1].stop]
        mask = labels[whole] == label
        parts = parts.repeat(2, axis=0).repeat(2, axis=1)
        split[whole][mask] = split.max() + parts[:mask.shape[0], :mask.shape[1]][mask]
    return split


def _edges(
    frame: Frame, surfaces: np.ndarray, height: np.ndarray, step: int,
) -> tuple[np.ndarray, np.ndarray]:
    """
    Measure how surfaces go on from one side of a pixel to the other, at every second pixel.

    Of two tangent planes, that of each side, the other side lies above both where the surface
    bends inwards, and above one and as much below the other where it jumps.

    :param surfaces: labels of these pixels, 0 = none
    :param height: of these pixels, metres above the support
    :param step: pixels to either side, an even number
    :return: (H / 2, W / 2) float32 each, degrees by which the surface bends inwards, and by how
        many standard deviations of the depth it jumps
    """
    points = _smoothed_points(frame)
    normals = cv2.split(surface_normals(frame, max(2, step // 4 * 2), every=2))
    bend, jump = np.zeros_like(points[2]), np.zeros_like(points[2])
    for down, right in ((0, step // 2), (step // 2, 0)):
        one, middle, other = (
            np.s_[way * down:way * down - 2 * down or None,
                  way * right:way * right - 2 * right or None] for way in (0, 1, 2))
        across = [axis[other] - axis[one] for axis in points]
        length = np.sqrt(sum(axis * axis for axis in across))
        rise, fall = (sum(normal[end] * axis for normal, axis in zip(normals, across))
                      for end in (one, other))
        # Across a depth jump there is no surface to bend.
        reach = np.float32(8 * step / frame.camera.fx) * points[2][middle]
        angle = np.degrees(np.arcsin(np.clip(rise / length, -1.0, 1.0))
                           - np.arcsin(np.clip(fall / length, -1.0, 1.0)))
        angle[~(np.isfinite(angle) & (length < reach))] = 0.0
        np.maximum(bend[middle], angle, out=bend[middle])
        is_on = (surfaces[one] == surfaces[other]) & (surfaces[one] == surfaces[middle])
        off = np.minimum(np.abs(rise), np.abs(fall))
        off[~(is_on & (rise * fall > 0.0))] = 0.0
        np.maximum(jump[middle], off, out=jump[middle])
    # Everything meets its support in a crease; that one separates nothing.
    bend[(height < 0.02) | (surfaces == 0)] = 0.0
    jump /= frame.depth_std(measured(frame.depth)[_HALF])
    jump[~(np.isfinite(jump) & (surfaces > 0))] = 0.0
    return bend, jump


def _smoothed_points(frame: Frame) -> list[np.ndarray]:
    """Return x, y and z of every second pixel by the mean depth around it; NaN = no reading."""
    depth = measured(frame.depth)
    is_read = np.isfinite(depth)
    share, mean = (cv2.blur(image, (3, 3))[_HALF] for image in (
        is_read.astype(np.float32), np.where(is_read, depth, np.float32(0.0))))
    mean = np.where(is_read[_HALF], mean / np.maximum(share, 1e-3), np.float32(np.nan))
    return [axis * mean for axis in cv2.split(frame.camera.rays[_HALF])]


def _connected(pixels: np.ndarray, connectivity: int) -> np.ndarray:
    """Label connected pixels, (H, W) int32."""
    return cv2.connectedComponents(pixels.astype(np.uint8), connectivity=connectivity)[1]


def _without_specks(labels: np.ndarray, min_pixels: float) -> np.ndarray:
    sizes = np.bincount(labels.ravel())
    return np.where(sizes[labels] >= min_pixels, labels, 0)
