# SPDX-License-Identifier: Apache-2.0
"""
A field on a fine grid, asked for only where its surface may be.

    coarse grid, everywhere -> cells near the surface -> their points on a grid twice as fine -> ..

The surface is that of the fine grid, evaluated everywhere, in every part that is found: wherever
it passes into a cell that was taken for empty, that cell is refined as well, so a part is followed
to its ends however thin it gets. A part is found when it holds a point of the coarse grid, or when
the field comes near enough to zero beside it: a cell is refined when the field's least distance
from zero there is no more than what the field changes by in the cells around.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as functional
from torch import Tensor

from img2scene_ros.errors import ReconstructionError

COARSE = 64  # cells along a side, as many as the planes of TripoSR have


def sample_near_surface(
    field: Callable[[Tensor], Tensor], resolution: int, reach: float,
    device: torch.device | str = 'cpu',
) -> Tensor:
    """
    Sample a field on a grid; exact in every cell that its surface passes through.

    Elsewhere values are interpolated between coarser ones; their sign is right, no more.

    :param field: (N, 3) points to (N,) values, positive inside; near the surface roughly linear
    :param resolution: points along a side, the outer ones at -reach and reach
    :return: (R, R, R) float32, [x, y, z]
    :raises ReconstructionError: a value that is not a number
    """
    step = 1
    while (resolution - 1) / step > COARSE:
        step *= 2
    cells = -(-(resolution - 1) // step) * step
    axis = torch.linspace(-reach, reach, resolution, device=device)
    # Where the coarse cells do not come out even, the outermost point stands for those beyond.
    axis = axis[torch.arange(cells + 1, device=device).clamp(max=resolution - 1)]

    def ask(points: Tensor) -> Tensor:
        values = field(points).float()
        if values.isnan().any():
            raise ReconstructionError(
                "the network's density is not a number; its weights are damaged, or 'dtype' must "
                'be float32')
        return values

    coarse = axis[::step]
    values = ask(torch.cartesian_prod(coarse, coarse, coarse)).reshape(3 * (len(coarse),))
    known = torch.ones_like(values, dtype=torch.bool)
    while step > 1:
        step //= 2
        values, known = _refined(ask, values, known, axis[::step])
    return values[:resolution, :resolution, :resolution]


def _refined(
    ask: Callable[[Tensor], Tensor], coarse: Tensor, asked: Tensor, axis: Tensor,
) -> tuple[Tensor, Tensor]:
    """
    Sample a grid twice as fine.

    :param coarse: (N + 1, N + 1, N + 1)
    :param asked: the same shape, bool, which of them are the field's and not interpolated
    :param axis: (2 N + 1,) coordinates of the fine grid
    :return: two of (2 N + 1, 2 N + 1, 2 N + 1), values and which are the field's
    """
    side = len(axis)
    values = functional.interpolate(
        coarse[None, None], (side,) * 3, mode='trilinear', align_corners=True)[0, 0]
    known = torch.zeros_like(values, dtype=torch.bool)
    known[::2, ::2, ::2] = asked
    values, known = values.view(-1), known.view(-1)
    offsets = torch.cartesian_prod(*3 * [torch.arange(3, device=axis.device)])
    offsets = (offsets[:, 0] * side + offsets[:, 1]) * side + offsets[:, 2]

    def points_of(cells: Tensor) -> Tensor:
        """Return the places in the fine grid of the 27 points of cells, (M, 27)."""
        x, y, z = 2 * cells.nonzero().T
        return ((x * side + y) * side + z)[:, None] + offsets

    active = _may_hold_surface(coarse)
    refined = torch.zeros_like(active)
    while active.any():
        places = points_of(active)
        places = places[~known[places]].unique()
        x, y, z = places // side ** 2, places // side % side, places % side
        values[places] = ask(axis[torch.stack([x, y, z], dim=1)])
        known[places] = True
        refined |= active
        # Where the surface passes on into cells that were taken for empty, it is followed.
        border = _with_neighbours(active) & ~refined
        inside = values[points_of(border)] > 0
        active = torch.zeros_like(active)
        active[border] = inside.any(dim=1) & ~inside.all(dim=1)
    return values.view(side, side, side), known.view(side, side, side)


def _may_hold_surface(values: Tensor) -> Tensor:
    """(N + 1, N + 1, N + 1) values to (N, N, N) bool, per cell."""
    low, high = values, values
    for axis in range(3):
        count = values.shape[axis] - 1
        low = torch.minimum(low.narrow(axis, 0, count), low.narrow(axis, 1, count))
        high = torch.maximum(high.narrow(axis, 0, count), high.narrow(axis, 1, count))
    nearest = torch.maximum(low, -high).clamp(min=0.0)
    change = functional.max_pool3d((high - low)[None], 3, stride=1, padding=1)[0]
    return (nearest <= change) & (change > 0)


def _with_neighbours(cells: Tensor) -> Tensor:
    """(N, N, N) bool to the same, 26 neighbours each."""
    for axis in range(3):
        count = cells.shape[axis] - 1
        grown = cells.clone()
        grown.narrow(axis, 1, count).logical_or_(cells.narrow(axis, 0, count))
        grown.narrow(axis, 0, count).logical_or_(cells.narrow(axis, 1, count))
        cells = grown
    return cells
