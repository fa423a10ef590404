# SPDX-License-Identifier: Apache-2.0
"""Arranged scenes as both renderers take them."""

from functools import lru_cache

import numpy as np
import torch
import trimesh

from img2scene_ros.camera import Camera
from img2scene_ros.learning.arrangements import Stock
from img2scene_ros.learning.packed_shapes import PIX3D_SWELL
from img2scene_ros.learning.shapes import Shape
from img2scene_ros.learning.shapes import household_object
from img2scene_ros.rendering.fields import DistanceFields
from img2scene_ros.rendering.raycast import Stage
from img2scene_ros.rendering.raycast import Surface
from img2scene_ros.rendering.traced import Scenes

KINDS = ('cup', 'bottle', 'box', 'banana', 'bowl')


@lru_cache(maxsize=1)
def household() -> tuple[tuple[Shape, ...], Stock]:
    """Return one shape of each of KINDS, and the stock that is made of them."""
    shapes = tuple(household_object(kind, 1) for kind in KINDS)
    return shapes, stock_of(shapes)


def stock_of(shapes: tuple[Shape, ...]) -> Stock:
    """Return a stock of small things."""
    count = len(shapes)
    fields = DistanceFields(
        (shape.solid for shape in shapes), [shape.cell for shape in shapes], 'cpu',
        [PIX3D_SWELL * shape.name.startswith('pix3d/') for shape in shapes])
    return Stock(fields, torch.ones(count), torch.zeros(count),
                 torch.tensor([shape.sizes for shape in shapes], dtype=torch.float32),
                 torch.full((count, 4, 3), torch.nan), tuple(shape.label for shape in shapes))


def stage_of(scenes: Scenes, number: int, shapes: tuple[Shape, ...]) -> Stage:
    """Return a scene for the ray caster, with the shapes' own surfaces."""
    surfaces = []
    for slot, shape in enumerate(scenes.shape[number].tolist()):
        if shape >= 0:
            pose = scenes.pose[number, slot].double().numpy()
            points = shapes[shape].vertices @ pose[:3, :3].T + pose[:3, 3]
            surfaces.append(_surface(points, shapes[shape].faces, slot + 1))
    for slot, bounds in enumerate(scenes.boxes[number].double().numpy()):
        if np.isfinite(bounds).all():
            box = trimesh.creation.box(bounds=bounds)
            surfaces.append(_surface(box.vertices, box.faces, -1 - slot))
    return Stage(surfaces)


def _surface(vertices: np.ndarray, faces: np.ndarray, id_: int) -> Surface:
    return Surface(vertices, faces, np.full((len(vertices), 3), 160, np.uint8), id_)


def camera_of(scenes: Scenes, number: int, width: int, height: int) -> tuple[Camera, np.ndarray]:
    """Return a scene's camera and its pose."""
    focal, (cx, cy) = float(scenes.focal[number]), scenes.center[number].tolist()
    return (Camera(width, height, focal, focal, cx, cy),
            scenes.view[number].double().numpy())
