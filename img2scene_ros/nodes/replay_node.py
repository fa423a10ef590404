# SPDX-License-Identifier: Apache-2.0
"""The replay node: plays recorded frames as a camera's topics."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from functools import partial

import numpy as np
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.publisher import Publisher
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import Image

from img2scene_ros.depth import parse_depth_unit
from img2scene_ros.errors import Img2SceneError
from img2scene_ros.errors import OptionError
from img2scene_ros.files import user_path
from img2scene_ros.io.bags import BagFrame
from img2scene_ros.io.frames import load_frame
from img2scene_ros.io.frames import open_frames
from img2scene_ros.io.layouts import FrameFiles
from img2scene_ros.nodes import messages
from img2scene_ros.nodes.logs import forward_logging
from img2scene_ros.nodes.parameters import ParameterGroup
from img2scene_ros.nodes.parameters import declare_or_refuse
from img2scene_ros.nodes.parameters import on_change
from img2scene_ros.nodes.topics import LATCHED
from img2scene_ros.nodes.topics import publisher
from img2scene_ros.nodes.topics import timer
from img2scene_ros.options import Options
from img2scene_ros.options import option
from img2scene_ros.types import Frame

KEPT = 10  # decoded frames; more are read from disk again
LAST_WORDS = 5.0  # seconds that subscribers have for the last frame
# The optical frame (z forward, y down) in its body frame (x forward, z up), by REP-103.
OPTICAL = np.array([
    [0.0, 0.0, 1.0, 0.0], [-1.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])


@dataclass(frozen=True)
class ReplayOptions(Options):
    """What is played, and how."""

    folder: str = option(
        '', 'A frame folder, a folder of frame folders, a data set, a folder of pictures, or a '
        'recording (.mcap, .db3, or the folder of a bag)', read_only=True)
    every: int = option(1, 'Take every so many-th frame', low=1, high=10000, read_only=True)
    depth_unit: str = option(
        '', 'Unit of depth images in files: m, cm, mm, or metres such as 0.0001 or 1/5000; empty '
        'is what calibration or data set tells, else mm for 16 bits and m for floats',
        read_only=True)
    rate: float = option(5.0, 'Frames per second', low=0.01, high=100.0, read_only=True)
    loop: bool = option(
        True, 'Start again after the last frame; false plays once, as soon as somebody listens, '
        'and ends', read_only=True)
    frame_id: str = option(
        'camera_color_optical_frame', 'frame_id of the messages', read_only=True)
    body_frame: str = option(
        'camera_link', 'TF frame of the same place with x forward and z up, as drivers publish it '
        'for viewers; empty: none', read_only=True)
    field_of_view: float = option(
        60.0, 'Horizontal field of view of pictures without a camera file [degrees]',
        low=1.0, high=170.0, read_only=True)


class ReplayNode(Node):
    """
    Publishes image, camera_info and, where the recording has it, depth.

    :raises Img2SceneError: an option that is not allowed, or a folder that cannot be played
    """

    def __init__(self) -> None:
        super().__init__('replay')
        forward_logging(self.get_logger())
        self.is_done = False
        group = ParameterGroup(ReplayOptions)
        declare_or_refuse(self, group)
        on_change(self, partial(group.check_changeable, self))
        self._options = group.read(self)
        if not self._options.folder:
            raise OptionError("the parameter 'folder' is empty; set it to what is to be played")
        self._unit = (
            parse_depth_unit(self._options.depth_unit) if self._options.depth_unit else None)
        self._frames = open_frames(user_path(self._options.folder), self._options.every)
        self._load = lru_cache(KEPT)(self._read)
        self._round: Iterator[FrameFiles | BagFrame] = iter(self._frames)
        self._upcoming: FrameFiles | BagFrame | None = next(self._round)
        self._has_begun = False
        first = self._load(self._upcoming)
        # The depth topic comes first: who finds the picture's knows at once that there is depth.
        self._depth = publisher(self, Image, 'depth') if first.depth is not None else None
        self._info = publisher(self, CameraInfo, 'camera_info')
        self._image = publisher(self, Image, 'image')
        if self._options.body_frame:
            self._publish_body_frame()
        timer(self, 1.0 / self._options.rate, self._on_timer)
        self.get_logger().info(
            f"playing {len(self._frames)} frames of '{self._options.folder}' on "
            f"'{self._image.topic_name}' at {self._options.rate:g} Hz")

    def close(self) -> None:
        """Wait until the subscribers have what was published."""
        if self.is_done:
            for used in self._publishers_used():
                used.wait_for_all_acked(Duration(seconds=LAST_WORDS))

    def _publish_body_frame(self) -> None:
        """Publish once, for whoever comes, where the camera's optical frame is in its body."""
        try:
            from geometry_msgs.msg import TransformStamped
            from tf2_msgs.msg import TFMessage
        except ImportError as error:
            self.get_logger().info(
                f"no TF frame '{self._options.body_frame}': {error} (RViz needs tf2_msgs, too)")
            return
        now = self.get_clock().now().nanoseconds
        transform = TransformStamped(
            header=messages.header_of(self._options.body_frame, now),
            child_frame_id=self._options.frame_id,
            transform=messages.transform_from_matrix(OPTICAL))
        self.create_publisher(TFMessage, '/tf_static', LATCHED).publish(
            TFMessage(transforms=[transform]))

    def _publishers_used(self) -> list[Publisher]:
        return [self._info, self._image] + ([self._depth] if self._depth else [])

    def _on_timer(self) -> None:
        is_heard = all(used.get_subscription_count() for used in self._publishers_used())
        if not (self._options.loop or self._has_begun or is_heard):
            return
        self._has_begun = True
        if self._upcoming is None:
            return
        try:
            self._publish(self._load(self._upcoming))
        except Img2SceneError as error:
            self._warn(error)
        self._upcoming = self._following()
        self.is_done = self._upcoming is None

    def _following(self) -> FrameFiles | BagFrame | None:
        """Return the next frame, if need be of another round; None at the end."""
        try:
            found = next(self._round, None)
        except Img2SceneError as error:  # a recording that is damaged from here on
            self._warn(error)
            found = None
        if found is None and self._options.loop:
            self._round = iter(self._frames)
            found = next(self._round, None)
        return found

    def _warn(self, error: Img2SceneError) -> None:
        self.get_logger().warning(str(error), throttle_duration_sec=10.0)

    def _read(self, source: FrameFiles | BagFrame) -> Frame:
        return load_frame(
            source, field_of_view=self._options.field_of_view, depth_unit=self._unit)

    def _publish(self, frame: Frame) -> None:
        header = messages.header_of(self._options.frame_id, self.get_clock().now().nanoseconds)
        self._info.publish(messages.info_from_camera(header, frame.camera))
        self._image.publish(messages.image_from_color(header, frame.color))
        if self._depth and frame.depth is not None:
            self._depth.publish(messages.image_from_depth(header, frame.depth))
