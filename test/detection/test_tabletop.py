# SPDX-License-Identifier: Apache-2.0
"""`tabletop` on recorded frames: which objects it finds, apart and whole."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import trimesh
from synthetic import bowl
from synthetic import box
from synthetic import camera_pose
from synthetic import can
from synthetic import tabletop_frame
from trimesh.transformations import rotation_matrix

from img2scene_ros.camera import Camera
from img2scene_ros.detection import bbox_of
from img2scene_ros.detection.clusters import clusters
from img2scene_ros.detection.instance_masks import Segmentation
from img2scene_ros.detection.standing import stands_over
from img2scene_ros.detection.supports import supported
from img2scene_ros.detection.surfaces import heights_above_supports
from img2scene_ros.detection.surfaces import support_numbers
from img2scene_ros.detection.tabletop import TabletopDetector
from img2scene_ros.detection.tabletop import TabletopOptions
from img2scene_ros.errors import InputError
from img2scene_ros.learning.sensors import read_depth
from img2scene_ros.types import Detection
from img2scene_ros.types import Frame

TABLE_FRAMES = ('table_blue_mug', 'table_cracker_box', 'table_green_bowl',
                'table_mustard_bottle', 'table_pepper_can')
# Pixels (u, v) that lie on each object, marked by eye in the pictures.
MARKED = {
    'ycb_1': {
        'drill': [(75, 320), (140, 295), (215, 285)], 'banana': [(160, 390), (225, 445)],
        'cracker box': [(315, 250), (400, 150), (460, 190)],
        'mustard bottle': [(365, 290), (362, 420)], 'soup can': [(440, 290), (430, 350)]},
    'ycb_2': {
        'bleach': [(265, 100), (255, 240)], 'coffee can': [(330, 220), (340, 290)],
        'soup can': [(415, 300), (465, 320)], 'sugar box': [(250, 320), (270, 420)],
        'scissors': [(110, 372), (165, 362)]},
    'ycb_3': {
        'spam': [(220, 240), (180, 300)], 'soup can': [(230, 400), (225, 330)],
        'bowl': [(420, 290), (360, 310), (430, 360)]},
}


def detect(frame: Frame, **options: float) -> list[Detection]:
    """Run the detector on the frame's own support."""
    return TabletopDetector(TabletopOptions(**options)).detect(supported(frame))


def bbox_iou(one: np.ndarray, other: np.ndarray) -> float:
    """Return the intersection over union of two boxes."""
    low, high = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    shared = np.prod(np.maximum(high - low, 0))
    return shared / (np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]) - shared)


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return np.count_nonzero(one & other) / np.count_nonzero(one | other)


@pytest.mark.parametrize('name', TABLE_FRAMES)
def test_one_object_on_the_table(
    name: str, recorded: Callable[[str], Frame], frames_folder: Path,
) -> None:
    """The one object near the camera is found once, with a tight box."""
    frame = recorded(name)
    near = [found for found in detect(frame) if np.nanmedian(frame.depth[found.mask]) < 0.9]
    assert len(near) == 1
    truth = cv2.imread(str(frames_folder / name / 'mask.png'), cv2.IMREAD_UNCHANGED) > 0
    assert bbox_iou(near[0].bbox, bbox_of(truth)) >= 0.85


@pytest.mark.parametrize('name', MARKED)
def test_several_objects_are_found_apart_and_whole(
    name: str, recorded: Callable[[str], Frame],
) -> None:
    """All marks of an object lie in one mask, and that mask holds no other object's marks."""
    found = detect(recorded(name))
    owners = {}
    for label, pixels in MARKED[name].items():
        holding = {i for i, one in enumerate(found) for u, v in pixels if one.mask[v, u]}
        assert len(holding) == 1, f'{label} is in {len(holding)} masks'
        assert all(found[min(holding)].mask[v, u] for u, v in pixels), f'{label} is cut'
        owners[label] = min(holding)
    assert len(set(owners.values())) == len(owners)


@pytest.mark.parametrize('name', ('ycb_2', 'table_green_bowl'))
def test_a_mirrored_picture_gives_the_mirrored_objects(
    name: str, recorded: Callable[[str], Frame],
) -> None:
    """Nothing depends on which side the light or the shadow falls."""
    frame = recorded(name)
    camera = frame.camera
    mirrored = Frame(
        np.ascontiguousarray(frame.color[:, ::-1]),
        type(camera)(camera.width, camera.height, camera.fx, camera.fy,
                     camera.width - 1 - camera.cx, camera.cy),
        np.ascontiguousarray(frame.depth[:, ::-1]))
    ours, theirs = detect(frame), detect(mirrored)
    assert len(ours) == len(theirs)
    for one in ours:
        flipped = one.mask[:, ::-1]
        assert max(iou(flipped, other.mask) for other in theirs) > 0.9


def test_hidden_readings_do_not_lose_objects(recorded: Callable[[str], Frame]) -> None:
    """Holes over 3 % of the depth image, as shiny things make them, part or drop no object."""
    frame = recorded('ycb_3')
    patches = cv2.GaussianBlur(
        np.random.default_rng(1).normal(size=frame.shape), (0, 0), 2.0)
    depth = np.where(patches > 1.8 * patches.std(), np.nan, frame.depth).astype(np.float32)
    assert len(detect(Frame(frame.color, frame.camera, depth))) == 3


def test_low_things_are_found() -> None:
    """A plate of 12 mm height is an object, and its mask covers it."""
    frame, truth = tabletop_frame([box(0.16, 0.12, 0.012)], camera_pose(35, 0.8))
    found = detect(frame)
    assert len(found) == 1
    assert iou(found[0].mask, truth == 1) > 0.8


def test_a_board_that_covers_most_of_the_table_is_no_table() -> None:
    """Of 8 mm: the network tells which of two levels so near each other is bare."""
    frame, truth = tabletop_frame([box(0.3, 0.4, 0.008)], camera_pose(50, 0.5))
    found, = TabletopDetector().detect(supported(frame))
    assert (truth == 1).mean() > 0.4 and iou(found.mask, truth == 1) > 0.85


@pytest.mark.parametrize('bottom, height, stands', [(0.0, 0.22, True), (0.18, 0.02, False)])
def test_what_hides_its_own_foot_stands_on_the_table(
    bottom: float, height: float, stands: bool,
) -> None:
    """A box in front, of whose foot and of the table under it nothing is seen; a plate in air."""
    frame, truth = tabletop_frame(
        [box(0.12, 0.12, height).apply_translation((0.2, 0.02, bottom)),
         can(0.04, 0.1).apply_translation((-0.1, -0.15, 0))], camera_pose(25, 0.45))
    detector = TabletopDetector(TabletopOptions(network='none'))
    detector.network = SimpleNamespace(see=lambda *_: Segmentation(
        (truth > 0).astype(np.float32), truth.astype(np.int32),
        np.zeros((*frame.shape, 2), np.float32)))
    found = detector.detect(supported(frame))
    assert any(iou(one.mask, truth == 1) > 0.9 for one in found) == stands
    assert any(iou(one.mask, truth == 2) > 0.8 for one in found)


def test_furniture_seen_from_afar_is_whole() -> None:
    """Pixels that lie centimetres apart, in steps of the sensor, do not break things up."""
    floor = box(9.0, 9.0, 0.1).apply_translation((0, 0, -0.1))
    cabinets = [box(0.3, 0.5, 0.6).apply_transform(rotation_matrix(turn, (0, 0, 1)))
                .apply_translation((0, y, 0)) for turn, y in ((0.4, -0.8), (0.9, 0.2))]
    camera = Camera(320, 240, 260.0, 260.0, 159.5, 119.5)
    frame, truth = tabletop_frame([*cabinets, floor], camera_pose(15, 3.0), None, camera)
    depth = read_depth(frame.depth, camera, np.random.default_rng(0))
    found = detect(Frame(frame.color, camera, depth))
    assert len(found) == 2
    for index in (1, 2):
        assert max(iou(one.mask, truth == index) for one in found) > 0.7


@pytest.mark.parametrize('seed', range(3))
def test_missing_readings_here_and_there_cost_no_object(seed: int) -> None:
    """A small picture in which every eighth pixel of the objects has no reading."""
    frame, ids = tabletop_frame(
        [can(0.03, 0.1).apply_translation((0, -0.15, 0)),
         box(0.012, 0.16, 0.05),
         bowl(0.06, 0.05).apply_translation((0, 0.2, 0))],
        camera_pose(35.0, 1.0), seed, Camera(320, 240, 300.0, 300.0, 159.5, 119.5))
    depth = frame.depth.copy()
    depth[(ids > 0) & (np.random.default_rng(seed).random(depth.shape) < 0.125)] = np.nan
    found = detect(Frame(frame.color, frame.camera, depth))
    assert len(found) == 3
    for index in (1, 2, 3):
        assert max(iou(one.mask, ids == index) for one in found) > 0.75


def test_inside_and_outside_of_a_bowl_are_one() -> None:
    """A hollow object is one object, whose mask holds its inside."""
    frame, truth = tabletop_frame([bowl(0.08, 0.06)], camera_pose(40, 0.7))
    found = detect(frame)
    assert len(found) == 1
    assert iou(found[0].mask, truth == 1) > 0.85


@pytest.mark.parametrize('width, is_part', [(0.5, True), (0.05, False)])
def test_what_has_no_readings_is_part_of_what_a_network_sees(width: float, is_part: bool) -> None:
    """A black half is; a narrow band at the edge, as a stereo camera's shadow, is not."""
    frame, truth = tabletop_frame([box(0.12, 0.2, 0.12)], camera_pose(35, 0.8))
    columns = np.flatnonzero((truth == 1).any(axis=0))
    hidden = (truth == 1) & (np.arange(640) > columns[0] + (1.0 - width) * len(columns))
    frame = replace(frame, depth=np.where(hidden, np.float32(np.nan), frame.depth))
    height = np.where(hidden, np.nan, 0.1 * (truth == 1))
    seen = Segmentation((truth == 1).astype(np.float32), (truth == 1).astype(np.int32),
                np.full((*frame.shape, 2), 240.0, np.float32))
    labels = clusters(frame, truth == 1, height, 0.006, seen)
    assert len(np.unique(labels[labels > 0])) == 1
    assert ((labels > 0)[hidden].mean() > 0.8) == is_part


def seen_as(instances: np.ndarray) -> Segmentation:
    """Return what a network sees, with the middle of each instance."""
    centers = np.zeros((*instances.shape, 2), np.float32)
    for number in np.unique(instances[instances > 0]):
        centers[instances == number] = np.mean(np.nonzero(instances == number), axis=1)
    return Segmentation((instances > 0).astype(np.float32), instances.astype(np.int32), centers)


def test_what_a_network_sees_as_two_whole_things_stays_two() -> None:
    """However smoothly one surface goes on to the other, and however small one is."""
    frame, truth = tabletop_frame([box(0.12, 0.2, 0.12)], camera_pose(35, 0.8))
    shown = truth == 1
    columns = np.flatnonzero(shown.any(axis=0))
    instances = np.where(shown, 1 + (np.arange(640) > columns[len(columns) * 4 // 5]), 0)
    assert 60 < np.count_nonzero(instances == 2) < 0.3 * np.count_nonzero(shown)
    labels = clusters(frame, shown, 0.1 * shown, 0.006, seen_as(instances))
    assert len(np.unique(labels[labels > 0])) == 2


def test_a_sliver_of_a_third_thing_does_not_join_two() -> None:
    """The network's edges are not exact: between two things it may see a strip of another one."""
    other = box(0.1, 0.1, 0.1).apply_translation((0, 0.35, 0))
    frame, truth = tabletop_frame([box(0.12, 0.2, 0.12), other], camera_pose(35, 0.8))
    columns = np.flatnonzero((truth == 1).any(axis=0))
    apart = np.arange(640) - columns[len(columns) // 2]
    instances = np.where(truth == 1, np.where(np.abs(apart) < 2, 3, 1 + (apart > 0)), 0)
    instances[truth == 2] = 3
    strip = np.count_nonzero((instances == 3) & (truth == 1))
    assert 60 < strip < np.count_nonzero(truth == 2) / 8
    detector = TabletopDetector(TabletopOptions(network='none'))
    detector.network = SimpleNamespace(see=lambda *_: seen_as(instances))
    found = detector.detect(supported(frame))
    assert len(found) == 3
    for thing in (instances == 1, instances == 2, truth == 2):
        assert max(iou(one.mask, thing) for one in found) > 0.9


@pytest.mark.parametrize('azimuth', (25, 40))
@pytest.mark.parametrize('network', (True, False))
def test_a_box_on_a_box_is_two_things_though_a_network_sees_one(
    azimuth: int, network: bool,
) -> None:
    """The surface goes on over both, in a sharp crease; the upper one stands on no support."""
    parts = [box(0.3, 0.22, 0.06), box(0.2, 0.15, 0.06).apply_translation((0, 0, 0.06))]
    frame, truth = tabletop_frame(
        [part.apply_transform(rotation_matrix(np.radians(azimuth), (0, 0, 1)))
         for part in parts], camera_pose(35, 0.8))
    detector = TabletopDetector(TabletopOptions(network='none'))
    if network:
        rows, columns = np.nonzero(truth)
        detector.network = SimpleNamespace(see=lambda *_: Segmentation(
            (truth > 0).astype(np.float32), (truth > 0).astype(np.int32),
            np.full((*frame.shape, 2), (rows.mean(), columns.mean()), np.float32)))
    found = detector.detect(supported(frame))
    assert len(found) == 2
    for number in (1, 2):
        assert max(iou(one.mask, truth == number) for one in found) > 0.8


def test_an_object_cut_by_the_border_is_kept() -> None:
    """The box ends at the picture's border, and no pixel lies beyond."""
    cut = box(0.1, 0.1, 0.1).apply_translation((0, 0.42, 0))
    frame, truth = tabletop_frame([cut], camera_pose(35, 0.8))
    assert (truth[:, 0] == 1).any() or (truth[:, -1] == 1).any()
    found = detect(frame)
    assert len(found) == 1
    assert (found[0].bbox >= 0).all() and (found[0].bbox <= (640, 480, 640, 480)).all()
    assert bbox_iou(found[0].bbox, bbox_of(truth == 1)) > 0.85


def test_a_wall_behind_the_table_is_no_object() -> None:
    """A wall larger than the table is neither support nor object."""
    wall = box(0.02, 3.0, 2.0).apply_translation((-0.9, 0, -0.8))
    frame, _ = tabletop_frame([box(0.08, 0.06, 0.1), wall], camera_pose(25, 0.9))
    found = detect(frame)
    assert len(found) == 1
    assert np.nanmedian(frame.depth[found[0].mask]) < 1.1


def test_options_limit_what_counts() -> None:
    """Greatest number and greatest distance hold."""
    objects = [box(0.06, 0.06, 0.08).apply_translation((0, y, 0)) for y in (-0.2, 0, 0.2)]
    frame, _ = tabletop_frame(objects, camera_pose(35, 0.8))
    assert len(detect(frame)) == 3
    assert len(detect(frame, max_detections=2)) == 2
    assert detect(frame, max_distance=0.4) == []


def test_no_depth_is_one_clear_sentence(recorded: Callable[[str], Frame]) -> None:
    """The error names the detector and the way out."""
    frame = recorded('ycb_1')
    with pytest.raises(InputError, match="'tabletop'.*depth"):
        TabletopDetector().detect(Frame(frame.color, frame.camera))


@pytest.mark.parametrize('value', (0.0, np.nan))
def test_empty_depth_finds_nothing(value: float, recorded: Callable[[str], Frame]) -> None:
    """All-zero and all-NaN depth images hold no object and break nothing."""
    frame = recorded('ycb_1')
    empty = Frame(frame.color, frame.camera, np.full(frame.shape, value, np.float32))
    assert detect(empty) == []


@pytest.mark.slow
def test_recorded_heights(recorded: Callable[[str], Frame], frames_folder: Path) -> None:
    """Nothing below 1 cm is lost at the top: the masks reach the measured height."""
    for name in TABLE_FRAMES:
        frame = recorded(name)
        measured = json.loads((frames_folder / name / 'measured.json').read_text())
        support = supported(frame).support
        mask = detect(frame)[0].mask & np.isfinite(frame.depth)
        height = np.percentile(support.height(frame.points[mask]), 99.5)
        assert height == pytest.approx(measured['height_above_table_m'], abs=0.003)


def test_what_moves_is_found_again(recorded: Callable[[str], Frame]) -> None:
    """A mask follows an object that moves over the table, and new objects are seen at once."""
    detector = TabletopDetector(TabletopOptions(network='none'))
    frame = supported(recorded('ycb_3'))
    before = detector.detect(frame)
    for step in (2, 12):
        moved = replace(frame, color=np.roll(frame.color, step, axis=1),
                        depth=np.roll(frame.depth, step, axis=1))
        after = detector.detect(moved)
        assert len(after) == len(before)
        shifted = [np.roll(one.mask, step, axis=1) for one in before]
        assert all(max(iou(mask, one.mask) for one in after) > 0.9 for mask in shifted)
    without = replace(frame, depth=np.where(before[0].mask, np.nan, frame.depth))
    assert len(detector.detect(without)) < len(before)


@pytest.mark.parametrize('network', ['bundled', 'none'])
@pytest.mark.parametrize('level', ['floor', 'board'])
def test_things_on_every_support_are_found(level: str, network: str) -> None:
    """Things on the floor beside a table, or on a board over it, stand on their own supports."""
    things = [box(0.15, 0.15, 0.15), box(0.1, 0.15, 0.2).apply_translation((0.2, 0.3, 0)),
              box(0.15, 0.1, 0.1).apply_translation((-0.2, -0.3, 0))]
    if level == 'floor':
        pose = camera_pose(45, 2.6)
        things.append(box(0.3, 0.3, 0.25).apply_translation((-0.1, 1.1, -0.7)))
        furniture = [box(8.0, 8.0, 0.1).apply_translation((0, 0, -0.8)),
                     *(box(0.05, 0.05, 0.69).apply_translation((x, y, -0.7))
                       for x in (-0.55, 0.55) for y in (-0.55, 0.55))]
    else:
        pose = camera_pose(38, 1.9)
        things += [can(0.05, 0.15).apply_translation((x, y, 0.42))
                   for x, y in ((-0.41, -0.2), (-0.5, 0.2))]
        furniture = [box(0.25, 1.1, 0.02).apply_translation((-0.45, 0, 0.4))]
    frame, truth = tabletop_frame([*things, *furniture], pose)
    frame = supported(frame)
    assert len(frame.supports) == 2
    found = TabletopDetector(TabletopOptions(network=network)).detect(frame)
    assert sorted(one for mask in found for one in range(1, len(things) + 1)
                  if iou(mask.mask, truth == one) > 0.8) == list(range(1, len(things) + 1))
    assert len(found) == len(things), 'legs are no objects'


def test_legs_below_the_only_support_do_not_stand_on_it() -> None:
    """They are right under it."""
    legs = [box(0.06, 0.06, 0.4).apply_translation((0.56, y, -0.42)) for y in (-0.4, 0.4)]
    frame, truth = tabletop_frame(
        [box(0.1, 0.1, 0.1).apply_translation((0.25, 0, 0)), *legs], camera_pose(25, 1.8))
    frame = supported(frame)
    heights = heights_above_supports(frame, support_numbers(frame))
    for number, share in ((1, 1.0), (2, 0.0), (3, 0.0)):
        pixels = np.nonzero(truth == number)
        assert len(pixels[0]) > 500
        stands = stands_over(frame, heights, np.s_[:, :], pixels)
        assert stands.mean() == pytest.approx(share, abs=0.1), number


def test_the_rim_of_a_tray_is_no_object_around_what_stands_in_it() -> None:
    """As a solid it would cover all that a gripper could reach."""
    rim = trimesh.util.concatenate([
        box(depth, width, 0.03).apply_translation((x, y, 0)) for depth, width, x, y in (
            (0.01, 0.4, 0.15, 0), (0.01, 0.4, -0.15, 0),
            (0.3, 0.01, 0, 0.2), (0.3, 0.01, 0, -0.2))])
    frame, truth = tabletop_frame([rim, can(0.03, 0.08)], camera_pose(50, 0.8))
    for network in ('bundled', 'none'):
        found = TabletopDetector(TabletopOptions(network=network)).detect(supported(frame))
        assert not any(iou(one.mask, truth == 1) > 0.3 for one in found)
        assert any(iou(one.mask, truth == 2) > 0.8 for one in found)
