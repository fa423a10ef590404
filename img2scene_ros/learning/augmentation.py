# SPDX-License-Identifier: Apache-2.0
"""
Augmentation of crops: what detectors, cameras and depth sensors do to them, batched in torch.

What happens in the world comes first (mirrored, something before it, other surroundings), then
what the sensors make of it. Solids are never blurred: where the anchor of the depth moves, they
are looked up at the cells of the new cube.
"""

from dataclasses import dataclass

import torch
from torch import Generator
from torch import Tensor

from img2scene_ros.learning import sensors
from img2scene_ros.learning.arrangements import Chance
from img2scene_ros.models.channels import batch_channels
from img2scene_ros.models.crop import CENTER_BEHIND_ANCHOR
from img2scene_ros.options import Options
from img2scene_ros.options import option

LEAST_LEFT = 0.5  # an occluder that leaves less than this share of the object is skipped
CLOUD = 0.12  # of a crop's side: in how large patches occluders, textures and gaps go together
OCCLUDED, LOST = 0.12, 0.15  # shares of a crop that occluders and gaps cover

# What crops hold: color (N, 3, S, S) uint8, depth (N, S, S) true metres along the crop's axis, NaN
# = nothing, mask (N, S, S) bool, half_field (N,), magnification (N,) pixels of the crop per pixel
# of a usual sensor; and their solids, as they are stored (`dataset`) or drawn (`live`).
Examples = dict[str, Tensor]


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


def mirrored(crops: Examples, which: Tensor) -> Examples:
    """Mirror some crops left to right, their solids too."""
    flipped: Examples = {
        name: torch.where(which.view(-1, *[1] * (crops[name].ndim - 1)), crops[name].flip(-1),
                          crops[name])
        for name in ('color', 'depth', 'mask', 'occupancy') if name in crops}
    if 'to_local' in crops:
        sign = torch.where(which, -1.0, 1.0)
        flipped['to_local'] = crops['to_local'].clone()
        flipped['to_local'][:, :, 0] *= sign[:, None]
    return crops | flipped


def crop_inputs(
    crops: Examples, generator: Generator, changes: AugmentationOptions | None = None,
    with_depth: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """
    Return what a network gets of crops, and where the cubes are.

    The anchor is what is measured in the mask that is given; without depth the true one.

    :param changes: None is for validation: true colour and mask, a usual sensor's depth or none
    :return: pictures (B, 6, S, S), half fields (B,), anchors (B,) metres
    """
    chance, count = Chance(generator), len(crops['half_field'])
    color, true, mask, half_field = (
        crops[name] for name in ('color', 'depth', 'mask', 'half_field'))
    without = torch.full_like(half_field, not with_depth, dtype=torch.bool)
    strength = torch.ones_like(half_field)
    if changes:
        paint = textures(color, generator)
        color, true, mask = occluded(color, true, mask, paint, generator, changes.occluder)
        around = (chance.uniform(count) < changes.background)[:, None, None] & ~mask
        color = torch.where(around[:, None], paint.flip(0), color)
        without = without | (chance.uniform(count) < changes.drop_depth)
        strength = changes.depth_noise * chance.uniform(count)
    depth = sensors.sensed_depth(true, color, mask.shape[-1] / (2 * half_field), generator,
                         strength=strength, magnification=crops['magnification'])
    given, bare = mask, torch.zeros_like(without)
    if changes:
        color = sensors.light_changed(color, generator, changes.photometric)
        given = sensors.wrong_masks(mask, generator, changes.mask_pixels, changes.ragged_mask)
        gaps = torch.where(chance.uniform(count) < changes.missing_depth, LOST, 0.0)
        cloud = sensors.smooth_noise(mask.shape, CLOUD * mask.shape[-1], generator)
        depth = torch.where(sensors.lowest(cloud, gaps[:, None, None]), torch.nan, depth)
        bare = chance.uniform(count) < changes.drop_mask
    depth = torch.where(without[:, None, None], torch.nan, depth)
    measured, anchor = median_depth(depth, given), median_depth(true, mask)
    depth = torch.where(measured.isnan()[:, None, None], torch.nan, depth)
    anchor = torch.where(measured.isnan(), anchor, measured)
    given = given & ~bare[:, None, None]
    return batch_channels(color, given, depth, anchor, half_field), half_field, anchor


def occluded(
    color: Tensor, depth: Tensor, mask: Tensor, paint: Tensor, generator: Generator, share: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """
    Paste patches of paint, (B, 3, S, S), before a share of the crops.

    Skipped where they would hide most of the object, or change the box around what is visible: the
    crop would be another one then.
    """
    chance, count = Chance(generator), len(mask)
    cloud = sensors.smooth_noise(mask.shape, CLOUD * mask.shape[-1], generator)
    hides = sensors.lowest(cloud, torch.full((count, 1, 1), OCCLUDED, device=mask.device))
    left = mask & ~hides
    fits = (left.flatten(1).sum(dim=1) > LEAST_LEFT * mask.flatten(1).sum(dim=1)) \
        & (mask_boxes(left) == mask_boxes(mask)).all(dim=1) & (chance.uniform(count) < share)
    hides = hides & fits[:, None, None]
    nearest = torch.where(mask, depth, torch.inf).flatten(1).amin(dim=1)
    before = chance.uniform(count, low=0.6) * nearest
    return (torch.where(hides[:, None], paint, color),
            torch.where(hides, before[:, None, None], depth), mask & ~hides)


def mask_boxes(masks: Tensor) -> Tensor:
    """Return xmin, ymin, xmax, ymax of masks (..., H, W), pixels between edges: (..., 4)."""
    columns, rows = (masks.any(dim=side).float() for side in (-2, -1))
    first = [along.argmax(dim=-1) for along in (columns, rows)]
    end = [along.shape[-1] - along.flip(-1).argmax(dim=-1) for along in (columns, rows)]
    return torch.stack([*first, *end], dim=-1)


def textures(like: Tensor, generator: Generator) -> Tensor:
    """Return random colours with random patches, (B, 3, S, S) uint8."""
    chance, count = Chance(generator), len(like)
    patches = sensors.smooth_noise(like.shape, CLOUD * like.shape[-1], generator)
    patches = patches * chance.uniform(count, 1, 1, 1, high=60.0)
    return (chance.uniform(count, 3, 1, 1, high=255.0) + patches).clamp(0, 255).byte()


def median_depth(depth: Tensor, mask: Tensor) -> Tensor:
    """Return the median reading in each mask, (B,) metres, NaN where there is none."""
    return torch.where(mask, depth, torch.nan).flatten(1).nanmedian(dim=1).values


def occupancy_at(crops: Examples, anchor: Tensor, resolution: int) -> Tensor:
    """
    Look stored solids up at the cells of the cubes of other anchors; empty outside.

    Both cubes are aligned, so each axis is looked up by itself: the nearest cell.

    :param crops: with anchor (B,) and occupancy (B, 64, 64, 64) bool of the cubes there, [z, y, x]
    :param anchor: (B,) metres
    :param resolution: R, a divisor of 64; a cell is full if any of the fine cells in it is
    :return: (B, R, R, R) bool
    """
    volumes, half_field = crops['occupancy'], crops['half_field']
    cells = volumes.shape[-1]
    along = (torch.arange(cells, device=anchor.device) + 0.5) / cells - 0.5
    ratio = (anchor / crops['anchor'])[:, None]
    # Cubes stand CENTER_BEHIND_ANCHOR of their sides behind the anchor, in sides of the old one.
    behind = (ratio - 1.0) * (1.0 / (2.0 * half_field[:, None]) + CENTER_BEHIND_ANCHOR)
    places = [((along * ratio + shift + 0.5) * cells).floor().long()
              for shift in (behind, 0.0, 0.0)]
    inside = [(place >= 0) & (place < cells) for place in places]
    places = [place.clamp(0, cells - 1) for place in places]
    moved = torch.stack([
        volume.index_select(0, z).index_select(1, y).index_select(2, x)
        for volume, z, y, x in zip(volumes, *places)])
    z, y, x = inside
    moved &= z[:, :, None, None] & y[:, None, :, None] & x[:, None, None, :]
    for axis in (1, 2, 3):
        moved = moved.unflatten(axis, (resolution, cells // resolution)).any(dim=axis + 1)
    return moved
