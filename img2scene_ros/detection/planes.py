# SPDX-License-Identifier: Apache-2.0
"""
Planes of a depth image: the directions that surfaces face, and the surfaces at every level.

Normals come from planes fitted to the inverse depth in windows, which holes in the readings do
not hinder. Those that agree are a direction. Along each direction a surface is a heap of readings
at one height, fitted and outlined.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import replace

import cv2
import numpy as np

from img2scene_ros.depth import measured
from img2scene_ros.types import Frame
from img2scene_ros.types import SupportPlane

# Windows in which planes are fitted: side in pixels, and the least share of it with readings. How
# far off their readings may be: standard deviations of the depth, and share of the distance.
_WINDOW, _LEAST_READ, _BENT, _BENT_SHARE = 5, 0.4, 1.5, 0.002
# Where the depth of most pixels is off by so many of their widths, which tilts planes in such
# windows by 13 degrees (sqrt(12 / n^2 (n^2 - 1)) for a window of n x n), windows are this wide.
_NOISY, _WIDE_WINDOW = 1.6, 11
_ABOVE = 0.3  # metres above a plane that may stand on it
# Directions: one of so many pixels votes; those nearer than the first angle agree, and those
# nearer than the second to one that is found are no other. A direction or a surface has at least
# that share of the readings.
_VOTING, _AGREE, _OTHER, _LEAST_SHARE = 3, np.cos(np.radians(10.0)), np.cos(np.radians(22.0)), .002
_MOST_DIRECTIONS, _MOST_LEVELS, _LEAST_PIXELS, _ROUNDS = 6, 6, 30, 6
# Pixels are on a plane that are nearer than so many standard deviations of the depth, and whose
# normals are nearer than this.
_NEAR, ALIGNED = 3.0, np.cos(np.radians(25.0))
_TURNED = np.cos(np.radians(12.0))  # a surface is no further off its direction
_HEAP = 0.012  # metres, height of the bins in which surfaces of one direction show


@dataclass(frozen=True, eq=False)
class Level:
    """
    A plane and the pixels on it.

    - seen: (H, W) bool
    """

    plane: SupportPlane
    seen: np.ndarray


@dataclass(frozen=True, eq=False)
class Readings:
    """
    The readings of a frame, with what the search for planes needs of them.

    - points: (H, W, 3) metres, NaN = no reading
    - normals: (H, W, 3) of the surface, to the camera; NaN where there is no smooth one
    - std, pitch: (H, W) metres, standard deviation of the depth, and width of a pixel
    - window: pixels, side of the windows that normals are of
    """

    points: np.ndarray
    normals: np.ndarray
    std: np.ndarray
    pitch: np.ndarray
    window: int

    @property
    def count(self) -> int:
        """Return how many pixels have a reading."""
        return int(np.count_nonzero(np.isfinite(self.std)))


def readings(frame: Frame) -> Readings:
    """Return the readings of a frame, with normals."""
    depth = measured(frame.depth)
    std, pitch = frame.depth_std(depth), depth / frame.camera.fx
    is_read = np.isfinite(std)
    is_noisy = np.count_nonzero(std > _NOISY * pitch) > 0.5 * np.count_nonzero(is_read)
    window = _WIDE_WINDOW if is_noisy else _WINDOW
    normals = _normals(frame.camera.rays, depth, std, window)
    return Readings(measured(frame.points), normals, std, pitch, window)


def _normals(rays: np.ndarray, depth: np.ndarray, std: np.ndarray, window: int) -> np.ndarray:
    """
    Fit planes to the inverse depth in windows around all pixels, which is linear in the rays.

    On the plane a X + b Y + c Z = 1 the inverse depth is a x + b y + c at the ray (x, y, 1).
    """
    def mean(image: np.ndarray) -> np.ndarray:
        return cv2.blur(image, (window, window), borderType=cv2.BORDER_ISOLATED)

    read = np.isfinite(depth) & (depth > 0.0)
    weight = read.astype(np.float64)
    inverse = np.where(read, 1.0 / np.where(read, depth, 1.0), 0.0).astype(np.float64)
    x, y = rays[..., 0] * weight, rays[..., 1] * weight
    share = mean(weight)
    number = np.maximum(share, 1e-6)
    x0, y0, w0 = (mean(one) / number for one in (x, y, inverse))
    xx, xy, yy, xw, yw, ww = (
        mean(one * other) / number - middle * center
        for one, other, middle, center in (
            (x, x, x0, x0), (x, y, x0, y0), (y, y, y0, y0), (x, inverse, x0, w0),
            (y, inverse, y0, w0), (inverse, inverse, w0, w0)))
    determinant = np.maximum(xx * yy - xy ** 2, 1e-18)
    a, b = (yy * xw - xy * yw) / determinant, (xx * yw - xy * xw) / determinant
    c = w0 - a * x0 - b * y0
    bent = np.maximum(ww - a * xw - b * yw, 0.0) * depth ** 4
    is_smooth = read & (share > _LEAST_READ) & (
        bent < (_BENT * std + _BENT_SHARE * depth) ** 2)
    scale = np.where(is_smooth, -1.0 / np.sqrt(a ** 2 + b ** 2 + c ** 2 + 1e-12), np.nan)
    return cv2.merge([(one * scale).astype(np.float32) for one in (a, b, c)])


def directions(read: Readings, up: np.ndarray | None) -> list[np.ndarray]:
    """
    Return the directions that surfaces face, (3,) unit vectors, those of most pixels first.

    :param up: where it is known, only what faces it
    """
    votes = read.normals[::_VOTING, ::_VOTING].reshape(-1, 3)
    votes = votes[np.isfinite(votes[:, 0])]
    if up is not None:
        votes = votes[votes @ up.astype(np.float32) > ALIGNED]
    least = max(4.0, _LEAST_SHARE * read.count / _VOTING ** 2)
    found: list[np.ndarray] = []
    while len(votes) >= least and len(found) < _MOST_DIRECTIONS:
        hypotheses = votes[::len(votes) // 400 + 1]
        best = hypotheses[np.argmax((votes @ hypotheses.T > _AGREE).sum(axis=0))]
        for _ in range(3):
            near = votes[votes @ best > _AGREE]
            best = near.mean(axis=0) / np.linalg.norm(near.mean(axis=0))
        if len(near) < least:
            break
        found.append(best.astype(float))
        votes = votes[votes @ best < _OTHER]
    return found


def surfaces(read: Readings, direction: np.ndarray) -> list[Level]:
    """Return the surfaces that face a direction, the largest first."""
    return sorted(_levels(read, direction), key=lambda one: -np.count_nonzero(one.seen))


def _levels(read: Readings, direction: np.ndarray) -> Iterator[Level]:
    """Find one surface after another: the greatest heap of readings that are left."""
    facing = _Facing(read, direction)
    heights, std = facing.points @ direction.astype(np.float32), facing.std
    free = np.ones(len(heights), bool)
    least = max(_LEAST_PIXELS, _LEAST_SHARE * read.count)
    taken = np.zeros(read.std.shape, bool)
    for _ in range(_MOST_LEVELS):
        left = heights[free]
        if len(left) < least:
            return
        heap = np.bincount(((left - left.min()) / _HEAP).astype(int))
        heap = np.convolve(heap, (1, 2, 3, 2, 1))[2:-2]
        off = np.abs(heights - left.min() - (int(np.argmax(heap)) + 0.5) * _HEAP)
        found = facing.grown(free & (off < np.maximum(_HEAP, _NEAR * std)))
        free &= off >= _HEAP
        if found is not None:
            free &= np.abs(found.plane.height(facing.points)) >= 1.5 * _NEAR * std
            seen = np.count_nonzero(found.seen)
            if seen >= least and np.count_nonzero(found.seen & taken) < 0.5 * seen:
                taken |= found.seen
                yield found


class _Facing:
    """The pixels that face a direction."""

    def __init__(self, read: Readings, direction: np.ndarray) -> None:
        self._read, self._direction = read, direction
        self._pixels = np.flatnonzero(read.normals @ direction.astype(np.float32) > ALIGNED)
        self._normals = read.normals.reshape(-1, 3)[self._pixels]
        self.points = read.points.reshape(-1, 3)[self._pixels]
        self.std = read.std.ravel()[self._pixels]

    def grown(self, near: np.ndarray) -> Level | None:
        """
        Fit a plane to what is near it until that stays the same; None when it turns too far.

        :param near: (N,) bool, the pixels to begin with
        """
        read, shape = self._read, self._read.std.shape
        for _ in range(2):
            plane, near = self._fitted(near)
            if plane is None:
                return None
            seen = np.zeros(shape, bool)
            seen.flat[self._pixels[near]] = True
            height = plane.height(read.points)
            tolerance = _NEAR * read.std
            seen = _main_part(
                seen, (height > tolerance) & (height < _ABOVE), np.isnan(read.std))
            near = seen.ravel()[self._pixels]
        if plane is None or np.count_nonzero(near) < _LEAST_PIXELS:
            return None
        outline = outlined(plane, self.points[near])
        # Windows at its border show other surfaces, too.
        beside = cv2.dilate(seen.astype(np.uint8), np.ones(2 * (read.window,), np.uint8)) > 0
        return Level(outline, seen | beside & (np.abs(height) < tolerance))

    def _fitted(self, near: np.ndarray) -> tuple[SupportPlane | None, np.ndarray]:
        plane, last = None, 0
        for _ in range(_ROUNDS):
            count = np.count_nonzero(near)
            if count < _LEAST_PIXELS:
                return None, near
            if count == last:
                break
            last = count
            plane = SupportPlane(*least_squares(self.points[near], self.std[near]))
            if plane.normal @ self._direction < _TURNED:
                return None, near
            near = (np.abs(plane.height(self.points)) < _NEAR * self.std) & (
                self._normals @ plane.normal.astype(np.float32) > ALIGNED)
        return plane, near


def least_squares(points: np.ndarray, deviation: np.ndarray) -> tuple[np.ndarray, float]:
    """Fit a plane to (N, 3) points of standard deviations (N,): normal to the camera, offset."""
    weights = 1.0 / deviation.astype(float) ** 2
    center = weights @ points / weights.sum()
    away = points - center
    normal = np.linalg.eigh((away.T * weights) @ away)[1][:, 0]
    if normal @ center > 0:
        normal = -normal
    return normal, float(-normal @ center)


def outlined(plane: SupportPlane, points: np.ndarray) -> SupportPlane:
    """Return a plane with the outline of points on it, (N, 3) metres."""
    plan = np.column_stack([points @ axis for axis in plane.axes.astype(np.float32)])
    corners = points[cv2.convexHull(plan, returnPoints=False)[:, 0]].astype(float)
    return replace(plane, hull=corners - plane.height(corners)[:, None] * plane.normal)


def _main_part(on_plane: np.ndarray, above: np.ndarray, unread: np.ndarray) -> np.ndarray:
    """
    Keep the largest part of a plane, with the parts that objects on it cut off.

    :param above: pixels of what may stand on it
    :param unread: pixels without a reading, which part nothing
    """
    kernel = np.ones((3, 3), np.uint8)
    opened = cv2.morphologyEx((on_plane | unread).astype(np.uint8), cv2.MORPH_OPEN, kernel)
    gap = max(3, on_plane.shape[1] // 24)
    shadow = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (gap, gap))
    opened[~on_plane] = 0
    objects = cv2.morphologyEx(above.astype(np.uint8), cv2.MORPH_OPEN, kernel)
    _, parts = cv2.connectedComponents(np.bitwise_or(cv2.dilate(opened, shadow), objects))
    parts[opened == 0] = 0
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return parts == np.argmax(sizes) if sizes.any() else np.zeros_like(on_plane)
