# SPDX-License-Identifier: Apache-2.0
"""The marker messages of a scene: light in colours, names, states, and what viewers show."""

from collections.abc import Set
from typing import Any

import numpy as np
import trimesh
from geometry_msgs.msg import Point
from geometry_msgs.msg import Vector3
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker
from visualization_msgs.msg import UVCoordinate

from img2scene_ros.errors import InputError
from img2scene_ros.nodes.marker_bytes import Triangles
from img2scene_ros.nodes.messages import pose_from_matrix
from img2scene_ros.nodes.support_box import SupportBox
from img2scene_ros.rendering.raycast import CREASE
from img2scene_ros.types import ObjectModel
from img2scene_ros.types import SceneObject
from img2scene_ros.types import Texture

TEXT_NAMESPACE = 'labels'  # of the markers of names
SUPPORT_NAMESPACE = 'support'  # of the markers of supports
TEXT_HEIGHT = 0.02  # metres
# Share of the height; without it RViz makes a space as wide as for text of 1 m (rviz#1336).
TEXT_SPACE = 0.3
MAX_GONE = 100  # vanished markers that are named before everything is sent again

# Light that corners are coloured with, as a share of their colours: the fronts of recorded objects
# are then .88 to 1.02 as bright in RViz as in the picture.
_AMBIENT, _FROM_ABOVE, _FROM_CAMERA = 0.55, 0.45, 0.20
# Opacities: of the box that is shown first, of a mesh that what is seen contradicts, of what is
# only remembered, and of the support.
_PROXY, _STALE, _REMEMBERED, _SUPPORT = 0.5, 0.6, 0.35, 0.25

Name = tuple[str, int]  # ns and id of a marker


class Viewed:
    """
    What viewers show since everything was sent to them, after a DELETEALL.

    Later messages hold what has changed. RViz multiplies a texture with the one before when a
    marker comes again with its texture, until it is black; and it never frees one. So a texture is
    sent once, and markers that come again leave it as it is. Everything is sent again, after a
    DELETEALL, where a texture is replaced.

    - points: number of points of every marker
    - textures: the mesh of every marker that has a texture
    - gone: markers that vanished; named in every message, as a viewer may miss one
    """

    def __init__(self) -> None:
        self.points: dict[Name, int] = {}
        self.textures: dict[Name, ObjectModel] = {}
        self.gone: set[Name] = set()

    def update(
        self, markers: dict[Name, Marker],
        triangles: dict[Name, Triangles],
        textures: dict[Name, tuple[ObjectModel, CompressedImage]], changed: Set[Name],
    ) -> list[tuple[Marker, Triangles | None]]:
        """
        Return what to send, after which viewers show these markers and nothing else.

        :param triangles: of those markers that hold none themselves
        :param textures: mesh and texture of some of the markers
        :param changed: those that differ from what was sent; all others stay as they are
        """
        points = {name: len(triangles[name].points) if name in triangles else len(marker.points)
                  for name, marker in markers.items()}
        self.gone = (self.gone | self.points.keys()) - markers.keys()
        if (not self.points or len(self.gone) > MAX_GONE
                or not self._can_stay(points, textures)):
            self.textures, self.gone = {}, set()
            changed = markers.keys()
            deleted = [Marker(action=Marker.DELETEALL)]
        else:
            deleted = [Marker(action=Marker.DELETE, ns=ns, id=id) for ns, id in sorted(self.gone)]
        for name, (_, texture) in textures.items():
            is_known = name in self.textures
            markers[name].texture = CompressedImage() if is_known else texture
            markers[name].texture_resource = 'keep' if is_known else f'embedded://{name[1]}'
        self.points = points
        self.textures = {name: model for name, (model, _) in textures.items()}
        return [*((marker, None) for marker in deleted),
                *((marker, triangles.get(name)) for name, marker in markers.items()
                  if name in changed)]

    def _can_stay(
        self, points: dict[Name, int],
        textures: dict[Name, tuple[ObjectModel, CompressedImage]],
    ) -> bool:
        """Tell whether no texture would be replaced."""
        for name in self.points.keys() & points.keys():
            before, after = self.textures.get(name), textures.get(name, (None,))[0]
            # RViz updates a marker of as many points in place, without the new texture.
            is_new = before is None and self.points[name] != points[name]
            if before is not after and not is_new:
                return False
        return True


def shaded_colors(model: ObjectModel, to_camera: np.ndarray) -> np.ndarray:
    """
    Bake light into a mesh's colours (Lambert), as RViz draws coloured triangles unlit.

    One light comes from above, one from the camera. Smooth surfaces are shaded by their
    vertices' normals, corners at sharp edges by their face's.

    :param to_camera: (3,) unit length, in the object's frame
    :return: (F, 3, 3) uint8, RGB of every corner of every face
    """
    mesh = trimesh.Trimesh(model.vertices, model.faces, process=False)
    smooth, flat = mesh.vertex_normals[mesh.faces], mesh.face_normals[:, None]
    is_sharp = (smooth * flat).sum(axis=-1, keepdims=True) < CREASE
    normals = np.where(is_sharp, flat, smooth)
    light = (
        _AMBIENT
        + _FROM_ABOVE * np.clip(normals[..., 2], 0.0, 1.0)
        + _FROM_CAMERA * np.clip(normals @ to_camera, 0.0, 1.0))
    colors = model.colors[model.faces] * light[..., None]
    return np.clip(colors, 0, 255).astype(np.uint8)


def check_texture(texture: Texture, faces: np.ndarray) -> None:
    """
    Refuse a texture that no viewer could show.

    :raises InputError: it has no pixels, or does not say where every corner lies in it
    """
    image, uv = texture.image, texture.uv
    if image.dtype != np.uint8 or image.shape[2:] != (3,) or not image.size:
        raise InputError(f'the texture is no picture ({image.dtype} {image.shape})')
    if uv.shape != (len(faces), 3, 2) or not np.isfinite(uv).all():
        raise InputError(
            f'the texture does not fit the mesh of {len(faces)} faces: it has '
            f'coordinates {uv.shape}, not all of them finite')


def triangle_marker() -> Marker:
    """Make an empty TRIANGLE_LIST; triangles, header, name and pose are left to the caller."""
    return _marker(Marker.TRIANGLE_LIST, (1.0, 1.0, 1.0))


def textured_marker(vertices: np.ndarray, faces: np.ndarray, uv: np.ndarray) -> Marker:
    """
    Make a TRIANGLE_LIST for a texture; texture, header, name and pose are left to the caller.

    :param vertices: (V, 3) metres
    :param faces: (F, 3) indices of vertices
    :param uv: (F, 3, 2) where each corner lies in the texture, (0, 0) its upper left corner
    """
    marker = triangle_marker()
    points = [Point(x=x, y=y, z=z) for x, y, z in vertices.tolist()]
    marker.points = [points[index] for index in faces.ravel().tolist()]
    corners = np.ascontiguousarray(uv, np.float32).reshape(-1, 2).view(np.uint64).ravel()
    distinct, indices = np.unique(corners, return_inverse=True)
    places = [UVCoordinate(u=u, v=v) for u, v in distinct.view(np.float32).reshape(-1, 2).tolist()]
    marker.uv_coordinates = [places[index] for index in indices.ravel().tolist()]
    return marker


def resource_marker(uri: str) -> Marker:
    """Make a MESH_RESOURCE; colour, header, name and pose are left to the caller."""
    return _marker(Marker.MESH_RESOURCE, (1.0, 1.0, 1.0), mesh_resource=uri)


def text_marker(item: SceneObject, pose: np.ndarray) -> Marker:
    """Return the marker of an object's name and state, above its mesh; its pose is (4, 4)."""
    state = 'stale' if item.is_stale else item.state.replace('_', ' ')
    note = '' if state == 'visible' else f' ({state})'
    above, place = item.model.vertices[:, 2].max() + TEXT_HEIGHT, np.eye(4)
    place[:3, 3] = pose[:3, 3] + pose[:3, 2] * above
    return _marker(
        Marker.TEXT_VIEW_FACING, (TEXT_SPACE * TEXT_HEIGHT, 0.0, TEXT_HEIGHT),
        text=f'{item.detection.label} {item.id}{note}', pose=pose_from_matrix(place))


def support_marker(box: SupportBox) -> Marker:
    """Return the marker of a support: a faint rectangle, 1 mm thick."""
    width, depth = box.size.astype(float).tolist()
    return _marker(
        Marker.CUBE, (width, depth, 0.001), pose=pose_from_matrix(box.pose),
        color=ColorRGBA(r=0.6, g=0.6, b=0.6, a=_SUPPORT))


def _marker(kind: int, scale: tuple[float, float, float], **fields: Any) -> Marker:
    x, y, z = scale
    return Marker(type=kind, action=Marker.ADD, scale=Vector3(x=x, y=y, z=z), **{
        'color': ColorRGBA(r=1.0, g=1.0, b=1.0, a=1.0), **fields})


def opacity(item: SceneObject) -> float:
    """Return how opaque an object is drawn: less when it is not seen, or not as it is drawn."""
    if item.state != 'visible':
        return _REMEMBERED
    if item.is_stale:
        return _STALE
    return _PROXY if item.model.reconstructor == 'box' else 1.0
