"""From solids on a voxel grid to closed, coloured meshes: what reconstructors share."""

import cv2
import numpy as np
import trimesh
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.measure import marching_cubes

from img2scene_ros.errors import MissingDependencyError
from img2scene_ros.types import Frame


def main_parts(solid: np.ndarray, cell: float, share: float = 1.0) -> np.ndarray:
    """
    Empty the parts of a solid that are small beside its largest part.

    :param solid: (X, Y, Z), positive inside
    :param cell: the value, negated, that they get
    :param share: least size of a part to be kept, as a share of the largest
    :return: (X, Y, Z)
    """
    parts, count = ndimage.label(solid > 0)
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
    :raises MissingDependencyError: Open3D is not installed, and the mesh has to be thinned out
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
    Thin a mesh out; thin walls may tear.

    :param triangles: as many are left, about
    :raises MissingDependencyError: Open3D is not installed
    """
    try:
        import open3d
    except ImportError as error:
        raise MissingDependencyError(
            'meshes need Open3D to be thinned out; install it with: pip install open3d, or raise '
            "'max_triangles'") from error
    # Plain arrays: Open3D would read trimesh's own row by row.
    dense = open3d.geometry.TriangleMesh(
        open3d.utility.Vector3dVector(mesh.vertices.view(np.ndarray)),
        open3d.utility.Vector3iVector(mesh.faces.view(np.ndarray)))
    thin = dense.simplify_quadric_decimation(triangles)
    return trimesh.Trimesh(np.asarray(thin.vertices), np.asarray(thin.triangles))


def picture_colors(
    frame: Frame, mask: np.ndarray | None, points: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """
    Look points up in the picture.

    :param mask: (H, W) bool, the object's pixels; None is the whole picture
    :param points: (N, 3) metres, optical frame
    :return: (N, 3) uint8 RGB, and (N,) bool: whether that pixel shows the object
    """
    pixels = np.nan_to_num(frame.camera.project(points), nan=-1e6)
    nearest = np.clip(np.round(pixels), 0, np.array(frame.shape)[::-1] - 1)
    columns, rows = nearest.astype(int).T
    shown = np.abs(pixels - nearest).max(axis=1) <= 0.5
    if mask is not None:
        # At the mask's edge the picture already shows the background.
        shown &= cv2.erode(mask.astype(np.uint8), np.ones((3, 3)))[rows, columns] > 0
    return frame.color[rows, columns], shown


def spread_colors(vertices: np.ndarray, colors: np.ndarray, known: np.ndarray) -> np.ndarray:
    """
    Colour vertices that are hidden as the nearest that is not.

    :param vertices: (V, 3)
    :param colors: (V, 3)
    :param known: (V,) bool, vertices whose colour is known; where none is, all stay as they are
    :return: (V, 3)
    """
    if not known.any() or known.all():
        return colors
    _, nearest = cKDTree(vertices[known]).query(vertices[~known])
    spread = colors.copy()
    spread[~known] = colors[known][nearest]
    return spread
