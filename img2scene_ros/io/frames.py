# SPDX-License-Identifier: Apache-2.0
"""Frames, wherever they are recorded: pictures, folders, data sets, bags."""

import logging
from pathlib import Path

import cv2
import numpy as np
from PIL import ExifTags

from img2scene_ros.camera import Camera
from img2scene_ros.depth import DepthNoise
from img2scene_ros.errors import InputError
from img2scene_ros.errors import say_once
from img2scene_ros.io.bags import Bag
from img2scene_ros.io.bags import BagFrame
from img2scene_ros.io.calibrations import Calibration
from img2scene_ros.io.calibrations import read_calibration
from img2scene_ros.io.calibrations import same_aspect
from img2scene_ros.io.depth_images import read_depth
from img2scene_ros.io.layouts import FrameFiles
from img2scene_ros.io.layouts import find_frames
from img2scene_ros.io.photos import load_photo
from img2scene_ros.io.photos import picture_size
from img2scene_ros.io.photos import read_picture
from img2scene_ros.io.registered_depth import noise_at
from img2scene_ros.io.registered_depth import registered_depth
from img2scene_ros.types import Frame

# Pixels of the longer side to which larger frames with depth are scaled down; as many as
# industrial depth cameras have.
MAX_SIDE = 2560

_LOGGER = logging.getLogger(__name__)


def open_frames(path: Path, every: int = 1) -> list[FrameFiles] | Bag:
    """
    List the frames of a picture, a folder, a data set or a bag, for `load_frame`.

    :param every: take every so many-th
    :raises InputError: there is nothing to read
    :raises MissingDependencyError: it is a bag, and rosbags is not installed
    """
    path = Path(path)
    try:
        if Bag.is_one(path):
            return Bag(path, every)
        is_picture = path.is_file() or path.suffix and not path.is_dir()
        return [FrameFiles(path.stem, path)] if is_picture else find_frames(path)[::every]
    except OSError as error:
        raise InputError(
            f"'{error.filename or path}' cannot be read ({error.strerror}); check the path and "
            'its permissions') from error


def load_frame(
    source: Path | FrameFiles | BagFrame,
    depth: Path | None = None,
    camera: Path | None = None,
    field_of_view: float = 60.0,
    depth_noise: DepthNoise | None = None,
    depth_unit: float | None = None,
) -> Frame:
    """
    Read a frame; one of more than `MAX_SIDE` pixels is scaled down, which the log says.

    :param source: a picture, the folder of one frame, or one of `open_frames`
    :param depth: the depth image registered to the picture; None: the source's
    :param camera: a file that `read_calibration` takes; None: the source's
    :param field_of_view: horizontal, degrees; used when there is no calibration
    :param depth_noise: None takes that of the calibration, else the default
    :param depth_unit: metres; None takes that of the calibration, else of the data set, else
        integers are millimetres and floats metres
    :raises InputError: a file that is missing, unreadable, or does not fit the others
    """
    if isinstance(source, BagFrame):
        return _of_bag(source, camera, field_of_view, depth_noise)
    files = source if isinstance(source, FrameFiles) else _files_at(Path(source))
    depth, calibration = depth or files.depth, camera or files.calibration
    if depth is None:
        return load_photo(
            files.color, calibration, None if calibration else field_of_view).frame
    picture, size, exif = read_picture(files.color, MAX_SIDE, has_depth=True)
    _check_orientation(files.color, exif[ExifTags.Base.Orientation])
    told = _calibration(files.color, calibration, size, field_of_view)
    metres = read_depth(depth, depth_unit or told.depth_unit or files.depth_unit)
    noise = depth_noise or told.depth_noise or DepthNoise()
    own = _depth_camera(metres.shape[::-1], depth, files.depth_calibration, told.camera)
    seen_by = told.camera
    reduced = picture.shape[1::-1]
    if reduced != size:
        say_once(_LOGGER.info, "the frames of '%s' are scaled down from %dx%d to %dx%d pixels",
                 files.color.parent, *size, *reduced)
        seen_by = seen_by.resized(*reduced)
    if own is not None:
        metres = registered_depth(metres, own, seen_by, np.eye(4))
        noise = noise_at(noise, own, seen_by)
    elif reduced != size:
        metres = cv2.resize(metres, reduced, interpolation=cv2.INTER_NEAREST_EXACT)
        noise = noise_at(noise, told.camera, seen_by)
    return Frame(picture, seen_by, metres, depth_noise=noise)


def check_calibration(files: FrameFiles, camera: Path | None = None) -> None:
    """
    Read what tells about a picture, without its pixels, so that faults are known early.

    :param camera: the calibration; None: the source's
    :raises InputError: as `load_frame`
    """
    size, calibration = picture_size(files.color), camera or files.calibration
    if calibration is not None:
        read_calibration(calibration, size, files.color.stem)


def _files_at(path: Path) -> FrameFiles:
    if not path.is_dir():
        return FrameFiles(path.stem, path)
    found = find_frames(path)
    if len(found) > 1:
        raise InputError(
            f"the folder '{path}' holds {len(found)} frames; give one of them, such as "
            f"'{found[0].color}'")
    return found[0]


def _check_orientation(path: Path, orientation: int) -> None:
    if orientation in range(2, 9):  # 0 and others mean that nothing is known
        raise InputError(
            f"the picture '{path}' is to be turned (EXIF orientation {orientation}), and nothing "
            'tells whether its depth image and calibration are already; save the picture without '
            'that entry, its pixels as those of the depth image')


def _depth_camera(
    size: tuple[int, int], path: Path, calibration: Path | None, camera: Camera,
) -> Camera | None:
    """
    Return the camera of a depth image that has another size than its picture; None for the same.

    :param size: width and height of the depth image
    :param calibration: of the depth image; None is that of the picture, for the same aspect
    :param camera: of the picture
    :raises InputError: the calibration cannot be used, or nothing tells how the two fit
    """
    told = camera.width, camera.height
    if size == told:
        return None
    if calibration is not None:
        return read_calibration(calibration, size).camera
    if 0 in size or not same_aspect(size, told):
        raise InputError(
            f"the depth image '{path}' has {size[0]}x{size[1]} pixels but the picture has "
            f'{told[0]}x{told[1]}; use the depth image registered to the picture')
    return camera.resized(*size)


def _of_bag(
    source: BagFrame, calibration: Path | None, field_of_view: float,
    depth_noise: DepthNoise | None,
) -> Frame:
    color, depth = source.read()
    camera = source.camera
    if camera is None or calibration is not None:
        camera = _calibration(
            source.path, calibration, color.shape[1::-1], field_of_view).camera
    noise = depth_noise or DepthNoise()
    if depth is not None and source.depth_camera is not None:
        own = source.depth_camera
        if (own.height, own.width) != depth.shape:
            raise InputError(
                f"the calibration of the depth images of '{source.path}' is for {own.width}x"
                f'{own.height} pixels, but they have {depth.shape[1]}x{depth.shape[0]}; record '
                'their own camera_info')
        depth = registered_depth(depth, own, camera, source.camera_from_depth)
        noise = noise_at(noise, own, camera)
    return Frame(color, camera, depth, source.stamp_ns, depth_noise=noise)


def _calibration(
    source: Path, path: Path | None, size: tuple[int, int], field_of_view: float,
) -> Calibration:
    if path is not None:
        return read_calibration(path, size, source.stem)
    say_once(
        _LOGGER.warning, "there is no calibration for '%s', so a field of view of %g degrees is "
        'assumed; sizes and places depend on it', source.parent, field_of_view)
    return Calibration(Camera.from_field_of_view(*size, field_of_view), None, None)
