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
) -> Path:
    """
    Record frames at 30 Hz, and an infrared camera beside.

    :param delay: of the depth images' stamps behind the pictures', seconds
    :param is_compressed: pictures by image_transport's compressed, depth by its compressedDepth
    :param is_bayer: pictures, which are grey then, as the sensor has them
    :return: the .mcap file, or the folder of the bag
    """
    rosbags = pytest.importorskip('rosbags.rosbag2')
    typesys = pytest.importorskip('rosbags.typesys')
    store = typesys.get_typestore(typesys.Stores.ROS2_JAZZY)
    message = {name: store.types[f'{name[:name.index("/")]}/msg/{name[name.index("/") + 1:]}']
               for name in ('builtin_interfaces/Time', 'std_msgs/Header', 'sensor_msgs/Image',
                            'sensor_msgs/CameraInfo', 'sensor_msgs/CompressedImage',
                            'sensor_msgs/RegionOfInterest')}

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
            if info:
                rows.append((stamp, info, message['sensor_msgs/CameraInfo'](
                    header=header(stamp, LENS), height=camera.height, width=camera.width,
                    distortion_model='plumb_bob', d=np.zeros(5),
                    k=camera.matrix.ravel() * is_calibrated,
                    r=np.eye(3).ravel(),
                    p=np.eye(3, 4).ravel(), binning_x=0, binning_y=0,
                    roi=message['sensor_msgs/RegionOfInterest'](
                        x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)),
                    'CameraInfo'))
        for time, connection, sent, kind in sorted(rows, key=lambda row: row[0]):
            writer.write(connection, time, store.serialize_cdr(sent, f'sensor_msgs/msg/{kind}'))
    return next(path.glob('*.mcap')) if storage == 'MCAP' else path
