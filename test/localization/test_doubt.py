# SPDX-License-Identifier: Apache-2.0
"""Which objects of a photo are shown."""

import numpy as np
import pytest

from img2scene_ros.localization.doubt import reasons_to_skip
from img2scene_ros.types import Detection
from img2scene_ros.types import Placement

TURN = np.array([[0, 1, 0], [0, 0, -1], [-1, 0, 0]]).T.astype(float)  # object to optical axes


def placement(x: float, size: float, std: float) -> Placement:
    return Placement(
        np.array([x, 0.0, 2.0]), TURN, np.full(3, size), np.full(3, std), 'size_prior')


def kept(*placements: Placement) -> list[bool]:
    detections = [Detection(f'thing{number}', 1.0, np.array([0.0, 0.0, 9.0, 9.0]))
                  for number in range(len(placements))]
    reasons = reasons_to_skip(detections, placements)
    assert all(f"'thing{number}'" in reason for number, reason in enumerate(reasons) if reason)
    return [not reason for reason in reasons]


@pytest.mark.parametrize('apart, both', ((0.0, False), (0.1, False), (0.35, True), (1.0, True)))
def test_of_two_in_one_place_the_surer_stays(apart: float, both: bool) -> None:
    assert kept(placement(0.0, 0.4, 0.2), placement(apart, 0.2, 0.05)) == [both, True]


def test_what_would_only_be_guessed_is_not_shown() -> None:
    assert kept(placement(0.0, 0.4, 0.1), placement(1.0, 0.4, 1.5)) == [True, False]


def test_nothing_is_nothing() -> None:
    assert reasons_to_skip([], []) == []
