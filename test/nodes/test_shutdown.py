# SPDX-License-Identifier: Apache-2.0
"""
The node ends at any moment, and a transition that fails or lasts leaves nothing behind.

A package of third-party backends stands for models that load and rebuild for minutes: each tells
by a file that it has begun, and goes on when there is another file.
"""

import signal
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
from lifecycle_msgs.srv import ChangeState

from img2scene_ros.nodes.demo_nodes import free_domain
from img2scene_ros.types import Frame

GONE = 20.0  # seconds; ten times what is promised
BUSY = '''
import time
from pathlib import Path

HERE = Path(__file__).parent


def work(name):
    (HERE / f'{name}.begun').touch()
    while not (HERE / f'{name}.go').exists():
        time.sleep(0.05)
    (HERE / f'{name}.ended').touch()
'''
ACME = BUSY + '''
from img2scene_ros.nodes.outputs.overlay import OverlayOutput
from img2scene_ros.options import Options
from img2scene_ros.reconstruction.box import BoxReconstructor


class Loading:
    Options = Options

    def __init__(self, options):
        self.options = options
        work('loading')

    def detect(self, frame):
        return []


class Rebuilding(BoxReconstructor):
    def reconstruct(self, sighting):
        work('rebuilding')
        return super().reconstruct(sighting)


class Failing(OverlayOutput):
    def __init__(self, node, options):
        if (HERE / 'no_output').exists():
            raise RuntimeError('there is no paper')
        super().__init__(node, options)

    def activate(self):
        if not (HERE / 'activating.go').exists():
            raise RuntimeError('there is no ink')

    def deactivate(self):
        pass
'''
ENTRY_POINTS = '''
[img2scene.detectors]
loading = acme:Loading
[img2scene.reconstructors]
rebuilding = acme:Rebuilding
[img2scene.outputs]
failing = acme:Failing
'''
# Pip has no tf2_ros; this one listens as that does, and knows nothing.
TF = '''
from geometry_msgs.msg import TransformStamped


class TransformException(Exception):
    pass


class Buffer:
    def lookup_transform(self, *_):
        raise TransformException('nothing is known')


class TransformListener:
    def __init__(self, buffer, node):
        self.node = node
        self.subscriptions = [
            node.create_subscription(TransformStamped, topic, print, 1)
            for topic in ('/tf', '/tf_static')]

    def unregister(self):
        for subscription in self.subscriptions:
            self.node.destroy_subscription(subscription)
'''


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder on the path of the nodes, with the third-party package in it."""
    site = tmp_path / 'site'
    site.mkdir()
    install(site, 'acme', ACME, ENTRY_POINTS)
    monkeypatch.setenv('PYTHONPATH', str(site), prepend=':')
    return site


@pytest.fixture
def robot() -> Iterator[Robot]:
    """Return a robot in a domain of its own."""
    robot = Robot(free_domain())
    yield robot
    robot.close()


@pytest.fixture
def camera(robot: Robot, recorded: Callable[[str], Frame]) -> Iterator[FakeCamera]:
    """Return a camera that sees one object."""
    camera = FakeCamera(robot, half_size(recorded('table_mustard_bottle')))
    yield camera
    camera.close()


def importing(site: Path) -> None:
    """Have ROS itself take long to import."""
    (site / 'rclpy.py').write_text(BUSY + "work('importing')\n")


def making(site: Path) -> None:
    """Have a third party's backend take long to import, which the node does when it is made."""
    (site / 'acme.py').write_text(BUSY + "work('making')\n")


@pytest.mark.parametrize('signals', [[signal.SIGINT], [signal.SIGTERM, signal.SIGINT]])
@pytest.mark.parametrize('moment', ['importing', 'making', 'loading', 'rebuilding', 'idle'])
def test_a_signal_ends_the_node_at_any_moment(
    robot: Robot, camera: FakeCamera, site: Path, tmp_path: Path, moment: str,
    signals: list[signal.Signals],
) -> None:
    {'importing': importing, 'making': making}.get(moment, lambda site: None)(site)
    chosen = {'loading': 'detector:=loading', 'rebuilding': 'reconstructor:=rebuilding'}
    node = NodeProcess(
        'scene_node', robot.domain, tmp_path, *GEOMETRIC,
        '-p', chosen.get(moment, 'autostart:=true'))

    def has_come() -> bool:
        assert node.is_running, node.log
        return 'active; listening' in node.log if moment == 'idle' else (
            (site / f'{moment}.begun').exists())

    robot.spin_until(has_come, f'the node is {moment}', camera.send)
    for number in signals:
        node.send_signal(number)
        robot.spin(0.1)
    assert node.wait(GONE) == 0, node.log
    assert node.complaints() == []


def test_the_node_answers_while_it_loads(robot: Robot, site: Path, tmp_path: Path) -> None:
    node = NodeProcess('scene_node', robot.domain, tmp_path, *GEOMETRIC, '-p', 'detector:=loading')
    robot.spin_until((site / 'loading.begun').exists, 'it loads')
    assert robot.diagnosis() == 'configuring' and robot.state == 'configuring'
    assert 'forget_after' in robot.set_parameter('forget_after', 3.0), 'the models would not know'
    assert not robot.change_state('activate'), 'impossible now'
    (site / 'loading.go').touch()
    robot.spin_until(lambda: robot.state == 'active', 'it is loaded')
    assert robot.set_parameter('forget_after', 3.0) == ''
    assert node.stop() == 0


def test_models_are_dropped_when_nothing_uses_them(
    robot: Robot, camera: FakeCamera, site: Path, tmp_path: Path,
) -> None:
    node = NodeProcess(
        'scene_node', robot.domain, tmp_path, *GEOMETRIC, '-p', 'reconstructor:=rebuilding')
    robot.spin_until((site / 'rebuilding.begun').exists, 'an object is rebuilt', camera.send)
    assert robot.change_state('deactivate')
    client = robot.node.create_client(ChangeState, f'{robot.scene}/change_state')
    robot.spin_until(client.service_is_ready, 'the service is there')
    request = ChangeState.Request()
    request.transition.label = 'cleanup'
    done = client.call_async(request)
    robot.spin(7.0)
    assert not done.done() and robot.state == 'cleaningup'
    (site / 'rebuilding.go').touch()
    robot.spin_until(done.done, 'it is cleaned up')
    assert done.result().success and (site / 'rebuilding.ended').exists()
    assert robot.state == 'unconfigured'
    assert robot.change_state('configure'), 'and it is as new'
    assert node.stop() == 0
    assert node.complaints() == []


def subscribers(robot: Robot) -> dict[str, int]:
    """Return how many subscribe to what an active node subscribes to."""
    robot.spin(2.0)  # until the graph is up to date
    return {topic: robot.node.count_subscribers(topic)
            for topic in ('/tf', '/tf_static', 'image', 'camera_info', 'depth')}


@pytest.mark.parametrize('cause', [
    ('-p', 'outputs:=[markers, failing]'),  # the last step of the activation
    ('-r', 'depth:=image', '-r', 'camera_info:=image'),  # one topic for two types
])
def test_an_activation_that_fails_leaves_nothing(
    robot: Robot, site: Path, tmp_path: Path, cause: tuple[str, ...],
) -> None:
    (site / 'tf2_ros.py').write_text(TF)
    node = NodeProcess(
        'scene_node', robot.domain, tmp_path, *GEOMETRIC, '-p', 'support_frame:=table', *cause)
    robot.spin_until(lambda: 'cannot activate' in robot.diagnosis(), 'it fails')
    assert robot.state == 'inactive'
    assert set(subscribers(robot).values()) == {0}
    if '-p' == cause[0]:
        (site / 'activating.go').touch()
        assert robot.change_state('activate')
        assert set(subscribers(robot).values()) == {1}, 'one each, not two'
    assert node.stop() == 0
    assert len(node.complaints()) == 1


def test_a_configuration_that_fails_leaves_nothing(
    robot: Robot, site: Path, tmp_path: Path,
) -> None:
    (site / 'no_output').touch()
    node = NodeProcess(
        'scene_node', robot.domain, tmp_path, *GEOMETRIC, '-p', 'outputs:=[markers, failing]')
    robot.spin_until(lambda: 'cannot configure' in robot.diagnosis(), 'it fails')
    robot.spin_until(
        lambda: not robot.node.count_publishers('/img2scene/markers'), 'no publisher is left')
    assert node.stop() == 0
