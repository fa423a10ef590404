# SPDX-License-Identifier: Apache-2.0
"""The crop view and its cube against closed forms."""

import numpy as np
import pytest
import trimesh

from img2scene_ros.camera import Camera
from img2scene_ros.detection import bbox_of
from img2scene_ros.errors import InputError
from img2scene_ros.errors import ReconstructionError
from img2scene_ros.models.crop import GEOMETRY
from img2scene_ros.models.crop import anchor_depth
from img2scene_ros.models.crop import check_geometry
from img2scene_ros.models.crop import crop_view
from img2scene_ros.models.crop import cut_crop
from img2scene_ros.models.crop import smallest_rotation
from img2scene_ros.rendering.raycast import Surface
from img2scene_ros.rendering.raycast import render
from img2scene_ros.types import Frame

CAMERA = Camera(320, 240, 300.0, 310.0, 150.0, 125.0)
BENT = Camera(320, 240, 300.0, 310.0, 150.0, 125.0, np.array([-0.25, 0.08, 0.001, 0.002, 0.0]))
SIZE = 96


@pytest.mark.parametrize('ray', ((0.3, -0.2, 1.0), (0.0, 0.0, 2.0), (-0.9, 0.7, 0.5)))
def test_rotation_turns_the_axis_onto_the_ray_by_the_angle_between_them(ray):
    rotation = smallest_rotation(np.array(ray))
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1)
    direction = np.array(ray) / np.linalg.norm(ray)
    np.testing.assert_allclose(rotation @ (0, 0, 1), direction, atol=1e-12)
    # The trace of a rotation is 1 + 2 cos(angle); no rotation that does this turns by less.
    assert np.trace(rotation) == pytest.approx(1 + 2 * direction[2])


def test_field_of_a_box_in_the_middle():
    # The optical axis runs through the centre of pixel (150, 125), half a pixel from its edges.
    view = crop_view(CAMERA, np.array([120.5, 110, 180.5, 141]))
    np.testing.assert_allclose(view.rotation, np.eye(3), atol=1e-12)
    assert view.half_field == pytest.approx(1.2 * 30 / 300)


@pytest.mark.parametrize('camera', (CAMERA, BENT))
def test_box_lies_in_the_middle_of_the_crop(camera):
    box = np.array([230.0, 20, 300, 66])
    virtual = crop_view(camera, box)
    corners = camera.rays_at([(x - 0.5, y - 0.5) for x in box[::2] for y in box[1::2]])
    seen = virtual.camera(SIZE).project(corners @ virtual.rotation)
    middle = virtual.camera(SIZE).project(camera.rays_at([264.5, 42.5]) @ virtual.rotation)
    assert middle == pytest.approx(((SIZE - 1) / 2,) * 2)
    reach = np.abs(seen - (SIZE - 1) / 2).max()
    assert reach == pytest.approx(SIZE / 2 / 1.2), 'the box takes 1/1.2 of the crop'


def test_cube_is_as_wide_as_the_crop_at_the_anchor():
    view = crop_view(CAMERA, np.array([20.0, 30, 90, 130]))
    cube = view.cube(0.8)
    edge = np.array([[-cube.side / 2, 0, 0.8], [0, cube.side / 2, 0.8]])
    np.testing.assert_allclose(
        view.camera(SIZE).project(edge), [[-0.5, (SIZE - 1) / 2], [(SIZE - 1) / 2, SIZE - 0.5]])
    assert cube.depth > 0.8 > cube.depth - cube.side / 2, 'the anchor is in its front half'


def test_cells_of_the_cube():
    cube = crop_view(CAMERA, np.array([20.0, 30, 90, 130])).cube(0.8)
    centers = cube.centers(4)
    assert centers.shape == (4, 4, 4, 3)
    np.testing.assert_allclose(centers.mean(axis=(0, 1, 2)), (0, 0, cube.depth), atol=1e-12)
    np.testing.assert_allclose(
        centers[3, 0, 2], cube.side / 8 * np.array([1, -3, 3]) + (0, 0, cube.depth))
    np.testing.assert_allclose(
        trimesh.transform_points(centers.reshape(-1, 3), cube.to_cells(4)),
        np.argwhere(np.ones((4, 4, 4))), atol=1e-9)


@pytest.mark.parametrize('camera', (CAMERA, BENT))
@pytest.mark.parametrize('distance', (0.5, 1.6))
def test_crop_is_what_the_virtual_camera_would_see(camera, distance):
    ball = trimesh.creation.icosphere(4, 0.1)
    ball.apply_translation(np.array([0.3, -0.22, 1.0]) * distance)
    shades = np.where(ball.vertices[:, :1] > 0.3 * distance, (220, 60, 60), (60, 60, 220))
    surface = Surface(ball.vertices, ball.faces, shades, 1)
    seen = render([surface], camera)
    mask = seen.ids == 1
    crop = cut_crop(Frame(seen.color, camera, seen.depth), bbox_of(mask), mask, SIZE)
    pose = np.eye(4)
    pose[:3, :3] = crop.view.rotation
    truth = render([surface], crop.view.camera(SIZE), pose)
    there = truth.ids == 1
    assert (crop.mask & there).sum() / (crop.mask | there).sum() > 0.94
    inner = crop.mask & there & np.isfinite(crop.depth)
    assert np.median(np.abs(crop.depth - truth.depth)[inner]) < 0.002
    assert np.median(np.abs(crop.color.astype(int) - truth.color)[inner]) < 8
    assert crop.anchor == pytest.approx(np.median(truth.depth[there]), abs=0.004)


def test_what_lies_beyond_the_picture_is_black_and_without_depth():
    color = np.full((240, 320, 3), 200, np.uint8)
    frame = Frame(color, CAMERA, np.full((240, 320), 1.0, np.float32))
    crop = cut_crop(frame, np.array([0.0, 80, 60, 140]), None, SIZE)
    assert not crop.color[:, 0].any() and np.isnan(crop.depth[:, 0]).all()
    assert not crop.mask[:, 0].any()
    assert (crop.color[:, -1] == 200).all() and np.isfinite(crop.depth[:, -1]).all()
    sides = CAMERA.rays_at([(-0.5, 110), (59.5, 110)]) @ crop.view.rotation
    width = np.ptp(crop.view.camera(SIZE).project(sides)[:, 0])
    assert crop.mask[SIZE // 2].sum() == pytest.approx(width, abs=1), 'the box is the mask'


def test_a_box_covers_the_pixels_whose_centres_lie_in_it():
    frame = Frame(np.zeros((240, 320, 3), np.uint8), CAMERA)
    box = np.array([100.4, 80.4, 160.4, 140.4])
    mask = np.zeros((240, 320), bool)
    mask[80:140, 100:160] = True
    np.testing.assert_array_equal(
        cut_crop(frame, box, None, SIZE).mask, cut_crop(frame, box, mask, SIZE).mask)


def test_without_a_reading_there_is_no_anchor():
    frame = Frame(np.zeros((240, 320, 3), np.uint8), CAMERA)
    assert cut_crop(frame, np.array([50.0, 80, 90, 140]), None, SIZE).anchor is None
    assert anchor_depth(np.full((4, 4), np.nan), np.ones((4, 4), bool)) is None
    depth = np.array([[1.0, 2.0], [np.nan, 9.0]])
    assert anchor_depth(depth, np.array([[True, True], [True, False]])) == 1.5


def test_empty_box_is_one_clear_sentence():
    with pytest.raises(ReconstructionError, match='empty'):
        crop_view(CAMERA, np.array([50.0, 80, 50, 140]))


def test_other_geometry_is_refused() -> None:
    """Data and weights for other crops are named, not used."""
    check_geometry(dict(GEOMETRY), 'RUN/config.json')
    for other in (None, GEOMETRY | {'margin': GEOMETRY['margin'] + 0.1}):
        with pytest.raises(InputError, match="'RUN/config.json' was made for other crops"):
            check_geometry(other, 'RUN/config.json')
