# SPDX-License-Identifier: Apache-2.0
"""Places objects by the depth measured inside their masks."""

from dataclasses import dataclass

import numpy as np

from img2scene_ros.localization import OPTICAL_UP
from img2scene_ros.localization import face_axes
from img2scene_ros.localization import object_axes
from img2scene_ros.localization import position_std
from img2scene_ros.localization import quantiles
from img2scene_ros.options import Options
from img2scene_ros.options import option
from img2scene_ros.types import Detection
from img2scene_ros.types import Frame
from img2scene_ros.types import Placement
from img2scene_ros.types import SupportPlane

_READINGS = 4000  # of an object that are looked at, about; more tell its ends no better
_SOME = 1000  # of them that tell whether it is over its support


@dataclass(frozen=True)
class SensorOptions(Options):
    """When `sensor` trusts the depth image."""

    min_readings: int = option(
        30, 'Least number of pixels with a depth reading on an object', low=5, high=100000)
    hidden_depth: float = option(
        0.8, 'Least depth of an object, as a share of its width or height, whichever is less; '
        'counts when its far side is hidden', low=0.0, high=1.0)


class SensorDistance:
    """Puts an object's centre on its bbox centre's ray, at the depth of its middle."""

    Options = SensorOptions

    def __init__(self, options: SensorOptions = SensorOptions()) -> None:
        self.options = options

    def place(
        self, frame: Frame, detection: Detection, support: SupportPlane | None,
    ) -> Placement | None:
        """
        Place a detection by the extents of its points.

        Extents, unlike a mean or median, find the middle of a hollow object, too. What the far
        side hides is estimated and stated in the standard deviation along the ray.

        :return: None without mask, with too few readings, or off the lens's view
        """
        ray = frame.camera.rays_at(detection.center)
        if frame.depth is None or detection.mask is None or not np.isfinite(ray).all():
            return None
        readings = frame.readings_at(
            detection.pixels(max(_READINGS, self.options.min_readings)))
        if len(readings) < self.options.min_readings:
            return None
        points = _without_outliers(readings, frame)
        stands_on = support if support and _stands_on(support, points) else None
        columns = points.T.copy()  # of whole rows, which are read many times as fast
        middle = (columns.min(axis=1) + columns.max(axis=1)).astype(float) / 2.0
        up = support.normal if support else OPTICAL_UP
        rotation = face_axes(points, object_axes(middle, up))
        low, high = quantiles(rotation.T.astype(np.float32) @ points.T, (0.01, 0.99))
        if stands_on:
            low[2] = -stands_on.offset
        seen, width, height = high - low
        depth = max(seen, self.options.hidden_depth * min(width, height))
        low[0] = high[0] - depth
        center = rotation @ ((low + high) / 2.0)

        position = ray * (center @ ray) / (ray @ ray)
        # The hidden part may be missing or twice as deep: its half moves the centre.
        hidden = max(depth - seen, 0.2 * width) / 2.0
        along = np.hypot(hidden, frame.depth_std(position[2]))
        across = np.hypot(np.linalg.norm(center - position) / 2.0,
                          position[2] / frame.camera.fx)
        return Placement(position, rotation,
                         np.array([depth, width, height]),
                         position_std(ray, along, across), 'sensor', stands_on)


def _without_outliers(points: np.ndarray, frame: Frame) -> np.ndarray:
    """Drop readings far from all others: mixed pixels at depth edges, background in the mask."""
    z = points[:, 2]
    low, middle, high = quantiles(z[None], (0.05, 0.5, 0.95))
    margin = 0.25 * (high - low) + 4.0 * frame.depth_std(middle)
    return points.compress((z > low - margin) & (z < high + margin), axis=0)


def _stands_on(support: SupportPlane, points: np.ndarray) -> bool:
    low, high = quantiles(support.height(points)[None], (0.02, 0.98))
    return bool(-0.02 < low < max(0.05, 0.35 * high) and support.is_over(
        points[::max(1, len(points) // _SOME)], margin=0.02).mean() > 0.3)


BACKEND = SensorDistance
