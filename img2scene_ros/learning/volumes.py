# SPDX-License-Identifier: Apache-2.0
"""Solids as volumes of another grid."""

import numpy as np
from scipy import ndimage


def cells_reached(solid: np.ndarray, to_cells: np.ndarray, resolution: int) -> np.ndarray:
    """
    Return the cells of a volume that a solid reaches into.

    Those whose centre lies in the solid, and those that hold the centre of one of its surface
    cells: of what is thinner than a cell, centres alone would leave a sieve.

    :param solid: (X, Y, Z) bool
    :param to_cells: (4, 4), takes the index (i, j, k, 1) of a cell of the solid to the volume's
    :param resolution: R, cells along a side of the volume
    :return: (R, R, R) bool
    """
    back = np.linalg.inv(to_cells)
    filled = ndimage.affine_transform(
        solid.view(np.uint8), back[:3, :3], back[:3, 3], (resolution,) * 3, order=0).astype(bool)
    cells = np.rint(surface_cells(solid) @ to_cells[:3, :3].T + to_cells[:3, 3]).astype(int)
    inside = ((cells >= 0) & (cells < resolution)).all(axis=1)
    filled[tuple(cells[inside].T)] = True
    return filled


def surface_cells(solid: np.ndarray) -> np.ndarray:
    """Return the indices of full cells with an empty one beside them, (N, 3)."""
    padded, core = np.pad(solid, 1), solid.copy()
    for axis in range(3):
        for beside in (slice(None, -2), slice(2, None)):
            core &= padded[tuple(beside if a == axis else slice(1, -1) for a in range(3))]
    return np.argwhere(solid & ~core)
