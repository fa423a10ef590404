# SPDX-License-Identifier: Apache-2.0
"""What a depth image says of objects: where they are seen, hidden, seen through, or moved."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from img2scene_ros.depth import measured
from img2scene_ros.scene.poses import moved_points
from img2scene_ros.scene.poses import transposed
from img2scene_ros.types import Frame

# Metres beyond the noise by which a reading is behind a surface, or of something before it.
_MARGIN, _NEARER = 0.005, 0.025
# Shares: of the samples in the picture, below which an object is out of view; of those not hidden,
# above which it is seen through; of those in view, that have to be unhidden to tell.
_IN_VIEW, _THROUGH, _UNHIDDEN = 0.5, 0.6, 0.3
_FEWEST = 10  # samples that tell anything
# Change of a reading by which it is of something else, and distance of one that tells nothing of a
# surface [m]; least cosine of surface and view.
_OUTLIER, _CONTRADICTED, _GRAZING = 0.1, 0.015, 0.2
LATERAL_STD = 0.5  # pixels by which readings are off sideways
# Readings around each sample that are averaged, rows and columns; how many times their mean is
# less noisy; and how much noisier it may be at first, in so many steps of a robust fit.
_AROUND = np.stack(np.meshgrid((-1, 0, 1), (-1, 0, 1)), axis=-1).reshape(9, 2)
_AVERAGED, _FIRST_SCALE, _STEPS = 3.0, 3.0, 2


@dataclass(frozen=True, eq=False)
class Seen:
    """
    What is read where the surfaces of objects should be seen: O of them, with S samples each.

    - poses: (O, 4, 4) camera from object
    - points, normals: (O, S, 3) metres, optical frame
    - in_view: (O,) share in the picture of the samples on the side to the camera
    - inside: (O, S) bool, these; rows, columns: (O, S) int, their pixels
    - nearer: (O, S) bool, those that something else hides, or the robot
    - behind: (O, S) metres by which readings are behind those in the picture; NaN where something
      is nearer or nothing is read
    - owned: (O, S) bool, those in the pixels that show the object
    - std: (O,) metres, of one reading, and lateral: (O, 1), sideways
    - worth: (O,) share of the readings around each sample that are not those of others, too
    """

    poses: np.ndarray
    points: np.ndarray
    normals: np.ndarray
    in_view: np.ndarray
    inside: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    nearer: np.ndarray
    behind: np.ndarray
    owned: np.ndarray
    std: np.ndarray
    lateral: np.ndarray
    worth: np.ndarray

    @cached_property
    def slope(self) -> np.ndarray:
        """Return the way along normals to outside that a metre of depth is worth, (O, S), < 0."""
        rays = self.points / self.points[..., 2:]
        slope = np.einsum('osi,osi->os', self.normals, rays)
        return np.minimum(slope, -_GRAZING * np.linalg.norm(rays, axis=2))

    @property
    def within(self) -> np.ndarray:
        """Return the metres along normals by which readings are inside, from any side, (O, S)."""
        return -self.behind * self.slope

    @property
    def margin(self) -> np.ndarray:
        """Return the metres by which a reading may be off a surface that it lies on, (O, 1)."""
        return (_MARGIN + 3.0 * self.std)[:, None]

    @property
    def confirmed(self) -> np.ndarray:
        """Return the share of what is seen of each surface that is not seen through, (O,)."""
        seen = np.count_nonzero(self.behind >= -self.margin, axis=1)
        through = np.count_nonzero(self.behind > self.margin, axis=1)
        return np.where(seen > 0, 1.0 - through / np.maximum(seen, 1), 0.0)

    def state(self, index: int, off: float) -> str:
        """
        Tell what became of an object: 'visible', 'hidden', 'out_of_view' or 'lost'.

        It is lost where the readings see through it. Where they lie on it, it is there, whether
        it was detected or not.

        :param off: metres by which its place may be off
        """
        count = np.count_nonzero(self.inside[index])
        unhidden = np.count_nonzero(np.isfinite(self.behind[index]))
        through = np.count_nonzero(self.behind[index] > self.margin[index] + off)
        if unhidden >= max(_FEWEST, _UNHIDDEN * count) and through > _THROUGH * unhidden:
            return 'lost'
        if self.in_view[index] < _IN_VIEW or count == 0:
            return 'out_of_view'
        return 'hidden' if unhidden < 0.5 * count else 'visible'

    def pixels(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows and columns of the samples of an object in the picture."""
        return self.rows[index][self.inside[index]], self.columns[index][self.inside[index]]

    def lies(self, index: int) -> np.ndarray:
        """Tell which samples of an object lie on readings, (S,) bool."""
        return np.abs(self.behind[index]) < self.margin[index]

    def missed_share(self, index: int) -> float:
        """Return the share of what is read of an object where it was that its pixels leave out."""
        missed = ~self.owned[index][self.lies(index)]
        return float(missed.mean()) if len(missed) >= _FEWEST else 0.0

    def hidden_share(self, index: int) -> float:
        """Return the share of what should be seen of an object that something nearer hides."""
        hidden = np.count_nonzero(self.nearer[index] & ~self.owned[index])
        return hidden / max(1, np.count_nonzero(self.inside[index]))


def pixels_of(points: np.ndarray, frame: Frame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return which points, (..., 3) metres, lie in the picture, and their rows and columns."""
    pixels = np.nan_to_num(frame.camera.project(points.reshape(-1, 3)), nan=-1.0, posinf=-1.0,
                           neginf=-1.0).reshape(*points.shape[:-1], 2)
    columns, rows = np.moveaxis(np.round(np.clip(pixels, -1, 1e6)).astype(int), -1, 0)
    inside = ((columns >= 0) & (columns < frame.shape[1]) & (rows >= 0)
              & (rows < frame.shape[0]) & (points[..., 2] > 0.0))
    return inside, rows, columns


def compared(
    places: np.ndarray, normals: np.ndarray, spacing: np.ndarray, poses: np.ndarray, frame: Frame,
    owners: np.ndarray | None = None,
) -> Seen:
    """
    Compare samples of surfaces with what is read where they should be seen.

    :param places: (O, S, 3) metres and normals: (O, S, 3), object frames
    :param spacing: (O,) metres between the samples, over which readings are averaged
    :param poses: (O, 4, 4) camera from object
    :param owners: (H, W) int, which object a pixel shows, or -1
    """
    points, normals = moved_points(poses, places), normals @ transposed(poses[:, :3, :3])
    faces = np.einsum('osi,osi->os', normals, points) < 0.0
    inside, rows, columns = pixels_of(points, frame)
    inside &= faces
    in_view = np.count_nonzero(inside, axis=1) / np.maximum(np.count_nonzero(faces, axis=1), 1)
    std = frame.depth_std(poses[:, 2, 3])
    behind, nearer, owned = (np.full(faces.shape, fill) for fill in (np.nan, False, False))
    at = rows[inside], columns[inside]
    if frame.depth is not None:
        behind[inside] = _averaged(frame, at, points[inside], normals[inside], (
            spacing / poses[:, 2, 3])[np.nonzero(inside)[0]])
        nearer = behind < -(_NEARER + 3.0 * std)[:, None]
        behind[nearer] = np.nan
    if frame.robot is not None:
        nearer[inside] |= frame.robot[at]
    if owners is not None:
        owned[inside] = owners[at] == np.nonzero(inside)[0]
    return Seen(
        poses, points, normals, in_view, inside, rows, columns, nearer, behind, owned, std,
        LATERAL_STD * poses[:, 2, 3:] / frame.camera.fx,
        np.clip(spacing * frame.camera.fx / poses[:, 2, 3] / 3.0, 0.0, 1.0) ** 2)


def _averaged(
    frame: Frame, at: tuple[np.ndarray, np.ndarray], points: np.ndarray, normals: np.ndarray,
    width: np.ndarray,
) -> np.ndarray:
    """
    Return metres by which readings are behind samples, (N,): means over their surroundings.

    :param at: (N,) rows and columns of the samples, at points: (N, 3), with normals: (N, 3)
    :param width: (N,) of their surroundings, at a distance of 1
    """
    depth, rays = measured(frame.depth), frame.camera.rays
    apart = np.maximum(1, np.rint(width * frame.camera.fx / 3.0).astype(int))
    beside = [np.minimum(middle + apart, last - 1) for middle, last in zip(at, frame.shape)]
    along, down, right = ((rays[pixels] * normals).sum(axis=1)[:, None] for pixels in (
        at, (beside[0], at[1]), (at[0], beside[1])))
    rows, columns = (
        np.clip(middle[:, None] + apart[:, None] * around, 0, last - 1)
        for middle, around, last in zip(at, _AROUND.T, frame.shape))
    # Rays change evenly over a few pixels.
    plane = (points * normals).sum(axis=1)[:, None] / (
        along + _AROUND[:, 0] * (down - along) + _AROUND[:, 1] * (right - along))
    change = depth.ravel()[rows * frame.shape[1] + columns] - depth[at][:, None] \
        - plane + plane[:, 4:5]
    near = np.abs(change) < 4.0 * frame.depth_std(points[:, 2:])
    mean = (np.where(near, change, 0.0).sum(axis=1)) / np.maximum(near.sum(axis=1), 1)
    return depth[at] - points[:, 2] + mean


def quantile(values: np.ndarray, used: np.ndarray, share: float) -> np.ndarray:
    """Return a quantile of those of the last axis that are used, 0 without any."""
    ordered = np.sort(np.where(used, values, np.inf))
    count = np.count_nonzero(used, axis=-1)
    at = (share * (count - 1)).astype(int).clip(0)
    return np.where(count > 0, np.take_along_axis(ordered, at[..., None], -1)[..., 0], 0.0)


def moved_by(seen: Seen, before: np.ndarray) -> np.ndarray:
    """
    Tell how much of what changed in the readings is a motion of the objects.

    :param before: (O, S) metres along normals by which readings were inside before, or NaN
    :return: how many times more the best small motions explain, for each of their six degrees of
        freedom, than noise: the F statistic, (O,); NaN where too little is seen at both times
    """
    points, normals, slope = seen.points, seen.normals, seen.slope
    change = seen.behind + before / slope
    used = (np.abs(change) < _OUTLIER) & (np.abs(before) < _CONTRADICTED)
    count = np.count_nonzero(used, axis=1)
    # Of an average over many readings, that are off along the ray and sideways.
    std = np.hypot(seen.std[:, None], seen.lateral * np.sqrt(np.clip(
        ((points / points[..., 2:]) ** 2).sum(axis=2) / slope ** 2 - 1.0, 0.0, None))) / _AVERAGED
    middle = (points * used[..., None]).sum(axis=1) / np.maximum(count, 1)[:, None]
    arms = (points - middle[:, None]) * used[..., None]
    lever = np.sqrt((arms ** 2).sum(axis=(1, 2)) / np.maximum(count, 1))[:, None, None]
    arms = arms / np.maximum(lever, 1e-6)
    motion = np.concatenate([normals, np.cross(arms, normals)], axis=2) / (slope * std)[..., None]
    change = np.where(used, change / std, 0.0)
    left: np.ndarray = change
    scale: np.ndarray = np.full((len(change), 1), _FIRST_SCALE)
    for _ in range(_STEPS):
        weights = used / (1.0 + (left / (3.0 * scale)) ** 2)  # Cauchy's, against edges
        weighted = np.swapaxes(motion * weights[..., None], 1, 2)
        step = np.linalg.pinv(weighted @ motion, 1e-4, hermitian=True) @ (
            weighted @ change[..., None])
        left = change - (motion @ step)[..., 0]
        scale = np.maximum(quantile(np.abs(left), used, 0.5)[:, None] / 0.6745, 1.0)
    explained = ((change ** 2 - left ** 2) * weights).sum(axis=1) / scale[:, 0] ** 2
    return np.where(count < 2 * _FEWEST, np.nan, seen.worth * explained / 6.0)
