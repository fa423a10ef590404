# SPDX-License-Identifier: Apache-2.0
"""The marker messages of a scene: light in colours, names, and what viewers already show."""

import numpy as np
import trimesh
from sensor_msgs.msg import CompressedImage
from visualization_msgs.msg import Marker
from visualization_msgs.msg import MarkerArray

from img2scene_ros.errors import InputError
from img2scene_ros.nodes.messages import marker_from_text
from img2scene_ros.nodes.messages import pose_from_matrix
from img2scene_ros.rendering.raycast import CREASE
from img2scene_ros.types import ObjectModel
from img2scene_ros.types import SceneObject
from img2scene_ros.types import Texture

TEXT_NAMESPACE = 'labels'  # of the markers of names
MAX_GONE = 100  # vanished markers that are named before everything is sent again

# Light that corners are coloured with, as a share of their colours.
_AMBIENT, _FROM_ABOVE, _FROM_CAMERA = 0.35, 0.35, 0.45

Name = tuple[str, int]  # ns and id of a marker


class Viewed:
    """
    What viewers show since everything was sent to them.

    RViz multiplies a texture with the one before when a marker comes again with its texture,
    until it is black; and it never frees one. So a texture is sent once, and markers that come
    again leave it as it is. Everything is sent again, after a DELETEALL, where that does not do.

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
        textures: dict[Name, tuple[ObjectModel, CompressedImage]],
    ) -> MarkerArray:
        """
        Make the message after which viewers show these markers and nothing else.

        :param textures: mesh and texture of some of the markers
        """
        self.gone = (self.gone | self.points.keys()) - markers.keys()
        if len(self.gone) > MAX_GONE or not self._can_stay(markers, textures):
            self.textures, self.gone = {}, set()
            deleted = [Marker(action=Marker.DELETEALL)]
        else:
            deleted = [Marker(action=Marker.DELETE, ns=ns, id=id) for ns, id in sorted(self.gone)]
        for name, (_, texture) in textures.items():
            is_known = name in self.textures
            markers[name].texture = CompressedImage() if is_known else texture
            markers[name].texture_resource = 'keep' if is_known else f'embedded://{name[1]}'
        self.points = {name: len(marker.points) for name, marker in markers.items()}
        self.textures = {name: model for name, (model, _) in textures.items()}
        return MarkerArray(markers=[*deleted, *markers.values()])

    def _can_stay(
        self, markers: dict[Name, Marker],
        textures: dict[Name, tuple[ObjectModel, CompressedImage]],
    ) -> bool:
        """Tell whether no texture would be replaced, and some be sent again without need."""
        for name in self.points.keys() & markers.keys():
            before = self.textures.get(name)
            after = textures[name][0] if name in textures else None
            if before is None and after is not None:
                # RViz updates a marker of as many points in place, without the new texture.
                if self.points[name] == len(markers[name].points):
                    return False
            elif before is not after:
                return False
        return bool(self.textures.keys() & textures.keys())


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


def text_marker(item: SceneObject) -> Marker:
    """Return the marker of an object's name, above its mesh."""
    marker = marker_from_text(f'{item.detection.label} {item.id}')
    above = item.model.vertices[:, 2].max() + marker.scale.z
    marker.pose = pose_from_matrix(item.position + item.rotation[:, 2] * above, np.eye(3))
    return marker
