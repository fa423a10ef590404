"""Masks from colour, against drawn pictures and the measured masks of recorded frames."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from img2scene_ros.camera import Camera
from img2scene_ros.detection import bbox_of
from img2scene_ros.detection.masks import mask_from_color
from img2scene_ros.detection.masks import without_background
from img2scene_ros.frame import Frame


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
