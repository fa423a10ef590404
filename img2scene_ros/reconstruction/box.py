# SPDX-License-Identifier: Apache-2.0
"""The proxy: a closed box of an object's size at its place, shown until there is a mesh."""

from functools import cache
from typing import Any

import cv2
import numpy as np
import trimesh

from img2scene_ros.options import Options
from img2scene_ros.types import ObjectModel
from img2scene_ros.types import Sighting


class BoxReconstructor:
    """Makes a box out of any placement."""

    Options = Options

    def __init__(self, options: Any = Options()) -> None:
        self.options = options

    def reconstruct(self, sighting: Sighting) -> ObjectModel:
        """Build the box, in the mean colour of the object's pixels."""
        placement = sighting.placement
        vertices, faces = _cube()
        return ObjectModel(
            vertices * np.maximum(placement.size, 1e-3).astype(np.float32), faces,
            np.tile(_mean_color(sighting), (len(vertices), 1)), placement.position,
            placement.rotation, 'box')


@cache
def _cube() -> tuple[np.ndarray, np.ndarray]:
    """Return the vertices, (8, 3) float32, and the faces, (12, 3) int32, of a box of size 1."""
    cube = trimesh.creation.box()
    return cube.vertices.astype(np.float32), cube.faces.astype(np.int32)


def _mean_color(sighting: Sighting) -> np.ndarray:
    color, mask = sighting.frame.color, sighting.detection.mask
    box = sighting.detection.window
    inside = None if mask is None or not mask[box].any() else mask[box].view(np.uint8)
    return np.array(cv2.mean(color[box], inside))[:3].astype(np.uint8)


BACKEND = BoxReconstructor
