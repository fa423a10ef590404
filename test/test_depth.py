# SPDX-License-Identifier: Apache-2.0
"""Depth images: metres out of whatever a camera sends, and how far they may be off."""

import cv2
import numpy as np
import pytest

from img2scene_ros.depth import DepthNoise
from img2scene_ros.depth import metric_depth
from img2scene_ros.errors import InputError
from img2scene_ros.errors import OptionError


def test_integer_depth_is_millimetres():
    depth = metric_depth(np.array([[0, 1, 750, 65534, 65535]], np.uint16))
    assert depth.dtype == np.float32
    np.testing.assert_allclose(depth, [[np.nan, 0.001, 0.75, 65.534, np.nan]], rtol=1e-6)


@pytest.mark.parametrize('kind', [np.float32, np.float64])
def test_float_depth_is_metres(kind):
    raw = np.array([[-0.5, np.nan, np.inf, -np.inf, np.finfo(np.float32).max, 0.75]], kind)
    depth = metric_depth(raw)
    assert depth.dtype == np.float32
    np.testing.assert_array_equal(depth, np.array([[np.nan] * 5 + [0.75]], np.float32))


def test_converting_depth_leaves_the_message_as_it_was():
    raw = np.array([[0.0, 0.75]], np.float32)
    raw.flags.writeable = False
    metric_depth(raw)
    np.testing.assert_array_equal(raw, np.array([[0.0, 0.75]], np.float32))


@pytest.mark.parametrize('raw, named', [
    (np.zeros((3, 4), np.uint8), 'uint8'),
    (np.zeros((3, 4), np.int32), 'int32'),
    (np.zeros((3, 4, 3), np.uint16), r'\(3, 4, 3\)'),
])
def test_refuses_other_kinds_of_depth(raw, named):
    with pytest.raises(InputError, match=named):
        metric_depth(raw)


def test_structured_light_is_as_measured():
    """Nguyen et al. 2012: 1.2 mm at 0.4 m, and 1.9 mm more at 1 m from there."""
    std = DepthNoise().std(np.array([0.4, 1.4, 2.4]), 600.0)
    np.testing.assert_allclose(std, [0.0012, 0.0031, 0.0088])


@pytest.mark.parametrize('z', [0.4, 1.0, 3.0])
def test_stereo_is_what_noisy_disparities_give(z):
    noise = DepthNoise(model='stereo', baseline=0.12, disparity_std=0.2)
    disparity = 500.0 * 0.12 / z + 0.2 * np.random.default_rng(0).normal(size=100_000)
    assert noise.std(z, 500.0) == pytest.approx((500.0 * 0.12 / disparity).std(), rel=0.01)


def test_time_of_flight_grows_with_the_distance():
    std = DepthNoise(model='time_of_flight', constant=0.002, linear=0.003).std(
        np.array([[0.5, 1.0], [2.0, np.nan]], np.float32), 600.0)
    np.testing.assert_allclose(std, [[0.0035, 0.005], [0.008, np.nan]], rtol=1e-6)


@pytest.mark.parametrize('wrong', [
    {'model': 'sonar'}, {'baseline': 0.0}, {'disparity_std': -0.1}, {'constant': 0.0},
    {'linear': 'little'},
])
def test_wrong_noise_is_refused_by_name(wrong):
    with pytest.raises(OptionError, match=f"'{next(iter(wrong))}'"):
        DepthNoise(**wrong)


@pytest.mark.parametrize('model', ['structured_light', 'stereo', 'time_of_flight'])
@pytest.mark.parametrize('scale', [0.5, 1.0, 3.0])
@pytest.mark.parametrize('window', [0, 5])
def test_noise_is_measured_on_surfaces_of_any_slant(
    model: str, scale: float, window: int,
) -> None:
    rng = np.random.default_rng(0)
    noise = DepthNoise(model=model)
    v, u = np.mgrid[:480, :640]
    table = 1.0 / (0.3 + 0.0018 * v)
    wall = 1.0 / (0.5 + 0.0005 * u)
    true = np.where(u < 350, table, wall)
    white = rng.normal(size=true.shape)
    if window:  # neighbours are off together
        white = cv2.GaussianBlur(white, (0, 0), window / 2.5)
        white /= white.std()
    depth = (true + scale * noise.std(true, 500.0) * white).astype(np.float32)
    depth[100:150, 200:300] = np.nan
    assert noise.measured_scale(depth, 500.0) == pytest.approx(scale, rel=0.15)
    assert np.isnan(noise.measured_scale(np.full((480, 640), np.nan, np.float32), 500.0))


def test_a_given_scale_multiplies_the_noise() -> None:
    depth = np.array([0.5, 1.0, 2.0])
    np.testing.assert_allclose(
        DepthNoise(scale=3.0).std(depth, 500.0), 3.0 * DepthNoise().std(depth, 500.0))
