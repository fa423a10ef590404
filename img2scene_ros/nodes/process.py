# SPDX-License-Identifier: Apache-2.0
"""Running one node as a process: clean start, and a clean end at any moment."""

import os
import signal
import sys
import threading
from functools import partial
from importlib import import_module
from threading import Event
from threading import Thread
from typing import TYPE_CHECKING

from img2scene_ros.errors import Img2SceneError
from img2scene_ros.errors import unexpected

if TYPE_CHECKING:  # signals count before ROS is imported, which takes a second
    from rclpy.executors import Executor
    from rclpy.node import Node

SIGNALS = (signal.SIGINT, signal.SIGTERM)
POLL = 0.1  # seconds between two checks whether a signal has come
PATIENCE = 1.0  # seconds that the node has to leave ROS after a signal


def run(module: str, name: str) -> None:
    """
    Run a node until SIGINT, SIGTERM, or its `is_done` is true.

    All work is on other threads, as the main thread, to which Python gives the signals, must not
    be deep in an import or a model when one comes. Work that goes on after the end is cut off.

    :param module: of this folder; it is imported here
    :param name: the node's class; its method `close` leaves the life cycle
    :raises SystemExit: the node could not start; the reason has been written, in one line
    """
    stop, failures = Event(), []
    for number in SIGNALS:
        signal.signal(number, lambda *_: stop.set())

    def live() -> None:
        try:
            _live(module, name, stop)
        except Img2SceneError as error:
            failures.append(f'error: {error}')
        except BaseException:
            failures.append('')
            raise
        finally:
            stop.set()

    node = Thread(target=live, daemon=True)
    node.start()
    stop.wait()
    node.join(PATIENCE)
    for number in SIGNALS:  # a second one must not end what is ending
        signal.signal(number, signal.SIG_IGN)
    for failure in filter(None, failures):
        print(failure, file=sys.stderr)
    if threading.active_count() > 1:
        # Python would wait for some of them, and end others in the middle of native code.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(len(failures))
    sys.exit(len(failures))


def _live(module: str, name: str, stop: Event) -> None:
    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions

    make_node = getattr(import_module(f'img2scene_ros.nodes.{module}'), name)
    try:
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    except RuntimeError as error:  # a parameter file or an argument that ROS rejects
        raise Img2SceneError(
            f'ROS refuses the arguments: {" ".join(str(error).split())}') from error
    node = make_node()
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


def _spin_once(executor: 'Executor', node: 'Node') -> None:
    try:
        executor.spin_once(timeout_sec=POLL)
    except Exception as error:  # of a callback; it would end the process
        node.get_logger().error(unexpected(error), throttle_duration_sec=10.0)


scene_node = partial(run, 'scene_node', 'SceneNode')
detector_node = partial(run, 'detector_node', 'DetectorNode')
replay_node = partial(run, 'replay_node', 'ReplayNode')

if __name__ == '__main__':
    {'scene_node': scene_node, 'detector_node': detector_node,
     'replay_node': replay_node}[sys.argv.pop(1)]()
