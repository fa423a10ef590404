# SPDX-License-Identifier: Apache-2.0
"""
What a camera may publish: every way of good input works, and bad input ends in one clear line.

After bad input the node lives on, and works when the input is good again.
"""

import json
import re
from array import array
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from harness import LATCHED
from harness import FakeCamera
from harness import NodeProcess
from harness import Robot
from harness import half_size
from harness import meshes
from harness import stamp_of
from rclpy.qos import QoSProfile
from rclpy.qos import ReliabilityPolicy
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from img2scene_ros.nodes.messages import header_of
from img2scene_ros.types import Frame

Change = Callable[[Image, CameraInfo, Image], None]


@pytest.fixture
def camera(
    robot: Robot, scene_node: NodeProcess, recorded: Callable[[str], Frame],
) -> Iterator[FakeCamera]:
    """Return a camera whose node has just been activated, so that no test knows of another."""
    robot.spin_until(lambda: robot.state == 'active', 'the node is active')
    assert robot.change_state('deactivate') and robot.change_state('activate')
    camera = FakeCamera(robot, half_size(recorded('table_mustard_bottle')))
    yield camera
    camera.close()


def works(robot: Robot, camera: FakeCamera) -> None:
    """Send good frames until one of them is on show."""
    first = camera.stamp_ns + 1
    robot.markers.clear()
    robot.spin_until(
        lambda: any((stamp_of(shown) or 0) >= first for shown in robot.markers),
        'good frames are shown', camera.send)


def complains_once(
    robot: Robot, camera: FakeCamera, node: NodeProcess, change: Change, sentence: str,
) -> None:
    """Send bad frames; expect one line in the log, and the same in the diagnostics."""
    start = len(node.log)
    robot.spin_until(
        lambda: node.complaints(start), f'the log says {sentence}', lambda: camera.send(change))
    assert re.search(sentence, node.complaints(start)[0])
    robot.spin_until(
        lambda: re.search(sentence, robot.diagnosis()), f'the diagnostics say {sentence}',
        lambda: camera.send(change))
    for _ in range(5):
        camera.send(change)
        robot.spin(0.1)
    complaints = node.complaints(start)
    assert len(complaints) == 1 and re.search(sentence, complaints[0]), complaints


def no_camera_info(_: Image, info: CameraInfo, __: Image) -> None:
    info.header.frame_id = 'withheld'


def uncalibrated(_: Image, info: CameraInfo, __: Image) -> None:
    info.k = np.zeros(9)


def unknown_encoding(image: Image, _: CameraInfo, __: Image) -> None:
    image.encoding = 'nonsense'


def short_step(image: Image, _: CameraInfo, __: Image) -> None:
    image.step -= 3


def truncated(image: Image, _: CameraInfo, __: Image) -> None:
    image.data = image.data[:1000]


def empty_picture(image: Image, _: CameraInfo, __: Image) -> None:
    image.width = image.height = image.step = 0
    image.data = image.data[:0]


def truncated_depth(_: Image, __: CameraInfo, depth: Image) -> None:
    depth.data = depth.data[:1000]


def depth_of_another_size(_: Image, __: CameraInfo, depth: Image) -> None:
    depth.height //= 2


def zero_depth(_: Image, __: CameraInfo, depth: Image) -> None:
    depth.data = array('B', bytes(len(depth.data)))


def nan_depth(_: Image, __: CameraInfo, depth: Image) -> None:
    values = np.full((depth.height, depth.width), np.nan, np.float32)
    depth.encoding, depth.step = '32FC1', 4 * depth.width
    depth.data = array('B', values.tobytes())


def color_as_depth(image: Image, __: CameraInfo, depth: Image) -> None:
    depth.encoding, depth.step, depth.data = image.encoding, image.step, image.data


def info_of_another_size(_: Image, info: CameraInfo, __: Image) -> None:
    info.width *= 2


def late_depth(_: Image, __: CameraInfo, depth: Image) -> None:
    depth.header = header_of(depth.header.frame_id, depth.header.stamp.sec * 10**9 - 5 * 10**9)


def no_depth(_: Image, __: CameraInfo, depth: Image) -> None:
    depth.header = header_of('withheld', 0)


@pytest.mark.parametrize('change, sentence', [
    (no_camera_info, "no camera_info has arrived on '/camera_info'.*camera_info_topic"),
    (uncalibrated, r"'/camera_info': the camera is not calibrated \(K has fx = 0"),
    (unknown_encoding, "'/image': .*encoding 'nonsense'.*rgb8"),
    (short_step, "'/image': .*step of 957 bytes but its rows have 960"),
    (truncated, "'/image': .*truncated: 1000 bytes"),
    (empty_picture, r"'/image': .*empty \(0x0 pixels\)"),
    (truncated_depth, "'/depth': .*truncated: 1000 bytes"),
    (depth_of_another_size, 'depth image has 320x120 pixels but the picture has 320x240'),
    (zero_depth, "'/depth': .*holds no reading"),
    (nan_depth, "'/depth': .*holds no reading"),
    (color_as_depth, "'/depth': .*'rgb8', which is a picture's"),
    (info_of_another_size, 'calibration is for 640x240 pixels but the picture has 320x240'),
    (late_depth, "no depth image on '/depth' has a stamp within 0.02 s.*sync_tolerance"),
    (no_depth, "no depth image has arrived on '/depth'.*use_depth"),
])
def test_bad_messages(
    robot: Robot, camera: FakeCamera, scene_node: NodeProcess, change: Change, sentence: str,
) -> None:
    complains_once(robot, camera, scene_node, change, sentence)
    works(robot, camera)


def test_diagnostics_are_good_again(
    robot: Robot, camera: FakeCamera, scene_node: NodeProcess,
) -> None:
    robot.spin_until(
        lambda: 'truncated' in robot.diagnosis(), 'the diagnostics complain',
        lambda: camera.send(truncated))
    robot.spin_until(
        lambda: robot.diagnosis() == 'active', 'the diagnostics are good', camera.send)
    assert 'perception: works again' in scene_node.log


def test_no_camera(robot: Robot, camera: FakeCamera, scene_node: NodeProcess) -> None:
    start = len(scene_node.log)
    camera.close()
    robot.spin_until(lambda: scene_node.complaints(start), 'the log complains')
    robot.spin(2.0)
    complaints = scene_node.complaints(start)
    assert len(complaints) == 1
    assert re.search("nobody publishes pictures on '/image'.*image_topic", complaints[0])


def test_resolution_may_change(
    robot: Robot, camera: FakeCamera, scene_node: NodeProcess, recorded: Callable[[str], Frame],
) -> None:
    works(robot, camera)
    before = max(meshes(robot.markers[-1]))
    camera.frame = recorded('table_mustard_bottle')
    works(robot, camera)
    camera.frame = half_size(camera.frame)
    works(robot, camera)
    assert max(meshes(robot.markers[-1])) == before, 'the object is still the same'


def test_stamps_may_jump_back(
    robot: Robot, camera: FakeCamera, scene_node: NodeProcess,
) -> None:
    works(robot, camera)
    start = len(scene_node.log)
    camera.stamp_ns = 1_000_000_000
    robot.markers.clear()
    robot.spin_until(
        lambda: any((stamp_of(shown) or 10**12) <= camera.stamp_ns for shown in robot.markers),
        'frames of the earlier time are shown', camera.send)
    assert not scene_node.complaints(start)


@pytest.mark.parametrize('qos', [
    QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT),
    QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE),
    LATCHED,
], ids=['best effort', 'reliable', 'latched'])
def test_quality_of_service_follows_the_camera(
    robot: Robot, camera: FakeCamera, scene_node: NodeProcess, qos: QoSProfile,
) -> None:
    start = len(scene_node.log)
    camera.close()
    other = FakeCamera(robot, camera.frame, qos)
    works(robot, other)
    other.close()
    assert not scene_node.complaints(start)


def test_calibration_that_was_latched_long_ago_arrives(
    robot: Robot, camera: FakeCamera, scene_node: NodeProcess,
) -> None:
    camera.send()
    robot.node.destroy_publisher(camera.info)
    camera.info = robot.node.create_publisher(CameraInfo, 'camera_info', LATCHED)
    camera.send()
    assert robot.change_state('deactivate') and robot.change_state('activate')
    first = camera.stamp_ns + 1
    robot.markers.clear()
    robot.spin_until(
        lambda: any((stamp_of(shown) or 0) >= first for shown in robot.markers),
        'frames are shown', lambda: camera.send(no_camera_info))


@pytest.mark.parametrize('qos, sent', [(1, 'many'), (LATCHED, 'one')], ids=['many', 'one'])
def test_color_alone_is_used_where_nobody_publishes_depth(
    robot: Robot, camera: FakeCamera, scene_node: NodeProcess, qos: Any, sent: str,
) -> None:
    start = len(scene_node.log)
    camera.close()
    other = FakeCamera(robot, camera.frame, qos, depth=False)
    other.send()
    robot.spin_until(
        lambda: scene_node.complaints(start), 'the detector asks for depth',
        other.send if sent == 'many' else lambda: None)
    other.close()
    assert re.search("'tabletop' needs a depth image", scene_node.complaints(start)[0])


def test_depth_that_is_found_after_the_first_pictures_is_waited_for(
    robot: Robot, camera: FakeCamera, scene_node: NodeProcess,
) -> None:
    start = len(scene_node.log)
    robot.node.destroy_publisher(camera.depth)
    camera.depth = None
    for _ in range(10):
        camera.send()
        robot.spin(0.05)
    camera.depth = robot.node.create_publisher(Image, 'depth', 1)
    works(robot, camera)
    assert not scene_node.complaints(start)


def test_compressed_pictures(
    robot: Robot, camera: FakeCamera, scene_node: NodeProcess,
) -> None:
    compressed = robot.node.create_publisher(CompressedImage, 'image/compressed', 1)

    def compress(image: Image, _: CameraInfo, __: Image) -> None:
        data = cv2.imencode('.png', camera.frame.color[..., ::-1])[1].tobytes()
        compressed.publish(CompressedImage(
            header=header_of('optical', camera.stamp_ns), format='rgb8; png compressed bgr8',
            data=array('B', data)))
        image.header = header_of('withheld', 0)

    def restart(transport: str) -> None:
        assert robot.change_state('deactivate') and robot.change_state('cleanup')
        assert not robot.set_parameter('image_transport', transport)
        assert robot.change_state('configure') and robot.change_state('activate')

    restart('compressed')
    robot.spin_until(
        lambda: any(marker.header.frame_id == 'optical'
                    for shown in robot.markers for marker in shown.markers),
        'compressed pictures are shown', lambda: camera.send(compress))
    robot.node.destroy_publisher(compressed)
    restart('raw')
    works(robot, camera)


def test_noise_of_a_stereo_camera_reaches_the_positions_standard_deviation(
    robot: Robot, camera: FakeCamera, scene_node: NodeProcess, save_directory: Path,
) -> None:
    def restart(model: str) -> None:
        assert robot.change_state('deactivate') and robot.change_state('cleanup')
        assert not robot.set_parameter('depth_noise.model', model)
        assert not robot.set_parameter('depth_noise.disparity_std', 3.0)
        assert robot.change_state('configure') and robot.change_state('activate')

    restart('stereo')
    works(robot, camera)
    assert robot.call(Trigger, '/img2scene/save_scene').success
    nearest = min(json.loads((save_directory / 'objects.json').read_text())['objects'],
                  key=lambda item: item['position_m'][2])
    of_sensor = 3.0 * nearest['position_m'][2] ** 2 / (camera.frame.camera.fx * 0.05)
    assert of_sensor > 0.03, 'ten times that of structured light'
    assert nearest['position_std_m'][2] == pytest.approx(of_sensor, rel=0.2)
    restart('structured_light')
    works(robot, camera)


def test_depth_in_metres_of_either_byte_order_works(
    robot: Robot, camera: FakeCamera, scene_node: NodeProcess,
) -> None:
    def big_endian(_: Image, __: CameraInfo, depth: Image) -> None:
        depth.encoding, depth.step, depth.is_bigendian = '32FC1', 4 * depth.width, 1
        depth.data = array('B', camera.frame.depth.astype('>f4').tobytes())

    works(robot, camera)
    place = meshes(robot.markers[-1])
    robot.markers.clear()
    robot.spin_until(
        lambda: robot.markers, 'the frames are shown', lambda: camera.send(big_endian))
    assert not scene_node.complaints(len(scene_node.log))
    for id, marker in meshes(robot.markers[-1]).items():
        assert marker.pose.position.z == pytest.approx(place[id].pose.position.z, abs=0.005)
