# SPDX-License-Identifier: Apache-2.0
"""Examples that are drawn on the device, against the crops and solids that robots get."""

import numpy as np
import pytest
import torch
from arranged_scenes import camera_of
from arranged_scenes import household

from img2scene_ros.learning import live
from img2scene_ros.learning.arrangements import arrange
from img2scene_ros.learning.augmentation import Examples
from img2scene_ros.learning.augmentation import crop_inputs
from img2scene_ros.learning.augmentation import median_depth
from img2scene_ros.learning.augmentation import mirrored
from img2scene_ros.learning.samples import coarser
from img2scene_ros.learning.synthetic import voxels
from img2scene_ros.models.channels import crop_channels
from img2scene_ros.models.crop import CropView
from img2scene_ros.models.crop import anchor_depth
from img2scene_ros.models.crop import crop_view
from img2scene_ros.rendering.traced import draw


@pytest.fixture(scope='module')
def crops() -> Examples:
    """Return crops of 64 pixels."""
    return live.draw_crops(household()[1], torch.Generator().manual_seed(0), 12, 64)


def test_virtual_cameras_are_those_of_robots():
    scenes = arrange(household()[1], torch.Generator().manual_seed(0), 3, live.WIDTH,
                        live.HEIGHT)
    boxes = torch.tensor([[20.0, 30, 90, 100], [200, 10, 310, 60], [0, 100, 60, 240]])
    cameras, half_field, outside = live.crop_cameras(scenes, boxes, 64)
    for number in range(3):
        camera, pose = camera_of(scenes, number, live.WIDTH, live.HEIGHT)
        view = crop_view(camera, boxes[number].numpy())
        assert half_field[number] == pytest.approx(view.half_field, rel=1e-4)
        np.testing.assert_allclose(
            cameras.view[number, :3, :3], pose[:3, :3] @ view.rotation, atol=1e-5)
        u, v = np.moveaxis(camera.project(view.camera(64).rays @ view.rotation.T), -1, 0)
        seen = (u > -0.5) & (u < live.WIDTH - 0.5) & (v > -0.5) & (v < live.HEIGHT - 0.5)
        assert (outside[number].numpy() == ~seen).mean() > 0.999


def test_boxes_of_what_is_visible_hold_its_pixels():
    stock = household()[1]
    scenes = arrange(stock, torch.Generator().manual_seed(5), 4, live.WIDTH, live.HEIGHT)
    boxes, wanted = live.visible_boxes(stock.fields, scenes)
    ids = draw(stock.fields, scenes, live.WIDTH, live.HEIGHT).ids
    assert wanted.any()
    for scene, item in wanted.nonzero().tolist():
        v, u = (ids[scene] == item + 1).nonzero(as_tuple=True)
        exact = [u.min(), v.min(), u.max() + 1, v.max() + 1]
        np.testing.assert_allclose(boxes[scene, item], exact, atol=2 * live.COARSE)


@pytest.mark.slow
def test_truth_is_the_solids_that_the_cubes_hold(crops):
    """The same shapes, poses and cubes, filled by the code that fills volumes on disk."""
    shapes, stock = household()
    anchor = median_depth(crops['depth'], crops['mask'])
    found = live.cells_reached(stock.fields, crops, anchor).numpy()
    shared = []
    for number in range(len(anchor)):
        pose = np.eye(4)
        pose[:3] = crops['to_local'][number].numpy()
        cube = CropView(np.eye(3), float(crops['half_field'][number])).cube(float(anchor[number]))
        shape = shapes[int(crops['shape'][number])]
        true = coarser(voxels(shape, np.linalg.inv(pose), cube), 32)
        assert true.sum() > 50
        shared.append((found[number] & true).sum() / (found[number] | true).sum())
        # Depths say how far: cells that lie deep are full in both, those far out in neither.
        depths = live.solid_depths(stock.fields, crops, anchor, 32)[number].numpy()
        assert true[depths > 0.5].all() and not true[depths < -2.0].any()
    assert np.mean(shared) > 0.95 and min(shared) > 0.85


def test_visible_surface_is_the_solids(crops):
    """What is seen of an object lies on the border of its solid."""
    fields = household()[1].fields
    size = crops['mask'].shape[-1]
    along = (np.arange(size) + 0.5) / size * 2 - 1
    x, y = np.meshgrid(along, along)
    for number in range(4):
        mask, half = crops['mask'][number].numpy(), float(crops['half_field'][number])
        depth = crops['depth'][number].numpy()[mask]
        points = np.stack([half * x[mask] * depth, half * y[mask] * depth, depth], axis=-1)
        matrix = crops['to_local'][number].numpy()
        local = torch.tensor(points @ matrix[:, :3].T + matrix[:, 3], dtype=torch.float32)
        shape = crops['shape'][number].expand(len(local))
        assert (fields.distance(shape, local).abs() < fields.cell[shape]).float().mean() > 0.98


def test_mirrored_crops_have_mirrored_solids(crops):
    fields = household()[1].fields
    anchor = median_depth(crops['depth'], crops['mask'])
    which = torch.arange(len(anchor)) % 2 == 0
    flipped = mirrored(crops, which)
    plain, turned = (live.solid_depths(fields, some, anchor, 16) for some in (crops, flipped))
    torch.testing.assert_close(turned[which], plain[which].flip(-1), atol=1e-3, rtol=1e-3)
    assert torch.equal(turned[~which], plain[~which])
    assert torch.equal(flipped['mask'][0], crops['mask'][0].flip(-1))


def test_inputs_are_what_robots_feed(crops):
    pictures, half_field, anchor = crop_inputs(
        crops, torch.Generator().manual_seed(0), with_depth=False)
    number = 3
    mask = crops['mask'][number].numpy()
    assert anchor[number] == pytest.approx(
        anchor_depth(crops['depth'][number].numpy(), mask), rel=0.02)
    expected = crop_channels(crops['color'][number].permute(1, 2, 0).numpy(), mask, None, 1.0,
                           float(half_field[number]))
    np.testing.assert_allclose(pictures[number], expected, atol=1e-5)
    assert crop_inputs(crops, torch.Generator().manual_seed(0))[0][:, 5].any()
