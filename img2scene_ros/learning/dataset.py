# SPDX-License-Identifier: Apache-2.0
"""
Crops as trainings and evaluations read them.

Position p of a training run is sample p % N of a shuffled epoch. So a run that stops and goes on
sees what it would have seen, whatever the number of processes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from functools import lru_cache
from typing import Any
from typing import TypeVar

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from img2scene_ros.depth import measured
from img2scene_ros.learning.augmentation import Examples
from img2scene_ros.learning.augmentation import occupancy_at
from img2scene_ros.learning.samples import CropSample
from img2scene_ros.learning.sensors import read_depth
from img2scene_ros.models.channels import crop_channels
from img2scene_ros.models.crop import Crop
from img2scene_ros.models.crop import anchor_depth

SENSOR_WIDTH = 640  # pixels of a usual depth camera


@dataclass(eq=False)
class TrainingExamples(Dataset):
    """Crops and their solids by their position in the run."""

    samples: Sequence[CropSample]  # any number but none
    seed: int
    size: int = 0  # pixels of a side of the pictures; 0 leaves them as they are

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, position: int) -> Examples:
        """Return one of `Examples`, as `tensors_of`."""
        number = sample_at(position, len(self.samples), self.seed)
        sample = self.samples[number]
        return tensors_of(replace(sample, crop=resized(sample.crop, self.size)))


def tensors_of(sample: CropSample) -> Examples:
    """Return one of `Examples`, with its anchor () and occupancy (64, 64, 64) bool."""
    crop = sample.crop
    return {
        'color': torch.from_numpy(np.ascontiguousarray(crop.color.transpose(2, 0, 1))),
        'depth': torch.from_numpy(measured(crop.depth)), 'mask': torch.from_numpy(crop.mask),
        'half_field': torch.tensor(crop.view.half_field, dtype=torch.float32),
        'magnification': torch.tensor(magnification(sample), dtype=torch.float32),
        'anchor': torch.tensor(sample.anchor, dtype=torch.float32),
        'occupancy': torch.from_numpy(sample.occupancy)}


def magnification(sample: CropSample) -> float:
    """Return pixels of a crop per pixel of a usual sensor."""
    camera = sample.camera
    focal = sample.crop.view.camera(len(sample.crop.mask)).fx
    return focal / camera.fx * camera.width / SENSOR_WIDTH


@lru_cache(maxsize=2)
def shuffled_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """Return the order of an epoch, a permutation of 0 to count - 1."""
    return np.random.default_rng((seed, 0, epoch)).permutation(count)


def sample_at(position: int, count: int, seed: int) -> int:
    """Return which of so many samples has a position in the run."""
    epoch, place = divmod(position, count)
    return int(shuffled_order(count, seed, epoch)[place])


def positions_of(
    rank: int, processes: int, batch: int, first_step: int, last_step: int,
) -> range:
    """
    Return the positions that one of several processes reads, in order.

    :param batch: examples per step, of all processes together; a multiple of `processes`
    :param first_step: first step to do
    :param last_step: the step before which to end
    """
    return range(first_step * batch + rank, last_step * batch, processes)


@dataclass(frozen=True, eq=False)
class Example:
    """What a network gets of one object, and what it shall answer."""

    color: np.ndarray  # (S, S, 3) uint8, RGB
    mask: np.ndarray | None  # (S, S) bool, None = no mask
    # (S, S) metres along the crop's axis, NaN = no reading; None = no depth
    depth: np.ndarray | None
    anchor: float  # metres
    half_field: float  # tangent of half the angle that the crop spans
    occupancy: np.ndarray  # (64, 64, 64) bool of the cube at the anchor

    @property
    def channels(self) -> np.ndarray:
        """Return what the network is fed, (6, S, S)."""
        return crop_channels(self.color, self.mask, self.depth, self.anchor, self.half_field)


Pictured = TypeVar('Pictured', Crop, Example)


def plain_example(sample: CropSample, with_depth: bool) -> Example:
    """Return a sample as it is."""
    crop = sample.crop
    return Example(crop.color, crop.mask, crop.depth if with_depth else None, sample.anchor,
                   crop.view.half_field, sample.occupancy)


def noisy_example(sample: CropSample, random: np.random.Generator) -> Example:
    """
    Return a sample with the depth that a usual depth camera, of any kind, would have read.

    The cube goes to the measured anchor, without readings in the mask it stays at the true one. An
    error that all readings share would move it with the object, so it is left out.
    """
    crop = sample.crop
    camera = crop.view.camera(len(crop.mask))
    depth = read_depth(measured(crop.depth), camera, random, crop.color, None,
                       magnification=magnification(sample), is_calibrated=True)
    anchor = anchor_depth(depth, crop.mask)
    if anchor is None:
        return plain_example(sample, with_depth=False)
    one = {name: value[None] for name, value in tensors_of(sample).items()}
    occupancy = occupancy_at(one, torch.tensor([anchor]), len(sample.occupancy))[0].numpy()
    return Example(crop.color, crop.mask, depth, anchor, crop.view.half_field, occupancy)


def resized(pictures: Pictured, size: int) -> Pictured:
    """
    Return a crop or an example whose pictures have another size; its cube stays where it is.

    :param size: pixels of a side; 0 leaves them as they are
    """
    if size in (0, len(pictures.color)):
        return pictures

    color = cv2.resize(pictures.color, (size, size), interpolation=cv2.INTER_AREA)
    # The nearest reading: a mean across an edge would lie on neither side.
    others: dict[str, Any] = {
        name: None if image is None else cv2.resize(
            image.astype(np.float32), (size, size), interpolation=cv2.INTER_NEAREST_EXACT,
        ).astype(image.dtype)
        for name, image in (('mask', pictures.mask), ('depth', pictures.depth))}
    return replace(pictures, color=color, **others)
