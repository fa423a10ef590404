# SPDX-License-Identifier: Apache-2.0
"""Surfaces of a depth image: how a support really lies, and which pixels are of one surface."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.polynomial.polynomial import polyval2d
from numpy.polynomial.polynomial import polyvander2d
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from img2scene_ros.depth import measured
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

Window = tuple[slice, slice]  # rows and columns of a part of the picture


def heights_above(frame: Frame, support: SupportPlane) -> tuple[np.ndarray, np.ndarray]:
    """
    Measure how far readings lie above a support that may be warped, and how far off bare ones are.

    What lies near the plane is fitted by a polynomial in plan with Tukey's biweight (Beaton and
    Tukey, 1974), which things on the support do not pull. The spread about it is this support's
    noise, before this sensor.

    :return: heights (H, W) metres, NaN = no reading, and their standard deviation on bare support
    """
    points = measured(frame.points)
    height = support.height(points)
    std = frame.depth_std(measured(frame.depth))
    near = np.abs(height) < np.maximum(_NEAR, _NEAR_DEVIATIONS * std)
    near[near] = support.is_over(points[near])
    count = np.count_nonzero(near)
    if count < _FITTED // 10:
        return height, std
    part = np.s_[::max(1, count // _FITTED)]
    plan = [points @ axis for axis in support.axes().astype(np.float32)]
    shown = [axis[near] for axis in plan]
    low, high = np.percentile(shown, (1, 99), axis=1).astype(np.float32)
    x, y = _scaled([axis[part] for axis in shown], low, high)
    terms = polyvander2d(x, y, [_DEGREE, _DEGREE])[:, _TERMS]
    residual = found = height[near][part]
    weights = np.ones(len(found))
    for _ in range(_ROUNDS):
        factors = np.linalg.lstsq(
            terms * weights[:, None], found * weights, rcond=None)[0]
        residual = found - terms @ factors
        spread = 1.4826 * float(np.median(np.abs(residual)))
        weights = np.clip(1.0 - (residual / (4.0 * spread + 1e-6)) ** 2, 0.0, 1.0)
    ratio = np.clip(spread / np.median(std[near][part]), *_NOISE_RANGE)
    relief = np.zeros(len(_TERMS), np.float32)
    relief[_TERMS] = factors
    x, y = _scaled(plan, low, high)
    square = relief.reshape(_DEGREE + 1, _DEGREE + 1)
    return height - polyval2d(x, y, square), ratio * std


@dataclass(frozen=True, eq=False)
class Heights:
    """
    How far readings lie above the support under each, that handed on with a frame or another.

    - height, noise: (H, W) metres, as `heights_above`
    - number: (H, W) of the support: 0, or 1, 2 ... of `Frame.others`
    """

    height: np.ndarray
    noise: np.ndarray
    number: np.ndarray


def heights_above_supports(frame: Frame, support: SupportPlane) -> Heights:
    """Measure heights above the highest support under each reading; where none is, the first."""
    points = measured(frame.points)
    height, noise = heights_above(frame, support)
    number = np.zeros(frame.shape, np.uint8)
    is_under = support.is_over(points) & (height > -_NEAR_DEVIATIONS * noise)
    for this, other in enumerate(frame.others, 1):
        above, its_noise = heights_above(frame, other)
        is_it = other.is_over(points) & (above > -_NEAR_DEVIATIONS * its_noise) & (
            ~is_under | (above < height))
        height, noise = np.where(is_it, above, height), np.where(is_it, its_noise, noise)
        number[is_it] = this
        is_under |= is_it
    return Heights(height, noise, number)


def _scaled(
    plan: Sequence[np.ndarray], low: np.ndarray, high: np.ndarray,
) -> list[np.ndarray]:
    """Return both coordinates, -1 to 1 where the relief is fitted; it goes on level beyond."""
    return [np.clip((axis - (least + most) / 2.0) * (2.0 / (most - least)), -1.0, 1.0)
            for axis, least, most in zip(plan, low, high)]


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
    axes = cv2.split(np.ascontiguousarray(measured(frame.points)[window]))
    depth = axes[2]
    rows, columns = pixels.shape
    reach = np.maximum(gap, _SLANT * depth / frame.camera.fx) + 3.0 * frame.depth_std(depth)
    squared = np.where(pixels, reach, np.float32(np.nan)) ** 2

    def linked(down: int, right: int) -> tuple[Window, Window, np.ndarray]:
        one = np.s_[:max(rows - down, 0), :max(columns - right, 0)]
        other = np.s_[down:, right:]
        distance = sum(np.square(axis[one] - axis[other]) for axis in axes)
        return one, other, (distance < squared[one]) & pixels[other]

    # Links between next neighbours are drawn between the pixels of a picture twice as large.
    drawn = np.zeros((2 * rows, 2 * columns), np.uint8)
    drawn[::2, ::2] = pixels
    drawn[:, 1:-1:2][::2] = linked(0, 1)[2]
    drawn[1:-1:2, ::2] = linked(1, 0)[2]
    count, pieces = cv2.connectedComponents(drawn, connectivity=4)
    pieces = pieces[::2, ::2]
    pairs = []
    for one, other, near in (linked(*way) for step in steps for way in ((0, step), (step, 0))):
        first, second = pieces[one], pieces[other]
        near &= first != second
        pairs.append(np.stack([first[near], second[near]]))
    first, second = np.concatenate(pairs, axis=1)
    graph = coo_matrix((np.ones(len(first), bool), (first, second)), (count, count))
    return connected_components(graph, directed=False)[1][pieces]


def surface_normals(
    frame: Frame, step: int | None = None, window: tuple[slice, slice] = np.s_[:, :],
) -> np.ndarray:
    """
    Estimate the surface normal at every pixel, pointing to the camera.

    :param step: pixels to either side over which the slope is taken; None suits whole rooms
    :param window: the part of the frame that is looked at
    :return: (H, W, 3) float32, of the window; NaN where there is no smooth surface
    """
    step = step or _suitable_step(frame)
    depth = measured(frame.depth)[window]
    valid = np.isfinite(depth).astype(np.float32)
    share = cv2.blur(valid, (step, step))
    depth = cv2.blur(np.nan_to_num(depth), (step, step)) / np.maximum(share, 1e-3)
    depth[(valid == 0) | (share < 0.99)] = np.nan
    # One plane an axis: a cross product along a last axis of three is slow.
    points = cv2.split(frame.camera.rays[window] * depth[..., None])
    inner = slice(step, -step)
    right = [axis[inner, 2 * step:] - axis[inner, :-2 * step] for axis in points]
    down = [axis[2 * step:, inner] - axis[:-2 * step, inner] for axis in points]
    normal = [down[one] * right[other] - down[other] * right[one]
              for one, other in ((1, 2), (2, 0), (0, 1))]
    length = np.sqrt(sum(axis ** 2 for axis in normal))
    reach = 8 * 2 * step * depth[inner, inner] / frame.camera.fx
    is_smooth = (np.abs(right[2]) < reach) & (np.abs(down[2]) < reach)
    scale = np.where(is_smooth, 1.0 / np.maximum(length, 1e-12), np.float32(np.nan))
    normals = np.full((*depth.shape, 3), np.nan, np.float32)
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
