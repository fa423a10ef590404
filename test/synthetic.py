# SPDX-License-Identifier: Apache-2.0
"""Tabletop scenes of known truth, drawn with the package's ray caster."""

import numpy as np
import trimesh

from img2scene_ros.camera import Camera
from img2scene_ros.depth import DepthNoise
from img2scene_ros.rendering.raycast import Surface
from img2scene_ros.rendering.raycast import look_at
from img2scene_ros.rendering.raycast import render
from img2scene_ros.types import Frame

# Settings of the backends that are exact on drawn scenes, and fast.
GEOMETRIC = {'detector': 'tabletop', 'reconstructor': 'depth_shell'}
CAMERA = Camera(640, 480, 600.0, 600.0, 319.5, 239.5)


def box(x: float, y: float, z: float) -> trimesh.Trimesh:
    """Return a box that stands on z = 0, metres."""
    return trimesh.creation.box((x, y, z)).apply_translation((0, 0, z / 2))


def can(radius: float, height: float) -> trimesh.Trimesh:
    """Return an upright cylinder that stands on z = 0, metres."""
    return trimesh.creation.cylinder(radius, height, sections=64).apply_translation(
        (0, 0, height / 2))


def bowl(radius: float, height: float, wall: float = 0.004) -> trimesh.Trimesh:
    """Return a hollow bowl that opens upwards and stands on z = 0, metres."""
    foot = 0.55 * radius
    return trimesh.creation.revolve(
        [(0, 0), (foot, 0), (radius, height), (radius - wall, height), (foot - wall, wall),
         (0, wall)], sections=64)


def camera_pose(elevation: float, distance: float) -> np.ndarray:
    """Return optical-to-table coordinates of a camera that looks at the table's middle, (4, 4)."""
    angle = np.radians(elevation)
    eye = distance * np.array([np.cos(angle), 0.0, np.sin(angle)])
    return look_at(eye, np.array([0.0, 0.0, 0.05]), np.array([0.0, 0.0, 1.0]))


def tabletop_frame(
    objects: list[trimesh.Trimesh], pose: np.ndarray, seed: int | None = 0,
    camera: Camera = CAMERA,
) -> tuple[Frame, np.ndarray]:
    """
    Photograph objects on a table of 1.2 m at z = 0.

    :param objects: in table coordinates
    :param seed: of the sensor's noise; None is a perfect sensor
    :return: the frame, and the index of the object at each pixel, from 1; (H, W)
    """
    table = trimesh.creation.box((1.2, 1.2, 0.02)).apply_translation((0, 0, -0.01))
    surfaces = [
        Surface(mesh.vertices, mesh.faces,
                np.full((len(mesh.vertices), 3), 90 + 30 * (i % 5), np.uint8), id=i)
        for i, mesh in enumerate([table] + objects)]
    seen = render(surfaces, camera, pose)
    depth = seen.depth
    if seed is not None:
        noise = np.random.default_rng(seed).normal(size=depth.shape)
        depth = np.round((depth + noise * 0.5 * DepthNoise().std(depth, camera.fx)) * 1000) / 1000
    return Frame(seen.color, camera, depth.astype(np.float32)), seen.ids
