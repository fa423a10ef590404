# SPDX-License-Identifier: Apache-2.0
"""Where the camera is, on drawn sequences of known truth."""

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation
from synthetic import CAMERA
from synthetic import bowl
from synthetic import box
from synthetic import can

from img2scene_ros.learning.sensors import read_depth
from img2scene_ros.rendering.raycast import Lights
from img2scene_ros.rendering.raycast import Stage
from img2scene_ros.rendering.raycast import Surface
from img2scene_ros.rendering.raycast import look_at
from img2scene_ros.scene.odometry import CameraMotion
from img2scene_ros.scene.odometry import Odometry
from img2scene_ros.types import Frame
from img2scene_ros.types import SupportPlane

LIGHTS = Lights(up=(0.0, 0.0, 1.0))


def surface(mesh: trimesh.Trimesh, x: float, y: float, grey: int) -> Surface:
    moved = mesh.copy().apply_translation((x, y, 0.0))
    return Surface(moved.vertices, moved.faces, np.full((len(moved.vertices), 3), grey, np.uint8))


def table(contrast: float) -> Surface:
    """Return a table of 1.4 m with soft spots."""
    side = 60
    axis = np.linspace(-0.7, 0.7, side)
    vertices = np.dstack([*np.meshgrid(axis, axis), np.zeros((side, side))]).reshape(-1, 3)
    corner = (np.arange(side - 1)[:, None] * side + np.arange(side - 1)).reshape(-1, 1)
    faces = np.concatenate([corner + (0, 1, side + 1), corner + (0, side + 1, side)])
    spots = np.random.default_rng(0).random((12, 12)).astype(np.float32)
    grey = 130 + contrast * (cv2.resize(spots, (side, side), interpolation=cv2.INTER_CUBIC) - 0.5)
    return Surface(vertices, faces, np.repeat(grey.reshape(-1, 1), 3, axis=1).astype(np.uint8))


THINGS = [
    surface(box(0.08, 0.12, 0.15), 0.0, 0.1, 210), surface(can(0.035, 0.12), 0.15, -0.1, 60),
    surface(box(0.06, 0.16, 0.1), -0.15, -0.05, 100), surface(can(0.04, 0.2), -0.1, 0.25, 40),
    surface(bowl(0.08, 0.06), 0.05, -0.25, 180)]


def around(azimuth: float, elevation: float = 40.0, distance: float = 0.8) -> np.ndarray:
    """Return the pose of a camera that looks at the table's middle; degrees, metres."""
    a, e = np.radians([azimuth, elevation])
    eye = distance * np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])
    return look_at(eye, np.array([0.0, 0.0, 0.05]), np.array([0.0, 0.0, 1.0]))


def seen(stage: Stage, pose: np.ndarray, seed: int) -> Frame:
    random = np.random.default_rng(seed)
    clean = stage.look(CAMERA, pose)
    color = clean.color + random.normal(scale=2.0, size=clean.color.shape)
    return Frame(color.clip(0, 255).astype(np.uint8), CAMERA,
                 # Nothing moves all readings alike: no odometry could tell.
                 read_depth(clean.depth, CAMERA, random, is_calibrated=True))


def follow(
    poses: list[np.ndarray], surfaces: list[Surface], has_support: bool = True,
    moving: Callable[[int], Surface] | None = None,
) -> list[CameraMotion]:
    """Return what is told of a camera at poses."""
    stage, odometry, motions = Stage(surfaces, LIGHTS), Odometry(), []
    for number, pose in enumerate(poses):
        if moving:
            stage = Stage([*surfaces, moving(number)], LIGHTS)
        supports = (SupportPlane(pose[2, :3], float(pose[2, 3])),) if has_support else ()
        motions.append(odometry.update(replace(seen(stage, pose, number), supports=supports)))
    return motions


def drift(motion: CameraMotion, first: np.ndarray, now: np.ndarray) -> tuple[float, float]:
    """Return metres and degrees between what is told and the truth."""
    error = np.linalg.inv(np.linalg.inv(first) @ now) @ motion.world_from_camera
    turn = Rotation.from_matrix(error[:3, :3]).magnitude()
    return float(np.linalg.norm(error[:3, 3])), float(np.degrees(turn))


@pytest.mark.parametrize(('contrast', 'has_support'), [(80.0, True), (0.0, True), (0.0, False)])
def test_a_camera_that_circles_is_followed(contrast: float, has_support: bool) -> None:
    poses = [around(2.0 * number) for number in range(24)]
    motions = follow(poses, [table(contrast), *THINGS], has_support)
    for pose, motion in zip(poses, motions):
        metres, degrees = drift(motion, poses[0], pose)
        assert motion.is_known
        assert metres < 0.015
        assert degrees < 4.0


def test_tilting_and_sliding_are_followed() -> None:
    poses = [around(0.0, 40.0 + 1.5 * number) for number in range(6)]
    for _ in range(6):
        poses.append(poses[-1].copy())
        poses[-1][1, 3] += 0.02
    motions = follow(poses, [table(80.0), *THINGS])
    for pose, motion in zip(poses, motions):
        metres, degrees = drift(motion, poses[0], pose)
        assert metres < 0.005
        assert degrees < 1.0


def test_a_resting_camera_keeps_its_very_pose() -> None:
    motions = follow([around(0.0), around(2.0), *[around(4.0)] * 5], [table(80.0), *THINGS])
    for motion in motions[3:]:
        assert (motion.world_from_camera == motions[2].world_from_camera).all()
        assert motion.is_known


def test_what_moves_before_the_scene_does_not_drag_the_world() -> None:
    def plate(number: int) -> Surface:
        return surface(box(0.02, 0.2, 0.2), 0.25, -0.3 + 0.05 * number, 230)

    poses = [around(2.0 * number) for number in range(10)]
    motions = follow(poses, [table(80.0), *THINGS], moving=plate)
    metres, degrees = drift(motions[-1], poses[0], poses[-1])
    assert metres < 0.005
    assert degrees < 1.0
    for motion in follow([around(0.0)] * 6, [table(80.0), *THINGS], moving=plate):
        assert drift(motion, around(0.0), around(0.0))[0] < 0.001


def test_a_plain_wall_is_said() -> None:
    wall = surface(trimesh.creation.box((0.02, 6.0, 6.0)), -1.0, 0.0, 150)
    poses = [around(0.0, 0.0, 0.6) for _ in range(3)]
    poses[1][1, 3] += 0.02
    for motion in follow(poses, [wall], has_support=False):
        assert not motion.is_known
        assert 'target_frame' in motion.why


def test_a_camera_that_jumps_is_said_and_found_again() -> None:
    poses = [around(0.0), around(2.0), around(70.0), around(72.0), around(4.0)]
    motions = follow(poses, [table(80.0), *THINGS])
    assert [motion.is_known for motion in motions] == [True, True, False, False, True]
    assert 'target_frame' in motions[2].why
    assert (motions[2].world_from_camera == motions[1].world_from_camera).all()
    assert drift(motions[4], poses[0], poses[4])[0] < 0.005


def test_frames_without_readings_are_said() -> None:
    frame = seen(Stage([table(80.0), *THINGS], LIGHTS), around(0.0), 0)
    for depth in (None, np.full(frame.shape, np.nan, np.float32)):
        motion = Odometry().update(replace(frame, depth=depth))
        assert not motion.is_known
        assert 'target_frame' in motion.why
    covered = Odometry().update(replace(frame, robot=np.ones(frame.shape, bool)))
    assert not covered.is_known
