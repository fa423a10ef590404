# SPDX-License-Identifier: Apache-2.0
"""What a depth image says of an object that was not detected, and of what floats before it."""

import warnings
from dataclasses import dataclass

import numpy as np

from img2scene_ros.depth import measured
from img2scene_ros.scene.poses import moved_points
from img2scene_ros.scene.poses import transposed
from img2scene_ros.scene.surface import SampledSurface
from img2scene_ros.types import Frame
from img2scene_ros.types import Sighting
from img2scene_ros.types import SupportPlane

_MARGIN = 0.005  # metres beyond the noise by which a reading is nearer or farther than expected
# Shares: of the points in the picture, below which an object is out of view; of those not hidden,
# above which it is seen through; of those in view, that have to be unhidden to tell.
_IN_VIEW, _THROUGH, _UNHIDDEN = 0.5, 0.6, 0.3
_FEWEST = 10  # points that tell anything
# Change of a reading by which it is of something else [m]; least cosine of surface and view.
_OUTLIER, _GRAZING = 0.1, 0.2
_APART = 2  # samples of which one is looked at for motion
_NEARER = 0.02  # metres beyond the margin by which a reading is of something else
# What floats: height of its lowest readings above the support, and of those of what the border
# cuts [m]; depth jump below its lower edge [m]; share of its columns that show air there.
_LIFTED, _CUT_LIFTED, _JUMP, _AIR = 0.03, 0.1, 0.03, 0.6
_BELOW = np.arange(3, 25, 3)  # pixels below the lower edge, at a picture height of 480


def seen_points(surface: SampledSurface, pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    Return all points, (S, 3) metres, optical frame, and which are on the side to the camera.

    :param pose: (4, 4) camera from object
    """
    points = surface.points @ pose[:3, :3].T + pose[:3, 3]
    normals = surface.normals @ pose[:3, :3].T
    return points, (normals * points).sum(axis=1) < 0.0


def pixels_of(points: np.ndarray, frame: Frame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return which points, (N,) bool, lie in the picture, and the rows and columns of those."""
    pixels = np.nan_to_num(frame.camera.project(points), nan=-1.0, posinf=-1.0, neginf=-1.0)
    columns, rows = np.round(np.clip(pixels, -1, 1e6)).astype(int).T
    inside = ((columns >= 0) & (columns < frame.shape[1]) & (rows >= 0)
              & (rows < frame.shape[0]) & (points[:, 2] > 0.0))
    return inside, rows[inside], columns[inside]


@dataclass(frozen=True, eq=False)
class Expected:
    """
    What a frame shows where points on an object should be seen.

    - in_view: share of them in the picture
    - hidden: (N,) bool, those in the picture with something nearer, the robot, or no reading
    - nearer: (N,) bool, those with something nearer
    - through: (N,) bool, those with readings behind them
    """

    in_view: float
    hidden: np.ndarray
    nearer: np.ndarray
    through: np.ndarray

    @property
    def state(self) -> str:
        """
        Tell what became of the object: 'visible', 'hidden', 'out_of_view' or 'lost'.

        It is lost where the readings see through it. Where they lie on it, it is there, whether
        it was detected or not.
        """
        count, unhidden = len(self.hidden), np.count_nonzero(~self.hidden)
        if unhidden >= max(_FEWEST, _UNHIDDEN * count) and (
                np.count_nonzero(self.through) > _THROUGH * unhidden):
            return 'lost'
        if self.in_view < _IN_VIEW or count == 0:
            return 'out_of_view'
        return 'hidden' if unhidden < 0.5 * count else 'visible'


def expected(surface: SampledSurface, pose: np.ndarray, frame: Frame, std: float) -> Expected:
    """
    Look for an object where it should be.

    :param pose: (4, 4) camera from object
    :param std: metres by which the place may be off
    """
    points, faces = seen_points(surface, pose)
    inside, rows, columns = pixels_of(points[faces], frame)
    depth = points[faces][inside, 2]
    read = np.full(len(depth), np.nan) if frame.depth is None else frame.depth[rows, columns]
    margin = _MARGIN + 3.0 * frame.depth_std(depth) + std
    nearer = read < depth - margin
    if frame.robot is not None:
        nearer |= frame.robot[rows, columns]
    hidden = nearer | ~np.isfinite(read)
    in_view = float(inside.mean()) if len(inside) else 0.0
    return Expected(in_view, hidden, nearer, ~hidden & (read > depth + margin))


@dataclass(frozen=True, eq=False)
class Compared:
    """
    Where the samples of surfaces are in a frame, and what is read there, of O objects.

    - poses: (O, 4, 4) camera from object
    - points, normals: (O, S, 3) metres, optical frame
    - behind: (O, S) metres by which readings are behind the points; NaN for those that are hidden,
      not in the picture or on the far side
    - owned: (O, S) bool, those in the pixels that show the object
    - std: (O,) metres, of one reading
    """

    poses: np.ndarray
    points: np.ndarray
    normals: np.ndarray
    behind: np.ndarray
    owned: np.ndarray
    std: np.ndarray


def compared(
    places: np.ndarray, normals: np.ndarray, poses: np.ndarray, frame: Frame, owners: np.ndarray,
) -> Compared:
    """
    Compare samples of surfaces with what is read where they should be seen.

    :param places: (O, S, 3) metres and normals: (O, S, 3), object frames
    :param poses: (O, 4, 4) camera from object
    :param owners: (H, W) int, which object a pixel shows, or -1
    """
    points, normals = moved_points(poses, places), normals @ transposed(poses[:, :3, :3])
    faces = np.einsum('osi,osi->os', normals, points) < 0.0
    inside, rows, columns = pixels_of(points.reshape(-1, 3), frame)
    z = points.reshape(-1, 3)[inside, 2]
    away = measured(frame.depth)[rows, columns] - z
    away[away < -(_MARGIN + _NEARER + 3.0 * frame.depth_std(z))] = np.nan  # something nearer
    behind, owner = np.full(faces.size, np.nan), np.full(faces.size, -1)
    behind[inside], owner[inside] = away, owners[rows, columns]
    behind = np.where(faces, behind.reshape(faces.shape), np.nan)
    owned = owner.reshape(faces.shape) == np.arange(len(faces))[:, None]
    return Compared(
        poses, points, normals, behind, owned, frame.depth_std(poses[:, 2, 3]))


def first_compared(
    surface: SampledSurface, pose: np.ndarray, frame: Frame,
) -> tuple[np.ndarray, np.ndarray]:
    """
    Compare a mesh with the view that it was made of.

    :param pose: (4, 4) camera from object
    :return: (S,) metres by which readings are behind its samples, or NaN; (S,) bool, the samples
        that lie on readings
    """
    seen = compared(surface.points[None], surface.smooth_normals[None], pose[None], frame,
                    np.zeros(frame.shape, int))
    behind = seen.behind[0]
    return behind, np.abs(behind) < _MARGIN + 3.0 * seen.std


def moved_by(seen: Compared, before: np.ndarray) -> np.ndarray:
    """
    Tell how much of what changed in the readings is a motion of the objects.

    :param before: (O, S) metres by which readings were behind before, or NaN
    :return: chi-squared of the best small motions, of six degrees of freedom, (O,); NaN where too
        little is seen at both times
    """
    points, normals, change = (
        a[:, ::_APART] for a in (seen.points, seen.normals, seen.behind - before))
    used = np.abs(change) < _OUTLIER
    count = np.count_nonzero(used, axis=1)
    rays = points / points[..., 2:]
    slope = np.einsum('osi,osi->os', normals, rays)
    slope = np.minimum(slope, -_GRAZING * np.linalg.norm(rays, axis=2))[..., None]
    middle = (points * used[..., None]).sum(axis=1) / np.maximum(count, 1)[:, None]
    arms = (points - middle[:, None]) * used[..., None]
    lever = np.sqrt((arms ** 2).sum(axis=(1, 2)) / np.maximum(count, 1))[:, None, None]
    arms = arms / np.maximum(lever, 1e-6)
    motion = np.concatenate([normals, np.cross(arms, normals)], axis=2) / slope
    std = seen.std[:, None]
    change = np.where(used, change, 0.0)
    weights = used / (1.0 + (change / (3.0 * std)) ** 2)  # Cauchy's, against edges
    weighted = np.swapaxes(motion * (weights ** 2)[..., None], 1, 2)
    step = np.linalg.pinv(weighted @ motion, 1e-4, hermitian=True) @ (
        weighted @ change[..., None])
    left = change - (motion @ step)[..., 0]
    explained = ((change ** 2 - left ** 2) * weights).sum(axis=1) / (2.0 * std[:, 0] ** 2)
    return np.where(count < 2 * _FEWEST, np.nan, explained)


def floats(
    sighting: Sighting, own: np.ndarray, window: tuple[slice, slice],
    support: SupportPlane | None,
) -> bool:
    """
    Tell whether something is in the air: an arm, a hand, what they hold.

    Its lowest readings are above the support, and right below its lower edge the readings are far
    behind it; or it comes in over the lower border of the picture, high above the support.

    :param own: (h, w) the depth of its readings in the window, else NaN
    :param window: rows and columns
    """
    frame = sighting.frame
    is_read = np.isfinite(own)
    if support is None or frame.depth is None or np.count_nonzero(is_read) < _FEWEST:
        return False
    points = frame.camera.rays[window][is_read] * own[is_read][:, None]
    lowest = float(np.percentile(support.height(points), 2))
    noise = 3.0 * float(frame.depth_std(sighting.placement.position[2]))
    if lowest < _LIFTED + noise:
        return False
    columns = np.flatnonzero(is_read.any(axis=0))
    edge, bottom = _lower_edge(own[:, columns])
    steps = np.maximum(1, np.round(_BELOW * frame.shape[0] / 480).astype(int))
    rows = window[0].start + bottom[:, None] + steps
    is_cut = rows[:, 0] >= frame.shape[0]
    below = frame.depth[np.minimum(rows, frame.shape[0] - 1),
                        window[1].start + columns[:, None]]
    below[rows >= frame.shape[0]] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', RuntimeWarning)  # a column without readings is no air
        is_air = np.nanmedian(below, axis=1) - edge > _JUMP + noise
    return bool(is_air.mean() > _AIR or is_cut.mean() > _AIR and lowest > _CUT_LIFTED)


def _lower_edge(own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the depth at the lower end of each column of readings (h, n), and its row there."""
    bottom = len(own) - 1 - np.argmax(np.isfinite(own)[::-1], axis=0)
    rows = np.maximum(bottom[:, None] - np.arange(4), 0)
    return np.nanmedian(own[rows, np.arange(own.shape[1])[:, None]], axis=1), bottom
