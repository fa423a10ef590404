# SPDX-License-Identifier: Apache-2.0
"""Sizes of drawn things against the truth, and what they say of names."""

from dataclasses import replace

import numpy as np
import pytest
import trimesh
from synthetic import CAMERA
from synthetic import box
from synthetic import camera_pose
from synthetic import can
from synthetic import tabletop_frame

from img2scene_ros.detection import bbox_of
from img2scene_ros.detection.supports import supported
from img2scene_ros.localization.extents import Extents
from img2scene_ros.localization.extents import measured_extents
from img2scene_ros.localization.extents import size_ratio
from img2scene_ros.localization.extents import usual_extents
from img2scene_ros.localization.sensor import SensorDistance
from img2scene_ros.types import Detection
from img2scene_ros.types import Placement
from img2scene_ros.types import Sighting

SMALL = CAMERA.resized(320, 240)
COCO = (
    'person', 'bicycle', 'car', 'motorcycle', 'airplane', 'bus', 'train', 'truck', 'boat',
    'traffic light', 'fire hydrant', 'stop sign', 'parking meter', 'bench', 'bird', 'cat', 'dog',
    'horse', 'sheep', 'cow', 'elephant', 'bear', 'zebra', 'giraffe', 'backpack', 'umbrella',
    'handbag', 'tie', 'suitcase', 'frisbee', 'skis', 'snowboard', 'sports ball', 'kite',
    'baseball bat', 'baseball glove', 'skateboard', 'surfboard', 'tennis racket', 'bottle',
    'wine glass', 'cup', 'fork', 'knife', 'spoon', 'bowl', 'banana', 'apple', 'sandwich', 'orange',
    'broccoli', 'carrot', 'hot dog', 'pizza', 'donut', 'cake', 'chair', 'couch', 'potted plant',
    'bed', 'dining table', 'toilet', 'tv', 'laptop', 'mouse', 'remote', 'keyboard', 'cell phone',
    'microwave', 'oven', 'toaster', 'sink', 'refrigerator', 'book', 'clock', 'vase', 'scissors',
    'teddy bear', 'hair drier', 'toothbrush')


def sighting_of(mesh: trimesh.Trimesh, elevation: float = 35, distance: float = 0.8) -> Sighting:
    """Draw a thing on a table and place it by its readings."""
    frame, ids = tabletop_frame([mesh], camera_pose(elevation, distance), camera=SMALL)
    detection = Detection('object', 1.0, bbox_of(ids == 1), ids == 1)
    return Sighting(frame, detection, SensorDistance().place(
        frame, detection, supported(frame).support))


def turned(mesh: trimesh.Trimesh, degrees: float) -> trimesh.Trimesh:
    return mesh.copy().apply_transform(
        trimesh.transformations.rotation_matrix(np.radians(degrees), (0, 0, 1)))


def exactly(*sides: float) -> Extents:
    return Extents(np.log(sides), np.log(sides), np.full(3, 0.1), np.zeros(3))


@pytest.mark.parametrize('degrees', [0, 30, 75])
@pytest.mark.parametrize('sides', [(0.20, 0.06, 0.04), (0.24, 0.17, 0.03)])
def test_the_sides_are_those_of_the_thing_however_it_is_turned(sides, degrees):
    found = np.exp(measured_extents(sighting_of(turned(box(*sides), degrees))).least)
    np.testing.assert_allclose(sorted(found), sorted(sides), rtol=0.15, atol=0.004)


def test_the_far_side_of_a_can_may_be_hidden_and_its_width_is_not():
    extents = measured_extents(sighting_of(can(0.033, 0.15), elevation=12))
    least, most = np.exp(extents.least), np.exp(extents.most)
    assert least[0] < 1.05 * 0.066 < 1.15 * most[0] and not extents.unseen.any()
    for side in (least, most):
        assert side[1:] == pytest.approx((0.066, 0.15), rel=0.07)


def test_behind_what_is_taller_than_the_camera_there_may_be_anything():
    shelf = measured_extents(sighting_of(box(0.3, 0.3, 0.5), elevation=10, distance=1.9))
    assert (shelf.unseen > 0).tolist() == [True, False, False]


def test_of_what_the_border_cuts_no_side_is_known():
    sighting = sighting_of(box(0.1, 0.1, 0.1).apply_translation((0.0, 0.42, 0.0)))
    assert sighting.detection.bbox[2] == 320
    assert (measured_extents(sighting).unseen > 0).all()


@pytest.mark.parametrize('source, is_measured', [
    ('plane', True), ('monocular', True), ('size_prior', False), ('plane+size_prior', False),
    ('fixed', False)])
def test_a_size_that_was_guessed_by_the_name_proves_nothing(source, is_measured):
    seen = sighting_of(can(0.033, 0.1))
    placement = Placement(seen.placement.position, seen.placement.rotation, np.full(3, 0.1),
                          np.full(3, 0.01), source)
    extents = measured_extents(Sighting(seen.frame, seen.detection, placement))
    assert (extents is not None) == is_measured
    assert is_measured or size_ratio(extents, 'elephant') == 1.0


def test_every_class_of_coco_has_sides_from_long_to_short():
    usual = usual_extents()
    assert not set(COCO) - set(usual) and len(COCO) == 80
    for logs, spreads in usual.values():
        assert (np.diff(logs) <= 0).all() and (spreads > 0.05).all() and (spreads < 1).all()


@pytest.mark.parametrize('sides, names', [
    ((0.095, 0.095, 0.12), ('cup',)), ((0.07, 0.07, 0.115), ('can', 'cup')),
    ((0.06, 0.09, 0.19), ('bottle',)), ((0.16, 0.16, 0.06), ('bowl',)),
    ((0.03, 0.16, 0.23), ('book',)), ((0.9, 0.85, 0.95), ('chair',)),
    ((0.19, 0.05, 0.035), ('banana',)), ((1.8, 0.9, 0.8), ('couch',))])
def test_usual_sizes_say_nothing_against_a_name(sides, names):
    assert all(size_ratio(exactly(*sides), name) > 0.9 for name in names)


@pytest.mark.parametrize('sides, name', [
    ((0.07, 0.07, 0.10), 'fire hydrant'), ((0.21, 0.16, 0.065), 'bookcase'),
    ((0.07, 0.07, 0.10), 'couch'), ((0.21, 0.17, 0.19), 'book'), ((0.9, 0.85, 0.95), 'cup'),
    ((0.3, 0.3, 0.3), 'bench')])
def test_impossible_sizes_leave_a_name_to_toys(sides, name):
    assert size_ratio(exactly(*sides), name) < 0.05


def test_a_name_without_usual_size_is_not_judged():
    assert size_ratio(exactly(0.07, 0.07, 0.1), 'lighthouse') == 1.0


def test_a_hidden_end_may_make_a_thing_larger_but_not_smaller():
    front = Extents(np.log((0.05, 0.66, 1.65)), np.log((0.66, 0.66, 1.65)), np.full(3, 0.1),
                    np.zeros(3))
    assert size_ratio(front, 'refrigerator') > 0.9
    assert size_ratio(exactly(0.05, 0.66, 1.65), 'refrigerator') < 0.05
    assert size_ratio(exactly(3.0, 0.66, 1.65), 'refrigerator') < 0.05
    assert size_ratio(front, 'bus') < 0.05


def test_a_tin_whose_far_side_is_hidden_is_no_bottle():
    tin = Extents(np.log((0.04, 0.066, 0.10)), np.log((0.066, 0.066, 0.10)), np.full(3, 0.1),
                  np.zeros(3))
    assert size_ratio(tin, 'bottle') < 0.1 and size_ratio(tin, 'can') > 0.9


def test_a_thing_of_which_little_has_readings_is_not_measured():
    sighting = sighting_of(can(0.033, 0.2))
    half = sighting.detection.mask.copy()
    half[:int(sighting.detection.bbox[1:4:2].mean()) + 10] = False
    label = replace(sighting, detection=replace(sighting.detection, mask=half))
    assert measured_extents(sighting) is not None and measured_extents(label) is None
