# SPDX-License-Identifier: Apache-2.0
"""~/cloud: points on the completed meshes, or measured ones, for grasp planners."""

from dataclasses import dataclass

import numpy as np
from sensor_msgs.msg import PointCloud2

from img2scene_ros.mesh.colors import mix
from img2scene_ros.nodes.messages import cloud_from_points
from img2scene_ros.nodes.outputs import TopicOutput
from img2scene_ros.nodes.outputs.labels import pixel_value
from img2scene_ros.nodes.published import published_frame
from img2scene_ros.nodes.topics import LATCHED
from img2scene_ros.options import Options
from img2scene_ros.options import option
from img2scene_ros.rendering.normals import sampled_faces
from img2scene_ros.types import Frame
from img2scene_ros.types import ObjectModel
from img2scene_ros.types import Scene
from img2scene_ros.types import SceneObject

# Value of the field `source` by what the parameter `points` asks for.
SOURCES = {'model': (0,), 'measured': (1,), 'both': (0, 1)}


@dataclass(frozen=True)
class CloudOptions(Options):
    """Which points, and how many."""

    points: str = option(
        'model', 'Points on the meshes (model), the depth readings of what is seen (measured; '
        'every frame, while someone listens), or both', choices=('model', 'measured', 'both'))
    points_per_object: int = option(
        2000, 'Points sampled on every mesh, and most readings of every object', low=10,
        high=100000)


class CloudOutput(TopicOutput):
    """Publishes the whole scene as one cloud, latched, each point with its object and source."""

    Options = CloudOptions
    kind, topic, qos = PointCloud2, '~/cloud', LATCHED

    def show(self, scene: Scene, changed: bool) -> None:
        """Publish the scene if it has changed, readings also when it has not."""
        is_awaited = (self.options.points != 'model'
                      and self._publisher.get_subscription_count() > 0)
        if changed or is_awaited:
            self._publisher.publish(self._message(scene))

    def _message(self, scene: Scene) -> PointCloud2:
        frame, count = published_frame(scene.frame), self.options.points_per_object
        clouds: list[tuple[np.ndarray, ...]] = [
            (np.zeros((0, 3)), np.zeros((0, 3), np.uint8), np.zeros((0, 3), int))]
        for item in scene.objects:
            parts = []
            if self.options.points != 'measured':
                points, colors = sampled(item.model, count)
                parts.append((points @ item.rotation.T + item.position, colors))
            if self.options.points != 'model':
                parts.append(measured(scene.frame, item, count))
            for (points, colors), source in zip(parts, SOURCES[self.options.points]):
                clouds.append((points, colors, np.tile(
                    (item.id, pixel_value(item), source), (len(points), 1))))
        points, colors, names = (np.concatenate(arrays) for arrays in zip(*clouds))
        return cloud_from_points(frame.header, frame.points(points), colors, *names.T)


def measured(frame: Frame, item: SceneObject, count: int) -> tuple[np.ndarray, np.ndarray]:
    """
    Return depth readings of an object that the picture shows, spread over it.

    :return: (N, 3) metres in the optical frame and (N, 3) uint8 RGB, N at most `count`
    """
    mask = item.detection.mask
    if item.state != 'visible' or frame.points is None or mask is None \
            or mask.shape != frame.shape:
        return np.zeros((0, 3)), np.zeros((0, 3), np.uint8)
    places = np.flatnonzero(mask & np.isfinite(frame.points[..., 2]))
    if len(places) > count:
        places = np.random.default_rng(0).choice(places, count, replace=False)
    return frame.points.reshape(-1, 3)[places], frame.color.reshape(-1, 3)[places]


def sampled(model: ObjectModel, count: int) -> tuple[np.ndarray, np.ndarray]:
    """
    Sample a mesh evenly by area; the same mesh always gives the same points.

    :return: (count, 3) metres in the object's frame, and (count, 3) uint8 RGB
    """
    face, weights = sampled_faces(
        model.vertices.astype(float), model.faces, count, np.random.default_rng(0))
    corners = model.faces[face]
    return (mix(model.vertices[corners], weights),
            mix(model.colors[corners], weights).round().astype(np.uint8))


BACKEND = CloudOutput
