# SPDX-License-Identifier: Apache-2.0
"""Closing and simplifying: from solids on a voxel grid, or from open meshes, to closed ones."""

import numpy as np
import trimesh
from scipy import ndimage
from skimage.measure import marching_cubes

from img2scene_ros.errors import ReconstructionError
from img2scene_ros.packages import importing
from img2scene_ros.rendering.raycast import raycasting_scene

_CELLS = 64  # along the longest side of a mesh that is wrapped again
_SHELL = 0.55  # cells on either side of a surface; from half a cell a shell has no gaps
MIN_PART = 0.001  # of the largest part; smaller parts are specks


def main_parts(solid: np.ndarray, cell: float, share: float = 1.0) -> np.ndarray:
    """
    Empty the parts of a solid that are small beside its largest part.

    :param solid: (X, Y, Z), positive inside
    :param cell: the value, negated, that they get
    :param share: least size of a part to be kept, as a share of the largest
    :return: (X, Y, Z)
    """
    # Cells that meet in a corner are one part: a wall of one cell is no more than that.
    parts, count = ndimage.label(solid > 0, np.ones((3, 3, 3)))
    if count < 2:
        return solid
    sizes = ndimage.sum_labels(solid > 0, parts, range(1, count + 1))
    small = np.concatenate([[False], sizes < share * sizes.max()])
    return np.where(small[parts], -cell, solid)


def closed_mesh(
    solid: np.ndarray, cell: float | np.ndarray, origin: np.ndarray, max_triangles: int,
) -> tuple[np.ndarray, np.ndarray]:
    """
    Wrap a solid in a smooth mesh.

    :param solid: (X, Y, Z), positive inside, linear around 0; negative all around
    :param cell: metres, or (3,) metres
    :param origin: (3,) metres, the centre of the first cell
    :return: (V, 3) float64 metres, and (F, 3) faces, counter-clockwise seen from outside
    :raises MissingDependencyError: Open3D is not installed, and the mesh has to be decimated
    """
    vertices, faces, _, _ = marching_cubes(solid, 0.0, gradient_direction='ascent')
    mesh = trimesh.Trimesh(vertices * cell + origin, faces, process=False)
    trimesh.smoothing.filter_taubin(mesh, lamb=0.5, nu=0.53, iterations=6)
    if len(faces) > max_triangles:
        mesh = decimated(mesh, max_triangles)
        if not mesh.is_watertight or mesh.volume <= 0:
            # Thin walls can tear; a coarser grid has fewer triangles, too.
            coarse = ndimage.zoom(solid, 0.9 * np.sqrt(max_triangles / len(faces)), order=1)
            step = (np.array(solid.shape) - 1) / (np.array(coarse.shape) - 1)
            return closed_mesh(coarse, cell * step, origin, max_triangles)
    return np.asarray(mesh.vertices), np.asarray(mesh.faces)


def decimated(mesh: trimesh.Trimesh, triangles: int) -> trimesh.Trimesh:
    """
    Decimate a mesh; thin walls may tear.

    :param triangles: as many are left, about
    :raises MissingDependencyError: Open3D is not installed
    """
    with importing("the decimation to 'max_triangles'", 'open3d', 'raise that option'):
        import open3d
    # Plain arrays: Open3D would read trimesh's own row by row.
    dense = open3d.geometry.TriangleMesh(
        open3d.utility.Vector3dVector(mesh.vertices.view(np.ndarray)),
        open3d.utility.Vector3iVector(mesh.faces.view(np.ndarray)))
    thin = dense.simplify_quadric_decimation(triangles)
    return trimesh.Trimesh(np.asarray(thin.vertices), np.asarray(thin.triangles))


def repaired(
    vertices: np.ndarray, faces: np.ndarray, max_triangles: int,
) -> tuple[np.ndarray, np.ndarray]:
    """
    Close a mesh that may be open, torn or wound inside out.

    One that is closed stays as it is. Small holes of others are filled; what is still open is
    wrapped on a voxel grid, which closes it and moves its surface outwards by about half a cell
    (`_CELLS` along the longest side).

    :param vertices: (V, 3), of any size
    :param faces: (F, 3)
    :param max_triangles: of the result, about
    :return: (V, 3) float64 vertices and (F, 3) faces, counter-clockwise seen from outside
    :raises ReconstructionError: it has no surface
    :raises MissingDependencyError: Open3D is not installed
    """
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    mesh.merge_vertices(merge_tex=True, merge_norm=True)  # files part them at seams
    mesh.update_faces(mesh.nondegenerate_faces() & mesh.unique_faces())
    mesh.remove_unreferenced_vertices()
    if not mesh.is_volume:
        trimesh.repair.fill_holes(mesh)
        trimesh.repair.fix_normals(mesh, multibody=True)
    if mesh.is_volume and len(mesh.faces) > max_triangles:
        mesh = decimated(mesh, max_triangles)
    if mesh.is_volume:
        return np.asarray(mesh.vertices), np.asarray(mesh.faces)
    return _wrapped(vertices, faces, max_triangles)


def _wrapped(
    vertices: np.ndarray, faces: np.ndarray, max_triangles: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Wrap whatever it is in a closed surface: a shell around its faces, filled inside."""
    scene = raycasting_scene(vertices.astype(np.float32), faces)  # says it if Open3D is missing
    import open3d

    low, high = vertices.min(axis=0), vertices.max(axis=0)
    cell = float((high - low).max()) / _CELLS
    shape = np.ceil((high - low) / cell).astype(int) + 5
    origin = (low + high - cell * (shape - 1)) / 2.0
    points = (np.indices(shape).transpose(1, 2, 3, 0) * cell + origin).astype(np.float32)
    distance = scene.compute_distance(open3d.core.Tensor(points)).numpy() / cell
    shell = _SHELL - distance
    inside = ndimage.binary_fill_holes(shell > 0) & (shell <= 0)
    solid = main_parts(np.where(inside, distance, shell), 1.0, MIN_PART)
    if not (solid > 0).any():
        raise ReconstructionError('the mesh has no surface; choose another view')
    return closed_mesh(solid, cell, origin, max_triangles)
