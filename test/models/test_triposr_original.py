# SPDX-License-Identifier: Apache-2.0
"""
The clean-room TripoSR against the original, with the same random weights and pictures.

Needs the original's source (github.com/VAST-AI-Research/TripoSR) in the folder that
IMG2SCENE_TRIPOSR_SOURCE names, and what it imports:

    pip install --no-deps --target DEPS transformers==4.35.0 tokenizers==0.14.1
    pip install --no-deps --target DEPS huggingface_hub==0.17.3 einops omegaconf
    pip install --no-deps --target DEPS 'antlr4-python3-runtime==4.9.*'
    IMG2SCENE_TRIPOSR_SOURCE=TripoSR PYTHONPATH=DEPS pytest -s test/models/test_triposr_original.py

With IMG2SCENE_TRIPOSR_WHOLE=1 of the published sizes, in minutes.
"""

import importlib
import json
import os
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from skimage.measure import marching_cubes

from img2scene_ros.mesh.isosurface import sample_near_surface
from img2scene_ros.models.triposr_network import RADIUS
from img2scene_ros.models.triposr_network import TripoSR
from img2scene_ros.models.triposr_network import load_triposr

SOURCE = os.environ.get('IMG2SCENE_TRIPOSR_SOURCE', '')
WHOLE = os.environ.get('IMG2SCENE_TRIPOSR_WHOLE', '')  # any text: 419 M parameters, minutes
pytestmark = pytest.mark.skipif(
    not SOURCE, reason="IMG2SCENE_TRIPOSR_SOURCE does not name a folder with TripoSR's source")
RESOLUTION = 128 if WHOLE else 66
VIT = {
    'hidden_size': 768, 'intermediate_size': 3072, 'num_hidden_layers': 12,
    'num_attention_heads': 12, 'image_size': 224, 'patch_size': 16, 'hidden_act': 'gelu',
    'layer_norm_eps': 1e-12, 'qkv_bias': True, 'hidden_dropout_prob': 0.0,
    'attention_probs_dropout_prob': 0.0, 'model_type': 'vit'}
SIZES = {'plane': 32, 'channels': 1024, 'layers': 16}
if not WHOLE:
    VIT |= {'hidden_size': 128, 'intermediate_size': 256, 'num_hidden_layers': 3,
            'num_attention_heads': 2}
    SIZES = {'plane': 8, 'channels': 192, 'layers': 3}


def configuration() -> dict[str, Any]:
    """Return what the published config.yaml says, with the sizes of this test."""
    return {
        'cond_image_size': 512,
        'image_tokenizer_cls': 'tsr.models.tokenizers.image.DINOSingleImageTokenizer',
        'image_tokenizer': {'pretrained_model_name_or_path': 'facebook/dino-vitb16'},
        'tokenizer_cls': 'tsr.models.tokenizers.triplane.Triplane1DTokenizer',
        'tokenizer': {'plane_size': SIZES['plane'], 'num_channels': SIZES['channels']},
        'backbone_cls': 'tsr.models.transformer.transformer_1d.Transformer1D',
        'backbone': {
            'in_channels': SIZES['channels'], 'num_attention_heads': SIZES['channels'] // 64,
            'attention_head_dim': 64, 'num_layers': SIZES['layers'],
            'cross_attention_dim': VIT['hidden_size']},
        'post_processor_cls': 'tsr.models.network_utils.TriplaneUpsampleNetwork',
        'post_processor': {'in_channels': SIZES['channels'], 'out_channels': 40},
        'decoder_cls': 'tsr.models.network_utils.NeRFMLP',
        'decoder': {'in_channels': 120, 'n_neurons': 64, 'n_hidden_layers': 9,
                    'activation': 'silu'},
        'renderer_cls': 'tsr.models.nerf_renderer.TriplaneNeRFRenderer',
        'renderer': {'radius': 0.87, 'feature_reduction': 'concat', 'density_activation': 'exp',
                     'density_bias': -1.0, 'num_samples_per_ray': 128}}


def marching_cubes_of_torchmcubes(level: torch.Tensor, value: float) -> tuple[torch.Tensor, ...]:
    """Stand in for the compiled torchmcubes, which returns vertices as (k, j, i)."""
    vertices, faces, _, _ = marching_cubes(level.numpy(), value)
    return torch.from_numpy(vertices[:, ::-1].copy()), torch.from_numpy(faces.astype(np.int64))


@pytest.fixture(scope='module')
def original(tmp_path_factory: pytest.TempPathFactory) -> Iterator[torch.nn.Module]:
    """Build the original with random weights, every one of which matters."""
    transformers = pytest.importorskip('transformers')
    for name in ('einops', 'omegaconf'):
        pytest.importorskip(name)
    if int(transformers.__version__.split('.')[0]) >= 5:
        pytest.skip('transformers 5 has renamed the weights of its ViT')
    vit = tmp_path_factory.mktemp('vit') / 'config.json'
    vit.write_text(json.dumps(VIT))
    patch = pytest.MonkeyPatch()
    # What nothing here depends on: video files, removal of backgrounds.
    for name in ('imageio', 'rembg'):
        patch.setitem(sys.modules, name, ModuleType(name))
    mcubes = ModuleType('torchmcubes')
    mcubes.marching_cubes = marching_cubes_of_torchmcubes
    patch.setitem(sys.modules, 'torchmcubes', mcubes)
    patch.syspath_prepend(SOURCE)
    patch.setattr(importlib.import_module('tsr.models.tokenizers.image'), 'hf_hub_download',
                  lambda **wanted: str(vit))
    torch.manual_seed(0)
    network = importlib.import_module('tsr.system').TSR(configuration()).eval()
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if weight.ndim == 1:
                weight.copy_(0.2 * torch.randn_like(weight) + float(
                    'norm' in name and name.endswith('weight')))
            elif 'embeddings' in name:
                weight.copy_(torch.randn_like(weight))
            else:
                gain = 1.4 if name.startswith('decoder') else 1.0
                weight.copy_(gain * torch.randn_like(weight) / weight[0].numel() ** 0.5)
        # So that densities range over some powers of ten, and not beyond float32.
        network.decoder.layers[-1].weight.mul_(0.2 if WHOLE else 4.0)
    network.requires_grad_(False)
    yield network
    patch.undo()


@pytest.fixture(scope='module')
def ours(original: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> TripoSR:
    """Load the original's weights from a file as the published one is."""
    path = tmp_path_factory.mktemp('released') / 'model.ckpt'
    torch.save(original.state_dict(), path)
    return load_triposr(path)


@pytest.fixture(scope='module')
def pictures() -> np.ndarray:
    """Return two pictures on grey, (2, 400, 400, 3), not of the network's size."""
    random = np.random.default_rng(0)
    pictures = np.full((2, 400, 400, 3), 0.5, np.float32)
    pictures[0, 60:340, 100:300] = random.uniform(size=(280, 200, 3))
    pictures[1, 150:250, 30:370] = np.linspace(0, 1, 340)[:, None] * (1.0, 0.3, 0.6)
    return pictures


@pytest.fixture(scope='module')
def planes(
    original: torch.nn.Module, ours: TripoSR, pictures: np.ndarray,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the triplanes: the original's, picture by picture, and ours, in one batch."""
    theirs = torch.cat([original([picture], device='cpu') for picture in pictures])
    return theirs, ours.encode(torch.from_numpy(pictures).permute(0, 3, 1, 2))


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def test_triplane(planes: tuple[torch.Tensor, torch.Tensor]) -> None:
    theirs, mine = planes
    assert theirs.shape == mine.shape
    print('\ntriplane: relative error', [relative_error(*pair) for pair in zip(mine, theirs)])
    for one, other in zip(mine, theirs):
        assert relative_error(one, other) < 1e-3
    assert relative_error(theirs[0], theirs[1]) > 0.05, 'the picture matters'


def test_densities_and_colours(
    original: torch.nn.Module, ours: TripoSR, planes: tuple[torch.Tensor, torch.Tensor],
) -> None:
    points = torch.empty(20000, 3).uniform_(-0.9, 0.9, generator=torch.Generator().manual_seed(1))
    theirs = original.renderer.query_triplane(original.decoder, points, planes[0][0])
    density, color = ours.query(planes[1][0], points)
    error = relative_error(density.exp(), theirs['density_act'][:, 0])
    print('\ndensity: relative error', error, ' colour: greatest difference',
          float((color - theirs['color']).abs().max()))
    assert error < 1e-3
    torch.testing.assert_close(color, theirs['color'], atol=1e-3, rtol=0)
    assert theirs['density_act'].log().std() > 0.5 and theirs['color'].std() > 0.05


def test_mesh(
    original: torch.nn.Module, ours: TripoSR, planes: tuple[torch.Tensor, torch.Tensor],
) -> None:
    """Every vertex of either mesh lies beside one of the other, with the same colour."""
    triplane = planes[1][0]
    points = torch.empty(50000, 3).uniform_(-0.87, 0.87)
    level = float(ours.query(triplane, points)[0].quantile(0.97).exp())
    original.renderer.set_chunk_size(200000)
    mesh, = original.extract_mesh(
        planes[0][:1], has_vertex_color=True, resolution=RESOLUTION, threshold=level)
    solid = sample_near_surface(
        lambda points: torch.cat([
            ours.query(triplane, part)[0] for part in points.split(200000)]) - np.log(level),
        RESOLUTION, RADIUS).numpy()
    # The original interpolates the density itself, not its logarithm.
    vertices, _, _, _ = marching_cubes(np.exp(solid) - 1.0, 0.0)
    vertices = vertices * 2.0 * RADIUS / (RESOLUTION - 1) - RADIUS
    there, _ = cKDTree(mesh.vertices).query(vertices)
    back, nearest = cKDTree(vertices).query(mesh.vertices)
    print(f'\nmesh: {len(mesh.vertices)} and {len(vertices)} vertices, Chamfer over radius',
          (there.mean() + back.mean()) / RADIUS, 'greatest', max(there.max(), back.max()))
    assert len(mesh.vertices) > 1000
    assert (there.mean() + back.mean()) / RADIUS < 1e-3
    color = ours.query(triplane, torch.from_numpy(vertices[nearest]).float())[1]
    theirs = mesh.visual.vertex_colors[:, :3] / 255.0
    assert np.abs(color.numpy() - theirs).mean() < 0.01
