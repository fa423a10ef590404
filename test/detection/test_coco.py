# SPDX-License-Identifier: Apache-2.0
"""The `coco` detector on recorded frames whose things are known; tiles; what can be wrong."""

import json
import shutil

import cv2
import numpy as np
import pytest
import torch

from img2scene_ros.camera import Camera
from img2scene_ros.detection import bbox_of
from img2scene_ros.detection import box_iou
from img2scene_ros.detection.coco import CocoDetector
from img2scene_ros.detection.coco import CocoOptions
from img2scene_ros.detection.coco import tile_windows
from img2scene_ros.errors import InputError
from img2scene_ros.errors import MissingDependencyError
from img2scene_ros.errors import OptionError
from img2scene_ros.types import Frame
from img2scene_ros.weights import bundled

pytestmark = pytest.mark.usefixtures('one_thread')


@pytest.fixture(scope='module')
def detector():
    """Return a detector whose options a test may replace."""
    return CocoDetector()


@pytest.fixture(autouse=True)
def usual_options(detector):
    yield
    detector.options = CocoOptions()


def frame_of(color: np.ndarray) -> Frame:
    height, width = color.shape[:2]
    return Frame(color, Camera(width, height, 500.0, 500.0, width / 2, height / 2))


def found(detections, label, box, least_iou=0.5):
    """Tell how many detections have that name and place."""
    return sum(one.label == label and box_iou(one.bbox[None], np.array([box], float))[0, 0]
               > least_iou for one in detections)


def mug_box(frames_folder):
    """Return where the depth image shows the mug."""
    return bbox_of(cv2.imread(str(frames_folder / 'table_blue_mug/mask.png'), 0) > 0)


def test_mug_is_a_cup(detector, recorded, frames_folder):
    detections = detector.detect(recorded('table_blue_mug'))
    assert found(detections, 'cup', mug_box(frames_folder), 0.8) == 1
    scores = [one.score for one in detections]
    assert scores == sorted(scores, reverse=True) and scores[-1] >= 0.25
    assert all(one.mask is None for one in detections)


def test_boxes_are_where_the_things_are_in_pictures_of_any_shape(
        detector, recorded, frames_folder):
    """The picture's lower half only, and twice as large: the box is cut and grows with it."""
    frame = recorded('table_blue_mug')
    part = cv2.resize(frame.color[100:], None, fx=2, fy=2)
    left, top, right, bottom = mug_box(frames_folder)
    box = 2.0 * np.array([left, top - 100, right, bottom - 100])
    assert found(detector.detect(frame_of(part)), 'cup', box, 0.8) == 1


def test_tiles_find_the_banana_and_the_mug_once(detector, recorded, frames_folder):
    banana = 137, 345, 269, 476  # annotated by hand
    detector.options = CocoOptions(score_threshold=0.5)
    assert not found(detector.detect(recorded('ycb_1')), 'banana', banana)
    detector.options = CocoOptions(score_threshold=0.5, tiles=5)
    assert found(detector.detect(recorded('ycb_1')), 'banana', banana) == 1
    mugs = detector.detect(recorded('table_blue_mug'))
    assert found(mugs, 'cup', mug_box(frames_folder), 0.2) == 1


@pytest.mark.parametrize(('box', 'windows'), (
    ((0.4, 0.4, 0.6, 0.6), (0, 1, 2, 3, 4)),  # small and whole
    ((0.1, 0.1, 0.9, 0.9), (0,)),  # large: in a tile it is a part of something
    ((0.0, 0.4, 0.2, 0.6), (0, 1, 3)),  # cut by the left border, which is the picture's in these
    ((0.4, 0.7, 0.6, 1.1), (0, 3, 4)),  # cut by the lower one
), ids=('small', 'large', 'left', 'lower'))
def test_boxes_of_tiles_count_where_they_are_whole_things(detector, monkeypatch, box, windows):
    """The network is replaced by one that sees the same box in everything that it looks at."""
    def seeing(pictures):
        scores = torch.zeros(len(pictures), 1, 80)
        scores[..., 41] = 0.9
        return torch.tensor(box).expand(len(pictures), 1, 4), scores

    monkeypatch.setattr(detector._network, 'forward', seeing)
    detector.options = CocoOptions(tiles=5)
    found = detector.detect(frame_of(np.zeros((400, 600, 3), np.uint8)))
    assert {one.label for one in found} == {'cup'}
    all_windows = tile_windows((400, 600), 5)
    corners = np.array([all_windows[index] for index in windows], float)
    extents = np.tile(corners[:, 2:] - corners[:, :2], 2)
    expected = np.tile(corners[:, :2], 2) + np.clip(box, 0.0, 1.0) * extents
    np.testing.assert_allclose(sorted(map(tuple, (one.bbox for one in found))),
                               sorted(map(tuple, expected)), atol=1e-3)


@pytest.mark.parametrize('budget', (1, 2, 5, 9, 10, 26))
@pytest.mark.parametrize('shape', ((480, 640), (75, 1000), (1, 1), (33, 32)))
def test_windows_keep_to_the_budget_and_cover_the_picture(budget, shape):
    windows = tile_windows(shape, budget)
    assert windows[0] == (0, 0, shape[1], shape[0]) and len(windows) <= budget
    seen = np.zeros(shape, bool)
    for xmin, ymin, xmax, ymax in windows[1:]:
        assert 0 <= xmin < xmax <= shape[1] and 0 <= ymin < ymax <= shape[0]
        seen[ymin:ymax, xmin:xmax] = True
    assert len(windows) == 1 or seen.all()


def test_more_tiles_are_smaller():
    assert len(tile_windows((480, 640), 5)) == 5 and len(tile_windows((480, 640), 10)) == 10
    assert tile_windows((480, 640), 10)[1][2] < tile_windows((480, 640), 5)[1][2] < 640


def test_hypotheses_are_the_names_of_the_box_best_first(detector, recorded):
    detector.options = CocoOptions(score_threshold=0.05)
    detections = detector.detect(recorded('ycb_1'))
    for one in detections:
        names, scores = zip(*one.hypotheses)
        assert (names[0], scores[0]) == (one.label, one.score)
        assert list(scores) == sorted(scores, reverse=True) and len(set(names)) == len(names)
        assert set(names) <= set(detector.names)
    assert any(len(one.hypotheses) > 1 for one in detections)


def test_options_count_at_the_next_frame(detector, recorded):
    frame = recorded('ycb_1')
    detector.options = CocoOptions(score_threshold=0.05)
    many = detector.detect(frame)
    detector.options = CocoOptions(score_threshold=0.05, max_detections=2)
    assert [one.label for one in detector.detect(frame)] == [one.label for one in many[:2]]
    detector.options = CocoOptions(score_threshold=0.05, labels=('bottle', 'banana'))
    few = detector.detect(frame)
    assert {one.label for one in few} == {'bottle', 'banana'}
    assert {name for one in few for name, _ in one.hypotheses} <= {'bottle', 'banana'}
    detector.options = CocoOptions(score_threshold=1.0)
    assert detector.detect(frame) == []


@pytest.mark.parametrize('shape', ((1, 1, 3), (3, 700, 3)))
def test_tiny_pictures_are_no_trouble(detector, shape):
    detector.options = CocoOptions(score_threshold=0.0, tiles=26)
    height, width = shape[:2]
    for one in detector.detect(frame_of(np.zeros(shape, np.uint8))):
        assert (one.bbox >= 0).all() and (one.bbox[2:] <= (width, height)).all()


def test_unknown_label_is_refused(detector):
    with pytest.raises(OptionError, match='labels.*teapot'):
        detector.options = CocoOptions(labels=('cup', 'teapot'))


@pytest.fixture
def copied(tmp_path):
    """Return a copy of the bundled weights, to be broken."""
    return shutil.copytree(bundled('coco'), tmp_path / 'weights')


def test_broken_weights_are_named(copied):
    file = copied / 'model.safetensors'
    file.write_bytes(file.read_bytes()[:100000])
    with pytest.raises(InputError, match='model.safetensors'):
        CocoDetector(CocoOptions(weights=str(copied)))


def test_weights_of_another_network_are_refused(copied):
    with pytest.raises(InputError, match='frustum-unet'):
        CocoDetector(CocoOptions(weights=str(bundled('voxel'))))
    shutil.copy(bundled('voxel') / 'model.safetensors', copied)
    with pytest.raises(InputError, match='model.safetensors.*another network'):
        CocoDetector(CocoOptions(weights=str(copied)))
    with pytest.raises(InputError, match=r'config\.json'):
        CocoDetector(CocoOptions(weights=str(bundled('detector'))))


@pytest.mark.parametrize('change', (
    lambda names: names[:-1], lambda names: [*names, 'teapot'], lambda names: None,
    lambda names: dict.fromkeys(names, 1), lambda names: [*names[:-1], names[0]],
    lambda names: [*names[:-1], 7],
), ids=('short', 'long', 'missing', 'not a list', 'twice', 'not a text'))
def test_class_list_that_does_not_fit_is_refused(copied, change):
    file = copied / 'config.json'
    config = json.loads(file.read_text())
    config['classes'] = change(config['classes'])
    file.write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"config\.json.*'classes'|'classes'.*config\.json"):
        CocoDetector(CocoOptions(weights=str(copied)))


def test_missing_weights_and_packages_are_named(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=str(tmp_path)):
        CocoDetector(CocoOptions(weights=str(tmp_path)))
    with pytest.raises(OptionError, match='device'):
        CocoDetector(CocoOptions(device='abacus'))
    monkeypatch.setattr('img2scene_ros.packages.find_spec', lambda name: None)
    with pytest.raises(MissingDependencyError, match='torch'):
        CocoDetector()


def test_lack_of_memory_is_an_input_error(detector, recorded, monkeypatch):
    def failing(pictures):
        raise RuntimeError('CUDA out of memory. Tried ...')

    monkeypatch.setattr(detector._network, 'forward', failing)
    with pytest.raises(InputError, match='out of memory.*tiles'):
        detector.detect(recorded('ycb_1'))
