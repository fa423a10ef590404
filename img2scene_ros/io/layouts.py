# SPDX-License-Identifier: Apache-2.0
"""
Where the files of frames lie: frame folders, data sets, plain pictures.

TUM: rgb.txt and depth.txt, paired as its associate.py does (cvg.cit.tum.de, RGB-D benchmark, file
formats). BOP: rgb or gray, depth, scene_camera.json; rgb_cam1, depth_cam1, scene_camera_cam1.json
where there are several cameras. ScanNet: color, depth of another size, intrinsic. OSD: disparity,
which holds distances, beside image_color. Others: rgb and depth, with a calibration.
"""

import re
from collections import Counter
from collections.abc import Sequence
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
    'scene_camera', 'camera', 'camera_info', 'cam_k', 'camk', 'k', 'intrinsics', 'intrinsic',
    'camera_intrinsics', 'camera_intrinsic', 'calibration')
_TEXTS = ('.json', '.yaml', '.yml', '.txt')
_WORD = re.compile(r'(?<![a-z])(color|colour|rgb|image|gray|depth|meta)s?(?![a-z])', re.IGNORECASE)


@dataclass(frozen=True)
class FrameFiles:
    """The files of one frame."""

    name: str  # for what is made of it
    color: Path
    depth: Path | None = None
    calibration: Path | None = None
    depth_unit: float | None = None  # metres, where the layout tells it
    depth_calibration: Path | None = None  # of a depth image with a calibration of its own

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
    found = (_of_data_set(folder)
             or [files for path in _folders(folder).values() for files in _of_data_set(path)]
             or _pictures(folder))
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
    """
    List the frames of folders of pictures and of depth images beside them.

    There may be several cameras, whose name is what their folders have in common. Other folders
    of pictures than the plain one count where they have depth images.
    """
    inside = _folders(folder)
    words = {name: {word.lower() for word in _WORD.findall(name)} for name in inside}
    # Of names for the same the plain one comes last, and wins.
    plain = [name for name in reversed(_COLOR) if name in inside]
    others = [name for name in inside if words[name] and not words[name] & {'depth', 'meta'}]
    colors = {_number(inside[name]): inside[name] for name in others + plain}
    named = [name for name in inside if 'depth' in words[name] and not words[name] & {
        'color', 'colour', 'rgb'}]
    depths = {_number(inside[name]): inside[name] for name in sorted(named, key='depth'.__eq__)}
    if 'image_color' in inside and 'disparity' in inside:
        depths.setdefault('', inside['disparity'])
    if plain and '' not in depths:
        alone = [path for camera, path in depths.items() if camera not in colors]
        if len(alone) > 1:
            raise InputError(
                f"the folder '{folder}' holds {' and '.join(path.name for path in alone)}; name "
                'the one whose images fit the pictures depth')
        if alone:
            depths[''] = alone[0]
    return [files for camera, pictures in sorted(colors.items())
            if camera in depths or plain and not camera
            for files in _of_camera(folder, camera, pictures, depths.get(camera))]


def _of_camera(folder: Path, camera: str, colors: Path, depth: Path | None) -> list[FrameFiles]:
    """List the frames of a folder of pictures, maybe with one of depth images."""
    pictures = [path for path in _files(colors) if path.suffix.lower() in PICTURE_SUFFIXES]
    found = _paired(pictures, _files(depth)) if depth else {}
    own = folder / 'intrinsic'
    calibration = _calibration(folder, camera) or _calibration(own, 'color')
    metas = {_number(path): path for path in _files(folder / 'meta') if path.suffix == '.mat'}
    stem = '_'.join(filter(None, (folder.resolve().name, camera)))
    # A picture whose depth image is missing gets the name that it would have, and fails by it.
    return [FrameFiles(
        f'{stem}_{path.stem}', path, found.get(path, depth / path.name) if depth else None,
        metas.get(_number(path), calibration),
        depth_calibration=_calibration(own, 'depth') if depth else None)
        for path in pictures]


def _paired(pictures: Sequence[Path], depths: Sequence[Path]) -> dict[Path, Path]:
    """
    Return the depth images of pictures, which have the same name but for words such as rgb.

    Else the same first number, as the frames of Redwood, which is followed by the time.
    """
    named = {_number(path): path for path in depths}
    firsts = [Counter(map(_first_number, paths)) for paths in (pictures, depths)]
    numbered = {_first_number(path): path for path in depths}
    found = {}
    for path in pictures:
        number = _first_number(path)
        if _number(path) in named:
            found[path] = named[_number(path)]
        elif number is not None and all(count[number] == 1 for count in firsts):
            found[path] = numbered[number]
    return found


def _number(path: Path) -> str:
    """Return what the names of a picture and of its depth image have in common."""
    return _WORD.sub('', path.stem).strip('_-. ').lower()


def _first_number(path: Path) -> int | None:
    found = re.search(r'\d+', path.stem)
    return int(found[0]) if found else None


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
    """
    List the pictures of a folder, each with the depth image that its name belongs to.

    What is named after such a pair, as its mask, is no frame of its own.
    """
    files = _files(folder)
    depths = {_number(path): path for path in files if _is_depth(path)}
    pictures = [path for path in files
                if path.suffix.lower() in PICTURE_SUFFIXES and not _is_depth(path)]
    paired = set(depths) & {_number(path) for path in pictures}
    if set(depths) - paired:
        raise InputError(
            f"the depth image '{depths[min(set(depths) - paired)]}' belongs to no picture; name "
            'both alike, such as 1_color.png and 1_depth.png')
    calibration = _calibration(folder) if depths else None
    metas = {_number(path): path for path in files if path.suffix == '.mat'}
    return [FrameFiles(
        path.stem, path, depths.get(_number(path)),
        metas.get(_number(path), calibration) if _number(path) in paired else None)
        for path in pictures if not _is_beside(_number(path), paired)]


def _is_beside(name: str, frames: set[str]) -> bool:
    """Tell whether a name is that of a frame and more."""
    return any(name[:end] in frames for end, sign in enumerate(name) if sign in '_-. ')


def _is_depth(path: Path) -> bool:
    words = {word.lower() for word in _WORD.findall(path.stem)}
    return 'depth' in words and path.suffix.lower() in PICTURE_SUFFIXES + DEPTH_SUFFIXES


def _calibration(folder: Path, camera: str = '') -> Path | None:
    """Return the calibration in a folder, that of a camera first."""
    found = {path.name.lower(): path for path in _files(folder)}
    names = [f'{name}_{camera}' for name in _CALIBRATIONS if camera] + list(_CALIBRATIONS)
    return next((found[name + suffix] for name in names for suffix in (*_TEXTS, '.npy')
                 if name + suffix in found), None)


def _files(folder: Path) -> list[Path]:
    """List the files of a folder, none if there is no folder; hidden ones are no pictures."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir()
                  if path.is_file() and not path.name.startswith('.'))


def _folders(folder: Path) -> dict[str, Path]:
    """Return the folders in a folder by their names in lower case."""
    return {path.name.lower(): path for path in sorted(folder.iterdir())
            if path.is_dir() and not path.name.startswith('.')}
