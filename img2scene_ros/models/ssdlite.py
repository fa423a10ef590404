# SPDX-License-Identifier: Apache-2.0
"""
SSDLite on MobileNetV2: an object detector for small processors.

Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018, with the
anchors of Liu et al., "SSD: Single Shot MultiBox Detector", ECCV 2016, as TensorFlow's model
`ssdlite_mobilenet_v2_coco` lays them out. Batch norms are part of the convolutions.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

# Expansion, channels, repetitions and stride of the backbone's stages: table 2 of MobileNetV2.
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1),
           (6, 160, 3, 2), (6, 320, 1, 1))
# Middle and outer channels of the layers that halve the map for larger objects.
_EXTRAS = ((256, 512), (128, 256), (128, 256), (64, 128))
# Channels of the six maps that boxes are read off, and the boxes of each of their cells.
_MAPS = ((576, 3), (1280, 6), (512, 6), (256, 6), (256, 6), (128, 6))
# The block whose widened features are the first map.
_FIRST_MAP = 13
# Sides of anchors, relative to the picture: evenly spaced from the least to the greatest.
_SCALES = (0.2, 0.95)
# What codes of centres and of sizes were multiplied with for training.
_CODES = (10.0, 5.0)


@dataclass(frozen=True)
class SsdLiteConfig:
    """Shape of the network: classes, and pixels of a side of the picture."""

    classes: int = 80
    size: int = 300


class SsdLite(nn.Module):
    """Finds boxes and scores of classes in square pictures."""

    Config = SsdLiteConfig

    def __init__(self, config: SsdLiteConfig = SsdLiteConfig()) -> None:
        super().__init__()
        self.config = config
        self.stem = _Conv(3, 32, 3, stride=2)
        blocks, channels = [], 32
        for expansion, width, repetitions, stride in _STAGES:
            for index in range(repetitions):
                blocks.append(_Block(channels, width, expansion, stride if index == 0 else 1))
                channels = width
        self.blocks = nn.ModuleList(blocks)
        self.last = _Conv(channels, 1280, 1)
        widths = [1280, *(outer for _, outer in _EXTRAS)]
        self.extras = nn.ModuleList(
            nn.Sequential(_Conv(width, inner, 1), _depthwise(inner, 2), _Conv(inner, outer, 1))
            for width, (inner, outer) in zip(widths, _EXTRAS))
        self.boxes = nn.ModuleList(_head(width, 4 * count) for width, count in _MAPS)
        self.scores = nn.ModuleList(
            _head(width, config.classes * count) for width, count in _MAPS)
        self.register_buffer(
            'anchors', torch.from_numpy(anchors(config.size)), persistent=False)

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Find boxes.

        :param pictures: (N, 3, size, size) RGB, 0 to 255
        :return: boxes (N, A, 4), xmin, ymin, xmax, ymax, 1 = the picture's side, perhaps beyond
            it; scores (N, A, classes), 0 to 1, independent of each other
        """
        codes, logits = self.outputs(pictures / 127.5 - 1.0)
        return self._decoded(codes), logits.sigmoid()

    def outputs(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Return what the heads say about every anchor.

        :param pictures: (N, 3, size, size) RGB, -1 to 1
        :return: codes (N, A, 4) of y, x, height, width; logits (N, A, classes)
        """
        maps = self._maps(pictures)
        return tuple(
            torch.cat([_rows(head(each), columns) for head, each in zip(heads, maps)], dim=1)
            for heads, columns in ((self.boxes, 4), (self.scores, self.config.classes)))

    def _maps(self, pictures: torch.Tensor) -> list[torch.Tensor]:
        """Return the maps that boxes are read off, finest first."""
        features = self.stem(pictures)
        for block in self.blocks[:_FIRST_MAP]:
            features = block(features)
        first = self.blocks[_FIRST_MAP]
        maps = [first.expanded(features)]
        features = first.projected(maps[0])
        for block in self.blocks[_FIRST_MAP + 1:]:
            features = block(features)
        maps.append(self.last(features))
        for extra in self.extras:
            maps.append(extra(maps[-1]))
        return maps

    def _decoded(self, codes: torch.Tensor) -> torch.Tensor:
        """Turn codes (N, A, 4) into xmin, ymin, xmax, ymax, 1 = the picture's side."""
        center = codes[..., :2] / _CODES[0] * self.anchors[:, 2:] + self.anchors[:, :2]
        half = (codes[..., 2:] / _CODES[1]).exp() * self.anchors[:, 2:] / 2.0
        # TensorFlow has rows before columns.
        return torch.cat([center - half, center + half], dim=-1)[..., [1, 0, 3, 2]]


class _Conv(nn.Conv2d):
    """A convolution that pads as TensorFlow's 'SAME' does, cut off at 0 and 6."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride), rounded up."""
        over = [max(self.kernel_size[0] - ((size - 1) % self.stride[0] + 1), 0)
                for size in x.shape[:1:-1]]
        before, after = [n // 2 for n in over], [n - n // 2 for n in over]
        if before == after:
            y = functional.conv2d(
                x, self.weight, self.bias, self.stride, before[::-1], groups=self.groups)
        else:
            x = functional.pad(x, (before[0], after[0], before[1], after[1]))
            y = functional.conv2d(x, self.weight, self.bias, self.stride, groups=self.groups)
        return y.clamp_(0.0, 6.0)


class _Block(nn.Module):
    """An inverted residual: widened, filtered per channel, projected without activation."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        width = inputs * expansion
        self.widen = _Conv(inputs, width, 1) if expansion > 1 else nn.Identity()
        self.depthwise = _depthwise(width, stride)
        self.project = nn.Conv2d(width, outputs, 1)
        self.is_residual = stride == 1 and inputs == outputs

    def expanded(self, x: torch.Tensor) -> torch.Tensor:
        """(N, inputs, H, W) to (N, inputs * expansion, H, W)."""
        return self.widen(x)

    def projected(self, x: torch.Tensor) -> torch.Tensor:
        """(N, inputs * expansion, H, W) to (N, outputs, H / stride, W / stride)."""
        return self.project(self.depthwise(x))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        y = self.projected(self.expanded(x))
        return x + y if self.is_residual else y


def _depthwise(width: int, stride: int = 1) -> _Conv:
    return _Conv(width, width, 3, stride, groups=width)


def _head(width: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(_depthwise(width), nn.Conv2d(width, outputs, 1))


def _rows(x: torch.Tensor, columns: int) -> torch.Tensor:
    """(N, boxes * columns, H, W) to (N, H * W * boxes, columns)."""
    return x.permute(0, 2, 3, 1).reshape(len(x), -1, columns)


def anchors(size: int) -> np.ndarray:
    """
    Return the boxes that codes refer to, (A, 4) float32: y, x, height, width; 1 = the picture.

    SSD's section 2.2, with the smallest boxes as TensorFlow's `SSDAnchorGenerator` has them.
    """
    sides = [*np.linspace(*_SCALES, len(_MAPS)), 1.0]
    rows, cells = [], size / 16  # the first map is at stride 16
    for level in range(len(_MAPS)):
        cells = int(np.ceil(cells))
        side, ratios = sides[level], (1.0, 2.0, 0.5, 3.0, 1.0 / 3.0)
        shapes = [(side / ratio ** 0.5, side * ratio ** 0.5) for ratio in ratios]
        shapes.append(((side * sides[level + 1]) ** 0.5,) * 2)
        if level == 0:
            shapes = [(side / 2, side / 2), *shapes[1:3]]
        middles = (np.arange(cells) + 0.5) / cells
        for y in middles:
            for x in middles:
                rows.extend((y, x, *shape) for shape in shapes)
        cells /= 2
    return np.array(rows, np.float32)
