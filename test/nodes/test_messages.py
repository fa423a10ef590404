# SPDX-License-Identifier: Apache-2.0
"""Messages are read as cv2 and numpy read the same bytes; bad ones end in one clear sentence."""

import sys
from array import array
from types import ModuleType

import cv2
import numpy as np
import pytest
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point
from rclpy.serialization import deserialize_message
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import CompressedImage
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
from img2scene_ros.nodes import messages

HEIGHT, WIDTH = 7, 5


@pytest.fixture
def rgb() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def image(pixels: np.ndarray, encoding: str, padding: int = 0, big_endian: bool = False) -> Image:
    """Make a message as a driver would: rows of bytes, each followed by padding."""
    pixels = pixels.astype(pixels.dtype.newbyteorder('>' if big_endian else '<'))
    rows = pixels.reshape(len(pixels), -1).view(np.uint8)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=173)
    return Image(
        height=pixels.shape[0], width=pixels.shape[1], encoding=encoding, step=rows.shape[1],
        is_bigendian=big_endian, data=array('B', rows.tobytes()))


@pytest.mark.parametrize('padding', [0, 3, 64])
@pytest.mark.parametrize('encoding, code', [
    ('rgb8', None),
    ('bgr8', cv2.COLOR_RGB2BGR),
    ('rgba8', cv2.COLOR_RGB2RGBA),
    ('bgra8', cv2.COLOR_RGB2BGRA),
])
def test_reads_color(rgb: np.ndarray, encoding: str, code: int | None, padding: int) -> None:
    sent = rgb if code is None else cv2.cvtColor(rgb, code)
    received = messages.color_from_image(image(sent, encoding, padding))
    assert received.dtype == np.uint8 and received.flags.c_contiguous
    np.testing.assert_array_equal(received, rgb)


@pytest.mark.parametrize('padding', [0, 3])
def test_reads_grey_as_color(rgb: np.ndarray, padding: int) -> None:
    received = messages.color_from_image(image(rgb[..., 0], 'mono8', padding))
    np.testing.assert_array_equal(received, np.dstack([rgb[..., 0]] * 3))


@pytest.mark.parametrize('big_endian', [False, True])
def test_reads_16_bit_grey_as_color(rgb: np.ndarray, big_endian: bool) -> None:
    grey = rgb[..., 0].astype(np.uint16) * 257  # 255 becomes 65535
    received = messages.color_from_image(image(grey, 'mono16', 2, big_endian))
    np.testing.assert_array_equal(received, np.dstack([rgb[..., 0]] * 3))


@pytest.mark.parametrize('big_endian', [False, True])
@pytest.mark.parametrize('padding', [0, 6])
@pytest.mark.parametrize('encoding', ['16UC1', 'mono16'])
def test_reads_millimetres(encoding: str, padding: int, big_endian: bool) -> None:
    millimetres = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 1000
    received = messages.depth_from_image(image(millimetres, encoding, padding, big_endian))
    assert received.dtype == np.float32
    assert np.isnan(received[0, 0]), '0 is no reading'
    np.testing.assert_allclose(received.ravel()[1:], np.arange(1, HEIGHT * WIDTH), rtol=1e-6)


@pytest.mark.parametrize('big_endian', [False, True])
@pytest.mark.parametrize('padding', [0, 4])
def test_reads_metres(padding: int, big_endian: bool) -> None:
    metres = np.linspace(0.5, 3, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH)
    metres[0, :4] = np.nan, np.inf, 0, -1
    received = messages.depth_from_image(image(metres, '32FC1', padding, big_endian))
    assert np.isnan(received[0, :4]).all()
    np.testing.assert_array_equal(received[1:], metres[1:])


def test_reads_last_row_without_padding(rgb: np.ndarray) -> None:
    message = image(rgb, 'rgb8', 5)
    message.data = message.data[:-5]
    np.testing.assert_array_equal(messages.color_from_image(message), rgb)


def test_reads_without_copy(rgb: np.ndarray) -> None:
    message = image(rgb, 'rgb8')
    assert np.shares_memory(
        messages.color_from_image(message), np.frombuffer(message.data, np.uint8))


@pytest.mark.parametrize('suffix', ['.png', '.jpg'])
def test_reads_compressed_like_cv2(rgb: np.ndarray, suffix: str) -> None:
    encoded = cv2.imencode(suffix, rgb[..., ::-1])[1]
    message = CompressedImage(format=f'rgb8; {suffix}', data=array('B', encoded.tobytes()))
    expected = cv2.imdecode(encoded, cv2.IMREAD_COLOR)[..., ::-1]
    np.testing.assert_array_equal(ros_images.color_from_compressed(message), expected)


@pytest.mark.parametrize('data', [b'', b'no picture'])
def test_refuses_compressed_data_that_are_no_picture(data: bytes) -> None:
    with pytest.raises(InputError, match="format 'jpeg'.*cannot be decoded.*raw"):
        ros_images.color_from_compressed(CompressedImage(format='jpeg', data=array('B', data)))


def short_step(message: Image) -> None:
    message.step -= 1


def truncated(message: Image) -> None:
    message.data = message.data[:-1]


def no_data(message: Image) -> None:
    message.data = array('B')


def no_width(message: Image) -> None:
    message.width = message.step = 0


def no_height(message: Image) -> None:
    message.height = 0


@pytest.mark.parametrize('damage, sentence', [
    (short_step, '14 bytes.*15'),
    (truncated, '104 bytes.*7 rows of 15'),
    (no_data, '0 bytes.*7 rows'),
    (no_width, '0x7 pixels'),
    (no_height, '5x0 pixels'),
])
def test_refuses_damaged_images(rgb: np.ndarray, damage: callable, sentence: str) -> None:
    message = image(rgb, 'rgb8')
    damage(message)
    with pytest.raises(InputError, match=sentence):
        messages.color_from_image(message)


def test_refuses_depth_as_color_and_color_as_depth(rgb: np.ndarray) -> None:
    with pytest.raises(InputError, match="'32FC1'"):
        messages.color_from_image(image(rgb[..., 0].astype(np.float32), '32FC1'))
    with pytest.raises(InputError, match="'bgr8'.*depth"):
        messages.depth_from_image(image(rgb, 'bgr8'))


@pytest.mark.parametrize('read', [messages.color_from_image, messages.depth_from_image])
def test_names_unknown_encoding_and_fix_without_cv_bridge(
    monkeypatch: pytest.MonkeyPatch, rgb: np.ndarray, read: callable,
) -> None:
    monkeypatch.setitem(sys.modules, 'cv_bridge', None)  # import raises ImportError
    with pytest.raises(InputError, match="'bayer_rggb8'.*rgb8.*cv_bridge"):
        read(image(rgb[..., 0], 'bayer_rggb8'))


def test_reads_other_encodings_through_cv_bridge(
    monkeypatch: pytest.MonkeyPatch, rgb: np.ndarray,
) -> None:
    class CvBridge:
        """Stands for vision_opencv's; cannot be installed from PyPI."""

        def imgmsg_to_cv2(self, message: Image, desired_encoding: str) -> np.ndarray:
            if message.encoding == '64FC1':
                assert desired_encoding == 'passthrough'
                return np.frombuffer(message.data, '<f8').reshape(HEIGHT, WIDTH)
            if message.encoding != 'yuv422_yuy2':
                raise TypeError('Unrecognized image encoding')
            assert desired_encoding == 'rgb8'
            return rgb

    module = ModuleType('cv_bridge')
    module.CvBridge = CvBridge
    monkeypatch.setitem(sys.modules, 'cv_bridge', module)
    np.testing.assert_array_equal(
        messages.color_from_image(image(rgb[..., :2], 'yuv422_yuy2')), rgb)
    np.testing.assert_array_equal(
        messages.depth_from_image(image(np.full((HEIGHT, WIDTH), 1.5), '64FC1')), 1.5)
    with pytest.raises(InputError, match="'nonsense'.*Unrecognized"):
        messages.color_from_image(image(rgb, 'nonsense'))


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


def test_images_survive_their_messages(rgb: np.ndarray) -> None:
    depth = np.array([[0.001, 1.2345, np.nan], [np.inf, 65.535, 70.0]], np.float32)
    message = messages.image_from_depth(Header(), depth)
    again = messages.depth_from_image(deserialize_message(serialize_message(message), Image))
    np.testing.assert_allclose(again[0, :2], [0.001, 1.234], atol=5e-4)
    assert np.isnan(again[0, 2]) and np.isnan(again[1, 0])
    np.testing.assert_allclose(again[1, 1:], 65.535, rtol=1e-6)
    message = messages.image_from_color(Header(), rgb)
    again = messages.color_from_image(deserialize_message(serialize_message(message), Image))
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
    pose = messages.pose_from_matrix(np.array([1.0, 2, 3]), rotation)
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
        marker = messages.triangle_marker()
        marker.header, marker.ns, marker.id = messages.header_of(frame_id, 5), name, id
        text = messages.marker_from_text(name)
        text.header = marker.header
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
