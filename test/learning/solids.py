# SPDX-License-Identifier: Apache-2.0
"""Crops of balls and boxes, drawn by closed forms."""

import numpy as np

from img2scene_ros.camera import Camera
from img2scene_ros.learning.samples import RESOLUTION
from img2scene_ros.learning.samples import CropSample
from img2scene_ros.learning.samples import ObjectTruth
from img2scene_ros.models.crop import MARGIN
from img2scene_ros.models.crop import Crop
from img2scene_ros.models.crop import CropView
from img2scene_ros.models.crop import anchor_depth

SIZE = 48
LABELS = ('ball', 'box')
WALL = 2.0  # metres to what is behind


def solid_sample(number: int) -> CropSample:
    """Return the crop of a ball or a box, in turns, in front of a wall."""
    random = np.random.default_rng(number)
    label = LABELS[number % 2]
    center = np.array([*random.uniform(-0.02, 0.02, 2), random.uniform(0.7, 1.0)])
    half = random.uniform(0.06, 0.15, 3)
    if label == 'ball':
        half[:] = half[0]
    near = center[2] - half[2]
    reach = max(abs(center[:2]) + half[:2])
    view = CropView(np.eye(3), MARGIN * reach / near)
    camera = view.camera(SIZE)
    rays = camera.rays.astype(float)
    depth = ball_depth(rays, center, half[0]) if label == 'ball' else box_depth(rays, center, half)
    mask = np.isfinite(depth)
    color = random.integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8)
    color[mask] = color[mask] // 4 + np.array(random.integers(0, 190, 3), np.uint8)
    anchor = anchor_depth(depth, mask)
    cells = (view.cube(anchor).centers(RESOLUTION) - center) / half
    inside = (cells ** 2).sum(-1) <= 1 if label == 'ball' else (abs(cells) <= 1).all(-1)
    crop = Crop(view, color, mask, np.where(mask, depth, WALL).astype(np.float32))
    box = np.array([0.0, 0.0, SIZE, SIZE])
    truth = ObjectTruth(1, label, f'{label}/{number}', box, box, center, np.eye(3), 2 * half,
                        np.eye(4))
    return CropSample(
        crop, anchor, inside, truth, Camera(320, 240, 300.0, 300.0, 159.5, 119.5), str(number))


def ball_depth(rays: np.ndarray, center: np.ndarray, radius: float) -> np.ndarray:
    """Return where rays meet a ball, (H, W) along z; NaN = nowhere."""
    a, b = (rays ** 2).sum(-1), rays @ center
    root = b ** 2 - a * (center @ center - radius ** 2)
    return (b - np.sqrt(np.where(root >= 0, root, np.nan))) / a


def box_depth(rays: np.ndarray, center: np.ndarray, half: np.ndarray) -> np.ndarray:
    """Return where rays meet a box aligned with the axes, (H, W) along z; NaN = nowhere."""
    with np.errstate(divide='ignore'):
        ends = np.stack([(center - half) / rays, (center + half) / rays])
    enter, leave = ends.min(axis=0).max(axis=-1), ends.max(axis=0).min(axis=-1)
    return np.where(enter <= leave, enter, np.nan)
