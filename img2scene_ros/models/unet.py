# SPDX-License-Identifier: Apache-2.0
"""What the 2D U-Nets are made of."""

from collections.abc import Sequence

from torch import Tensor
from torch import nn


class UNet(nn.Module):
    """Residual blocks at several resolutions, each half the one before; without first and last."""

    def __init__(self, widths: Sequence[int], count: int, deep: int) -> None:
        """
        Make the levels.

        :param widths: of every level, the finest first
        :param count: blocks per level, down and up
        :param deep: further blocks at the coarsest level
        """
        super().__init__()
        self.down = nn.ModuleList(blocks(width, count) for width in widths)
        self.shrink = nn.ModuleList(
            nn.Sequential(nn.Conv2d(fine, coarse, 2, 2, bias=False), nn.BatchNorm2d(coarse))
            for fine, coarse in zip(widths, widths[1:]))
        self.deep = blocks(widths[-1], deep, from_start=0)
        self.grow = nn.ModuleList(
            nn.ConvTranspose2d(coarse, fine, 2, 2) for fine, coarse in zip(widths, widths[1:]))
        self.up = nn.ModuleList(blocks(width, count) for width in widths[:-1])

    def through_levels(self, x: Tensor, coarsest: Tensor | float = 0.0) -> Tensor:
        """
        Go down to the coarsest level and up again.

        :param x: (B, C, H, W); the sides can be halved once per level but the first
        :param coarsest: what to add at the coarsest level
        :return: (B, C, H, W)
        """
        x = self.down[0](x)
        finer = []
        for shrink, down in zip(self.shrink, self.down[1:]):
            finer.append(x)
            x = down(shrink(x))
        x = self.deep(x + coarsest)
        for grow, up in zip(reversed(self.grow), reversed(self.up)):
            x = up(grow(x) + finer.pop())
        return x


def stem(channels: int, width: int) -> nn.Sequential:
    """Return what reads a picture, (B, channels, H, W) to (B, width, H / 2, W / 2)."""
    return nn.Sequential(
        nn.Conv2d(channels, width, 5, 2, 2, bias=False), nn.BatchNorm2d(width), nn.ReLU())


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
