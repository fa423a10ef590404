# SPDX-License-Identifier: Apache-2.0
"""Solids on grids of cells: those of meshes, and those of another grid."""

from typing import Any

import numpy as np
import trimesh
from scipy import ndimage

from img2scene_ros.rendering.raycast import raycasting_scene

# Cells of a mesh's solid along its longest side: as few as give its walls two.
CELLS = (128, 192, 256)
WALL_CELLS = 2.0
KNOWN = 0.8  # share of the cells on a mesh's surface that must bound an inside


def cells_reached(solid: np.ndarray, to_cells: np.ndarray, resolution: int) -> np.ndarray:
    """
    Return the cells of a volume that a solid reaches into.

    Those whose centre lies in the solid, and those that hold the centre of one of its surface
    cells: of what is thinner than a cell, centres alone would leave a sieve.

    :param solid: (X, Y, Z) bool
    :param to_cells: (4, 4), takes the index (i, j, k, 1) of a cell of the solid to the volume's
    :param resolution: R, cells along a side of the volume
    :return: (R, R, R) bool
    """
    back = np.linalg.inv(to_cells)
    reached = ndimage.affine_transform(
        solid.view(np.uint8), back[:3, :3], back[:3, 3], (resolution,) * 3, order=0).astype(bool)
    cells = np.rint(surface_cells(solid) @ to_cells[:3, :3].T + to_cells[:3, 3]).astype(int)
    inside = ((cells >= 0) & (cells < resolution)).all(axis=1)
    reached[tuple(cells[inside].T)] = True
    return reached


def surface_cells(solid: np.ndarray) -> np.ndarray:
    """Return the indices of full cells with an empty one beside them, (N, 3)."""
    return np.argwhere(solid & ~ndimage.binary_erosion(solid))


def solid_of(parts: list[trimesh.Trimesh], cell: float) -> np.ndarray:
    """
    Return which cells have their centre in one of some closed meshes.

    :param parts: about the origin; they may overlap
    :param cell: metres
    :return: (X, Y, Z) bool, the grid's centre is the origin
    """
    half = np.abs(np.concatenate([part.bounds for part in parts])).max(axis=0)
    shape = 2 * np.ceil(half / cell).astype(int)
    solid = np.zeros(shape, bool)
    for part in parts:
        solid |= _inside(part, shape, cell)
    return solid


def _inside(mesh: trimesh.Trimesh, shape: np.ndarray, cell: float) -> np.ndarray:
    """Return which cells' centres are in one closed mesh: after an odd number of crossings."""
    scene = raycasting_scene(np.array(mesh.vertices, np.float32), mesh.faces)
    return np.logical_xor.accumulate(_crossings(scene, shape, cell, 2) % 2 == 1, axis=2)


def _crossings(scene: Any, shape: np.ndarray, cell: float, axis: int) -> np.ndarray:
    """
    Return how often a surface is crossed on the way to each cell's centre from the one before.

    :param scene: of the surface, about the grid's centre
    :param axis: 0, 1 or 2, the way's direction
    :return: (X, Y, Z) uint8
    """
    order = [(axis + 1) % 3, (axis + 2) % 3, axis]
    u, v, first = ((np.arange(n) + 0.5 - n / 2) * cell for n in shape[order])
    # A little beside the middle, so that rays do not run along the edges of symmetric meshes.
    u, v = np.meshgrid(u + 0.0137 * cell, v + 0.0071 * cell, indexing='ij')
    rays = np.zeros((u.size, 6), np.float32)
    rays[:, order] = np.stack([u, v, np.full_like(u, first[0] - cell)], axis=-1).reshape(-1, 3)
    rays[:, 3 + axis] = 1
    crossed = scene.list_intersections(rays)
    steps = np.ceil(crossed['t_hit'].numpy() / cell - 1).astype(int)
    counts = np.zeros((u.size, shape[axis] + 1), np.uint8)
    np.add.at(counts, (crossed['ray_ids'].numpy().astype(int), steps.clip(0, shape[axis])), 1)
    return np.moveaxis(counts[:, :-1].reshape(*u.shape, -1), (0, 1, 2), order)


def flooded(mesh: trimesh.Trimesh, cell: float) -> np.ndarray | None:
    """
    Return the cells that a flood from outside a mesh does not reach, (X, Y, Z) bool.

    Cells that the surface touches stop the flood, so that it does not leak through gaps narrower
    than a cell; then it goes on into those whose centre lies on its side of the surface. Sheets,
    which have no centres inside, are given one cell.

    :param mesh: about the origin; it need not be closed
    :param cell: metres
    :return: None where too much of the surface is open sheets
    """
    from open3d.geometry import TriangleMesh
    from open3d.geometry import VoxelGrid
    from open3d.utility import Vector3dVector
    from open3d.utility import Vector3iVector

    scene = raycasting_scene(np.array(mesh.vertices, np.float32), mesh.faces)
    shape = 2 * np.ceil(mesh.extents / 2 / cell).astype(int) + 4  # free ones around
    touched = VoxelGrid.create_from_triangle_mesh_within_bounds(
        TriangleMesh(Vector3dVector(mesh.vertices), Vector3iVector(mesh.faces)), cell,
        -shape * cell / 2, shape * cell / 2)
    surface = np.zeros(shape, bool)
    surface[tuple(np.array([voxel.grid_index for voxel in touched.get_voxels()]).T)] = True
    outside = _reached(~surface)
    crossed = [_crossings(scene, shape, cell, axis) > 0 for axis in range(3)]
    for _ in range(2):  # the surface's cells are hardly thicker
        before = outside.copy()
        for axis in range(3):
            new, old, wall = (np.moveaxis(a, axis, 0) for a in (outside, before, crossed[axis]))
            new[1:] |= old[:-1] & ~wall[1:]
            new[:-1] |= old[1:] & ~wall[1:]
    near = ndimage.maximum_filter(~outside, 3)
    if near[surface].mean() < KNOWN:
        return None
    return filled(trimmed(~outside | (surface & ~near)))


def cell_of(mesh: trimesh.Trimesh) -> float:
    """Return the side in metres of cells that are fine enough for a mesh's walls."""
    points, faces = trimesh.sample.sample_surface(mesh, 4000, seed=0)
    scene = raycasting_scene(np.array(mesh.vertices, np.float32), mesh.faces)
    side = mesh.extents.max()
    apart = 1e-4 * side  # two faces at one place are no wall
    walls = []
    for ahead in (mesh.face_normals[faces], -mesh.face_normals[faces]):  # either may be inward
        rays = np.concatenate([points + apart * ahead, ahead], axis=1).astype(np.float32)
        walls.append(scene.cast_rays(rays)['t_hit'].numpy() + apart)
    thin = np.percentile(np.minimum(*walls), 5)
    return side / next((n for n in CELLS if thin * n >= WALL_CELLS * side), CELLS[-1])


def _reached(free: np.ndarray) -> np.ndarray:
    """Return the free cells that are reached from outside the grid, (X, Y, Z) bool."""
    regions, _ = ndimage.label(np.pad(free, 1, constant_values=True))
    return (regions == regions[0, 0, 0])[1:-1, 1:-1, 1:-1]


def filled(solid: np.ndarray) -> np.ndarray:
    """Close sealed hollows."""
    return ~_reached(~solid)


def trimmed(solid: np.ndarray) -> np.ndarray:
    """Cut empty margins off, the same from both ends, so that the centre stays."""
    full = np.argwhere(solid)
    margin = np.minimum(full.min(axis=0), np.array(solid.shape) - 1 - full.max(axis=0))
    return solid[tuple(slice(m, n - m) for m, n in zip(margin, solid.shape))]
