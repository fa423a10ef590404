# SPDX-License-Identifier: Apache-2.0
"""
Registration of a mesh whose shape and view are known, but neither its size nor its place.

Networks that rebuild an object from one picture answer in the axes of the view, at any scale. In
closed form the mesh is scaled and shifted into the detection's box, then moved along the line of
sight (which changes nothing in the picture) to the measured depth or onto the support plane. Then
a few rounds of Gauss-Newton fit scale, place and a small turn together: the outlines of mesh and
mask to each other, the mesh's surface to the depth readings (point to plane: Chen, Medioni: Object
modelling by registration of multiple range images, 1992), its lowest point to the support.
What is hidden or beyond the picture's border says nothing.

All is computed in the view frame: the camera's centre, z along the line of sight.
"""

from dataclasses import dataclass
from dataclasses import replace

import cv2
import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from img2scene_ros.camera import Camera
from img2scene_ros.camera import box_edges
from img2scene_ros.detection import bbox_of
from img2scene_ros.errors import ReconstructionError
from img2scene_ros.models.crop import MARGIN
from img2scene_ros.models.crop import CropView
from img2scene_ros.models.crop import crop_view
from img2scene_ros.reconstruction import check_size
from img2scene_ros.reconstruction import model_of
from img2scene_ros.reconstruction.fit import Evidence
from img2scene_ros.reconstruction.fit import evidence
from img2scene_ros.reconstruction.fit import measured_fit
from img2scene_ros.rendering.raycast import raycasting_scene
from img2scene_ros.types import ObjectModel
from img2scene_ros.types import Sighting

# Set by hand; `benchmarks/placed_meshes.py` measures what they come to on rendered scenes.
_MIN_READINGS = 30  # of depth on the mesh; fewer do not show its distance
_FIELD = 1.5  # half field that is fitted in, in longer halves of the box
_ROUNDS = 16  # Gauss-Newton steps from each start
_STEP = 8  # numbers of a step of `_Pose.moved`
_STARTS = (1.0, 1.4)  # scales that are tried, in those that fill the box
_OUTLINE_STD = 1.0  # standard deviation of an outline, virtual pixels
_SUPPORT_STD = 0.004  # of the support's height, share of the distance
_TURN_STD = np.radians(4.0)  # of the network's view, radians
_SCALE_STD = 0.15  # of the scale that fills the box, share of it
_MARGIN_STD = 2.0  # of how much too wide a mask is, pixels, where depth shows the size, too
_MARGIN_STD_WITHOUT_DEPTH = 0.3  # where the two cannot be separated
_LEAST_WIDTH = 3.0  # standard deviations beyond which a reading hardly counts, in the end
# An outline or a surface counts as so many independent readings: errors of masks and shapes hold
# for whole stretches of them.
_INDEPENDENT = 40.0


@dataclass(frozen=True, eq=False)
class _Pose:
    """Where a mesh is: points X = scale * turn @ vertex + place, view frame."""

    scale: float
    place: np.ndarray
    turn: np.ndarray
    margin: float = 0.0  # virtual pixels by which the mask is wider than the object all around

    def points(self, vertices: np.ndarray) -> np.ndarray:
        return self.scale * vertices @ self.turn.T + self.place

    def farther(self, ratio: float) -> '_Pose':
        """Return the pose that looks the same, so many times as far away."""
        return replace(self, scale=self.scale * ratio, place=self.place * ratio)

    def moved(self, step: np.ndarray) -> '_Pose':
        """
        Return the pose after a step.

        :param step: (8,) metres, share of the scale, turn about the mesh's middle in radians,
            virtual pixels of the margin
        """
        turn = Rotation.from_rotvec(step[4:7]).as_matrix()
        return _Pose(
            self.scale * float(np.exp(step[3])), self.place + step[:3], turn @ self.turn,
            self.margin + step[7])


def placed(
    vertices: np.ndarray, faces: np.ndarray, colors: np.ndarray, sighting: Sighting,
    reconstructor: str, view: CropView | None = None,
) -> ObjectModel:
    """
    Turn a mesh in the axes of a view into an object at its place, with its fit.

    Without a mask only the box counts.

    :param vertices: (V, 3) x right, y down, z away; any scale and offset, not all in one place
    :param faces: (F, 3) int, counter-clockwise seen from outside; at least one
    :param colors: (V, 3) uint8 RGB
    :param reconstructor: the backend's name
    :param view: what the network was shown; None is the crop view of the detection's box
    :raises ReconstructionError: an empty mask, or an object too small to see
    """
    _check(sighting)
    detection = sighting.detection
    view = view or crop_view(sighting.frame.camera, detection.bbox)
    middle = (vertices.min(axis=0) + vertices.max(axis=0)) / 2.0
    shape = (vertices - middle) / np.ptp(vertices, axis=0).max()
    pose = _in_box(shape, sighting, view)
    if detection.mask is None:
        pose = _onto_support(shape, pose, sighting, view)
    else:
        pose = _Placing(shape, faces, sighting, detection.mask, view, pose).solve()
    rotation = sighting.placement.rotation
    model = model_of(
        pose.points(shape) @ view.rotation.T @ rotation, faces, colors, rotation, reconstructor)
    return replace(model, fit=measured_fit(model, sighting))


def _check(sighting: Sighting) -> None:
    mask = sighting.detection.mask
    if mask is not None and not mask.any():
        raise ReconstructionError(
            "the object's mask is empty; use a detector or a segmenter that finds one")
    box = sighting.detection.bbox if mask is None else bbox_of(mask)
    check_size(max(box[2:] - box[:2]))


def _in_box(shape: np.ndarray, sighting: Sighting, view: CropView) -> _Pose:
    """
    Scale and shift a mesh so that it fills the box, at the placement's distance.

    Edges of the box at the picture's border count little: the object goes on behind it.
    """
    frame, mask = sighting.frame, sighting.detection.mask
    box = sighting.detection.bbox if mask is None else bbox_of(mask)
    height, width = frame.shape
    is_cut = box * (1, 1, -1, -1) < np.array([1, 1, 1 - width, 1 - height])
    edges = _edges_in_view(frame.camera, box, view)
    weights = np.where(is_cut, 0.01, 1.0)
    depth = float(sighting.placement.position @ view.rotation[:, 2])
    pose = _Pose(depth * float((edges[2:] - edges[:2]).max()), np.array([0.0, 0.0, depth]),
                 np.eye(3))
    for _ in range(10):  # what is nearer looks larger: each round corrects a part of that
        points = pose.points(shape)
        plane = points[:, :2] / np.maximum(points[:, 2:], 0.1 * depth)
        seen = np.concatenate([plane.min(axis=0), plane.max(axis=0)])
        middle = pose.place[:2] / depth
        # edges = middle + shift + growth * (seen - middle)
        system = np.column_stack([[1, 0, 1, 0], [0, 1, 0, 1], seen - np.tile(middle, 2)])
        shift_x, shift_y, growth = np.linalg.lstsq(
            system * weights[:, None], (edges - np.tile(middle, 2)) * weights, rcond=None)[0]
        shift = depth * np.array([shift_x, shift_y, 0.0])
        pose = _Pose(pose.scale * float(np.clip(growth, 0.3, 3.0)), pose.place + shift, pose.turn)
    return pose


def _edges_in_view(camera: Camera, box: np.ndarray, view: CropView) -> np.ndarray:
    """
    Return xmin, ymin, xmax, ymax of a box in a view, tangents.

    An edge that the lens does not show lies where the view expects it.
    """
    xmin, ymin, xmax, ymax = box_edges(box)
    x, y = (xmin + xmax) / 2.0, (ymin + ymax) / 2.0
    rays = camera.rays_at([(xmin, y), (x, ymin), (xmax, y), (x, ymax)]) @ view.rotation
    plane = rays[:, :2] / rays[:, 2:]
    edges = plane[[0, 1, 2, 3], [0, 1, 0, 1]]
    expected = view.half_field / MARGIN * np.array([-1.0, -1.0, 1.0, 1.0])
    return np.where(np.isfinite(edges), edges, expected)


def _onto_support(
    shape: np.ndarray, pose: _Pose, sighting: Sighting, view: CropView,
) -> _Pose:
    """Move a mesh along the lines of sight until it stands on its support, if there is one."""
    support = sighting.placement.support
    if support is None:
        return pose
    below = -(pose.points(shape) @ (support.normal @ view.rotation)).min()
    ratio = support.offset / max(below, 1e-9)
    doubt = 3.0 * sighting.placement.relative_std + 0.1
    return pose.farther(ratio) if abs(np.log(ratio)) < doubt else pose


class _Placing:
    """
    One mesh and all that the frame says about its place.

    :param shape: (V, 3) vertices around 0, view axes, longest side 1
    :param mask: (H, W) bool, the object's visible pixels
    :param in_box: where it fills the box
    """

    def __init__(
        self, shape: np.ndarray, faces: np.ndarray, sighting: Sighting, mask: np.ndarray,
        view: CropView, in_box: _Pose,
    ) -> None:
        self.shape, self.sighting, self.view, self.in_box = shape, sighting, view, in_box
        self.scene = raycasting_scene(shape.astype(np.float32), faces)
        box = crop_view(sighting.frame.camera, sighting.detection.bbox)
        half_field = box.half_field * _FIELD / MARGIN
        self.seen = evidence(sighting.frame, mask, CropView(view.rotation, float(half_field)))
        self.focal = self.seen.view.camera(len(self.seen.mask)).fx
        self.outline, self.normals = _outline(self.seen)
        readings = np.count_nonzero(self.seen.mask & np.isfinite(self.seen.depth))
        self.is_measured = readings >= _MIN_READINGS
        std = _MARGIN_STD if self.is_measured else _MARGIN_STD_WITHOUT_DEPTH
        self.margin_std = std * self.focal / sighting.frame.camera.fx
        placement = sighting.placement
        self.distance = float(placement.position @ view.rotation[:, 2])
        self.distance_std = placement.relative_std
        self.support = placement.support

    def solve(self) -> _Pose:
        """
        Return the best pose that is found.

        Where parts of the object are hidden, the mesh is larger than the box. Without readings on
        it, it stands exactly on its support.
        """
        starts = [self._at_depth(replace(self.in_box, scale=self.in_box.scale * size))
                  for size in _STARTS]
        best = min([*starts, *map(self._refined, starts)], key=lambda pose: float(
            (self._equations(pose, _LEAST_WIDTH)[1] ** 2).sum()))
        return best if self.is_measured else _onto_support(
            self.shape, best, self.sighting, self.view)

    def _refined(self, pose: _Pose) -> _Pose:
        width = 0.1 * len(self.seen.mask)
        for round in range(_ROUNDS):
            rows, residuals = self._equations(pose, max(_LEAST_WIDTH, width * 0.7 ** round))
            step = np.linalg.solve(rows.T @ rows + 1e-6 * np.eye(_STEP), -rows.T @ residuals)
            limit = np.array([0.3 * pose.scale] * 3 + [0.3] + [0.1] * 3 + [np.inf])
            pose = pose.moved(step / max(1.0, np.abs(step / limit).max()))
        return pose

    def rendered(self, pose: _Pose) -> tuple[np.ndarray, np.ndarray]:
        """Return the mesh's depth (S, S), inf where it is not, and its normals (S, S, 3)."""
        origin = -pose.place @ pose.turn / pose.scale
        rays = (self.seen.rays @ (pose.turn / pose.scale)).astype(np.float32)
        start = np.broadcast_to(origin.astype(np.float32), rays.shape)
        found = self.scene.cast_rays(np.concatenate([start, rays], axis=-1))
        return found['t_hit'].numpy(), found['primitive_normals'].numpy() @ pose.turn.T

    def _at_depth(self, pose: _Pose) -> _Pose:
        """Move a mesh along the lines of sight to the readings, else onto its support."""
        depth, _ = self.rendered(pose)
        both = np.isfinite(depth) & self.seen.mask & np.isfinite(self.seen.depth)
        if np.count_nonzero(both) < _MIN_READINGS:
            return _onto_support(self.shape, pose, self.sighting, self.view)
        return pose.farther(float(np.median(self.seen.depth[both] / depth[both])))

    def _equations(self, pose: _Pose, width: float) -> tuple[np.ndarray, np.ndarray]:
        """
        Linearize all that is known, in standard deviations.

        :param width: standard deviations beyond which a reading hardly counts
        :return: (N, 8) derivatives by the step of `_Pose.moved`, and (N,) residuals
        """
        depth, normals = self.rendered(pose)
        parts = [self._outline_equations(pose, depth, width),
                 self._depth_equations(pose, depth, normals, width),
                 self._prior_equations(pose)]
        return (np.concatenate([rows for rows, _ in parts]),
                np.concatenate([residuals for _, residuals in parts]))

    def _outline_equations(
        self, pose: _Pose, depth: np.ndarray, width: float,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Pull the mesh's outline to the mask's, across it, and the other way round."""
        solid = np.isfinite(depth)
        own = np.argwhere(_rim(solid) & self.seen.judged(depth))[:, ::-1]
        if not len(own) or not len(self.outline):
            return np.zeros((0, _STEP)), np.zeros(0)
        _, there = cKDTree(self.outline).query(own)
        _, back = cKDTree(own).query(self.outline)
        mine = np.concatenate([own, own[back]])
        theirs = np.concatenate([np.arange(len(self.outline))[there],
                                 np.arange(len(self.outline))])
        normal = self.normals[theirs]
        off = ((mine - self.outline[theirs]) * normal).sum(axis=1)
        columns, rows = mine.T
        points = self.seen.rays[rows, columns] * depth[rows, columns, None]
        across = self.focal / points[:, 2:] * np.column_stack(
            [normal, -(normal * points[:, :2]).sum(axis=1) / points[:, 2]])
        equations = _rows(across, points, pose)
        equations[:, 7] = -1.0  # normals point into the mask
        return _weighted(equations, off - pose.margin, _OUTLINE_STD, width)

    def _depth_equations(
        self, pose: _Pose, depth: np.ndarray, normals: np.ndarray, width: float,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Pull the mesh's surface to the readings along its normals."""
        both = np.isfinite(depth) & self.seen.mask & np.isfinite(self.seen.depth)
        if np.count_nonzero(both) < _MIN_READINGS:
            return np.zeros((0, _STEP)), np.zeros(0)
        points = self.seen.rays[both] * depth[both][:, None]
        behind = depth[both] - self.seen.depth[both]
        normal = normals[both]
        off = behind * (normal * self.seen.rays[both]).sum(axis=1)
        std = float(self.seen.frame.depth_std(np.median(depth[both])))
        return _weighted(_rows(normal, points, pose), off, std, width)

    def _prior_equations(self, pose: _Pose) -> tuple[np.ndarray, np.ndarray]:
        """Hold on to what else is known: distance, view, margin, apparent size, support."""
        rows = np.zeros((7, _STEP))
        residuals = np.zeros(7)
        rows[0, 2] = 1.0 / pose.place[2] / self.distance_std
        residuals[0] = np.log(pose.place[2] / self.distance) / self.distance_std
        rows[1:4, 4:7] = np.eye(3) / _TURN_STD
        residuals[1:4] = Rotation.from_matrix(pose.turn).as_rotvec() / _TURN_STD
        rows[5, 7] = 1.0 / self.margin_std
        residuals[5] = pose.margin / self.margin_std
        rows[6, 2:4] = np.array([-1.0 / pose.place[2], 1.0]) / _SCALE_STD
        apparent = self.in_box.scale / self.in_box.place[2]
        residuals[6] = np.log(pose.scale / pose.place[2] / apparent) / _SCALE_STD
        if self.support is not None:
            points, up = pose.points(self.shape), self.support.normal @ self.view.rotation
            foot = points[np.argmin(points @ up)]
            std = _SUPPORT_STD * pose.place[2]
            rows[4] = _rows(up[None], foot[None], pose)[0] / std
            residuals[4] = (foot @ up + self.support.offset) / std
        return rows, residuals


def _outline(seen: Evidence) -> tuple[np.ndarray, np.ndarray]:
    """
    Return the mask's rim where it is the object's, (N, 2) virtual pixels, and its normals.

    It is not where the picture ends, or something nearer goes on.
    """
    depth = np.nan_to_num(seen.depth, nan=np.inf)
    nearest_beside = cv2.erode(
        np.where(seen.mask, np.inf, depth).astype(np.float32), np.ones((5, 5)))
    with np.errstate(invalid='ignore'):
        occluded = nearest_beside < depth - 0.005 - 3.0 * seen.frame.depth_std(seen.depth)
    at_border = cv2.dilate((~seen.known).astype(np.uint8), np.ones((5, 5))) > 0
    rows, columns = np.nonzero(_rim(seen.mask) & ~occluded & ~at_border)
    soft = cv2.GaussianBlur(seen.mask.astype(np.float32), (0, 0), 1.5)
    normals = np.column_stack([
        cv2.Sobel(soft, cv2.CV_32F, 1, 0)[rows, columns],
        cv2.Sobel(soft, cv2.CV_32F, 0, 1)[rows, columns]])
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    return np.column_stack([columns, rows]), normals / np.maximum(length, 1e-9)


def _rim(mask: np.ndarray) -> np.ndarray:
    """Return the outer pixels of a mask that does not reach the border, (S, S) bool."""
    rim = mask & (cv2.erode(mask.astype(np.uint8), np.ones((3, 3))) == 0)
    rim[[0, -1]] = rim[:, [0, -1]] = False
    return rim


def _rows(direction: np.ndarray, points: np.ndarray, pose: _Pose) -> np.ndarray:
    """Return how far points move in a direction (N, 3) by each number of a step, (N, 8)."""
    arm = points - pose.place
    return np.column_stack([
        direction, (direction * arm).sum(axis=1), np.cross(arm, direction), np.zeros(len(arm))])


def _weighted(
    rows: np.ndarray, off: np.ndarray, std: float, width: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Scale to standard deviations; what is off by more than the width hardly counts (Cauchy)."""
    weight = 1.0 / (std * (1.0 + (off / std / width) ** 2) ** 0.5)
    weight *= np.sqrt(min(_INDEPENDENT / len(off), 1.0))
    return rows * weight[:, None], off * weight
