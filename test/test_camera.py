# SPDX-License-Identifier: Apache-2.0
"""The camera model against OpenCV's own projection, image_geometry's formulas and real pixels."""

import cv2
import numpy as np
import pytest

from img2scene_ros.camera import Camera
from img2scene_ros.camera import sampled
from img2scene_ros.errors import InputError

K = np.array([[420.0, 0, 318.3], [0, 431.0, 243.9], [0, 0, 1]])
LENSES = {
    'plumb_bob': [-0.21, 0.06, 0.0012, -0.0007, -0.01],
    'rational_polynomial': [0.6, -2.7, 0.0006, -0.0003, 1.6, 0.48, -2.5, 1.5],
    'equidistant': [-0.01, 0.03, -0.02, 0.004],
}


def camera(model: str = 'plumb_bob', distortion: list[float] = ()) -> Camera:
    return Camera.from_calibration(640, 480, K, distortion, model)


def points_in_view(count: int = 500) -> np.ndarray:
    random = np.random.default_rng(0)
    z = random.uniform(0.2, 5.0, count)
    plane = random.uniform(-0.6, 0.6, (count, 2))
    return np.column_stack([plane * z[:, None], z])


@pytest.mark.parametrize('model', ['plumb_bob', 'rational_polynomial'])
def test_projects_like_opencv(model):
    points = points_in_view()
    expected, _ = cv2.projectPoints(
        points, np.zeros(3), np.zeros(3), K, np.array(LENSES[model]))
    pixels = camera(model, LENSES[model]).project(points)
    np.testing.assert_allclose(pixels, expected[:, 0], atol=1e-8)


def test_projects_like_opencv_through_a_fisheye_lens():
    points = points_in_view()
    expected, _ = cv2.fisheye.projectPoints(
        points[:, None], np.zeros(3), np.zeros(3), K, np.array(LENSES['equidistant']))
    pixels = camera('equidistant', LENSES['equidistant']).project(points)
    np.testing.assert_allclose(pixels, expected[:, 0], atol=1e-8)


def test_projects_like_a_pinhole_without_distortion():
    points = points_in_view()
    homogeneous = points @ K.T
    np.testing.assert_allclose(camera().project(points), homogeneous[:, :2] / homogeneous[:, 2:])


def test_ignores_the_fifth_coefficient_that_drivers_send_for_a_fisheye_lens():
    points = points_in_view()
    four = camera('equidistant', LENSES['equidistant'])
    five = camera('equidistant', [*LENSES['equidistant'], 0.0])
    np.testing.assert_array_equal(four.project(points), five.project(points))


@pytest.mark.parametrize('model', LENSES)
def test_unprojects_what_it_projects(model):
    lens = camera(model, LENSES[model])
    points = points_in_view()
    found = lens.unproject(lens.project(points), points[:, 2])
    np.testing.assert_allclose(found, points, atol=1e-6)


@pytest.mark.parametrize('model', LENSES)
def test_the_ray_of_every_pixel_leads_back_to_it(model):
    lens = camera(model, LENSES[model])
    v, u = np.mgrid[:480, :640]
    assert lens.rays.shape == (480, 640, 3)
    np.testing.assert_array_equal(lens.rays[..., 2], 1)
    np.testing.assert_allclose(lens.project(lens.rays), np.stack([u, v], axis=-1), atol=1e-3)


def test_pixels_that_no_ray_reaches_have_no_ray():
    # An ideal fisheye lens of 100 pixels per radian sees the half space within 157 pixels; its
    # pixels beyond have no ray with z = 1.
    lens = Camera(640, 480, 100.0, 100.0, 320.0, 240.0, np.full(4, 1e-12), 'equidistant')
    outside = np.array([[320 + 170, 240], [320, 240 - 200], [0, 0]])
    assert np.isnan(lens.rays_at(outside)[:, :2]).all()
    inside = lens.rays_at(np.array([320 + 100.0, 240]))
    np.testing.assert_allclose(inside, (np.tan(1.0), 0, 1), atol=1e-6)


@pytest.mark.parametrize('model', LENSES)
def test_points_that_are_not_in_front_of_the_camera_have_no_pixel(model):
    lens = camera(model, LENSES[model])
    pixels = lens.project(np.array([[0, 0, -1.0], [0.1, 0, 0], [0, 0, 1.0]]))
    assert np.isnan(pixels[:2]).all()
    np.testing.assert_allclose(pixels[2], (318.3, 243.9))


@pytest.mark.parametrize('model', LENSES)
def test_takes_any_number_of_points(model):
    lens = camera(model, LENSES[model])
    for shape in [(), (0,), (4,), (2, 3)]:
        pixels = lens.project(np.ones((*shape, 3)))
        assert pixels.shape == (*shape, 2)
        assert lens.unproject(pixels, np.ones(shape)).shape == (*shape, 3)


def test_cuts_the_region_of_interest_before_binning_as_image_geometry_does():
    x, y, width, height, binning_x, binning_y = 40, 30, 400, 300, 2, 3
    lens = Camera.from_calibration(
        640, 480, K, roi=(x, y, width, height), binning=(binning_x, binning_y))
    assert (lens.width, lens.height) == (200, 100)
    np.testing.assert_allclose(lens.matrix, [
        [420.0 / 2, 0, (318.3 - 40) / 2], [0, 431.0 / 3, (243.9 - 30) / 3], [0, 0, 1]])


@pytest.mark.parametrize('binning', [(0, 0), (1, 1)])
def test_an_empty_region_of_interest_is_the_whole_picture(binning):
    lens = Camera.from_calibration(640, 480, K.ravel(), roi=(0, 0, 0, 0), binning=binning)
    assert (lens.width, lens.height) == (640, 480)
    np.testing.assert_array_equal(lens.matrix, K)


def test_a_crop_shows_the_same_point_at_the_shifted_pixel():
    lens = camera('plumb_bob', LENSES['plumb_bob'])
    points = points_in_view()
    np.testing.assert_allclose(
        lens.cropped(100, 50, 200, 200).project(points), lens.project(points) - (100, 50))


@pytest.mark.parametrize('size', [(320, 240), (1280, 960), (960, 240)])
def test_a_resized_camera_sees_a_point_where_it_is_in_the_resized_picture(size):
    point = np.array([0.12, -0.07, 0.9])
    lens = camera()
    v, u = np.mgrid[:480, :640]
    u0, v0 = lens.project(point)
    picture = np.exp(-((u - u0) ** 2 + (v - v0) ** 2) / (2 * 8.0 ** 2))
    resized = cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR)
    v, u = np.mgrid[:size[1], :size[0]]
    seen = np.array([(u * resized).sum(), (v * resized).sum()]) / resized.sum()
    np.testing.assert_allclose(lens.resized(*size).project(point), seen, atol=0.01)


def test_the_field_of_view_is_the_angle_between_the_edges_of_the_picture():
    lens = Camera.from_field_of_view(640, 480, 70.0)
    left, right = lens.rays_at(np.array([[-0.5, 239.5], [639.5, 239.5]]))
    cosine = left @ right / np.linalg.norm(left) / np.linalg.norm(right)
    assert np.degrees(np.arccos(cosine)) == pytest.approx(70.0)
    np.testing.assert_allclose(lens.rays_at(np.array([319.5, 239.5])), (0, 0, 1), atol=1e-12)


@pytest.mark.parametrize('focal', [0.0, -420.0, np.nan, np.inf])
def test_refuses_a_camera_that_is_not_calibrated(focal):
    with pytest.raises(InputError, match='K'):
        Camera.from_calibration(640, 480, [focal, 0, 320, 0, 420, 240, 0, 0, 1])
    with pytest.raises(InputError, match='K'):
        Camera.from_calibration(640, 480, [420, 0, 320, 0, focal, 240, 0, 0, 1])


def test_refuses_a_principal_point_that_is_no_number():
    with pytest.raises(InputError, match='K'):
        Camera.from_calibration(640, 480, [420, 0, np.nan, 0, 420, 240, 0, 0, 1])


@pytest.mark.parametrize('size', [(0, 480), (640, 0)])
def test_refuses_a_calibration_without_a_size(size):
    with pytest.raises(InputError, match=f'{size[0]}x{size[1]}'):
        Camera.from_calibration(*size, K)


def test_refuses_a_distortion_model_that_it_does_not_know():
    with pytest.raises(InputError, match="'division'.*plumb_bob"):
        camera('division', [0.1])


def test_the_model_does_not_matter_without_distortion():
    np.testing.assert_allclose(camera('division', [0.0]).project([0, 0, 1]), (318.3, 243.9))


@pytest.mark.parametrize('distortion', [[0.1], [0.1] * 6, [np.nan] * 5])
@pytest.mark.parametrize('model', LENSES)
def test_refuses_coefficients_that_the_distortion_model_does_not_have(model, distortion):
    with pytest.raises(InputError, match=f"'{model}'"):
        camera(model, distortion)


def test_images_are_interpolated_between_the_centres_of_pixels() -> None:
    image = np.array([[0, 10, 20], [40, 50, 60]], np.float32)
    pixels = np.array([[[0, 0], [1, 1], [0.5, 0.5]], [[1.5, 0.25], [-3, 1], [9, 0]]])
    np.testing.assert_allclose(
        sampled(image, pixels, outside=None), [[0, 50, 25], [25, 40, 20]], atol=1e-4)
    np.testing.assert_allclose(sampled(image, pixels, outside=-7)[1], [25, -7, -7], atol=1e-4)
    np.testing.assert_array_equal(
        sampled(image, np.array([[0.4, 0.6], [1.6, 0.4]]), cv2.INTER_NEAREST), [40, 20])


def test_an_image_is_sampled_at_more_pixels_than_opencv_takes_at_once() -> None:
    image = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    places = np.random.default_rng(0).integers(0, 2, (70001, 2))
    np.testing.assert_array_equal(
        sampled(image, places), image[places[:, 1], places[:, 0]])
