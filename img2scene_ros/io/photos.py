# SPDX-License-Identifier: Apache-2.0
"""
Photos: pictures of any camera, without calibration and without depth.

The focal length is that of a given calibration, else of a given field of view, else of the EXIF
data (35 mm equivalent, by the diagonal; or focal length and resolution of the focal plane), else
of an assumed field of view. Large photos are scaled down.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags
from PIL import Image
from PIL import ImageOps
from PIL import TiffImagePlugin
from PIL import UnidentifiedImageError

from img2scene_ros.camera import Camera
from img2scene_ros.errors import InputError
from img2scene_ros.io.calibrations import read_calibration
from img2scene_ros.types import Frame

MAX_SIDE = 1600  # pixels of the longer side; more would cost time and hardly help
ASSUMED_FIELD = 60.0  # degrees
FILM_DIAGONAL = np.hypot(36.0, 24.0)  # mm; what "35 mm equivalent" refers to (CIPA DCG-001)
_MILLIMETRES = {2: 25.4, 3: 10.0, 4: 1.0}  # per FocalPlaneResolutionUnit: inch, cm, mm
_HEIC = ('.heic', '.heif', '.avif')


@dataclass(frozen=True, eq=False)
class Photo:
    """A photo and what was assumed about it."""

    frame: Frame
    camera: str  # one clause that says where the focal length came from
    resized: str  # one clause that says how it was scaled down; '' when it was not


def load_photo(
    path: Path, calibration: Path | None = None, field_of_view: float | None = None,
) -> Photo:
    """
    Read a photo, turned as its EXIF data say.

    :param calibration: a file that `read_calibration` takes
    :param field_of_view: horizontal, degrees; None is what the EXIF data tell, else
        `ASSUMED_FIELD`
    :raises InputError: it is missing, cannot be read, or is a depth image
    :raises OptionError: a field of view that no photo has
    """
    path = Path(path)
    picture, size, exif = read_picture(path, MAX_SIDE)
    height, width = picture.shape[:2]
    if calibration is not None:
        camera = read_calibration(calibration, size, path.stem).camera
        source = f"from '{calibration}'"
    else:
        camera, source = _camera(*size, exif, field_of_view)
    resized = f'scaled down from {size[0]}x{size[1]} to {width}x{height} pixels'
    return Photo(Frame(picture, camera.resized(width, height)), source,
                 '' if (width, height) == size else resized)


def read_picture(
    path: Path, max_side: int | None = None, has_depth: bool = False,
) -> tuple[np.ndarray, tuple[int, int], dict[int, Any]]:
    """
    Read a picture, turned as its EXIF data say.

    :param max_side: pixels of the longer side, to which a larger picture is scaled down
    :param has_depth: there is a depth image, so that one of 16 bits is a grey picture
    :return: (H, W, 3) uint8 RGB, its width and height in the file (turned), and its EXIF values,
        Orientation among them
    :raises InputError: it is missing, cannot be read, or is a depth image
    """
    with _opened(path) as image:
        is_grey = has_depth and image.mode.startswith('I;16')
        if image.mode.startswith(('I', 'F')) and not is_grey:
            raise InputError(
                f"'{path}' is a depth image (one channel of more than 8 bits), no photo; give "
                'the picture, and this one with --depth')
        tags = image.getexif()
        exif = dict(tags.get_ifd(ExifTags.IFD.Exif))
        exif[ExifTags.Base.Orientation] = tags.get(ExifTags.Base.Orientation, 1)
        size = _turned_size(image)
        if max_side:
            image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
        turned = ImageOps.exif_transpose(image)
        if is_grey:
            turned = Image.fromarray((np.asarray(turned) >> 8).astype(np.uint8))
        picture = np.array(turned.convert('RGB'))
    return picture, size, exif


def picture_size(path: Path) -> tuple[int, int]:
    """
    Return width and height of a picture as `read_picture`, without its pixels.

    :raises InputError: as `read_picture`, where the start of the file tells
    """
    with _opened(path) as image:
        return _turned_size(image)


def _turned_size(image: Image.Image) -> tuple[int, int]:
    turned = image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
    return image.size[::-1] if turned else image.size


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open a picture, to be read within this."""
    if not os.path.isfile(path):
        raise InputError(f"there is no picture '{path}'; check the path and its permissions")
    try:
        with Image.open(path) as image:
            yield image
    except UnidentifiedImageError as error:
        is_heic = path.suffix.lower() in _HEIC
        raise InputError(
            f"'{path}' is not a picture that can be read (PNG, JPEG, ...)"
            + ('; convert it to JPEG first' if is_heic else '')) from error
    except PermissionError as error:
        raise InputError(
            f"the picture '{path}' may not be read; change its permissions") from error
    except Image.DecompressionBombError as error:
        raise InputError(
            f"the picture '{path}' is too large ({' '.join(str(error).split())}); scale it down"
        ) from error
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(
            f"the picture '{path}' is damaged ({' '.join(str(error).split())}); save it again as "
            'JPEG or PNG') from error


def _camera(
    width: int, height: int, exif: dict[int, Any], field_of_view: float | None,
) -> tuple[Camera, str]:
    """Return the camera of a photo, and where its focal length came from."""
    if field_of_view is not None:
        return (Camera.from_field_of_view(width, height, field_of_view),
                f'field of view {field_of_view:g} degrees, as told')
    focal, source = _focal_length(width, height, exif)
    if focal is None:
        return (Camera.from_field_of_view(width, height, ASSUMED_FIELD),
                f'field of view {ASSUMED_FIELD:g} degrees, assumed: the photo does not tell its '
                'focal length; set --fov if you know better')
    camera = Camera(width, height, focal, focal, (width - 1) / 2.0, (height - 1) / 2.0)
    field = 2.0 * np.degrees(np.arctan(width / 2.0 / focal))
    return camera, f'field of view {field:.0f} degrees, from EXIF ({source})'


def _focal_length(
    width: int, height: int, exif: dict[int, Any],
) -> tuple[float | None, str]:
    """Return the focal length in pixels, and what it was computed from; None when untold."""
    tags = ExifTags.Base
    equivalent = _number(exif.get(tags.FocalLengthIn35mmFilm))
    if equivalent:
        return (equivalent * np.hypot(width, height) / FILM_DIAGONAL,
                f'{equivalent:g} mm, 35 mm equivalent')
    millimetres = _number(exif.get(tags.FocalLength))
    per_unit = _number(exif.get(tags.FocalPlaneXResolution))
    unit = _MILLIMETRES.get(exif.get(tags.FocalPlaneResolutionUnit, 2))
    if not (millimetres and per_unit and unit):
        return None, ''
    # The resolution is that of the photo as it was taken; it may have been scaled since.
    taken = _number(exif.get(tags.ExifImageWidth)), _number(exif.get(tags.ExifImageHeight))
    scale = max(width, height) / max(taken) if all(taken) else 1.0
    sensor = max(width, height) / scale / per_unit * unit
    return (millimetres * per_unit / unit * scale,
            f'{millimetres:g} mm on a sensor {sensor:.1f} mm wide')


def _number(value: Any) -> float:
    """Return a positive finite number, 0 for whatever is none."""
    if isinstance(value, (int, float, TiffImagePlugin.IFDRational)):
        number = float(value)
        return number if np.isfinite(number) and number > 0 else 0.0
    return 0.0
