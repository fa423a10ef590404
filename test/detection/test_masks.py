# SPDX-License-Identifier: Apache-2.0
"""Masks from depth and colour, against drawn scenes and the measured masks of recorded frames."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import trimesh
from synthetic import box
from synthetic import camera_pose
from synthetic import can
from synthetic import tabletop_frame

from img2scene_ros.camera import Camera
from img2scene_ros.detection import bbox_of
from img2scene_ros.detection.masks import held_mask
from img2scene_ros.detection.masks import keep_masks
from img2scene_ros.detection.masks import mask_from_color
from img2scene_ros.detection.masks import mask_from_depth
from img2scene_ros.detection.masks import object_mask
from img2scene_ros.detection.masks import without_background
from img2scene_ros.detection.supports import supported
from img2scene_ros.detection.tabletop import TabletopDetector
from img2scene_ros.detection.tabletop import TabletopOptions
from img2scene_ros.types import Detection
from img2scene_ros.types import Frame


def iou(one: np.ndarray, other: np.ndarray) -> float:
    """Return the intersection over union of two masks."""
    return np.count_nonzero(one & other) / np.count_nonzero(one | other)


def drawn(color: tuple[int, int, int], around: tuple[int, int, int]) -> tuple[Frame, np.ndarray]:
    """Return a noisy picture of a ring-handled disc, and its true mask."""
    mask = np.zeros((480, 640), np.uint8)
    cv2.circle(mask, (300, 240), 80, 1, cv2.FILLED)
    cv2.circle(mask, (400, 240), 40, 1, 12)
    picture = np.where(mask[..., None] > 0, color, around).astype(float)
    picture += np.random.default_rng(0).normal(scale=8, size=picture.shape)
    frame = Frame(np.clip(picture, 0, 255).astype(np.uint8),
                  Camera(640, 480, 500.0, 500.0, 319.5, 239.5))
    return frame, mask > 0


def test_an_object_of_its_own_colour_is_cut_out() -> None:
    """The mask follows the outline and lies in the box; it is the same every time."""
    frame, truth = drawn((180, 60, 40), (90, 110, 100))
    mask = mask_from_color(frame, bbox_of(truth))
    assert iou(mask, truth) > 0.9
    assert not mask[:150].any() and not mask[330:].any()
    np.testing.assert_array_equal(mask, mask_from_color(frame, bbox_of(truth)))


def test_where_colour_tells_nothing_there_is_no_mask() -> None:
    """Neither the colour of the background nor a box without surroundings give a mask."""
    frame, truth = drawn((90, 110, 100), (90, 110, 100))
    assert mask_from_color(frame, bbox_of(truth)) is None
    frame, truth = drawn((180, 60, 40), (90, 110, 100))
    assert mask_from_color(frame, np.array([0.0, 0.0, 640.0, 480.0])) is None
    assert mask_from_color(frame, np.array([300.0, 200.0, 300.2, 200.3])) is None


@pytest.mark.parametrize('name, bottom', [
    ('table_blue_mug', 327), ('table_green_bowl', 330), ('table_mustard_bottle', 344)])
def test_recorded_objects_are_cut_out_better_than_by_their_box(
    name: str, bottom: int, recorded: Callable[[str], Frame], frames_folder: Path,
) -> None:
    """The truth is a mask of the depth image, whose box lacks the foot; that is added here."""
    frame = recorded(name)
    box = json.loads((frames_folder / name / 'measured.json').read_text())['bbox_xyxy']
    box = np.array([*box[:3], bottom], float)
    truth = cv2.imread(str(frames_folder / name / 'mask.png'), cv2.IMREAD_GRAYSCALE) > 0
    filled = np.count_nonzero(truth) / np.prod(box[2:] - box[:2])
    found = iou(mask_from_color(Frame(frame.color, frame.camera), box), truth)
    assert filled < 0.7 and found > 0.8


@pytest.mark.parametrize('too_wide', [0, 2, 3])
@pytest.mark.parametrize('size', [(480, 640), (1200, 1600)])
def test_what_looks_like_the_surroundings_is_no_part_of_the_object(size, too_wide):
    """A red disc on brown boards, in a mask that is some pixels too wide, as from depth."""
    rng = np.random.default_rng(0)
    v, u = np.mgrid[:size[0], :size[1]]
    scale = size[0] / 480
    radius = np.hypot(u - 0.5 * size[1], v - 0.4 * size[0]) / scale
    disc = radius < 80
    boards = 110 + 20 * np.sin(v / 9)[..., None] + np.array([20, 0, -30])
    picture = np.where(disc[..., None], (180, 30, 40), boards) + rng.normal(0, 6, (*size, 1))
    picture = np.clip(picture, 0, 255).astype(np.uint8)
    mask = radius < 80 + too_wide
    trusted = without_background(picture, mask)
    assert not (trusted & ~mask).any()
    assert (trusted & (radius > 81)).sum() < 0.001 * disc.sum()
    assert (trusted & disc).sum() > 0.97 * disc.sum()


def test_thin_and_empty_masks_stay_as_they_are():
    picture = np.full((60, 80, 3), 90, np.uint8)
    thin = np.zeros((60, 80), bool)
    thin[30:33, 5:70] = True
    np.testing.assert_array_equal(without_background(picture, thin), thin)
    for mask in (np.zeros((60, 80), bool), np.ones((60, 80), bool)):
        np.testing.assert_array_equal(without_background(picture, mask), mask)


@pytest.mark.parametrize('side', [-1, 1])
def test_what_leaves_the_box_is_no_part_of_the_object(side):
    """A can before a board, half of it behind a long box: both cross its bbox."""
    low = box(0.06, 0.4, 0.07).apply_translation((0.11, side * 0.2, 0))
    board = box(0.02, 0.9, 0.35).apply_translation((-0.15, 0, 0))
    frame, ids = tabletop_frame([can(0.05, 0.16), low, board], camera_pose(25.0, 0.9))
    truth = ids == 1
    crossing = _inside(bbox_of(truth), ids.shape) & (ids > 1)
    assert np.count_nonzero(crossing) > 0.15 * np.count_nonzero(truth)
    mask = mask_from_depth(supported(frame), bbox_of(truth))
    assert iou(mask, truth) > 0.9 and (mask & crossing).sum() < 0.05 * truth.sum()


def _inside(bbox: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    region = np.zeros(shape, bool)
    xmin, ymin, xmax, ymax = bbox.astype(int)
    region[ymin:ymax, xmin:xmax] = True
    return region


@pytest.mark.parametrize('grey, is_filled', [(15, True), (120, False)])
def test_black_parts_without_readings_belong_to_the_object(grey, is_filled):
    """The lid of a can has readings, its wall has none."""
    frame, ids = tabletop_frame([can(0.06, 0.16)], camera_pose(30.0, 0.8))
    truth = ids == 1
    bbox = bbox_of(truth)
    wall = truth & (np.arange(480)[:, None] > bbox[1] + 0.4 * (bbox[3] - bbox[1]))
    frame = Frame(np.where(wall[..., None], np.uint8(grey), frame.color), frame.camera,
                  np.where(wall, np.nan, frame.depth).astype(np.float32))
    found = iou(mask_from_depth(supported(frame), bbox), truth)
    assert found > 0.9 if is_filled else found < 0.6


def test_thin_parts_belong_to_the_object_and_holes_do_not():
    """A stool on legs that are 2 pixels wide in a small picture, before bright nothing."""
    camera = Camera(320, 240, 300.0, 300.0, 159.5, 119.5)
    legs = [box(0.007, 0.007, 0.2).apply_translation((x, y, 0))
            for x in (-0.07, 0.07) for y in (-0.07, 0.07)]
    seat = box(0.16, 0.16, 0.012).apply_translation((0, 0, 0.2))
    frame, ids = tabletop_frame(
        [trimesh.util.concatenate([*legs, seat])], camera_pose(15.0, 0.9), camera=camera)
    truth = ids == 1
    color = np.where(np.isnan(frame.depth)[..., None], np.uint8(200), frame.color)
    mask = mask_from_depth(
        supported(Frame(color, camera, frame.depth)), bbox_of(truth))
    is_leg = truth & (np.arange(240)[:, None] > bbox_of(truth)[1] + 30)
    assert (mask & is_leg).sum() > 0.7 * is_leg.sum()
    assert iou(mask, truth) > 0.8


@pytest.mark.parametrize('bbox', [
    (700, 100, 800, 200), (-90, -90, -10, -10), (300, 200, 300, 200),
    (300.2, 200.1, 301.3, 201.4)])
def test_boxes_that_hold_no_pixels_give_no_mask(bbox):
    frame, _ = tabletop_frame([can(0.06, 0.16)], camera_pose(30.0, 0.8))
    frame = supported(frame)
    assert mask_from_depth(frame, np.array(bbox, float)) is None
    assert object_mask(frame, np.array(bbox, float)) is None


@pytest.mark.parametrize('unread', ['box', 'object', 'lower part', 'right half'])
@pytest.mark.parametrize('name', [
    'table_blue_mug', 'table_cracker_box', 'table_green_bowl', 'table_mustard_bottle',
    'table_pepper_can'])
def test_recorded_objects_without_readings_are_cut_out_all_the_same(name, unread, recorded):
    """As glass and black plastic: readings are taken away that the frame's own mask has."""
    frame = supported(recorded(name))
    by_depth = TabletopDetector(TabletopOptions(network='none'))
    truth = max((one.mask for one in by_depth.detect(frame)), key=np.count_nonzero)
    rows, columns = np.indices(frame.shape)
    xmin, ymin, xmax, ymax = bbox = bbox_of(truth)
    gone = {'box': _inside(bbox, frame.shape), 'object': truth,
            'lower part': truth & (rows > ymin + 0.4 * (ymax - ymin)),
            'right half': truth & (columns > (xmin + xmax) / 2.0)}[unread]
    without = supported(replace(frame, depth=np.where(gone, np.float32(np.nan), frame.depth)))
    assert iou(object_mask(without, bbox), truth) > (
        0.6 if unread in ('lower part', 'right half') else 0.8)
    whole = object_mask(frame, bbox)
    np.testing.assert_array_equal(whole, mask_from_depth(frame, bbox))


def test_a_mask_is_kept_while_its_box_looks_the_same(recorded: Callable[[str], Frame]) -> None:
    """What moves elsewhere costs nothing; what moves in the box gets another mask."""
    frame = supported(recorded('table_mustard_bottle'))
    bbox = np.array([345.0, 80.0, 494.0, 350.0])
    first, again = (Detection('bottle', 0.9, bbox + shift) for shift in (0.0, 1.0))
    mask = held_mask(frame, first)
    keep_masks([again], [first])
    color = frame.color.copy()
    color[400:, :200] = 255 - color[400:, :200]
    assert held_mask(replace(frame, color=color), again) is mask
    moved = replace(frame, color=np.roll(frame.color, 30, axis=1),
                    depth=np.roll(frame.depth, 30, axis=1))
    assert held_mask(moved, again) is not mask
