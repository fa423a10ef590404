# SPDX-License-Identifier: Apache-2.0
"""Reconstruction: from one sighting of an object to its closed mesh."""

from collections.abc import Sequence
from typing import Protocol
from typing import runtime_checkable

import numpy as np

from img2scene_ros.errors import Img2SceneError
from img2scene_ros.errors import ReconstructionError
from img2scene_ros.options import Configurable
from img2scene_ros.types import ObjectModel
from img2scene_ros.types import Sighting

MIN_SIDE = 8  # pixels of the longer side of what is seen; smaller objects show no shape


class Reconstructor(Configurable, Protocol):
    """Rebuilds objects."""

    def reconstruct(self, sighting: Sighting) -> ObjectModel:
        """
        Rebuild one object.

        :raises ReconstructionError: this view does not show enough of it
        """


@runtime_checkable
class BatchReconstructor(Protocol):
    """A reconstructor that may also be given several objects at once; a base for such."""

    @property
    def max_batch(self) -> int:
        """Return how many objects `reconstruct_batch` takes at most, by the options."""
        return self.options.max_batch  # type: ignore[attr-defined]

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


def model_of(
    vertices: np.ndarray, faces: np.ndarray, colors: np.ndarray, rotation: np.ndarray,
    reconstructor: str,
) -> ObjectModel:
    """
    Put the origin of a mesh at the centre of its bounding box.

    :param vertices: (V, 3) metres from the camera, along the object's axes
    :param rotation: (3, 3), turns the object's axes into optical axes
    """
    center = (vertices.min(axis=0) + vertices.max(axis=0)) / 2.0
    return ObjectModel(
        (vertices - center).astype(np.float32), faces.astype(np.int32), colors, rotation @ center,
        rotation, reconstructor)


def check_size(side: float) -> None:
    """
    Refuse objects that are too small.

    :param side: pixels of the longer side of what is seen of the object
    :raises ReconstructionError: it is too small
    """
    if side < MIN_SIDE:
        raise ReconstructionError(
            f'less than {MIN_SIDE} pixels of the object are seen; move the camera closer')
