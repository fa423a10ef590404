# SPDX-License-Identifier: Apache-2.0
"""
Pixels of single objects, of any kind, by a network that was trained on rendered clutter.

    frame -> a picture of about 320x240 -> network -> instances -> masks of the frame's pixels

The network and its channels are those of `models/instances.py`.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from img2scene_ros.depth import measured
from img2scene_ros.devices import torch_device
from img2scene_ros.types import Frame
from img2scene_ros.types import SupportPlane

if TYPE_CHECKING:
    from torch import Tensor

PIXELS = 320 * 240  # of the picture the network looks at, as in its training
MULTIPLE = 16  # of its sides
SAME_SURFACE = 0.02  # share of the depth by which neighbouring readings of one surface differ


class InstanceSegmenter:
    """
    Labels the objects of a frame.

    :param folder: of the network's weights
    :param device: as `torch_device`
    :raises MissingDependencyError: torch is not on this machine
    :raises InputError: the weights are damaged or another network's
    """

    def __init__(self, folder: Path, device: str = 'cpu') -> None:
        import torch

        from img2scene_ros.models.instances import InstanceNetwork
        from img2scene_ros.models.networks import load_network

        self._device = torch_device(device)
        self._network = load_network(folder, InstanceNetwork).to(
            self._device, memory_format=torch.channels_last)

    def labels(self, frame: Frame, support: SupportPlane) -> tuple[np.ndarray, np.ndarray]:
        """
        Label the pixels of a frame by object.

        :return: (H, W) int32, 0 = no object, 1, 2, ...; their scores (N,), the network's mean
            probability that the pixels are an object's
        """
        rows, columns = _coarse_grid(frame.shape)
        coarse, probability = self._coarse(frame, support, rows, columns)
        labels = _at_full_resolution(coarse, frame, rows, columns)
        count = int(coarse.max())
        areas = np.bincount(coarse.ravel(), minlength=count + 1)[1:]
        sums = np.bincount(coarse.ravel(), probability.ravel(), count + 1)[1:]
        return labels, sums / np.maximum(areas, 1)

    def _coarse(
        self, frame: Frame, support: SupportPlane, rows: np.ndarray, columns: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return labels and the probabilities of an object at some rows and columns."""
        import torch

        from img2scene_ros.models.instances import group_instances
        from img2scene_ros.models.instances import scene_channels

        size = len(columns), len(rows)
        color = cv2.resize(frame.color, size, interpolation=cv2.INTER_AREA)
        depth = measured(frame.depth)[np.ix_(rows, columns)]
        rays = frame.camera.rays[np.ix_(rows, columns)]
        parts = (color.transpose(2, 0, 1), depth, rays.transpose(2, 0, 1), support.normal,
                 np.array(support.offset))
        tensors = [torch.from_numpy(np.ascontiguousarray(part, dtype))[None].to(self._device)
                   for part, dtype in zip(parts, (np.uint8, *4 * [np.float32]))]
        with torch.inference_mode():
            channels = scene_channels(*tensors)
            outputs = self._network(_padded(channels)).float()[..., :size[1], :size[0]]
            labels = group_instances(outputs)[0].numpy()
            return labels, outputs[0, 0].sigmoid().cpu().numpy()


def _padded(channels: 'Tensor') -> 'Tensor':
    """Add rows and columns until both sides are multiples of `MULTIPLE`."""
    from torch.nn import functional

    height, width = channels.shape[2:]
    return functional.pad(channels, (0, -width % MULTIPLE, 0, -height % MULTIPLE))


def _coarse_grid(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows and columns of a picture of a shape that the network looks at."""
    step = max(1.0, np.sqrt(shape[0] * shape[1] / PIXELS))
    rows, columns = (((np.arange(round(side / step)) + 0.5) * step).astype(int).clip(max=side - 1)
                     for side in shape)
    return rows, columns


def _at_full_resolution(
    coarse: np.ndarray, frame: Frame, rows: np.ndarray, columns: np.ndarray,
) -> np.ndarray:
    """
    Give every pixel the label of the coarse neighbour whose depth is most like its own.

    Kopf et al., "Joint bilateral upsampling", SIGGRAPH 2007, with the nearest neighbours alone.
    """
    height, width = frame.shape
    full = cv2.resize(coarse.astype(np.int32).astype(np.float32), (width, height),
                      interpolation=cv2.INTER_NEAREST).astype(np.int32)
    kernel = np.ones((3, 3), np.uint8)
    label = coarse.astype(np.float32)
    at_border = cv2.dilate(label, kernel) != cv2.erode(label, kernel)
    border = cv2.resize(at_border.astype(np.uint8), (width, height),
                        interpolation=cv2.INTER_NEAREST) > 0
    v, u = np.nonzero(border)
    depth = measured(frame.depth)
    own = depth[v, u]
    coarse_depth = depth[np.ix_(rows, columns)]
    at_row = np.clip((v * len(rows)) // height, 1, len(rows) - 2)
    at_column = np.clip((u * len(columns)) // width, 1, len(columns) - 2)
    best = np.full(len(v), np.inf, np.float32)
    chosen = full[v, u]
    for down in (0, -1, 1):
        for right in (0, -1, 1):
            row, column = at_row + down, at_column + right
            away = np.hypot(v - rows[row], u - columns[column]) / (rows[1] - rows[0])
            jump = np.abs(coarse_depth[row, column] - own) / (SAME_SURFACE * own)
            cost = away + np.where(np.isnan(jump), 2.0, np.minimum(jump, 4.0))
            better = cost < best
            best = np.where(better, cost, best)
            chosen = np.where(better, coarse[row, column], chosen)
    full[v, u] = chosen
    return full
