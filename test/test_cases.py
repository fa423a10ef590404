# SPDX-License-Identifier: Apache-2.0
"""Real frames that once came out wrong; what is in them, people see."""

from pathlib import Path

import numpy as np
import pytest

from img2scene_ros.io.frames import load_frame
from img2scene_ros.pipeline import Pipeline
from img2scene_ros.pipeline import PipelineOptions
from img2scene_ros.types import Scene

CASES = Path(__file__).parent / 'cases'


def found(name: str, reconstructor: str = 'box') -> Scene:
    return Pipeline(PipelineOptions(
        detector='tabletop', reconstructor=reconstructor, texture='none',
    )).run(load_frame(CASES / name))


def test_a_backdrop_is_no_part_of_what_stands_before_it() -> None:
    scene = found('backdrop_joined')
    assert len(scene.objects) == 6  # a case, four bottles and a notebook
    assert max(one.model.size.max() for one in scene.objects) < 0.35


def test_the_bottom_of_a_tote_is_no_object() -> None:
    """It is warped by some millimetres, which are not the sensor's noise."""
    scene = found('tote_empty')
    assert not scene.objects
    assert 'nothing stands out' in scene.notes[0]


@pytest.mark.parametrize('reconstructor', ['box', 'depth_shell'])
def test_the_size_of_a_carton_is_that_between_its_faces(reconstructor: str) -> None:
    """It is about 101 x 106 mm and stands turned by 38 degrees: 140 x 140 along other axes."""
    scene = found('size_of_a_turned_carton', reconstructor)
    carton = min(scene.objects, key=lambda one: np.linalg.norm(
        one.detection.center - (306, 170)))  # where it is in the picture
    assert 0.2 < carton.model.size[2] < 0.28
    assert (carton.model.size[:2] > 0.085).all() and (carton.model.size[:2] < 0.122).all()
