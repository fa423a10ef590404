# SPDX-License-Identifier: Apache-2.0
"""TripoSR's network on closed forms, and what it says about checkpoints that do not fit."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from triposr_checkpoints import COLOR
from triposr_checkpoints import LEVEL
from triposr_checkpoints import SEMI_AXES
from triposr_checkpoints import STEEPNESS
from triposr_checkpoints import ellipsoid
from triposr_checkpoints import small

from img2scene_ros.errors import InputError
from img2scene_ros.models.triposr_network import TripoSR
from img2scene_ros.models.triposr_network import TripoSRConfig
from img2scene_ros.models.triposr_network import load_triposr

pytestmark = pytest.mark.usefixtures('one_thread')


def pictures() -> torch.Tensor:
    return torch.rand(2, 3, 300, 300, generator=torch.Generator().manual_seed(3))


def test_published_size() -> None:
    """418.7 M parameters in use; the pooler, which the checkpoint holds too, has 0.6 M."""
    with torch.device('meta'):
        network = TripoSR()
    assert sum(weight.numel() for weight in network.parameters()) + 768 * 769 == 419_275_628


def test_planes_are_looked_up_along_the_right_axes() -> None:
    """The answer at any point against the formula of the solid that the weights describe."""
    network = ellipsoid()
    planes = network.encode(pictures()[:1])
    assert planes.shape == (1, 3, 4, 64, 64)
    points = torch.empty(500, 3).uniform_(-0.8, 0.8, generator=torch.Generator().manual_seed(0))
    log_density, color = network.query(planes[0], points)
    expected = STEEPNESS * (1 - ((points / torch.tensor(SEMI_AXES).float()) ** 2).sum(dim=1))
    torch.testing.assert_close(log_density - LEVEL, expected, atol=0.15, rtol=0)
    torch.testing.assert_close(color, (COLOR * points).sigmoid(), atol=2e-3, rtol=0)


def test_pictures_in_a_batch_matter_and_do_not_mix() -> None:
    network = small()
    both = network.encode(pictures())
    for index in range(2):
        torch.testing.assert_close(
            network.encode(pictures()[index:index + 1])[0], both[index], atol=1e-5, rtol=1e-4)
    assert (both[0] - both[1]).abs().max() > 1e-4


@pytest.mark.parametrize('name', ['model.ckpt', 'model.safetensors'])
def test_checkpoint_comes_back_whatever_its_size(name: str, tmp_path: Path) -> None:
    network = small(vit_layers=2, layers=3, hidden_layers=4, vit_patches=5)
    weights = network.state_dict()
    pooler = {'image_tokenizer.model.pooler.dense.weight': torch.zeros(64, 64),
              'image_tokenizer.model.pooler.dense.bias': torch.zeros(64)}
    save = torch.save if name.endswith('ckpt') else save_file
    save(weights | pooler, tmp_path / name)
    for place in (tmp_path, tmp_path / name):
        again = load_triposr(place)
        assert again.config == network.config and not again.training
        assert torch.equal(again.encode(pictures()), network.encode(pictures()))


def lacking(key: str) -> Callable[[dict], object]:
    return lambda weights: {name: value for name, value in weights.items() if name != key}


@pytest.mark.parametrize('change, words', [
    (lacking('tokenizer.embeddings'), 'tokenizer.embeddings'),
    (lacking('backbone.norm.bias'), 'backbone.norm.bias'),
    (lacking('decoder.layers.2.weight'), 'decoder.layers'),
    (lambda weights: weights | {'head.weight': torch.zeros(2)}, 'head.weight'),
    (lambda weights: weights | {'backbone.proj_in.weight': torch.zeros(64, 32)},
     'backbone.proj_in.weight'),
    (lambda weights: {'state_dict': weights}, 'model.ckpt'),
    (lambda weights: [1, 2], 'model.ckpt'),
    (lambda weights: TripoSRConfig(), 'model.ckpt'),  # needs a pickle that can run
])
def test_wrong_checkpoint_is_one_sentence(
    change: Callable[[dict], object], words: str, tmp_path: Path,
) -> None:
    torch.save(change(small().state_dict()), tmp_path / 'model.ckpt')
    with pytest.raises(InputError, match=words) as caught:
        load_triposr(tmp_path / 'model.ckpt')
    assert '\n' not in str(caught.value)


def test_damaged_or_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match='model.safetensors.*model.ckpt'):
        load_triposr(tmp_path)
    for name in ('model.ckpt', 'model.safetensors'):
        with pytest.raises(InputError, match=name):
            load_triposr(tmp_path / name)
        (tmp_path / name).write_bytes(b'broken')
        with pytest.raises(InputError, match=name) as caught:
            load_triposr(tmp_path / name)
        assert '\n' not in str(caught.value)
