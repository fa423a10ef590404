# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the tests that run nodes."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import GEOMETRIC
from harness import NodeProcess
from harness import Robot
from interface_packages import make_importable

from img2scene_ros.nodes.demo_nodes import free_domain

os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
make_importable()


@pytest.fixture(scope='module')
def robot() -> Iterator[Robot]:
    """Return a robot in a DDS domain of its own."""
    robot = Robot(free_domain())
    yield robot
    robot.close()


@pytest.fixture(scope='module')
def save_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where the scene node saves its scene."""
    return tmp_path_factory.mktemp('saved') / 'scene'


@pytest.fixture(scope='module')
def scene_node(
    robot: Robot, save_directory: Path, tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[NodeProcess]:
    """Run a scene node without networks, which starts by itself."""
    node = NodeProcess(
        'scene_node', robot.domain, tmp_path_factory.mktemp('logs'),
        *GEOMETRIC, '-p', f'save_directory:={save_directory}')
    yield node
    assert node.is_running, node.log
    assert node.stop() == 0
    assert 'Traceback' not in node.log
