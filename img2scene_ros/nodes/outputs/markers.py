# SPDX-License-Identifier: Apache-2.0
"""
~/markers: every object's mesh and name, for RViz.

Meshes travel in one of four ways, `mesh_transport`, laid out for what RViz makes of each:

    inline          triangles with coloured corners; drawn unlit, so the light is baked in
    inline_texture  triangles, with their texture in the same message
    file, http      the URI of a textured mesh, which viewers fetch for themselves

What has no texture, as the boxes that are shown first, travels inline.
"""

from dataclasses import dataclass
from threading import Lock

import numpy as np
from rclpy.clock import Clock
from rclpy.clock import ClockType
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import CompressedImage
from visualization_msgs.msg import Marker
from visualization_msgs.msg import MarkerArray

from img2scene_ros.errors import InputError
from img2scene_ros.nodes.marker_messages import TEXT_NAMESPACE
from img2scene_ros.nodes.marker_messages import Name
from img2scene_ros.nodes.marker_messages import Viewed
from img2scene_ros.nodes.marker_messages import check_texture
from img2scene_ros.nodes.marker_messages import shaded_colors
from img2scene_ros.nodes.marker_messages import text_marker
from img2scene_ros.nodes.mesh_places import MeshFiles
from img2scene_ros.nodes.mesh_places import MeshFolder
from img2scene_ros.nodes.mesh_places import MeshServer
from img2scene_ros.nodes.messages import header_of
from img2scene_ros.nodes.messages import marker_from_mesh
from img2scene_ros.nodes.messages import marker_from_resource
from img2scene_ros.nodes.messages import marker_from_textured_mesh
from img2scene_ros.nodes.messages import pose_from_matrix
from img2scene_ros.nodes.messages import texture_from_png
from img2scene_ros.nodes.outputs import LATCHED
from img2scene_ros.options import Options
from img2scene_ros.options import option
from img2scene_ros.types import ObjectModel
from img2scene_ros.types import Scene
from img2scene_ros.types import SceneObject
from img2scene_ros.types import Texture

PERIOD = 0.2  # seconds between two checks whether a viewer has joined
_TURNED = np.cos(np.radians(10.0))  # the light has moved by so much: shade again


@dataclass(frozen=True)
class MarkersOptions(Options):
    """How the markers look, and how their meshes travel."""

    show_labels: bool = option(True, 'Show a text with every mesh')
    mesh_transport: str = option(
        'inline', 'How meshes reach viewers: inline (coloured triangles), inline_texture '
        '(textured triangles; not for Foxglove), file or http (URIs of textured meshes that '
        'viewers on this machine, or on any, fetch)',
        choices=('inline', 'inline_texture', 'file', 'http'), read_only=True)
    mesh_directory: str = option(
        '', 'Where mesh_transport file makes a folder of its own; empty: the temporary folder',
        read_only=True)
    http_host: str = option(
        '127.0.0.1', 'Address that mesh_transport http listens on, and that URIs name; the '
        'default serves this machine only, 0.0.0.0 serves all. There is no encryption',
        read_only=True)
    http_port: int = option(
        0, 'Port that mesh_transport http listens on; 0: any free one', low=0, high=65535,
        read_only=True)


class MarkersOutput:
    """
    Publishes the whole scene, latched.

    One message replaces all that was shown before; only textures that travel inline are not sent
    again to viewers that have them. The mesh marker's name is (label, id), the text's
    (labels, id).
    """

    Options = MarkersOptions

    def __init__(self, node: LifecycleNode, options: MarkersOptions) -> None:
        self.options = options
        self._node = node
        self._publisher = node.create_lifecycle_publisher(MarkerArray, '~/markers', LATCHED)
        self._lock = Lock()  # workers show scenes, the executor checks for viewers
        self._is_active = False
        self._files: MeshFiles | None = None  # with `file` and `http`, while active
        self._refusal = ''  # why there are none
        self._problem = ''  # of the latest scene
        self._shaded: dict[int, tuple[ObjectModel, np.ndarray, Marker]] = {}
        self._textured: dict[int, tuple[ObjectModel, Marker, CompressedImage | None]] = {}
        self._viewed = Viewed()
        self._latest: Scene | None = None
        self._viewers = 0
        self._timer = None
        if options.mesh_transport == 'inline_texture':
            self._timer = node.create_timer(
                PERIOD, self._welcome, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def activate(self) -> None:
        """Open the place where viewers fetch meshes, if there is to be one."""
        with self._lock:
            self._is_active = True
            self._viewed = Viewed()  # viewers may have joined meanwhile
            try:
                if self.options.mesh_transport == 'file':
                    self._files = MeshFiles(MeshFolder(self.options.mesh_directory))
                elif self.options.mesh_transport == 'http':
                    self._files = MeshFiles(
                        MeshServer(self.options.http_host, self.options.http_port))
            except InputError as error:
                self._refusal = str(error)

    def deactivate(self) -> None:
        """Close that place."""
        with self._lock:
            self._is_active = False
            self._refusal = ''
            if self._files:
                self._files.close()
                self._files = None
                self._textured.clear()

    def show(self, scene: Scene, changed: bool) -> None:
        """
        Publish the scene if it has changed.

        :raises InputError: meshes are shown inline that should travel otherwise; tells why
        """
        with self._lock:
            if changed and self._is_active and self._publisher.is_activated:
                self._latest = scene
                self._publish(scene)
            if self._is_active and self._problem:
                raise InputError(self._problem)

    def close(self) -> None:
        """Destroy the publisher."""
        self.deactivate()
        if self._timer:
            self._node.destroy_timer(self._timer)
        self._node.destroy_lifecycle_publisher(self._publisher)

    def _welcome(self) -> None:
        """Send everything again when a viewer has joined; the latest message had no textures."""
        with self._lock:
            before, self._viewers = self._viewers, self._publisher.get_subscription_count()
            is_new = self._viewers > before and self._is_active
            if is_new and self._latest and self._viewed.textures:
                self._viewed = Viewed()
                self._publish(self._latest)

    def _publish(self, scene: Scene) -> None:
        self._problem = ''
        markers: dict[Name, Marker] = {}
        textures: dict[Name, tuple[ObjectModel, CompressedImage]] = {}
        for item in scene.objects:
            name = item.detection.label, item.id
            markers[name], texture = self._mesh(item)
            markers[name].pose = pose_from_matrix(item.position, item.rotation)
            if texture:
                textures[name] = item.model, texture
            if self.options.show_labels:
                markers[TEXT_NAMESPACE, item.id] = text_marker(item)
        header = header_of(scene.frame.frame_id, scene.frame.stamp_ns)
        for (marker_ns, marker_id), marker in markers.items():
            marker.header, marker.ns, marker.id = header, marker_ns, marker_id
        self._publisher.publish(self._viewed.update(markers, textures))
        self._forget({item.id for item in scene.objects})
        if self._files:
            self._files.keep({marker.mesh_resource for marker in markers.values()})

    def _forget(self, kept: set[int]) -> None:
        self._shaded = {id: made for id, made in self._shaded.items() if id in kept}
        self._textured = {id: made for id, made in self._textured.items() if id in kept}

    def _mesh(self, item: SceneObject) -> tuple[Marker, CompressedImage | None]:
        """Return the object's mesh marker, and the texture that belongs into it, if one does."""
        model = item.model
        if model.texture is None or self.options.mesh_transport == 'inline':
            return self._shade(item), None
        known = self._textured.get(item.id)
        if known is None or known[0] is not model:
            try:
                known = model, *self._texture(model, model.texture)
            except InputError as error:
                self._problem = (
                    f'{error}; {item.detection.label} {item.id} is shown inline instead')
                return self._shade(item), None
            self._textured[item.id] = known
        return known[1:]

    def _texture(
        self, model: ObjectModel, texture: Texture,
    ) -> tuple[Marker, CompressedImage | None]:
        """
        Make the marker of a textured mesh.

        :raises InputError: it would not be shown
        """
        if self._refusal:
            raise InputError(self._refusal)
        check_texture(texture, model.faces)
        if self._files:
            return marker_from_resource(self._files.uri(model)), None
        return (marker_from_textured_mesh(model.vertices, model.faces, texture.uv),
                texture_from_png(texture.png))

    def _shade(self, item: SceneObject) -> Marker:
        """Return the object with coloured corners; it is made again when mesh or light differ."""
        to_camera = item.rotation.T @ -item.position
        to_camera = to_camera / max(np.linalg.norm(to_camera), 1e-9)
        known = self._shaded.get(item.id)
        if known is None or known[0] is not item.model or known[1] @ to_camera <= _TURNED:
            model = item.model
            marker = marker_from_mesh(
                model.vertices, model.faces, shaded_colors(model, to_camera))
            known = self._shaded[item.id] = model, to_camera, marker
        return known[2]


BACKEND = MarkersOutput
