# SPDX-License-Identifier: Apache-2.0
"""Samples of a model's surface, by which it is looked for in depth images."""

from dataclasses import dataclass
from functools import cached_property
from functools import lru_cache

import numpy as np
from scipy.spatial import cKDTree

from img2scene_ros.types import ObjectModel

SAMPLES = 1000  # of a model's whole surface
_AROUND = 12  # samples that are near each other
_SAG = 0.1  # of a cylinder, half-way between samples: of their spacing and the turn of normals
_RIDGE = (0.1,) * 3  # beside squared distances in spacings, where all lie in a plane
_ALIKE = np.cos(np.radians(30.0))  # cosine between normals of one smooth surface, at least


@dataclass(frozen=True, eq=False)
class SampledSurface:
    """
    What is sampled of a model, in its object frame, metres.

    - points, normals: (SAMPLES, 3) evenly over the surface, with unit normals
    - spacing: of the points
    """

    model: ObjectModel
    points: np.ndarray
    normals: np.ndarray
    spacing: float

    @cached_property
    def smooth_normals(self) -> np.ndarray:
        """Return normals as those around that are alike change, linearly, (SAMPLES, 3)."""
        offsets = (self.points[self._around] - self.points[:, None]) / self.spacing
        places = np.concatenate([np.ones((*offsets.shape[:2], 1)), offsets], axis=2)
        normals = self.normals
        for _ in range(2):
            near = normals[self._around]
            alike = np.einsum('nki,ni->nk', near, normals) > _ALIKE
            weighted = np.swapaxes(places * alike[..., None], 1, 2)
            normals = np.linalg.solve(
                weighted @ places + np.diag((0.0, *_RIDGE)), weighted @ near)[:, 0]
            normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        return normals

    @cached_property
    def bends(self) -> np.ndarray:
        """Return the metres by which the surface leaves the samples' planes, (SAMPLES,)."""
        turns = self.normals[self._around] - self.normals[:, None]
        return _SAG * self.spacing * np.sqrt((turns ** 2).sum(axis=2).mean(axis=1))

    @cached_property
    def heights(self) -> np.ndarray:
        """Return the metres along these from the origin to the samples, (SAMPLES,)."""
        return np.einsum('ni,ni->n', self.smooth_normals, self.points)

    @cached_property
    def beyond_edge(self) -> np.ndarray:
        """Return the nearest sample beyond an edge, itself where none is near, (SAMPLES,)."""
        alike = np.einsum('nki,ni->nk', self.normals[self._around], self.normals)
        first = np.argmax(alike < _ALIKE, axis=1)  # 0, itself, where all are alike
        return np.take_along_axis(self._around, first[:, None], axis=1)[:, 0]

    @cached_property
    def edges(self) -> 'Edges':
        """Return the edges between two faces."""
        corners, normals, _ = _triangles(self.model)
        # Vertices at one place are one, whatever their texture.
        order = np.lexsort(self.model.vertices.T)
        is_new = np.diff(self.model.vertices[order], axis=0).any(axis=1)
        place = np.empty(len(order), int)
        place[order] = np.append(0, np.cumsum(is_new))
        ends = place[self.model.faces]
        others = ends[:, [1, 2, 0]]
        edges = (np.minimum(ends, others) * len(place) + np.maximum(ends, others)).ravel()
        order = np.argsort(edges)
        same = np.flatnonzero(np.diff(edges[order]) == 0)
        face, corner = np.divmod(order[same], 3)
        return Edges(
            corners[face, corner], corners[face, (corner + 1) % 3],
            np.column_stack([face, order[same + 1] // 3]), normals,
            np.einsum('fi,fi->f', normals, corners[:, 0]))

    def near(self, points: np.ndarray) -> np.ndarray:
        """Return the samples nearest to points, (N, 3) metres, (N, 4)."""
        return self._tree.query(points, 4)[1]

    @cached_property
    def inertia(self) -> np.ndarray:
        """Return the mean of the squared levers about the axes, (3, 3)."""
        moments = self.points.T @ self.points / len(self.points)
        return np.trace(moments) * np.eye(3) - moments

    @cached_property
    def size(self) -> np.ndarray:
        """Return the sides of the model's bounding box, (3,) metres."""
        return self.model.size.astype(float)

    @cached_property
    def radius(self) -> float:
        """Return the mean lever, metres."""
        return float(np.sqrt(np.trace(self.inertia) / 2.0))

    @cached_property
    def _around(self) -> np.ndarray:
        """Return the nearest samples of each, first itself, (SAMPLES, 12)."""
        return self._tree.query(self.points, _AROUND)[1]

    @cached_property
    def _tree(self) -> cKDTree:
        return cKDTree(self.points)


@dataclass(frozen=True, eq=False)
class Edges:
    """
    Edges between two faces, in the object frame.

    - starts, stops: (E, 3) metres, their ends
    - faces: (E, 2) which faces meet there; normals: (F, 3) of the faces, and offsets: (F,) metres
      of their planes along these
    """

    starts: np.ndarray
    stops: np.ndarray
    faces: np.ndarray
    normals: np.ndarray
    offsets: np.ndarray

    def rim(self, eye: np.ndarray, count: int) -> np.ndarray:
        """
        Return points on the edges between what faces a place and what does not, evenly spread.

        :param eye: (3,) metres, the place
        :return: (count, 3) metres; none, (0, 3), where there is no such edge
        """
        facing = (self.normals @ eye > self.offsets).take(self.faces)
        rim = np.flatnonzero(facing[:, 0] != facing[:, 1])
        starts, ways = self.starts[rim], self.stops[rim] - self.starts[rim]
        lengths = np.linalg.norm(ways, axis=1)
        ends = np.cumsum(lengths)
        if not len(rim):
            return starts
        at = (np.arange(count) + 0.5) / count * ends[-1]
        edge = np.searchsorted(ends, at)
        part = 1.0 - (ends[edge] - at) / lengths[edge]
        return starts[edge] + part[:, None] * ways[edge]


@lru_cache(maxsize=64)
def sampled(model: ObjectModel) -> SampledSurface:
    """Return points that are spread evenly over a model's surface."""
    corners, normals, areas = _triangles(model)
    # Evenly by area along the faces; within them by the R2 sequence, as even in two dimensions
    # as the golden ratio makes it in one.
    ends, number = np.cumsum(areas), np.arange(SAMPLES) + 0.5
    face = np.searchsorted(ends, number / SAMPLES * ends[-1])
    u, v = (number * 0.7548776662) % 1.0, (number * 0.5698402910) % 1.0
    u, v = np.where(u + v > 1.0, (1.0 - u, 1.0 - v), (u, v))
    a, b, c = np.moveaxis(corners[face], 1, 0)
    points = a + u[:, None] * (b - a) + v[:, None] * (c - a)
    return SampledSurface(model, points, normals[face], float(np.sqrt(ends[-1] / SAMPLES)))


def _triangles(model: ObjectModel) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return corners (F, 3, 3) in metres, unit normals (F, 3) and areas (F,), m^2, of faces."""
    corners = model.vertices[model.faces].astype(float)
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    lengths = np.linalg.norm(across, axis=1)
    return corners, across / np.maximum(lengths, 1e-12)[:, None], lengths / 2.0
