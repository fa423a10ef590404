# SPDX-License-Identifier: Apache-2.0
"""Surfaces of a depth image: how a support really lies, and which pixels are of one surface."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import cv2
import numpy as np
from numpy.polynomial.polynomial import polyvander2d
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from img2scene_ros.depth import measured
from img2scene_ros.detection.labelling import Window
from img2scene_ros.types import Frame
from img2scene_ros.types import SupportPlane

# Neighbours on a slanted surface lie so many times as far apart as on one seen head-on, which from
# afar is more than the gap between two objects; 3 is a surface at 70 degrees to the picture.
_SLANT = 3.0
# A support's relief: readings so near its plane show it (metres, or standard deviations of the
# depth), so many of them at most are fitted by a polynomial of that degree, in so many rounds.
# Its noise is at least and at most so many times the sensor's.
_NEAR, _NEAR_DEVIATIONS, _FITTED, _DEGREE, _ROUNDS = 0.03, 4.0, 6000, 3, 8
_NOISE_RANGE = (1.0, 6.0)
_TERMS = np.add.outer(range(_DEGREE + 1), range(_DEGREE + 1)).ravel() <= _DEGREE


def heights_above(
    frame: Frame, support: SupportPlane, bare: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """
    Measure how far readings lie above a support that may be warped, and how far off bare ones are.

    What lies near the plane is fitted by a polynomial in plan with Tukey's biweight (Beaton and
    Tukey, 1974), which things on the support do not pull. The spread about it is this support's
    noise, before this sensor.

    :param bare: (H, W) bool, pixels that may show the support; None = all
    :return: heights (H, W) metres, NaN = no reading, and their standard deviation on bare support
    """
    points, std = measured(frame.points), frame.depth_std(measured(frame.depth))
    height = cv2.transform(points, np.append(support.normal, support.offset)[None])
    is_near = np.abs(height) < np.maximum(_NEAR, _NEAR_DEVIATIONS * std)
    near = np.flatnonzero(is_near if bare is None else is_near & bare)
    near = near[::max(1, len(near) // _FITTED)]
    fitted = points.reshape(-1, 3)[near]
    is_over = support.is_over(fitted)
    near, fitted = near[is_over], fitted[is_over]
    if len(near) < _FITTED // 10:
        return height, std
    found, plan = height.ravel()[near], fitted @ support.axes.T
    low, high = np.percentile(plan, (1, 99), axis=0)
    # Both coordinates are -1 to 1 where the relief is fitted; it goes on level beyond.
    factor, shift = 2.0 / (high - low), (low + high) / (low - high)
    x, y = np.clip(plan * factor + shift, -1.0, 1.0).T
    terms = polyvander2d(x, y, [_DEGREE, _DEGREE])[:, _TERMS]
    weights = np.ones(len(found))
    for _ in range(_ROUNDS):
        weighted = terms * weights[:, None]
        factors = np.linalg.lstsq(
            weighted.T @ weighted, weighted.T @ (found * weights), rcond=None)[0]
        residual = found - terms @ factors
        spread = 1.4826 * float(np.median(np.abs(residual)))
        weights = np.clip(1.0 - (residual / (4.0 * spread + 1e-6)) ** 2, 0.0, 1.0)
    ratio = float(np.clip(spread / np.median(std.ravel()[near]), *_NOISE_RANGE))
    relief = np.zeros(len(_TERMS))
    relief[_TERMS] = factors
    scaling = np.column_stack([support.axes * factor[:, None], shift])
    x, y = (np.clip(cv2.transform(points, row[None]), -1.0, 1.0) for row in scaling)
    return height - _polynomial(x, y, relief.reshape(_DEGREE + 1, _DEGREE + 1)), ratio * std


def _polynomial(x: np.ndarray, y: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Return the sum of factors[i, j] x^i y^j, i + j <= degree, by Horner's rule."""
    rows = [reduce(lambda total, factor: total * y + factor, row[len(row) - 1 - i::-1])
            for i, row in enumerate(factors.tolist())]
    return reduce(lambda total, row: total * x + row, reversed(rows))


@dataclass(frozen=True, eq=False)
class Heights:
    """
    How far readings lie above the support under each.

    - height, noise: (H, W) metres, as `heights_above`
    - number: (H, W) of the support in `Frame.supports`
    """

    height: np.ndarray
    noise: np.ndarray
    number: np.ndarray


def support_numbers(frame: Frame) -> np.ndarray:
    """Return the highest support under each reading in `Frame.supports`, (H, W); else 0."""
    number = np.zeros(frame.shape, np.uint8)
    if len(frame.supports) < 2:
        return number
    points = measured(frame.points)
    least = -_NEAR_DEVIATIONS * frame.depth_std(measured(frame.depth))
    lowest = np.full(frame.shape, np.inf)
    for this, support in enumerate(frame.supports):
        height = cv2.transform(points, np.append(support.normal, support.offset)[None])
        is_it = support.is_over(points) & (height > least) & (height < lowest)
        number[is_it], lowest[is_it] = this, height[is_it]
    return number


def heights_above_supports(
    frame: Frame, number: np.ndarray, bare: np.ndarray | None = None,
) -> Heights:
    """
    Measure heights above the supports under readings.

    :param number: (H, W), as `support_numbers`
    :param bare: (H, W) bool, pixels that may show supports; None = all
    """
    main, *others = frame.supports
    height, noise = heights_above(frame, main, bare)
    for this, other in enumerate(others, 1):
        is_it = number == this
        if is_it.any():
            above, its_noise = heights_above(frame, other, bare)
            height, noise = np.where(is_it, above, height), np.where(is_it, its_noise, noise)
    return Heights(height, noise, number)


def linked_surfaces(
    frame: Frame, pixels: np.ndarray, gap: float, steps: Sequence[int],
    window: Window = np.s_[:, :],
) -> np.ndarray:
    """
    Label pixels by the surface they are part of: it goes on to neighbours that are near in space.

    :param pixels: bool, those to label, (H, W) or as large as the window
    :param gap: distance between two surfaces, metres; noise and slant come on top
    :param steps: pixels to neighbours that are linked besides the next ones, right and down; they
        bridge holes in the depth
    :param window: the part of the frame that is labelled
    :return: int, of the same shape; 0 for all other pixels
    """
    points = np.ascontiguousarray(measured(frame.points)[window])
    axes = cv2.split(points)
    squared = np.where(pixels, link_reach(frame, axes[2], gap), np.float32(np.nan)) ** 2
    # Links between next neighbours are drawn between the pixels of a picture twice as large.
    rows, columns = pixels.shape
    drawn = np.zeros((2 * rows, 2 * columns), np.uint8)
    drawn[::2, ::2] = pixels
    for down, right, links in ((0, 1, drawn[:, 1:-1:2][::2]), (1, 0, drawn[1:-1:2, ::2])):
        one, other = np.s_[:rows - down, :columns - right], np.s_[down:, right:]
        x, y, z = (np.square(axis[one] - axis[other]) for axis in axes)
        np.logical_and(x + y + z < squared[one], pixels[other], out=links.view(bool))
    count, pieces = cv2.connectedComponents(drawn, connectivity=4)
    pieces = np.ascontiguousarray(pieces[::2, ::2])
    # Further neighbours matter where pieces end.
    flat, pairs = pieces.ravel(), []
    for step in steps:
        for apart, room in ((step * columns, 0), (step, step)):
            here, there = flat[:-apart], flat[apart:]
            ends = np.flatnonzero((here != there) & (here > 0) & (there > 0))
            ends = ends[ends % columns + room < columns]
            across = points.reshape(-1, 3)[ends] - points.reshape(-1, 3)[ends + apart]
            ends = ends[np.square(across).sum(axis=1) < squared.ravel()[ends]]
            pairs.append(np.stack([flat[ends], flat[ends + apart]]))
    first, second = np.concatenate(pairs, axis=1)
    graph = coo_matrix((np.ones(len(first), bool), (first, second)), (count, count))
    return connected_components(graph, directed=False)[1][pieces]


def link_reach(frame: Frame, depth: np.ndarray, gap: float) -> np.ndarray:
    """Return how near next pixels of one surface lie at depths, metres, see `linked_surfaces`."""
    return np.maximum(gap, _SLANT * depth / frame.camera.fx) + 3.0 * frame.depth_std(depth)


def surface_normals(frame: Frame, step: int | None = None, every: int = 1) -> np.ndarray:
    """
    Estimate the surface normal at every pixel, pointing to the camera.

    :param step: pixels to either side over which the slope is taken; None suits whole rooms
    :param every: of which rows and columns; the step is a multiple
    :return: (H, W, 3) float32 of these; NaN where there is no smooth surface
    """
    step = step or _suitable_step(frame)
    depth, part = measured(frame.depth), np.s_[::every, ::every]
    valid = np.isfinite(depth)
    share, mean = (cv2.blur(image, (step, step))[part] for image in (
        valid.astype(np.float32), np.where(valid, depth, np.float32(0.0))))
    mean = np.where(valid[part] & (share > 0.99), mean / np.maximum(share, 1e-3),
                    np.float32(np.nan))
    # One plane an axis: a cross product along a last axis of three is slow.
    points = [frame.camera.rays[part][..., axis] * mean for axis in range(3)]
    reach = 8 * 2 * step / frame.camera.fx * mean
    step //= every
    inner = slice(step, -step)
    right = [axis[inner, 2 * step:] - axis[inner, :-2 * step] for axis in points]
    down = [axis[2 * step:, inner] - axis[:-2 * step, inner] for axis in points]
    normal = [down[one] * right[other] - down[other] * right[one]
              for one, other in ((1, 2), (2, 0), (0, 1))]
    length = np.sqrt(sum(axis ** 2 for axis in normal))
    reach = reach[inner, inner]
    is_smooth = (np.abs(right[2]) < reach) & (np.abs(down[2]) < reach)
    scale = np.where(is_smooth, 1.0 / np.maximum(length, 1e-12), np.float32(np.nan))
    normals = np.full((*mean.shape, 3), np.nan, np.float32)
    normals[inner, inner] = cv2.merge([axis * scale for axis in normal])
    return normals


def _suitable_step(frame: Frame) -> int:
    """
    Return over how many pixels to either side slopes are taken.

    Depths are means over a square of such a side, so noise tilts a normal by about
    0.7 std / (step^2 pitch): that shall be 8 degrees at the median depth, or less.
    """
    least = max(2, frame.shape[1] // 130)
    if not frame.has_depth:
        return least
    distance = np.maximum(0.1, np.nanmedian(measured(frame.depth)))
    pitch = distance / frame.camera.fx
    return max(least, round(float(np.sqrt(5.0 * frame.depth_std(distance) / pitch))))
