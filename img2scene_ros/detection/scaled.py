# SPDX-License-Identifier: Apache-2.0
"""
Large pictures: what is costly is done in every second, third ... row and column of them.

Objects are found in the reduced frame, and the edges of their masks at full resolution.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import cv2
import numpy as np

from img2scene_ros.camera import Camera
from img2scene_ros.depth import measured
from img2scene_ros.types import Detection
from img2scene_ros.types import Frame

_JUMP = 0.01  # share of the depth between two sides of an edge from which depth tells where it is
_REACH = 5  # reduced pixels across, over which the depth of a side is averaged


def reduced(frame: Frame, pixels: int = 640 * 480) -> tuple[Frame, int]:
    """
    Return a frame with depth that has few pixels, and of how many rows and columns it shows one.

    Readings are those of the frame, none are averaged; colours are.

    :param pixels: how many it has, about
    """
    height, width = frame.shape
    step = max(1, round(np.sqrt(height * width / pixels)))
    if frame.depth is None or step == 1:
        return frame, 1
    return _every(step, frame), step


@lru_cache(maxsize=2)
def _every(step: int, frame: Frame) -> Frame:
    """Reduce a frame; several stages look at it, and at a smaller one for networks."""
    camera, first = _reduced_camera(frame.camera, step), step // 2
    part = np.s_[first:first + camera.height * step:step, first:first + camera.width * step:step]
    color = cv2.resize(frame.color[:camera.height * step, :camera.width * step],
                       (camera.width, camera.height), interpolation=cv2.INTER_AREA)
    noise = replace(frame.depth_noise, disparity_std=frame.depth_noise.disparity_std / step)
    return replace(
        frame, color=color, camera=camera, depth=measured(frame.depth)[part].copy(),
        depth_noise=noise,
        robot=None if frame.robot is None else frame.robot[part].copy())


@lru_cache(maxsize=4)
def _reduced_camera(camera: Camera, step: int) -> Camera:
    """Return the camera of the middle one of so many rows and columns, with its rays."""
    first = step // 2
    return camera.cropped(
        first, first, camera.width // step * step, camera.height // step * step).binned(step, step)


def reduced_detection(one: Detection, frame: Frame, small: Frame) -> Detection:
    """Return a detection of a frame in the pixels of the reduced frame."""
    (height, width), step = small.shape, frame.shape[0] // small.shape[0]
    part = np.s_[step // 2::step, step // 2::step]
    mask = None if one.mask is None else one.mask[part][:height, :width].copy()
    return replace(
        one, bbox=np.minimum(one.bbox / step, (width, height, width, height)), mask=mask)


def enlarged(
    detections: Sequence[Detection], small: Frame, frame: Frame, step: int,
) -> list[Detection]:
    """Return detections of a frame reduced by a step in the pixels of the frame itself."""
    return list(detections) if step == 1 else [
        _enlarged(one, small, frame, step) for one in detections]


def _enlarged(one: Detection, small: Frame, frame: Frame, step: int) -> Detection:
    size, full = np.array(small.shape[::-1]), np.array(frame.shape[::-1])
    ends = np.where(one.bbox[2:] >= size, full, one.bbox[2:] * step)  # rows may be left over
    bbox = np.concatenate([one.bbox[:2] * step, ends])
    if one.mask is None or not one.mask.any():
        return replace(one, bbox=bbox, mask=None)
    x, y, width, height = cv2.boundingRect(one.mask.view(np.uint8))
    left, top = max(x - 1, 0), max(y - 1, 0)
    right, bottom = np.minimum((x + width + 1, y + height + 1), size)
    window = np.s_[top:bottom, left:right]
    whole = np.s_[top * step:bottom * step, left * step:right * step]
    mask = np.zeros(frame.shape, bool)
    mask[whole] = _enlarged_mask(
        one.mask[window], measured(small.depth)[window], measured(frame.depth)[whole], step)
    mask[size[1] * step:] = mask[size[1] * step - 1]
    mask[:, size[0] * step:] = mask[:, size[0] * step - 1:size[0] * step]
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    if not width:
        return replace(one, bbox=bbox, mask=None)
    return replace(one, bbox=np.array([x, y, x + width, y + height], float), mask=mask)


def _enlarged_mask(
    mask: np.ndarray, depth: np.ndarray, full_depth: np.ndarray, step: int,
) -> np.ndarray:
    """
    Enlarge a mask; its edge runs along the jump of the depth, or smoothly where there is none.

    :param mask: (h, w) bool
    :param depth: (h, w) metres
    :param full_depth: (h step, w step) metres
    """
    share = cv2.resize(
        mask * np.uint8(255), full_depth.shape[::-1], interpolation=cv2.INTER_LINEAR)
    large = share > 127
    rows, columns = np.nonzero((share > 0) & (share < 255))
    own = full_depth[rows, columns]
    inside, outside = (_mean_depth(depth, side)[rows // step, columns // step]
                       for side in (mask, ~mask))
    told = np.abs(inside - outside) > _JUMP * own  # not where something has no readings
    is_inside = np.abs(own - inside) < np.abs(own - outside)
    large[rows[told], columns[told]] = is_inside[told]
    return large


def _mean_depth(depth: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Return the mean depth of some pixels around each, (h, w); NaN where there are none."""
    read = (pixels & np.isfinite(depth)).astype(np.float32)
    total, count = (cv2.blur(image, (_REACH, _REACH), borderType=cv2.BORDER_CONSTANT)
                    for image in (np.where(read > 0, depth, np.float32(0.0)), read))
    return np.where(count > 1e-3, total / np.maximum(count, 1e-3), np.float32(np.nan))
