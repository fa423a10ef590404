"""Reconstruction: from one sighting of an object to its closed mesh."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol
from typing import runtime_checkable

import cv2
import numpy as np

from img2scene_ros.errors import Img2SceneError
from img2scene_ros.localization import Sighting
from img2scene_ros.options import Options


@dataclass(frozen=True, eq=False)
class Texture:
    """
    A picture that is wrapped around a mesh, unshaded as its vertices' colours.

    - image: (H, W, 3) uint8, RGB (sRGB)
    - uv: (F, 3, 2) float32, where each corner of each face lies in it, 0 to 1; (0, 0) is the
      upper left corner of the image, as in glTF
    """

    image: np.ndarray
    uv: np.ndarray

    @cached_property
    def png(self) -> bytes:
        """Return the image as a PNG file."""
        return cv2.imencode('.png', cv2.cvtColor(self.image, cv2.COLOR_RGB2BGR))[1].tobytes()


@dataclass(frozen=True)
class Fit:
    """
    How well a mesh fits what was seen of the object.

    - silhouette_iou: of the mesh's silhouette and the mask, 0 to 1, where neither the picture's
      border nor something nearer hides the object
    - depth_residual: metres, median distance of depth readings from the mesh along the view;
      None when there are none
    """

    silhouette_iou: float
    depth_residual: float | None


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
    - texture: finer colours than those of the vertices, where there are any
    - fit: how well it fits what was seen; None where that was not measured, as of a proxy
    """

    vertices: np.ndarray
    faces: np.ndarray
    colors: np.ndarray
    position: np.ndarray
    rotation: np.ndarray
    reconstructor: str
    texture: Texture | None = None
    fit: Fit | None = None

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


@runtime_checkable
class BatchReconstructor(Protocol):
    """
    A reconstructor that may also be given several objects at once; a base for such.

    - max_batch: how many
    """

    max_batch: int

    def reconstruct(self, sighting: Sighting) -> ObjectModel:
        """
        Rebuild one object.

        :raises ReconstructionError: this view does not show enough of it, or is no solid
        """
        result, = self.reconstruct_batch([sighting])
        if isinstance(result, Img2SceneError):
            raise result
        return result

    def reconstruct_batch(
        self, sightings: Sequence[Sighting],
    ) -> list[ObjectModel | Img2SceneError]:
        """Rebuild objects; for each that cannot be rebuilt, return the error that says why."""
