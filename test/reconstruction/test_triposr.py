# SPDX-License-Identifier: Apache-2.0
"""`triposr` on a network whose answer is known: mesh, colours, place, and bad input."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from photographed import photographed
from photographed import with_mask
from rebuilt import assert_closed
from rebuilt import distance
from triposr_checkpoints import COLOR
from triposr_checkpoints import SEMI_AXES
from triposr_checkpoints import ellipsoid

from img2scene_ros.camera import Camera
from img2scene_ros.detection import bbox_of
from img2scene_ros.errors import InputError
from img2scene_ros.errors import MissingDependencyError
from img2scene_ros.errors import ReconstructionError
from img2scene_ros.models.crop import smallest_rotation
from img2scene_ros.models.triposr_network import TripoSR
from img2scene_ros.reconstruction import BatchReconstructor
from img2scene_ros.reconstruction.triposr import TriposrOptions
from img2scene_ros.reconstruction.triposr import TriposrReconstructor
from img2scene_ros.types import Sighting

pytestmark = pytest.mark.usefixtures('one_thread')

CAMERA = Camera(640, 480, 560.0, 570.0, 320.0, 236.0)
PLACES = [(0.0, 0.0, 1.2), (0.45, -0.3, 1.4)]  # metres, optical frame
SCALE = 0.3  # metres per unit of the network


def true_object(place: tuple[float, float, float]) -> trimesh.Trimesh:
    """Return the network's ellipsoid as it stands before the camera, optical frame."""
    ball = trimesh.creation.icosphere(5)
    toward, right, up = SEMI_AXES * SCALE
    turn = smallest_rotation(np.array(place))
    return trimesh.Trimesh(
        (ball.vertices * (right, up, toward)) @ turn.T + place, ball.faces, process=False)


def sighting_of(place: tuple[float, float, float]) -> Sighting:
    """Photograph the ellipsoid before a red wall."""
    mesh = true_object(place)
    return photographed(mesh.vertices, mesh.faces, np.array(place), CAMERA)


@pytest.fixture(scope='module')
def build(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., TriposrReconstructor]:
    """Return a function that builds `triposr` on a changed checkpoint, with options."""
    def built(
        change: Callable[[TripoSR], object] = lambda network: None, **options: object,
    ) -> TriposrReconstructor:
        network = ellipsoid()
        change(network)
        path = tmp_path_factory.mktemp('checkpoint') / 'model.ckpt'
        torch.save(network.state_dict(), path)
        return TriposrReconstructor(TriposrOptions(
            checkpoint=str(path), device='cpu', **({'resolution': 64} | options)))

    return built


def watching(network: TripoSR) -> None:
    """Let what the picture shows change the answer a little."""
    network.backbone.proj_out.weight.normal_(std=0.05, generator=torch.Generator().manual_seed(0))
    for weight in (network.backbone.transformer_blocks[0].attn2.to_v.weight,
                   network.backbone.transformer_blocks[0].attn2.to_out[0].weight):
        weight.mul_(5.0)


@pytest.mark.parametrize('place', PLACES)
def test_mesh_lies_where_the_object_is(place: tuple, build: Callable) -> None:
    model = build(resolution=96).reconstruct(sighting_of(place))
    assert_closed(model)
    assert len(model.faces) <= TriposrOptions().max_triangles
    assert distance(model.points, true_object(place).vertices) < 0.01 * place[2]
    np.testing.assert_allclose(
        np.ptp(model.points, axis=0), np.ptp(true_object(place).vertices, axis=0), rtol=0.04)
    assert model.reconstructor == 'triposr'


@pytest.mark.parametrize('place', PLACES)
def test_colours_are_the_networks_at_the_vertices(place: tuple, build: Callable) -> None:
    """Red grows towards the camera, green to the right, blue upwards, as the formula says."""
    model = build(resolution=96).reconstruct(sighting_of(place))
    turn = smallest_rotation(np.array(place))
    right, down, away = ((model.points - place) @ turn / SCALE).T
    expected = 255 / (1 + np.exp(-COLOR * np.stack([-away, right, -down], axis=1)))
    assert np.abs(model.colors - expected).mean() < 6


def test_network_sees_the_object_alone_in_the_middle_on_grey(
    build: Callable, monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown = []
    encode = TripoSR.encode
    monkeypatch.setattr(
        TripoSR, 'encode', lambda self, x: (shown.append(x.numpy()), encode(self, x))[1])
    reconstructor = build(foreground=0.7)
    for place in PLACES:
        sighting = sighting_of(place)
        reconstructor.reconstruct(sighting)
        picture, = shown.pop()
        assert picture.shape == (3, 512, 512) and picture.dtype == np.float32
        object = (picture != 0.5).any(axis=0)
        xmin, ymin, xmax, ymax = bbox_of(object)
        assert max(xmax - xmin, ymax - ymin) / 512 == pytest.approx(0.7, abs=0.015)
        assert ((xmin + xmax) / 2, (ymin + ymax) / 2) == pytest.approx((256, 256), abs=4)
        # The middle of the object is as it was, in 0 to 1; the red wall is nowhere.
        column, row = CAMERA.project(np.array(place)).round().astype(int)
        middle = sighting.frame.color[row, column] / 255
        assert picture[:, 256, 256] == pytest.approx(middle, abs=0.03)
        reddish = picture[0] - picture[1] > 0.5
        assert reddish.sum() < 0.05 * object.sum(), 'only where edge pixels are mixed'


def test_batch_gives_what_one_by_one_gives(build: Callable) -> None:
    reconstructor = build(watching)
    assert isinstance(reconstructor, BatchReconstructor)
    assert reconstructor.max_batch == TriposrOptions().max_batch
    sightings = [sighting_of(place) for place in PLACES]
    bad = with_mask(sightings[0], np.zeros((480, 640), bool))
    first, error, second = reconstructor.reconstruct_batch([sightings[0], bad, sightings[1]])
    assert isinstance(error, ReconstructionError)
    for model, sighting in zip((first, second), sightings):
        alone = reconstructor.reconstruct(sighting)
        assert distance(model.vertices, alone.vertices) < 1e-4
    assert distance(first.vertices, second.vertices) > 1e-3, 'the pictures matter'


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
def test_half_precision_is_nearly_the_same(dtype: str, build: Callable) -> None:
    sighting = sighting_of(PLACES[0])
    whole = build(watching).reconstruct(sighting)
    half = build(watching, dtype=dtype).reconstruct(sighting)
    assert 0 < distance(whole.vertices, half.vertices) < 2e-3


def test_queries_are_bounded(build: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    query = TripoSR.query
    monkeypatch.setattr(
        TripoSR, 'query', lambda self, planes, points: (
            asked.append(len(points)), query(self, planes, points))[1])
    whole = build().reconstruct(sighting_of(PLACES[0]))
    most = max(asked)
    asked.clear()
    parts = build(points_per_chunk=2000).reconstruct(sighting_of(PLACES[0]))
    assert max(asked) <= 2000 < most
    assert distance(whole.vertices, parts.vertices) < 1e-5


def test_options_take_effect(build: Callable) -> None:
    """A lower threshold gives a wider solid: 1 - r^2 = ln(t / 25) / 20 at its surface."""
    reconstructor = build()
    sighting = sighting_of(PLACES[0])
    few = replace(reconstructor.options, max_triangles=600)
    reconstructor.options = few
    assert len(reconstructor.reconstruct(sighting).faces) <= 600
    vertices = []
    for threshold in (25.0, 2.0):
        reconstructor.options = replace(few, threshold=threshold)
        model = reconstructor.reconstruct(sighting)
        green = model.colors[:, 1].max() / 255
        vertices.append(np.log(green / (1 - green)) / COLOR)
    assert vertices[0] == pytest.approx(SEMI_AXES[1], rel=0.02)
    assert vertices[1] == pytest.approx(SEMI_AXES[1] * (1 + np.log(12.5) / 20) ** 0.5, rel=0.02)


def set_bias(value: float) -> Callable[[TripoSR], object]:
    return lambda network: network.decoder['layers'][-1].bias[0].fill_(value)


@pytest.mark.parametrize('change, words', [
    (set_bias(np.nan), "'dtype'"),
    (set_bias(-1e4), 'no solid'),
    (set_bias(1e4), 'all the space'),
])
def test_answer_that_is_no_solid_is_one_sentence(
    change: Callable, words: str, build: Callable,
) -> None:
    with pytest.raises(ReconstructionError, match=words) as caught:
        build(change).reconstruct(sighting_of(PLACES[0]))
    assert '\n' not in str(caught.value)


def test_sighting_that_shows_nothing_is_one_sentence(build: Callable) -> None:
    reconstructor = build()
    sighting = sighting_of(PLACES[0])
    pixel = np.zeros((480, 640), bool)
    pixel[200, 300] = True
    for mask, words in [(None, 'mask'), (np.zeros_like(pixel), '8 pixels'),
                        (pixel, '8 pixels')]:
        with pytest.raises(ReconstructionError, match=words) as caught:
            reconstructor.reconstruct(with_mask(sighting, mask))
        assert '\n' not in str(caught.value)


def test_solid_that_reaches_the_border_is_closed(build: Callable) -> None:
    """With a higher density everywhere the ellipsoid is wider than the network's cube."""
    model = build(set_bias(40.0 - 400.0)).reconstruct(sighting_of(PLACES[0]))
    assert_closed(model)


def hollow_with_a_speck(network: TripoSR) -> None:
    """Let the density fall again inside, and rise in one corner of the cube."""
    second, last = network.decoder['layers'][2], network.decoder['layers'][4]
    second.weight[4, 0], second.bias[4] = 10.0, -4080.0  # how far it is beyond 8, times 10
    last.weight[0, 4] = -0.5
    network.tokenizer['embeddings'][0, :4, 28, 28] = 1.0


def test_hollows_and_specks_are_dropped(build: Callable) -> None:
    """Networks are taught what is seen: inside of solids, and in the air, they may dream."""
    model = build(hollow_with_a_speck, resolution=128).reconstruct(sighting_of(PLACES[0]))
    mesh = trimesh.Trimesh(model.vertices, model.faces, process=False)
    assert len(mesh.split(only_watertight=False)) == 1
    assert mesh.volume == pytest.approx(
        4 / 3 * np.pi * np.prod(SEMI_AXES * SCALE), rel=0.05), 'it is filled'


def test_weights_that_are_not_there_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path / 'hub'))
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    with pytest.raises(MissingDependencyError, match='stabilityai/TripoSR') as caught:
        TriposrReconstructor()
    assert '\n' not in str(caught.value)
    with pytest.raises(InputError, match='nowhere/model.ckpt'):
        TriposrReconstructor(TriposrOptions(checkpoint=str(tmp_path / 'nowhere' / 'model.ckpt')))


def test_weights_in_the_cache_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path))
    commit = '0123456789abcdef0123456789abcdef01234567'
    repository = tmp_path / 'models--stabilityai--TripoSR'
    snapshot = repository / 'snapshots' / commit
    snapshot.mkdir(parents=True)
    (repository / 'refs').mkdir()
    (repository / 'refs' / 'main').write_text(commit)
    torch.save(ellipsoid().state_dict(), snapshot / 'model.ckpt')
    reconstructor = TriposrReconstructor(TriposrOptions(device='cpu', resolution=64))
    assert len(reconstructor.reconstruct(sighting_of(PLACES[0])).faces) > 100
