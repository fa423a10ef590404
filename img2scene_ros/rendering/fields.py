# SPDX-License-Identifier: Apache-2.0
"""
Signed distance fields of many solids on one device, and rays traced through them; plain torch.

A field is sampled at the middles of a solid's cells (and of three more around it) in sixteenths
of a cell, and interpolated linearly in between. Its zero level is the solid's surface. Rays are
traced in the solid's own coordinates, so any affine placement is exact (Hart: Sphere tracing, The
Visual Computer 1996).
"""

from collections.abc import Iterable
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

STEPS_PER_CELL = 16  # an int8 reaches 7.9 cells
REACH = 7  # cells; distances beyond are cut off
PAD = 3  # cells around a solid; normals look two cells aside
DIRECTIONS = 128  # in which the outermost points of a solid are known
TAKEN = 0.9  # share of the distance that a step goes, as interpolation can overestimate it
LEAST_STEP = 0.15  # cells
MOST_STEPS = 160  # along a ray
STEPS_PER_ROUND = 8  # rays that ended are taken out of the list after so many


class DistanceFields:
    """
    The fields of N solids, one after another in one tensor.

    - half (N, 3): metres, half the extents of the solids; the origin is their middle
    - outermost (N, 128, 3): metres, the solids' outermost points in evenly spread directions
    - cell (N,): metres
    """

    def __init__(
        self, solids: Iterable[np.ndarray], cells: Sequence[float], device: torch.device | str,
        swells: Sequence[float] | None = None,
    ) -> None:
        """
        Compute the fields.

        :param solids: (X, Y, Z) bool each
        :param cells: metres, side of the cells of each
        :param swells: cells, how far each solid reaches beyond the true surface; None = 0
        """
        fields, grids, outermost = [], [], []
        swells = [0.0] * len(cells) if swells is None else swells
        directions = spread_directions(DIRECTIONS).to(device)
        for solid, swell in zip(solids, swells):
            full = torch.from_numpy(np.pad(solid, PAD)).to(device)
            distance = signed_distance(full)
            fields.append(_quantized(distance + swell).flatten())
            grids.append(full.shape)
            outermost.append(_outermost(full & (distance > -1), directions, 0.5 - swell))
        self.values = torch.cat(fields)
        self.cell = torch.tensor(cells, device=device, dtype=torch.float32)
        inset = PAD + torch.tensor(swells, device=device, dtype=torch.float32)
        self.grid = torch.tensor(grids, device=device)
        ends = self.grid.prod(dim=1).cumsum(0)
        self.start = ends - self.grid.prod(dim=1)
        self.half = (self.grid / 2 - inset[:, None]) * self.cell[:, None]
        self.outermost = torch.stack(outermost) * self.cell[:, None, None]

    def distance(self, shape: Tensor, points: Tensor) -> Tensor:
        """
        Return signed distances, negative inside; beyond the field that of its border.

        :param shape: (P,) numbers of the solids
        :param points: (P, 3) metres, in the solids' coordinates
        :return: (P,) metres
        """
        grid, cell = self.grid[shape], self.cell[shape]
        place = points / cell[:, None] + (grid - 1) / 2
        place = place.clamp(min=0).minimum(grid - 1.001)
        low = place.long()
        x, y, z = (place - low).unbind(-1)
        row = grid[:, 2]
        plane = grid[:, 1] * row
        corner = self.start[shape] + low[:, 0] * plane + low[:, 1] * row + low[:, 2]
        sides = []
        for beside in (0, plane):
            edges = []
            for above in (0, row):
                one = self.values[corner + beside + above].float()
                edges.append(one + (self.values[corner + beside + above + 1] - one) * z)
            sides.append(edges[0] + (edges[1] - edges[0]) * y)
        return (sides[0] + (sides[1] - sides[0]) * x) * cell / STEPS_PER_CELL

    def normals(self, shape: Tensor, points: Tensor) -> Tensor:
        """Return the directions in which the distance grows fastest, (P, 3), not normalised."""
        aside = torch.eye(3, device=points.device)
        reach = 1.5 * self.cell[shape][:, None]
        return torch.stack([
            self.distance(shape, points + reach * axis)
            - self.distance(shape, points - reach * axis) for axis in aside], dim=-1)

    def boxes_met(self, shape: Tensor, origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
        """Return between which t >= 0 rays lie in the solids' boxes, (P,) each; near > far: no."""
        half = self.half[shape] + self.cell[shape][:, None]
        return slab_test(origin, direction, -half, half)

    def trace(
        self, shape: Tensor, origin: Tensor, direction: Tensor, near: Tensor, far: Tensor,
    ) -> Tensor:
        """
        Follow rays to the surface.

        :param shape: (P,) the solid of each ray
        :param origin: (P, 3) in the solid's coordinates; direction (P, 3), any length
        :param near: (P,) first t, as `boxes_met`; `far` the last
        :return: (P,) t of the first point in the solid, inf where there is none
        """
        hit = torch.full_like(near, torch.inf)
        t, index = near.clone(), (near <= far).nonzero()[:, 0]
        speed = 1.0 / direction.norm(dim=1).clamp(min=1e-12)
        cell = self.cell[shape]
        for _ in range(0, MOST_STEPS, STEPS_PER_ROUND):
            if not len(index):
                break
            along, end = t[index], far[index]
            parts = shape[index], origin[index], direction[index]
            pace, close = speed[index], 0.5 * cell[index] / STEPS_PER_CELL
            for _ in range(STEPS_PER_ROUND):
                gap = self.distance(parts[0], parts[1] + along[:, None] * parts[2])
                step = (TAKEN * gap).maximum(LEAST_STEP * cell[index])
                along = torch.where(gap > close, along + step * pace, along)
            arrived = gap <= close
            hit[index[arrived]] = along[arrived]
            t[index] = along
            index = index[~arrived & (along <= end)]
        return torch.where(hit <= far, hit, torch.inf)


def slab_test(
    origin: Tensor, direction: Tensor, low: Tensor, high: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return between which t >= 0 rays lie in axis-aligned boxes, (...) each; near > far: none."""
    direction = torch.where(direction.abs() < 1e-9, 1e-9, direction)
    one, other = (low - origin) / direction, (high - origin) / direction
    near = one.minimum(other).amax(dim=-1).clamp(min=0)
    return near, one.maximum(other).amin(dim=-1)


def signed_distance(full: Tensor) -> Tensor:
    """
    Return the distances to the border between full and empty cells, in cells, cut off at `REACH`.

    Exact Euclidean distances of the cells' middles, axis by axis, less half a cell.

    :param full: (X, Y, Z) bool
    :return: (X, Y, Z) float32, negative in full cells
    """
    outside, inside = _distance_to(full), _distance_to(~full)
    return torch.where(full, 0.5 - inside, outside - 0.5)


def _distance_to(full: Tensor) -> Tensor:
    """Return the distance of each cell to the nearest full one, at most `REACH` + 1."""
    squared = torch.where(full, 0, (REACH + 1) ** 2).to(torch.int16)
    for axis in range(3):
        nearest = squared.clone()
        for shift in range(1, min(REACH, full.shape[axis] - 1) + 1):
            length = full.shape[axis] - shift
            ahead, behind = squared.narrow(axis, shift, length), squared.narrow(axis, 0, length)
            for mine, other in ((0, ahead), (shift, behind)):
                part = nearest.narrow(axis, mine, length)
                torch.minimum(part, other + shift ** 2, out=part)
        squared = nearest
    return squared.float().sqrt()


def _quantized(distance: Tensor) -> Tensor:
    return (distance * STEPS_PER_CELL).round().clamp(-127, 127).to(torch.int8)


def _outermost(full: Tensor, directions: Tensor, reach: float) -> Tensor:
    """Return the outermost corners of full cells, (D, 3) cells from the middle of the grid."""
    middle = (torch.tensor(full.shape, device=full.device) - 1) / 2
    middles = full.nonzero() - middle
    return middles[(directions @ middles.T).argmax(dim=1)] + reach * directions.sign()


def spread_directions(count: int) -> Tensor:
    """Return directions spread evenly over the sphere, (count, 3): a Fibonacci spiral."""
    number = torch.arange(count) + 0.5
    z, angle = 1 - 2 * number / count, number * np.pi * (3 - 5 ** 0.5)
    return torch.stack([(1 - z * z).sqrt() * angle.cos(), (1 - z * z).sqrt() * angle.sin(), z], 1)
