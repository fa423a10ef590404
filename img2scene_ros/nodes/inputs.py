# SPDX-License-Identifier: Apache-2.0
"""The camera's topics: subscriptions that follow their publishers, and frames made of messages."""

from collections.abc import Callable
from time import monotonic
from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy
from rclpy.qos import QoSProfile
from rclpy.qos import ReliabilityPolicy
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image

from img2scene_ros.camera import Camera
from img2scene_ros.depth import DepthNoise
from img2scene_ros.errors import InputError
from img2scene_ros.io.ros_images import camera_from_info
from img2scene_ros.io.ros_images import color_from_compressed
from img2scene_ros.io.ros_images import color_from_image
from img2scene_ros.io.ros_images import depth_from_image
from img2scene_ros.nodes.messages import nanoseconds
from img2scene_ros.nodes.pairing import Pair
from img2scene_ros.nodes.pairing import Pairing
from img2scene_ros.types import Frame

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

SILENCE = 10.0  # seconds without a picture before that is worth a word
DISCOVERY = 2.0  # seconds in which DDS finds all publishers of a camera, one after another


class FollowingSubscription:
    """
    A subscription whose QoS follows that of the publishers found.

    Reliable unless a publisher is not; transient local when all publishers are, so that a
    calibration that was published once, long ago, arrives too.
    """

    def __init__(
        self, node: Node, kind: type, topic: str, callback: Callable[[Any], None],
    ) -> None:
        self.topic = node.resolve_topic_name(topic)
        self._node = node
        self._kind = kind
        self._callback = callback
        self._policies = self._wanted()
        self._subscription = self._subscribe()

    @property
    def publishers(self) -> int:
        """Return how many publishers the topic has."""
        return self._node.count_publishers(self.topic)

    def follow(self) -> bool:
        """Subscribe again if the publishers' QoS asks for it; tell whether it did."""
        wanted = self._wanted()
        if not self.publishers or wanted == self._policies:
            return False
        self._policies = wanted
        self.destroy()
        self._subscription = self._subscribe()
        return True

    def destroy(self) -> None:
        """Unsubscribe."""
        self._node.destroy_subscription(self._subscription)

    def _wanted(self) -> tuple[ReliabilityPolicy, DurabilityPolicy]:
        profiles = [
            found.qos_profile for found in self._node.get_publishers_info_by_topic(self.topic)]
        best_effort = any(
            profile.reliability == ReliabilityPolicy.BEST_EFFORT for profile in profiles)
        latched = profiles and all(
            profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for profile in profiles)
        return (
            ReliabilityPolicy.BEST_EFFORT if best_effort else ReliabilityPolicy.RELIABLE,
            DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE)

    def _subscribe(self) -> Any:
        reliability, durability = self._policies
        return self._node.create_subscription(
            self._kind, self.topic, self._callback,
            QoSProfile(depth=1, reliability=reliability, durability=durability),
            event_callbacks=SubscriptionEventCallbacks(incompatible_qos=self._on_incompatible))

    def _on_incompatible(self, _event: Any) -> None:
        if self.follow():
            self._node.get_logger().info(
                f"'{self.topic}' has a publisher with other QoS settings; following it")
        else:
            self._node.get_logger().warning(
                f"'{self.topic}' has a publisher whose QoS settings fit no subscription of this "
                'node; publish it reliable or best effort, without deadline and liveliness')


class Inputs:
    """
    What the camera publishes: callbacks keep the newest messages, a worker makes frames of them.

    :param transport: 'raw' or 'compressed', of the picture
    :param use_depth: False works on the picture alone
    :param rectified: the picture is rectified, so P and no distortion hold
    :param depth_noise: of the camera that publishes the depth images
    """

    def __init__(
        self, node: Node, pairing: Pairing, transport: str, use_depth: bool, rectified: bool,
        depth_noise: DepthNoise,
    ) -> None:
        self._pairing = pairing
        self._rectified = rectified
        self._depth_noise = depth_noise
        self._info: CameraInfo | None = None
        self._camera: Camera | None = None
        self._camera_of: tuple[Any, ...] | None = None
        self._first_color: float | None = None
        self._last_color: float | None = None
        self._has_depth = False
        self._depth_topic = node.resolve_topic_name('depth')
        if transport == 'compressed':
            # Like image_transport: the picture's remapped name with the suffix.
            topic, kind = node.resolve_topic_name('image') + '/compressed', CompressedImage
        else:
            topic, kind = 'image', Image
        self._subscriptions: list[FollowingSubscription] = []
        try:
            self._color = self._subscribe(node, kind, topic, self._on_color)
            self._infos = self._subscribe(node, CameraInfo, 'camera_info', self._on_info)
            self._depth = (
                self._subscribe(node, Image, 'depth', self._on_depth) if use_depth else None)
        except Exception:  # such as one topic for two types
            self.destroy()
            raise

    def follow(self) -> None:
        """Adapt to the publishers that there are now."""
        for subscription in self._subscriptions:
            subscription.follow()
        if self._is_alone():
            self._pairing.release()

    def destroy(self) -> None:
        """Unsubscribe from everything."""
        for subscription in self._subscriptions:
            subscription.destroy()

    def frame(self, pair: Pair) -> Frame:
        """
        Make a frame of messages.

        :raises InputError: messages that cannot be read or do not fit each other
        """
        camera = self._current_camera()
        try:
            is_raw = isinstance(pair.color, Image)
            color = (color_from_image if is_raw else color_from_compressed)(pair.color)
        except InputError as error:
            raise InputError(f"'{self._color.topic}': {error}") from error
        try:
            depth = None if pair.depth is None else depth_from_image(pair.depth)
        except InputError as error:
            raise InputError(f"'{self._depth_topic}': {error}") from error
        header = pair.color.header
        frame = Frame(color, camera, depth, nanoseconds(header.stamp), header.frame_id,
                      depth_noise=self._depth_noise)
        if depth is not None and not frame.has_depth:
            raise InputError(
                f"'{self._depth_topic}': the depth image holds no reading, only zeros or NaN; "
                'check what covers or blinds the sensor, or set use_depth to false')
        return frame

    def missing(self) -> str:
        """Return what does not arrive and how to fix it, one sentence; '' when all does."""
        color, infos, depth = self._color, self._infos, self._depth
        if self._last_color is None and not color.publishers:
            return (f"nobody publishes pictures on '{color.topic}'; start the camera or remap the "
                    'topic image (launch argument image_topic)')
        if self._last_color is None or monotonic() - self._last_color > SILENCE:
            return f"no pictures arrive on '{color.topic}'; check the camera and the network"
        if self._info is None:
            return (f"no camera_info has arrived on '{infos.topic}', so pictures have no scale; "
                    'calibrate the camera or remap the topic camera_info (launch argument '
                    'camera_info_topic)')
        if depth and depth.publishers and self._pairing.unpaired_in_a_row >= 10:
            if not self._has_depth:
                return (f"no depth image has arrived on '{depth.topic}' though it has a "
                        'publisher; check the driver, or set use_depth to false')
            return (f"no depth image on '{depth.topic}' has a stamp within "
                    f"{self._pairing.tolerance:g} s of a picture on '{color.topic}'; synchronize "
                    'the camera, raise sync_tolerance, or set use_depth to false')
        return ''

    @property
    def topics(self) -> str:
        """Return the names of the topics, for people."""
        return ', '.join(f"'{subscription.topic}'" for subscription in self._subscriptions)

    @property
    def has_camera(self) -> bool:
        """Tell whether a calibration has arrived."""
        return self._info is not None

    def _subscribe(self, *arguments: Any) -> FollowingSubscription:
        self._subscriptions.append(FollowingSubscription(*arguments))
        return self._subscriptions[-1]

    def _is_alone(self) -> bool:
        """Tell whether pictures come without depth images, and not only before them."""
        if self._depth is None:
            return True
        return (not self._depth.publishers and self._first_color is not None
                and monotonic() - self._first_color > DISCOVERY)

    def _on_color(self, message: Image | CompressedImage) -> None:
        self._last_color = monotonic()
        self._first_color = self._first_color or self._last_color
        self._pairing.add_color(
            nanoseconds(message.header.stamp) * 1e-9, message, self._is_alone())

    def _on_depth(self, message: Image) -> None:
        self._has_depth = True
        self._pairing.add_depth(nanoseconds(message.header.stamp) * 1e-9, message)

    def _on_info(self, message: CameraInfo) -> None:
        self._info = message

    def _current_camera(self) -> Camera:
        """
        Return the camera; the same object while the calibration stays, as its rays are slow.

        :raises InputError: none has arrived, or it cannot be used
        """
        info = self._info
        if info is None:
            raise InputError(f"no camera_info has arrived on '{self._infos.topic}'")
        values = (
            info.width, info.height, bytes(info.k), bytes(info.p), bytes(info.d),
            info.distortion_model, info.binning_x, info.binning_y, str(info.roi))
        if self._camera is None or values != self._camera_of:
            try:
                self._camera = camera_from_info(info, self._rectified)
            except InputError as error:
                raise InputError(f"'{self._infos.topic}': {error}") from error
            self._camera_of = values
        return self._camera
