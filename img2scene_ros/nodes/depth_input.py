# SPDX-License-Identifier: Apache-2.0
"""The depth topic: raw or compressed, of the picture's camera or of another one beside it."""

from collections.abc import Callable
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from img2scene_ros.camera import Camera
from img2scene_ros.depth import DepthNoise
from img2scene_ros.errors import InputError
from img2scene_ros.errors import MissingDependencyError
from img2scene_ros.errors import naming
from img2scene_ros.io.registered_depth import noise_at
from img2scene_ros.io.registered_depth import registered_depth
from img2scene_ros.io.ros_images import depth_from_compressed
from img2scene_ros.io.ros_images import depth_from_image
from img2scene_ros.nodes.calibration_input import CalibrationInput
from img2scene_ros.nodes.messages import nanoseconds
from img2scene_ros.nodes.topics import FollowingSubscription
from img2scene_ros.nodes.transforms import Transforms

COMPRESSED = '/compressedDepth'  # what image_transport adds to the name of the raw topic


class DepthInput(FollowingSubscription):
    """
    Subscribes to depth images and to the calibration of their camera.

    :param transport: 'raw', 'compressedDepth', or 'auto', which takes compressed ones where
        nobody publishes raw ones
    :param rectified: the images are rectified, so P and no distortion hold
    :param noise: of the depth camera
    :param pictures_info: the topic of the picture's calibration, resolved
    :param callback: takes the depth images' messages
    """

    def __init__(
        self, node: Node, transforms: Transforms, transport: str, rectified: bool,
        noise: DepthNoise, pictures_info: str, callback: Callable[[Any], None],
    ) -> None:
        self._node = node
        self._transforms = transforms
        self._transport = transport
        self._noise = noise
        self._base = node.resolve_topic_name('depth')
        self._no_tf = ''
        super().__init__(node, *self._choice(), callback)
        self._calibration = self._calibrations(
            rectified or 'rect' in self._base.removesuffix(COMPRESSED).rpartition('/')[2],
            pictures_info)

    def follow(self) -> bool:
        """Adapt to the publishers that there are now."""
        self._calibration.follow()
        return super().follow()

    def destroy(self) -> None:
        """Unsubscribe."""
        super().destroy()
        self._calibration.destroy()

    def prepare(self, depth: Header, frame: str) -> None:
        """Listen to TF if images are not of the picture's frame; for the executor's thread."""
        if depth.frame_id and frame and depth.frame_id != frame and not self._no_tf:
            try:
                self._transforms.listen('the depth camera is not that of the picture')
            except MissingDependencyError as error:
                self._no_tf = str(error)

    def read(
        self, message: Image | CompressedImage, picture: Header, camera: Camera,
    ) -> tuple[np.ndarray, DepthNoise]:
        """
        Return a depth image, registered to the picture, and how far off its readings may be.

        :param picture: the picture's header
        :param camera: of the picture
        :return: (H, W) float32 metres, NaN = no reading; the noise in pixels of the picture
        :raises InputError: it cannot be read, or not be registered
        """
        read = depth_from_image if isinstance(message, Image) else depth_from_compressed
        with naming(f"'{self.topic}'"):
            depth = read(message)
        frames = message.header.frame_id, picture.frame_id
        is_same = '' in frames or frames[0] == frames[1]
        if is_same and depth.shape == (camera.height, camera.width):
            return depth, self._noise
        try:
            shift = np.eye(4) if is_same else self._shift(picture, frames[0])
            own = self._own_camera(message.header.stamp, depth.shape)
        except InputError as error:
            raise InputError(
                f"'{self.topic}': the depth image is of '{frames[0]}' "
                f"({depth.shape[1]}x{depth.shape[0]} pixels), the picture of '{frames[1]}' "
                f'({camera.width}x{camera.height}), and it cannot be registered: {error}; or take '
                "the driver's registered depth (RealSense: align_depth.enable:=true and "
                'depth_topic:=/camera/camera/aligned_depth_to_color/image_raw)') from error
        return (registered_depth(depth, own, camera, shift),
                noise_at(self._noise, own, camera))

    def _shift(self, picture: Header, frame: str) -> np.ndarray:
        if self._no_tf:
            raise InputError(self._no_tf)
        return self._transforms.matrix(
            picture.frame_id, frame, nanoseconds(picture.stamp), 'the depth camera')

    def _own_camera(self, stamp: Time, shape: tuple[int, ...]) -> Camera:
        camera = self._calibration.camera(stamp)
        if (camera.height, camera.width) != shape:
            raise InputError(
                f"'{self._calibration.topic}' is for {camera.width}x{camera.height} pixels; "
                'remap the topic depth_camera_info')
        return camera

    def _calibrations(self, rectified: bool, pictures_info: str) -> CalibrationInput:
        """Listen where it may be: what was remapped, else beside the depth images."""
        named = self._node.resolve_topic_name('depth_camera_info')
        is_remapped = named != f"{self._node.get_namespace().rstrip('/')}/depth_camera_info"
        beside = self._base.removesuffix(COMPRESSED).rpartition('/')[0] + '/camera_info'
        is_known = is_remapped or beside == pictures_info
        return CalibrationInput(self._node, named, rectified, '' if is_known else beside)

    def _choice(self) -> tuple[type, str]:
        types = dict(self._node.get_topic_names_and_types())
        if 'sensor_msgs/msg/CompressedImage' in types.get(self._base, ()):
            return CompressedImage, self._base
        compressed = self._base + COMPRESSED
        is_compressed = self._transport == 'compressedDepth' or (
            self._transport == 'auto' and not self._node.count_publishers(self._base)
            and self._node.count_publishers(compressed) > 0)
        return (CompressedImage, compressed) if is_compressed else (Image, self._base)
