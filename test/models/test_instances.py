# SPDX-License-Identifier: Apache-2.0
"""The segmentation of instances: channels, targets, grouping, scores; that it learns."""


import numpy as np
import pytest
import torch
from torch import Tensor

from img2scene_ros.errors import InputError
from img2scene_ros.learning.metrics import found_share
from img2scene_ros.models.instances import HEIGHT_KNEE
from img2scene_ros.models.instances import OFFSET_UNIT
from img2scene_ros.models.instances import InstanceNetwork
from img2scene_ros.models.instances import InstanceNetworkConfig
from img2scene_ros.models.instances import group_instances
from img2scene_ros.models.instances import instance_loss
from img2scene_ros.models.instances import instance_targets
from img2scene_ros.models.instances import scene_channels
from img2scene_ros.models.networks import load_network
from img2scene_ros.models.networks import save_network

pytestmark = pytest.mark.usefixtures('one_thread')

CAMERA_HEIGHT = 0.5
BOXES = (((-0.1, -0.05, 0.0), (0.0, 0.05, 0.08)), ((0.04, -0.06, 0.0), (0.12, 0.0, 0.15)))


def look(roll: float, boxes: tuple = BOXES, size: int = 96) -> dict[str, Tensor]:
    """Cast rays at boxes on z = 0: corners in metres; the camera looks 45 degrees down."""
    pixels = (np.arange(size) - (size - 1) / 2) / size * 0.8
    rays = np.stack([*np.meshgrid(pixels, pixels), np.ones((size, size))], -1)
    c, s = np.cos(roll), np.sin(roll)
    level = np.array([(1, 0, 0), (0, -np.sqrt(.5), -np.sqrt(.5)), (0, np.sqrt(.5), -np.sqrt(.5))])
    world_from_camera = level.T @ np.array([(c, -s, 0), (s, c, 0), (0, 0, 1)])
    start, ways = np.array([0, -CAMERA_HEIGHT, CAMERA_HEIGHT]), rays @ world_from_camera.T
    depth, ids = -start[2] / ways[..., 2], np.zeros((size, size), int)
    for number, corners in enumerate(boxes, start=1):
        walls = (np.array(corners)[:, None, None] - start) / ways
        enters, leaves = walls.min(0).max(-1), walls.max(0).min(-1)
        hit = (enters < leaves) & (enters < depth)
        depth[hit], ids[hit] = enters[hit], number
    return {'depth': depth, 'ids': ids, 'heights': start[2] + ways[..., 2] * depth,
            'rays': rays.transpose(2, 0, 1), 'up': world_from_camera[2]}


def channels_of(
    view: dict, color: Tensor | None = None, depth: np.ndarray | None = None,
) -> Tensor:
    depth = view['depth'] if depth is None else depth
    return scene_channels(
        color, *(torch.from_numpy(one).float()[None] for one in (depth, view['rays'], view['up'])),
        torch.tensor([CAMERA_HEIGHT]))


@pytest.mark.parametrize('roll', [0.0, 0.7, -2.5])
def test_heights_and_normals_are_those_of_the_scene(roll):
    view = look(roll, size=192)
    channels = channels_of(view)[0].numpy()
    assert np.allclose(np.sinh(channels[3]) * HEIGHT_KNEE, view['heights'], atol=1e-4)
    upward = channels[4][(view['ids'] > 0) | (view['heights'] < 1e-6)]
    tops = (view['heights'] > 0.0799) & (view['ids'] == 1)
    assert np.median(channels[4][tops]) == pytest.approx(1.0, abs=1e-3)
    assert np.median(channels[4][view['ids'] == 0]) == pytest.approx(1.0, abs=1e-3)
    assert (np.abs(upward) < 0.01).mean() > 0.02  # the walls
    view_of_table = CAMERA_HEIGHT / (view['depth'] * np.linalg.norm(view['rays'], axis=0))
    assert np.median((channels[5] - view_of_table)[view['ids'] == 0]) == pytest.approx(0, abs=1e-3)


def test_a_rolled_camera_sees_the_same():
    plain, rolled = (channels_of(look(roll))[0] for roll in (0.0, np.pi / 2))
    turned = torch.rot90(plain, 1, (1, 2))
    same = (turned - rolled).abs() < 1e-3
    assert same.all(0).float().mean() > 0.98  # edges may fall on either pixel
    assert (rolled[6].abs() > 0.1).any() and rolled[7].mean().abs() < 1e-5


def test_missing_channels_are_zero():
    view = look(0.0)
    depth = view['depth'].copy()
    depth[20:40, 30:60] = np.nan
    color = torch.full((1, 3, 96, 96), 255, dtype=torch.uint8)
    hole, whole = channels_of(view, color, depth)[0], channels_of(view)[0]
    assert torch.isfinite(hole).all() and (hole[3:, 20:40, 30:60] == 0).all()
    assert (hole[8] == torch.from_numpy(np.isfinite(depth))).all()
    assert torch.allclose(hole[3:, 50:], whole[3:, 50:], atol=0.01)
    # ImageNet's: (1 - .485) / .229 and so on
    assert hole[:3, 0, 0].tolist() == pytest.approx([2.2489, 2.4286, 2.6400], abs=1e-3)
    assert (whole[:3] == 0).all()
    nothing = channels_of(view, color, np.full_like(depth, np.nan))[0]
    assert torch.isfinite(nothing).all() and (nothing[3:] == 0).all()


def drawn() -> Tensor:
    """Touching boxes; one that a bar splits; a ring with something in it; something small."""
    ids = torch.zeros(2, 128, 160, dtype=torch.int64)
    ids[0, 10:40, 10:40], ids[0, 10:40, 40:60] = 1, 2
    ids[0, 60:80, 20:120] = 3
    ids[0, 50:100, 64:76] = 4
    y, x = torch.meshgrid(torch.arange(128), torch.arange(160), indexing='ij')
    radius = ((y - 64) ** 2 + (x - 80) ** 2).sqrt()
    ids[1][radius < 50], ids[1][radius < 30] = 7, 2
    ids[1, 3:9, 3:9] = 5
    return ids


def test_true_answers_give_the_true_instances():
    ids = drawn()
    foreground, heat, offsets, _ = instance_targets(ids)
    outputs = torch.cat([torch.stack([
        20.0 * foreground - 10.0, heat.clamp(1e-6, 1 - 1e-6).logit()], 1), offsets], 1)
    outputs[0, 0, 110, 150:154] = 1.0  # a speck
    for found, truth in zip(group_instances(outputs).numpy(), ids.numpy()):
        pairs = np.unique(np.stack([found, truth]).reshape(2, -1), axis=1)
        assert len(pairs[0]) == len(set(pairs[0])) == len(set(pairs[1])) == len(np.unique(truth))
        assert list(pairs[:, 0]) == [0, 0]
    assert (group_instances(outputs - 100.0) == 0).all()


def test_targets_are_those_of_the_definition():
    ids = drawn()
    foreground, heat, offsets, weights = instance_targets(ids)
    assert (foreground == (ids > 0)).all() and (offsets.abs().sum(1) > 0).sum() < ids.numel() / 2
    for picture, one in [(0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (1, 5), (1, 7)]:
        mine = np.argwhere(ids[picture].numpy() == one)
        wanted = mine.mean(0) + 0.1 * np.sqrt(len(mine))
        center = mine[((mine - wanted) ** 2).sum(1).argmin()]
        assert heat[picture][tuple(center)] == 1.0
        ways = offsets[picture].permute(1, 2, 0)[ids[picture] == one].numpy() * OFFSET_UNIT
        assert np.abs(mine + ways - center).max() < 1.0 / 16 + 1e-4
    assert (heat == 1.0).sum() == 7
    assert heat[1, 5, 12] == pytest.approx(np.exp(-(36 + 1) / 32), rel=1e-2)
    for place, at_border in [((20, 38), 4), ((20, 41), 4), ((60, 20), 4), ((25, 25), 0)]:
        area = float((ids[0] == ids[0][place]).sum())
        small = np.clip(np.sqrt(1000 / area), 1, 4) if ids[0][place] else 1.0
        assert float(weights[0][place]) == pytest.approx(small + at_border)
    assert weights[0, 0, 0] == 1.0
    empty = instance_targets(torch.zeros_like(ids))
    assert all((one == 0).all() for one in empty[:3])
    assert torch.isfinite(instance_loss(torch.zeros(2, 4, 128, 160), torch.zeros_like(ids)))


@pytest.mark.slow
def test_it_learns_two_pictures():
    torch.manual_seed(0)
    views = [look(0.3), look(-0.4, (*BOXES, ((-0.02, 0.07, 0), (0.08, 0.14, 0.05))))]
    channels = torch.cat([channels_of(view) for view in views])
    ids = torch.stack([torch.from_numpy(view['ids']) for view in views])
    network = InstanceNetwork(InstanceNetworkConfig(width=8, deep=1))
    optimizer = torch.optim.AdamW(network.parameters(), 4e-3)
    losses = []
    for _ in range(60):
        losses.append(instance_loss(network(channels), ids))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.1 * losses[0]
    network.eval()
    with torch.inference_mode():
        found = group_instances(network(channels))
    scores = [found_share(*pair) for pair in zip(found.numpy(), ids.numpy())]
    assert [(one['found'], one['false']) for one in scores] == [(2, 0), (3, 0)]


def test_it_is_saved_and_loaded_but_not_as_a_network_of_shapes(tmp_path):
    network = InstanceNetwork(InstanceNetworkConfig(width=4, deep=0)).eval()
    save_network(network, tmp_path)
    channels = torch.randn(1, 9, 32, 48)
    loaded = load_network(tmp_path, InstanceNetwork)
    torch.testing.assert_close(loaded(channels), network(channels))
    with pytest.raises(InputError, match=str(tmp_path)):
        load_network(tmp_path)


def test_found_share_counts_what_went_wrong():
    truth = np.zeros((10, 40), int)
    truth[:, :10], truth[:, 12:22], truth[:, 24:34], truth[0, 36:38] = 1, 2, 5, 6
    perfect = found_share(truth, truth)
    assert perfect == {'objects': 4, 'found': 4, 'pieces': 0, 'merged': 0, 'false': 0}
    found = np.zeros_like(truth)
    found[:, :22] = 9                             # 1 and 2 merged: IoU 100 / 220 with each
    found[:6, 24:34], found[6:, 24:34] = 1, 2     # 5 in two pieces, one of IoU .6
    found[5:, 35:] = 4                            # nothing there
    assert found_share(found, truth) == {
        'objects': 4, 'found': 1, 'pieces': 1, 'merged': 1, 'false': 1}
    assert found_share(found, truth, least=3)['objects'] == 3
    assert found_share(found, truth, iou=0.4)['found'] == 2  # one to one
    assert found_share(np.zeros_like(truth), truth)['found'] == 0
    assert found_share(truth, np.zeros_like(truth))['false'] == 4
