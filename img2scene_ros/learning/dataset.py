# SPDX-License-Identifier: Apache-2.0
"""
What the training reads: examples in an order that only the seed and the position decide.

Position p of a training run is sample p % N of a shuffled epoch, augmented with chance of its own.
So a run that stops and goes on sees what it would have seen, whatever the number of processes.
"""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from img2scene_ros.learning.augmentation import AugmentationOptions
from img2scene_ros.learning.augmentation import Example
from img2scene_ros.learning.augmentation import augment
from img2scene_ros.learning.augmentation import noisy_example
from img2scene_ros.learning.augmentation import plain_example
from img2scene_ros.learning.samples import CropSample
from img2scene_ros.learning.samples import CropSamples
from img2scene_ros.learning.samples import coarser
from img2scene_ros.models.channels import crop_channels
from img2scene_ros.models.crop import Crop


def open_samples(*folders: Path) -> CropSamples:
    """
    Open data sets of crops and read all of their shards, so that what is broken shows at once.

    :raises InputError: as `CropSamples` and `read_shard`
    """
    samples = CropSamples(*folders)
    samples.read()
    return samples


@dataclass(eq=False)
class TrainingExamples(Dataset):
    """Augmented examples by their position in the run."""

    samples: Sequence[CropSample]  # any number but none
    options: AugmentationOptions
    seed: int
    resolution: int  # of the volumes
    size: int = 0  # pixels of a side of the pictures; 0 leaves them as they are

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, position: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return picture (6, S, S), half field () and occupancy (R, R, R) bool."""
        random = np.random.default_rng((self.seed, 1, position))
        sample = resized(
            self.samples[sample_at(position, len(self.samples), self.seed)], self.size)
        example = augment(sample, random, self.options)
        return as_tensors(example, self.resolution)


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


def validation_example(sample: CropSample, number: int, with_depth: bool) -> Example:
    """Return a sample as it is, with usual depth noise that its number seeds or without depth."""
    if not with_depth:
        return plain_example(sample, with_depth=False)
    return noisy_example(sample, np.random.default_rng((2, number)))


def resized(sample: CropSample, size: int) -> CropSample:
    """
    Return a sample whose pictures have another size; its cube stays where it is.

    :param size: pixels of a side; 0 leaves them as they are
    """
    crop = sample.crop
    if size in (0, len(crop.mask)):
        return sample
    color, mask, depth = _scaled(crop.color, crop.mask, crop.depth, size)
    assert mask is not None  # as the crop has one
    return replace(sample, crop=Crop(crop.view, color, mask, depth))


def resized_example(example: Example, size: int) -> Example:
    """Return an example whose pictures have another size, as `resized`."""
    if size == len(example.color):
        return example
    color, mask, depth = _scaled(example.color, example.mask, example.depth, size)
    return replace(example, color=color, mask=mask, depth=depth)


def _scaled(
    color: np.ndarray, mask: np.ndarray | None, depth: np.ndarray | None, size: int,
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    color = cv2.resize(color, (size, size), interpolation=cv2.INTER_AREA)
    # The nearest reading: a mean across an edge would lie on neither side.
    mask, depth = (
        None if image is None else
        cv2.resize(image, (size, size), interpolation=cv2.INTER_NEAREST_EXACT)
        for image in (None if mask is None else mask.astype(np.uint8), depth))
    return color, None if mask is None else mask > 0, depth


def as_tensors(
    example: Example, resolution: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return picture (6, S, S), half field () and occupancy (R, R, R) bool."""
    picture = crop_channels(
        example.color, example.mask, example.depth, example.anchor, example.half_field)
    return (torch.from_numpy(picture), torch.tensor(example.half_field, dtype=torch.float32),
            torch.from_numpy(coarser(example.occupancy, resolution)))


def batches_of(
    examples: Iterable[Example], resolution: int, batch: int,
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Yield what `as_tensors` returns of so many examples at once."""
    tensors = (as_tensors(example, resolution) for example in examples)
    while some := list(islice(tensors, batch)):
        pictures, half_fields, occupancies = (torch.stack(part) for part in zip(*some))
        yield pictures, half_fields, occupancies
