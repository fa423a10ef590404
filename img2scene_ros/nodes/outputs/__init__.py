# SPDX-License-Identifier: Apache-2.0
"""
Outputs: what the scene is shown as, one file each.

An output is chosen by its file's name in the node's parameter `outputs`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from typing import Protocol
from typing import runtime_checkable

from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile

from img2scene_ros.errors import MissingDependencyError
from img2scene_ros.options import Configurable
from img2scene_ros.options import Options
from img2scene_ros.types import Scene


class Output(Configurable, Protocol):
    """Shows scenes."""

    def __init__(self, node: LifecycleNode, options: Any) -> None:
        """
        Create the publishers.

        :raises MissingDependencyError: its messages are not installed; the node goes on without
        """

    def show(self, scene: Scene, changed: bool) -> None:
        """
        Show a scene.

        :param changed: whether the scene differs noticeably from the one shown before
        :raises Img2SceneError: what is wrong, for log and diagnostics
        """

    def close(self) -> None:
        """Destroy the publishers."""


class TopicOutput:
    """
    Base of outputs that publish on one topic.

    - kind, topic, qos: its messages, its name, and a profile or the depth of its queue
    """

    Options: type[Any] = Options
    kind: type
    topic: str
    qos: QoSProfile | int = 1

    def __init__(self, node: LifecycleNode, options: Any) -> None:
        self.options = options
        self._node = node
        self._publisher = node.create_lifecycle_publisher(self.kind, self.topic, self.qos)

    def close(self) -> None:
        """Destroy the publisher."""
        self._node.destroy_lifecycle_publisher(self._publisher)


@runtime_checkable
class ManagedOutput(Protocol):
    """An output that has more to do than publishing while the node is active."""

    def activate(self) -> None:
        """Begin; what goes wrong is for `show` to tell."""

    def deactivate(self) -> None:
        """End; `activate` may follow."""


@contextmanager
def importing_messages(output: str, package: str) -> Iterator[None]:
    """
    Import within this a package of messages that may be missing.

    :raises MissingDependencyError: it cannot be imported
    """
    try:
        yield
    except ImportError as error:
        raise MissingDependencyError(
            f"the output '{output}' is skipped: it needs {package} ({error}); install "
            f"ros-<distro>-{package.replace('_', '-')}, or take it out of 'outputs'") from error
