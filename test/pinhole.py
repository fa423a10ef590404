# SPDX-License-Identifier: Apache-2.0
"""Cameras over a floor and the boxes of solids on it, computed by hand from the pinhole model."""

import numpy as np
import trimesh

from img2scene_ros.camera import Camera
from img2scene_ros.detection import bbox_of
from img2scene_ros.rendering.raycast import Surface
from img2scene_ros.rendering.raycast import render
from img2scene_ros.types import Detection
from img2scene_ros.types import Frame
from img2scene_ros.types import SupportPlane

CAMERA = Camera(640, 480, 520.0, 500.0, 310.0, 250.0)
FRAME = Frame(np.zeros((480, 640, 3), np.uint8), CAMERA)
HEIGHT = 0.8  # metres of the camera above the floor


def axes(tilt: float, roll: float = 0.0) -> np.ndarray:
    """
    Return the camera's axes as columns in floor coordinates (x right, y ahead, z up).

    :param tilt: degrees below the horizon
    :param roll: degrees by which the right side is lowered
    """
    t, r = np.radians((tilt, roll))
    right, down = np.array([1.0, 0.0, 0.0]), np.array([0.0, -np.sin(t), -np.cos(t)])
    ahead = np.array([0.0, np.cos(t), -np.sin(t)])
    return np.stack([np.cos(r) * right + np.sin(r) * down,
                     np.cos(r) * down - np.sin(r) * right, ahead], axis=1)


def in_camera(points: np.ndarray, tilt: float, roll: float = 0.0) -> np.ndarray:
    """Take floor coordinates to the optical frame of a camera above the floor's origin."""
    return (np.asarray(points, float) - (0.0, 0.0, HEIGHT)) @ axes(tilt, roll)


def floor(tilt: float, roll: float = 0.0) -> SupportPlane:
    """Return the floor as the camera has it."""
    return SupportPlane(axes(tilt, roll)[2], HEIGHT)


def cylinder(x: float, y: float, width: float, height: float) -> np.ndarray:
    """Return points on the rims of an upright cylinder at a place on the floor."""
    angle = np.linspace(0.0, 2.0 * np.pi, 720)
    rim = np.stack([x + width / 2 * np.cos(angle), y + width / 2 * np.sin(angle), 0 * angle], 1)
    return np.concatenate([rim, rim + (0.0, 0.0, height)])


def cuboid(x: float, y: float, width: float, depth: float, height: float) -> np.ndarray:
    """Return the corners of a box at a place on the floor, its front turned to the camera."""
    ahead = np.array([x, y]) / np.hypot(x, y)
    across = np.array([ahead[1], -ahead[0]])
    return np.array([(*((x, y) + a * width / 2 * across + b * depth / 2 * ahead), c * height)
                     for a in (-1, 1) for b in (-1, 1) for c in (0, 1)])


def ball_ahead() -> tuple[Frame, Detection, SupportPlane]:
    """
    Photograph a ball, 0.2 m wide, whose middle lies 1 m ahead on the optical axis.

    The axis runs through the centre of pixel (310, 250), so the mask is symmetric about it.

    :return: the frame with depth, the ball as a perfect detector finds it, and its support
    """
    ball = trimesh.creation.icosphere(5, 0.1).apply_translation((0, 0, 1))
    seen = render([Surface(ball.vertices, ball.faces, np.full((len(ball.vertices), 3), 200), 1)],
                  CAMERA)
    mask = seen.ids == 1
    detection = Detection('sports ball', 1.0, bbox_of(mask), mask)
    return (Frame(seen.color, CAMERA, seen.depth), detection,
            SupportPlane(np.array([0.0, -1.0, 0.0]), 0.1))


def seen(points: np.ndarray, label: str = 'thing') -> Detection:
    """Return the box around points in the optical frame, cut at the picture's border."""
    u = 520.0 * points[:, 0] / points[:, 2] + 310.0
    v = 500.0 * points[:, 1] / points[:, 2] + 250.0
    # Pixel (0, 0) covers -0.5 to 0.5, boxes begin at 0.
    box = np.array([u.min(), v.min(), u.max(), v.max()]) + 0.5
    return Detection(label, 0.9, np.clip(box, 0, (640, 480, 640, 480)))
