# SPDX-License-Identifier: Apache-2.0
"""The scores of `benchmarks/clutter.py` against counts by hand."""

import numpy as np
import pytest
from clutter import f_measure
from clutter import overlap_and_boundary


def test_overlap_and_boundary_are_those_of_osd():
    truth = np.zeros((100, 200), int)
    truth[20:60, 20:60], truth[20:60, 100:140] = 1, 2
    assert f_measure(overlap_and_boundary(truth, truth), 'overlap') == pytest.approx(1)
    assert f_measure(overlap_and_boundary(truth, truth), 'boundary') == pytest.approx(1)
    half = np.where(truth == 1, 5, 0)  # one of two: precision 1, recall 1/2
    for kind in ('overlap', 'boundary'):
        assert f_measure(overlap_and_boundary(half, truth), kind) == pytest.approx(2 / 3)
    joined = (truth > 0).astype(int)  # precision and recall 1/2
    assert f_measure(overlap_and_boundary(joined, truth), 'overlap') == pytest.approx(1 / 2)
    shifted = np.roll(truth, 10, axis=1)  # three quarters of the pixels, hardly a boundary
    counts = overlap_and_boundary(shifted, truth) + overlap_and_boundary(shifted, truth)
    assert f_measure(counts, 'overlap') == pytest.approx(3 / 4)
    assert f_measure(counts, 'boundary') < 0.5
    assert f_measure(overlap_and_boundary(0 * truth, truth), 'overlap') == 0
