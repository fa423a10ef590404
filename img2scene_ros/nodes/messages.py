# SPDX-License-Identifier: Apache-2.0
"""Between numpy arrays and ROS messages, and nothing else."""

from array import array
from io import BytesIO

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point
from geometry_msgs.msg import Pose
from geometry_msgs.msg import Transform
from geometry_msgs.msg import Vector3
from PIL import Image as Picture
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image
from sensor_msgs.msg import PointCloud2
from sensor_msgs.msg import PointField
from std_msgs.msg import ColorRGBA
from std_msgs.msg import Header
from visualization_msgs.msg import Marker
from visualization_msgs.msg import UVCoordinate

from img2scene_ros.camera import Camera
from img2scene_ros.errors import InputError

TEXT_HEIGHT = 0.02  # metres
# Share of the height; without it RViz makes a space as wide as for text of 1 m (rviz#1336).
TEXT_SPACE = 0.3

_CLOUD = {
    'x': PointField.FLOAT32, 'y': PointField.FLOAT32, 'z': PointField.FLOAT32,
    'rgb': PointField.FLOAT32, 'id': PointField.UINT32, 'label': PointField.UINT32,
    'source': PointField.UINT32,
}
_CLOUD_ROW = np.dtype([(name, '<f4' if name in 'xyz' else '<u4') for name in _CLOUD])


def nanoseconds(stamp: Time) -> int:
    """Return a stamp as nanoseconds."""
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def seconds(stamp: Time) -> float:
    """Return a stamp as seconds."""
    return nanoseconds(stamp) * 1e-9


def header_of(frame_id: str, stamp_ns: int) -> Header:
    """Return the header of a frame and a stamp in nanoseconds."""
    seconds, rest = divmod(stamp_ns, 1_000_000_000)
    return Header(frame_id=frame_id, stamp=Time(sec=seconds, nanosec=rest))


def image_from_color(header: Header, color: np.ndarray) -> Image:
    """Make an rgb8 image of (H, W, 3) uint8."""
    return _image(header, 'rgb8', color)


def image_from_depth(header: Header, depth: np.ndarray) -> Image:
    """Make a 16UC1 image in millimetres, 0 = no reading, of (H, W) metres, NaN = no reading."""
    millimetres = np.clip(np.nan_to_num(depth * 1000.0, posinf=0, neginf=0).round(), 0, 65535)
    return _image(header, '16UC1', millimetres.astype('<u2'))


def image_from_labels(header: Header, labels: np.ndarray) -> Image:
    """Make a mono16 image of (H, W) uint16."""
    return _image(header, 'mono16', labels.astype('<u2'))


def info_from_camera(header: Header, camera: Camera) -> CameraInfo:
    """Make the calibration message of a camera."""
    matrix = camera.matrix
    message = CameraInfo(header=header, width=camera.width, height=camera.height)
    message.k = matrix.ravel()
    message.d = camera.distortion.tolist()
    message.distortion_model = camera.distortion_model
    message.r = np.eye(3).ravel()
    message.p = np.column_stack([matrix, np.zeros(3)]).ravel()
    return message


def cloud_from_points(
    header: Header, points: np.ndarray, colors: np.ndarray, ids: np.ndarray, labels: np.ndarray,
    sources: np.ndarray,
) -> PointCloud2:
    """
    Make a cloud with the fields x, y, z, rgb (as PCL packs it), id, label and source.

    :param points: (N, 3) metres
    :param colors: (N, 3) uint8, RGB
    :param ids: (N,) the object each point belongs to
    :param labels: (N,) its value in `~/labels`, as PCL names the segment of a point
    :param sources: (N,) 0 on its mesh, 1 measured
    """
    rows = np.empty(len(points), _CLOUD_ROW)
    rows['x'], rows['y'], rows['z'] = points.T
    rows['rgb'] = _packed(colors)
    rows['id'], rows['label'], rows['source'] = ids, labels, sources
    message = PointCloud2(header=header, height=1, width=len(rows), is_dense=True)
    message.fields = [
        PointField(name=name, offset=4 * place, datatype=kind, count=1)
        for place, (name, kind) in enumerate(_CLOUD.items())]
    message.point_step = _CLOUD_ROW.itemsize
    message.row_step = _CLOUD_ROW.itemsize * len(rows)
    message.data = _bytes(rows)
    return message


def pose_from_matrix(position: np.ndarray, rotation: np.ndarray) -> Pose:
    """Make a pose of (3,) metres and a (3, 3) rotation."""
    pose = Pose()
    pose.position.x, pose.position.y, pose.position.z = position.tolist()
    x, y, z, w = Rotation.from_matrix(rotation).as_quat().tolist()
    pose.orientation.x, pose.orientation.y, pose.orientation.z, pose.orientation.w = x, y, z, w
    return pose


def transform_from_matrix(matrix: np.ndarray) -> Transform:
    """Make a transform of a (4, 4) matrix in metres."""
    pose = pose_from_matrix(matrix[:3, 3], matrix[:3, :3])
    place = pose.position
    return Transform(
        translation=Vector3(x=place.x, y=place.y, z=place.z), rotation=pose.orientation)


def marker_from_textured_mesh(
    vertices: np.ndarray, faces: np.ndarray, uv: np.ndarray,
) -> Marker:
    """
    Make a TRIANGLE_LIST for a texture; texture, header, name and pose are left to the caller.

    :param vertices: (V, 3) metres
    :param faces: (F, 3) indices of vertices
    :param uv: (F, 3, 2) where each corner lies in the texture, (0, 0) its upper left corner
    """
    marker = triangle_marker()
    points = [Point(x=x, y=y, z=z) for x, y, z in vertices.tolist()]
    marker.points = [points[index] for index in faces.ravel().tolist()]
    corners = np.ascontiguousarray(uv, np.float32).reshape(-1, 2).view(np.uint64).ravel()
    distinct, indices = np.unique(corners, return_inverse=True)
    places = [UVCoordinate(u=u, v=v) for u, v in distinct.view(np.float32).reshape(-1, 2).tolist()]
    marker.uv_coordinates = [places[index] for index in indices.ravel().tolist()]
    return marker


def triangle_marker() -> Marker:
    """Make an empty TRIANGLE_LIST; triangles, header, name and pose are left to the caller."""
    marker = Marker(type=Marker.TRIANGLE_LIST, action=Marker.ADD, color=_WHITE)
    marker.scale.x = marker.scale.y = marker.scale.z = 1.0
    return marker


def marker_from_resource(uri: str) -> Marker:
    """Make a MESH_RESOURCE with its own material; header, name and pose are left to the caller."""
    # RViz takes the file's material only when the colour is zero throughout.
    marker = Marker(
        type=Marker.MESH_RESOURCE, action=Marker.ADD, mesh_resource=uri,
        mesh_use_embedded_materials=True, color=ColorRGBA())
    marker.scale.x = marker.scale.y = marker.scale.z = 1.0
    return marker


def texture_from_png(png: bytes) -> CompressedImage:
    """
    Make a marker's texture of a PNG file.

    :raises InputError: it is empty or damaged; RViz would end on it
    """
    try:
        Picture.open(BytesIO(png), formats=('PNG',)).verify()  # every part of it
        Picture.open(BytesIO(png), formats=('PNG',)).load()  # the pixels
        if not png.endswith(_PNG_END):
            raise InputError('the end is missing')
    except Exception as error:  # OSError, SyntaxError, zlib.error, ...: whatever the bytes are
        raise InputError(f'the texture ({len(png)} bytes) is no valid PNG file') from error
    return CompressedImage(format='png', data=_bytes(np.frombuffer(png, np.uint8)))


def marker_from_text(text: str) -> Marker:
    """Make a white TEXT_VIEW_FACING; header, name and pose are left to the caller."""
    marker = Marker(type=Marker.TEXT_VIEW_FACING, action=Marker.ADD, color=_WHITE, text=text)
    marker.scale.x, marker.scale.z = TEXT_SPACE * TEXT_HEIGHT, TEXT_HEIGHT
    return marker


_PNG_END = b'IEND\xaeB`\x82'
_WHITE = ColorRGBA(r=1.0, g=1.0, b=1.0, a=1.0)


def _image(header: Header, encoding: str, pixels: np.ndarray) -> Image:
    return Image(
        header=header, height=pixels.shape[0], width=pixels.shape[1], encoding=encoding,
        step=pixels.nbytes // pixels.shape[0], data=_bytes(pixels))


def _bytes(values: np.ndarray) -> array:
    """Return what uint8[] fields take at the cost of one copy; anything else takes seconds."""
    data = array('B')
    data.frombytes(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
    return data


def _packed(colors: np.ndarray) -> np.ndarray:
    red, green, blue = np.moveaxis(colors.astype(np.uint32), -1, 0)
    return red << 16 | green << 8 | blue
