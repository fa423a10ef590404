# SPDX-License-Identifier: Apache-2.0
"""`shap_e`: diffusers' pipeline with small random weights, and a known field in their place."""

from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from photographed import BARS
from photographed import PLACE
from photographed import bars
from photographed import sighting
from photographed import true_points
from photographed import with_mask
from rebuilt import assert_closed
from rebuilt import distance
from rebuilt import surface_points
from scipy.spatial import cKDTree
from skimage.measure import marching_cubes

from img2scene_ros.errors import InputError
from img2scene_ros.errors import MissingDependencyError
from img2scene_ros.errors import ReconstructionError
from img2scene_ros.reconstruction.shap_e import ShapEOptions
from img2scene_ros.reconstruction.shap_e import ShapEReconstructor
from img2scene_ros.reconstruction.shap_e import as_generated

pytestmark = pytest.mark.usefixtures('one_thread')
LIGHT = np.array([0.2, 0.5, 0.8])  # linear
SRGB = [124, 188, 231]  # the same as sRGB bytes


def field(points: np.ndarray) -> np.ndarray:
    """Return the signed distance to the bars, negative outside; z up, turned by 60 degrees."""
    turn = trimesh.transformations.rotation_matrix(np.radians(60), (0, 0, 1))[:3, :3]
    x, y, z = (points @ turn / 3.0).T
    shift = np.mean([np.min([np.subtract(c, np.divide(s, 2)) for c, s in BARS], axis=0),
                     np.max([np.add(c, np.divide(s, 2)) for c, s in BARS], axis=0)], axis=0)
    there = np.column_stack([x, z, -y]) + shift  # glTF axes
    return np.max([-(np.abs(there - center) - np.divide(size, 2)).max(axis=1)
                   for center, size in BARS], axis=0)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a pipeline of the real classes, small, with random weights."""
    diffusers = pytest.importorskip('diffusers')
    import transformers

    torch.manual_seed(0)
    pipeline = diffusers.ShapEImg2ImgPipeline(
        prior=diffusers.PriorTransformer(
            num_attention_heads=2, attention_head_dim=16, embedding_dim=32, num_embeddings=32,
            embedding_proj_dim=32, time_embed_dim=64, num_layers=1, clip_embed_dim=64,
            additional_embeddings=0, time_embed_act_fn='gelu', norm_in_type='layer',
            embedding_proj_norm_type='layer', encoder_hid_proj_type=None, added_emb_type=None),
        image_encoder=transformers.CLIPVisionModel(transformers.CLIPVisionConfig(
            hidden_size=32, image_size=32, projection_dim=32, intermediate_size=37,
            num_attention_heads=4, num_hidden_layers=1, patch_size=4)),
        image_processor=transformers.CLIPImageProcessor(
            crop_size={'height': 32, 'width': 32}, size={'shortest_edge': 32}),
        scheduler=diffusers.HeunDiscreteScheduler(
            beta_schedule='exp', num_train_timesteps=1024, prediction_type='sample',
            use_karras_sigmas=True, clip_sample=True, clip_sample_range=1.0),
        shap_e_renderer=diffusers.pipelines.shap_e.ShapERenderer(
            param_shapes=((8, 93), (8, 8), (8, 8), (8, 8)), d_latent=32, d_hidden=8, n_output=12))
    folder = tmp_path_factory.mktemp('shap_e')
    pipeline.save_pretrained(folder)
    return folder


def built(checkpoint: Path, answer: Any = None, **options: object) -> ShapEReconstructor:
    """Build `shap_e`; its pipeline is asked in earnest, only its field may be another one."""
    reconstructor = ShapEReconstructor(ShapEOptions(
        checkpoint=str(checkpoint), device='cpu', **({'num_inference_steps': 2} | options)))

    def forward(position: torch.Tensor, **_: object) -> SimpleNamespace:
        distance = torch.from_numpy(answer(position[0].double().numpy())).float()
        # Colours of the network are sRGB; the pipeline makes them linear.
        colors = torch.tensor(SRGB) / 255.0
        return SimpleNamespace(signed_distance=distance[None, :, None],
                               channels=colors.expand(1, len(distance), 3))

    renderer = reconstructor._pipeline.shap_e_renderer
    renderer.mesh_decoder.forward = decode
    if answer is not None:
        renderer.mlp.forward = forward
    return reconstructor


def decode(field: torch.Tensor, low: torch.Tensor, size: torch.Tensor) -> Any:
    """Stand in for the decoder: the table of its marching cubes is part of real weights."""
    from diffusers.pipelines.shap_e.renderer import MeshDecoderOutput

    vertices = faces = np.zeros((0, 3))
    if (field > 0).any():
        vertices, faces, _, _ = marching_cubes(field.numpy(), 0.0, gradient_direction='ascent')
    return MeshDecoderOutput(
        torch.from_numpy(vertices.astype(np.float32)) / (len(field) - 1) * size + low,
        torch.from_numpy(faces.astype(np.int64)), {})


def test_mesh_is_turned_and_placed_as_photographed(checkpoint: Path) -> None:
    seen = sighting()
    model = built(checkpoint, field).reconstruct(seen)
    assert_closed(model)
    assert model.reconstructor == 'shap_e'
    assert distance(surface_points(model), true_points()) < 0.02 * PLACE[2]
    np.testing.assert_allclose(model.colors, np.tile(SRGB, (len(model.colors), 1)), atol=1)


def test_pipeline_gets_the_picture_and_the_options(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    reconstructor = built(checkpoint, field, guidance_scale=5.5, num_inference_steps=3)
    asked = []
    encode = type(reconstructor._pipeline)._encode_image
    monkeypatch.setattr(
        type(reconstructor._pipeline), '_encode_image', lambda self, image, *rest: (
            asked.append((image, self.scheduler.num_inference_steps)),
            encode(self, image, *rest))[1])
    reconstructor.reconstruct(sighting())
    picture = np.asarray(asked[0][0])
    assert picture.shape == (256, 256, 3)
    assert (picture[[0, -1]] == 255).all() and (picture[:, [0, -1]] == 255).all()
    assert not (picture[..., 0].astype(int) - picture[..., 1] > 150).sum() > 400, 'no red wall'
    assert reconstructor._pipeline.scheduler.num_inference_steps == 3


@pytest.mark.parametrize('value', [-1.0, np.nan])
def test_field_without_a_surface_is_one_sentence(checkpoint: Path, value: float) -> None:
    reconstructor = built(checkpoint, lambda points: np.full(len(points), value))
    with pytest.raises(ReconstructionError) as caught:
        reconstructor.reconstruct(sighting())
    assert '\n' not in str(caught.value)


def test_object_that_is_hardly_seen_is_one_sentence(checkpoint: Path) -> None:
    reconstructor = built(checkpoint)
    for mask, words in ((None, 'mask'), (np.zeros((240, 320), bool), '8 pixels')):
        with pytest.raises(ReconstructionError, match=words):
            reconstructor.reconstruct(with_mask(sighting(), mask))


def test_damaged_checkpoint_is_one_sentence(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / 'model_index.json').write_text('{')
    with pytest.raises(InputError, match='model_index.json') as caught:
        ShapEReconstructor(ShapEOptions(checkpoint=str(tmp_path), device='cpu'))
    assert '\n' not in str(caught.value)


def test_mesh_of_diffusers_keeps_its_shape_and_colours() -> None:
    """A mesh of tensors: z up there is y up here, linear light there is sRGB here."""
    mesh = bars()
    stood = mesh.vertices[:, [0, 2, 1]] * (1, -1, 1)  # from y up to z up
    light = torch.from_numpy(np.tile(LIGHT, (len(stood), 1)))
    vertices, faces, colors = as_generated(SimpleNamespace(
        verts=torch.from_numpy(stood), faces=torch.from_numpy(mesh.faces),
        vertex_channels=dict(zip('RGB', light.T)))).solid(20000)
    assert cKDTree(vertices).query(mesh.vertices)[0].max() < 1e-6
    assert trimesh.Trimesh(vertices, faces, process=False).volume == pytest.approx(mesh.volume)
    assert (colors == SRGB).all()


@pytest.mark.skipif(find_spec('diffusers') is not None, reason='diffusers is installed')
def test_missing_package_is_one_sentence() -> None:
    with pytest.raises(MissingDependencyError, match='diffusers'):
        ShapEReconstructor()
