# SPDX-License-Identifier: Apache-2.0
"""Reconstruction: from one sighting of an object to its closed mesh."""

from collections.abc import Sequence
from typing import Protocol
from typing import runtime_checkable

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
        """Return how many objects `reconstruct_batch` takes at most."""

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


def check_size(side: float) -> None:
    """
    Refuse objects that are too small.

    :param side: pixels of the longer side of what is seen of the object
    :raises ReconstructionError: it is too small
    """
    if side < MIN_SIDE:
        raise ReconstructionError(
            f'less than {MIN_SIDE} pixels of the object are seen; move the camera closer')
