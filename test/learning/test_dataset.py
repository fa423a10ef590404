# SPDX-License-Identifier: Apache-2.0
"""What a training reads depends on the seed and the position alone."""

from dataclasses import asdict
from dataclasses import replace

import numpy as np
import pytest
from solids import SIZE
from solids import solid_sample

from img2scene_ros.errors import InputError
from img2scene_ros.learning.data_config import RenderOptions
from img2scene_ros.learning.dataset import TrainingExamples
from img2scene_ros.learning.dataset import plain_example
from img2scene_ros.learning.dataset import positions_of
from img2scene_ros.learning.dataset import resized
from img2scene_ros.learning.dataset import shuffled_order
from img2scene_ros.learning.samples import CropSamples
from img2scene_ros.learning.samples import coarser
from img2scene_ros.learning.samples import encode_crop
from img2scene_ros.learning.samples import write_index
from img2scene_ros.learning.samples import write_shard


def examples(seed: int = 0) -> TrainingExamples:
    return TrainingExamples([solid_sample(number) for number in range(4)], seed)


def test_positions_hold_the_samples_in_the_order_of_their_epoch():
    for position in (0, 3, 9):
        sample = solid_sample(shuffled_order(4, 0, position // 4)[position % 4])
        one = examples()[position]
        np.testing.assert_array_equal(one['color'].permute(1, 2, 0), sample.crop.color)
        np.testing.assert_array_equal(one['depth'], sample.crop.depth)
        np.testing.assert_array_equal(one['mask'], sample.crop.mask)
        np.testing.assert_array_equal(one['occupancy'], sample.occupancy)
        assert float(one['anchor']) == pytest.approx(sample.anchor)
        # So many pixels of the crop are one of a picture 640 pixels wide.
        focal = SIZE / 2 / sample.crop.view.half_field
        assert float(one['magnification']) == pytest.approx(focal / (2 * 300.0))
    assert [int(examples(1)[position]['color'].sum()) for position in range(4)] != [
        int(examples(2)[position]['color'].sum()) for position in range(4)]


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
    half = replace(sample, crop=resized(sample.crop, SIZE // 2))
    assert half.crop.color.shape == (SIZE // 2, SIZE // 2, 3)
    assert half.cube == sample.cube and half.crop.view == sample.crop.view
    again = half.crop.mask.repeat(2, 0).repeat(2, 1)
    assert (again & sample.crop.mask).sum() > 0.9 * (again | sample.crop.mask).sum()
    seen = half.crop.mask
    assert np.isfinite(half.crop.depth[seen]).all(), 'mask and depth come from the same pixels'
    np.testing.assert_allclose(
        np.median(half.crop.depth[seen]), sample.anchor, atol=0.02 * sample.cube.side)
    assert resized(sample.crop, 0) is sample.crop


@pytest.mark.parametrize('with_depth', (True, False))
def test_scaled_example_is_the_example_of_the_scaled_crop(with_depth):
    sample = solid_sample(2)
    scaled = resized(plain_example(sample, with_depth), SIZE // 2)
    half = replace(sample, crop=resized(sample.crop, SIZE // 2))
    np.testing.assert_array_equal(scaled.channels, plain_example(half, with_depth).channels)
    assert scaled.half_field == sample.crop.view.half_field


def test_cell_is_filled_if_any_part_of_it_is():
    volume = np.zeros((64, 64, 64), bool)
    volume[5, 10, 63] = volume[63, 0, 0] = True
    coarse = coarser(volume, 16)
    assert coarse.shape == (16, 16, 16)
    assert np.argwhere(coarse).tolist() == [[1, 2, 15], [15, 0, 0]]
    np.testing.assert_array_equal(coarser(volume, 64), volume)


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
    samples = CropSamples(folder).read()
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
        CropSamples(folder).read()
    assert '\n' not in str(caught.value) and 'img2scene render' in str(caught.value)
