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


class FrustumUNet(OccupancyNetwork):
    """See above; `config.width` is C and `config.slices` is D below."""

    Config = FrustumUNetConfig
    outer_layers = ('stem', 'surface', 'field', 'slices')

    def __init__(self, config: FrustumUNetConfig = FrustumUNetConfig()) -> None:
        super().__init__()
        self.config = config
        widths = [config.width * factor for factor in (1, 2, 4, 5)]
        self.stem = nn.Sequential(
            nn.Conv2d(CHANNELS, widths[0], 5, 2, 2, bias=False), nn.BatchNorm2d(widths[0]),
            nn.ReLU())
        self.surface = nn.Conv2d(config.slices, widths[0], 1, bias=False)
        self.down = nn.ModuleList(blocks(width, config.blocks) for width in widths)
        self.shrink = nn.ModuleList(
            nn.Sequential(nn.Conv2d(fine, coarse, 2, 2, bias=False), nn.BatchNorm2d(coarse))
            for fine, coarse in zip(widths, widths[1:]))
        self.field = nn.Linear(1, widths[-1])
        change_nothing(self.field)
        self.deep = blocks(widths[-1], config.deep, from_start=0)
        self.grow = nn.ModuleList(
            nn.ConvTranspose2d(coarse, fine, 2, 2) for fine, coarse in zip(widths, widths[1:]))
        self.up = nn.ModuleList(blocks(width, config.blocks) for width in widths[:-1])
        self.slices = nn.Conv2d(widths[0], config.slices, 1)
        # What there is outside of the frustum, and where the training starts.
        self.prior = nn.Parameter(torch.tensor(EMPTY_LOGIT))

    def encode(self, pictures: Tensor, half_field: Tensor) -> Tensor:
        """(B, 6, S, S) to (B, 1, D, S / 2, S / 2); S is a multiple of 16."""
        behind = behind_surface(pictures, self.config.slices)
        x = self.down[0](self.stem(pictures) + self.surface(behind))
        finer = []
        for shrink, down in zip(self.shrink, self.down[1:]):
            finer.append(x)
            x = down(shrink(x))
        x = self.deep(x + self.field(half_field[:, None])[:, :, None, None])
        for grow, up in zip(reversed(self.grow), reversed(self.up)):
            x = up(grow(x) + finer.pop())
        return self.slices(x)[:, None]

    def query(self, features: Tensor, half_field: Tensor, points: Tensor) -> Tensor:
        """(B, 1, D, S / 2, S / 2) and (B, N, 3) to (B, N)."""
        return sample_frustum(features, half_field, points)[:, 0] + self.prior

    def query_cells(
        self, features: Tensor, half_field: Tensor, resolution: int, points_per_chunk: int = 0,
    ) -> Tensor:
        """(B, 1, D, S / 2, S / 2) to (B, R, R, R), the same as `query` but without the points."""
        return resample_frustum(features[:, 0], half_field, resolution) + self.prior


def behind_surface(pictures: Tensor, slices: int) -> Tensor:
    """
    Tell for every pixel and slice whether it lies before or behind the measured surface.

    Where a pixel of the U-Net holds readings of the object and of what is behind its edge, the
    object's count: their mean would lie on neither, and thin parts are all edge.

    :param pictures: (B, 6, S, S)
    :return: (B, D, S / 2, S / 2), from -1 before to 1 behind it, linear for `RAMP` on either
        side; 0 where there is no reading
    """
    mask, depth, read = pictures[:, 3:4], pictures[:, 4:5], pictures[:, 5:6]
    weight = read * torch.where(mask > 0, 1.0, ELSEWHERE)
    share = functional.avg_pool2d(weight, 2)
    mean = functional.avg_pool2d(depth * weight, 2) / share.clamp(min=ELSEWHERE / 4)
    along = (torch.arange(slices, device=pictures.device) + 0.5) / slices - 0.5
    behind = along[:, None, None] + CENTER_BEHIND_ANCHOR - mean
    return (behind / RAMP).clamp(-1.0, 1.0) * (share > 0)


class Block(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, H, W) to the same."""
        return (x + self.layers(x)).relu()


def blocks(width: int, count: int, from_start: int = 1) -> nn.Sequential:
    """
    Return blocks one after another.

    :param from_start: how many do something from the start; those after them change nothing until
        they have learned something, so a training can go on with more of them
    """
    chain = nn.Sequential(*(Block(width) for _ in range(count)))
    for block in chain[from_start:]:
        change_nothing(block.layers[-1])
    return chain


def change_nothing(layer: nn.Linear | nn.BatchNorm2d) -> None:
    """Let a layer's answer be zero until it has learned something."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
