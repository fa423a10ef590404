# SPDX-License-Identifier: Apache-2.0
"""Backbones by name: pictures in, four feature maps at strides 4, 8, 16 and 32 out."""

from torch import Tensor
from torch import nn

from img2scene_ros.errors import OptionError
from img2scene_ros.models.channels import CHANNELS
from img2scene_ros.models.resnet import DEPTHS
from img2scene_ros.models.resnet import ResNet
from img2scene_ros.packages import importing

RESNETS = {f'resnet{depth}': depth for depth in DEPTHS}
STRIDES = [4, 8, 16, 32]


def build_backbone(name: str) -> nn.Module:
    """
    Make a backbone with random weights; its `widths` are the channels of the four maps.

    :param name: resnet18, resnet34, resnet50, or a convolutional network of timm, such as
        efficientnet_b0
    :raises MissingDependencyError: another name than a ResNet's, and timm is not installed
    :raises OptionError: timm has no such network, or it has no maps at these strides
    """
    return ResNet(RESNETS[name]) if name in RESNETS else TimmBackbone(name)


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
