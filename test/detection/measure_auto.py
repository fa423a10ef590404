# SPDX-License-Identifier: Apache-2.0
"""
Measure what merging adds to `tabletop`, on rendered scenes with a stand-in for the model.

python test/detection/measure_auto.py SCENES [COUNT], where SCENES is a folder of
`img2scene render --kind scenes --split test`. Prints the Markdown table of docs/benchmarks.md.
"""

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from img2scene_ros.detection.auto import merged
from img2scene_ros.detection.supports import find_support
from img2scene_ros.detection.tabletop import TabletopDetector
from img2scene_ros.learning.depth_noise import add_depth_noise
from img2scene_ros.learning.samples import SceneSample
from img2scene_ros.learning.samples import SceneSamples
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
        true = sample.frame
        frame = Frame(true.color, true.camera, add_depth_noise(
            true.depth, true.camera, random, color=true.color))
        support = find_support(frame)
        clusters = TabletopDetector().detect(frame, support)
        kind = 'floor' if FURNITURE & {truth.label for truth in sample.objects} else 'table'
        for model, errors in MODELS.items():
            named = [] if errors is None else stand_in(
                sample, np.random.default_rng((9, number)), *errors)
            totals[kind, model] += counted(merged(clusters, named, frame, support), sample)
    print(f"| scenes | detector | {' | '.join(COUNTS)} |\n|{' --- |' * (2 + len(COUNTS))}")
    for (kind, model), total in totals.items():
        print(f"| {kind} | {model} | {' | '.join(str(total[name]) for name in COUNTS)} |")


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
    """
    Compare masks with the truth.

    found: a mask of IoU above 0.5. pieces: further masks that are mostly of the same object.
    merged: masks that cover most of two objects. false: masks that are mostly of none.
    """
    found = [one for one in found if one.mask is not None]
    areas = np.bincount(sample.ids.ravel(), minlength=256)
    sizes = np.array([np.count_nonzero(one.mask) for one in found])
    shared = np.array([np.bincount(sample.ids[one.mask], minlength=256)
                       for one in found]).reshape(-1, 256)
    truths = [truth for truth in sample.objects if areas[truth.id] >= MIN_PIXELS]
    total: Counter[str] = Counter(objects=len(truths))
    for truth in truths:
        overlap = shared[:, truth.id] / (areas[truth.id] + sizes - shared[:, truth.id])
        if len(found) and overlap.max() > 0.5:
            total['found'] += 1
            total['named'] += found[int(overlap.argmax())].label == truth.label
        pieces = np.count_nonzero(
            (shared[:, truth.id] > 0.5 * sizes) & (sizes > 0.03 * areas[truth.id]))
        total['pieces'] += max(0, int(pieces) - 1)
    ids = [truth.id for truth in truths]
    total['merged'] += int(((shared[:, ids] > 0.5 * areas[ids]).sum(axis=1) > 1).sum())
    known = [truth.id for truth in sample.objects]
    total['false'] += int((shared[:, known].max(axis=1, initial=0) <= 0.5 * sizes).sum())
    return total


if __name__ == '__main__':
    main(*sys.argv[1:])
