# SPDX-License-Identifier: Apache-2.0
"""UV-unwrapping a mesh that a camera has seen, and the texels that its triangles cover."""

import numpy as np
import trimesh
from scipy import sparse

from img2scene_ros.camera import Camera
from img2scene_ros.packages import importing
from img2scene_ros.rendering.normals import face_normals

FACING = 0.2  # least cosine between a face and the direction it is projected along
HIDDEN_SCALE = 0.5  # what no picture shows has no fine detail
GAP = 2  # texels between charts
_AXES = np.concatenate([np.eye(3), -np.eye(3)])


def unwrap(
    vertices: np.ndarray, faces: np.ndarray, camera: Camera, size: int,
) -> tuple[np.ndarray, tuple[int, int]]:
    """
    Give every face its place in a texture.

    What faces the camera is cut out as the camera sees it, a texel per pixel; the rest is
    projected along the axes of the optical frame. So texels of the seen side are pixels of the
    picture. Charts are connected, do not overlap, and are packed by xatlas.

    :param vertices: (V, 3) metres, optical frame
    :param faces: (F, 3) int, counter-clockwise seen from outside
    :param size: greatest side of the texture, texels
    :return: (F, 3, 2) float32, per face corner, 0 to 1, v = 0 at the top; and (height, width)
    :raises MissingDependencyError: xatlas is not installed
    """
    normals = face_normals(vertices, faces)
    shown = np.isfinite(camera.project(vertices)).all(axis=1)[faces].all(axis=1)
    direction = _directions(vertices, faces, normals, shown)
    corners, depth = _projected(vertices, faces, direction, camera)
    corners *= min(1.0, size / max(np.ptp(corners[direction == index], axis=(0, 1)).max()
                                   for index in np.unique(direction)))
    layer = _layers(corners, depth, direction)
    return _packed(corners, faces, layer * 7 + direction, size)


def rasterize(
    corners: np.ndarray, shape: tuple[int, int],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """
    Find the pixels whose centres triangles cover.

    :param corners: (F, 3, 2) pixels; (0, 0) is the centre of the first pixel
    :param shape: height and width of the image; what is outside is skipped
    :return: for each of N pairs of a pixel and a triangle: the pixel as row * width + column,
        the triangle, and the barycentric weights of its corners (N, 3) float32
    """
    height, width = shape
    low = np.ceil(corners.min(axis=1) - 1e-4).clip(0).astype(np.int64)
    high = np.floor(corners.max(axis=1) + 1e-4).clip(-1, (width - 1, height - 1)).astype(np.int64)
    columns, rows = (high - low + 1).clip(0).T
    counts = columns * rows
    face = np.repeat(np.arange(len(corners)), counts)
    index = np.arange(len(face)) - np.repeat(np.cumsum(counts) - counts, counts)
    row, column = np.divmod(index, columns[face])
    column, row = column + low[face, 0], row + low[face, 1]
    a, b, c = np.moveaxis(corners.astype(np.float32), 1, 0)
    area = _cross(b - a, c - a)
    area = np.where(area == 0.0, np.nan, area)  # NaN compares false: such a face covers nothing
    (ux, uy), (vx, vy) = ((side / area[:, None]).T for side in (b - a, c - a))
    x, y = column.astype(np.float32) - a[face, 0], row.astype(np.float32) - a[face, 1]
    second, third = x * vy[face] - y * vx[face], y * ux[face] - x * uy[face]
    first = 1.0 - second - third
    inside = np.minimum(np.minimum(first, second), third) >= -1e-4
    weights = np.stack([first[inside], second[inside], third[inside]], axis=1)
    return (row * width + column)[inside], face[inside], weights


def _directions(
    vertices: np.ndarray, faces: np.ndarray, normals: np.ndarray, shown: np.ndarray,
) -> np.ndarray:
    """
    Return along which direction each face is projected: 0 the camera's, 1 to 6 the axes.

    :param shown: (F,) bool, faces that have a place in the camera's picture
    """
    sight = vertices[faces].mean(axis=1)
    sight = sight / np.linalg.norm(sight, axis=1, keepdims=True)
    cosines = np.concatenate([-(normals * sight).sum(axis=1)[:, None], normals @ _AXES.T], axis=1)
    cosines[~shown, 0] = -1.0
    direction = np.where(cosines[:, 0] > FACING, 0, 1 + cosines[:, 1:].argmax(axis=1))
    # Single faces that look elsewhere than those around them would be charts of their own.
    neighbours = _neighbours(faces)
    for _ in range(4):
        votes = neighbours @ np.eye(7, dtype=np.float32)[direction]
        votes[np.arange(len(faces)), direction] += 0.5
        direction = np.where(cosines > FACING, votes, -1.0).argmax(axis=1)
    return direction


def _neighbours(faces: np.ndarray) -> sparse.csr_matrix:
    """Return which faces of a closed mesh share an edge, (F, F)."""
    pairs = trimesh.graph.face_adjacency(faces).T
    half = sparse.coo_matrix((np.ones(pairs.shape[1], np.float32), pairs), (len(faces),) * 2)
    return (half + half.T).tocsr()


def _projected(
    vertices: np.ndarray, faces: np.ndarray, direction: np.ndarray, camera: Camera,
) -> tuple[np.ndarray, np.ndarray]:
    """Return corners in texels, (F, 3, 2), and how far they lie back, (F, 3) metres."""
    scale = HIDDEN_SCALE * camera.fx / np.median(vertices[:, 2])
    places = [np.nan_to_num(camera.project(vertices))]
    depths = [vertices[:, 2]]
    for axis in _AXES:
        right = np.roll(np.abs(axis), 1)
        places.append(scale * np.stack([vertices @ right, vertices @ np.cross(axis, right)], 1))
        depths.append(-vertices @ axis)
    chosen = direction[:, None], faces
    return np.stack(places)[chosen], np.stack(depths)[chosen]


def _layers(corners: np.ndarray, depth: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Part the faces of one direction that lie behind each other: 0 in front, (F,) int."""
    layer = np.zeros(len(corners), int)
    corners = corners.copy()
    right = 0.0
    for index in np.unique(direction):  # the directions side by side in one image
        part = direction == index
        corners[part] -= corners[part].min(axis=(0, 1)) - (right, 0.0)
        right = np.ceil(corners[part][..., 0].max()) + 2.0
    shape = int(np.ceil(corners[..., 1].max())) + 1, int(right)
    slope = np.ptp(depth, axis=1) / np.maximum(np.ptp(corners, axis=1).max(axis=1), 1.0)
    # Faces between the centres of texels are looked for at the nearest one.
    center, at_center = corners.mean(axis=1), depth.mean(axis=1)
    column, row = np.rint(center).astype(int).T
    nearest = row * shape[1] + column
    left = np.arange(len(corners))
    for number in range(1, 8):
        pixel, face, weights = rasterize(corners[left], shape)
        face = left[face]
        at = (depth[face] * weights).sum(axis=1)
        front = np.full(shape[0] * shape[1], np.inf, np.float32)
        np.minimum.at(front, pixel, at)
        pixel, face = np.concatenate([pixel, nearest[left]]), np.concatenate([face, left])
        at = np.concatenate([at, at_center[left]])
        behind = at > front[pixel] + 3.0 * slope[face] + 1e-3
        left = np.unique(face[behind])
        if not len(left):
            break
        layer[left] = number
    return layer


def _packed(
    corners: np.ndarray, faces: np.ndarray, chart: np.ndarray, size: int,
) -> tuple[np.ndarray, tuple[int, int]]:
    """Pack the charts, scaled down until they fit; the result is that of `unwrap`."""
    with importing('a texture instead of coloured vertices', 'xatlas', "set 'texture' to none"):
        import xatlas
    key = chart[:, None] * np.int64(faces.max() + 1) + faces
    _, first, indices = np.unique(key, return_index=True, return_inverse=True)
    places = corners.reshape(-1, 2)[first].astype(np.float32)
    indices = indices.reshape(-1, 3).astype(np.uint32)
    options = xatlas.PackOptions()
    options.padding, options.texels_per_unit, options.bilinear = GAP, 1.0, True
    options.rotate_charts = False
    scale = 1.0
    while True:
        atlas = xatlas.Atlas()
        atlas.add_uv_mesh(places * np.float32(scale), indices, chart[:, None].astype(np.uint32))
        atlas.generate(xatlas.ChartOptions(), options)
        side = max(atlas.width, atlas.height)
        if side <= size:
            break
        scale *= 0.98 * size / side
    _, indices, uv = atlas.get_mesh(0)
    return uv[indices].astype(np.float32), (atlas.height, atlas.width)


def _cross(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return one[..., 0] * other[..., 1] - one[..., 1] * other[..., 0]
