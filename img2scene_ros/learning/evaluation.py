# SPDX-License-Identifier: Apache-2.0
"""
What evaluations share: networks, scores, baselines, and the report that they end in.

Networks are scored as volumes of 32^3 cells in the cube of a crop, [z, y, x]. Distances are in
sides of the cube, so neither depends on how far the object is away.
"""

import json
from collections import Counter
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage

from img2scene_ros.files import write_whole
from img2scene_ros.learning.dataset import Example
from img2scene_ros.learning.dataset import resized
from img2scene_ros.learning.metrics import THRESHOLDS
from img2scene_ros.learning.metrics import chamfer_and_f_score
from img2scene_ros.learning.metrics import isosurface_points
from img2scene_ros.learning.metrics import voxel_iou
from img2scene_ros.learning.samples import coarser
from img2scene_ros.models.crop import CropView
from img2scene_ros.models.networks import load_network
from img2scene_ros.models.networks import picture_size
from img2scene_ros.models.networks import read_network_config
from img2scene_ros.models.occupancy import OccupancyNetwork
from img2scene_ros.rendering.pictures import write_png
from img2scene_ros.tables import markdown_table

RESOLUTION = 32
THRESHOLD = 0.5  # of weights that tell none
POINTS = 2048  # of each surface
TAU = 1 / RESOLUTION  # of the F-score, in sides: one cell
BATCH = 16
COLOR, MASK = 'colour', 'colour + mask'  # inputs
HULL, THICK = 'visual hull of the mask', 'depth + constant thickness'  # baselines
SLICES = np.arange(RESOLUTION)[:, None, None]
ROWS = 12  # of a sheet of networks' answers
COLUMNS = {'iou': 'IoU', 'best_iou': 'IoU, best threshold', 'chamfer': 'Chamfer',
           'f_score': 'F-score'}


@dataclass(frozen=True, eq=False)
class Candidate:
    """A network that is evaluated."""

    name: str  # of its folder
    network: OccupancyNetwork  # ready for use
    config: dict[str, Any]  # what its config.json tells

    @property
    def title(self) -> str:
        """Return its name and architecture."""
        return f"{self.name} ({self.config['network']})"

    def threshold(self, with_depth: bool) -> float:
        """Return above which probability users get a solid cell: the best of its validation."""
        validation = self.config.get('validation', {}).get('rgbd' if with_depth else 'rgb', {})
        return float(validation.get('threshold', THRESHOLD))


def load_candidates(folders: Sequence[Path]) -> list[Candidate]:
    """
    Read networks; those whose folders have one name go by their whole paths.

    :raises InputError: as `load_network`
    """
    names = [folder.name for folder in folders]
    return [Candidate(name if names.count(name) == 1 else str(folder), load_network(folder),
                      read_network_config(folder))
            for folder, name in zip(folders, names)]


class Answers(NamedTuple):
    """What one method answers to one kind of input."""

    method: str
    threshold: float | None  # the one that users get; None for baselines, which get the best
    constant: str  # what was chosen for a baseline, for people
    volumes: Sequence[np.ndarray]  # (R, R, R) each, probabilities, or bool


@dataclass(frozen=True, eq=False)
class Case:
    """What baselines and scores need of one object and one kind of input."""

    truth: np.ndarray  # the solid, (R, R, R) bool
    # by the baselines that the input allows, what they are made of: (R, R, R) int, -1 = none
    layers: dict[str, np.ndarray]

    @cached_property
    def surface(self) -> np.ndarray:
        """Return points of the true surface, (2048, 3) cube sides."""
        return surface_of(self.truth)


def case_of(example: Example) -> Case:
    """Keep what is needed of an example."""
    layers = {}
    if example.mask is not None:
        layers[HULL] = np.where(hull_of(example.mask, example.half_field), SLICES, -1)
        if example.depth is not None:
            layers[THICK] = layers_behind(example)
    return Case(coarser(example.occupancy, RESOLUTION), layers)


def counted(progress: Callable[[int, int], None], total: int) -> Callable[[], None]:
    """Return what tells the progress of one more of all steps."""
    steps = count(1)
    return lambda: progress(min(next(steps), total), total)


@torch.inference_mode()
def predict(
    candidate: Candidate, examples: Sequence[Example], step: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """
    Return the probability of every cell, (N, R, R, R).

    :param step: is called after every example
    """
    size = picture_size(candidate.config)
    volumes = []
    for first in range(0, len(examples), BATCH):
        batch = [resized(example, size) for example in examples[first:first + BATCH]]
        pictures = torch.from_numpy(np.stack([example.channels for example in batch]))
        half_fields = torch.tensor(
            [example.half_field for example in batch], dtype=torch.float32)
        logits = candidate.network.reached(pictures, half_fields, RESOLUTION)
        volumes.append(logits.sigmoid().numpy())
        for _ in batch:
            step()
    return np.concatenate(volumes)


def answers(
    candidates: Sequence[Candidate], examples: Sequence[Example], cases: Sequence[Case],
    means: Sequence[np.ndarray] | None, step: Callable[[], None],
) -> Iterator[Answers]:
    """Yield what networks and then baselines answer; the parameters are theirs."""
    with_depth = any(example.depth is not None for example in examples)
    for candidate in candidates:
        yield Answers(candidate.title, candidate.threshold(with_depth), '',
                      predict(candidate, examples, step))
    yield from baselines(cases, means)


def scores_of(answers: Answers, cases: Sequence[Case]) -> np.ndarray:
    """
    Score answers object by object.

    :return: (N, T + 3) the IoUs at THRESHOLDS, then IoU, Chamfer distance and F-score of what lies
        above the threshold
    """
    level = 0.5 if answers.threshold is None else answers.threshold
    return np.array([np.append(
        voxel_iou(volume, case.truth, np.append(THRESHOLDS, level)),
        chamfer_and_f_score(surface_of(volume, level), case.surface, TAU))
        for volume, case in zip(answers.volumes, cases)])


def summary(
    name: str, answers: Answers, scores: np.ndarray, categories: Sequence[str],
) -> dict[str, Any]:
    """
    Return the means over all objects and over each category, as JSON values.

    :param name: of the input
    :param scores: as `scores_of`
    """
    means = scores[:, :len(THRESHOLDS)].mean(axis=0)
    best = int(means.argmax())
    columns = dict(zip(COLUMNS, scores[:, [-3, best, -2, -1]].T))
    of_category = np.array(categories)
    found = {
        'method': answers.method, 'input': name,
        **{name: float(values.mean()) for name, values in columns.items()},
        'per_category': {
            category: {name: float(values[of_category == category].mean())
                       for name, values in columns.items()}
            for category in sorted(set(categories))}}
    if answers.threshold is None:
        return {**found, 'constant': answers.constant}
    return {
        **found, 'threshold': answers.threshold, 'best_threshold': float(THRESHOLDS[best]),
        'per_threshold': {f'{threshold:.2f}': float(mean)
                          for threshold, mean in zip(THRESHOLDS, means)}}


def surface_of(volume: np.ndarray, level: float = 0.5) -> np.ndarray:
    """
    Draw points from the surface of a volume, always the same.

    :return: (2048, 3) cube sides; without any solid cell all in the middle
    """
    points = isosurface_points(
        volume.astype(np.float32), POINTS, level, np.random.default_rng(0))
    if not len(points):
        return np.full((1, 3), (len(volume) - 1) / 2) / len(volume)
    return points / len(volume)


def _pixels(half_field: float, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return row and column of the pixel that shows each cell's centre, and where there is one."""
    view = CropView(np.eye(3), half_field)
    pixels = view.camera(size).project(view.cube(1.0).centers(RESOLUTION))
    u, v = np.moveaxis(np.nan_to_num(np.rint(pixels), nan=-1).astype(int), -1, 0)
    inside = (u >= 0) & (u < size) & (v >= 0) & (v < size)
    return np.where(inside, v, 0), np.where(inside, u, 0), inside


def hull_of(mask: np.ndarray, half_field: float) -> np.ndarray:
    """Return the cells of the cube whose centres are seen through a mask, (R, R, R) bool."""
    v, u, inside = _pixels(half_field, len(mask))
    return mask[v, u] & inside


def layers_behind(example: Example) -> np.ndarray:
    """
    Return how many cells each cell's centre lies behind the measured surface, rounded up.

    Pixels of the mask without a reading take the nearest one of the mask.

    :param example: with mask and depth
    :return: (R, R, R) int, from 0 (at most half a cell before it); -1 outside of the hull and
        in front of the surface
    """
    mask, depth = example.mask, example.depth
    assert mask is not None and depth is not None
    read = mask & np.isfinite(depth)
    _, (rows, columns) = ndimage.distance_transform_edt(~read, return_indices=True)
    cube = CropView(np.eye(3), example.half_field).cube(example.anchor)
    v, u, _ = _pixels(example.half_field, len(mask))
    measured = depth[rows, columns][v, u]
    cells = (cube.centers(RESOLUTION)[..., 2] - measured) / cube.side * RESOLUTION
    seen = hull_of(mask, example.half_field) & (cells >= -0.5)
    return np.where(seen, np.ceil(cells).clip(0, 127), -1).astype(int)


def best_layers(
    layers: Sequence[np.ndarray], truths: Sequence[np.ndarray], most: int = RESOLUTION,
) -> tuple[int, int]:
    """
    Return the first and the last layer between which layers fit the truths best.

    The best are those with the greatest mean IoU over these very truths, which flatters whatever
    is made of them.

    :param layers: (R, R, R) int each, -1 = none
    :param truths: (R, R, R) bool each
    :param most: the first layer is less than this
    """
    counts = [[np.bincount(some[some >= 0], minlength=RESOLUTION + 1)[:RESOLUTION + 1]
               for some in (layer.ravel(), layer[truth])] for layer, truth in zip(layers, truths)]
    below = np.pad(np.cumsum(counts, axis=2), [(0, 0), (0, 0), (1, 0)])
    # [n, first, after the last]
    filled, shared = np.moveaxis(below[:, :, None, :] - below[:, :, :most, None], 1, 0)
    volumes = np.array([np.count_nonzero(truth) for truth in truths])[:, None, None]
    ious = (shared / np.maximum(filled + volumes - shared, 1)).mean(axis=0)
    first, end = np.unravel_index(ious.argmax(), ious.shape)
    return int(first), int(end) - 1


def baselines(cases: Sequence[Case], means: Sequence[np.ndarray] | None) -> Iterator[Answers]:
    """
    Yield what a network must be better than, each at its best constant for these very cases.

    :param means: per object the mean shape, (R, R, R) shares; None without
    :return: those that the cases' channels allow
    """
    truths = [case.truth for case in cases]
    if means is not None:
        ious = [voxel_iou(mean, truth, THRESHOLDS) for mean, truth in zip(means, truths)]
        level = THRESHOLDS[np.mean(ious, axis=0).argmax()]
        yield Answers('mean shape', None, f'above {level:.2f}', [mean > level for mean in means])
    for name, most in ((HULL, RESOLUTION), (THICK, 1)):
        if all(name in case.layers for case in cases):
            layers = [case.layers[name] for case in cases]
            first, last = best_layers(layers, truths, most)
            constant = f'slices {first} to {last} of {RESOLUTION}' if name == HULL else \
                f'{last / RESOLUTION:.2f} sides'
            yield Answers(name, None, constant, [
                (layer >= first) & (layer <= last) for layer in layers])


def means_of_others(
    truths: Sequence[np.ndarray], groups: Sequence[Any], owners: Sequence[Any],
) -> list[np.ndarray] | None:
    """
    Return for every object the mean of the objects of its group that have another owner.

    :param truths: (R, R, R) bool each
    :param groups: categories
    :param owners: shapes
    :return: (R, R, R) shares each; None when an object has no other to go by
    """
    sums: dict[Any, np.ndarray] = {}
    counts: Counter[Any] = Counter()
    for truth, *keys in zip(truths, groups, zip(groups, owners)):
        for key in keys:
            sums[key] = sums.get(key, 0) + truth.astype(np.float32)
            counts[key] += 1
    means = {}
    for group, owner in set(zip(groups, owners)):
        others = counts[group] - counts[group, owner]
        if not others:
            return None
        means[group, owner] = (sums[group] - sums[group, owner]) / others
    return [means[key] for key in zip(groups, owners)]


@dataclass(frozen=True, eq=False)
class Report:
    """What an evaluation found."""

    values: dict[str, Any]  # for JSON
    markdown: str  # the tables
    sheet: np.ndarray  # (H, W, 3) uint8, RGB
    skipped: Sequence[str] = ()  # what could not be used, with the reason


def write_report(
    report: Report, json_file: Path | None, markdown_file: Path | None, sheet_file: Path | None,
) -> list[Path]:
    """
    Write the files that are wanted; each changes as a whole or not at all.

    :return: those that were written
    :raises InputError: one cannot be written
    """
    values = json.dumps(report.values, indent=1) + '\n'
    for path, text in ((json_file, values), (markdown_file, report.markdown)):
        if path is not None:
            write_whole(path, text.encode())
    if sheet_file is not None:
        write_png(sheet_file, report.sheet)
    return [path for path in (json_file, markdown_file, sheet_file) if path is not None]


def score_tables(summaries: Sequence[dict[str, Any]]) -> str:
    """Return the tables of `summary`: the means, per category, per threshold."""
    means = [[one['input'], one['method'], *(one[name] for name in COLUMNS), _remark(one)]
             for one in summaries]
    categories = sorted(summaries[0]['per_category'])
    by_category = [
        [one['input'], one['method'],
         *(one['per_category'][category]['iou'] for category in categories)]
        for one in summaries]
    networks = [one for one in summaries if 'per_threshold' in one]
    by_threshold = [[one['input'], one['method'], *one['per_threshold'].values()]
                    for one in networks]
    parts = [
        markdown_table(['input', 'method', *COLUMNS.values(), ''], means),
        'IoU per category:', markdown_table(['input', 'method', *categories], by_category)]
    if networks:
        thresholds = list(networks[0]['per_threshold'])
        parts += ['IoU per threshold:',
                  markdown_table(['input', 'method', *thresholds], by_threshold)]
    return '\n\n'.join(parts)


def _remark(one: dict[str, Any]) -> str:
    if 'threshold' in one:
        return f"threshold {one['threshold']:g}, best {one['best_threshold']:g}"
    return one['constant']
