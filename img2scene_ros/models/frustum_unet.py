# SPDX-License-Identifier: Apache-2.0
"""
`frustum-unet`: a 2D U-Net whose output channels are depth slices of the view frustum.

    measured depth -> what lies before and behind the surface, per pixel and slice
    picture and that -> U-Net -> (slices, S / 2, S / 2): the logit of every pixel at every depth
    point of the cube -> pixel and depth -> logit, trilinear

Meant for robots: no 3D convolution, no MLP per point. What a pixel shows lies on its own ray, so a
2D network has every fact at hand where it is needed; the way from the frustum to the cube is
geometry and not learned.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from torch import Tensor
from torch import nn

from img2scene_ros.models.channels import CHANNELS
from img2scene_ros.models.crop import CENTER_BEHIND_ANCHOR
from img2scene_ros.models.geometry import resample_frustum
from img2scene_ros.models.geometry import sample_frustum
from img2scene_ros.models.occupancy import EMPTY_LOGIT
from img2scene_ros.models.occupancy import OccupancyNetwork
from img2scene_ros.models.unet import UNet
from img2scene_ros.models.unet import blocks
from img2scene_ros.models.unet import change_nothing
from img2scene_ros.models.unet import stem
from img2scene_ros.options import Options
from img2scene_ros.options import option

RAMP = 0.1  # cube sides
ELSEWHERE = 1e-3  # what a reading beside the mask weighs against one in it


@dataclass(frozen=True)
class FrustumUNetConfig(Options):
    """The shape of a `frustum-unet` network."""

    width: int = option(48, 'Width at half the resolution of the picture', low=4)
    slices: int = option(48, 'Depth slices of the frustum', low=8, high=256)
    blocks: int = option(1, 'Residual blocks per level, down and up', low=1)
    deep: int = option(
        3, 'Further residual blocks at the coarsest level, which sees the whole object', low=0)
    fine: int = option(
        0, "Width at the picture's own resolution, where answers are three times as fine; 0 is "
        'none of it', low=0)


class FrustumUNet(UNet, OccupancyNetwork):
    """See above; `config.width` is C and `config.slices` is D below."""

    Config = FrustumUNetConfig
    outer_layers: tuple[str, ...] = ('stem', 'surface', 'field', 'slices')

    def __init__(self, config: FrustumUNetConfig = FrustumUNetConfig()) -> None:
        widths = [config.width * factor for factor in (1, 2, 4, 5)]
        super().__init__(widths, config.blocks, config.deep)
        self.config = config
        self.stem = stem(CHANNELS, widths[0])
        self.surface = nn.Conv2d(config.slices, widths[0], 1, bias=False)
        self.field = nn.Linear(1, widths[-1])
        change_nothing(self.field)
        if config.fine:
            self.samples_per_cell = 3
            self.outer_layers = (*self.outer_layers, 'edges')
            self.edges = nn.Conv2d(CHANNELS, config.fine, 3, padding=1)
            self.sharpen = nn.ConvTranspose2d(widths[0], config.fine, 2, 2)
            self.finest = blocks(config.fine, 1)
            self.front = nn.Parameter(torch.zeros(config.slices))
        self.slices = nn.Conv2d(config.fine or widths[0], config.slices, 1)
        # What there is outside of the frustum, and where the training starts.
        self.prior = nn.Parameter(torch.tensor(EMPTY_LOGIT))

    def encode(self, pictures: Tensor, half_field: Tensor) -> Tensor:
        """(B, 6, S, S) to (B, 1, D, S / 2, S / 2), or S, S if fine; S is a multiple of 16."""
        behind = behind_surface(pictures, self.config.slices)
        x = self.stem(pictures) + self.surface(behind)
        x = self.through_levels(x, self.field(half_field[:, None])[:, :, None, None])
        if not self.config.fine:
            return self.slices(x)[:, None]
        x = self.finest(self.sharpen(x) + self.edges(pictures))
        behind = behind_surface(pictures, self.config.slices, 1)
        return (self.slices(x) + self.front[:, None, None] * behind)[:, None]

    def query(self, features: Tensor, half_field: Tensor, points: Tensor) -> Tensor:
        """(B, 1, D, H, W) and (B, N, 3) to (B, N)."""
        return sample_frustum(features, half_field, points)[:, 0] + self.prior

    def query_cells(
        self, features: Tensor, half_field: Tensor, resolution: int,
        shift: Tensor | None = None,
    ) -> Tensor:
        """(B, 1, D, H, W) to (B, R, R, R), the same as `query` but without the points."""
        return resample_frustum(features[:, 0], half_field, resolution, shift) + self.prior


def behind_surface(pictures: Tensor, slices: int, coarse: int = 2) -> Tensor:
    """
    Tell for every pixel and slice whether it lies before or behind the measured surface.

    Where a pixel of the U-Net holds readings of the object and of what is behind its edge, the
    object's count: their mean would lie on neither, and thin parts are all edge.

    :param pictures: (B, 6, S, S)
    :param coarse: pixels of the picture along a side of one of the U-Net
    :return: (B, D, S / coarse, S / coarse), from -1 before to 1 behind it, linear for `RAMP` on
        either side; 0 where there is no reading
    """
    mask, depth, read = pictures[:, 3:4], pictures[:, 4:5], pictures[:, 5:6]
    weight = read * torch.where(mask > 0, 1.0, ELSEWHERE)
    share = functional.avg_pool2d(weight, coarse)
    mean = functional.avg_pool2d(depth * weight, coarse) / share.clamp(min=ELSEWHERE / 4)
    along = (torch.arange(slices, device=pictures.device) + 0.5) / slices - 0.5
    behind = along[:, None, None] + CENTER_BEHIND_ANCHOR - mean
    return (behind / RAMP).clamp(-1.0, 1.0) * (share > 0)
