# SPDX-License-Identifier: Apache-2.0
"""Models registered to drawn frames of known truth and to recorded ones."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation
from synthetic import box
from synthetic import camera_pose
from synthetic import can
from synthetic import tabletop_frame

from img2scene_ros.errors import InputError
from img2scene_ros.learning.sensors import read_depth
from img2scene_ros.scene.registration import Registered
from img2scene_ros.scene.registration import Sought
from img2scene_ros.scene.registration import registered
from img2scene_ros.scene.surface import sampled
from img2scene_ros.types import Frame
from img2scene_ros.types import ObjectModel
from img2scene_ros.types import Scene
from img2scene_ros.types import SupportPlane

CARTON = box(0.08, 0.12, 0.15)
TURN = np.radians(4.0)  # per frame, with
STEP = np.array([0.004, 0.003, 0.0])  # metres


def model_of(mesh: trimesh.Trimesh) -> ObjectModel:
    center = mesh.bounds.mean(axis=0)
    return ObjectModel(
        (mesh.vertices - center).astype(np.float32), np.asarray(mesh.faces, np.int32),
        np.full((len(mesh.vertices), 3), 128, np.uint8), np.zeros(3), np.eye(3), 'drawn')


def register(
    model: ObjectModel, frame: Frame, mask: np.ndarray, pose: np.ndarray,
    support: SupportPlane | None = None,
) -> Registered:
    """Register one model of which all is known."""
    surface, (height, width) = sampled(model), mask.shape
    window = slice(0, height), slice(0, width)
    known = np.ones(len(surface.points), bool)
    frame = replace(frame, supports=(support,) if support else ())
    return registered(frame, [Sought(surface, pose, window, mask, surface.points, known)])[0]


def placed(yaw: float, shift: np.ndarray = np.zeros(3)) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_rotvec((0.0, 0.0, yaw)).as_matrix()
    pose[:3, 3] = shift
    return pose


class Drawn:
    """One thing on a table, as a noisy depth camera sees it."""

    def __init__(
        self, mesh: trimesh.Trimesh, elevation: float, distance: float, yaw: float,
        others: tuple[trimesh.Trimesh, ...] = (),
    ) -> None:
        self.yaw = yaw
        camera = camera_pose(elevation, distance)
        self.optical = np.linalg.inv(camera)
        self.support = SupportPlane(camera[2, :3], float(camera[2, 3]))
        self.center = np.eye(4)
        self.center[:3, 3] = mesh.bounds.mean(axis=0)
        clean, ids = tabletop_frame(
            [mesh.copy().apply_transform(placed(yaw)), *others], camera, seed=None)
        # Nothing moves all readings alike: no registration could tell.
        depth = read_depth(
            clean.depth, clean.camera, np.random.default_rng(1), is_calibrated=True)
        self.frame, self.mask = replace(clean, depth=depth), ids == 1

    def pose(self, turn: float = 0.0, shift: np.ndarray = np.zeros(3)) -> np.ndarray:
        """Return the true pose, or one off by a turn about the vertical and a shift."""
        return self.optical @ placed(self.yaw + turn, shift) @ self.center

    def register(
        self, model: ObjectModel, turn: float = TURN, shift: np.ndarray = STEP,
        is_on_support: bool = True,
    ) -> Registered:
        return register(
            model, self.frame, self.mask, self.pose(turn, shift),
            self.support if is_on_support else None)


def apart(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Return metres and degrees between two poses."""
    turn = Rotation.from_matrix(one[:3, :3].T @ other[:3, :3]).magnitude()
    return float(np.linalg.norm(one[:3, 3] - other[:3, 3])), float(np.degrees(turn))


@pytest.mark.parametrize('is_on_support', [True, False])
@pytest.mark.parametrize('elevation', [30.0, 60.0])
@pytest.mark.parametrize('distance', [0.6, 1.0])
def test_boxes_are_followed(distance: float, elevation: float, is_on_support: bool) -> None:
    model, errors = model_of(CARTON), []
    for degrees in (0.0, 20.0, 45.0, 70.0):
        drawn = Drawn(CARTON, elevation, distance, np.radians(degrees))
        found = drawn.register(model, is_on_support=is_on_support)
        errors.append(apart(found.pose, drawn.pose()))
        assert found.fit > 0.9
        assert found.residual < 0.002
    metres, degrees = np.median(errors, axis=0)
    assert metres < 0.001
    assert degrees < 1.0


@pytest.mark.parametrize('yaw', [20.0, 45.0, 70.0])
def test_a_first_guess_may_be_far_off(yaw: float) -> None:
    drawn = Drawn(CARTON, 45.0, 0.8, np.radians(yaw))
    model = model_of(CARTON)
    first = drawn.register(model, np.radians(20.0), np.zeros(3))
    found = register(model, drawn.frame, drawn.mask, first.pose, drawn.support)
    metres, degrees = apart(found.pose, drawn.pose())
    assert metres < 0.002
    assert degrees < 1.0


@pytest.mark.parametrize('is_on_support', [True, False])
def test_round_things_keep_their_turn(is_on_support: bool) -> None:
    drawn = Drawn(can(0.035, 0.14), 35.0, 0.8, 0.0)
    found = drawn.register(model_of(can(0.035, 0.14)), is_on_support=is_on_support)
    metres, degrees = apart(found.pose, drawn.pose(TURN))
    assert metres < 0.001
    assert degrees < 0.5
    # ... and say that nothing tells it.
    axis = np.concatenate([np.zeros(3), found.pose[:3, 2]])
    assert np.sqrt(axis @ found.covariance @ axis) > 1.0
    assert np.sqrt(np.trace(found.covariance[:3, :3])) < 0.005


def test_readings_overrule_a_support_that_is_off() -> None:
    drawn = Drawn(CARTON, 40.0, 0.8, np.radians(30.0))
    true = drawn.pose()
    wrong = SupportPlane(drawn.support.normal, drawn.support.offset + 0.006)
    found = register(model_of(CARTON), drawn.frame, drawn.mask, true, wrong)
    assert apart(found.pose, true)[0] < 0.001


def test_what_is_behind_something_fits() -> None:
    plate = box(0.01, 0.1, 0.2).apply_translation((0.15, 0.05, 0.0))
    drawn = Drawn(CARTON, 30.0, 0.8, np.radians(30.0), (plate,))
    shown = Drawn(CARTON, 30.0, 0.8, np.radians(30.0)).mask
    assert 0.2 < drawn.mask.sum() / shown.sum() < 0.8
    found = drawn.register(model_of(CARTON))
    assert apart(found.pose, drawn.pose())[1] < 1.0
    assert found.fit > 0.9


@pytest.mark.parametrize('other', [can(0.03, 0.2), box(0.2, 0.05, 0.05), box(0.12, 0.18, 0.22)])
def test_another_thing_does_not_fit(other: trimesh.Trimesh) -> None:
    drawn = Drawn(other, 40.0, 0.8, np.radians(20.0))
    assert drawn.register(model_of(CARTON)).fit < 0.8
    assert drawn.register(model_of(other)).fit > 0.9


def test_deviations_are_those_of_the_errors() -> None:
    """Errors over their own covariance are of order one: their squares sum up to six."""
    drawn, model = Drawn(CARTON, 40.0, 0.8, np.radians(30.0)), model_of(CARTON)
    clean, _ = tabletop_frame(
        [CARTON.copy().apply_transform(placed(drawn.yaw))], camera_pose(40.0, 0.8), None)
    sums = []
    for seed in range(12):
        noise = np.random.default_rng(seed).normal(size=clean.depth.shape)
        depth = clean.depth + noise * clean.depth_std(clean.depth)
        found = register(
            model, replace(clean, depth=depth.astype(np.float32)), drawn.mask, drawn.pose())
        turn = Rotation.from_matrix(found.pose[:3, :3] @ drawn.pose()[:3, :3].T).as_rotvec()
        error = np.concatenate([found.pose[:3, 3] - drawn.pose()[:3, 3], turn])
        sums.append(error @ np.linalg.solve(found.covariance, error))
    assert 0.5 < np.median(sums) < 20.0


@pytest.mark.parametrize('noise', [0.0, 0.002])
def test_a_recorded_mesh_stays_at_its_own_frame(
    noise: float, scene_of: Callable[[str], Scene],
) -> None:
    scene = scene_of('ycb_1')
    moved = []
    for seed in range(4 if noise else 1):
        depth = scene.frame.depth + np.float32(noise) * np.random.default_rng(seed).normal(
            size=scene.frame.shape).astype(np.float32)
        frame = replace(scene.frame, depth=depth)
        for item in scene.objects:
            found = register(
                item.model, frame, item.detection.mask, item.pose, scene.support)
            moved.append(found.pose[:3, 3] - item.position)
            assert found.fit > 0.7, item.id
    if noise:
        assert np.linalg.norm(np.std(np.reshape(moved, (4, -1, 3)), axis=0), axis=1).max() < 0.001
    else:
        # Less than one reading errs: the recorded depth image is not without noise.
        distances = np.array([item.position[2] for item in scene.objects])
        assert np.median(np.linalg.norm(moved, axis=1) / scene.frame.depth_std(distances)) < 1.0


def test_nothing_read_leaves_the_pose() -> None:
    drawn = Drawn(CARTON, 40.0, 0.8, 0.0)
    unread = replace(drawn.frame, depth=np.full(drawn.frame.shape, np.nan, np.float32))
    found = register(model_of(CARTON), unread, drawn.mask, drawn.pose())
    assert (found.pose == drawn.pose()).all()
    assert found.fit == 0.0
    assert np.sqrt(np.diag(found.covariance)).min() > 0.05


def test_depth_is_needed() -> None:
    drawn = Drawn(CARTON, 40.0, 0.8, 0.0)
    flat: Frame = replace(drawn.frame, depth=None)
    with pytest.raises(InputError, match='depth'):
        register(model_of(CARTON), flat, drawn.mask, drawn.pose())
