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
from math import inf
from threading import Lock
from time import monotonic

import numpy as np
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker
from visualization_msgs.msg import MarkerArray

from img2scene_ros.errors import InputError
from img2scene_ros.nodes import marker_messages
from img2scene_ros.nodes.marker_bytes import Triangles
from img2scene_ros.nodes.marker_bytes import array_bytes
from img2scene_ros.nodes.marker_bytes import triangles_from_mesh
from img2scene_ros.nodes.mesh_places import MeshFiles
from img2scene_ros.nodes.mesh_places import MeshFolder
from img2scene_ros.nodes.mesh_places import MeshServer
from img2scene_ros.nodes.messages import pose_from_matrix
from img2scene_ros.nodes.messages import uint8_array
from img2scene_ros.nodes.published import has_moved
from img2scene_ros.nodes.published import noticeable_motion
from img2scene_ros.nodes.published import published_frame
from img2scene_ros.nodes.support_box import SupportBox
from img2scene_ros.nodes.support_box import published_supports
from img2scene_ros.nodes.topics import timer
from img2scene_ros.options import Options
from img2scene_ros.options import option
from img2scene_ros.types import ObjectModel
from img2scene_ros.types import Scene
from img2scene_ros.types import SceneObject
from img2scene_ros.types import Texture

PERIOD = 0.2  # seconds between two checks whether a viewer has joined
# Seconds after which the transforms that a viewer has got since it joined reach back to a picture:
# RViz hides a marker, and leaves it white, whose stamp is older, and does not try again.
SETTLED = 2.0
# Changes wait for viewers that are slow to take them.
QUEUED = QoSProfile(depth=5, durability=DurabilityPolicy.TRANSIENT_LOCAL)
_TURNED = np.cos(np.radians(10.0))  # the light has moved by so much: shade again


@dataclass(frozen=True)
class MarkersOptions(Options):
    """How the markers look, and how their meshes travel."""

    show_labels: bool = option(True, 'Show a text with every mesh')
    show_support: bool = option(True, 'Show supports with objects on them as faint rectangles')
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


@dataclass(frozen=True, eq=False)
class _Sent:
    """What viewers were sent of a marker: where it is (4, 4), in which frame, and its look."""

    frame_id: str
    pose: np.ndarray
    look: tuple[object, ...]

    def differs(self, before: '_Sent | None', distance: float, angle: float) -> bool:
        """Tell whether it differs noticeably from what was sent before."""
        return (before is None or self.frame_id != before.frame_id
                or self.look != before.look
                or has_moved(before.pose, self.pose, distance, angle))


class MarkersOutput:
    """
    Publishes the scene, latched: what has changed, and everything when nothing has.

    Everything is also sent when a viewer joins, and once more when its transforms reach back to
    the picture. The mesh marker's name is (label, id), the text's (labels, id).
    """

    Options = MarkersOptions

    def __init__(self, node: LifecycleNode, options: MarkersOptions) -> None:
        self.options = options
        self._node = node
        self._publisher = node.create_lifecycle_publisher(MarkerArray, '~/markers', QUEUED)
        self._lock = Lock()  # workers show scenes, the executor checks for viewers
        self._is_active = False
        self._files: MeshFiles | None = None  # with `file` and `http`, while active
        self._refusal = ''  # why there are none
        self._problem = ''  # of the latest scene
        self._shaded: dict[int, tuple[ObjectModel, np.ndarray, Triangles]] = {}
        self._textured: dict[int, tuple[ObjectModel, Marker, CompressedImage | None]] = {}
        self._viewed = marker_messages.Viewed()
        self._sent: dict[marker_messages.Name, _Sent] = {}
        self._supports: dict[int, SupportBox] = {}
        self._latest: Scene | None = None
        self._viewers = 0
        self._settles_at = inf  # when the transforms of viewers that have joined reach back
        self._timer = timer(node, PERIOD, self._welcome)

    def activate(self) -> None:
        """Open the place where viewers fetch meshes, if there is to be one."""
        with self._lock:
            self._is_active = True
            # Viewers may have joined meanwhile.
            self._viewed, self._sent = marker_messages.Viewed(), {}
            try:
                if self.options.mesh_transport == 'file':
                    self._files = MeshFiles(MeshFolder(self.options.mesh_directory))
                elif self.options.mesh_transport == 'http':
                    self._files = MeshFiles(
                        MeshServer(self.options.http_host, self.options.http_port))
            except InputError as error:
                self._refusal = str(error)

    def deactivate(self) -> None:
        """Close that place, and show nothing any more."""
        with self._lock:
            if self._is_active and self._publisher.is_activated:
                self._publisher.publish(
                    MarkerArray(markers=[Marker(action=Marker.DELETEALL)]))
            self._is_active, self._latest = False, None
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
            has_settled = monotonic() >= self._settles_at
            if (changed or has_settled) and self._is_active and self._publisher.is_activated:
                self._latest = scene
                if has_settled:
                    self._settles_at = inf
                self._publish(scene, everything=has_settled)
            if self._is_active and self._problem:
                raise InputError(self._problem)

    def close(self) -> None:
        """Destroy the publisher."""
        self.deactivate()
        self._node.destroy_timer(self._timer)
        self._node.destroy_lifecycle_publisher(self._publisher)

    def _welcome(self) -> None:
        """Send everything again when a viewer has joined; the latest message had not all."""
        with self._lock:
            before, self._viewers = self._viewers, self._publisher.get_subscription_count()
            if self._viewers > before and self._is_active and self._latest:
                self._settles_at = monotonic() + SETTLED
                self._publish(self._latest, everything=True)

    def _publish(self, scene: Scene, everything: bool = False) -> None:
        self._problem = ''
        frame = published_frame(scene.frame)
        markers: dict[marker_messages.Name, Marker] = {}
        triangles: dict[marker_messages.Name, Triangles] = {}
        textures: dict[marker_messages.Name, tuple[ObjectModel, CompressedImage]] = {}
        sent: dict[marker_messages.Name, _Sent] = {}
        for item in scene.objects:
            name, pose = (item.detection.label, item.id), frame.pose(item)
            alpha = marker_messages.opacity(item)
            markers[name], mesh, texture = self._mesh(item, alpha)
            markers[name].pose = pose_from_matrix(pose)
            sent[name] = _Sent(frame.header.frame_id, pose, (item.model, mesh, alpha))
            if mesh:
                triangles[name] = mesh
            if texture:
                textures[name] = item.model, texture
            if self.options.show_labels:
                text = marker_messages.text_marker(item, pose)
                markers[marker_messages.TEXT_NAMESPACE, item.id] = text
                sent[marker_messages.TEXT_NAMESPACE, item.id] = _Sent(
                    frame.header.frame_id, pose, (text.text, item.model))
        if self.options.show_support:
            self._supports = published_supports(scene, self._supports)
            for number, box in self._supports.items():
                name = marker_messages.SUPPORT_NAMESPACE, number
                markers[name] = marker_messages.support_marker(box)
                sent[name] = _Sent(frame.header.frame_id, np.eye(4), (box,))
        for (marker_ns, marker_id), marker in markers.items():
            marker.header, marker.ns, marker.id = frame.header, marker_ns, marker_id
        if everything and textures:
            self._viewed = marker_messages.Viewed()  # viewers that have joined lack them
        motion = noticeable_motion(self._node)
        changed = {name for name, one in sent.items()
                   if everything or one.differs(self._sent.get(name), *motion)}
        if not changed and sent.keys() == self._sent.keys():
            changed = set(sent)
        # What has not changed enough stays at the pose that viewers have.
        self._sent = {
            name: one if name in changed else self._sent[name] for name, one in sent.items()}
        self._publisher.publish(array_bytes(
            self._viewed.update(markers, triangles, textures, changed)))
        self._forget({item.id for item in scene.objects})
        if self._files:
            self._files.keep({marker.mesh_resource for marker in markers.values()})

    def _forget(self, kept: set[int]) -> None:
        self._shaded = {id: made for id, made in self._shaded.items() if id in kept}
        self._textured = {id: made for id, made in self._textured.items() if id in kept}

    def _mesh(
        self, item: SceneObject, alpha: float,
    ) -> tuple[Marker, Triangles | None, CompressedImage | None]:
        """Return the object's mesh marker, and what belongs into it: triangles or a texture."""
        model, textured = item.model, None
        if model.texture is not None and self.options.mesh_transport != 'inline':
            textured = self._textured.get(item.id)
            if textured is None or textured[0] is not model:
                try:
                    textured = model, *self._texture(model, model.texture)
                    self._textured[item.id] = textured
                except InputError as error:
                    textured = None
                    self._problem = (
                        f'{error}; {item.detection.label} {item.id} is shown inline instead')
        marker, texture = textured[1:] if textured else (marker_messages.triangle_marker(), None)
        if marker.type == Marker.TRIANGLE_LIST:
            marker.color = ColorRGBA(r=1.0, g=1.0, b=1.0, a=alpha)
        else:  # a colour that is not zero throughout takes the place of the file's material
            marker.mesh_use_embedded_materials = alpha == 1.0
            marker.color = ColorRGBA() if alpha == 1.0 else ColorRGBA(r=0.6, g=0.6, b=0.6, a=alpha)
        return marker, None if textured else self._shade(item), texture

    def _texture(
        self, model: ObjectModel, texture: Texture,
    ) -> tuple[Marker, CompressedImage | None]:
        """Make the marker of a textured mesh."""
        if self._refusal:
            raise InputError(self._refusal)
        marker_messages.check_texture(texture, model.faces)
        if self._files:
            return marker_messages.resource_marker(self._files.uri(model)), None
        png = CompressedImage(format='png', data=uint8_array(np.frombuffer(texture.png, np.uint8)))
        return marker_messages.textured_marker(model.vertices, model.faces, texture.uv), png

    def _shade(self, item: SceneObject) -> Triangles:
        """Return coloured corners of the object; made again when mesh or light differ."""
        to_camera = item.rotation.T @ -item.position
        to_camera = to_camera / max(np.linalg.norm(to_camera), 1e-9)
        known = self._shaded.get(item.id)
        if known is None or known[0] is not item.model or known[1] @ to_camera <= _TURNED:
            model = item.model
            known = self._shaded[item.id] = model, to_camera, triangles_from_mesh(
                model.vertices, model.faces, marker_messages.shaded_colors(model, to_camera))
        return known[2]


BACKEND = MarkersOutput
