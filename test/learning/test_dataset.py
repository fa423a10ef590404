# SPDX-License-Identifier: Apache-2.0
"""What a training reads depends on the seed and the position alone."""

from dataclasses import asdict

import numpy as np
import pytest
import torch
from solids import SIZE
from solids import solid_sample

from img2scene_ros.errors import InputError
from img2scene_ros.learning.augmentation import AugmentationOptions
from img2scene_ros.learning.augmentation import plain_example
from img2scene_ros.learning.data_config import RenderOptions
from img2scene_ros.learning.dataset import TrainingExamples
from img2scene_ros.learning.dataset import as_tensors
from img2scene_ros.learning.dataset import batches_of
from img2scene_ros.learning.dataset import open_samples
from img2scene_ros.learning.dataset import positions_of
from img2scene_ros.learning.dataset import resized
from img2scene_ros.learning.dataset import resized_example
from img2scene_ros.learning.dataset import shuffled_order
from img2scene_ros.learning.dataset import validation_example
from img2scene_ros.learning.samples import coarser
from img2scene_ros.learning.samples import encode_crop
from img2scene_ros.learning.samples import write_index
from img2scene_ros.learning.samples import write_shard


def examples(seed: int = 0) -> TrainingExamples:
    return TrainingExamples(
        [solid_sample(number) for number in range(4)], AugmentationOptions(), seed, 32)


def test_example_is_what_the_networks_take():
    picture, half_field, occupancy = examples()[0]
    assert picture.shape == (6, SIZE, SIZE) and picture.dtype == torch.float32
    assert half_field.shape == () and half_field.dtype == torch.float32
    assert occupancy.shape == (32, 32, 32) and occupancy.dtype == torch.bool


def test_positions_repeat_and_differ():
    for position in (0, 3, 9):
        for one, other in zip(examples()[position], examples()[position]):
            assert torch.equal(one, other)
    pictures = [examples()[position][0] for position in range(8)]
    assert not any(torch.equal(pictures[0], other) for other in pictures[1:])
    assert not torch.equal(examples(0)[0][0], examples(1)[0][0])


def test_every_epoch_holds_every_sample_in_another_order():
    orders = [tuple(shuffled_order(20, 0, epoch)) for epoch in range(3)]
    assert all(sorted(order) == list(range(20)) for order in orders)
    assert len(set(orders)) == 3


def test_processes_share_the_positions():
    alone = list(positions_of(0, 1, 6, 2, 5))
    assert alone == list(range(12, 30))
    parts = [list(positions_of(rank, 3, 6, 2, 5)) for rank in range(3)]
    assert sorted(sum(parts, [])) == alone
    assert all(len(part) == 6 for part in parts)
    # Whatever the number of processes, a step has the same examples.
    assert sorted(parts[0][:2] + parts[1][:2] + parts[2][:2]) == alone[:6]


def test_scaled_crop_shows_the_same():
    sample = solid_sample(1)
    half = resized(sample, SIZE // 2)
    assert half.crop.color.shape == (SIZE // 2, SIZE // 2, 3)
    assert half.cube == sample.cube and half.crop.view == sample.crop.view
    again = half.crop.mask.repeat(2, 0).repeat(2, 1)
    assert (again & sample.crop.mask).sum() > 0.9 * (again | sample.crop.mask).sum()
    seen = half.crop.mask
    assert np.isfinite(half.crop.depth[seen]).all(), 'mask and depth come from the same pixels'
    np.testing.assert_allclose(
        np.median(half.crop.depth[seen]), sample.anchor, atol=0.02 * sample.cube.side)
    assert resized(sample, 0) is sample


@pytest.mark.parametrize('with_depth', (True, False))
def test_scaled_example_is_the_example_of_the_scaled_crop(with_depth):
    sample = solid_sample(2)
    scaled = resized_example(plain_example(sample, with_depth), SIZE // 2)
    expected = plain_example(resized(sample, SIZE // 2), with_depth)
    for one, other in zip(as_tensors(scaled, 16), as_tensors(expected, 16)):
        assert torch.equal(one, other)


def test_cell_is_filled_if_any_part_of_it_is():
    volume = np.zeros((64, 64, 64), bool)
    volume[5, 10, 63] = volume[63, 0, 0] = True
    coarse = coarser(volume, 16)
    assert coarse.shape == (16, 16, 16)
    assert np.argwhere(coarse).tolist() == [[1, 2, 15], [15, 0, 0]]
    np.testing.assert_array_equal(coarser(volume, 64), volume)


def test_validation_is_always_the_same_and_has_depth_or_not():
    samples = [solid_sample(number) for number in range(3)]
    with_depth, same, without = (
        next(batches_of([validation_example(sample, number, how)
                         for number, sample in enumerate(samples)], 32, 8))
        for how in (True, True, False))
    for one, other in zip(with_depth, same):
        assert torch.equal(one, other)
    assert with_depth[0][:, 5].flatten(1).any(dim=1).all() and not without[0][:, 4:].any()
    for occupancy, sample in zip(without[2], samples):
        assert torch.equal(occupancy, torch.from_numpy(sample.occupancy_at(32)))


@pytest.fixture
def folder(tmp_path):
    shards = []
    for shard in range(2):
        shards.append(f'shard_{shard:05d}.npz')
        write_shard(tmp_path / shards[-1],
                    [encode_crop(solid_sample(3 * shard + number)) for number in range(3)])
    write_index(tmp_path, {
        'options': asdict(RenderOptions(samples=6, shard_samples=3)), 'shards': shards})
    return tmp_path


def test_shards_are_read(folder):
    samples = open_samples(folder)
    assert [sample.truth.label for sample in samples] == ['ball', 'box'] * 3
    np.testing.assert_array_equal(samples[4].occupancy, solid_sample(4).occupancy)


@pytest.mark.parametrize('damage', [
    lambda path: path.write_bytes(path.read_bytes()[:1000]),
    lambda path: path.write_bytes(b'no archive'),
    lambda path: path.write_bytes(b''),
    lambda path: path.unlink(),
])
def test_broken_shard_is_one_sentence_at_the_start(folder, damage):
    damage(folder / 'shard_00001.npz')
    with pytest.raises(InputError, match='shard') as caught:
        open_samples(folder)
    assert '\n' not in str(caught.value) and 'img2scene render' in str(caught.value)
