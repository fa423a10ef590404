# SPDX-License-Identifier: Apache-2.0
"""
What `tabletop` knows from rendered clutter and real frames: weights of logistic regressions.

    python benchmarks/scores.py SHAPES.npz CLONES [COUNT] [SEED]

Prints, with the network and by geometry alone, the weights of what tells whether two pieces are of
one object (`clusters.evidence_of_pairs`) and, with those, of what tells whether what is found is
one (`tabletop.evidence`). Pairs are those that come up while pieces are joined, at first none,
then with the weights of the round before. Scenes are those of `clutter.py`, take another seed than
what is judged, for pairs those of `real_frames.py`, too, without the test half of OSD; each of
these sets counts the same. The constants of the package's weights of pairs are .3 less
(`clusters.WEIGHTS`), and its weights of scores are of 160 scenes of an earlier version.
"""

import sys
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
from scipy.special import expit

from img2scene_ros.detection import clusters
from img2scene_ros.detection import tabletop
from img2scene_ros.detection.scaled import reduced
from img2scene_ros.detection.tabletop import TabletopOptions
from img2scene_ros.pipeline import Pipeline
from img2scene_ros.pipeline import PipelineOptions
from img2scene_ros.types import Frame

RIDGE = 1e-3  # weight of the squared weights
PURE = 0.7  # least share of a piece that is of one object, for the piece to tell something
ROUNDS = 4

Labelled = tuple[Frame, np.ndarray]  # a frame and its true ids, (H, W)
# Evidence (N, K), whether it is right (N,), and how much that counts (N,).
Weighted = tuple[np.ndarray, np.ndarray, np.ndarray]


def main(shapes: str, clones: str, count: str = '120', seed: str = '1') -> None:
    """Print the weights."""
    sets: dict[str, list[Labelled]] = {
        'rendered': [(one.frame, one.ids) for one in cluttered(shapes, int(count), int(seed))]}
    for name, _, frame, ids in labelled(Path(clones)):
        if name != 'OSD test':
            sets.setdefault(name, []).append((frame, ids))
    clusters.WEIGHTS.update({size: np.zeros(size) for size in clusters.WEIGHTS})
    for network in ('bundled', 'none'):
        pipeline = Pipeline(
            PipelineOptions(detector='tabletop', reconstructor='box'),
            {'tabletop': TabletopOptions(network=network, min_score=0.0)})
        pairs: list[list[Weighted]] = [[] for _ in sets]
        for _ in range(ROUNDS):
            for known, scenes in zip(pairs, sets.values()):
                known.append(pairs_of(pipeline, scenes))
            weights = fitted([together(known) for known in pairs])
            clusters.WEIGHTS[len(weights)] = weights
        print(network, 'pairs', np.round(weights, 2).tolist())
        # Real frames have too few false ones, and robots are not outlined.
        weights = fitted([scores_of(pipeline, sets['rendered'])])
        print(network, 'scores', np.round(weights, 2).tolist())


def pairs_of(pipeline: Pipeline, scenes: Sequence[Labelled]) -> Weighted:
    """Return the evidence of pairs that come up, of all scenes."""
    pairs: list[Weighted] = []
    sums_of, evidence_of = clusters._sums, clusters.evidence_of_pairs

    def with_truth(frame: Frame, pieces: np.ndarray, *others: Any) -> dict[str, np.ndarray]:
        truth = seen_truth(*scene, frame)
        shared = np.zeros((pieces.max() + 1, truth.max() + 1))
        np.add.at(shared, (pieces, truth), 1.0)
        return {**sums_of(frame, pieces, *others), 'truth': shared}

    def remembered(graph: clusters.Graph, of: np.ndarray) -> np.ndarray:
        evidence = evidence_of(graph, of)
        shared = graph.sums['truth'][of]
        sizes, true = shared.sum(axis=2), shared.argmax(axis=2)
        tells = (shared.max(axis=2) > PURE * sizes).all(axis=0) & (true > 0).any(axis=0)
        pairs.append((evidence[tells], (true[0] == true[1])[tells],
                      np.sqrt(sizes.min(axis=0))[tells]))
        return evidence

    with patch.object(clusters, '_sums', with_truth), \
            patch.object(clusters, 'evidence_of_pairs', remembered):
        for scene in scenes:
            pipeline.restart()
            pipeline.detect(scene[0])
    return together(pairs)


def scores_of(pipeline: Pipeline, scenes: Sequence[Labelled]) -> Weighted:
    """Return the evidence of what is found, whether it is an object, and weights of 1."""
    is_right: list[bool] = []
    found: list[np.ndarray] = []
    detection_of = tabletop._detection

    def remembered(*given: Any) -> Any:
        found.append(given[-1])
        return detection_of(*given)

    with patch.object(tabletop, '_detection', remembered):
        for frame, ids in scenes:
            pipeline.restart()
            is_right += [is_found(one.mask, ids) for one in pipeline.detect(frame)]
    return np.array(found), np.array(is_right), np.ones(len(is_right))


def seen_truth(whole: Frame, ids: np.ndarray, frame: Frame) -> np.ndarray:
    """Return the true ids of a frame as it is looked at: reduced, and turned by quarters."""
    small, step = reduced(whole)
    ids = ids[step // 2::step, step // 2::step][:small.shape[0], :small.shape[1]]
    return next(np.rot90(ids, quarters) for quarters in range(4) if np.array_equal(
        np.rot90(small.color, quarters), frame.color))


def together(some: Sequence[Weighted]) -> Weighted:
    """Return several as one."""
    evidence, is_right, weights = map(np.concatenate, zip(*some))
    return evidence, is_right, weights


def fitted(sets: Sequence[Weighted]) -> np.ndarray:
    """Return the factors, (K,), that make what is right most likely; each set counts the same."""
    evidence, is_right, weights = together([
        (evidence, is_right, weights / weights.sum()) for evidence, is_right, weights in sets])
    sign, weights = 2.0 * is_right - 1.0, weights / len(sets)

    def loss(factors: np.ndarray) -> tuple[float, np.ndarray]:
        wrong = expit(-sign * (evidence @ factors))
        return (-weights @ np.log1p(-wrong) + RIDGE * (factors[1:] ** 2).sum(),
                -(weights * wrong * sign) @ evidence + 2.0 * RIDGE * np.append(0.0, factors[1:]))

    return minimize(loss, np.zeros(evidence.shape[1]), jac=True).x


if __name__ == '__main__':
    torch.set_num_threads(1)
    main(*sys.argv[1:])
