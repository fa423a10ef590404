# SPDX-License-Identifier: Apache-2.0
"""
Collision meshes: few triangles, closed, and around the whole object.

No point of the visual mesh lies farther outside of them than 2 mm or 1 % of the longest side,
whichever is less.
"""

import logging

import numpy as np
import trimesh
from scipy.spatial import ConvexHull

from img2scene_ros.errors import MissingDependencyError
from img2scene_ros.mesh.closing import decimated
from img2scene_ros.rendering.raycast import raycasting_scene
from img2scene_ros.types import ObjectModel

KINDS = ('mesh', 'hull', 'convex_parts')
GREATEST_GAP = 0.002  # metres that an object may stick out of its collision mesh
GREATEST_SHARE = 0.01  # and as a share of its longest side; the lesser holds
_ROUNDS = 10  # in which a mesh is grown until it holds the object

_LOGGER = logging.getLogger(__name__)


def collision_parts(
    model: ObjectModel, kind: str = 'mesh', triangles: int = 1000,
) -> list[trimesh.Trimesh]:
    """
    Return closed meshes that together hold an object, in its object frame.

    :param kind: 'mesh', decimated and then grown (the hull where that fails, and without
        Open3D); 'hull', convex; 'convex_parts', a convex decomposition by CoACD (where it is not
        installed: as 'mesh')
    :param triangles: greatest number of triangles of each of the meshes
    """
    mesh = trimesh.Trimesh(model.vertices, model.faces, process=False)
    if kind == 'convex_parts':
        parts = _convex_parts(mesh, triangles)
        if parts:
            return parts
    if kind == 'hull' or not mesh.is_watertight:
        return [_hull(mesh.vertices, triangles)]
    if len(mesh.faces) <= triangles:
        return [mesh]
    return [_decimated(mesh, triangles) or _hull(mesh.vertices, triangles)]


def tolerance(size: np.ndarray) -> float:
    """Return how far an object may stick out of its collision mesh, metres, by its extents."""
    return min(GREATEST_GAP, GREATEST_SHARE * float(np.max(size)))


def _hull(points: np.ndarray, triangles: int) -> trimesh.Trimesh:
    """Return a convex mesh around points: their hull, or one of fewer corners, enlarged."""
    center = (points.min(axis=0) + points.max(axis=0)) / 2.0
    size = np.maximum(np.ptp(points, axis=0), 1e-6)
    scaled = (points - center) / size
    hull = ConvexHull(scaled, qhull_options='QJ')
    corners = scaled[hull.vertices]
    if len(hull.simplices) > triangles:
        # A convex mesh of n corners has at most 2 n - 4 triangles.
        farthest = np.unique((corners @ _spread(triangles // 2).T).argmax(axis=0))
        hull = ConvexHull(corners[farthest], qhull_options='QJ')
        normals, offsets = hull.equations[:, :3], -hull.equations[:, 3]
        growth = ((corners @ normals.T).max(axis=0) / offsets).max()
        corners = corners[farthest] * max(1.0, growth)
    return trimesh.convex.convex_hull(corners * size + center, qhull_options='QJ')


def _spread(count: int) -> np.ndarray:
    """Return evenly spread directions, (N, 3): the corners of a cube and a Fibonacci sphere."""
    cube = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
    index = np.arange(count - len(cube)) + 0.5
    z = 1.0 - 2.0 * index / len(index)
    turn = np.pi * (1.0 + np.sqrt(5.0)) * index
    ring = np.sqrt(1.0 - z * z)
    return np.concatenate([cube, np.stack([ring * np.cos(turn), ring * np.sin(turn), z], axis=1)])


def _decimated(mesh: trimesh.Trimesh, triangles: int) -> trimesh.Trimesh | None:
    """Return a mesh of fewer triangles, grown until it holds the given one; None: impossible."""
    try:
        coarse = decimated(mesh, triangles)
    except MissingDependencyError:
        return None
    if not coarse.is_watertight or coarse.volume <= 0 or len(coarse.faces) > triangles:
        return None
    samples = np.concatenate([mesh.vertices, mesh.triangles_center]).astype(np.float32)
    allowed = tolerance(mesh.extents)
    for _ in range(_ROUNDS):
        scene = raycasting_scene(np.array(coarse.vertices, np.float32), coarse.faces)
        gap = scene.compute_signed_distance(samples).numpy()
        if gap.max() <= 0.8 * allowed:
            return coarse
        # The triangle that is nearest to a point outside moves outwards until it meets it.
        outside = gap > 0.3 * allowed
        nearest = scene.compute_closest_points(samples[outside])['primitive_ids'].numpy()
        push = np.zeros(len(coarse.vertices))
        np.maximum.at(push, coarse.faces[nearest], gap[outside, None])
        coarse = trimesh.Trimesh(
            coarse.vertices + coarse.vertex_normals * push[:, None], coarse.faces, process=False)
    return None


def _convex_parts(mesh: trimesh.Trimesh, triangles: int) -> list[trimesh.Trimesh]:
    """Return convex parts that together hold the mesh; none without CoACD."""
    try:
        import coacd
    except (ImportError, OSError):
        _LOGGER.warning('convex parts for collision need CoACD: pip install coacd; '
                        'the collision meshes are not decomposed')
        return []
    coacd.set_log_level('error')
    found = coacd.run_coacd(coacd.Mesh(mesh.vertices, mesh.faces), seed=1)
    parts = [np.asarray(vertices) for vertices, _ in found]
    # What the decomposition has cut off belongs to the part that is nearest.
    planes = [ConvexHull(part, qhull_options='QJ').equations for part in parts]
    gaps = np.stack([(mesh.vertices @ each[:, :3].T + each[:, 3]).max(axis=1) for each in planes])
    nearest, is_out = gaps.argmin(axis=0), gaps.min(axis=0) > 0.0
    return [
        _hull(np.concatenate([part, mesh.vertices[is_out & (nearest == index)]]), triangles)
        for index, part in enumerate(parts)]
