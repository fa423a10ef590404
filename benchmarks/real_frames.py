# SPDX-License-Identifier: Apache-2.0
"""
What `tabletop` finds in real frames that public repositories show as examples.

    python benchmarks/real_frames.py CLONES [DETECTOR]

CLONES holds a clone of each repository that `real_frames.json` names, as OWNER/NAME; frames that
are not there are skipped. The outlines in that file were drawn by hand, later ones before earlier
ones; what is not outlined, such as a robot, counts as false. *first*: the frames that design and
thresholds were chosen with; the columns are those of `clutter.py`.
"""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from clutter import f_measure
from clutter import instances
from clutter import overlap_and_boundary

from img2scene_ros.camera import Camera
from img2scene_ros.io.depth_images import read_depth
from img2scene_ros.io.photos import read_picture
from img2scene_ros.learning.metrics import found_share
from img2scene_ros.pipeline import Pipeline
from img2scene_ros.pipeline import PipelineOptions
from img2scene_ros.tables import markdown_table
from img2scene_ros.types import Frame

FRAMES = Path(__file__).with_suffix('.json')


def main(clones: str, detector: str = 'tabletop') -> None:
    """Print the table."""
    totals: dict[str, Counter] = {}
    pipeline = Pipeline(PipelineOptions(detector=detector, reconstructor='box'))
    for one in json.loads(FRAMES.read_text()):
        folder = Path(clones) / one['repository']
        if not (folder / one['depth']).is_file():
            print(f"{one['repository']}: {one['depth']} is not there, skipped")
            continue
        frame = opened(folder, one)
        pipeline.restart()
        found = instances(pipeline.perceive(frame), frame.shape)
        truth = outlined(one, frame.shape)
        counts = Counter(frames=1) + found_share(found, truth, least=1)
        counts += overlap_and_boundary(found, truth)
        for name in (f"{one['set']}: {one['repository']}", one['set']):
            totals[name] = totals.get(name, Counter()) + counts
    print(markdown_table(
        ['', 'frames', 'objects', 'found', 'pieces', 'merged', 'false per frame', 'overlap F',
         'boundary F'],
        [[name, total['frames'], total['objects'],
          *(total[key] / total['objects'] for key in ('found', 'pieces', 'merged')),
          total['false'] / total['frames'], f_measure(total, 'overlap'),
          f_measure(total, 'boundary')] for name, total in sorted(totals.items())]))


def opened(folder: Path, one: dict[str, Any]) -> Frame:
    """Read a frame of a clone."""
    color, _, _ = read_picture(folder / one['color'])
    return Frame(color, Camera(color.shape[1], color.shape[0], *one['K']),
                 read_depth(folder / one['depth'], one['depth_unit']))


def outlined(one: dict[str, Any], shape: tuple[int, int]) -> np.ndarray:
    """Return the numbers of the objects at each pixel, (H, W) int32, 0 = none."""
    ids = np.zeros(shape, np.int32)
    for number, outline in enumerate(one['outlines'].values(), 1):
        cv2.fillPoly(ids, [np.array(outline, np.int32)], number)
    return ids


if __name__ == '__main__':
    torch.set_num_threads(1)
    main(*sys.argv[1:])
