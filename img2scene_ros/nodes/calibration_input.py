# SPDX-License-Identifier: Apache-2.0
"""The calibration of a camera, as a topic tells it."""

from collections import deque
from typing import Any

from builtin_interfaces.msg import Time
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo

from img2scene_ros.camera import Camera
from img2scene_ros.errors import InputError
from img2scene_ros.errors import naming
from img2scene_ros.io.ros_images import camera_from_info
from img2scene_ros.nodes.pairing import MOST
from img2scene_ros.nodes.topics import FollowingSubscription

KEPT = 3 * MOST  # pictures wait for depth images, then for detections, then for TF


class CalibrationInput(FollowingSubscription):
    """
    Subscribes to a camera_info.

    - frame_id: of the latest that was taken for an image

    :param otherwise: the topic to take while nobody publishes on the first
    :param rectified: the images are rectified, so P and no distortion hold
    """

    def __init__(self, node: Node, topic: str, rectified: bool, otherwise: str = '') -> None:
        self._choices = topic, otherwise or topic
        self._rectified = rectified
        self._infos: deque[CameraInfo] = deque(maxlen=KEPT)
        self.frame_id = ''
        self._camera: Camera | None = None
        self._camera_of: tuple[Any, ...] | None = None
        super().__init__(node, CameraInfo, topic, self._infos.append)
        self.follow()

    @property
    def has_arrived(self) -> bool:
        """Tell whether there is one."""
        return bool(self._infos)

    def camera(self, stamp: Time) -> Camera:
        """
        Return the camera of an image; the same object while it stays, as its rays are slow.

        It is that of the image's stamp, as two cameras may publish at once, else the latest.

        :raises InputError: none has arrived, or it cannot be used
        """
        infos = list(self._infos)
        if not infos:
            raise InputError(f"no camera_info has arrived on '{self.topic}'")
        info = next((one for one in infos if one.header.stamp == stamp), infos[-1])
        self.frame_id = info.header.frame_id
        values = (
            info.width, info.height, bytes(info.k), bytes(info.p), bytes(info.d),
            info.distortion_model, info.binning_x, info.binning_y, str(info.roi))
        if self._camera is None or values != self._camera_of:
            with naming(f"'{self.topic}'"):
                self._camera = camera_from_info(info, self._rectified)
            self._camera_of = values
        return self._camera

    def _choice(self) -> tuple[type, str]:
        first, otherwise = map(self._node.resolve_topic_name, self._choices)
        is_there = self._node.count_publishers(first)
        return CameraInfo, first if is_there else otherwise
