# SPDX-License-Identifier: Apache-2.0
"""Augmentation changes what it says, as far as it says; the volume stays true."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from solids import SIZE
from solids import solid_sample

from img2scene_ros.learning.augmentation import AugmentationOptions
from img2scene_ros.learning.augmentation import augment
from img2scene_ros.learning.augmentation import flipped
from img2scene_ros.learning.augmentation import moved_volume
from img2scene_ros.learning.augmentation import noisy_example
from img2scene_ros.learning.augmentation import occluded
from img2scene_ros.learning.augmentation import photometric
from img2scene_ros.learning.augmentation import plain_example
from img2scene_ros.learning.augmentation import ragged
from img2scene_ros.learning.augmentation import resized_mask
from img2scene_ros.learning.augmentation import with_background
from img2scene_ros.learning.augmentation import with_gaps
from img2scene_ros.models.crop import CropView
from img2scene_ros.models.crop import anchor_depth

NOTHING = AugmentationOptions(
    flip=0.0, occluder=0.0, background=0.0, photometric=0.0, mask_pixels=0, ragged_mask=0.0,
    depth_noise=0.0, missing_depth=0.0, drop_depth=0.0, drop_mask=0.0)


def chance(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return (one & other).sum() / (one | other).sum()


def test_nothing_is_changed_when_all_is_turned_off():
    sample = solid_sample(0)
    example, plain = augment(sample, chance(), NOTHING), plain_example(sample, with_depth=True)
    np.testing.assert_array_equal(example.color, plain.color)
    np.testing.assert_array_equal(example.mask, plain.mask)
    np.testing.assert_allclose(example.depth, plain.depth, rtol=1e-6)
    np.testing.assert_array_equal(example.occupancy, sample.occupancy)


def test_same_chance_same_example():
    options = AugmentationOptions()
    for seed in range(5):
        one, other = (augment(solid_sample(1), chance(seed), options) for _ in range(2))
        for name in ('color', 'mask', 'depth', 'anchor', 'occupancy'):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_every_example_is_sound():
    depths = masks = 0
    for seed in range(60):
        example = augment(solid_sample(seed % 4), chance(seed), AugmentationOptions())
        assert example.color.shape == (SIZE, SIZE, 3) and example.color.dtype == np.uint8
        assert example.occupancy.shape == (64, 64, 64) and example.occupancy.any()
        assert np.isfinite(example.anchor)
        depths += example.depth is not None
        masks += example.mask is not None
    assert 25 < depths < 45, '60 % are to have depth'
    assert 50 < masks < 60


def test_mirrored_sample_is_the_sample_of_the_mirrored_world():
    """A mirrored box's mask, depth and cells, drawn by closed forms."""
    sample = solid_sample(1)
    center = sample.truth.position * (-1, 1, 1)
    mirrored = flipped(sample)
    centers = sample.cube.centers(64)
    inside = (abs(centers - center) <= sample.truth.size / 2).all(axis=-1)
    assert not np.array_equal(mirrored.occupancy, sample.occupancy)
    np.testing.assert_array_equal(mirrored.occupancy, inside)
    points = sample.crop.view.camera(SIZE).rays * mirrored.crop.depth[..., None]
    surface = np.abs((points[mirrored.crop.mask] - center) / (sample.truth.size / 2)).max(axis=-1)
    np.testing.assert_allclose(surface, 1.0, atol=1e-3)


@pytest.mark.parametrize('number', (0, 1))
def test_volume_moves_with_the_anchor(number):
    """A ball and a box in another cube of the same view are where they were in space."""
    sample = solid_sample(number)
    for factor in (0.93, 1.0, 1.05):
        cube = sample.crop.view.cube(factor * sample.anchor)
        cells = (cube.centers(64) - sample.truth.position) / (sample.truth.size / 2)
        truth = (cells ** 2).sum(-1) <= 1 if number == 0 else (abs(cells) <= 1).all(-1)
        assert iou(moved_volume(sample.occupancy, sample.cube, cube), truth) > 0.94
    assert iou(sample.occupancy, truth) < 0.85, 'not moving it would have been noticed'


def test_what_leaves_the_cube_is_gone():
    view = CropView(np.eye(3), 0.2)
    volume = np.ones((8, 8, 8), bool)
    moved = moved_volume(volume, view.cube(1.0), view.cube(2.0))
    assert not moved.any(), 'the cube at 2 m does not touch the one at 1 m'


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
    crop = solid_sample(0).crop
    changed = 0
    for seed in range(40):
        hidden = occluded(crop, chance(seed))
        assert not (hidden.mask & ~crop.mask).any()
        assert hidden.mask.sum() > 0.5 * crop.mask.sum()
        for axis in (0, 1):
            kept, before = (np.flatnonzero(mask.any(axis)) for mask in (hidden.mask, crop.mask))
            assert (kept[0], kept[-1]) == (before[0], before[-1])
        behind = hidden.depth != crop.depth
        assert (hidden.depth <= crop.depth).all()
        assert not (hidden.mask & behind).any(), 'what is in front is not the object'
        changed += behind.any()
    assert changed > 8


def test_background_leaves_the_object():
    crop = solid_sample(1).crop
    painted = with_background(crop.color, crop.mask, chance())
    np.testing.assert_array_equal(painted[crop.mask], crop.color[crop.mask])
    assert (painted != crop.color)[~crop.mask].any(axis=-1).mean() > 0.9


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


def test_ragged_masks_change_at_the_edge_only():
    mask = np.zeros((64, 64), bool)
    mask[16:48, 16:48] = True
    distance = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5) \
        + cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5)
    changed = np.mean([ragged(mask, chance(seed)) != mask for seed in range(20)], axis=0)
    assert changed[distance < 2].mean() > 0.03
    assert changed[distance > 8].mean() < 0.005


def test_gaps_take_readings_and_change_none():
    depth = np.full((64, 64), 1.5, np.float32)
    for seed in range(10):
        gaps = with_gaps(depth, chance(seed))
        assert 0 < np.isnan(gaps).sum() < gaps.size
        assert (gaps[np.isfinite(gaps)] == 1.5).all()
