# SPDX-License-Identifier: Apache-2.0
"""What was found in a frame holds for the next ones, as long as they look the same."""

from functools import lru_cache
from typing import Generic
from typing import TypeVar

import cv2
import numpy as np

from img2scene_ros.detection.scaled import reduced
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
        self._stamp_ns = frame.stamp_ns

    def holds(self, frame: Frame, most: int, seconds: float = 0.0) -> bool:
        """
        Tell whether it holds for one more frame.

        :param most: frames that it holds for, the first among them
        :param seconds: by the frames' stamps, for which it holds even if these are more
        """
        self._frames += 1
        is_new = 0 < frame.stamp_ns - self._stamp_ns < 1e9 * seconds
        return (is_new or self._frames <= most) and self.looks_same(frame)

    def looks_same(self, frame: Frame, bbox: np.ndarray | None = None) -> bool:
        """
        Tell whether a frame looks like the one in which it was found.

        :param bbox: (4,) xmin, ymin, xmax, ymax in pixels, where it has to; None: everywhere
        """
        if frame.shape != self._shape:
            return False
        part = np.s_[:, :]
        if bbox is not None:
            scale = np.divide(_SIZE, frame.shape[::-1])
            left, top = np.minimum(bbox[:2] * scale, np.subtract(_SIZE, 1)).astype(int)
            right, bottom = np.maximum(np.ceil(bbox[2:] * scale), (left + 1, top + 1)).astype(int)
            part = np.s_[top:bottom, left:right]
        return bool(cv2.absdiff(_small(frame)[part], self._small[part]).max() < _CHANGE)


@lru_cache(maxsize=2)
def _small(frame: Frame) -> np.ndarray:
    """Return a small picture, which several stages look at."""
    return cv2.resize(reduced(frame)[0].color, _SIZE, interpolation=cv2.INTER_AREA)
