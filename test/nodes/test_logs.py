# SPDX-License-Identifier: Apache-2.0
"""What the parts without ROS tell through Python's logging reaches ROS, at its level."""

from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import GEOMETRIC
from harness import FakeCamera
from harness import NodeProcess
from harness import Robot
from harness import half_size
from harness import install
from rcl_interfaces.msg import Log
from rclpy.logging import LoggingSeverity
from rclpy.qos import DurabilityPolicy
from rclpy.qos import QoSProfile

from img2scene_ros.nodes.demo_nodes import free_domain
from img2scene_ros.types import Frame

ACME = '''
import logging

from img2scene_ros.options import Options

LOG = logging.getLogger(__name__)


class Acme:
    Options = Options

    def __init__(self, options):
        self.options = options
        LOG.info('loading %s', 'weights')

    def detect(self, frame):
        LOG.debug('a detail')
        LOG.warning('the weights are old')
        LOG.error('the weights are wrong')
        LOG.error('%d weights', 'many')
        LOG.critical('the weights are lost')
        logging.getLogger('img2scene_ros.detection.acme').debug('a detail for who asks')
        return []
'''
ALL = QoSProfile(depth=1000, durability=DurabilityPolicy.TRANSIENT_LOCAL)
ENTRY_POINTS = '[img2scene.detectors]\nacme = acme:Acme\nbroken = acme:Nothing\n'


@pytest.fixture
def robot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Robot]:
    """Return a robot in a domain of its own, where a package brings two detectors."""
    install(tmp_path, 'acme', ACME, ENTRY_POINTS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv('PYTHONPATH', str(tmp_path), prepend=':')
    robot = Robot(free_domain())
    yield robot
    robot.close()


def test_logging_reaches_rosout_at_its_level(
    robot: Robot, tmp_path: Path, recorded: Callable[[str], Frame],
) -> None:
    logged: list[Log] = []
    robot.node.create_subscription(Log, '/rosout', logged.append, ALL)
    node = NodeProcess('scene_node', robot.domain, tmp_path, *GEOMETRIC, '-p', 'detector:=acme')
    camera = FakeCamera(robot, half_size(recorded('table_mustard_bottle')))

    def levels() -> dict[str, int]:
        return {line.msg: line.level for line in logged if line.name == 'img2scene'}

    robot.spin_until(lambda: 'the weights are lost' in levels(), 'it logs', camera.send)
    logged = levels()
    assert logged['loading weights'] == LoggingSeverity.INFO
    assert logged['the weights are old'] == LoggingSeverity.WARN
    assert logged['the weights are wrong'] == LoggingSeverity.ERROR
    assert logged['the weights are lost'] == LoggingSeverity.FATAL
    broken, = (line for line in logged if "'broken' of the package 'acme'" in line)
    assert logged[broken] == LoggingSeverity.WARN, 'it was logged before the node was complete'
    assert not [line for line in logged if 'a detail' in line]
    assert '[INFO]' in next(line for line in node.log.splitlines() if 'loading weights' in line)
    camera.close()
    assert node.stop() == 0


def test_log_level_of_ros_shows_details(
    robot: Robot, tmp_path: Path, recorded: Callable[[str], Frame],
) -> None:
    node = NodeProcess(
        'scene_node', robot.domain, tmp_path, *GEOMETRIC, '-p', 'detector:=acme', '--log-level',
        'img2scene:=debug')
    camera = FakeCamera(robot, half_size(recorded('table_mustard_bottle')))
    robot.spin_until(lambda: 'a detail for who asks' in node.log, 'it tells', camera.send)
    camera.close()
    assert node.stop() == 0
