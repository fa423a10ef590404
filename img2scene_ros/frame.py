"""A frame: one synchronized look of one camera."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from img2scene_ros.camera import Camera
from img2scene_ros.errors import InputError

if TYPE_CHECKING:  # it needs frames itself
    from img2scene_ros.support import SupportPlane

PICTURE_SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp', '.webp', '.tif', '.tiff')


@dataclass(frozen=True, eq=False)
class Frame:
    """
    A colour picture with its camera and, when there is one, the depth registered to it.

    - color: (H, W, 3) uint8, RGB
    - camera: the intrinsics of the colour picture
    - depth: (H, W) float32, metres along the optical axis, NaN = no reading; None = no sensor;
      what the lens model does not reach counts as not read
    - stamp_ns: nanoseconds, the image header's
    - frame_id: the camera's optical frame
    - support: the plane that objects stand on, where something else than the depth image tells it

    :raises InputError: arrays whose shape, type or size do not fit each other or the camera
    """

    color: np.ndarray
    camera: Camera
    depth: np.ndarray | None = None
    stamp_ns: int = 0
    frame_id: str = 'camera_color_optical_frame'
    support: 'SupportPlane | None' = None

    def __post_init__(self) -> None:
        if self.color.ndim != 3 or self.color.shape[2] != 3 or self.color.dtype != np.uint8:
            raise InputError(
                f'the colour picture is {self.color.shape} {self.color.dtype}; '
                'it must be height x width x 3 bytes, RGB')
        if self.color.size == 0:
            raise InputError('the colour picture is empty; check the camera driver')
        height, width = self.color.shape[:2]
        if (self.camera.width, self.camera.height) != (width, height):
            raise InputError(
                f'the calibration is for {self.camera.width}x{self.camera.height} pixels but the '
                f'picture has {width}x{height}; publish the camera_info of this picture')
        if self.depth is not None and self.depth.shape != (height, width):
            raise InputError(
                f'the depth image has {self.depth.shape[1]}x{self.depth.shape[0]} pixels but the '
                f'picture has {width}x{height}; use the depth image registered to the colour '
                'camera (often called aligned_depth_to_color)')
        if self.depth is not None and self.camera.has_distortion:
            has_ray = np.isfinite(self.camera.rays[..., 0])
            if not has_ray.all():
                object.__setattr__(
                    self, 'depth', np.where(has_ray, self.depth, np.float32(np.nan)))

    @property
    def shape(self) -> tuple[int, int]:
        """Return height and width in pixels."""
        return self.color.shape[:2]

    @cached_property
    def points(self) -> np.ndarray | None:
        """Return the point seen at every pixel: (H, W, 3) float32, metres, NaN = no reading."""
        return None if self.depth is None else self.camera.rays * self.depth[..., None]

    @property
    def has_depth(self) -> bool:
        """Tell whether the depth image holds at least one reading."""
        return self.depth is not None and bool(np.isfinite(self.depth).any())


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


def load_frame(
    color: Path,
    depth: Path | None = None,
    camera: Path | None = None,
    field_of_view: float = 60.0,
) -> Frame:
    """
    Read a frame from files.

    :param color: a picture, or a frame folder that holds color.*, camera.json and maybe depth.png
    :param depth: a 16-bit PNG in millimetres, registered to the picture
    :param camera: camera.json with width, height, K, D and distortion_model
    :param field_of_view: horizontal, degrees; used when there is no camera file
    :raises InputError: a file that is missing, unreadable, or does not fit the others
    """
    color = Path(color)
    if color.is_dir():
        folder, color = color, _picture_in(color)
        depth = depth or _existing(folder / 'depth.png')
        camera = camera or _existing(folder / 'camera.json')
    picture = cv2.cvtColor(_read_image(color, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    height, width = picture.shape[:2]
    lens = (load_camera(camera) if camera else
            Camera.from_field_of_view(width, height, field_of_view))
    metres = metric_depth(_read_image(Path(depth), cv2.IMREAD_UNCHANGED)) if depth else None
    return Frame(picture, lens, metres)


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


def _read_image(path: Path, flags: int) -> np.ndarray:
    if not path.is_file():
        raise InputError(f"there is no picture '{path}'; check the path")
    image = cv2.imread(str(path), flags)
    if image is None:
        raise InputError(f"'{path}' is not a picture that can be read (PNG, JPEG, ...)")
    return image
