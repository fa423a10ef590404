# SPDX-License-Identifier: Apache-2.0
"""Distance fields against scipy's distances and closed forms."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from img2scene_ros.rendering.fields import REACH
from img2scene_ros.rendering.fields import DistanceFields
from img2scene_ros.rendering.fields import signed_distance

CELL = 0.002


def _ball(count: int = 40) -> np.ndarray:
    along = np.arange(count) + 0.5 - count / 2
    return sum(axis ** 2 for axis in np.meshgrid(along, along, along)) < (count / 2) ** 2


@pytest.fixture(scope='module')
def fields() -> DistanceFields:
    """Return a ball of 8 cm and a block of 4 x 8 x 12 cm."""
    return DistanceFields([_ball(), np.ones((20, 40, 60), bool)], [CELL, CELL], 'cpu')


def test_distances_are_scipys():
    solid = np.pad(_ball(24), 4)
    expected = np.where(solid, 0.5 - ndimage.distance_transform_edt(solid),
                        ndimage.distance_transform_edt(~solid) - 0.5)
    near = np.abs(expected) < REACH
    found = signed_distance(torch.from_numpy(solid)).numpy()
    np.testing.assert_allclose(found[near], expected[near], atol=1e-5)
    assert (np.abs(found[~near]) >= REACH).all()


def test_rays_end_on_the_ball(fields):
    random = np.random.default_rng(0)
    start = torch.tensor(random.normal(size=(500, 3)), dtype=torch.float32)
    start = 0.3 * start / start.norm(dim=1, keepdim=True)
    aim = torch.tensor(random.uniform(-0.05, 0.05, (500, 3)), dtype=torch.float32)
    way = 2.5 * (aim - start)  # any length counts as 1
    shape = torch.zeros(500, dtype=torch.long)
    found = fields.trace(shape, start, way, *fields.boxes_met(shape, start, way))
    a, b, c = (way * way).sum(1), (start * way).sum(1), (start * start).sum(1) - 0.04 ** 2
    root = b * b - a * c
    expected = torch.where(root > 0, (-b - root.clamp(min=0).sqrt()) / a, torch.inf)
    sure = root.abs() > 0.1 * (b * b - a * c).abs().median()  # all but those that graze it
    assert torch.equal(found[sure].isfinite(), expected[sure].isfinite())
    both = sure & expected.isfinite()
    assert both.sum() > 100
    assert ((found - expected)[both].abs() * way[both].norm(dim=1)).median() < 0.5 * CELL


def test_block_is_known_in_metres(fields):
    block = torch.ones(3, dtype=torch.long)
    points = torch.tensor([[0.0, 0, 0.064], [0.025, 0, 0], [0, 0, 0.058]])
    np.testing.assert_allclose(fields.distance(block, points), [0.004, 0.005, -0.002], atol=2e-4)
    np.testing.assert_allclose(fields.half[1], [0.02, 0.04, 0.06], atol=1e-6)
    np.testing.assert_allclose(
        fields.outermost[1].abs().amax(dim=0), [0.02, 0.04, 0.06], atol=1e-6)
    normal = fields.normals(block[:1], torch.tensor([[0.0, 0.01, 0.06]]))[0]
    np.testing.assert_allclose(normal / normal.norm(), [0, 0, 1], atol=1e-3)


def test_outside_of_a_field_is_outside(fields):
    far = torch.tensor([[1.0, 1, 1], [-3.0, 0, 0]])
    assert (fields.distance(torch.tensor([0, 1]), far) > 0).all()
