# SPDX-License-Identifier: Apache-2.0
"""
The seen surface of an RGB-D view, completed to a closed mesh. Needs no weights.

The view itself bounds the object: it lies behind the measured surface, inside the mask, above its
support. Most objects are symmetric about a vertical plane, so a mirrored camera would see the
same bounds from behind. Both together cut the solid out of a voxel grid, which marching cubes
turns into a mesh. The plane is the one whose mirrored surface agrees best with what was measured:
it may stick neither out of the mask nor into the free space in front of the depth image.
(Thrun, Wegbreit: Shape from symmetry, ICCV 2005; Curless, Levoy: A volumetric method for building
complex models from range images, SIGGRAPH 1996.)
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull

from img2scene_ros.errors import ReconstructionError
from img2scene_ros.mesh.closing import closed_mesh
from img2scene_ros.mesh.closing import main_parts
from img2scene_ros.mesh.colors import spread_colors
from img2scene_ros.options import Options
from img2scene_ros.options import option
from img2scene_ros.reconstruction import model_of
from img2scene_ros.reconstruction.symmetry import Mirror
from img2scene_ros.reconstruction.symmetry import find_mirror
from img2scene_ros.reconstruction.view import View
from img2scene_ros.types import ObjectModel
from img2scene_ros.types import Sighting


@dataclass(frozen=True)
class DepthShellOptions(Options):
    """How finely `depth_shell` rebuilds, and when it trusts a symmetry."""

    resolution: int = option(56, 'Voxels along the longest side of an object', low=16, high=192)
    max_triangles: int = option(12000, 'Greatest number of triangles of a mesh', low=200,
                                high=200000)
    max_disagreement: float = option(
        0.06, 'Greatest share by which a mirrored surface may contradict the view; above it the '
        'object counts as not symmetric', low=0.0, high=1.0)


class DepthShellReconstructor:
    """Completes what the depth image shows of an object."""

    Options = DepthShellOptions

    def __init__(self, options: DepthShellOptions = DepthShellOptions()) -> None:
        self.options = options

    def reconstruct(self, sighting: Sighting) -> ObjectModel:
        """
        Rebuild one object from its mask and depth.

        :raises ReconstructionError: no mask, no depth, or too little of either
        """
        wall = max(0.004, 1.8 * sighting.placement.size.max() / self.options.resolution)
        view = View(sighting, wall)
        found, disagreement = find_mirror(view)
        mirror = found if disagreement <= self.options.max_disagreement else None
        vertices, faces = self._mesh(view, mirror)
        colors = _colors(view, mirror, vertices)
        rotation = sighting.placement.rotation
        return model_of(
            view.to_optical(vertices) @ rotation, faces, colors, rotation, 'depth_shell')

    def _mesh(self, view: View, mirror: Mirror | None) -> tuple[np.ndarray, np.ndarray]:
        """Return vertices in the view's axes and faces of a closed mesh."""
        seen = view.surface if mirror is None else np.concatenate(
            [view.surface, mirror.reflected(view.surface)])
        low, high = seen.min(axis=0), seen.max(axis=0)
        low[2], high[2] = view.bottom, view.top
        cell = max(0.0012, float((high - low).max()) / self.options.resolution)
        axes = [np.arange(a - 3 * cell, b + 3.5 * cell, cell) for a, b in zip(low, high)]
        grid = np.stack(np.meshgrid(*axes, indexing='ij'), axis=-1)
        depth = np.clip(_depth_in_solid(view, mirror, seen, grid, cell), -2 * cell, 2 * cell)
        solid = main_parts(ndimage.gaussian_filter(depth, 0.6), cell)
        filled = np.argwhere(solid > 0)
        if not len(filled) or np.ptp(filled, axis=0).max() * cell < 0.4 * (high - low).max():
            raise ReconstructionError(
                'what is seen of the object does not hold together; move the camera closer')
        return closed_mesh(solid, cell, grid[0, 0, 0], self.options.max_triangles)


def _depth_in_solid(
    view: View, mirror: Mirror | None, seen: np.ndarray, grid: np.ndarray, cell: float,
) -> np.ndarray:
    """
    Return how deep voxels lie inside the object, negative outside, (X, Y, Z) metres.

    :param seen: (N, 3) metres, seen points and their mirror images
    :param grid: (X, Y, Z, 3) metres, the voxels' centres
    """
    shape, points = grid.shape[:3], grid.reshape(-1, 3)
    behind, beside, *_ = view.depths(points)
    hidden = view.depth_inside(points)
    if mirror is not None:
        mirrored = view.depth_inside(mirror.reflected(points))
        hidden = np.minimum(hidden, mirrored + view.tolerance)
    # Whatever the mirror says, what is seen stays, and what carries a seen top is solid.
    shell = view.wall - behind
    under = _depth_under(view.tops, grid, cell).ravel()
    inside = np.maximum.reduce([hidden, shell, under])
    inside = np.minimum.reduce(
        [inside, behind, beside, points[:, 2] - view.bottom, view.top - points[:, 2]])
    outline = _depth_in_outline(grid[:, :, 0, :2], seen[:, :2])
    return np.minimum(inside.reshape(shape), outline[..., None])


def _depth_under(tops: np.ndarray, grid: np.ndarray, cell: float) -> np.ndarray:
    """
    Return metres below seen top faces, negative where there is none above, (X, Y, Z).

    :param tops: (N, 3) metres, points of faces that look up
    :param grid: (X, Y, Z, 3) metres, the voxels' centres
    """
    height = np.full(grid.shape[:2], -np.inf)
    columns = np.round((tops[:, :2] - grid[0, 0, 0, :2]) / cell).astype(int)
    np.maximum.at(height, tuple(np.clip(columns, 0, np.array(height.shape) - 1).T), tops[:, 2])
    height = ndimage.grey_closing(height, size=(3, 3))
    return np.maximum(height[..., None] - grid[..., 2], -2.0 * cell)


def _depth_in_outline(plan: np.ndarray, outline: np.ndarray) -> np.ndarray:
    """Return metres inside the convex outline of points seen from above, (X, Y)."""
    edges = ConvexHull(outline, qhull_options='QJ').equations
    return -(plan @ edges[:, :2].T + edges[:, 2]).max(axis=-1)


def _colors(view: View, mirror: Mirror | None, vertices: np.ndarray) -> np.ndarray:
    """Colour vertices from the picture; hidden ones from their mirror image or the nearest."""
    colors, known = view.colors(vertices)
    if mirror is not None:
        mirrored, seen = view.colors(mirror.reflected(vertices))
        colors = np.where((seen & ~known)[:, None], mirrored, colors)
        known = known | seen
    return spread_colors(vertices, colors, known)


BACKEND = DepthShellReconstructor
