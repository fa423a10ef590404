# SPDX-License-Identifier: Apache-2.0
"""
`auto` on drawn scenes of known truth, on recorded frames, and where half of it cannot run.

What the model would find is given by hand; that the model itself is run rightly is tested with
`detr`.
"""

import json
import shutil
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Event

import cv2
import huggingface_hub
import numpy as np
import pytest
import trimesh
from checkpoints import LABELS
from checkpoints import NAME
from checkpoints import put_into_cache
from checkpoints import save
from synthetic import bowl
from synthetic import box
from synthetic import camera_pose
from synthetic import can
from synthetic import tabletop_frame

from img2scene_ros import hub
from img2scene_ros.cli import main
from img2scene_ros.detection import auto
from img2scene_ros.detection import bbox_of
from img2scene_ros.detection import coco
from img2scene_ros.detection import detr
from img2scene_ros.detection.auto import AutoDetector
from img2scene_ros.detection.auto import AutoOptions
from img2scene_ros.detection.auto import merged
from img2scene_ros.detection.detr import DetrOptions
from img2scene_ros.detection.supports import supported
from img2scene_ros.detection.tabletop import TabletopDetector
from img2scene_ros.detection.tabletop import TabletopOptions
from img2scene_ros.errors import InputError
from img2scene_ros.errors import MissingDependencyError
from img2scene_ros.pipeline import Pipeline
from img2scene_ros.pipeline import parse_settings
from img2scene_ros.types import Detection
from img2scene_ros.types import Frame

pytestmark = pytest.mark.usefixtures('one_thread')


class View:
    """A frame with its supports, what `tabletop` sees in it, and the truth."""

    def __init__(self, frame: Frame, truth: dict[str, np.ndarray]) -> None:
        self.frame = supported(frame)
        self.clusters = TabletopDetector().detect(self.frame)
        self.truth = truth

    def box(self, name: str, score: float = 0.9) -> Detection:
        """Return what a perfect model says of an object."""
        return Detection(name, score, bbox_of(self.truth[name]))

    def merged(self, *named: Detection) -> list[Detection]:
        """Merge what `tabletop` found with what a model found."""
        return merged(self.clusters, named, self.frame)


def table(**objects: tuple) -> View:
    """Draw named objects, each a mesh and its place on the table."""
    meshes = [mesh.copy().apply_translation((x, y, 0)) for mesh, x, y in objects.values()]
    frame, ids = tabletop_frame(meshes, camera_pose(35, 0.8))
    return View(frame, {name: ids == index for index, name in enumerate(objects, 1)})


@pytest.fixture(scope='module')
def kitchen() -> View:
    """Return a box, a can and a bowl, apart from each other."""
    return table(carton=(box(0.06, 0.09, 0.14), 0.05, -0.17), can=(can(0.035, 0.1), 0.0, 0.0),
                 bowl=(bowl(0.07, 0.06), 0.0, 0.19))


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return np.count_nonzero(one & other) / np.count_nonzero(one | other)


def around(*masks: np.ndarray, label: str = 'dining table', score: float = 0.9) -> Detection:
    return Detection(label, score, bbox_of(np.any(masks, axis=0)))


# What both see, what one of them sees.

def test_what_both_see_is_one_object_with_name_and_mask(kitchen):
    found = kitchen.merged(*map(kitchen.box, kitchen.truth))
    assert sorted(one.label for one in found) == ['bowl', 'can', 'carton']
    for one in found:
        assert iou(one.mask, kitchen.truth[one.label]) > 0.8
        np.testing.assert_array_equal(one.bbox, bbox_of(one.mask))


def test_what_only_depth_sees_is_kept_without_a_name(kitchen):
    found = kitchen.merged(kitchen.box('can'))
    assert sorted(one.label for one in found) == ['can', 'object', 'object']
    named, = (one for one in found if one.label == 'can')
    assert iou(named.mask, kitchen.truth['can']) > 0.8


def test_what_has_no_depth_is_kept_with_a_mask_from_colour(kitchen):
    depth = kitchen.frame.depth.copy()
    depth[cv2.dilate(kitchen.truth['can'].astype(np.uint8), np.ones((9, 9))) > 0] = np.nan
    glass = View(replace(kitchen.frame, depth=depth), kitchen.truth)
    assert len(glass.clusters) == 2
    one, = (one for one in glass.merged(glass.box('can')) if one.label == 'can')
    assert iou(one.mask, kitchen.truth['can']) > 0.8
    np.testing.assert_array_equal(one.bbox, bbox_of(kitchen.truth['can']))


def test_what_does_not_stand_on_the_table_is_kept_with_a_mask_from_depth():
    # Behind the far edge of the table, hanging in the air.
    clock = box(0.2, 0.3, 0.2).apply_translation((-0.85, 0, 0.1))
    view = table(clock=(clock, 0, 0), can=(can(0.035, 0.1), 0, 0))
    assert [iou(one.mask, view.truth['can']) > 0.8 for one in view.clusters] == [True]
    found = {one.label: one for one in view.merged(view.box('clock'), view.box('can'))}
    assert set(found) == {'clock', 'can'}
    assert iou(found['clock'].mask, view.truth['clock']) > 0.8


def test_the_score_is_that_of_the_surer_view(kitchen):
    alone = {one.score for one in kitchen.clusters}
    found = kitchen.merged(kitchen.box('can', 0.55), kitchen.box('bowl', 0.999))
    scores = {one.label: one.score for one in found}
    assert scores['can'] in alone and scores['can'] > 0.55
    assert scores['bowl'] == 0.999


def test_one_object_gets_one_name(kitchen):
    shifted = kitchen.box('can').bbox + (3, -4, 5, 2)
    found = kitchen.merged(kitchen.box('can'), Detection('bottle', 0.6, shifted))
    assert sorted(one.label for one in found) == ['can', 'object', 'object']


def test_masks_of_a_segmenter_match_by_their_pixels(kitchen):
    # The boxes are those of other objects; only the masks tell.
    named = [Detection(name, 0.9, kitchen.box(other).bbox, kitchen.truth[name])
             for name, other in (('can', 'bowl'), ('bowl', 'carton'), ('carton', 'can'))]
    found = kitchen.merged(*named)
    assert len(found) == 3
    assert all(iou(one.mask, kitchen.truth[one.label]) > 0.8 for one in found)


# The support, and boxes around several things.

def test_the_table_that_things_stand_on_is_no_object(kitchen):
    flat = np.abs(kitchen.frame.support.height(kitchen.frame.points)) < 0.003
    for whole in (around(flat), replace(around(flat), mask=flat)):
        found = kitchen.merged(whole, kitchen.box('can'))
        assert sorted(one.label for one in found) == ['can', 'object', 'object']
        assert [iou(one.mask, kitchen.truth['can']) > 0.8 for one in found
                if one.label == 'can'] == [True]


def test_the_table_is_no_object_even_when_little_stands_on_it():
    view = table(can=(can(0.035, 0.1), 0, 0))
    flat = np.abs(view.frame.support.height(view.frame.points)) < 0.003
    assert [one.label for one in view.merged(around(flat))] == ['object']


def test_a_table_that_is_not_the_support_is_an_object():
    view = table(desk=(box(0.35, 0.4, 0.2), 0, 0))
    found, = view.merged(around(view.truth['desk']))
    assert found.label == 'dining table' and iou(found.mask, view.truth['desk']) > 0.8


def test_a_desk_is_no_floor_even_when_its_box_shows_most_of_it():
    top = box(0.5, 1.1, 0.04).apply_translation((0, 0, 0.7))
    legs = [box(0.05, 0.05, 0.7).apply_translation((x, y, 0)) for x in (-0.2, 0.2)
            for y in (-0.5, 0.5)]
    desk = trimesh.util.concatenate([top, *legs])
    desk.apply_transform(trimesh.transformations.rotation_matrix(0.6, (0, 0, 1)))
    frame, ids = tabletop_frame([desk], camera_pose(35, 2.4))
    view = View(frame, {'desk': ids == 1})
    found = view.merged(view.box('desk'))
    assert [iou(one.mask, ids == 1) > 0.8 for one in found if one.label == 'desk'] == [True]


def test_a_tote_is_what_carries_and_no_object():
    """Its walls stand along the rim of its bottom."""
    walls = trimesh.util.concatenate([
        box(depth, width, 0.12).apply_translation((x, y, 0)) for depth, width, x, y in (
            (0.01, 0.6, 0.2, 0), (0.01, 0.6, -0.2, 0), (0.4, 0.01, 0, 0.3), (0.4, 0.01, 0, -0.3))])
    pose = camera_pose(60, 0.9)
    frame, ids = tabletop_frame([walls, can(0.035, 0.1)], pose)
    to_camera = np.linalg.inv(pose)
    corners = np.array([(x, y, 0) for x in (-0.195, 0.195) for y in (-0.295, 0.295)])
    bottom = replace(supported(frame).support,
                     hull=corners @ to_camera[:3, :3].T + to_camera[:3, 3])
    clusters = View(frame, {}).clusters
    found = merged(clusters, [Detection('suitcase', 0.6, bbox_of(ids > 0))],
                   replace(frame, supports=(bottom,)))
    assert 'suitcase' not in [one.label for one in found]


def test_a_box_around_things_that_stand_apart_joins_nothing(kitchen):
    pair = around(kitchen.truth['can'], kitchen.truth['bowl'])
    found = kitchen.merged(pair)
    assert [one.label for one in found] == ['object'] * 3
    assert {one.mask.sum() for one in found} == {one.mask.sum() for one in kitchen.clusters}


def test_things_that_touch_stay_apart_when_each_has_its_box():
    view = table(left=(box(0.08, 0.08, 0.1), 0, -0.041), right=(box(0.08, 0.08, 0.1), 0, 0.041))
    halves = replace_clusters(view, *view.truth.values())
    found = halves.merged(around(*view.truth.values(), label='couch'), view.box('left', 0.6),
                          view.box('right', 0.6))
    assert sorted(one.label for one in found) == ['left', 'right']


def replace_clusters(view: View, *masks: np.ndarray) -> View:
    """Return the view with other clusters, as `tabletop` leaves them where readings lack."""
    other = View(view.frame, view.truth)
    other.clusters = [Detection('object', 0.8, bbox_of(mask), mask) for mask in masks]
    return other


def test_parts_that_touch_and_fill_a_box_together_become_one_object():
    # An armchair of three parts: seat with back, and two arms.
    chair = box(0.2, 0.2, 0.22)
    view = table(chair=(chair, 0, 0), can=(can(0.03, 0.08), 0.1, 0.25))
    columns = np.flatnonzero(view.truth['chair'].any(axis=0))
    first, second = np.percentile(columns, (30, 65)).astype(int)
    parts = []
    for low, high in ((0, first), (first, second), (second, 640)):
        part = view.truth['chair'].copy()
        part[:, :low], part[:, high:] = False, False
        parts.append(part)
    halves = replace_clusters(view, *parts, view.truth['can'])
    assert len(halves.merged()) == 4
    found = {one.label: one for one in halves.merged(halves.box('chair'))}
    assert set(found) == {'chair', 'object'}
    assert iou(found['chair'].mask, view.truth['chair']) > 0.9
    assert iou(found['object'].mask, view.truth['can']) > 0.9


def test_a_glass_whose_stem_has_no_readings_becomes_one_object():
    view = table(glass=(can(0.035, 0.16), 0, 0))
    rows = np.flatnonzero(view.truth['glass'].any(axis=1))
    top, bottom = np.percentile(rows, (30, 88)).astype(int)
    depth = view.frame.depth.copy()
    depth[top:bottom][view.truth['glass'][top:bottom]] = np.nan
    cup, foot = view.truth['glass'].copy(), view.truth['glass'].copy()
    cup[top:], foot[:bottom] = False, False
    broken = replace_clusters(View(replace(view.frame, depth=depth), view.truth), cup, foot)
    found, = broken.merged(broken.box('glass'))
    assert found.label == 'glass' and iou(found.mask, cup | foot) == 1


def test_glints_of_a_glass_are_no_objects_of_their_own():
    """Where colour shows no outline either, its box is all that is known of it."""
    view = table(glass=(can(0.035, 0.16), 0, 0))
    glint = view.truth['glass'].copy()
    glint[np.flatnonzero(glint.any(axis=1))[25]:] = False
    clear = replace(
        view.frame, color=np.full_like(view.frame.color, 128),
        depth=np.where(view.truth['glass'] & ~glint, np.float32(np.nan), view.frame.depth))
    broken = replace_clusters(View(clear, view.truth), glint)
    assert [one.label for one in broken.merged(broken.box('glass'))] == ['glass']


# A poor model must not spoil what depth shows.

@pytest.mark.slow
@pytest.mark.parametrize('name', ['ycb_1', 'ycb_2', 'ycb_3', 'table_green_bowl'])
def test_random_boxes_lose_no_object_and_join_none(name, recorded):
    view = View(recorded(name), {})
    random = np.random.default_rng(5)
    joined = 0
    for _ in range(6):
        corners = np.sort(random.uniform((0, 0), (640, 480), (12, 2, 2)), axis=1)
        found = view.merged(*(
            Detection('nonsense', float(random.uniform(0.5, 1)), one.ravel())
            for one in corners if (one[1] - one[0] > 8).all()))
        masks = [one.mask for one in found if one.mask is not None]
        known = np.any([cluster.mask for cluster in view.clusters], axis=0)
        for cluster in view.clusters:
            holders = [mask for mask in masks if not (cluster.mask & ~mask).any()]
            assert len(holders) == 1
            joined += not np.array_equal(holders[0], cluster.mask)
        assert sum((mask & known).any() for mask in masks) <= len(view.clusters)
    # In ycb_2 three things touch, and one box in a thousand happens to fit them well.
    assert joined <= (3 if name == 'ycb_2' else 0)


@pytest.mark.parametrize('name', ['ycb_1', 'ycb_2', 'ycb_3'])
def test_a_model_that_finds_nothing_changes_nothing(name, recorded):
    view = View(recorded(name), {})
    assert view.merged() == view.clusters


# The two detectors together, and one of them where the other cannot run.

@pytest.fixture(scope='module')
def weights(tmp_path_factory) -> Path:
    """Return a tiny checkpoint that recommends to keep everything."""
    folder = save('rt_detr_v2', tmp_path_factory.mktemp('weights') / 'tiny')
    recommend(folder, score_threshold=0.0, nms_iou=0.5)
    return folder


def recommend(folder: Path, **values: object) -> None:
    path = folder / 'config.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | {'img2scene': values}))


@pytest.fixture
def offline(tmp_path, monkeypatch) -> None:
    """Use an empty cache and cut the network."""
    def refuse(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, 'Name or service not known')

    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_CACHE', str(tmp_path / 'hub'))
    monkeypatch.setattr(socket, 'getaddrinfo', refuse)


@pytest.fixture
def no_weights(monkeypatch) -> None:
    """Let the package lack its weights."""
    def missing(*_: str) -> Path:
        raise MissingDependencyError('there are no weights for it')

    monkeypatch.setattr(coco, 'weights_folder', missing)


@pytest.fixture
def no_transformers(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, 'transformers', None)


@pytest.fixture
def no_torch(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, 'torch', None)


def test_takes_the_bundled_network_when_nothing_was_chosen(offline, recorded, caplog):
    caplog.set_level('INFO')
    detector = AutoDetector()
    assert set(detector.parts) == {'tabletop', 'coco'} and caplog.messages == []
    assert "'coco'" in detector.status and DetrOptions().checkpoint in detector.status
    names = {one.label for one in detector.detect(recorded('table_green_bowl'))}
    assert 'bowl' in names


def test_a_chosen_checkpoint_that_is_nowhere_is_replaced_with_a_sentence(
        offline, recorded, caplog):
    detector = AutoDetector(detr=DetrOptions(checkpoint=NAME))
    line, = caplog.messages
    assert line.endswith(detector.status) and '\n' not in line
    for words in ("the bundled network 'coco', because", NAME, f'hf download {NAME}'):
        assert words in line


def test_takes_the_cached_checkpoint_and_needs_no_words(
        offline, no_weights, weights, tmp_path, caplog):
    caplog.set_level('INFO')
    put_into_cache(weights, tmp_path / 'hub')
    detector = AutoDetector(detr=DetrOptions(checkpoint=NAME))
    assert detector.parts['detr'].options.checkpoint == NAME
    assert (detector.status, caplog.messages) == (f"the checkpoint '{NAME}'", [])


def test_the_usual_checkpoint_is_taken_when_it_is_cached(offline, weights, tmp_path, monkeypatch):
    monkeypatch.setattr(auto, '_USUAL', NAME)
    put_into_cache(weights, tmp_path / 'hub')
    assert set(AutoDetector(detr=DetrOptions(checkpoint=NAME)).parts) == {'tabletop', 'detr'}


def test_no_network_is_asked_for_what_nobody_chose(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_CACHE', str(tmp_path / 'hub'))
    monkeypatch.setattr(socket, 'getaddrinfo', lambda *names, **_: asked.append(names))
    assert 'coco' in AutoDetector().parts and asked == []


def test_a_network_that_swallows_everything_is_not_waited_for(tmp_path, monkeypatch):
    released = Event()
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_CACHE', str(tmp_path / 'hub'))
    monkeypatch.setattr(socket, 'getaddrinfo', lambda *_, **__: released.wait(60))
    monkeypatch.setattr(hub, '_PATIENCE', 0.3)
    try:
        detector = AutoDetector(detr=DetrOptions(checkpoint=NAME))
        assert not released.is_set()
    finally:
        released.set()
    assert "'coco'" in detector.status and 'no answer within' in detector.status


def assert_depth_alone(detector: AutoDetector, frame: Frame, *words: str) -> None:
    """Check that objects come from depth, and that a picture alone is refused in a sentence."""
    frame = supported(frame)
    expected, found = TabletopDetector().detect(frame), detector.detect(frame)
    assert [(one.label, one.score) for one in found] == [
        (one.label, one.score) for one in expected]
    with pytest.raises(InputError) as caught:
        detector.detect(Frame(frame.color, frame.camera))
    for word in ('without a depth image', *words):
        assert word in str(caught.value)
    assert '\n' not in str(caught.value)


def test_without_any_weights_depth_is_enough(offline, no_weights, recorded, caplog):
    detector = AutoDetector()
    line, = caplog.messages
    assert 'depth alone' in line and 'no weights' in line
    assert_depth_alone(detector, recorded('ycb_1'), 'no weights')


def test_without_torch_depth_is_enough(no_torch, recorded, caplog):
    detector = AutoDetector()
    line, = caplog.messages
    assert line.count('pip install torch') == 1
    assert_depth_alone(detector, recorded('ycb_1'), 'pip install torch')


def test_transformers_are_not_needed(no_transformers, recorded):
    assert set(AutoDetector().parts) == {'tabletop', 'coco'}


def test_a_checkpoint_that_is_wrong_is_refused_and_not_replaced(tmp_path):
    with pytest.raises(InputError, match='holds no config.json'):
        AutoDetector(detr=DetrOptions(checkpoint=str(tmp_path)))


def test_a_picture_without_depth_is_left_to_the_model(weights, recorded):
    detector = AutoDetector(detr=DetrOptions(checkpoint=str(weights)))
    frame = Frame(recorded('ycb_1').color, recorded('ycb_1').camera)
    found = detector.detect(frame)
    by_model = detector.parts['detr'].detect(frame)
    assert [(one.label, one.score) for one in found] == [
        (one.label, one.score) for one in by_model] != []


def test_a_simulators_picture_is_shown_to_the_network_of_rendered_scenes(
    weights, recorded, monkeypatch,
):
    """It is asked only where the one of photos finds nothing, and there is no depth."""
    frame = recorded('ycb_1')
    picture = Frame(frame.color, frame.camera)
    expected = detr.DetrDetector(DetrOptions(
        checkpoint='bundled', score_threshold=0.55)).detect(picture)
    detector = AutoDetector()
    assert detector.detect(picture) != []  # what the network of photos knows
    monkeypatch.setattr(detector.parts['coco'], 'detect', lambda *_: [])
    detector.options = AutoOptions(network_every=1)
    assert [(one.label, one.score) for one in detector.detect(picture)] == [
        (one.label, one.score) for one in expected] != []
    frame = supported(frame)
    assert len(detector.detect(frame)) == len(TabletopDetector().detect(frame))


def test_a_name_below_the_threshold_renames_nothing(weights, recorded):
    frame = recorded('ycb_1')
    options = DetrOptions(checkpoint=str(weights), score_threshold=0.999)
    found = AutoDetector(detr=options).detect(supported(frame))
    assert [one.label for one in found] == ['object'] * 5


def test_bundled_can_be_asked_for_by_name(weights, offline, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(detr, 'bundled', lambda name: weights)
    (tmp_path / 'bundled').mkdir()
    monkeypatch.chdir(tmp_path)  # a folder of that name is another thing
    caplog.set_level('INFO')
    detector = AutoDetector(detr=DetrOptions(checkpoint='bundled'))
    assert detector.parts['detr'].options.checkpoint == 'bundled'
    assert caplog.messages == []


# Pictures that stay the same.

class Counting:
    """A network that counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def detect(self, frame: Frame) -> list[Detection]:
        self.asked += 1
        return [Detection('cup', 0.9, np.array([10.0, 10.0, 60.0, 60.0]))]


@pytest.fixture
def counting(offline) -> tuple[AutoDetector, Counting]:
    detector = AutoDetector(AutoOptions(network_every=5))
    detector.parts['coco'] = Counting()
    return detector, detector.parts['coco']


def noisy(frame: Frame, seed: int) -> Frame:
    noise = np.random.default_rng(seed).normal(0.0, 6.0, frame.color.shape)
    return Frame(np.clip(frame.color + noise, 0, 255).astype(np.uint8), frame.camera)


def test_a_model_is_not_asked_again_while_nothing_moves(counting, kitchen):
    detector, model = counting
    for number in range(10):
        found, = detector.detect(noisy(kitchen.frame, number))
        assert found.label == 'cup'
    assert model.asked == 2


def test_a_model_is_asked_at_once_when_something_moves(counting, kitchen):
    detector, model = counting
    moved = np.roll(kitchen.frame.color, 12, axis=1)
    for color in (kitchen.frame.color, moved, moved, kitchen.frame.color):
        detector.detect(Frame(color, kitchen.frame.camera))
    assert model.asked == 3


def test_sureness_that_something_is_there_makes_no_name_surer(kitchen):
    one, = (one for one in kitchen.merged(kitchen.box('can', 0.4)) if one.label == 'can')
    assert one.score > 0.4 and one.hypotheses == (('can', 0.4),)


# What a checkpoint recommends.

def test_a_checkpoint_may_recommend_its_threshold_and_overlap(weights, recorded, tmp_path):
    def scores(**named: float) -> list[float]:
        options = DetrOptions(checkpoint=str(folder), **named)
        return [one.score for one in detr.DetrDetector(options).detect(recorded('ycb_1'))]

    folder = shutil.copytree(weights, tmp_path / 'other')
    everything = scores(score_threshold=0.0, nms_iou=1.0)
    assert scores(nms_iou=1.0) == everything
    assert 0 < len(scores()) < len(everything)
    middle = float(np.median(everything))
    recommend(folder, score_threshold=middle)
    assert scores() == [score for score in everything if score > middle]
    (folder / 'config.json').write_text((folder / 'config.json').read_text().replace(
        '"img2scene"', '"somebody"'))
    assert scores() == [score for score in everything if score > 0.5]


def test_a_recommendation_that_is_no_number_is_one_sentence(weights, tmp_path):
    folder = shutil.copytree(weights, tmp_path / 'odd')
    recommend(folder, score_threshold='high')
    with pytest.raises(InputError, match="'img2scene' in config.json .*odd.*'high'"):
        detr.DetrDetector(DetrOptions(checkpoint=str(folder)))


# Options, the pipeline, the command line, the doctor.

def test_its_parts_take_their_own_options_also_while_running(weights):
    pipeline = Pipeline(*parse_settings({
        'detector': 'auto', 'detr.checkpoint': str(weights), 'tabletop.gap': 0.01}))
    parts = pipeline.detector.parts
    assert parts['tabletop'].options == TabletopOptions(gap=0.01)
    assert parts['detr'].options == DetrOptions(checkpoint=str(weights))
    pipeline.configure({'tabletop.gap': 0.02, 'detr.max_detections': 3})
    assert parts['tabletop'].options.gap == 0.02
    assert parts['detr'].options.max_detections == 3
    assert pipeline.detector_status == f"the checkpoint '{weights}'"


@pytest.mark.slow
def test_the_command_line_reconstructs_a_picture_with_it(weights, frames_folder, tmp_path):
    picture = frames_folder / 'ycb_1/color.png'
    code = main(['reconstruct', str(picture), '--detector', 'auto', '--out', str(tmp_path / 'out'),
                 '--set', f'detr.checkpoint={weights}', '--set', 'detr.max_detections=2',
                 '--reconstructor', 'box'])
    summary = json.loads((tmp_path / 'out/objects.json').read_text())
    assert code == 0 and 1 <= len(summary['objects']) <= 2
    assert {one['label'] for one in summary['objects']} <= set(LABELS.values())


def test_the_doctor_tells_what_it_would_take(offline, weights, tmp_path, capsys):
    what, why = auto.expected()
    assert what == 'tabletop and coco' and f'hf download {DetrOptions().checkpoint}' in why
    what, why = auto.expected(detr=DetrOptions(checkpoint=NAME))
    assert what == 'tabletop and coco' and NAME in why
    put_into_cache(weights, tmp_path / 'hub')
    assert auto.expected(detr=DetrOptions(checkpoint=NAME)) == (f"tabletop and detr '{NAME}'", '')
    assert main(['doctor']) == 0
    assert 'detector auto        tabletop and coco' in capsys.readouterr().out


def test_the_doctor_tells_that_depth_is_alone(offline, no_torch):
    what, why = auto.expected()
    assert what == 'tabletop alone' and 'pip install torch' in why


def test_the_doctor_tells_the_same_as_the_detector(offline, weights, tmp_path):
    run: list[Callable[[], object]] = [lambda: None,
                                       lambda: put_into_cache(weights, tmp_path / 'hub')]
    for prepare in run:
        prepare()
        for checkpoint in (NAME, str(weights), DetrOptions().checkpoint):
            options = DetrOptions(checkpoint=checkpoint)
            parts = AutoDetector(detr=options).parts
            assert auto.expected(detr=options)[0] == (
                f"tabletop and detr '{checkpoint}'" if 'detr' in parts else 'tabletop and coco')
