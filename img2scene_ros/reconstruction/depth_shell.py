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

import cv2
import numpy as np
import trimesh
from scipy import ndimage
from scipy.spatial import ConvexHull
from scipy.spatial import cKDTree
from skimage.measure import marching_cubes

from img2scene_ros.errors import ReconstructionError
from img2scene_ros.frame import Frame
from img2scene_ros.frame import depth_std
from img2scene_ros.localization import Placement
from img2scene_ros.localization import Sighting
from img2scene_ros.options import Options
from img2scene_ros.options import option
from img2scene_ros.reconstruction import ObjectModel

_MARGIN = 16
_SURFACE_SAMPLES = 600
_FACING_UP = np.cos(np.radians(40.0))


@dataclass(frozen=True)
class DepthShellOptions(Options):
    """How finely `depth_shell` rebuilds, and when it trusts a symmetry."""

    resolution: int = option(56, 'Voxels along the longest side of an object', low=16, high=192)
    max_triangles: int = option(6000, 'Greatest number of triangles of a mesh', low=200,
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
        mirror, disagreement = find_mirror(view)
        if disagreement > self.options.max_disagreement:
            mirror = None
        vertices, faces = self._mesh(view, mirror)
        colors = _colors(view, mirror, vertices)
        center = (vertices.min(axis=0) + vertices.max(axis=0)) / 2.0
        return ObjectModel(
            (vertices - center).astype(np.float32), faces.astype(np.int32), colors,
            view.to_optical(center), sighting.placement.rotation, 'depth_shell')

    def _mesh(self, view: 'View', mirror: 'Mirror | None') -> tuple[np.ndarray, np.ndarray]:
        """Return vertices in the placement's object axes and faces of a closed mesh."""
        seen = view.surface if mirror is None else np.concatenate(
            [view.surface, mirror.reflected(view.surface)])
        low, high = seen.min(axis=0), seen.max(axis=0)
        low[2], high[2] = view.bottom, view.top
        cell = max(0.0012, float((high - low).max()) / self.options.resolution)
        grid = [np.arange(a - 3 * cell, b + 3.5 * cell, cell) for a, b in zip(low, high)]
        shape = tuple(len(axis) for axis in grid)
        points = np.stack(np.meshgrid(*grid, indexing='ij'), axis=-1).reshape(-1, 3)

        behind, beside, _ = view.depths(points)
        hidden = view.depth_inside(points)
        if mirror is not None:
            mirrored = view.depth_inside(mirror.reflected(points))
            hidden = np.minimum(hidden, mirrored + view.tolerance)
        # Whatever the mirror says, what is seen stays, and what carries a seen top is solid.
        shell = view.wall - behind
        under = _depth_under(view.tops, points.reshape(shape + (3,)), cell).ravel()
        inside = np.maximum.reduce([hidden, shell, under])
        for bound in (behind, beside, _depth_in_outline(points[:, :2], seen[:, :2]),
                      points[:, 2] - view.bottom, view.top - points[:, 2]):
            inside = np.minimum(inside, bound)
        solid = np.clip(inside, -2 * cell, 2 * cell).reshape(shape)
        solid = _largest_part(ndimage.gaussian_filter(solid, 0.6), cell)
        if not (solid > 0).any():
            raise ReconstructionError(
                'too little of the object is seen to rebuild it; move the camera closer')
        vertices, faces, _, _ = marching_cubes(solid, 0.0, gradient_direction='ascent')
        mesh = trimesh.Trimesh(vertices * cell + [axis[0] for axis in grid], faces, process=False)
        return _simplified(mesh, self.options.max_triangles)


class View:
    """
    What one frame tells about one object, in the axes of its placement, metres.

    :param wall: least thickness of what is seen
    :raises ReconstructionError: the frame shows too little of the object
    """

    def __init__(self, sighting: Sighting, wall: float) -> None:
        frame, mask = sighting.frame, sighting.detection.mask
        self.frame = frame
        self.own = mask
        self.placement = sighting.placement
        if mask is None or frame.depth is None:
            raise ReconstructionError(
                "the reconstructor 'depth_shell' needs a depth image and a mask of the object")
        readings = mask & np.isfinite(frame.depth)
        if np.count_nonzero(readings) < 50:
            raise ReconstructionError(
                'the object has too few depth readings; move the camera closer or turn it')
        self.window = _window(mask)
        self.mask = _cut(mask, self.window)
        self.tolerance = float(2.0 * depth_std(sighting.placement.position[2]))
        readings = _cut(readings, self.window)
        measured = np.where(readings, _cut(frame.depth, self.window), np.nan)
        self.wall = wall
        self.depth = self._lifted(_filled(measured))
        extended = self.mask | self._occluders()
        self.edge = cv2.GaussianBlur(_signed_distance(extended), (0, 0), 1.0)
        self.thickness = _local_thickness(extended)
        inner = readings & (cv2.erode(_bytes(self.mask), np.ones((3, 3))) > 0)
        points = self.to_object(self._rays() * self.depth[..., None])
        self.surface = points[inner]
        normals = _normals(points)
        looks_up = _bytes(inner & (normals[..., 2] > _FACING_UP))
        self.tops = points[cv2.morphologyEx(looks_up, cv2.MORPH_OPEN, np.ones((5, 5))) > 0]
        sight = points - self.to_object(np.zeros(3))
        sight = sight / np.linalg.norm(sight, axis=-1, keepdims=True)
        self.slant = np.clip(-(normals * sight).sum(axis=-1), 0.3, 1.0).astype(np.float32)
        support = self.placement.support
        heights = points[readings][:, 2]
        self.top = float(np.percentile(heights, 99.5))
        self.bottom = (
            float(np.percentile(heights, 0.5)) if support is None else
            float(-support.height(self.placement.position)))

    def to_optical(self, points: np.ndarray) -> np.ndarray:
        """Turn points (..., 3) into the optical frame."""
        return points @ self.placement.rotation.T + self.placement.position

    def to_object(self, points: np.ndarray) -> np.ndarray:
        """Turn optical points (..., 3) into the placement's axes."""
        return (points - self.placement.position) @ self.placement.rotation

    def depth_inside(self, points: np.ndarray) -> np.ndarray:
        """
        Tell how deep points lie inside the solid that this view allows.

        A body is taken to be about as thick along the line of sight as it is wide where it is
        seen, so that the shadow behind a low object does not become part of it.

        :param points: (N, 3)
        :return: (N,) metres; negative in free space: before the surface or beside the mask
        """
        behind, beside, thickness = self.depths(points)
        return np.minimum(np.minimum(behind, beside), 1.2 * thickness - behind)

    def depths(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """
        Compare points with what is seen along their lines of sight.

        :return: metres behind the surface (at right angles to it), metres inside the mask's edge, and the seen object's
            local width in metres, (N,) each
        """
        optical = self.to_optical(points)
        pixels = self.frame.camera.project(optical) - self.window[:2]
        where = np.nan_to_num(pixels, nan=-1e3).astype(np.float32).reshape(1, -1, 2)
        metres = optical[:, 2] / self.frame.camera.fx
        depth, slant, edge, width = (
            _sampled(image, where)
            for image in (self.depth, self.slant, self.edge, self.thickness))
        return (optical[:, 2] - depth) * slant, edge * metres, width * metres

    def _occluders(self) -> np.ndarray:
        """
        Return the pixels where the object may go on behind things before it, (h, w) bool.

        The rim without readings around those things belongs to them.
        """
        support = self.placement.support
        depth = _cut(self.frame.depth, self.window)
        height = (np.full_like(depth, np.inf) if support is None else
                  support.height(_cut(self.frame.points, self.window)))
        before = (depth < self.depth) & (height > 0.01)
        before = cv2.morphologyEx(_bytes(before), cv2.MORPH_OPEN, np.ones((5, 5)))
        rim = (cv2.dilate(before, np.ones((17, 17))) > 0) & np.isnan(depth)
        return ((before > 0) | rim) & ~self.mask

    def _lifted(self, depth: np.ndarray) -> np.ndarray:
        """Keep a wall's thickness above the support: the bottom of a bowl is no part of it."""
        support = self.placement.support
        if support is None:
            return depth
        height = support.height(self._rays() * depth[..., None])
        lift = (support.offset - self.wall) / np.maximum(support.offset - height, 1e-3)
        return np.where((height < self.wall) & self.mask, depth * lift, depth).astype(np.float32)

    def _rays(self) -> np.ndarray:
        x0, y0, x1, y1 = self.window
        columns, rows = np.meshgrid(np.arange(x0, x1), np.arange(y0, y1))
        return self.frame.camera.rays_at(np.stack([columns, rows], axis=-1))


@dataclass(frozen=True)
class Mirror:
    """A vertical plane: cos(angle) x + sin(angle) y = offset, in the placement's axes."""

    angle: float
    offset: float

    def reflected(self, points: np.ndarray) -> np.ndarray:
        """Return the mirror images of points, (N, 3) metres."""
        normal = np.array([np.cos(self.angle), np.sin(self.angle), 0.0])
        return points - 2.0 * (points @ normal - self.offset)[:, None] * normal


def find_mirror(view: View) -> tuple[Mirror, float]:
    """
    Find the vertical symmetry plane that completes the hidden side best.

    Coarse to fine over angle (0: straight across the line of sight) and offset.

    :return: the plane, and the share (0 to 1) by which its mirrored surface contradicts the view
    """
    surface = view.surface
    step = max(1, len(surface) // _SURFACE_SAMPLES)
    points = np.ascontiguousarray(surface[::step])
    near, reach = points[:, 0].max(), np.ptp(points[:, :2], axis=0).max()
    best = min(
        (_judged(view, points, Mirror(angle, np.cos(angle) * (near - behind * reach)))
         for angle in np.radians(np.arange(-60.0, 61.0, 12.0))
         for behind in np.linspace(0.05, 0.75, 18)),
        key=lambda judged: judged[0])
    for angle_step, offset_step in ((4.0, 0.02), (1.5, 0.007)):
        mirror = best[2]
        best = min(
            (_judged(view, points, Mirror(mirror.angle + np.radians(turn * angle_step),
                                          mirror.offset + shift * offset_step * reach))
             for turn in (-1, 0, 1) for shift in (-2, -1, 0, 1, 2)),
            key=lambda judged: judged[0])
    return best[2], best[1]


def _judged(view: View, points: np.ndarray, mirror: Mirror) -> tuple[float, float, Mirror]:
    """Return cost, disagreement with the view, and the plane."""
    mirrored = mirror.reflected(points)
    behind, beside, _ = view.depths(mirrored)
    outside = np.clip(-np.minimum(behind, beside) - 0.5 * view.tolerance, 0.0, 0.02) / 0.02
    meets = (np.abs(behind) < 2.0 * view.tolerance) & (beside > -view.tolerance)
    # Nothing seen speaks against a deep object behind a plain front; a compact one is likelier,
    # though not a sheet.
    width = np.ptp(points[:, 1])
    area = ConvexHull(np.concatenate([points[:, :2], mirrored[:, :2]]), qhull_options='QJ').volume
    bulk = np.log(max(area / max(width, 1e-3) ** 2, 0.35))
    disagreement = float(outside.mean())
    cost = (disagreement + 0.05 * (1.0 - meets.mean()) + 0.06 * bulk
            + 0.03 * (1.0 - np.cos(mirror.angle)))
    return cost, disagreement, mirror


def _window(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Return x0, y0, x1, y1 around a mask; it may reach over the picture's border."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return (columns[0] - _MARGIN, rows[0] - _MARGIN,
            columns[-1] + 1 + _MARGIN, rows[-1] + 1 + _MARGIN)


def _cut(image: np.ndarray, window: tuple[int, int, int, int]) -> np.ndarray:
    """Cut a window out; beyond the border the picture's edge goes on, as objects there do."""
    x0, y0, x1, y1 = window
    rows = np.clip(np.arange(y0, y1), 0, image.shape[0] - 1)
    columns = np.clip(np.arange(x0, x1), 0, image.shape[1] - 1)
    return image[np.ix_(rows, columns)]


def _filled(depth: np.ndarray) -> np.ndarray:
    """Spread readings to where there are none, and smooth them without blurring edges."""
    nearest = ndimage.distance_transform_edt(
        np.isnan(depth), return_distances=False, return_indices=True)
    filled = np.ascontiguousarray(depth[tuple(nearest)], np.float32)
    noise = float(4.0 * depth_std(np.nanmedian(depth)))
    return cv2.bilateralFilter(cv2.medianBlur(filled, 5), 7, noise, 3.0)


def _sampled(image: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Interpolate an image at pixels (1, N, 2) float32; beyond its border the border's value."""
    values = [cv2.remap(image, part, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
              for part in np.array_split(pixels, -(-pixels.shape[1] // 30000), axis=1)]
    return np.concatenate(values, axis=1)[0]


def _bytes(mask: np.ndarray) -> np.ndarray:
    return mask.astype(np.uint8)


def _signed_distance(mask: np.ndarray) -> np.ndarray:
    """Return pixels to the mask's edge, positive inside, (h, w) float32."""
    inside = cv2.distanceTransform(_bytes(mask), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    outside = cv2.distanceTransform(_bytes(~mask), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.where(mask, inside - 0.5, 0.5 - outside)


def _local_thickness(mask: np.ndarray) -> np.ndarray:
    """
    Return at each pixel the diameter of the largest disc in the mask that covers it, pixels.

    (Hildebrand, Ruegsegger: A new method for the model-independent assessment of thickness in
    three-dimensional images, 1997.)
    """
    inside = cv2.distanceTransform(_bytes(mask), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    thickness = np.zeros(mask.shape, np.float32)
    for radius in np.geomspace(2.0, max(inside.max(), 2.0), 24):
        to_center = cv2.distanceTransform(
            _bytes(inside < radius), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        thickness[to_center <= radius] = 2.0 * radius
    return cv2.GaussianBlur(thickness, (0, 0), 2.0)


def _normals(points: np.ndarray) -> np.ndarray:
    """Return unit normals of a grid of points (h, w, 3), towards the camera."""
    down, right = np.gradient(cv2.GaussianBlur(points, (0, 0), 2.0), axis=(0, 1))
    normals = np.cross(down, right)
    return normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)


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
    """Return metres inside the convex outline of points seen from above, (N,)."""
    edges = ConvexHull(outline, qhull_options='QJ').equations
    return -(plan @ edges[:, :2].T + edges[:, 2]).max(axis=1)


def _largest_part(solid: np.ndarray, cell: float) -> np.ndarray:
    parts, count = ndimage.label(solid > 0)
    if count < 2:
        return solid
    largest = 1 + int(np.argmax(ndimage.sum_labels(solid > 0, parts, range(1, count + 1))))
    return np.where((parts > 0) & (parts != largest), -cell, solid)


def _simplified(mesh: trimesh.Trimesh, max_triangles: int) -> tuple[np.ndarray, np.ndarray]:
    """Smooth and thin out a mesh; it stays closed."""
    trimesh.smoothing.filter_taubin(mesh, lamb=0.5, nu=0.53, iterations=6)
    if len(mesh.faces) > max_triangles:
        thinned = _decimated(mesh, max_triangles)
        if thinned.is_watertight and thinned.volume > 0:
            mesh = thinned
    return np.asarray(mesh.vertices), np.asarray(mesh.faces)


def _decimated(mesh: trimesh.Trimesh, triangles: int) -> trimesh.Trimesh:
    import open3d

    dense = open3d.geometry.TriangleMesh(
        open3d.utility.Vector3dVector(mesh.vertices), open3d.utility.Vector3iVector(mesh.faces))
    thin = dense.simplify_quadric_decimation(triangles)
    return trimesh.Trimesh(np.asarray(thin.vertices), np.asarray(thin.triangles))


def _colors(view: View, mirror: Mirror | None, vertices: np.ndarray) -> np.ndarray:
    """Colour vertices from the picture; hidden ones from their mirror image or the nearest."""
    colors = np.zeros((len(vertices), 3), np.uint8)
    known = np.zeros(len(vertices), bool)
    # At the mask's edge the picture already shows the background.
    own = cv2.erode(_bytes(view.own), np.ones((3, 3))) > 0
    sources = [vertices] + ([mirror.reflected(vertices)] if mirror else [])
    for source in sources:
        behind, _, _ = view.depths(source)
        pixels = np.nan_to_num(view.frame.camera.project(view.to_optical(source)))
        columns, rows = np.clip(np.round(pixels).astype(int), 0, np.array(own.shape)[::-1] - 1).T
        seen = ~known & (np.abs(behind) < 0.008) & own[rows, columns]
        colors[seen] = view.frame.color[rows[seen], columns[seen]]
        known |= seen
    if known.any() and not known.all():
        _, nearest = cKDTree(vertices[known]).query(vertices[~known])
        colors[~known] = colors[known][nearest]
    return colors


BACKEND = DepthShellReconstructor
