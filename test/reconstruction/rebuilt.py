# SPDX-License-Identifier: Apache-2.0
"""What is asked of every rebuilt object."""

import numpy as np
import open3d
import pytest
import trimesh
from scipy.spatial import cKDTree

from img2scene_ros.types import ObjectModel


def assert_closed(model: ObjectModel) -> None:
    """Check what every user of a mesh counts on."""
    mesh = trimesh.Trimesh(model.vertices, model.faces, process=False)
    assert mesh.is_watertight and mesh.is_winding_consistent and mesh.volume > 0
    assert np.isfinite(model.vertices).all()
    assert model.colors.shape == model.vertices.shape
    assert mesh.bounds.sum(axis=0) == pytest.approx((0, 0, 0), abs=1e-5), 'the box is centred'


def surface_points(model: ObjectModel) -> np.ndarray:
    """Return points on the surface, optical frame."""
    mesh = trimesh.Trimesh(model.points, model.faces, process=False)
    return trimesh.sample.sample_surface(mesh, 3000, seed=1)[0]


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """Return the greater of the mean distances to the nearest point, there and back."""
    return max(cKDTree(a).query(b)[0].mean() for a, b in ((one, other), (other, one)))


def occupancy(vertices: np.ndarray, faces: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Tell which points lie inside a closed mesh, by Open3D's ray casting."""
    scene = open3d.t.geometry.RaycastingScene()
    scene.add_triangles(open3d.core.Tensor(np.asarray(vertices, np.float32)),
                        open3d.core.Tensor(np.asarray(faces, np.uint32)))
    return scene.compute_occupancy(open3d.core.Tensor(points.astype(np.float32))).numpy() > 0
