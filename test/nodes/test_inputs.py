# SPDX-License-Identifier: Apache-2.0
"""
What a camera may publish: every way of good input works, and bad input ends in one clear line.

After bad input the node lives on, and works when the input is good again.
"""

import json
import os
import re
import subprocess
import sys
from array import array
from collections import deque
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import cv2
import numpy as np
import pytest
import rclpy
from builtin_interfaces.msg import Time
from harness import LATCHED
from harness import TIMEOUT
from harness import FakeCamera
from harness import NodeProcess
from harness import Robot
from harness import half_size
from harness import meshes
from harness import stamp_of
from rclpy.executors import SingleThreadedExecutor
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile
from rclpy.qos import ReliabilityPolicy
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from img2scene_ros.depth import DepthNoise
from img2scene_ros.nodes.inputs import InputOptions
from img2scene_ros.nodes.inputs import Inputs
from img2scene_ros.nodes.messages import header_of
from img2scene_ros.nodes.messages import info_from_camera
from img2scene_ros.nodes.pairing import Pairing
from img2scene_ros.nodes.topics import FollowingSubscription
from img2scene_ros.nodes.transforms import Transforms
from img2scene_ros.types import Frame

Change = Callable[[Image, CameraInfo, Image], None]
VARIABLE = 'FASTRTPS_DEFAULT_PROFILES_FILE'
# Publishes pictures and depth images of 640x480 at 30 Hz, as drivers do.
DRIVER = '''
import time
from array import array
import rclpy
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image

rclpy.init()
node = rclpy.create_node('driver')
sent = [(node.create_publisher(Image, topic, qos_profile_sensor_data), Image(
    height=480, width=640, encoding=encoding, step=640 * size,
    data=array('B', bytes(640 * 480 * size))))
    for topic, encoding, size in (('image', 'rgb8', 3), ('depth', '16UC1', 2))]
while True:
    stamp = node.get_clock().now().to_msg()
    for publisher, message in sent:
        message.header.stamp = stamp
        publisher.publish(message)
    time.sleep(1 / 30)
'''


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


def unchanged(_: Image, __: CameraInfo, ___: Image) -> None:
    pass


def works(robot: Robot, camera: FakeCamera, change: Change = unchanged) -> None:
    """Send frames that are good until one of them is on show."""
    first = camera.stamp_ns + 1
    robot.markers.clear()
    robot.spin_until(
        lambda: any((stamp_of(shown) or 0) >= first for shown in robot.markers),
        'good frames are shown', lambda: camera.send(change))


def configure_again(robot: Robot, **parameters: Any) -> None:
    """Set parameters that only change while the node is unconfigured; __ is a dot."""
    assert robot.change_state('deactivate') and robot.change_state('cleanup')
    for name, value in parameters.items():
        assert not robot.set_parameter(name.replace('__', '.'), value)
    assert robot.change_state('configure') and robot.change_state('activate')


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


def depth_of_another_frame(_: Image, __: CameraInfo, depth: Image) -> None:
    depth.header.frame_id = 'infra_optical'


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
    (depth_of_another_size, "'/depth': .*320x120.*320x240.*depth_camera_info.*align_depth.enable"),
    (depth_of_another_frame, "'/depth': .*'infra_optical'.*'camera_color.*tf2_ros.*align_depth"),
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


def without_stamp(image: Image, _: CameraInfo, depth: Image) -> None:
    image.header.stamp = depth.header.stamp = Time()


def an_hour_ahead(image: Image, _: CameraInfo, depth: Image) -> None:
    image.header.stamp.sec += 3700
    depth.header.stamp.sec += 3700


def a_minute_old(image: Image, _: CameraInfo, depth: Image) -> None:
    image.header.stamp.sec -= 60
    depth.header.stamp.sec -= 60


def without_frame(image: Image, _: CameraInfo, depth: Image) -> None:
    image.header.frame_id = depth.header.frame_id = ''


def of_changing_frame(image: Image, info: CameraInfo, depth: Image) -> None:
    for message in (image, info, depth):
        message.header.frame_id = f'camera_{message.header.stamp.nanosec % 2}'


def calibrated_elsewhere(_: Image, info: CameraInfo, __: Image) -> None:
    info.header.frame_id = 'infra_optical'


@pytest.mark.parametrize('change, sentence', [
    (calibrated_elsewhere, "'/camera_info' is of 'infra_optical' but the picture of 'camera_col"),
    (without_stamp, "'/image'.* 0"),
    (an_hour_ahead, "'/image'.*ahead.*use_sim_time"),
    (a_minute_old, "'/image'.*old.*use_sim_time"),
    (without_frame, "frame_id.*'/image'.*empty"),
    (of_changing_frame, "frame_id.*'/image'.*camera_[01].*camera_[01]"),
])
def test_odd_headers_are_said_though_objects_are_shown(
    robot: Robot, camera: FakeCamera, scene_node: NodeProcess, change: Change, sentence: str,
) -> None:
    start = len(scene_node.log)
    robot.markers.clear()
    robot.spin_until(
        lambda: re.search(sentence, robot.diagnosis()), f'the diagnostics say {sentence}',
        lambda: camera.send(change))
    robot.spin_until(
        lambda: any(meshes(shown) for shown in robot.markers), 'objects are shown',
        lambda: camera.send(change))
    assert re.search(sentence, scene_node.complaints(start)[0])
    robot.spin_until(
        lambda: robot.diagnosis() == 'active', 'the diagnostics are good', camera.send)


def test_depth_that_falls_silent_is_said_as_that(
    robot: Robot, camera: FakeCamera, scene_node: NodeProcess,
) -> None:
    works(robot, camera)
    start = len(scene_node.log)
    robot.spin_until(
        lambda: scene_node.complaints(start), 'the log complains', lambda: camera.send(no_depth))
    assert re.search("'/depth' any more.*use_depth", scene_node.complaints(start)[0])
    robot.node.destroy_publisher(camera.depth)
    camera.depth = None
    robot.spin_until(
        lambda: "nobody publishes depth images on '/depth' any more" in robot.diagnosis(),
        'the diagnostics tell of the publisher', camera.send)


def test_topics_like_the_missing_one_are_named(
    robot: Robot, camera: FakeCamera, scene_node: NodeProcess,
) -> None:
    """With the launch argument that takes them; pictures are not offered as depth images."""
    camera.close()
    others = [robot.node.create_publisher(kind, topic, 1) for kind, topic in (
        (Image, '/front/color/image_raw'), (Image, '/front/depth/image_raw'),
        (CameraInfo, '/front/color/camera_info'))]
    robot.spin_until(
        lambda: 'image_topic:=/front/color/image_raw' in robot.diagnosis(), 'a picture is named')
    camera.image = robot.node.create_publisher(Image, 'image', 1)
    camera.info = camera.depth = None
    robot.spin_until(
        lambda: 'camera_info_topic:=/front/color/camera_info' in robot.diagnosis()
        and 'depth_topic:=/front/depth/image_raw' in robot.diagnosis(),
        'a calibration and a depth image are named', camera.send)
    for publisher in others:
        robot.node.destroy_publisher(publisher)


def test_a_topic_of_another_type_is_said(
    robot: Robot, camera: FakeCamera, scene_node: NodeProcess,
) -> None:
    """Compressed pictures where raw ones are expected, no mask where a mask is; it goes on."""
    camera.image, image = None, camera.image
    robot.node.destroy_publisher(image)
    others = [robot.node.create_publisher(CompressedImage, topic, 1)
              for topic in ('image', 'mask')]
    robot.spin_until(
        lambda: re.search("'/image'.*CompressedImage.*image_transport", robot.diagnosis()),
        'the picture is said')
    robot.node.destroy_publisher(others[0])
    camera.image = robot.node.create_publisher(Image, 'image', 1)
    robot.spin_until(
        lambda: "'/mask' carries sensor_msgs/msg/CompressedImage" in robot.diagnosis(),
        'the mask is said', camera.send)
    works(robot, camera)
    robot.node.destroy_publisher(others[1])


def test_depth_images_may_come_many_pictures_late(
    robot: Robot, camera: FakeCamera, scene_node: NodeProcess,
) -> None:
    """As of a camera at 60 Hz whose depth images are registered elsewhere; nothing is wrong."""
    works(robot, camera)
    start, before, due = len(scene_node.log), camera.stamp_ns, deque()
    depth, camera.depth = camera.depth, None
    end = monotonic() + TIMEOUT
    while (stamp_of(robot.markers[-1]) or 0) <= before + 5 * 10**9:
        assert monotonic() < end
        camera.send(lambda _, __, message: due.append(message))
        if len(due) > 20:
            depth.publish(due.popleft())
        robot.spin(0.03)
    camera.depth = depth
    assert not scene_node.complaints(start)


def test_what_has_come_while_the_node_was_busy_is_paired(robot: Robot) -> None:
    """A depth image counts although the next one has come before anybody looked."""
    node = rclpy.create_node('node', namespace='/busy', context=robot.node.context)
    executor = SingleThreadedExecutor(context=robot.node.context)
    executor.add_node(node)
    pairing = Pairing()
    inputs = Inputs(node, pairing, InputOptions(), Transforms(node, 0.1), DepthNoise())
    image, depth = (robot.node.create_publisher(Image, f'/busy/{topic}', 5)
                    for topic in ('image', 'depth'))
    robot.spin_until(
        lambda: image.get_subscription_count() and depth.get_subscription_count()
        and node.count_publishers('/busy/depth'), 'they know each other')
    pairs = []

    def receive(*sent: tuple[int, Publisher]) -> None:
        for second, publisher in sent:
            publisher.publish(Image(header=header_of('lens', second * 10**9)))
        robot.spin(0.5)
        for _ in range(20):
            executor.spin_once(0.05)
            pairs.extend(filter(None, [pairing.take(0.0)]))

    receive((1, depth), (1, image), (2, depth))
    receive(*((second, publisher) for second in (3, 4, 5) for publisher in (image, depth)))
    assert [(one.color.header.stamp.sec, one.depth.header.stamp.sec)
            for one in pairs] == [(1, 1), (5, 5)], 'the newest of what had come'
    inputs.destroy()
    executor.remove_node(node)
    node.destroy_node()
    for publisher in (image, depth):
        robot.node.destroy_publisher(publisher)


@pytest.mark.skipif(
    'fastrtps' not in rclpy.utilities.get_rmw_implementation_identifier(),
    reason='config/fastdds.xml is for Fast DDS')
@pytest.mark.parametrize('is_cured', [False, True])
def test_messages_that_get_lost_are_said_and_the_cure_works(
    robot: Robot, camera: FakeCamera, scene_node: NodeProcess, is_cured: bool,
) -> None:
    """Of a driver, a process of its own, that publishes with best effort, one after the other."""
    received: list[Image] = []
    camera.close()
    cure = {VARIABLE: str(Path('config/fastdds.xml').resolve())} if is_cured else {}
    driver = subprocess.Popen(
        [sys.executable, '-c', DRIVER],
        env=os.environ | {'ROS_DOMAIN_ID': str(robot.domain)} | cure)
    depth = FollowingSubscription(robot.node, Image, 'depth', received.append)
    try:
        if is_cured:
            robot.spin_until(lambda: len(received) >= 150, 'many arrive', depth.follow)
            assert depth.lost < 0.1
        else:
            robot.spin_until(
                lambda: depth.lost > 0.2 and re.search(
                    f"% of the messages on '/depth' get lost.*{VARIABLE}", robot.diagnosis()),
                'the losses are said', depth.follow)
    finally:
        depth.destroy()
        driver.kill()
        driver.wait()


def test_two_publishers_of_pictures_are_said(
    robot: Robot, camera: FakeCamera, scene_node: NodeProcess,
) -> None:
    """Such as a driver and a bag; with the names of the nodes, as long as both are there."""
    works(robot, camera)
    other = rclpy.create_node('bag', context=robot.node.context)
    other.create_publisher(Image, 'image', 1)
    robot.spin_until(
        lambda: "/bag and /robot publish pictures on '/image'" in robot.diagnosis(),
        'both are named', camera.send)
    other.destroy_node()
    robot.spin_until(lambda: robot.diagnosis() == 'active', 'nothing is wrong', camera.send)


def test_a_picture_has_the_calibration_of_its_stamp(
    robot: Robot, camera: FakeCamera, scene_node: NodeProcess,
) -> None:
    """Another camera's comes on the same topic, after every picture."""
    works(robot, camera)
    start = len(scene_node.log)
    other = robot.node.create_publisher(CameraInfo, 'camera_info', 1)
    first = camera.stamp_ns + 1

    def send() -> None:
        camera.send()
        robot.spin(0.05)
        other.publish(info_from_camera(
            header_of('other', camera.stamp_ns + 10**7), camera.frame.camera.resized(800, 600)))

    robot.spin_until(
        lambda: (stamp_of(robot.markers[-1]) or 0) >= first + 8 * 10**9, 'it goes on', send)
    assert not scene_node.complaints(start)
    robot.node.destroy_publisher(other)


def test_compressed_depth_is_found_by_itself(
    robot: Robot, camera: FakeCamera, scene_node: NodeProcess,
) -> None:
    start = len(scene_node.log)
    robot.node.destroy_publisher(camera.depth)
    camera.depth = None
    compressed = robot.node.create_publisher(CompressedImage, 'depth/compressedDepth', 1)

    def compress(_: Image, __: CameraInfo, depth: Image) -> None:
        millimetres = np.frombuffer(depth.data, '<u2').reshape(depth.height, depth.width)
        compressed.publish(CompressedImage(
            header=depth.header, format='16UC1; compressedDepth png',
            data=array('B', bytes(12) + cv2.imencode('.png', millimetres)[1].tobytes())))

    works(robot, camera, compress)
    assert not scene_node.complaints(start)
    robot.node.destroy_publisher(compressed)


def test_what_the_mask_shows_is_no_object(
    robot: Robot, camera: FakeCamera, scene_node: NodeProcess,
) -> None:
    works(robot, camera)
    assert robot.call(Trigger, '/img2scene/clear').success
    mask = robot.node.create_publisher(Image, 'mask', 1)

    def cover(image: Image, _: CameraInfo, __: Image) -> None:
        mask.publish(Image(
            header=image.header, height=image.height, width=image.width, encoding='mono8',
            step=image.width, data=array('B', b'\xff' * image.width * image.height)))

    def is_perceived_as_nothing() -> bool:
        robot.diagnosis()
        values = {one.key: one.value for one in robot.diagnostics[-1].status[0].values}
        return float(values['frames [1/s]']) > 0 and values['objects'] == '0'

    try:
        robot.spin_until(
            lambda: mask.get_subscription_count(), 'the node subscribes to the mask')
        robot.spin_until(is_perceived_as_nothing, 'nothing is found', lambda: camera.send(cover))
    finally:
        robot.node.destroy_publisher(mask)
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
    start, before = len(scene_node.log), camera.stamp_ns
    camera.behind_ns = 8_000_000_000
    robot.spin_until(
        lambda: (stamp_of(robot.markers[-1]) or before) < before - 10**9,
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
    works(robot, camera, no_camera_info)


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

    def compress(image: Image, _: CameraInfo, depth: Image) -> None:
        data = cv2.imencode('.png', camera.frame.color[..., ::-1])[1].tobytes()
        compressed.publish(CompressedImage(
            header=header_of('optical', camera.stamp_ns), format='rgb8; png compressed bgr8',
            data=array('B', data)))
        image.header = header_of('withheld', 0)
        depth.header = header_of('optical', camera.stamp_ns)

    configure_again(robot, image_transport='compressed')
    robot.spin_until(
        lambda: any(marker.header.frame_id == 'optical'
                    for shown in robot.markers for marker in shown.markers),
        'compressed pictures are shown', lambda: camera.send(compress))
    robot.node.destroy_publisher(compressed)
    configure_again(robot, image_transport='raw')
    works(robot, camera)


def test_noise_of_a_stereo_camera_reaches_the_positions_standard_deviation(
    robot: Robot, camera: FakeCamera, scene_node: NodeProcess, save_directory: Path,
) -> None:
    configure_again(robot, depth_noise__model='stereo', depth_noise__disparity_std=3.0)
    works(robot, camera)
    assert robot.call(Trigger, '/img2scene/save_scene').success
    nearest = min(json.loads((save_directory / 'objects.json').read_text())['objects'],
                  key=lambda item: item['position_m'][2])
    of_sensor = 3.0 * nearest['position_m'][2] ** 2 / (camera.frame.camera.fx * 0.05)
    assert of_sensor > 0.03, 'ten times that of structured light'
    assert nearest['position_std_m'][2] == pytest.approx(of_sensor, rel=0.2)
    configure_again(robot, depth_noise__model='structured_light')
    works(robot, camera)


def test_depth_in_metres_of_either_byte_order_works(
    robot: Robot, camera: FakeCamera, scene_node: NodeProcess,
) -> None:
    def big_endian(_: Image, __: CameraInfo, depth: Image) -> None:
        depth.encoding, depth.step, depth.is_bigendian = '32FC1', 4 * depth.width, 1
        depth.data = array('B', camera.frame.depth.astype('>f4').tobytes())

    works(robot, camera)
    place = meshes(robot.markers[-1])
    works(robot, camera, big_endian)
    for id, marker in meshes(robot.markers[-1]).items():
        assert marker.pose.position.z == pytest.approx(place[id].pose.position.z, abs=0.005)
