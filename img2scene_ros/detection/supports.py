# SPDX-License-Identifier: Apache-2.0
"""The support plane: the table or floor that objects stand on."""


import cv2
import numpy as np
from scipy.spatial import ConvexHull

from img2scene_ros.depth import measured
from img2scene_ros.types import Frame
from img2scene_ros.types import SupportPlane

# A plane counts as horizontal when the camera's roll against it is below 40 degrees. Planes that
# the camera looks at head-on may be walls, so they are taken only when there is no other.
_MAX_ROLL_SINE = np.sin(np.radians(40.0))
_HEAD_ON_SINE = np.sin(np.radians(15.0))
_ALIGNED = np.cos(np.radians(25.0))
_SAMPLES = 12000
_HYPOTHESES = 200
_MAX_PLANES = 6
_MIN_SHARE = 0.03
# A smaller plane above another one is the support (a table above the floor) when it has at least
# this share of the other's pixels and something stands on it (on top of a box nothing does): so
# many pixels of a picture 640 pixels wide, so high or that many standard deviations of the depth.
_MIN_SHARE_OF_LOWER = 0.2
_MIN_STANDING = 150
_MIN_STANDING_HEIGHT = 0.01
_STANDING_DEVIATIONS = 4.0


def find_support(frame: Frame) -> SupportPlane | None:
    """
    Find the plane that objects stand on.

    Planes are found one after another by RANSAC over oriented points. Among the horizontal ones
    the largest wins, unless a plane above it carries objects (a table before the floor), or it
    carries nothing and there is one below it (the floor before a bed). A bed whose headboard
    stands on its mattress carries something, too, and is taken for the support.

    :return: None when the depth image shows no horizontal plane
    """
    if not frame.has_depth:
        return None
    normals = surface_normals(frame)
    known = np.isfinite(normals[..., 0])
    if known.sum() < 500:
        return None
    planes = _horizontal_planes(frame, normals, known)
    if not planes:
        return None
    planes.sort(key=lambda plane: -plane[1].sum())
    carrying = [_carries_objects(frame, plane) for plane, _ in planes]
    best = 0
    for index, (plane, _) in enumerate(planes):
        if not carrying[best] and _is_above(planes[best][0], plane):
            best = index
    for index, (plane, seen) in enumerate(planes):
        is_large = seen.sum() > _MIN_SHARE_OF_LOWER * planes[best][1].sum()
        if (carrying[index] and _is_above(plane, planes[best][0])
                and (is_large or not carrying[best])):
            best = index
    return planes[best][0]


def surface_normals(frame: Frame, step: int | None = None) -> np.ndarray:
    """
    Estimate the surface normal at every pixel, pointing to the camera.

    :param step: pixels to either side over which the slope is taken; None suits whole rooms
    :return: (H, W, 3) float32, NaN where there is no smooth surface
    """
    step = step or _suitable_step(frame)
    depth = measured(frame.depth)
    valid = np.isfinite(depth).astype(np.float32)
    share = cv2.blur(valid, (step, step))
    depth = cv2.blur(np.nan_to_num(depth), (step, step)) / np.maximum(share, 1e-3)
    depth[(valid == 0) | (share < 0.99)] = np.nan
    points = frame.camera.rays * depth[..., None]
    normals = np.full_like(points, np.nan)
    inner = slice(step, -step)
    right = points[inner, 2 * step:] - points[inner, :-2 * step]
    down = points[2 * step:, inner] - points[:-2 * step, inner]
    normal = np.cross(down, right)
    length = np.linalg.norm(normal, axis=-1, keepdims=True)
    middle = depth[inner, inner]
    reach = 2 * step * middle / frame.camera.fx
    is_smooth = ((np.abs(right[..., 2]) < 8 * reach) & (np.abs(down[..., 2]) < 8 * reach))
    normals[inner, inner] = np.where(
        is_smooth[..., None], normal / np.maximum(length, 1e-12), np.nan)
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


def _horizontal_planes(
    frame: Frame, normals: np.ndarray, known: np.ndarray,
) -> list[tuple[SupportPlane, np.ndarray]]:
    """Return planes with the (H, W) pixels that lie on them."""
    points, free = measured(frame.points), known.copy()
    tolerance = 3.0 * frame.depth_std(measured(frame.depth))
    rng = np.random.default_rng(0)
    upright: list[tuple[SupportPlane, np.ndarray]] = []
    head_on: list[tuple[SupportPlane, np.ndarray]] = []
    for _ in range(_MAX_PLANES):
        pixels = np.flatnonzero(free)
        if len(pixels) < _MIN_SHARE * known.sum():
            break
        pixels = rng.choice(pixels, min(_SAMPLES, len(pixels)), replace=False)
        fit = _ransac(points.reshape(-1, 3)[pixels], normals.reshape(-1, 3)[pixels],
                      tolerance.ravel()[pixels], rng)
        if fit is None:
            break
        normal, offset = fit
        distance = np.abs(points @ normal + offset)
        facing = np.abs(normals @ normal) > _ALIGNED
        seen = free & facing & (distance < tolerance)
        free &= ~(distance < 1.5 * tolerance)
        if seen.sum() < _MIN_SHARE * known.sum():
            break
        if abs(normal[0]) > _MAX_ROLL_SINE or normal[1] > _HEAD_ON_SINE:
            continue
        plane, seen = _refined(frame, normals, normal, offset, tolerance)
        if plane is not None:
            group = upright if -normal[1] > _HEAD_ON_SINE else head_on
            group.append((plane, seen))
    return upright or head_on


def _ransac(
    points: np.ndarray, normals: np.ndarray, tolerance: np.ndarray, rng: np.random.Generator,
) -> tuple[np.ndarray, float] | None:
    """Return normal and offset of the plane with the most inliers, normal to the camera."""
    picks = rng.choice(len(points), min(_HYPOTHESES, len(points)), replace=False)
    some = rng.choice(len(points), min(1500, len(points)), replace=False)
    candidates = normals[picks]
    offsets = -(candidates * points[picks]).sum(axis=1)
    distances = np.abs(points[some] @ candidates.T + offsets)
    aligned = np.abs(normals[some] @ candidates.T) > _ALIGNED
    votes = (aligned & (distances < 2.0 * tolerance[some, None])).sum(axis=0)
    best = int(np.argmax(votes))
    normal, offset = candidates[best], offsets[best]
    for width in (3.0, 2.0, 1.0, 1.0):
        inliers = np.abs(points @ normal + offset) < width * tolerance
        if inliers.sum() < 50:
            return None
        normal, offset = _least_squares(points[inliers], tolerance[inliers])
    return normal, offset


def _least_squares(points: np.ndarray, deviation: np.ndarray) -> tuple[np.ndarray, float]:
    weights = 1.0 / deviation.astype(float) ** 2
    center = np.average(points.astype(float), axis=0, weights=weights)
    spread = (points - center) * np.sqrt(weights)[:, None]
    normal = np.linalg.eigh(spread.T @ spread)[1][:, 0]
    if normal @ center > 0:
        normal = -normal
    return normal, float(-normal @ center)


def _refined(
    frame: Frame, normals: np.ndarray, normal: np.ndarray, offset: float, tolerance: np.ndarray,
) -> tuple[SupportPlane | None, np.ndarray]:
    """Fit all pixels of the plane's largest connected part, and outline it."""
    points = measured(frame.points)
    for _ in range(3):
        height = points @ normal + offset
        on_plane = (np.abs(height) < tolerance) & (np.abs(normals @ normal) > _ALIGNED)
        on_plane = _main_part(on_plane, (height > tolerance) & (height < 0.3))
        if on_plane.sum() < 200:
            return None, on_plane
        normal, offset = _least_squares(points[on_plane], tolerance[on_plane])
    plane = SupportPlane(normal, offset, np.zeros((0, 3)))
    axes = plane.axes()
    feet = points[on_plane] - plane.height(points[on_plane])[:, None] * normal
    hull = feet[ConvexHull(feet @ axes.T).vertices].astype(float)
    return SupportPlane(normal, offset, hull), on_plane


def _main_part(on_plane: np.ndarray, above: np.ndarray) -> np.ndarray:
    """Keep the largest part of a plane, with the parts that objects on it cut off."""
    kernel = np.ones((5, 5), np.uint8)
    opened = cv2.morphologyEx(on_plane.astype(np.uint8), cv2.MORPH_OPEN, kernel)
    gap = max(3, on_plane.shape[1] // 24)
    shadow = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (gap, gap))
    objects = cv2.morphologyEx(above.astype(np.uint8), cv2.MORPH_OPEN, kernel)
    _, parts = cv2.connectedComponents(np.bitwise_or(cv2.dilate(opened, shadow), objects))
    parts[opened == 0] = 0
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return parts == np.argmax(sizes) if sizes.any() else np.zeros_like(on_plane)


def _is_above(plane: SupportPlane, other: SupportPlane) -> bool:
    return other.hull is not None and plane.height(other.hull).mean() < -0.02


def _carries_objects(frame: Frame, plane: SupportPlane) -> bool:
    """Tell whether something stands clearly above the inner part of a plane."""
    points = measured(frame.points)
    height = plane.height(points)
    noise = _STANDING_DEVIATIONS * frame.depth_std(measured(frame.depth))
    standing = (height > np.maximum(_MIN_STANDING_HEIGHT, noise)) & (height < 0.5)
    standing[standing] = plane.is_over(points[standing], margin=-0.02)
    solid = cv2.morphologyEx(standing.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3)))
    return np.count_nonzero(solid) > _MIN_STANDING * (frame.shape[1] / 640) ** 2
