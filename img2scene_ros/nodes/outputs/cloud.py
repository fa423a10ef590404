# SPDX-License-Identifier: Apache-2.0
"""~/cloud: points on the completed meshes, for grasp planners."""

from dataclasses import dataclass

import numpy as np
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import PointCloud2

from img2scene_ros.nodes.messages import cloud_from_points
from img2scene_ros.nodes.messages import header_of
from img2scene_ros.nodes.outputs import LATCHED
from img2scene_ros.options import Options
from img2scene_ros.options import option
from img2scene_ros.types import ObjectModel
from img2scene_ros.types import Scene


@dataclass(frozen=True)
class CloudOptions(Options):
    """How dense the cloud is."""

    points_per_object: int = option(
        2000, 'Points sampled on every mesh', low=10, high=100000)


class CloudOutput:
    """Publishes the whole scene as one cloud, latched, each point with its object's id."""

    Options = CloudOptions

    def __init__(self, node: LifecycleNode, options: CloudOptions) -> None:
        self.options = options
        self._node = node
        self._publisher = node.create_lifecycle_publisher(PointCloud2, '~/cloud', LATCHED)

    def show(self, scene: Scene, changed: bool) -> None:
        """Publish the scene if it has changed."""
        if not changed:
            return
        count = self.options.points_per_object
        points, colors = [np.zeros((0, 3))], [np.zeros((0, 3), np.uint8)]
        for item in scene.objects:
            on_mesh, color = sampled(item.model, count)
            points.append(on_mesh @ item.rotation.T + item.position)
            colors.append(color)
        ids = np.repeat([item.id for item in scene.objects], count)
        self._publisher.publish(cloud_from_points(
            header_of(scene.frame.frame_id, scene.frame.stamp_ns),
            np.concatenate(points), np.concatenate(colors), ids))

    def close(self) -> None:
        """Destroy the publisher."""
        self._node.destroy_lifecycle_publisher(self._publisher)


def sampled(model: ObjectModel, count: int) -> tuple[np.ndarray, np.ndarray]:
    """
    Sample a mesh evenly by area; the same mesh always gives the same points.

    :return: (count, 3) metres in the object's frame, and (count, 3) uint8 RGB
    """
    random = np.random.default_rng(0)
    corners = model.vertices[model.faces].astype(float)
    areas = np.linalg.norm(
        np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    faces = random.choice(len(areas), count, p=areas / areas.sum())
    # Uniform in a triangle: Osada et al., Shape Distributions, 2002, equation 1.
    root, along = np.sqrt(random.random(count)), random.random(count)
    weights = np.stack([1 - root, root * (1 - along), root * along], axis=1)[..., None]
    colors = model.colors[model.faces][faces]
    return (
        (corners[faces] * weights).sum(axis=1),
        (colors * weights).sum(axis=1).round().astype(np.uint8))


BACKEND = CloudOutput
