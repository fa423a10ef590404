# SPDX-License-Identifier: Apache-2.0
"""
Processor time of the stages of `Pipeline.perceive` on recorded frames, in milliseconds.

    OMP_NUM_THREADS=1 python benchmarks/stages.py [--frames FRAMES] [--old CHECKOUT]

*first*: the first frame of a new pipeline; *steady*: mean of the next 30, in which nothing moves;
*moving*: mean of five in which a block moves through the scene. FRAMES is a folder of frame
folders, CHECKOUT one of an earlier version (`git worktree add`), which is measured in the same
run. The frames are measured as they are, and enlarged as larger cameras would show them.
"""

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from collections.abc import Iterator
from dataclasses import replace
from functools import wraps
from pathlib import Path
from statistics import mean
from time import process_time
from typing import Any

import cv2
import numpy as np

from img2scene_ros import pipeline
from img2scene_ros.depth import MeasuredNoise
from img2scene_ros.detection import auto
from img2scene_ros.detection.coco import CocoDetector
from img2scene_ros.detection.instance_masks import InstanceSegmenter
from img2scene_ros.detection.supports import HeldSupport
from img2scene_ros.detection.tabletop import TabletopDetector
from img2scene_ros.io.frames import load_frame
from img2scene_ros.io.layouts import find_frames
from img2scene_ros.scene.tracks import Tracker
from img2scene_ros.tables import markdown_table
from img2scene_ros.types import Frame

FRAMES = Path(__file__).parents[1] / 'data/frames'
STEADY, MOVING, RATE = 30, 5, 30  # frames, frames, 1 / s
WIDTHS = (640, 1280, 2048)
# Owners of what does a stage, and its name there.
STAGES: dict[str, tuple[Any, str]] = {
    'noise': (MeasuredNoise, MeasuredNoise.of.__name__),
    'support': (HeldSupport, HeldSupport.find.__name__),
    'network of names': (CocoDetector, CocoDetector.detect.__name__),
    'tabletop': (TabletopDetector, TabletopDetector._found.__name__),
    'its network': (InstanceSegmenter, InstanceSegmenter.see.__name__),
    'merging': (auto, auto.merged.__name__),
    'localization': (pipeline.Pipeline, pipeline.Pipeline._placed.__name__),
    'tracking': (Tracker, Tracker.update.__name__),
    'all': (pipeline.Pipeline, pipeline.Pipeline.perceive.__name__)}


def enlarged(frame: Frame, width: int) -> Frame:
    """Return a frame as a camera of more pixels would show it."""
    if width == frame.shape[1]:
        return frame
    size = width, round(frame.shape[0] * width / frame.shape[1])
    return replace(
        frame, color=cv2.resize(frame.color, size), camera=frame.camera.resized(*size),
        depth=cv2.resize(frame.depth, size, interpolation=cv2.INTER_NEAREST))


def with_block(frame: Frame, number: int) -> Frame:
    """Return a frame with a block 5 cm in front of what is there, at one place after another."""
    side = frame.shape[0] // 12
    y, x = frame.shape[0] // 2, frame.shape[1] // 3 + number * side // 2
    part = np.s_[y:y + side, x:x + side]
    color, depth = frame.color.copy(), frame.depth.copy()
    color[part], depth[part] = 255 - color[part], depth[part] - 0.05
    return replace(frame, color=color, depth=depth)


def stages_timed() -> Counter[str]:
    """Return how long each stage has taken, seconds, which goes on counting."""
    times: Counter[str] = Counter()

    def timed(stage: str, step: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(step)
        def run(*arguments: Any, **named: Any) -> Any:
            start = process_time()
            try:
                return step(*arguments, **named)
            finally:
                times[stage] += process_time() - start
        return run

    for stage, (owner, name) in STAGES.items():
        setattr(owner, name, timed(stage, getattr(owner, name)))
    return times


def measured(folder: Path) -> Iterator[tuple[str, list[float]]]:
    """Give what was measured, and the times of all stages, milliseconds."""
    cv2.setNumThreads(1)
    times = stages_timed()
    frames = [load_frame(files) for files in find_frames(folder)]

    def mean_times(perceiver: pipeline.Pipeline, some: list[Frame]) -> list[float]:
        times.clear()
        for frame in some:
            perceiver.perceive(frame)
        return [1000.0 * times[stage] / len(some) for stage in STAGES]

    for width in WIDTHS:
        rows: dict[str, list[list[float]]] = {'first': [], 'steady': [], 'moving': []}
        for frame in frames:
            large, perceiver = enlarged(frame, width), pipeline.Pipeline()
            stream = [replace(large, stamp_ns=number * 10 ** 9 // RATE)
                      for number in range(1, 2 + STEADY + MOVING)]
            rows['first'].append(mean_times(perceiver, stream[:1]))
            rows['steady'].append(mean_times(perceiver, stream[1:1 + STEADY]))
            rows['moving'].append(mean_times(perceiver, [
                with_block(one, number) for number, one in enumerate(stream[1 + STEADY:])]))
        for name, found in rows.items():
            yield f'{large.shape[1]}x{large.shape[0]}, {name}', list(map(mean, zip(*found)))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--frames', type=Path, default=FRAMES)
    parser.add_argument('--old', type=Path, help='a checkout of an earlier version')
    parser.add_argument('--json', action='store_true', help='print JSON instead of a table')
    options = parser.parse_args()
    rows = list(measured(options.frames))
    if options.json:
        print(json.dumps(rows))
        return
    if options.old:
        found = subprocess.run(
            [sys.executable, __file__, '--json', '--frames', options.frames], check=True,
            stdout=subprocess.PIPE, env=os.environ | {'PYTHONPATH': str(options.old)})
        old = json.loads(found.stdout.splitlines()[-1])
        rows = [row for (name, times), new in zip(old, rows)
                for row in ((f'{name}, before', times), new)]
    print(markdown_table(['', *STAGES], [
        [name, *(f'{time:.0f}' for time in times)] for name, times in rows]))


if __name__ == '__main__':
    main()
