# SPDX-License-Identifier: Apache-2.0
"""Fixtures that several test modules share."""

from collections.abc import Callable
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from synthetic import GEOMETRIC

from img2scene_ros.io.frames import load_frame
from img2scene_ros.pipeline import Pipeline
from img2scene_ros.pipeline import parse_settings
from img2scene_ros.types import Frame
from img2scene_ros.types import Scene

TRAININGS = {'test_detector_training.py', 'test_students.py', 'test_training.py'}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs ROS, by its folder, and what trains a network, by its file."""
    for item in items:
        if item.path.parent.name == 'nodes':
            item.add_marker('ros')
        elif item.path.name in TRAININGS:
            item.add_marker('train')


@pytest.fixture(scope='session')
def frames_folder() -> Path:
    """Return the folder of the recorded frames."""
    return Path(__file__).parents[1] / 'data' / 'frames'


@pytest.fixture(scope='session')
def recorded(frames_folder: Path) -> Callable[[str], Frame]:
    """Return a function that gives a recorded frame by its folder's name, read once."""
    return cache(lambda name: load_frame(frames_folder / name))


@pytest.fixture(scope='session')
def scene_of(recorded: Callable[[str], Frame]) -> Callable[[str], Scene]:
    """Return a function that gives the scene of a recorded frame, with all meshes, made once."""
    return cache(lambda name: Pipeline(*parse_settings(GEOMETRIC)).run(recorded(name)))


@pytest.fixture(scope='session')
def one_thread() -> Iterator[None]:
    """Run torch on one core: small networks only wait for the others."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
