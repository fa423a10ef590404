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
from img2scene_ros.devices import autocast
from img2scene_ros.devices import quick_dtype
from img2scene_ros.devices import torch_device
from img2scene_ros.packages import require_packages
from img2scene_ros.types import Frame
from img2scene_ros.types import SupportPlane

if TYPE_CHECKING:
    from torch import Tensor

PIXELS = 320 * 240  # of the picture the network looks at, as in its training
MULTIPLE = 16  # of its sides
# Pixels take the label of a coarse pixel near by: share of the depth that counts as much as one's
# width, the most that a jump of the depth counts, and what it counts where one was not read.
SAME_SURFACE, FAR, UNREAD = 0.01, 6.0, 2.0
NEIGHBOURS = ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1))


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

        from img2scene_ros.models.instances import InstanceNetwork
        from img2scene_ros.models.networks import load_network

        self._device = torch_device(device)
        self._network = load_network(folder, InstanceNetwork).to(
            self._device, memory_format=torch.channels_last)

    def labels(self, frame: Frame, support: SupportPlane) -> tuple[np.ndarray, np.ndarray]:
        """
        Label the pixels of a frame by object.

        :return: (H, W) int32, 0 = no object, 1, 2, ...; and how probably each pixel is one of an
            object, (H, W) float32
        """
        rows, columns = coarse_grid(frame.shape)
        labels, probability = self._coarse(frame, support, rows, columns)
        return (at_full_resolution(labels, frame, rows, columns),
                cv2.resize(probability, frame.shape[::-1], interpolation=cv2.INTER_LINEAR))

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
        rays = np.nan_to_num(frame.camera.rays[np.ix_(rows, columns)])  # where no ray is
        parts = (color.transpose(2, 0, 1), depth, rays.transpose(2, 0, 1), support.normal)
        colors, depths, directions, up = (
            torch.from_numpy(np.ascontiguousarray(part, dtype))[None].to(self._device)
            for part, dtype in zip(parts, (np.uint8, *3 * [np.float32])))
        offset = torch.tensor([support.offset], dtype=torch.float32, device=self._device)
        with torch.inference_mode():
            channels = scene_channels(colors, depths, directions, up, offset)
            with autocast(self._device, quick_dtype(self._device)):
                outputs = self._network(_padded(channels))
            outputs = outputs.float()[..., :size[1], :size[0]]
            labels = group_instances(outputs)[0].numpy()
            return labels, outputs[0, 0].sigmoid().cpu().numpy()


def _padded(channels: 'Tensor') -> 'Tensor':
    """Add rows and columns until both sides are multiples of `MULTIPLE`."""
    from torch.nn import functional

    height, width = channels.shape[2:]
    return functional.pad(channels, (0, -width % MULTIPLE, 0, -height % MULTIPLE))


def coarse_grid(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows and columns of a picture of a shape that the network looks at."""
    step = max(1.0, np.sqrt(shape[0] * shape[1] / PIXELS))
    rows, columns = (((np.arange(round(side / step)) + 0.5) * step).astype(int).clip(max=side - 1)
                     for side in shape)
    return rows, columns


def at_full_resolution(
    coarse: np.ndarray, frame: Frame, rows: np.ndarray, columns: np.ndarray,
) -> np.ndarray:
    """
    Give every pixel the label of the coarse neighbour whose depth is most like its own.

    Kopf et al., "Joint bilateral upsampling", SIGGRAPH 2007, with the nearest neighbours alone.

    :param coarse: (h, w) int, labels of the frame's pixels at these rows and columns
    :return: (H, W) int32
    """
    row_of, column_of = (
        np.abs(np.arange(side)[:, None] - places).argmin(axis=1)
        for side, places in zip(frame.shape, (rows, columns)))
    coarse = coarse.astype(np.int32)
    full = coarse[np.ix_(row_of, column_of)]
    label, cross = coarse.astype(np.float32), np.ones((3, 3), np.uint8)
    at_border = cv2.dilate(label, cross) != cv2.erode(label, cross)
    v, u = np.nonzero(at_border[np.ix_(row_of, column_of)])
    depth = measured(frame.depth)
    own, coarse_depth = depth[v, u], depth[np.ix_(rows, columns)]
    step = (len(depth) / len(rows), depth.shape[1] / len(columns))
    least = np.full(len(v), np.inf, np.float32)
    for down, right in NEIGHBOURS:
        row = np.clip(row_of[v] + down, 0, len(rows) - 1)
        column = np.clip(column_of[u] + right, 0, len(columns) - 1)
        away = np.abs(v - rows[row]) / step[0] + np.abs(u - columns[column]) / step[1]
        jump = np.abs(coarse_depth[row, column] - own) / (SAME_SURFACE * own)
        cost = (away + np.where(np.isnan(jump), UNREAD, np.minimum(jump, FAR))).astype(np.float32)
        better = np.flatnonzero(cost < least)
        least[better] = cost[better]
        full[v[better], u[better]] = coarse[row[better], column[better]]
    return full
