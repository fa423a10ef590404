# SPDX-License-Identifier: Apache-2.0
"""What a depth image says of an object that was not detected, and of what floats before it."""

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
# What floats: height of its lowest readings above the support, and of those of what the border
# cuts [m]; depth jump below its lower edge [m]; shares of its columns that show air, or a touch.
_LIFTED, _CUT_LIFTED, _JUMP, _AIR, _TOUCH = 0.03, 0.1, 0.03, 0.5, 0.1
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
    random = np.random.default_rng(0)
    face = np.searchsorted(np.cumsum(areas), random.random(_SAMPLES) * areas.sum())
    face = np.minimum(face, len(areas) - 1)
    weights = random.dirichlet((1.0, 1.0, 1.0), _SAMPLES)
    points = np.einsum('nc,nci->ni', weights, corners[face])
    return SurfacePoints(points, across[face] / np.maximum(areas[face, None], 1e-12))


def visible_points(surface: SurfacePoints, pose: np.ndarray) -> np.ndarray:
    """
    Return the points on the side towards the camera, (N, 3) metres, optical frame.

    :param pose: (4, 4) camera from object
    """
    points = surface.points @ pose[:3, :3].T + pose[:3, 3]
    normals = surface.normals @ pose[:3, :3].T
    return points[(normals * points).sum(axis=1) < 0.0]


def pixels_of(points: np.ndarray, frame: Frame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return which points, (N,) bool, lie in the picture, and the rows and columns of those."""
    pixels = np.nan_to_num(frame.camera.project(points), nan=-1.0, posinf=-1.0, neginf=-1.0)
    columns, rows = np.round(np.clip(pixels, -1, 1e6)).astype(int).T
    inside = ((columns >= 0) & (columns < frame.shape[1]) & (rows >= 0)
              & (rows < frame.shape[0]) & (points[:, 2] > 0.0))
    return inside, rows[inside], columns[inside]


def state_of(surface: SurfacePoints, pose: np.ndarray, frame: Frame, std: float) -> str:
    """
    Tell what a frame shows at the place of an object: 'visible', 'hidden', 'out_of_view', 'lost'.

    It is lost where the readings see through it. Behind something nearer, the robot, or missing
    readings it is hidden. Where the readings lie on it, it is there, detected or not.

    :param pose: (4, 4) camera from object
    :param std: metres by which the place may be off
    """
    points = visible_points(surface, pose)
    inside, rows, columns = pixels_of(points, frame)
    if frame.depth is None or np.count_nonzero(inside) < _FEWEST:
        return 'hidden' if inside.mean() > _IN_VIEW else 'out_of_view'
    expected, read = points[inside, 2], frame.depth[rows, columns]
    margin = _MARGIN + 3.0 * frame.depth_std(expected) + std
    is_hidden = ~np.isfinite(read) | (read < expected - margin)
    if frame.robot is not None:
        is_hidden |= frame.robot[rows, columns]
    unhidden = read[~is_hidden] > (expected + margin)[~is_hidden]
    if (len(unhidden) >= max(_FEWEST, _UNHIDDEN * len(read)) and unhidden.mean() > _THROUGH):
        return 'lost'
    if inside.mean() < _IN_VIEW:
        return 'out_of_view'
    return 'hidden' if is_hidden.mean() > 0.5 else 'visible'


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
    first = np.argmax(np.isfinite(below), axis=1)  # the edge itself may have no readings
    jump = below[np.arange(len(below)), first] - edge
    is_air, touches = jump > _JUMP + noise, np.abs(jump) <= _JUMP + noise  # not where NaN
    if touches.mean() > _TOUCH:
        return False
    return bool(is_air.mean() > _AIR or is_cut.mean() > _AIR and lowest > _CUT_LIFTED)


def _lower_edge(own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the depth at the lower end of each column of readings (h, n), and its row there."""
    bottom = len(own) - 1 - np.argmax(np.isfinite(own)[::-1], axis=0)
    rows = np.maximum(bottom[:, None] - np.arange(4), 0)
    return np.nanmedian(own[rows, np.arange(own.shape[1])[:, None]], axis=1), bottom
