# SPDX-License-Identifier: Apache-2.0
"""Between numpy arrays and ROS messages, and nothing else."""

from array import array

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point
from geometry_msgs.msg import Pose
from geometry_msgs.msg import Quaternion
from geometry_msgs.msg import Transform
from geometry_msgs.msg import Vector3
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import Image
from sensor_msgs.msg import PointCloud2
from sensor_msgs.msg import PointField
from std_msgs.msg import Header

from img2scene_ros.camera import Camera
from img2scene_ros.types import Frame

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


def picture_header(frame: Frame) -> Header:
    """Return the header of the picture that a frame was made of."""
    return header_of(frame.frame_id, frame.stamp_ns)


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
    rows['rgb'] = colors.astype(np.uint32) @ (1 << 16, 1 << 8, 1)
    rows['id'], rows['label'], rows['source'] = ids, labels, sources
    message = PointCloud2(header=header, height=1, width=len(rows), is_dense=True)
    message.fields = [
        PointField(name=name, offset=4 * place, datatype=kind, count=1)
        for place, (name, kind) in enumerate(_CLOUD.items())]
    message.point_step = _CLOUD_ROW.itemsize
    message.row_step = _CLOUD_ROW.itemsize * len(rows)
    message.data = uint8_array(rows)
    return message


def pose_from_matrix(matrix: np.ndarray) -> Pose:
    """Make a pose of a (4, 4) matrix in metres."""
    x, y, z = matrix[:3, 3].tolist()
    turn = Rotation.from_matrix(matrix[:3, :3]).as_quat().tolist()
    return Pose(
        position=Point(x=x, y=y, z=z), orientation=Quaternion(**dict(zip('xyzw', turn))))


def transform_from_matrix(matrix: np.ndarray) -> Transform:
    """Make a transform of a (4, 4) matrix in metres."""
    pose = pose_from_matrix(matrix)
    place = pose.position
    return Transform(
        translation=Vector3(x=place.x, y=place.y, z=place.z), rotation=pose.orientation)


def _image(header: Header, encoding: str, pixels: np.ndarray) -> Image:
    return Image(
        header=header, height=pixels.shape[0], width=pixels.shape[1], encoding=encoding,
        step=pixels.nbytes // pixels.shape[0], data=uint8_array(pixels))


def uint8_array(values: np.ndarray) -> array:
    """Return what uint8[] fields take at the cost of one copy; anything else takes seconds."""
    data = array('B')
    data.frombytes(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
    return data
