# SPDX-License-Identifier: Apache-2.0
"""A sighting in the world, and whether it shows something in the air."""

import math
import warnings
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from img2scene_ros.localization.extents import is_cut
from img2scene_ros.turning import turned_covariance
from img2scene_ros.types import ObjectModel
from img2scene_ros.types import Sighting
from img2scene_ros.types import SupportPlane

_READINGS = 200  # of a sighting that are looked at, at most
_WITHOUT_READING = 0.1  # what a pixel without a reading is worth beside one that has one
_ROTATION_STD = 0.1  # radians, of axes that a box around readings has
_TOUCHING = 0.02  # metres of depth between neighbouring pixels of things that touch
_FEWEST = 10  # readings that tell anything
# What floats: height of its lowest readings above the support, and of those of what the border
# cuts [m]; depth jump below its lower edge [m]; share of its columns that show air there.
_LIFTED, _CUT_LIFTED, _JUMP, _AIR = 0.03, 0.1, 0.03, 0.6
_BELOW = np.arange(3, 25, 3)  # pixels below the lower edge, at a picture height of 480

Holds = Callable[[np.ndarray], np.ndarray]  # which of (N, 3) points, world, an object holds


@dataclass(frozen=True, eq=False)
class Look:
    """
    A sighting in the world.

    - proxy: a box for it
    """

    sighting: Sighting
    proxy: ObjectModel

    @property
    def world(self) -> np.ndarray:
        """Return the world from the optical frame of its frame, (4, 4)."""
        return self.sighting.frame.pose

    @cached_property
    def position(self) -> np.ndarray:
        """Return the middle of the object in the world, (3,) metres."""
        return self.world[:3, :3] @ self.sighting.placement.position + self.world[:3, 3]

    @property
    def error(self) -> np.ndarray:
        """Return the covariance of the place that the sighting tells, (6, 6), world."""
        stds = np.append(self.sighting.placement.position_std, np.full(3, _ROTATION_STD))
        return turned_covariance(np.diag(stds ** 2), self.world[:3, :3])

    @cached_property
    def window(self) -> tuple[slice, slice]:
        """Return the part of the picture that shows it."""
        return self.sighting.detection.window

    @cached_property
    def mask(self) -> np.ndarray:
        """Return its pixels in the window, (h, w) bool; all of them where there is no mask."""
        mask = self.sighting.detection.mask
        if mask is None:
            rows, columns = self.window
            return np.ones((rows.stop - rows.start, columns.stop - columns.start), bool)
        return mask[self.window]

    @cached_property
    def depth(self) -> np.ndarray:
        """Return the depth in the window where it is read on the object, else NaN, (h, w)."""
        depth = self.sighting.frame.depth
        if depth is None:
            return np.full(self.mask.shape, np.nan, np.float32)
        return np.where(self.mask, depth[self.window], np.float32(np.nan))

    @cached_property
    def points(self) -> np.ndarray:
        """Return some of its readings in the world, (N, 3) metres; its middle without any."""
        depth = self.sighting.frame.depth
        if depth is None:
            return self.position[None]
        step = max(1, math.ceil(math.sqrt(np.count_nonzero(self.mask) / _READINGS)))
        part = np.s_[::step, ::step]
        rows, columns = np.nonzero(self.mask[part] & np.isfinite(depth[self.window][part]))
        return self.at(step * rows, step * columns) if len(rows) else self.position[None]

    def at(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return what is read at pixels of the window, (N, 3) metres, world."""
        frame, (down, right) = self.sighting.frame, self.window
        pixels = (rows + down.start) * frame.shape[1] + columns + right.start
        return frame.readings_at(pixels) @ self.world[:3, :3].T + self.world[:3, 3]

    @cached_property
    def color(self) -> np.ndarray:
        """Return its mean colour, (3,) CIELAB."""
        pixels = self.sighting.frame.color[self.window]
        mean = np.array(cv2.mean(pixels, self.mask.view(np.uint8)), np.float32)[:3] / 255.0
        return cv2.cvtColor(mean.reshape(1, 1, 3), cv2.COLOR_RGB2LAB).ravel()

    @property
    def quality(self) -> float:
        """Tell how well it is seen: its readings, half of them when the border cuts it."""
        seen = float(np.count_nonzero(self.mask))
        if self.sighting.detection.mask is not None and self.sighting.frame.depth is not None:
            read = np.count_nonzero(np.isfinite(self.depth))
            seen = read + _WITHOUT_READING * (seen - read)
        return max(seen, 1.0) * (0.5 if is_cut(self.sighting) else 1.0)

    def floats(self, support: SupportPlane | None, known: Sequence[Holds] = ()) -> bool:
        """
        Tell whether it is in the air: an arm, a hand, what they hold.

        Its lowest readings are above the support, and right below its lower edge the readings are
        far behind it; or it comes in over the lower border of the picture, high above the support.

        :param known: what tells the readings of objects of which it may show parts: they are not
            what floats, nor what it stands on
        """
        rows, columns = np.nonzero(np.isfinite(self.depth))
        if not len(rows):
            return False
        points, own = self.at(rows, columns), self.depth.copy()
        for holds in known:
            inside = holds(points)
            own[rows[inside], columns[inside]] = np.nan
        if known:  # what is left of their rims is no evidence
            solid = cv2.morphologyEx(
                np.isfinite(own).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
            own[solid == 0] = np.nan
        return _is_in_air(self.sighting, own, self.window, support)

    def touches(self, other: 'Look') -> bool:
        """Tell whether readings of both are side by side, in the picture and in depth."""
        frame = self.sighting.frame
        margin = _TOUCHING + 3.0 * float(frame.depth_std(self.sighting.placement.position[2]))
        near = tuple(slice(max(side.start - 1, 0), side.stop + 1) for side in self.window)

        def seen(look: 'Look') -> np.ndarray:
            whole = np.full(frame.shape, np.nan, np.float32)
            whole[look.window] = look.depth
            return whole[near]

        one, two = seen(self), seen(other)
        beside = ((one[1:], two[:-1]), (one[:-1], two[1:]),
                  (one[:, 1:], two[:, :-1]), (one[:, :-1], two[:, 1:]))
        return any(bool((np.abs(a - b) < margin).any()) for a, b in beside)


def _is_in_air(
    sighting: Sighting, own: np.ndarray, window: tuple[slice, slice],
    support: SupportPlane | None,
) -> bool:
    """
    Tell whether nothing is seen right below readings, (h, w) or NaN, of a window.

    :param window: rows and columns
    """
    frame = sighting.frame
    is_read = np.isfinite(own)
    if support is None or frame.depth is None or np.count_nonzero(is_read) < _FEWEST:
        return False
    points = frame.camera.rays[window][is_read] * own[is_read][:, None]
    lowest = float(np.percentile(support.height(points), 2))
    noise = 3.0 * float(frame.depth_std(sighting.placement.position[2]))
    if lowest < _LIFTED + noise:
        return False
    columns = np.flatnonzero(is_read.any(axis=0))
    edge, bottom = _lower_edge(own[:, columns])
    steps = np.maximum(1, np.round(_BELOW * frame.shape[0] / 480).astype(int))
    rows = window[0].start + bottom[:, None] + steps
    is_cut = rows[:, 0] >= frame.shape[0]
    below = frame.depth[np.minimum(rows, frame.shape[0] - 1),
                        window[1].start + columns[:, None]]
    below[rows >= frame.shape[0]] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', RuntimeWarning)  # a column without readings is no air
        is_air = np.nanmedian(below, axis=1) - edge > _JUMP + noise
    return bool(is_air.mean() > _AIR or is_cut.mean() > _AIR and lowest > _CUT_LIFTED)


def _lower_edge(own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the depth at the lower end of each column of readings (h, n), and its row there."""
    bottom = len(own) - 1 - np.argmax(np.isfinite(own)[::-1], axis=0)
    rows = np.maximum(bottom[:, None] - np.arange(4), 0)
    return np.nanmedian(own[rows, np.arange(own.shape[1])[:, None]], axis=1), bottom
