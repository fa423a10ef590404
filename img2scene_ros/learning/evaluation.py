# SPDX-License-Identifier: Apache-2.0
"""
What evaluations share: networks, scores, baselines, and the report that they end in.

Networks are scored as volumes of 32^3 cells in the cube of a crop, [z, y, x]. Distances are in
sides of the cube, so neither depends on how far the object is away.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from functools import cached_property
from operator import methodcaller
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from img2scene_ros.files import write_whole
from img2scene_ros.learning.augmentation import Example
from img2scene_ros.learning.dataset import as_tensors
from img2scene_ros.learning.dataset import resized_example
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


@torch.inference_mode()
def predict(candidate: Candidate, examples: Sequence[Example]) -> np.ndarray:
    """Return the probability of every cell, (N, R, R, R)."""
    size = picture_size(candidate.config)
    examples = [resized_example(example, size) for example in examples]
    pictures, half_fields, _ = zip(*(as_tensors(example, RESOLUTION) for example in examples))
    logits = candidate.network.reached(torch.stack(pictures), torch.stack(half_fields), RESOLUTION)
    return logits.sigmoid().numpy()


@dataclass(frozen=True, eq=False)
class Case:
    """What baselines and scores need of one object and one kind of input."""

    truth: np.ndarray  # the solid, (R, R, R) bool
    # the cells that are seen through the mask, (R, R, R) bool; None without a mask
    hull: np.ndarray | None = None
    layer: np.ndarray | None = None  # (R, R, R) int8, see `layers_behind`; None without depth

    @cached_property
    def surface(self) -> np.ndarray:
        """Return points of the true surface, (2048, 3) cube sides."""
        return surface_of(self.truth)


def case_of(example: Example) -> Case:
    """Keep what is needed of an example."""
    return Case(
        coarser(example.occupancy, RESOLUTION),
        None if example.mask is None else hull_of(example.mask, example.half_field),
        None if example.mask is None or example.depth is None else layers_behind(example))


@dataclass(eq=False)
class Scores:
    """How one method does on one kind of input, object by object."""

    method: str
    input: str
    threshold: float | None  # the one that users get; None for baselines, which get the best
    constant: str = ''  # what was chosen for a baseline, for people
    # per object the IoUs at THRESHOLDS, then IoU, Chamfer distance and F-score of what lies above
    # the threshold
    values: list[np.ndarray] = field(default_factory=list)

    def add(self, volumes: Sequence[np.ndarray], cases: Sequence[Case]) -> None:
        """
        Score answers.

        :param volumes: (R, R, R) each, probabilities, or bool
        """
        level = 0.5 if self.threshold is None else self.threshold
        for volume, case in zip(volumes, cases):
            self.values.append(np.append(
                voxel_iou(volume, case.truth, np.append(THRESHOLDS, level)),
                chamfer_and_f_score(surface_of(volume, level), case.surface, TAU)))

    def summary(self, categories: Sequence[str]) -> dict[str, Any]:
        """Return the means over all objects and over each category, as JSON values."""
        values = np.array(self.values)
        *per_threshold, iou, chamfer, f_score = values.T
        means = values[:, :len(THRESHOLDS)].mean(axis=0)
        best = int(means.argmax())
        columns = dict(zip(COLUMNS, (iou, per_threshold[best], chamfer, f_score)))
        of_category = np.array(categories)
        found = {
            'method': self.method, 'input': self.input,
            **{name: float(values.mean()) for name, values in columns.items()},
            'per_category': {
                category: {name: float(values[of_category == category].mean())
                           for name, values in columns.items()}
                for category in sorted(set(categories))}}
        if self.threshold is None:
            return {**found, 'constant': self.constant}
        return {
            **found, 'threshold': self.threshold, 'best_threshold': float(THRESHOLDS[best]),
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
    :return: (R, R, R) int8, from 0 (at most half a cell before it); -1 outside of the hull and
        in front of the surface
    """
    mask, depth = _given(example.mask), _given(example.depth)
    read = mask & np.isfinite(depth)
    _, (rows, columns) = ndimage.distance_transform_edt(~read, return_indices=True)
    cube = CropView(np.eye(3), example.half_field).cube(example.anchor)
    v, u, _ = _pixels(example.half_field, len(mask))
    measured = depth[rows, columns][v, u]
    cells = (cube.centers(RESOLUTION)[..., 2] - measured) / cube.side * RESOLUTION
    layer = np.maximum(np.ceil(cells), 0).clip(0, 127)
    seen = hull_of(mask, example.half_field) & (cells >= -0.5)
    return np.where(seen, layer, -1).astype(np.int8)


def _given(part: np.ndarray | None) -> np.ndarray:
    """Return what this kind of input always has."""
    assert part is not None
    return part


def best_extrusion(cases: Sequence[Case]) -> tuple[int, int]:
    """
    Return the first and the last slice between which hulls fit the truths best.

    The visual hull of one mask has no depth: the best constant one is the one with the greatest
    mean IoU over these very cases, which flatters the baseline.
    """
    hulls = np.stack([_given(case.hull) for case in cases])
    truths = np.stack([case.truth for case in cases])
    filled = _sums(hulls.sum(axis=(2, 3)))
    shared = _sums((hulls & truths).sum(axis=(2, 3)))
    # [n, first, after the last]
    shared = shared[:, None, :] - shared[:, :, None]
    union = (filled[:, None, :] - filled[:, :, None]
             + truths.sum(axis=(1, 2, 3))[:, None, None] - shared)
    ious = (shared / np.maximum(union, 1)).mean(axis=0)
    first, end = np.unravel_index(ious.argmax(), ious.shape)
    return int(first), int(end) - 1


def _sums(counts: np.ndarray) -> np.ndarray:
    return np.pad(np.cumsum(counts, axis=1), [(0, 0), (1, 0)])


def extruded(case: Case, first: int, last: int) -> np.ndarray:
    """Return the slices of a hull from the first to the last, (R, R, R) bool."""
    between = np.zeros((RESOLUTION, 1, 1), bool)
    between[first:last + 1] = True
    return _given(case.hull) & between


def best_thickness(cases: Sequence[Case]) -> int:
    """Return how many layers behind the measured surfaces fit the truths best."""
    ious = []
    for case in cases:
        layer, truth = _given(case.layer).ravel(), case.truth.ravel()
        filled, shared = (np.cumsum(np.bincount(some[some >= 0], minlength=RESOLUTION + 1)[
            :RESOLUTION + 1]) for some in (layer, layer[truth]))
        ious.append(shared / np.maximum(filled + truth.sum() - shared, 1))
    return int(np.mean(ious, axis=0).argmax())


def thickened(case: Case, thickness: int) -> np.ndarray:
    """Return the measured surface, so many layers thick, (R, R, R) bool."""
    layer = _given(case.layer)
    return (layer >= 0) & (layer <= thickness)


def baselines(
    cases: Sequence[Case], means: Sequence[np.ndarray] | None,
) -> dict[str, tuple[str, list[np.ndarray]]]:
    """
    Build what a network must be better than, each at its best constant for these very cases.

    :param means: per object the mean shape, (R, R, R) shares; None without
    :return: those that the cases' channels allow; by name the constant, for people, and the
        volumes, (R, R, R) bool
    """
    volumes = {}
    if means is not None:
        ious = [voxel_iou(mean, case.truth, THRESHOLDS) for mean, case in zip(means, cases)]
        level = THRESHOLDS[np.mean(ious, axis=0).argmax()]
        volumes['mean shape'] = f'above {level:.2f}', [mean > level for mean in means]
    if all(case.hull is not None for case in cases):
        first, last = best_extrusion(cases)
        volumes['visual hull of the mask'] = (
            f'slices {first} to {last} of {RESOLUTION}',
            [extruded(case, first, last) for case in cases])
    if all(case.layer is not None for case in cases):
        thick = best_thickness(cases)
        volumes['depth + constant thickness'] = (
            f'{thick / RESOLUTION:.2f} sides', [thickened(case, thick) for case in cases])
    return volumes


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
            write_whole(path, methodcaller('write', text.encode()))
    if sheet_file is not None:
        write_png(sheet_file, report.sheet)
    return [path for path in (json_file, markdown_file, sheet_file) if path is not None]


def score_tables(summaries: Sequence[dict[str, Any]]) -> str:
    """Return the tables of `Scores.summary`: the means, per category, per threshold."""
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
