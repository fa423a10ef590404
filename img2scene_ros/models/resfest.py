# SPDX-License-Identifier: Apache-2.0
"""
`resfest`: a ResNet-50, multi-scale feature fusion, a transformer encoder, a 3D decoder.

    picture -> ResNet-50 -> features at strides 8, 16, 32, brought to one width, added up at 8
    features + sine position -> transformer encoder: every place of the picture knows of all others
    -> unprojected into a grid of 16^3 -> 3D convolutions -> 32^3 -> logits, trilinear in between

After 3D-RETR (Shi et al., BMVC 2021) and Pix2Vox++ (Xie et al., IJCV 2020), but in the crop's
view: features go where they were seen.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch import nn

from img2scene_ros.errors import OptionError
from img2scene_ros.models import geometry
from img2scene_ros.models.backbone import build_backbone
from img2scene_ros.models.backbone import fused
from img2scene_ros.models.occupancy import EMPTY_LOGIT
from img2scene_ros.models.occupancy import OccupancyNetwork
from img2scene_ros.models.resnet_unproject import encode_position
from img2scene_ros.options import Options
from img2scene_ros.options import option

GRID = 16  # cells along a side where features enter the cube; the logits have twice as many
FREQUENCIES = 4


@dataclass(frozen=True)
class ResFesTConfig(Options):
    """The shape of a `resfest` network."""

    backbone: str = option(
        'resnet50', 'resnet18, resnet34, resnet50, or a network of timm such as '
        'efficientnet_b0')
    width: int = option(256, 'Width of the transformer, a multiple of 4 and of heads', low=8)
    heads: int = option(8, 'Attention heads', low=1)
    layers: int = option(4, 'Layers of the transformer', low=1)
    volume: int = option(64, 'Width of the 3D decoder', low=8)


class ResFesT(OccupancyNetwork):
    """See above; `config.width` is C and `config.volume` is V below."""

    Config = ResFesTConfig
    outer_layers = ('encoder.conv1', 'position', 'occupancy')

    def __init__(self, config: ResFesTConfig = ResFesTConfig()) -> None:
        super().__init__()
        self.config = config
        width, volume = config.width, config.volume
        if width % 4 or width % config.heads:
            raise OptionError(f"option 'width' is {width}; it must be a multiple of 4 and of "
                              f"'heads', {config.heads}")
        self.encoder = build_backbone(config.backbone)
        self.laterals = nn.ModuleList(
            nn.Conv2d(inputs, width, 1) for inputs in self.encoder.widths[1:])
        self.transformer = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(
                width, config.heads, 2 * width, dropout=0.0, batch_first=True, norm_first=True),
            config.layers, norm=nn.LayerNorm(width), enable_nested_tensor=False)
        self.lift = nn.Conv2d(width, volume, 1)
        self.position = nn.Linear(6 * FREQUENCIES, volume)
        self.coarse = nn.Sequential(Block3d(volume), Block3d(volume))
        self.up = nn.ConvTranspose3d(volume, volume // 2, 2, 2)
        self.fine = Block3d(volume // 2)
        self.occupancy = nn.Conv3d(volume // 2, 1, 1)
        nn.init.constant_(self.occupancy.bias, EMPTY_LOGIT)

    def encode(self, pictures: Tensor, half_field: Tensor) -> Tensor:
        """(B, 6, S, S) to (B, 1, 32, 32, 32)."""
        return self.decode(self.attend(self.fuse(pictures)), half_field)

    def fuse(self, pictures: Tensor) -> Tensor:
        """(B, 6, S, S) to (B, C, S / 8, S / 8)."""
        return fused(self.laterals, self.encoder(pictures)[1:])

    def attend(self, features: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H, W)."""
        height, width = features.shape[2:]
        position = sine_position(height, width, features.shape[1], features.device)
        tokens = self.transformer((features + position).flatten(2).mT)
        return tokens.mT.unflatten(2, (height, width))

    def decode(self, features: Tensor, half_field: Tensor) -> Tensor:
        """(B, C, H, W) to (B, 1, 32, 32, 32)."""
        features = self.lift(features)
        size = features.shape[-1]
        centers = geometry.cell_centers(GRID, features.device).expand(len(features), -1, -1)
        pixels = geometry.seen_at(centers, half_field, size)
        position = self.position(encode_position(centers, FREQUENCIES)).mT
        cells = geometry.unproject(features, size, pixels) + position
        volume = self.coarse(cells.unflatten(2, (GRID, GRID, GRID)))
        return self.occupancy(self.fine(self.up(volume)))

    def query(self, features: Tensor, half_field: Tensor, points: Tensor) -> Tensor:
        """(B, 1, 32, 32, 32) and (B, N, 3) to (B, N)."""
        return geometry.sample_cube(features, points)[:, 0]


class Block3d(nn.Module):
    """Two 3x3x3 convolutions around a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm3d(width), nn.ReLU(), nn.Conv3d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm3d(width), nn.ReLU(), nn.Conv3d(width, width, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, D, H, W) to the same."""
        return x + self.layers(x)


def sine_position(height: int, width: int, channels: int, device: torch.device) -> Tensor:
    """
    Return the encoding of a picture's places, (channels, height, width).

    Half of the channels tell the row, half the column, as in DETR (Carion et al., ECCV 2020),
    positions from 0 to 2 pi.
    """
    quarter = channels // 4
    period = 10000.0 ** (torch.arange(quarter, device=device) / quarter)
    rows, columns = (
        (torch.arange(count, device=device) + 0.5) / count * 2.0 * torch.pi
        for count in (height, width))
    rows = (rows / period[:, None])[:, :, None].expand(-1, height, width)
    columns = (columns / period[:, None])[:, None, :].expand(-1, height, width)
    return torch.cat([rows.sin(), rows.cos(), columns.sin(), columns.cos()])
