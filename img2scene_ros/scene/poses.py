# SPDX-License-Identifier: Apache-2.0
"""The pose of one object over time: resting ones are averaged, moving ones followed at once."""

from dataclasses import dataclass
from dataclasses import field

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

# Measurements that are averaged while an object rests.
_AVERAGED = 10
# How far single measurements scatter, first (by boxes, by meshes) and at least and at most: metres
# and radians. It is learned from second differences, which even motion leaves alone.
_FIRST, _FIRST_OF_MESH = np.array([0.003, 0.02]), np.array([0.001, 0.01])
_LEAST, _MOST = np.array([0.0003, 0.002]), np.array([0.006, 0.05])
_LEARNED = 0.05  # share of the newest second difference
# An object has moved when a measurement is this many deviations off, or the mean of the latest
# ones, in which the newest counts half, this many.
_JUMP, _DRIFT = 5.0, 2.5
# Least gain of the velocity while it moves, and the speed below which it rests again: metres and
# radians per second, or deviations from frame to frame.
_BETA, _RESTING, _CALM = 0.15, np.array([0.01, 0.1]), 0.3
_UNKNOWN = 0.5  # radians, the standard deviation of a turn that a measurement does not tell
_WALK = np.array([0.003, 0.02])  # how uncertain a place gets unseen, metres and radians per root s
_COAST = 0.5  # seconds for which a moving object is expected to go on


@dataclass(eq=False)
class PoseFilter:
    """
    Where an object is and goes, in the world.

    - pose: (4, 4) world from object
    - error: (6, 6) covariance of what all measurements have in common
    - velocity: (6,) metres, then radians about the world's axes, per second; 0 while it rests
    """

    pose: np.ndarray
    error: np.ndarray
    velocity: np.ndarray = field(default_factory=lambda: np.zeros(6))
    _count: int = 1
    _learned: int = 0
    _followed: int = 0  # measurements since it began to move
    _scatter: np.ndarray = field(default_factory=_FIRST.copy)
    _drift: np.ndarray = field(default_factory=lambda: np.zeros(6))
    _last: np.ndarray | None = None  # the latest measurement
    _step: np.ndarray | None = None  # from the one before to it

    def add(
        self, measured: np.ndarray, error: np.ndarray, seconds: float, has_moved: bool = False,
    ) -> None:
        """
        Take in a measurement.

        :param measured: (4, 4) world from object
        :param error: (6, 6), in the axes of the world
        :param seconds: since the one before
        :param has_moved: as other evidence tells
        """
        self._learn(measured)
        self.error = error
        if has_moved or self.velocity.any():
            self._follow(measured, seconds)
            return
        off = difference(measured, self.pose)
        self._drift = 0.5 * self._drift + 0.5 * off
        if ((_lengths(off) > _JUMP * self._scatter)
                | (_lengths(self._drift) > _DRIFT * self._scatter)).any():
            self._follow(measured, seconds)
            return
        self._count = min(self._count + 1, _AVERAGED)
        self.pose = stepped(self.pose, off / self._count)

    def restart(self, pose: np.ndarray) -> None:
        """Go on from another pose, as that of a new mesh; it goes where the old one went."""
        self._stand(pose)
        self._last = self._step = None
        self._scatter, self._learned = _FIRST_OF_MESH.copy(), 0

    def rest(self) -> None:
        """Go nowhere, as other evidence tells."""
        self.velocity = np.zeros(6)

    def step(self, seconds: float) -> np.ndarray:
        """Return how far it has gone so many seconds after it was seen, (6,)."""
        return self.velocity * min(seconds, _COAST)

    def predicted(self, seconds: float) -> np.ndarray:
        """Return where it has gone so many seconds after it was seen, (4, 4)."""
        if not self.velocity.any():
            return self.pose
        return stepped(self.pose, self.step(seconds))

    def covariance(self, seconds: float) -> np.ndarray:
        """
        Return the covariance of the pose, (6, 6).

        :param seconds: for which nothing was seen of it
        """
        variances = self._scatter ** 2 / self._count + _WALK ** 2 * seconds
        return self.error + np.diag(np.repeat(variances, 3))

    def _follow(self, measured: np.ndarray, seconds: float) -> None:
        """Take in the measurement of an object that moves: its velocity is that of all of them."""
        off = difference(measured, self.predicted(seconds))
        self._stand(measured)
        # The gain with which a line is fitted to ever more points (Brookner: Tracking and Kalman
        # filtering made easy, 1998, expanding memory).
        self._followed = self._followed + 1 if self.velocity.any() else 1
        gain = max(_BETA, 6.0 / (self._followed + 1) / (self._followed + 2))
        self.velocity = self.velocity + gain * _told(off, self.error) / seconds
        calm = np.maximum(_RESTING, _CALM * self._scatter / seconds)
        if (_lengths(self.velocity) < calm).all():
            self.velocity = np.zeros(6)

    def _stand(self, pose: np.ndarray) -> None:
        """Begin to average anew."""
        self.pose, self._count, self._drift = pose, 1, np.zeros(6)

    def _learn(self, measured: np.ndarray) -> None:
        step = None if self._last is None else difference(measured, self._last)
        if step is not None and self._step is not None:
            # The second difference of noise has 6 times its variance, along each of three axes.
            found = np.minimum(_lengths(step - self._step) / np.sqrt(18.0), 2.0 * _MOST)
            self._learned += 1
            share = max(_LEARNED, 1.0 / (self._learned + 2))
            variance = (1.0 - share) * self._scatter ** 2 + share * found ** 2
            self._scatter = np.clip(np.sqrt(variance), _LEAST, _MOST)
        self._last, self._step = measured, step


def difference(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return what takes a pose to `one`: (6,) metres, then radians, about the world's axes."""
    turn, _ = cv2.Rodrigues(one[:3, :3] @ other[:3, :3].T)
    return np.concatenate([one[:3, 3] - other[:3, 3], turn[:, 0]])


def moved_points(pose: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return points (..., N, 3) where poses (..., 4, 4) take them."""
    return points @ transposed(pose[..., :3, :3]) + pose[..., None, :3, 3]


def transposed(matrices: np.ndarray) -> np.ndarray:
    """Return matrices (..., N, M) transposed."""
    return np.swapaxes(matrices, -1, -2)


def stepped(pose: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Return poses moved by (..., 6): their origins translated, themselves turned about those."""
    moved = pose.copy()
    turn = Rotation.from_rotvec(step[..., 3:]).as_matrix()
    moved[..., :3, :3] = turn @ pose[..., :3, :3]
    moved[..., :3, 3] += step[..., :3]
    return moved


def _told(step: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Return a step without turns that are unknown, such as that of a can about its axis, (6,)."""
    variances, axes = np.linalg.eigh(error[3:, 3:])
    known = axes[:, variances < _UNKNOWN ** 2]
    return np.concatenate([step[:3], known @ (known.T @ step[3:])])


def _lengths(step: np.ndarray) -> np.ndarray:
    """Return how far a step goes and turns, (2,) metres and radians."""
    return np.linalg.norm(step.reshape(2, 3), axis=1)
