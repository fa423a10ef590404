# SPDX-License-Identifier: Apache-2.0
"""`img2scene evaluate scenes`: errors of known size, detectors of known faults, bad input."""

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from complaints import complaint
from scipy.spatial.transform import Rotation
from shape_folders import write_shapes

from img2scene_ros.errors import OptionError
from img2scene_ros.learning.data_config import RenderOptions
from img2scene_ros.learning.data_config import SceneOptions
from img2scene_ros.learning.evaluation_scenes import boxes_of
from img2scene_ros.learning.evaluation_scenes import detector_scores
from img2scene_ros.learning.evaluation_scenes import evaluate_scenes
from img2scene_ros.learning.evaluation_scenes import matches_of
from img2scene_ros.learning.evaluation_scenes import solid_iou
from img2scene_ros.learning.evaluation_scenes import true_boxes
from img2scene_ros.learning.evaluation_scenes import true_detections
from img2scene_ros.learning.rendered import render_dataset
from img2scene_ros.learning.samples import SceneSample
from img2scene_ros.learning.shapes import Library
from img2scene_ros.learning.shapes import household_object
from img2scene_ros.learning.shapes import open_library
from img2scene_ros.learning.synthetic import is_visible_enough
from img2scene_ros.learning.synthetic import scene_samples
from img2scene_ros.types import Detection
from img2scene_ros.types import ObjectModel
from img2scene_ros.types import SceneObject

LIBRARY = Library(None, None, {})
RENDERING = RenderOptions(kind='scenes', width=240, sky_rays=0, floor_share=0.0)


@pytest.fixture(scope='module')
def samples(tmp_path_factory) -> list[SceneSample]:
    """Return three scenes of household objects."""
    shapes = write_shapes(tmp_path_factory.mktemp('scenes') / 'shapes', chairs=1, tables=1)
    library = open_library(shapes, None, 'test', 0.0, 0)
    return list(islice(scene_samples(library, RENDERING, 1), 3))


def pose_of(seed: int) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3] = Rotation.random(random_state=seed).as_matrix()
    pose[:3, 3] = 0.1, -0.2, 0.9
    return pose


def moved(points: np.ndarray, pose: np.ndarray) -> np.ndarray:
    return points @ pose[:3, :3].T + pose[:3, 3]


def made_of(sample: SceneSample, factor: float) -> list[SceneObject]:
    """Return a scene's objects, all seen enough, further away and larger by one factor."""
    made = []
    for item, detection in zip(sample.objects, true_detections(sample)):
        shape = household_object(*_kind_and_number(item.shape))
        points = moved(shape.vertices, item.shape_pose) * factor
        local = (points - factor * item.position) @ item.rotation
        model = ObjectModel(
            local.astype(np.float32), shape.faces, np.zeros((len(local), 3), np.uint8),
            factor * item.position, item.rotation, 'made')
        made.append(SceneObject(item.id, detection, factor * item.position, item.rotation,
                                np.zeros((6, 6)), 'made', model))
    return made


def _kind_and_number(name: str) -> tuple[str, int]:
    _, kind, number = name.split('/')
    return kind, int(number)


@pytest.mark.parametrize('kind', ['box', 'can', 'orange'])
def test_mesh_of_a_solid_overlaps_it(kind):
    shape, pose = household_object(kind, 3), pose_of(0)
    assert solid_iou(moved(shape.vertices, pose), shape.faces, shape, pose) > 0.93


def test_box_moved_by_half_its_width_overlaps_by_a_third():
    shape, pose = household_object('box', 3), pose_of(1)
    aside = shape.vertices + [np.ptp(shape.vertices[:, 0]) / 2, 0, 0]
    assert solid_iou(moved(aside, pose), shape.faces, shape, pose) == pytest.approx(1 / 3, abs=.03)
    far = shape.vertices + [1.0, 0, 0]
    assert solid_iou(moved(far, pose), shape.faces, shape, pose) == 0.0


def test_errors_of_objects_a_tenth_too_far_and_too_large(samples):
    """As an RGB camera with a wrong distance sees them: the picture is the same."""
    sample = replace(samples[0], objects=[
        item for item in samples[0].objects if is_visible_enough(item, samples[0].ids)])
    shapes = {item.id: household_object(*_kind_and_number(item.shape)) for item in sample.objects}
    exact = matches_of(sample, shapes, made_of(sample, 1.0))
    wrong = matches_of(sample, shapes, made_of(sample, 1.1))
    assert len(exact) == len(wrong) == len(true_detections(sample)) > 0
    for right, match, item in zip(exact, wrong, sample.objects):
        assert right.position_mm < 0.1 and right.size_percent < 0.1 and right.is_named
        assert match.position_percent == pytest.approx(10, abs=0.1)
        assert match.position_mm == pytest.approx(100 * np.linalg.norm(item.position), rel=0.01)
        assert match.size_percent == pytest.approx(10, abs=0.1)
        assert match.size_mm == pytest.approx(100 * item.size.mean(), rel=0.01)
        assert match.iou < right.iou
        assert match.iou_at_true_distance == pytest.approx(right.iou, abs=0.02)


def test_detector_that_knows_no_names_finds_all_but_names_none(samples):
    truth = [true_boxes(sample) for sample in samples]
    named = [boxes_of(true_detections(sample)) for sample in samples]
    assert detector_scores(named, truth)['ap50_95'] == pytest.approx(1)
    nameless = [replace(one, labels=np.full(len(one.boxes), 'object', object)) for one in named]
    scores = detector_scores(nameless, truth)
    assert scores['ap50'] == 0.0 and scores['recall'] == 1.0
    assert scores['any_class'] == pytest.approx({'ap50': 1.0, 'ap50_95': 1.0})


def test_boxes_too_wide_count_up_to_their_overlap(samples):
    """Boxes twice as wide overlap by one half: COCO's first threshold only."""
    truth = [true_boxes(sample) for sample in samples]
    wide = []
    for sample in samples:
        found = true_detections(sample)
        wide.append(boxes_of([
            Detection(one.label, 1.0, one.bbox + (0, 0, 0.999 * (one.bbox[2] - one.bbox[0]), 0))
            for one in found]))
    scores = detector_scores(wide, truth)['any_class']
    assert scores['ap50'] > 0.8 and scores['ap50_95'] < 0.25


@pytest.mark.slow
def test_perfect_boxes_with_depth_and_without(samples):
    report = evaluate_scenes(
        samples[:2], LIBRARY, {}, SceneOptions(perfect_boxes=True, known_plane=True))
    with_depth, without = report.values['objects'][:2]
    assert (with_depth['mode'], without['mode']) == ('RGB-D', 'RGB')
    expected = sum(len(true_detections(sample)) for sample in samples[:2])
    assert with_depth['objects'] == expected and 0 < with_depth['named'] == with_depth['found']
    assert with_depth['rebuilt'] > 0 and with_depth['iou'] > 0.1
    assert with_depth['position_percent'] < 5 and with_depth['depth_sources'] == {
        'sensor': with_depth['found']}
    assert 'sensor' not in without['depth_sources']
    assert report.values['detector'] == {}
    assert report.sheet.shape == (2 * (180 + 16), 7 * 240, 3)
    groups = {one['group']: one for one in report.values['objects'] if one['mode'] == 'RGB-D'}
    assert groups['all']['found'] == sum(
        one['found'] for name, one in groups.items() if name != 'all')


def test_detector_that_needs_depth_finds_nothing_without(samples):
    report = evaluate_scenes(samples[:1], LIBRARY, {'detector': 'tabletop'})
    assert report.values['failures']['RGB']['scenes'] == 1
    assert 'needs a depth image' in report.values['failures']['RGB']['first']
    assert report.values['detector']['RGB']['recall'] == 0.0
    assert report.values['failures']['RGB-D']['scenes'] == 0
    assert 'RGB: 1 scenes failed' in report.markdown


def test_bad_input_is_told_in_one_line(tmp_path, capsys):
    crops: Path = tmp_path / 'crops'
    shapes = write_shapes(tmp_path / 'shapes', chairs=1, tables=1)
    render_dataset(shapes, None, crops, RenderOptions(samples=1, sky_rays=0, size=32))
    assert 'holds crops, not scenes' in complaint(capsys, 'evaluate', 'scenes', crops)
    assert 'no data set' in complaint(capsys, 'evaluate', 'scenes', tmp_path)


def test_unknown_detectors_and_options_are_refused(samples):
    with pytest.raises(OptionError):
        evaluate_scenes(samples, LIBRARY, {'detector': 'nonsense'})
    with pytest.raises(OptionError):
        evaluate_scenes(samples, LIBRARY, {'tabletop.nonsense': 1})
