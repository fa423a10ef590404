# SPDX-License-Identifier: Apache-2.0
"""Which objects are shown whose distance is unsure: fewer rather than such in each other."""

from collections.abc import Sequence

import numpy as np

from img2scene_ros.types import Detection
from img2scene_ros.types import Placement

# An object is skipped when the standard deviation of its distance is a larger share of it, or
# when more of the smaller of two boxes than this lies in the other: then the surer one stays.
_MOST_DOUBT, _MOST_SHARED = 0.5, 0.5
_CELLS = 8  # along each side of a box whose overlap is counted


def reasons_to_skip(
    detections: Sequence[Detection], placements: Sequence[Placement],
) -> list[str]:
    """
    Tell why objects are not shown, one sentence each; '' for those that are.

    :param detections: of the placements, one to one
    """
    doubts = [one.relative_std for one in placements]
    reasons = [''] * len(placements)
    kept: list[int] = []
    for index in np.argsort(doubts, kind='stable').tolist():
        label = detections[index].label
        if doubts[index] > _MOST_DOUBT:
            reasons[index] = f"a '{label}' is skipped: its distance would only be guessed"
            continue
        other = next((one for one in kept if _shared(
            placements[index], placements[one]) > _MOST_SHARED), None)
        if other is None:
            kept.append(index)
        else:
            reasons[index] = (f"a '{label}' is skipped: it would be in the same place as the "
                              f"'{detections[other].label}', whose place is surer")
    return reasons


def _shared(one: Placement, other: Placement) -> float:
    """Return how much of the smaller of two boxes lies in the other, 0 to 1."""
    small, large = sorted((one, other), key=lambda each: float(np.prod(each.size)))
    along = (np.arange(_CELLS) + 0.5) / _CELLS - 0.5
    grid = np.stack(np.meshgrid(along, along, along), axis=-1).reshape(-1, 3)
    points = (grid * small.size) @ small.rotation.T + small.position
    local = (points - large.position) @ large.rotation
    return float((np.abs(local) < large.size / 2.0).all(axis=1).mean())
