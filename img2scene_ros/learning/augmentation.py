# SPDX-License-Identifier: Apache-2.0
"""
Augmentation of crops: what detectors, cameras and depth sensors do to them.

Every step is a function of a crop; `augment` applies them in the order in which they happen in
the world. The solid is never blurred by it: where the anchor of the depth moves, it is looked up
at the new cells of the original volume.
"""

from dataclasses import dataclass
from dataclasses import replace

import cv2
import numpy as np

from img2scene_ros.depth import measured
from img2scene_ros.learning.samples import CropSample
from img2scene_ros.learning.sensors import read_depth
from img2scene_ros.models.crop import Crop
from img2scene_ros.models.crop import Cube
from img2scene_ros.models.crop import anchor_depth
from img2scene_ros.options import Options
from img2scene_ros.options import option

SENSOR_WIDTH = 640  # pixels of the depth camera
LEAST_LEFT = 0.5  # an occluder that leaves less than this share of the object is left away


@dataclass(frozen=True)
class AugmentationOptions(Options):
    """How often, and how strongly, crops are changed; shares and probabilities are 0 to 1."""

    flip: float = option(0.5, 'Share of crops that are mirrored', low=0.0, high=1.0)
    occluder: float = option(
        0.25, 'Share of crops with something pasted before them', low=0.0, high=1.0)
    background: float = option(
        0.25, 'Share of crops whose surroundings get another colour', low=0.0, high=1.0)
    photometric: float = option(
        1.0, 'Strength of changes of light, contrast, colour, sharpness and noise', low=0.0,
        high=3.0)
    mask_pixels: int = option(
        1, 'Most pixels that a mask is eroded or dilated by', low=0, high=10)
    ragged_mask: float = option(
        0.2, 'Share of crops whose mask gets a ragged edge', low=0.0, high=1.0)
    depth_noise: float = option(
        1.5, 'Greatest strength of the depth noise, in that of a usual depth camera', low=0.0,
        high=5.0)
    missing_depth: float = option(
        0.2, 'Share of crops with whole regions without depth', low=0.0, high=1.0)
    drop_depth: float = option(
        0.4, 'Share of crops without depth, as of an RGB camera', low=0.0, high=1.0)
    drop_mask: float = option(0.05, 'Share of crops without a mask', low=0.0, high=1.0)


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


def plain_example(sample: CropSample, with_depth: bool) -> Example:
    """Return a sample as it is."""
    crop = sample.crop
    return Example(crop.color, crop.mask, crop.depth if with_depth else None, sample.anchor,
                   crop.view.half_field, sample.occupancy)


def noisy_example(sample: CropSample, random: np.random.Generator) -> Example:
    """Return a sample with the depth that a usual depth camera, of any kind, would have read."""
    depth = sensed_depth(sample, sample.crop, random, 1.0)
    return _anchored(sample, sample.crop.color, sample.crop.mask, depth, sample.anchor)


def augment(
    sample: CropSample, random: np.random.Generator, options: AugmentationOptions,
) -> Example:
    """
    Change a sample at random.

    Without depth the cube stays at the true anchor of what is visible. With depth it goes to the
    anchor that is measured, inside of the mask that is given: that is where a robot would put it.

    :param random: the source of all chance; the same state gives the same example
    """
    if random.random() < options.flip:
        sample = flipped(sample)
    crop = sample.crop
    if random.random() < options.occluder:
        crop = occluded(crop, random)
    color = crop.color
    if random.random() < options.background:
        color = with_background(color, crop.mask, random)
    color = photometric(color, random, options.photometric)
    pixels = int(random.integers(-options.mask_pixels, options.mask_pixels + 1))
    mask = resized_mask(crop.mask, pixels)
    if random.random() < options.ragged_mask:
        mask = ragged(mask, random)
    depth = None
    if random.random() >= options.drop_depth:
        depth = sensed_depth(sample, crop, random, random.uniform(0, options.depth_noise))
        if random.random() < options.missing_depth:
            depth = with_gaps(depth, random)
    without_mask = random.random() < options.drop_mask
    assert crop.anchor is not None  # the depth is the true one, known everywhere
    example = _anchored(sample, color, mask, depth, crop.anchor)
    return replace(example, mask=None) if without_mask else example


def _anchored(
    sample: CropSample, color: np.ndarray, mask: np.ndarray, depth: np.ndarray | None,
    true_anchor: float,
) -> Example:
    """Put the cube at the measured anchor, without depth readings in the mask at the true one."""
    reading = None if depth is None else anchor_depth(depth, mask)
    anchor = true_anchor if reading is None else reading
    view = sample.crop.view
    occupancy = moved_volume(sample.occupancy, sample.cube, view.cube(anchor))
    return Example(
        color, mask, None if reading is None else depth, anchor, view.half_field, occupancy)


def flipped(sample: CropSample) -> CropSample:
    """Mirror the crop and its volume left to right; nothing else is changed."""
    crop = sample.crop
    # OpenCV wants arrays in the order of their memory.
    color, mask, depth = (
        np.ascontiguousarray(image[:, ::-1])
        for image in (crop.color, crop.mask, measured(crop.depth)))
    return replace(sample, crop=Crop(crop.view, color, mask, depth),
                   occupancy=sample.occupancy[..., ::-1])


def occluded(crop: Crop, random: np.random.Generator) -> Crop:
    """
    Paste a polygon before a crop.

    Left away when it would hide most of the object, or change the box around what is visible: the
    crop would be another one then.
    """
    size = len(crop.mask)
    center = random.uniform(0, size, 2)
    angles = np.sort(random.uniform(0, 2 * np.pi, random.integers(3, 9)))
    radii = size * random.uniform(0.08, 0.35) * random.uniform(0.6, 1.0, len(angles))
    corners = center + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    shape = np.zeros(crop.mask.shape, np.uint8)
    cv2.fillPoly(shape, [np.rint(corners).astype(np.int32)], 1)
    hides = shape > 0
    mask = crop.mask & ~hides
    if mask.sum() <= LEAST_LEFT * crop.mask.sum() or not _same_box(mask, crop.mask):
        return crop
    true = measured(crop.depth)
    nearest = np.nanmin(np.where(crop.mask, true, np.nan))
    depth = np.where(hides, random.uniform(0.6, 1.0) * nearest, true).astype(np.float32)
    color = crop.color.copy()
    color[hides] = _texture(size, random)[hides]
    return Crop(crop.view, color, mask, depth)


def _same_box(mask: np.ndarray, other: np.ndarray) -> bool:
    return all(np.array_equal(np.flatnonzero(mask.any(axis))[[0, -1]],
                              np.flatnonzero(other.any(axis))[[0, -1]]) for axis in (0, 1))


def with_background(
    color: np.ndarray, mask: np.ndarray, random: np.random.Generator,
) -> np.ndarray:
    """Paint another texture around the object."""
    return np.where(mask[..., None], color, _texture(len(mask), random))


def _texture(size: int, random: np.random.Generator) -> np.ndarray:
    """Return a random colour with random patches: (size, size, 3) uint8."""
    cells = int(random.integers(2, 16))
    patches: np.ndarray = random.normal(
        0, random.uniform(0, 60), (cells, cells, 3)).astype(np.float32)
    how = cv2.INTER_NEAREST if random.random() < 0.3 else cv2.INTER_LINEAR
    patches = cv2.resize(patches, (size, size), interpolation=how)
    return np.clip(random.uniform(0, 255, 3) + patches, 0, 255).astype(np.uint8)


def photometric(color: np.ndarray, random: np.random.Generator, strength: float) -> np.ndarray:
    """Change gamma, brightness, white balance and saturation; blur; add noise; all in 8 bits."""
    if strength == 0:
        return color
    levels = np.linspace(0, 1, 256) ** np.exp(strength * random.normal(0, 0.25))
    levels = levels * np.exp(strength * random.normal(0, 0.2)) + strength * random.normal(0, 0.05)
    color = cv2.LUT(color, np.clip(255 * levels, 0, 255).astype(np.uint8))
    saturation = np.exp(strength * random.normal(0, 0.3))
    mixing = saturation * np.eye(3) + (1 - saturation) / 3
    balance = np.exp(strength * random.normal(0, 0.12, (3, 1)))
    color = cv2.transform(color, balance * mixing)
    if random.random() < 0.35:
        color = cv2.GaussianBlur(color, (0, 0), 0.3 + strength * random.uniform(0, 1))
    if random.random() < 0.7:
        noise = np.empty(color.shape, np.int16)
        cv2.setRNGSeed(int(random.integers(2 ** 31)))
        deviation = strength * random.uniform(0, 9)
        cv2.randn(noise, np.zeros(3), np.full(3, deviation))  # a number is the first channel's
        color = cv2.add(color, noise, dtype=cv2.CV_8U)
    return color


def resized_mask(mask: np.ndarray, pixels: int) -> np.ndarray:
    """Dilate a mask by so many pixels, or erode it (negative); one that would vanish stays."""
    if pixels == 0:
        return mask
    reach = abs(int(pixels))
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    how = cv2.dilate if pixels > 0 else cv2.erode
    changed = how(mask.astype(np.uint8), disk) > 0
    return changed if changed.any() else mask


def ragged(mask: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Move a mask's edge in and out at random, by some pixels."""
    size = len(mask)
    cells = int(random.integers(8, 24))
    waves = cv2.resize(random.normal(0, 0.35, (cells, cells)).astype(np.float32), (size, size))
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), random.uniform(1.0, 2.5))
    changed = soft + waves * (soft > 0.05) > 0.5
    return changed if changed.any() else mask


def sensed_depth(
    sample: CropSample, crop: Crop, random: np.random.Generator, strength: float,
) -> np.ndarray:
    """
    Return what a depth camera of any kind reads instead of a crop's true depth.

    An error that all readings have in common (a scale, a shift) moves the object as a whole, and
    the cube with it; the network sees depth in relation to the anchor, so it is skipped here.

    :param strength: 1 is a usual depth camera
    :return: (S, S) float32 metres, NaN = no reading
    """
    camera = crop.view.camera(len(crop.mask))
    magnification = camera.fx / sample.camera.fx * sample.camera.width / SENSOR_WIDTH
    return read_depth(measured(crop.depth), camera, random, crop.color, None, strength,
                      magnification, is_calibrated=True)


def with_gaps(depth: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Take the readings out of one to three large regions."""
    size = len(depth)
    lost = np.zeros(depth.shape, np.uint8)
    for _ in range(random.integers(1, 4)):
        center = random.integers(0, size, 2).tolist()
        axes = np.rint(size * random.uniform(0.05, 0.3, 2)).astype(int).tolist()
        cv2.ellipse(lost, center, axes, random.uniform(0, 180), 0, 360, 1, cv2.FILLED)
    return np.where(lost > 0, np.nan, depth).astype(np.float32)


def moved_volume(volume: np.ndarray, old: Cube, new: Cube) -> np.ndarray:
    """
    Look a volume up at the cells of another cube of the same view; empty outside.

    Both cubes are aligned, so each axis is looked up by itself: the nearest cell.

    :param volume: (R, R, R), [z, y, x]
    """
    if old == new:
        return volume
    count = len(volume)
    along = (np.arange(count) + 0.5) / count - 0.5
    for axis, shift in enumerate((new.depth - old.depth, 0.0, 0.0)):
        index = np.floor(((along * new.side + shift) / old.side + 0.5) * count).astype(int)
        inside = (index >= 0) & (index < count)
        volume = volume.take(index.clip(0, count - 1), axis)
        volume &= np.expand_dims(inside, [other for other in range(3) if other != axis])
    return volume
