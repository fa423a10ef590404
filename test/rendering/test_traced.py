# SPDX-License-Identifier: Apache-2.0
"""The renderer of many scenes at once, against the ray caster on the same scenes."""

from dataclasses import replace

import numpy as np
import open3d
import pytest
import torch
from arranged_scenes import camera_of
from arranged_scenes import household
from arranged_scenes import stage_of

from img2scene_ros.learning.arrangements import MOST_OBJECTS
from img2scene_ros.learning.arrangements import SUPPORTS
from img2scene_ros.learning.arrangements import arrange
from img2scene_ros.rendering.traced import Light
from img2scene_ros.rendering.traced import Materials
from img2scene_ros.rendering.traced import draw

WIDTH, HEIGHT = 160, 120


@pytest.fixture(scope='module')
def scenes():
    _, stock = household()
    kind = torch.arange(10) % len(SUPPORTS)
    return arrange(stock, torch.Generator().manual_seed(1), 10, WIDTH, HEIGHT, kind)


@pytest.fixture(scope='module')
def both(scenes):
    """Return what both renderers see."""
    shapes, stock = household()
    traced = draw(stock.fields, scenes, WIDTH, HEIGHT)
    seen = []
    for number in range(len(scenes.shape)):
        cast = stage_of(scenes, number, shapes).look(*camera_of(scenes, number, WIDTH, HEIGHT))
        seen.append((traced.depth[number].numpy(), traced.ids[number].numpy(), cast.depth,
                     cast.ids))
    return seen


def test_depth_is_within_a_cell_of_the_ray_casters(both, scenes):
    _, stock = household()
    errors = []
    for number, (depth, ids, true, true_ids) in enumerate(both):
        same = (ids == true_ids) & (ids > 0)
        shape = scenes.shape[number][ids[same] - 1]
        stretch = scenes.pose[number][ids[same] - 1][:, :3, :3].norm(dim=1).amax(dim=1)
        errors.append(np.abs(depth - true)[same] / (stock.fields.cell[shape] * stretch).numpy())
    errors = np.concatenate(errors)
    assert len(errors) > 5000
    # Along grazing rays a cell aside is several cells of depth.
    assert np.median(errors) < 0.5 and np.quantile(errors, 0.9) < 1.0


def test_boxes_are_exact(both):
    for depth, ids, true, true_ids in both:
        same = (ids == true_ids) & (ids < 0)
        np.testing.assert_allclose(depth[same], true[same], rtol=1e-4, atol=1e-4)


def test_masks_are_the_ray_casters(both):
    shared = union = 0
    for _, ids, _, true_ids in both:
        for number in range(1, MOST_OBJECTS + 1):
            shared += np.count_nonzero((ids == number) & (true_ids == number))
            union += np.count_nonzero((ids == number) | (true_ids == number))
    assert union > 5000 and shared / union > 0.98


def test_same_seed_draws_the_same():
    _, stock = household()
    one, other = (
        draw(stock.fields, arrange(stock, generator, 2, WIDTH, HEIGHT), 80, 60, generator)
        for generator in (torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)))
    assert torch.equal(one.color, other.color) and torch.equal(one.ids, other.ids)


def test_sun_casts_shadows_and_lights_what_faces_it():
    """A ball's upper side is brighter than its lower one, the ground beside it darker than far."""
    _, stock = household()
    scenes = arrange(stock, torch.Generator().manual_seed(1), 10, WIDTH, HEIGHT)
    sun = torch.tensor([0.0, 0.0, 1.0]).expand(10, 3)
    light = Light(sun, torch.tensor([0.0, 0.0, 1.0, 0.0]).expand(10, 4),
                               torch.ones(10, 3))
    plain = Materials(*map(torch.zeros_like, vars(scenes.materials).values()))
    plain.colors[:] = 0.5
    plain.period[:] = 1.0
    lit = replace(scenes, materials=plain, light=light)
    pictures = draw(stock.fields, lit, WIDTH, HEIGHT, torch.Generator().manual_seed(0))
    level = pictures.ids == -1  # the supports' tops and edges
    brightness = pictures.color[:, 0][level].float()
    assert brightness.max() == pytest.approx(127, abs=2)  # colour times the sun at right angles
    assert (brightness < 20).float().mean() > 0.005  # under the things


def test_what_stands_on_others_touches_one_and_is_in_none():
    """Mesh against mesh: a bottle put on a bowl stands in it."""
    shapes, stock = household()
    scenes = arrange(stock, torch.Generator().manual_seed(4), 12, WIDTH, HEIGHT,
                     torch.full((12,), SUPPORTS.index('table')))
    raised = []
    for number in range(len(scenes.shape)):
        pose = scenes.pose[number].double().numpy()
        placed = {slot: (shapes[one].vertices @ pose[slot, :3, :3].T + pose[slot, :3, 3],
                         shapes[one].faces)
                  for slot, one in enumerate(scenes.shape[number].tolist()) if one >= 0}
        for slot, (points, _) in placed.items():
            if points[:, 2].min() < 0.002:
                continue
            away = [signed_distance(points, other).min() for key, other in placed.items()
                    if key != slot]
            back = [signed_distance(other[0], placed[slot]).min() for key, other in placed.items()
                    if key != slot]
            raised.append(min(away + back))
    assert len(raised) > 4
    assert -0.006 < min(raised) and max(raised) < 0.006


def signed_distance(points: np.ndarray, mesh: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Return the distances of points to a closed mesh, negative inside."""
    scene = open3d.t.geometry.RaycastingScene()
    scene.add_triangles(open3d.core.Tensor(mesh[0].astype(np.float32)),
                        open3d.core.Tensor(mesh[1].astype(np.uint32)))
    return scene.compute_signed_distance(open3d.core.Tensor(points.astype(np.float32))).numpy()
