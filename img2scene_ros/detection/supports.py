# SPDX-License-Identifier: Apache-2.0
"""
The support plane: the table or floor that objects stand on.

The surfaces of a coarse picture are grouped by the direction that they face. Those of one
direction are a hypothesis of where up is, and each of them, but for the tops of objects, one of
what the support is. What stands on it, what is seen below it, how far such surfaces extend and how
cameras are usually held decide at once.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from itertools import chain

import cv2
import numpy as np

from img2scene_ros.depth import measured
from img2scene_ros.detection.carrying import depth_jumps
from img2scene_ros.detection.carrying import seen_below
from img2scene_ros.detection.carrying import things
from img2scene_ros.detection.planes import ALIGNED
from img2scene_ros.detection.planes import Level
from img2scene_ros.detection.planes import Readings
from img2scene_ros.detection.planes import directions
from img2scene_ros.detection.planes import fitted
from img2scene_ros.detection.planes import readings
from img2scene_ros.detection.planes import surface_near
from img2scene_ros.detection.planes import surfaces
from img2scene_ros.detection.planes import tolerance
from img2scene_ros.detection.scaled import reduced
from img2scene_ros.types import Frame
from img2scene_ros.types import SupportPlane

_WIDTH = 213  # pixels, of the coarse picture
_LEAST_READ = 0.01  # share of its pixels that have readings
# The top of an object is no higher above what it stands on than this [m], and its area is less
# than such a share of that. Larger surfaces of other directions are no parts of things [m].
_LOW, _SMALLER, _WALL = 0.35, 0.5, 0.4
_SEAT = 0.6  # and what is solid and no higher than this is no table, but a seat, a bed, a box [m]
# Weights of what tells a support, by conditional logistic regression on 210 rendered scenes: how
# cameras are held; logarithms of what stands on it, of what does but hides its own foot, and of
# its area; what is seen to be solid, and what open below it. Little that stands on it, few
# readings below, and a small area [m^2] are none. The first was 1.0, of cameras of which a third
# had any roll, which is more than real ones have.
_WEIGHTS = np.array([1.2, 3.4, 1.3, 0.6, -2.9, 1.3])
_LITTLE, _FEW, _SMALL = 10.0, 5, 0.01
_TOP = 0.5  # the top of an object counts so much beside what is seen to touch its support
# How cameras are held: so many are level rather than rolled anyhow, by that standard deviation
# [degrees]; a plane seen head-on is the ground rather than a wall so often.
_LEVEL, _ROLL_STD, _DOWN, _HEAD_ON = 13.0, 8.0, 0.15, np.sin(np.radians(15.0))
# Other supports than the main one: least sum of what stands on them, least area [m^2], height
# above or below the main one up to which they are a part of it [m], and cosine of the angle to it.
_OTHER_LOAD, _OTHER_AREA, _SAME_LEVEL, _PARALLEL = 11.0, 0.03, 0.03, np.cos(np.radians(5.0))
_SUNK = 0.03  # metres that readings of a thing may lie below what it stands on
_FEW_READINGS = 0.05  # share of the picture; with less nothing can be found
# From frame to frame: a plane is held while this share of the pixels that showed it still does,
# or where a camera that moves sees this share of them, and searched again after so many frames.
# A fit takes so many readings and rounds at most.
_STILL_SEEN, _FOLLOWED, _HELD, _FITTED, _ROUNDS = 0.9, 0.5, 30, 20000, 8


@dataclass(frozen=True, eq=False)
class _Candidate:
    """
    A surface that things may stand on.

    - seen: (H, W) bool, the pixels on it
    - carried: what is seen to stand on it, the sum of the square roots of the pixels of each
    - hidden: likewise what is over it, but hides its own foot
    - solid, open: what is seen below it, shares of the readings there
    """

    plane: SupportPlane
    seen: np.ndarray
    carried: float
    hidden: float
    solid: float
    open: float


class HeldSupport:
    """Finds the supports in frame after frame: planes that are still there are only fitted."""

    def __init__(self) -> None:
        self._held: tuple[_Candidate, ...] = ()
        self._age = 0
        self._pose = np.eye(4)  # of the camera that they are seen by

    def find(self, frame: Frame) -> tuple[SupportPlane, ...]:
        """
        Find the planes that things stand on, such as a table and the floor beside it.

        :return: the one that most stands on first; empty when the depth image shows no plane that
            may be horizontal
        """
        self._age += 1
        if not frame.has_depth:
            return ()
        frame = reduced(frame)[0]
        held = self._held if self._age <= _HELD else ()
        held = _still_seen(frame, held) or _followed(
            frame, held, np.linalg.inv(frame.pose) @ self._pose)
        if not held:
            held, self._age = _found(frame), 0
        self._held, self._pose = held, frame.pose
        return tuple(one.plane for one in held)


def supported(frame: Frame) -> Frame:
    """Return a frame with the supports that its depth image shows."""
    return replace(frame, supports=HeldSupport().find(frame))


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


def _still_seen(frame: Frame, held: Sequence[_Candidate]) -> tuple[_Candidate, ...]:
    """Return the planes of an earlier frame that are where they were; none without the first."""
    if not held or not _is_still_seen(frame, held[0]):
        return ()
    return tuple(replace(one, plane=_fitted_again(frame, one)) for one in held
                 if one is held[0] or _is_still_seen(frame, one))


def _followed(
    frame: Frame, held: Sequence[_Candidate], now_from_before: np.ndarray,
) -> tuple[_Candidate, ...]:
    """
    Return the planes of an earlier frame as a camera sees them that has moved.

    :param now_from_before: (4, 4) motion, as far as it is known
    """
    if not held:
        return ()
    read, followed = readings(_coarse(frame)), []
    for one in held:
        plane = one.plane.moved(now_from_before)
        level = surface_near(read, plane) if _may_be_up(frame, plane) else None
        if level is not None and np.count_nonzero(level.seen) > _FOLLOWED * np.count_nonzero(
                one.seen):
            one = replace(one, plane=level.plane, seen=level.seen)
            followed.append(replace(one, plane=_fitted_again(frame, one)))
        elif one is held[0]:
            return ()
    return tuple(followed)


def _may_be_up(frame: Frame, plane: SupportPlane) -> bool:
    return frame.up is None or bool(plane.normal @ frame.up > ALIGNED)


def _is_still_seen(frame: Frame, held: _Candidate) -> bool:
    """Tell whether a plane of an earlier frame is where it was, and may still be horizontal."""
    part = _every_nth(frame)
    depth = measured(frame.depth)[part]
    if depth.shape != held.seen.shape or not _may_be_up(frame, held.plane):
        return False
    depth = depth[held.seen]
    height = held.plane.height(frame.camera.rays[part][held.seen] * depth[:, None])
    reach = tolerance(held.plane, height, depth, frame.depth_std(depth))
    return bool((np.abs(height) < reach).mean() > _STILL_SEEN)


def _found(frame: Frame) -> tuple[_Candidate, ...]:
    """Search the supports in a coarse picture, and fit them to all readings."""
    coarse = _coarse(frame)
    read = readings(coarse)
    if read.count < _LEAST_READ * read.std.size:
        return ()
    groups = _groups(read, frame.up)
    group = max(groups, key=lambda group: max(_odds(group, frame.up)), default=None)
    if group is None:
        return ()
    chosen = group[int(np.argmax(_odds(group, frame.up)))]
    others = sorted((one for one in group if one is not chosen and _is_another(one, chosen)),
                    key=lambda one: -one.carried - one.hidden)
    return tuple(replace(one, plane=_fitted_again(frame, one)) for one in (chosen, *others))


def _is_another(one: _Candidate, main: _Candidate) -> bool:
    """Tell whether things stand on a surface that is no part of the main support, nor on it."""
    height = main.plane.height(measured(one.plane.hull))
    return (one.solid <= one.open and one.carried + one.hidden > _OTHER_LOAD
            and _area(one.plane) > _OTHER_AREA and float(np.abs(height).mean()) > _SAME_LEVEL
            and one.plane.normal @ main.plane.normal > _PARALLEL)


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


def why_nothing(frame: Frame) -> str:
    """Tell in one sentence why a depth image shows no objects, and what to do about it."""
    depth = measured(frame.depth)
    read = depth[np.isfinite(depth)]
    if len(read) < _FEW_READINGS * depth.size:
        return (f'no object: only {len(read) / depth.size:.0%} of the depth image has readings; '
                "check the camera's range and that nothing covers it")
    distance = f'the median distance is {np.median(read):.2f} m'
    support = frame.support
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
    return replace(frame, color=frame.color[part], depth=depth, robot=None,
                   camera=frame.camera.binned(part[0].step, part[1].step))


def _candidates(
    read: Readings, group: Sequence[Level], walls: Sequence[Level], jumps: np.ndarray,
) -> list[_Candidate]:
    """Return the surfaces of one direction but for tops of objects, with what stands on them."""
    carried, hidden = np.zeros(len(group)), np.zeros(len(group))
    below = [{i: seen_below(read, one.plane, other.plane) for i, other in enumerate(group)
              if _is_above(one.plane, other.plane)} for one in group]
    bases = [_base(*one, group) for one in zip(group, below)]
    legs = []
    for thing in things(read, group, walls, jumps):
        if thing.top is not None and bases[thing.top] is None:
            legs.append(thing)
        else:
            (carried if thing.touches else hidden)[thing.surface] += np.sqrt(thing.pixels)
    for leg in legs:  # of a table, which is a thing itself where nothing is on it
        if carried[leg.top] + hidden[leg.top] == 0.0:
            carried[leg.surface] += np.sqrt(leg.pixels)
    for i in sorted(range(len(group)), key=lambda i: group[i].plane.offset):  # the highest first
        if bases[i] is not None:
            carried[bases[i]] += carried[i] + _TOP * np.sqrt(np.count_nonzero(group[i].seen))
            hidden[bases[i]] += hidden[i]
    shares = [np.array(max(one.values(), key=sum, default=(0, 0))) for one in below]
    return [_Candidate(one.plane, one.seen, *loads, *share / (share.sum() + _FEW))
            for one, base, share, *loads in zip(group, bases, shares, carried, hidden)
            if base is None]


def _base(
    one: Level, below: Mapping[int, tuple[int, int]], group: Sequence[Level],
) -> int | None:
    """
    Return the position of the surface on which an object stands whose top one is, if it is.

    :param below: what is seen below it, by the positions of the surfaces there
    """
    hull = measured(one.plane.hull)
    found = []
    for i, (solid, free) in below.items():
        other = group[i].plane
        height, area = other.height(hull).mean(), _area(one.plane) / _area(other)
        is_top = height < _LOW and area < _SMALLER or (
            height < _SEAT and area < 1.0 and solid > 2 * free + _FEW)
        if is_top and other.is_over(hull, 0.02).mean() > 0.5:
            found.append((height, i))
    return min(found)[1] if found else None


def _area(plane: SupportPlane) -> float:
    """Return the area within the outline of a plane, square metres."""
    return float(cv2.contourArea(
        (measured(plane.hull) @ plane.axes.T).astype(np.float32).reshape(-1, 1, 2)))


def _extent(plane: SupportPlane) -> float:
    """Return the greatest width of the outline of a plane, metres."""
    return float(np.ptp(measured(plane.hull) @ plane.axes.T, axis=0).max())


def _odds(group: Sequence[_Candidate], up: np.ndarray | None) -> np.ndarray:
    """Return logarithms of the odds that surfaces of one direction are the support."""
    prior = _prior(group[0].plane.normal) if up is None else 0.0
    return np.array([
        (prior, np.log1p(one.carried / _LITTLE), np.log1p(one.hidden / _LITTLE),
         np.log(_SMALL + _area(one.plane)), one.solid, one.open) for one in group]) @ _WEIGHTS


def _prior(normal: np.ndarray) -> float:
    """Return the logarithm of how likely a camera is held so that this is up."""
    sideways = np.degrees(np.arcsin(np.clip(normal[0], -1.0, 1.0)))
    level = _LEVEL * np.exp(-0.5 * (sideways / _ROLL_STD) ** 2)
    if normal[1] > -_HEAD_ON:
        level *= _DOWN if normal[1] < _HEAD_ON else 0.0
    return float(np.log(0.25 + level))


def _is_above(plane: SupportPlane, other: SupportPlane) -> bool:
    return plane.height(measured(other.hull)).mean() < -0.02


def _fitted_again(frame: Frame, held: _Candidate) -> SupportPlane:
    """Fit a plane to the readings where it was seen; its outline stays."""
    around = cv2.resize(held.seen.view(np.uint8), frame.shape[::-1],
                        interpolation=cv2.INTER_NEAREST).view(bool)
    points = frame.readings(around, _FITTED)
    plane, std, last = held.plane, frame.depth_std(points[:, 2]), None
    for _ in range(_ROUNDS):
        height = plane.height(points)
        on_plane = np.abs(height) < tolerance(plane, height, points[:, 2], std)
        if last is not None and (on_plane == last).all():
            break
        plane, last = fitted(points[on_plane], std[on_plane]), on_plane
    hull = measured(held.plane.hull)
    return replace(plane, hull=hull - plane.height(hull)[:, None] * plane.normal)
