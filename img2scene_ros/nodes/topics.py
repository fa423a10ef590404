# SPDX-License-Identifier: Apache-2.0
"""Topics: publishers, subscriptions, what takes a missing one's place; and timers of nodes."""

from collections import deque
from collections.abc import Callable
from difflib import SequenceMatcher
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.clock import Clock
from rclpy.clock import ClockType
from rclpy.exceptions import ParameterException
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy
from rclpy.qos import QoSProfile
from rclpy.qos import ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.timer import Timer
from rclpy.topic_endpoint_info import TopicEndpointInfo
from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image

from img2scene_ros.errors import OptionError

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
HISTORY = 10  # messages kept for subscribers that are still being connected
RECENT = 5  # messages kept until a subscription's turn comes
WINDOW = 100  # messages of which the share that was lost is told
MOST_NAMED = 3  # topics that a sentence names


def publisher(node: Node, kind: type, topic: str) -> Publisher:
    """
    Return a publisher whose QoS parameters may override (qos_overrides).

    :raises OptionError: they are not allowed
    """
    try:
        return node.create_publisher(
            kind, topic, HISTORY,
            qos_overriding_options=QoSOverridingOptions.with_default_policies())
    except (RuntimeError, ParameterException) as error:  # rclpy has no class of its own for them
        raise OptionError(
            f"the parameters 'qos_overrides.{node.resolve_topic_name(topic)}.publisher' have a "
            f"bad value: {' '.join(str(error).split())}") from error


def timer(
    node: Node, period: float, callback: Callable[[], Any], group: CallbackGroup | None = None,
) -> Timer:
    """Call back in steady time, every so many seconds: a simulation's clock may stand still."""
    return node.create_timer(
        period, callback, group, clock=Clock(clock_type=ClockType.STEADY_TIME))


class FollowingSubscription:
    """
    A subscription that follows the publishers found: their QoS, and where they publish.

    Reliable unless a publisher is not; transient local when all publishers are, so that a
    calibration that was published once, long ago, arrives too.
    """

    def __init__(
        self, node: Node, kind: type, topic: str, callback: Callable[[Any], None],
    ) -> None:
        self.kind = kind
        self.topic = node.resolve_topic_name(topic)
        self._node = node
        self._callback = callback
        self._losses: deque[bool] = deque(maxlen=WINDOW)  # of the latest messages, which were lost
        self._policies = self._wanted()
        self._subscription = self._subscribe()

    @property
    def publishers(self) -> int:
        """Return how many publishers of its type the topic has."""
        return len(self._found())

    @property
    def lost(self) -> float:
        """Return which share of the latest messages got lost; 0 before there are many."""
        is_full = len(self._losses) == WINDOW
        return sum(self._losses) / WINDOW if is_full else 0.0

    @property
    def nodes(self) -> list[str]:
        """Return the names of the nodes that publish its type on the topic."""
        return sorted({f"{found.node_namespace.rstrip('/')}/{found.node_name}"
                       for found in self._found()})

    @property
    def misfit(self) -> str:
        """Return which other type the topic carries, one sentence; '' when it is its own."""
        others = {found.topic_type
                  for found in self._node.get_publishers_info_by_topic(self.topic)}
        if not others or type_name(self.kind) in others:
            return ''
        cure = f'name a topic of {type_name(self.kind)}'
        if type_name(CompressedImage) in others and self.kind is Image:
            cure += ', or set image_transport to compressed and name the topic without /compressed'
        return f"'{self.topic}' carries {', '.join(sorted(others))}; {cure}"

    def follow(self) -> bool:
        """Subscribe again if that takes other QoS, or another topic; tell whether it did."""
        before = self.kind, self.topic, self._policies
        if not self.publishers:
            self.kind, self.topic = self._choice()
        if self.publishers:
            self._policies = self._wanted()
        if before == (self.kind, self.topic, self._policies):
            return False
        self.destroy()
        self._subscription = self._subscribe()
        return True

    def poll(self) -> bool:
        """
        Take a message before its turn, and tell whether there was one.

        For callbacks of the executor's thread.
        """
        one = self._subscription
        with one.handle:
            found = one.handle.take_message(one.msg_type, one.raw)
        if found:
            self._on_message(found[0])
        return bool(found)

    def destroy(self) -> None:
        """Unsubscribe."""
        self._node.destroy_subscription(self._subscription)

    def _choice(self) -> tuple[type, str]:
        """Return type and topic to take while nobody publishes on the one there is."""
        return self.kind, self.topic

    def _wanted(self) -> tuple[ReliabilityPolicy, DurabilityPolicy]:
        profiles = [found.qos_profile for found in self._found()]
        best_effort = any(
            profile.reliability == ReliabilityPolicy.BEST_EFFORT for profile in profiles)
        latched = profiles and all(
            profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for profile in profiles)
        return (
            ReliabilityPolicy.BEST_EFFORT if best_effort else ReliabilityPolicy.RELIABLE,
            DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE)

    def _found(self) -> list[TopicEndpointInfo]:
        return [found for found in self._node.get_publishers_info_by_topic(self.topic)
                if found.topic_type == type_name(self.kind)]

    def _subscribe(self) -> Any:
        reliability, durability = self._policies
        self._losses.clear()
        return self._node.create_subscription(
            self.kind, self.topic, self._on_message,
            QoSProfile(depth=RECENT, reliability=reliability, durability=durability),
            event_callbacks=SubscriptionEventCallbacks(
                incompatible_qos=self._on_incompatible, message_lost=self._on_lost))

    def _on_message(self, message: Any) -> None:
        self._losses.append(False)
        self._callback(message)

    def _on_lost(self, event: Any) -> None:
        self._losses.extend([True] * min(event.total_count_change, WINDOW))

    def _on_incompatible(self, _event: Any) -> None:
        if self.follow():
            self._node.get_logger().info(
                f"'{self.topic}' has a publisher with other QoS settings; following it")
        else:
            self._node.get_logger().warning(
                f"'{self.topic}' has a publisher whose QoS settings fit no subscription of this "
                'node; publish it reliable or best effort, without deadline and liveliness')


def type_name(kind: type) -> str:
    """Return the name of a type of messages, such as sensor_msgs/msg/Image."""
    return f"{kind.__module__.partition('.')[0]}/msg/{kind.__name__}"


def similar_topics(
    node: Node, topic: str, kind: type, is_wanted: Callable[[str], bool] = lambda _: True,
) -> list[str]:
    """
    Return topics of a type that others publish, the likest name first, at most `MOST_NAMED`.

    :param topic: resolved; it is left out
    :param is_wanted: tells by its name whether a topic is worth naming
    """
    own = node.get_fully_qualified_name() + '/'
    found = [
        other for other, types in node.get_topic_names_and_types()
        if type_name(kind) in types and other != topic and not other.startswith(own)
        and is_wanted(other) and node.count_publishers(other)]
    return sorted(
        found, key=lambda other: -SequenceMatcher(None, topic, other).ratio())[:MOST_NAMED]


def instead(topics: list[str], argument: str) -> str:
    """Return a clause that offers other topics, with the launch argument that takes them."""
    if not topics:
        return f'start the camera or remap the topic (launch argument {argument})'
    others = f" (or {', '.join(topics[1:])})" if len(topics) > 1 else ''
    return f'take {argument}:={topics[0]}{others}, or start the camera'
