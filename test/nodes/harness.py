# SPDX-License-Identifier: Apache-2.0
"""Nodes as processes of their own, and a robot that talks to them over DDS on loopback."""

import atexit
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from copy import copy
from pathlib import Path
from time import monotonic
from time import time_ns
from typing import Any

import cv2
import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import ChangeState
from lifecycle_msgs.srv import GetState
from rcl_interfaces.srv import SetParameters
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import Image
from visualization_msgs.msg import Marker
from visualization_msgs.msg import MarkerArray

from img2scene_ros.nodes.messages import header_of
from img2scene_ros.nodes.messages import image_from_color
from img2scene_ros.nodes.messages import image_from_depth
from img2scene_ros.nodes.messages import info_from_camera
from img2scene_ros.nodes.messages import nanoseconds
from img2scene_ros.types import Frame

TIMEOUT = 90.0  # seconds; only a failing test waits so long
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
QUEUED = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
TRANSITIONS = {'configure': 1, 'cleanup': 2, 'activate': 3, 'deactivate': 4}


# Arguments for backends that need no networks, so that the node starts at once.
GEOMETRIC = ('-p', 'detector:=tabletop', '-p', 'reconstructor:=depth_shell')


class NodeProcess:
    """A node as a process; what it writes goes to a file."""

    def __init__(self, name: str, domain: int, folder: Path, *arguments: str) -> None:
        self._log = folder / f'{name}-{monotonic()}.log'
        environment = os.environ | {
            'ROS_DOMAIN_ID': str(domain), 'RCUTILS_COLORIZED_OUTPUT': '0',
            'ROS_LOG_DIR': str(folder)}
        self._process = subprocess.Popen(
            [sys.executable, '-m', 'img2scene_ros.nodes.process', name, '--ros-args', *arguments],
            stdout=self._log.open('w'), stderr=subprocess.STDOUT, env=environment)
        atexit.register(self._process.kill)  # when a failed test has not stopped it

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def complaints(self, start: int = 0) -> list[str]:
        """Return the warnings and errors after a position in the log, one line each."""
        log = self.log[start:]
        assert 'Traceback' not in log, log
        return [line for line in log.splitlines() if re.match(r'\[(WARN|ERROR|FATAL)\]', line)]

    def send_signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def stop(self, by: signal.Signals = signal.SIGINT) -> int:
        self.send_signal(by)
        return self.wait()

    def wait(self, timeout: float = TIMEOUT) -> int:
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise


def install(folder: Path, name: str, source: str, entry_points: str) -> None:
    """Write what pip writes for a package of one module that adds backends."""
    (folder / f'{name}.py').write_text(source)
    info = folder / f'{name}-1.0.dist-info'
    info.mkdir()
    (info / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n')
    (info / 'entry_points.txt').write_text(entry_points)


class Robot:
    """The other side: subscribes to what the scene node publishes, and calls its services."""

    def __init__(self, domain: int, scene: str = '/img2scene') -> None:
        self.domain = domain
        self.markers: list[MarkerArray] = []
        self.diagnostics: list[DiagnosticArray] = []
        self.scene = scene
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain)
        self.node = rclpy.create_node('robot', context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._shown: dict[tuple[str, int], Marker] = {}
        self.node.create_subscription(MarkerArray, f'{scene}/markers', self._on_markers, QUEUED)
        self.node.create_subscription(
            DiagnosticArray, '/diagnostics', self.diagnostics.append, 10)

    def _on_markers(self, message: MarkerArray) -> None:
        """Note all that is shown now, as of the message's stamp, after what it deletes."""
        deleted = []
        for marker in message.markers:
            name = marker.ns, marker.id
            if marker.action == Marker.ADD:
                self._shown[name] = marker
                continue
            deleted.append(marker)
            for gone in list(self._shown) if marker.action == Marker.DELETEALL else [name]:
                self._shown.pop(gone, None)
        for name, marker in self._shown.items():
            self._shown[name] = copy(marker)  # those of before stay
            self._shown[name].header = message.markers[-1].header
        self.markers.append(MarkerArray(markers=[*deleted, *self._shown.values()]))

    def close(self) -> None:
        self._executor.remove_node(self.node)
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)

    def subscribe(self, kind: type, topic: str, callback: Callable[[Any], None]) -> Any:
        """Subscribe as the shipped RViz layout does."""
        return self.node.create_subscription(kind, topic, callback, LATCHED)

    def spin(self, seconds: float) -> None:
        end = monotonic() + seconds
        while monotonic() < end:
            self._executor.spin_once(timeout_sec=0.05)

    def spin_until(
        self, condition: Callable[[], Any], what: str,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> None:
        """Spin until the condition holds; call `meanwhile` some times per second."""
        end, due = monotonic() + TIMEOUT, 0.0
        while not condition():
            assert monotonic() < end, f'waited in vain until {what}'
            if monotonic() >= due:
                meanwhile()
                due = monotonic() + 0.25
            self._executor.spin_once(timeout_sec=0.05)

    def call(self, kind: type, name: str, request: Any = None) -> Any:
        client = self.node.create_client(kind, name)
        self.spin_until(client.service_is_ready, f'the service {name} is there')
        future = client.call_async(request or kind.Request())
        self.spin_until(future.done, f'the service {name} answers')
        self.node.destroy_client(client)
        return future.result()

    def change_state(self, transition: str) -> bool:
        request = ChangeState.Request()
        request.transition.id = TRANSITIONS[transition]
        return self.call(ChangeState, f'{self.scene}/change_state', request).success

    @property
    def state(self) -> str:
        """Ask, also again: answers are lost while DDS has not matched both ways."""
        client = self.node.create_client(GetState, f'{self.scene}/get_state')
        asked: list[Any] = []
        due = 0.0

        def is_answered() -> bool:
            nonlocal due
            if client.service_is_ready() and monotonic() >= due:
                asked.append(client.call_async(GetState.Request()))
                due = monotonic() + 5.0
            return any(future.done() for future in asked)

        self.spin_until(is_answered, f'{self.scene}/get_state answers')
        self.node.destroy_client(client)
        return next(one.result() for one in asked if one.done()).current_state.label

    def set_parameter(self, name: str, value: Any) -> str:
        """Set a parameter; return why it was refused, '' when it was not."""
        request = SetParameters.Request(
            parameters=[Parameter(name, value=value).to_parameter_msg()])
        result = self.call(SetParameters, f'{self.scene}/set_parameters', request).results[0]
        return '' if result.successful else result.reason

    def diagnosis(self) -> str:
        """Return the message of the next diagnostics."""
        self.diagnostics.clear()
        self.spin_until(lambda: self.diagnostics, 'there are diagnostics')
        return self.diagnostics[-1].status[0].message


class FakeCamera:
    """Publishes frames, or what a test makes of them."""

    def __init__(self, robot: Robot, frame: Frame, qos: Any = 1, depth: bool = True) -> None:
        self._node = robot.node
        self.frame = frame
        self.stamp_ns = time_ns()  # of the latest
        self.behind_ns = 0  # by which stamps are older than they should be
        self.image = self._node.create_publisher(Image, 'image', qos)
        self.info = self._node.create_publisher(CameraInfo, 'camera_info', qos)
        self.depth = self._node.create_publisher(Image, 'depth', qos) if depth else None

    def close(self) -> None:
        for publisher in (self.image, self.info, self.depth):
            if publisher:
                self._node.destroy_publisher(publisher)

    def send(
        self, change: Callable[[Image, CameraInfo, Image], None] = lambda *_: None,
        frame: Frame | None = None,
    ) -> None:
        """Publish a frame whose messages are changed first."""
        frame = frame or self.frame
        self.stamp_ns = time_ns() - self.behind_ns
        headers = [header_of(frame.frame_id, self.stamp_ns) for _ in range(3)]
        messages = (
            image_from_color(headers[0], frame.color),
            info_from_camera(headers[1], frame.camera),
            image_from_depth(headers[2], frame.depth))
        change(*messages)
        for message, publisher in zip(messages, (self.image, self.info, self.depth)):
            if publisher and message.header.frame_id != 'withheld':
                publisher.publish(message)


def half_size(frame: Frame) -> Frame:
    """Return a frame with a quarter of the pixels, which is faster to work on."""
    height, width = frame.shape[0] // 2, frame.shape[1] // 2
    return Frame(
        cv2.resize(frame.color, (width, height), interpolation=cv2.INTER_AREA),
        frame.camera.resized(width, height),
        cv2.resize(frame.depth, (width, height), interpolation=cv2.INTER_NEAREST))


def meshes(markers: MarkerArray) -> dict[int, Marker]:
    """Return the mesh markers by id."""
    return {marker.id: marker for marker in markers.markers
            if marker.type == Marker.TRIANGLE_LIST and marker.action == Marker.ADD}


def stamp_of(markers: MarkerArray) -> int | None:
    """Return the stamp of the objects in nanoseconds, None when there are none."""
    stamps = {nanoseconds(marker.header.stamp) for marker in meshes(markers).values()}
    assert len(stamps) <= 1
    return next(iter(stamps), None)


def triangles(marker: Marker) -> np.ndarray:
    """Return the corners, (F, 3, 3) metres in the object's frame."""
    return np.array([[p.x, p.y, p.z] for p in marker.points]).reshape(-1, 3, 3)
