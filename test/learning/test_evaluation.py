# SPDX-License-Identifier: Apache-2.0
"""What evaluations are made of: hulls, depth layers and baselines against closed forms."""

import numpy as np
import pytest
from solids import solid_sample

from img2scene_ros.learning.dataset import Example
from img2scene_ros.learning.dataset import plain_example
from img2scene_ros.learning.evaluation import HULL
from img2scene_ros.learning.evaluation import RESOLUTION
from img2scene_ros.learning.evaluation import SLICES
from img2scene_ros.learning.evaluation import Answers
from img2scene_ros.learning.evaluation import Case
from img2scene_ros.learning.evaluation import baselines
from img2scene_ros.learning.evaluation import best_layers
from img2scene_ros.learning.evaluation import case_of
from img2scene_ros.learning.evaluation import hull_of
from img2scene_ros.learning.evaluation import layers_behind
from img2scene_ros.learning.evaluation import means_of_others
from img2scene_ros.learning.evaluation import scores_of
from img2scene_ros.learning.evaluation import summary
from img2scene_ros.learning.metrics import THRESHOLDS
from img2scene_ros.learning.metrics import voxel_iou
from img2scene_ros.learning.samples import coarser
from img2scene_ros.models.crop import CENTER_BEHIND_ANCHOR

SIZE, HALF_FIELD = 64, 0.3
SHAPE = (RESOLUTION,) * 3


def example(mask: np.ndarray, depth: np.ndarray | None = None) -> Example:
    return Example(np.zeros((SIZE, SIZE, 3), np.uint8), mask, depth, 2.0, HALF_FIELD,
                   np.zeros(SHAPE, bool))


def random_layers(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return layers, some of them beyond the last one, and a solid that fills some."""
    layer = random.integers(-1, 40, SHAPE)
    truth = (layer >= random.integers(0, 4)) & (layer < random.integers(5, 20))
    return layer, truth & (random.random(SHAPE) > 0.4) | (random.random(SHAPE) > 0.95)


def found(name: str, volumes: list[np.ndarray], truth: np.ndarray, categories: list[str],
          threshold: float) -> dict:
    answers = Answers(name, threshold, '', volumes)
    return summary('mask', answers, scores_of(answers, [Case(truth, {})] * len(volumes)),
                   categories)


def test_hull_of_half_a_picture_is_half_the_cube():
    """The optical axis is the middle of the cube, so what is left of it is seen on the left."""
    mask = np.zeros((SIZE, SIZE), bool)
    mask[:, :SIZE // 2] = True
    left = hull_of(mask, HALF_FIELD)
    right = hull_of(~mask, HALF_FIELD)
    assert not left[:, :, RESOLUTION // 2:].any() and not right[:, :, :RESOLUTION // 2].any()
    # Behind the anchor the picture is wider than the cube.
    behind = int(np.ceil((0.5 - CENTER_BEHIND_ANCHOR) * RESOLUTION)) + 1
    assert left[behind:, :, :RESOLUTION // 2].all() and right[behind:, :, RESOLUTION // 2:].all()


@pytest.mark.parametrize('number', range(4))
def test_hull_holds_the_solid_that_the_mask_is_of(number):
    sample = solid_sample(number)
    truth = coarser(sample.occupancy, RESOLUTION)
    hull = hull_of(sample.crop.mask, sample.crop.view.half_field)
    assert (hull & truth).sum() > 0.9 * truth.sum()
    assert hull.sum() < 0.7 * hull.size


def test_layers_count_cells_behind_a_wall_at_the_anchor():
    mask = np.ones((SIZE, SIZE), bool)
    depth = np.full((SIZE, SIZE), 2.0, np.float32)
    depth[10:20, 10:20] = np.nan  # gaps take their neighbours' readings
    layer = layers_behind(example(mask, depth))
    # In cells: the anchor is 0.18 sides before the cube's centre, 16 cells behind its first side.
    behind = np.arange(RESOLUTION) + 0.5 - (0.5 - CENTER_BEHIND_ANCHOR) * RESOLUTION
    expected = np.where(behind >= -0.5, np.maximum(np.ceil(behind), 0), -1)
    assert np.array_equal(layer[:, 16, 16], expected)
    assert np.array_equal(layer[:, 10, 10], expected)


def test_layers_follow_the_readings_inside_of_the_mask_only():
    mask = np.zeros((SIZE, SIZE), bool)
    mask[:, SIZE // 2:] = True
    depth = np.where(mask, 2.12, 0.5).astype(np.float32)  # a tenth of the side behind the anchor
    layer = layers_behind(example(mask, depth))
    assert (layer[:, :, :RESOLUTION // 2] == -1).all()
    first = np.argmax(layer[:, 16, 20] >= 0)
    assert first == np.argmax(layers_behind(
        example(mask, np.full_like(depth, 2.0)))[:, 16, 20] >= 0) + 3


def test_best_constants_are_those_of_a_search_over_all():
    random = np.random.default_rng(0)
    layers, truths = zip(*(random_layers(random) for _ in range(3)))

    def score(first: int, last: int) -> float:
        return np.mean([voxel_iou((layer >= first) & (layer <= last), truth)
                        for layer, truth in zip(layers, truths)])

    for most in (RESOLUTION, 1):
        first, last = best_layers(layers, truths, most)
        assert first < most
        assert score(first, last) == max(
            score(one, other) for one in range(min(most, 8)) for other in range(one, 33))


def test_extrusion_finds_a_slab():
    truth = np.zeros(SHAPE, bool)
    truth[9:14] = True
    case = Case(truth, {HULL: np.broadcast_to(SLICES, SHAPE)})
    answers, = baselines([case], None)
    assert answers.method == 'visual hull of the mask'
    assert answers.constant == 'slices 9 to 13 of 32'
    assert np.array_equal(answers.volumes, [truth])


def test_mean_shape_is_of_other_shapes_of_the_same_category():
    chair_a, chair_b, chair_c, table_a, table_b = (
        np.arange(RESOLUTION ** 3).reshape(SHAPE) % 5 == rest for rest in range(5))
    solids = [chair_a, chair_b, chair_c, table_a, table_b]
    means = means_of_others(solids, ['c', 'c', 'c', 't', 't'], ['a', 'b', 'b', 'x', 'y'])
    assert np.allclose(means[0], (1.0 * chair_b + chair_c) / 2)
    assert np.allclose(means[1], chair_a) and np.allclose(means[2], chair_a)
    assert np.allclose(means[3], table_b) and np.allclose(means[4], table_a)
    assert means_of_others(solids, ['c', 'c', 'c', 't', 't'], ['a', 'b', 'b', 'x', 'x']) is None


def test_scores_of_right_and_of_empty_answers():
    truth = np.zeros(SHAPE, bool)
    truth[8:24, 10:22, 6:26] = True
    right, empty = (found(name, [volume] * 2, truth, ['a', 'b'], 0.37) for name, volume in (
        ('right', np.where(truth, 0.8, 0.2)), ('empty', np.zeros(SHAPE))))
    assert right['iou'] == right['best_iou'] == 1.0 and right['f_score'] > 0.95
    assert right['per_threshold']['0.70'] == 1.0
    assert right['per_threshold']['0.10'] == pytest.approx(truth.mean())
    assert right['chamfer'] < 1 / RESOLUTION and set(right['per_category']) == {'a', 'b'}
    assert empty['iou'] == empty['f_score'] == 0.0 and empty['chamfer'] > 0.2


def test_best_threshold_is_one_for_all_objects():
    truth = np.zeros(SHAPE, bool)
    truth[:16] = True
    volumes = [np.where(truth, high, low)
               for low, high in ((0.05, 0.32), (0.27, 0.9), (0.27, 0.9))]
    score = found('network', volumes, truth, ['a', 'b', 'b'], 0.5)
    assert score['best_threshold'] == 0.3 and score['best_iou'] == 1.0
    assert score['iou'] == pytest.approx(2 / 3)
    assert score['per_category']['a']['iou'] == 0.0
    assert score['per_threshold']['0.20'] == pytest.approx((1 + 0.5 + 0.5) / 3)
    assert len(score['per_threshold']) == len(THRESHOLDS)


def test_baselines_get_what_the_input_holds():
    samples = [solid_sample(number) for number in range(4)]
    with_depth = [case_of(plain_example(sample, True)) for sample in samples]
    with_mask = [case_of(plain_example(sample, False)) for sample in samples]
    nothing = [Case(case.truth, {}) for case in with_mask]
    means = [np.zeros(SHAPE)] * 4

    def methods(*given: object) -> list[str]:
        return [one.method for one in baselines(*given)]

    assert methods(nothing, None) == [] and methods(nothing, means) == ['mean shape']
    assert methods(with_mask, means) == ['mean shape', 'visual hull of the mask']
    assert methods(with_depth, means) == [
        'mean shape', 'visual hull of the mask', 'depth + constant thickness']
    ious = {one.method: np.mean([voxel_iou(volume, case.truth)
                                 for volume, case in zip(one.volumes, with_depth)])
            for one in baselines(with_depth, means)}
    # Balls and boxes are what both baselines are good at; nothing is said by a constant.
    assert min(ious['visual hull of the mask'], ious['depth + constant thickness']) > 0.7
    assert ious['mean shape'] == 0.0
