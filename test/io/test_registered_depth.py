# SPDX-License-Identifier: Apache-2.0
"""Depth images registered to another camera are what the ray caster draws for that camera."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from synthetic import bowl
from synthetic import box
from synthetic import camera_pose
from synthetic import can
from synthetic import tabletop_frame

from img2scene_ros.camera import Camera
from img2scene_ros.io.registered_depth import registered_depth

OBJECTS = [box(0.1, 0.15, 0.12), can(0.04, 0.15).apply_translation((0.15, 0.15, 0)),
           bowl(0.08, 0.06).apply_translation((-0.1, -0.2, 0))]
POSE = camera_pose(40, 1.0)
CAMERA = Camera(640, 480, 600.0, 600.0, 319.5, 242.0)
DEPTH_CAMERA = Camera(640, 480, 380.0, 380.0, 322.0, 239.5)


def extrinsics(roll: float = 1.5) -> np.ndarray:
    """Return what takes points of a depth camera 5 cm beside to the picture's camera, (4, 4)."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler('yz', (2.0, roll), degrees=True).as_matrix()
    matrix[:3, 3] = 0.05, 0.003, -0.004
    return matrix


def seen_by(depth: np.ndarray, camera: Camera, points: np.ndarray) -> np.ndarray:
    """Tell which of (..., 3) points a camera sees, well away from edges of its depth image."""
    u, v = np.moveaxis(np.nan_to_num(camera.project(points), nan=-9.0), -1, 0).round().astype(int)
    inside = (u > 1) & (v > 1) & (u < camera.width - 2) & (v < camera.height - 2)
    is_seen = inside.copy()
    for du, dv in ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)):
        found = depth[np.where(inside, v + dv, 0), np.where(inside, u + du, 0)]
        is_seen &= np.abs(found - points[..., 2]) < 0.02
    return is_seen


@pytest.mark.parametrize('depth_camera, camera', [
    (DEPTH_CAMERA, CAMERA),
    (DEPTH_CAMERA.resized(320, 240), CAMERA),
    (DEPTH_CAMERA.resized(160, 120), CAMERA),
    (Camera(848, 480, 420.0, 421.0, 424.0, 240.0), Camera(1280, 720, 900.0, 902.0, 640.0, 355.0)),
    (Camera(800, 600, 600.0, 600.0, 400.0, 300.0), CAMERA.resized(320, 240)),
    (DEPTH_CAMERA, replace(CAMERA, distortion=np.array([0.1, -0.2, 0.001, -0.002, 0.05]))),
    (replace(DEPTH_CAMERA, distortion=np.array([-0.05, 0.02, 0.0, 0.0, 0.0])), CAMERA),
], ids=['wider', 'half', 'quarter', 'as of a D435', 'finer', 'bent picture', 'bent depth'])
@pytest.mark.parametrize('roll', [1.5, 25.0])
def test_it_is_what_the_other_camera_sees(
    depth_camera: Camera, camera: Camera, roll: float,
) -> None:
    shift = extrinsics(roll)
    truth, _ = tabletop_frame(OBJECTS, POSE, None, camera)
    other, _ = tabletop_frame(OBJECTS, POSE @ shift, None, depth_camera)
    found = registered_depth(other.depth, depth_camera, camera, shift)
    assert found.dtype == np.float32 and found.shape == truth.shape
    inverse = np.linalg.inv(shift)
    points = truth.points @ inverse[:3, :3].T + inverse[:3, 3]
    visible = seen_by(other.depth, depth_camera, points)
    assert visible.mean() > 0.2
    assert np.isnan(found[visible]).mean() < 1e-3, 'there are no holes'
    off = np.abs(found - truth.depth)[visible & np.isfinite(found)]
    assert np.median(off) < 1e-4 and np.percentile(off, 98) < 2e-3
    both = np.isfinite(found) & np.isfinite(truth.depth)
    assert (np.abs(found - truth.depth)[both] > 0.01).mean() < 0.02, 'what is behind is hidden'


def test_noise_stays_as_it_is() -> None:
    wall = 1.0 + np.random.default_rng(0).normal(0.0, 0.002, (480, 640)).astype(np.float32)
    found = registered_depth(wall, DEPTH_CAMERA, CAMERA, extrinsics())
    truth = registered_depth(np.ones((480, 640), np.float32), DEPTH_CAMERA, CAMERA, extrinsics())
    off = (found - truth)[np.isfinite(found)]
    assert abs(off.mean()) < 0.0005 and 0.0015 < off.std() < 0.0025


def test_image_without_readings_stays_so() -> None:
    nothing = np.full((480, 640), np.nan, np.float32)
    assert np.isnan(registered_depth(nothing, DEPTH_CAMERA, CAMERA, extrinsics())).all()


def test_readings_behind_the_other_camera_are_left_out() -> None:
    behind = np.eye(4)
    behind[2, 3] = -2.0
    near = np.ones((480, 640), np.float32)
    assert np.isnan(registered_depth(near, DEPTH_CAMERA, CAMERA, behind)).all()
