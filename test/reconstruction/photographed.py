# SPDX-License-Identifier: Apache-2.0
"""A lopsided thing before a red wall: what it looks like, and where it is."""

from dataclasses import replace

import numpy as np
import trimesh

from img2scene_ros.camera import Camera
from img2scene_ros.detection import bbox_of
from img2scene_ros.localization import OPTICAL_UP
from img2scene_ros.localization import object_axes
from img2scene_ros.models.crop import smallest_rotation
from img2scene_ros.rendering.raycast import Surface
from img2scene_ros.rendering.raycast import render
from img2scene_ros.types import Detection
from img2scene_ros.types import Frame
from img2scene_ros.types import Placement
from img2scene_ros.types import Sighting

CAMERA = Camera(320, 240, 280.0, 285.0, 160.0, 118.0)
PLACE = np.array([0.2, -0.1, 1.3])  # metres, optical frame
# Three bars of glTF axes: x right, y up, z towards the camera. Centre, size, metres.
BARS = (((0.0, 0.0, 0.0), (0.30, 0.08, 0.08)), ((-0.11, 0.12, 0.0), (0.08, 0.18, 0.08)),
        ((0.11, 0.0, 0.10), (0.08, 0.08, 0.14)))
_FROM_GLTF = np.diag([1.0, -1.0, -1.0])


def bars() -> trimesh.Trimesh:
    """Return the bars in glTF axes, the middle of their bounding box at the origin."""
    mesh = trimesh.util.concatenate([
        trimesh.creation.box(size).apply_translation(center) for center, size in BARS])
    return mesh.apply_translation(-mesh.bounds.mean(axis=0))


def turned() -> np.ndarray:
    """Return the rotation from glTF axes to optical axes: the thing faces the camera."""
    return smallest_rotation(PLACE) @ _FROM_GLTF


def true_points() -> np.ndarray:
    """Return points on the bars where they stand, optical frame, metres."""
    points, _ = trimesh.sample.sample_surface(bars(), 3000, seed=0)
    return points @ turned().T + PLACE


def sighting() -> Sighting:
    """Photograph the bars before a red wall."""
    mesh = bars()
    return photographed(mesh.vertices @ turned().T + PLACE, mesh.faces, PLACE, CAMERA)


def photographed(
    points: np.ndarray, faces: np.ndarray, place: np.ndarray, camera: Camera,
) -> Sighting:
    """Photograph a mesh in the optical frame before a red wall."""
    seen = render([Surface(points, faces, np.full((len(points), 3), 90), 1)], camera)
    mask = seen.ids == 1
    color = np.where(mask[..., None], seen.color, np.uint8((250, 0, 0)))
    placement = Placement(
        place, object_axes(place, OPTICAL_UP), np.full(3, 0.3), np.full(3, 0.01), 'fixed')
    return Sighting(Frame(color, camera), Detection('thing', 0.9, bbox_of(mask), mask), placement)


def with_mask(seen: Sighting, mask: np.ndarray | None) -> Sighting:
    """Return the sighting with another mask."""
    return replace(seen, detection=replace(seen.detection, mask=mask))
