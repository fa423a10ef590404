# SPDX-License-Identifier: Apache-2.0
"""A solid in another grid has no holes that it has not."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from img2scene_ros.learning.volumes import cells_reached
from img2scene_ros.learning.volumes import surface_cells

CELLS = 32


def turned(seed: int, scale: float) -> np.ndarray:
    """Return a map from a grid of 96 cells to one of 32 about the same centre, turned at will."""
    to_cells = np.eye(4)
    to_cells[:3, :3] = scale * Rotation.random(random_state=seed).as_matrix()
    to_cells[:3, 3] = (CELLS - 1) / 2 - to_cells[:3, :3] @ np.full(3, 95 / 2)
    return to_cells


@pytest.mark.parametrize('seed', range(4))
def test_a_sheet_thinner_than_a_cell_is_whole_and_no_thicker_than_it_must_be(seed):
    """Points on the sheet lie in full cells; full cells reach the sheet."""
    solid = np.zeros((96, 96, 96), bool)
    solid[:, :, 40:42] = True
    to_cells = turned(seed, 0.2)  # the sheet is 0.4 cells thick, 19 wide
    filled = cells_reached(solid, to_cells, CELLS)
    across, along = np.meshgrid(np.linspace(0, 95, 300), np.linspace(0, 95, 300))
    points = np.stack([across, along, np.full(across.shape, 40.5)], axis=-1).reshape(-1, 3)
    cells = np.rint(points @ to_cells[:3, :3].T + to_cells[:3, 3]).astype(int)
    assert filled[tuple(cells.T)].mean() > 0.99
    centers = (np.argwhere(filled) - to_cells[:3, 3]) @ np.linalg.inv(to_cells[:3, :3]).T
    reach = 1.0 + np.sqrt(3) / 2 / 0.2  # half the sheet and a cell's half diagonal
    assert (np.abs(centers[:, 2] - 40.5) <= reach).all()


@pytest.mark.parametrize('scale', (0.1, 0.3, 1.0))
def test_a_thick_solid_has_its_volume(scale):
    """A ball in coarser and finer cells than its own, in closed form."""
    index = np.stack(np.meshgrid(*3 * [np.arange(96) - 47.5], indexing='ij'), axis=-1)
    radius = 14.0
    filled = cells_reached((index ** 2).sum(axis=-1) < radius ** 2, turned(0, scale), CELLS)
    around = np.stack(np.meshgrid(*3 * [np.arange(CELLS) - 15.5], indexing='ij'), axis=-1)
    distance = np.linalg.norm(around, axis=-1) / scale
    cell = np.sqrt(3) / 2 / scale
    assert filled[distance < radius - 1].all()
    assert not filled[distance > radius + 1 + cell].any()


def test_the_surface_is_what_has_an_empty_neighbour():
    solid = np.zeros((5, 6, 7), bool)
    solid[:, 1:5, 2:6] = True  # reaches two faces of the grid
    surface = {tuple(index) for index in surface_cells(solid)}
    inner = {(i, j, k) for i in range(1, 4) for j in range(2, 4) for k in range(3, 5)}
    assert surface == {tuple(index) for index in np.argwhere(solid)} - inner
