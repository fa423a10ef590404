# SPDX-License-Identifier: Apache-2.0
"""The proxy: a closed box of an object's size at its place, shown until there is a mesh."""

from dataclasses import dataclass

import numpy as np
import trimesh

from img2scene_ros.options import Options
from img2scene_ros.types import ObjectModel
from img2scene_ros.types import Sighting


@dataclass(frozen=True)
class BoxOptions(Options):
    """`box` has no options."""


class BoxReconstructor:
    """Makes a box out of any placement."""

    Options = BoxOptions

    def __init__(self, options: BoxOptions = BoxOptions()) -> None:
        self.options = options

    def reconstruct(self, sighting: Sighting) -> ObjectModel:
        """Build the box, in the mean colour of the object's pixels."""
        placement = sighting.placement
        box = trimesh.creation.box(np.maximum(placement.size, 1e-3))
        color = _mean_color(sighting)
        return ObjectModel(
            box.vertices.astype(np.float32), box.faces.astype(np.int32),
            np.tile(color, (len(box.vertices), 1)), placement.position, placement.rotation, 'box')


def _mean_color(sighting: Sighting) -> np.ndarray:
    color, mask = sighting.frame.color, sighting.detection.mask
    if mask is None:
        xmin, ymin, xmax, ymax = np.round(sighting.detection.bbox).astype(int)
        return color[ymin:max(ymax, ymin + 1), xmin:max(xmax, xmin + 1)].reshape(-1, 3).mean(
            axis=0).astype(np.uint8)
    return color[mask].mean(axis=0).astype(np.uint8)


BACKEND = BoxReconstructor
