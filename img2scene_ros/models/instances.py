# SPDX-License-Identifier: Apache-2.0
"""
Object instances of any kind on any support, from depth and colour.

    depth -> height above the support, normals, relative depth; picture -> colour
    those -> U-Net -> per pixel: foreground?, an instance's centre?, the way to its centre
    foreground pixels -> the centre that is nearest to where they point

Depth as what does not depend on the camera's pose: Xie et al., "Unseen object instance
segmentation for robotic environments", T-RO 2021 (UOIS-Net-3D). Centres and offsets: Cheng et al.,
"Panoptic-DeepLab", CVPR 2020. Needs nothing but torch, numpy, scipy and OpenCV.
"""

from dataclasses import dataclass
from math import ceil
from math import pi

import cv2
import numpy as np
import torch
import torch.nn.functional as functional
from scipy.ndimage import find_objects
from torch import Tensor
from torch import nn

from img2scene_ros.models.channels import DEVIATION
from img2scene_ros.models.channels import MEAN
from img2scene_ros.models.unet import UNet
from img2scene_ros.models.unet import stem
from img2scene_ros.options import Options
from img2scene_ros.options import option

CHANNELS = 9  # that `scene_channels` makes
HEIGHT_REACH = 1.0  # metres; what is further above or below counts as so far
HEIGHT_KNEE = 0.02  # metres; heights are linear below and logarithmic above
SLOPE_STEP = 2  # pixels to either side over which a normal is taken
OFFSET_UNIT = 32.0  # pixels
HEAT_DEVIATION = 4.0  # pixels
SEPARATION = 7  # pixels; two centres do not share a window of this side
ASIDE = 0.1  # roots of an instance's area
BORDER = 7  # pixels; side of the window that makes a pixel one of a border
BORDER_WEIGHT = 4.0  # what it counts more
FULL_AREA = 1000.0  # pixels; smaller instances count as the root of their area, not as it
MOST_WEIGHT = 4.0
HEAT_LOGIT = -4.0  # where the training starts: centres are rare
MOST_CENTERS = 64  # of one picture
LEAST_PIXELS = 20  # of a part of an instance
THRESHOLD = 0.3  # of a centre's heat


@dataclass(frozen=True)
class InstanceNetworkConfig(Options):
    """The shape of an `InstanceNetwork`."""

    width: int = option(24, 'Width at half the resolution of the picture', low=4)
    blocks: int = option(1, 'Residual blocks per level, down and up', low=1)
    deep: int = option(
        3, 'Further residual blocks at the coarsest level, which sees the whole picture', low=0)


class InstanceNetwork(UNet):
    """
    Tells which pixels are objects, and of which instance.

    - outer_layers: names of the layers that read inputs or give answers
    """

    Config = InstanceNetworkConfig
    outer_layers = ('stem', 'answers')

    def __init__(self, config: InstanceNetworkConfig = InstanceNetworkConfig()) -> None:
        widths = [config.width * factor for factor in (1, 2, 4, 8)]
        super().__init__(widths, config.blocks, config.deep)
        self.config = config
        self.stem = stem(CHANNELS, widths[0])
        self.answers = nn.Conv2d(widths[0], 4 * 4, 1)  # of four pixels each
        nn.init.zeros_(self.answers.weight)  # else the way to 0 takes most of a short training
        nn.init.constant_(self.answers.bias[4:8], HEAT_LOGIT)

    def forward(self, channels: Tensor) -> Tensor:
        """
        Look at pictures.

        :param channels: (B, 9, H, W), see `scene_channels`; H and W are multiples of 16
        :return: (B, 4, H, W): logits of foreground and of an instance's centre; the way to the
            centre of the instance down and right, in units of `OFFSET_UNIT`
        """
        # Twice as fast on a CPU as channels first.
        x = self.stem(channels.contiguous(memory_format=torch.channels_last))
        return functional.pixel_shuffle(self.answers(self.through_levels(x)), 2)


def scene_channels(
    color: Tensor | None, depth: Tensor, rays: Tensor, up: Tensor, offset: Tensor,
) -> Tensor:
    """
    Return what the network is fed; all but the colour is the same for every roll of the camera.

    0 to 2: colour, scaled to ImageNet's mean and deviation. 3: height above the support, asinh in
    units of `HEIGHT_KNEE`. 4 to 6: the normal n along up u, along the view v (to the camera) and
    along u x v, which vanishes gently where the camera looks straight down. 7: logarithm of the
    depth, less the picture's mean. 8: where depth was read; without it, 3 to 7 are zero.

    :param color: (B, 3, H, W) uint8, RGB; None where there is none
    :param depth: (B, H, W) metres, NaN = no reading
    :param rays: (B, 3, H, W) viewing rays in the optical frame, z = 1
    :param up: (B, 3) unit vectors in the optical frame
    :param offset: (B,) or (B, H, W) metres; height above the support = up . point + offset
    :return: (B, 9, H, W) float32
    """
    read = depth.isfinite() & (depth > 0)
    known = torch.where(read, depth, 1.0)
    height = (up[:, :, None, None] * rays).sum(1) * known
    height = height + (offset if offset.ndim == 3 else offset[:, None, None])
    height = torch.asinh(height.clamp(-HEIGHT_REACH, HEIGHT_REACH) / HEIGHT_KNEE)
    logarithm = known.log()  # 0 where nothing was read
    mean = logarithm.sum((1, 2), keepdim=True) / read.sum((1, 2), keepdim=True).clamp(min=1)
    relative = (logarithm - mean).clamp(-1.0, 1.0)
    normals = surface_normals(known, read, rays)
    view = unit(-rays)
    upward = up[:, :, None, None].expand_as(view)
    axes = (upward, view, torch.linalg.cross(upward, view, dim=1))
    geometry = torch.stack([height, *((normals * axis).sum(1) for axis in axes), relative], 1)
    geometry = geometry * read[:, None]
    if color is None:
        scaled = torch.zeros_like(rays)
    else:
        mean, deviation = (
            torch.from_numpy(one).to(depth.device)[:, None, None] for one in (MEAN, DEVIATION))
        scaled = (color / 255.0 - mean) / deviation
    return torch.cat([scaled, geometry, read[:, None].float()], dim=1)


def surface_normals(depth: Tensor, read: Tensor, rays: Tensor) -> Tensor:
    """
    Estimate normals that point to the camera.

    Smooths 1 / depth, which is linear in the picture of a plane, and has even noise where depth
    comes from disparity.

    :param depth: (B, H, W) metres, any number where it was not `read`
    :return: (B, 3, H, W) unit vectors; zero where a neighbour was not read
    """
    both = torch.stack([read / depth, read.float()], dim=1)
    inverse, share = functional.avg_pool2d(both, 3, 1, 1).split(1, dim=1)
    points = rays * torch.where(share > 0, share / inverse, torch.nan)
    around = functional.pad(points, [SLOPE_STEP] * 4, 'replicate')
    rows = around[..., SLOPE_STEP:-SLOPE_STEP]
    columns = around[..., SLOPE_STEP:-SLOPE_STEP, :]
    down = rows[..., 2 * SLOPE_STEP:, :] - rows[..., :-2 * SLOPE_STEP, :]
    across = columns[..., 2 * SLOPE_STEP:] - columns[..., :-2 * SLOPE_STEP]
    return unit(torch.linalg.cross(down, across, dim=1)).nan_to_num(0.0)


def unit(vectors: Tensor) -> Tensor:
    """(B, 3, H, W) to the same of length 1; eight times as fast on a CPU as torch's."""
    return vectors * vectors.square().sum(1, keepdim=True).rsqrt()


def instance_targets(ids: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """
    Return what the network shall answer.

    An instance's centre is one of its own pixels, so that a bowl and what is in it, or the halves
    of something and what is before it, have two: the one that is nearest to a little right and
    below of the mean of the visible ones, so that of a ring always the same side is meant.

    :param ids: (B, H, W) int64, 0 = no object
    :return: foreground (B, H, W), 0 or 1; heat (B, H, W), a Gaussian of peak 1 around every
        centre; the way to the centre (B, 2, H, W), down and right in units of `OFFSET_UNIT`, 0
        for no object; weights (B, H, W), larger at borders and for small instances
    """
    pictures, height, width = ids.shape
    count = int(ids.max()) + 1
    slots = (ids + count * torch.arange(pictures, device=ids.device)[:, None, None]).flatten()
    grid = torch.meshgrid(torch.arange(height, device=ids.device),
                          torch.arange(width, device=ids.device), indexing='ij')
    places = torch.stack(grid, -1)[None].expand(pictures, -1, -1, -1).reshape(-1, 2)
    areas = slots.bincount(minlength=pictures * count)
    sums = torch.zeros_like(areas)[:, None].repeat(1, 2).index_add(0, slots, places)
    wanted = sums / areas.clamp(min=1)[:, None] + ASIDE * areas.sqrt()[:, None]
    distances = (places - wanted[slots]).square().sum(1)
    # The least of (distance, number of the pixel), as one number.
    keys = (distances * 16).long() * (height * width) + places[:, 0] * width + places[:, 1]
    nearest = torch.zeros_like(areas).scatter_reduce(
        0, slots, keys, 'amin', include_self=False) % (height * width)
    centers = torch.stack([nearest // width, nearest % width], 1)
    foreground = (ids > 0).float()
    offsets = ((centers[slots] - places) / OFFSET_UNIT).reshape(pictures, height, width, 2)
    peaks = torch.zeros_like(slots, dtype=torch.float32).view_as(foreground)
    shown = (areas > 0).view(pictures, count)
    shown[:, 0] = False
    picture, _ = shown.nonzero(as_tuple=True)
    rows, columns = centers[shown.flatten()].T
    peaks[picture, rows, columns] = 1.0
    numbers = torch.stack([ids, -ids], 1).float()
    largest = largest_around(numbers, BORDER).sum(1)  # largest - least
    small = (FULL_AREA / areas.clamp(min=1)).sqrt().clamp(1.0, MOST_WEIGHT)
    small = torch.where(ids > 0, small[slots].view_as(foreground), 1.0)
    weights = small + BORDER_WEIGHT * (largest > 0)
    return foreground, _blurred(peaks), offsets.permute(0, 3, 1, 2) * foreground[:, None], weights


def largest_around(values: Tensor, side: int) -> Tensor:
    """Return the largest value of a square window around every pixel, (B, ..., H, W)."""
    rows = functional.max_pool2d(values, (side, 1), 1, (side // 2, 0))
    return functional.max_pool2d(rows, (1, side), 1, (0, side // 2))


def _blurred(peaks: Tensor) -> Tensor:
    """Put a Gaussian of peak 1 around every pixel that is 1, at most 1 where some meet."""
    reach = ceil(3 * HEAT_DEVIATION)
    steps = torch.arange(-reach, reach + 1, device=peaks.device) / HEAT_DEVIATION
    bell = torch.exp(-steps.square() / 2)
    rows = functional.conv2d(peaks[:, None], bell[:, None][None, None], padding=(reach, 0))
    around = functional.conv2d(rows, bell[None, None, None], padding=(0, reach))[:, 0]
    return torch.where(peaks == 1, peaks, around.clamp(max=1 - 1e-3))


def instance_loss(outputs: Tensor, ids: Tensor) -> Tensor:
    """
    Compare what the network says with the truth.

    The heat's is the quality focal loss of Li et al., "Generalized focal loss", NeurIPS 2020.

    :param outputs: (B, 4, H, W)
    :param ids: (B, H, W) int64, 0 = no object
    :return: ()
    """
    outputs = outputs.float()
    foreground, heat, offsets, weights = instance_targets(ids)
    objects = functional.binary_cross_entropy_with_logits(
        outputs[:, 0], foreground, weights) / weights.mean()
    centers = (heat - outputs[:, 1].sigmoid()).square() * (
        functional.binary_cross_entropy_with_logits(outputs[:, 1], heat, reduction='none'))
    peaks = (heat == 1.0).sum().clamp(min=1) * (2.0 * pi * HEAT_DEVIATION ** 2)  # pixels
    weights = weights * foreground
    errors = (outputs[:, 2:] - offsets).abs().sum(1) * weights
    return objects + centers.sum() / peaks + errors.sum() / weights.sum().clamp(min=1.0)


def group_instances(outputs: Tensor) -> Tensor:
    """
    Turn the network's answers into instances.

    :param outputs: (B, 4, H, W)
    :return: (B, H, W) int64 on the CPU, 1, 2, ... per picture, 0 = no object
    """
    outputs = outputs.float()
    foreground = outputs[:, 0] > 0
    # Smoothed, so that no two neighbours are equal.
    heat = functional.avg_pool2d(
        outputs[:, 1].sigmoid(), 3, 1, 1, count_include_pad=False) * foreground
    is_center = (heat == largest_around(heat, SEPARATION)) & (heat > THRESHOLD)
    return torch.stack([
        grouped(*picture) for picture in zip(foreground, heat * is_center, outputs[:, 2:])])


def grouped(foreground: Tensor, peaks: Tensor, offsets: Tensor) -> Tensor:
    """Group one picture's pixels: (H, W) bool, (H, W) and (2, H, W) to (H, W)."""
    centers = peaks.nonzero()
    best = peaks[tuple(centers.T)].argsort(descending=True)[:MOST_CENTERS]
    ids = torch.zeros(foreground.shape, dtype=torch.int64, device=foreground.device)
    if len(best):
        votes = foreground.nonzero() + OFFSET_UNIT * offsets[:, foreground].T
        ids[foreground] = 1 + torch.cdist(
            votes, centers[best].float(), compute_mode='donot_use_mm_for_euclid_dist').argmin(1)
    return torch.from_numpy(without_specks(ids.cpu().numpy()))


def without_specks(ids: np.ndarray) -> np.ndarray:
    """Take away parts that are too small; (H, W) to the same, numbered without gaps."""
    kept, count = np.zeros_like(ids), 0
    for number, window in enumerate(find_objects(ids), start=1):
        if window is None:
            continue
        _, parts, stats, _ = cv2.connectedComponentsWithStats(
            (ids[window] == number).astype(np.uint8))
        is_large = stats[:, cv2.CC_STAT_AREA] >= LEAST_PIXELS
        is_large[0] = False
        if is_large.any():
            count += 1
            kept[window][is_large[parts]] = count
    return kept
