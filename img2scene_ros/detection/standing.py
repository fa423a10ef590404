# SPDX-License-Identifier: Apache-2.0
"""Whether what a mask shows stands on a support, holds one up, or is the rim around others."""

from collections.abc import Sequence

import cv2
import numpy as np

from img2scene_ros.depth import measured
from img2scene_ros.detection.labelling import Window
from img2scene_ros.detection.surfaces import Heights
from img2scene_ros.types import Frame

_SAMPLE = 500  # readings that tell an object's size and place
_UNDER = 3.0  # deviations of bare support by which readings are under it
_BEFORE = 0.01  # metres; what is read so far before a point hides it
# What holds a support up is seen to end so near it, where its border hides no more, and is no
# further beside it [m].
_ENDS, _BESIDE = 0.12, 0.03
# A rim fills no more of its convex hull in the picture, in which another object lies by more.
_RIM, _WITHIN = 0.3, 0.8


def sample(is_read: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and columns of some of the pixels that are read, about `_SAMPLE`."""
    rows, columns = np.nonzero(is_read)
    every = len(rows) // _SAMPLE + 1
    return rows[::every], columns[::every]


def stands_over(
    frame: Frame, heights: Heights, window: Window, some: tuple[np.ndarray, np.ndarray],
) -> np.ndarray:
    """Tell which readings stand over a support, as far as it is seen, not under it, (N,) bool."""
    height = heights.height[window][some]
    is_under = height < -_UNDER * heights.noise[window][some]
    return ~is_under & ((heights.number[window][some] > 0) | is_over(
        frame, measured(frame.points)[window][some], height, margin=-0.005))


def is_over(frame: Frame, points: np.ndarray, height: np.ndarray, margin: float) -> np.ndarray:
    """
    Tell which points stand over the main support, as far as it is seen or goes on unseen.

    The picture's lower border cuts the support off, not the objects that stand nearer: a foot
    below it counts where the support is seen at the border above it.

    :param points: (N, 3) metres
    :param height: (N,) metres, of the points
    """
    support = frame.supports[0]
    found = support.is_over(points, margin)
    beside = np.flatnonzero(~found)
    seen = frame.camera.project(points[beside] - height[beside, None] * support.normal)
    last = frame.shape[0] - 1
    is_below = seen[:, 1] > last - 1
    if is_below.any():
        rays = frame.camera.rays_at(
            np.column_stack([seen[is_below, 0], np.full(is_below.sum(), last)]))
        reach = -support.offset / (rays @ support.normal)
        found[beside[is_below]] = support.is_over(rays * reach[:, None], margin) & (reach > 0)
    return found


def hides_its_foot(
    mask: np.ndarray, window: Window, frame: Frame, points: np.ndarray, height: np.ndarray,
    reach: float,
) -> np.ndarray:
    """
    Tell which points of an object are over what it hides of the main support itself.

    That is no further from what is seen of the support than its own size, and behind the object,
    or out of the picture, if the object is seen to come down further than it is away.

    :param mask: of the object in the window
    :param points: (N, 3) metres
    :param height: (N,) metres, of the points
    :param reach: metres
    """
    support = frame.supports[0]
    feet = points - height[:, None] * support.normal
    pixels = np.rint(frame.camera.project(feet)[:, ::-1])
    is_inside = ((pixels >= 0) & (pixels < frame.shape)).all(axis=1)
    rows, columns = pixels[is_inside].astype(int).T
    whole = np.zeros(frame.shape, bool)
    whole[window] = mask
    depth = measured(frame.depth)[rows, columns]
    is_hidden = ~is_inside & (np.percentile(height, 5) < reach / 2.0)
    is_hidden[is_inside] = whole[rows, columns] & ~(depth > feet[is_inside, 2] - _BEFORE)
    return support.is_over(points, reach) & is_hidden


def holds_up(mask: np.ndarray, window: Window, frame: Frame, number: np.ndarray) -> bool:
    """Tell whether what stands on one support ends below another, as a table's legs do."""
    if len(frame.supports) < 2:
        return False
    points = measured(frame.points)[window][mask]
    stands_on = np.bincount(number[window][mask]).argmax()
    for this, other in enumerate(frame.supports):
        top = float(np.nanpercentile(other.height(points), 99))
        if this != stands_on and abs(top) < _ENDS and other.is_over(points, _BESIDE).mean() > 0.5:
            return True
    return False


def surrounds(
    mask: np.ndarray, window: Window, found: Sequence[tuple[np.ndarray, Window]],
) -> bool:
    """Tell whether a mask is the rim of a tray or bin: thin around what stands in it."""
    corner = np.array([window[1].start, window[0].start])
    hull = cv2.convexHull(np.stack(np.nonzero(mask)[::-1], axis=1).astype(np.int32)) + corner
    if np.count_nonzero(mask) > _RIM * cv2.contourArea(hull):
        return False
    for other, there in found:
        inside = np.zeros(other.shape, np.uint8)
        cv2.fillConvexPoly(inside, hull - (there[1].start, there[0].start), 1)
        if other is not mask and inside[other].mean() > _WITHIN:
            return True
    return False
