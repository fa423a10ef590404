# SPDX-License-Identifier: Apache-2.0
"""Colours of meshes: of their vertices, from pictures, and as light."""

import cv2
import numpy as np
from scipy.spatial import cKDTree

from img2scene_ros.types import Frame


def picture_colors(
    frame: Frame, mask: np.ndarray | None, points: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """
    Look points up in the picture.

    :param mask: (H, W) bool, the object's pixels; None is the whole picture
    :param points: (N, 3) metres, optical frame
    :return: (N, 3) uint8 RGB, and (N,) bool: whether that pixel shows the object
    """
    pixels = np.nan_to_num(frame.camera.project(points), nan=-1e6)
    nearest = np.clip(np.round(pixels), 0, np.array(frame.shape)[::-1] - 1)
    columns, rows = nearest.astype(int).T
    shown = np.abs(pixels - nearest).max(axis=1) <= 0.5
    if mask is not None:
        # At the mask's edge the picture already shows the background.
        shown &= cv2.erode(mask.astype(np.uint8), np.ones((3, 3)))[rows, columns] > 0
    return frame.color[rows, columns], shown


def spread_colors(vertices: np.ndarray, colors: np.ndarray, known: np.ndarray) -> np.ndarray:
    """
    Colour vertices that are hidden as the nearest that is not.

    :param vertices: (V, 3)
    :param colors: (V, 3)
    :param known: (V,) bool, vertices whose colour is known; where none is, all stay as they are
    :return: (V, 3)
    """
    if not known.any() or known.all():
        return colors
    _, nearest = cKDTree(vertices[known]).query(vertices[~known])
    spread = colors.copy()
    spread[~known] = colors[known][nearest]
    return spread


def mix(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Interpolate the values of corners, (N, 3, C) and (N, 3) to (N, C)."""
    return np.einsum('nij,ni->nj', values, weights)


def linear(colors: np.ndarray) -> np.ndarray:
    """Convert sRGB bytes to linear light, float32 0 to 1 (IEC 61966-2-1)."""
    values = colors / np.float32(255)
    return np.where(
        values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4).astype(np.float32)


def srgb(light: np.ndarray) -> np.ndarray:
    """Convert linear light in 0 to 1 to sRGB bytes (IEC 61966-2-1)."""
    light = np.clip(light, 0.0, 1.0)
    values = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.round(255.0 * values).astype(np.uint8)
