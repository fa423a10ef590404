# SPDX-License-Identifier: Apache-2.0
"""
Released weights give the results that are known of them.

Runs where IMG2SCENE_CHECKPOINTS names a folder as `scripts/download_checkpoints.sh` makes it. What
is in the picture, COCO val2017 000000039769, are COCO's annotations.
"""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from img2scene_ros.detection import box_iou
from img2scene_ros.io.frames import load_frame
from img2scene_ros.io.photos import load_photo
from img2scene_ros.pipeline import Pipeline
from img2scene_ros.pipeline import parse_settings
from img2scene_ros.types import Detection
from img2scene_ros.types import Frame
from img2scene_ros.types import Scene

CHECKPOINTS = os.environ.get('IMG2SCENE_CHECKPOINTS', '')
PICTURE = 'cats_remotes.jpg'
CATS = np.array([[13.2, 52.7, 313.8, 471.0], [345.3, 24.0, 638.9, 368.0]])
REMOTES = np.array([[40.3, 71.4, 175.5, 117.9], [333.6, 75.8, 370.3, 187.2]])
FRAMES = Path(__file__).parents[2] / 'data' / 'frames'

pytestmark = pytest.mark.skipif(
    not CHECKPOINTS, reason='IMG2SCENE_CHECKPOINTS names no folder with released checkpoints')


def folder(name: str) -> str:
    """Return a checkpoint's folder; the test is skipped where it was not downloaded."""
    found = Path(CHECKPOINTS) / name
    if not found.exists():
        pytest.skip(f"'{CHECKPOINTS}' has no {name}")
    return str(found)


def picture() -> Frame:
    return load_photo(Path(folder(PICTURE))).frame


def scene_of(frame: Frame, settings: dict[str, object]) -> Scene:
    return Pipeline(*parse_settings(settings)).run(frame)


@pytest.mark.parametrize('name', [
    'detr-resnet-50', 'rtdetr_v2_r18vd', 'dfine-small-coco', 'rf-detr-seg-small'])
def test_detector_finds_two_cats_and_two_remotes(name: str) -> None:
    pipeline = Pipeline(*parse_settings({'detector': 'detr', 'detr.checkpoint': folder(name)}))
    found = pipeline.detector.detect(picture())
    for label, annotated in (('cat', CATS), ('remote', REMOTES)):
        boxes = np.array([one.bbox for one in found if one.label == label])
        assert len(boxes) == 2, f'{len(boxes)} x {label}'
        assert (box_iou(annotated, boxes).max(axis=1) > 0.75).all(), label
    assert {one.label for one in found} <= {'cat', 'remote', 'couch', 'bed'}


def test_masks_of_the_detector_keep_to_one_cat() -> None:
    pipeline = Pipeline(*parse_settings(
        {'detector': 'detr', 'detr.checkpoint': folder('rf-detr-seg-small')}))
    cats = [one for one in pipeline.detector.detect(picture()) if one.label == 'cat']
    assert len(cats) == 2 and not (cats[0].mask & cats[1].mask).any()
    for cat in cats:
        left, top, right, bottom = cat.bbox
        assert 0.4 < np.count_nonzero(cat.mask) / ((right - left) * (bottom - top)) < 0.9


def test_segmenter_cuts_a_mug_out_of_its_box() -> None:
    frame, mask = mug()
    rows, columns = np.nonzero(mask)
    bbox = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], float)
    pipeline = Pipeline(*parse_settings({'segmenter': folder('sam2.1-hiera-tiny')}))
    found = pipeline.segmenter.masks(
        Frame(frame.color, frame.camera), [Detection('cup', 1.0, bbox)])[0]
    assert np.count_nonzero(found & mask) / np.count_nonzero(found | mask) > 0.9


def test_metric_depth_of_a_table_is_right_within_a_third() -> None:
    frame, mask = mug()
    rows, columns = np.nonzero(mask)
    bbox = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], float)
    pipeline = Pipeline(*parse_settings({
        'distance': 'monocular',
        'monocular.checkpoint': folder('Depth-Anything-V2-Metric-Indoor-Small-hf')}))
    placement = pipeline.distances['monocular'].place(
        Frame(frame.color, frame.camera), Detection('cup', 1.0, bbox, mask), None)
    measured = float(np.nanmedian(frame.depth[mask]))
    assert abs(placement.position[2] - measured) < measured / 3


def test_triposr_rebuilds_a_mug() -> None:
    frame, _ = mug()
    scene = scene_of(frame, {
        'detector': 'tabletop', 'reconstructor': 'triposr',
        'triposr.checkpoint': folder('TripoSR')})
    model = max(scene.objects, key=lambda one: len(one.model.faces)).model
    assert model.reconstructor == 'triposr'
    assert model.fit.silhouette_iou > 0.85


def mug() -> tuple[Frame, np.ndarray]:
    """Return the recorded frame of a mug on a table, and the mug's mask."""
    name = FRAMES / 'table_blue_mug'
    return load_frame(name), cv2.imread(str(name / 'mask.png'), cv2.IMREAD_GRAYSCALE) > 0
