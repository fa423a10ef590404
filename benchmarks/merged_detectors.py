# SPDX-License-Identifier: Apache-2.0
"""
What merging adds to `tabletop`, on rendered scenes with a stand-in for the model.

    python benchmarks/merged_detectors.py SCENES [COUNT]

SCENES is a folder of `img2scene render --kind scenes --split test`. *found*: objects with a mask
of IoU above 0.5; *named*: and the right name; *pieces*: further masks of an object that has one;
*merged*: masks that cover most of two objects; *false*: masks that are mostly of none.
"""

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scenes import noisy_depth

from img2scene_ros.detection import mask_iou
from img2scene_ros.detection.auto import merged
from img2scene_ros.detection.supports import supported
from img2scene_ros.detection.tabletop import TabletopDetector
from img2scene_ros.learning.metrics import found_share
from img2scene_ros.learning.samples import SceneSample
from img2scene_ros.learning.samples import SceneSamples
from img2scene_ros.tables import markdown_table
from img2scene_ros.types import Detection
from img2scene_ros.types import Frame

FURNITURE = {'bed', 'bookcase', 'chair', 'couch', 'desk', 'dining table', 'wardrobe'}
MIN_PIXELS = 150  # objects that show less do not count
# Share of objects that are missed and of false boxes per object, standard deviation of the edges
# in sides, share of wrong names.
MODELS = {
    '`tabletop` alone': None,
    'and a perfect model': (0.0, 0.0, 0.0, 0.0),
    'and a fair one': (0.3, 0.2, 0.05, 0.15),
    'and a poor one': (0.5, 1.0, 0.15, 0.5),
}
COUNTS = ('objects', 'found', 'named', 'pieces', 'merged', 'false')


def main(folder: str, count: str = '150') -> None:
    """Print the table."""
    totals = {(kind, model): Counter() for kind in ('table', 'floor') for model in MODELS}
    samples = SceneSamples(Path(folder))
    for number in range(int(count)):
        sample, random = samples[number], np.random.default_rng((7, number))
        frame = supported(Frame(
            sample.frame.color, sample.frame.camera, noisy_depth(sample, random)))
        clusters = TabletopDetector().detect(frame)
        kind = 'floor' if FURNITURE & {truth.label for truth in sample.objects} else 'table'
        for model, errors in MODELS.items():
            named = [] if errors is None else stand_in(
                sample, np.random.default_rng((9, number)), *errors)
            totals[kind, model] += counted(merged(clusters, named, frame), sample)
    print(markdown_table(
        ['scenes', 'detector', *COUNTS],
        [[*setup, *(total[name] for name in COUNTS)] for setup, total in totals.items()]))


def stand_in(
    sample: SceneSample, random: np.random.Generator, missed: float, false: float, jitter: float,
    wrong: float,
) -> list[Detection]:
    """Return true boxes with errors, best first; scores mean nothing."""
    limits = np.array(sample.frame.shape[::-1] * 2, float)
    boxes = []
    for truth in sample.objects:
        sides = np.tile(truth.visible_box[2:] - truth.visible_box[:2], 2)
        if random.random() >= missed:
            label = 'wrong' if random.random() < wrong else truth.label
            boxes.append((label, truth.visible_box + random.normal(0, jitter, 4) * sides))
        if random.random() < false:
            corners = np.sort(random.uniform(0, 1, (2, 2)), axis=0)
            boxes.append(('wrong', corners.ravel() * limits))
    boxes = [(label, np.clip(box, 0, limits)) for label, box in boxes]
    found = [Detection(label, float(random.uniform(0.5, 1)), box) for label, box in boxes
             if (box[2:] - box[:2] > 4).all()]
    return sorted(found, key=lambda one: -one.score)


def counted(found: Sequence[Detection], sample: SceneSample) -> Counter[str]:
    """Compare masks with the truth; the counts of several scenes can be added."""
    ids = np.zeros(sample.ids.shape, int)
    for number, one in enumerate(found, 1):
        if one.mask is not None:
            ids[one.mask] = number
    total = found_share(ids, sample.ids, least=MIN_PIXELS)
    for truth in sample.objects:
        mask = sample.ids == truth.id
        if np.count_nonzero(mask) >= MIN_PIXELS:
            total['named'] += any(
                one.label == truth.label and one.mask is not None
                and mask_iou(one.mask, mask) > 0.5 for one in found)
    return total


if __name__ == '__main__':
    main(*sys.argv[1:])
