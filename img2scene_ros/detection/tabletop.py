# SPDX-License-Identifier: Apache-2.0
"""
Class-agnostic RGB-D detection: whatever stands on the support plane. Needs no weights.

Points above the plane are linked to their neighbours in the image where the surface goes on;
linked points are one object. Two corrections follow: a sharp concave crease all along a seam
separates objects that touch and both reach down to the support; and parts that end at another part
and hardly widen it, seen from above, are joined to it (the inside of a mug, the neck of a bottle).
So what is stacked on something counts as part of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import cv2
import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist

from img2scene_ros.depth import measured
from img2scene_ros.detection import bbox_of
from img2scene_ros.detection.supports import surface_normals
from img2scene_ros.detection.surfaces import Window
from img2scene_ros.detection.surfaces import heights_above
from img2scene_ros.detection.surfaces import linked_surfaces
from img2scene_ros.errors import InputError
from img2scene_ros.options import Options
from img2scene_ros.options import option
from img2scene_ros.types import UNNAMED
from img2scene_ros.types import Detection
from img2scene_ros.types import Frame
from img2scene_ros.types import SupportPlane

# Set by hand; tests hold them to the recorded frames and to rendered bodies that touch.
_LINK_STEPS = (2, 4, 8)  # pixels over which holes are bridged
_CREASE_REACH = 0.0075  # metres to either side over which a surface's bend is taken
_CUT_CREASE = 22.0  # degrees; a surface is cut where it bends inwards by more
_SHARP_SEAM = 48.0  # degrees, median of a seam: bodies touch in sharper ones, fillets are softer
_MIN_SEAM = 0.6  # of the smaller body's width in the image; shorter seams are necks of one body
_MIN_PIXELS = 60  # solid pixels of a surface, at a picture width of 640
_SOLID = 0.95  # share of solid pixels; missing readings fray surfaces with less
_STANDING_HEIGHT = 0.025  # metres above the support; what comes nearer stands on it
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
        labels = linked_surfaces(frame, _opened(above | _lines_unread(frame)) & above,
                                 self.options.gap, _LINK_STEPS)
        labels = _without_fringes(labels, _opened(above), frame)
        labels = _split_at_creases(labels, frame, height)
        labels = _floating_joined(labels, frame, support, height)
        found = [_filled(labels, label, window, frame, height, least)
                 for label, window in _windows(labels).items()]
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
        if not cv2.erode(mask.astype(np.uint8), _square(frame, 5)).any():
            return False
        readings = mask & np.isfinite(measured(frame.depth)[window])
        points = measured(frame.points)[window][readings]
        low, high = np.percentile(points, (1, 99), axis=0)
        if not self.options.min_size <= np.linalg.norm(high - low) <= self.options.max_size:
            return False
        is_over = _is_over(frame, support, points, height[window][readings], margin=-0.005)
        return bool(is_over.mean() > 0.4)


def _windows(labels: np.ndarray) -> dict[int, Window]:
    """Return the part of the picture that each label takes."""
    return {label: window for label, window in enumerate(ndimage.find_objects(labels), 1)
            if window is not None}


def _widened(windows: Sequence[Window], margin: int, shape: tuple[int, int]) -> Window:
    """Return the part of the picture that holds some others and what is around them."""
    rows, columns = (slice(max(0, min(part.start for part in parts) - margin),
                           min(size, max(part.stop for part in parts) + margin))
                     for parts, size in zip(zip(*windows), shape))
    return rows, columns


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


def _opened(pixels: np.ndarray) -> np.ndarray:
    """Return the pixels that are solid: part of a square of them; (H, W) bool."""
    return cv2.morphologyEx(pixels.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3))) > 0


def _lines_unread(frame: Frame) -> np.ndarray:
    """Return the pixels without a reading that form no patches, (H, W) bool."""
    unread = np.isnan(measured(frame.depth))
    return unread & ~_opened(unread)


def _without_fringes(labels: np.ndarray, solid: np.ndarray, frame: Frame) -> np.ndarray:
    """
    Drop surfaces with few solid pixels, and the rims of those that are solid but for them.

    Readings between an object and what is behind it fray its rim. Thin or far objects have
    missing readings all over instead, and what is not solid belongs to them.
    """
    sizes = np.bincount(labels.ravel())
    of_solid = np.bincount(labels[solid], minlength=len(sizes))
    few = of_solid < _MIN_PIXELS * (frame.shape[1] / 640) ** 2
    rim = ~solid & (of_solid >= _SOLID * sizes)[labels]
    return np.where(few[labels] | rim, 0, labels)


def _without_specks(labels: np.ndarray, min_pixels: float) -> np.ndarray:
    sizes = np.bincount(labels.ravel())
    return np.where(sizes[labels] >= min_pixels, labels, 0)


def _split_at_creases(labels: np.ndarray, frame: Frame, height: np.ndarray) -> np.ndarray:
    """Split surfaces that a sharp concave seam crosses from end to end."""
    if not labels.any():
        return labels
    pitch = np.nanmedian(measured(frame.depth)[labels > 0]) / frame.camera.fx
    step = int(np.clip(round(_CREASE_REACH / pitch), 3, 40))
    windows = _windows(labels)
    around = _widened(list(windows.values()), 2 * step, frame.shape)
    crease = np.zeros(frame.shape, np.float32)
    crease[around] = _crease_angles(frame, step, around)
    # Everything meets its support in a crease; that one separates nothing.
    crease[(height < 0.02) | (labels == 0)] = 0.0
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (step, step))
    cut = cv2.dilate((crease > _CUT_CREASE).astype(np.uint8), disc) > 0
    sharpness = cv2.dilate(crease, _square(frame, 7))
    split = labels.copy()
    for label, window in windows.items():
        window = _widened([window], 1, frame.shape)
        mask = labels[window] == label
        cores = cv2.erode((mask & ~cut[window]).astype(np.uint8), np.ones((3, 3)))
        _, cores = cv2.connectedComponents(cores, connectivity=4)
        cores = _without_specks(cores, max(300 * (frame.shape[1] / 640) ** 2, 0.08 * mask.sum()))
        if len(np.unique(cores)) < 3:
            continue
        parts = np.where(mask, _nearest_label(cores), 0)
        parts = _soft_seams_closed(parts, sharpness[window], height[window])
        split[window][mask] = split.max() + parts[mask]
    return split


def _square(frame: Frame, pixels: int) -> np.ndarray:
    """Return a kernel of that many pixels at a picture width of 640, of an odd size."""
    size = 2 * round(pixels * frame.shape[1] / 640 / 2 - 0.5) + 1
    return np.ones((max(3, size),) * 2, np.uint8)


def _crease_angles(frame: Frame, step: int, window: Window) -> np.ndarray:
    """Return by how many degrees the surface bends inwards at a window's pixels, float32."""
    points, depth = measured(frame.points)[window], measured(frame.depth)[window]
    normals = surface_normals(frame, max(2, step // 2), window)
    rows, columns = depth.shape
    crease = np.zeros(depth.shape, np.float32)
    for down, right in ((0, step), (step, 0)):
        one = np.s_[:rows - 2 * down, :columns - 2 * right]
        other = np.s_[2 * down:, 2 * right:]
        middle = np.s_[down:rows - down, right:columns - right]
        across = points[other] - points[one]
        length = np.sqrt(np.einsum('...i,...i', across, across))
        rise = [np.arcsin(np.clip(np.einsum('...i,...i', normals[end], across) / length, -1, 1))
                for end in (one, other)]
        # Across a depth jump there is no surface to bend.
        pitch = 2 * step * depth[middle] / frame.camera.fx
        angle = np.degrees(rise[0] - rise[1])
        angle[~(np.isfinite(angle) & (length < 4 * pitch))] = 0.0
        crease[middle] = np.maximum(crease[middle], angle)
    return crease


def _nearest_label(labels: np.ndarray) -> np.ndarray:
    nearest = ndimage.distance_transform_edt(
        labels == 0, return_distances=False, return_indices=True)
    return labels[tuple(nearest)]


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


def _floating_joined(
    labels: np.ndarray, frame: Frame, support: SupportPlane, height: np.ndarray,
) -> np.ndarray:
    """
    Join parts that cannot stand alone to the object they belong to.

    The inside of a mug, the lid of a can or the neck of a bottle is seen apart from the rest when
    the depth image has no readings between them. Such a part ends at the other one below, not on
    the support (or is but a sliver beside it). Seen from above it hardly widens the other one when
    it is as high; else it lies within its outline: what stands on something belongs to it.
    """
    labels, axes = labels.copy(), support.axes()
    gap = len(_square(frame, 15))
    windows = _windows(labels)
    masks = {label: labels[window] == label for label, window in windows.items()}
    plans = {label: measured(frame.points)[windows[label]][mask] @ axes.T
             for label, mask in masks.items()}
    heights = {label: height[windows[label]][mask] for label, mask in masks.items()}
    outlines = {label: _outline(plan) for label, plan in plans.items()}
    ids = sorted(windows, key=lambda label: -len(plans[label]))
    for i, small in reversed(list(enumerate(ids))):
        for large in ids[:i]:
            if not _are_near(windows[small], windows[large], gap):
                continue
            window = _widened([windows[small], windows[large]], gap, frame.shape)
            part, whole = (labels[window] == label for label in (small, large))
            if not _belong_together(part, whole, gap):
                continue
            tops = [np.percentile(heights[label], 98) for label in (small, large)]
            is_level = abs(tops[0] - tops[1]) < 0.01 + 0.15 * max(tops)
            joined = np.concatenate([outlines[small], outlines[large]])
            growth = pdist(joined).max() / max(
                pdist(outlines[label]).max() for label in (small, large))
            if growth < 1.25 if is_level else _share_inside(plans[small], outlines[large]) > 0.8:
                labels[window][part] = large
                windows[large] = _widened([windows[small], windows[large]], 0, frame.shape)
                heights[large] = np.concatenate([heights[small], heights[large]])
                plans[large] = np.concatenate([plans[small], plans[large]])
                outlines[large] = _outline(joined)
                break
    return labels


def _are_near(one: Window, other: Window, gap: int) -> bool:
    return all(part.start - gap <= of.stop and of.start - gap <= part.stop
               for part, of in zip(one, other))


def _belong_together(part: np.ndarray, whole: np.ndarray, gap: int) -> bool:
    if max(_share_ending_at(part, whole, gap), _share_ending_at(whole, part, gap)) > 0.6:
        return True
    beside = cv2.dilate(part.astype(np.uint8), np.ones((2 * gap + 1,) * 2)) > 0
    is_sliver = np.count_nonzero(part) < 0.1 * np.count_nonzero(whole)
    return is_sliver and bool((beside & whole).any())


def _share_inside(plan: np.ndarray, other: np.ndarray) -> float:
    """Return the share of points that lie in the convex outline of others, (N, 2) metres."""
    edges = ConvexHull(other, qhull_options='QJ').equations
    return float((plan @ edges[:, :2].T + edges[:, 2] < 0.005).all(axis=1).mean())


def _share_ending_at(part: np.ndarray, whole: np.ndarray, gap: int) -> float:
    """Return the share of a part's columns whose lower end has the other within `gap` pixels."""
    columns = np.flatnonzero(part.any(axis=0))
    ends = part.shape[0] - 1 - np.argmax(part[::-1, columns], axis=0)
    below = np.minimum(ends + 1 + np.arange(gap)[:, None], part.shape[0] - 1)
    return float(whole[below, columns].any(axis=0).mean())


def _outline(plan: np.ndarray) -> np.ndarray:
    """Return the corners of the convex outline of points, (N, 2) metres."""
    return plan[cv2.convexHull(plan.astype(np.float32), returnPoints=False)[:, 0]]


def _filled(
    labels: np.ndarray, label: int, window: Window, frame: Frame, height: np.ndarray,
    least_height: np.ndarray,
) -> tuple[np.ndarray, Window]:
    """
    Close pin holes, seams without readings, and holes that come down to the support.

    :return: the mask in a window, bool, and this
    """
    window = _widened([window], len(_square(frame, 43)), frame.shape)
    return _holes_filled(
        labels[window] == label, frame, height[window], least_height[window]), window


def _holes_filled(
    mask: np.ndarray, frame: Frame, height: np.ndarray, least_height: np.ndarray,
) -> np.ndarray:
    unread = np.isnan(height)
    mask = _closed(mask, _square(frame, 5))
    _, holes = cv2.connectedComponents((~mask).astype(np.uint8), connectivity=4)
    mask |= np.bincount(holes.ravel())[holes] < 4e-5 * frame.camera.width * frame.camera.height
    mask |= _without_holes(_closed(mask, _square(frame, 11))) & unread
    # The rim of a bowl may be broken where the depth image has no readings.
    near = cv2.dilate(mask.astype(np.uint8), _square(frame, 43)) > 0
    ring = _closed(mask | (unread & near), _square(frame, 19))
    count, gaps = cv2.connectedComponents(
        (_without_holes(ring) & ~ring).astype(np.uint8), connectivity=4)
    for gap in range(1, count):
        inside = gaps == gap
        around = cv2.dilate(inside.astype(np.uint8), _square(frame, 11)) > 0
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
