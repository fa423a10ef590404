# SPDX-License-Identifier: Apache-2.0
"""Depth images in files: PNG, TIFF, PGM, PFM, EXR, NPY and NPZ, in any unit."""

import logging
import os
from pathlib import Path
from zipfile import BadZipFile

import cv2
import numpy as np

from img2scene_ros.depth import FARTHEST
from img2scene_ros.depth import metric_depth
from img2scene_ros.errors import InputError
from img2scene_ros.io.ros_images import decoded

DEPTH_SUFFIXES = ('.png', '.tif', '.tiff', '.pgm', '.pfm', '.exr', '.npy', '.npz')
# Metres. What depth cameras measure indoors; a median beyond is likely one in a wrong unit.
NEAREST_MEDIAN, FARTHEST_MEDIAN = 0.1, 6.0
_LIKELY_UNITS = {'m': 1.0, 'cm': 0.01, 'mm': 0.001, '1/5000': 1 / 5000, '0.0001': 0.0001}

_LOGGER = logging.getLogger(__name__)


def read_depth(path: Path, unit: float | None = None) -> np.ndarray:
    """
    Read a depth image; the log says when its unit is likely another one.

    :param unit: metres; None: integers of 16 bits are millimetres, floats metres
    :return: (H, W) float32 metres, NaN = no reading
    :raises InputError: it is missing, unreadable, or no depth image
    """
    path = Path(path)
    if not os.path.isfile(path):
        raise InputError(
            f"there is no depth image '{path}'; check the path and its permissions")
    try:
        raw = _read(path)
        depth = metric_depth(raw, unit)
    except PermissionError as error:
        raise InputError(
            f"the depth image '{path}' may not be read; change its permissions") from error
    except (OSError, ValueError, EOFError, BadZipFile, cv2.error, InputError) as error:
        raise InputError(
            f"the depth image '{path}' cannot be used ({' '.join(str(error).split())}); give "
            f"{', '.join(DEPTH_SUFFIXES)} with one channel") from error
    _check_unit(path, depth, unit or (1.0 if raw.dtype.kind == 'f' else 0.001))
    depth[depth > FARTHEST] = np.nan
    return depth


def _read(path: Path) -> np.ndarray:
    """Return the numbers of a depth image; of equal channels, as renderers write them, one."""
    suffix = path.suffix.lower()
    if suffix not in DEPTH_SUFFIXES:
        raise InputError(f"'{path.suffix}' is no format of depth images")
    if suffix in ('.npy', '.npz'):
        raw: np.ndarray | None = _array(path)
    else:
        os.environ.setdefault('OPENCV_IO_ENABLE_OPENEXR', '1')  # off by default in OpenCV
        raw = decoded(path.read_bytes(), cv2.IMREAD_UNCHANGED)
    if raw is None:
        raise InputError('it is damaged, or of another format than its name says')
    if raw.ndim == 3 and raw.shape[2] in (1, 3, 4):
        colors = raw[..., :3]
        if raw.shape[2] == 1 or np.array_equal(
                colors, np.broadcast_to(colors[..., :1], colors.shape), raw.dtype.kind == 'f'):
            return colors[..., 0]
    return raw


def _array(path: Path) -> np.ndarray:
    """Return the array of an NPY file, or of an NPZ file the only one, else that named depth."""
    loaded = np.load(path, allow_pickle=False)
    if not isinstance(loaded, np.ndarray):
        with loaded as arrays:
            names = arrays.files
            if len(names) != 1 and 'depth' not in names:
                raise InputError(f"it holds {', '.join(names) or 'nothing'}; name one depth")
            loaded = arrays[names[0] if len(names) == 1 else 'depth']
    raw = loaded[0] if loaded.ndim == 3 and len(loaded) == 1 else loaded
    return raw.astype(raw.dtype.newbyteorder('='), copy=False)


_said: set[tuple[Path, float]] = set()  # folders, so that it is not said of every frame


def _check_unit(path: Path, depth: np.ndarray, unit: float) -> None:
    """Say when the median is where hardly any depth camera measures, and which units fit."""
    readings = depth[np.isfinite(depth)]
    median = float(np.median(readings)) if len(readings) else 1.0
    if NEAREST_MEDIAN <= median <= FARTHEST_MEDIAN or (path.parent, unit) in _said:
        return
    _said.add((path.parent, unit))
    fitting = [f'{name} ({median / unit * factor:.2g} m)'
               for name, factor in _LIKELY_UNITS.items()
               if NEAREST_MEDIAN <= median / unit * factor <= FARTHEST_MEDIAN]
    _LOGGER.warning(
        "the depth image '%s' is likely in another unit: its median is %.3g m; set the depth "
        'unit%s', path, median, f" to {' or '.join(fitting)}" if fitting else '')
