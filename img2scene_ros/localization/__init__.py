# SPDX-License-Identifier: Apache-2.0
"""Localization: a metric place and size for every detection."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from scipy.spatial.transform import Rotation

from img2scene_ros.options import Configurable
from img2scene_ros.types import Detection
from img2scene_ros.types import Frame
from img2scene_ros.types import Placement
from img2scene_ros.types import SupportPlane

# Where up is when no support is seen: that of a camera held level.
OPTICAL_UP = np.array([0.0, -1.0, 0.0])
# Most points that tell in plan how faces run; share of the area that makes a rectangle clear.
# Directions are tried every degree, at first every `_COARSE` ones.
_IN_PLAN, _CLEARLY, _COARSE = 1000, 0.93, 5
READINGS = 4000  # of an object that are looked at, about; more tell its ends no better


class DistanceSource(Configurable, Protocol):
    """Places detections, on the line of sight through the bbox centre."""

    def place(
        self, frame: Frame, detection: Detection, support: SupportPlane | None,
    ) -> Placement | None:
        """Return where the detection is, None when this source cannot tell."""


def box_around(pixels: np.ndarray, width: int) -> np.ndarray:
    """
    Return the box around pixels, (4,) as `Detection.bbox`.

    :param pixels: (N,) positions in the flattened picture, at least one
    :param width: of the picture
    """
    rows, columns = pixels // width, pixels % width
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], float)


def object_axes(position: np.ndarray, up: np.ndarray) -> np.ndarray:
    """
    Return the object frame's rotation: z up, x horizontally towards the camera.

    :param position: (3,) metres, optical frame
    :param up: (3,) unit vector, optical frame
    :return: (3, 3), its columns are the object's axes in the optical frame
    """
    towards = up * (position @ up) - position
    length = np.sqrt(towards @ towards)
    if length < 1e-6 * np.sqrt(position @ position):
        # Seen from straight above: the lower edge of the picture is where the camera is.
        towards = np.array([0.0, 1.0, 0.0]) - up * up[1]
        length = np.sqrt(towards @ towards)
    x, y, z = (towards / length).tolist()
    a, b, c = up.tolist()
    # The middle column is the cross product of up and x; `numpy.cross` takes ten times as long.
    return np.array([[x, b * z - c * y, a], [y, c * x - a * z, b], [z, a * y - b * x, c]])


def face_axes(points: np.ndarray, towards: np.ndarray) -> np.ndarray:
    """
    Turn an object frame about its z axis until x and y run along the object's faces.

    They are the sides of the rectangle of least area around the points in plan, of whose four
    directions x is the one most towards the camera. What no rectangle fits clearly better than
    that towards the camera, such as round things, keeps its frame.

    :param points: (N, 3) metres, optical frame
    :param towards: (3, 3), an object frame as `object_axes` gives it
    """
    plan = (towards[:, :2].T @ points[::max(1, len(points) // _IN_PLAN)].T).astype(np.float32)

    def areas(degrees: np.ndarray) -> np.ndarray:
        turns = np.radians(np.append(degrees, degrees + 90)).astype(np.float32)
        along = np.stack([np.cos(turns), np.sin(turns)], axis=1)
        return np.ptp(quantiles(along @ plan, (0.01, 0.99)), axis=0).reshape(2, -1).prod(axis=0)

    coarse = np.arange(-45, 45, _COARSE)
    area = areas(coarse)
    near = (coarse[np.argmin(area)] + np.arange(1 - _COARSE, _COARSE) + 45) % 90 - 45
    fine = areas(near)
    if fine.min() > _CLEARLY * area[coarse == 0]:
        return towards
    turn = Rotation.from_euler('z', near[np.argmin(fine)], degrees=True)
    return towards @ turn.as_matrix()


def quantiles(values: np.ndarray, shares: Sequence[float]) -> np.ndarray:
    """
    Return `numpy.quantile(values, shares, axis=1)`, in a fraction of its time.

    :param values: (K, N) finite; float32 are sorted by vector instructions
    :param shares: M of 0 to 1
    :return: (M, K)
    """
    ordered = np.sort(values, axis=1)
    rank = np.asarray(shares) * (ordered.shape[1] - 1)
    below = rank.astype(int)
    low, high = ordered[:, below], ordered[:, np.minimum(below + 1, ordered.shape[1] - 1)]
    return (low + (rank - below) * (high - low)).T


def position_std(ray: np.ndarray, along: float, across: float) -> np.ndarray:
    """
    Return the standard deviation along each optical axis.

    :param ray: (3,) viewing direction, any length
    :param along: metres, standard deviation along the ray
    :param across: metres, standard deviation at right angles to it
    """
    direction = ray / np.linalg.norm(ray)
    return np.sqrt(along ** 2 * direction ** 2 + across ** 2 * (1.0 - direction ** 2))
