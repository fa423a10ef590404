# SPDX-License-Identifier: Apache-2.0
"""
Backbones by name: pictures in, four feature maps at strides 4, 8, 16 and 32 out.

ResNets (He et al., CVPR 2016) have torchvision's names of parameters, so its ImageNet weights fit.
"""

from pathlib import Path

import torch
import torch.nn.functional as functional
from torch import Tensor
from torch import nn

from img2scene_ros.errors import InputError
from img2scene_ros.errors import OptionError
from img2scene_ros.models.channels import CHANNELS
from img2scene_ros.packages import importing

# Blocks of each stage, and their widths.
RESNETS = {'resnet18': (2, 2, 2, 2), 'resnet34': (3, 4, 6, 3), 'resnet50': (3, 4, 6, 3)}
WIDTHS = (64, 128, 256, 512)
STRIDES = [4, 8, 16, 32]


def build_backbone(name: str) -> nn.Module:
    """
    Make a backbone with random weights; its `widths` are the channels of the four maps.

    :param name: resnet18, resnet34, resnet50, or a convolutional network of timm, such as
        efficientnet_b0
    :raises MissingDependencyError: another name than a ResNet's, and timm is not installed
    :raises OptionError: timm has no such network, or it has no maps at these strides
    """
    return ResNet(name) if name in RESNETS else TimmBackbone(name)


def fused(laterals: nn.ModuleList, maps: list[Tensor]) -> Tensor:
    """Bring maps (B, ?, H, W) to one width by a layer each; add them up at the first's size."""
    first, *others = (lateral(x) for lateral, x in zip(laterals, maps))
    return sum(
        (functional.interpolate(x, first.shape[2:], mode='bilinear', align_corners=False)
         for x in others), start=first)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = shortcut(inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, width, H / stride, W / stride)."""
        y = self.bn1(self.conv1(x)).relu()
        return (self.bn2(self.conv2(y)) + self.downsample(x)).relu()


class Bottleneck(nn.Module):
    """A 3x3 convolution between two of 1x1, around a shortcut; the stride is in the 3x3."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = shortcut(inputs, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, 4 width, H / stride, W / stride)."""
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y)).relu()
        return (self.bn3(self.conv3(y)) + self.downsample(x)).relu()


def shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    """Return the way past a block."""
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


class ResNet(nn.Module):
    """Pictures in, four feature maps out."""

    def __init__(self, name: str) -> None:
        super().__init__()
        block = Bottleneck if name == 'resnet50' else BasicBlock
        self.conv1 = nn.Conv2d(CHANNELS, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inputs = 64
        for stage, (count, width) in enumerate(zip(RESNETS[name], WIDTHS), start=1):
            blocks = []
            for index in range(count):
                blocks.append(block(inputs, width, 2 if stage > 1 and index == 0 else 1))
                inputs = width * block.expansion
            self.add_module(f'layer{stage}', nn.Sequential(*blocks))
        self.widths = tuple(width * block.expansion for width in WIDTHS)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """(B, 6, S, S) to the maps at strides 4, 8, 16, 32: (B, widths[i], S / stride, same)."""
        x = self.maxpool(self.bn1(self.conv1(pictures)).relu())
        maps = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            maps.append(x)
        return maps


class TimmBackbone(nn.Module):
    """The last four feature maps of a network of timm, huggingface/pytorch-image-models."""

    def __init__(self, name: str) -> None:
        super().__init__()
        with importing(f"the backbone '{name}'", 'timm', f"choose {' or '.join(RESNETS)}"):
            import timm
        try:
            self.network = timm.create_model(
                name, features_only=True, in_chans=CHANNELS, pretrained=False)
        except Exception as error:  # timm raises all kinds
            raise OptionError(f"timm makes no backbone '{name}': {error}") from error
        info = self.network.feature_info
        if info.reduction()[-4:] != STRIDES:
            raise OptionError(f"the backbone '{name}' has feature maps at the strides "
                              f'{info.reduction()}; needed are {STRIDES}')
        self.widths = tuple(info.channels()[-4:])

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """(B, 6, S, S) to the maps at strides 4, 8, 16, 32: (B, widths[i], S / stride, same)."""
        return self.network(pictures)[-4:]


def load_imagenet_weights(encoder: ResNet, path: Path) -> None:
    """
    Start from weights with torchvision's names and shapes, a .safetensors or .pth file.

    Their three input channels become the colour; the filters of mask and depth start at zero.

    :raises InputError: a file that cannot be read or is of another network
    """
    try:
        if Path(path).suffix == '.safetensors':
            from safetensors.torch import load_file

            weights = load_file(path)
        else:
            weights = torch.load(path, map_location='cpu', weights_only=True)
        weights = {name: tensor for name, tensor in weights.items() if not name.startswith('fc.')}
        first = weights['conv1.weight']
        weights['conv1.weight'] = torch.zeros_like(encoder.conv1.weight)
        weights['conv1.weight'][:, :first.shape[1]] = first
        encoder.load_state_dict(weights)
    except Exception as error:  # torch and safetensors raise all kinds
        reason = ' '.join(str(error).split())[:160]
        raise InputError(f"'{path}' holds no weights of such a ResNet: {reason}") from error
