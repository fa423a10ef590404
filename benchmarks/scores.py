# SPDX-License-Identifier: Apache-2.0
"""
What the scores of `tabletop` are fitted to: logistic regression on rendered clutter.

    python benchmarks/scores.py SHAPES.npz [COUNT] [SEED]

Prints the weights of what `tabletop.evidence` returns, with the network and by geometry alone.
Scenes are those of `clutter.py`; take another seed than what scores are judged by.
"""

import sys
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from clutter import cluttered
from clutter import is_found
from scipy.optimize import minimize

from img2scene_ros.detection import tabletop
from img2scene_ros.detection.tabletop import TabletopOptions
from img2scene_ros.pipeline import Pipeline
from img2scene_ros.pipeline import PipelineOptions

RIDGE = 1e-3  # weight of the squared weights


def main(shapes: str, count: str = '120', seed: str = '11') -> None:
    """Print the weights."""
    scenes = list(cluttered(shapes, int(count), int(seed)))
    for network in ('bundled', 'none'):
        pipeline = Pipeline(
            PipelineOptions(detector='tabletop', reconstructor='box'),
            {'tabletop': TabletopOptions(network=network, min_score=0.0)})
        evidence: list[np.ndarray] = []
        is_right: list[bool] = []
        with patch.object(tabletop, 'evidence', recorded(evidence)):
            for one in scenes:
                pipeline.restart()
                is_right += [is_found(found.mask, one.ids) for found in pipeline.detect(one.frame)]
        print(network, np.round(fitted(np.array(evidence), np.array(is_right)), 2).tolist())


def recorded(evidence: list[np.ndarray]) -> Callable[..., np.ndarray]:
    """Return `tabletop.evidence`, which puts its answers into a list, too."""
    original = tabletop.evidence

    def record(*given: Any) -> np.ndarray:
        evidence.append(original(*given))
        return evidence[-1]

    return record


def fitted(evidence: np.ndarray, is_right: np.ndarray) -> np.ndarray:
    """Return the weights, (K,), of evidence (N, K) that make what is right (N,) most likely."""
    sign = 2.0 * is_right - 1.0
    return minimize(lambda weights: (
        np.logaddexp(0.0, -sign * (evidence @ weights)).mean()
        + RIDGE * (weights[1:] ** 2).sum()), np.zeros(evidence.shape[1])).x


if __name__ == '__main__':
    torch.set_num_threads(1)
    main(*sys.argv[1:])
