# SPDX-License-Identifier: Apache-2.0
"""The pinhole camera: intrinsics, lens distortion, projection and unprojection."""

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike

from img2scene_ros.errors import InputError
from img2scene_ros.errors import OptionError

# The numbers of coefficients that each lens model may have; some drivers send a fifth, unused,
# for 'equidistant'.
DISTORTION_MODELS = {
    'plumb_bob': (4, 5, 8, 12, 14),
    'rational_polynomial': (4, 5, 8, 12, 14),
    'equidistant': (4, 5),
}
MAX_SKEW = 0.1  # pixels by which leaving the skew out may move the upper and lower border
_UNDISTORT = (cv2.TERM_CRITERIA_COUNT + cv2.TERM_CRITERIA_EPS, 40, 1e-9)


@dataclass(frozen=True, eq=False)
class Camera:
    """
    Intrinsics of one image, in pixels; axes are those of the optical frame.

    Pixel (0, 0) is the centre of the upper left pixel. Points are metres in the optical frame:
    x right, y down, z forward (REP-103). Lens distortion is applied when points are projected
    and taken back when pixels are unprojected, so pixels always are those of the image as it is.

    :raises InputError: a focal length or size that no camera has, or an unknown distortion model
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion: np.ndarray = field(default_factory=lambda: np.zeros(0))
    distortion_model: str = 'plumb_bob'

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise InputError(
                f'the camera calibration is for a picture of {self.width}x{self.height} pixels; '
                'publish a camera_info with the width and height of the image')
        intrinsics = (self.fx, self.fy, self.cx, self.cy)
        if not np.isfinite(intrinsics).all() or self.fx <= 0 or self.fy <= 0:
            raise InputError(
                f'the camera is not calibrated (K has fx = {self.fx:g}, fy = {self.fy:g}); '
                'calibrate it or publish a camera_info with a valid K')
        if self.has_distortion and self.distortion_model not in DISTORTION_MODELS:
            raise InputError(
                f"the distortion model '{self.distortion_model}' is not known (known are "
                f"{', '.join(DISTORTION_MODELS)}); use the rectified image instead")
        if self.has_distortion and (
                len(self.distortion) not in DISTORTION_MODELS[self.distortion_model]
                or not np.isfinite(self.distortion).all()):
            raise InputError(
                f"D = {self.distortion.tolist()} is no '{self.distortion_model}' distortion; "
                'calibrate the camera again or use the rectified image')

    @classmethod
    def from_calibration(
        cls,
        width: int,
        height: int,
        matrix: ArrayLike,
        distortion: ArrayLike = (),
        distortion_model: str = 'plumb_bob',
        roi: tuple[int, int, int, int] = (0, 0, 0, 0),
        binning: tuple[int, int] = (0, 0),
    ) -> 'Camera':
        """
        Build the camera of the image that a full-resolution calibration describes.

        The region of interest is cut first, then binned, as image_geometry does
        (ros-perception/vision_opencv, pinhole_camera_model.cpp).

        :param width: pixels of the full sensor image
        :param height: pixels of the full sensor image
        :param matrix: (3, 3) or 9 values row by row, K for raw and P[:3, :3] for rectified images
        :param distortion: D, empty or zero for rectified images
        :param roi: x_offset, y_offset, width, height in full-resolution pixels; all 0 is no ROI
        :param binning: binning_x, binning_y; 0 and 1 are no binning
        :raises InputError: as `Camera`, or K is transposed or has skew
        """
        matrix = np.asarray(matrix, float).reshape(3, 3)
        if matrix[2, :2].any():
            raise InputError(
                f'K = {matrix.ravel().tolist()} is transposed; give it row by row, fx 0 cx '
                '0 fy cy 0 0 1 (intrinsic_matrix of Open3D column by column)')
        if abs(matrix[0, 1]) * height > 2.0 * MAX_SKEW * abs(matrix[1, 1]):
            raise InputError(
                f'K has a skew of {matrix[0, 1]:g}, which is not supported; calibrate without '
                'skew, or rectify the picture')
        camera = cls(
            int(width), int(height), matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2],
            np.asarray(distortion, float).ravel(), distortion_model or 'plumb_bob')
        x, y, roi_width, roi_height = roi
        if roi_width and roi_height:
            camera = camera.cropped(x, y, roi_width, roi_height)
        return camera.binned(max(1, binning[0]), max(1, binning[1]))

    @classmethod
    def from_field_of_view(cls, width: int, height: int, degrees: float) -> 'Camera':
        """
        Build a distortion-free camera from the horizontal field of view.

        :param degrees: the angle between the left and the right edge of the picture
        :raises OptionError: one that no picture has
        """
        if not 1.0 <= degrees <= 170.0:
            raise OptionError(
                f'the field of view is {degrees:g} degrees; it must be between 1 and 170')
        focal = width / (2.0 * np.tan(np.radians(degrees) / 2.0))
        return cls(width, height, focal, focal, (width - 1) / 2.0, (height - 1) / 2.0)

    @property
    def matrix(self) -> np.ndarray:
        """Return K, (3, 3)."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1.0]])

    @cached_property
    def has_distortion(self) -> bool:
        """Tell whether the lens bends rays at all; a fisheye lens does without coefficients."""
        is_fisheye = self.distortion_model == 'equidistant' and len(self.distortion) > 0
        return is_fisheye or bool(np.any(self.distortion))

    def cropped(self, x: int, y: int, width: int, height: int) -> 'Camera':
        """Return the camera of the part of the image that starts at pixel (x, y)."""
        return replace(self, width=width, height=height, cx=self.cx - x, cy=self.cy - y)

    def resized(self, width: int, height: int) -> 'Camera':
        """
        Return the camera of the whole image scaled to another size.

        Pixel centres are kept: u' + 0.5 = (u + 0.5) * scale, as cv2.resize samples.
        """
        sx, sy = width / self.width, height / self.height
        return replace(
            self, width=width, height=height, fx=self.fx * sx, fy=self.fy * sy,
            cx=(self.cx + 0.5) * sx - 0.5, cy=(self.cy + 0.5) * sy - 0.5)

    def turned(self, quarters: int) -> 'Camera':
        """
        Return the camera of the image turned as by numpy.rot90, counter-clockwise.

        A quarter takes x, y of the optical frame to y, -x, and with it the coefficients of the
        lens that have a direction (OpenCV, calib3d).

        :raises InputError: the lens is tilted against the sensor
        """
        if not quarters % 4:
            return self
        bent = self.distortion.copy()
        if self.distortion_model != 'equidistant' and len(bent) >= 4:
            if np.any(bent[12:]):
                raise InputError(
                    'the picture of a lens that is tilted against the sensor (D has 14 '
                    'coefficients) cannot be turned upright; use the rectified image')
            bent[2:4] = -self.distortion[3], self.distortion[2]
            if len(bent) >= 12:
                bent[8:12] = *self.distortion[10:12], *-self.distortion[8:10]
        return replace(
            self, width=self.height, height=self.width, fx=self.fy, fy=self.fx, cx=self.cy,
            cy=self.width - 1 - self.cx, distortion=bent).turned(quarters % 4 - 1)

    def binned(self, x: int, y: int) -> 'Camera':
        """Return the camera of every x-th column and y-th row, what is left at the end cut off."""
        return replace(
            self, width=self.width // x, height=self.height // y,
            fx=self.fx / x, fy=self.fy / y, cx=self.cx / x, cy=self.cy / y)

    def project(self, points: np.ndarray) -> np.ndarray:
        """
        Project points into the image.

        :param points: (..., 3) metres, optical frame
        :return: (..., 2) pixels; NaN for points that are not in front of the camera, or so far
            from its axis that the lens model does not hold
        """
        points = np.asarray(points, float)
        z = np.where(points[..., 2] > 1e-9, points[..., 2], np.nan)
        plane = points[..., :2] / z[..., None]
        if self.has_distortion and plane.size:
            beyond = np.linalg.norm(plane, axis=-1, keepdims=True) > self._reach
            plane = np.where(beyond, np.nan, self._distort(plane))
        return plane * (self.fx, self.fy) + (self.cx, self.cy)

    def unproject(self, pixels: np.ndarray, z: np.ndarray | float) -> np.ndarray:
        """
        Find the points that are seen at pixels.

        :param pixels: (..., 2)
        :param z: (...) metres along the optical axis
        :return: (..., 3) metres, optical frame
        """
        return self.rays_at(pixels) * np.asarray(z)[..., None]

    def rays_at(self, pixels: Sequence[Any] | np.ndarray) -> np.ndarray:
        """
        Return the viewing rays through pixels, scaled to z = 1.

        :param pixels: (..., 2)
        :return: (..., 3), optical frame; NaN for pixels that the lens model does not reach
        """
        pixels = np.asarray(pixels, float)
        plane = (pixels - (self.cx, self.cy)) / (self.fx, self.fy)
        if self.has_distortion and plane.size:
            bent, plane = plane, self._undistort(plane)
            # OpenCV returns some number also where the model cannot be inverted.
            missed = ((np.abs(self._distort(plane) - bent).max(axis=-1) > 1e-4)
                      | (np.linalg.norm(plane, axis=-1) > self._reach))
            plane[missed] = np.nan
        return np.concatenate([plane, np.ones_like(plane[..., :1])], axis=-1)

    @cached_property
    def rays(self) -> np.ndarray:
        """Return the viewing ray of every pixel, scaled to z = 1: (height, width, 3) float32."""
        u, v = np.arange(self.width), np.arange(self.height)[:, None]
        if self.has_distortion:
            return self.rays_at(np.stack(np.broadcast_arrays(u, v), axis=-1)).astype(np.float32)
        rays = np.ones((self.height, self.width, 3), np.float32)
        rays[..., 0], rays[..., 1] = (u - self.cx) / self.fx, (v - self.cy) / self.fy
        return rays

    @cached_property
    def unseen(self) -> np.ndarray | None:
        """Return the pixels that the lens model does not reach, (height, width); None: none."""
        unseen = np.isnan(self.rays[..., 0]) if self.has_distortion else np.zeros(1, bool)
        return unseen if unseen.any() else None

    @cached_property
    def _reach(self) -> float:
        """
        Return how far from the axis the lens model holds, metres at z = 1.

        Farther out its polynomial turns back, and would show things where they are not.
        """
        radius = np.geomspace(1e-3, 1e3, 2000)
        turn = np.linspace(0.0, 2.0 * np.pi, 16, endpoint=False)
        rays = radius[:, None, None] * np.stack([np.cos(turn), np.sin(turn)], axis=-1)
        bent = np.linalg.norm(self._distort(rays), axis=-1)
        turned_back = (np.diff(bent, axis=0) <= 0).any(axis=1)
        return float(radius[np.argmax(turned_back)]) if turned_back.any() else np.inf

    def _distort(self, plane: np.ndarray) -> np.ndarray:
        flat = np.ascontiguousarray(plane.reshape(-1, 1, 2))
        if self.distortion_model == 'equidistant':
            bent = cv2.fisheye.distortPoints(flat, np.eye(3), self.distortion[:4])
        else:
            rays = np.concatenate([flat, np.ones_like(flat[..., :1])], axis=-1)
            bent, _ = cv2.projectPoints(
                rays, np.zeros(3), np.zeros(3), np.eye(3), self.distortion)
        return bent.reshape(plane.shape)

    def _undistort(self, plane: np.ndarray) -> np.ndarray:
        flat = np.ascontiguousarray(plane.reshape(-1, 1, 2))
        if self.distortion_model == 'equidistant':
            straight = cv2.fisheye.undistortPoints(
                flat, np.eye(3), self.distortion[:4], criteria=_UNDISTORT)
        else:
            # OpenCV 5 has them as one function.
            undistort: Any = getattr(cv2, 'undistortPointsIter', cv2.undistortPoints)
            straight = undistort(
                flat, np.eye(3), self.distortion, R=np.eye(3), P=np.eye(3), criteria=_UNDISTORT)
        return straight.reshape(plane.shape)


def box_edges(bbox: np.ndarray) -> np.ndarray:
    """
    Return the edges of a box in the pixels of its camera.

    Boxes count the edges of pixels (0 is the left edge of pixel 0), cameras their centres.

    :param bbox: (4,) xmin, ymin, xmax, ymax of a detection
    :return: (4,) float, the same edges where the centre of pixel (0, 0) is the origin
    """
    return np.asarray(bbox, float) - 0.5


def sampled(
    image: np.ndarray, pixels: np.ndarray, how: int = cv2.INTER_LINEAR,
    outside: float | None = 0.0,
) -> np.ndarray:
    """
    Interpolate an image at pixels of its camera.

    :param image: (H, W) or (H, W, C)
    :param pixels: (..., 2) column and row, finite
    :param how: cv2.INTER_LINEAR or cv2.INTER_NEAREST
    :param outside: the value beyond the image; None: that of its border goes on
    :return: (...) or (..., C)
    """
    border, value = (
        (cv2.BORDER_REPLICATE, 0.0) if outside is None else (cv2.BORDER_CONSTANT, outside))
    flat = pixels.reshape(-1, 2).astype(np.float32)
    remap: Any = cv2.remap  # whose second map may be missing, whatever its type says
    # OpenCV takes at most 32767 at once.
    values = np.concatenate([
        remap(image, part[None], None, how, borderMode=border, borderValue=(value,) * 4)[0]
        for part in np.array_split(flat, 1 + len(flat) // 30000)])
    return values.reshape(*pixels.shape[:-1], *image.shape[2:])
