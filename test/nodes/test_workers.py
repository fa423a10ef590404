# SPDX-License-Identifier: Apache-2.0
"""The workers survive their work, show scenes in order, and never wait for a mesh."""

import re
import subprocess
import sys
from collections.abc import Callable
from collections.abc import Iterator
from dataclasses import replace
from threading import Event
from threading import Lock
from time import monotonic
from time import sleep

import numpy as np
import pytest
import trimesh
from sensor_msgs.msg import Image

from img2scene_ros.camera import Camera
from img2scene_ros.errors import InputError
from img2scene_ros.io.ros_images import color_from_image
from img2scene_ros.nodes.diagnostics import Problems
from img2scene_ros.nodes.messages import nanoseconds
from img2scene_ros.nodes.outputs.overlay import OverlayOutput
from img2scene_ros.nodes.pairing import Pair
from img2scene_ros.nodes.pairing import Pairing
from img2scene_ros.nodes.workers import Workers
from img2scene_ros.pipeline import Pipeline
from img2scene_ros.pipeline import PipelineOptions
from img2scene_ros.types import Detection
from img2scene_ros.types import Frame
from img2scene_ros.types import ObjectModel
from img2scene_ros.types import Scene
from img2scene_ros.types import SceneObject


class Log:
    """Takes what would go to the node's log."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def warning(self, line: str) -> None:
        self.lines.append(line)

    def info(self, line: str) -> None:
        pass

    debug = info


class SlowPipeline:
    """Has one object, whose reconstruction lasts until it is allowed to end."""

    def __init__(self) -> None:
        self.may_end = Event()
        self.scene: Scene | None = None
        self.rebuilt = 0
        self._has_mesh = False
        self._lock = Lock()
        mesh = trimesh.creation.box((1, 1, 1))
        self._model = ObjectModel(
            mesh.vertices, mesh.faces, np.zeros((8, 3), np.uint8), np.zeros(3), np.eye(3), 'box')

    def perceive(self, frame: Frame, is_streamed: bool = False) -> Scene:
        with self._lock:
            detection = Detection('cup', 1.0, np.zeros(4))
            self.scene = Scene(frame, (SceneObject(
                1, detection, np.ones(3), np.eye(3), np.eye(6), 'sensor', self._model,
                self._has_mesh),))
        return self.scene

    def reconstruct_next(self) -> Scene | None:
        if self._has_mesh:
            return None
        self.may_end.wait()
        with self._lock:
            self._has_mesh, self.rebuilt = True, 1
            self.scene = replace(
                self.scene, objects=(replace(self.scene.objects[0], is_final=True),))
        return self.scene

    def clear(self) -> None:
        self.scene = replace(self.scene, objects=())


class BusyPipeline(Pipeline):
    """The real one, which finds one object in every frame and always has news of a mesh."""

    def __init__(self) -> None:
        super().__init__(PipelineOptions(
            detector='tabletop', distance='fixed', reconstructor='box'))
        self.detector = self

    def detect(self, frame: Frame) -> list[Detection]:
        mask = np.zeros(frame.shape, bool)
        mask[40:70, 60:90] = True
        return [Detection('cup', 1.0, np.array([60.0, 40, 90, 70]), mask)]

    def reconstruct_next(self) -> Scene | None:
        return self.scene


class Topic:
    """Takes the place of a node and of its only publisher, to which somebody listens."""

    def __init__(self) -> None:
        self.messages: list[Image] = []
        self.publish = self.messages.append

    def create_lifecycle_publisher(self, *_: object) -> 'Topic':
        return self

    def get_subscription_count(self) -> int:
        return 1


class Slow:
    """An output that takes its time, as the one of large meshes does."""

    def show(self, *_: object) -> None:
        sleep(0.005)


class Recorder:
    """An output that keeps what it is to show."""

    def __init__(self) -> None:
        self.shown: list[tuple[Scene, bool]] = []

    def show(self, scene: Scene, changed: bool) -> None:
        self.shown.append((scene, changed))


def frame_of(pair: Pair) -> Frame:
    """Make the frame of a message that is a stamp, or raise the message."""
    if isinstance(pair.color, Exception):
        raise pair.color
    return Frame(np.zeros((4, 4, 3), np.uint8), Camera(4, 4, 1.0, 1.0, 2.0, 2.0), None, pair.color)


class Bench:
    """Workers with everything around them."""

    def __init__(self) -> None:
        self.pipeline, self.output, self.log = SlowPipeline(), Recorder(), Log()
        self.pairing, self.problems = Pairing(), Problems(self.log)
        self.workers = Workers(
            self.pipeline, {'recorder': self.output}, self.pairing, frame_of, self.problems)
        self.workers.republish_period = 1000.0
        self.workers.start()

    def send(self, message: int | Exception) -> None:
        self.pairing.add_color(0.0, message, ())

    def wait(self, condition: Callable[[], bool]) -> None:
        end = monotonic() + 20
        while not condition():
            assert monotonic() < end
            sleep(0.01)

    def shows(self, stamp: int) -> bool:
        return bool(self.output.shown) and self.output.shown[-1][0].frame.stamp_ns == stamp


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.pipeline.may_end.set()
    bench.workers.stop()


def test_frames_do_not_wait_for_a_mesh(bench: Bench) -> None:
    for stamp in range(1, 6):
        bench.send(stamp)
        bench.wait(lambda: bench.shows(stamp))
        assert not bench.output.shown[-1][0].objects[0].is_final
    assert bench.workers.measured()['reconstructions pending'] == 1
    bench.pipeline.may_end.set()
    bench.wait(lambda: bench.output.shown[-1][0].objects[0].is_final)
    assert bench.output.shown[-1][0].frame.stamp_ns == 5, 'shown at once, without a new frame'


def test_no_picture_is_shown_under_the_stamp_of_another() -> None:
    """Perception and reconstruction both show the scene, as fast as they can."""
    topic, pairing, problems = Topic(), Pairing(), Problems(Log())

    def frame_of(pair: Pair) -> Frame:
        color = np.full((120, 160, 3), pair.color, np.uint8)
        return Frame(color, Camera.from_field_of_view(160, 120, 60.0), None, pair.color)

    outputs = {'slow': Slow(), 'overlay': OverlayOutput(topic, OverlayOutput.Options())}
    workers = Workers(BusyPipeline(), outputs, pairing, frame_of, problems)
    workers.start()
    for _ in range(40):  # a busy machine shows few of them
        for stamp in range(1, 256):
            pairing.add_color(0.0, stamp, ())
            sleep(0.005)
        if len({message.header.stamp.nanosec for message in topic.messages}) > 50:
            break
    workers.stop()
    assert not problems.present
    shown = [(nanoseconds(message.header.stamp), color_from_image(message)[-1, -1, 0])
             for message in topic.messages]
    assert len(set(shown)) > 50, 'both workers had their turn'
    assert [(stamp, color) for stamp, color in shown if stamp != color] == []


def test_unchanged_scene_is_not_called_changed(bench: Bench) -> None:
    for stamp in (1, 2, 3):
        bench.send(stamp)
        bench.wait(lambda: bench.shows(stamp))
    assert [changed for _, changed in bench.output.shown] == [True, False, False]
    bench.workers.republish_period = 0.0
    bench.send(4)
    bench.wait(lambda: bench.shows(4))
    assert bench.output.shown[-1][1], 'called changed again after the period'


def test_bad_frames_are_reported_once_and_forgotten(bench: Bench) -> None:
    for _ in range(5):
        bench.send(InputError('the picture is upside down'))
        bench.wait(lambda: bench.problems.present)
    bench.send(1)
    bench.wait(lambda: bench.shows(1))
    bench.wait(lambda: not bench.problems.present)
    assert bench.log.lines == ['the picture is upside down']


def test_worker_survives_an_unexpected_error(bench: Bench) -> None:
    bench.send(ZeroDivisionError('division by zero'))
    bench.wait(lambda: bench.problems.present)
    assert re.search(
        'perception: unexpected .*ZeroDivisionError: division by zero', bench.log.lines[0])
    bench.send(1)
    bench.wait(lambda: bench.shows(1))


def test_reconstruction_survives_an_unexpected_error(bench: Bench) -> None:
    def fail() -> None:
        raise MemoryError('out of memory')

    works, bench.pipeline.reconstruct_next = bench.pipeline.reconstruct_next, fail
    bench.send(1)
    bench.wait(lambda: bench.log.lines)
    assert 'MemoryError' in bench.log.lines[0]
    bench.pipeline.reconstruct_next = works
    bench.pipeline.may_end.set()
    bench.send(2)
    bench.wait(lambda: bench.output.shown[-1][0].objects[0].is_final)


def test_broken_output_does_not_stop_the_others(bench: Bench) -> None:
    class Broken:
        def show(self, *_: object) -> None:
            raise OSError('no paper')

    bench.workers._outputs = {'printer': Broken()} | bench.workers._outputs
    bench.send(1)
    bench.wait(lambda: bench.shows(1))
    assert 'output printer' in bench.problems.present


def test_cleared_scene_is_shown_at_once(bench: Bench) -> None:
    bench.send(1)
    bench.wait(lambda: bench.shows(1))
    bench.workers.clear()
    assert bench.output.shown[-1][0].objects == () and bench.output.shown[-1][1]


def test_nothing_is_shown_after_the_stop(bench: Bench) -> None:
    bench.send(1)
    bench.wait(lambda: bench.shows(1))
    bench.pipeline.may_end.set()
    bench.workers.stop()
    count = len(bench.output.shown)
    bench.workers.clear()
    assert len(bench.output.shown) == count


def test_problems_repeat_neither_the_line_nor_its_end() -> None:
    log = Log()
    problems = Problems(log)
    for again in range(3):
        problems.report('camera', f'it is dark at {again}.5 s')
        problems.report('lens', 'it is dirty')
        problems.solved('camera')
    assert log.lines == ['it is dark at 0.5 s', 'it is dirty']
    assert problems.present == {'lens': 'it is dirty'}
    problems.clear()
    problems.report('lens', 'it is dirty')
    assert len(log.lines) == 3, 'said again after a new start'


def test_a_process_of_several_nodes_ends_when_their_work_has_ended() -> None:
    """Also one that has not closed them: cut off in native code it would end by SIGABRT."""
    script = (
        'from threading import Event, Thread; from time import sleep\n'
        'from img2scene_ros.nodes.workers import begin\n'
        'stopping = Event()\n'
        'def work():\n'
        '    stopping.wait(); sleep(0.3); print("the mesh is done", flush=True)\n'
        'begin([Thread(target=work, daemon=True)], stopping)\n')
    done = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, 'the mesh is done\n')
