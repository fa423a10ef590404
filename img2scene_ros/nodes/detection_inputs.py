# SPDX-License-Identifier: Apache-2.0
"""Detections of another node, each paired with the picture that it was made of, by stamp."""

from collections import deque
from dataclasses import dataclass
from dataclasses import replace
from functools import partial
from typing import Any

from rclpy.node import Node
from sensor_msgs.msg import Image

from img2scene_ros.errors import MissingDependencyError
from img2scene_ros.errors import naming
from img2scene_ros.io.ros_images import labels_from_image
from img2scene_ros.nodes.messages import seconds
from img2scene_ros.nodes.pairing import Pair
from img2scene_ros.nodes.pairing import Pairing
from img2scene_ros.nodes.pairing import too_many
from img2scene_ros.nodes.topics import FollowingSubscription
from img2scene_ros.types import Frame

SILENCE = 10.0  # seconds of pictures without any detections before that is worth a word
MANY = 10  # messages of detections without a picture before that is worth a word


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
    - unseen_in_a_row: messages of detections since the latest that belongs to a picture
    """

    def __init__(self) -> None:
        super().__init__()
        self.has_labels = False
        self.unseen_in_a_row = 0
        self._undetected_since: float | None = None
        self._others |= {kind: deque() for kind in ('pairs', 'detections', 'labels')}

    def add(self, kind: str, stamp: float, message: Any) -> None:
        """Take what belongs to a picture; detections and their labels, too."""
        if kind == 'detections':
            self.unseen_in_a_row += 1
            self._undetected_since = None
        super().add(kind, stamp, message)

    @property
    def undetected_for(self) -> float:
        """Return for how many seconds pictures have come, but no detections at all."""
        with self._changed:
            since, pairs = self._undetected_since, self._others['pairs']
            return pairs[-1][1].arrived - since if since and pairs else 0.0

    def clear(self) -> None:
        """Forget all messages."""
        super().clear()
        self._undetected_since = None

    def _match(self) -> None:
        super()._match()
        for i, (stamp, _) in reversed(list(enumerate(self._others['detections']))):
            pair, labels = self._nearest('pairs', stamp), self._nearest('labels', stamp)
            if pair is None or labels is None and self.has_labels:
                continue
            self.unseen_in_a_row = 0
            super()._offer(DetectedPair(
                **vars(self._taken('pairs', pair)), detections=self._taken('detections', i),
                labels=None if labels is None else self._taken('labels', labels)))
            return

    def _offer(self, pair: Pair) -> None:
        self._undetected_since = self._undetected_since or pair.arrived
        pairs = self._others['pairs']
        pairs.append((seconds(pair.color.header.stamp), pair))
        count = too_many([one.size for _, one in pairs])
        self._drop_oldest(pairs, count, 'no detections came in time')


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
            node, Detection2DArray, 'detections', partial(self._on, 'detections'))
        self._labels = FollowingSubscription(
            node, Image, 'detection_labels', partial(self._on, 'labels'))
        self.follow()

    def follow(self) -> None:
        """Adapt to the publishers that there are now."""
        self._detections.follow()
        self._labels.follow()
        self._pairing.has_labels = bool(self._labels.publishers)

    def destroy(self) -> None:
        """Unsubscribe."""
        self._detections.destroy()
        self._labels.destroy()

    def missing(self) -> str:
        """Return what does not arrive and how to fix it, one sentence; '' when all does."""
        topic = self._detections.topic
        if not self._detections.publishers:
            return self._detections.misfit or (
                f"nobody publishes detections on '{topic}'; start detector_node or another "
                'detector, or remap the topic detections')
        if self._pairing.unseen_in_a_row > MANY:
            labels = f" and a label image on '{self._labels.topic}'"
            return (f"detections on '{topic}' come, but no picture"
                    f"{labels if self._pairing.has_labels else ''} of their stamps, or they come "
                    'too late; give them the stamp of the picture that they were made of')
        if self._pairing.undetected_for > SILENCE:
            return (f"no detections arrive on '{topic}' though it has a publisher; see what "
                    f"{' and '.join(self._detections.nodes)} says in its log and diagnostics")
        return self._labels.misfit

    def add(self, frame: Frame, pair: DetectedPair) -> Frame:
        """
        Return the frame with its detections.

        :raises InputError: labels that cannot be read, or of another size
        """
        from img2scene_ros.nodes.vision_messages import detections_from_message

        with naming(f"'{self._labels.topic}'"):
            labels = None if pair.labels is None else labels_from_image(pair.labels)
            return replace(frame, detections=tuple(
                detections_from_message(pair.detections, frame.shape, labels)))

    def _on(self, kind: str, message: Any) -> None:
        self._pairing.add(kind, seconds(message.header.stamp), message)
