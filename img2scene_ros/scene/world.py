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
_FOLLOWED = 5  # frames for which a camera that got lost has to be followed again


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
        self._again: Odometry | None = None  # since the camera got lost
        self._followed = 0  # frames by that one

    def locate(self, frame: Frame) -> Located:
        """
        Find out where a frame was taken.

        A camera that rested goes on to rest while something before it hides what could tell. One
        that got lost is where it was when it sees that again, or in a new world, once it is
        followed there.
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
            self._pose, self._again = self._origin @ motion.world_from_camera, None
            self._is_moving = not np.allclose(self._pose, before, atol=_RESTING)
        elif self._again is not None or has_moved or self._is_moving and frame.has_depth:
            note = '' if self._is_followed_again(frame) else motion.why
        located = replace(frame, world_from_camera=self._pose, world_id=self._id)
        return Located(located, note=note)

    def _is_followed_again(self, frame: Frame) -> bool:
        """Follow a camera that got lost; tell whether another world begins with this frame."""
        if self._again is None or not self._again.update(frame).is_known:
            self._again, self._followed = Odometry(), 0
            self._again.update(frame)
        self._followed += 1
        if self._followed <= _FOLLOWED:
            return False
        self._odometry, self._again = self._again, None
        self._pose = self._origin @ self._odometry.update(frame).world_from_camera
        return True

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
