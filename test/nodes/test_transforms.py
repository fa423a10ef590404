# SPDX-License-Identifier: Apache-2.0
"""What TF knows; tf2_ros, which pip does not have, is stood in for where it is not installed."""

import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import monotonic
from types import ModuleType
from types import SimpleNamespace

import numpy as np
import pytest
import small_tf2
from geometry_msgs.msg import TransformStamped
from harness import GEOMETRIC
from harness import FakeCamera
from harness import NodeProcess
from harness import Robot
from harness import half_size
from harness import stamp_of
from rclpy.clock import ROSClock
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import Image

from img2scene_ros.camera import Camera
from img2scene_ros.errors import InputError
from img2scene_ros.errors import MissingDependencyError
from img2scene_ros.nodes.demo_nodes import free_domain
from img2scene_ros.nodes.messages import header_of
from img2scene_ros.nodes.messages import nanoseconds
from img2scene_ros.nodes.pairing import Pair
from img2scene_ros.nodes.transforms import Transforms
from img2scene_ros.nodes.transforms import in_world
from img2scene_ros.nodes.transforms import support_at
from img2scene_ros.types import Frame

STAMP = 12_345_678_901
FRAME = Frame(np.zeros((48, 64, 3), np.uint8), Camera(64, 48, 60.0, 60.0, 31.5, 23.5),
              stamp_ns=STAMP, frame_id='optical')
EYE = np.array([0.3, -1.0, 0.7])  # of the camera in the table's frame
# Looks along the table's y, 30 degrees down.
DOWN = Rotation.from_euler('x', -90 - 30, degrees=True)


def pose(
    rotation: Rotation, place: np.ndarray, stamp: int = STAMP, parent: str = 'table',
    child: str = 'optical',
) -> TransformStamped:
    """Return the pose of a child frame in its parent as TF holds it."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation.as_matrix(), place
    return small_tf2.transform_message(matrix, parent, child, stamp)


def real_tf2() -> ModuleType | None:
    try:
        import tf2_ros
    except ImportError:
        return None
    return tf2_ros


@pytest.fixture(params=['real', 'small'])
def transforms(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Transforms]:
    """Return one that has begun to listen, to tf2 where that is installed, and to a small one."""
    tf2 = real_tf2() if request.param == 'real' else small_tf2
    if tf2 is None:
        pytest.skip('tf2_ros is not installed')
    monkeypatch.setitem(sys.modules, 'tf2_ros', tf2)
    if tf2 is not small_tf2:  # whose listener wants a node
        monkeypatch.setattr(tf2, 'TransformListener', small_tf2.TransformListener)
    transforms = Transforms(SimpleNamespace(
        get_clock=ROSClock, create_subscription=print, destroy_subscription=print), 0.1)
    transforms.listen('this test needs TF')
    yield transforms
    transforms.close()


def receive(transforms: Transforms, *messages: TransformStamped) -> None:
    for message in messages:
        transforms._buffer.set_transform(message, 'test')


@pytest.mark.parametrize('turn', [0, 70, 200])
def test_frame_knows_its_world_and_what_is_up(transforms: Transforms, turn: float) -> None:
    """A camera 0.7 m above the table, looking 30 degrees down, wherever the table's x points."""
    rotation = Rotation.from_euler('z', turn, degrees=True) * DOWN
    receive(transforms, pose(rotation, EYE))
    frame = in_world(FRAME, transforms, 'table')
    assert frame.world_id == 'table'
    # The optical axis goes down by half its length.
    assert frame.up == pytest.approx((0, -np.cos(np.pi / 6), -0.5), abs=1e-9)
    seen = np.array([0.1, 0.2, 1.5, 1.0])
    assert (frame.world_from_camera @ seen)[:3] == pytest.approx(rotation.apply(seen[:3]) + EYE)


@pytest.mark.parametrize('turn', [0, 70, 200])
def test_the_plane_is_that_of_the_frame(transforms: Transforms, turn: float) -> None:
    rotation = Rotation.from_euler('z', turn, degrees=True) * DOWN
    receive(transforms, pose(rotation, EYE))
    support = support_at(FRAME, transforms, 'table')
    on_table = rotation.inv().apply(np.array([[0.2, 0.4, 0.0], [0.2, 0.4, 0.1]]) - EYE)
    assert support.height(on_table) == pytest.approx((0.0, 0.1), abs=1e-9)
    assert support.hull is None


def test_the_pose_is_that_of_the_pictures_stamp(transforms: Transforms) -> None:
    """A camera that moves 1 m and turns by 20 degrees in a second was half-way in its middle."""
    receive(transforms, pose(DOWN, EYE, STAMP - 500_000_000),
            pose(Rotation.from_euler('z', 20, degrees=True) * DOWN, EYE + (1, 0, 0),
                 STAMP + 500_000_000))
    found = in_world(FRAME, transforms, 'table').world_from_camera
    assert found[:3, 3] == pytest.approx(EYE + (0.5, 0, 0), abs=1e-6)
    half = Rotation.from_euler('z', 10, degrees=True) * DOWN
    assert (Rotation.from_matrix(found[:3, :3]).inv() * half).magnitude() < 1e-6


def test_what_tf_lacks_is_one_clear_sentence(transforms: Transforms) -> None:
    receive(transforms, pose(DOWN, EYE), pose(DOWN, EYE, parent='elsewhere', child='thing'))
    for ask, parameter, name in (
            (in_world, 'target_frame', 'nowhere'), (in_world, 'target_frame', 'elsewhere'),
            (support_at, 'support_frame', 'floor')):
        with pytest.raises(InputError, match=f"'optical'.*'{name}'.*{parameter}") as caught:
            ask(FRAME, transforms, name)
        assert '\n' not in str(caught.value)


@pytest.mark.parametrize('off', [-10 ** 9, 10 ** 9])
def test_a_transform_of_another_time_is_not_taken(transforms: Transforms, off: int) -> None:
    receive(transforms, pose(DOWN, EYE, STAMP + off), pose(DOWN, EYE, STAMP + 2 * off))
    with pytest.raises(InputError, match='target_frame.*tf_timeout'):
        in_world(FRAME, transforms, 'table')


@pytest.mark.parametrize('lasted', [8, 60])
def test_a_recording_that_starts_again_is_taken_as_it_is_now(
    transforms: Transforms, lasted: int,
) -> None:
    """Static transforms stay known though they are not sent again."""
    transforms._buffer.set_transform_static(
        small_tf2.transform_message(np.eye(4), 'map', 'table', STAMP), 'test')
    receive(transforms, *(
        pose(DOWN, EYE, STAMP + ns) for ns in (0, 8 * 10 ** 8, lasted * 10 ** 9)))
    later = replace(FRAME, stamp_ns=STAMP + lasted * 10 ** 9)
    transforms.follow_stamps(later.stamp_ns)
    assert in_world(later, transforms, 'map').world_from_camera[:3, 3] == pytest.approx(EYE)
    half = 5 * 10 ** 8
    for again in range(2):  # TF that comes before the first picture may be lost
        first = STAMP + again * half
        receive(transforms, pose(DOWN, -EYE, first - 1), pose(DOWN, -EYE, first + half))
        now = replace(FRAME, stamp_ns=first + half // 2)
        transforms.follow_stamps(now.stamp_ns)
        try:
            found = in_world(now, transforms, 'map')
        except InputError:
            assert not again
    assert found.world_from_camera[:3, 3] == pytest.approx(-EYE)


def test_transforms_of_before_that_come_after_a_restart_do_no_harm(
    transforms: Transforms,
) -> None:
    """They wait in queues when the first picture is looked at; tf2 then refuses all new ones."""
    late = STAMP + 60 * 10 ** 9
    before = replace(FRAME, stamp_ns=late)
    receive(transforms, pose(DOWN, EYE, late))
    transforms.follow_stamps(late)
    in_world(before, transforms, 'table')
    found = None
    for again in range(5):
        now = STAMP + again * 300_000_000
        receive(transforms, pose(DOWN, -EYE, now))
        transforms.follow_stamps(now)
        try:
            found = in_world(replace(FRAME, stamp_ns=now), transforms, 'table')
        except InputError:
            if again == 0:  # a picture of before may wait for them, too
                receive(transforms, pose(DOWN, EYE, late))
                in_world(before, transforms, 'table')
    assert found is not None
    assert found.world_from_camera[:3, 3] == pytest.approx(-EYE)


def pair_of(depth_frame: str = 'optical', waited: float = 0.0) -> Pair:
    """Return a pair of `FRAME`'s header that arrived some seconds ago."""
    depth = Image(header=header_of(depth_frame, STAMP))
    return Pair(Image(header=header_of('optical', STAMP)), depth, monotonic() - waited)


def test_a_pair_waits_for_all_that_it_needs(transforms: Transforms) -> None:
    """The camera in the frame that is asked for, and the depth camera where it is another."""
    assert transforms.has_come(pair_of()) and not transforms.has_come(pair_of('infra'))
    transforms.listen('this test needs TF', 'table')
    assert not transforms.has_come(pair_of())
    receive(transforms, pose(DOWN, EYE, STAMP - 1))
    assert not transforms.has_come(pair_of())
    receive(transforms, pose(DOWN, EYE, STAMP + 1))
    assert transforms.has_come(pair_of()) and not transforms.has_come(pair_of('infra'))
    transforms._buffer.set_transform_static(
        small_tf2.transform_message(np.eye(4), 'optical', 'infra', 0), 'test')
    assert transforms.has_come(pair_of('infra'))


def test_no_pair_waits_longer_than_the_timeout(transforms: Transforms) -> None:
    """In a simulation or bag, which may be played at a fifth of its speed, at least 2 s."""
    transforms.listen('this test needs TF', 'table')
    assert transforms.has_come(pair_of(waited=0.11))
    clock = ROSClock()
    clock._set_ros_time_is_active(True)
    transforms._node.get_clock = lambda: clock
    assert not transforms.has_come(pair_of(waited=0.4))
    assert transforms.has_come(pair_of(waited=2.1))


def test_two_publishers_of_one_transform_are_said(transforms: Transforms) -> None:
    """They contradict each other by 0.3 m, each 50 times per second; 1 m/s is none."""
    for step in range(-5, 6):
        at = STAMP + step * 20_000_000
        receive(transforms, pose(DOWN, EYE + (step * 0.02, 0, 0), at))
    assert in_world(FRAME, transforms, 'table').world_from_camera[:3, 3] == pytest.approx(EYE)
    for step in range(-5, 6):
        receive(transforms, pose(DOWN, EYE + (0.3, 0, 0), STAMP + step * 20_000_000 + 7_000_000))
    with pytest.raises(InputError, match="'optical' moves at .* m/s in 'table'.*two nodes"):
        in_world(FRAME, transforms, 'table')


def test_picture_without_a_stamp_is_not_placed_at_the_latest_pose(transforms: Transforms) -> None:
    receive(transforms, pose(DOWN, EYE))
    with pytest.raises(InputError, match="'optical'.*stamp.*target_frame"):
        in_world(Frame(FRAME.color, FRAME.camera, frame_id='optical'), transforms, 'table')


def test_plane_above_the_camera_is_one_clear_sentence(transforms: Transforms) -> None:
    receive(transforms, pose(DOWN, (0, 0, -0.4)))
    with pytest.raises(InputError, match="'optical'.*0.40 m.*'table'"):
        support_at(FRAME, transforms, 'table')


def test_it_stops_listening(transforms: Transforms) -> None:
    """A node that is deactivated receives no transforms."""
    listener = transforms._listener
    transforms.close()
    assert not listener.is_listening
    with pytest.raises(InputError, match='activate'):
        in_world(FRAME, transforms, 'table')


@pytest.mark.parametrize('parameter', ['support_frame', 'target_frame'])
def test_without_tf2_ros_the_node_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, parameter: str,
) -> None:
    """The node is not activated, and is when the parameter is fixed."""
    (tmp_path / 'tf2_ros.py').write_text("raise ImportError('there is no TF here')")
    monkeypatch.setitem(sys.modules, 'tf2_ros', None)
    with pytest.raises(MissingDependencyError, match='tf2_ros'):
        Transforms(SimpleNamespace(), 0.1).listen('this test needs TF')
    monkeypatch.setenv('PYTHONPATH', str(tmp_path), prepend=':')
    robot = Robot(free_domain())
    node = NodeProcess(
        'scene_node', robot.domain, tmp_path, *GEOMETRIC, '-p', f'{parameter}:=table')
    robot.spin_until(lambda: 'tf2_ros cannot be imported' in robot.diagnosis(), 'it complains')
    assert parameter in robot.diagnosis()
    assert len(node.complaints()) == 1 and robot.state == 'inactive'
    assert robot.change_state('cleanup') and not robot.set_parameter(parameter, '')
    assert robot.change_state('configure') and robot.change_state('activate')
    assert node.stop() == 0
    robot.close()


def test_pictures_without_their_transform_are_skipped_and_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, recorded,
) -> None:
    """The node goes on as soon as TF knows the camera; meanwhile it answers all the same."""
    (tmp_path / 'tf2_ros.py').write_text(Path(small_tf2.__file__).read_text())
    monkeypatch.setenv('PYTHONPATH', str(tmp_path), prepend=':')
    robot = Robot(free_domain())
    camera = FakeCamera(robot, half_size(recorded('table_mustard_bottle')))
    node = NodeProcess(
        'scene_node', robot.domain, tmp_path, *GEOMETRIC, '-p', 'target_frame:=map',
        '-p', 'outputs:=[markers]',  # the stand-in's /tf is of another type than that of `tf`
        '-p', 'tf_timeout:=0.5')
    robot.spin_until(lambda: 'target_frame' in robot.diagnosis(), 'it complains', camera.send)
    assert len(node.complaints()) == 1 and not any(map(stamp_of, robot.markers))
    tf = robot.node.create_publisher(TransformStamped, '/tf', 10)

    def send() -> None:
        camera.send()
        tf.publish(pose(DOWN, EYE, camera.stamp_ns, 'map', camera.frame.frame_id))

    robot.spin_until(lambda: any(map(stamp_of, robot.markers)), 'objects are shown', send)
    robot.spin_until(lambda: robot.diagnosis() == 'active', 'nothing is wrong', send)
    assert node.stop() == 0
    camera.close()
    robot.close()


def test_tf_that_is_late_costs_no_pictures(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, recorded,
) -> None:
    """At 4 Hz, and 1.5 s late: who waits for one after the other perceives 7 of 40."""
    (tmp_path / 'tf2_ros.py').write_text(Path(small_tf2.__file__).read_text())
    monkeypatch.setenv('PYTHONPATH', str(tmp_path), prepend=':')
    robot, late = Robot(free_domain()), 1.5
    camera = FakeCamera(robot, half_size(recorded('table_mustard_bottle')))
    tf = robot.node.create_publisher(TransformStamped, '/tf', 100)
    perceived: set[int] = set()
    robot.node.create_subscription(
        Image, '/img2scene/labels', lambda one: perceived.add(nanoseconds(one.header.stamp)), 10)
    node = NodeProcess(
        'scene_node', robot.domain, tmp_path, *GEOMETRIC, '-p', 'target_frame:=map',
        '-p', 'outputs:=[labels]', '-p', 'tf_timeout:=5.0')
    sent: deque[tuple[float, int]] = deque()

    def send() -> None:
        camera.send()
        sent.append((monotonic(), camera.stamp_ns))
        while sent and sent[0][0] <= monotonic() - late:
            tf.publish(pose(DOWN, EYE, sent.popleft()[1], 'map', camera.frame.frame_id))

    robot.spin_until(lambda: perceived, 'a first one is perceived', send)
    first = monotonic()
    robot.spin_until(lambda: monotonic() - first > 10.0, '10 s are over', send)
    assert len(perceived) > 9
    assert not node.complaints()
    assert node.stop() == 0
    camera.close()
    robot.close()
