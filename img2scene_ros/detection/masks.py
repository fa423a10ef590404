"""From box to mask, by the depth image."""

import cv2
import numpy as np

from img2scene_ros.frame import Frame
from img2scene_ros.frame import depth_std
from img2scene_ros.support import SupportPlane


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
