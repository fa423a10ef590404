# SPDX-License-Identifier: Apache-2.0
"""
What the networks are fed: a crop as six channels.

0 to 2: colour, RGB scaled to ImageNet's mean and deviation. 3: the mask. 4: depth, in cube sides
behind the anchor. 5: where there is a depth reading. A channel that a camera lacks is zero, the
sixth tells a missing reading from one at the anchor, and a mask is never all zero; so one set of
weights serves cameras with depth and without.
"""

import numpy as np
import torch
from torch import Tensor

CHANNELS = 6
# Of ImageNet's training pictures, in units of 255.
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)
DEPTH_REACH = 1.0  # cube sides; what lies further from the anchor counts as so far


def crop_channels(
    color: np.ndarray,
    mask: np.ndarray | None,
    depth: np.ndarray | None,
    anchor: float | None,
    half_field: float,
) -> np.ndarray:
    """
    Return the channels of one crop, (6, S, S), as `batch_channels`; what is missing is None.

    :param color: (S, S, 3) uint8, RGB
    :param anchor: median visible depth in metres; not used without depth
    :param half_field: tangent of half the angle that the crop spans
    """
    shape = color.shape[:2]
    mask = np.zeros(shape, bool) if mask is None else mask
    depth = np.full(shape, np.nan, np.float32) if depth is None else depth
    return batch_channels(
        torch.tensor(color.transpose(2, 0, 1))[None], torch.tensor(mask)[None],
        torch.tensor(depth, dtype=torch.float32)[None], torch.tensor([float(anchor or 1.0)]),
        torch.tensor([float(half_field)]))[0].numpy()


def batch_channels(
    color: Tensor, mask: Tensor, depth: Tensor, anchor: Tensor, half_field: Tensor,
) -> Tensor:
    """
    Return the channels of crops; a mask or depth that is missing is False, NaN everywhere.

    :param color: (B, 3, S, S) uint8, RGB
    :param mask: (B, S, S) bool
    :param depth: (B, S, S) metres along the crops' axes, NaN = no reading
    :param anchor: (B,) metres
    :param half_field: (B,)
    :return: (B, 6, S, S) float32
    """
    mean, deviation = (
        torch.from_numpy(values).to(color.device)[:, None, None] for values in (MEAN, DEVIATION))
    read, anchor = depth.isfinite(), anchor[:, None, None]
    behind = (depth - anchor) / (2.0 * half_field[:, None, None] * anchor)
    behind = torch.where(read, behind.clamp(-DEPTH_REACH, DEPTH_REACH), 0.0)
    return torch.cat([
        (color / 255.0 - mean) / deviation, torch.stack([mask, behind, read], dim=1)], dim=1)
