# SPDX-License-Identifier: Apache-2.0
"""Which names objects get, of detectors that are right, wrong, unsure, and change their mind."""

from dataclasses import replace

import pytest
import trimesh
from synthetic import CAMERA
from synthetic import box
from synthetic import camera_pose
from synthetic import can
from synthetic import tabletop_frame

from img2scene_ros.detection import bbox_of
from img2scene_ros.detection.supports import supported
from img2scene_ros.localization.sensor import SensorDistance
from img2scene_ros.scene.names import NameEvidence
from img2scene_ros.scene.names import names_of
from img2scene_ros.types import Detection
from img2scene_ros.types import Sighting

SMALL = CAMERA.resized(320, 240)
TIN = can(0.034, 0.10)
CARTON = box(0.06, 0.16, 0.21)
BOOK = box(0.17, 0.24, 0.025)


def seen(mesh: trimesh.Trimesh) -> Sighting:
    """Draw a thing on a table and place it by its readings."""
    frame, ids = tabletop_frame([mesh], camera_pose(35, 0.8), camera=SMALL)
    detection = Detection('object', 0.9, bbox_of(ids == 1), ids == 1)
    return Sighting(frame, detection, SensorDistance().place(
        frame, detection, supported(frame).support))


@pytest.fixture(scope='module')
def tin() -> Sighting:
    return seen(TIN)


def called(sighting: Sighting, **scores: float) -> Sighting:
    """Let a detector say names, best first; none for 'object'."""
    names = tuple((name.replace('_', ' '), score) for name, score in scores.items())
    label, score = names[0] if names else ('object', 0.9)
    return replace(sighting, detection=replace(
        sighting.detection, label=label, score=score, hypotheses=names))


def best(sighting: Sighting) -> str:
    names = names_of(sighting)
    assert sum(names.values()) == pytest.approx(1.0)
    return max(names, key=names.get)


def test_a_hydrant_of_ten_centimetres_is_an_object(tin):
    assert best(called(tin, fire_hydrant=0.8)) == 'object'


def test_the_next_best_name_that_suits_the_size_is_given(tin):
    assert best(called(tin, fire_hydrant=0.5, bottle=0.02, cup=0.45)) == 'cup'
    assert best(called(tin, fire_hydrant=0.9, cup=0.02)) == 'object'


def test_a_toy_keeps_its_name_when_the_detector_is_sure(tin):
    assert best(called(tin, fire_hydrant=0.995)) == 'fire hydrant'


def test_a_carton_is_no_book_and_no_bookcase():
    carton = seen(CARTON)
    assert best(called(carton, book=0.7)) == 'object'
    assert best(called(carton, bookcase=0.9)) == 'object'
    assert best(called(carton, box=0.4)) == 'box'


@pytest.mark.parametrize('stands', [False, True])
def test_a_book_is_one_whether_it_lies_or_stands(stands):
    book = BOOK.copy()
    if stands:
        book.apply_transform(trimesh.transformations.rotation_matrix(1.5708, (1, 0, 0)))
        book.apply_transform(trimesh.transformations.rotation_matrix(0.6, (0, 0, 1)))
        book.apply_translation((0, 0, -book.bounds[0, 2]))
    assert best(called(seen(book), book=0.5)) == 'book'


def test_without_a_measured_size_the_detector_decides(tin):
    guessed = replace(tin, placement=replace(tin.placement, depth_source='size_prior'))
    assert best(called(guessed, fire_hydrant=0.4)) == 'fire hydrant'
    assert best(called(guessed, fire_hydrant=0.1)) == 'fire hydrant'


def labels(sighting: Sighting, *frames: dict[str, float]) -> list[str]:
    """Return the label after each frame."""
    evidence = NameEvidence()
    shown = []
    for scores in frames:
        evidence.add(called(sighting, **scores))
        assert evidence.hypotheses[0][0] == evidence.label
        shown.append(evidence.label)
    return shown


def test_a_name_does_not_flicker(tin):
    unsure = [{'cup': 0.5, 'bottle': 0.45}, {'bottle': 0.5, 'cup': 0.45}] * 10
    assert set(labels(tin, *unsure)) == {'cup'}


def test_better_evidence_renames_and_a_single_frame_does_not(tin):
    assert labels(tin, *[{'cup': 0.6}] * 3, {'bottle': 0.8}) == ['cup'] * 4
    assert labels(tin, {'bottle': 0.4}, *[{'cup': 0.8}] * 3)[-1] == 'cup'


def test_a_name_that_is_seen_once_is_forgotten(tin):
    shown = labels(tin, {'cup': 0.5}, *[{}] * 12)
    assert (shown[1], shown[-1]) == ('cup', 'object')


def test_runner_ups_come_with_probabilities(tin):
    evidence = NameEvidence()
    evidence.add(called(tin, cup=0.5, bottle=0.3, fire_hydrant=0.2))
    names = dict(evidence.hypotheses)
    assert list(names)[0] == 'cup' and {'bottle', 'object'} <= set(names)
    assert names['cup'] > names['bottle'] > names.get('fire hydrant', 0.0)
    assert sum(names.values()) == pytest.approx(1.0, abs=0.02)
