# SPDX-License-Identifier: Apache-2.0
"""The support plane against the truth of drawn and measured scenes."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import trimesh
from synthetic import CAMERA
from synthetic import box
from synthetic import camera_pose
from synthetic import can
from synthetic import tabletop_frame

from img2scene_ros.camera import Camera
from img2scene_ros.depth import measured
from img2scene_ros.detection.supports import HeldSupport
from img2scene_ros.detection.supports import support_under
from img2scene_ros.detection.supports import supported
from img2scene_ros.learning.sensors import read_depth
from img2scene_ros.pipeline import Pipeline
from img2scene_ros.pipeline import PipelineOptions
from img2scene_ros.types import Frame
from img2scene_ros.types import SupportPlane


def assert_is_plane(support: SupportPlane, pose: np.ndarray, height: float) -> None:
    """Check the plane at a height above the drawn table's coordinates, to 0.5 degrees, 3 mm."""
    to_camera = np.linalg.inv(pose)
    up = to_camera[:3, :3] @ (0, 0, 1)
    point = to_camera[:3, :3] @ (0, 0, height) + to_camera[:3, 3]
    assert support.normal @ up > np.cos(np.radians(0.5))
    assert support.height(point) == pytest.approx(0.0, abs=0.003)


@pytest.mark.parametrize('elevation', (12, 35, 60, 85))
def test_table_from_any_elevation(elevation: float) -> None:
    """The plane is found from nearly level to nearly straight above."""
    pose = camera_pose(elevation, 0.9)
    frame, _ = tabletop_frame([box(0.08, 0.06, 0.1)], pose)
    assert_is_plane(supported(frame).support, pose, 0.0)


def test_table_before_a_larger_floor() -> None:
    """With objects on the table the floor below it is not the support, though it is larger."""
    pose = camera_pose(40, 1.1)
    floor = box(6.0, 6.0, 0.1).apply_translation((0, 0, -0.8))
    things = [box(0.1, 0.1, 0.12), box(0.06, 0.2, 0.2).apply_translation((0.1, 0.25, 0))]
    frame, _ = tabletop_frame([*things, floor], pose)
    assert_is_plane(supported(frame).support, pose, 0.0)


def test_floor_under_a_box() -> None:
    """The top of a box is not the support of the room."""
    pose = camera_pose(35, 1.2)
    crate = box(0.4, 0.5, 0.35)
    frame, _ = tabletop_frame([crate], pose)
    assert_is_plane(supported(frame).support, pose, 0.0)


def test_floor_before_a_bed_that_fills_the_picture() -> None:
    """A large plane that carries nothing is an object's top, and the floor its support."""
    pose = camera_pose(40, 2.4)
    floor = box(9.0, 9.0, 0.1).apply_translation((0, 0, -0.1))
    frame, truth = tabletop_frame([box(2.0, 1.6, 0.45), floor], pose)
    assert (truth == 1).sum() > (truth != 1).sum()
    point = np.linalg.inv(pose)[:3, 3]
    assert supported(frame).support.height(point) == pytest.approx(0.0, abs=0.02)


def test_floor_below_bare_tops_of_two_heights() -> None:
    """However large they are in the picture, what carries nothing is no support."""
    pose = camera_pose(60, 3.0)
    high, low = box(1.0, 0.9, 0.9), box(1.1, 1.2, 0.4).apply_translation((0.1, -1.1, 0))
    floor = box(1.5, 2.7, 0.1).apply_translation((0.05, -0.55, -0.1))
    frame, truth = tabletop_frame([high, low, floor], pose)
    assert (truth == 1).sum() > (truth == 2).sum() > (truth == 3).sum()
    point = np.linalg.inv(pose)[:3, 3]
    assert supported(frame).support.height(point) == pytest.approx(0.0, abs=0.02)


@pytest.mark.parametrize('things', [0, 2])
def test_a_table_with_nothing_on_it_stands_on_the_floor(things: int) -> None:
    """It is furniture, whose legs show what it stands on; with things on it it is the support."""
    pose = camera_pose(45, 3.2)
    top = box(0.8, 1.4, 0.03).apply_translation((0, 0, 0.69))
    legs = [box(0.05, 0.05, 0.69).apply_translation((x, y, 0))
            for x in (-0.3, 0.3) for y in (-0.6, 0.6)]
    carried = [box(0.12, 0.12, 0.2).apply_translation((0.1, y, 0.72)) for y in (-0.3, 0.3)]
    floor = box(9.0, 9.0, 0.1).apply_translation((0, 0, -0.1))
    frame, _ = tabletop_frame([top, *legs, floor, *carried[:things]], pose)
    assert_is_plane(supported(frame).support, pose, 0.72 if things else 0.0)


@pytest.mark.filterwarnings('error')
def test_readings_of_no_depth_are_none() -> None:
    """Zeros, as some programs have them for no reading, neither warn nor move the plane."""
    pose = camera_pose(35, 0.9)
    frame, _ = tabletop_frame([box(0.08, 0.06, 0.1), box(0.3, 0.3, 0.03)], pose)
    depth = measured(frame.depth).copy()
    depth[::3, 100:200] = 0.0
    held = HeldSupport()
    for _ in range(2):
        assert_is_plane(held.find(replace(frame, depth=depth))[0], pose, 0.0)


def test_floor_in_noise_from_afar() -> None:
    """Readings that scatter by centimetres, one pixel from the next, still show a floor."""
    pose = camera_pose(60, 3.8)
    camera = Camera(320, 240, 290.0, 290.0, 159.5, 119.5)
    things = [box(0.5, 0.5, 0.4), box(9.0, 9.0, 0.1).apply_translation((0, 0, -0.1))]
    frame, _ = tabletop_frame(things, pose, None, camera)
    depth = read_depth(frame.depth, camera, np.random.default_rng(0))
    support = supported(Frame(frame.color, camera, depth)).support
    point = np.linalg.inv(pose)[:3, 3]
    assert support.height(point) == pytest.approx(0.0, abs=0.05)


def test_table_before_a_larger_wall() -> None:
    """A wall that fills most of the picture is not the support."""
    pose = camera_pose(10, 0.9)
    wall = box(0.02, 4.0, 3.0).apply_translation((-0.25, 0, -0.5))
    frame, truth = tabletop_frame([box(0.1, 0.1, 0.12), wall], pose)
    assert (truth == 2).sum() > (truth == 0).sum()
    assert_is_plane(supported(frame).support, pose, 0.0)


@pytest.mark.parametrize('name', (
    'table_blue_mug', 'table_cracker_box', 'table_green_bowl', 'table_mustard_bottle',
    'table_pepper_can'))
def test_recorded_tables(
    name: str, recorded: Callable[[str], Frame], frames_folder: Path,
) -> None:
    """The plane is the one that was measured by other means."""
    measured = json.loads((frames_folder / name / 'measured.json').read_text())
    *normal, offset = measured['table_plane_camera']
    support = supported(recorded(name)).support
    assert support.normal @ normal > np.cos(np.radians(0.2))
    assert support.offset == pytest.approx(offset, abs=0.001)


def test_outline_covers_the_table_and_not_the_room() -> None:
    """Points over the seen table count as over it, points beside it do not."""
    pose = camera_pose(45, 1.5)
    frame, _ = tabletop_frame([box(0.1, 0.1, 0.12)], pose)
    support = supported(frame).support
    to_camera = np.linalg.inv(pose)
    points = np.array([(0, 0, 0.1), (0.4, 0.4, 0.2), (0.8, 0, 0.1), (np.nan, 0, 0)])
    over = support.is_over(points @ to_camera[:3, :3].T + to_camera[:3, 3])
    assert over.tolist() == [True, True, False, False]


def test_no_plane_no_support() -> None:
    """Noise in all directions holds no plane."""
    frame, _ = tabletop_frame([], camera_pose(45, 1.0))
    rng = np.random.default_rng(0)
    depth = rng.uniform(0.5, 3.0, frame.shape).astype(np.float32)
    assert supported(Frame(frame.color, frame.camera, depth)).support is None
    assert supported(Frame(frame.color, frame.camera)).support is None


@pytest.mark.parametrize('kind, words', [
    ('bare', ('a support of', 'nothing stands out')),
    ('no plane', ('no plane',)),
    ('no readings', ('0% of the depth image',)),
])
def test_why_there_is_no_object_is_said(kind: str, words: tuple[str, ...]) -> None:
    frame, _ = tabletop_frame([], camera_pose(35, 0.9))
    depth = measured(frame.depth).copy()
    if kind == 'no plane':
        rng = np.random.default_rng(0)
        depth = cv2.resize(rng.uniform(0.5, 2.0, (30, 40)).astype(np.float32), depth.shape[::-1])
    elif kind == 'no readings':
        depth[:] = np.nan
    scene = Pipeline(PipelineOptions(detector='tabletop', reconstructor='box')).run(
        replace(frame, depth=depth))
    assert not scene.objects
    note, = scene.notes
    for word in words:
        assert word in note


def test_a_cup_on_a_book_stands_on_the_table_too() -> None:
    """The top of an object with something on it is not the support."""
    book, cup = box(0.3, 0.35, 0.06), box(0.06, 0.06, 0.1).apply_translation((0, 0, 0.06))
    pose = camera_pose(40, 1.1)
    frame, _ = tabletop_frame([book, cup], pose)
    assert_is_plane(supported(frame).support, pose, 0.0)


@pytest.mark.parametrize('roll', [90, 180, 250])
def test_table_for_a_rolled_camera(roll: float) -> None:
    """Of table and wall the one that carries something is the support, whatever the roll."""
    turn = np.eye(4)
    angle = np.radians(roll)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    pose = camera_pose(35, 0.9) @ turn
    frame, _ = tabletop_frame([box(0.1, 0.08, 0.12)], pose)
    assert_is_plane(supported(frame).support, pose, 0.0)


def test_a_held_table_stays_where_it_is() -> None:
    """From frame to frame the table does not jump, while an object comes and goes."""
    pose, held = camera_pose(35, 0.9), HeldSupport()
    point = np.linalg.inv(pose)[:3, 3]
    heights = []
    for seed in range(40):
        things = [box(0.08, 0.06, 0.1)] if seed % 10 < 5 else []
        frame, _ = tabletop_frame(things, pose, seed, CAMERA.resized(320, 240))
        heights.append(held.find(frame)[0].height(point))
    assert np.ptp(heights) < 0.001
    assert np.abs(heights).max() < 0.003


@pytest.mark.parametrize('elevation, distance', ((60, 0.9), (35, 0.7), (35.5, 0.91)))
def test_a_moved_camera_sees_the_table_where_it_is_now(elevation: float, distance: float) -> None:
    """However far the camera moves, the plane is that of the latest frame."""
    held = HeldSupport()
    for pose in (camera_pose(35, 0.9), camera_pose(elevation, distance)):
        frame, _ = tabletop_frame([box(0.08, 0.06, 0.1)], pose)
        assert_is_plane(held.find(frame)[0], pose, 0.0)


def test_a_table_stays_the_support_while_the_camera_moves() -> None:
    """TF tells where it is now, though nothing stands on it any more, but on the floor."""
    floor, held = box(6.0, 6.0, 0.1).apply_translation((0, 0, -0.8)), HeldSupport()
    crate = box(0.3, 0.4, 0.4).apply_translation((-0.9, 0.3, -0.7))
    things = [box(0.1, 0.1, 0.12), box(0.06, 0.2, 0.2).apply_translation((0.1, 0.25, 0))]
    for pose, seen in ((camera_pose(40, 1.3), things), (camera_pose(48, 1.9), [crate])):
        frame, _ = tabletop_frame([*seen, floor], pose)
        support = held.find(replace(frame, world_from_camera=pose, world_id='map'))[0]
        assert_is_plane(support, pose, 0.0)


def test_a_table_that_comes_before_the_floor_is_found() -> None:
    """What is held is not all there is: another support is found when it fills the picture."""
    pose, held = camera_pose(40, 1.1), HeldSupport()
    floor = box(6.0, 6.0, 0.1).apply_translation((0, 0, -0.8))
    things = [box(0.1, 0.1, 0.12), box(0.06, 0.2, 0.2).apply_translation((0.1, 0.25, 0))]
    bare, _ = tabletop_frame([box(0.3, 0.3, 0.2)], camera_pose(40, 1.9))
    held.find(bare)
    frame, _ = tabletop_frame([*things, floor], pose)
    assert_is_plane(held.find(frame)[0], pose, 0.0)


def test_a_held_plane_is_given_up_when_the_depth_image_shows_none() -> None:
    """Noise in all directions holds no plane, whatever was there before."""
    frame, _ = tabletop_frame([], camera_pose(45, 1.0))
    held = HeldSupport()
    assert held.find(frame)
    depth = np.random.default_rng(0).uniform(0.5, 3.0, frame.shape).astype(np.float32)
    assert not held.find(Frame(frame.color, frame.camera, depth))


def container(length: float, width: float, height: float) -> list[trimesh.Trimesh]:
    """Return the bottom and the walls of a bin that stands on z = 0, metres."""
    wall = 0.01
    sides = [box(length, wall, height).apply_translation((0, side * width / 2, 0))
             for side in (-1, 1)]
    ends = [box(wall, width, height).apply_translation((side * length / 2, 0, 0))
            for side in (-1, 1)]
    return [box(length, width, 0.004), *sides, *ends]


def test_the_bottom_of_a_bin_over_a_larger_floor() -> None:
    """What lies between the walls of a bin on a stool stands on its bottom, not on the floor."""
    pose = camera_pose(55, 1.9)
    stand = [part.apply_translation((0, 0, 0.7)) for part in (
        *container(0.4, 0.3, 0.12), box(0.06, 0.09, 0.07), box(0.1, 0.05, 0.1).apply_translation(
            (0.1, 0.06, 0)), box(0.05, 0.05, 0.08).apply_translation((-0.12, -0.05, 0)))]
    stool = box(0.41, 0.31, 0.7)
    floor = box(6.0, 6.0, 0.1).apply_translation((0, 0, -0.1))
    frame, truth = tabletop_frame([*stand, stool, floor], pose)
    assert (truth == 0).sum() + (truth == len(stand) + 2).sum() > 5 * (truth == 1).sum()
    assert_is_plane(supported(frame).support, pose, 0.704)


def test_a_small_dark_table_over_a_larger_floor() -> None:
    """A table that carries is the support, though every other stripe of it gives no readings."""
    pose = camera_pose(40, 2.2)
    table = box(0.6, 0.6, 0.7)
    things = [box(0.08, 0.08, 0.2).apply_translation((x, y, 0.7))
              for x, y in ((0.1, 0.15), (-0.1, -0.1), (0.15, -0.15))]
    floor = box(6.0, 6.0, 0.1).apply_translation((0, 0, -0.1))
    frame, truth = tabletop_frame([table, *things, floor], pose)
    depth = measured(frame.depth).copy()
    stripes = np.arange(depth.shape[1]) // 20 % 2 == 0
    depth[(truth == 1) & stripes] = np.nan
    assert_is_plane(supported(replace(frame, depth=depth)).support, pose, 0.7)


@pytest.mark.parametrize('roll', [0, 130])
def test_a_book_that_the_border_cuts_is_no_table(roll: float) -> None:
    """A large book with a cup on it lies on the table, of which little is seen."""
    turn = np.eye(4)
    turn[:3, :3] = cv2.Rodrigues(np.array([0.0, 0.0, np.radians(roll)]))[0]
    pose = camera_pose(70, 0.62) @ turn
    book = box(0.3, 0.4, 0.04).apply_translation((0.0, -0.12, 0))
    cup = can(0.035, 0.09).apply_translation((0.05, -0.1, 0.04))
    frame, truth = tabletop_frame([book, cup], pose)
    assert (truth == 1)[[0, -1]].any() or (truth == 1)[:, [0, -1]].any()
    assert_is_plane(supported(frame).support, pose, 0.0)


@pytest.mark.parametrize('roll', [0, 77])
def test_a_camera_that_looks_straight_down(roll: float) -> None:
    """Things on a table seen from above, with floor around it, whatever the roll."""
    turn = np.eye(4)
    turn[:3, :3] = cv2.Rodrigues(np.array([0.0, 0.0, np.radians(roll)]))[0]
    pose = camera_pose(89.5, 1.9) @ turn
    floor = box(6.0, 6.0, 0.1).apply_translation((0, 0, -0.8))
    things = [box(0.1, 0.1, 0.12).apply_translation((0.2, 0.1, 0)),
              box(0.06, 0.2, 0.2).apply_translation((-0.1, 0.25, 0))]
    frame, _ = tabletop_frame([*things, floor], pose)
    assert_is_plane(supported(frame).support, pose, 0.0)


def test_a_shelf_board_before_the_wall_and_over_the_floor() -> None:
    """Of shelf, wall and floor the board that carries is the support, seen nearly level."""
    pose = camera_pose(14, 1.0)
    board = box(0.3, 0.9, 0.03).apply_translation((0, 0, 0.57))
    things = [box(0.08, 0.08, 0.2).apply_translation((0.05, y, 0.6)) for y in (-0.2, 0.1)]
    wall = box(0.02, 4.0, 3.0).apply_translation((-0.17, 0, -0.5))
    floor = box(6.0, 6.0, 0.1).apply_translation((0, 0, -0.1))
    pose[2, 3] += 0.55
    frame, _ = tabletop_frame([board, *things, wall, floor], pose)
    assert_is_plane(supported(frame).support, pose, 0.6)


def test_a_table_and_the_floor_beside_it_both_carry() -> None:
    """The main support comes first, and a thing on the floor stands on the floor."""
    pose = camera_pose(45, 2.6)
    floor = box(8.0, 8.0, 0.1).apply_translation((0, 0, -0.8))
    on_table = [box(0.1, 0.1, 0.12), box(0.1, 0.15, 0.2).apply_translation((0.2, 0.3, 0)),
                box(0.15, 0.1, 0.1).apply_translation((-0.2, -0.3, 0))]
    on_floor = box(0.3, 0.3, 0.25).apply_translation((-0.1, 1.1, -0.7))
    frame, truth = tabletop_frame([*on_table, on_floor, floor], pose)
    table, beneath = HeldSupport().find(frame)
    assert_is_plane(table, pose, 0.0)
    assert_is_plane(beneath, pose, -0.7)
    points = measured(frame.points)
    assert support_under(points[truth == 2], (table, beneath)) is table
    assert support_under(points[truth == 4], (table, beneath)) is beneath
