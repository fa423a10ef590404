# SPDX-License-Identifier: Apache-2.0
"""What all networks promise: shapes, resolutions, gradients; their files and what can be wrong."""

import json
import sys

import numpy as np
import pytest
import torch
from disk import full_disk
from safetensors.torch import load_file
from safetensors.torch import save_file
from torch import nn

from img2scene_ros.errors import InputError
from img2scene_ros.errors import MissingDependencyError
from img2scene_ros.errors import OptionError
from img2scene_ros.models import occupancy
from img2scene_ros.models.backbone import ResNet
from img2scene_ros.models.backbone import load_imagenet_weights
from img2scene_ros.models.channels import CHANNELS
from img2scene_ros.models.channels import crop_channels
from img2scene_ros.models.crop import CropView
from img2scene_ros.models.frustum_unet import RAMP
from img2scene_ros.models.frustum_unet import behind_surface
from img2scene_ros.models.geometry import cell_centers
from img2scene_ros.models.networks import NETWORKS
from img2scene_ros.models.networks import build_network
from img2scene_ros.models.networks import load_network
from img2scene_ros.models.networks import read_network_config
from img2scene_ros.models.networks import save_network
from img2scene_ros.models.occupancy import OccupancyNetwork

pytestmark = pytest.mark.usefixtures('one_thread')

# Narrow, to be quick; the names and all parts are those of the real ones.
SMALL = {
    'frustum-unet': {'width': 8, 'slices': 16},
    'resfest': {'backbone': 'resnet18', 'width': 32, 'heads': 4, 'layers': 1, 'volume': 8},
    'resnet18-unproject': {'hidden': 16},
}
# Millions; the ResNets without their classifier have 11.2, 21.3 and 23.5.
PARAMETERS = {'frustum-unet': 6.46, 'resfest': 27.08, 'resnet18-unproject': 11.35}
HALF_FIELD = torch.tensor([0.2, 0.4])


@pytest.fixture(params=sorted(NETWORKS))
def network(request: pytest.FixtureRequest) -> OccupancyNetwork:
    return small(request.param)


def small(name: str) -> OccupancyNetwork:
    torch.manual_seed(0)
    return build_network(name, **SMALL[name]).eval()


def pictures(size: int = 64) -> torch.Tensor:
    return torch.randn(2, CHANNELS, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize('name', sorted(NETWORKS))
def test_size_is_as_documented(name):
    count = sum(weight.numel() for weight in build_network(name).parameters())
    assert count / 1e6 == pytest.approx(PARAMETERS[name], abs=0.01)


@pytest.mark.slow
@torch.inference_mode()
@pytest.mark.parametrize('resolution', (32, 64, 128))
def test_resolution_is_free_and_chunks_change_nothing(network, resolution, monkeypatch):
    images = pictures()
    monkeypatch.setattr(occupancy, 'POINTS_PER_CHUNK', resolution ** 3)
    whole = network(images, HALF_FIELD, resolution)
    assert whole.shape == (2, resolution, resolution, resolution)
    assert whole.dtype == torch.float32 and torch.isfinite(whole).all()
    monkeypatch.setattr(occupancy, 'POINTS_PER_CHUNK', 5000 * resolution // 32)
    in_parts = network(images, HALF_FIELD, resolution)
    torch.testing.assert_close(in_parts, whole, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_crops_in_a_batch_do_not_mix(network):
    images = pictures()
    both = network(images, HALF_FIELD, 16)
    for index in range(2):
        alone = network(images[index:index + 1], HALF_FIELD[index:index + 1], 16)
        torch.testing.assert_close(alone[0], both[index], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(both[0], both[1], atol=1e-3)


@torch.inference_mode()
def test_a_mirrored_crop_is_predicted_as_the_mirrored_solid(network):
    images = pictures()
    logits, plain = network.predict(images, HALF_FIELD, 16), network(images, HALF_FIELD, 16)
    mirrored = network.predict(images.flip(-1), HALF_FIELD, 16)
    torch.testing.assert_close(mirrored, logits.flip(-1), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(plain, logits, atol=1e-3), 'the network alone is not so just'
    other = network(images.flip(-1), HALF_FIELD, 16).flip(-1)
    torch.testing.assert_close(logits - plain, other - logits, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_chosen_points_are_as_in_the_volume(network):
    volume = network(pictures(), HALF_FIELD, 16)
    chosen = torch.tensor([4000, 7, 1234])
    logits = network(pictures(), HALF_FIELD, points=cell_centers(16)[chosen])
    torch.testing.assert_close(logits, volume.flatten(1)[:, chosen], atol=1e-4, rtol=1e-4)


def test_gradient_reaches_every_parameter(network):
    network.train()
    with torch.no_grad():  # some start at zero, and what stands before those is not reached then
        for weight in network.parameters():
            weight += 0.1 * torch.randn(weight.shape)
    network(pictures(), HALF_FIELD, 16).sigmoid().square().sum().backward()
    without = [name for name, weight in network.named_parameters()
               if weight.grad is None or not weight.grad.any()]
    assert not without


@torch.inference_mode()
@pytest.mark.parametrize('channel', range(CHANNELS))
def test_every_channel_counts(network, channel):
    images = pictures()
    changed = images.clone()
    changed[:, channel] = 0
    assert (network(images, HALF_FIELD, 16) - network(changed, HALF_FIELD, 16)).abs().max() > 1e-4


@torch.inference_mode()
def test_depths_along_a_ray_differ():
    """Cells of one ray have the same features; only their position tells them apart."""
    network = small('resnet18-unproject')
    nn.init.normal_(network.position.weight)
    logits = network(pictures(), HALF_FIELD, 32)
    assert logits.std(dim=1).mean() > 0.01


@torch.inference_mode()
def test_frustum_unet_leaves_what_no_pixel_sees_empty():
    network = small('frustum-unet')
    nn.init.constant_(network.slices.bias, 9.0)
    logits = network(pictures(), torch.tensor([0.2, 0.4]), 32)
    # The cube's front corners are outside of the view, its middle is inside.
    torch.testing.assert_close(logits[:, 0, 0, 0], network.prior.expand(2))
    assert (logits[:, 16, 16, 16] > 0).all()


@pytest.mark.parametrize('behind_anchor', (-0.1, 0.07))
def test_measured_surface_enters_the_frustum_at_its_depth(behind_anchor):
    """Slices before and behind a wall, against the depths of the cube's cells."""
    anchor, half_field, slices = 1.3, 0.3, 40
    depth = np.full((32, 32), anchor + behind_anchor)
    depth[:4, :4] = np.nan
    picture = crop_channels(np.zeros((32, 32, 3), np.uint8), None, depth, anchor, half_field)
    behind = behind_surface(torch.from_numpy(picture)[None], slices)[0].numpy()
    cube = CropView(np.eye(3), half_field).cube(anchor)
    distance = (cube.centers(slices)[:, 0, 0, 2] - depth[-1, -1]) / cube.side
    expected = np.clip(distance / RAMP, -1, 1)
    assert expected[0] == -1 and expected[-1] == 1
    np.testing.assert_allclose(
        behind[:, 4:, 4:], np.broadcast_to(expected[:, None, None], (40, 12, 12)), atol=1e-5)
    assert not behind[:, :2, :2].any(), 'there is no reading'


def test_readings_of_the_object_count_where_something_is_behind_its_edge():
    """A pole one pixel wide before a wall, seen by a U-Net that has half as many pixels."""
    mask = np.zeros((32, 32), bool)
    mask[:, 15] = True
    depth = np.where(mask, 1.0, 1.2)
    picture = crop_channels(np.zeros((32, 32, 3), np.uint8), mask, depth, 1.0, 0.3)
    behind = behind_surface(torch.from_numpy(picture)[None], 40)[0]
    pole, wall = behind[:, 5, 7], behind[:, 5, 3]
    assert int((pole < 0).sum()) < int((wall < 0).sum()), 'the pole is nearer'
    alone = np.where(mask, 1.0, np.nan)
    picture = crop_channels(np.zeros((32, 32, 3), np.uint8), mask, alone, 1.0, 0.3)
    expected = behind_surface(torch.from_numpy(picture)[None], 40)[0, :, 5, 7]
    torch.testing.assert_close(pole, expected, atol=0.01, rtol=0)


def test_saved_network_comes_back(network, tmp_path):
    save_network(network, tmp_path, {'note': 'mine'})
    again = load_network(tmp_path)
    with torch.inference_mode():
        torch.testing.assert_close(again(pictures(), HALF_FIELD, 16),
                                   network(pictures(), HALF_FIELD, 16))
    assert not again.training
    assert read_network_config(tmp_path)['note'] == 'mine'
    assert {path.name for path in tmp_path.iterdir()} == {'model.safetensors', 'config.json'}


def test_half_precision_is_half_as_large_and_nearly_the_same(tmp_path):
    network = small('frustum-unet')
    save_network(network, tmp_path / 'whole')
    save_network(network, tmp_path / 'half', half=True)
    sizes = [(tmp_path / name / 'model.safetensors').stat().st_size for name in ('half', 'whole')]
    assert sizes[0] < 0.6 * sizes[1]
    with torch.inference_mode():
        torch.testing.assert_close(load_network(tmp_path / 'half')(pictures(), HALF_FIELD, 16),
                                   network(pictures(), HALF_FIELD, 16), atol=0.03, rtol=0.01)


def edit_config(folder, **changes):
    path = folder / 'config.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize('damage, words', [
    (lambda f: (f / 'config.json').unlink(), ['no network', 'config.json']),
    (lambda f: (f / 'config.json').write_text('{'), ['not JSON']),
    (lambda f: (f / 'config.json').write_text('{"model_type": "detr"}'), ['does not name']),
    (lambda f: edit_config(f, network='pix2vox'), ['pix2vox', 'frustum-unet']),
    (lambda f: edit_config(f, options={'widht': 8}), ['widht']),
    (lambda f: edit_config(f, options={'width': 16, 'slices': 16}), ['another network']),
    (lambda f: edit_config(f, network='resfest', options={}), ['another network', 'resfest']),
    (lambda f: (f / 'model.safetensors').unlink(), ['cannot read the weights']),
    (lambda f: (f / 'model.safetensors').write_bytes(b'broken'), ['cannot read the weights']),
    (lambda f: save_file({'a': torch.zeros(1)}, f / 'model.safetensors'), ['another network']),
])
def test_wrong_checkpoint_is_one_sentence(tmp_path, damage, words):
    save_network(small('frustum-unet'), tmp_path)
    damage(tmp_path)
    with pytest.raises(InputError) as caught:
        load_network(tmp_path)
    assert '\n' not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize('name, options, word', [
    ('pix2vox', {}, 'pix2vox'),
    ('resfest', {'slices': 3}, 'slices'),
    ('frustum-unet', {'slices': 3}, 'at least 8'),
    ('resfest', {'width': 30}, 'multiple of'),
])
def test_network_that_cannot_be_built_is_one_sentence(name, options, word):
    with pytest.raises(OptionError, match=word):
        build_network(name, **options)


def test_full_disk_leaves_the_checkpoint_before(tmp_path):
    save_network(small('frustum-unet'), tmp_path, {'step': 1})
    before = load_file(tmp_path / 'model.safetensors')
    torch.manual_seed(7)
    with full_disk(10000), pytest.raises(InputError, match='model.safetensors'):
        save_network(build_network('frustum-unet', **SMALL['frustum-unet']), tmp_path)
    after = load_file(tmp_path / 'model.safetensors')
    assert all(torch.equal(before[name], after[name]) for name in before)
    load_network(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {'model.safetensors', 'config.json'}


@pytest.mark.parametrize('depth, stages', [(18, 64), (50, 256)])
def test_resnet_has_four_strides(depth, stages):
    maps = ResNet(f'resnet{depth}')(torch.randn(1, CHANNELS, 64, 64))
    assert [tuple(x.shape[1:]) for x in maps] == [
        (stages, 16, 16), (2 * stages, 8, 8), (4 * stages, 4, 4), (8 * stages, 2, 2)]


def test_weights_for_three_colors_fit(tmp_path):
    """With weights of the usual names, mask and depth start without any effect."""
    source = ResNet('resnet18')
    weights = {name: tensor.clone() for name, tensor in source.state_dict().items()}
    weights['conv1.weight'] = weights['conv1.weight'][:, :3].contiguous()
    weights['fc.weight'] = torch.zeros(1000, 512)
    torch.save(weights, tmp_path / 'resnet18.pth')
    encoder = ResNet('resnet18').eval()
    load_imagenet_weights(encoder, tmp_path / 'resnet18.pth')
    images = pictures()
    other = images.clone()
    other[:, 3:] = 0
    with torch.inference_mode():
        torch.testing.assert_close(encoder(images)[-1], encoder(other)[-1])
    assert torch.equal(encoder.layer3[1].conv2.weight, source.layer3[1].conv2.weight)
    with pytest.raises(InputError, match='ResNet'):
        load_imagenet_weights(ResNet('resnet34'), tmp_path / 'resnet18.pth')
    with pytest.raises(InputError, match='nowhere.pth'):
        load_imagenet_weights(ResNet('resnet18'), tmp_path / 'nowhere.pth')


def test_backbone_of_timm_fits_the_networks():
    pytest.importorskip('timm')
    network = build_network('resnet18-unproject', backbone='efficientnet_b0', hidden=16).eval()
    assert network(pictures(), HALF_FIELD, 16).shape == (2, 16, 16, 16)
    with pytest.raises(OptionError, match='no_such_network'):
        build_network('resnet18-unproject', backbone='no_such_network')
    with pytest.raises(OptionError, match='strides'):
        build_network('resnet18-unproject', backbone='vit_tiny_patch16_224')


def test_backbone_without_timm_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, 'timm', None)
    with pytest.raises(MissingDependencyError, match='efficientnet_b0.*timm'):
        build_network('resfest', backbone='efficientnet_b0')
