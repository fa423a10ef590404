# SPDX-License-Identifier: Apache-2.0
"""
What `tabletop` finds in real frames that public repositories show as examples, and in OSD.

    python benchmarks/real_frames.py CLONES [DETECTOR]

CLONES holds clones of the repositories that `real_frames.json` names, as OWNER/NAME, and of
PointCloudLibrary/data for OSD (Richtsfeld et al., IROS 2012, outlines mended by Alexandrov, the
surroundings of the table left out); frames that are not there are skipped. The outlines in that
file were drawn by hand, later ones before earlier ones; what is not outlined, such as a robot,
counts as false. *first*, *second*, *OSD learn* and *recorded*, the package's own frames, helped to
choose design and thresholds, and odds are fitted to them (`scores.py`); frames of OSD that are
among the first are left out. The columns are those of `clutter.py`.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import open3d as o3d
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
OSD = 'PointCloudLibrary/data/segmentation/mOSD'
OSD_CAMERA = Camera(640, 480, 525.0, 525.0, 319.5, 239.5)
# First numbers of the kinds of scenes in each half of OSD, and what is among the outlined frames.
OSD_KINDS = {
    'learn': {0: 'boxes', 17: 'stacked', 25: 'occluded', 33: 'cylindric'},
    'test': {0: 'boxes', 16: 'stacked', 24: 'occluded', 31: 'cylindric', 43: 'mixed',
             55: 'complex'}}
OSD_LEFT_OUT = {'learn': {6}, 'test': {42, 50, 63, 64}}


def main(clones: str, detector: str = 'tabletop') -> None:
    """Print the table."""
    totals: dict[str, Counter] = {}
    pipeline = Pipeline(PipelineOptions(detector=detector, reconstructor='box'))
    for kind, part, frame, truth in labelled(Path(clones)):
        pipeline.restart()
        found = instances(pipeline.perceive(frame), frame.shape)
        counts = Counter(frames=1) + found_share(found, truth, least=1)
        counts += overlap_and_boundary(found, truth)
        for name in (f'{kind}: {part}', kind):
            totals[name] = totals.get(name, Counter()) + counts
    print(markdown_table(
        ['', 'frames', 'objects', 'found', 'pieces', 'merged', 'false per frame', 'overlap F',
         'boundary F'],
        [[name, total['frames'], total['objects'],
          *(total[key] / total['objects'] for key in ('found', 'pieces', 'merged')),
          total['false'] / total['frames'], f_measure(total, 'overlap'),
          f_measure(total, 'boundary')] for name, total in sorted(totals.items())]))


def labelled(clones: Path) -> Iterator[tuple[str, str, Frame, np.ndarray]]:
    """Yield the set and the part of it, the frame, and true ids, (H, W) int32, 0 = none."""
    for one in json.loads(FRAMES.read_text()):
        folder = FRAMES.parent.parent if one['set'] == 'recorded' else clones / one['repository']
        if (folder / one['depth']).is_file():
            frame = opened(folder, one)
            yield one['set'], one['repository'], frame, outlined(one, frame.shape)
        else:
            print(f"{one['repository']}: {one['depth']} is not there, skipped")
    for half, kinds in OSD_KINDS.items():
        for path in (clones / OSD / half).glob('*.pcd'):
            number = int(path.stem.removeprefix(half))
            if number not in OSD_LEFT_OUT[half]:
                kind = kinds[max(first for first in kinds if first <= number)]
                yield f'OSD {half}', kind, *cloud(path)


def cloud(path: Path) -> tuple[Frame, np.ndarray]:
    """
    Read a frame of OSD and the numbers of its objects, (H, W) int32, 0 = none.

    Labels are those of mOSD's README: tens from 20 on are objects, the ones their parts. Three
    clouds hold no unread pixels; those pixels are black then.
    """
    points = o3d.t.io.read_point_cloud(str(path), remove_nan_points=False).point
    position, read = points.positions.numpy(), np.isfinite(points.positions.numpy()[:, 2])
    pixels = np.rint(OSD_CAMERA.project(position[read].astype(float))).astype(int)
    shape = OSD_CAMERA.height, OSD_CAMERA.width
    depth, ids = np.full(shape, np.nan, np.float32), np.zeros(shape, np.int32)
    color = np.zeros((*shape, 3), np.uint8)
    where = pixels[:, 1], pixels[:, 0]
    depth[where], color[where] = position[read, 2], points.colors.numpy()[read]
    ids[where] = np.maximum(points['label'].numpy()[read, 0].astype(int) // 10 - 1, 0)
    if len(position) == depth.size:  # unread pixels have colours, too
        color = points.colors.numpy().reshape(color.shape).copy()
    return Frame(color, OSD_CAMERA, depth), ids


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
