# SPDX-License-Identifier: Apache-2.0
"""Calibrations are read and messages are made as ROS defines them."""

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point
from rclpy.serialization import deserialize_message
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import Image
from sensor_msgs.msg import PointCloud2
from sensor_msgs.msg import RegionOfInterest
from std_msgs.msg import ColorRGBA
from std_msgs.msg import Header
from visualization_msgs.msg import Marker
from visualization_msgs.msg import MarkerArray

from img2scene_ros.camera import Camera
from img2scene_ros.errors import InputError
from img2scene_ros.io import ros_images
from img2scene_ros.nodes import marker_bytes
from img2scene_ros.nodes import marker_messages
from img2scene_ros.nodes import messages


def calibration() -> CameraInfo:
    """Make a message as image_geometry's own tests do: K and P differ."""
    return CameraInfo(
        width=640, height=480, distortion_model='plumb_bob', d=[0.1, -0.2, 0.0, 0.0, 0.0],
        k=[500.0, 0, 320, 0, 501, 240, 0, 0, 1], p=[490.0, 0, 310, 0, 0, 491, 230, 0, 0, 0, 1, 0])


def test_reads_calibration() -> None:
    camera = ros_images.camera_from_info(calibration())
    np.testing.assert_array_equal(camera.matrix, [[500, 0, 320], [0, 501, 240], [0, 0, 1]])
    np.testing.assert_array_equal(camera.distortion, [0.1, -0.2, 0, 0, 0])
    assert (camera.width, camera.height) == (640, 480)


def test_rectified_takes_p_and_no_distortion() -> None:
    camera = ros_images.camera_from_info(calibration(), rectified=True)
    np.testing.assert_array_equal(camera.matrix, [[490, 0, 310], [0, 491, 230], [0, 0, 1]])
    assert not camera.has_distortion


def test_roi_comes_before_binning() -> None:
    message = calibration()
    message.roi = RegionOfInterest(x_offset=100, y_offset=40, width=400, height=300)
    message.binning_x = message.binning_y = 2
    camera = ros_images.camera_from_info(message)
    assert (camera.width, camera.height) == (200, 150)
    assert (camera.cx, camera.cy) == ((320 - 100) / 2, (240 - 40) / 2)
    assert (camera.fx, camera.fy) == (250, 250.5)


def test_refuses_uncalibrated_camera() -> None:
    message = calibration()
    message.k = np.zeros(9)
    with pytest.raises(InputError, match='not calibrated.*fx = 0'):
        ros_images.camera_from_info(message)


def test_camera_survives_its_message() -> None:
    camera = Camera(64, 48, 50.0, 51.0, 31.0, 23.0, np.array([0.1, 0, 0, 0, 0]))
    message = messages.info_from_camera(Header(), camera)
    again = ros_images.camera_from_info(
        deserialize_message(serialize_message(message), CameraInfo))
    np.testing.assert_array_equal(again.matrix, camera.matrix)
    np.testing.assert_array_equal(again.distortion, camera.distortion)
    assert (again.width, again.height) == (64, 48)


def test_images_survive_their_messages() -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (7, 5, 3), np.uint8)
    depth = np.array([[0.001, 1.2345, np.nan], [np.inf, 42.0, 70.0]], np.float32)
    message = messages.image_from_depth(Header(), depth)
    again = ros_images.depth_from_image(deserialize_message(serialize_message(message), Image))
    np.testing.assert_allclose(again[0, :2], [0.001, 1.234], atol=5e-4)
    assert np.isnan(again[0, 2]) and np.isnan(again[1, [0, 2]]).all()  # 16 bits hold no 70 m
    assert again[1, 1] == pytest.approx(42.0)
    message = messages.image_from_color(Header(), rgb)
    again = ros_images.color_from_image(deserialize_message(serialize_message(message), Image))
    np.testing.assert_array_equal(again, rgb)


@pytest.mark.parametrize('stamp_ns', [0, 999_999_999, 1_700_000_000_123_456_789])
def test_stamps_are_exact(stamp_ns: int) -> None:
    header = messages.header_of('camera', stamp_ns)
    assert header.frame_id == 'camera'
    assert messages.nanoseconds(header.stamp) == stamp_ns
    assert messages.nanoseconds(Time(sec=1, nanosec=2)) == 1_000_000_002


def test_cloud_is_read_back_by_its_fields() -> None:
    random = np.random.default_rng(2)
    points = random.normal(size=(11, 3)).astype(np.float32)
    colors = random.integers(0, 256, (11, 3), np.uint8)
    message = messages.cloud_from_points(
        Header(), points, colors, np.arange(11) + 70000, np.arange(11), np.arange(11) % 2)
    message = deserialize_message(serialize_message(message), PointCloud2)
    kinds = {7: '<f4', 6: '<u4'}
    rows = np.frombuffer(message.data, np.dtype({
        'names': [field.name for field in message.fields],
        'formats': [kinds[field.datatype] for field in message.fields],
        'offsets': [field.offset for field in message.fields],
        'itemsize': message.point_step}))
    assert (message.width, message.height) == (len(rows), 1) == (11, 1)
    np.testing.assert_array_equal(np.stack([rows['x'], rows['y'], rows['z']], 1), points)
    np.testing.assert_array_equal(rows['id'], np.arange(11) + 70000)
    np.testing.assert_array_equal(rows['label'], np.arange(11))
    np.testing.assert_array_equal(rows['source'], np.arange(11) % 2)
    # PCL: a float whose bytes are blue, green, red and one that is unused.
    unpacked = rows['rgb'].copy().view(np.uint8).reshape(-1, 4)[:, 2::-1]
    np.testing.assert_array_equal(unpacked, colors)
    assert np.isfinite(rows['rgb']).all()


def test_empty_cloud_is_a_cloud() -> None:
    message = messages.cloud_from_points(
        Header(), np.zeros((0, 3)), np.zeros((0, 3), np.uint8), *np.zeros((3, 0), int))
    assert message.width == 0 and len(message.data) == 0 and len(message.fields) == 7


def test_pose_turns_like_its_matrix() -> None:
    rotation = np.array([[0.0, 1, 0], [0, 0, -1], [-1, 0, 0]])
    pose = messages.pose_from_matrix(np.block([
        [rotation, np.array([[1.0], [2.0], [3.0]])], [np.zeros(3), np.ones(1)]]))
    assert pose.position == Point(x=1.0, y=2.0, z=3.0)
    q = pose.orientation
    vector, axis = np.array([0.3, -0.2, 0.9]), np.array([q.x, q.y, q.z])
    # v' = v + 2 q x (q x v + w v), Hamilton's product written out.
    turned = vector + 2 * np.cross(axis, np.cross(axis, vector) + q.w * vector)
    np.testing.assert_allclose(turned, rotation @ vector, atol=1e-12)


@pytest.mark.parametrize('names', [
    ('mug', 'a', 'ab'), ('abc', 'abcd', 'abcde'), ('größe', 'Ø', ''), ('', '日本', 'x' * 9)])
@pytest.mark.parametrize('frame_id', ['camera', 'map', ''])
def test_marker_arrays_are_serialized_as_ros_does(frame_id: str, names: tuple[str, ...]) -> None:
    random, array, parts = np.random.default_rng(3), MarkerArray(), []
    for id, name in enumerate(names):
        count = id + 1
        vertices = random.random((4, 3)).astype(np.float32)
        faces = random.integers(0, 4, (count, 3))
        colors = random.integers(0, 256, (count, 3, 3), np.uint8)
        marker = marker_messages.triangle_marker()
        marker.header, marker.ns, marker.id = messages.header_of(frame_id, 5), name, id
        text = Marker(type=Marker.TEXT_VIEW_FACING, text=name, header=marker.header)
        triangles = marker_bytes.triangles_from_mesh(vertices, faces, colors)
        parts += [(marker, triangles), (text, None)]
        slow = deserialize_message(serialize_message(marker), Marker)
        slow.points = [Point(x=x, y=y, z=z) for x, y, z in vertices[faces.ravel()].tolist()]
        slow.colors = [ColorRGBA(r=r, g=g, b=b, a=1.0) for r, g, b in (
            colors.reshape(-1, 3) / np.float32(255)).tolist()]
        array.markers += [slow, text]
    made = marker_bytes.array_bytes(parts)
    assert deserialize_message(made, MarkerArray) == array
    assert len(made) == len(serialize_message(array)), 'of which some bytes between are any'
    assert deserialize_message(marker_bytes.array_bytes([]), MarkerArray) == MarkerArray()
