# SPDX-License-Identifier: Apache-2.0
"""
Places objects by the depth measured inside their masks.

Of glass or black plastic only a part has readings. Then they tell how far away it is, and its box,
and where it stands, how large.
"""

from dataclasses import dataclass
from dataclasses import replace

import numpy as np
from scipy.spatial import cKDTree

from img2scene_ros import localization
from img2scene_ros.depth import measured
from img2scene_ros.localization.combine import combined
from img2scene_ros.localization.plane import PlaneDistance
from img2scene_ros.options import Options
from img2scene_ros.options import option
from img2scene_ros.types import Detection
from img2scene_ros.types import Frame
from img2scene_ros.types import Placement
from img2scene_ros.types import SupportPlane

# Readings show how large a thing is when they span this share of it. What is missing then is about
# what the box alone, of a thing that stands on a known plane, leaves open.
_SPANNED = 0.85
_READ = 0.5  # share of its pixels with readings, from which on they are all its own
_SOME = 1000  # of its readings that tell whether it is over its support


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
        pixels = detection.pixels(max(localization.READINGS, self.options.min_readings))
        read = _own_readings(frame, pixels, support)
        if len(read) < self.options.min_readings:
            return None
        points = frame.readings_at(read)
        unread = pixels.compress(np.isnan(frame.depth.take(pixels)))
        if _share_spanned(read, unread, frame.shape[1]) >= _SPANNED:
            return self._placed(frame, ray, points, support)
        points = np.concatenate([points, _filled(frame, read, unread, support)])
        seen = self._placed(frame, ray, points, support)
        standing = PlaneDistance().place(frame, detection, support)
        return seen if standing is None else _completed(seen, standing)

    def _placed(
        self, frame: Frame, ray: np.ndarray, points: np.ndarray, support: SupportPlane | None,
    ) -> Placement:
        """Place the object that has these points, (N, 3) float32 metres, on a ray (3,)."""
        stands_on = support if support and _stands_on(support, points) else None
        columns = points.T.copy()  # of whole rows, which are read many times as fast
        middle = (columns.min(axis=1) + columns.max(axis=1)).astype(float) / 2.0
        up = support.normal if support else localization.OPTICAL_UP
        rotation = localization.face_axes(points, localization.object_axes(middle, up))
        low, high = localization.quantiles(rotation.T.astype(np.float32) @ points.T, (0.01, 0.99))
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
                         localization.position_std(ray, along, across), 'sensor', stands_on)


def _own_readings(
    frame: Frame, pixels: np.ndarray, support: SupportPlane | None,
) -> np.ndarray:
    """
    Return the pixels that show the object itself.

    None that are far from all others: mixed pixels at depth edges, background in the mask. Where
    few pixels are read, those that show the support show it through or beside the object.

    :param pixels: of its mask, positions in the flattened picture
    """
    z = measured(frame.depth).take(pixels)
    is_read = np.isfinite(z)
    pixels, z = pixels.compress(is_read), z.compress(is_read)
    if support is not None and is_read.mean() < _READ:
        is_above = support.height(frame.readings_at(pixels)) > 3.0 * frame.depth_std(z)
        pixels, z = pixels.compress(is_above), z.compress(is_above)
    if not len(pixels):
        return pixels
    low, middle, high = localization.quantiles(z[None], (0.05, 0.5, 0.95))
    margin = 0.25 * (high - low) + 4.0 * frame.depth_std(middle)
    return pixels.compress((z > low - margin) & (z < high + margin))


def _share_spanned(read: np.ndarray, unread: np.ndarray, width: int) -> float:
    """Return how much of the box around an object's pixels that of the read ones covers."""
    boxes = [localization.box_around(some, width)
             for some in (read, np.concatenate([read, unread]))]
    sides = [box[2:] - box[:2] for box in boxes]
    return float(np.prod(sides[0] / sides[1]))


def _filled(
    frame: Frame, read: np.ndarray, unread: np.ndarray, support: SupportPlane | None,
) -> np.ndarray:
    """
    Return the points of pixels without readings, (N, 3) float32 metres.

    They are as far away as the nearest reading in the picture, but not below the support.
    """
    rows = [np.stack(np.divmod(one, frame.shape[1]), axis=1) for one in (read, unread)]
    depth = measured(frame.depth).take(read[cKDTree(rows[0]).query(rows[1])[1]])
    rays = frame.camera.rays.reshape(-1, 3).take(unread, axis=0)
    if support is not None:
        sinking = np.minimum(rays @ support.normal, -1e-6)
        depth = np.minimum(depth, -support.offset / sinking)
    return (rays * depth[:, None]).astype(np.float32)


def _completed(seen: Placement, standing: Placement) -> Placement:
    """Return the place that readings and box agree on, with the size of the box."""
    placed = combined((seen, standing))
    ratio = np.linalg.norm(placed.position) / np.linalg.norm(standing.position)
    return replace(placed, rotation=standing.rotation, size=standing.size * ratio)


def _stands_on(support: SupportPlane, points: np.ndarray) -> bool:
    low, high = localization.quantiles(support.height(points)[None], (0.02, 0.98))
    return bool(-0.02 < low < max(0.05, 0.35 * high) and support.is_over(
        points[::max(1, len(points) // _SOME)], margin=0.02).mean() > 0.3)


BACKEND = SensorDistance
