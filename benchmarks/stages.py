# SPDX-License-Identifier: Apache-2.0
"""
Processor time of the stages of `Pipeline.perceive` on recorded frames, in milliseconds.

    OMP_NUM_THREADS=1 python benchmarks/stages.py [FRAMES]

*first*: the first frame of a scene; *steady*: mean of the next ten, in which nothing moves. FRAMES
is a folder of frame folders. Times are of `cProfile` on one core, with its overhead.
"""

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
# The functions that do a stage, by module.
STAGES = {
    'support': 'supports.find', 'network': 'coco.detect', 'tabletop': 'tabletop.detect',
    'merging': 'auto.merged', 'localization': 'combine.place', 'tracking': 'tracks.update',
    'all': 'pipeline.perceive'}


def profiled(pipeline: Pipeline, frame: Frame, repeats: int) -> list[float]:
    """Return how long each stage takes a frame, milliseconds."""
    profile = Profile(process_time)
    for _ in range(repeats):
        fresh = replace(frame)  # whose points are not known yet
        profile.runcall(pipeline.perceive, fresh)
    total = {f'{Path(file).stem}.{name}': entry[3]
             for (file, _, name), entry in Stats(profile).stats.items()}
    return [1000.0 * total.get(function, 0.0) / repeats for function in STAGES.values()]


def main(folder: Path) -> None:
    """Print the table."""
    cv2.setNumThreads(1)
    pipeline, rows = Pipeline(), []
    for files in find_frames(folder):
        frame = load_frame(files)
        pipeline.restart()
        rows.append((files.color.parent.name,
                     profiled(pipeline, frame, 1), profiled(pipeline, frame, STEADY)))
    rows.append(('mean', *([mean(times) for times in zip(*(row[kind] for row in rows))]
                           for kind in (1, 2))))
    print(markdown_table(['frame', *STAGES], [
        [f'{name}, {kind}', *(f'{time:.0f}' for time in times)]
        for name, *both in rows for kind, times in zip(('first', 'steady'), both)]))


if __name__ == '__main__':
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FRAMES)
