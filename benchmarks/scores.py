# SPDX-License-Identifier: Apache-2.0
"""
What `tabletop` knows from rendered clutter: weights of logistic regressions.

    python benchmarks/scores.py SHAPES.npz [COUNT] [SEED]

Prints, with the network and by geometry alone, the weights of what tells whether two pieces are of
one object (`clusters.evidence_of_pairs`) and, with those, of what tells whether what is found is
one (`tabletop.evidence`). Scenes are those of `clutter.py`; take another seed than what is judged.
"""

import sys
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from clutter import Cluttered
from clutter import cluttered
from clutter import is_found
from scipy.optimize import minimize

from img2scene_ros.detection import clusters
from img2scene_ros.detection import tabletop
from img2scene_ros.detection.tabletop import TabletopOptions
from img2scene_ros.pipeline import Pipeline
from img2scene_ros.pipeline import PipelineOptions
from img2scene_ros.types import Frame

RIDGE = 1e-3  # weight of the squared weights
PURE = 0.7  # least share of a piece that is of one object, for the piece to tell something


def main(shapes: str, count: str = '120', seed: str = '1') -> None:
    """Print the weights."""
    scenes = list(cluttered(shapes, int(count), int(seed)))
    for network in ('bundled', 'none'):
        pipeline = Pipeline(
            PipelineOptions(detector='tabletop', reconstructor='box'),
            {'tabletop': TabletopOptions(network=network, min_score=0.0)})
        pairs: list[tuple[np.ndarray, ...]] = []
        calls: list[tuple[Any, Any]] = []
        with patch.object(clusters, 'evidence_of_pairs',
                          recorded(clusters.evidence_of_pairs, calls)):
            for one in scenes:
                calls.clear()
                pipeline.restart()
                pipeline.detect(one.frame)
                pairs += [known_pairs(one, *given[:2], *answer) for given, answer in calls]
        weights = fitted(*map(np.concatenate, zip(*pairs)))
        print(network, 'pairs', np.round(weights, 2).tolist())
        clusters.WEIGHTS[len(weights)] = weights
        is_right: list[bool] = []
        calls.clear()
        with patch.object(tabletop, '_detection', recorded(tabletop._detection, calls)):
            for one in scenes:
                pipeline.restart()
                is_right += [is_found(found.mask, one.ids) for found in pipeline.detect(one.frame)]
        weights = fitted(
            np.array([given[-1] for given, _ in calls]), np.array(is_right),
            np.ones(len(is_right)))
        print(network, 'scores', np.round(weights, 2).tolist())


def recorded(step: Callable[..., Any], calls: list[tuple[Any, Any]]) -> Callable[..., Any]:
    """Return a step that puts what it is given and what it answers into a list, too."""
    def record(*given: Any) -> Any:
        calls.append((given, step(*given)))
        return calls[-1][1]

    return record


def known_pairs(
    scene: Cluttered, frame: Frame, pieces: np.ndarray, pairs: np.ndarray, evidence: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the evidence of pairs of known objects, whether they are one, and their weights."""
    ids = next(np.rot90(scene.ids, quarters) for quarters in range(4) if np.array_equal(
        np.rot90(scene.frame.color, quarters), frame.color))
    shared = np.zeros((pieces.max() + 1, ids.max() + 1), int)
    np.add.at(shared, (pieces, ids), 1)
    of, sizes = shared.argmax(axis=1)[pairs], shared.sum(axis=1)[pairs]
    is_pure = (shared.max(axis=1)[pairs] > PURE * sizes).all(axis=0) & (of > 0).any(axis=0)
    return (evidence[is_pure], (of[0] == of[1])[is_pure],
            np.sqrt(sizes.min(axis=0))[is_pure])


def fitted(evidence: np.ndarray, is_right: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the factors, (K,), of evidence (N, K) that make what is right (N,) most likely."""
    sign = 2.0 * is_right - 1.0
    return minimize(lambda factors: (
        weights @ np.logaddexp(0.0, -sign * (evidence @ factors)) / weights.sum()
        + RIDGE * (factors[1:] ** 2).sum()), np.zeros(evidence.shape[1])).x


if __name__ == '__main__':
    torch.set_num_threads(1)
    main(*sys.argv[1:])
