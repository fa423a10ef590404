# SPDX-License-Identifier: Apache-2.0
"""What one RGB-D view of an object tells about its shape."""

from functools import cached_property

import cv2
import numpy as np
from scipy import ndimage

from img2scene_ros.camera import sampled
from img2scene_ros.depth import measured
from img2scene_ros.detection.masks import colored_pixels
from img2scene_ros.errors import ReconstructionError
from img2scene_ros.mesh.colors import picture_colors
from img2scene_ros.types import Frame
from img2scene_ros.types import Sighting

_MARGIN = 16  # pixels around the mask that belong to the view
MIN_READINGS = 50  # of depth on an object; fewer show no shape
_FACING_UP = np.cos(np.radians(40.0))  # between up and the normal of a top


class View:
    """
    The bounds that one view sets to an object, in the axes of its placement, metres.

    The object lies behind the measured surface and beside no free space: inside the mask, or
    where something before it hides the mask's continuation.

    - surface: (N, 3), the seen points
    - tops: (N, 3), those of them that look up
    - bottom, top: heights between which the object lies
    - tolerance: twice the standard deviation of a depth reading

    :param wall: least thickness of whatever is seen
    :raises ReconstructionError: no mask, no depth, or too little of either
    """

    def __init__(self, sighting: Sighting, wall: float) -> None:
        frame, mask = sighting.frame, sighting.detection.mask
        if mask is None or frame.depth is None:
            raise ReconstructionError(
                "the reconstructor 'depth_shell' needs a depth image and a mask of the object")
        readings = mask & np.isfinite(frame.depth)
        if np.count_nonzero(readings) < MIN_READINGS:
            raise ReconstructionError(
                'the object has too few depth readings; move the camera closer or turn it')
        self.frame = frame
        self.mask = mask
        self._colored = colored_pixels(sighting)
        self.placement = sighting.placement
        self.wall = wall
        self.tolerance = float(2.0 * frame.depth_std(self.placement.position[2]))
        self._window = _window(mask)
        self._own = _cut(mask, self._window)
        self._raw = _cut(frame.depth, self._window)
        self._set_images(_cut(readings, self._window))
        self._set_points(_cut(readings, self._window))

    def _set_images(self, readings: np.ndarray) -> None:
        """Set what is known at each pixel of the window: depth, where it was read, the edge."""
        own = np.where(readings, self._raw, np.nan)
        self._depth = self._lifted(_filled(own, self.frame))
        # What spreads over narrow gaps counts as read, and over the mask's edge.
        closed = cv2.morphologyEx(_bytes(readings), cv2.MORPH_CLOSE, np.ones((17, 17)))
        known = cv2.dilate(closed * _bytes(self._own), np.ones((5, 5)))
        self._measured = cv2.GaussianBlur(known.astype(np.float32), (0, 0), 1.0)
        self._extended = self._own | self._occluders()
        self._edge = cv2.GaussianBlur(_signed_distance(self._extended), (0, 0), 1.0)

    def _set_points(self, readings: np.ndarray) -> None:
        """Set the seen points, how slanted their surface is, and the object's height."""
        points = self.to_object(self._rays() * self._depth[..., None])
        normals = _normals(points)
        sight = points - self.to_object(np.zeros(3))
        sight = sight / np.linalg.norm(sight, axis=-1, keepdims=True)
        self._slant = np.clip(-(normals * sight).sum(axis=-1), 0.3, 1.0).astype(np.float32)
        # At the mask's edge readings mix the object with what is behind it.
        inner = readings & (cv2.erode(_bytes(self._own), np.ones((3, 3))) > 0)
        self.surface = points[inner if np.count_nonzero(inner) > MIN_READINGS else readings]
        looks_up = _bytes(inner & (normals[..., 2] > _FACING_UP))
        self.tops = points[cv2.morphologyEx(looks_up, cv2.MORPH_OPEN, np.ones((5, 5))) > 0]
        heights = points[readings][:, 2]
        self.top = float(np.percentile(heights, 99.5))
        support = self.placement.support
        self.bottom = (float(np.percentile(heights, 0.5)) if support is None else
                       float(-support.height(self.placement.position)))

    def to_optical(self, points: np.ndarray) -> np.ndarray:
        """Turn points (..., 3) into the optical frame."""
        return points @ self.placement.rotation.T + self.placement.position

    def to_object(self, points: np.ndarray) -> np.ndarray:
        """Turn optical points (..., 3) into the placement's axes."""
        return (points - self.placement.position) @ self.placement.rotation

    def depth_inside(self, points: np.ndarray) -> np.ndarray:
        """
        Tell how deep points lie inside the solid that this view allows.

        A body is taken to be about as thick along the line of sight as it is wide where it is
        seen, so that the shadow behind a low object does not become part of it.

        :param points: (N, 3)
        :return: (N,) metres; negative in free space: before the surface or beside the mask
        """
        optical, pixels = self._seen_at(points)
        behind, beside, *_ = self._compared(optical, pixels)
        width = sampled(self._width, pixels, outside=None)
        thickness = width * optical[:, 2] / self.frame.camera.fx
        return np.minimum(np.minimum(behind, beside), 1.2 * thickness - behind)

    def depths(
        self, points: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """
        Compare points with what is seen along their lines of sight.

        :param points: (N, 3)
        :return: metres behind the surface (at right angles to it), metres inside the mask's
            edge, metres behind the surface along the optical axis, and the share (0 to 1) to
            which the surface is measured there, (N,) each
        """
        return self._compared(*self._seen_at(points))

    def colors(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """
        Look points up in the picture.

        :param points: (N, 3)
        :return: (N, 3) uint8 RGB, and (N,) bool: which of them are on the seen surface
        """
        behind, *_ = self.depths(points)
        colors, shown = picture_colors(self.frame, self._colored, self.to_optical(points))
        return colors, shown & (np.abs(behind) < 0.008)

    def _seen_at(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return points in the optical frame (N, 3), and their pixels in the window (N, 2)."""
        optical = self.to_optical(points)
        pixels = self.frame.camera.project(optical) - self._window[:2]
        return optical, np.nan_to_num(pixels, nan=-1e3)

    def _compared(
        self, optical: np.ndarray, pixels: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        depth, slant, edge, measured = (
            sampled(image, pixels, outside=None)
            for image in (self._depth, self._slant, self._edge, self._measured))
        along = optical[:, 2] - depth
        return along * slant, edge * optical[:, 2] / self.frame.camera.fx, along, measured

    @cached_property
    def _width(self) -> np.ndarray:
        return _local_thickness(self._extended)

    def _occluders(self) -> np.ndarray:
        """
        Return the pixels where the object may go on behind things before it, (h, w) bool.

        The rim without readings around those things belongs to them.
        """
        support = self.placement.support
        before = self._raw < self._depth
        if support is not None:
            before &= support.height(_cut(measured(self.frame.points), self._window)) > 0.01
        solid = cv2.morphologyEx(_bytes(before), cv2.MORPH_OPEN, np.ones((5, 5)))
        rim = (cv2.dilate(solid, np.ones((17, 17))) > 0) & np.isnan(self._raw)
        return ((solid > 0) | rim) & ~self._own

    def _lifted(self, depth: np.ndarray) -> np.ndarray:
        """Keep a wall's thickness above the support: the bottom of a bowl is no part of it."""
        support = self.placement.support
        if support is None:
            return depth
        height = support.height(self._rays() * depth[..., None])
        lift = (support.offset - self.wall) / np.maximum(support.offset - height, 1e-3)
        return np.where((height < self.wall) & self._own, depth * lift, depth).astype(np.float32)

    def _rays(self) -> np.ndarray:
        """Return the window's viewing rays; where the lens shows none, the nearest ones."""
        x0, y0, x1, y1 = self._window
        columns, rows = np.meshgrid(np.arange(x0, x1), np.arange(y0, y1))
        rays = self.frame.camera.rays_at(np.stack([columns, rows], axis=-1))
        return rays[_nearest(np.isfinite(rays[..., 0]))]


def _window(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Return x0, y0, x1, y1 around a mask; it may reach over the picture's border."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return (columns[0] - _MARGIN, rows[0] - _MARGIN,
            columns[-1] + 1 + _MARGIN, rows[-1] + 1 + _MARGIN)


def _cut(image: np.ndarray, window: tuple[int, int, int, int]) -> np.ndarray:
    """Cut a window out; beyond the border the picture's edge goes on, as objects there do."""
    x0, y0, x1, y1 = window
    rows = np.clip(np.arange(y0, y1), 0, image.shape[0] - 1)
    columns = np.clip(np.arange(x0, x1), 0, image.shape[1] - 1)
    return image[np.ix_(rows, columns)]


def _filled(depth: np.ndarray, frame: Frame) -> np.ndarray:
    """Spread readings to where there are none, and smooth them without blurring edges."""
    filled = np.ascontiguousarray(depth[_nearest(np.isfinite(depth))], np.float32)
    noise = float(4.0 * frame.depth_std(np.nanmedian(depth)))
    return cv2.bilateralFilter(cv2.medianBlur(filled, 5), 7, noise, 3.0)


def _nearest(known: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return the row and column of the nearest pixel that is known, for each."""
    return tuple(ndimage.distance_transform_edt(
        ~known, return_distances=False, return_indices=True))


def _bytes(mask: np.ndarray) -> np.ndarray:
    return mask.astype(np.uint8)


def _signed_distance(mask: np.ndarray) -> np.ndarray:
    """Return pixels to the mask's edge, positive inside, (h, w) float32."""
    inside = cv2.distanceTransform(_bytes(mask), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    outside = cv2.distanceTransform(_bytes(~mask), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.where(mask, inside - 0.5, 0.5 - outside)


def _local_thickness(mask: np.ndarray) -> np.ndarray:
    """
    Return at each pixel the diameter of the largest disc in the mask that covers it, pixels.

    (Hildebrand, Ruegsegger: A new method for the model-independent assessment of thickness in
    three-dimensional images, 1997.)
    """
    inside = cv2.distanceTransform(_bytes(mask), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    thickness = np.zeros(mask.shape, np.float32)
    for radius in np.geomspace(2.0, max(inside.max(), 2.0), 24):
        to_center = cv2.distanceTransform(
            _bytes(inside < radius), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        thickness[to_center <= radius] = 2.0 * radius
    return cv2.GaussianBlur(thickness, (0, 0), 2.0)


def _normals(points: np.ndarray) -> np.ndarray:
    """Return unit normals of a grid of points (h, w, 3), towards the camera."""
    down, right = np.gradient(cv2.GaussianBlur(points, (0, 0), 2.0), axis=(0, 1))
    normals = np.cross(down, right)
    return normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)
