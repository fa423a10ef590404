# SPDX-License-Identifier: Apache-2.0
"""
Where known objects are now: their models registered to the depth readings of one frame.

Point-to-plane ICP (Chen, Medioni: Object modelling by registration of multiple range images,
ICRA 1991), all objects at once: each of some hundred readings is drawn to the plane of the sample
of the model's surface that is seen nearest to it in the picture (projective association; Blais,
Levine: Registering multiview range data, PAMI 1995), with Tukey's weights. Samples that no
reading has shown yet, such as those of the guessed far side, do not count. Along directions that
readings hardly determine (Zhang, Kaess, Singh: On degeneracy of optimization-based state
estimation problems, ICRA 2016) the outline of the mask and the support tell more, and where an
object was to be.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.special import ndtri

from img2scene_ros.depth import measured
from img2scene_ros.scene.evidence import LATERAL_STD
from img2scene_ros.scene.evidence import SWERVE
from img2scene_ros.scene.evidence import averaged
from img2scene_ros.scene.evidence import compared
from img2scene_ros.scene.poses import difference
from img2scene_ros.scene.poses import moved_points
from img2scene_ros.scene.poses import stepped
from img2scene_ros.scene.poses import transposed
from img2scene_ros.scene.surface import SampledSurface
from img2scene_ros.types import Frame
from img2scene_ros.types import SupportPlane

# Chosen on rendered boxes, bottles and mugs at 0.6 to 1 m.
_READINGS = 256  # of each object
_CONTOUR, _RIM = 64, 128  # places on the outlines of the mask and of the model
_LEAST = 30  # readings without which nothing is said
# Share of the errors whose size is taken for that of noise, in each step of Gauss and Newton:
# at first of many, as what is still to be moved is no outlier.
_FIRST_STEPS = (0.8, 0.65, 0.5, 0.5, 0.5)
_LAST_STEPS = (0.5,) * 4  # of what faces the camera then
# Metres, and radians times the object's radius, at which they end: the first ones, and the last.
_FIRST_SMALL, _LAST_SMALL = 1e-3, 2e-4
_TUKEY = 4.685  # standard deviations at which a reading counts nothing (Huber, Ronchetti 2009)
# Share of the information about the best determined direction that may come of errors in a mesh:
# the bumps of a round thing's give its turn some 0.01. Where readings tell little more of a
# direction they count for as much more; where they tell this share, the outline has no say.
_BUMPS, _CLEAR_SHARE = 0.02, 0.2
_LEAST_SURE = 0.05  # of the object's radius: the standard deviation of what is determined at all
_MODEL_STD = 0.0005  # metres by which the surface of a mesh is off
# Pixels by which the outline of a mask is off, about this many places of it by themselves.
_OUTLINE_STD, _OUTLINE_ALONE = 1.5, 20
_OUTLINE_REACH = 15.0  # pixels between the outlines of mask and model
_UNREAD = np.arange(3.0, 16.0)  # pixels beyond a mask's outline that may be unread
# Least cosine between a surface and the view of it: at first, as it may turn, and at last.
_FIRST_FACING, _LAST_FACING = -0.25, 0.1
_STANDING = 0.01  # metres over the support, and
_UPRIGHT = np.cos(np.radians(8.0))  # lean, up to which a thing stands on it
_HEIGHT_STD, _TILT_STD = 0.002, np.radians(0.5)  # of what stands: metres, radians
_EXPLAINED = 3.0  # standard deviations of a reading from the model that explains it
_BORDER, _WIDEST = 3, 80  # cells around a model in the picture of its samples, and across it


@dataclass(frozen=True, eq=False)
class Sought:
    """
    An object that is looked for.

    - surface: of its mesh
    - pose: (4, 4), where it may be: takes object to optical coordinates
    - window: rows and columns of the picture, and mask: (h, w) bool, the pixels there that show it
    - places: (S, 3) metres, object frame, where the samples of the surface are, as far as readings
      told, and known: (S,) bool, of which samples they told
    - swerve: metres, and radians times levers, by which it may not be where it was to be
    """

    surface: SampledSurface
    pose: np.ndarray
    window: tuple[slice, slice]
    mask: np.ndarray
    places: np.ndarray
    known: np.ndarray
    swerve: float = SWERVE


@dataclass(frozen=True, eq=False)
class Registered:
    """
    A model's pose as one frame shows it.

    - pose: (4, 4), takes object to optical coordinates
    - covariance: (6, 6) of the translation of the object's origin along, then of the rotation
      about the optical axes x, y and z, metres and radians; along directions that the frame does
      not determine, in which the pose keeps its value, as large as the object
    - fit: 0 to 1, share of the readings that the model explains, or of the seen part of the model
      that readings confirm, whichever is less; what something nearer hides does not count
    - residual: metres, median distance of the readings from the model; NaN where there are too few
    """

    pose: np.ndarray
    covariance: np.ndarray
    fit: float
    residual: float


def registered(frame: Frame, sought: Sequence[Sought]) -> list[Registered]:
    """
    Find the poses at which models fit the readings of a frame, near poses where they may be.

    One that stands upright on the frame's support stays so while readings do not contradict.

    :raises InputError: the frame has no depth image
    """
    if not sought:
        return []
    depth = measured(frame.depth)
    pixels = [_read_pixels(one, depth) for one in sought]
    found = [_unknown(one) for one in sought]
    enough = [index for index, read in enumerate(pixels) if len(read) >= _LEAST]
    if enough:
        batch = _Batch([sought[index] for index in enough])
        for index, one in zip(enough, _all_registered(
                batch, frame, [pixels[index] for index in enough])):
            found[index] = one
    return found


def _read_pixels(one: Sought, depth: np.ndarray) -> np.ndarray:
    """Return the indices of pixels of an object that are read, in the flattened picture."""
    rows, columns = one.window
    inside, across = np.divmod(
        np.flatnonzero(one.mask & np.isfinite(depth[one.window])), one.mask.shape[1])
    return (inside + rows.start) * depth.shape[1] + across + columns.start


def _unknown(one: Sought) -> Registered:
    surface = one.surface
    variance = np.repeat((surface.radius ** 2, 1.0), 3)
    return Registered(one.pose, np.diag(variance), 0.0, np.nan)


class _Batch:
    """Objects that are looked for, side by side: O of them, with S samples each."""

    def __init__(self, sought: list[Sought]) -> None:
        self.sought = sought
        surfaces = [one.surface for one in sought]
        self.pose = np.stack([one.pose for one in sought])
        self.held = np.array([[one.swerve ** -2] for one in sought])
        self.mesh = np.stack([surface.points for surface in surfaces])
        self.places = np.stack([one.places for one in sought])
        self.known = np.stack([one.known for one in sought])
        self.normals = np.stack([surface.smooth_normals for surface in surfaces])
        self.beyond_edge = np.stack([surface.beyond_edge for surface in surfaces])
        self.variance = _MODEL_STD ** 2 + np.stack([surface.bends for surface in surfaces]) ** 2
        self.spacing = np.array([surface.spacing for surface in surfaces])
        self.radius = np.array([surface.radius for surface in surfaces])
        self.values, self.axes = np.linalg.eigh([surface.inertia for surface in surfaces])

    @property
    def least_information(self) -> np.ndarray:
        """Return that of directions which count as determined, one per square metre, (O, 1)."""
        return (_LEAST_SURE * self.radius[:, None]) ** -2

    def whitening(self, pose: np.ndarray) -> np.ndarray:
        """Return what takes motions of six parts in metres to metres and radians, (O, 6, 6)."""
        axes = pose[:, :3, :3] @ self.axes
        scale = np.zeros((len(pose), 6, 6))
        scale[:, :3, :3] = np.eye(3)
        levers = np.sqrt(np.maximum(self.values, 1e-2 * self.values[:, -1:]))
        scale[:, 3:, 3:] = (axes / levers[:, None]) @ transposed(axes)
        return scale

    def facing(self, pose: np.ndarray, points: np.ndarray, least: float) -> np.ndarray:
        """Return which samples have a cosine to the camera that is larger than this, (O, S)."""
        toward = -np.einsum('osi,osi->os', self.normals @ transposed(pose[:, :3, :3]), points)
        return toward > least * np.linalg.norm(points, axis=2)


def _all_registered(
    batch: _Batch, frame: Frame, pixels: list[np.ndarray],
) -> list[Registered]:
    depth = _Depth(batch, frame, pixels)
    sources: list[_Source] = [depth]
    if frame.support is not None:
        sources.append(_Standing(batch, frame.support))
    sources.append(_Outline(batch, frame, batch.pose))
    pose, _ = _solved(batch, batch.pose, sources, _FIRST_STEPS, _FIRST_SMALL, _FIRST_FACING)
    pose, information = _solved(
        batch, pose, sources, _LAST_STEPS, _LAST_SMALL, _LAST_FACING)
    distance, share = depth.explained(pose)
    seen = compared([one.surface for one in batch.sought], list(batch.mesh), pose, frame)
    fit = np.minimum(share, [one.confirmed for one in seen])
    return list(map(
        Registered, pose, _covariance(information, batch, pose), fit, distance))


Equations = tuple[np.ndarray, np.ndarray]  # information (..., 6, 6) and its vector (..., 6)
NOTHING: Equations = (np.zeros((6, 6)), np.zeros(6))


def equations(
    jacobian: np.ndarray, error: np.ndarray, std: np.ndarray, share: float | None = None,
    used: np.ndarray | None = None,
) -> Equations:
    """
    Return what linear equations say about the motions of models that remove errors.

    :param jacobian: (..., N, 6), error by translation and by rotation about the object's origin
    :param error: (..., N) and std: (..., N) in whatever unit
    :param share: of the errors, whose size tells how much more noise there is than told
    :param used: (..., N) bool, which equations count; None: all
    """
    off = np.abs(error / std)
    used = np.ones(off.shape, bool) if used is None else used
    scale = np.ones(off.shape[:-1]) if share is None else np.maximum(
        1.0, _quantile(off, used, share) / ndtri((1.0 + share) / 2.0))
    scale = scale[..., None]
    weight = np.clip(1.0 - (off / (_TUKEY * scale)) ** 2, 0.0, None) ** 2 * used
    weighted = transposed(jacobian * (weight / (scale * std) ** 2)[..., None])
    return weighted @ jacobian, (weighted @ error[..., None])[..., 0]


def along(arms: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Return the Jacobian (..., N, 6) of errors along directions, at arms from the origin."""
    x, y, z = np.moveaxis(arms, -1, 0)
    a, b, c = np.moveaxis(directions, -1, 0)
    return np.stack([a, b, c, y * c - z * b, z * a - x * c, x * b - y * a], axis=-1)


def plane_equations(
    plane: SupportPlane, up: np.ndarray, rise: np.ndarray | float, height_std: float,
    tilt_std: float, used: np.ndarray | bool = True,
) -> Equations:
    """
    Return what a plane says of the height and the tilt of what stands on it.

    :param up: (..., 3) what should be the plane's normal
    :param rise: (...) metres along the normal to where it should be
    :param height_std: metres, and tilt_std: radians
    :param used: (...) bool, what stands on it
    """
    x, y = plane.axes
    jacobian = np.zeros((3, 6))
    jacobian[0, :3], jacobian[1:, 3:] = plane.normal, (x, y)
    tilt = up @ np.column_stack([y, -x])
    error = np.concatenate([np.asarray(rise)[..., None], tilt], axis=-1)
    used = np.broadcast_to(np.asarray(used)[..., None], error.shape)
    std = np.array([height_std, tilt_std, tilt_std])
    return equations(np.broadcast_to(jacobian, (*error.shape, 6)), error, std, used=used)


class _Depth:
    """What depth readings say."""

    leaves_noise = True

    def __init__(self, batch: _Batch, frame: Frame, pixels: list[np.ndarray]) -> None:
        # Few are taken several times each, for what they are worth.
        chosen = np.stack([one[np.linspace(0, len(one) - 1, _READINGS).astype(int)]
                           for one in pixels])
        z, self.averaged = averaged(frame, *np.divmod(chosen, frame.shape[1]))
        self.batch = batch
        self.worth = np.minimum(1.0, [len(one) for one in pixels] / self.averaged.sum(axis=1))
        self.readings = frame.camera.rays.reshape(-1, 3)[chosen] * z[..., None]
        self.axial, self.lateral = frame.depth_std(z), LATERAL_STD * z / frame.camera.fx

    def begin(self, pose: np.ndarray, facing: float) -> None:
        """Take a picture of the samples, in cells as wide as they are apart."""
        batch, self.base = self.batch, pose
        points = moved_points(pose, batch.places)
        seen = batch.facing(pose, points, facing) & (points[..., 2] > 0.0)
        seen |= ~seen.any(axis=1, keepdims=True)
        self.low, self.cell = np.zeros((len(pose), 2)), np.zeros((len(pose), 1))
        self.sizes, nearest = np.zeros((len(pose), 2), int), []
        for index, (object_points, spacing) in enumerate(zip(points, batch.spacing)):
            samples = np.flatnonzero(seen[index])
            samples = samples[np.argsort(-object_points[samples, 2])]  # the nearest one last
            some = object_points.take(samples, 0)
            plane = some[:, :2] / some[:, 2:]
            low, high = plane.min(axis=0), plane.max(axis=0)
            cell = max(spacing / object_points[:, 2].mean(), (high - low).max() / _WIDEST)
            low, size = low - _BORDER * cell, np.ceil((high - low) / cell) + 2 * _BORDER
            self.low[index], self.cell[index], self.sizes[index] = low, cell, size
            cells = ((plane - low) / cell).astype(int)
            nearest.append(_nearest(cells, samples, *self.sizes[index]).ravel())
        self.starts = np.cumsum([0, *map(len, nearest)])[:-1, None]
        self.nearest, self.seen = np.concatenate(nearest), seen
        # What is near an edge to something unknown may lie beyond it.
        self.known = batch.known & ~_taken(seen & ~batch.known, batch.beyond_edge)

    def equations(self, pose: np.ndarray, share: float) -> Equations:
        samples, local = self._matched(pose)
        known = _taken(self.known, samples)
        samples, apart, error = self._errors(samples, local, self.batch.places)
        normals, std = self._directions(pose, samples, self.averaged)
        distance = np.linalg.norm(apart, axis=2)
        reach = 3.0 * _quantile(distance, known, share) + 2.0 * self.batch.spacing
        # At arms of samples, as what is round then tells nothing of its turn.
        arms = (local - apart) @ transposed(pose[:, :3, :3])
        told, toward = equations(
            along(arms, normals), error, std, share, known & (distance < reach[:, None]))
        return told * self.worth[:, None, None], toward * self.worth[:, None]

    def explained(self, pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """
        Return how the readings lie on the mesh itself.

        :return: (O,) median metres along its normals, NaN where too few lie on what is known; (O,)
            share of the readings that it explains
        """
        samples, local = self._matched(pose)
        samples, apart, error = self._errors(samples, local, self.batch.mesh)
        _, std = self._directions(pose, samples, 1.0)
        distance, error = np.linalg.norm(apart, axis=2), np.abs(error)
        near = distance < 2.0 * self.batch.spacing[:, None] + _EXPLAINED * self.axial
        is_explained = near & (error < _EXPLAINED * std + _MODEL_STD)
        known = _taken(self.batch.known, samples).mean(axis=1) * self.worth
        median = np.where(known * _READINGS < _LEAST, np.nan, np.median(error, axis=1))
        return median, is_explained.mean(axis=1)

    def _matched(self, pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the sample of each reading, (O, N), and readings in the object frame."""
        local = (self.readings - pose[:, None, :3, 3]) @ pose[:, :3, :3]
        there = moved_points(self.base, local)
        cells = (there[..., :2] / there[..., 2:] - self.low[:, None]) / self.cell[:, None]
        column, row = np.moveaxis(cells.clip(0, self.sizes[:, None] - 1).astype(int), -1, 0)
        return self.nearest[self.starts + row * self.sizes[:, :1] + column], local

    def _errors(
        self, samples: np.ndarray, local: np.ndarray, places: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """
        Return samples, ways from them to readings, and the parts of these along their normals.

        At an edge that is seen, readings may lie beyond it: on the plane that is nearer to them.
        """
        def off(some: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            apart = local - _taken(places, some)
            return apart, np.einsum('oni,oni->on', apart, _taken(self.batch.normals, some))

        other = _taken(self.batch.beyond_edge, samples)
        (apart, error), (far, beyond) = off(samples), off(other)
        is_beyond = (np.abs(beyond) < np.abs(error)) & _taken(self.seen, other)
        return (np.where(is_beyond, other, samples),
                np.where(is_beyond[..., None], far, apart), np.where(is_beyond, beyond, error))

    def _directions(
        self, pose: np.ndarray, samples: np.ndarray, averaged: np.ndarray | float,
    ) -> tuple[np.ndarray, np.ndarray]:
        """
        Return the normals of samples, optical frame, and the std of readings along them.

        :param averaged: how many readings one is the mean of
        """
        normals = _taken(self.batch.normals, samples) @ transposed(pose[:, :3, :3])
        slope = np.einsum('oni,oni->on', normals, self.readings) / self.readings[..., 2]
        across = np.clip(1.0 - slope ** 2, 0.0, 1.0)
        variance = (self.axial * slope) ** 2 + self.lateral ** 2 * across
        return normals, np.sqrt(variance / averaged + _taken(self.batch.variance, samples))


def _nearest(cells: np.ndarray, samples: np.ndarray, width: int, height: int) -> np.ndarray:
    """
    Return which sample is nearest to each cell of a picture, (height, width).

    :param cells: (N, 2) column and row of each; of several in one cell the last one counts
    """
    image = np.full((height, width), -1)
    image[cells[:, 1], cells[:, 0]] = samples
    _, labels = cv2.distanceTransformWithLabels(
        (image < 0).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_3,
        labelType=cv2.DIST_LABEL_PIXEL)
    owners = np.zeros(labels.max() + 1, int)
    owners[labels[image >= 0]] = image[image >= 0]
    return owners[labels]


class _Outline:
    """What the mask's outline says: the model's lies there, or beyond where nothing is read."""

    leaves_noise = True

    def __init__(self, batch: _Batch, frame: Frame, pose: np.ndarray) -> None:
        self.batch, self.focal = batch, frame.camera.fx
        contours = np.stack([_contour(one) for one in batch.sought])
        self.places, self.outward, self.ends, self.unread = _ends(frame, contours, pose[:, 2, 3])

    def begin(self, pose: np.ndarray, facing: float) -> None:
        """Find the points between what faces the camera and what does not, (O, R, 3)."""
        self.rim = np.zeros((len(pose), _RIM, 3))
        self.known = np.zeros((len(pose), _RIM), bool)
        for index, (one, eye) in enumerate(zip(self.batch.sought, _eye(pose))):
            rim = one.surface.edges.rim(eye, _RIM)
            if len(rim):
                self.rim[index] = rim
                self.known[index] = one.known[one.surface.near(rim)].any(axis=1)

    def equations(self, pose: np.ndarray, share: float) -> Equations:
        rim = moved_points(pose, self.rim)
        seen = rim[..., :2] / rim[..., 2:]
        x, y = (self.places[..., None, axis] - seen[:, None, :, axis] for axis in (0, 1))
        square = x * x + y * y
        nearest = square.argmin(axis=2)
        square = square.min(axis=2)
        rim, seen, known = (_taken(some, nearest) for some in (rim, seen, self.known))
        used = (self.ends & (square * self.focal ** 2 < _OUTLINE_REACH ** 2)
                & known & (rim[..., 2] > 0))
        error = self.focal * np.einsum('oni,oni->on', self.outward, self.places - seen)
        used &= (error > 0.0) | (error <= -self.unread)
        error += np.where(error < 0.0, self.unread, 0.0)
        # The derivative of (x / z, y / z) along the outward direction.
        toward = -np.einsum('oni,oni->on', self.outward, seen)[..., None]
        directions = self.focal * np.concatenate([self.outward, toward], axis=2) / rim[..., 2:]
        std = np.full(error.shape, _OUTLINE_STD * np.sqrt(_CONTOUR / _OUTLINE_ALONE))
        return equations(along(rim - pose[:, None, :3, 3], directions), error, std, share, used)


def _contour(one: Sought) -> np.ndarray:
    """Return places on the outline of a mask, pixels, and unit normals outward, (C, 4)."""
    contours, _ = cv2.findContours(
        one.mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE,
        offset=(one.window[1].start, one.window[0].start))
    found = []
    for contour in contours:
        if len(contour) <= 20:
            continue
        pixels = contour[:, 0].astype(float)
        way = np.roll(pixels, -4, axis=0) - np.roll(pixels, 4, axis=0)
        outward = np.column_stack([way[:, 1], -way[:, 0]])
        if cv2.contourArea(contour, oriented=True) < 0:
            outward = -outward
        found.append(np.hstack([pixels, outward]))
    every = np.concatenate(found) if found else np.zeros((1, 4))
    some = every[np.linspace(0, len(every) - 1, _CONTOUR).astype(int)]
    some[:, 2:] /= np.maximum(np.linalg.norm(some[:, 2:], axis=1, keepdims=True), 1e-9)
    return some


def _ends(
    frame: Frame, contours: np.ndarray, z: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """
    Tell where objects end against what lies farther away.

    Where one touches something, or something nearer hides it, its mask tells little of its shape.
    Where nothing is read beside its mask, as on grazing surfaces and in shadows, it may go on.

    :param contours: (O, C, 4) pixels and directions outward
    :param z: (O,) metres, where there is no reading
    :return: (O, C, 2) places at z = 1, (O, C, 2) directions outward, (O, C) bool, and (O, C)
        pixels without readings from there outward
    """
    depth, last = measured(frame.depth), np.array(frame.shape[::-1]) - 1
    pixels, outward = contours[..., :2], contours[..., 2:]
    within = np.rint(pixels - 2.0 * outward).astype(int).clip(0, last)
    beyond = np.rint(pixels[..., None, :] + _UNREAD[:, None] * outward[..., None, :]).astype(int)
    inside = ((beyond[:, :, 0] >= 0) & (beyond[:, :, 0] <= last)).all(axis=2)
    beyond = beyond.clip(0, last)
    own, others = depth[within[..., 1], within[..., 0]], depth[beyond[..., 1], beyond[..., 0]]
    first = np.isfinite(others).argmax(axis=2)
    behind = np.take_along_axis(others, first[..., None], 2)[..., 0]
    first = np.where(np.isnan(behind), len(_UNREAD), first)
    own = np.where(np.isnan(own), z[:, None], own)
    gap = np.maximum(0.01, 5.0 * frame.depth_std(own))
    ends = inside & (np.isnan(behind) | (behind > own + gap))
    # A contour runs through the centres of the outermost pixels, half a pixel inside the edge.
    return frame.camera.rays_at(pixels + 0.5 * outward)[..., :2], outward, ends, first


class _Standing:
    """What stands on a support keeps its tilt and its height there."""

    leaves_noise = False

    def __init__(self, batch: _Batch, support: SupportPlane) -> None:
        self.batch, self.support = batch, support
        self.up = support.normal @ batch.pose[:, :3, :3]  # in the object frames, (O, 3)
        self.up[self.up[:, 2] > _UPRIGHT] = (0.0, 0.0, 1.0)
        self.stands = np.abs(self._height(batch.pose)) < _STANDING

    def begin(self, pose: np.ndarray, facing: float) -> None:
        pass

    def equations(self, pose: np.ndarray, share: float) -> Equations:
        up = np.einsum('oij,oj->oi', pose[:, :3, :3], self.up)
        return plane_equations(
            self.support, up, -self._height(pose), _HEIGHT_STD, _TILT_STD, self.stands)

    def _height(self, pose: np.ndarray) -> np.ndarray:
        """Return metres of the lowest samples over the support, (O,)."""
        above = self.batch.mesh @ (self.support.normal @ pose[:, :3, :3])[..., None]
        return above[..., 0].min(axis=1) + self.support.height(pose[:, :3, 3])


_Source = _Depth | _Outline | _Standing


def _solved(
    batch: _Batch, pose: np.ndarray, sources: list[_Source], steps: tuple[float, ...],
    small: float, facing: float,
) -> tuple[np.ndarray, np.ndarray]:
    """
    Return the likeliest poses, and the information of the sources about them, whitened.

    What a source determines well is left to it by those after it; what none determines stays near
    where the objects were to be.

    :param small: metres, a step at which they end
    :param facing: least cosine between surfaces and the view of them
    """
    for source in sources:
        source.begin(pose, facing)
    held, gone = batch.held, np.stack([difference(*pair) for pair in zip(pose, batch.pose)])
    gone = np.linalg.solve(batch.whitening(pose), gone[..., None])[..., 0]
    for share in steps:
        scale = batch.whitening(pose)
        information, vector, unknown = np.zeros(scale.shape), np.zeros(scale.shape[:2]), np.eye(6)
        for source in sources:
            told, toward = source.equations(pose, share)
            told, toward = scale @ told @ scale, _times(scale, toward)
            if source.leaves_noise:
                known, clear = trusted(told, unknown, _BUMPS, _CLEAR_SHARE)
                told, toward = known @ told @ known, _times(known @ known, toward)
                unknown = unknown - clear
            information, vector = information + told, vector + toward
        amount = np.linalg.solve(
            information + held[..., None] * np.eye(6), (vector - held * gone)[..., None])[..., 0]
        pose, gone = stepped(pose, _times(scale, amount)), gone + amount
        if (np.linalg.norm(amount, axis=1) < small).all():
            break
    return pose, information


def _quantile(values: np.ndarray, used: np.ndarray, share: float) -> np.ndarray:
    """Return a quantile of those of the last axis that are used, 0 without any."""
    ordered = np.sort(np.where(used, values, np.inf))
    count = np.count_nonzero(used, axis=-1)
    at = (share * (count - 1)).astype(int).clip(0)
    return np.where(count > 0, np.take_along_axis(ordered, at[..., None], -1)[..., 0], 0.0)


def trusted(
    information: np.ndarray, unknown: np.ndarray, noise: float, clear: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """
    Return how far information is trusted along the directions still unknown.

    :param information: (..., 6, 6)
    :param unknown: (..., 6, 6), the projection onto these
    :param noise: share of the information about the best determined direction that errors give
    :param clear: such a share that leaves nothing open
    :return: (..., 6, 6) root of the shares that are no noise, and projection onto what is clear
    """
    most = np.maximum(np.linalg.eigvalsh(information)[..., -1:], 1e-9)
    values, axes = np.linalg.eigh(unknown @ information @ unknown)
    shares = np.maximum(values / most, 1e-9)
    root, is_clear = np.sqrt((1.0 - noise / shares).clip(0.0)), shares > clear
    return (axes * root[..., None, :]) @ transposed(axes), (
        axes * is_clear[..., None, :]) @ transposed(axes)


def _covariance(information: np.ndarray, batch: _Batch, pose: np.ndarray) -> np.ndarray:
    """Return covariances in metres and radians; of what is not known the object's radius."""
    values, axes = np.linalg.eigh(information)
    axes = batch.whitening(pose) @ axes
    variance = np.where(values > batch.least_information, 1.0 / np.maximum(values, 1e-9),
                        batch.radius[:, None] ** 2)
    return (axes * variance[:, None]) @ transposed(axes)


def _taken(values: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Return those of (O, S, ...) at which, (O, N), of the second axis: (O, N, ...)."""
    flat = which + values.shape[1] * np.arange(len(values))[:, None]
    return values.reshape(-1, *values.shape[2:]).take(flat, 0)


def _times(matrices: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    return (matrices @ vectors[..., None])[..., 0]


def _eye(pose: np.ndarray) -> np.ndarray:
    """Return where the camera is in the objects' frames, (O, 3)."""
    return -np.einsum('oi,oij->oj', pose[:, :3, 3], pose[:, :3, :3])
