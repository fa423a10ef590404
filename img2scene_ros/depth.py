"""Depth images: in metres, and how far one reading may be off."""

import numpy as np

from img2scene_ros.errors import InputError


def metric_depth(raw: np.ndarray) -> np.ndarray:
    """
    Convert a depth image to metres with NaN for every pixel without a reading (REP-118).

    :param raw: (H, W) uint16 millimetres, or float metres
    :return: (H, W) float32
    :raises InputError: any other kind of image
    """
    if raw.ndim != 2 or raw.dtype not in (np.uint16, np.float32, np.float64):
        raise InputError(
            f'the depth image is {raw.shape} {raw.dtype}; it must have one channel, '
            'either 16-bit millimetres or float metres')
    scale = 0.001 if raw.dtype == np.uint16 else 1.0
    depth = raw.astype(np.float32) * np.float32(scale)
    depth[~(np.isfinite(depth) & (depth > 0))] = np.nan
    return depth


def depth_std(depth: np.ndarray) -> np.ndarray:
    """
    Return the standard deviation of one depth reading.

    The axial noise of structured-light and active-stereo cameras (Nguyen, Izadi, Lovell:
    Modeling Kinect sensor noise, 3DIMPVT 2012).

    :param depth: metres
    :return: metres, same shape
    """
    return 0.0012 + 0.0019 * (depth - 0.4) ** 2
