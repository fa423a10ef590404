"""~/markers: every object's mesh and name, for RViz."""

from dataclasses import dataclass

import numpy as np
import trimesh
from rclpy.lifecycle import LifecycleNode
from std_msgs.msg import Header
from visualization_msgs.msg import Marker
from visualization_msgs.msg import MarkerArray

from img2scene_ros.frame import Frame
from img2scene_ros.nodes.messages import header_of
from img2scene_ros.nodes.messages import marker_from_mesh
from img2scene_ros.nodes.messages import marker_from_text
from img2scene_ros.nodes.messages import pose_from_matrix
from img2scene_ros.nodes.outputs import LATCHED
from img2scene_ros.options import Options
from img2scene_ros.options import option
from img2scene_ros.reconstruction import ObjectModel
from img2scene_ros.scene import Scene
from img2scene_ros.scene import SceneObject

TEXT_NAMESPACE = 'labels'

_AMBIENT, _FROM_ABOVE, _FROM_CAMERA = 0.35, 0.35, 0.45
_SHARP_EDGE = np.cos(np.radians(40.0))
_TURNED = np.cos(np.radians(10.0))  # the light has moved by so much: shade anew


@dataclass(frozen=True)
class MarkersOptions(Options):
    """How the markers look."""

    show_labels: bool = option(True, 'Show a text with every mesh')


class MarkersOutput:
    """
    Publishes the whole scene, latched: one message replaces all that was shown before.

    The mesh marker's name is (label, id), the text's (labels, id).
    """

    Options = MarkersOptions

    def __init__(self, node: LifecycleNode, options: MarkersOptions) -> None:
        self.options = options
        self._node = node
        self._publisher = node.create_lifecycle_publisher(MarkerArray, '~/markers', LATCHED)
        self._shaded: dict[int, tuple[ObjectModel, np.ndarray, Marker]] = {}

    def show(self, frame: Frame, scene: Scene, changed: bool) -> None:
        """Publish the scene if it has changed."""
        if not changed:
            return
        # One message is the whole truth, also for a viewer that has missed some.
        markers = [Marker(action=Marker.DELETEALL)]
        header = header_of(scene.frame_id, scene.stamp_ns)
        self._shaded = {item.id: self._shade(item) for item in scene.objects}
        for item in scene.objects:
            marker = self._shaded[item.id][2]
            marker.header = header
            marker.ns, marker.id = item.detection.label, item.id
            marker.pose = pose_from_matrix(item.position, item.rotation)
            markers.append(marker)
            if self.options.show_labels:
                markers.append(_text(item, header))
        self._publisher.publish(MarkerArray(markers=markers))

    def close(self) -> None:
        """Destroy the publisher."""
        self._node.destroy_lifecycle_publisher(self._publisher)

    def _shade(self, item: SceneObject) -> tuple[ObjectModel, np.ndarray, Marker]:
        """Return the object's mesh marker, the one made before if mesh and light are the same."""
        to_camera = item.rotation.T @ -item.position
        to_camera = to_camera / max(np.linalg.norm(to_camera), 1e-9)
        known = self._shaded.get(item.id)
        if known and known[0] is item.model and known[1] @ to_camera > _TURNED:
            return known
        model = item.model
        marker = marker_from_mesh(model.vertices, model.faces, shaded_colors(model, to_camera))
        return model, to_camera, marker


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
    is_sharp = (smooth * flat).sum(axis=-1, keepdims=True) < _SHARP_EDGE
    normals = np.where(is_sharp, flat, smooth)
    light = (
        _AMBIENT
        + _FROM_ABOVE * np.clip(normals[..., 2], 0.0, 1.0)
        + _FROM_CAMERA * np.clip(normals @ to_camera, 0.0, 1.0))
    colors = model.colors[model.faces] * light[..., None]
    return np.clip(colors, 0, 255).astype(np.uint8)


def _text(item: SceneObject, header: Header) -> Marker:
    marker = marker_from_text(f'{item.detection.label} {item.id}')
    above = item.model.vertices[:, 2].max() + marker.scale.z
    marker.header = header
    marker.ns, marker.id = TEXT_NAMESPACE, item.id
    marker.pose = pose_from_matrix(item.position + item.rotation[:, 2] * above, np.eye(3))
    return marker


BACKEND = MarkersOutput
