# SPDX-License-Identifier: Apache-2.0
"""Localization: a metric place and size for every detection."""

from typing import Protocol

import numpy as np

from img2scene_ros.options import Configurable
from img2scene_ros.types import Detection
from img2scene_ros.types import Frame
from img2scene_ros.types import Placement
from img2scene_ros.types import SupportPlane

# Where up is when no support is seen: that of a camera held level.
OPTICAL_UP = np.array([0.0, -1.0, 0.0])
# Most points that tell in plan how faces run; share of the area that makes a rectangle clear.
_IN_PLAN, _CLEARLY = 3000, 0.93


class DistanceSource(Configurable, Protocol):
    """Places detections, on the line of sight through the bbox centre."""

    def place(
        self, frame: Frame, detection: Detection, support: SupportPlane | None,
    ) -> Placement | None:
        """Return where the detection is, None when this source cannot tell."""


def object_axes(position: np.ndarray, up: np.ndarray) -> np.ndarray:
    """
    Return the object frame's rotation: z up, x horizontally towards the camera.

    :param position: (3,) metres, optical frame
    :param up: (3,) unit vector, optical frame
    :return: (3, 3), its columns are the object's axes in the optical frame
    """
    towards = -position - up * (-position @ up)
    if np.linalg.norm(towards) < 1e-6 * np.linalg.norm(position):
        # Seen from straight above: the lower edge of the picture is where the camera is.
        towards = np.array([0.0, 1.0, 0.0]) - up * up[1]
    x = towards / np.linalg.norm(towards)
    return np.stack([x, np.cross(up, x), up], axis=1)


def face_axes(points: np.ndarray, towards: np.ndarray) -> np.ndarray:
    """
    Turn an object frame about its z axis until x and y run along the object's faces.

    They are the sides of the rectangle of least area around the points in plan, of whose four
    directions x is the one most towards the camera. What no rectangle fits clearly better than
    that towards the camera, such as round things, keeps its frame.

    :param points: (N, 3) metres, optical frame
    :param towards: (3, 3), an object frame as `object_axes` gives it
    """
    angles = np.radians(np.arange(-44.0, 46.0))
    x = np.stack([np.cos(angles), np.sin(angles)])
    y = np.stack([-np.sin(angles), np.cos(angles)])
    plan = (towards[:, :2].T @ points[::max(1, len(points) // _IN_PLAN)].T).astype(np.float32)
    sides = [np.ptp(np.percentile(axis.T.astype(np.float32) @ plan, (1, 99), axis=1), axis=0)
             for axis in (x, y)]
    area = sides[0] * sides[1]
    best = int(np.argmin(area))
    if area[best] > _CLEARLY * area[len(angles) // 2 - 1]:
        return towards
    turned = np.stack([x[:, best], y[:, best]], axis=1)
    return np.column_stack([towards[:, :2] @ turned, towards[:, 2]])


def position_std(ray: np.ndarray, along: float, across: float) -> np.ndarray:
    """
    Return the standard deviation along each optical axis.

    :param ray: (3,) viewing direction, any length
    :param along: metres, standard deviation along the ray
    :param across: metres, standard deviation at right angles to it
    """
    direction = ray / np.linalg.norm(ray)
    return np.sqrt(along ** 2 * direction ** 2 + across ** 2 * (1.0 - direction ** 2))
