# SPDX-License-Identifier: Apache-2.0
"""
Where up is, told by the straight lines of one picture.

Rooms and furniture are built along three directions at right angles, one of them the vertical: a
Manhattan world. Every straight edge in the picture is taken for one of the three, or for none of
them; the camera's tilt, roll and turn that explain most edges are the answer (Coughlan, Yuille:
Manhattan world: compass direction from a single image by Bayesian inference, ICCV 1999; with line
segments instead of pixels, as in Kosecka, Zhang: Video compass, ECCV 2002). All tilts and rolls
are tried, so the answer comes with how sure it is: edges of one direction alone leave the tilt
open.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.optimize import minimize

from img2scene_ros.rendering.normals import unit
from img2scene_ros.types import Frame

# Cameras mostly look down on things and are hardly rolled: mean and standard deviations, degrees.
_TILT, _TILT_STD, _ROLL_STD = 25.0, 22.0, 6.0
# What is tried, degrees: tilts below the horizon, rolls, turns, and the step between them.
_TILTS, _ROLLS, _TURNS, _STEP = (-30.0, 88.0), (-24.0, 24.0), (0.0, 88.0), 4.0
_MODE = 10.0  # degrees around an answer that count for it; another answer is farther off
_MODES = 3  # most answers that are given
# Segments: longest side of the picture that they are looked for in, in pixels, their least length
# as a share of its diagonal, how many of the longest count, the standard deviation of their
# angle, in degrees and in pixels at each end, and the share of those that are none of the three
# directions.
_LONGEST_SIDE, _LEAST_LENGTH, _MOST_SEGMENTS = 640, 0.025, 120
_ANGLE_STD, _END_STD, _STRAY = 1.0, 1.4, 0.4
# Edges of one pattern or object err together: all count as so many independent ones, at most.
_INDEPENDENT = 8.0
# Less of the probability than this is too little to go by (set on 40 rendered scenes: of 28 such
# answers 3 were more than 10 degrees off), and less than that is not worth an answer.
_SURE, _LEAST_SHARE = 0.5, 0.03


@dataclass(frozen=True, eq=False)
class Gravity:
    """
    One answer to where up is.

    - up: (3,) unit vector, optical frame
    - std: radians, standard deviation of tilt and of roll, if it is the right answer
    - share: 0 to 1, the probability that it is the right answer
    """

    up: np.ndarray
    std: float
    share: float

    @property
    def is_sure(self) -> bool:
        """Tell whether the picture says enough to go by this answer."""
        return self.share > _SURE


def up_of(tilt: np.ndarray | float, roll: np.ndarray | float) -> np.ndarray:
    """
    Return up for a camera that looks below the horizon and is rolled, its right side down.

    :param tilt: (...) radians
    :param roll: (...) radians
    :return: (..., 3) unit vectors, optical frame
    """
    return np.stack(np.broadcast_arrays(
        -np.sin(roll) * np.cos(tilt), -np.cos(roll) * np.cos(tilt), -np.sin(tilt)), axis=-1)


def find_gravity(frame: Frame) -> list[Gravity]:
    """
    Find out where up is from the edges in the picture alone.

    :return: the answers that the picture allows, the most probable first; at least one
    """
    edges = _Edges(frame)
    tilts, rolls, turns = (
        np.radians(np.arange(low, high + 0.1, _STEP)) for low, high in (_TILTS, _ROLLS, _TURNS))
    tilts, rolls = (axis.ravel() for axis in np.meshgrid(tilts, rolls, indexing='ij'))
    fits = edges.log_likelihood(tilts, rolls, turns, np.radians(_STEP / 2.0))
    fits += _log_prior(tilts, rolls)[:, None]
    weights = np.exp(fits - fits.max()).sum(axis=1)
    weights /= weights.sum()
    ups, best = up_of(tilts, rolls), fits.argmax(axis=1)
    is_free = np.ones(len(ups), bool)
    found: list[Gravity] = []
    for _ in range(_MODES):
        peak = np.argmax(np.where(is_free, fits.max(axis=1), -np.inf))
        mine = is_free & (_angles(ups, ups[peak]) < np.radians(_MODE))
        is_free &= ~mine
        share = float(weights[mine].sum())
        if found and share < _LEAST_SHARE:
            break
        up = _refined(edges, np.array([tilts[peak], rolls[peak], turns[best[peak]]]))
        spread = np.average(_angles(ups[mine], up) ** 2, weights=weights[mine])
        found.append(Gravity(up, float(np.sqrt(spread / 2.0)), share))
    return sorted(found, key=lambda one: -one.share)


def _angles(directions: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.arccos(np.clip(directions @ other, -1.0, 1.0))


class _Edges:
    """The straight edges of a picture, as planes through the camera's centre."""

    def __init__(self, frame: Frame) -> None:
        ends = _segments(frame.color)
        rays = frame.camera.rays_at(ends)
        is_seen = np.isfinite(rays).all(axis=(1, 2))
        ends, rays = ends[is_seen], rays[is_seen]
        length = np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1)
        first, second = unit(rays[:, 0]), unit(rays[:, 1])
        self.normals = unit(np.cross(first, second)).astype(np.float32)
        self.middles = unit(first + second).astype(np.float32)
        self.std = np.hypot(np.radians(_ANGLE_STD), _END_STD / length)
        self.weights = length * min(_INDEPENDENT, len(length)) / max(length.sum(), 1.0)

    def log_likelihood(
        self, tilt: np.ndarray, roll: np.ndarray, turn: np.ndarray, blur: float,
    ) -> np.ndarray:
        """
        Return how well cameras explain the edges.

        :param tilt: (N,) radians
        :param roll: (N,) radians
        :param turn: (T,) radians, of the horizontal directions about the vertical
        :param blur: radians, standard deviation of all of them
        :return: (N, T)
        """
        up = up_of(tilt, roll)
        right = unit(np.array([1.0, 0.0, 0.0]) - up * up[:, :1])
        ahead = np.cross(up, right)
        cosine, sine = np.cos(turn)[:, None], np.sin(turn)[:, None]
        total = np.zeros((len(up), len(turn)))
        if not len(self.normals):
            return total
        vertical = self._density(up, blur)[:, :, None]
        one = self._density(right[:, None] * cosine + ahead[:, None] * sine, blur)
        other = self._density(ahead[:, None] * cosine - right[:, None] * sine, blur)
        explained = (1.0 - _STRAY) / 3.0 * (vertical + one + other)
        return np.tensordot(self.weights, np.log(explained + _STRAY / (np.pi / 2.0)), 1)

    def _density(self, directions: np.ndarray, blur: float) -> np.ndarray:
        """
        Return how probable the edges' angles in the picture are if they run in directions.

        :param directions: (..., 3) unit vectors
        :return: (S, ...) per radian
        """
        flat = directions.reshape(-1, 3).T.astype(np.float32)
        across = np.abs(self.normals @ flat) / np.sqrt(
            np.maximum(1.0 - (self.middles @ flat) ** 2, 1e-6))
        std = np.hypot(self.std, blur)[:, None].astype(np.float32)
        angle = np.arcsin(np.minimum(across, 1.0))
        density = 2.0 / (std * np.sqrt(2.0 * np.pi)) * np.exp(-0.5 * (angle / std) ** 2)
        return density.reshape(-1, *directions.shape[:-1])


def _segments(color: np.ndarray) -> np.ndarray:
    """
    Return the straight segments of a picture, (S, 2, 2) pixels, the longest first.

    (Grompone von Gioi, Jakubowicz, Morel, Randall: LSD: a line segment detector, IPOL 2012.)
    """
    gray = cv2.cvtColor(color, cv2.COLOR_RGB2GRAY)
    scale = min(1.0, _LONGEST_SIDE / max(gray.shape))
    small = gray if scale == 1.0 else cv2.resize(
        gray, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    found = cv2.createLineSegmentDetector().detect(small)[0]
    if found is None:
        return np.zeros((0, 2, 2))
    ends = found.reshape(-1, 2, 2).astype(float)
    length = np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1)
    longest = np.argsort(-length, kind='stable')[:_MOST_SEGMENTS]
    longest = longest[length[longest] > _LEAST_LENGTH * np.hypot(*small.shape)]
    return (ends[longest] + 0.5) / scale - 0.5


def _log_prior(tilt: np.ndarray, roll: np.ndarray) -> np.ndarray:
    return -0.5 * (((np.degrees(tilt) - _TILT) / _TILT_STD) ** 2
                   + (np.degrees(roll) / _ROLL_STD) ** 2)


def _refined(edges: _Edges, angles: np.ndarray) -> np.ndarray:
    """Return up, (3,), for the best tilt, roll and turn near given ones, (3,) radians."""
    def cost(one: np.ndarray, blur: float) -> float:
        tilt, roll, turn = one[:, None]
        return -float(edges.log_likelihood(tilt, roll, turn, blur)[0, 0]
                      + _log_prior(tilt, roll)[0])

    for blur in np.radians((1.0, 0.0)):  # the sharper it is, the nearer the start has to be
        simplex = angles + np.radians(2.0) * np.vstack([np.zeros(3), np.eye(3)])
        angles = minimize(cost, angles, (blur,), method='Nelder-Mead', options={
            'initial_simplex': simplex, 'maxiter': 80, 'xatol': 1e-3, 'fatol': 1e-2}).x
    return up_of(angles[0], angles[1])
