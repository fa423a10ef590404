# SPDX-License-Identifier: Apache-2.0
"""Average precision of detections, as COCO computes it (cocodataset/cocoapi, cocoeval.py)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from img2scene_ros.detection import box_iou

RECALLS = np.linspace(0, 1, 101)


@dataclass(frozen=True, eq=False)
class Boxes:
    """
    The boxes of one picture, found or true.

    - boxes: (N, 4) xmin, ymin, xmax, ymax in any unit
    - labels: (N,) class names or numbers
    - scores: (N,) of what was found; of what is true 1
    - ignored: (N,) bool, of what is true: whoever finds it is neither right nor wrong
    """

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    ignored: np.ndarray


def average_precisions(
    found: Sequence[Boxes], truth: Sequence[Boxes], least_iou: float = 0.5,
) -> dict[str | int, float]:
    """
    Return the average precision of every class that has truth which is not ignored.

    :param found: one entry per picture
    :param truth: of the same pictures
    :param least_iou: of a box that counts as found
    """
    labels = sorted({label for boxes in truth for label in boxes.labels[~boxes.ignored].tolist()})
    return {label: _average_precision(label, found, truth, least_iou) for label in labels}


def _average_precision(
    label: str | int, found: Sequence[Boxes], truth: Sequence[Boxes], least_iou: float,
) -> float:
    scores, hits, count = [], [], 0
    for mine, true in zip(found, truth, strict=True):
        mine_here, true_here = mine.labels == label, true.labels == label
        order = np.argsort(-mine.scores[mine_here], kind='stable')
        ignored = true.ignored[true_here]
        hit, counts = _matched(
            box_iou(mine.boxes[mine_here][order], true.boxes[true_here]), ignored, least_iou)
        scores.append(mine.scores[mine_here][order][counts])
        hits.append(hit[counts])
        count += int((~ignored).sum())
    order = np.argsort(-np.concatenate(scores), kind='stable')
    hits = np.concatenate(hits)[order]
    right = np.cumsum(hits)
    recall = right / count
    precision = right / np.arange(1, len(hits) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    # The best precision at this recall or a greater one; 0 where it is never reached.
    place = np.searchsorted(recall, RECALLS)
    return float(np.append(precision, 0)[place].mean())


def _matched(
    iou: np.ndarray, ignored: np.ndarray, least_iou: float,
) -> tuple[np.ndarray, np.ndarray]:
    """
    Give every found box, best first, the true box that it overlaps most and that is still free.

    :param iou: (found, true)
    :return: whether each is right, and whether it counts, both (found,) bool
    """
    hit, counts = np.zeros(len(iou), bool), np.ones(len(iou), bool)
    free = np.ones(len(ignored), bool)
    for number, row in enumerate(iou):
        # What is not ignored goes first, however well it fits something ignored.
        for candidates in (free & ~ignored, ignored):
            overlap = np.where(candidates, row, -1.0)
            if len(row) and overlap.max() >= least_iou:
                best = int(overlap.argmax())
                free[best] = False
                hit[number], counts[number] = not ignored[best], not ignored[best]
                break
    return hit, counts
