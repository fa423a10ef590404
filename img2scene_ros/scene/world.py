# SPDX-License-Identifier: Apache-2.0
"""Where the camera is in the world: by TF, else by what the frames themselves show."""

from dataclasses import dataclass
from dataclasses import replace

import numpy as np

from img2scene_ros.scene.odometry import Odometry
from img2scene_ros.types import Frame
from img2scene_ros.types import SupportPlane

# Change of tilt and height over the support by which a camera has moved that nothing else tells.
_TILT, _HEIGHT = np.cos(np.radians(3.0)), 0.03
_RESTING = 0.002  # metres, and radians, from frame to frame by which it rests


@dataclass(frozen=True, eq=False)
class Located:
    """
    A frame whose place is known.

    - frame: with the camera's pose in the world
    - new_from_old: (4, 4) from the world so far, when it is another one now
    - note: why nothing tells how the camera has moved since the frame before, and the cure, one
      sentence; '' where it is followed
    """

    frame: Frame
    new_from_old: np.ndarray | None = None
    note: str = ''

    @property
    def is_followed(self) -> bool:
        """Tell whether its place follows from that of the frame before."""
        return not self.note


class World:
    """Follows a camera; without TF the world has the axes of the first frame's camera."""

    def __init__(self) -> None:
        self._id = ''
        self._pose: np.ndarray | None = None
        self._support: SupportPlane | None = None
        self._odometry: Odometry | None = None
        self._origin = np.eye(4)  # of the odometry
        self._is_moving = False

    def locate(self, frame: Frame) -> Located:
        """
        Find out where a frame was taken.

        A camera that rested goes on to rest while something before it hides what could tell.
        """
        before, has_moved = self._pose, _has_moved(self._support, frame.support)
        self._support = frame.support or self._support
        if frame.world_from_camera is not None:
            return self._told(frame, frame.world_from_camera, before)
        if self._odometry is None or before is None:
            self._odometry = Odometry()
            self._origin = before = np.eye(4) if before is None else before
        motion = self._odometry.update(frame)
        self._pose, note = before, ''
        if motion.is_known:
            self._pose = self._origin @ motion.world_from_camera
            self._is_moving = not np.allclose(self._pose, before, atol=_RESTING)
        elif has_moved or self._is_moving and frame.has_depth:
            note = motion.why
        located = replace(frame, world_from_camera=self._pose, world_id=self._id)
        return Located(located, note=note)

    def _told(self, frame: Frame, pose: np.ndarray, before: np.ndarray | None) -> Located:
        """Take the pose that TF tells; a world of another name is where the camera rested."""
        moved = None
        if before is not None and frame.world_id != self._id:
            moved = pose @ np.linalg.inv(before)
        self._pose, self._id, self._odometry = pose, frame.world_id, None
        return Located(frame, moved)


def _has_moved(before: SupportPlane | None, now: SupportPlane | None) -> bool:
    """Tell whether the camera changed its tilt or its height over the support."""
    if before is None or now is None:
        return False
    return bool(before.normal @ now.normal < _TILT
                or abs(before.offset - now.offset) > _HEIGHT)
