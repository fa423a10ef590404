# SPDX-License-Identifier: Apache-2.0
"""The pictures show the objects where they are."""

import numpy as np
import pytest
import trimesh

from img2scene_ros.camera import Camera
from img2scene_ros.detection import bbox_of
from img2scene_ros.rendering.pictures import color_of
from img2scene_ros.rendering.pictures import draw_overlay
from img2scene_ros.rendering.pictures import draw_scene
from img2scene_ros.types import Detection
from img2scene_ros.types import Frame
from img2scene_ros.types import ObjectModel
from img2scene_ros.types import Scene
from img2scene_ros.types import SceneObject
from img2scene_ros.types import SupportPlane

CAMERA = Camera.from_field_of_view(160, 120, 60.0)
GREY, GREEN = 120, (20, 230, 20)
RADIUS, CENTER = 0.1, np.array([0.0, 0.1, 0.8])
TABLE = SupportPlane(
    np.array([0.0, -1.0, 0.0]), 0.2,
    np.array([[-0.4, 0.2, 0.5], [0.4, 0.2, 0.5], [0.4, 0.2, 1.2], [-0.4, 0.2, 1.2]]))


def ball_mask() -> np.ndarray:
    """Return the pixels that show the ball, from the angle of their rays to its centre."""
    rays = CAMERA.rays / np.linalg.norm(CAMERA.rays, axis=-1, keepdims=True)
    cosine = rays @ CENTER / np.linalg.norm(CENTER)
    return cosine > np.sqrt(1 - (RADIUS / np.linalg.norm(CENTER)) ** 2)


def ball(mask: np.ndarray | None, bbox: np.ndarray) -> SceneObject:
    mesh = trimesh.creation.icosphere(3, RADIUS)
    colors = np.full((len(mesh.vertices), 3), GREEN, np.uint8)
    model = ObjectModel(
        mesh.vertices.astype(np.float32), mesh.faces.astype(np.int32), colors, CENTER, np.eye(3),
        'test')
    return SceneObject(
        4, Detection('ball', 0.9, bbox, mask), CENTER, np.eye(3), 0.01 ** 2 * np.eye(6), 'sensor',
        model)


@pytest.fixture
def frame() -> Frame:
    with np.errstate(divide='ignore'):
        table = 0.2 / CAMERA.rays[..., 1]
    depth = np.where((table > 0) & (table < 1.2), table, np.nan).astype(np.float32)
    return Frame(np.full((120, 160, 3), GREY, np.uint8), CAMERA, depth)


@pytest.fixture
def scene(frame: Frame) -> Scene:
    mask = ball_mask()
    return Scene(frame, (ball(mask, bbox_of(mask)),), (TABLE,))


def is_green(picture: np.ndarray) -> np.ndarray:
    red, green, blue = np.moveaxis(picture.astype(int), -1, 0)
    return (green > 60) & (green > 1.5 * red) & (green > 1.5 * blue)


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return (one & other).sum() / (one | other).sum()


def test_overlay_tints_the_mask_and_draws_its_box(frame, scene):
    overlay = draw_overlay(scene)
    assert overlay.shape == frame.color.shape and overlay.dtype == np.uint8
    assert (frame.color == GREY).all(), 'the frame itself is not drawn on'
    mask, changed = ball_mask(), (overlay != GREY).any(axis=-1)
    assert changed[mask].all()
    xmin, ymin, xmax, ymax = bbox_of(mask).astype(int)
    for v, u in ((ymax, (xmin + xmax) // 2), ((ymin + ymax) // 2, xmin)):
        np.testing.assert_allclose(overlay[v, u], color_of(4), atol=40)
    assert not changed[ymax + 3:].any() and not changed[ymin + 2:, :xmin - 3].any()


def test_overlay_writes_the_label_inside_the_picture(frame):
    for corner in ([0, 0, 9, 9], [150, 110, 160, 120], [-5, -5, 170, 130]):
        overlay = draw_overlay(Scene(frame, (ball(None, np.array(corner, float)),)))
        filled = (overlay == color_of(4)).all(axis=-1)
        assert filled.any(axis=1).sum() >= 8, 'a label is a block of the colour'


def test_overlay_labels_of_one_place_do_not_hide_each_other(frame):
    box = np.array([40.0, 60, 90, 90])
    one, two = ball(None, box), ball(None, box)
    alone = draw_overlay(Scene(frame, (one,)))
    both = draw_overlay(Scene(frame, (one, two)))
    blocks = [(picture == color_of(4)).all(axis=-1).sum() for picture in (alone, both)]
    assert blocks[1] > 1.5 * blocks[0]


def test_colors_of_objects_differ():
    colors = np.array([color_of(number) for number in range(1, 13)], int)
    distances = np.abs(colors[:, None] - colors[None]).sum(axis=-1)
    assert distances[~np.eye(len(colors), dtype=bool)].min() > 30


def test_scene_picture_shows_input_camera_view_and_side_view(frame, scene):
    picture = draw_scene(scene)
    height, width = frame.shape
    assert picture.shape[1] == 3 * width
    first, second, third = np.split(picture[-height:], 3, axis=1)
    assert (first[:, :-1] == GREY).all()
    assert iou(is_green(second), ball_mask()) > 0.95
    seen = is_green(third)
    assert 0.02 < seen.mean() < 0.8
    assert not (seen[0].any() or seen[-1].any() or seen[:, 0].any() or seen[:, -2].any()), (
        'the side view frames all objects')


def test_objects_cast_a_shadow_on_the_table(frame, scene):
    height, width = frame.shape
    second = draw_scene(scene)[-height:, width:2 * width]
    under = np.rint(CAMERA.project(np.array([0.06, 0.2, 0.75]))).astype(int)
    far = np.rint(CAMERA.project(np.array([0.35, 0.2, 0.75]))).astype(int)
    assert second[under[1], under[0]].mean() < 0.85 * second[far[1], far[0]].mean()


def test_scene_picture_without_depth_and_without_objects(frame, scene):
    plain = Frame(frame.color, CAMERA)
    assert draw_scene(Scene(plain, scene.objects)).shape[1] == 3 * 160
    assert draw_scene(Scene(plain)).shape[1] == 2 * 160


def test_scene_picture_of_a_camera_that_looks_straight_down(frame, scene):
    down = SupportPlane(
        np.array([0.0, 0.0, -1.0]), 0.9,
        np.array([[-0.4, -0.3, 0.9], [0.4, -0.3, 0.9], [0.4, 0.3, 0.9], [-0.4, 0.3, 0.9]]))
    picture = draw_scene(Scene(frame, scene.objects, (down,)))
    assert is_green(picture[-120:, 320:]).any()


def test_large_pictures_are_scaled_to_a_panel(scene):
    camera = CAMERA.resized(1600, 1200)
    large = Frame(np.full((1200, 1600, 3), GREY, np.uint8), camera)
    picture = draw_scene(Scene(large, scene.objects))
    assert picture.shape[1] == 3 * 640
    assert draw_overlay(Scene(large, scene.objects)).shape == (1200, 1600, 3)
