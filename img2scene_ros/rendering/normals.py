# SPDX-License-Identifier: Apache-2.0
"""Normals, areas and random points of triangle meshes."""

import numpy as np


def face_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return unit normals, 0 for faces without area, (F, 3)."""
    return unit(_crossed(vertices, faces))


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return unit normals, the mean of the faces around, weighted by their areas, (V, 3)."""
    areas = _crossed(vertices, faces)
    return unit(np.stack([
        np.bincount(faces.ravel(), areas[:, axis].repeat(3), len(vertices))
        for axis in range(3)], axis=1))


def face_areas(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return areas, (F,)."""
    return np.linalg.norm(_crossed(vertices, faces), axis=1) / 2


def sampled_faces(
    vertices: np.ndarray, faces: np.ndarray, count: int, random: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw points, uniformly by area: their faces (N,), and weights of the corners (N, 3)."""
    areas = face_areas(vertices, faces)
    chosen = random.choice(len(faces), count, p=areas / areas.sum())
    return chosen, random_weights(count, random)


def random_weights(count: int, random: np.random.Generator) -> np.ndarray:
    """
    Draw barycentric weights of points that are uniform in a triangle, (N, 3).

    Osada et al., Shape distributions, 2002, equation 1.
    """
    root, along = np.sqrt(random.random(count)), random.random(count)
    return np.stack([1 - root, root * (1 - along), root * along], axis=1)


def _crossed(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    return np.cross(b - a, c - a)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return vectors (N, 3) of length 1; 0 for those without any."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-20)
