# SPDX-License-Identifier: Apache-2.0
"""Frames in files: a folder per frame, or single pictures."""

import json
from dataclasses import fields
from pathlib import Path

import cv2
import numpy as np

from img2scene_ros.camera import Camera
from img2scene_ros.depth import DepthNoise
from img2scene_ros.depth import metric_depth
from img2scene_ros.errors import InputError
from img2scene_ros.errors import OptionError
from img2scene_ros.types import Frame

PICTURE_SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp', '.webp', '.tif', '.tiff')


def load_frame(
    color: Path,
    depth: Path | None = None,
    camera: Path | None = None,
    field_of_view: float = 60.0,
    depth_noise: DepthNoise | None = None,
) -> Frame:
    """
    Read a frame from files.

    :param color: a picture, or a frame folder that holds color.*, camera.json and maybe depth.png
    :param depth: a 16-bit PNG in millimetres, registered to the picture
    :param camera: camera.json with width, height, K, D, distortion_model and maybe depth_noise
    :param field_of_view: horizontal, degrees; used when there is no camera file
    :param depth_noise: None takes that of the camera file, else the default
    :raises InputError: a file that is missing, unreadable, or does not fit the others
    """
    color = Path(color)
    if color.is_dir():
        folder, color = color, _picture_in(color)
        depth = depth or _existing(folder / 'depth.png')
        camera = camera or _existing(folder / 'camera.json')
    picture = cv2.cvtColor(read_image(color, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    height, width = picture.shape[:2]
    lens = (load_camera(camera) if camera else
            Camera.from_field_of_view(width, height, field_of_view))
    metres = metric_depth(read_image(Path(depth), cv2.IMREAD_UNCHANGED)) if depth else None
    if depth_noise is None:
        depth_noise = load_depth_noise(camera) if camera else DepthNoise()
    return Frame(picture, lens, metres, depth_noise=depth_noise)


def load_camera(path: Path) -> Camera:
    """
    Read camera.json.

    :raises InputError: the file cannot be read or lacks a value
    """
    try:
        values = json.loads(Path(path).read_text())
        return Camera.from_calibration(
            values['width'], values['height'], values['K'], values.get('D', ()),
            values.get('distortion_model', 'plumb_bob'))
    except OSError as error:
        raise InputError(f"cannot read the camera file '{path}': {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"the camera file '{path}' must be JSON with width, height and a 3x3 K "
            f'({type(error).__name__}: {error})') from error


def load_depth_noise(path: Path) -> DepthNoise:
    """
    Read the entry depth_noise of a readable camera.json, such as {"model": "stereo"}.

    :return: the default where there is no such entry
    :raises InputError: the entry is something else than options of the depth noise
    """
    try:
        return DepthNoise(**json.loads(Path(path).read_text()).get('depth_noise', {}))
    except (OptionError, TypeError) as error:
        raise InputError(
            f"the entry depth_noise of the camera file '{path}' must hold "
            f"{', '.join(option.name for option in fields(DepthNoise))}, or some of them "
            f'({error})') from error


def find_frames(folder: Path) -> list[Path]:
    """
    List what `load_frame` can read in a folder, by name.

    The folder itself when it is a frame folder; else its frame folders; else its pictures.

    :raises InputError: there is nothing to read
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"there is no folder '{folder}'; give a folder of frames or pictures")
    if _pictures(folder, 'color'):
        return [folder]
    inside = sorted(folder.iterdir())
    found = ([path for path in inside if path.is_dir() and _pictures(path, 'color')]
             or [path for path in inside if path.suffix.lower() in PICTURE_SUFFIXES])
    if not found:
        raise InputError(
            f"the folder '{folder}' holds no frames (folders with color.png) and no pictures")
    return found


def _pictures(folder: Path, stem: str) -> list[Path]:
    return [path for suffix in PICTURE_SUFFIXES if (path := folder / f'{stem}{suffix}').is_file()]


def _picture_in(folder: Path) -> Path:
    found = _pictures(folder, 'color')
    if not found:
        raise InputError(
            f"the folder '{folder}' holds no color.png or color.jpg; give a frame folder")
    return found[0]


def _existing(path: Path) -> Path | None:
    return path if path.is_file() else None


def read_image(path: Path, flags: int) -> np.ndarray:
    """
    Read a picture.

    :param flags: cv2.IMREAD_COLOR (BGR), cv2.IMREAD_UNCHANGED, ...
    :raises InputError: there is none, or it cannot be read
    """
    if not path.is_file():
        raise InputError(f"there is no picture '{path}'; check the path")
    image = cv2.imread(str(path), flags)
    if image is None:
        raise InputError(f"'{path}' is not a picture that can be read (PNG, JPEG, ...)")
    return image
