"""Running one node as a process: clean start, clean end."""

import signal
import sys
from collections.abc import Callable
from threading import Event

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from img2scene_ros.errors import Img2SceneError

POLL = 0.1  # seconds between two looks at whether a signal has come


def run(make_node: Callable[[], Node], args: list[str] | None = None) -> None:
    """
    Run a node until SIGINT, SIGTERM, or its `is_done` is true.

    The signals only end the loop, so that the node can still publish and change its life-cycle
    state on its way out; its method `close` does that.

    :raises SystemExit: the node could not start; the reason has been written, in one line
    """
    stop = Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stop.set())
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    except RuntimeError as error:  # a parameter file or an argument that ROS rejects
        sys.exit(f'error: ROS refuses the arguments: {" ".join(str(error).split())}')
    try:
        node = make_node()
    except Img2SceneError as error:
        sys.exit(f'error: {error}')
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        while not stop.is_set() and not node.is_done:
            _spin_once(executor, node)
    finally:
        node.close()
        executor.remove_node(node)
        node.destroy_node()
        rclpy.shutdown()


def _spin_once(executor: SingleThreadedExecutor, node: Node) -> None:
    try:
        executor.spin_once(timeout_sec=POLL)
    except Exception as error:  # of a callback; it would end the process
        node.get_logger().error(
            f'unexpected {type(error).__name__}: {error}', throttle_duration_sec=10.0)
