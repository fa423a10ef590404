# SPDX-License-Identifier: Apache-2.0
"""Meshes with a texture in which every place has a colour of its own."""

import numpy as np
import trimesh

from img2scene_ros.types import ObjectModel
from img2scene_ros.types import Texture


def textured_model(seed: int = 0, subdivisions: int = 2) -> ObjectModel:
    """Return an egg, longest along y; its faces lie anywhere in the texture."""
    rng = np.random.default_rng(seed)
    mesh = trimesh.creation.icosphere(subdivisions, 0.05).apply_scale((0.5, 1.0, 0.8))
    row, column = np.indices((48, 64))
    image = np.stack([column * 4, row * 5, np.full_like(row, seed % 256)], axis=-1)
    uv = rng.random((len(mesh.faces), 3, 2)).astype(np.float32)
    colors = np.full((len(mesh.vertices), 3), 100, np.uint8)
    return ObjectModel(
        mesh.vertices.astype(np.float32), mesh.faces.astype(np.int32), colors, np.zeros(3),
        np.eye(3), 'test', Texture(image.astype(np.uint8), uv))
