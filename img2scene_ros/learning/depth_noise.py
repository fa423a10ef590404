# SPDX-License-Identifier: Apache-2.0
"""
What a depth camera makes of the true depth: noise, holes, shadows, steps, shifts.

For training with a depth channel and for testing the RGB-D path. Every effect is one function of
a depth image in metres (NaN = no reading); `add_depth_noise` applies them in the order in which
they happen. The strengths are those of structured-light and active-stereo cameras (Nguyen,
Izadi, Lovell: Modeling Kinect sensor noise, 3DIMPVT 2012; Handa et al.: A benchmark for RGB-D
visual odometry, ICRA 2014; Keselman et al.: Intel RealSense stereoscopic depth cameras, CVPRW
2017).
"""

from dataclasses import dataclass

import cv2
import numpy as np

from img2scene_ros.camera import Camera
from img2scene_ros.depth import DepthNoise

EDGE = 0.03  # a jump of the depth by more than this share is an edge


@dataclass(frozen=True)
class SimulatedNoise:
    """How strong each effect is; 0 turns one off."""

    # noise along the ray, in standard deviations of the default `depth.DepthNoise`
    axial: float = 0.7
    lateral: float = 0.5  # pixels, standard deviation of the sideways jitter that frays edges
    edge_holes: float = 0.4  # share of the pixels at depth edges without a reading
    # metres between projector (or second camera) and camera; what only the camera sees has no
    # reading. Positive: shadows on the left of things
    baseline: float = 0.05
    grazing: float = 12.0  # degrees between ray and surface below which readings get lost
    # brightness (0 to 255) below which readings get lost, where a picture is given
    dull: float = 22.0
    shiny: float = 250.0  # brightness above which readings get lost
    # pixels; disparities are multiples of it, as at a baseline of 0.05 m
    disparity_step: float = 0.08
    blobs: float = 1.0  # expected number of blobs without any reading
    scale: float = 0.01  # standard deviation of a relative error of all readings
    shift: float = 0.003  # metres, standard deviation of a common error of all readings


def add_depth_noise(
    depth: np.ndarray,
    camera: Camera,
    random: np.random.Generator,
    noise: SimulatedNoise = SimulatedNoise(),
    color: np.ndarray | None = None,
) -> np.ndarray:
    """
    Return what a depth camera would have read.

    :param depth: (H, W) metres along the optical axis, NaN = nothing there
    :param camera: of the depth image
    :param random: the source of all chance; the same state gives the same noise
    :param color: (H, W, 3) uint8, RGB, for holes on dark and shiny surfaces
    :return: (H, W) float32 metres, NaN = no reading
    """
    lost = shadow(depth, camera, noise.baseline)
    lost |= grazing(depth, camera, noise.grazing)
    lost |= edges(depth) & (random.random(depth.shape) < noise.edge_holes)
    lost |= blobs(depth.shape, random, noise.blobs)
    if color is not None:
        lost |= unreadable(color, random, noise.dull, noise.shiny)
    read = jittered(np.where(lost, np.nan, depth), random, noise.lateral)
    read = read + random.normal(size=depth.shape) * noise.axial * DepthNoise().std(read, camera.fx)
    read = quantised(read, camera, noise.disparity_step)
    read = read * (1.0 + noise.scale * random.normal()) + noise.shift * random.normal()
    return np.where(read > 0, read, np.nan).astype(np.float32)


def edges(depth: np.ndarray) -> np.ndarray:
    """
    Return the pixels beside a jump of the depth, or beside nothing: (H, W) bool.

    Inverse depth is linear over a plane's pixels, however steep, so its second difference tells
    jumps from slopes.
    """
    inverse = np.nan_to_num(1.0 / depth).astype(np.float32)
    bend = np.array([[1, -2, 1]], np.float32)
    across, down = (
        np.abs(cv2.filter2D(inverse, -1, kernel, borderType=cv2.BORDER_REPLICATE))
        for kernel in (bend, bend.T))
    nearest = cv2.dilate(inverse, np.ones((3, 3), np.uint8))
    return np.maximum(across, down) > EDGE * nearest


def shadow(depth: np.ndarray, camera: Camera, baseline: float) -> np.ndarray:
    """
    Return the pixels that the projector does not reach: (H, W) bool.

    The projector stands `baseline` beside the camera, to the right when it is positive. A point
    at pixel u is seen at u - fx * baseline / z by it; of the points that fall together there only
    the nearest is lit. Along a row: a pixel is in the shadow when one further to the right falls
    as far to the left or further (Keselman et al. 2017).
    """
    if baseline == 0:
        return np.zeros(depth.shape, bool)
    seen_at = (np.arange(depth.shape[1]) * np.sign(baseline)
               - camera.fx * abs(baseline) / np.nan_to_num(depth, nan=np.inf))
    if baseline < 0:
        seen_at = seen_at[:, ::-1]
    nearest = np.minimum.accumulate(seen_at[:, ::-1], axis=1)[:, ::-1]
    hidden = nearest < seen_at - 1e-3
    hidden = hidden[:, ::-1] if baseline < 0 else hidden
    return hidden & np.isfinite(depth)


def grazing(depth: np.ndarray, camera: Camera, degrees: float) -> np.ndarray:
    """Return the pixels whose surface is seen flatter than an angle: (H, W) bool."""
    points = camera.rays * depth[..., None].astype(np.float32)
    right: np.ndarray = cv2.Sobel(points, cv2.CV_32F, 1, 0, borderType=cv2.BORDER_REPLICATE)
    down: np.ndarray = cv2.Sobel(points, cv2.CV_32F, 0, 1, borderType=cv2.BORDER_REPLICATE)
    normal = np.cross(right, down)
    length = np.linalg.norm(normal, axis=-1) * np.linalg.norm(points, axis=-1)
    sine = np.abs((normal * points).sum(axis=-1)) / np.maximum(length, 1e-12)
    return (sine < np.sin(np.radians(degrees))) & ~edges(depth)


def unreadable(
    color: np.ndarray, random: np.random.Generator, dull: float, shiny: float,
) -> np.ndarray:
    """Return patches of too dark and too bright pixels, most of them: (H, W) bool."""
    grey = cv2.cvtColor(color, cv2.COLOR_RGB2GRAY)
    return ((grey < dull) | (grey > shiny)) & (_clouds(grey.shape, random) > -0.5)


def blobs(shape: tuple[int, int], random: np.random.Generator, count: float) -> np.ndarray:
    """Return randomly placed ellipses of 1 to 6 % of the picture's height: (H, W) bool."""
    height, width = shape
    lost = np.zeros(shape, np.uint8)
    for _ in range(random.poisson(count)):
        center = random.integers(width), random.integers(height)
        axes = np.maximum(1, height * random.uniform(0.01, 0.06, 2)).astype(int)
        cv2.ellipse(lost, [int(c) for c in center], axes.tolist(), random.uniform(0, 180),
                    0, 360, 1, cv2.FILLED)
    return lost > 0


def jittered(depth: np.ndarray, random: np.random.Generator, pixels: float) -> np.ndarray:
    """Move every reading sideways by some pixels; only edges notice."""
    v, u = np.mgrid[:depth.shape[0], :depth.shape[1]]
    du, dv = np.rint(random.normal(0, pixels, (2, *depth.shape))).astype(int)
    return depth[np.clip(v + dv, 0, depth.shape[0] - 1), np.clip(u + du, 0, depth.shape[1] - 1)]


def quantised(depth: np.ndarray, camera: Camera, step: float) -> np.ndarray:
    """Round the disparity fx * 0.05 m / z to multiples of a step in pixels."""
    if step == 0:
        return depth
    unit = camera.fx * 0.05 / step
    return unit / np.maximum(np.rint(unit / depth), 1)


def _clouds(shape: tuple[int, int], random: np.random.Generator) -> np.ndarray:
    """Return smooth noise of unit standard deviation, patches of some 5 % of the height."""
    cells = max(2, shape[0] // 20), max(2, shape[1] // 20)
    return cv2.resize(
        random.normal(size=cells).astype(np.float32), shape[::-1],
        interpolation=cv2.INTER_CUBIC)
