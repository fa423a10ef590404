# SPDX-License-Identifier: Apache-2.0
"""What stands on which surface, and what is below it, if a direction is up."""

from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from scipy import ndimage

from img2scene_ros.depth import measured
from img2scene_ros.detection.planes import NEAREST
from img2scene_ros.detection.planes import Level
from img2scene_ros.detection.planes import Readings
from img2scene_ros.types import SupportPlane

# Things: least pixels; height above a surface where they begin, that up to which they touch it,
# and by which they stand on it though they hide their own foot [m].
_LEAST_PIXELS, _LEAST_CONTACT, _LOWEST, _TOUCHING, _HIDDEN_FOOT = 12, 2, 0.01, 0.03, 0.5
# Standard deviations of the depth that stand out of a surface, and jump from one to another.
_DEVIATIONS, _JUMP_DEVIATIONS, _JUMP = 4.0, 3.0, 0.01
# Nothing that stands on something is larger than this [m], or wider than such a share of it.
_LARGEST, _WIDEST = 2.5, 0.9
# Below something it is open where readings lie so far in [m]; every n-th row and column tells.
_WITHIN, _NTH = 0.06, 2
_THICK = 0.06  # metres below its upper side that a board ends
_OVER = 0.5  # share of a thing that is over what it stands on


@dataclass(frozen=True, eq=False)
class Thing:
    """
    Something that stands on a surface.

    - surface: position of the surface in its group
    - pixels: how many show it
    - touches: it is seen where it stands; others hide their own foot, as bowls do
    - top: position of a surface that it ends at, as a table's legs do; None if it does not
    """

    surface: int
    pixels: int
    touches: bool
    top: int | None


def depth_jumps(read: Readings) -> np.ndarray:
    """Return the pixels whose right or lower neighbour is on another surface, (H, W) bool."""
    depth = read.points[..., 2]
    reach = _JUMP + _JUMP_DEVIATIONS * read.std + read.pitch * 3.0
    jumps = np.zeros(depth.shape, bool)
    jumps[:, :-1] |= np.abs(np.diff(depth, axis=1)) > reach[:, :-1]
    jumps[:-1] |= np.abs(np.diff(depth, axis=0)) > reach[:-1]
    return jumps


def things(
    read: Readings, group: Sequence[Level], walls: Sequence[Level], jumps: np.ndarray,
) -> Iterator[Thing]:
    """
    Find what stands on surfaces of one direction.

    :param walls: surfaces of other directions that are no part of anything
    :param jumps: (H, W) bool, between two surfaces
    """
    least = np.maximum(_LOWEST, _DEVIATIONS * read.std)
    is_free = np.isfinite(read.std) & ~jumps
    heights = [one.plane.height(read.points) for one in group]
    near = [_dilated(one.seen) for one in group]
    for height, around in zip(heights, near):
        is_free &= ~((np.abs(height) < least) & around)
    for wall in walls:
        is_free[_dilated(wall.seen) & (np.abs(wall.plane.height(read.points)) < least)] = False
    count, labels, stats, _ = cv2.connectedComponentsWithStats(
        is_free.astype(np.uint8), connectivity=4)

    def meeting(pixels: np.ndarray) -> np.ndarray:
        """Tell which parts have enough of the pixels, (count,) bool."""
        return np.bincount(labels[pixels & is_free], minlength=count) >= _LEAST_CONTACT

    beside = [meeting(around & (height > 0.0)) for height, around in zip(heights, near)]
    touching = [meeting(around & (height > 0.0) & (height < least + _TOUCHING))
                for height, around in zip(heights, near)]
    ending = [meeting(around & (height < 0.0)) for height, around in zip(heights, near)]
    for part, window in enumerate(ndimage.find_objects(labels), 1):
        pixels = int(stats[part, cv2.CC_STAT_AREA])
        if pixels < _LEAST_PIXELS:
            continue
        points = read.points[window][labels[window] == part][::pixels // 200 + 1]
        bases = [i for i, one in enumerate(group)
                 if touching[i][part] and _stands_on(points, one.plane, np.inf)]
        touches = bool(bases)
        if touches:
            bases.sort(key=lambda i: -group[i].plane.offset)  # the lowest first
        else:
            bases = sorted((i for i, one in enumerate(group)
                            if beside[i][part] and _stands_on(points, one.plane, _HIDDEN_FOOT)),
                           key=lambda i: group[i].plane.offset)
        if bases:
            tops = [i for i, one in enumerate(group) if i != bases[0] and ending[i][part]
                    and _quantile(one.plane.height(points), 0.9) < _LOWEST]
            yield Thing(bases[0], pixels, touches, tops[0] if tops else None)


def seen_below(read: Readings, upper: SupportPlane, lower: SupportPlane) -> tuple[int, int]:
    """
    Look under a surface, from beside it: a board leaves the view free, a box does not.

    :return: of the readings whose rays run in under its outline and above a lower surface, how
        many show something right there, and how many what lies farther in, or the lower surface
    """
    points, std = read.points[::_NTH, ::_NTH], read.std[::_NTH, ::_NTH]
    rays = points / np.maximum(points[..., 2:], NEAREST)
    down = np.minimum(rays @ lower.normal.astype(np.float32), -1e-3)
    ends = upper.is_over(rays * (-lower.offset / down)[..., None])
    rays, down, points, std = rays[ends], down[ends], points[ends], std[ends]
    runs_in = ~upper.is_over(rays * (-upper.offset / down)[:, None])
    points = points[runs_in]
    is_lower = lower.height(points) < np.maximum(_LOWEST, _DEVIATIONS * std[runs_in])
    before = points * (1.0 - _WITHIN / np.linalg.norm(points, axis=1))[:, None]
    is_open = is_lower | upper.is_over(before)
    is_solid = ~is_open & upper.is_over(points, _TOUCHING) & (upper.height(points) < -_THICK)
    return int(np.count_nonzero(is_solid)), int(np.count_nonzero(is_open))


def _dilated(seen: np.ndarray) -> np.ndarray:
    return cv2.dilate(seen.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0


def _stands_on(points: np.ndarray, plane: SupportPlane, highest: float) -> bool:
    """Tell whether points, (N, 3) metres, are over a plane, not too high, and small beside it."""
    if not -_LOWEST < _quantile(plane.height(points), 0.1) < highest:
        return False
    size = _quantile(points, 0.98) - _quantile(points, 0.02)
    if np.linalg.norm(size) > _LARGEST or plane.is_over(points, 0.02).mean() < _OVER:
        return False
    plan = points @ plane.axes.T.astype(points.dtype)
    wide = (_quantile(plan, 0.95) - _quantile(plan, 0.05)).max()
    return bool(wide < _WIDEST * np.ptp(measured(plane.hull) @ plane.axes.T, axis=0).max())


def _quantile(values: np.ndarray, share: float) -> np.ndarray:
    """Return the value below which this share of the values lies, along the first axis."""
    place = int(share * (len(values) - 1) + 0.5)
    return np.partition(values, place, axis=0)[place]
