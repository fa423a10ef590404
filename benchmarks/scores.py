# SPDX-License-Identifier: Apache-2.0
"""
What `tabletop` knows from rendered clutter and real frames: weights of logistic regressions.

    python benchmarks/scores.py SHAPES.npz CLONES [COUNT] [SEED]

Prints, with the network and by geometry alone, the weights of what tells whether two pieces are of
one object (`clusters.evidence_of_pairs`) and, with those, of what tells whether what is found is
one (`tabletop.evidence`). Scenes are those of `clutter.py`, take another seed than what is judged,
for pairs those of `real_frames.py`, too, without the test half of OSD; each of these sets counts
the same. The package's weights of pairs with the network are near to these (`clusters.WEIGHTS`
says how near); its weights of scores were fitted to 160 scenes.
"""

import sys
from collections.abc import Callable
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from clutter import cluttered
from clutter import is_found
from real_frames import labelled
from scipy.optimize import minimize

from img2scene_ros.detection import clusters
from img2scene_ros.detection import tabletop
from img2scene_ros.detection.scaled import reduced
from img2scene_ros.detection.tabletop import TabletopOptions
from img2scene_ros.pipeline import Pipeline
from img2scene_ros.pipeline import PipelineOptions
from img2scene_ros.types import Frame

RIDGE = 1e-3  # weight of the squared weights
PURE = 0.7  # least share of a piece that is of one object, for the piece to tell something

Labelled = tuple[Frame, np.ndarray]  # a frame and its true ids, (H, W)


def main(shapes: str, clones: str, count: str = '120', seed: str = '1') -> None:
    """Print the weights."""
    sets: dict[str, list[Labelled]] = {
        'rendered': [(one.frame, one.ids) for one in cluttered(shapes, int(count), int(seed))]}
    for name, _, frame, ids in labelled(Path(clones)):
        if name != 'OSD test':
            sets.setdefault(name, []).append((frame, ids))
    for network in ('bundled', 'none'):
        pipeline = Pipeline(
            PipelineOptions(detector='tabletop', reconstructor='box'),
            {'tabletop': TabletopOptions(network=network, min_score=0.0)})
        weights = fitted([pairs_of(pipeline, scenes) for scenes in sets.values()])
        print(network, 'pairs', np.round(weights, 2).tolist())
        clusters.WEIGHTS[len(weights)] = weights
        # Real frames have too few false ones, and robots are not outlined.
        weights = fitted([scores_of(pipeline, sets['rendered'])])
        print(network, 'scores', np.round(weights, 2).tolist())


def pairs_of(
    pipeline: Pipeline, scenes: Sequence[Labelled],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the evidence of pairs, whether they are one, and their weights, of all scenes."""
    pairs: list[tuple[np.ndarray, ...]] = []
    seen: list[tuple[Any, Any]] = []
    calls: list[tuple[Any, Any]] = []
    with patch.object(tabletop, 'clusters', recorded(tabletop.clusters, seen)), \
            patch.object(clusters, '_odds', recorded(clusters._odds, calls)):
        for frame, ids in scenes:
            seen.clear()
            calls.clear()
            pipeline.restart()
            pipeline.detect(frame)
            for (pieces, ends, evidence, *_), odds in calls:
                (looked_at, *_), _ = seen[0]
                pairs.append(known_pairs(frame, ids, looked_at, pieces, ends, evidence, odds))
    evidence, is_one, weights = map(np.concatenate, zip(*pairs))
    return evidence, is_one, weights


def scores_of(
    pipeline: Pipeline, scenes: Sequence[Labelled],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the evidence of what is found, whether it is an object, and weights of 1."""
    is_right: list[bool] = []
    calls: list[tuple[Any, Any]] = []
    with patch.object(tabletop, '_detection', recorded(tabletop._detection, calls)):
        for frame, ids in scenes:
            pipeline.restart()
            is_right += [is_found(found.mask, ids) for found in pipeline.detect(frame)]
    return (np.array([given[-1] for given, _ in calls]), np.array(is_right),
            np.ones(len(is_right)))


def recorded(step: Callable[..., Any], calls: list[tuple[Any, Any]]) -> Callable[..., Any]:
    """Return a step that puts what it is given and what it answers into a list, too."""
    def record(*given: Any) -> Any:
        calls.append((given, step(*given)))
        return calls[-1][1]

    return record


def known_pairs(
    whole: Frame, ids: np.ndarray, frame: Frame, pieces: np.ndarray, pairs: np.ndarray,
    evidence: np.ndarray, odds: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """
    Return the evidence of pairs of known objects, whether they are one, and their weights.

    Pairs that rules decide tell nothing.

    :param frame: as it is looked at: reduced, and turned by quarters
    :param odds: as `_odds`
    """
    small, step = reduced(whole)
    ids = ids[step // 2::step, step // 2::step][:small.shape[0], :small.shape[1]]
    ids = next(np.rot90(ids, quarters) for quarters in range(4) if np.array_equal(
        np.rot90(small.color, quarters), frame.color))
    shared = np.zeros((pieces.max() + 1, ids.max() + 1), int)
    np.add.at(shared, (pieces, ids), 1)
    of, sizes = shared.argmax(axis=1)[pairs], shared.sum(axis=1)[pairs]
    is_pure = (shared.max(axis=1)[pairs] > PURE * sizes).all(axis=0) & (of > 0).any(axis=0)
    is_pure &= odds[tuple(pairs)] == evidence @ clusters.WEIGHTS[evidence.shape[1]]
    return (evidence[is_pure], (of[0] == of[1])[is_pure],
            np.sqrt(sizes.min(axis=0))[is_pure])


def fitted(sets: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> np.ndarray:
    """
    Return the factors, (K,), of evidence that make what is right most likely.

    :param sets: evidence (N, K), whether it is right (N,), and weights (N,), of which each set
        counts the same
    """
    evidence, is_right, weights = (np.concatenate(part) for part in zip(*(
        (evidence, is_right, weights / weights.sum()) for evidence, is_right, weights in sets)))
    sign = 2.0 * is_right - 1.0
    return minimize(lambda factors: (
        weights @ np.logaddexp(0.0, -sign * (evidence @ factors)) / weights.sum()
        + RIDGE * (factors[1:] ** 2).sum()), np.zeros(evidence.shape[1])).x


if __name__ == '__main__':
    torch.set_num_threads(1)
    main(*sys.argv[1:])
