# SPDX-License-Identifier: Apache-2.0
"""Which sighting is which object: by place, size, colour and name."""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from img2scene_ros.scene.evidence import Seen
from img2scene_ros.scene.look import Look
from img2scene_ros.scene.track import Track
from img2scene_ros.types import UNNAMED

# How far apart in place (a share of the diagonal), size (a factor along an axis) and mean colour
# (CIELAB) a sighting and an object may be that is tracked, that comes back to its old place, and
# that turns up elsewhere.
_TRACKED = (0.35, 1.6, 35.0)
_BACK = (0.2, 1.3, 12.5)
_ELSEWHERE = (np.inf, 1.2, 8.0)
_RENAMED = 0.3  # cost of another name, beside up to 1 each for place, size and colour
_SAME = 1.05  # factor of a size up to which all of an object is seen, whatever is before it
# Shares of an object that the border or something nearer hides, or a mask misses, at most.
# Meshes that readings contradict tell less of what is hidden.
_HIDDEN, _HIDDEN_OF_STALE, _MISSED = 0.03, 0.3, 0.2
_INSIDE = 0.8  # share of its readings by which a sighting lies within objects that are known
_REACH = 0.6  # of their diagonals together, farther than which two boxes do not overlap
_NO_MATCH = 1e6


def matched(
    tracks: Sequence[Track], looks: Sequence[Look], seconds: float,
) -> dict[int, Track]:
    """
    Assign tracks to looks, by index, so that the sum of their differences is least.

    :param seconds: since the frame before
    """
    if not looks or not tracks:
        return {}
    places = np.stack([track.center + track.motion.predicted(seconds) for track in tracks])
    apart = np.linalg.norm(np.stack([look.position for look in looks])[:, None] - places, axis=2)
    sizes, seen = (np.linalg.norm([one.size for one in ones], axis=1) for ones in (
        tracks, [look.sighting.placement for look in looks]))
    costs = np.full(apart.shape, _NO_MATCH)
    for row, column in zip(*np.nonzero(apart < _REACH * (seen[:, None] + sizes))):
        costs[row, column] = _tracked_cost(tracks[column], looks[row], apart[row, column])
    rows, columns = linear_sum_assignment(costs)
    return {row: tracks[column] for row, column in zip(rows, columns)
            if costs[row, column] < _NO_MATCH}


def _tracked_cost(track: Track, look: Look, apart: float) -> float:
    """Return how far a look differs from an object; `_NO_MATCH` when it is another one."""
    cost = _cost(track, look, apart, _TRACKED)
    if cost == _NO_MATCH and not track.is_tentative:
        # What hides it in part, or the border, leaves less of it to be seen.
        inside = float(track.holds(look.points).mean())
        same_name = look.sighting.detection.label in (track.detection.label, UNNAMED)
        if inside > _INSIDE and same_name:
            return 4.0 - inside
    return cost


def shows_all(track: Track, look: Look, seen: Seen, index: int) -> bool:
    """
    Tell whether a look shows as much of an object as others did: its box tells its place.

    :param seen: samples of the object, at an index, where it was
    """
    growth = _growth(track.size, look.sighting.placement.size)
    if growth < np.log(_SAME):
        return True
    most = _HIDDEN_OF_STALE if track.is_stale else _HIDDEN
    return (growth < np.log(_TRACKED[1]) or track.is_stale) and (
        seen.in_view[index] > 1.0 - most and seen.hidden_share(index) < most
        and seen.missed_share(index) < _MISSED)


def returned(lost: Sequence[Track], look: Look) -> tuple[Track | None, bool]:
    """Return the lost object that a look shows, if any, and whether it is at its old place."""
    for limits in (_BACK, _ELSEWHERE):
        costs = [_cost(track, look, float(np.linalg.norm(look.position - track.center)), limits)
                 for track in lost]
        if costs and min(costs) < _NO_MATCH:
            return lost[int(np.argmin(costs))], limits is _BACK
    return None, False


def is_explained(tracks: Sequence[Track], look: Look) -> bool:
    """Tell whether a look that no object was assigned to shows parts of known ones."""
    label = look.sighting.detection.label
    tracks = [track for track in tracks if label in (track.detection.label, UNNAMED)]
    inside = np.zeros(len(look.points), bool)
    for track in tracks:
        inside |= track.holds(look.points)
    return bool(inside.mean() > _INSIDE)


def _cost(
    track: Track, look: Look, apart: float, limits: tuple[float, float, float],
) -> float:
    placement = look.sighting.placement
    share, factor, change = limits
    reach = share * np.linalg.norm(placement.size) + 3.0 * np.linalg.norm(placement.position_std)
    place = apart / reach
    if place > 1.0:
        return _NO_MATCH
    size = _growth(track.size, placement.size) / np.log(factor)
    color = float(np.linalg.norm(look.color - track.color)) / change
    if max(place, size, color) > 1.0:
        return _NO_MATCH
    renamed = look.sighting.detection.label != track.detection.label
    return place + size + color + _RENAMED * renamed


def _growth(one: np.ndarray, other: np.ndarray) -> float:
    """
    Return the logarithm of by how much two sizes differ, in height or in diameter in plan.

    Which of the horizontal sides is x depends on where the camera is, which does not see how far
    the object goes behind.
    """
    both = [np.log(np.maximum((np.hypot(*size[:2]), size[2]), 1e-3)) for size in (one, other)]
    return float(np.abs(both[0] - both[1]).max())
