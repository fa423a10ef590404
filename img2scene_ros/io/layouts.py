# SPDX-License-Identifier: Apache-2.0
"""
Where the files of frames lie: frame folders, data sets, plain pictures.

TUM: rgb.txt and depth.txt, paired as its associate.py does (cvg.cit.tum.de, RGB-D benchmark, file
formats). BOP: rgb or gray, depth, scene_camera.json. Others: rgb and depth, with a calibration.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from img2scene_ros.errors import InputError
from img2scene_ros.io.depth_images import DEPTH_SUFFIXES

PICTURE_SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp', '.webp', '.tif', '.tiff')
TUM_UNIT = 1 / 5000  # metres
PAIR_TOLERANCE = 0.02  # seconds between the stamps of a picture and its depth image (TUM, nodes)
_COLOR = ('color', 'colour', 'rgb', 'image', 'images', 'gray')
_CALIBRATIONS = (
    'scene_camera', 'camera', 'camera_info', 'cam_k', 'k', 'intrinsics', 'intrinsic',
    'camera_intrinsics', 'camera_intrinsic', 'calibration')
_TEXTS = ('.json', '.yaml', '.yml', '.txt')
_WORD = re.compile(r'(?<![a-z])(color|colour|rgb|image|depth)(?![a-z])', re.IGNORECASE)


@dataclass(frozen=True)
class FrameFiles:
    """
    The files of one frame.

    - name: for what is made of it
    - depth_unit: metres, where the layout tells it
    """

    name: str
    color: Path
    depth: Path | None = None
    calibration: Path | None = None
    depth_unit: float | None = None

    @property
    def has_depth(self) -> bool:
        """Tell whether there is a depth image, which may be unreadable."""
        return self.depth is not None


def find_frames(folder: Path) -> list[FrameFiles]:
    """
    List the frames of a folder by name: its own, else those of its folders, else its pictures.

    :raises InputError: there is nothing to read, or depth images fit no pictures
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"there is no folder '{folder}'; give a folder of frames or pictures")
    try:
        folders = sorted(path for path in folder.iterdir() if path.is_dir())
        found = (_of_data_set(folder)
                 or [files for path in folders for files in _of_data_set(path)]
                 or _pictures(folder))
    except OSError as error:
        raise InputError(
            f"'{error.filename}' cannot be read ({error.strerror}); check its permissions"
        ) from error
    if not found:
        raise InputError(
            f"the folder '{folder}' holds no frames (folders with color.png) and no pictures")
    return found


def _of_data_set(folder: Path) -> list[FrameFiles]:
    """List the frames of a folder that is laid out in a known way."""
    if (folder / 'rgb.txt').is_file() and (folder / 'depth.txt').is_file():
        return _tum(folder)
    return _frame_folder(folder) or _folders_side_by_side(folder)


def _frame_folder(folder: Path) -> list[FrameFiles]:
    pictures = [path for path in _files(folder) if path.suffix.lower() in PICTURE_SUFFIXES]
    colors = sorted((path for path in pictures if path.stem.lower() in _COLOR),
                    key=lambda path: (_COLOR.index(path.stem.lower()), path.suffix))
    depths = [path for path in _files(folder)
              if path.stem.lower() == 'depth' and path.suffix.lower() not in _TEXTS]
    calibration = _calibration(folder)
    if not colors or not (depths or calibration or colors[0].stem.lower() == 'color'
                          or len(pictures) == 1):
        return []
    if len(depths) > 1:
        raise InputError(
            f"the folder '{folder}' holds {' and '.join(path.name for path in depths)}; leave "
            'one depth image')
    return [FrameFiles(
        folder.resolve().name, colors[0], depths[0] if depths else None, calibration)]


def _folders_side_by_side(folder: Path) -> list[FrameFiles]:
    """List the frames of a folder that holds a folder of pictures, or one of depth beside it."""
    inside = {path.name.lower(): path for path in sorted(folder.iterdir()) if path.is_dir()}
    colors = next((inside[name] for name in _COLOR if name in inside), None)
    if colors is None:
        return []
    calibration, depth = _calibration(folder), inside.get('depth')
    depths = {_number(path): path for path in _files(depth)} if depth else {}
    pictures = [path for path in _files(colors) if path.suffix.lower() in PICTURE_SUFFIXES]
    # A picture whose depth image is missing gets the name that it would have, and fails by it.
    return [FrameFiles(
        f'{folder.resolve().name}_{path.stem}', path,
        depths.get(_number(path), depth / path.name) if depth else None, calibration)
        for path in pictures]


def _number(path: Path) -> str:
    """Return what the names of a picture and of its depth image have in common."""
    return _WORD.sub('', path.stem).strip('_-. ').lower()


def _tum(folder: Path) -> list[FrameFiles]:
    colors, depths = (_stamped(folder / f'{name}.txt') for name in ('rgb', 'depth'))
    stamps = np.array(list(depths))
    pairs = [(color, nearest(stamp, stamps)) for stamp, color in colors.items()]
    found = [FrameFiles(
        f'{folder.resolve().name}_{Path(color).stem}', folder / color,
        folder / list(depths.values())[i], _calibration(folder), TUM_UNIT)
        for color, i in pairs if i is not None]
    if not found:
        raise InputError(
            f"rgb.txt and depth.txt of '{folder}' have no stamps within {PAIR_TOLERANCE:g} s of "
            'each other; check that they belong together')
    return found


def nearest(stamp: float, others: np.ndarray) -> int | None:
    """Return the index of the nearest of other stamps, in seconds; None if none is near enough."""
    gaps = np.abs(others - stamp)
    return int(gaps.argmin()) if len(gaps) and gaps.min() <= PAIR_TOLERANCE else None


def _stamped(path: Path) -> dict[float, str]:
    """Return the file names of a list of TUM by their stamps, seconds."""
    try:
        lines = [line.split() for line in path.read_text().splitlines()
                 if line.strip() and not line.startswith('#')]
        return {float(stamp): name for stamp, name in lines}
    except ValueError as error:
        raise InputError(
            f"the list '{path}' must hold a stamp and a file name in each line ({error})"
        ) from error


def _pictures(folder: Path) -> list[FrameFiles]:
    """List the pictures of a folder, each with the depth image that its name belongs to."""
    files = _files(folder)
    depths = {_number(path): path for path in files if _is_depth(path)}
    pictures = [path for path in files
                if path.suffix.lower() in PICTURE_SUFFIXES and not _is_depth(path)]
    alone = set(depths) - {_number(path) for path in pictures}
    if alone:
        raise InputError(
            f"the depth image '{depths[min(alone)]}' belongs to no picture; name both alike, such "
            'as 1_color.png and 1_depth.png')
    calibration = _calibration(folder) if depths else None
    return [FrameFiles(path.stem, path, depths.get(_number(path)),
                       calibration if _number(path) in depths else None) for path in pictures]


def _is_depth(path: Path) -> bool:
    words = {word.lower() for word in _WORD.findall(path.stem)}
    return 'depth' in words and path.suffix.lower() in PICTURE_SUFFIXES + DEPTH_SUFFIXES


def _calibration(folder: Path) -> Path | None:
    found = {path.name.lower(): path for path in _files(folder)}
    return next((found[name + suffix] for name in _CALIBRATIONS for suffix in _TEXTS
                 if name + suffix in found), None)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file())
