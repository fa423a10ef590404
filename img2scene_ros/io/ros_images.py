# SPDX-License-Identifier: Apache-2.0
"""
Images and calibrations of ROS messages, whoever read them: rclpy, or rosbags from a file.

The common encodings are read without cv_bridge: its binaries break with NumPy 2
(ros-perception/vision_opencv#535).
"""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from img2scene_ros.camera import Camera
from img2scene_ros.depth import metric_depth
from img2scene_ros.errors import InputError

# Encoding: type of one channel, number of channels.
COLOR = {
    'rgb8': (np.uint8, 3),
    'bgr8': (np.uint8, 3),
    'rgba8': (np.uint8, 4),
    'bgra8': (np.uint8, 4),
    'mono8': (np.uint8, 1),
    'mono16': (np.uint16, 1),
}
DEPTH = {
    '16UC1': (np.uint16, 1),
    'mono16': (np.uint16, 1),
    '32FC1': (np.float32, 1),
}
_TO_RGB = {
    'bgr8': cv2.COLOR_BGR2RGB,
    'rgba8': cv2.COLOR_RGBA2RGB,
    'bgra8': cv2.COLOR_BGRA2RGB,
    'mono8': cv2.COLOR_GRAY2RGB,
    'mono16': cv2.COLOR_GRAY2RGB,
}
LABELS = {'mono8': np.uint8, '8UC1': np.uint8, 'mono16': np.uint16, '16UC1': np.uint16,
          '32SC1': np.int32}


def refuse(message: Any, wanted: str) -> np.ndarray:
    """
    Read no other encoding.

    :raises InputError: always
    """
    raise InputError(
        f"the encoding '{message.encoding}' cannot be read; record one of "
        f"{', '.join({**COLOR, **DEPTH})}")


def color_from_image(
    message: Any, convert: Callable[[Any, str], np.ndarray] = refuse,
) -> np.ndarray:
    """
    Read a colour or grey picture.

    :param message: sensor_msgs/Image
    :param convert: what reads other encodings, to the one that it is given
    :return: (H, W, 3) uint8, RGB
    :raises InputError: an encoding that cannot be read, or data that do not fill the picture
    """
    if message.encoding in DEPTH and message.encoding not in COLOR:
        raise InputError(
            f"the picture has the encoding '{message.encoding}', which is a depth encoding; "
            'remap the topic image to a colour picture')
    if message.encoding not in COLOR:
        return np.ascontiguousarray(convert(message, 'rgb8'))
    pixels = _pixels(message, *COLOR[message.encoding])
    if message.encoding == 'mono16':
        pixels = (pixels >> 8).astype(np.uint8)
    if message.encoding in _TO_RGB:
        return cv2.cvtColor(pixels, _TO_RGB[message.encoding])
    return np.ascontiguousarray(pixels)


def color_from_compressed(message: Any) -> np.ndarray:
    """
    Read a JPEG, PNG, ... picture of image_transport.

    :return: (H, W, 3) uint8, RGB
    :raises InputError: the data are no picture
    """
    data = np.frombuffer(message.data, np.uint8)
    pixels = None
    if data.size:
        pixels = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        raise InputError(
            f"the compressed picture (format '{message.format}', {data.size} bytes) cannot be "
            'decoded; check the publisher, or use the raw picture (image_transport: raw)')
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def depth_from_image(
    message: Any, convert: Callable[[Any, str], np.ndarray] = refuse,
) -> np.ndarray:
    """
    Read a depth image (REP-118).

    :param message: sensor_msgs/Image
    :param convert: as in `color_from_image`
    :return: (H, W) float32 metres, NaN = no reading
    :raises InputError: an encoding that cannot be read, or data that do not fill the image
    """
    if message.encoding in COLOR and message.encoding not in DEPTH:
        raise InputError(
            f"the depth image has the encoding '{message.encoding}', which is a picture's; "
            'remap the topic depth to an image in 16UC1 (millimetres) or 32FC1 (metres)')
    if message.encoding not in DEPTH:
        return metric_depth(convert(message, 'passthrough'))
    return metric_depth(_pixels(message, *DEPTH[message.encoding]))


def labels_from_image(message: Any) -> np.ndarray:
    """
    Read an image whose pixels name things: (H, W), whole numbers.

    :raises InputError: an encoding that holds no such numbers, or data that do not fill the image
    """
    if message.encoding not in LABELS:
        raise InputError(
            f"the label image has the encoding '{message.encoding}'; publish one of "
            f"{', '.join(LABELS)}")
    return _pixels(message, LABELS[message.encoding], 1)


def camera_from_info(message: Any, rectified: bool = False) -> Camera:
    """
    Read a calibration.

    :param rectified: the picture is rectified already: take P and no distortion
    :raises InputError: there is no calibration in the message
    """
    matrix = np.reshape(message.p, (3, 4))[:, :3] if rectified else message.k
    roi, binning = message.roi, (message.binning_x, message.binning_y)
    return Camera.from_calibration(
        message.width, message.height, matrix, () if rectified else message.d,
        message.distortion_model, (roi.x_offset, roi.y_offset, roi.width, roi.height), binning)


def _pixels(message: Any, kind: Any, channels: int) -> np.ndarray:
    """Return (H, W) or (H, W, channels) in this machine's byte order, without a copy if it can."""
    width, height, step = message.width, message.height, message.step
    dtype = np.dtype(kind).newbyteorder('>' if message.is_bigendian else '<')
    row = width * channels * dtype.itemsize
    if not row or not height:
        raise InputError(f'the image is empty ({width}x{height} pixels); check the camera driver')
    if step < row:
        raise InputError(
            f'the image has a step of {step} bytes but its rows have {row} ({width} pixels of '
            f'{message.encoding}); correct the step in the driver')
    if len(message.data) < step * (height - 1) + row:
        raise InputError(
            f'the image is truncated: {len(message.data)} bytes for {height} rows of {step}; '
            'check the driver and the network')
    shape: tuple[int, ...] = height, width
    strides: tuple[int, ...] = step, channels * dtype.itemsize
    if channels > 1:
        shape, strides = (*shape, channels), (*strides, dtype.itemsize)
    pixels: np.ndarray = np.ndarray(shape, dtype, memoryview(message.data), strides=strides)
    return pixels.astype(dtype.newbyteorder('='), copy=False)
