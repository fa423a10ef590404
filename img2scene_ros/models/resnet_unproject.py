# SPDX-License-Identifier: Apache-2.0
"""
`resnet18-unproject`: a ResNet's features, unprojected into the cube, and an MLP per point.

    picture -> ResNet -> features at strides 4 ... 32, brought to one width, added up at stride 4
    point of the cube -> projected into the crop -> its features (bilinear)
    features + encoded position -> MLP -> occupancy logit
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch import nn

from img2scene_ros.models.backbone import build_backbone
from img2scene_ros.models.backbone import fused
from img2scene_ros.models.geometry import seen_at
from img2scene_ros.models.geometry import unproject
from img2scene_ros.models.occupancy import EMPTY_LOGIT
from img2scene_ros.models.occupancy import OccupancyNetwork
from img2scene_ros.options import Options
from img2scene_ros.options import option


@dataclass(frozen=True)
class ResNetUnprojectConfig(Options):
    """The shape of a `resnet18-unproject` network."""

    backbone: str = option(
        'resnet18', 'resnet18, resnet34, resnet50, or a network of timm such as '
        'efficientnet_b0')
    hidden: int = option(128, 'Width of the features in the cube and of the MLP', low=8)
    layers: int = option(3, 'Hidden layers of the MLP', low=1)
    frequencies: int = option(4, 'Octaves that a position is encoded with', low=1)


class ResNetUnproject(OccupancyNetwork):
    """See above; `config.hidden` is C below."""

    Config = ResNetUnprojectConfig
    outer_layers = ('encoder.conv1', 'position', 'occupancy')

    def __init__(self, config: ResNetUnprojectConfig = ResNetUnprojectConfig()) -> None:
        super().__init__()
        self.config = config
        self.encoder = build_backbone(config.backbone)
        self.laterals = nn.ModuleList(
            nn.Conv2d(width, config.hidden, 1) for width in self.encoder.widths)
        self.position = nn.Linear(6 * config.frequencies, config.hidden)
        self.mlp = nn.Sequential(*(
            layer for _ in range(config.layers - 1)
            for layer in (nn.ReLU(), nn.Linear(config.hidden, config.hidden))))
        self.occupancy = nn.Linear(config.hidden, 1)
        nn.init.constant_(self.occupancy.bias, EMPTY_LOGIT)

    def encode(self, pictures: Tensor, half_field: Tensor) -> Tensor:
        """(B, 6, S, S) to (B, C, S / 4, S / 4)."""
        return fused(self.laterals, self.encoder(pictures))

    def query(self, features: Tensor, half_field: Tensor, points: Tensor) -> Tensor:
        """(B, C, S / 4, S / 4) and (B, N, 3) to (B, N)."""
        size = features.shape[-1]
        seen = unproject(features, size, seen_at(points, half_field, size)).mT
        # One linear layer over features and position side by side is the sum of two.
        hidden = self.mlp(seen + self.position(encode_position(points, self.config.frequencies)))
        return self.occupancy(hidden.relu())[..., 0].float()


def encode_position(points: Tensor, frequencies: int) -> Tensor:
    """
    Return sines and cosines of coordinates, (..., 3) to (..., 6 F).

    Mildenhall et al., NeRF, ECCV 2020, equation 4.
    """
    octaves = 2.0 ** torch.arange(frequencies, device=points.device) * torch.pi
    angles = (points[..., None] * octaves).flatten(-2)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
