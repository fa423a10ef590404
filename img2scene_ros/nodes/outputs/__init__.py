# SPDX-License-Identifier: Apache-2.0
"""
Outputs: what the scene is shown as, one file each.

An output is chosen by its file's name in the node's parameter `outputs`.
"""

from typing import Any
from typing import Protocol
from typing import runtime_checkable

from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy
from rclpy.qos import QoSProfile

from img2scene_ros.options import Configurable
from img2scene_ros.types import Scene

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Output(Configurable, Protocol):
    """Shows scenes."""

    def __init__(self, node: LifecycleNode, options: Any) -> None:
        """Create the publishers."""

    def show(self, scene: Scene, changed: bool) -> None:
        """
        Show a scene.

        :param changed: whether the scene differs noticeably from the one shown before
        :raises Img2SceneError: what is wrong, for log and diagnostics
        """

    def close(self) -> None:
        """Destroy the publishers."""


@runtime_checkable
class ManagedOutput(Protocol):
    """An output that has more to do than publishing while the node is active."""

    def activate(self) -> None:
        """Begin; what goes wrong is for `show` to tell."""

    def deactivate(self) -> None:
        """End; `activate` may follow."""
