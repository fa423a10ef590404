# SPDX-License-Identifier: Apache-2.0
"""Average precision against values worked out by hand after COCO's rules."""

import numpy as np
import pytest

from img2scene_ros.learning.metrics import Boxes
from img2scene_ros.learning.metrics import average_precisions


def boxes(*rows: tuple, ignored: tuple[int, ...] = ()) -> Boxes:
    """Return boxes 10 pixels wide from rows of (x, label, score)."""
    x = np.array([row[0] for row in rows], float)
    return Boxes(
        np.stack([x, 0 * x, x + 10, 0 * x + 10], axis=1).reshape(-1, 4),
        np.array([row[1] for row in rows], str), np.array([row[2] for row in rows], float),
        np.isin(np.arange(len(rows)), ignored))


NOTHING = boxes()
TWO = boxes((0, 'cup', 1), (50, 'cup', 1))


@pytest.mark.parametrize('found, expected', [
    (boxes((0, 'cup', .9), (50, 'cup', .8)), 1.0),
    (NOTHING, 0.0),
    (boxes((100, 'cup', .9)), 0.0),
    (boxes((0, 'cup', .9)), 51 / 101),  # right up to a recall of one half
    # Right, wrong, right: precision 1 up to one half, then 2/3.
    (boxes((0, 'cup', .9), (100, 'cup', .8), (50, 'cup', .7)), (51 + 50 * 2 / 3) / 101),
    # The second of two boxes on one object is wrong.
    (boxes((0, 'cup', .9), (1, 'cup', .8), (50, 'cup', .7)), (51 + 50 * 2 / 3) / 101),
    # A wrong one before all: precision 1/2, then 2/3, which goes for lower recalls, too.
    (boxes((100, 'cup', .9), (0, 'cup', .8), (50, 'cup', .7)), 2 / 3),
    (boxes((0, 'bowl', .9), (50, 'cup', .8)), 51 / 101),  # another class is not seen
    (boxes((3, 'cup', .9), (46, 'cup', .8)), 51 / 101),  # IoU 7/13 and 6/14
])
def test_one_picture(found, expected):
    assert average_precisions([found], [TWO]) == {'cup': pytest.approx(expected)}


def test_pictures_are_ranked_together_and_matched_apart():
    found = [boxes((0, 'cup', .5)), boxes((50, 'cup', .9))]
    truth = [boxes((0, 'cup', 1)), boxes((0, 'cup', 1))]
    # The wrong one comes first: 1 of 2 at a recall of one half, never more.
    assert average_precisions(found, truth)['cup'] == pytest.approx(51 * 0.5 / 101)


def test_what_is_ignored_neither_helps_nor_hurts():
    truth = [boxes((0, 'cup', 1), (50, 'cup', 1), (0, 'bowl', 1), ignored=(1, 2))]
    assert average_precisions([boxes((50, 'cup', .9), (0, 'cup', .8))], truth) == {'cup': 1.0}
    assert average_precisions([boxes((0, 'cup', .8))], truth) == {'cup': 1.0}
    # Several boxes may lie on it.
    both = boxes((50, 'cup', .9), (51, 'cup', .9), (0, 'cup', .8))
    assert average_precisions([both], truth) == {'cup': 1.0}


def test_real_object_goes_before_an_ignored_one_that_fits_better():
    truth = [boxes((0, 'cup', 1), (2, 'cup', 1), ignored=(1,))]
    assert average_precisions([boxes((2, 'cup', .9))], truth) == {'cup': 1.0}

