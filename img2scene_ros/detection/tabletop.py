# SPDX-License-Identifier: Apache-2.0
"""Class-agnostic RGB-D detection: whatever stands on the support plane."""

import logging
from dataclasses import dataclass

import cv2
import numpy as np

from img2scene_ros.depth import measured
from img2scene_ros.detection import bbox_of
from img2scene_ros.detection.clusters import clusters
from img2scene_ros.detection.held import Held
from img2scene_ros.detection.instance_masks import InstanceSegmenter
from img2scene_ros.detection.instance_masks import Segmentation
from img2scene_ros.detection.labelling import Window
from img2scene_ros.detection.labelling import square
from img2scene_ros.detection.labelling import widened
from img2scene_ros.detection.labelling import windows_of
from img2scene_ros.detection.scaled import enlarged
from img2scene_ros.detection.scaled import reduced
from img2scene_ros.detection.standing import hides_its_foot
from img2scene_ros.detection.standing import holds_up
from img2scene_ros.detection.standing import is_over
from img2scene_ros.detection.standing import sample
from img2scene_ros.detection.standing import stands_over
from img2scene_ros.detection.standing import surrounds
from img2scene_ros.detection.surfaces import Heights
from img2scene_ros.detection.surfaces import heights_above_supports
from img2scene_ros.detection.surfaces import support_numbers
from img2scene_ros.devices import device_option
from img2scene_ros.errors import InputError
from img2scene_ros.errors import MissingDependencyError
from img2scene_ros.options import Options
from img2scene_ros.options import option
from img2scene_ros.types import UNNAMED
from img2scene_ros.types import Detection
from img2scene_ros.types import Frame
from img2scene_ros.weights import weights_folder

_LOGGER = logging.getLogger(__name__)
_DEVIATIONS = 3.0  # of bare support by which objects stand out of it
# What was found holds for so many frames or seconds, while no larger share of the readings changes
# by so many standard deviations, and the support by no more than this [m, cosine of the tilt].
_HELD, _HELD_SECONDS, _FLICKER, _MOVED = 10, 1.0, 0.003, 6.0
_SHIFT, _TILT, _EIGHTH = 0.003, np.cos(np.radians(0.5)), np.s_[::8, ::8]
# Of an object, and of each of its parts in the picture, 640 pixels wide; fewer are mostly noise.
_LEAST_READINGS, _CRUMB = 200, 60
# Logistic regression of what `evidence` returns, without and with a network, on the objects found
# in 160 rendered scenes (benchmarks/scores.py); real frames have too few false ones.
_WEIGHTS = {5: np.array([-7.88, 0.5, 0.54, 1.93, 2.42]),
            7: np.array([-8.64, 1.51, 0.27, 1.38, 1.0, 3.4, 2.92])}
_FLAT = 1.5  # deviations that most of something flat stands out at least
# Share of an object that is over a support as far as that is seen, and, if the object itself hides
# it, as far as it may go on.
_STANDING, _HIDDEN = 0.4, 0.8
_FURNITURE = 2.0  # times as large as other things may be what the network sees as one object, too
# Deviations of bare support within which readings are taken for it, and twice the pixels over
# which the network may see it as an object, at a picture width of 640.
_BARE, _SKIRT = 2.0, 25


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
        6.0, 'Greatest distance of an object along the optical axis [m]', low=0.2, high=20.0)
    gap: float = option(
        0.006, 'Distance between two objects; from afar that of three pixels, if it is '
        'more; noise comes on top [m]', low=0.001, high=0.1)
    max_detections: int = option(50, 'Greatest number of objects, largest first', low=1, high=500)
    min_score: float = option(
        0.3, 'Least probability that what is found is one object', low=0.0, high=1.0)
    network: str = option(
        'bundled', "What tells objects apart: 'bundled' (the network that comes with the package; "
        "where torch is missing, geometry), 'none' (geometry alone: gaps and creases) or the "
        'folder of a network', read_only=True)
    device: str = device_option()


class _HeldOnSupport(Held[list[Detection]]):
    """What was found on a support: readings and the support have to stay the same, too."""

    def __init__(self, frame: Frame, options: TabletopOptions, found: list[Detection]) -> None:
        super().__init__(frame, found)
        self._depth = measured(frame.depth)[_EIGHTH].copy()
        self._support, self._options = frame.supports[0], options

    def holds_on(self, frame: Frame, options: TabletopOptions) -> bool:
        """Tell whether it holds for one more frame, as `holds`."""
        if options is not self._options or not self.holds(frame, _HELD, _HELD_SECONDS):
            return False
        support = frame.supports[0]
        off = np.abs(measured(frame.depth)[_EIGHTH] - self._depth)
        known = off[np.isfinite(off)]
        moved = np.count_nonzero(off > _MOVED * frame.depth_std(self._depth))
        return bool(moved <= _FLICKER * len(known)
                    and abs(support.offset - self._support.offset) < _SHIFT
                    and support.normal @ self._support.normal > _TILT)


class TabletopDetector:
    """
    Finds the objects that stand on the support plane.

    - network: what tells them apart; None is geometry alone

    :raises InputError: the network's weights are damaged or another network's
    :raises OptionError: a device that is not there
    """

    Options = TabletopOptions

    def __init__(self, options: TabletopOptions = TabletopOptions()) -> None:
        self.options = options
        self.network = _network(options)
        self._held: _HeldOnSupport | None = None

    def detect(self, frame: Frame) -> list[Detection]:
        """
        Find the objects on the supports, with masks, all labelled 'object'.

        :raises InputError: the frame has no depth
        """
        if frame.depth is None:
            raise InputError(
                "the detector 'tabletop' needs a depth image; give one or use the detector 'detr'")
        if not frame.supports:
            return []
        small, step = reduced(frame)
        if step > 1:
            return enlarged(self.detect(small), small, frame, step)
        held = self._held
        if held is None or not held.holds_on(frame, self.options):
            self._held = held = _HeldOnSupport(frame, self.options, self._found(frame))
        return list(held.found)

    def _found(self, frame: Frame) -> list[Detection]:
        number = support_numbers(frame)
        seen = None if self.network is None else self.network.see(frame, number)
        heights = heights_above_supports(
            frame, number, None if seen is None else seen.probability < 0.5)
        least = np.maximum(self.options.min_height, _DEVIATIONS * heights.noise)
        pixels = heights.height > least
        if seen is not None:
            pixels = pixels | (seen.probability > 0.5)
        pixels = self._in_reach(frame, heights, pixels, seen)
        labels = clusters(frame, pixels, heights.height, self.options.gap, seen)
        _without_bare(labels, heights, square(frame, _SKIRT))
        found = []
        for label, window in windows_of(labels).items():
            one = _filled(labels, label, window, frame, heights.height, least)
            if not _is_shown(*one, frame):
                continue
            known = evidence(*one, frame, heights, seen)
            if self._is_object(*one, frame, heights, known) and not holds_up(
                    *one, frame, heights.number):
                found.append((*one, known))
        parts = [(mask, window) for mask, window, _ in found]
        found = [one for one in found if not surrounds(*one[:2], parts)]
        found.sort(key=lambda one: np.count_nonzero(one[0]), reverse=True)
        detections = [_detection(mask, window, frame, known)
                      for mask, window, known in found[:self.options.max_detections]]
        return [one for one in detections if one.score >= self.options.min_score]

    def _in_reach(
        self, frame: Frame, heights: Heights, pixels: np.ndarray, seen: Segmentation | None,
    ) -> np.ndarray:
        """Return those of the pixels that are near enough and may be over a support, (H, W)."""
        in_reach = (pixels & (heights.height < self.options.max_height)
                    & (measured(frame.depth) < self.options.max_distance))
        first = np.flatnonzero(in_reach & (heights.number == 0))  # all others are over theirs
        points = measured(frame.points).reshape(-1, 3).take(first, axis=0)
        may_stand = is_over(frame, points, heights.height.ravel()[first], margin=0.08)
        if seen is not None:
            may_stand |= seen.probability.ravel()[first] > 0.5
        in_reach.ravel()[first] = may_stand
        return in_reach

    def _is_object(
        self, mask: np.ndarray, window: Window, frame: Frame, heights: Heights,
        known: np.ndarray,
    ) -> bool:
        """Tell by its `evidence` whether a mask is of an object's size and stands on a support."""
        _, _, _, standing, _, *by_network = known
        probability, overlap = by_network or (0.0, 0.0)
        some = sample(mask & np.isfinite(heights.height[window]))
        points = measured(frame.points)[window][some]
        low, high = np.percentile(points, (1, 99), axis=0)
        size = float(np.linalg.norm(high - low))
        largest = self.options.max_size * (_FURNITURE if overlap > 0.5 else 1.0)
        if not self.options.min_size <= size <= largest:
            return False
        if standing > _STANDING:
            return True
        height, noise = heights.height[window][some], heights.noise[window][some]
        if probability < 0.5 or np.percentile(height / noise, 5) < -_DEVIATIONS:
            return False
        stands = stands_over(frame, heights, window, some)
        stands |= hides_its_foot(mask, window, frame, points, height, size)
        return bool(stands.mean() > _HIDDEN)


def _is_shown(mask: np.ndarray, window: Window, frame: Frame) -> bool:
    """Tell whether enough of a mask is read, and in one place."""
    readings = np.count_nonzero(mask & np.isfinite(measured(frame.depth)[window]))
    return bool(readings >= _LEAST_READINGS * (frame.shape[1] / 640) ** 2
                and cv2.erode(mask.astype(np.uint8), square(frame, 5)).any())


def _without_bare(labels: np.ndarray, heights: Heights, skirt: np.ndarray) -> None:
    """
    Take from objects the support beside their feet, and those that are all support.

    The network's edges are not exact; the bottom of a bowl may be as low as its support. What is
    flat is so all over, but most of it higher; paint is not.

    :param skirt: kernel, as wide as what is seen as an object beside one, twice
    """
    deviations = heights.height / heights.noise
    bare = np.abs(deviations) < _BARE
    areas = np.bincount(labels.ravel())
    is_flat = np.bincount(labels[bare], minlength=len(areas)) > 0.5 * areas
    is_around = (labels == 0) & np.isfinite(heights.height)
    is_inside = cv2.dilate(is_around.view(np.uint8), skirt) == 0
    labels[bare & ~is_flat[labels] & ~is_inside] = 0
    for label in np.flatnonzero(is_flat[1:]) + 1:
        mask = labels == label
        if np.nanmedian(deviations[mask]) < _FLAT:
            labels[mask & ~(deviations >= _BARE)] = 0


def _network(options: TabletopOptions) -> InstanceSegmenter | None:
    """Load the network; None where it is not wanted, or its packages are missing."""
    if options.network == 'none':
        return None
    try:
        return InstanceSegmenter(weights_folder(options.network, 'instances'), options.device)
    except MissingDependencyError as error:
        _LOGGER.debug("'tabletop' tells objects apart by geometry alone, because %s", error)
        return None


def _filled(
    labels: np.ndarray, label: int, window: Window, frame: Frame, height: np.ndarray,
    least_height: np.ndarray,
) -> tuple[np.ndarray, Window]:
    """
    Leave crumbs out; close pin holes, seams without readings, and holes down to the support.

    :return: the mask in a window, bool, and this
    """
    window = widened([window], len(square(frame, 43)), frame.shape)
    mask = _without_crumbs(labels[window] == label, frame)
    return _holes_filled(mask, frame, height[window], least_height[window]), window


def _without_crumbs(mask: np.ndarray, frame: Frame) -> np.ndarray:
    _, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    return mask & (stats[:, cv2.CC_STAT_AREA] >= _CRUMB * (frame.shape[1] / 640) ** 2)[parts]


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
    outline = mask | (unread & near)
    ring = _closed(outline, square(frame, 19))
    holes = ((_without_holes(outline) & ~outline) | (_without_holes(ring) & ~ring)) & ~unread
    count, gaps = cv2.connectedComponents(holes.astype(np.uint8), connectivity=4)
    for gap in range(1, count):
        inside = gaps == gap
        around = cv2.dilate(inside.astype(np.uint8), square(frame, 11)) > 0
        rim = height[around & mask & ~unread]
        drop = np.percentile(rim, 10) - np.median(height[inside]) if rim.size else 0.0
        if drop < np.median(least_height[inside]):
            mask |= inside
    return mask | _without_holes(_closed(mask, square(frame, 11))) & unread


def _without_holes(mask: np.ndarray) -> np.ndarray:
    """Fill what is not connected to the outside, (H, W) bool."""
    background = cv2.copyMakeBorder(
        (~mask).astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=1)
    _, parts = cv2.connectedComponents(background, connectivity=4)
    return parts[1:-1, 1:-1] != parts[0, 0]


def _closed(mask: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    return cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, kernel) > 0


def evidence(
    mask: np.ndarray, window: Window, frame: Frame, heights: Heights, seen: Segmentation | None,
) -> np.ndarray:
    """
    Return what tells whether a mask is one object, for its score.

    :param mask: bool, in the window; some of it is read
    :param seen: by a network; None without one
    :return: 1, share of pixels with readings, logarithm of their number; the share of them that
        stands over the seen part of a support; the share of its convex hull in the picture that
        it fills; with a network its mean probability, and the IoU with the object that it sees
        most of there
    """
    is_read = mask & np.isfinite(heights.height[window])
    area, readings = np.count_nonzero(mask), np.count_nonzero(is_read)
    stands = stands_over(frame, heights, window, sample(is_read))
    hull = cv2.convexHull(np.stack(np.nonzero(mask)[::-1], axis=1).astype(np.int32))
    values = [1.0, readings / area, np.log(readings + 1.0), float(stands.mean()),
              min(1.0, area / max(cv2.contourArea(hull), 1.0))]
    if seen is not None:
        values += [float(seen.probability[window][mask].mean()),
                   _overlap_with_seen(mask, window, seen)]
    return np.array(values)


def _overlap_with_seen(mask: np.ndarray, window: Window, seen: Segmentation) -> float:
    """Return the IoU of a mask with what the network sees as one object there."""
    shared = np.bincount(seen.instances[window][mask])
    shared[0] = 0
    if not shared.any():
        return 0.0
    both, whole = shared.max(), np.count_nonzero(seen.instances == shared.argmax())
    return float(both / (np.count_nonzero(mask) + whole - both))


def _detection(
    part: np.ndarray, window: Window, frame: Frame, found: np.ndarray,
) -> Detection:
    """Make a detection whose score is the probability that it is one object."""
    mask = np.zeros(frame.shape, bool)
    mask[window] = part
    score = float(1.0 / (1.0 + np.exp(-_WEIGHTS[len(found)] @ found)))
    return Detection(UNNAMED, score, bbox_of(mask), mask)


BACKEND = TabletopDetector
