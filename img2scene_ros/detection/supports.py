# SPDX-License-Identifier: Apache-2.0
"""
The support plane: the table or floor that objects stand on.

The surfaces of a coarse picture are grouped by the direction that they face. Those of one
direction are a hypothesis of where up is; what stands on them, how far they extend and how
cameras are usually held decide which. Of its surfaces the tops of objects are none that things
stand on; of the others the one that carries most is the support.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from itertools import chain

import cv2
import numpy as np

from img2scene_ros.depth import measured
from img2scene_ros.detection.carrying import depth_jumps
from img2scene_ros.detection.carrying import things
from img2scene_ros.detection.planes import ALIGNED
from img2scene_ros.detection.planes import Level
from img2scene_ros.detection.planes import Readings
from img2scene_ros.detection.planes import directions
from img2scene_ros.detection.planes import least_squares
from img2scene_ros.detection.planes import outlined
from img2scene_ros.detection.planes import readings
from img2scene_ros.detection.planes import surfaces
from img2scene_ros.detection.scaled import reduced
from img2scene_ros.types import Frame
from img2scene_ros.types import SupportPlane

_WIDTH = 213  # pixels, of the coarse picture
_LEAST_READ = 0.01  # share of its pixels that have readings
# The top of an object is no higher above what it stands on than this [m], and its area is less
# than such a share of that. Larger surfaces of other directions are no parts of things [m].
_LOW, _SMALLER, _WALL = 0.35, 0.5, 0.4
_BARE = 0.2  # of the largest surface's pixels: where nothing stands, the lowest one with more wins
# Weights of logarithms, fitted by logistic regression to 210 rendered scenes: what touches the
# surfaces of a direction, how far they extend, how cameras are held.
_CARRIED, _EXTENT, _HELD_LEVEL = 2.0, 2.5, 0.8
_TOP = 0.5  # the top of an object counts so much beside what is seen to touch its support
# How cameras are held: so many are level rather than rolled anyhow, by that standard deviation
# [degrees]; a plane seen head-on is the ground rather than a wall so often.
_LEVEL, _ROLL_STD, _DOWN, _HEAD_ON = 13.0, 8.0, 0.15, np.sin(np.radians(15.0))
# Other supports than the main one: least logarithm of what stands on them, least area [m^2], and
# height above or below the main one up to which they are a part of it [m].
_OTHER_LOAD, _OTHER_AREA, _SAME_LEVEL = 2.5, 0.03, 0.03
_SUNK = 0.03  # metres that readings of a thing may lie below what it stands on
_FEW_READINGS = 0.05  # share of the picture; with less nothing can be found
# From frame to frame: a plane is held while this share of the pixels that showed it still does,
# and searched anew after so many frames. A fit takes so many readings and rounds at most.
_STILL_SEEN, _HELD, _FITTED, _ROUNDS = 0.9, 30, 20000, 8


@dataclass(frozen=True, eq=False)
class _Candidate:
    """
    A surface that things may stand on.

    - seen: (H, W) bool, the pixels on it
    - carried: what is seen to stand on it, the sum of the square roots of the pixels of each
    - hidden: likewise what is over it, but hides its own foot
    """

    plane: SupportPlane
    seen: np.ndarray
    carried: float
    hidden: float

    @property
    def load(self) -> float:
        """Return a logarithm of how much stands on it."""
        return float(np.log1p(self.carried + self.hidden))


class HeldSupport:
    """Finds the supports in frame after frame: planes that are still there are only fitted."""

    def __init__(self) -> None:
        self._held: tuple[_Candidate, ...] = ()
        self._age = 0

    def find(self, frame: Frame) -> tuple[SupportPlane, ...]:
        """
        Find the planes that things stand on, such as a table and the floor beside it.

        :return: the one that most stands on first; empty when the depth image shows no plane that
            may be horizontal
        """
        self._age += 1
        if not frame.has_depth:
            return ()
        frame, held = reduced(frame)[0], self._held
        if held and self._age <= _HELD and _is_still_seen(frame, held[0]):
            self._held = tuple(
                replace(one, plane=_fitted_again(frame, one)) for one in held
                if one is held[0] or _is_still_seen(frame, one))
        else:
            self._held, self._age = _found(frame), 0
        return tuple(one.plane for one in self._held)


def find_support(frame: Frame) -> SupportPlane | None:
    """
    Find the plane that most objects stand on.

    :return: None when the depth image shows no plane that may be horizontal
    """
    return next(iter(HeldSupport().find(frame)), None)


def support_under(
    points: np.ndarray, supports: Sequence[SupportPlane],
) -> SupportPlane | None:
    """
    Return the highest plane that lies under a thing.

    :param points: (N, 3) metres, of its surface; NaN = no reading
    :param supports: the first is taken where none lies under it
    """
    if len(supports) < 2:
        return next(iter(supports), None)
    points = points[np.isfinite(points).all(axis=-1)]
    under = [one for one in supports if len(points) and one.is_over(points).mean() > 0.5
             and np.percentile(one.height(points), 5) > -_SUNK]
    return min(under, key=lambda one: one.offset) if under else next(iter(supports), None)


def _is_still_seen(frame: Frame, held: _Candidate) -> bool:
    """Tell whether a plane of an earlier frame is where it was, and may still be horizontal."""
    part = _every_nth(frame)
    depth = measured(frame.depth)[part]
    if depth.shape != held.seen.shape or (
            frame.up is not None and held.plane.normal @ frame.up <= ALIGNED):
        return False
    depth = depth[held.seen]
    off = np.abs(held.plane.height(frame.camera.rays[part][held.seen] * depth[:, None]))
    is_on_plane = off < 3.0 * frame.depth_std(depth)
    return bool(is_on_plane.mean() > _STILL_SEEN)


def _found(frame: Frame) -> tuple[_Candidate, ...]:
    """Search the supports in a coarse picture, and fit them to all readings."""
    coarse = _coarse(frame)
    read = readings(coarse)
    if read.count < _LEAST_READ * read.std.size:
        return ()
    groups = _groups(read, frame.up)
    best = max(groups, key=lambda group: _evidence(group, frame.up), default=None)
    if best is None:
        return ()
    chosen = _chosen(best)
    others = sorted((one for one in best if one is not chosen and _is_another(one, chosen)),
                    key=lambda one: -one.load)
    return tuple(replace(one, plane=_at_full_resolution(frame, one)) for one in (chosen, *others))


def _is_another(one: _Candidate, main: _Candidate) -> bool:
    """Tell whether things stand on a surface that is no part of the main support."""
    height = main.plane.height(measured(one.plane.hull))
    return (one.load > _OTHER_LOAD and _area(one.plane) > _OTHER_AREA
            and float(np.abs(height).mean()) > _SAME_LEVEL)


def _groups(read: Readings, up: np.ndarray | None) -> list[list[_Candidate]]:
    """Return for each direction that may be up what things may stand on."""
    found = [surfaces(read, one) for one in directions(read, up)]
    jumps = depth_jumps(read)
    groups = []
    for group in found:
        others = chain.from_iterable(other for other in found if other is not group)
        walls = [one for one in others if _extent(one.plane) > _WALL]
        groups.append(_candidates(read, group, walls, jumps))
    return [group for group in groups if group]


def _every_nth(frame: Frame) -> tuple[slice, slice]:
    """Return which pixels of a frame make the coarse picture."""
    step = max(1, round(frame.shape[1] / _WIDTH))
    height, width = (size // step * step for size in frame.shape)
    return np.s_[:height:step, :width:step]


def why_nothing(frame: Frame, support: SupportPlane | None) -> str:
    """Tell in one sentence why a depth image shows no objects, and what to do about it."""
    depth = measured(frame.depth)
    read = depth[np.isfinite(depth)]
    if len(read) < _FEW_READINGS * depth.size:
        return (f'no object: only {len(read) / depth.size:.0%} of the depth image has readings; '
                "check the camera's range and that nothing covers it")
    distance = f'the median distance is {np.median(read):.2f} m'
    if support is None:
        return ('no object: the depth image shows no plane that things may stand on '
                f'({distance}); point the camera at a table or floor, and check the unit of the '
                'depth')
    area = 0.0 if support.hull is None else _area(support)
    return (f'no object: a support of {area:.2f} square metres is seen, but nothing stands out '
            f'of it ({distance}); move the camera closer, or lower tabletop.min_height or '
            'tabletop.min_size')


def _coarse(frame: Frame) -> Frame:
    """Return every n-th pixel of a frame."""
    part = _every_nth(frame)
    depth = np.ascontiguousarray(measured(frame.depth)[part])
    return replace(frame, color=frame.color[part], depth=depth, support=None, robot=None,
                   camera=frame.camera.binned(part[0].step, part[1].step))


def _candidates(
    read: Readings, group: Sequence[Level], walls: Sequence[Level], jumps: np.ndarray,
) -> list[_Candidate]:
    """Return the surfaces of one direction but for tops of objects, with what stands on them."""
    carried, hidden = np.zeros(len(group)), np.zeros(len(group))
    bases = [_base(one, group) for one in group]
    for thing in things(read, group, walls, jumps):
        is_leg = thing.top is not None and bases[thing.top] is None  # of a table
        if not is_leg:
            (carried if thing.touches else hidden)[thing.surface] += np.sqrt(thing.pixels)
    for i in sorted(range(len(group)), key=lambda i: group[i].plane.offset):  # the highest first
        if bases[i] is not None:
            carried[bases[i]] += carried[i] + _TOP * np.sqrt(np.count_nonzero(group[i].seen))
            hidden[bases[i]] += hidden[i]
    return [_Candidate(one.plane, one.seen, *loads)
            for one, base, *loads in zip(group, bases, carried, hidden) if base is None]


def _base(one: Level, group: Sequence[Level]) -> int | None:
    """Return the position of the surface on which an object stands whose top one is, if it is."""
    hull = measured(one.plane.hull)
    found = [(i, other.plane.height(hull).mean()) for i, other in enumerate(group)
             if other is not one and _is_above(one.plane, other.plane)
             and _area(one.plane) < _SMALLER * _area(other.plane)
             and other.plane.height(hull).mean() < _LOW
             and other.plane.is_over(hull, 0.02).mean() > 0.5]
    return min(found, key=lambda one: one[1])[0] if found else None


def _area(plane: SupportPlane) -> float:
    """Return the area within the outline of a plane, square metres."""
    return float(cv2.contourArea(
        (measured(plane.hull) @ plane.axes().T).astype(np.float32).reshape(-1, 1, 2)))


def _extent(plane: SupportPlane) -> float:
    """Return the greatest width of the outline of a plane, metres."""
    return float(np.ptp(measured(plane.hull) @ plane.axes().T, axis=0).max())


def _evidence(group: Sequence[_Candidate], up: np.ndarray | None) -> float:
    """Return the logarithm of the odds that the planes of a direction are horizontal."""
    carried = max(one.carried for one in group)
    extent = max(_extent(one.plane) for one in group)
    evidence = _CARRIED * np.log1p(carried) + _EXTENT * np.log(extent)
    return evidence if up is not None else evidence + _HELD_LEVEL * _prior(group[0].plane.normal)


def _prior(normal: np.ndarray) -> float:
    """Return the logarithm of how likely a camera is held so that this is up."""
    sideways = np.degrees(np.arcsin(np.clip(normal[0], -1.0, 1.0)))
    level = _LEVEL * np.exp(-0.5 * (sideways / _ROLL_STD) ** 2)
    if normal[1] > -_HEAD_ON:
        level *= _DOWN if normal[1] < _HEAD_ON else 0.0
    return float(np.log(0.25 + level))


def _chosen(candidates: Sequence[_Candidate]) -> _Candidate:
    """Choose the support among surfaces of one direction: what carries most."""
    if any(one.load for one in candidates):
        return max(candidates, key=lambda one: one.load)
    largest = max(np.count_nonzero(one.seen) for one in candidates)
    return max((one for one in candidates if np.count_nonzero(one.seen) > _BARE * largest),
               key=lambda one: one.plane.offset)


def _is_above(plane: SupportPlane, other: SupportPlane) -> bool:
    return plane.height(measured(other.hull)).mean() < -0.02


def _at_full_resolution(frame: Frame, coarse: _Candidate) -> SupportPlane:
    """Fit a plane of the coarse picture to the readings where it was seen, and outline it."""
    points, tolerance = _readings(frame, coarse)
    plane = _fitted(coarse.plane, points, tolerance)
    return outlined(plane, points[np.abs(plane.height(points)) < tolerance])


def _fitted_again(frame: Frame, held: _Candidate) -> SupportPlane:
    """Fit a plane to the readings of another frame; its outline stays."""
    plane = _fitted(held.plane, *_readings(frame, held, _FITTED))
    hull = measured(held.plane.hull)
    return replace(plane, hull=hull - plane.height(hull)[:, None] * plane.normal)


def _readings(
    frame: Frame, coarse: _Candidate, most: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return points where a plane was seen, (N, 3) metres, and how far off they may be."""
    around = cv2.resize(coarse.seen.astype(np.uint8), frame.shape[::-1],
                        interpolation=cv2.INTER_NEAREST).view(bool)
    points = frame.readings(around, most)
    return points, 3.0 * frame.depth_std(points[:, 2])


def _fitted(plane: SupportPlane, points: np.ndarray, tolerance: np.ndarray) -> SupportPlane:
    """Fit a plane to so many as `_FITTED` of the points that are near it."""
    some = np.s_[::len(points) // _FITTED + 1]
    points, tolerance, last = points[some], tolerance[some], None
    for _ in range(_ROUNDS):
        on_plane = np.abs(plane.height(points)) < tolerance
        if last is not None and (on_plane == last).all():
            break
        plane, last = SupportPlane(*least_squares(points[on_plane], tolerance[on_plane])), on_plane
    return plane
