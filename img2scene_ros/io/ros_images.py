# SPDX-License-Identifier: Apache-2.0
"""
Images and calibrations of ROS messages, whoever read them: rclpy, or rosbags from a file.

Without cv_bridge: its binaries break with NumPy 2 (ros-perception/vision_opencv#535). The
encodings are those of sensor_msgs/image_encodings.hpp.
"""

import logging
import struct
from typing import Any

import cv2
import numpy as np

from img2scene_ros.camera import Camera
from img2scene_ros.depth import FARTHEST
from img2scene_ros.depth import metric_depth
from img2scene_ros.errors import InputError
from img2scene_ros.errors import naming
from img2scene_ros.errors import say_once

MOST_PIXELS = 1 << 26  # a header that tells more is damaged

# Encoding: type of one channel, number of channels, what OpenCV does to make RGB of it.
# Bayer: OpenCV names the pattern by the second row's second and third pixel.
COLOR: dict[str, tuple[type, int, int | None]] = {
    'rgb8': (np.uint8, 3, None),
    'bgr8': (np.uint8, 3, cv2.COLOR_BGR2RGB),
    '8UC3': (np.uint8, 3, cv2.COLOR_BGR2RGB),
    'rgba8': (np.uint8, 4, cv2.COLOR_RGBA2RGB),
    'bgra8': (np.uint8, 4, cv2.COLOR_BGRA2RGB),
    '8UC4': (np.uint8, 4, cv2.COLOR_BGRA2RGB),
    'mono8': (np.uint8, 1, cv2.COLOR_GRAY2RGB),
    '8UC1': (np.uint8, 1, cv2.COLOR_GRAY2RGB),
    'rgb16': (np.uint16, 3, None),
    'bgr16': (np.uint16, 3, cv2.COLOR_BGR2RGB),
    'rgba16': (np.uint16, 4, cv2.COLOR_RGBA2RGB),
    'bgra16': (np.uint16, 4, cv2.COLOR_BGRA2RGB),
    'mono16': (np.uint16, 1, cv2.COLOR_GRAY2RGB),
    'uyvy': (np.uint8, 2, cv2.COLOR_YUV2RGB_UYVY),
    'yuv422': (np.uint8, 2, cv2.COLOR_YUV2RGB_UYVY),
    'yuyv': (np.uint8, 2, cv2.COLOR_YUV2RGB_YUY2),
    'yuv422_yuy2': (np.uint8, 2, cv2.COLOR_YUV2RGB_YUY2),
    'nv12': (np.uint8, 1, cv2.COLOR_YUV2RGB_NV12),
    'nv21': (np.uint8, 1, cv2.COLOR_YUV2RGB_NV21),
    'bayer_rggb8': (np.uint8, 1, cv2.COLOR_BayerBG2RGB),
    'bayer_bggr8': (np.uint8, 1, cv2.COLOR_BayerRG2RGB),
    'bayer_gbrg8': (np.uint8, 1, cv2.COLOR_BayerGR2RGB),
    'bayer_grbg8': (np.uint8, 1, cv2.COLOR_BayerGB2RGB),
    'bayer_rggb16': (np.uint16, 1, cv2.COLOR_BayerBG2RGB),
    'bayer_bggr16': (np.uint16, 1, cv2.COLOR_BayerRG2RGB),
    'bayer_gbrg16': (np.uint16, 1, cv2.COLOR_BayerGR2RGB),
    'bayer_grbg16': (np.uint16, 1, cv2.COLOR_BayerGB2RGB),
}
DEPTH: dict[str, type] = {
    '16UC1': np.uint16, 'mono16': np.uint16, '32FC1': np.float32, '64FC1': np.float64}
LABELS = {'mono8': np.uint8, '8UC1': np.uint8, 'mono16': np.uint16, '16UC1': np.uint16,
          '32SC1': np.int32}
GREY = ('mono8', 'mono16', '8UC1')
_PLANAR = ('nv12', 'nv21')  # a plane of brightness, then one of colour with half as many rows
_IN_PAIRS = ('uyvy', 'yuv422', 'yuyv', 'yuv422_yuy2', *_PLANAR)  # columns share a colour

_LOGGER = logging.getLogger(__name__)


def color_from_image(message: Any) -> np.ndarray:
    """
    Read a colour or grey picture.

    :param message: sensor_msgs/Image
    :return: (H, W, 3) uint8, RGB
    :raises InputError: an encoding that cannot be read, or data that do not fill the picture
    """
    encoding = message.encoding
    if encoding in DEPTH and encoding not in COLOR:
        raise InputError(
            f"the picture has the encoding '{encoding}', which is a depth encoding; remap the "
            'topic image to a colour picture')
    if encoding not in COLOR:
        raise InputError(
            f"the encoding '{encoding}' of the picture cannot be read; publish one of "
            f"{', '.join(COLOR)}")
    kind, channels, conversion = COLOR[encoding]
    rows = message.height
    if encoding in _IN_PAIRS and message.width % 2 or encoding in _PLANAR and rows % 2:
        raise InputError(
            f"a picture of {message.width}x{rows} pixels cannot have the encoding '{encoding}', "
            'in which pixels share their colours in pairs; correct its size in the driver')
    pixels = _pixels(message, kind, channels, rows * 3 // 2 if encoding in _PLANAR else rows)
    if conversion is not None:
        pixels = cv2.cvtColor(pixels, conversion)
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    return np.ascontiguousarray(pixels)


def color_from_compressed(message: Any) -> np.ndarray:
    """
    Read a JPEG, PNG, ... picture of image_transport.

    :return: (H, W, 3) uint8, RGB
    :raises InputError: the data are no picture
    """
    pixels = decoded(message.data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        raise InputError(
            f"the compressed picture (format '{message.format}', {len(message.data)} bytes) "
            'cannot be decoded; check the publisher, or use the raw picture (image_transport: '
            'raw)')
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def depth_from_image(message: Any) -> np.ndarray:
    """
    Read a depth image (REP-118).

    :param message: sensor_msgs/Image
    :return: (H, W) float32 metres, NaN = no reading
    :raises InputError: an encoding that cannot be read, or data that do not fill the image
    """
    if message.encoding not in DEPTH:
        what = "which is a picture's" if message.encoding in COLOR else 'which cannot be read'
        raise InputError(
            f"the depth image has the encoding '{message.encoding}', {what}; remap the topic "
            'depth to an image in 16UC1 (millimetres) or 32FC1 (metres)')
    return _in_metres(_pixels(message, DEPTH[message.encoding], 1, message.height), message)


def mask_from_image(message: Any) -> np.ndarray:
    """
    Read a mask, as filters publish it that know where the robot is in the picture.

    :param message: sensor_msgs/Image
    :return: (H, W) bool
    :raises InputError: another encoding than one of 8 bits, or data that do not fill the image
    """
    if message.encoding not in ('mono8', '8UC1'):
        raise InputError(
            f"the mask has the encoding '{message.encoding}'; publish it in mono8, where it is 0 "
            'beside the robot')
    return _pixels(message, np.uint8, 1, message.height) > 0


def depth_from_compressed(message: Any) -> np.ndarray:
    """
    Read a depth image of image_transport's compressedDepth, or a PNG of its `compressed`.

    A header of 12 bytes, with what quantised the inverse depth of 32FC1 (image_transport_plugins,
    compressed_depth_image_transport/src/codec.cpp), then PNG or RVL.

    :param message: sensor_msgs/CompressedImage
    :return: (H, W) float32 metres, NaN = no reading
    :raises InputError: the data are no depth image
    """
    encoding, _, how = message.format.partition(';')
    data, offset, quantum = memoryview(message.data), 0.0, 0.0
    if bytes(data[:4]) != b'\x89PNG' and len(data) > 12:
        _, quantum, offset = struct.unpack('<iff', data[:12])
        data = data[12:]
    with naming(f"the depth image (format '{message.format}')"):
        raw = (from_rvl(data) if how.rstrip().endswith('rvl') else
               decoded(data, cv2.IMREAD_UNCHANGED))
    if raw is None or raw.ndim != 2 or raw.dtype != np.uint16:
        raise InputError(
            f"the compressed depth image (format '{message.format}', {len(message.data)} bytes) "
            'cannot be decoded; publish it raw, or by compressedDepth with its format png or rvl')
    if encoding.strip() != '32FC1':
        return _in_metres(raw, message)
    with np.errstate(divide='ignore', invalid='ignore'):
        depth = np.float32(quantum) / (raw - np.float32(offset))
    return _in_metres(np.where(raw > 0, depth, np.float32(np.nan)), message)


def from_rvl(data: Any) -> np.ndarray:
    """
    Decode RVL: Wilson: Fast lossless depth image compression, ISS 2017.

    Numbers of variable length are nibbles with three bits, the lowest first, and one that tells
    whether more follow. In turn: how many zeros, how many readings, and by how much each reading
    differs from the one before.

    :param data: columns and rows as two uint32, then the nibbles in uint32, the highest first
    :return: (H, W) uint16
    :raises InputError: the data are damaged
    """
    if len(data) < 8:
        raise InputError('the RVL data are truncated; check the publisher and the network')
    columns, rows = struct.unpack('<II', data[:8])
    if not 0 < columns * rows <= MOST_PIXELS:
        raise InputError(f'the RVL data are damaged: a size of {columns}x{rows} pixels')
    values = _numbers(np.frombuffer(data, '<u4', (len(data) - 8) // 4, 8))
    image = np.zeros(columns * rows, np.uint16)
    runs, at, filled = [], 0, 0
    while filled < len(image):
        if at + 2 > len(values) or at + 2 + values[at + 1] > len(values):
            raise InputError('the RVL data are truncated; check the publisher and the network')
        zeros, readings = int(values[at]), int(values[at + 1])
        runs.append((at + 2, filled + zeros, readings))
        at, filled = at + 2 + readings, filled + zeros + readings
        if filled > len(image):
            raise InputError('the RVL data are damaged: more readings than pixels')
    sources, targets, lengths = np.array(runs).T
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    changes = values[np.repeat(sources, lengths) + within]
    image[np.repeat(targets, lengths) + within] = np.cumsum(changes >> 1 ^ -(changes & 1))
    return image.reshape(rows, columns)


def labels_from_image(message: Any) -> np.ndarray:
    """
    Read an image whose pixels name things: (H, W), whole numbers.

    :raises InputError: an encoding that holds no such numbers, or data that do not fill the image
    """
    if message.encoding not in LABELS:
        raise InputError(
            f"the label image has the encoding '{message.encoding}'; publish one of "
            f"{', '.join(LABELS)}")
    return _pixels(message, LABELS[message.encoding], 1, message.height)


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


def _in_metres(raw: np.ndarray, message: Any) -> np.ndarray:
    """Convert depth to metres; floats that can only be millimetres are taken as such."""
    depth = metric_depth(raw)
    if raw.dtype.kind != 'f':
        return depth
    some = depth[::8, ::8]
    readings = some[np.isfinite(some)]
    if len(readings) and np.median(readings) > FARTHEST:
        say_once(
            _LOGGER.warning, "the depth images of '%s' are floats in millimetres, not in metres "
            'as REP-118 has them; they are taken as millimetres', message.header.frame_id)
        depth *= np.float32(0.001)
    return depth


def _numbers(words: np.ndarray) -> np.ndarray:
    """Return the numbers of variable length that RVL has in (N,) uint32; none of damaged ones."""
    halves = words.astype('>u4').view(np.uint8)
    nibbles = np.stack([halves >> 4, halves & 15], axis=-1).ravel()
    ends = np.flatnonzero(nibbles < 8)
    lengths = np.diff(ends, prepend=-1)
    if not len(ends) or lengths.max() > 11:  # more than 32 bits
        return np.zeros(0, np.int64)
    starts = ends - lengths + 1
    numbers = (nibbles[starts] & 7).astype(np.int64)
    for place in range(1, lengths.max()):
        longer = np.flatnonzero(lengths > place)
        numbers[longer] |= (nibbles[starts[longer] + place] & 7).astype(np.int64) << 3 * place
    return numbers


def decoded(data: Any, how: int) -> np.ndarray | None:
    """Decode a file of a picture; None when it is none."""
    content = np.frombuffer(data, np.uint8)
    return cv2.imdecode(content, how) if content.size else None


def _pixels(message: Any, kind: Any, channels: int, rows: int) -> np.ndarray:
    """
    Return (rows, W) or (rows, W, channels), without a copy if it can.

    In this machine's byte order; rows are those of all planes of the image.
    """
    width, step = message.width, message.step
    dtype = np.dtype(kind).newbyteorder('>' if message.is_bigendian else '<')
    row = width * channels * dtype.itemsize
    if not row or not rows:
        raise InputError(
            f'the image is empty ({width}x{message.height} pixels); check the camera driver')
    if step < row:
        raise InputError(
            f'the image has a step of {step} bytes but its rows have {row} ({width} pixels of '
            f'{message.encoding}); correct the step in the driver')
    if len(message.data) < step * (rows - 1) + row:
        raise InputError(
            f'the image is truncated: {len(message.data)} bytes for {rows} rows of {step}; '
            'check the driver and the network')
    shape: tuple[int, ...] = rows, width
    strides: tuple[int, ...] = step, channels * dtype.itemsize
    if channels > 1:
        shape, strides = (*shape, channels), (*strides, dtype.itemsize)
    pixels: np.ndarray = np.ndarray(shape, dtype, memoryview(message.data), strides=strides)
    # OpenCV takes no rows that begin in the middle of a number.
    return pixels.astype(dtype.newbyteorder('='), copy=step % dtype.itemsize > 0)
