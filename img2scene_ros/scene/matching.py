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
_REACH = 0.6  # of the diagonal of an object, farther than which no part of it has its middle
# Shares of what is seen of an object: by which another one has taken its place, and by which it
# is a part of what a look shows, and how much of it then lies on readings at least.
_COVERED, _WITHIN, _SHOWN = 0.5, 0.8, 0.3
_FEWEST = 10  # samples that tell anything
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
    places = np.stack([track.expected(seconds) for track in tracks])
    apart = _apart(looks, places)
    costs = _costs(tracks, looks, apart, _TRACKED)
    reach = _REACH * np.linalg.norm([track.size for track in tracks], axis=1)
    for row, column in zip(*np.nonzero((costs == _NO_MATCH) & (apart < reach))):
        costs[row, column] = _cost_of_part(tracks[column], looks[row])
    rows, columns = linear_sum_assignment(costs)
    return {row: tracks[column] for row, column in zip(rows, columns)
            if costs[row, column] < _NO_MATCH}


def _cost_of_part(track: Track, look: Look) -> float:
    """Return how far a look is from a part of an object, as what hides it or the border leaves."""
    if track.is_tentative or look.sighting.detection.label not in (track.detection.label, UNNAMED):
        return _NO_MATCH
    inside = float(track.holds(look.points).mean())
    return 4.0 - inside if inside > _INSIDE else _NO_MATCH


def has_size(track: Track, look: Look) -> bool:
    """Tell whether a look is about as large as an object: it shows all of it."""
    return bool(_growth(track.size, look.sighting.placement.size) < np.log(_SAME))


def shows_all(track: Track, look: Look, seen: Seen) -> bool:
    """
    Tell whether a look that has another size shows as much of an object as others did.

    :param seen: samples of the object, where it was
    """
    growth = _growth(track.size, look.sighting.placement.size)
    most = _HIDDEN_OF_STALE if track.is_stale else _HIDDEN
    return (growth < np.log(_TRACKED[1]) or track.is_stale) and (
        seen.in_view > 1.0 - most and seen.hidden_share < most
        and seen.missed_share < _MISSED)


def is_covered(seen: Seen, others: Sequence[Look]) -> bool:
    """
    Tell whether most of what should be seen of an object now belongs to other ones.

    :param seen: its samples, where it should be
    """
    masks = [look.sighting.detection.mask for look in others]
    return any(mask is not None and len(seen.rows) > 0
               and mask[seen.rows, seen.columns].mean() > _COVERED for mask in masks)


def is_part(seen: Seen, look: Look) -> bool:
    """
    Tell whether a look shows all that is seen of an object, and more, where it is.

    :param seen: its samples, where it should be
    """
    mask, lies = look.sighting.detection.mask, seen.lies
    count = np.count_nonzero(lies)
    return (mask is not None and count >= _FEWEST
            and count > _WITHIN * np.count_nonzero(np.isfinite(seen.behind))
            and count > _SHOWN * len(lies)
            and bool(mask[seen.rows[lies], seen.columns[lies]].mean() > _WITHIN))


def returned(lost: Sequence[Track], look: Look) -> tuple[Track | None, bool]:
    """Return the lost object that a look shows, if any, and whether it is at its old place."""
    if lost:
        apart = _apart([look], np.stack([track.center for track in lost]))
        for limits in (_BACK, _ELSEWHERE):
            costs = _costs(lost, [look], apart, limits)[0]
            if costs.min() < _NO_MATCH:
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


def _apart(looks: Sequence[Look], places: np.ndarray) -> np.ndarray:
    """Return metres from each look to each of T places, (L, T)."""
    return np.linalg.norm(np.stack([look.position for look in looks])[:, None] - places, axis=2)


def _costs(
    tracks: Sequence[Track], looks: Sequence[Look], apart: np.ndarray,
    limits: tuple[float, float, float],
) -> np.ndarray:
    """
    Return how far each look differs from each object, (L, T); `_NO_MATCH` from another one.

    :param apart: (L, T) metres
    """
    share, factor, change = limits
    placements = [look.sighting.placement for look in looks]
    reach = share * np.linalg.norm([one.size for one in placements], axis=1) \
        + 3.0 * np.linalg.norm([one.position_std for one in placements], axis=1)
    growth = _growth(np.stack([track.size for track in tracks]),
                     np.stack([one.size for one in placements])[:, None])
    color = np.stack([look.color for look in looks])[:, None] - [track.color for track in tracks]
    parts = np.stack([apart / reach[:, None], growth / np.log(factor),
                      np.linalg.norm(color, axis=2) / change])
    renamed = np.array([[look.sighting.detection.label != track.detection.label
                         for track in tracks] for look in looks])
    return np.where(parts.max(axis=0) > 1.0, _NO_MATCH, parts.sum(axis=0) + _RENAMED * renamed)


def _growth(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """
    Return the logarithm of by how much sizes, (..., 3), differ, in height or in diameter in plan.

    Which of the horizontal sides is x depends on where the camera is, which does not see how far
    the object goes behind.
    """
    one, other = np.maximum(one, 1e-3), np.maximum(other, 1e-3)
    plan = np.hypot(one[..., 0], one[..., 1]) / np.hypot(other[..., 0], other[..., 1])
    return np.maximum(np.abs(np.log(plan)), np.abs(np.log(one[..., 2] / other[..., 2])))
