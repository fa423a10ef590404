# SPDX-License-Identifier: Apache-2.0
"""Normals and areas of triangle meshes."""

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


def _crossed(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    return np.cross(b - a, c - a)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return vectors (N, 3) of length 1; 0 for those without any."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-20)
