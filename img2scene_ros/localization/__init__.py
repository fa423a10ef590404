"""Localization: a metric place and size for every detection."""

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from img2scene_ros.detection import Detection
from img2scene_ros.detection.masks import without_background
from img2scene_ros.detection.supports import SupportPlane
from img2scene_ros.io.frames import Frame
from img2scene_ros.options import Options

# Where up is when no support is seen: that of a camera held level.
OPTICAL_UP = np.array([0.0, -1.0, 0.0])


@dataclass(frozen=True, eq=False)
class Placement:
    """
    Where an object is, how large, and how sure that is.

    - position: (3,) metres, the object's centre in the optical frame
    - rotation: (3, 3), turns object axes into optical axes: z up, x horizontally to the camera
    - size: (3,) metres along the object's axes
    - position_std: (3,) metres, standard deviation along the optical axes
    - depth_source: where the distance came from, 'sensor', 'plane+size_prior', ...
    - support: the plane the object stands on, None when it stands on none that is known
    """

    position: np.ndarray
    rotation: np.ndarray
    size: np.ndarray
    position_std: np.ndarray
    depth_source: str
    support: SupportPlane | None = None


@dataclass(frozen=True, eq=False)
class Sighting:
    """One object as one frame shows it: all a reconstructor gets."""

    frame: Frame
    detection: Detection
    placement: Placement

    @cached_property
    def colored(self) -> np.ndarray | None:
        """Return the pixels whose colours are surely the object's, (H, W) bool; None: no mask."""
        mask = self.detection.mask
        return None if mask is None else without_background(self.frame.color, mask)


class DistanceSource(Protocol):
    """Places detections, on the line of sight through the bbox centre."""

    Options: type[Options]
    options: Options

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


def position_std(ray: np.ndarray, along: float, across: float) -> np.ndarray:
    """
    Return the standard deviation along each optical axis.

    :param ray: (3,) viewing direction, any length
    :param along: metres, standard deviation along the ray
    :param across: metres, standard deviation at right angles to it
    """
    direction = ray / np.linalg.norm(ray)
    return np.sqrt(along ** 2 * direction ** 2 + across ** 2 * (1.0 - direction ** 2))
