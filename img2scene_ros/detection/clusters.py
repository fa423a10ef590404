# SPDX-License-Identifier: Apache-2.0
"""
Single objects among the pixels above a support, by geometry alone.

Pixels are linked to their neighbours in the image where the surface goes on; linked ones are one
object. Two corrections follow: a sharp concave crease all along a seam separates objects that
touch and both reach down to the support; and parts that end at another part and hardly widen it,
seen from above, are joined to it (the inside of a mug, the neck of a bottle). So what is stacked
on something counts as part of it.
"""

from collections.abc import Sequence
from itertools import combinations

import cv2
import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist

from img2scene_ros.depth import measured
from img2scene_ros.detection.surfaces import Window
from img2scene_ros.detection.surfaces import linked_surfaces
from img2scene_ros.detection.surfaces import surface_normals
from img2scene_ros.types import Frame

# Set by hand; tests hold them to the recorded frames and to rendered bodies that touch.
_LINK_STEPS = (2, 4, 8)  # pixels over which holes are bridged
_CREASE_REACH = 0.0075  # metres to either side over which a surface's bend is taken
_CUT_CREASE = 22.0  # degrees; a surface is cut where it bends inwards by more
_SHARP_SEAM = 48.0  # degrees, median of a seam: bodies touch in sharper ones, fillets are softer
_MIN_SEAM = 0.6  # of the smaller body's width in the image; shorter seams are necks of one body
_MIN_PIXELS = 60  # solid pixels of a surface, at a picture width of 640
_SOLID = 0.95  # share of solid pixels; missing readings fray surfaces with less
# Of a cluster's pixels: seen by the network as objects at least, and as one of several objects.
_SEEN, _OWN = 0.3, 0.3
# Of an object's pixels that the network sees: in a cluster at least, for which it is one of
# several; in clusters at most, where it is one that geometry misses.
_WITHIN, _KNOWN = 0.5, 0.5
_HALF = np.s_[::2, ::2]
_OF_EACH = 1000  # pixels of a cluster, about, that tell how large and high it is
_STANDING_HEIGHT = 0.025  # metres above the support; what comes nearer stands on it


def clusters(frame: Frame, above: np.ndarray, height: np.ndarray, gap: float) -> np.ndarray:
    """
    Label the pixels of single objects.

    :param frame: with a support
    :param above: (H, W) bool, pixels clearly above the support
    :param height: (H, W) metres above the support, NaN = no reading
    :param gap: metres between two objects
    :return: (H, W) int, 0 = no object
    """
    solid = _opened(above)
    linked = _opened(above | _lines_unread(frame)) & above
    x, y, width, rows = cv2.boundingRect(linked.view(np.uint8))
    window = np.s_[y:y + rows, x:x + width]
    labels = np.zeros(frame.shape, np.int32)
    if not rows:
        return labels
    labels[window] = linked_surfaces(frame, linked[window], gap, _LINK_STEPS, window)
    labels = _without_fringes(labels, solid, frame)
    labels = _split_at_creases(labels, frame, height)
    return _floating_joined(labels, frame, height)


def agreed(labels: np.ndarray, instances: np.ndarray) -> np.ndarray:
    """
    Bring together what geometry and a network take for objects.

    A cluster that the network does not see is none: a flake of the support, the wall of a bin. One
    in which it sees several objects is those. What only the network sees, as flat things, is
    added. Where geometry sees a gap or a crease, things stay apart.

    :param labels: (H, W) int, clusters, 0 = no object
    :param instances: (H, W) int, of the network, 0 = no object
    :return: (H, W) int32
    """
    pixels = np.flatnonzero((labels > 0) | (instances > 0))
    ours, theirs = labels.ravel()[pixels], instances.ravel()[pixels]
    count, others = int(ours.max(initial=0)) + 1, int(theirs.max(initial=0)) + 1
    shared: np.ndarray = np.bincount(
        ours * others + theirs, minlength=count * others).reshape(count, others)
    areas = shared.sum(axis=1)
    is_seen = areas - shared[:, 0] > _SEEN * areas
    is_seen[0] = False
    result = np.zeros(labels.shape, np.int32)
    flat = result.ravel()
    flat[pixels] = np.where(is_seen[ours], ours, 0)
    sizes = shared.sum(axis=0)
    is_own = (shared > _OWN * areas[:, None]) & (shared > _WITHIN * sizes)
    is_own[:, 0] = False
    windows = windows_of(labels)
    for label in np.flatnonzero(is_seen & (is_own.sum(axis=1) > 1)):
        window = windows[label]
        mask = labels[window] == label
        parts = is_own[label][instances[window]] & mask
        nearest = _nearest_label(np.where(parts, instances[window], 0))
        result[window][mask] = count + nearest[mask]
    is_left = flat[pixels] == 0
    free = np.bincount(theirs[is_left], minlength=others) > (1.0 - _KNOWN) * sizes
    free[0] = False
    added = is_left & free[theirs]
    flat[pixels[added]] = count + others + theirs[added]
    return result


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
    pixels = np.flatnonzero(labels)
    own, is_solid = labels.ravel()[pixels], solid.ravel()[pixels]
    sizes = np.bincount(own)
    of_solid = np.bincount(own[is_solid], minlength=len(sizes))
    few = of_solid < _MIN_PIXELS * (frame.shape[1] / 640) ** 2
    is_rim = ~is_solid & (of_solid >= _SOLID * sizes)[own]
    own[few[own] | is_rim] = 0
    kept = np.zeros_like(labels)
    kept.ravel()[pixels] = own
    return kept


def _without_specks(labels: np.ndarray, min_pixels: float) -> np.ndarray:
    sizes = np.bincount(labels.ravel())
    return np.where(sizes[labels] >= min_pixels, labels, 0)


def _split_at_creases(labels: np.ndarray, frame: Frame, height: np.ndarray) -> np.ndarray:
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
        nearest = _nearest_label(cores)
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


def _nearest_label(labels: np.ndarray) -> np.ndarray:
    """Return the label that is nearest to every pixel."""
    _, nearest = cv2.distanceTransformWithLabels(
        (labels == 0).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    names = np.zeros(nearest.max() + 1, labels.dtype)
    names[nearest[labels > 0]] = labels[labels > 0]
    return names[nearest]


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


def _floating_joined(labels: np.ndarray, frame: Frame, height: np.ndarray) -> np.ndarray:
    """
    Join parts that cannot stand alone to the object they belong to.

    The inside of a mug, the lid of a can or the neck of a bottle is seen apart from the rest when
    the depth image has no readings between them. Such a part ends at the other one below, not on
    the support (or is but a sliver beside it). Seen from above it hardly widens the other one when
    it is as high; else it lies within its outline: what stands on something belongs to it.
    """
    labels, axes = labels.copy(), frame.supports[0].axes
    gap = len(square(frame, 15))
    windows = windows_of(labels)
    masks = {label: labels[window] == label for label, window in windows.items()}
    sizes = {label: np.count_nonzero(mask) for label, mask in masks.items()}
    some = {label: tuple(axis[::sizes[label] // _OF_EACH + 1] for axis in np.nonzero(mask))
            for label, mask in masks.items()}
    plans = {label: measured(frame.points)[windows[label]][pixels] @ axes.T
             for label, pixels in some.items()}
    heights = {label: height[windows[label]][pixels] for label, pixels in some.items()}
    outlines = {label: _outline(plan) for label, plan in plans.items()}
    tops = {label: np.percentile(part, 98) for label, part in heights.items()}
    ids = sorted(windows, key=lambda label: -sizes[label])
    for i, small in reversed(list(enumerate(ids))):
        for large in ids[:i]:
            if not _are_near(windows[small], windows[large], gap):
                continue
            window = widened([windows[small], windows[large]], gap, frame.shape)
            part, whole = (labels[window] == label for label in (small, large))
            if not _belong_together(part, whole, gap):
                continue
            is_level = abs(tops[small] - tops[large]) < 0.01 + 0.15 * max(
                tops[small], tops[large])
            joined = np.concatenate([outlines[small], outlines[large]])
            growth = pdist(joined).max() / max(
                pdist(outlines[label]).max() for label in (small, large))
            if growth < 1.25 if is_level else _share_inside(plans[small], outlines[large]) > 0.8:
                labels[window][part] = large
                windows[large] = widened([windows[small], windows[large]], 0, frame.shape)
                heights[large] = np.concatenate([heights[small], heights[large]])
                tops[large] = np.percentile(heights[large], 98)
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
