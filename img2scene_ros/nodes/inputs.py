# SPDX-License-Identifier: Apache-2.0
"""The camera's topics: callbacks keep the newest messages, and frames are made of them."""

from dataclasses import dataclass
from dataclasses import replace
from functools import partial
from time import monotonic

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image

from img2scene_ros.depth import DepthNoise
from img2scene_ros.errors import InputError
from img2scene_ros.errors import naming
from img2scene_ros.io.ros_images import color_from_compressed
from img2scene_ros.io.ros_images import color_from_image
from img2scene_ros.io.ros_images import mask_from_image
from img2scene_ros.nodes.calibration_input import CalibrationInput
from img2scene_ros.nodes.depth_input import DepthInput
from img2scene_ros.nodes.diagnostics import Problems
from img2scene_ros.nodes.headers import Headers
from img2scene_ros.nodes.messages import nanoseconds
from img2scene_ros.nodes.messages import seconds
from img2scene_ros.nodes.pairing import Pair
from img2scene_ros.nodes.pairing import Pairing
from img2scene_ros.nodes.topics import FollowingSubscription
from img2scene_ros.nodes.topics import instead
from img2scene_ros.nodes.topics import similar_topics
from img2scene_ros.nodes.transforms import Transforms
from img2scene_ros.options import Options
from img2scene_ros.options import option
from img2scene_ros.types import Frame

GRACE = 3.0  # seconds a camera may need before its silence is logged
SILENCE = 10.0  # seconds without a picture before that is worth a word
DISCOVERY = 2.0  # seconds in which DDS finds all publishers of a camera, one after another
MOST_LOST = 0.2  # share of messages that may get lost before that is worth a word
UNPAIRED = 2.0  # seconds of pictures without depth image or mask before that is worth a word
NO_COLOR = ('depth', 'mask', 'label', 'infra', 'disparity')  # in names of topics of other images


@dataclass(frozen=True)
class InputOptions(Options):
    """What the camera's topics carry."""

    image_transport: str = option(
        'raw', 'Transport of the picture; compressed listens to image/compressed',
        choices=('raw', 'compressed'), read_only=True)
    depth_transport: str = option(
        'auto', 'Transport of the depth image; compressedDepth listens to depth/compressedDepth, '
        'and so does auto where nobody publishes raw ones',
        choices=('auto', 'raw', 'compressedDepth'), read_only=True)
    use_depth: bool = option(
        True, 'Wait for the depth image of every picture, if somebody publishes depth images',
        read_only=True)
    rectified: bool = option(
        False, "The picture is rectified: camera_info's P holds instead of K and D",
        read_only=True)


class Inputs:
    """
    What the camera publishes: callbacks keep the newest messages, a worker makes frames of them.

    :param transforms: tells where a depth camera is that is not the picture's
    :param depth_noise: of the camera that publishes the depth images
    """

    def __init__(
        self, node: Node, pairing: Pairing, options: InputOptions, transforms: Transforms,
        depth_noise: DepthNoise,
    ) -> None:
        self._node = node
        self._pairing = pairing
        self._transforms = transforms
        self._since = monotonic()
        self._first_color: float | None = None
        self._is_taking = False
        self._last: dict[str, float] = {}  # when the latest message of a kind came
        if options.image_transport == 'compressed':
            # Like image_transport: the picture's remapped name with the suffix.
            topic, kind = node.resolve_topic_name('image') + '/compressed', CompressedImage
        else:
            topic, kind = 'image', Image
        self._subscriptions: list[FollowingSubscription] = []
        self._depth: DepthInput | None = None
        try:
            self._color = FollowingSubscription(node, kind, topic, self._on_color)
            self._subscriptions.append(self._color)
            self._calibration = CalibrationInput(node, 'camera_info', options.rectified)
            self._subscriptions.append(self._calibration)
            self._mask = FollowingSubscription(
                node, Image, 'mask', partial(self._on, 'mask'))
            self._subscriptions.append(self._mask)
            if options.use_depth:
                self._depth = DepthInput(
                    node, transforms, options.depth_transport, options.rectified, depth_noise,
                    self._calibration.topic, self._on_depth)
                self._subscriptions.append(self._depth)
        except Exception:  # such as one topic for two types
            self.destroy()
            raise
        self._headers = Headers(self._color.topic)
        pairing.is_ready = transforms.has_come

    def follow(self) -> None:
        """Adapt to the publishers that there are now."""
        for subscription in self._subscriptions:
            subscription.follow()
        self._pairing.wait_only_for(self._partners())

    def destroy(self) -> None:
        """Unsubscribe from everything."""
        for subscription in self._subscriptions:
            subscription.destroy()

    def frame(self, pair: Pair) -> Frame | None:
        """
        Make a frame of messages; None as long as no calibration has arrived.

        :raises InputError: messages that cannot be read or do not fit each other
        """
        if not self._calibration.has_arrived:
            self._pairing.drop('no camera_info yet')
            return None
        header = pair.color.header
        camera = self._calibration.camera(header.stamp)
        with naming(f"'{self._color.topic}'"):
            color = (color_from_image if isinstance(pair.color, Image)
                     else color_from_compressed)(pair.color)
        with naming(f"'{self._mask.topic}'"):
            robot = None if pair.mask is None else mask_from_image(pair.mask)
        frame = Frame(color, camera, stamp_ns=nanoseconds(header.stamp),
                      frame_id=header.frame_id, robot=robot)
        if pair.depth is None or self._depth is None:
            return frame
        depth, noise = self._depth.read(pair.depth, header, camera)
        if not np.isfinite(depth).any():
            raise InputError(
                f"'{self._depth.topic}': the depth image holds no reading, only zeros or NaN; "
                'check what covers or blinds the sensor, or set use_depth to false')
        return replace(frame, depth=depth, depth_noise=noise)

    @property
    def is_new(self) -> bool:
        """Tell whether a camera may still be starting."""
        return monotonic() - self._since < GRACE

    def report(self, problems: Problems, missing: str) -> None:
        """Report what is missing, once the camera has had its time, and what is doubtful."""
        if not missing or not self.is_new:
            problems.update('camera', missing)
        problems.update('input', '; '.join(self.doubts()))

    def missing(self) -> str:
        """Return what does not arrive and how to fix it, one sentence; '' when all does."""
        for subscription in self._subscriptions:
            if subscription.misfit:
                return subscription.misfit
        color = self._color
        if 'color' not in self._last and not color.publishers:
            return f"nobody publishes pictures on '{color.topic}'; {self._other_pictures()}"
        if monotonic() - self._last.get('color', -SILENCE) > SILENCE:
            return f"no pictures arrive on '{color.topic}'; check the camera and the network"
        if not self._calibration.has_arrived:
            topic = self._calibration.topic
            others = similar_topics(self._node, topic, CameraInfo)
            return (f"no camera_info has arrived on '{topic}', so pictures have no scale; "
                    f"{instead(others, 'camera_info_topic')} and calibrate it")
        if self._pairing.unpaired_for > UNPAIRED:
            for kind, one in (('depth', self._depth), ('mask', self._mask)):
                sentence = one and one.publishers and self._unpaired(kind, one.topic)
                if sentence:
                    return sentence
        return ''

    def doubts(self) -> list[str]:
        """Return what is likely wrong though pictures arrive, one sentence each."""
        found, nodes, depth = self._headers.problems(), self._color.nodes, self._depth
        if len(nodes) > 1:
            found.append(f"{' and '.join(nodes)} publish pictures on '{self._color.topic}', which "
                         'are mixed; stop all but one')
        frames = self._calibration.frame_id, self._headers.frame_id
        if all(frames) and frames[0] != frames[1]:
            found.append(
                f"'{self._calibration.topic}' is of '{frames[0]}' but the picture of "
                f"'{frames[1]}'; check that it is of the same camera (camera_info_topic)")
        found += [
            f"{one.lost:.0%} of the messages on '{one.topic}' get lost on the way; raise the "
            "buffers of its publisher's DDS (Fast DDS: start it with "
            'FASTRTPS_DEFAULT_PROFILES_FILE set to config/fastdds.xml of img2scene), or take '
            'compressed images'
            for one in self._subscriptions if one.lost > MOST_LOST]
        if depth and 'color' in self._last and self._is_alone('depth'):
            if 'depth' in self._last:
                found.append(
                    f"nobody publishes depth images on '{depth.topic}' any more; check the "
                    'driver, or set use_depth to false')
            others = similar_topics(
                self._node, depth.topic, Image, lambda name: 'depth' in name.lower())
            if others and 'depth' not in self._last:
                found.append(
                    f"nobody publishes depth images on '{depth.topic}'; "
                    f"{instead(others, 'depth_topic')}, or set use_depth to false")
        return found

    @property
    def topics(self) -> str:
        """Return the names of the topics, for people."""
        return ', '.join(f"'{subscription.topic}'" for subscription in self._subscriptions)

    def _partners(self) -> list[str]:
        """Return what pictures wait for."""
        return [kind for kind in ('depth', 'mask') if not self._is_alone(kind)]

    def _is_alone(self, kind: str) -> bool:
        """Tell whether pictures come without something, and not only before it."""
        if kind == 'mask':
            return not self._mask.publishers
        if self._depth is None:
            return True
        return (not self._depth.publishers and self._first_color is not None
                and monotonic() - self._first_color > DISCOVERY)

    def _unpaired(self, kind: str, topic: str) -> str:
        """Return why pictures have no depth image or no mask, one sentence; '' if not so."""
        what, cure = {
            'depth': ('depth image', 'set use_depth to false'),
            'mask': ('mask of the robot', 'stop its publisher')}[kind]
        last = self._last.get(kind)
        if last is None:
            return (f"no {what} has arrived on '{topic}' though it has a publisher; check it, or "
                    f'{cure}')
        if self._last['color'] - last > SILENCE / 5.0:
            return (f"no {what} arrives on '{topic}' any more though it has a publisher; check "
                    f'it, or {cure}')
        if kind == 'mask' and 'depth' in self._partners():
            return ''  # said of the depth image, if at all
        return (f"no {what} on '{topic}' has a stamp within {self._pairing.tolerance:g} s of a "
                f"picture on '{self._color.topic}'; synchronize the camera, raise "
                f'sync_tolerance, or {cure}')

    def _other_pictures(self) -> str:
        """Return what to do where nobody publishes the picture's topic."""
        topic = self._color.topic
        if self._color.kind is Image and self._node.count_publishers(f'{topic}/compressed'):
            return 'its compressed ones are published: set image_transport to compressed'
        suffix = '' if self._color.kind is Image else '/compressed'
        return instead([name.removesuffix(suffix) for name in similar_topics(
            self._node, topic, self._color.kind,
            lambda name: name.endswith(suffix) and not any(
                word in name.lower() for word in NO_COLOR))], 'image_topic')

    def _on_color(self, message: Image | CompressedImage) -> None:
        self._last['color'] = monotonic()
        self._first_color = self._first_color or self._last['color']
        self._headers.see(message.header, self._node.get_clock().now().nanoseconds)
        self._transforms.follow_stamps(nanoseconds(message.header.stamp))
        self._calibration.poll()  # it belongs to the picture
        self._pairing.add_color(seconds(message.header.stamp), message, self._partners())
        self._take_all()

    def _on_depth(self, message: Image | CompressedImage) -> None:
        if self._depth is not None:
            self._depth.prepare(message.header, self._headers.frame_id or '')
        self._calibration.poll()
        self._on('depth', message)
        self._take_all()

    def _on(self, kind: str, message: Image | CompressedImage) -> None:
        self._last[kind] = monotonic()
        self._pairing.add(kind, seconds(message.header.stamp), message)

    def _take_all(self) -> None:
        """Take what has come with a message: on a busy machine it would be replaced meanwhile."""
        if self._is_taking:
            return
        self._is_taking = True
        while sum(subscription.poll() for subscription in self._subscriptions):
            pass  # one of each in turn, as what belongs together has come together
        self._is_taking = False
