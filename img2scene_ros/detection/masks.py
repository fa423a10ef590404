# SPDX-License-Identifier: Apache-2.0
"""Segmentation of an object in its box: by the depth image, or by colour where there is none."""

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import replace
from weakref import WeakKeyDictionary

import cv2
import numpy as np

from img2scene_ros.depth import measured
from img2scene_ros.detection import bbox_of
from img2scene_ros.detection import box_iou
from img2scene_ros.detection.held import Held
from img2scene_ros.detection.scaled import enlarged
from img2scene_ros.detection.scaled import reduced
from img2scene_ros.detection.scaled import reduced_detection
from img2scene_ros.detection.surfaces import linked_surfaces
from img2scene_ros.types import UNNAMED
from img2scene_ros.types import Detection
from img2scene_ros.types import Frame
from img2scene_ros.types import Sighting

# From depth; set by hand, tests hold them to the recorded frames.
_AROUND = 0.5  # surroundings of a box that are compared with it, in its sides
_GAP = 0.006  # metres between two surfaces, as of `tabletop`
_LINK_STEPS = (2,)  # pixels to the neighbours that a surface goes on to, besides the next ones
_SURFACE_INSIDE = 0.7  # least share of an object's surface that is in its box
_PATCH_INSIDE = 0.8  # and of a black patch without readings
_LEAST_PATCH = 0.1  # of the box
_DARK = 50  # brightness of 255 below which a pixel is black
_LEAST_READINGS = 20  # in a box, and on the object's surfaces
_LEAST_LEFT = 0.2  # of the box's readings; where surfaces leave fewer, all readings are taken
_SPECK = 0.02  # of the object; surfaces that are a smaller share are specks
# Unread pixels of the box per reading of the mask, times the share of the box that the mask does
# not span, from which colour tells more than depth; at most 0.2 in the recorded frames.
_MOST_UNREAD = 0.5
_LEAST_SPAN = 0.3  # of the box, by the box around a mask; what spans less is a part of the object

# From colour; set by hand, tests hold them to the recorded frames.
_SURROUNDINGS = 0.25  # of a box that GrabCut compares with it, in its sides
_LONGEST_SIDE = 128  # pixels of the picture that it works on
_ITERATIONS = 3
_LEAST_FILLED, _MOST_FILLED = 0.3, 0.97  # of the box; outside of that colour separates nothing
_UNSURE = 5  # pixels from a mask's edge up to which it may be wrong
_LONGEST_SIDE_OF_MASK = 256  # pixels of the picture that a mask's edge is corrected on

# Both the vertices and the texture of an object need its colours: the mask is made once.
_COLORED: WeakKeyDictionary[Sighting, np.ndarray] = WeakKeyDictionary()
# Masks of boxes are kept while these look the same; boxes with this IoU are of the same thing.
_HELD: WeakKeyDictionary[Detection, Held[np.ndarray | None]] = WeakKeyDictionary()
_SAME_BOX = 0.9


def held_mask(frame: Frame, detection: Detection) -> np.ndarray | None:
    """Return the `object_mask` of a detection's box, anew only where the picture changes there."""
    held = _HELD.get(detection)
    if held is None or not held.looks_same(frame, detection.bbox):
        mask = object_mask(frame, detection.bbox)
        _HELD[detection] = held = Held(frame, mask)
    return held.found


def keep_masks(detections: Sequence[Detection], before: Sequence[Detection]) -> None:
    """Let detections have the masks of earlier ones in the same place, while it looks the same."""
    before = [one for one in before if one in _HELD]
    if not before or not detections:
        return
    overlaps = box_iou(*(np.array([one.bbox for one in some]) for some in (detections, before)))
    for one, row in zip(detections, overlaps):
        if row.max() > _SAME_BOX:
            _HELD[one] = _HELD[before[int(row.argmax())]]


def object_mask(frame: Frame, bbox: np.ndarray) -> np.ndarray | None:
    """
    Segment the object in its box: by depth, or by colour where depth shows too little of it.

    Glass and black plastic have hardly any readings; those in their box are of something else.

    :param bbox: (4,) xmin, ymin, xmax, ymax in pixels
    :return: (H, W) bool; None when neither separates the object from its surroundings
    """
    small, step = reduced(frame)
    if step > 1:
        there = reduced_detection(Detection(UNNAMED, 0.0, bbox), frame, small)
        there = replace(there, mask=object_mask(small, there.bbox))
        return enlarged([there], small, frame, step)[0].mask
    mask, box, span = mask_from_depth(frame, bbox), _window(bbox, frame.shape), 0.0
    if mask is not None and mask.any():
        unread, inside = np.isnan(measured(frame.depth)[box]), mask[box]
        span = np.prod(np.ptp(np.nonzero(inside), axis=1) + 1) / inside.size
        missed = np.count_nonzero(unread & ~inside) * (1.0 - span)
        if missed <= _MOST_UNREAD * np.count_nonzero(inside & ~unread):
            return mask if span >= _LEAST_SPAN else None
    colored = mask_from_color(frame, bbox)
    return mask if colored is None and span >= _LEAST_SPAN else colored


def mask_from_depth(frame: Frame, bbox: np.ndarray) -> np.ndarray | None:
    """
    Segment the object in its box: what is off the support, at the depth of the box's middle.

    Surfaces that lie mostly outside of the box are something else, such as a wall or a table in
    front; a wall stays where the box holds most of it. Of the others the depth layer that holds
    most of the box's middle is taken, and those that follow on it closer than half the object's
    width, so that the far wall of a bowl belongs to it and the background does not. Black patches
    without readings are parts of the object when they lie in its box: black things have few
    readings.

    :param bbox: (4,) xmin, ymin, xmax, ymax in pixels
    :return: (H, W) bool; None when the box holds too few readings
    """
    if not frame.has_depth:
        return None
    box, around = _window(bbox, frame.shape), _window(bbox, frame.shape, _AROUND)
    inner = _relative(box, around)
    depth = measured(frame.depth)[around]
    solid = np.isfinite(depth)
    if frame.support is not None:
        height = frame.support.height(measured(frame.points)[around])
        solid &= height > 3.0 * frame.depth_std(depth)
    count = np.count_nonzero(solid[inner])
    if count < _LEAST_READINGS:
        return None
    surfaces = linked_surfaces(frame, solid, _GAP, _LINK_STEPS, around)
    own = _mostly_in(inner, surfaces, _SURFACE_INSIDE)
    if np.count_nonzero(own) < max(_LEAST_READINGS, _LEAST_LEFT * count):
        own = solid[inner]
    own = _layer(frame, bbox, own)
    own = _without_specks(own, surfaces[inner])
    own = cv2.morphologyEx(own.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5))) > 0
    is_dark = cv2.cvtColor(frame.color[around], cv2.COLOR_RGB2GRAY) < _DARK
    black = _patches(np.isnan(depth) & is_dark, _LEAST_PATCH * own.size)
    mask = np.zeros(frame.shape, bool)
    mask[box] = own | _mostly_in(inner, black, _PATCH_INSIDE)
    return mask


def _window(bbox: np.ndarray, shape: tuple[int, int], margin: float = 0.0) -> tuple[slice, slice]:
    """Return the pixels of a box that is widened at every edge by a share of its sides."""
    sides = margin * (bbox[2:] - bbox[:2])
    xmin, ymin = np.clip(np.floor(bbox[:2] - sides).astype(int), 0, shape[::-1])
    xmax, ymax = np.clip(np.ceil(bbox[2:] + sides).astype(int), 0, shape[::-1])
    return np.s_[ymin:ymax, xmin:xmax]


def _relative(window: tuple[slice, slice], whole: tuple[slice, slice]) -> tuple[slice, slice]:
    """Return where a window lies within a larger one."""
    rows, columns = (slice(part.start - of.start, part.stop - of.start)
                     for part, of in zip(window, whole))
    return rows, columns


def _mostly_in(window: tuple[slice, slice], labels: np.ndarray, least: float) -> np.ndarray:
    """
    Return the pixels in a window whose component has at least a share of its pixels there.

    :param labels: int, components, 0 = none
    :return: bool, as large as the window
    """
    sizes = np.bincount(labels.ravel())
    inside = np.bincount(labels[window].ravel(), minlength=len(sizes))
    is_in = inside >= least * sizes
    is_in[0] = False
    return is_in[labels[window]]


def _without_specks(mask: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Drop the components that are too small a share of a mask, unless all are."""
    sizes = np.bincount(labels[mask])
    kept = mask.copy()
    kept[mask] = sizes[labels[mask]] > min(_SPECK * sizes.sum(), sizes.max() - 1)
    return kept


def _patches(pixels: np.ndarray, least: float) -> np.ndarray:
    """Label patches of at least so many pixels; lines, as along edges of depth, are none."""
    wide = cv2.morphologyEx(pixels.astype(np.uint8), cv2.MORPH_OPEN, np.ones((5, 5)))
    labels = cv2.connectedComponents(wide, connectivity=4)[1]
    return np.where(np.bincount(labels.ravel())[labels] >= least, labels, 0)


def mask_from_color(frame: Frame, bbox: np.ndarray) -> np.ndarray | None:
    """
    Segment the object in its box: what differs in colour from what surrounds the box.

    GrabCut, begun with all of the box as object, on the box's surroundings scaled down to 128
    pixels.

    :param bbox: (4,) xmin, ymin, xmax, ymax in pixels
    :return: (H, W) bool; None when colour does not separate the object from its surroundings
    """
    bbox = np.clip(bbox, 0, np.tile(frame.shape[::-1], 2))
    margin = _SURROUNDINGS * (bbox[2:] - bbox[:2]) + 2.0
    left, top = np.maximum(np.floor(bbox[:2] - margin).astype(int), 0)
    right, bottom = np.ceil(bbox[2:] + margin).astype(int)
    part = frame.color[top:bottom, left:right]
    small, scale = _scaled_down(part, _LONGEST_SIDE)
    xmin, ymin, xmax, ymax = np.rint((bbox - (left, top, left, top)) * scale).astype(int)
    kinds = np.full(small.shape[:2], cv2.GC_BGD, np.uint8)
    kinds[ymin:ymax, xmin:xmax] = cv2.GC_PR_FGD
    in_box = np.count_nonzero(kinds)
    if in_box == 0 or in_box == kinds.size:  # too small, or nothing around it to compare with
        return None
    inside = _grab_cut(small, kinds, _ITERATIONS)
    if not _LEAST_FILLED < inside.sum() / in_box < _MOST_FILLED:
        return None
    mask = np.zeros(frame.shape, bool)
    mask[top:bottom, left:right] = cv2.resize(inside, part.shape[1::-1]) > 0.5
    return mask


def without_background(color: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """
    Take from a mask what looks like its surroundings, for those who want the object's colours.

    Masks from depth reach some pixels beyond the object. GrabCut decides about the pixels near
    the edge by colour; those further inside stay, and thin objects lose nothing.

    :param color: (H, W, 3) uint8, RGB
    :param mask: (H, W) bool
    :return: (H, W) bool, a part of the mask
    """
    if not mask.any():
        return mask

    def kinds_of(inside: np.ndarray, scale: float) -> np.ndarray:
        kinds = np.where(inside, cv2.GC_PR_FGD, cv2.GC_BGD).astype(np.uint8)
        kinds[cv2.distanceTransform(inside, cv2.DIST_L2, 5) > _UNSURE] = cv2.GC_FGD
        return kinds

    return mask & recut(color, mask, 12, kinds_of)


def recut(
    color: np.ndarray, mask: np.ndarray, margin: int,
    kinds_of: Callable[[np.ndarray, float], np.ndarray],
) -> np.ndarray:
    """
    Segment an object again by colour, with GrabCut around its mask scaled down to 256 pixels.

    :param color: (H, W, 3) uint8, RGB
    :param mask: (H, W) bool, not empty
    :param margin: pixels around the mask that are compared with it
    :param kinds_of: from the mask scaled down, (h, w) uint8, and the scale, OpenCV's kinds of
        pixels (GC_FGD, GC_PR_FGD, ...), (h, w) uint8
    :return: (H, W) bool; the mask itself when no object or no background is certain
    """
    xmin, ymin, xmax, ymax = bbox_of(mask).astype(int)
    window = np.s_[max(0, ymin - margin):ymax + margin, max(0, xmin - margin):xmax + margin]
    small, scale = _scaled_down(color[window], _LONGEST_SIDE_OF_MASK)
    size = small.shape[1::-1]
    kinds = kinds_of(
        cv2.resize(mask[window].astype(np.uint8), size, interpolation=cv2.INTER_NEAREST), scale)
    if not (kinds == cv2.GC_FGD).any() or not (kinds == cv2.GC_BGD).any():
        return mask
    cut = np.zeros(mask.shape, bool)
    cut[window] = cv2.resize(_grab_cut(small, kinds, 2), mask[window].shape[::-1]) > 0.5
    return cut


def _scaled_down(picture: np.ndarray, longest_side: int) -> tuple[np.ndarray, float]:
    height, width = picture.shape[:2]
    scale = min(1.0, longest_side / max(width, height))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA), scale


def _grab_cut(picture: np.ndarray, kinds: np.ndarray, iterations: int) -> np.ndarray:
    """
    Separate an object from its background by colour, (h, w) float32: 1 is the object, 0 the rest.

    GrabCut (Rother, Kolmogorov, Blake, SIGGRAPH 2004).

    :param kinds: (h, w) uint8, where it starts from
    """
    cv2.setRNGSeed(0)  # the same picture gives the same mask
    cv2.grabCut(np.ascontiguousarray(picture), kinds, (0, 0, 0, 0), np.zeros((1, 65)),
                np.zeros((1, 65)), iterations, cv2.GC_INIT_WITH_MASK)
    return np.isin(kinds, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.float32)


def colored_pixels(sighting: Sighting) -> np.ndarray | None:
    """Return the pixels whose colours are surely the object's, (H, W) bool; None: no mask."""
    mask = sighting.detection.mask
    if mask is None:
        return None
    if sighting not in _COLORED:
        _COLORED[sighting] = without_background(sighting.frame.color, mask)
    return _COLORED[sighting]


def _layer(frame: Frame, bbox: np.ndarray, solid: np.ndarray) -> np.ndarray:
    """
    Return the readings in the depth range of the object, (h, w) bool.

    :param bbox: (4,) xmin, ymin, xmax, ymax in pixels
    :param solid: (h, w) bool, readings in the box that may be the object's
    """
    depth = measured(frame.depth)[_window(bbox, frame.shape)]
    width = (bbox[2] - bbox[0]) / frame.camera.fx  # at 1 m
    rows, columns = np.mgrid[-1:1:depth.shape[0] * 1j, -1:1:depth.shape[1] * 1j]
    weight = np.exp(-2.0 * (rows ** 2 + columns ** 2))[solid]
    order = np.argsort(depth[solid])
    z, weight = depth[solid][order], weight[order]
    gap = 0.5 * width * z[:-1] + 3.0 * frame.depth_std(z[:-1])
    ends = np.flatnonzero(np.diff(z) > gap) + 1
    layers = np.split(np.arange(len(z)), ends)
    best = max(layers, key=lambda layer: weight[layer].sum())
    return solid & (depth >= z[best[0]]) & (depth <= z[best[-1]])
