# SPDX-License-Identifier: Apache-2.0
"""One output in an active node of its own, and a robot that listens to it over DDS."""

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import replace
from time import monotonic
from typing import Any

import numpy as np
import rclpy
from harness import TIMEOUT
from harness import Robot
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode

from img2scene_ros.camera import Camera
from img2scene_ros.nodes.demo_nodes import free_domain
from img2scene_ros.nodes.outputs import ManagedOutput
from img2scene_ros.types import Frame
from img2scene_ros.types import Scene
from img2scene_ros.types import SceneObject

# A camera at 1, 2, 3 in the world that looks along the world's x: its axes there as columns.
WORLD_FROM_CAMERA = np.array([
    [0.0, 0.0, 1.0, 1.0], [-1.0, 0.0, 0.0, 2.0], [0.0, -1.0, 0.0, 3.0], [0.0, 0.0, 0.0, 1.0]])


def frame_at(stamp_ns: int, world: np.ndarray | None = None, size: tuple = (8, 6)) -> Frame:
    """Return a frame; with a pose in it where there is a world."""
    width, height = size
    return Frame(
        np.zeros((height, width, 3), np.uint8),
        Camera(width, height, 5.0, 5.0, (width - 1) / 2, (height - 1) / 2), None, stamp_ns,
        'camera', world_from_camera=world, world_id='' if world is None else 'map')


def at(item: SceneObject, *position: float) -> SceneObject:
    """Return the object at another place, metres."""
    return replace(item, position=np.array(position))


class OutputStage:
    """
    An output in a node, without a camera.

    :param make: the output's class
    :param options: of it
    :param domain, robot: as of another stage, which was killed
    :param arguments: of the node, as after --ros-args
    """

    def __init__(
        self, make: Callable[..., Any], options: Any, domain: int = 0,
        robot: Robot | None = None, arguments: Sequence[str] = (),
    ) -> None:
        self.domain = domain or free_domain()
        self._context = Context()
        rclpy.init(context=self._context, domain_id=self.domain)
        self.node = LifecycleNode(
            'img2scene', context=self._context, cli_args=['--ros-args', *arguments])
        self.node.declare_parameters(
            '', [('republish_distance', 0.002), ('republish_angle', 2.0)])
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self.output = make(self.node, options)
        self.node.trigger_configure()
        self.node.trigger_activate()
        if isinstance(self.output, ManagedOutput):
            self.output.activate()
        self.robot = robot or Robot(self.domain)
        self._stamp_ns = 10**12

    def listen(self, kind: type, topic: str, qos: Any = 10) -> list:
        """Subscribe and wait until the node knows; return where messages will be."""
        received: list = []
        before = self.node.count_subscribers(topic)
        self.robot.node.create_subscription(kind, topic, received.append, qos)
        self.spin_until(lambda: self.node.count_subscribers(topic) > before)
        return received

    def show(self, *objects: SceneObject, world: np.ndarray | None = None, **scene: Any) -> Scene:
        """Show a scene of a new frame."""
        self._stamp_ns += 100_000_000
        shown = Scene(frame_at(self._stamp_ns, world), objects, **scene)
        self.output.show(shown, True)
        return shown

    def spin(self, seconds: float = 0.3) -> None:
        """Let the node and the robot work."""
        end = monotonic() + seconds
        while monotonic() < end:
            self._executor.spin_once(timeout_sec=0.01)
            self.robot.spin(0.01)

    def spin_until(self, condition: Callable[[], Any]) -> None:
        """Let both work until the condition holds."""
        end = monotonic() + TIMEOUT
        while not condition():
            assert monotonic() < end, 'waited in vain'
            self.spin(0.02)

    def kill(self) -> None:
        """End the node without a word, as kill -9 does; the robot stays."""
        self._executor.remove_node(self.node)
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)

    def close(self) -> None:
        """End both."""
        self.robot.close()
        self.output.close()
        self.kill()
