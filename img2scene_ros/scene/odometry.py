# SPDX-License-Identifier: Apache-2.0
"""
How a camera moves before a scene that rests, from its pictures and depth images alone.

Each frame is registered to a key frame by the planes of its readings and by its greys (hybrid
RGB-D odometry; Steinbrücker, Sturm, Cremers: Real-time visual odometry from dense RGB-D images,
ICCVW 2011; Park, Zhou, Koltun: Colored point cloud registration revisited, ICCV 2017), with
Tukey's weights, so that what moves by itself counts little. The support keeps height and tilt.
"""

from dataclasses import dataclass
from dataclasses import replace

import cv2
import numpy as np

from img2scene_ros.depth import measured
from img2scene_ros.detection.surfaces import surface_normals
from img2scene_ros.scene.poses import moved_points
from img2scene_ros.scene.poses import stepped
from img2scene_ros.scene.registration import NOTHING
from img2scene_ros.scene.registration import Equations
from img2scene_ros.scene.registration import along
from img2scene_ros.scene.registration import equations
from img2scene_ros.scene.registration import plane_equations
from img2scene_ros.scene.registration import trusted
from img2scene_ros.types import Frame
from img2scene_ros.types import SupportPlane

# Chosen on drawn tables at 0.6 to 1 m, by cameras that move up to 2 degrees and 2 cm a frame.
_WIDTH = 320  # pixels of the pictures that are compared, or up to twice as many
_LEAST_SIDE = 8  # of these, which make two of a fourth of the picture
_SPACING = 5  # of these between readings that are registered
_NORMAL_STEP = 4  # of these to either side, over which slopes are taken
# What is blurred by how many pixels, and metres apart that things may be, step by step.
_COARSE, _FINE = (4.0, 0.08), (1.2, 0.03)
_STEPS = 6  # of Gauss and Newton, at most, each
_SMALL_STEPS = {_COARSE: 2e-3, _FINE: 3e-4}  # metres, radians at the scene's distance: the last
_GREY_STD = 4.0  # of 255, by which a grey is off
_LEAST_SLOPE = 2.5  # greys per pixel; less is noise
_NOISE_SHARE = 0.005  # of the information about the best direction; less is noise
_TILT_STD, _HEIGHT_STD = np.radians(0.2), 0.002  # of the support: radians, metres
_FAR = 0.15  # metres, and radians at the scene's distance, from a key frame to the next
_LEAST_READINGS = 200
_LEAST_MATCHED = 0.5  # share of the readings that lie on the key frame's surfaces
_LEAST_SURE = 0.005  # metres at the scene's distance: standard deviation of a known motion
_MOST_GREY = 15.0  # of 255, the median by which two pictures of one thing differ
_KEYS = 60  # of the frames that are kept
# A camera rests where things stay within this share of a pixel, of a fourth of the picture, and
# depths within so many standard deviations of their noise, averaged over such a pixel.
_RESTING_SHIFT, _RESTING_DEPTH = 0.12, 1.5
_CURE = 'set target_frame so that TF tells where the camera is'


@dataclass(frozen=True, eq=False)
class CameraMotion:
    """
    Where the camera is.

    - world_from_camera: (4, 4), takes optical to world coordinates; the latest known where it is
      not known now
    - why: it is not known, and the cure: one sentence; '' when it is
    """

    world_from_camera: np.ndarray
    why: str = ''

    @property
    def is_known(self) -> bool:
        """Tell whether the frame tells."""
        return not self.why


class Odometry:
    """Follows the camera; the optical frame of the first frame that tells enough is the world."""

    def __init__(self) -> None:
        self._keys: list[_Key] = []
        self._support: SupportPlane | None = None  # in the world
        self._pose = self._step = np.eye(4)
        self._resting: _Thumbnail | None = None

    def update(self, frame: Frame) -> CameraMotion:
        """
        Tell where the camera is when a frame is taken.

        A camera that rests gets the very pose it had before.

        :param frame: what its `robot` covers moves by itself
        """
        support = frame.support
        if not frame.has_depth:
            return self._unknown('the frame has no depth image')
        if min(frame.shape) < _LEAST_SIDE * _reduction(frame):
            return self._unknown('the picture has too few pixels')
        small = _small(frame)
        thumbnail = _thumbnail(small)
        if self._resting is not None and thumbnail.shows(self._resting):
            self._step = np.eye(4)
            return CameraMotion(self._pose)
        view = _View(small)
        if len(view.points) < _LEAST_READINGS:
            return self._unknown('there are too few depth readings')
        if not self._keys:
            key = _Key(view, self._pose)
            _, why = _registered(view, key, np.eye(4), support, support)
            if why:
                return self._unknown(why)
            self._keep(key, support, thumbnail)
            return CameraMotion(self._pose)
        found, why = self._found(view, support)
        if found is None:
            return self._unknown(why)
        self._step = np.linalg.inv(self._pose) @ found
        self._pose = found
        key = min(self._keys, key=lambda key: key.distance(found, view.distance))
        if key.distance(found, view.distance) > _FAR * max(1.0, view.distance):
            key = _Key(view, found)
        self._keep(key, support, thumbnail)
        return CameraMotion(found)

    def _keep(
        self, key: '_Key', support: SupportPlane | None, thumbnail: '_Thumbnail',
    ) -> None:
        """Make a key frame the latest, and remember what a resting camera goes on to see."""
        self._keys = [other for other in self._keys if other is not key][1 - _KEYS:] + [key]
        self._resting = thumbnail
        if self._support is None and support is not None:
            self._support = support.moved(self._pose)

    def _found(
        self, view: '_View', support: SupportPlane | None,
    ) -> tuple[np.ndarray | None, str]:
        """Return the pose in the world, or None and why it is not found."""
        key, why = self._keys[-1], ''
        plane = self._support and self._support.moved(np.linalg.inv(key.pose))
        for guess in (self._pose @ self._step, self._pose):
            start = np.linalg.inv(key.pose) @ guess
            pose, why = _registered(view, key, start, support, plane)
            if not why:
                return key.pose @ pose, ''
        return None, why

    def _unknown(self, why: str) -> CameraMotion:
        self._step = np.eye(4)
        self._resting = None
        return CameraMotion(
            self._pose, f'how the camera moves is not known, since {why}; {_CURE}')


@dataclass(frozen=True, eq=False)
class _Thumbnail:
    """A fourth of a picture: its greys, its depths, metres, and their deviations."""

    grey: np.ndarray
    depth: np.ndarray
    std: np.ndarray

    def shows(self, other: '_Thumbnail') -> bool:
        """Tell whether nothing moved but what noise moves, over most of the picture."""
        if self.depth.shape != other.depth.shape:  # another camera's
            return False
        change = np.abs(self.depth - other.depth) / self.std
        change = change[np.isfinite(change)]
        if not len(change) or np.median(change) > _RESTING_DEPTH:
            return False
        grey = self.grey - other.grey
        grey = np.abs(grey - np.median(grey))
        # Down and across, as edges along a motion do not show it.
        for slope in np.gradient(other.grey):
            slope = np.abs(slope)
            edges = slope >= max(_LEAST_SLOPE, np.quantile(slope, 0.9))
            if edges.any() and np.median(grey[edges] / slope[edges]) > _RESTING_SHIFT:
                return False
        return True


def _reduction(frame: Frame) -> int:
    return max(1, frame.shape[1] // _WIDTH)


def _small(frame: Frame) -> Frame:
    """Return every n-th pixel of a frame, without depth where the robot is."""
    depth = measured(frame.depth)
    if frame.robot is not None:
        depth = np.where(frame.robot, np.float32(np.nan), depth)
    n = _reduction(frame)
    camera = frame.camera.binned(n, n)
    part = np.s_[:camera.height * n:n, :camera.width * n:n]
    color = cv2.boxFilter(frame.color, -1, (n, n))[part]
    return replace(
        frame, color=color, depth=np.ascontiguousarray(depth[part]), camera=camera, robot=None)


def _thumbnail(small: Frame) -> _Thumbnail:
    height, width = (side // 4 for side in small.shape)
    grey = cv2.cvtColor(small.color, cv2.COLOR_RGB2GRAY).astype(np.float32)
    readings = measured(small.depth)
    is_read = np.isfinite(readings)
    share, total = (cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
                    for image in (is_read.astype(np.float32), np.nan_to_num(readings)))
    depth = np.where(share > 0.9, total / np.maximum(share, 0.9), np.nan)
    return _Thumbnail(cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA), depth,
                      small.depth_std(depth) / 4.0 * np.sqrt(2.0))


class _View:
    """
    Readings of a frame that are registered, and what they are made of.

    - points: (N, 3) metres and their std: (N,); greys: by blur, (N,) each
    - images: the whole greys, by blur
    """

    def __init__(self, small: Frame) -> None:
        self.frame = small
        grey = cv2.cvtColor(small.color, cv2.COLOR_RGB2GRAY).astype(np.float32)
        self.images = {blur: cv2.GaussianBlur(grey, (0, 0), blur) for blur, _ in (_COARSE, _FINE)}
        depth = measured(small.depth)
        part = np.s_[_SPACING // 2::_SPACING, _SPACING // 2::_SPACING]
        row, column = (_SPACING * place + _SPACING // 2
                       for place in np.nonzero(np.isfinite(depth[part])))
        self.points = small.camera.unproject(
            np.column_stack([column, row]), depth[row, column])
        self.std = small.depth_std(self.points[:, 2])
        self.greys = {blur: image[row, column] for blur, image in self.images.items()}
        self.distance = float(np.median(self.points[:, 2])) if len(self.points) else 1.0


class _Key:
    """A frame that others are registered to, and its pose in the world."""

    def __init__(self, view: _View, pose: np.ndarray) -> None:
        self.pose, self.camera, self.images = pose, view.frame.camera, view.images
        depth = measured(view.frame.depth)
        normals = surface_normals(view.frame, _NORMAL_STEP)
        self.surface = np.dstack([self.camera.rays * depth[..., None], normals]).reshape(-1, 6)
        self.slopes = {blur: _slopes(image) for blur, image in view.images.items()}

    def distance(self, pose: np.ndarray, depth: float) -> float:
        """Return how far a pose is from the key frame's: metres, and turns by what they move."""
        apart = np.linalg.inv(self.pose) @ pose
        turn = np.arccos(np.clip((np.trace(apart[:3, :3]) - 1.0) / 2.0, -1.0, 1.0))
        return float(np.linalg.norm(apart[:3, 3]) + depth * turn)


def _slopes(image: np.ndarray) -> np.ndarray:
    """Return greys per pixel along x and y, 0 where there is but noise, (H, W, 2)."""
    slopes = np.stack([cv2.Sobel(image, cv2.CV_32F, *order, scale=0.125)
                       for order in ((1, 0), (0, 1))], axis=-1)
    slopes[np.hypot(slopes[..., 0], slopes[..., 1]) < _LEAST_SLOPE] = 0.0
    return slopes


def _registered(
    view: _View, key: _Key, pose: np.ndarray, support: SupportPlane | None,
    plane: SupportPlane | None,
) -> tuple[np.ndarray, str]:
    """
    Return the pose of a view in a key frame, and why it is wrong or ''.

    :param pose: (4, 4), where to begin
    :param support: the plane that the view shows, and plane: the same, in the key frame
    """
    scale = np.diag([1.0] * 3 + [1.0 / view.distance] * 3)
    for level in (_COARSE, _FINE):
        blur, reach = level
        for _ in range(_STEPS):
            match = _Match(view, key, pose, blur, reach)
            if match.share < _LEAST_MATCHED:
                return pose, 'too little of what was seen before is still seen, or it moved fast'
            information, vector = NOTHING
            for told, toward in (match.by_depth(), match.by_grey()):
                told = scale @ told @ scale
                known, _ = trusted(told, np.eye(6), _NOISE_SHARE)
                information = information + known @ told @ known
                vector = vector + known @ known @ scale @ toward
            if support is not None and plane is not None:
                told, toward = plane_equations(
                    plane, pose[:3, :3] @ support.normal,
                    support.offset - float(plane.height(pose[:3, 3])), _HEIGHT_STD, _TILT_STD)
                information = information + scale @ told @ scale
                vector = vector + scale @ toward
            values, axes = np.linalg.eigh(information)
            step = axes @ (axes.T @ vector / np.maximum(values, 1.0))
            pose = stepped(pose, scale @ step)
            if np.linalg.norm(step) < _SMALL_STEPS[level]:
                break
    if values[0] < _LEAST_SURE ** -2:
        return pose, 'what is seen is too plain to tell'
    if match.grey_change > _MOST_GREY or match.share_explained < _LEAST_MATCHED:
        return pose, 'what is seen does not fit what was seen before'
    return pose, ''


class _Match:
    """Readings of a view on the surfaces of a key frame, at a pose."""

    def __init__(
        self, view: _View, key: _Key, pose: np.ndarray, blur: float, reach: float,
    ) -> None:
        points = moved_points(pose, view.points)
        pixels = key.camera.project(np.where(points[:, 2:] > 0.01, points, (0.0, 0.0, -1.0)))
        pixels = np.nan_to_num(pixels, nan=-9.0).clip(-9.0, 1e4)
        column, row = np.rint(pixels).astype(int).T
        inside = ((column >= 0) & (column < key.camera.width) & (row >= 0)
                  & (row < key.camera.height))
        surface = key.surface[row[inside] * key.camera.width + column[inside]].astype(float)
        apart, normal = surface[:, :3] - points[inside], surface[:, 3:]
        has_surface = np.isfinite(normal[:, 0])
        near = has_surface & (np.einsum('ni,ni->n', apart, apart) < reach ** 2)
        where = np.flatnonzero(inside)[near]
        self.camera, self.origin = key.camera, pose[:3, 3]
        self.points, self.std = points[where], view.std[where]
        self.normals, self.apart = normal[near], apart[near]
        self.share = len(where) / max(1.0, has_surface.sum(), 0.3 * len(points))
        x, y = pixels[where].astype(np.float32).T
        grey, slope = (
            cv2.remap(image, x[:, None], y[:, None], cv2.INTER_LINEAR,
                      borderMode=cv2.BORDER_REPLICATE)[:, 0]
            for image in (key.images[blur], key.slopes[blur])) if len(where) else (
                np.zeros(0), np.zeros((0, 2)))
        grey = view.greys[blur][where] - grey
        self.grey = grey - np.median(grey) if len(where) else grey  # exposures differ
        self.slope = slope.astype(float)
        self.grey_change = float(np.median(np.abs(self.grey))) if len(where) else 255.0

    @property
    def share_explained(self) -> float:
        """Return the share of the readings that lie on surfaces within their noise."""
        error, std = self._depth_errors()
        return float((np.abs(error) < 3.0 * std + 0.003).mean())

    def by_depth(self) -> Equations:
        error, std = self._depth_errors()
        return equations(along(self.points - self.origin, self.normals), error, std, 0.5)

    def by_grey(self) -> Equations:
        used = np.flatnonzero(self.slope.any(axis=1))
        if len(used) < 10:
            return NOTHING
        points, slope = self.points[used], self.slope[used]
        # The derivative of the grey at fx x / z + cx, fy y / z + cy.
        toward = slope * (self.camera.fx, self.camera.fy)
        directions = np.column_stack(
            [toward, -np.einsum('ni,ni->n', toward, points[:, :2]) / points[:, 2]])
        return equations(
            along(points - self.origin, directions / points[:, 2:]), self.grey[used],
            np.full(len(used), _GREY_STD), 0.5)

    def _depth_errors(self) -> tuple[np.ndarray, np.ndarray]:
        """Return metres from the planes of the surfaces, and their standard deviations."""
        error = np.einsum('ni,ni->n', self.normals, self.apart)
        slope = np.einsum('ni,ni->n', self.normals, self.points) / self.points[:, 2]
        return error, self.std * np.abs(slope).clip(0.2, 1.0) * np.sqrt(2.0)
