# SPDX-License-Identifier: Apache-2.0
"""What depth images say of objects that rest and move, on drawn frames of known truth."""

from dataclasses import replace

import numpy as np
import trimesh
from synthetic import CAMERA
from synthetic import box
from synthetic import camera_pose
from synthetic import tabletop_frame

from img2scene_ros.depth import DepthNoise
from img2scene_ros.scene.evidence import Base
from img2scene_ros.scene.evidence import Seen
from img2scene_ros.scene.evidence import compared
from img2scene_ros.scene.evidence import moved_by
from img2scene_ros.scene.surface import sampled
from img2scene_ros.types import ObjectModel

SIZE = (0.08, 0.12, 0.15)
SMALL = CAMERA.resized(320, 240)
REST = np.zeros((2, 3))


def view(azimuth: float) -> np.ndarray:
    """Return a camera's pose on the table, (4, 4)."""
    around = trimesh.transformations.rotation_matrix(np.radians(azimuth), (0, 0, 1))
    return around @ camera_pose(35, 0.9)


def seen(
    azimuth: float = 30.0, seed: int | None = None, shift: tuple[float, float] = (0.0, 0.0),
) -> Seen:
    """
    Compare a mesh with a frame of the box that has gone from its place since.

    :param seed: of noise as large as the frame tells; None: a perfect sensor
    """
    mesh = box(*SIZE).subdivide().subdivide().subdivide()
    moved = box(*SIZE).apply_translation((*shift, 0))
    frame, _ = tabletop_frame([moved], view(azimuth), None, SMALL)
    if seed is not None:
        noise = np.random.default_rng(seed).normal(size=frame.shape)
        std = DepthNoise().std(frame.depth, SMALL.fx)
        frame = replace(frame, depth=(frame.depth + noise * std).astype(np.float32))
    model = ObjectModel(
        mesh.vertices.astype(np.float32), mesh.faces.astype(np.int32),
        np.zeros((len(mesh.vertices), 3), np.uint8), np.zeros(3), np.eye(3), 'drawn')
    surface = sampled(model)
    found, = compared([surface], [surface.points], np.linalg.inv(view(azimuth))[None], frame)
    return found


def statistic(now: Seen, before: Seen, step: np.ndarray = REST) -> np.ndarray:
    """Return how far readings are from rest and from a step, (2,)."""
    return moved_by([now], [Base.begun(before)], [step])[0]


def test_readings_of_an_exact_mesh_lie_on_it() -> None:
    """Also on sides seen at an angle, where a pixel aside is another depth."""
    found = seen()
    off = np.abs(found.behind[found.steep & np.isfinite(found.behind)])
    assert np.quantile(off, 0.9) < 0.0005


def test_noise_is_no_motion_and_a_motion_is_none_of_noise() -> None:
    for seed in range(5):
        assert statistic(seen(seed=seed), seen(seed=seed + 100))[0] < 3.0
        assert statistic(seen(seed=seed, shift=(0.003, 0.0)), seen(seed=seed + 100))[0] > 6.0


def test_what_goes_on_as_it_went_is_nearer_to_that_than_to_rest() -> None:
    shift = np.array([0.004, 0.003, 0.0])
    step = np.stack([view(30.0)[:3, :3].T @ shift, np.zeros(3)])
    rests, goes_on = statistic(seen(seed=1, shift=(0.004, 0.003)), seen(seed=2), step)
    assert goes_on < rests
    rests, goes_on = statistic(seen(seed=1), seen(seed=2), step)
    assert rests < goes_on


def test_what_is_seen_from_elsewhere_seems_to_move_by_what_its_mesh_is_wrong() -> None:
    """A millimetre and a half is a motion only where it is seen from the same side."""
    now, aside = seen(seed=1, shift=(0.0015, 0.0015)), seen(azimuth=65.0, seed=2)
    assert statistic(now, seen(seed=2))[0] > 6.0
    assert statistic(now, aside)[0] < 6.0
