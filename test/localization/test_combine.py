# SPDX-License-Identifier: Apache-2.0
"""One place of several, against the textbook's formula."""

from dataclasses import replace

import numpy as np
import pytest

from img2scene_ros.camera import Camera
from img2scene_ros.localization.combine import combined
from img2scene_ros.localization.combine import place
from img2scene_ros.localization.combine import sources_of
from img2scene_ros.localization.fixed import FixedOptions
from img2scene_ros.localization.monocular import MonocularOptions
from img2scene_ros.types import Detection
from img2scene_ros.types import Frame
from img2scene_ros.types import Placement

RAY = np.array([0.36, -0.48, 0.8])
FRAME = Frame(np.zeros((48, 64, 3), np.uint8), Camera(64, 48, 60.0, 60.0, 32.0, 24.0))
CUP = Detection('cup', 0.9, np.array([10.0, 10.0, 20.0, 20.0]))


def answer(distance: float, relative_std: float, source: str) -> Placement:
    """Return an answer with the whole standard deviation along the line of sight."""
    return Placement(
        RAY * distance, np.eye(3), np.full(3, 0.1 * distance),
        np.abs(RAY) * distance * relative_std, source)


class Source:
    """Answers what it is told, and counts how often it is asked."""

    def __init__(self, told: Placement | None) -> None:
        self.told = told
        self.asked = 0

    def place(self, *_: object) -> Placement | None:
        """Return what it was told."""
        self.asked += 1
        return self.told


def distance_of(placement: Placement) -> float:
    """Return the distance from the camera."""
    return float(np.linalg.norm(placement.position))


def test_the_mean_is_weighted_by_the_inverse_variances() -> None:
    """Two answers of 10 and 20 %: weights 4 to 1, in logarithms; the size goes along."""
    found = combined([answer(2.0, 0.2, 'size_prior'), answer(1.8, 0.1, 'plane')])
    # (4 ln 1.8 + 1 ln 2) / 5, and 1 / sqrt(100 + 25).
    assert distance_of(found) == pytest.approx(1.8 ** 0.8 * 2.0 ** 0.2)
    assert np.linalg.norm(found.position_std) / distance_of(found) == pytest.approx(125 ** -0.5)
    assert found.position / distance_of(found) == pytest.approx(RAY)
    assert found.size == pytest.approx(np.full(3, 0.1 * distance_of(found)))
    assert found.depth_source == 'plane+size_prior'


def test_equal_contradictions_are_less_sure_than_either() -> None:
    """Two equal answers 4 standard deviations apart: the scale factor of the PDG, by hand."""
    apart = np.exp(0.4)
    found = combined([answer(1.0, 0.1, 'plane'), answer(apart, 0.1, 'monocular')])
    assert distance_of(found) == pytest.approx(np.exp(0.2))
    # chi^2 = 2 * (0.2 / 0.1)^2 = 8 with one degree of freedom; 0.1 / sqrt(2) * sqrt(8) = 0.2.
    assert np.linalg.norm(found.position_std) / distance_of(found) == pytest.approx(0.2)


def test_an_outlier_is_skipped() -> None:
    """What contradicts a much surer answer neither moves it nor is named."""
    found = combined([answer(1.0, 0.06, 'plane'), answer(3.0, 0.2, 'size_prior')])
    assert distance_of(found) == pytest.approx(1.0) and found.depth_source == 'plane'
    assert np.linalg.norm(found.position_std) == pytest.approx(0.06)


def test_what_weighs_next_to_nothing_is_not_named() -> None:
    """A source of a hundredth of the weight is no source."""
    found = combined([answer(1.0, 0.06, 'plane'), answer(1.1, 0.6, 'size_prior')])
    assert found.depth_source == 'plane' and distance_of(found) == pytest.approx(1.0)


def test_one_that_is_sure_is_asked_alone() -> None:
    """Where depth readings show an object nobody else is bothered."""
    mask = np.zeros(FRAME.shape, bool)
    mask[10:20, 10:20] = True
    frame, cup = replace(FRAME, depth=np.ones(FRAME.shape, np.float32)), replace(CUP, mask=mask)
    sources = {'sensor': Source(answer(1.0, 0.01, 'sensor')),
               'plane': Source(answer(1.3, 0.05, 'plane')),
               'fixed': Source(answer(2.0, 0.3, 'fixed'))}
    found = place(sources, frame, cup, None)
    assert found.depth_source == 'sensor' and sources['plane'].asked == 0
    sources['sensor'].told = None
    assert place(sources, frame, cup, None).depth_source == 'plane'
    assert sources['fixed'].asked == 0


def test_fixed_answers_only_when_nobody_else_does() -> None:
    """It is no measurement, so it is averaged with none."""
    sources = {'plane': Source(None), 'size_prior': Source(answer(1.0, 0.4, 'size_prior')),
               'fixed': Source(answer(2.0, 0.3, 'fixed'))}
    assert place(sources, FRAME, CUP, None).depth_source == 'size_prior'
    sources['size_prior'].told = None
    assert place(sources, FRAME, CUP, None).depth_source == 'fixed'
    sources['fixed'].told = None
    assert place(sources, FRAME, CUP, None) is None


def test_auto_stands_for_all_that_need_no_download(tmp_path: object) -> None:
    """The network takes part where it was configured; a single source goes by its name."""
    assert sources_of('plane', {}) == ('plane',)
    own = {'monocular': MonocularOptions(checkpoint=str(tmp_path)), 'fixed': FixedOptions()}
    assert sources_of('auto', own) == ('sensor', 'plane', 'size_prior', 'monocular', 'fixed')
