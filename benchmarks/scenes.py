# SPDX-License-Identifier: Apache-2.0
"""What benchmarks on rendered scenes share: noisy depth, and rows of objects' errors."""

from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import numpy as np

from img2scene_ros.learning.samples import SceneSample
from img2scene_ros.learning.sensors import read_depth

WHOLE = 0.9  # share of its full box that an object shows that counts as whole


def noisy_depth(sample: SceneSample, random: np.random.Generator) -> np.ndarray:
    """Return a scene's depth as a usual depth camera reads it, (H, W) metres."""
    frame = sample.frame
    return read_depth(frame.depth, frame.camera, random, frame.color)


def error_rows(
    errors: dict[tuple[str, ...], list[Any]],
    cells: list[tuple[str, Callable[[np.ndarray], str]]],
) -> Iterator[list[str]]:
    """
    Yield the rows of a table: of whole objects, then of those that are hidden or cut.

    :param errors: by the texts that a row starts with; `is_whole` and values of each object, the
        first of which is NaN where it was not placed
    :param cells: name of a value, and what the row says of its amounts
    """
    for is_whole, what in ((True, 'whole'), (False, 'hidden or cut')):
        for setup, every in errors.items():
            some = [error for error in every if error.is_whole == is_whole]
            placed = [error for error in some if np.isfinite(getattr(error, cells[0][0]))]
            if placed:
                yield [*setup, what, f'{len(placed)} of {len(some)}', *(
                    say(np.abs([getattr(error, name) for error in placed]))
                    for name, say in cells)]
