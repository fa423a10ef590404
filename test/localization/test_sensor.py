# SPDX-License-Identifier: Apache-2.0
"""Places by measured depth against the truth of drawn scenes."""

import numpy as np
import pytest
import trimesh
from synthetic import bowl
from synthetic import box
from synthetic import camera_pose
from synthetic import can
from synthetic import tabletop_frame

from img2scene_ros.detection import bbox_of
from img2scene_ros.detection.masks import mask_from_depth
from img2scene_ros.detection.supports import supported
from img2scene_ros.localization.sensor import SensorDistance
from img2scene_ros.types import Detection
from img2scene_ros.types import Frame
from img2scene_ros.types import Placement


def place(frame: Frame, mask: np.ndarray) -> Placement | None:
    """Place what a mask shows."""
    detection = Detection('object', 1.0, bbox_of(mask), mask)
    return SensorDistance().place(frame, detection, supported(frame).support)


def center_in_camera(mesh: trimesh.Trimesh, pose: np.ndarray) -> np.ndarray:
    """Return the true centre of a mesh's bounds in the optical frame."""
    to_camera = np.linalg.inv(pose)
    return to_camera[:3, :3] @ mesh.bounds.mean(axis=0) + to_camera[:3, 3]


def random_scenes() -> list[tuple[trimesh.Trimesh, np.ndarray]]:
    """Return 24 objects, turned and shifted, each with a camera pose."""
    rng = np.random.default_rng(7)
    scenes = []
    for index in range(24):
        mesh = (box(*rng.uniform(0.04, 0.2, 3)), can(*rng.uniform((0.03, 0.05), (0.06, 0.2))),
                bowl(*rng.uniform((0.05, 0.04), (0.1, 0.09))))[index % 3]
        mesh.apply_transform(trimesh.transformations.rotation_matrix(
            rng.uniform(0, 2 * np.pi), (0, 0, 1)))
        mesh.apply_translation((*rng.uniform(-0.12, 0.12, 2), 0))
        scenes.append((mesh, camera_pose(rng.uniform(15, 60), rng.uniform(0.5, 1.0))))
    return scenes


@pytest.mark.slow
def test_errors_are_small_and_as_large_as_stated() -> None:
    """Centres are right to 2 cm, and the standard deviation is what it says."""
    errors, stated = [], []
    for seed, (mesh, pose) in enumerate(random_scenes()):
        frame, truth = tabletop_frame([mesh], pose, seed)
        placement = place(frame, truth == 1)
        errors.append(placement.position - center_in_camera(mesh, pose))
        stated.append(placement.position_std)
    errors, ratios = np.array(errors), np.array(errors) / stated
    assert np.percentile(np.linalg.norm(errors, axis=1), 90) < 0.02
    assert 0.4 < np.sqrt((ratios ** 2).mean()) < 1.6
    assert (np.abs(ratios) < 2).mean() > 0.9


def test_a_hollow_object_is_placed_at_its_middle() -> None:
    """The middle of a bowl is neither its near rim nor its far wall."""
    mesh, pose = bowl(0.1, 0.08), camera_pose(35, 0.8)
    frame, truth = tabletop_frame([mesh], pose)
    position = place(frame, truth == 1).position
    assert np.linalg.norm(position - center_in_camera(mesh, pose)) < 0.015


def test_background_and_holes_in_the_mask_do_not_move_it() -> None:
    """A mask with a tenth of background and a third of holes gives the same place."""
    mesh, pose = can(0.04, 0.12), camera_pose(25, 0.8)
    wall = box(0.02, 3.0, 2.0).apply_translation((-0.5, 0, 0))
    frame, truth = tabletop_frame([mesh, wall], pose)
    clean = place(frame, truth == 1).position
    rng = np.random.default_rng(0)
    mask = truth == 1
    beside = np.flatnonzero((truth == 2).ravel())
    mask.ravel()[rng.choice(beside, mask.sum() // 25, replace=False)] = True
    depth = frame.depth.copy()
    depth[rng.random(depth.shape) < 0.33] = np.nan
    dirty = SensorDistance().place(
        Frame(frame.color, frame.camera, depth),
        Detection('object', 1.0, bbox_of(truth == 1), mask), supported(frame).support).position
    assert np.linalg.norm(dirty - clean) < 0.01


def test_a_box_without_mask_is_enough() -> None:
    """The object is cut out of its box by depth: neither wall nor table moves it."""
    mesh, pose = can(0.04, 0.12), camera_pose(25, 0.8)
    wall = box(0.02, 3.0, 2.0).apply_translation((-0.5, 0, 0))
    frame, truth = tabletop_frame([mesh, wall], pose)
    mask = mask_from_depth(supported(frame), bbox_of(truth == 1) + (-8, -8, 8, 8))
    assert (mask & (truth == 1)).sum() / (mask | (truth == 1)).sum() > 0.85
    position = place(frame, mask).position
    assert np.linalg.norm(position - center_in_camera(mesh, pose)) < 0.015


@pytest.mark.parametrize('turn', [0.0, 0.3, 0.7, 1.2])
def test_axes_of_a_box_run_along_its_faces(turn: float) -> None:
    """The object's z is the table's normal; x is the face's normal most towards the camera."""
    mesh = box(0.12, 0.1, 0.1).apply_transform(
        trimesh.transformations.rotation_matrix(turn, (0, 0, 1)))
    mesh.apply_translation((0.1, 0.15, 0))
    pose = camera_pose(30, 0.9)
    frame, truth = tabletop_frame([mesh], pose)
    placement = place(frame, truth == 1)
    in_table = pose[:3, :3] @ placement.rotation
    assert in_table[:, 2] == pytest.approx((0, 0, 1), abs=0.01)
    towards = (pose[:3, 3] - mesh.bounds.mean(axis=0)) * (1, 1, 0)
    normals = [np.array([np.cos(a), np.sin(a), 0]) for a in turn + np.arange(4) * np.pi / 2]
    nearest = max(normals, key=lambda normal: normal @ towards)
    assert in_table[:, 0] == pytest.approx(nearest, abs=0.06)
    assert np.linalg.det(in_table) == pytest.approx(1.0)
    assert sorted(placement.size[:2]) == pytest.approx([0.1, 0.12], abs=0.02)


def test_axes_of_a_can_point_to_the_camera() -> None:
    mesh, pose = can(0.05, 0.12).apply_translation((0.1, 0.15, 0)), camera_pose(30, 0.9)
    frame, truth = tabletop_frame([mesh], pose)
    in_table = pose[:3, :3] @ place(frame, truth == 1).rotation
    towards = (pose[:3, 3] - mesh.bounds.mean(axis=0)) * (1, 1, 0)
    assert in_table[:, 0] == pytest.approx(towards / np.linalg.norm(towards), abs=0.03)


def test_too_few_readings_are_no_place() -> None:
    """Without mask, without depth, or with a handful of readings there is no answer."""
    frame, truth = tabletop_frame([can(0.04, 0.12)], camera_pose(30, 0.8))
    few = np.zeros(frame.shape, bool)
    few[240, 320:330] = True
    assert place(frame, few) is None
    assert place(Frame(frame.color, frame.camera), truth == 1) is None
    empty = Frame(frame.color, frame.camera, np.full(frame.shape, np.nan, np.float32))
    assert place(empty, truth == 1) is None
