# SPDX-License-Identifier: Apache-2.0
"""Meshes that generative models answer with: read, closed (`mesh/closing.py`), and coloured."""

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import trimesh
from trimesh.visual.color import uv_to_interpolated_color

from img2scene_ros.errors import ReconstructionError
from img2scene_ros.hub import first_line
from img2scene_ros.localization import object_axes
from img2scene_ros.mesh.closing import repaired
from img2scene_ros.mesh.colors import mix
from img2scene_ros.mesh.colors import srgb
from img2scene_ros.models.crop import CropView
from img2scene_ros.reconstruction.placing import placed
from img2scene_ros.rendering.raycast import raycasting_scene
from img2scene_ros.types import ObjectModel
from img2scene_ros.types import Sighting

MAX_FACES = 2_000_000  # of a mesh that is read
MAX_TEXELS = 8192 ** 2  # of a texture that is read
_GREY = 160  # of what has no colour, of 255
_FLOAT = 5126  # this type's number in glTF
FRONTS = {'+z': 0.0, '+x': 90.0, '-z': 180.0, '-x': 270.0}  # degrees about +y
_TURNS = np.arange(0.0, 360.0, 30.0)  # degrees that are tried where the front is unknown
# From x right, y down, z away to the object frame: x towards the camera, z up.
_OBJECT_AXES = np.array([[0, 0, -1], [1, 0, 0], [0, -1, 0]])


@dataclass(frozen=True, eq=False)
class Generated:
    """A mesh as it came, of any size, in the axes of its file."""

    vertices: np.ndarray  # (V, 3) float64
    faces: np.ndarray  # (F, 3) int64
    # gives the colours (N, 3) uint8 RGB of points, specified by their faces (N,) and their
    # barycentric weights there (N, 3)
    paint: Callable[[np.ndarray, np.ndarray], np.ndarray]

    def solid(self, max_triangles: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """
        Close and colour the mesh.

        :param max_triangles: of the result, about
        :return: (V, 3) vertices, (F, 3) faces, counter-clockwise seen from outside, and
            (V, 3) uint8 RGB
        :raises ReconstructionError: no faces, or vertices that are not finite or in one place
        :raises MissingDependencyError: Open3D is not installed
        """
        if not len(self.faces):
            raise ReconstructionError('the mesh has no faces; choose another view')
        if not np.isfinite(self.vertices).all():
            raise ReconstructionError(
                'the mesh has vertices that are not finite numbers; choose another view')
        if not np.ptp(self.vertices, axis=0).max() > 0:
            raise ReconstructionError('the mesh has no extent; choose another view')
        vertices, faces = repaired(self.vertices, self.faces, max_triangles)
        return vertices, faces, self._colors(vertices)

    def _colors(self, points: np.ndarray) -> np.ndarray:
        """Colour points as the surface nearest to them, (N, 3) uint8."""
        scene = raycasting_scene(self.vertices.astype(np.float32), self.faces)
        import open3d

        nearest = scene.compute_closest_points(open3d.core.Tensor(points.astype(np.float32)))
        second, third = nearest['primitive_uvs'].numpy().T
        return self.paint(nearest['primitive_ids'].numpy().astype(np.int64),
                          np.stack([1.0 - second - third, second, third], axis=1))


def placed_upright(
    solid: tuple[np.ndarray, np.ndarray, np.ndarray], sighting: Sighting, reconstructor: str,
    view: CropView, front: str = 'any', up: str = 'gravity',
) -> ObjectModel:
    """
    Place a mesh in glTF axes, +y up.

    :param solid: (V, 3) vertices of any size, (F, 3) faces, (V, 3) uint8 RGB
    :param view: what the model was shown
    :param front: which axis points to the camera, of `FRONTS`; 'any' takes the turn about +y
        that fits the mask best, without a mask none
    :param up: 'gravity': +y is up in the world; 'picture': it is up in the view
    :raises ReconstructionError: as `placed`
    """
    vertices, faces, colors = solid
    upright = np.eye(3)
    if up == 'gravity':
        placement = sighting.placement
        towards = object_axes(placement.position, placement.rotation[:, 2])
        upright = view.rotation.T @ towards @ _OBJECT_AXES
    turns = _TURNS.tolist() if front == 'any' else [FRONTS[front]]
    models = [
        placed(vertices @ (upright @ to_view(turn)).T, faces, colors, sighting, reconstructor,
               view)
        for turn in turns]
    return max(models, key=lambda model: model.fit.silhouette_iou if model.fit else 0.0)


def to_view(turn: float) -> np.ndarray:
    """
    Return the rotation (3, 3) from glTF axes to x right, y down, z away from the camera.

    :param turn: of what points to the camera, degrees about +y from +z
    """
    towards = np.array([np.sin(np.radians(turn)), 0.0, np.cos(np.radians(turn))])
    up = np.array([0.0, 1.0, 0.0])
    return np.stack([np.cross(up, towards), -up, -towards])


def read_glb(data: bytes) -> Generated:
    """
    Read a binary glTF file that nobody vouches for.

    Vertex colours of floats are taken for linear light, as the standard says; those of whole
    numbers for sRGB, as trimesh, and with it most generative models, writes them.

    :raises ReconstructionError: no GLB, cut off or damaged, without a mesh, or too large
    """
    linear = _check_container(data)
    try:
        scene = trimesh.load_scene(BytesIO(data), file_type='glb')
        placed = [(scene.graph[node][0], scene.geometry[scene.graph[node][1]])
                  for node in scene.graph.nodes_geometry]
        parts = [(matrix, mesh) for matrix, mesh in placed if isinstance(mesh, trimesh.Trimesh)]
    except (Exception, MemoryError) as error:  # whatever a damaged file makes trimesh raise
        raise ReconstructionError(
            f'the GLB cannot be read ({type(error).__name__}: {first_line(error)})') from error
    if sum(len(mesh.faces) for _, mesh in parts) > MAX_FACES:
        raise ReconstructionError(f'the GLB has more than {MAX_FACES:,} faces')
    if not any(len(mesh.faces) for _, mesh in parts):
        raise ReconstructionError('the GLB holds no mesh with faces')
    for _, mesh in parts:
        if len(mesh.faces) and not 0 <= mesh.faces.min() <= mesh.faces.max() < len(mesh.vertices):
            raise ReconstructionError('the GLB has faces of vertices that are not there')
    return _joined(parts, linear)


def _check_container(data: bytes) -> bool:
    """
    Check a file's header and contents before it is read.

    :return: whether its vertex colours are linear light
    """
    if data[:4] != b'glTF':
        raise ReconstructionError(f'the answer is no GLB but {_kind(data)}')
    if len(data) < 20 or struct.unpack('<I', data[8:12])[0] > len(data):
        raise ReconstructionError(f'the GLB is cut off after {len(data)} bytes')
    try:
        length, = struct.unpack('<I', data[12:16])
        content = json.loads(data[20:20 + length])
        accessors = content.get('accessors', [])
        claimed = sum(accessor['count'] for accessor in accessors)
        colors = {accessors[primitive['attributes']['COLOR_0']]['componentType']
                  for mesh in content.get('meshes', []) for primitive in mesh['primitives']
                  if 'COLOR_0' in primitive['attributes']}
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise ReconstructionError(
            f'the GLB is damaged ({type(error).__name__}: {first_line(error)})') from error
    # Every value takes a byte at least; a few bytes that claim a billion would fill the memory.
    if claimed > len(data):
        raise ReconstructionError('the GLB claims more vertices than it holds')
    return colors == {_FLOAT}


def _kind(data: bytes) -> str:
    start = data[:200].lstrip()
    if not start:
        return 'empty'
    if start.startswith(b'<'):
        return 'a web page'
    if start[:1] in b'{[':
        return f"the text '{start[:80].decode(errors='replace')}'"
    return f'{len(data)} bytes of something else'


def _joined(parts: list[tuple[np.ndarray, trimesh.Trimesh]], linear: bool) -> Generated:
    """Put the meshes of a scene together, at their places."""
    # A mirroring transform turns faces inside out.
    corners = [mesh.faces[:, ::-1] if np.linalg.det(matrix[:3, :3]) < 0 else mesh.faces
               for matrix, mesh in parts]
    paints = [_paint_of(mesh, faces, linear) for (_, mesh), faces in zip(parts, corners)]
    vertices = [trimesh.transform_points(mesh.vertices, matrix) for matrix, mesh in parts]
    shifts = np.cumsum([0] + [len(part) for part in vertices])
    faces = np.concatenate([part + shift for part, shift in zip(corners, shifts)])
    first = np.cumsum([0] + [len(part) for part in corners])

    def paint(face: np.ndarray, weights: np.ndarray) -> np.ndarray:
        colors = np.zeros((len(face), 3), np.uint8)
        for own, start, end in zip(paints, first, first[1:]):
            mine = (face >= start) & (face < end)
            if mine.any():
                colors[mine] = own(face[mine] - start, weights[mine])
        return colors

    return Generated(np.concatenate(vertices), faces, paint)


def _paint_of(
    mesh: trimesh.Trimesh, corners: np.ndarray, linear: bool,
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Return how a mesh is coloured: by its texture, its vertices, its material, or grey."""
    visual = mesh.visual
    material = getattr(visual, 'material', None)
    image = getattr(material, 'baseColorTexture', None)
    if image is not None and getattr(visual, 'uv', None) is not None:
        if image.width * image.height > MAX_TEXELS:
            raise ReconstructionError(
                f'the GLB has a texture of {image.width}x{image.height} pixels, which is too '
                'large')
        uv = np.nan_to_num(np.asarray(visual.uv, float))
        return lambda face, weights: uv_to_interpolated_color(
            mix(uv[corners[face]], weights), image)[:, :3]
    colors = _vertex_colors(visual, material, len(mesh.vertices), linear)
    return lambda face, weights: np.round(
        mix(colors[corners[face]].astype(float), weights)).astype(np.uint8)


def _vertex_colors(visual: Any, material: Any, count: int, linear: bool) -> np.ndarray:
    """Return the colours of vertices, (V, 3) uint8 sRGB."""
    if visual.kind == 'vertex':
        colors = np.asarray(visual.vertex_colors)[:, :3]
        return srgb(colors / 255.0) if linear else colors
    # With a material trimesh leaves them as they are in the file.
    stored = visual.vertex_attributes.get('color') if visual.kind == 'texture' else None
    if stored is not None and len(stored) == count:
        colors = np.asarray(stored)[:, :3]
        return srgb(colors) if linear else colors.astype(np.uint8)
    factor = getattr(material, 'baseColorFactor', None)
    color = np.full(3, _GREY, np.uint8) if factor is None else np.asarray(factor)[:3]
    return np.tile(color, (count, 1))
