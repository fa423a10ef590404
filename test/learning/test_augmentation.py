# SPDX-License-Identifier: Apache-2.0
"""Augmentation changes what it says, as far as it says; the volume stays true."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from solids import SIZE
from solids import solid_sample
from torch.utils.data import default_collate

from img2scene_ros.learning.augmentation import AugmentationOptions
from img2scene_ros.learning.augmentation import Examples
from img2scene_ros.learning.augmentation import crop_inputs
from img2scene_ros.learning.augmentation import mirrored
from img2scene_ros.learning.augmentation import occluded
from img2scene_ros.learning.augmentation import occupancy_at
from img2scene_ros.learning.dataset import noisy_example
from img2scene_ros.learning.dataset import plain_example
from img2scene_ros.learning.dataset import tensors_of
from img2scene_ros.learning.detector_data import photometric
from img2scene_ros.learning.evaluation_shapes import resized_mask
from img2scene_ros.learning.samples import coarser
from img2scene_ros.models.crop import anchor_depth

NOTHING = AugmentationOptions(
    flip=0.0, occluder=0.0, background=0.0, photometric=0.0, mask_pixels=0, ragged_mask=0.0,
    depth_noise=0.0, missing_depth=0.0, drop_depth=0.0, drop_mask=0.0)
COLOR, MASK, DEPTH, READ = slice(0, 3), 3, 4, 5  # channels


def chance(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def crops_of(count: int) -> Examples:
    return default_collate([tensors_of(solid_sample(number)) for number in range(count)])


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return (one & other).sum() / (one | other).sum()


@pytest.mark.parametrize('with_depth', (True, False))
def test_nothing_is_changed_when_all_is_turned_off(with_depth):
    crops, changes = crops_of(4), replace(NOTHING, drop_depth=float(not with_depth))
    pictures, half_field, anchor = crop_inputs(crops, seeded(), changes)
    occupancy = occupancy_at(crops, anchor, 32)
    for number in range(4):
        expected = plain_example(solid_sample(number), with_depth)
        torch.testing.assert_close(
            pictures[number], torch.from_numpy(expected.channels), atol=1e-4, rtol=1e-4)
        assert half_field[number] == np.float32(expected.half_field)
        np.testing.assert_array_equal(occupancy[number], coarser(expected.occupancy, 32))


def test_same_chance_same_inputs():
    one, same, other = (
        crop_inputs(crops_of(6), seeded(seed), AugmentationOptions()) for seed in (3, 3, 4))
    for values, again in zip(one, same):
        assert torch.equal(values, again)
    assert not torch.equal(one[0], other[0])


def test_every_input_is_sound():
    pictures, _, anchor = crop_inputs(crops_of(120), seeded(), AugmentationOptions())
    assert pictures.shape == (120, 6, SIZE, SIZE) and pictures.isfinite().all()
    assert anchor.isfinite().all()
    has_depth, has_mask = (pictures[:, one].flatten(1).any(dim=1) for one in (READ, MASK))
    assert 55 < has_depth.sum() < 89, '60 % are to have depth'
    assert 105 < has_mask.sum() < 120


def test_validation_has_depth_or_not_and_true_colours():
    crops = crops_of(3)
    with_depth, without = (
        crop_inputs(crops, seeded(), with_depth=how)[0] for how in (True, False))
    assert with_depth[:, READ].flatten(1).any(dim=1).all() and not without[:, DEPTH:].any()
    for number in range(3):
        expected = torch.from_numpy(plain_example(solid_sample(number), False).channels)
        torch.testing.assert_close(without[number], expected)
        torch.testing.assert_close(with_depth[number, :4], expected[:4])


def test_mirrored_sample_is_the_sample_of_the_mirrored_world():
    """A mirrored box's mask, depth and cells, drawn by closed forms."""
    sample = solid_sample(1)
    center = sample.truth.position * (-1, 1, 1)
    crops = mirrored(crops_of(2), torch.tensor([False, True]))
    centers = sample.cube.centers(64)
    inside = (abs(centers - center) <= sample.truth.size / 2).all(axis=-1)
    assert not np.array_equal(crops['occupancy'][1], sample.occupancy)
    np.testing.assert_array_equal(crops['occupancy'][1], inside)
    np.testing.assert_array_equal(crops['occupancy'][0], solid_sample(0).occupancy)
    depth, mask = crops['depth'][1].numpy(), crops['mask'][1].numpy()
    points = sample.crop.view.camera(SIZE).rays * depth[..., None]
    surface = np.abs((points[mask] - center) / (sample.truth.size / 2)).max(axis=-1)
    np.testing.assert_allclose(surface, 1.0, atol=1e-3)


def test_volume_moves_with_the_anchor():
    """A ball and a box in other cubes of the same views are where they were in space."""
    crops = crops_of(2)
    for factor in (0.93, 1.0, 1.05):
        moved = occupancy_at(crops, factor * crops['anchor'], 64).numpy()
        for number in (0, 1):
            sample = solid_sample(number)
            cube = sample.crop.view.cube(factor * sample.anchor)
            cells = (cube.centers(64) - sample.truth.position) / (sample.truth.size / 2)
            truth = (cells ** 2).sum(-1) <= 1 if number == 0 else (abs(cells) <= 1).all(-1)
            assert iou(moved[number], truth) > 0.94
    assert iou(sample.occupancy, truth) < 0.85, 'not moving it would have been noticed'


def test_what_leaves_the_cube_is_gone():
    crops = {'occupancy': torch.ones(1, 8, 8, 8, dtype=torch.bool),
             'half_field': torch.tensor([0.2]), 'anchor': torch.tensor([1.0])}
    moved = occupancy_at(crops, torch.tensor([2.0]), 8)
    assert not moved.any(), 'the cube at 2 m does not touch the one at 1 m'
    assert occupancy_at(crops, torch.tensor([1.0]), 4).all()


def test_noisy_cube_stands_at_the_measured_anchor():
    sample = solid_sample(0)
    example = noisy_example(sample, chance(3))
    assert example.anchor == anchor_depth(example.depth, sample.crop.mask) != sample.anchor
    assert example.anchor == pytest.approx(sample.anchor, rel=0.02)
    assert 0.5 < np.isfinite(example.depth).mean() < 1.0
    error = (example.depth - sample.crop.depth)[sample.crop.mask]
    assert 1e-4 < np.nanmedian(np.abs(error)) < 0.01


def test_depth_without_any_reading_on_the_object_counts_as_none():
    sample = solid_sample(0)
    blind = replace(sample.crop, depth=np.full((SIZE, SIZE), np.nan, np.float32))
    example = noisy_example(replace(sample, crop=blind), chance())
    assert example.depth is None and example.anchor == sample.anchor


def test_occluder_hides_a_part_and_keeps_the_box():
    crops, changed = crops_of(4), 0
    for seed in range(20):
        _, depth, mask = occluded(
            crops['color'], crops['depth'], crops['mask'], crops['color'].flip(0), seeded(seed),
            0.8)
        for number in range(4):
            before, after = crops['mask'][number].numpy(), mask[number].numpy()
            assert not (after & ~before).any() and after.sum() > 0.5 * before.sum()
            for axis in (0, 1):
                kept, all_ = (np.flatnonzero(one.any(axis)) for one in (after, before))
                assert (kept[0], kept[-1]) == (all_[0], all_[-1])
            hides = (depth[number] != crops['depth'][number]).numpy()
            assert (depth[number] <= crops['depth'][number]).all()
            assert not (after & hides).any(), 'what is in front is not the object'
            changed += hides.any()
    assert 16 < changed < 72


def test_background_leaves_the_object():
    crops = crops_of(4)
    pictures, _, _ = crop_inputs(crops, seeded(), replace(NOTHING, background=1.0))
    plain, _, _ = crop_inputs(crops, seeded(), NOTHING)
    same = (pictures[:, COLOR] == plain[:, COLOR]).all(dim=1)
    assert same[crops['mask']].all() and same[~crops['mask']].float().mean() < 0.1


def test_gaps_take_readings_and_change_none():
    crops = crops_of(4)
    pictures, _, anchor = crop_inputs(crops, seeded(), replace(NOTHING, missing_depth=1.0))
    share = (pictures[:, READ] == 0).float().mean()
    assert 0.05 < share < 0.3
    side = (2 * crops['half_field'] * anchor)[:, None, None]
    depth = anchor[:, None, None] + pictures[:, DEPTH] * side
    kept = (pictures[:, READ] == 1) & (pictures[:, DEPTH].abs() < 1)
    torch.testing.assert_close(depth[kept], crops['depth'][kept], atol=1e-4, rtol=1e-4)


def test_photometric_changes_grow_with_their_strength():
    color = cv2.GaussianBlur(solid_sample(1).crop.color, (0, 0), 3)
    np.testing.assert_array_equal(photometric(color, chance(), 0.0), color)
    changes = [np.mean([np.abs(photometric(color, chance(seed), strength).astype(float) - color
                               ).mean() for seed in range(10)]) for strength in (0.2, 1.0, 2.0)]
    assert 1 < changes[0] < changes[1] < changes[2] < 100


def test_noise_is_in_all_channels() -> None:
    grey = np.full((64, 64, 3), 128, np.uint8)  # which only noise makes uneven
    deviations = np.array([
        photometric(grey, chance(seed), 1.0).std(axis=(0, 1)) for seed in range(20)])
    assert deviations.max() > 3.0
    np.testing.assert_allclose(deviations, deviations.max(axis=1, keepdims=True) * np.ones(3),
                               rtol=0.25, atol=0.5)


@pytest.mark.parametrize('pixels', (-3, -1, 2, 3))
def test_masks_grow_and_shrink_by_pixels(pixels):
    v, u = np.mgrid[:61, :61]
    disk = (v - 30) ** 2 + (u - 30) ** 2 <= 20.5 ** 2
    radius = np.sqrt(resized_mask(disk, pixels).sum() / np.pi)
    assert radius == pytest.approx(20.5 + pixels, abs=0.5)


def test_mask_that_would_vanish_stays():
    thin = np.zeros((32, 32), bool)
    thin[10] = True
    np.testing.assert_array_equal(resized_mask(thin, -3), thin)
