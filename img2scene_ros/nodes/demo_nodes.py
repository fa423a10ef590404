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
from collections.abc import Sequence
from contextlib import closing
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

import rclpy
from rclpy.client import Client
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from std_srvs.srv import Trigger

from img2scene_ros.errors import Img2SceneError
from img2scene_ros.errors import InputError
from img2scene_ros.io.frames import open_frames
from img2scene_ros.scene.export import check_replaceable

BUNDLED = 'ycb_1'
TIME_LIMIT = 180.0  # seconds; it takes about ten
LOOK = 10.0  # seconds that the scene node may look before it is asked again
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
        with (_user() as user,
              closing(_Process('scene_node', Path(logs), {
                  'save_directory': str(out.resolve()), 'look_timeout': LOOK})) as scene,
              closing(_Process('replay_node', Path(logs), {
                  'folder': str(frames.resolve())})) as replay):
            user.processes = scene, replay
            seen = json.loads(user.look())['objects']
            say(f'the nodes run, and {len(seen)} objects have been seen and rebuilt')
            user.save()
            say('the scene is saved')


def bundled_frames() -> Path:
    """
    Return a frame folder that comes with the package, installed or in the source tree.

    :raises InputError: this installation has none
    """
    for place in Path(__file__).resolve().parents:
        for folder in (place / 'share/img2scene/frames', place / 'data/frames'):
            if (folder / BUNDLED).is_dir():
                return folder / BUNDLED
    raise InputError('this installation lacks the bundled frames; name a folder with --frames')


class _Process:
    """A node as a process of its own, with its output in a file."""

    def __init__(self, name: str, logs: Path, parameters: dict[str, object]) -> None:
        self.name = name
        self._log = logs / f'{name}.txt'
        command = [sys.executable, '-m', 'img2scene_ros.nodes.process', name, '--ros-args']
        for parameter, value in parameters.items():
            # The value is YAML, and JSON is YAML.
            command += ['-p', f'{parameter}:={json.dumps(value)}']
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

    def close(self) -> None:
        """End it, and make sure that it has ended."""
        self._process.terminate()
        try:
            self._process.wait(10.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class _User(Node):
    """Calls the scene node's services, as long as all processes run; the first is its own."""

    def __init__(self) -> None:
        super().__init__('img2scene_demo')
        self.is_ending = False
        self.processes: Sequence[_Process] = ()
        self._look = self.create_client(Trigger, '/img2scene/look')
        self._save = self.create_client(Trigger, '/img2scene/save_scene')

    def look(self) -> str:
        """
        Have the scene node look until it has seen and rebuilt everything; return its summary.

        :raises Img2SceneError: a process has ended, or it took too long
        :raises KeyboardInterrupt: a signal asked this process to end
        """
        until, problem = monotonic() + TIME_LIMIT, 'the scene node does not answer'
        while monotonic() < until:
            answer = self._call(self._look, 2.0 * LOOK)
            if answer and answer.success:
                return answer.message
            problem = answer.message if answer else problem
            self._spin(lambda: False, 0.5)  # it may still load its models
        raise Img2SceneError(f'nothing came within {TIME_LIMIT:.0f} s ({problem}); '
                             f'{self.processes[0].last_words()}')

    def save(self) -> None:
        """
        Have the scene saved.

        :raises Img2SceneError: it could not be saved
        """
        answer = self._call(self._save, TIME_LIMIT)
        if not answer or not answer.success:
            raise Img2SceneError(answer.message if answer else self.processes[0].last_words())

    def _call(self, client: Client, timeout: float) -> Trigger.Response | None:
        """Return the answer of a service; None where none came in time."""
        self._spin(client.service_is_ready, timeout)
        answer = client.call_async(Trigger.Request())
        self._spin(answer.done, timeout)
        return answer.result() if answer.done() else None

    def _spin(self, condition: Callable[[], bool], timeout: float) -> None:
        until = monotonic() + timeout
        while not condition() and monotonic() < until:
            rclpy.spin_once(self, timeout_sec=0.1)
            if self.is_ending:
                raise KeyboardInterrupt
            for process in self.processes:
                process.check()


@contextmanager
def _user() -> Iterator[_User]:
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    user = _User()

    # An exception out of a signal handler would be lost inside rclpy.
    def tell_to_end(*_: object) -> None:
        user.is_ending = True

    before = {number: signal.signal(number, tell_to_end)
              for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield user
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        user.destroy_node()
        rclpy.try_shutdown()
