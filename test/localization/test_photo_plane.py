# SPDX-License-Identifier: Apache-2.0
"""The plane under named things, from their boxes: cylinders of usual size, projected."""

from dataclasses import replace

import numpy as np
import pytest

from img2scene_ros.camera import Camera
from img2scene_ros.localization import object_axes
from img2scene_ros.localization.class_sizes import usual_sizes
from img2scene_ros.localization.gravity import Gravity
from img2scene_ros.localization.gravity import up_of
from img2scene_ros.localization.photo_plane import photo_plane
from img2scene_ros.types import Detection

CAMERA = Camera.from_field_of_view(640, 480, 60.0)
SIZES = usual_sizes()
OPEN = [Gravity(up_of(np.radians(25.0), 0.0), np.radians(20.0), 0.2)]  # edges that say nothing
# What stands where on the table: metres to the right of the view's middle and beyond it.
THINGS = {'bottle': (-0.2, 0.15), 'cup': (0.0, -0.15), 'bowl': (0.2, 0.1), 'can': (0.05, 0.35),
          'wine glass': (-0.15, -0.1), 'apple': (0.22, -0.12)}


def boxes(tilt: float, roll: float, height: float, scale: float = 1.0) -> list[Detection]:
    """Return the boxes of things on a plane, as circular cylinders cast them."""
    up = up_of(np.radians(tilt), np.radians(roll))
    middle = np.array([0.0, 0.0, height / -up[2]])
    right = np.cross(up, (0.0, 0.0, -1.0))
    right /= np.linalg.norm(right)
    beyond = np.cross(up, right)
    around = np.linspace(0.0, 2.0 * np.pi, 90)
    found = []
    for name, (x, y) in THINGS.items():
        width, tall = scale * SIZES[name].width, scale * SIZES[name].height
        foot = middle + scale * (x * right + y * beyond)
        axes = object_axes(foot, up)
        rim = (np.cos(around)[:, None] * axes[:, 0] + np.sin(around)[:, None] * axes[:, 1])
        points = np.concatenate([foot + width / 2 * rim, foot + width / 2 * rim + tall * up])
        pixels = CAMERA.project(points)
        box = np.concatenate([pixels.min(axis=0), pixels.max(axis=0)]) + 0.5
        found.append(Detection(name, 0.9, box))
    return found


def degrees_off(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.degrees(np.arccos(np.clip(one @ other, -1.0, 1.0))))


@pytest.mark.parametrize('tilt, roll', ((25.0, 0.0), (40.0, 6.0), (55.0, -5.0)))
def test_named_things_tell_height_and_up(tilt: float, roll: float) -> None:
    plane = photo_plane(CAMERA, boxes(tilt, roll, 0.5), SIZES, OPEN, 1.0)
    assert degrees_off(plane.normal, up_of(np.radians(tilt), np.radians(roll))) < 6.0
    assert plane.offset == pytest.approx(0.5, rel=0.12)
    assert abs(plane.offset / 0.5 - 1.0) < 2.0 * plane.height_std


def test_with_up_from_edges_the_height_is_exact() -> None:
    up = up_of(np.radians(40.0), np.radians(4.0))
    plane = photo_plane(CAMERA, boxes(40.0, 4.0, 0.6), SIZES, [Gravity(up, 0.02, 0.95)], 1.0)
    assert degrees_off(plane.normal, up) < 1.0
    assert plane.offset == pytest.approx(0.6, rel=0.04)


def test_one_wrong_name_hardly_counts() -> None:
    """A can that is called a mouse would be a third of its distance away."""
    up = up_of(np.radians(40.0), 0.0)
    things = [replace(one, label='mouse') if one.label == 'can' else one
              for one in boxes(40.0, 0.0, 0.6)]
    plane = photo_plane(CAMERA, things, SIZES, [Gravity(up, 0.02, 0.95)], 1.0)
    assert plane.offset == pytest.approx(0.6, rel=0.1)


def test_without_known_things_the_height_is_guessed_and_says_so() -> None:
    up = up_of(np.radians(40.0), 0.0)
    things = [replace(one, label='object') for one in boxes(40.0, 0.0, 0.6)]
    plane = photo_plane(CAMERA, things, SIZES, [Gravity(up, 0.02, 0.95)], 1.0)
    assert degrees_off(plane.normal, up) < 0.1
    assert plane.height_std > 0.3
    assert photo_plane(CAMERA, things, SIZES, OPEN, 1.0) is None
