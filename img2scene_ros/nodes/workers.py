# SPDX-License-Identifier: Apache-2.0
"""The scene node's two workers: perception on every frame, reconstruction when there is time."""

import atexit
from collections import deque
from collections.abc import Callable
from collections.abc import Sequence
from functools import partial
from threading import Condition
from threading import Event
from threading import Lock
from threading import Thread
from time import monotonic
from weakref import WeakKeyDictionary

from img2scene_ros.nodes.diagnostics import Problems
from img2scene_ros.nodes.outputs import Output
from img2scene_ros.nodes.pairing import Pair
from img2scene_ros.nodes.pairing import Pairing
from img2scene_ros.nodes.published import has_moved
from img2scene_ros.nodes.published import published_frame
from img2scene_ros.pipeline import Pipeline
from img2scene_ros.types import Frame
from img2scene_ros.types import Scene
from img2scene_ros.types import SceneObject

IDLE = 0.2  # seconds between two checks whether to stop
LAST_WORK = 30.0  # seconds that work may go on when Python ends
_running: WeakKeyDictionary[Thread, Event] = WeakKeyDictionary()
MOST_LOOKS = 1000  # as many pictures as `birth_sightings` may ask for


def begin(threads: Sequence[Thread], stopping: Event) -> None:
    """
    Start threads that end soon after an event is set, or else at the end of Python.

    Python stops daemons in the midst of native code, which then ends the process by SIGABRT.
    """
    for thread in threads:
        _running[thread] = stopping
        thread.start()
    atexit.unregister(_end)  # what is registered last is called first
    atexit.register(_end)


def _end() -> None:
    running = list(_running.items())
    for _, stopping in running:
        stopping.set()
    for thread, _ in running:
        thread.join(LAST_WORK)


class Meter:
    """Counts how often something happens and how long it takes, from one report to the next."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._since, self._count, self._seconds = monotonic(), 0, 0.0

    def add(self, seconds: float, count: int = 1) -> None:
        """Count some that together took so long."""
        with self._lock:
            self._count += count
            self._seconds += seconds

    def report(self) -> tuple[float, float]:
        """Return how many there were per second, and their mean duration in seconds."""
        with self._lock:
            now = monotonic()
            rate = self._count / max(now - self._since, 1e-9)
            mean = self._seconds / max(self._count, 1)
            self._since, self._count, self._seconds = now, 0, 0.0
        return rate, mean


class Workers:
    """
    Runs a pipeline on the newest pair of messages and shows what it finds.

    A worker survives whatever its work raises: it is reported, and the next frame is tried.

    - is_enabled: False leaves pictures alone, except for a look; meshes are still finished
    - motion: metres and radians; smaller motions are not shown
    - republish_period: seconds after which also an unchanged scene is shown again

    :param read: makes a frame of a pair; None while that is not possible yet
    """

    def __init__(
        self,
        pipeline: Pipeline,
        outputs: dict[str, Output],
        pairing: Pairing,
        read: Callable[[Pair], Frame | None],
        problems: Problems,
    ) -> None:
        self.is_enabled = True
        self.motion = (0.0, 0.0)
        self.republish_period = 0.0
        self._perceived, self._reconstructed, self._latency = Meter(), Meter(), Meter()
        self._pipeline = pipeline
        self._outputs = outputs
        self._pairing = pairing
        self._read = read
        self._problems = problems
        self._shown: Scene | None = None
        self._shown_at = 0.0
        self._showing = Lock()
        self._looking = 0  # looks under way
        self._arrivals: deque[float] = deque(maxlen=MOST_LOOKS)  # of the latest pictures perceived
        self._progress = Condition()  # a picture was perceived, or objects rebuilt
        self._stopping, self._new_work = Event(), Event()
        self._threads = [
            Thread(target=self._run, args=('perception', self._perceive), daemon=True),
            Thread(target=self._run, args=('reconstruction', self._reconstruct), daemon=True)]

    def start(self) -> None:
        """Start both workers."""
        begin(self._threads, self._stopping)

    def stop(self) -> None:
        """Begin nothing new and show nothing more; what is under way ends later, unseen."""
        self._stopping.set()
        self._tell_progress()
        with self._showing:  # waits for an output that is at work
            pass

    def join(self) -> None:
        """Wait until both workers have ended, and nothing uses the pipeline any more."""
        for thread in self._threads:
            thread.join()

    def clear(self) -> None:
        """Forget all objects, and show that there are none."""
        self._pipeline.clear()
        self._show()

    def remember(self, objects: Sequence[SceneObject]) -> None:
        """Show objects of another time, in the latest frame, in place of those known now."""
        self._pipeline.remember(objects)
        self._show()

    def look(self, timeout: float) -> Scene | None:
        """
        Perceive some new pictures, also while disabled, and wait for the meshes of what is seen.

        Call from a thread of its own.

        :param timeout: seconds
        :return: the scene; None when pictures or meshes did not come in time
        """
        called = monotonic()
        with self._progress:
            self._looking += 1
            try:
                has_looked = self._progress.wait_for(
                    lambda: self._stopping.is_set() or self._has_looked(called), timeout)
            finally:
                self._looking -= 1
        return self._pipeline.scene if has_looked and not self._stopping.is_set() else None

    def _has_looked(self, since: float) -> bool:
        """Tell whether enough pictures have come since, and what they show has its meshes."""
        scene, looks = self._pipeline.scene, self._pipeline.options.birth_sightings
        return (scene is not None
                and sum(arrived >= since for arrived in list(self._arrivals)) >= looks
                and all(item.is_final for item in scene.objects if item.state == 'visible'))

    def _tell_progress(self) -> None:
        with self._progress:
            self._progress.notify_all()

    def measured(self) -> dict[str, float]:
        """Return rates and durations since the latest call, by name with unit."""
        rate, seconds = self._perceived.report()
        mesh_rate, mesh_seconds = self._reconstructed.report()
        scene = self._pipeline.scene
        objects = scene.objects if scene else ()
        return {
            'frames [1/s]': round(rate, 2),
            'perception [s]': round(seconds, 4),
            'latency [s]': round(self._latency.report()[1], 4),
            'meshes [1/s]': round(mesh_rate, 2),
            'reconstruction [s]': round(mesh_seconds, 4),
            'objects': len(objects),
            'reconstructions pending': sum(not item.is_final for item in objects),
        }

    def _run(self, part: str, step: Callable[[], None]) -> None:
        while not self._stopping.is_set():
            if not self._problems.survives(part, step):
                self._stopping.wait(IDLE)

    def _perceive(self) -> None:
        pair = self._pairing.take(IDLE)
        if pair is None:
            return
        if not self.is_enabled and not self._looking:
            self._pairing.drop('disabled')
            return
        frame = self._read(pair)
        if frame is None:
            return
        started = monotonic()
        self._pipeline.perceive(frame, is_streamed=True)
        self._perceived.add(monotonic() - started)
        self._show()
        self._latency.add(monotonic() - pair.arrived)
        self._arrivals.append(pair.arrived)
        self._tell_progress()
        self._new_work.set()
        self._problems.solved('perception')

    def _reconstruct(self) -> None:
        if not self._new_work.wait(IDLE):
            return
        self._new_work.clear()
        started, before, may_be_more = monotonic(), self._pipeline.rebuilt, True
        try:
            may_be_more = self._pipeline.reconstruct_next() is not None
        finally:  # one object that cannot be rebuilt does not hold up the others
            if may_be_more:
                self._new_work.set()
        if may_be_more:
            self._reconstructed.add(
                monotonic() - started, self._pipeline.rebuilt - before)
            self._show()
            self._tell_progress()
            self._problems.solved('reconstruction')

    def _show(self) -> None:
        # The scene is read inside the lock, so that two workers cannot show it in wrong order.
        with self._showing:
            scene, now = self._pipeline.scene, monotonic()
            if scene is None or self._stopping.is_set():
                return
            changed = (now - self._shown_at > self.republish_period
                       or differs(self._shown, scene, *self.motion))
            for name, output in self._outputs.items():
                if self._problems.survives(
                        f'output {name}', partial(output.show, scene, changed)):
                    self._problems.solved(f'output {name}')
            if changed:
                self._shown, self._shown_at = scene, now


def differs(old: Scene | None, new: Scene, distance: float, angle: float) -> bool:
    """
    Tell whether a scene differs noticeably from another, in the frame they are published in.

    :param distance: metres an object has moved
    :param angle: radians an object has turned
    """
    if (old is None or len(old.objects) != len(new.objects)
            or old.frame.frame_id != new.frame.frame_id
            or old.frame.world_id != new.frame.world_id):
        return True
    before, after = published_frame(old.frame), published_frame(new.frame)
    return any(
        _looks_different(one, other)
        or has_moved(before.pose(one), after.pose(other), distance, angle)
        for one, other in zip(old.objects, new.objects))


def _looks_different(old: SceneObject, new: SceneObject) -> bool:
    return (
        old.id != new.id
        or old.detection.label != new.detection.label
        or old.model is not new.model
        or old.state != new.state
        or old.is_stale != new.is_stale)
