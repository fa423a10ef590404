# SPDX-License-Identifier: Apache-2.0
"""Recordings of a camera, written by rosbags' own writer."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from img2scene_ros.camera import Camera
from img2scene_ros.types import Frame

LENS = 'camera_color_optical_frame'


def plain_frame(i: int) -> Frame:
    """Return a small frame of the colour 10 i that is 1 + i m away everywhere."""
    return Frame(np.full((6, 8, 3), 10 * i, np.uint8), Camera(8, 6, 7.0, 7.0, 3.5, 2.5),
                 np.full((6, 8), 1.0 + i, np.float32))


def write_bag(
    path: Path, frames: Sequence[Frame], storage: str = 'MCAP', depth_frame: str = LENS,
    delay: float = 0.004, with_info: bool = True, is_calibrated: bool = True,
    is_compressed: bool = False, is_bayer: bool = False,
    transforms: Sequence[tuple[str, str, Sequence[float]]] = (), tf: str = '/tf_static',
) -> Path:
    """
    Record frames at 30 Hz, and an infrared camera beside.

    :param delay: of the depth images' stamps behind the pictures', seconds
    :param is_compressed: pictures by image_transport's compressed, depth by its compressedDepth
    :param is_bayer: pictures, which are grey then, as the sensor has them
    :param transforms: parent, child, and x y z and quaternion of the child; where there are some
        the depth images have a calibration of their own
    :param tf: the transforms' topic
    :return: the .mcap file, or the folder of the bag
    """
    rosbags = pytest.importorskip('rosbags.rosbag2')
    typesys = pytest.importorskip('rosbags.typesys')
    store = typesys.get_typestore(typesys.Stores.ROS2_JAZZY)
    message = {name: store.types[f'{name[:name.index("/")]}/msg/{name[name.index("/") + 1:]}']
               for name in ('builtin_interfaces/Time', 'std_msgs/Header', 'sensor_msgs/Image',
                            'sensor_msgs/CameraInfo', 'sensor_msgs/CompressedImage',
                            'sensor_msgs/RegionOfInterest', 'geometry_msgs/Vector3',
                            'geometry_msgs/Quaternion', 'geometry_msgs/Transform',
                            'geometry_msgs/TransformStamped', 'tf2_msgs/TFMessage')}

    def header(stamp: int, frame_id: str) -> object:
        return message['std_msgs/Header'](stamp=message['builtin_interfaces/Time'](
            sec=stamp // 10 ** 9, nanosec=stamp % 10 ** 9), frame_id=frame_id)

    def image(stamp: int, frame_id: str, encoding: str, pixels: np.ndarray) -> object:
        return message['sensor_msgs/Image'](
            header=header(stamp, frame_id), height=len(pixels), width=pixels.shape[1],
            encoding=encoding, is_bigendian=0, step=pixels.nbytes // len(pixels),
            data=pixels.reshape(-1).view(np.uint8))

    with rosbags.Writer(path, version=9,
                        storage_plugin=getattr(rosbags.StoragePlugin, storage)) as writer:
        def connect(topic: str, kind: str) -> object:
            return writer.add_connection(topic, f'sensor_msgs/msg/{kind}', typestore=store)

        kind = 'CompressedImage' if is_compressed else 'Image'
        infrared = connect('/camera/infra1/image_rect_raw', 'Image')
        depth = connect(
            '/camera/aligned_depth_to_color/image_raw' + '/compressedDepth' * is_compressed, kind)
        color = connect('/camera/color/image_raw' + '/compressed' * is_compressed, kind)
        info = connect('/camera/color/camera_info', 'CameraInfo') if with_info else None
        depth_info = (connect('/camera/aligned_depth_to_color/camera_info', 'CameraInfo')
                      if transforms else None)
        if transforms:
            to_tf = writer.add_connection(tf, 'tf2_msgs/msg/TFMessage', typestore=store)
        for parent, child, (x, y, z, *turn) in transforms:
            moved = message['geometry_msgs/TransformStamped'](
                header=header(0, parent), child_frame_id=child,
                transform=message['geometry_msgs/Transform'](
                    translation=message['geometry_msgs/Vector3'](x=x, y=y, z=z),
                    rotation=message['geometry_msgs/Quaternion'](*turn)))
            writer.write(to_tf, 1_700_000_000_000_000_000, store.serialize_cdr(
                message['tf2_msgs/TFMessage'](transforms=[moved]), 'tf2_msgs/msg/TFMessage'))
        rows = []
        for i, frame in enumerate(frames):
            stamp = 1_700_000_000_000_000_000 + i * 33_333_333
            late = stamp + round(1e9 * delay)
            pixels, camera = frame.color, frame.camera
            millimetres = np.nan_to_num(1000.0 * frame.depth).round().astype(np.uint16)
            if is_compressed:
                sent = message['sensor_msgs/CompressedImage'](
                    header=header(stamp, LENS), format='rgb8; png compressed bgr8',
                    data=cv2.imencode('.png', pixels[..., ::-1])[1].ravel())
            elif is_bayer:
                sent = image(stamp, LENS, 'bayer_rggb8', pixels[..., 0].copy())
            else:
                sent = image(stamp, LENS, 'rgb8', pixels)
            if is_compressed:
                sent_depth = message['sensor_msgs/CompressedImage'](
                    header=header(late, depth_frame), format='16UC1; compressedDepth png',
                    data=np.append(np.zeros(12, np.uint8), cv2.imencode('.png', millimetres)[1]))
            else:
                sent_depth = image(late, depth_frame, '16UC1', millimetres)
            rows += [
                (stamp, infrared, image(stamp, 'infra', 'mono8', pixels[..., 0].copy()), 'Image'),
                (stamp, color, sent, kind),
                # The driver sends depth images two pictures late.
                (stamp + 70_000_000, depth, sent_depth, kind)]
            for to_info, lens in ((info, LENS), (depth_info, depth_frame)):
                if to_info is None:
                    continue
                rows.append((stamp, to_info, message['sensor_msgs/CameraInfo'](
                    header=header(stamp, lens), height=camera.height, width=camera.width,
                    distortion_model='plumb_bob', d=np.zeros(5),
                    k=camera.matrix.ravel() * is_calibrated, r=np.eye(3).ravel(),
                    p=np.eye(3, 4).ravel(), binning_x=0, binning_y=0,
                    roi=message['sensor_msgs/RegionOfInterest'](
                        x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)),
                    'CameraInfo'))
        for time, connection, sent, kind in sorted(rows, key=lambda row: row[0]):
            writer.write(connection, time, store.serialize_cdr(sent, f'sensor_msgs/msg/{kind}'))
    return next(path.glob('*.mcap')) if storage == 'MCAP' else path


def write_realsense_bag(path: Path, frames: Sequence[Frame], unit: float = 0.001) -> Path:
    """
    Record frames as librealsense itself does, in a bag of ROS 1, depth 0.1 m before the picture.

    As of ros_writer.cpp: depth is mono16, every frame_id '0', and the transform of a stream takes
    points of their common reference to it.
    """
    rosbag1 = pytest.importorskip('rosbags.rosbag1')
    typesys = pytest.importorskip('rosbags.typesys')
    store = typesys.get_typestore(typesys.Stores.ROS1_NOETIC)
    kind = {name.rpartition('/')[2]: made for name, made in store.types.items()}
    kind['Time'] = store.types['builtin_interfaces/msg/Time']
    streams = {'Depth': ('mono16', 0.0), 'Color': ('rgb8', 0.1)}
    with rosbag1.Writer(path) as writer:
        def send(topic: str, name: str, stamp: int, sent: object) -> None:
            if topic not in known:
                known[topic] = writer.add_connection(topic, name, typestore=store)
            writer.write(known[topic], stamp, store.serialize_ros1(sent, name))

        known: dict[str, object] = {}
        send('/device_0/sensor_0/option/Depth_Units/value', 'std_msgs/msg/Float32', 1,
             kind['Float32'](data=unit))
        for number, (stream, (encoding, z)) in enumerate(streams.items()):
            base = f'/device_0/sensor_{number}/{stream}_0'
            camera = frames[0].camera
            send(f'{base}/tf/0', 'geometry_msgs/msg/Transform', 1, kind['Transform'](
                translation=kind['Vector3'](x=0.0, y=0.0, z=z),
                rotation=kind['Quaternion'](x=0.0, y=0.0, z=0.0, w=1.0)))
            send(f'{base}/info/camera_info', 'sensor_msgs/msg/CameraInfo', 1, kind['CameraInfo'](
                header=kind['Header'](seq=0, stamp=kind['Time'](sec=0, nanosec=0), frame_id=''),
                height=camera.height, width=camera.width,
                distortion_model='Inverse Brown Conrady', D=np.zeros(5), K=camera.matrix.ravel(),
                R=np.zeros(9), P=np.zeros(12), binning_x=0, binning_y=0,
                roi=kind['RegionOfInterest'](0, 0, 0, 0, False)))
            for i, frame in enumerate(frames):
                pixels = frame.color if stream == 'Color' else np.round(
                    frame.depth / unit).astype(np.uint16)
                send(f'{base}/image/data', 'sensor_msgs/msg/Image', 10 + i, kind['Image'](
                    header=kind['Header'](
                        seq=i, stamp=kind['Time'](sec=1 + i, nanosec=0), frame_id='0'),
                    height=len(pixels), width=pixels.shape[1], encoding=encoding, is_bigendian=0,
                    step=pixels.nbytes // len(pixels),
                    data=pixels.reshape(-1).view(np.uint8)))
    return path
