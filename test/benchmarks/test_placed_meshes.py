# SPDX-License-Identifier: Apache-2.0
"""The table of placing errors, on rendered household objects."""

from itertools import islice

import numpy as np
import pytest
from placed_meshes import CELLS
from placed_meshes import COLUMNS
from placed_meshes import placing_errors
from scenes import error_rows

from img2scene_ros.learning.data_config import RenderOptions
from img2scene_ros.learning.shapes import open_library
from img2scene_ros.learning.synthetic import scene_samples


@pytest.mark.slow
def test_what_is_known_decides_how_far_meshes_are_off() -> None:
    """With depth and plane all is found; with neither the distance is a guess."""
    library = open_library(None, None, 'test', 0.15, 0)
    options = RenderOptions(
        kind='scenes', split='test', floor_share=0.0, width=320, sky_rays=0)
    samples = list(islice(scene_samples(library, options, 0), 4))
    errors = placing_errors(samples, library, 6)
    assert {len(some) for some in errors.values()} == {6}
    place = {setup: np.nanmedian([one.position for one in some])
             for setup, some in errors.items()}
    assert place['depth and plane', '0 degrees', 'exact'] < 0.03
    assert place['depth and plane', '0 degrees', 'exact'] < place['neither', '0 degrees', 'exact']
    rows = list(error_rows(errors, CELLS))
    assert len(rows) > 10 and {len(row) for row in rows} == {len(COLUMNS)}
