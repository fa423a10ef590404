# SPDX-License-Identifier: Apache-2.0
"""
Where a known object is now: its model registered to the depth readings of one frame.

Point-to-plane ICP (Chen, Medioni: Object modelling by registration of multiple range images,
ICRA 1991): each of some hundred readings is drawn to the plane of the nearest sample of the
model's surface that faces the camera, with Tukey's weights. Directions that readings do not
determine keep their value (Zhang, Kaess, Singh: On degeneracy of optimization-based state
estimation problems, ICRA 2016), unless the outline of the mask or the support determines them.
"""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import trimesh
from scipy.spatial import cKDTree
from scipy.special import ndtri

from img2scene_ros.depth import measured
from img2scene_ros.detection import bbox_of
from img2scene_ros.scene.evidence import pixels_of
from img2scene_ros.scene.evidence import spread
from img2scene_ros.scene.poses import stepped
from img2scene_ros.types import Frame
from img2scene_ros.types import ObjectModel
from img2scene_ros.types import SupportPlane

# Chosen on rendered boxes, bottles and mugs at 0.6 to 1 m.
_SAMPLES = 3000  # of a model's whole surface
_READINGS = 400  # of the frame, as many as are read at most
_CONTOUR = 120  # pixels of the mask's outline, likewise
_LEAST = 30  # readings without which nothing is said
# Share of the errors whose size is taken for that of noise, in each step of Gauss and Newton:
# at first of many, as what is still to be moved is no outlier.
_FIRST_STEPS = (0.9, 0.9, 0.8, 0.65, 0.5, 0.5, 0.5, 0.5)
_LAST_STEPS = (0.5,) * 6  # with the outline
_SMALL_STEP = 1e-4  # metres, and radians times the object's radius, at which they end
_TUKEY = 4.685  # standard deviations at which a reading counts nothing (Huber, Ronchetti 2009)
# A direction is determined by readings, or by the outline, when its share of the information
# about the best determined one is larger. The bumps of a round thing's mesh give it some 0.01.
_LEAST_SHARE = 0.02
_CLEAR_SHARE = 0.2  # share at which the outline has no say
_LEAST_SURE = 0.05  # of the object's radius: the standard deviation of what is determined at all
_MODEL_STD = 0.0005  # metres by which the surface of a mesh is off
_LATERAL_STD = 0.5  # pixels by which readings are off sideways
_OUTLINE_STD = 1.5  # pixels by which the outline of a mask is off,
_OUTLINE_RUN = 6  # its neighbours this many at a time
_OUTLINE_REACH = 15.0  # pixels between the outlines of mask and model
# Least cosine between a surface and the view of it: at first, as it may turn, and at last.
_FIRST_FACING, _LAST_FACING = -0.25, 0.1
_STANDING = 0.01  # metres over the support, and
_UPRIGHT = np.cos(np.radians(8.0))  # lean, up to which a thing stands on it
_HEIGHT_STD, _TILT_STD = 0.002, np.radians(0.5)  # of what stands: metres, radians
_EXPLAINED = 3.0  # standard deviations of a reading from the model that explains it


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


def register(
    model: ObjectModel, frame: Frame, mask: np.ndarray, pose: np.ndarray,
    support: SupportPlane | None = None,
) -> Registered:
    """
    Find the pose at which a model fits the readings of a frame, near a pose where it may be.

    :param model: its own pose does not count
    :param mask: (H, W) bool, the object's visible pixels
    :param pose: (4, 4), where to begin: takes object to optical coordinates
    :param support: the plane it may stand on: one that stands upright stays so while readings do
        not contradict
    :raises InputError: the frame has no depth image
    """
    surface = _surface(model)
    readings = _readings(frame, mask)
    if len(readings.points) < _LEAST:
        return Registered(pose, _covariance(np.zeros((6, 6)), np.eye(6), surface), 0.0, np.nan)
    depth = _Depth(surface, readings)
    sources: list[_Source] = [depth]
    if support is not None:
        sources.append(_Standing(model, support, pose))
    pose, _ = _solved(pose, surface, sources, _FIRST_STEPS, _FIRST_FACING)
    sources.append(_Outline(surface, frame, mask, pose))
    pose, information = _solved(pose, surface, sources, _LAST_STEPS, _LAST_FACING)
    distance, is_explained = depth.explained(pose)
    fit = min(is_explained.mean(), _confirmed(surface, frame, pose))
    return Registered(
        pose, _covariance(information, _whitening(surface, pose), surface), float(fit),
        float(np.median(distance)))


@dataclass(frozen=True, eq=False)
class _Surface:
    """
    What is sampled of a model, in its object frame, metres.

    - points, normals: (N, 3) evenly over the surface, with unit normals
    - spacing: of the points
    - edges: (E, 3) points on the edges between two faces, and edge_normals: (E, 2, 3) of both
    - inertia: (3, 3) mean of the squared levers about the axes
    """

    points: np.ndarray
    normals: np.ndarray
    spacing: float
    edges: np.ndarray
    edge_normals: np.ndarray
    inertia: np.ndarray

    @property
    def radius(self) -> float:
        return float(np.sqrt(np.trace(self.inertia) / 2.0))

    @property
    def least_information(self) -> float:
        """Return that of directions which count as determined, one per square metre."""
        return (_LEAST_SURE * self.radius) ** -2

    def facing(self, pose: np.ndarray, least: float) -> np.ndarray:
        """Return the indices of the points whose cosine to the camera is larger than this."""
        to_camera = _eye(pose) - self.points
        cosine = np.einsum('ni,ni->n', self.normals, to_camera)
        return np.flatnonzero(cosine > least * np.linalg.norm(to_camera, axis=1))

    def rim(self, pose: np.ndarray) -> np.ndarray:
        """Return the points between what faces the camera and what does not, (R, 3) optical."""
        faces = np.einsum('efi,ei->ef', self.edge_normals, _eye(pose) - self.edges) > 0
        return moved_points(pose, self.edges[faces[:, 0] != faces[:, 1]])


@lru_cache(maxsize=64)
def _surface(model: ObjectModel) -> _Surface:
    mesh = trimesh.Trimesh(model.vertices, model.faces)  # which joins vertices at one place
    points, face = spread(mesh.triangles, mesh.area_faces, _SAMPLES)
    spacing = float(np.sqrt(mesh.area / _SAMPLES))
    starts, stops = np.moveaxis(mesh.vertices[mesh.face_adjacency_edges], 1, 0)
    pieces = np.ceil(np.linalg.norm(stops - starts, axis=1) / spacing).astype(int).clip(1)
    edge = np.repeat(np.arange(len(pieces)), pieces)
    place = (np.arange(len(edge)) - np.repeat(np.cumsum(pieces) - pieces, pieces) + 0.5)
    edges = starts[edge] + (place / pieces[edge])[:, None] * (stops - starts)[edge]
    moments = points.T @ points / _SAMPLES
    return _Surface(
        points, _smoothed(points, mesh.face_normals[face]), spacing, edges,
        mesh.face_normals[mesh.face_adjacency[edge]], np.trace(moments) * np.eye(3) - moments)


def _smoothed(points: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Average normals with those around that differ by less than 30 degrees; edges stay sharp."""
    around = normals[cKDTree(points).query(points, 9)[1]]
    alike = np.einsum('nki,ni->nk', around, normals) > np.cos(np.radians(30.0))
    mean = np.einsum('nki,nk->ni', around, alike.astype(float))
    return mean / np.linalg.norm(mean, axis=1, keepdims=True)


@dataclass(frozen=True, eq=False)
class _Readings:
    """Readings of an object, (N, 3) metres, with their deviation along and across the view."""

    points: np.ndarray
    axial: np.ndarray
    lateral: np.ndarray


def _readings(frame: Frame, mask: np.ndarray) -> _Readings:
    depth = measured(frame.depth)
    pixels = np.flatnonzero(mask & np.isfinite(depth))
    chosen = pixels[np.linspace(0, len(pixels) - 1, min(len(pixels), _READINGS)).astype(int)]
    z = depth.ravel()[chosen].astype(float)
    points = frame.camera.rays.reshape(-1, 3)[chosen] * z[:, None]
    return _Readings(points, frame.depth_std(z), _LATERAL_STD * z / frame.camera.fx)


Equations = tuple[np.ndarray, np.ndarray]  # information (6, 6) and its vector (6,)
NOTHING: Equations = (np.zeros((6, 6)), np.zeros(6))


def equations(
    jacobian: np.ndarray, error: np.ndarray, std: np.ndarray, share: float | None = None,
) -> Equations:
    """
    Return what linear equations say about the motion of the model that removes errors.

    :param jacobian: (N, 6), error by translation and by rotation about the object's origin
    :param error: (N,) and std: (N,) in whatever unit
    :param share: of the errors, whose size tells how much more noise there is than told
    """
    off = np.abs(error / std)
    scale = 1.0 if share is None else max(
        1.0, np.quantile(off, share) / ndtri((1.0 + share) / 2.0))
    weight = np.clip(1.0 - (off / (_TUKEY * scale)) ** 2, 0.0, None) ** 2
    weighted = jacobian * (weight / (scale * std) ** 2)[:, None]
    return weighted.T @ jacobian, weighted.T @ error


def along(arms: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Return the Jacobian (N, 6) of errors along directions, at arms from the origin."""
    x, y, z = arms.T
    a, b, c = directions.T
    return np.column_stack([directions, y * c - z * b, z * a - x * c, x * b - y * a])


def plane_equations(
    plane: SupportPlane, up: np.ndarray, rise: float, height_std: float, tilt_std: float,
) -> Equations:
    """
    Return what a plane says of the height and the tilt of what stands on it.

    :param up: (3,) what should be the plane's normal
    :param rise: metres along the normal to where it should be
    :param height_std: metres, and tilt_std: radians
    """
    axes = plane.axes()
    jacobian = np.zeros((3, 6))
    jacobian[0, :3], jacobian[1:, 3:] = plane.normal, axes
    error = np.array([rise, *axes @ np.cross(up, plane.normal)])
    return equations(jacobian, error, np.array([height_std, tilt_std, tilt_std]))


class _Depth:
    """What depth readings say."""

    leaves_noise = True

    def __init__(self, surface: _Surface, readings: _Readings) -> None:
        self.surface, self.readings = surface, readings

    def begin(self, pose: np.ndarray, facing: float) -> None:
        self.facing = self.surface.facing(pose, facing)
        self.tree = cKDTree(self.surface.points[self.facing])

    def equations(self, pose: np.ndarray, share: float) -> Equations:
        distance, normals, error, std = self._matched(pose)
        near = distance < 3.0 * np.quantile(distance, share) + 2.0 * self.surface.spacing
        arms = self.readings.points - pose[:3, 3]
        return equations(along(arms[near], normals[near]), error[near], std[near], share)

    def explained(self, pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return metres of readings from the model along its normals, and which it explains."""
        distance, _, error, std = self._matched(pose)
        near = distance < 2.0 * self.surface.spacing + _EXPLAINED * self.readings.axial
        return np.abs(error), near & (np.abs(error) < _EXPLAINED * std + _MODEL_STD)

    def _matched(self, pose: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return distance of the nearest sample, its normal, the error along it and its std."""
        surface, readings = self.surface, self.readings
        local = (readings.points - pose[:3, 3]) @ pose[:3, :3]
        distance, nearest = self.tree.query(local)
        nearest = self.facing[nearest]
        normals = surface.normals[nearest] @ pose[:3, :3].T
        error = np.einsum(
            'ni,ni->n', local - surface.points[nearest], surface.normals[nearest])
        slope = np.einsum('ni,ni->n', normals, readings.points) / readings.points[:, 2]
        across = np.clip(1.0 - slope ** 2, 0.0, 1.0)
        std = np.sqrt((readings.axial * slope) ** 2 + readings.lateral ** 2 * across
                      + _MODEL_STD ** 2)
        return distance, normals, error, std


class _Outline:
    """What the mask's outline says: the model's must lie there."""

    leaves_noise = True

    def __init__(
        self, surface: _Surface, frame: Frame, mask: np.ndarray, pose: np.ndarray,
    ) -> None:
        self.surface, self.focal = surface, frame.camera.fx
        self.places, self.outward = _outline(frame, mask, pose[2, 3])

    def begin(self, pose: np.ndarray, facing: float) -> None:
        rim = self.surface.rim(pose)
        self.rim = (rim - pose[:3, 3]) @ pose[:3, :3]

    def equations(self, pose: np.ndarray, share: float) -> Equations:
        rim = moved_points(pose, self.rim)
        rim = rim[rim[:, 2] > 0]
        if not len(rim) or not len(self.places):
            return NOTHING
        seen = rim[:, :2] / rim[:, 2:]
        distance, nearest = cKDTree(seen).query(self.places)
        near = distance * self.focal < _OUTLINE_REACH
        if not near.any():
            return NOTHING
        nearest, outward = nearest[near], self.outward[near]
        apart = self.places[near] - seen[nearest]
        error = self.focal * np.einsum('ni,ni->n', outward, apart)
        # The derivative of (x / z, y / z) along the outward direction.
        toward = -np.einsum('ni,ni->n', outward, seen[nearest])
        directions = self.focal * np.column_stack([outward, toward]) / rim[nearest, 2:]
        std = np.full(len(error), _OUTLINE_STD * np.sqrt(_OUTLINE_RUN))
        return equations(along(rim[nearest] - pose[:3, 3], directions), error, std, share)


def _outline(frame: Frame, mask: np.ndarray, z: float) -> tuple[np.ndarray, np.ndarray]:
    """
    Return where the object ends against what lies farther away.

    Where it touches something, or something nearer hides it, the mask tells little of its shape.

    :return: (N, 2) places at z = 1, and the unit directions outward
    """
    height, width = frame.shape
    left, top, right, bottom = bbox_of(mask).astype(int)
    contours, _ = cv2.findContours(
        mask[top:bottom, left:right].astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE,
        offset=(left, top))
    found = [_with_normals(contour[:, 0].astype(float), mask)
             for contour in contours if len(contour) > 20]
    if not found:
        return np.zeros((0, 2)), np.zeros((0, 2))
    pixels, outward = (np.concatenate(parts) for parts in zip(*found))
    step = max(1, len(pixels) // _CONTOUR)
    pixels, outward = pixels[::step], outward[::step]
    beyond, within = (np.rint(pixels + by * outward).astype(int) for by in (3.0, -2.0))
    inside = ((beyond >= 0) & (beyond < (width, height))).all(axis=1)
    pixels, outward, beyond, within = (a[inside] for a in (pixels, outward, beyond, within))
    depth = measured(frame.depth)
    behind = depth[beyond[:, 1], beyond[:, 0]]
    own = np.nan_to_num(depth[within[:, 1], within[:, 0]], nan=z)
    gap = np.maximum(0.01, 5.0 * frame.depth_std(own))
    ends = np.isnan(behind) | (behind > own + gap)
    # A contour runs through the centres of the outermost pixels, half a pixel inside the edge.
    places = frame.camera.rays_at(pixels[ends] + 0.5 * outward[ends])[:, :2]
    return places, outward[ends]


def _with_normals(contour: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a closed contour, (N, 2) pixels, with its unit normals that point out of the mask."""
    along = np.roll(contour, -4, axis=0) - np.roll(contour, 4, axis=0)
    normals = np.column_stack([along[:, 1], -along[:, 0]])
    normals = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
    height, width = mask.shape
    column, row = np.rint(contour + 3.0 * normals).astype(int).T
    is_inward = mask[row.clip(0, height - 1), column.clip(0, width - 1)].mean() > 0.5
    return contour, -normals if is_inward else normals


class _Standing:
    """What stands on a support keeps its tilt and its height there."""

    leaves_noise = False

    def __init__(self, model: ObjectModel, support: SupportPlane, pose: np.ndarray) -> None:
        self.vertices, self.support = model.vertices.astype(float), support
        self.up = support.normal @ pose[:3, :3]  # in the object frame
        if self.up[2] > _UPRIGHT:
            self.up = np.array([0.0, 0.0, 1.0])
        self.stands = abs(self._height(pose)) < _STANDING

    def begin(self, pose: np.ndarray, facing: float) -> None:
        pass

    def equations(self, pose: np.ndarray, share: float) -> Equations:
        if not self.stands:
            return NOTHING
        return plane_equations(
            self.support, pose[:3, :3] @ self.up, -self._height(pose), _HEIGHT_STD, _TILT_STD)

    def _height(self, pose: np.ndarray) -> float:
        """Return metres of the lowest vertex over the support."""
        above = self.vertices @ (self.support.normal @ pose[:3, :3])
        return float(above.min() + self.support.height(pose[:3, 3]))


_Source = _Depth | _Outline | _Standing


def _solved(
    pose: np.ndarray, surface: _Surface, sources: list[_Source], steps: tuple[float, ...],
    facing: float,
) -> tuple[np.ndarray, np.ndarray]:
    """
    Return the pose at which the errors are least, and the information about it, whitened.

    What a source determines well is left to it by those after it.

    :param facing: least cosine between surfaces and the view of them
    """
    for source in sources:
        source.begin(pose, facing)
    for share in steps:
        scale = _whitening(surface, pose)
        information, vector, unknown = np.zeros((6, 6)), np.zeros(6), np.eye(6)
        for source in sources:
            told, toward = source.equations(pose, share)
            told, toward = scale @ told @ scale, scale @ toward
            if source.leaves_noise:
                known, clear = (determined(told, unknown, s)
                                for s in (_LEAST_SHARE, _CLEAR_SHARE))
                told, toward, unknown = known @ told @ known, known @ toward, unknown - clear
            information, vector = information + told, vector + toward
        values, axes = np.linalg.eigh(information)
        known = values > surface.least_information
        step = axes[:, known] @ (axes[:, known].T @ vector / values[known])
        pose = stepped(pose, scale @ step)
        if np.linalg.norm(step) < _SMALL_STEP:
            break
    return pose, information


def determined(information: np.ndarray, unknown: np.ndarray, share: float) -> np.ndarray:
    """
    Return the projection onto what information determines of the directions still unknown.

    :param unknown: (6, 6), the projection onto these
    :param share: least information about a direction, of that about the best determined one
    """
    least = share * np.linalg.eigvalsh(information)[-1]
    values, axes = np.linalg.eigh(unknown @ information @ unknown)
    known = axes[:, values > max(least, 1e-9)]
    return known @ known.T


def _whitening(surface: _Surface, pose: np.ndarray) -> np.ndarray:
    """Return what takes a motion of which all six parts are metres to metres and radians."""
    values, axes = np.linalg.eigh(surface.inertia)
    axes = pose[:3, :3] @ axes
    scale = np.eye(6)
    scale[3:, 3:] = axes / np.sqrt(np.maximum(values, 1e-2 * values[-1])) @ axes.T
    return scale


def _covariance(information: np.ndarray, scale: np.ndarray, surface: _Surface) -> np.ndarray:
    """Return the covariance in metres and radians; of what is not known the object's radius."""
    values, axes = np.linalg.eigh(information)
    axes = scale @ axes
    variance = np.where(values > surface.least_information, 1.0 / np.maximum(values, 1e-9),
                        surface.radius ** 2)
    return axes * variance @ axes.T


def _confirmed(surface: _Surface, frame: Frame, pose: np.ndarray) -> float:
    """Return the share of the model, as far as it is seen, that is not seen through."""
    facing = surface.facing(pose, 0.2)
    points = moved_points(pose, surface.points[facing])
    inside, rows, columns = pixels_of(points, frame)
    z = points[inside, 2]
    behind = measured(frame.depth)[rows, columns] - z
    margin = 0.003 + _EXPLAINED * frame.depth_std(z)
    through, hidden = np.sum(behind > margin), np.sum(behind < -margin)
    seen = np.isfinite(behind).sum() - hidden
    return 1.0 - through / seen if seen else 0.0


def moved_points(pose: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return points (N, 3) where a pose (4, 4) takes them."""
    return points @ pose[:3, :3].T + pose[:3, 3]


def _eye(pose: np.ndarray) -> np.ndarray:
    """Return where the camera is in the object's frame, (3,)."""
    return -pose[:3, 3] @ pose[:3, :3]
