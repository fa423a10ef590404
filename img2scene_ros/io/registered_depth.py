# SPDX-License-Identifier: Apache-2.0
"""Depth images of one camera as another camera beside it would have them."""

from dataclasses import replace

import numpy as np

from img2scene_ros.camera import Camera
from img2scene_ros.depth import DepthNoise

# A step of the distance between neighbouring readings, as a share of it, above which they are of
# different surfaces. On one surface the inverse distance goes straight on.
STEP = 0.05
# Pixels that a reading may cover more than where it looks straight at a surface.
STRETCH = 2.0


def registered_depth(
    depth: np.ndarray, depth_camera: Camera, camera: Camera, camera_from_depth: np.ndarray,
) -> np.ndarray:
    """
    Return a depth image as another camera sees it; what is nearer hides what is behind.

    Every reading is drawn as the piece of a plane that its neighbours tell, as wide as it is
    there, so that a picture of higher resolution gets no holes and no steps.

    :param depth: (h, w) metres along the axis of the depth camera, NaN = no reading
    :param depth_camera: intrinsics of the depth image
    :param camera: intrinsics of the picture
    :param camera_from_depth: (4, 4), takes points of the depth camera to the picture's
    :return: (H, W) float32 metres along the picture's axis, NaN = no reading
    """
    turn, shift = camera_from_depth[:3, :3].astype(np.float32), camera_from_depth[:3, 3]
    points = (depth_camera.rays * depth[..., None]).reshape(-1, 3)
    x, y, z = (turn @ points.T + shift[:, None].astype(np.float32)).reshape(3, *depth.shape)
    with np.errstate(invalid='ignore', divide='ignore'):
        inverse = np.where(z > 0, 1.0 / z, np.float32(np.nan))
    pixels = _projected(x, y, z, inverse, camera)
    nominal = np.array(
        [[camera.fx / depth_camera.fx], [camera.fy / depth_camera.fy]], np.float32)
    across, along = (_changes(inverse, pixels, axis) for axis in (1, 0))
    is_read = np.isfinite(inverse) & np.isfinite(pixels[0]) & np.isfinite(pixels[1])
    extent = np.nan_to_num(np.abs(across[1]) + np.abs(along[1]), nan=0.0)[:, is_read]
    extent = np.clip(extent, nominal, STRETCH * nominal)
    return _drawn(pixels[:, is_read], inverse[is_read], _slope(across, along)[:, is_read],
                  extent, camera)


def noise_at(noise: DepthNoise, depth_camera: Camera, camera: Camera) -> DepthNoise:
    """Return how noisy registered depth is; a disparity's error is in pixels of its own image."""
    return replace(
        noise, disparity_std=float(noise.disparity_std * camera.fx / depth_camera.fx))


def _projected(
    x: np.ndarray, y: np.ndarray, z: np.ndarray, inverse: np.ndarray, camera: Camera,
) -> np.ndarray:
    """Return column and row of points, (2, h, w) float32."""
    if camera.has_distortion:
        pixels = camera.project(np.stack([x, y, z], axis=-1))
        return np.ascontiguousarray(np.moveaxis(pixels, -1, 0), np.float32)
    return np.stack([np.float32(camera.fx) * (x * inverse) + np.float32(camera.cx),
                     np.float32(camera.fy) * (y * inverse) + np.float32(camera.cy)])


def _changes(
    inverse: np.ndarray, pixels: np.ndarray, axis: int,
) -> tuple[np.ndarray, np.ndarray]:
    """
    Return how much the inverse distance and the pixel change from reading to reading.

    To that of the two neighbours which is more likely on the same surface; NaN where none is.

    :return: (h, w) and (2, h, w)
    """
    change, moved = np.diff(inverse, axis=axis), np.diff(pixels, axis=axis + 1)
    farther = np.minimum(inverse[:, 1:], inverse[:, :-1]) if axis else np.minimum(
        inverse[1:], inverse[:-1])
    change[np.abs(change) > STEP * farther] = np.nan
    before, after = (_padded(change, axis, is_before) for is_before in (True, False))
    takes_before = ~(np.abs(after) <= np.abs(before))
    return (np.where(takes_before, before, after), np.where(
        takes_before, _padded(moved, axis + 1, True), _padded(moved, axis + 1, False)))


def _padded(values: np.ndarray, axis: int, is_before: bool) -> np.ndarray:
    """Add NaN at the start or the end of an axis, where there is no neighbour."""
    width = [(0, 0)] * values.ndim
    width[axis] = (1, 0) if is_before else (0, 1)
    return np.pad(values, width, constant_values=np.nan)


def _slope(
    across: tuple[np.ndarray, np.ndarray], along: tuple[np.ndarray, np.ndarray],
) -> np.ndarray:
    """Return by how much the inverse distance changes per pixel of the picture, (2, h, w)."""
    (a, (ux, vx)), (b, (uy, vy)) = across, along
    with np.errstate(invalid='ignore', divide='ignore'):
        slope = np.stack([a * vy - b * vx, b * ux - a * uy]) / (ux * vy - vx * uy)
    return np.where(np.isfinite(slope), slope, np.float32(0.0))


def _drawn(
    pixels: np.ndarray, inverse: np.ndarray, slope: np.ndarray, extent: np.ndarray,
    camera: Camera,
) -> np.ndarray:
    """Draw N readings, (2, N) and (N,), over their extent; the nearest of a pixel wins."""
    nearest = np.zeros(camera.height * camera.width, np.float32)
    first = np.ceil(pixels - extent / 2.0)
    last = np.ceil(pixels + extent / 2.0) - 1.0
    columns, rows = ((last - first).max(axis=1, initial=0.0) + 1.0).astype(int)
    for dv in range(rows):
        v = first[1] + np.float32(dv)
        in_rows = (v <= last[1]) & (v >= 0) & (v < camera.height)
        for du in range(columns):
            u = first[0] + np.float32(du)
            drawn = np.flatnonzero(in_rows & (u <= last[0]) & (u >= 0) & (u < camera.width))
            at_u, at_v = u[drawn], v[drawn]
            value = inverse[drawn] + slope[0, drawn] * (at_u - pixels[0, drawn]) + (
                slope[1, drawn] * (at_v - pixels[1, drawn]))
            index = at_v.astype(np.int64) * camera.width + at_u.astype(np.int64)
            np.maximum.at(nearest, index, value)
    with np.errstate(divide='ignore'):
        depth = np.where(nearest > 0, 1.0 / nearest, np.float32(np.nan))
    return depth.reshape(camera.height, camera.width)
