# SPDX-License-Identifier: Apache-2.0
"""Object models whose colours are known on every face."""

from pathlib import Path

import numpy as np
import pytest
import trimesh

from img2scene_ros.types import ObjectModel
from img2scene_ros.types import Texture

CELL = 8  # texels


def model_of(mesh: trimesh.Trimesh, seed: int = 0, with_texture: bool = True) -> ObjectModel:
    """Return a mesh, centred; with a texture every face has a colour of its own."""
    rng = np.random.default_rng(seed)
    vertices = (mesh.vertices - mesh.bounds.mean(axis=0)).astype(np.float32)
    colors = rng.integers(0, 256, (len(vertices), 3), dtype=np.uint8)
    texture = color_per_face(len(mesh.faces), rng) if with_texture else None
    return ObjectModel(
        vertices, mesh.faces.astype(np.int32), colors, np.zeros(3), np.eye(3), 'test', texture)


def color_per_face(count: int, rng: np.random.Generator) -> Texture:
    """Return a texture of coloured cells, one per face, row by row from the top; more columns."""
    columns = int(np.ceil(np.sqrt(2.0 * count)))
    rows = -(-count // columns)
    cells = rng.integers(0, 256, (rows, columns, 3), dtype=np.uint8)
    row, column = np.divmod(np.arange(count), columns)
    inside = np.array([[0.25, 0.25], [0.75, 0.25], [0.25, 0.75]])
    uv = (np.stack([column, row], axis=1)[:, None] + inside) / (columns, rows)
    return Texture(cells.repeat(CELL, axis=0).repeat(CELL, axis=1), uv.astype(np.float32))


def face_colors(model: ObjectModel) -> np.ndarray:
    """Return the colour of every face, (F, 3) uint8."""
    height, width = model.texture.image.shape[:2]
    column, row = np.floor(model.texture.uv.mean(axis=1) * (width, height)).astype(int).T
    return model.texture.image[row, column]


def sampled(image: np.ndarray, uv: np.ndarray, origin: str) -> np.ndarray:
    """
    Return the colour of every face as a loader has it.

    :param uv: (F, 3, 2)
    :param origin: where (0, 0) is, 'top' or 'bottom' of the image
    """
    height, width = image.shape[:2]
    u, v = uv.mean(axis=1).T
    row = v if origin == 'top' else 1.0 - v
    return image[(row * height).astype(int), (u * width).astype(int), :3]


def open3d_model(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return triangles (F, 3, 3) and colours of faces (F, 3) as Open3D (Assimp) reads a mesh."""
    open3d = pytest.importorskip('open3d')
    model = open3d.io.read_triangle_model(str(path))
    part, = model.meshes
    image = np.asarray(model.materials[part.material_idx].albedo_img)
    uv = np.asarray(part.mesh.triangle_uvs).reshape(-1, 3, 2)
    triangles = np.asarray(part.mesh.vertices)[np.asarray(part.mesh.triangles)]
    return triangles, sampled(image, uv, 'bottom')
