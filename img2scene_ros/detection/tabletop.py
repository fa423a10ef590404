"""
Class-agnostic RGB-D detection: whatever stands on the support plane. Needs no weights.

Points above the plane are linked to their neighbours in the image where the surface goes on;
linked points are one object. Two corrections follow: a sharp concave crease all along a seam
parts objects that touch, and parts whose outlines from above lie in one another and that reach
equally high are one hollow object (the inside and the outside of a mug).
"""

from dataclasses import dataclass

import cv2
import numpy as np
from scipy import ndimage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist

from img2scene_ros.detection import Detection
from img2scene_ros.detection import bbox_of
from img2scene_ros.errors import InputError
from img2scene_ros.frame import Frame
from img2scene_ros.frame import depth_std
from img2scene_ros.options import Options
from img2scene_ros.options import option
from img2scene_ros.support import SupportPlane
from img2scene_ros.support import surface_normals

# Pixels whose links are tried, right and down: more than 1 bridges holes in the depth image.
_LINK_STEPS = (1, 2, 3, 5)
# Bodies that touch meet in a sharp crease; the fillets of one body are softer.
_CREASE_CORE = 30.0
_CREASE_SEAM = 40.0


@dataclass(frozen=True)
class TabletopOptions(Options):
    """How `tabletop` tells objects from their support and from each other."""

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
        0.006, 'Distance that parts two objects, noise comes on top [m]', low=0.001, high=0.1)
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
        height = support.height(frame.points)
        labels = self._linked(frame, self._above(frame, support, height))
        labels = _parted_at_creases(labels, frame, height)
        labels = _floating_joined(labels, frame, support, height)
        masks = [_filled(labels == label, height, self.options.min_height)
                 for label in np.unique(labels[labels > 0])]
        masks = [mask for mask in masks if self._is_object(mask, frame, support)]
        masks.sort(key=np.count_nonzero, reverse=True)
        return [_detection(mask, frame) for mask in masks[:self.options.max_detections]]

    def _above(self, frame: Frame, support: SupportPlane, height: np.ndarray) -> np.ndarray:
        """Return the pixels clearly above the support, (H, W) bool."""
        least = np.maximum(self.options.min_height, 3.0 * depth_std(frame.depth))
        above = ((height > least) & (height < self.options.max_height)
                 & (frame.depth < self.options.max_distance))
        above[above] = support.is_over(frame.points[above], margin=0.08)
        return cv2.morphologyEx(above.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3))) > 0

    def _linked(self, frame: Frame, above: np.ndarray) -> np.ndarray:
        """Label the pixels by the surface they are part of, (H, W) int, 0 = none."""
        points, (rows, columns) = frame.points, frame.shape
        index = np.full(above.shape, -1)
        index[above] = np.arange(np.count_nonzero(above))
        reach = self.options.gap + 3.0 * depth_std(frame.depth)
        links = []
        for step in _LINK_STEPS:
            for down, right in ((0, step), (step, 0)):
                one = np.s_[:rows - down, :columns - right]
                other = np.s_[down:, right:]
                both = above[one] & above[other]
                near = np.linalg.norm(points[one][both] - points[other][both], axis=1)
                near = near < reach[one][both]
                links.append(np.stack([index[one][both][near], index[other][both][near]]))
        first, second = np.concatenate(links, axis=1)
        count = index.max() + 1
        graph = coo_matrix((np.ones(len(first), bool), (first, second)), (count, count))
        labels = np.zeros(above.shape, int)
        if count:
            labels[above] = connected_components(graph, directed=False)[1] + 1
        return _without_specks(labels, 60 * (columns / 640) ** 2)

    def _is_object(self, mask: np.ndarray, frame: Frame, support: SupportPlane) -> bool:
        points = frame.points[mask & np.isfinite(frame.depth)]
        low, high = np.percentile(points, (1, 99), axis=0)
        extent = np.linalg.norm(high - low)
        is_on_support = support.is_over(points, margin=-0.005).mean() > 0.4
        return self.options.min_size <= extent <= self.options.max_size and is_on_support


def _without_specks(labels: np.ndarray, min_pixels: float) -> np.ndarray:
    sizes = np.bincount(labels.ravel())
    return np.where(sizes[labels] >= min_pixels, labels, 0)


def _parted_at_creases(labels: np.ndarray, frame: Frame, height: np.ndarray) -> np.ndarray:
    """Split surfaces that a sharp concave seam crosses from end to end."""
    crease = _crease_angles(frame)
    # Everything meets its support in a crease; that one parts nothing.
    crease[(height < 0.02) | (labels == 0)] = 0.0
    reach = max(3, frame.shape[1] // 70)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
    cut = cv2.dilate((crease > _CREASE_CORE).astype(np.uint8), disc) > 0
    sharpness = cv2.dilate(crease, np.ones((7, 7)))
    parted = labels.copy()
    for label in np.unique(labels[labels > 0]):
        mask = labels == label
        cores = cv2.erode((mask & ~cut).astype(np.uint8), np.ones((3, 3)))
        _, cores = cv2.connectedComponents(cores, connectivity=4)
        cores = _without_specks(cores, max(300 * (frame.shape[1] / 640) ** 2, 0.08 * mask.sum()))
        if len(np.unique(cores)) < 3:
            continue
        parts = np.where(mask, _nearest_label(cores), 0)
        parts = _soft_seams_closed(parts, sharpness)
        parted[mask] = labels.max() + parted.max() + parts[mask]
    return parted


def _crease_angles(frame: Frame) -> np.ndarray:
    """Return by how many degrees the surface bends inwards at each pixel, (H, W) float32."""
    step = max(3, frame.shape[1] // 80)
    points, normals = frame.points, surface_normals(frame)
    rows, columns = frame.shape
    crease = np.zeros(frame.shape, np.float32)
    for down, right in ((0, step), (step, 0)):
        one = np.s_[:rows - 2 * down, :columns - 2 * right]
        other = np.s_[2 * down:, 2 * right:]
        middle = np.s_[down:rows - down, right:columns - right]
        across = points[other] - points[one]
        length = np.linalg.norm(across, axis=-1)
        rise = [np.arcsin(np.clip((normals[end] * across).sum(-1) / length, -1, 1))
                for end in (one, other)]
        # Across a depth jump there is no surface to bend.
        pitch = 2 * step * frame.depth[middle] / frame.camera.fx
        angle = np.degrees(rise[0] - rise[1])
        angle[~(np.isfinite(angle) & (length < 4 * pitch))] = 0.0
        crease[middle] = np.maximum(crease[middle], angle)
    return crease


def _nearest_label(labels: np.ndarray) -> np.ndarray:
    nearest = ndimage.distance_transform_edt(
        labels == 0, return_distances=False, return_indices=True)
    return labels[tuple(nearest)]


def _soft_seams_closed(parts: np.ndarray, sharpness: np.ndarray) -> np.ndarray:
    """Join parts again whose seam is not sharp nearly everywhere."""
    parts = parts.copy()
    ids = list(np.unique(parts[parts > 0]))
    for i, one in enumerate(ids):
        for other in ids[i + 1:]:
            beside = cv2.dilate((parts == one).astype(np.uint8), np.ones((3, 3))) > 0
            seam = beside & (parts == other)
            if seam.any() and np.percentile(sharpness[seam], 15) < _CREASE_SEAM:
                parts[parts == one] = other
                break
    return parts


def _floating_joined(
    labels: np.ndarray, frame: Frame, support: SupportPlane, height: np.ndarray,
) -> np.ndarray:
    """
    Join parts that cannot stand alone to the object they belong to.

    The inside of a mug or the lid of a can is seen apart from the wall when the depth image has
    no readings on the rim. Such a part floats, touches the other in the image, reaches as high,
    and hardly widens it seen from above.
    """
    labels = labels.copy()
    axes = support.axes()
    around = np.ones((15, 15), np.uint8)
    by_size = np.argsort(-np.bincount(labels.ravel()))
    ids = [label for label in by_size if label > 0 and (labels == label).any()]
    for i, small in reversed(list(enumerate(ids))):
        part = labels == small
        low, top = np.percentile(height[part], (2, 98))
        if low < 0.35 * top:
            continue
        beside = cv2.dilate(part.astype(np.uint8), around) > 0
        for large in ids[:i]:
            whole = labels == large
            if not (beside & whole).any():
                continue
            is_level = abs(np.percentile(height[whole], 98) - top) < 0.01 + 0.15 * top
            plans = [frame.points[mask] @ axes.T for mask in (part, whole)]
            alone = max(_diameter(plan) for plan in plans)
            if is_level and _diameter(np.concatenate(plans)) < 1.15 * alone:
                labels[part] = large
                break
    return labels


def _diameter(plan: np.ndarray) -> float:
    corners = plan[ConvexHull(plan, qhull_options='QJ').vertices]
    return float(pdist(corners).max())


def _filled(mask: np.ndarray, height: np.ndarray, min_height: float) -> np.ndarray:
    """Close pin holes, seams without readings, and holes that come down to the support."""
    mask = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5)))
    holes, _ = ndimage.label(mask == 0)
    mask |= np.bincount(holes.ravel())[holes] < 4e-5 * mask.size
    # The rim of a hole may be broken where the depth image has no readings.
    reach = 2 * (mask.shape[1] // 30) + 1
    unread = np.isnan(height) & (cv2.dilate(mask, np.ones((reach, reach))) > 0)
    bridge = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach // 2, reach // 2))
    ring = cv2.morphologyEx(mask | unread, cv2.MORPH_CLOSE, bridge) > 0
    seams = ndimage.binary_fill_holes(cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((11, 11))))
    mask = (mask > 0) | (seams & np.isnan(height))
    gaps, count = ndimage.label(ndimage.binary_fill_holes(ring) & ~ring)
    for gap in range(1, count + 1):
        inside = gaps == gap
        around = cv2.dilate(inside.astype(np.uint8), np.ones((11, 11))) > 0
        rim = np.nanpercentile(height[around & mask], 10)
        if rim - np.nanmedian(height[inside]) < min_height:
            mask |= around & ring | inside
    return mask


def _detection(mask: np.ndarray, frame: Frame) -> Detection:
    """Score an object by its share of pixels with a reading, less when it has few pixels."""
    readings = np.count_nonzero(mask & np.isfinite(frame.depth))
    score = readings / np.count_nonzero(mask) * readings / (readings + 200.0)
    return Detection('object', float(score), bbox_of(mask), mask)


BACKEND = TabletopDetector
