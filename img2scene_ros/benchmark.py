# SPDX-License-Identifier: Apache-2.0
"""What `img2scene bench` measures on recorded frames: time and, where truth is known, accuracy."""

import json
import platform
from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass
from os import cpu_count
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import trimesh

from img2scene_ros.depth import DepthNoise
from img2scene_ros.detection import bbox_of
from img2scene_ros.detection import box_iou
from img2scene_ros.detection import mask_iou
from img2scene_ros.io.bags import BagFrame
from img2scene_ros.io.frames import load_frame
from img2scene_ros.io.layouts import FrameFiles
from img2scene_ros.io.photos import read_picture
from img2scene_ros.pipeline import Pipeline
from img2scene_ros.pipeline import parse_settings
from img2scene_ros.rendering.raycast import Surface
from img2scene_ros.rendering.raycast import render
from img2scene_ros.tables import markdown_table
from img2scene_ros.types import Frame
from img2scene_ros.types import SceneObject

HEADINGS = ('frame', 'objects', 'closed', 'frame [ms]', 'mesh [ms]', 'bbox IoU',
            'silhouette IoU', 'height error [mm]')


@dataclass(frozen=True)
class Accuracy:
    """One object against the `mask.png` and `measured.json` of its frame folder."""

    bbox_iou: float
    silhouette_iou: float
    height_error: float


def bench(
    sources: Iterable[FrameFiles | BagFrame], settings: dict[str, Any] | None = None,
    repeats: int = 5,
) -> str:
    """
    Measure the pipeline on recorded frames.

    :param sources: of `open_frames`
    :param settings: options by dotted name; defaults for the others
    :param repeats: runs per frame; times are their medians
    :return: a Markdown table
    :raises InputError: a frame that cannot be read
    :raises Img2SceneError: as `Pipeline`
    """
    chosen, others = parse_settings(settings or {})
    pipeline = Pipeline(chosen, others)
    rows = [_measured(pipeline, source, repeats, others.get('depth_noise')) for source in sources]
    machine = (f'Python {platform.python_version()} on {platform.system()} {platform.machine()}, '
               f'{cpu_count()} cores; medians.')
    return f'{machine}\n\n{markdown_table(HEADINGS, rows)}'


def accuracy(folder: Path, frame: Frame, found: Sequence[SceneObject]) -> Accuracy | None:
    """Compare the object that covers most of `mask.png` with the truth; None without truth."""
    if not (folder / 'mask.png').is_file() or not found:
        return None
    truth = read_picture(folder / 'mask.png')[0].max(axis=2) > 0
    one = max(found, key=lambda item: mask_iou(item.detection.region(frame.shape), truth))
    silhouette = render([Surface(one.points, one.model.faces, one.model.colors, id=1)],
                        frame.camera).ids == 1
    measured = json.loads((folder / 'measured.json').read_text())
    box = float(box_iou(one.detection.bbox[None], bbox_of(truth)[None])[0, 0])
    return Accuracy(box, mask_iou(silhouette, truth),
                    float(one.model.size[2]) - measured['height_above_table_m'])


def _measured(
    pipeline: Pipeline, source: FrameFiles | BagFrame, repeats: int,
    depth_noise: DepthNoise | None,
) -> list[str]:
    frame = load_frame(source, depth_noise=depth_noise)
    pipeline.restart()
    pipeline.run(frame)
    perceive, mesh = [], []
    for _ in range(repeats):
        pipeline.restart()
        start = perf_counter()
        pipeline.perceive(frame)
        perceive.append(perf_counter() - start)
        while True:
            start, before = perf_counter(), pipeline.rebuilt
            if pipeline.reconstruct_next() is None:
                break
            mesh.append((perf_counter() - start) / (pipeline.rebuilt - before))
    found = pipeline.perceive(frame).objects
    closed = sum(trimesh.Trimesh(one.model.vertices, one.model.faces, process=False).is_watertight
                 for one in found)
    row = [source.name, str(len(found)), str(closed), f'{1e3 * median(perceive):.0f}',
           f'{1e3 * median(mesh):.0f}' if mesh else '']
    folder = source.color.parent if isinstance(source, FrameFiles) else source.path
    truth = accuracy(folder, frame, found)
    if truth is None:
        return row + ['', '', '']
    return row + [f'{truth.bbox_iou:.3f}', f'{truth.silhouette_iou:.3f}',
                  f'{1e3 * truth.height_error:+.1f}']
