# SPDX-License-Identifier: Apache-2.0
"""A box in the world outside of which nothing is an object."""

from dataclasses import replace
from functools import cached_property

import numpy as np

from img2scene_ros.depth import measured
from img2scene_ros.detection import bbox_of
from img2scene_ros.errors import OptionError
from img2scene_ros.types import Detection
from img2scene_ros.types import Frame

EVERYWHERE = (0.0,) * 6


def check_workspace(box: tuple[float, ...]) -> None:
    """
    Check the numbers of a box: least x, y, z, then greatest x, y, z.

    :raises OptionError: it has no inside
    """
    if box != EVERYWHERE and not all(low < high for low, high in zip(box[:3], box[3:])):
        raise OptionError(
            f"option 'workspace' is {list(box)}; give the least x, y, z, then the greatest x, y, "
            'z [m], or six zeros for everywhere')


class Workspace:
    """
    A box in the world, as a frame sees it.

    :param box: as `check_workspace` takes it
    :param frame: turned upright
    :param turn: (3, 3), takes the optical axes of the frame as it came to those of the frame
    :param as_it_came: tells where its camera was in the world; where it does not, the box is in
        its optical frame
    """

    def __init__(
        self, box: tuple[float, ...], frame: Frame, turn: np.ndarray, as_it_came: Frame,
    ) -> None:
        self._box = box
        self._frame = frame
        pose = as_it_came.pose
        self._rotation, self._shift = pose[:3, :3] @ turn.T, pose[:3, 3]

    def holds(self, points: np.ndarray) -> np.ndarray:
        """Tell which (..., 3) points of the frame are inside; NaN are, as nothing is known."""
        if self._box == EVERYWHERE:
            return np.ones(points.shape[:-1], bool)
        kind = points.dtype
        at = points @ self._rotation.T.astype(kind) + self._shift.astype(kind)
        least, most = np.array(self._box, kind).reshape(2, 3)
        return ~((at < least) | (at > most)).any(axis=-1)

    def part_inside(self, detection: Detection) -> Detection | None:
        """Return a detection without the pixels whose readings are outside; None if none is in."""
        if self._box == EVERYWHERE or self._frame.depth is None or detection.mask is None:
            return detection
        is_read = np.isfinite(self._frame.depth)
        mask = detection.mask & self._inside
        if (detection.mask & is_read).any() and not (mask & is_read).any():
            return None
        return replace(detection, mask=mask, bbox=bbox_of(mask))

    @cached_property
    def _inside(self) -> np.ndarray:
        return self.holds(measured(self._frame.points))
