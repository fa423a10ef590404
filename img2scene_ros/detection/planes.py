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
from functools import cached_property

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
_VOTING, _AGREE, _OTHER, _LEAST_SHARE = 3, np.cos(np.radians(10.0)), np.cos(np.radians(22.0)), .005
_MOST_DIRECTIONS, _MOST_LEVELS, _LEAST_PIXELS = 6, 6, 30
# Fits: rounds, until the number of pixels near the plane changes by no larger share, and pixels
# that are enough for one.
_ROUNDS, _SETTLED, _ENOUGH = 6, 0.01, 1000
# Pixels are on a plane that are nearer than so many standard deviations, and whose normals are
# nearer than this. Real surfaces are as flat as this [m].
_NEAR, ALIGNED, _FLAT = 3.0, np.cos(np.radians(25.0)), 0.003
NEAREST = 1e-3  # metres, least depth of a reading
_ROUNDED = 0.005  # share of its size by which corners of an outline are cut off
_TURNED = np.cos(np.radians(12.0))  # a surface is no further off its direction
_EXPECTED = 0.03  # metres off its place that a surface may be that is expected there
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

    @cached_property
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
    """
    Return the surfaces that face a direction, the largest first.

    The greatest heap of readings that are left is fitted by a plane, again and again. Parts of it
    that are apart, as the bottom of a bin and the table around it, are surfaces of their own.
    """
    facing = _Facing(read, direction)
    heights = facing.points @ direction.astype(np.float32)
    free = np.ones(len(heights), bool)
    least = max(_LEAST_PIXELS, _LEAST_SHARE * read.count)
    found: list[Level] = []
    for _ in range(_MOST_LEVELS):
        left = heights[free]
        if len(left) < least:
            break
        heap = np.bincount(((left - left.min()) / _HEAP).astype(int))
        heap = np.convolve(heap, (1, 2, 3, 2, 1))[2:-2]
        off = np.abs(heights - left.min() - (int(np.argmax(heap)) + 0.5) * _HEAP)
        near = free & (off < np.maximum(_HEAP, _NEAR * facing.std))
        if np.count_nonzero(near) < least:
            break
        free &= off >= _HEAP
        plane = facing.fitted(near)
        if plane is not None:
            free &= ~facing.is_near(plane, 1.5)
            found += [one for one in facing.parts(plane, least)
                      if not any(_is_same(one, other) for other in found)]
    return sorted(found, key=lambda one: -np.count_nonzero(one.seen))


def surface_near(read: Readings, plane: SupportPlane) -> Level | None:
    """Return the largest surface about where a plane is expected; None where there is none."""
    facing = _Facing(read, plane.normal)
    found = facing.fitted(np.abs(plane.height(facing.points)) < _EXPECTED)
    parts = [] if found is None else facing.parts(found, _LEAST_PIXELS)
    return max(parts, key=lambda one: np.count_nonzero(one.seen), default=None)


def _is_same(one: Level, other: Level) -> bool:
    return np.count_nonzero(one.seen & other.seen) > 0.5 * np.count_nonzero(one.seen)


class _Facing:
    """The pixels that face a direction."""

    def __init__(self, read: Readings, direction: np.ndarray) -> None:
        self._read, self._direction = read, direction
        self._pixels = np.flatnonzero(read.normals @ direction.astype(np.float32) > ALIGNED)
        self._normals = read.normals.reshape(-1, 3).take(self._pixels, axis=0)
        self.points = read.points.reshape(-1, 3).take(self._pixels, axis=0)
        self.std = read.std.ravel()[self._pixels]

    def is_near(self, plane: SupportPlane, times: float = 1.0) -> np.ndarray:
        """Tell which pixels are no farther from a plane than so many times the tolerance."""
        height = plane.height(self.points)
        return np.abs(height) < times * tolerance(plane, height, self.points[:, 2], self.std)

    def fitted(self, near: np.ndarray) -> SupportPlane | None:
        """
        Fit a plane to what is near it until that stays the same; None when it turns too far.

        :param near: (N,) bool, the pixels to begin with
        """
        plane, last = None, 0
        for _ in range(_ROUNDS):
            some = np.flatnonzero(near)
            if len(some) < _LEAST_PIXELS:
                return None
            if abs(len(some) - last) <= _SETTLED * last:
                break
            last, some = len(some), some[::len(some) // _ENOUGH + 1]
            plane = fitted(self.points[some], self.std[some])
            if plane.normal @ self._direction < _TURNED:
                return None
            near = self._is_on(plane)
        return plane

    def parts(self, plane: SupportPlane, least: float) -> Iterator[Level]:
        """
        Give the parts of a plane, each fitted by itself.

        :param least: pixels of a part
        """
        read, height = self._read, plane.height(self._read.points)
        reach = tolerance(plane, height, read.points[..., 2], read.std)
        on_plane = np.zeros(read.std.shape, bool)
        on_plane.flat[self._pixels] = self._is_on(plane)
        labels = _parts(on_plane, (height > reach) & (height < _ABOVE), np.isnan(read.std))
        inside = labels.ravel()[self._pixels]
        for label in np.flatnonzero(np.bincount(inside)[1:] >= least) + 1:
            own = self.fitted(inside == label)
            near = np.zeros(0, bool) if own is None else (inside == label) & self._is_on(own)
            if own is None or np.count_nonzero(near) < least:
                continue
            seen = np.zeros(read.std.shape, bool)
            seen.flat[self._pixels] = near
            # Windows at its border show other surfaces, too.
            beside = cv2.dilate(
                seen.view(np.uint8), np.ones(2 * (read.window,), np.uint8)).view(bool)
            height = own.height(read.points)
            reach = tolerance(own, height, read.points[..., 2], read.std)
            seen |= beside & (np.abs(height) < reach)
            flat = seen & (np.abs(height) < _NEAR * read.std)  # it ends where its border bends up
            if flat.any():
                yield Level(outlined(own, read.points, flat), seen)

    def _is_on(self, plane: SupportPlane) -> np.ndarray:
        return self.is_near(plane) & (self._normals @ plane.normal.astype(np.float32) > ALIGNED)


def fitted(points: np.ndarray, std: np.ndarray) -> SupportPlane:
    """
    Fit a plane that faces the camera to points, (N, 3) metres, whose depths have these deviations.

    On it q . p = 1, so the inverse depth is linear in the rays, where noise of the depth is noise
    of what is measured: least squares are unbiased, also for planes that are seen edge-on.
    """
    points = points.astype(float)
    weighted = points * ((points[:, 2] / std) ** 2)[:, None]
    q = cv2.solve(weighted.T @ points, weighted.sum(axis=0), flags=cv2.DECOMP_SVD)[1][:, 0]
    length = float(np.linalg.norm(q))
    return SupportPlane(-q / length, 1.0 / length)


def tolerance(
    plane: SupportPlane, height: np.ndarray, depth: np.ndarray, std: np.ndarray,
) -> np.ndarray:
    """
    Return how far off a plane its readings may be: metres, same shape as their heights above it.

    Noise moves readings along their rays; a plane that is seen edge-on is met at a low angle.
    """
    across = np.abs(height - plane.offset) / np.maximum(depth, NEAREST)
    return _NEAR * np.maximum(std * across, _FLAT)


def outlined(plane: SupportPlane, points: np.ndarray, seen: np.ndarray) -> SupportPlane:
    """
    Return a plane with the outline of what is seen of it.

    :param points: (H, W, 3) metres
    :param seen: (H, W) bool
    """
    rows = np.flatnonzero(seen.any(axis=1))
    first = seen[rows].argmax(axis=1)
    last = seen.shape[1] - 1 - seen[rows, ::-1].argmax(axis=1)
    ends = points[np.tile(rows, 2), np.concatenate([first, last])].astype(float)
    outline = cv2.convexHull((ends @ plane.axes.T).astype(np.float32))
    outline = cv2.approxPolyDP(outline, _ROUNDED * float(np.ptp(outline, axis=0).max()), True)
    return replace(plane, hull=outline[:, 0] @ plane.axes - plane.offset * plane.normal)


def _parts(on_plane: np.ndarray, above: np.ndarray, unread: np.ndarray) -> np.ndarray:
    """
    Label the parts of a plane; one that objects on it cut into several stays one.

    :param above: pixels of what may stand on it
    :param unread: pixels without a reading, which part nothing
    :return: (H, W) int, 0 = no part
    """
    kernel = np.ones((3, 3), np.uint8)
    opened = cv2.morphologyEx((on_plane | unread).view(np.uint8), cv2.MORPH_OPEN, kernel)
    gap = max(3, on_plane.shape[1] // 24)
    shadow = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (gap, gap))
    opened[~on_plane] = 0
    objects = cv2.morphologyEx(above.view(np.uint8), cv2.MORPH_OPEN, kernel)
    _, parts = cv2.connectedComponents(np.bitwise_or(cv2.dilate(opened, shadow), objects))
    parts[opened == 0] = 0
    return parts
