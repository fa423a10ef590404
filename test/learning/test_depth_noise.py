# SPDX-License-Identifier: Apache-2.0
"""Effects of the depth noise against closed forms, and the RGB-D path under all of them."""

import numpy as np
import pytest
from scipy import ndimage
from synthetic import GEOMETRIC
from synthetic import camera_pose
from synthetic import can
from synthetic import tabletop_frame

from img2scene_ros.camera import Camera
from img2scene_ros.learning.depth_noise import SimulatedNoise
from img2scene_ros.learning.depth_noise import add_depth_noise
from img2scene_ros.learning.depth_noise import edges
from img2scene_ros.pipeline import Pipeline
from img2scene_ros.pipeline import parse_settings
from img2scene_ros.types import Frame

CAMERA = Camera(320, 240, 300.0, 300.0, 159.5, 119.5)
NONE = SimulatedNoise(0, 0, 0, 0, 0, -1, 256, 0, 0, 0, 0)


def wall(z: float) -> np.ndarray:
    return np.full((240, 320), z, np.float32)


def noisy(depth: np.ndarray, seed: int = 0, color: np.ndarray | None = None, **effects: float):
    noise = SimulatedNoise(**{**vars(NONE), **effects})
    return add_depth_noise(depth, CAMERA, np.random.default_rng(seed), noise, color)


def plate() -> np.ndarray:
    """Return a plate at 0.8 m, columns 100 to 199, in front of a wall at 2 m."""
    depth = wall(2.0)
    depth[60:180, 100:200] = 0.8
    return depth


def test_nothing_changes_without_effects():
    depth = plate()
    depth[:30] = np.nan
    np.testing.assert_allclose(noisy(depth), depth, rtol=1e-6)


def test_axial_noise_has_the_standard_deviation_of_the_sensor_model():
    for z in (0.6, 2.0, 4.0):  # Nguyen et al. 2012
        expected = 0.0012 + 0.0019 * (z - 0.4) ** 2
        assert (noisy(wall(z), axial=1.0) - z).std() == pytest.approx(expected, rel=0.02)


def test_lateral_noise_frays_edges_and_nothing_else():
    clean, frayed = plate(), noisy(plate(), lateral=1.0)
    changed = frayed != clean
    distance = np.minimum(np.abs(np.arange(320) - 99.5), np.abs(np.arange(320) - 199.5))
    by_distance = changed[80:160].mean(axis=0)
    assert by_distance[distance == 0.5].mean() == pytest.approx(0.31, abs=0.06)  # P(N > 0.5)
    assert not by_distance[distance > 6].any()
    assert set(np.unique(frayed)) == set(np.unique(clean)), 'readings are moved, not averaged'


@pytest.mark.parametrize('baseline', (0.05, -0.05))
def test_shadow_is_as_wide_as_the_baseline_says(baseline):
    lost = np.isnan(noisy(plate(), baseline=baseline))
    width = 300 * 0.05 * (1 / 0.8 - 1 / 2.0)
    row = lost[120]
    beside = row[:100] if baseline > 0 else row[200:]
    assert beside.sum() == pytest.approx(width, abs=1)
    assert row.sum() == beside.sum(), 'only on one side'
    assert not lost[:60].any() and not lost[180:].any()


def test_holes_at_edges():
    lost = np.isnan(noisy(plate(), edge_holes=0.4))
    at_edge = edges(plate())
    assert not lost[~at_edge].any()
    assert lost[at_edge].mean() == pytest.approx(0.4, abs=0.05)
    assert at_edge.sum() == pytest.approx(2 * 2 * (100 + 120), rel=0.05)


def test_grazing_surfaces_are_lost():
    """A plane turned about the image's vertical axis by a known angle."""
    for angle, expected in ((60, 0.0), (84, 1.0)):
        normal = np.array([np.sin(np.radians(angle)), 0, np.cos(np.radians(angle))])
        depth = 1.5 * normal[2] / (CAMERA.rays @ normal)
        lost = np.isnan(noisy(np.where(depth > 0, depth, np.nan), grazing=12.0))
        assert lost[110:130, 150:170].mean() == expected
    assert not np.isnan(noisy(wall(1.0), grazing=12.0)).any(), 'nor does the border count as steep'


def test_dark_and_shiny_surfaces_are_mostly_lost():
    color = np.full((240, 320, 3), 120, np.uint8)
    color[:, :100], color[:, 200:] = 5, 255
    lost = np.isnan(noisy(wall(1.0), color=color, dull=22.0, shiny=250.0))
    assert not lost[:, 100:200].any()
    assert 0.5 < lost[:, :100].mean() < 0.95
    assert 0.5 < lost[:, 200:].mean() < 0.95


def test_disparities_are_multiples_of_the_step():
    random = np.random.default_rng(1)
    depth = random.uniform(0.5, 3.0, (240, 320)).astype(np.float32)
    read = noisy(depth, disparity_step=0.1)
    steps = 300 * 0.05 / read / 0.1
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)
    # Half a step of disparity at most: dz = z^2 / (f b) dd.
    assert (np.abs(read - depth) <= 0.051 * depth ** 2 / 15 * 1.06).all()


def test_blobs_are_as_many_as_expected():
    shares = [np.isnan(noisy(wall(1.0), seed, blobs=3.0)).mean() for seed in range(60)]
    # Half axes are uniform in 1 to 6 % of the height: the mean area is pi (0.035 h)^2.
    assert np.mean(shares) == pytest.approx(3 * np.pi * (0.035 * 240) ** 2 / 76800, rel=0.3)


@pytest.mark.slow
def test_scale_and_shift_are_common_to_all_readings():
    errors = np.array([noisy(wall(2.0), seed, scale=0.01, shift=0.02) - 2 for seed in range(200)])
    assert (np.ptp(errors, axis=(1, 2)) < 1e-6).all()
    assert errors[:, 0, 0].std() == pytest.approx(np.hypot(0.02, 0.02), rel=0.15)


def test_the_seed_decides():
    one, same, other = (
        add_depth_noise(plate(), CAMERA, np.random.default_rng(seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one, same)
    assert (np.nan_to_num(one) != np.nan_to_num(other)).mean() > 0.5


@pytest.mark.parametrize('seed', range(3))
def test_a_can_on_a_table_is_still_found_and_rebuilt(seed):
    frame, truth = tabletop_frame([can(0.035, 0.11)], camera_pose(35, 0.8), seed=None)
    depth = add_depth_noise(
        frame.depth, frame.camera, np.random.default_rng(seed), color=frame.color)
    around = ndimage.binary_dilation(truth == 1, iterations=15) & np.isfinite(frame.depth)
    assert 0.01 < np.isnan(depth[around]).mean() < 0.3
    scene = Pipeline(*parse_settings(GEOMETRIC)).run(Frame(frame.color, frame.camera, depth))
    found = [item for item in scene.objects if (item.detection.mask & (truth == 1)).sum()
             > 0.5 * (item.detection.mask | (truth == 1)).sum()]
    assert len(found) == 1
    assert found[0].model is not None and found[0].model.reconstructor == 'depth_shell'
    np.testing.assert_allclose(found[0].model.size, (0.07, 0.07, 0.11), rtol=0.2)
