# SPDX-License-Identifier: Apache-2.0
"""The networks look where the camera model says; flips and volumes agree with pictures."""

import numpy as np
import pytest
import torch

from img2scene_ros.models.crop import CropView
from img2scene_ros.models.geometry import cell_centers
from img2scene_ros.models.geometry import resample_frustum
from img2scene_ros.models.geometry import sample_cube
from img2scene_ros.models.geometry import sample_frustum
from img2scene_ros.models.geometry import seen_at
from img2scene_ros.models.geometry import unproject

pytestmark = pytest.mark.usefixtures('one_thread')

HALF_FIELDS = (0.08, 0.3, 0.7)
SIZE = 24


def views() -> list[CropView]:
    return [CropView(np.eye(3), half_field) for half_field in HALF_FIELDS]


def projected(resolution: int, size: int) -> torch.Tensor:
    half_field = torch.tensor(HALF_FIELDS)
    points = cell_centers(resolution).expand(len(half_field), -1, -1)
    return seen_at(points, half_field, size)


@pytest.mark.parametrize('anchor', (0.4, 3.0))
def test_cells_are_projected_as_the_camera_does(anchor):
    for view, pixels in zip(views(), projected(8, SIZE)):
        expected = view.camera(SIZE).project(view.cube(anchor).centers(8)).reshape(-1, 2)
        np.testing.assert_allclose(pixels, expected, atol=1e-4)


def test_half_precision_does_not_move_pixels():
    with torch.autocast('cpu', torch.bfloat16):
        pixels = projected(8, 112)
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    torch.testing.assert_close(pixels, projected(8, 112), atol=1e-5, rtol=0)


def test_features_that_tell_their_pixel_are_found_at_the_projected_pixel():
    v, u = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing='ij')
    features = torch.stack([u, v, torch.ones_like(u)]).float().expand(len(HALF_FIELDS), -1, -1, -1)
    found = unproject(features, SIZE, projected(8, SIZE)).mT
    some_are_outside = False
    for view, values in zip(views(), found):
        expected = view.camera(SIZE).project(view.cube(1.0).centers(8)).reshape(-1, 2)
        inside = ((expected >= 0) & (expected <= SIZE - 1)).all(axis=1)
        assert inside.sum() > 200
        np.testing.assert_allclose(values[inside, :2], expected[inside], atol=1e-3)
        np.testing.assert_allclose(values[inside, 2], 1.0, atol=1e-5)
        beyond = ((expected < -1) | (expected > SIZE)).any(axis=1)
        some_are_outside |= bool(beyond.any())
        assert (values[beyond] == 0).all()
    assert some_are_outside


def test_a_coarser_map_covers_the_same_picture():
    """A linear ramp over the picture is the same ramp in a map of half the resolution."""
    fine = torch.linspace(-1 + 1 / SIZE, 1 - 1 / SIZE, SIZE).expand(1, 1, SIZE, SIZE)
    coarse = fine.reshape(1, 1, SIZE // 2, 2, SIZE // 2, 2).mean((3, 5))
    pixels = torch.tensor([[[2.0, 5.0], [7.3, 9.1], [20.0, 11.0]]])
    torch.testing.assert_close(
        unproject(coarse, SIZE, pixels), unproject(fine, SIZE, pixels), atol=1e-5, rtol=0)


def test_points_behind_the_camera_see_nothing():
    points = torch.tensor([[[0.0, 0.0, -5.0], [0.0, 0.0, 0.0]]])
    pixels = seen_at(points, torch.tensor([0.3]), SIZE)
    assert torch.isnan(pixels[0, 0]).all()
    found = unproject(torch.ones(1, 1, SIZE, SIZE), SIZE, pixels)
    assert found.flatten().tolist() == [0.0, 1.0]


def test_frustum_slices_are_found_at_their_pixel_and_depth():
    """A frustum that tells its own pixel and slice, against the camera's projection."""
    slices, count = 16, len(HALF_FIELDS)
    d, v, u = torch.meshgrid(
        torch.arange(slices), torch.arange(SIZE), torch.arange(SIZE), indexing='ij')
    frustum = torch.stack([u, v, d]).float().expand(count, -1, -1, -1, -1)
    points = cell_centers(8).expand(count, -1, -1)
    found = sample_frustum(frustum, torch.tensor(HALF_FIELDS), points).mT
    for view, values in zip(views(), found):
        centers = view.cube(1.0).centers(8).reshape(-1, 3)
        pixels = view.camera(SIZE).project(centers)
        inside = ((pixels >= 0) & (pixels <= SIZE - 1)).all(axis=1)
        slice_ = np.repeat(np.arange(8), 64) * 2 + 0.5  # eight layers of cells in 16 slices
        np.testing.assert_allclose(values[inside, :2], pixels[inside], atol=1e-3)
        np.testing.assert_allclose(values[inside, 2], slice_[inside], atol=1e-3)


def test_mirrored_frustum_gives_the_mirrored_cube():
    half_field = torch.tensor(HALF_FIELDS)
    frustum = torch.randn(3, 1, 12, SIZE, SIZE)
    points = cell_centers(16).expand(3, -1, -1)

    def cube(volume: torch.Tensor) -> torch.Tensor:
        return sample_frustum(volume, half_field, points).reshape(3, 16, 16, 16)

    torch.testing.assert_close(cube(frustum.flip(-1)), cube(frustum).flip(-1), atol=1e-4, rtol=0)
    assert not torch.allclose(cube(frustum), cube(frustum).flip(-1), atol=0.1)


def test_volume_is_found_again_at_its_own_cells():
    volume = torch.randn(2, 3, 8, 8, 8)
    found = sample_cube(volume, cell_centers(8).expand(2, -1, -1))
    torch.testing.assert_close(found, volume.flatten(2), atol=1e-5, rtol=0)


@pytest.mark.parametrize('resolution', [8, 15])
def test_resampling_a_frustum_is_looking_up_every_cell(resolution):
    half_field = torch.tensor(HALF_FIELDS)
    frustum = torch.randn(3, 12, SIZE, SIZE)
    points = cell_centers(resolution).expand(3, -1, -1)
    found = sample_frustum(frustum[:, None], half_field, points)
    torch.testing.assert_close(
        resample_frustum(frustum, half_field, resolution).flatten(1), found[:, 0],
        atol=1e-4, rtol=0)
