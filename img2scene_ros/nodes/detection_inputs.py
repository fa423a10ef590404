# SPDX-License-Identifier: Apache-2.0
"""Detections of another node, each paired with the picture that it was made of, by stamp."""

from collections import deque
from collections.abc import Callable
from collections.abc import Iterable
from dataclasses import dataclass
from dataclasses import replace
from typing import Any

from rclpy.node import Node
from sensor_msgs.msg import Image

from img2scene_ros.errors import InputError
from img2scene_ros.errors import MissingDependencyError
from img2scene_ros.io.ros_images import labels_from_image
from img2scene_ros.nodes.messages import nanoseconds
from img2scene_ros.nodes.pairing import Pair
from img2scene_ros.nodes.pairing import Pairing
from img2scene_ros.nodes.topics import FollowingSubscription
from img2scene_ros.types import Frame

# Pictures that wait for their detections, as detectors are slower than cameras: 2 s at 30 Hz.
WAITING = 60


@dataclass(frozen=True)
class DetectedPair(Pair):
    """
    A pair whose picture somebody has detected in.

    - detections: vision_msgs/Detection2DArray
    - labels: sensor_msgs/Image, whose pixels name detections; None where nobody publishes it
    """

    detections: Any = None
    labels: Any = None


class DetectionPairing(Pairing):
    """
    Offers the newest picture for which there are detections.

    - has_labels: a label image belongs to every message of detections
    """

    def __init__(self) -> None:
        super().__init__()
        self.has_labels = False
        self._waiting: deque[Pair] = deque(maxlen=WAITING)
        self._detections: deque[Any] = deque(maxlen=WAITING)
        self._labels: deque[Any] = deque(maxlen=WAITING)

    def add_detections(self, message: Any) -> None:
        """Take what somebody has detected in a picture of the same stamp."""
        with self._changed:
            self._detections.append(message)
            self._join()

    def add_labels(self, message: Image) -> None:
        """Take the pixels of the detections of the same stamp."""
        with self._changed:
            self._labels.append(message)
            self._join()

    def clear(self) -> None:
        """Forget all messages."""
        super().clear()
        with self._changed:
            for messages in (self._waiting, self._detections, self._labels):
                messages.clear()

    def _offer(self, pair: Pair) -> None:
        self._waiting.append(pair)
        self._join()

    def _join(self) -> None:
        for detections in reversed(self._detections):
            stamp = nanoseconds(detections.header.stamp)
            pair = self._nearest(stamp, self._waiting, lambda waiting: waiting.color)
            labels = self._nearest(stamp, self._labels, lambda message: message)
            if pair is None or labels is None and self.has_labels:
                continue
            super()._offer(DetectedPair(
                pair.color, pair.depth, pair.arrived, pair.mask, detections, labels))
            for messages, used in ((self._waiting, pair), (self._detections, detections),
                                   (self._labels, labels)):
                while used is not None and messages.popleft() is not used:
                    pass  # what is older is of no use any more
            return

    def _nearest(
        self, stamp: int, messages: Iterable[Any], stamped: Callable[[Any], Any],
    ) -> Any | None:
        """Return what has the nearest stamp, in nanoseconds; None beyond the tolerance."""
        def gap(message: Any) -> int:
            return abs(nanoseconds(stamped(message).header.stamp) - stamp)

        nearest = min(messages, key=gap, default=None)
        return None if nearest is None or gap(nearest) > self.tolerance * 1e9 else nearest


class DetectionInputs:
    """
    Subscribes to `detections` and, for masks, `detection_labels`.

    :raises MissingDependencyError: vision_msgs is not installed
    """

    def __init__(self, node: Node, pairing: DetectionPairing) -> None:
        try:
            from vision_msgs.msg import Detection2DArray
        except ImportError as error:
            raise MissingDependencyError(
                f"the detector 'topic' needs vision_msgs ({error}); install "
                'ros-<distro>-vision-msgs, or choose another detector') from error
        self._pairing = pairing
        self._detections = FollowingSubscription(
            node, Detection2DArray, 'detections', pairing.add_detections)
        self._labels = FollowingSubscription(
            node, Image, 'detection_labels', pairing.add_labels)
        self.follow()

    def follow(self) -> None:
        """Adapt to the publishers that there are now."""
        for subscription in (self._detections, self._labels):
            subscription.follow()
        self._pairing.has_labels = bool(self._labels.publishers)

    def destroy(self) -> None:
        """Unsubscribe."""
        for subscription in (self._detections, self._labels):
            subscription.destroy()

    def missing(self) -> str:
        """Return what does not arrive and how to fix it, one sentence; '' when all does."""
        if self._detections.publishers:
            return ''
        return (f"nobody publishes detections on '{self._detections.topic}'; start detector_node "
                'or another detector, or remap the topic detections')

    def add(self, frame: Frame, pair: DetectedPair) -> Frame:
        """
        Return the frame with its detections.

        :raises InputError: labels that cannot be read, or of another size
        """
        from img2scene_ros.nodes.vision_messages import detections_from_message

        try:
            labels = None if pair.labels is None else labels_from_image(pair.labels)
            return replace(frame, detections=tuple(
                detections_from_message(pair.detections, frame.shape, labels)))
        except InputError as error:
            raise InputError(f"'{self._labels.topic}': {error}") from error
