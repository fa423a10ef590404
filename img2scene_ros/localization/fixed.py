# SPDX-License-Identifier: Apache-2.0
"""Places objects at one distance from a parameter: for cameras without depth."""

from dataclasses import dataclass

import numpy as np

from img2scene_ros.localization import OPTICAL_UP
from img2scene_ros.localization import object_axes
from img2scene_ros.localization import position_std
from img2scene_ros.options import Options
from img2scene_ros.options import option
from img2scene_ros.types import Detection
from img2scene_ros.types import Frame
from img2scene_ros.types import Placement
from img2scene_ros.types import SupportPlane


@dataclass(frozen=True)
class FixedOptions(Options):
    """The distance that `fixed` assumes."""

    distance: float = option(1.0, 'Distance of every object from the camera [m]', low=0.05,
                             high=100.0)
    relative_std: float = option(
        0.3, 'Standard deviation of that distance, as a share of it', low=0.001, high=1.0)


class FixedDistance:
    """Puts every object on its bbox centre's ray at the configured distance."""

    Options = FixedOptions

    def __init__(self, options: FixedOptions = FixedOptions()) -> None:
        self.options = options

    def place(
        self, frame: Frame, detection: Detection, support: SupportPlane | None,
    ) -> Placement | None:
        """
        Place a detection; its depth is taken to be as large as its width.

        :return: None for a bbox centre off the lens's view
        """
        ray = frame.camera.rays_at(detection.center)
        if not np.isfinite(ray).all():
            return None
        position = ray / np.linalg.norm(ray) * self.options.distance
        width, height = detection.bbox[2:] - detection.bbox[:2]
        width *= position[2] / frame.camera.fx
        height *= position[2] / frame.camera.fy
        std = position_std(ray, self.options.relative_std * self.options.distance,
                           position[2] / frame.camera.fx)
        return Placement(position, object_axes(position, OPTICAL_UP),
                         np.array([width, width, height]), std, 'fixed')


BACKEND = FixedDistance
