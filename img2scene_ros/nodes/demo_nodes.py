# SPDX-License-Identifier: Apache-2.0
"""The demo: recorded frames through the real nodes and real DDS, on this machine only."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.node import Node
from rclpy.qos import QoSDurabilityPolicy
from rclpy.qos import QoSProfile
from rclpy.signals import SignalHandlerOptions
from std_srvs.srv import Trigger
from visualization_msgs.msg import Marker
from visualization_msgs.msg import MarkerArray

from img2scene_ros.errors import Img2SceneError
from img2scene_ros.errors import InputError
from img2scene_ros.io.frames import open_frames
from img2scene_ros.scene.export import check_replaceable

BUNDLED = 'ycb_1'
TIME_LIMIT = 180.0  # seconds; it takes about ten
PATIENCE = 10.0  # seconds without a single object before an empty scene is believed
LAST_LINES = 8  # of a failed node's log


def free_domain() -> int:
    """Return a DDS domain that nobody on this machine is in."""
    while True:
        domain = random.randint(1, 100)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(('', 7410 + 250 * domain))  # the first participant's port (RTPS 9.6.1)
                return domain
            except OSError:
                continue


def run_demo(frames: Path | None, out: Path) -> None:
    """
    Play frames through replay_node and scene_node until all meshes are built, and save the scene.

    :param frames: what `open_frames` takes; None plays the bundled frame
    :param out: the export directory
    :raises Img2SceneError: a node failed or nothing came in time; with its last log lines
    """
    frames = bundled_frames() if frames is None else frames
    open_frames(frames)
    check_replaceable(out)
    domain = free_domain()
    # Nobody else's network is touched, and nobody else's robot is heard.
    os.environ.update(ROS_DOMAIN_ID=str(domain), ROS_AUTOMATIC_DISCOVERY_RANGE='LOCALHOST')
    started = monotonic()

    def say(text: str) -> None:
        print(f'[{monotonic() - started:5.1f} s] {text}', flush=True)

    say(f"playing '{frames}' through replay_node and scene_node (ROS domain {domain}, "
        'this machine only)')
    with TemporaryDirectory() as logs:
        os.environ['ROS_LOG_DIR'] = logs
        with (_viewer() as viewer,
              _node_process('scene_node', Path(logs), {'save_directory': out.resolve()}) as scene,
              _node_process('replay_node', Path(logs), {'folder': frames.resolve()}) as replay):
            viewer.wait_for(viewer.has_scene, (scene, replay))
            say(f'the nodes run and the first frame is through: {viewer.objects} objects, '
                f'{viewer.pending} still without their meshes')
            viewer.wait_for(viewer.is_complete, (scene, replay))
            say(f'{viewer.shown} meshes have arrived on {viewer.topic}')
            viewer.save((scene, replay))
            say('the scene is saved')


def bundled_frames(name: str = BUNDLED) -> Path:
    """
    Return a frame folder that comes with the package, installed or in the source tree.

    :raises InputError: this installation has none
    """
    for place in Path(__file__).resolve().parents:
        for folder in (place / 'share/img2scene/frames', place / 'data/frames'):
            if (folder / name).is_dir():
                return folder / name
    raise InputError('this installation lacks the bundled frames; name a folder with --frames')


class _Process:
    """A node as a process of its own, with its output in a file."""

    def __init__(self, name: str, logs: Path, parameters: dict[str, object]) -> None:
        self.name = name
        self._log = logs / f'{name}.txt'
        command = [sys.executable, '-m', 'img2scene_ros.nodes.process', name, '--ros-args']
        for parameter, value in parameters.items():
            # The value is YAML, and JSON is YAML.
            command += ['-p', f'{parameter}:={json.dumps(str(value))}']
        with self._log.open('w') as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)

    def check(self) -> None:
        """
        Make sure that it runs.

        :raises Img2SceneError: it has ended
        """
        code = self._process.poll()
        if code is not None:
            raise Img2SceneError(f'{self.name} has ended (exit code {code}); {self.last_words()}')

    def last_words(self) -> str:
        """Return the end of its log."""
        lines = self._log.read_text(errors='replace').splitlines()[-LAST_LINES:]
        return 'the last lines of its log are:\n  ' + '\n  '.join(lines or ['(nothing)'])

    def end(self) -> None:
        """End it, and make sure that it has ended."""
        self._process.terminate()
        try:
            self._process.wait(10.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class _Viewer(Node):
    """Listens to the scene node as RViz and a diagnostics viewer do."""

    def __init__(self) -> None:
        super().__init__('img2scene_demo')
        self.topic = '/img2scene/markers'
        self.objects, self.pending = 0, 0
        self._meshes: set[tuple[str, int]] = set()  # that are shown
        self.is_ending = False
        self._first_frame = 0.0
        self._trouble = ''
        latched = QoSProfile(depth=5, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
        self.create_subscription(MarkerArray, self.topic, self._on_markers, latched)
        self.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)
        self._save = self.create_client(Trigger, '/img2scene/save_scene')

    def has_scene(self) -> bool:
        """Tell whether a frame has been through and showed objects, or long enough none."""
        return bool(self.objects) or self._is_empty()

    @property
    def shown(self) -> int:
        """Return how many meshes the markers show."""
        return len(self._meshes)

    def is_complete(self) -> bool:
        """Tell whether every object has its mesh, and the markers show them all."""
        return self._is_empty() or (
            self.objects > 0 and self.pending == 0 and self.shown == self.objects)

    def wait_for(self, condition: Callable[[], bool], processes: tuple[_Process, ...]) -> None:
        """
        Listen until a condition holds.

        :raises Img2SceneError: a process has ended, or it took too long
        :raises KeyboardInterrupt: a signal asked this process to end
        """
        until = monotonic() + TIME_LIMIT
        while not condition():
            rclpy.spin_once(self, timeout_sec=0.1)
            if self.is_ending:
                raise KeyboardInterrupt
            for process in processes:
                process.check()
            if monotonic() > until:
                raise Img2SceneError(
                    f'nothing more came within {TIME_LIMIT:.0f} s'
                    f'{self._trouble and f" ({self._trouble})"}; {processes[0].last_words()}')

    def save(self, processes: tuple[_Process, ...]) -> None:
        """
        Have the scene saved.

        :raises Img2SceneError: it could not be saved
        """
        self.wait_for(self._save.service_is_ready, processes)
        answer = self._save.call_async(Trigger.Request())
        self.wait_for(answer.done, processes)
        if not answer.result().success:
            raise Img2SceneError(answer.result().message)

    def _is_empty(self) -> bool:
        return (self._first_frame > 0 and not self.objects
                and monotonic() - self._first_frame > PATIENCE)

    def _on_markers(self, message: MarkerArray) -> None:
        self._first_frame = self._first_frame or monotonic()
        for marker in message.markers:
            name = marker.ns, marker.id
            if marker.action == Marker.DELETEALL:
                self._meshes.clear()
            elif marker.action == Marker.DELETE:
                self._meshes.discard(name)
            elif marker.type == Marker.TRIANGLE_LIST:
                self._meshes.add(name)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            values = {entry.key: entry.value for entry in status.values}
            if 'reconstructions pending' in values:
                self.objects = int(values['objects'])
                self.pending = int(values['reconstructions pending'])
                self._trouble = '' if status.level == DiagnosticStatus.OK else status.message


@contextmanager
def _node_process(name: str, logs: Path, parameters: dict[str, object]) -> Iterator[_Process]:
    process = _Process(name, logs, parameters)
    try:
        yield process
    finally:
        process.end()


@contextmanager
def _viewer() -> Iterator[_Viewer]:
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    viewer = _Viewer()

    # An exception out of a signal handler would be lost inside rclpy.
    def tell_to_end(*_: object) -> None:
        viewer.is_ending = True

    before = {number: signal.signal(number, tell_to_end)
              for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield viewer
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        viewer.destroy_node()
        rclpy.try_shutdown()
