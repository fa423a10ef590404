"""Reconstruction: from one sighting of an object to its closed mesh."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from img2scene_ros.localization import Sighting
from img2scene_ros.options import Options


@dataclass(frozen=True, eq=False)
class ObjectModel:
    """
    A closed, coloured mesh in its own object frame, and that frame's pose.

    - vertices: (V, 3) float32 metres; the origin is the centre of their bounding box, z is up
    - faces: (F, 3) int32, wound counter-clockwise seen from outside
    - colors: (V, 3) uint8, RGB, unshaded
    - position: (3,) metres, the object frame's origin in the optical frame
    - rotation: (3, 3), turns object axes into optical axes
    - reconstructor: the backend's name
    """

    vertices: np.ndarray
    faces: np.ndarray
    colors: np.ndarray
    position: np.ndarray
    rotation: np.ndarray
    reconstructor: str

    @property
    def size(self) -> np.ndarray:
        """Return the extents along the object's axes, (3,) metres."""
        return np.ptp(self.vertices, axis=0)


class Reconstructor(Protocol):
    """Rebuilds objects; its options may be replaced while it runs, except the read-only ones."""

    Options: type[Options]
    options: Options

    def reconstruct(self, sighting: Sighting) -> ObjectModel:
        """
        Rebuild one object.

        :raises ReconstructionError: this view does not show enough of it
        """
