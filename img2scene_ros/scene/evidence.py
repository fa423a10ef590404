# SPDX-License-Identifier: Apache-2.0
"""What a depth image says of objects: where they are seen, hidden, seen through, or moved."""

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from functools import cached_property

import cv2
import numpy as np

from img2scene_ros.depth import measured
from img2scene_ros.scene.surface import SAMPLES
from img2scene_ros.scene.surface import SampledSurface
from img2scene_ros.types import Frame

# Metres beyond the noise by which a reading is behind a surface, or of something before it.
_MARGIN, _NEARER = 0.005, 0.025
# Shares: of the samples in the picture, below which an object is out of view; of those not hidden,
# above which it is seen through; of those in view, that have to be unhidden to tell.
_IN_VIEW, _THROUGH, _UNHIDDEN = 0.5, 0.6, 0.3
_FEWEST = 10  # samples that tell anything
# Change of a reading by which it is of something else, and distance of one that tells nothing of a
# surface [m].
_OUTLIER, _CONTRADICTED = 0.1, 0.015
# Cosine of surface and view below which half a pixel aside is another depth, or another thing:
# readings there tell no motion, and see through nothing.
_GRAZING = 0.3
LATERAL_STD = 0.5  # pixels by which readings are off sideways
# Steps down and right to readings that are averaged with one, and with those on the other side, in
# pixels at a picture width of 320; how much noisier their mean may be at first, in so many steps
# of a robust fit.
_DOWN, _RIGHT = np.array([[0, 1, 1, 1], [1, -1, 0, 1]])
_WIDTH, _FIRST_SCALE, _STEPS = 320, 3.0, 2
# Readings of what rests that are averaged; metres by which they change then at most, and radians
# between two views from one side.
_MOST_AVERAGED, _STEADY, SAME_SIDE = 10, 0.01, np.radians(5.0)
SWERVE = 0.002  # metres, and radians times levers, by which things are not where they were to be
_SHAPE = 0.003  # metres per radian by which a mesh seems to move that is seen from elsewhere
# Share of the information by which motions are held that a shape does not show.
_UNDETERMINED = 1e-4 * np.eye(6)


@dataclass(frozen=True, eq=False)
class Seen:
    """
    What is read where the surface of an object should be seen, at N of its samples.

    - pose: (4, 4) camera from object
    - margin: metres by which a reading may be off a surface that it lies on
    - worth: share of the readings around each sample that are not those of others, too
    - in_view: share in the picture of the samples on the side to the camera
    - samples: (N,) int, which samples these are; rows, columns: (N,) int, their pixels
    - points, normals: (3, N) metres, optical frame
    - slope: (N,) the way along normals to outside that a metre of depth is worth, < 0
    - std: (N,) metres by which noise moves a mean of readings along the ray
    - behind: (N,) metres by which that is behind them; NaN where something is nearer or nothing is
      read
    - steep: (N,) bool, those whose surface is not seen at too small an angle to tell much
    - nearer: (N,) bool, those that something else hides, or the robot
    - owned: (N,) bool, those in the pixels that show the object
    """

    pose: np.ndarray
    margin: float
    worth: float
    in_view: float
    samples: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    points: np.ndarray
    normals: np.ndarray
    slope: np.ndarray
    std: np.ndarray
    behind: np.ndarray
    steep: np.ndarray
    nearer: np.ndarray
    owned: np.ndarray

    @cached_property
    def eye(self) -> np.ndarray:
        """Return the way to the camera, (3,) unit, object frame."""
        away = self.pose[:3, 3] @ self.pose[:3, :3]
        return -away / np.linalg.norm(away)

    @property
    def within(self) -> np.ndarray:
        """Return the metres along normals by which readings are inside, from any side, (N,)."""
        return -self.behind * self.slope

    @property
    def lies(self) -> np.ndarray:
        """Tell which samples lie on readings, (N,) bool."""
        return np.abs(self.behind) < self.margin

    @property
    def confirmed(self) -> float:
        """Return the share of what is seen of the surface that is not seen through."""
        seen = np.count_nonzero(self.behind >= -self.margin)
        return 1.0 - np.count_nonzero(self.behind > self.margin) / seen if seen else 0.0

    @property
    def missed_share(self) -> float:
        """Return the share of the readings on the object that are not in its pixels."""
        lies = self.lies
        count = np.count_nonzero(lies)
        return np.count_nonzero(lies & ~self.owned) / count if count >= _FEWEST else 0.0

    @property
    def hidden_share(self) -> float:
        """Return the share of what should be seen of the object that something nearer hides."""
        return np.count_nonzero(self.nearer & ~self.owned) / max(1, len(self.samples))

    def state(self, off: float) -> str:
        """
        Tell what became of the object: 'visible', 'hidden', 'out_of_view' or 'lost'.

        It is lost where the readings see through it. Where they lie on it, it is there, whether
        it was detected or not.

        :param off: metres by which its place may be off
        """
        count, unhidden = len(self.samples), np.count_nonzero(np.isfinite(self.behind))
        through = np.count_nonzero(self.behind > self.margin + off)
        if unhidden >= max(_FEWEST, _UNHIDDEN * count) and through > _THROUGH * unhidden:
            return 'lost'
        if self.in_view < _IN_VIEW or count == 0:
            return 'out_of_view'
        return 'hidden' if unhidden < 0.5 * count else 'visible'


@dataclass(eq=False)
class Base:
    """
    How readings lie on the samples of an object that rests: a mean of the first ones.

    From another side they lie otherwise, as no mesh is quite like the thing.

    - within: (SAMPLES,) metres along normals by which readings were inside of them, or NaN
    - count: how many were averaged, and eye: (3,) from which side, object frame
    """

    within: np.ndarray = field(default_factory=lambda: np.full(SAMPLES, np.nan))
    count: int = 0
    eye: np.ndarray = field(default_factory=lambda: np.zeros(3))

    @classmethod
    def begun(cls, seen: Seen) -> 'Base':
        """Return that of a view."""
        base = cls(count=1, eye=seen.eye)
        base.within[seen.samples] = seen.within
        return base

    def turned(self, seen: Seen) -> float:
        """Return by how much a view is turned from this side, radians, or nearly so."""
        return float(np.linalg.norm(seen.eye - self.eye))

    def learned(self, seen: Seen) -> 'Base':
        """Return what it is after one more view."""
        if self.turned(seen) > SAME_SIDE:
            return Base.begun(seen)
        within = seen.within
        before = self.within[seen.samples]
        before = np.where(np.isnan(before), within, before)
        self.count += 1
        change = within - before
        if self.count <= _MOST_AVERAGED:
            before += np.where(np.abs(change) < _STEADY, change / self.count, 0.0)
        self.within[seen.samples] = before
        return self


def compared(
    surfaces: Sequence[SampledSurface], places: Sequence[np.ndarray], poses: np.ndarray,
    frame: Frame, owners: np.ndarray | None = None,
) -> list[Seen]:
    """
    Compare samples of surfaces with what is read where they should be seen.

    :param surfaces: O of them, and places: (S, 3) metres each, where their samples are
    :param poses: (O, 4, 4) camera from object
    :param owners: (H, W) int, which object a pixel shows, or -1
    """
    whose, samples, points, normals, pixels, in_view = _visible(surfaces, places, poses, frame)
    columns, rows = np.rint(pixels).astype(int)
    z, focal, apart = poses[:, 2, 3], frame.camera.fx, max(1, round(frame.shape[1] / _WIDTH))
    std, lateral = frame.depth_std(z), LATERAL_STD * z / focal
    rays = points / points[2]
    square = (rays * rays).sum(axis=0)
    slope, least = (normals * rays).sum(axis=0), -_GRAZING * np.sqrt(square)
    steep, slope = slope < least, np.minimum(slope, least)
    # Readings are off along the ray and sideways.
    across = np.maximum(square / slope ** 2 - 1.0, 0.0)
    noise = np.sqrt(std[whose] ** 2 + lateral[whose] ** 2 * across)
    behind = np.full(len(whose), np.nan)
    nearer, owned = np.zeros((2, len(whose)), bool)
    if frame.depth is not None:
        depth, count = averaged(frame, rows, columns)
        behind = depth - _depth_of_planes(frame, pixels, points[2], normals[:2] / slope)
        noise /= np.sqrt(count)
        nearer |= behind < -(_NEARER + 3.0 * std)[whose]
        behind[nearer] = np.nan
    if frame.robot is not None:
        nearer |= frame.robot[rows, columns]
    if owners is not None:
        owned = owners[rows, columns] == whose
    worth = np.minimum(
        1.0, [one.spacing * focal / (3.0 * apart) for one in surfaces] / z) ** 2
    ends = np.searchsorted(whose, np.arange(len(poses) + 1))
    return [
        Seen(poses[one], _MARGIN + 3.0 * std[one], worth[one], in_view[one], *(
            some[..., start:end] for some in (
                samples, rows, columns, points, normals, slope, noise, behind, steep, nearer,
                owned)))
        for one, (start, end) in enumerate(zip(ends, ends[1:]))]


def _visible(
    surfaces: Sequence[SampledSurface], places: Sequence[np.ndarray], poses: np.ndarray,
    frame: Frame,
) -> tuple[np.ndarray, ...]:
    """
    Find the samples that face the camera and lie in the picture, N of them.

    :return: (N,) which object they are of, in order, and which sample; (3, N) where they are and
        (3, N) their normals, optical frame; (2, N) columns and rows of the picture; (O,) which
        share of those that face the camera they are
    """
    facing, points, normals = [], [], []
    for surface, own, pose in zip(surfaces, places, poses):
        turn, origin = pose[:3, :3], pose[:3, 3]
        some = np.flatnonzero(surface.smooth_normals @ (origin @ turn) < -surface.heights)
        facing.append(some)
        points.append(turn @ own.take(some, 0).T + origin[:, None])
        normals.append(turn @ surface.smooth_normals.take(some, 0).T)
    count, every = [len(some) for some in facing], np.concatenate(points, axis=1)
    pixels = frame.camera.project(every.T).T
    size = np.array(frame.shape[::-1])[:, None]
    inside = np.flatnonzero(((pixels > -0.5) & (pixels < size - 0.5)).all(axis=0))
    whose = np.repeat(np.arange(len(poses)), count)[inside]
    in_view = np.bincount(whose, minlength=len(poses)) / np.maximum(count, 1)
    return (whose, np.concatenate(facing)[inside], every.take(inside, 1),
            np.concatenate(normals, axis=1).take(inside, 1), pixels.take(inside, 1), in_view)


def _depth_of_planes(
    frame: Frame, pixels: np.ndarray, z: np.ndarray, tilt: np.ndarray,
) -> np.ndarray:
    """
    Return at which depth pixels see the planes of the samples that are nearest to them, (N,).

    :param pixels: (2, N) columns and rows of the samples, at z: (N,) metres
    :param tilt: (2, N), normals, (x, y), by the way along them that a metre of depth is
    """
    across, down = tilt * (np.rint(pixels) - pixels)
    return z / (1.0 + across / frame.camera.fx + down / frame.camera.fy)


def averaged(
    frame: Frame, rows: np.ndarray, columns: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """
    Return means of the depths at pixels and around them, metres, and of how many readings.

    The inverse of the depth of a plane is linear in the pixels: the mean of two readings on
    opposite sides of a third is the same, however steep it is. Beside edges it is not, and they
    are left out.

    :param rows, columns: (...) int; what is returned has the same shape, NaN where nothing is read
    """
    own = 1.0 / measured(frame.depth)[rows, columns]
    apart = max(1, round(frame.shape[1] / _WIDTH))
    inverse = cv2.copyMakeBorder(
        frame.inverse_depth, *(apart,) * 4, cv2.BORDER_CONSTANT, value=0.0)
    at = (rows + apart) * inverse.shape[1] + columns + apart
    step = (apart * (_DOWN * inverse.shape[1] + _RIGHT)).reshape(-1, *(1,) * rows.ndim)
    off = 0.5 * (inverse.take(at + step) + inverse.take(at - step)) - own
    near = np.abs(off) < (4.0 * frame.depth_std(1.0 / own)).astype(np.float32) * own ** 2
    count = 1.0 + 2.0 * np.count_nonzero(near, axis=0)
    return 1.0 / (own + 2.0 * (off * near).sum(axis=0) / count), count


def moved_by(
    seen: Sequence[Seen], bases: Sequence[Base], steps: Sequence[np.ndarray],
) -> np.ndarray:
    """
    Tell how far readings are from what they were if the objects rested, and if they went on.

    :param seen: O of them, and bases: what was read of them before
    :param steps: (2, 3) metres, then radians, along the optical axes: how they go on
    :return: (O, 2) squares of the motions beside these that explain changes best, in deviations
        of what noise and the shape of meshes would do, for each of six degrees of freedom: the F
        statistics; NaN where too little is seen at both times
    """
    found = np.full((len(seen), 2), np.nan)
    if not seen:
        return found
    behind, slope, steep = (np.concatenate(some) for some in zip(*(
        (one.behind, one.slope, one.steep) for one in seen)))
    inside = np.concatenate([base.within.take(one.samples) for one, base in zip(seen, bases)])
    std = np.concatenate([
        one.std * np.sqrt(1.0 + 1.0 / max(1, base.count)) for one, base in zip(seen, bases)])
    change = behind + inside / slope
    is_used = steep & (np.abs(change) < _OUTLIER) & (np.abs(inside) < _CONTRADICTED)
    whose = np.repeat(np.arange(len(seen)), [len(one.samples) for one in seen])
    counts = np.bincount(whose, is_used, len(seen)).astype(int)
    enough = np.flatnonzero(counts >= 2 * _FEWEST)
    if not len(enough):
        return found
    used, counts = np.flatnonzero(is_used & np.isin(whose, enough)), counts[enough]
    points, normals = (np.concatenate(some, axis=1).take(used, 1) for some in zip(*(
        (one.points, one.normals) for one in seen)))
    motion, error, center, arm = _best_motions(
        points, normals / (slope[used] * std[used]), change[used] / std[used], counts)
    worth = np.array([seen[one].worth for one in enough])
    shape = np.array([_SHAPE * bases[one].turned(seen[one]) for one in enough])
    error = error / worth[:, None, None] + (shape ** 2)[:, None, None] * np.eye(6)
    way, turn = np.stack([steps[one] for one in enough]).reshape(-1, 2, 3).swapaxes(0, 1)
    way = way + np.cross(turn, center - [seen[one].pose[:3, 3] for one in enough])
    found[enough, 0] = _statistic(motion, error)
    found[enough, 1] = _statistic(
        motion - np.hstack([way, arm[:, None] * turn]), error + SWERVE ** 2 * np.eye(6))
    return found


def _statistic(off: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Return the mean square of deviations, (O, 6), along the axes of their covariances, (O,)."""
    return (off * np.linalg.solve(covariance, off[..., None])[..., 0]).sum(axis=1) / 6.0


def _best_motions(
    points: np.ndarray, directions: np.ndarray, change: np.ndarray, counts: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """
    Return the small motions that explain changes best, (O, 6), and their covariances, (O, 6, 6).

    They are metres of the points' centers, and radians times the root mean square of the arms from
    these: (O, 3) and (O,) metres, which are returned, too.

    :param points: (3, N) metres, and directions: (3, N), in which a metre is so many deviations
    :param change: (N,) deviations
    :param counts: (O,) how many of these are of each object, one object after the other
    """
    ends = np.cumsum(counts)
    parts = [slice(end - count, end) for end, count in zip(ends, counts)]

    def total(values: np.ndarray) -> np.ndarray:
        return np.add.reduceat(values, ends - counts, axis=-1)

    center = total(points) / counts
    arms = points - center.repeat(counts, axis=1)
    arm = np.sqrt(total((arms * arms).sum(axis=0)) / counts)
    arms /= arm.repeat(counts)
    (x, y, z), (a, b, c) = arms, directions
    motion = np.stack([a, b, c, y * c - z * b, z * a - x * c, x * b - y * a])
    left: np.ndarray = change
    scale: np.ndarray = np.full(len(counts), _FIRST_SCALE)
    for _ in range(_STEPS):
        weights = 1.0 / (1.0 + (left / (3.0 * scale).repeat(counts)) ** 2)  # Cauchy's
        weighted = motion * weights
        information = np.stack([weighted[:, part] @ motion[:, part].T for part in parts])
        information += _UNDETERMINED * information.trace(axis1=1, axis2=2)[:, None, None]
        step = np.linalg.solve(information, total(weighted * change).T[..., None])[..., 0]
        left = change - (motion * step.T.repeat(counts, axis=1)).sum(axis=0)
        scale = np.maximum(1.0, [_median(np.abs(left[part])) / 0.6745 for part in parts])
    return step, np.linalg.inv(information) * (scale ** 2)[:, None, None], center.T, arm


def _median(values: np.ndarray) -> float:
    return float(np.partition(values, len(values) // 2)[len(values) // 2])
