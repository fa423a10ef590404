# SPDX-License-Identifier: Apache-2.0
"""Class-agnostic RGB-D detection: whatever stands on the support plane."""

from dataclasses import dataclass

import cv2
import numpy as np

from img2scene_ros.depth import measured
from img2scene_ros.detection import bbox_of
from img2scene_ros.detection.clusters import clusters
from img2scene_ros.detection.clusters import square
from img2scene_ros.detection.clusters import widened
from img2scene_ros.detection.clusters import windows_of
from img2scene_ros.detection.surfaces import Window
from img2scene_ros.detection.surfaces import heights_above
from img2scene_ros.errors import InputError
from img2scene_ros.options import Options
from img2scene_ros.options import option
from img2scene_ros.types import UNNAMED
from img2scene_ros.types import Detection
from img2scene_ros.types import Frame
from img2scene_ros.types import SupportPlane

_DEVIATIONS = 3.0  # of bare support by which objects stand out of it


@dataclass(frozen=True)
class TabletopOptions(Options):
    """How `tabletop` separates objects from their support and from each other."""

    min_height: float = option(
        0.005, 'Least height of a point above the support plane, where noise allows [m]',
        low=0.001, high=0.2)
    max_height: float = option(
        1.3, 'Greatest height of a point above the support plane [m]', low=0.05, high=3.0)
    min_size: float = option(0.02, 'Least extent of an object [m]', low=0.005, high=1.0)
    max_size: float = option(
        1.2, 'Greatest extent of an object; larger things are walls [m]', low=0.05, high=5.0)
    max_distance: float = option(
        4.0, 'Greatest distance of an object along the optical axis [m]', low=0.2, high=20.0)
    gap: float = option(
        0.006, 'Distance between two objects; from afar that of three pixels, if it is '
        'more; noise comes on top [m]', low=0.001, high=0.1)
    max_detections: int = option(50, 'Greatest number of objects, largest first', low=1, high=500)


class TabletopDetector:
    """Finds the objects that stand on the support plane."""

    Options = TabletopOptions

    def __init__(self, options: TabletopOptions = TabletopOptions()) -> None:
        self.options = options

    def detect(self, frame: Frame, support: SupportPlane | None) -> list[Detection]:
        """
        Find the objects on the support plane, with masks, all labelled 'object'.

        :raises InputError: the frame has no depth
        """
        if frame.depth is None:
            raise InputError(
                "the detector 'tabletop' needs a depth image; give one or use the detector 'detr'")
        if support is None:
            return []
        height, noise = heights_above(frame, support)
        least = np.maximum(self.options.min_height, _DEVIATIONS * noise)
        above = self._above(frame, support, height, least)
        labels = clusters(frame, support, above, height, self.options.gap)
        found = [_filled(labels, label, window, frame, height, least)
                 for label, window in windows_of(labels).items()]
        found = [one for one in found if self._is_object(*one, frame, support, height)]
        found.sort(key=lambda one: np.count_nonzero(one[0]), reverse=True)
        return [_detection(*one, frame) for one in found[:self.options.max_detections]]

    def _above(
        self, frame: Frame, support: SupportPlane, height: np.ndarray, least: np.ndarray,
    ) -> np.ndarray:
        """Return the pixels clearly above the support, (H, W) bool."""
        above = ((height > least) & (height < self.options.max_height)
                 & (measured(frame.depth) < self.options.max_distance))
        above[above] = _is_over(
            frame, support, measured(frame.points)[above], height[above], margin=0.08)
        return above

    def _is_object(
        self, mask: np.ndarray, window: Window, frame: Frame, support: SupportPlane,
        height: np.ndarray,
    ) -> bool:
        if not cv2.erode(mask.astype(np.uint8), square(frame, 5)).any():
            return False
        readings = mask & np.isfinite(measured(frame.depth)[window])
        points = measured(frame.points)[window][readings]
        low, high = np.percentile(points, (1, 99), axis=0)
        if not self.options.min_size <= np.linalg.norm(high - low) <= self.options.max_size:
            return False
        is_over = _is_over(frame, support, points, height[window][readings], margin=-0.005)
        return bool(is_over.mean() > 0.4)


def _is_over(
    frame: Frame, support: SupportPlane, points: np.ndarray, height: np.ndarray, margin: float,
) -> np.ndarray:
    """
    Tell which points stand over the support, as far as it is seen or goes on unseen.

    The picture's lower border cuts the support off, not the objects that stand nearer: a foot
    below it counts where the support is seen at the border above it.

    :param points: (N, 3) metres
    :param height: (N,) metres, of the points
    """
    is_over = support.is_over(points, margin)
    beside = np.flatnonzero(~is_over)
    seen = frame.camera.project(points[beside] - height[beside, None] * support.normal)
    last = frame.shape[0] - 1
    is_below = seen[:, 1] > last - 1
    if is_below.any():
        rays = frame.camera.rays_at(
            np.column_stack([seen[is_below, 0], np.full(is_below.sum(), last)]))
        reach = -support.offset / (rays @ support.normal)
        is_over[beside[is_below]] = support.is_over(rays * reach[:, None], margin) & (reach > 0)
    return is_over


def _filled(
    labels: np.ndarray, label: int, window: Window, frame: Frame, height: np.ndarray,
    least_height: np.ndarray,
) -> tuple[np.ndarray, Window]:
    """
    Close pin holes, seams without readings, and holes that come down to the support.

    :return: the mask in a window, bool, and this
    """
    window = widened([window], len(square(frame, 43)), frame.shape)
    return _holes_filled(
        labels[window] == label, frame, height[window], least_height[window]), window


def _holes_filled(
    mask: np.ndarray, frame: Frame, height: np.ndarray, least_height: np.ndarray,
) -> np.ndarray:
    unread = np.isnan(height)
    mask = _closed(mask, square(frame, 5))
    _, holes = cv2.connectedComponents((~mask).astype(np.uint8), connectivity=4)
    mask |= np.bincount(holes.ravel())[holes] < 4e-5 * frame.camera.width * frame.camera.height
    mask |= _without_holes(_closed(mask, square(frame, 11))) & unread
    # The rim of a bowl may be broken where the depth image has no readings.
    near = cv2.dilate(mask.astype(np.uint8), square(frame, 43)) > 0
    ring = _closed(mask | (unread & near), square(frame, 19))
    count, gaps = cv2.connectedComponents(
        (_without_holes(ring) & ~ring).astype(np.uint8), connectivity=4)
    for gap in range(1, count):
        inside = gaps == gap
        around = cv2.dilate(inside.astype(np.uint8), square(frame, 11)) > 0
        rim = height[around & mask & ~unread]
        drop = np.percentile(rim, 10) - np.nanmedian(height[inside]) if rim.size else 0.0
        if drop < np.nanmedian(least_height[around]):
            mask |= around & ring | inside
    return mask


def _without_holes(mask: np.ndarray) -> np.ndarray:
    """Fill what is not connected to the outside, (H, W) bool."""
    background = cv2.copyMakeBorder(
        (~mask).astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=1)
    _, parts = cv2.connectedComponents(background, connectivity=4)
    return parts[1:-1, 1:-1] != parts[0, 0]


def _closed(mask: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    return cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, kernel) > 0


def _detection(part: np.ndarray, window: Window, frame: Frame) -> Detection:
    """Score an object by its share of pixels with a reading, less when it has few pixels."""
    readings = np.count_nonzero(part & np.isfinite(measured(frame.depth)[window]))
    score = readings / np.count_nonzero(part) * readings / (readings + 200.0)
    mask = np.zeros(frame.shape, bool)
    mask[window] = part
    return Detection(UNNAMED, float(score), bbox_of(mask), mask)


BACKEND = TabletopDetector
