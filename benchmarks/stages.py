# SPDX-License-Identifier: Apache-2.0
"""
Processor time of the stages of `Pipeline.perceive` on recorded frames, in milliseconds.

    OMP_NUM_THREADS=1 python benchmarks/stages.py [--frames FRAMES] [--old CHECKOUT]

*first*: the first frame of a scene; *steady*: mean of the next ten, in which nothing moves. FRAMES
is a folder of frame folders, CHECKOUT one of an earlier version (`git worktree add`), which is
measured in the same run. The frames are measured as they are, and enlarged as larger cameras
would show them. Times are of `cProfile` on one core, with its overhead.
"""

import argparse
import json
import os
import subprocess
import sys
from cProfile import Profile
from dataclasses import replace
from pathlib import Path
from pstats import Stats
from statistics import mean
from time import process_time

import cv2

from img2scene_ros.io.frames import load_frame
from img2scene_ros.io.layouts import find_frames
from img2scene_ros.pipeline import Pipeline
from img2scene_ros.tables import markdown_table
from img2scene_ros.types import Frame

FRAMES = Path(__file__).parents[1] / 'data/frames'
STEADY = 10
WIDTHS = (640, 1280, 2048)
# The functions that do a stage, by module.
STAGES = {
    'noise': 'depth.of', 'support': 'supports.find', 'network': 'coco.detect',
    'tabletop': 'tabletop.detect', 'merging': 'auto.merged', 'localization': 'combine.place',
    'tracking': 'tracks.update', 'all': 'pipeline.perceive'}


def enlarged(frame: Frame, width: int) -> Frame:
    """Return a frame as a camera of more pixels would show it."""
    if width == frame.shape[1]:
        return frame
    size = width, round(frame.shape[0] * width / frame.shape[1])
    return replace(
        frame, color=cv2.resize(frame.color, size), camera=frame.camera.resized(*size),
        depth=cv2.resize(frame.depth, size, interpolation=cv2.INTER_NEAREST))


def profiled(pipeline: Pipeline, frame: Frame, repeats: int) -> list[float]:
    """Return how long each stage takes a frame, milliseconds."""
    profile = Profile(process_time)
    for _ in range(repeats):
        fresh = replace(frame)  # whose points are not known yet
        profile.runcall(pipeline.perceive, fresh)
    total: dict[str, float] = {}
    for (file, _, name), entry in Stats(profile).stats.items():
        key = f'{Path(file).stem}.{name}'
        total[key] = max(total.get(key, 0.0), entry[3])
    return [1000.0 * total.get(function, 0.0) / repeats for function in STAGES.values()]


def measured(folder: Path) -> list[tuple[str, list[float]]]:
    """Return what was measured, and the times of all stages."""
    cv2.setNumThreads(1)
    pipeline, rows = Pipeline(), []
    frames = [load_frame(files) for files in find_frames(folder)]
    for width in WIDTHS:
        first, steady = [], []
        for frame in frames:
            large = enlarged(frame, width)
            pipeline.restart()
            first.append(profiled(pipeline, large, 1))
            steady.append(profiled(pipeline, large, STEADY))
        size = f'{large.shape[1]}x{large.shape[0]}'
        rows += [(f'{size}, first', [mean(times) for times in zip(*first)]),
                 (f'{size}, steady', [mean(times) for times in zip(*steady)]),
                 (f'{size}, steady, slowest', max(steady, key=lambda times: times[-1]))]
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--frames', type=Path, default=FRAMES)
    parser.add_argument('--old', type=Path, help='a checkout of an earlier version')
    parser.add_argument('--json', action='store_true', help='print JSON instead of a table')
    options = parser.parse_args()
    rows = measured(options.frames)
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
