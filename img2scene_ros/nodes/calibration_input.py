# SPDX-License-Identifier: Apache-2.0
"""The calibration of a camera, as topics tell it."""

from collections.abc import Sequence
from typing import Any

from rclpy.node import Node
from sensor_msgs.msg import CameraInfo

from img2scene_ros.camera import Camera
from img2scene_ros.errors import InputError
from img2scene_ros.io.ros_images import camera_from_info
from img2scene_ros.nodes.topics import FollowingSubscription


class CalibrationInput:
    """
    Subscribes to a camera_info.

    :param topics: where it may be
    :param rectified: the images are rectified, so P and no distortion hold
    """

    def __init__(self, node: Node, topics: Sequence[str], rectified: bool) -> None:
        self._rectified = rectified
        self._info: CameraInfo | None = None
        self._camera: Camera | None = None
        self._camera_of: tuple[Any, ...] | None = None
        self._subscriptions = [
            FollowingSubscription(node, CameraInfo, topic, self._on_info) for topic in topics]

    @property
    def topic(self) -> str:
        """Return the topic's name, the likeliest of several."""
        return self._subscriptions[-1].topic

    @property
    def misfit(self) -> str:
        """Return which other type the topic carries, one sentence; '' when it is camera_info."""
        return self._subscriptions[-1].misfit

    @property
    def has_arrived(self) -> bool:
        """Tell whether there is one."""
        return self._info is not None

    def follow(self) -> None:
        """Adapt to the publishers that there are now."""
        for subscription in self._subscriptions:
            subscription.follow()

    def destroy(self) -> None:
        """Unsubscribe."""
        for subscription in self._subscriptions:
            subscription.destroy()

    def camera(self) -> Camera:
        """
        Return the camera; the same object while the calibration stays, as its rays are slow.

        :raises InputError: none has arrived, or it cannot be used
        """
        info = self._info
        if info is None:
            raise InputError(f"no camera_info has arrived on '{self.topic}'")
        values = (
            info.width, info.height, bytes(info.k), bytes(info.p), bytes(info.d),
            info.distortion_model, info.binning_x, info.binning_y, str(info.roi))
        if self._camera is None or values != self._camera_of:
            try:
                self._camera = camera_from_info(info, self._rectified)
            except InputError as error:
                raise InputError(f"'{self.topic}': {error}") from error
            self._camera_of = values
        return self._camera

    def _on_info(self, message: CameraInfo) -> None:
        self._info = message
