# SPDX-License-Identifier: Apache-2.0
"""The replay node publishes what was recorded, as a camera would."""

import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from harness import NodeProcess
from harness import Robot
from rclpy.qos import ReliabilityPolicy
from recorded_bags import plain_frame
from recorded_bags import write_bag
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import Image

from img2scene_ros.types import Frame

YCB = Path(__file__).parents[2] / 'data' / 'frames' / 'ycb_3'


def listen(robot: Robot) -> dict[str, list]:
    """Subscribe to the camera's topics."""
    received = {'image': [], 'camera_info': [], 'depth': []}
    for topic, kind in (('image', Image), ('camera_info', CameraInfo), ('depth', Image)):
        robot.node.create_subscription(kind, topic, received[topic].append, 10)
    return received


def test_plays_a_folder_of_frames_once_and_ends(
    robot: Robot, frames_folder: Path, tmp_path: Path, recorded: Callable[[str], Frame],
) -> None:
    replay = NodeProcess(
        'replay_node', robot.domain, tmp_path, '-p', f'folder:={frames_folder}',
        '-p', 'loop:=false', '-p', 'rate:=20.0', '-p', 'frame_id:=lens')
    received = listen(robot)  # late: it waits for its subscribers
    robot.spin_until(lambda: not replay.is_running, 'the replay ends')
    robot.spin(0.5)
    assert replay.wait() == 0
    names = sorted(path.name for path in frames_folder.iterdir() if path.is_dir())
    assert [len(messages) for messages in received.values()] == [len(names)] * 3
    stamps = [message.header.stamp for message in received['image']]
    assert len({(stamp.sec, stamp.nanosec) for stamp in stamps}) == len(names)
    for name, image, info, depth in zip(names, *received.values()):
        assert image.header == info.header == depth.header
        assert image.header.frame_id == 'lens'
        frame = recorded(name)
        assert image.encoding == 'rgb8' and depth.encoding == '16UC1'
        np.testing.assert_array_equal(
            np.reshape(image.data, (image.height, image.width, 3)), frame.color)
        millimetres = cv2.imread(str(frames_folder / name / 'depth.png'), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(
            np.frombuffer(depth.data, '<u2').reshape(depth.height, depth.width), millimetres)
        np.testing.assert_array_equal(info.k, frame.camera.matrix.ravel())


def test_plays_every_nth_frame_of_a_recording(robot: Robot, tmp_path: Path) -> None:
    bag = write_bag(tmp_path / 'bag', [plain_frame(i) for i in range(5)])
    replay = NodeProcess(
        'replay_node', robot.domain, tmp_path, '-p', f'folder:={bag}', '-p', 'every:=2',
        '-p', 'loop:=false', '-p', 'rate:=20.0')
    received = listen(robot)
    robot.spin_until(lambda: not replay.is_running, 'the replay ends')
    robot.spin(0.5)
    assert replay.wait() == 0 and 'Traceback' not in replay.log
    assert [message.data[0] for message in received['image']] == [0, 20, 40]
    depths = [np.frombuffer(message.data, '<u2')[0] for message in received['depth']]
    assert depths == [1000, 3000, 5000]
    assert [message.k[0] for message in received['camera_info']] == [7.0] * 3


def test_loops_over_pictures_without_depth(robot: Robot, tmp_path: Path) -> None:
    for value in (10, 20, 30):
        cv2.imwrite(str(tmp_path / f'{value}.png'), np.full((30, 40, 3), value, np.uint8))
    received = listen(robot)
    replay = NodeProcess(
        'replay_node', robot.domain, tmp_path, '-p', f'folder:={tmp_path}',
        '-p', 'rate:=20.0', '-p', 'field_of_view:=90.0')
    robot.spin_until(lambda: len(received['image']) >= 7, 'the pictures come again and again')
    assert replay.stop() == 0 and 'Traceback' not in replay.log
    values = [message.data[0] for message in received['image']]
    turns = {10: 20, 20: 30, 30: 10}
    assert all(after == turns[before] for before, after in zip(values, values[1:]))
    assert received['camera_info'][0].k[0] == pytest.approx(20), 'half of 40 pixels at 45 degrees'
    assert not received['depth']


def test_tells_late_viewers_where_the_optical_frame_is(
    robot: Robot, frames_folder: Path, tmp_path: Path,
) -> None:
    """What is ahead of the camera is along x of the body frame, what is below it along -z."""
    messages = pytest.importorskip('tf2_msgs.msg', reason='tf2_msgs comes with ROS, not with pip')
    replay = NodeProcess(
        'replay_node', robot.domain, tmp_path, '-p', f'folder:={frames_folder / "ycb_3"}',
        '-p', 'frame_id:=lens', '-p', 'body_frame:=body')
    robot.spin_until(lambda: 'playing' in replay.log, 'it plays')
    received = []
    robot.subscribe(messages.TFMessage, '/tf_static', received.append)
    robot.spin_until(lambda: received, 'the transform arrives')
    assert replay.stop() == 0
    transform, = received[0].transforms
    assert (transform.header.frame_id, transform.child_frame_id) == ('body', 'lens')
    q = transform.transform.rotation
    turned = Rotation.from_quat([q.x, q.y, q.z, q.w]).apply([[0, 0, 1], [0, 1, 0]])
    np.testing.assert_allclose(turned, [[1, 0, 0], [0, 0, -1]], atol=1e-9)


def test_quality_of_service_can_be_overridden(
    robot: Robot, frames_folder: Path, tmp_path: Path,
) -> None:
    replay = NodeProcess(
        'replay_node', robot.domain, tmp_path, '-p', f'folder:={frames_folder / "ycb_3"}',
        '-r', 'image:=best', '-p', 'qos_overrides./best.publisher.reliability:=best_effort')
    robot.spin_until(
        lambda: robot.node.get_publishers_info_by_topic('/best'), 'it publishes pictures')
    profile = robot.node.get_publishers_info_by_topic('/best')[0].qos_profile
    assert profile.reliability == ReliabilityPolicy.BEST_EFFORT
    robot.scene = '/replay'
    assert re.search("'rate'.*start it again", robot.set_parameter('rate', 3.0))
    assert replay.stop() == 0 and not replay.complaints()


@pytest.mark.parametrize('arguments, sentence', [
    (['-p', 'folder:=/no/such/folder'], "error: there is no folder '/no/such/folder'"),
    (['-p', 'folder:=~nobody_of_this_name/ycb'], "error: .*'~nobody_of_this_name/ycb'"),
    ([], "error: the parameter 'folder' is empty"),
    (['-p', f'folder:={YCB}', '-p', 'qos_overrides./image.publisher.reliability:=nonsense'],
     "error: .*'qos_overrides./image.publisher'.*nonsense"),
    (['-p', 'folder:=/', '-p', 'depth_unit:=inch'], "error: the depth unit 'inch'"),
    (['-p', 'folder:=/', '-p', 'rate:=-1.0'], "error: the parameter 'rate'.*-1.0"),
    (['-p', 'folder:=/', '-p', 'rate:=5'], "error: the parameter 'rate'.*decimal point"),
    (['--no-such-argument'], 'error: ROS refuses the arguments:.*--no-such-argument'),
    (['--params-file', '/no/such/file.yaml'], 'error: .*/no/such/file.yaml'),
])
def test_says_in_one_line_why_it_cannot_start(
    robot: Robot, tmp_path: Path, arguments: list[str], sentence: str,
) -> None:
    replay = NodeProcess('replay_node', robot.domain, tmp_path, *arguments)
    assert replay.wait() == 1
    lines = [line for line in replay.log.splitlines() if line.startswith('error')]
    assert len(lines) == 1 and re.search(sentence, lines[0]), replay.log
    assert 'Traceback' not in replay.log
