# SPDX-License-Identifier: Apache-2.0
"""What a depth image says of an object that was not detected, and of what floats before it."""

import warnings
from dataclasses import dataclass

import numpy as np

from img2scene_ros.types import Frame
from img2scene_ros.types import ObjectModel
from img2scene_ros.types import Sighting
from img2scene_ros.types import SupportPlane

_SAMPLES = 200  # points on a mesh that are looked for
_MARGIN = 0.005  # metres beyond the noise by which a reading is nearer or farther than expected
# Shares: of the points in the picture, below which an object is out of view; of those not hidden,
# above which it is seen through; of those in view, that have to be unhidden to tell.
_IN_VIEW, _THROUGH, _UNHIDDEN = 0.5, 0.6, 0.3
_FEWEST = 10  # points that tell anything
# Change of a reading by which it is of something else [m]; least cosine of surface and view.
_OUTLIER, _GRAZING = 0.1, 0.2
# What floats: height of its lowest readings above the support, and of those of what the border
# cuts [m]; depth jump below its lower edge [m]; share of its columns that show air there.
_LIFTED, _CUT_LIFTED, _JUMP, _AIR = 0.03, 0.1, 0.03, 0.6
_BELOW = np.arange(3, 25, 3)  # pixels below the lower edge, at a picture height of 480


@dataclass(frozen=True, eq=False)
class SurfacePoints:
    """Points on a mesh in its object frame, (N, 3) metres, and the normals there, (N, 3)."""

    points: np.ndarray
    normals: np.ndarray


def sampled(model: ObjectModel) -> SurfacePoints:
    """Return points that are spread evenly over a model's surface."""
    corners = model.vertices[model.faces].astype(float)
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    areas = np.linalg.norm(across, axis=1)
    points, face = spread(corners, areas, _SAMPLES)
    return SurfacePoints(points, across[face] / np.maximum(areas[face, None], 1e-12))


def spread(
    triangles: np.ndarray, areas: np.ndarray, count: int,
) -> tuple[np.ndarray, np.ndarray]:
    """
    Spread points evenly over triangles.

    :param triangles: (F, 3, 3) metres, and areas: (F,) in any unit
    :return: points (count, 3), metres, and the triangle of each, (count,)
    """
    ends, number = np.cumsum(areas), np.arange(count) + 0.5
    face = np.searchsorted(ends, number / count * ends[-1])
    # The R2 sequence, as even in two dimensions as the golden ratio makes it in one.
    u, v = (number * 0.7548776662) % 1.0, (number * 0.5698402910) % 1.0
    u, v = np.where(u + v > 1.0, (1.0 - u, 1.0 - v), (u, v))
    a, b, c = np.moveaxis(triangles[face], 1, 0)
    return a + u[:, None] * (b - a) + v[:, None] * (c - a), face


def seen_points(surface: SurfacePoints, pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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
    - behind: (S,) metres by which readings are behind all points of the surface; NaN for those
      that are hidden, not in the picture or on the far side
    """

    in_view: float
    hidden: np.ndarray
    nearer: np.ndarray
    through: np.ndarray
    behind: np.ndarray

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


def expected(surface: SurfacePoints, pose: np.ndarray, frame: Frame, std: float) -> Expected:
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
    behind = np.full(len(points), np.nan)
    behind[np.flatnonzero(faces)[inside]] = np.where(hidden, np.nan, read - depth)
    return Expected(in_view, hidden, nearer, ~hidden & (read > depth + margin), behind)


def moved_by(
    surface: SurfacePoints, pose: np.ndarray, change: np.ndarray, std: float,
) -> float:
    """
    Tell how much of what changed in the readings is a motion of the object.

    :param pose: (4, 4) camera from object
    :param change: (S,) metres by which readings went back at the points of the surface, or NaN
    :param std: metres, of one reading
    :return: chi-squared of the best small motion, of six degrees of freedom; NaN where too little
        is seen at both times
    """
    seen = np.isfinite(change) & (np.abs(change) < _OUTLIER)
    if np.count_nonzero(seen) < 2 * _FEWEST:
        return np.nan
    points = surface.points[seen] @ pose[:3, :3].T + pose[:3, 3]
    normals = surface.normals[seen] @ pose[:3, :3].T
    rays = points / points[:, 2:]
    slope = (normals * rays).sum(axis=1)
    slope = np.minimum(slope, -_GRAZING * np.linalg.norm(rays, axis=1))
    arms = points - points.mean(axis=0)
    motion = np.column_stack([normals, np.cross(arms, normals)]) / slope[:, None]
    weights = 1.0 / (1.0 + (change[seen] / (3.0 * std)) ** 2)  # Cauchy's, against edges
    step = np.linalg.lstsq(motion * weights[:, None], change[seen] * weights, rcond=1e-2)[0]
    explained = (change[seen] ** 2 - (change[seen] - motion @ step) ** 2) * weights
    return float(explained.sum() / (2.0 * std ** 2))


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
