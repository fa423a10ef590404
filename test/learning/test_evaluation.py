# SPDX-License-Identifier: Apache-2.0
"""What evaluations are made of: hulls, depth layers and baselines against closed forms."""

import numpy as np
import pytest
from solids import solid_sample

from img2scene_ros.learning.augmentation import Example
from img2scene_ros.learning.augmentation import plain_example
from img2scene_ros.learning.evaluation import RESOLUTION
from img2scene_ros.learning.evaluation import Case
from img2scene_ros.learning.evaluation import Scores
from img2scene_ros.learning.evaluation import baselines
from img2scene_ros.learning.evaluation import best_extrusion
from img2scene_ros.learning.evaluation import best_thickness
from img2scene_ros.learning.evaluation import case_of
from img2scene_ros.learning.evaluation import extruded
from img2scene_ros.learning.evaluation import hull_of
from img2scene_ros.learning.evaluation import layers_behind
from img2scene_ros.learning.evaluation import means_of_others
from img2scene_ros.learning.evaluation import thickened
from img2scene_ros.learning.metrics import THRESHOLDS
from img2scene_ros.learning.metrics import voxel_iou
from img2scene_ros.models.crop import CENTER_BEHIND_ANCHOR

SIZE, HALF_FIELD = 64, 0.3
SHAPE = (RESOLUTION,) * 3


def example(mask: np.ndarray, depth: np.ndarray | None = None) -> Example:
    return Example(np.zeros((SIZE, SIZE, 3), np.uint8), mask, depth, 2.0, HALF_FIELD,
                   np.zeros(SHAPE, bool))


def random_case(random: np.random.Generator) -> Case:
    hull, truth = random.random((2, *SHAPE)) > 0.6
    layer = random.integers(-1, 40, SHAPE).astype(np.int8)
    truth &= (layer < random.integers(5, 20)) | (random.random(SHAPE) > 0.9)
    return Case(truth, hull, layer)


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
    truth = sample.occupancy_at(RESOLUTION)
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
    cases = [random_case(random) for _ in range(3)]
    truths = [case.truth for case in cases]
    ranges = {(first, last): np.mean([voxel_iou(extruded(case, first, last), truth)
                                      for case, truth in zip(cases, truths)])
              for first in range(0, RESOLUTION, 3) for last in range(first, RESOLUTION, 3)}
    best = best_extrusion(cases)
    score = np.mean([voxel_iou(extruded(case, *best), truth)
                     for case, truth in zip(cases, truths)])
    assert score >= max(ranges.values())
    thicknesses = [np.mean([voxel_iou(thickened(case, thick), truth)
                            for case, truth in zip(cases, truths)])
                   for thick in range(RESOLUTION + 1)]
    assert best_thickness(cases) == int(np.argmax(thicknesses))


def test_extrusion_finds_a_slab():
    truth = np.zeros(SHAPE, bool)
    truth[9:14] = True
    case = Case(truth, np.ones(SHAPE, bool))
    assert best_extrusion([case]) == (9, 13)
    (method, (constant, volumes)), = baselines([case], None).items()
    assert method == 'visual hull of the mask' and constant == 'slices 9 to 13 of 32'
    assert np.array_equal(volumes, [truth])


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
    right, empty = Scores('right', 'mask', 0.37), Scores('empty', 'mask', 0.37)
    for score, volume in ((right, np.where(truth, 0.8, 0.2)), (empty, np.zeros(SHAPE))):
        score.add([volume] * 2, [Case(truth)] * 2)
    found = right.summary(['a', 'b'])
    assert found['iou'] == found['best_iou'] == 1.0 and found['f_score'] > 0.95
    assert found['per_threshold']['0.70'] == 1.0
    assert found['per_threshold']['0.10'] == pytest.approx(truth.mean())
    assert found['chamfer'] < 1 / RESOLUTION and set(found['per_category']) == {'a', 'b'}
    found = empty.summary(['a', 'b'])
    assert found['iou'] == found['f_score'] == 0.0 and found['chamfer'] > 0.2


def test_best_threshold_is_one_for_all_objects():
    truth = np.zeros(SHAPE, bool)
    truth[:16] = True
    score = Scores('network', 'mask', 0.5)
    score.add([np.where(truth, high, low)
               for low, high in ((0.05, 0.32), (0.27, 0.9), (0.27, 0.9))], [Case(truth)] * 3)
    found = score.summary(['a', 'b', 'b'])
    assert found['best_threshold'] == 0.3 and found['best_iou'] == 1.0
    assert found['iou'] == pytest.approx(2 / 3)
    assert found['per_category']['a']['iou'] == 0.0
    assert found['per_threshold']['0.20'] == pytest.approx((1 + 0.5 + 0.5) / 3)
    assert len(found['per_threshold']) == len(THRESHOLDS)


def test_baselines_get_what_the_input_holds():
    samples = [solid_sample(number) for number in range(4)]
    with_depth = [case_of(plain_example(sample, True)) for sample in samples]
    with_mask = [case_of(plain_example(sample, False)) for sample in samples]
    nothing = [Case(case.truth) for case in with_mask]
    means = [np.zeros(SHAPE)] * 4
    assert set(baselines(nothing, None)) == set() and set(baselines(nothing, means)) == {
        'mean shape'}
    assert set(baselines(with_mask, means)) == {'mean shape', 'visual hull of the mask'}
    found = baselines(with_depth, means)
    assert set(found) == {
        'mean shape', 'visual hull of the mask', 'depth + constant thickness'}
    ious = {method: np.mean([voxel_iou(volume, case.truth)
                             for volume, case in zip(volumes, with_depth)])
            for method, (_, volumes) in found.items()}
    # Balls and boxes are what both baselines are good at; nothing is said by a constant.
    assert min(ious['visual hull of the mask'], ious['depth + constant thickness']) > 0.7
    assert ious['mean shape'] == 0.0
