# SPDX-License-Identifier: Apache-2.0
"""The surface found from coarse to fine against that of the whole fine grid."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from img2scene_ros.errors import ReconstructionError
from img2scene_ros.mesh.isosurface import sample_near_surface

pytestmark = pytest.mark.usefixtures('one_thread')

RESOLUTION, REACH = 256, 0.87
CELL = 2 * REACH / (RESOLUTION - 1)
Field = Callable[[Tensor], Tensor]


# Distances to surfaces, in cells, positive inside.

def ball(points: Tensor, center: tuple[float, ...], radius: float) -> Tensor:
    return (radius - (points - torch.tensor(center)).norm(dim=1)) / CELL


def rod(points: Tensor, ends: tuple[tuple[float, ...], ...], radius: float) -> Tensor:
    start, end = torch.tensor(ends)
    along = (((points - start) @ (end - start)) / (end - start).norm() ** 2).clamp(0, 1)
    return (radius - (points - start - along[:, None] * (end - start)).norm(dim=1)) / CELL


def slab(points: Tensor, center: tuple[float, ...], half: tuple[float, ...]) -> Tensor:
    beyond = (points - torch.tensor(center)).abs() - torch.tensor(half)
    outside = beyond.clamp(min=0).norm(dim=1)
    return -(outside + beyond.max(dim=1).values.clamp(max=0)) / CELL


def chair(points: Tensor) -> Tensor:
    """Return a chair whose legs are 1.8 cells thick."""
    legs = [rod(points, ((0.37 * x, 0.37 * y, 0.0), (0.4 * x, 0.41 * y, -0.8)), 0.9 * CELL)
            for x in (-1, 1) for y in (-1, 1)]
    seat = slab(points, (0.0, 0.0, 0.0), (0.4, 0.4, 0.02))
    return torch.stack([seat, *legs]).amax(dim=0)


def apart(points: Tensor) -> Tensor:
    """Return thin things that hang together with nothing: a rod, a sheet, a small ball."""
    return torch.stack([
        rod(points, ((-0.7, -0.6, -0.3), (0.7, 0.2, 0.41)), 0.8 * CELL),
        slab(points, (0.0, 0.5134, 0.01), (0.6, 0.6 * CELL, 0.3)),
        ball(points, (0.411, -0.6, -0.5), 1.1 * CELL)]).amax(dim=0)


FIELDS = {
    'a ball that fills the picture': lambda points: ball(points, (0.0, 0.0, 0.0), 0.59),
    'thin legs': chair,
    'thin legs, seen by the field from one cell away only': lambda points: chair(points).clamp(
        -1, 1),
    'thin and apart': apart,
    'through the border': lambda points: ball(points, (0.0, 0.7, 0.0), 0.4),
}


def dense(field: Field, resolution: int) -> Tensor:
    axis = torch.linspace(-REACH, REACH, resolution)
    return torch.cat([
        field(torch.cartesian_prod(part, axis, axis)) for part in axis.split(8)
    ]).reshape(3 * (resolution,))


def crossed(values: Tensor) -> Tensor:
    """Tell which points are corners of cells that a surface passes through."""
    some = every = values > 0
    for axis in range(3):
        count = some.shape[axis] - 1
        some = some.narrow(axis, 0, count) | some.narrow(axis, 1, count)
        every = every.narrow(axis, 0, count) & every.narrow(axis, 1, count)
    corners = torch.zeros_like(values, dtype=torch.bool)
    x, y, z = (some & ~every).nonzero().T
    for index in range(8):
        corners[x + index // 4, y + index // 2 % 2, z + index % 2] = True
    return corners


@pytest.mark.parametrize('name', FIELDS)
def test_surface_is_that_of_the_dense_grid_for_an_eighth_of_the_queries(name: str) -> None:
    """Every cell that the surface passes has the very values of the dense grid, so its mesh."""
    asked = []

    def field(points: Tensor) -> Tensor:
        asked.append(len(points))
        return FIELDS[name](points)

    found = sample_near_surface(field, RESOLUTION, REACH)
    expected = dense(FIELDS[name], RESOLUTION)
    assert found.shape == expected.shape and (expected > 0).any()
    assert torch.equal(found > 0, expected > 0), 'nothing is missing, nothing is too much'
    corners = crossed(expected)
    torch.testing.assert_close(found[corners], expected[corners], atol=1e-4, rtol=0)
    assert sum(asked) * 8 < RESOLUTION ** 3


@pytest.mark.parametrize('resolution', (32, 65, 100, 131))
def test_any_resolution(resolution: int) -> None:
    field = FIELDS['a ball that fills the picture']
    found = sample_near_surface(field, resolution, REACH)
    assert torch.equal(found > 0, dense(field, resolution) > 0)


@pytest.mark.parametrize('value', (-3.0, 0.0, 3.0))
def test_field_without_a_surface(value: float) -> None:
    found = sample_near_surface(lambda points: torch.full((len(points),), value), 100, REACH)
    assert (found == value).all()


def test_what_is_not_a_number_is_one_sentence() -> None:
    def field(points: Tensor) -> Tensor:
        return torch.where(points[:, 0] > 0.5, torch.nan, FIELDS['thin legs'](points))

    with pytest.raises(ReconstructionError, match='float32'):
        sample_near_surface(field, 100, REACH)
