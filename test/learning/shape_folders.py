# SPDX-License-Identifier: Apache-2.0
"""Small folders of shapes, made on the fly."""

from pathlib import Path

import numpy as np
import trimesh
from scipy.io import savemat

CELLS = 32


def write_steps(folder: Path) -> None:
    """
    Write a shape laid out like Pix3D's: a flight of two steps, different along every axis.

    Voxel axes are x left, y outward, z up; the model's are x left, y up, z inward. The lower step
    takes x 0 to 32, y 0 to 20, z 0 to 8 cells, the upper one x 0 to 12, y 0 to 20, z 8 to 24.
    """
    folder.mkdir(parents=True)
    solid = np.zeros((CELLS, CELLS, CELLS), np.uint8)
    blocks = (((0, 6, 4), (32, 26, 12)), ((0, 6, 12), (12, 26, 28)))
    parts = []
    for low, high in blocks:
        solid[tuple(slice(a, b) for a, b in zip(low, high))] = 1
        # The model's surface runs through the centres of the outer cells.
        x, y, z = np.array([low, np.subtract(high, 1)]).T / (CELLS - 1) - 0.5
        parts.append(trimesh.creation.box(bounds=np.sort(np.stack([x, z, -y], axis=1), axis=0)))
    savemat(folder / 'voxel.mat', {'voxel': solid}, do_compression=True)
    trimesh.util.concatenate(parts).export(folder / 'model.ply')


def write_shapes(folder: Path, chairs: int = 10, tables: int = 5) -> Path:
    """Write a folder of such shapes in two categories."""
    for category, count in (('chair', chairs), ('table', tables)):
        for number in range(count):
            write_steps(folder / category / f'STEPS_{number}')
    return folder


def write_meshes(folder: Path) -> Path:
    """Write a closed mesh of 0.2 x 0.3 x 0.1 m (x, up, z) and one with a hole."""
    folder.mkdir(parents=True)
    box = trimesh.creation.box((0.2, 0.3, 0.1))
    box.export(folder / 'Closed_01.glb')
    box.update_faces(np.arange(len(box.faces)) > 0)
    box.export(folder / 'Open_01.glb')
    return folder
