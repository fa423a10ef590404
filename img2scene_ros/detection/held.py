# SPDX-License-Identifier: Apache-2.0
"""What was found in a frame holds for the next ones, as long as they look the same."""

from typing import Generic
from typing import TypeVar

import cv2
import numpy as np

from img2scene_ros.types import Frame

_SIZE = (80, 60)  # pixels of the small pictures that are compared
_CHANGE = 8  # grey levels by which one changes when something moves; a camera's noise is below 1

Found = TypeVar('Found')


class Held(Generic[Found]):
    """
    What was found in a frame, and for how long.

    It is compared with the frame in which it was found, so that slow motion adds up.

    - found: what was found
    """

    def __init__(self, frame: Frame, found: Found) -> None:
        self.found = found
        self._shape, self._small, self._frames = frame.shape, _small(frame), 1

    def holds(self, frame: Frame, most: int) -> bool:
        """
        Tell whether it holds for one more frame.

        :param most: frames that it holds for, the first among them
        """
        is_same = (self._frames < most and frame.shape == self._shape
                   and cv2.absdiff(_small(frame), self._small).max() < _CHANGE)
        self._frames += 1
        return bool(is_same)


def _small(frame: Frame) -> np.ndarray:
    return cv2.resize(frame.color, _SIZE, interpolation=cv2.INTER_AREA)
