# SPDX-License-Identifier: Apache-2.0
"""The metrics against closed forms, brute force and a slow copy of the published steps."""

from itertools import permutations

import numpy as np
import pytest
from scipy.interpolate import RegularGridInterpolator
from scipy.spatial.transform import Rotation

from img2scene_ros.learning.metrics import PIX3D_THRESHOLDS
from img2scene_ros.learning.metrics import chamfer_and_f_score
from img2scene_ros.learning.metrics import earth_movers_distance
from img2scene_ros.learning.metrics import isosurface_points
from img2scene_ros.learning.metrics import pix3d_points
from img2scene_ros.learning.metrics import pix3d_scores
from img2scene_ros.learning.metrics import pix3d_voxels
from img2scene_ros.learning.metrics import voxel_iou
from img2scene_ros.rendering.normals import sampled_faces


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(3)


def ball(size: int, radius: float, center: tuple[float, float, float] | None = None) -> np.ndarray:
    """Return a ball in a cube of cells, soft at its edge; lengths in cells."""
    middle = np.full(3, (size - 1) / 2) if center is None else np.array(center)
    grid = np.stack(np.meshgrid(*[np.arange(size)] * 3, indexing='ij'), axis=-1)
    return np.clip(0.5 + radius - np.linalg.norm(grid - middle, axis=-1), 0, 1)


def block(size: int, low: tuple[int, int, int], high: tuple[int, int, int]) -> np.ndarray:
    solid = np.zeros((size,) * 3)
    solid[tuple(slice(a, b) for a, b in zip(low, high))] = 1.0
    return solid


def on_sphere(count: int, radius: float, random: np.random.Generator) -> np.ndarray:
    directions = random.normal(size=(count, 3))
    return radius * directions / np.linalg.norm(directions, axis=1, keepdims=True)


def test_iou_of_concentric_balls_is_the_ratio_of_their_volumes():
    found = voxel_iou(ball(64, 20.0), ball(64, 28.0) > 0.5)
    assert found == pytest.approx((20 / 28) ** 3, rel=0.02)


def test_iou_takes_each_threshold_of_a_prediction():
    prediction = np.array([0.1, 0.3, 0.6, 0.9]).reshape(4, 1, 1)
    truth = np.array([False, False, True, True]).reshape(4, 1, 1)
    np.testing.assert_allclose(
        voxel_iou(prediction, truth, np.array([0.0, 0.2, 0.5, 0.7, 0.95])),
        [2 / 4, 2 / 3, 1.0, 1 / 2, 0.0])


def test_iou_of_nothing_is_zero():
    assert voxel_iou(np.zeros((4, 4, 4)), np.zeros((4, 4, 4), bool)) == 0.0


def chamfer_distance(one: np.ndarray, other: np.ndarray) -> float:
    return chamfer_and_f_score(one, other)[0]


def test_chamfer_of_concentric_spheres_is_twice_their_distance(random):
    one, other = on_sphere(20000, 1.0, random), on_sphere(20000, 1.5, random)
    assert chamfer_distance(one, other) == pytest.approx(1.0, rel=0.01)


def test_chamfer_is_the_brute_force_mean(random):
    one, other = random.random((40, 3)), random.random((70, 3))
    every = np.linalg.norm(one[:, None] - other, axis=-1)
    assert chamfer_distance(one, other) == pytest.approx(
        every.min(axis=1).mean() + every.min(axis=0).mean())


def test_distances_do_not_depend_on_order_or_axes_and_scale_with_the_unit(random):
    one, other = random.random((60, 3)), random.random((60, 3))
    turn, shift = Rotation.random(random_state=1), np.array([3.0, -1.0, 2.0])
    for distance in (chamfer_distance, earth_movers_distance):
        value = distance(one, other)
        assert distance(other, one) == pytest.approx(value)
        assert distance(random.permutation(one), other) == pytest.approx(value)
        assert distance(turn.apply(one) + shift, turn.apply(other) + shift) == pytest.approx(value)
        assert distance(10 * one, 10 * other) == pytest.approx(10 * value)
        assert distance(one, one) == 0.0


def test_earth_mover_finds_the_best_of_all_assignments(random):
    one, other = random.random((6, 3)), random.random((6, 3))
    best = min(np.linalg.norm(one - other[list(order)], axis=1).mean()
               for order in permutations(range(6)))
    assert earth_movers_distance(one, other) == pytest.approx(best)


def test_earth_mover_of_a_shifted_set_is_the_shift(random):
    points = random.random((200, 3))
    assert earth_movers_distance(points, points + (0.3, 0.0, 0.4)) == pytest.approx(0.5)


def test_f_score_is_the_harmonic_mean_of_precision_and_recall():
    # 1 of 2 predicted points is near, and all 4 true points but one.
    prediction = np.array([[0.0, 0, 0], [9.0, 0, 0]])
    truth = np.array([[0.01, 0, 0], [0, 0.01, 0], [0, 0, 0.01], [5.0, 0, 0]])
    precision, recall = 1 / 2, 3 / 4
    assert chamfer_and_f_score(prediction, truth, 0.1)[1] == pytest.approx(
        2 * precision * recall / (precision + recall))
    assert chamfer_and_f_score(prediction, truth, 1e-6)[1] == 0.0
    assert chamfer_and_f_score(prediction, prediction, 1e-6)[1] == 1.0


def test_points_are_spread_by_area(random):
    # A large and a small triangle, 9 to 1.
    vertices = np.array([[0.0, 0, 0], [3, 0, 0], [0, 3, 0], [0, 0, 5], [1, 0, 5], [0, 1, 5]])
    face, weights = sampled_faces(vertices, np.array([[0, 1, 2], [3, 4, 5]]), 20000, random)
    points = (vertices.reshape(2, 3, 3)[face] * weights[..., None]).sum(axis=1)
    assert (points[:, 2] > 0).mean() == pytest.approx(0.1, abs=0.01)
    np.testing.assert_allclose(points[points[:, 2] == 0].mean(axis=0), [1, 1, 0], atol=0.03)


def test_isosurface_points_lie_on_the_ball(random):
    points = isosurface_points(ball(40, 12.0, (20.0, 18.0, 21.5)), 5000, 0.5, random)
    distance = np.linalg.norm(points - (20.0, 18.0, 21.5), axis=1)
    np.testing.assert_allclose(distance, 12.0, atol=0.1)
    np.testing.assert_allclose(points.mean(axis=0), [20.0, 18.0, 21.5], atol=0.4)
    assert isosurface_points(np.zeros((8, 8, 8)), 10, 0.5, random).shape == (0, 3)


def test_isosurface_is_closed_at_the_border_of_the_volume(random):
    points = isosurface_points(np.ones((8, 8, 8)), 6000, 0.5, random)
    # Six squares of 7 x 7 and twelve bevels of 7 x sqrt(1/2).
    share = 49 / (6 * 49 + 12 * 7 * 0.5 ** 0.5)
    for axis in range(3):
        for side in (-0.5, 7.5):
            found = np.isclose(points[:, axis], side, atol=1e-4).mean()
            assert found == pytest.approx(share, abs=0.02)


def published_voxels(volume: np.ndarray) -> np.ndarray:
    """Follow eval/eval.py of Pix3D step by step, with loops."""
    if len(volume) > 100:
        pooled = np.zeros((len(volume) // 4,) * 3)
        for cell in np.ndindex(pooled.shape):
            x, y, z = np.multiply(cell, 4)
            pooled[cell] = volume[x:x + 4, y:y + 4, z:z + 4].max()
        volume = pooled
    solid = np.nonzero(volume >= 0.1)
    low, high = np.min(solid, axis=1), np.max(solid, axis=1)
    box = volume[low[0]:high[0] + 1, low[1]:high[1] + 1, low[2]:high[2] + 1]
    interpolate = RegularGridInterpolator(
        [np.arange(n) for n in box.shape], box, 'linear', False, 0.0)
    half, center = (high - low).max() / 2, (high - low) / 2
    axes = [np.linspace(center[axis] - half, center[axis] + half, 32) for axis in range(3)]
    return np.array([[[float(interpolate((x, y, z)).item()) for z in axes[2]] for y in axes[1]]
                     for x in axes[0]])


@pytest.mark.slow
@pytest.mark.parametrize('size', [40, 128])
def test_pix3d_voxels_are_the_published_steps(size, random):
    middle = size // 2
    volume = np.zeros((size,) * 3)
    volume[5:-8, middle - 4:middle + 9, 3:middle] = random.random(
        (size - 13, 13, middle - 3))
    np.testing.assert_allclose(pix3d_voxels(volume), published_voxels(volume), atol=1e-12)


def test_pix3d_voxels_do_not_depend_on_place_and_size():
    one = pix3d_voxels(block(64, (2, 3, 4), (10, 19, 20)))
    moved = pix3d_voxels(block(64, (30, 20, 11), (38, 36, 27)))
    np.testing.assert_array_equal(one, moved)
    large = pix3d_voxels(block(96, (8, 20, 11), (40, 84, 75)))
    for solid in (one, large):
        layers = [np.count_nonzero((solid > 0.3).any(axis=axes))
                  for axes in ((1, 2), (0, 2), (0, 1))]
        assert layers[1:] == [32, 32]
        assert layers[0] == pytest.approx(16, abs=2)


def test_nothing_and_a_single_layer_between_the_samples_are_empty():
    assert not pix3d_voxels(np.zeros((32, 32, 32))).any()
    # 32 samples over 23 cells' widths lie beside the layer in the middle; beyond the box is 0.
    assert not pix3d_voxels(block(32, (4, 4, 10), (28, 28, 11))).any()


def test_pix3d_points_are_centred_with_a_longest_side_of_one(random):
    points = pix3d_points(block(64, (10, 20, 30), (50, 40, 36)), random)
    low, high = points.min(axis=0), points.max(axis=0)
    assert points.shape == (1024, 3)
    assert pix3d_points(block(8, (3, 3, 3), (4, 4, 4)), random).shape == (1024, 3)
    assert not pix3d_points(np.zeros((8, 8, 8)), random).any()
    np.testing.assert_allclose(low + high, 0.0, atol=1e-12)
    np.testing.assert_allclose(high - low, [1.0, 0.5, 0.15], atol=0.05)


def test_official_scores_of_the_truth_itself_are_perfect():
    truth = [block(128, (20, 30, 40), (100, 70, 90)), ball(128, 40.0)]
    scores = pix3d_scores(truth, truth)
    np.testing.assert_array_equal(scores.iou, 1.0)
    # Two draws of 1,024 points of one surface are not the same points.
    assert (scores.chamfer < 0.07).all()
    assert (scores.emd < 0.08).all()


def test_official_scores_do_not_see_place_and_size():
    scores = pix3d_scores([ball(32, 8.0, (12.0, 15.0, 18.0))], [ball(128, 50.0)])
    assert scores.iou[0] > 0.9
    assert scores.chamfer[0] < 0.08


def test_official_threshold_maximizes_the_mean_iou():
    # Predictions of 0.3 inside and 0.12 around: right above 0.12 only.
    inner, outer = block(32, (8, 8, 8), (24, 24, 24)), block(32, (6, 6, 6), (26, 26, 26))
    prediction = np.maximum(0.3 * inner, 0.12 * outer)
    truth = block(32, (6, 6, 6), (26, 26, 26)) * 0.12 + inner
    scores = pix3d_scores([prediction], [truth])
    assert scores.threshold in PIX3D_THRESHOLDS
    values = [voxel_iou(pix3d_voxels(prediction), pix3d_voxels(truth), level)
              for level in PIX3D_THRESHOLDS]
    assert scores.iou[0] == max(values)
    assert len(PIX3D_THRESHOLDS) == 49


def test_empty_prediction_scores_zero_and_ends_nothing():
    scores = pix3d_scores([np.zeros((32, 32, 32))], [ball(32, 10.0)])
    assert scores.iou[0] == 0.0
    # All points at the origin, the true ones at 0.5 from it.
    assert scores.chamfer[0] == pytest.approx(1.0, rel=0.05)
    assert scores.emd[0] == pytest.approx(0.5, rel=0.05)
