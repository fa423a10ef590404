# SPDX-License-Identifier: Apache-2.0
"""
Pixels of single objects, of any kind, by a network that was trained on rendered clutter.

    frame -> a picture of about 320x240 -> network -> instances -> masks of the frame's pixels

The network and its channels are those of `models/instances.py`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from img2scene_ros.depth import measured
from img2scene_ros.detection.labelling import nearest_pixels
from img2scene_ros.detection.scaled import reduced
from img2scene_ros.devices import autocast
from img2scene_ros.devices import quick_dtype
from img2scene_ros.devices import torch_device
from img2scene_ros.packages import require_packages
from img2scene_ros.types import Frame

if TYPE_CHECKING:
    from torch import Tensor

PIXELS = 320 * 240  # of the picture the network looks at, as in its training
MULTIPLE = 16  # of its sides
RIM = 2  # pixels of it by which the edges of instances may be off


@dataclass(frozen=True, eq=False)
class Segmentation:
    """
    What the network sees at each pixel of a frame.

    - probability: (H, W) float32, that it shows an object
    - instances: (H, W) int32, numbers of objects, 0 = none
    - centers: (H, W, 2) float32, where the middle of its object is, row and column; only what it
      sees as an object has one
    """

    probability: np.ndarray
    instances: np.ndarray
    centers: np.ndarray


class InstanceSegmenter:
    """
    Labels the objects of a frame.

    :param folder: of the network's weights
    :param device: as `torch_device`
    :raises MissingDependencyError: torch is not on this machine
    :raises InputError: the weights are damaged or another network's
    """

    def __init__(self, folder: Path, device: str = 'cpu') -> None:
        require_packages("the network of 'tabletop'", ('torch', 'safetensors'),
                         "set 'tabletop.network' to none")
        import torch

        from img2scene_ros.models.instances import CHANNELS
        from img2scene_ros.models.instances import InstanceNetwork
        from img2scene_ros.models.networks import load_network

        self._device = torch_device(device)
        self._network = load_network(folder, InstanceNetwork).to(
            self._device, memory_format=torch.channels_last)
        with torch.inference_mode():  # what is made at the first use, for no frame to wait
            self._network(torch.zeros(1, CHANNELS, 240, 320, device=self._device))

    def see(self, frame: Frame, number: np.ndarray) -> Segmentation:
        """
        Tell which pixels of a frame show objects, and which of them the same.

        :param number: (H, W) of the support under each pixel in `Frame.supports`
        """
        small, step = reduced(frame, PIXELS)
        part = np.s_[step // 2::step, step // 2::step]
        instances, outputs = self._coarse(
            small, number[part][:small.shape[0], :small.shape[1]])
        size = frame.shape[::-1]
        centers = step * (np.indices(small.shape) + outputs[2:])
        return Segmentation(
            cv2.resize(1.0 / (1.0 + np.exp(-outputs[0])), size),
            cv2.resize(_grown(instances), size, interpolation=cv2.INTER_NEAREST),
            cv2.resize(cv2.merge(list(centers.astype(np.float32))), size,
                       interpolation=cv2.INTER_NEAREST))

    def _coarse(self, frame: Frame, number: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return labels of a frame of about `PIXELS`, and what they are made of, in pixels."""
        import torch

        from img2scene_ros.models.instances import OFFSET_UNIT
        from img2scene_ros.models.instances import group_instances
        from img2scene_ros.models.instances import scene_channels

        height, width = frame.shape
        rays = np.nan_to_num(frame.camera.rays)  # where no ray is
        main, *others = frame.supports
        offsets = np.full(frame.shape, main.offset)
        for this, other in enumerate(others, 1):
            points = measured(frame.points)[number == this]
            offsets[number == this] = other.height(points) - points @ main.normal
        parts = (frame.color.transpose(2, 0, 1), measured(frame.depth), rays.transpose(2, 0, 1),
                 main.normal, offsets)
        colors, depths, directions, up, offset = (
            torch.from_numpy(np.ascontiguousarray(part, dtype))[None].to(self._device)
            for part, dtype in zip(parts, (np.uint8, *4 * [np.float32])))
        with torch.inference_mode():
            channels = scene_channels(colors, depths, directions, up, offset)
            with autocast(self._device, quick_dtype(self._device)):
                outputs = self._network(_padded(channels))
            outputs = outputs.float()[..., :height, :width]
            instances = group_instances(outputs)[0].numpy().astype(np.int32)
            outputs[:, 2:] *= OFFSET_UNIT
            return instances, outputs[0].cpu().numpy()


def _grown(labels: np.ndarray) -> np.ndarray:
    """Widen instances by `RIM`, as their edges are not exact; (h, w) int32."""
    if not labels.any():
        return labels
    nearest, distance = nearest_pixels(labels)
    return np.where(distance <= RIM, labels.ravel()[nearest], 0)


def _padded(channels: 'Tensor') -> 'Tensor':
    """Add rows and columns until both sides are multiples of `MULTIPLE`."""
    from torch.nn import functional

    height, width = channels.shape[2:]
    return functional.pad(channels, (0, -width % MULTIPLE, 0, -height % MULTIPLE))
