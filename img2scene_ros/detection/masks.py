"""From box to mask: by the depth image, or by colour where there is none."""

import cv2
import numpy as np

from img2scene_ros.frame import Frame
from img2scene_ros.frame import depth_std
from img2scene_ros.support import SupportPlane

# Colour: surroundings in box sides, the longest side that is worked on in pixels, iterations, and
# the shares of the box that a mask may fill; less or more means that nothing was told apart.
_SURROUNDINGS = 0.25
_LONGEST_SIDE = 128
_ITERATIONS = 3
_LEAST_FILLED, _MOST_FILLED = 0.3, 0.97

# Pixels from a mask's edge up to which it may be wrong, and a longest side to work on, too.
_UNSURE = 5
_LONGEST_SIDE_OF_MASK = 256


def mask_from_depth(
    frame: Frame, bbox: np.ndarray, support: SupportPlane | None,
) -> np.ndarray | None:
    """
    Cut the object out of its box: what is off the support, at the depth of the box's middle.

    The depth layer that holds most of the box's middle is taken, and those that follow on it
    closer than half the object's width, so that the far wall of a bowl belongs to it and the
    background does not.

    :param bbox: (4,) xmin, ymin, xmax, ymax in pixels
    :return: (H, W) bool; None when the box holds too few readings
    """
    if not frame.has_depth:
        return None
    xmin, ymin = np.maximum(np.floor(bbox[:2]).astype(int), 0)
    xmax, ymax = np.ceil(bbox[2:]).astype(int)
    window = np.s_[ymin:ymax, xmin:xmax]
    depth = frame.depth[window]
    solid = np.isfinite(depth)
    if support is not None:
        solid &= support.height(frame.points[window]) > 3.0 * depth_std(depth)
    if np.count_nonzero(solid) < 20:
        return None
    near, far = _layer(depth, solid, width=(xmax - xmin) / frame.camera.fx)
    inside = solid & (depth >= near) & (depth <= far)
    inside = cv2.morphologyEx(inside.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3)))
    inside = cv2.morphologyEx(inside, cv2.MORPH_CLOSE, np.ones((5, 5))) > 0
    if not inside.any():
        return None
    mask = np.zeros(frame.shape, bool)
    mask[window] = inside
    return mask


def mask_from_color(frame: Frame, bbox: np.ndarray) -> np.ndarray | None:
    """
    Cut the object out of its box: what differs in colour from what surrounds the box.

    GrabCut (Rother, Kolmogorov, Blake, SIGGRAPH 2004), begun with all of the box as object, on the
    box's surroundings scaled down to 128 pixels.

    :param bbox: (4,) xmin, ymin, xmax, ymax in pixels
    :return: (H, W) bool; None when colour does not tell the object from its surroundings
    """
    margin = _SURROUNDINGS * (bbox[2:] - bbox[:2]) + 2.0
    left, top = np.maximum(np.floor(bbox[:2] - margin).astype(int), 0)
    right, bottom = np.ceil(bbox[2:] + margin).astype(int)
    part = frame.color[top:bottom, left:right]
    height, width = part.shape[:2]
    scale = min(1.0, _LONGEST_SIDE / max(width, height))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
    xmin, ymin, xmax, ymax = np.rint((bbox - (left, top, left, top)) * scale).astype(int)
    kinds = np.full(size[::-1], cv2.GC_BGD, np.uint8)
    kinds[ymin:ymax, xmin:xmax] = cv2.GC_PR_FGD
    in_box = np.count_nonzero(kinds)
    if in_box == 0 or in_box == kinds.size:  # too small, or nothing around it to compare with
        return None
    cv2.setRNGSeed(0)  # the same picture gives the same mask
    cv2.grabCut(small, kinds, None, np.zeros((1, 65)), np.zeros((1, 65)), _ITERATIONS,
                cv2.GC_INIT_WITH_MASK)
    inside = (kinds == cv2.GC_PR_FGD).astype(np.float32)
    if not _LEAST_FILLED < inside.sum() / in_box < _MOST_FILLED:
        return None
    mask = np.zeros(frame.shape, bool)
    mask[top:bottom, left:right] = cv2.resize(inside, (width, height)) > 0.5
    return mask


def without_background(color: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """
    Take from a mask what looks like its surroundings, for those who want the object's colours.

    Masks from depth reach some pixels beyond the object. GrabCut tells the pixels near the edge
    apart by colour; those further inside stay, and thin objects lose nothing.

    :param color: (H, W, 3) uint8, RGB
    :param mask: (H, W) bool
    :return: (H, W) bool, a part of the mask
    """
    if not mask.any():
        return mask
    rows, columns = np.nonzero(mask)
    top, left = max(0, rows.min() - 12), max(0, columns.min() - 12)
    window = np.s_[top:rows.max() + 13, left:columns.max() + 13]
    part, inside = color[window], mask[window].astype(np.uint8)
    height, width = inside.shape
    scale = min(1.0, _LONGEST_SIDE_OF_MASK / max(width, height))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
    inside = cv2.resize(inside, size, interpolation=cv2.INTER_NEAREST)
    kinds = np.where(inside, cv2.GC_PR_FGD, cv2.GC_BGD).astype(np.uint8)
    kinds[cv2.distanceTransform(inside, cv2.DIST_L2, 5) > _UNSURE] = cv2.GC_FGD
    if not (kinds == cv2.GC_FGD).any() or not (kinds == cv2.GC_BGD).any():
        return mask
    cv2.setRNGSeed(0)  # the same picture gives the same mask
    cv2.grabCut(np.ascontiguousarray(small), kinds, None, np.zeros((1, 65)), np.zeros((1, 65)),
                2, cv2.GC_INIT_WITH_MASK)
    looks_right = np.isin(kinds, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.float32)
    trusted = mask.copy()
    trusted[window] &= cv2.resize(looks_right, (width, height)) > 0.5
    return trusted


def _layer(depth: np.ndarray, solid: np.ndarray, width: float) -> tuple[float, float]:
    """
    Return the depth range of the object, metres.

    :param width: the box's width at 1 m, metres
    """
    rows, columns = np.mgrid[-1:1:depth.shape[0] * 1j, -1:1:depth.shape[1] * 1j]
    weight = np.exp(-2.0 * (rows ** 2 + columns ** 2))[solid]
    order = np.argsort(depth[solid])
    z, weight = depth[solid][order], weight[order]
    gap = 0.5 * width * z[:-1] + 3.0 * depth_std(z[:-1])
    ends = np.flatnonzero(np.diff(z) > gap) + 1
    layers = np.split(np.arange(len(z)), ends)
    best = max(layers, key=lambda layer: weight[layer].sum())
    return float(z[best[0]]), float(z[best[-1]])
