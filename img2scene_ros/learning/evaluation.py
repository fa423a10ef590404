# SPDX-License-Identifier: Apache-2.0
"""
What the evaluations of voxel networks share: networks, scores, baselines.

Everything is scored as a volume of 32^3 cells in the cube of its crop, [z, y, x]. Distances are in
sides of the cube, so neither depends on how far the object is away.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from img2scene_ros.learning.augmentation import Example
from img2scene_ros.learning.dataset import as_tensors
from img2scene_ros.learning.dataset import resized_example
from img2scene_ros.learning.metrics import best_threshold
from img2scene_ros.learning.metrics import chamfer_and_f_score
from img2scene_ros.learning.metrics import isosurface_points
from img2scene_ros.learning.metrics import voxel_iou
from img2scene_ros.learning.samples import coarser
from img2scene_ros.models.crop import CropView
from img2scene_ros.models.networks import load_network
from img2scene_ros.models.networks import picture_size
from img2scene_ros.models.networks import read_network_config
from img2scene_ros.models.occupancy import OccupancyNetwork

RESOLUTION = 32
THRESHOLDS = np.arange(2, 15) / 20  # .10 to .70
THRESHOLD = 0.5  # of weights that tell none
POINTS = 2048  # of each surface
TAU = 1 / RESOLUTION  # of the F-score, in sides: one cell
BATCH = 16


@dataclass(frozen=True, eq=False)
class Candidate:
    """
    A network that is evaluated.

    - name: of its folder
    - network: ready for use
    - config: what its config.json tells
    """

    name: str
    network: OccupancyNetwork
    config: dict[str, Any]

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
    candidates = []
    for folder, name in zip(folders, names):
        candidates.append(Candidate(
            name if names.count(name) == 1 else str(folder), load_network(folder),
            read_network_config(folder)))
    return candidates


@torch.inference_mode()
def predict(candidate: Candidate, examples: Sequence[Example]) -> np.ndarray:
    """Return the probability of every cell, (N, R, R, R)."""
    size = picture_size(candidate.config)
    examples = [resized_example(example, size) for example in examples]
    pictures, half_fields, _ = zip(*(as_tensors(example, RESOLUTION) for example in examples))
    logits = candidate.network.reached(torch.stack(pictures), torch.stack(half_fields), RESOLUTION)
    return logits.sigmoid().numpy()


@dataclass(eq=False)
class Scores:
    """
    How one method does on one kind of input, object by object.

    - threshold: the one that users get; None for baselines, which get the best
    - constant: what was chosen for a baseline, for people
    - ious: (T + 1,) per object, at THRESHOLDS and the threshold itself
    - chamfer, f_score: per object, of the surface at the threshold
    """

    method: str
    input: str
    threshold: float | None
    constant: str = ''
    ious: list[np.ndarray] = field(default_factory=list)
    chamfer: list[float] = field(default_factory=list)
    f_score: list[float] = field(default_factory=list)

    def add(self, volume: np.ndarray, truth: np.ndarray, truth_points: np.ndarray) -> None:
        """
        Score one object.

        :param volume: (R, R, R), probabilities, or bool
        :param truth: (R, R, R) bool
        :param truth_points: `surface_of` it
        """
        level = 0.5 if self.threshold is None else self.threshold
        self.ious.append(voxel_iou(volume, truth, np.append(THRESHOLDS, level)))
        chamfer, f_score = chamfer_and_f_score(surface_of(volume, level), truth_points, TAU)
        self.chamfer.append(chamfer)
        self.f_score.append(f_score)

    def summary(self, categories: Sequence[str]) -> dict[str, Any]:
        """Return the means over all objects and over each category, as JSON values."""
        ious = np.array(self.ious)
        best = best_threshold(ious[:, :-1], THRESHOLDS)
        columns = {
            'iou': ious[:, -1], 'best_iou': ious[:, best], 'chamfer': np.array(self.chamfer),
            'f_score': np.array(self.f_score)}
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
        per_threshold = ious[:, :-1].mean(axis=0)
        return {
            **found, 'threshold': self.threshold, 'best_threshold': float(THRESHOLDS[best]),
            'per_threshold': {f'{threshold:.2f}': float(mean)
                              for threshold, mean in zip(THRESHOLDS, per_threshold)}}


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


@dataclass(frozen=True, eq=False)
class Case:
    """
    What baselines and scores need of one object and one kind of input, small enough to keep.

    - truth: packed bits of the solid, (R, R, R)
    - hull: packed bits of the cells that are seen through the mask; None without a mask
    - layer: (R, R, R) int8, see `layers_behind`; None without depth
    """

    truth: np.ndarray
    hull: np.ndarray | None
    layer: np.ndarray | None


def case_of(example: Example) -> Case:
    """Keep what is needed of an example."""
    hull = layer = None
    if example.mask is not None:
        hull = np.packbits(hull_of(example.mask, example.half_field))
        if example.depth is not None:
            layer = layers_behind(example)
    return Case(np.packbits(coarser(example.occupancy, RESOLUTION)), hull, layer)


def unpacked(bits: np.ndarray) -> np.ndarray:
    """Return a packed volume, (R, R, R) bool."""
    return np.unpackbits(bits).reshape((RESOLUTION,) * 3).view(bool)


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
    read = example.mask & np.isfinite(example.depth)
    _, (rows, columns) = ndimage.distance_transform_edt(~read, return_indices=True)
    cube = CropView(np.eye(3), example.half_field).cube(example.anchor)
    v, u, _ = _pixels(example.half_field, len(example.mask))
    measured = example.depth[rows, columns][v, u]
    cells = (cube.centers(RESOLUTION)[..., 2] - measured) / cube.side * RESOLUTION
    layer = np.maximum(np.ceil(cells), 0).clip(0, 127)
    seen = hull_of(example.mask, example.half_field) & (cells >= -0.5)
    return np.where(seen, layer, -1).astype(np.int8)


def best_extrusion(cases: Sequence[Case]) -> tuple[int, int]:
    """
    Return the first and the last slice between which hulls fit the truths best.

    The visual hull of one mask has no depth: the best constant one is the one with the greatest
    mean IoU over these very cases, which flatters the baseline.
    """
    hulls = np.stack([unpacked(case.hull) for case in cases])
    truths = np.stack([unpacked(case.truth) for case in cases])
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
    return unpacked(case.hull) & between


def best_thickness(cases: Sequence[Case]) -> int:
    """Return how many layers behind the measured surfaces fit the truths best."""
    ious = []
    for case in cases:
        layer, truth = case.layer.ravel(), unpacked(case.truth).ravel()
        filled, shared = (np.cumsum(np.bincount(some[some >= 0], minlength=RESOLUTION + 1)[
            :RESOLUTION + 1]) for some in (layer, layer[truth]))
        ious.append(shared / np.maximum(filled + truth.sum() - shared, 1))
    return int(np.mean(ious, axis=0).argmax())


def thickened(case: Case, thickness: int) -> np.ndarray:
    """Return the measured surface, so many layers thick, (R, R, R) bool."""
    return (case.layer >= 0) & (case.layer <= thickness)


def baselines(
    cases: dict[str, list[Case]], means: Sequence[np.ndarray] | None,
) -> list[Scores]:
    """
    Score what a network must be better than.

    :param cases: by input, the same objects in the same order
    :param means: as `baseline_volumes`
    :return: for every input those that its channels allow
    """
    scores = []
    for name, some in cases.items():
        truths = [unpacked(case.truth) for case in some]
        points = [surface_of(truth) for truth in truths]
        for method, (constant, volumes) in baseline_volumes(some, means).items():
            score = Scores(method, name, None, constant)
            for one in zip(volumes, truths, points):
                score.add(*one)
            scores.append(score)
    return scores


def baseline_volumes(
    cases: Sequence[Case], means: Sequence[np.ndarray] | None,
) -> dict[str, tuple[str, list[np.ndarray]]]:
    """
    Build the baselines that the cases' channels allow, each at its best constant for these cases.

    :param means: per object the mean shape, (R, R, R) shares; None without
    :return: by name, the constant, for people, and the volumes, (R, R, R) bool
    """
    volumes = {}
    if means is not None:
        ious = [voxel_iou(mean, unpacked(case.truth), THRESHOLDS)
                for mean, case in zip(means, cases)]
        level = THRESHOLDS[best_threshold(np.array(ious), THRESHOLDS)]
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


def means_of_others(truths: Sequence[np.ndarray], groups: Sequence[Any], owners: Sequence[Any],
                    ) -> list[np.ndarray] | None:
    """
    Return for every object the mean of the objects of its group that have another owner.

    :param truths: packed bits of solids
    :param groups: categories
    :param owners: shapes
    :return: (R, R, R) shares each; None when an object has no other to go by
    """
    solids = [unpacked(bits) for bits in truths]
    sums: dict[Any, np.ndarray] = {}
    counts: dict[Any, int] = {}
    for solid, *keys in zip(solids, groups, zip(groups, owners)):
        for key in keys:
            sums[key] = sums.get(key, 0) + solid.astype(np.float32)
            counts[key] = counts.get(key, 0) + 1
    means = {}
    for group, owner in set(zip(groups, owners)):
        others = counts[group] - counts[group, owner]
        if not others:
            return None
        means[group, owner] = (sums[group] - sums[group, owner]) / others
    return [means[key] for key in zip(groups, owners)]
