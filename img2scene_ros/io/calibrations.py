# SPDX-License-Identifier: Apache-2.0
"""
Calibrations in files, as the common tools write them (docs/inputs.md).

camera.json of frame folders; ROS: camera_info YAML (camera_calibration_parsers, parse_yml.cpp) and
the text of `ros2 topic echo`; RealSense: `rs-enumerate-devices -c`, or rs2_intrinsics as JSON;
Open3D: PinholeCameraIntrinsic (its matrix column by column) and PinholeCameraParameters; BOP:
camera.json, scene_camera.json (bop_toolkit, bop_datasets_format.md); YCB-Video and GraspNet:
meta.mat, camK.npy; OpenCV: YAML of FileStorage; fx fy cx cy, 3x3, 3x4 or 4x4 (ScanNet) as text.
"""

import json
import logging
import re
from dataclasses import dataclass
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from img2scene_ros.camera import Camera
from img2scene_ros.depth import DepthNoise
from img2scene_ros.errors import InputError
from img2scene_ros.errors import OptionError
from img2scene_ros.errors import say_once

_LOGGER = logging.getLogger(__name__)
# What librealsense projects by; the 'modified' and 'inverse' ones differ from plumb_bob in the
# tangential part times the radial one alone (rsutil.h), which is far below a pixel.
_MODELS = {
    'none': 'plumb_bob', 'brown_conrady': 'plumb_bob', 'modified_brown_conrady': 'plumb_bob',
    'inverse_brown_conrady': 'plumb_bob', 'kannala_brandt4': 'equidistant',
    'fisheye': 'equidistant', '': 'plumb_bob'}
# Degrees. Horizontal fields of view that no lens without distortion has; K in other units than
# pixels gives such ones.
NARROWEST, WIDEST = 1.0, 150.0
# Shares of the picture between which a principal point is, and by how much the longer focal
# length is greater; beyond K is likely one of another size, or its numbers are in a wrong order.
CENTRAL, SQUARE = (0.3, 0.7), 1.3
_REALSENSE = re.compile(r'Intrinsic of "Color"[\s/]+(\d+)x(\d+).*\n((?:.*\S.*\n?)+)')


@dataclass(frozen=True, eq=False)
class Calibration:
    """What a calibration file tells about a picture."""

    camera: Camera  # of the picture at its size
    depth_unit: float | None  # metres; None where the file does not tell
    depth_noise: DepthNoise | None  # None likewise


def read_calibration(path: Path, size: tuple[int, int], picture: str = '') -> Calibration:
    """
    Read a calibration; one of another size with the same aspect is scaled, which the log says.

    :param size: width and height of the picture
    :param picture: its name without suffix, by which scene_camera.json of BOP has entries
    :raises InputError: the file cannot be read, lacks a value or does not fit the picture
    """
    try:
        values = _read(Path(path), size, picture)
        camera = _camera(values, size)
        _check_units(camera)
        unit = _depth_unit(values)
    except OSError as error:
        raise InputError(f"cannot read the camera file '{path}': {error.strerror}") from error
    except InputError as error:
        raise InputError(f"the camera file '{path}': {error}") from error
    except (ValueError, LookupError, TypeError, AttributeError, EOFError, RecursionError,
            NotImplementedError, yaml.YAMLError) as error:
        reason = ' '.join(str(error).split())
        raise InputError(
            f"the camera file '{path}' must be JSON or YAML with width, height and a 3x3 K, or "
            f'text with fx fy cx cy or a 3x3 matrix ({type(error).__name__}: {reason})') from error
    _check_order(Path(path), camera)
    noise = _depth_noise(values, path)
    told = camera.width, camera.height
    if told == size:
        return Calibration(camera, unit, noise)
    width, height = size
    if not same_aspect(told, size):
        turned = ' (it is turned: set neither or both upright)' if told == size[::-1] else ''
        raise InputError(
            f"the camera file '{path}' is for {told[0]}x{told[1]} pixels but the picture has "
            f'{width}x{height}{turned}; give the calibration of this picture')
    say_once(_LOGGER.info, "the calibration '%s' is scaled from %dx%d to %dx%d pixels",
             Path(path), *told, *size)
    return Calibration(camera.resized(width, height), unit, noise)


def same_aspect(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Tell whether two sizes have the same aspect, but for rounding."""
    return abs(other[0] * one[1] - other[1] * one[0]) < max(one)


def _check_units(camera: Camera) -> None:
    """Check that K is in pixels."""
    field = 2.0 * np.degrees(np.arctan(0.5 * camera.width / camera.fx))
    if not NARROWEST <= field <= WIDEST and not camera.has_distortion:
        raise InputError(
            f'fx = {camera.fx:g} at {camera.width} pixels is a field of view of {field:.3g} '
            'degrees; K must be in pixels, not in millimetres, degrees or shares of the picture')


def _check_order(path: Path, camera: Camera) -> None:
    """Say when K is likely that of another size, or has its numbers in another order."""
    shares = camera.cx / camera.width, camera.cy / camera.height
    ratio = max(camera.fx, camera.fy) / min(camera.fx, camera.fy)
    if ratio > SQUARE or not all(CENTRAL[0] <= share <= CENTRAL[1] for share in shares):
        say_once(
            _LOGGER.warning, "the calibration '%s' is likely wrong: for %dx%d pixels it has "
            'fx = %g, fy = %g, cx = %g, cy = %g; check the size that it is for, and the order of '
            'its numbers', path, camera.width, camera.height, camera.fx, camera.fy, camera.cx,
            camera.cy)


def _read(path: Path, size: tuple[int, int], picture: str) -> dict[str, Any]:
    """Return what a file tells, by names in lower case."""
    suffix = path.suffix.lower()
    if suffix == '.npy':
        return {'k': np.load(path, allow_pickle=False)}
    if suffix == '.mat':
        from scipy.io import loadmat

        values = _lower(loadmat(path))
        scale = values.get('factor_depth')
        return values if scale is None else values | {'depth_scale': np.ravel(scale)[0]}
    return _values(path.read_text(), size, picture)


def _values(text: str, size: tuple[int, int], picture: str) -> dict[str, Any]:
    """Return what the text tells, by names in lower case."""
    if 'Intrinsic of "' in text:
        return _realsense(text, size)
    try:
        values = json.loads(text)
    except ValueError:
        values = _first_document(text)
    if not isinstance(values, dict):
        values = {'k': _numbers(text)}
    values = _lower(values)
    if values and all(name.isdecimal() for name in values):
        entries = {int(name): entry for name, entry in values.items()}
        if not picture.isdecimal() or int(picture) not in entries:
            raise InputError(
                f"it has no entry for the picture '{picture}'; name the picture by its number")
        values = _lower(entries[int(picture)])
    for name in ('intrinsic', 'intrinsics', 'color_intrinsics', 'color'):
        if isinstance(values.get(name), dict):
            values |= _lower(values[name])
    return values


def _first_document(text: str) -> Any:
    """Return the first message of `ros2 topic echo`, or the whole of other YAML."""
    text = re.sub(r'^%YAML:.*|!!opencv-matrix', '', text)
    try:
        return next((part for part in yaml.safe_load_all(text) if part is not None), None)
    except yaml.YAMLError:
        return None  # a matrix as numpy prints it


def _numbers(text: str) -> np.ndarray:
    """Return K of fx fy cx cy, or of a matrix row by row; # starts a comment."""
    words = re.split(r'[\s,;\[\]]+', re.sub(r'#.*', '', text))
    numbers = [float(word) for word in words if word]
    if len(numbers) == 4:
        fx, fy, cx, cy = numbers
        numbers = [fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0]
    return np.array(numbers)


def _realsense(text: str, size: tuple[int, int]) -> dict[str, Any]:
    """Return the colour camera's intrinsics of `rs-enumerate-devices -c`, for a size if it can."""
    found = {(int(width), int(height), body.strip())
             for width, height, body in _REALSENSE.findall(text)}
    fitting = sorted(item for item in found if item[:2] == size) or sorted(found)
    if not fitting or len({item[:2] for item in fitting}) < len(fitting):
        raise ValueError('it must have the intrinsics of one camera with the stream "Color"')
    # Else the largest of the same aspect.
    width, height = size
    _, _, body = min(fitting, key=lambda item: (
        abs(width * item[1] - height * item[0]) >= max(item[:2]), -item[0]))
    values = _lower(dict(line.split(':', 1) for line in body.splitlines() if ':' in line))
    return values | {'coeffs': values['coeffs'].split()}


def _lower(values: dict[Any, Any]) -> dict[str, Any]:
    return {str(name).strip().lower(): value for name, value in values.items()}


def _first(values: dict[str, Any], *names: str) -> Any:
    """Return the first that there is; of a matrix of ROS its numbers."""
    found = next((values[name] for name in names if name in values), None)
    return found['data'] if isinstance(found, dict) else found


def _camera(values: dict[str, Any], size: tuple[int, int]) -> Camera:
    """Return the camera at the size that the values tell, else at that of the picture."""
    if set(values) & {'width', 'height', 'image_width', 'image_height'}:
        size = (int(_first(values, 'width', 'image_width')),
                int(_first(values, 'height', 'image_height')))
    coefficients = _first(values, 'd', 'distortion_coefficients', 'coeffs', 'distortion')
    model = next((text for name in ('distortion_model', 'model', 'distortion')
                  if isinstance(text := values.get(name), str)), '')
    roi = values.get('roi') or {}
    x, y, width, height = (
        int(roi.get(name, 0)) for name in ('x_offset', 'y_offset', 'width', 'height'))
    return Camera.from_calibration(
        *size, _matrix(values),
        () if coefficients is None or isinstance(coefficients, str) else coefficients,
        lens_model(model), (x, y, width, height),
        (int(values.get('binning_x', 0)), int(values.get('binning_y', 0))))


def lens_model(name: str) -> str:
    """Return the distortion model that a tool's name stands for; unknown ones stay as they are."""
    plain = name.rsplit('.', 1)[-1].strip().lower().replace(' ', '_')
    return _MODELS.get(plain, plain)


def _matrix(values: dict[str, Any]) -> np.ndarray:
    """Return K, (3, 3)."""
    if 'fx' in values:
        fx, fy, cx, cy = (float(_first(values, *names)) for names in (
            ('fx',), ('fy',), ('cx', 'ppx'), ('cy', 'ppy')))
        return np.array([[fx, float(values.get('skew', 0.0)), cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
    if 'intrinsic_matrix' in values:
        matrix = np.asarray(values['intrinsic_matrix'], float)
        return matrix if matrix.shape == (3, 3) else matrix.reshape(3, 3).T
    matrix = _first(values, 'k', 'cam_k', 'camera_matrix')
    if matrix is None:
        raise KeyError('K')
    numbers = np.asarray(matrix, float).ravel()
    rows = {12: (3, 4), 16: (4, 4)}.get(len(numbers), (3, 3))
    return numbers.reshape(rows)[:3, :3]


def _depth_unit(values: dict[str, Any]) -> float | None:
    """
    Return the metres of depth_scale.

    BOP tells millimetres per unit; Open3D and TUM tell units per metre, which are 1000 or 5000;
    RealSense and frame folders metres per unit, which are below 0.01 beside the names of BOP.
    """
    if 'depth_scale' not in values:
        return None
    scale = float(values['depth_scale'])
    if scale >= 100.0:
        return 1.0 / scale
    if scale >= 0.01 and ('cam_k' in values or 'cx' in values):
        return 0.001 * scale
    if not 0.0 < scale <= 1.0:
        raise ValueError(f'depth_scale is {scale:g}; it must be the metres per unit')
    return scale


def _depth_noise(values: dict[str, Any], path: Path) -> DepthNoise | None:
    if 'depth_noise' not in values:
        return None
    try:
        return DepthNoise(**values['depth_noise'])
    except (OptionError, TypeError) as error:
        raise InputError(
            f"the entry depth_noise of the camera file '{path}' must hold "
            f"{', '.join(option.name for option in fields(DepthNoise))}, or some of them "
            f'({error})') from error
