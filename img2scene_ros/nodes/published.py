# SPDX-License-Identifier: Apache-2.0
"""In which frame a scene is published, and by which names."""

import re
from dataclasses import dataclass

import numpy as np
from rclpy.node import Node
from std_msgs.msg import Header

from img2scene_ros.nodes.messages import header_of
from img2scene_ros.nodes.messages import picture_header
from img2scene_ros.types import Frame
from img2scene_ros.types import SceneObject
from img2scene_ros.types import SupportPlane


@dataclass(frozen=True, eq=False)
class PublishedFrame:
    """
    The frame that poses are published in: the world where it is known, else the camera's.

    - header: with the stamp of the picture
    - from_camera: (4, 4), takes optical coordinates to that frame
    """

    header: Header
    from_camera: np.ndarray

    def pose(self, item: SceneObject) -> np.ndarray:
        """Return the object's pose in this frame, (4, 4)."""
        return self.from_camera @ item.pose

    def covariance(self, item: SceneObject) -> np.ndarray:
        """Return the covariance of that pose, (6, 6), about this frame's axes."""
        turn = np.kron(np.eye(2), self.from_camera[:3, :3])
        return turn @ item.covariance @ turn.T

    def points(self, points: np.ndarray) -> np.ndarray:
        """Take points (N, 3) from optical coordinates to this frame."""
        return points @ self.from_camera[:3, :3].T + self.from_camera[:3, 3]

    def support(self, support: SupportPlane) -> SupportPlane:
        """Return a plane of the optical frame in this frame."""
        return support.moved(self.from_camera)


def published_frame(frame: Frame) -> PublishedFrame:
    """Return the frame that what a picture shows is published in."""
    if frame.world_from_camera is None or not frame.world_id:
        return PublishedFrame(picture_header(frame), np.eye(4))
    return PublishedFrame(
        header_of(frame.world_id, frame.stamp_ns), np.asarray(frame.world_from_camera, float))


def own_name(node: Node, separator: str) -> str:
    """Return what names that all nodes share begin with: the full name of the node."""
    return node.get_fully_qualified_name().strip('/').replace('/', separator)


def object_name(item: SceneObject) -> str:
    """Return the object's name in TF and planning scenes, '<label>_<id>', of plain characters."""
    label = re.sub(r'\W+', '_', item.detection.label)
    return f'{label}_{item.id}'


def has_moved(old: np.ndarray, new: np.ndarray, distance: float, angle: float) -> bool:
    """
    Tell whether a pose (4, 4) differs noticeably from another.

    :param distance: metres
    :param angle: radians
    """
    cosine = (np.trace(old[:3, :3].T @ new[:3, :3]) - 1.0) / 2.0
    return bool(
        np.linalg.norm(new[:3, 3] - old[:3, 3]) > distance
        or np.arccos(np.clip(cosine, -1.0, 1.0)) > angle)


def noticeable_motion(node: Node) -> tuple[float, float]:
    """Return what the node's parameters say is a noticeable motion, metres and radians."""
    distance, angle = node.get_parameters(['republish_distance', 'republish_angle'])
    return distance.value, np.radians(angle.value)
