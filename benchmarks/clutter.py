# SPDX-License-Identifier: Apache-2.0
"""
What `tabletop` finds in rendered clutter: on tables and floors, in trays, bins and on shelves.

    python benchmarks/clutter.py SHAPES.npz [COUNT] [SEED] [DETECTOR]

SHAPES.npz is a file of `img2scene pack-shapes`; its test split is drawn, at 640x480, a third of
the cameras with any roll, with the noise and gaps of structured light, stereo and time of flight
in turn. *supports*: scenes in which the support is the true plane, to 6 degrees and 3 cm; the
other columns are those of `merged_detectors.py`, false ones per scene; F as on OSD and OCID. The
edge of a tray is no object here, so what finds it is false. The second table tells what scores
mean: how many of the objects with a score have an IoU above .5 with a true one.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from img2scene_ros.camera import Camera
from img2scene_ros.detection import mask_iou
from img2scene_ros.learning.arrangements import SUPPORTS
from img2scene_ros.learning.arrangements import arrange
from img2scene_ros.learning.arrangements import open_stock
from img2scene_ros.learning.metrics import found_share
from img2scene_ros.learning.packed_shapes import read_packed
from img2scene_ros.learning.sensors import KINDS
from img2scene_ros.learning.sensors import sensed_depth
from img2scene_ros.pipeline import Pipeline
from img2scene_ros.pipeline import PipelineOptions
from img2scene_ros.rendering import traced
from img2scene_ros.tables import markdown_table
from img2scene_ros.types import Frame
from img2scene_ros.types import Scene

WIDTH, HEIGHT = 640, 480
MIN_PIXELS = 400  # objects that show less do not count
ANGLE, OFFSET = np.cos(np.radians(6.0)), 0.03  # metres


@dataclass(frozen=True, eq=False)
class Cluttered:
    """A drawn scene: what it stands on, its frame, true ids (H, W) and support, as `Scenes`."""

    kind: str
    frame: Frame
    ids: np.ndarray
    up: np.ndarray
    offset: float


def cluttered(shapes: str, count: int, seed: int) -> Iterator[Cluttered]:
    """Draw scenes on all kinds of supports, as all kinds of sensors see them."""
    stock = open_stock(read_packed(shapes), 'test', 'cpu')
    generator = torch.Generator().manual_seed(seed)
    for number in range(count):
        kind = number % len(SUPPORTS)
        scenes = arrange(stock, generator, 1, WIDTH, HEIGHT, torch.tensor([kind]))
        seen = traced.draw(stock.fields, scenes, WIDTH, HEIGHT, generator)
        sensor = torch.tensor([number // len(SUPPORTS) % len(KINDS)])
        depth = sensed_depth(seen.depth, seen.color, scenes.focal, generator, kinds=sensor)
        focal, center = float(scenes.focal[0]), scenes.center[0].tolist()
        frame = Frame(
            np.ascontiguousarray(seen.color[0].permute(1, 2, 0).numpy()),
            Camera(WIDTH, HEIGHT, focal, focal, *center), depth[0].numpy())
        yield Cluttered(SUPPORTS[kind], frame, seen.ids[0].clamp(min=0).numpy(),
                        scenes.view[0, 2, :3].numpy(), float(scenes.view[0, 2, 3]))


def main(shapes: str, count: str = '60', seed: str = '0', detector: str = 'tabletop') -> None:
    """Print the tables."""
    totals = {name: Counter() for name in SUPPORTS}
    scores: list[tuple[float, bool]] = []
    pipeline = Pipeline(PipelineOptions(detector=detector, reconstructor='box'))
    for one in cluttered(shapes, int(count), int(seed)):
        pipeline.restart()
        scene = pipeline.perceive(one.frame)
        found, ids = scene.support, instances(scene)
        is_right = found is not None and (
            found.normal @ one.up > ANGLE and abs(found.offset - one.offset) < OFFSET)
        totals[one.kind] += Counter(scenes=1, supports=int(is_right)) + found_share(
            ids, one.ids, least=MIN_PIXELS) + overlap_and_boundary(ids, one.ids)
        scores += [(item.detection.score, is_found(item.detection.mask, one.ids))
                   for item in scene.objects]
    totals['all'] = sum(totals.values(), Counter())
    print(markdown_table(
        ['', 'scenes', 'supports', 'objects', 'found', 'pieces', 'merged', 'false per scene',
         'overlap F', 'boundary F'],
        [[name, *(total[key] for key in ('scenes', 'supports', 'objects')),
          *(total[key] / max(total['objects'], 1) for key in ('found', 'pieces', 'merged')),
          total['false'] / max(total['scenes'], 1), f_measure(total, 'overlap'),
          f_measure(total, 'boundary')] for name, total in totals.items()]))
    print(reliability(scores))


def overlap_and_boundary(predicted: np.ndarray, truth: np.ndarray) -> Counter[str]:
    """
    Compare one picture's instances with the true ones as is done on OSD and OCID.

    Instances are matched so that the sum of their F-measures is greatest; then precision and
    recall are shares of pixels, or of pixels of boundaries that lie within 0.003 of the picture's
    diagonal from each other: Dave et al., "Towards segmenting anything that moves", 2019, and Xie
    et al. (UOIS-Net-3D), T-RO 2021, section VI. The counts of several pictures can be added;
    `f_measure` turns them into F.

    :param predicted: (H, W) int, 0 = no object
    :param truth: (H, W) int, 0 = no object
    """
    found, true = ([ids == one for one in np.unique(ids[ids > 0])] for ids in (predicted, truth))
    reach = int(np.ceil(0.003 * np.hypot(*truth.shape)))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1,) * 2)
    lines, true_lines = ([_boundary(mask) for mask in masks] for masks in (found, true))
    total = Counter(
        overlap_found=int(np.count_nonzero(predicted)), overlap_true=int(np.count_nonzero(truth)),
        boundary_found=sum(map(np.count_nonzero, lines)),
        boundary_true=sum(map(np.count_nonzero, true_lines)))
    if not found or not true:
        return total
    shared = np.array([[np.count_nonzero(one & other) for other in true] for one in found])
    sizes = np.array([[np.count_nonzero(one) + np.count_nonzero(other) for other in true]
                      for one in found])
    for i, j in zip(*linear_sum_assignment(2 * shared / sizes, maximize=True)):
        near, near_true = (cv2.dilate(line.astype(np.uint8), disc) > 0
                           for line in (lines[i], true_lines[j]))
        total += Counter(
            overlap_right=int(shared[i, j]), overlap_seen=int(shared[i, j]),
            boundary_right=np.count_nonzero(lines[i] & near_true),
            boundary_seen=np.count_nonzero(true_lines[j] & near))
    return total


def _boundary(mask: np.ndarray) -> np.ndarray:
    """Return the pixels of a mask beside others, (H, W) bool."""
    return mask & (cv2.erode(mask.astype(np.uint8), np.ones((3, 3)), borderValue=0) == 0)


def f_measure(counts: Counter[str], kind: str) -> float:
    """Return F, 0 to 1, of the counts of `overlap_and_boundary`; `kind` is overlap or boundary."""
    precision = counts[f'{kind}_right'] / max(counts[f'{kind}_found'], 1)
    recall = counts[f'{kind}_seen'] / max(counts[f'{kind}_true'], 1)
    return 2 * precision * recall / max(precision + recall, 1e-12)


def is_found(mask: np.ndarray, true: np.ndarray) -> bool:
    """Tell whether a mask has an IoU above .5 with a true object."""
    return any(mask_iou(mask, true == one) > 0.5 for one in np.unique(true[mask]) if one)


def reliability(scores: list[tuple[float, bool]]) -> str:
    """Return a table of how many objects are right, by score."""
    bins = np.minimum([10 * score for score, _ in scores], 9).astype(int)
    right = np.array([is_right for _, is_right in scores])
    return markdown_table(['score', 'objects', 'right'], [
        [f'{low / 10:.1f} to {low / 10 + 0.1:.1f}', int((bins == low).sum()),
         float(right[bins == low].mean())] for low in np.unique(bins)])


def instances(scene: Scene, shape: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray:
    """Return the ids of a scene's objects at the pixels of a picture of a shape, 0 = none."""
    ids = np.zeros(shape, np.int64)
    for one in scene.objects:
        ids[one.detection.mask] = one.id
    return ids


if __name__ == '__main__':
    torch.set_num_threads(1)
    main(*sys.argv[1:])
