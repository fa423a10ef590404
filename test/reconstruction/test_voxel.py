# SPDX-License-Identifier: Apache-2.0
"""`voxel`: with networks that answer a known solid, with the bundled one, and with bad input."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import trimesh
from rebuilt import assert_closed
from rebuilt import occupancy
from synthetic import CAMERA
from synthetic import camera_pose
from synthetic import tabletop_frame
from torch import Tensor

from img2scene_ros.detection import bbox_of
from img2scene_ros.detection.supports import supported
from img2scene_ros.detection.tabletop import TabletopDetector
from img2scene_ros.detection.tabletop import TabletopOptions
from img2scene_ros.errors import InputError
from img2scene_ros.errors import OptionError
from img2scene_ros.errors import ReconstructionError
from img2scene_ros.localization import object_axes
from img2scene_ros.localization.sensor import SensorDistance
from img2scene_ros.models import networks
from img2scene_ros.models.crop import anchor_depth
from img2scene_ros.models.crop import crop_view
from img2scene_ros.models.occupancy import OccupancyNetwork
from img2scene_ros.pipeline import Pipeline
from img2scene_ros.pipeline import PipelineOptions
from img2scene_ros.reconstruction.voxel import VoxelOptions
from img2scene_ros.reconstruction.voxel import VoxelReconstructor
from img2scene_ros.rendering.raycast import Surface
from img2scene_ros.rendering.raycast import render
from img2scene_ros.types import Detection
from img2scene_ros.types import Frame
from img2scene_ros.types import ObjectModel
from img2scene_ros.types import Placement
from img2scene_ros.types import Sighting
from img2scene_ros.types import SupportPlane
from img2scene_ros.weights import bundled

pytestmark = pytest.mark.usefixtures('one_thread')

# Three bars along different axes, none of the same length: no mirror image fits. Centre, size.
BARS = np.array([
    [(0.0, 0.0, 0.03), (0.06, 0.20, 0.06)],
    [(0.0, -0.07, 0.09), (0.06, 0.06, 0.18)],
    [(0.06, 0.07, 0.03), (0.18, 0.06, 0.06)]])
PLACES = ((0.0, 0.0), (-0.05, 0.25), (-0.15, -0.28))
POSE = camera_pose(40, 0.9)


class Known(OccupancyNetwork):
    """
    Answers with the bars at a place, as the crop of a sighting shows them.

    :param shift: metres by which it is wrong, away from the camera
    """

    def __init__(self, place: tuple[float, float], sighting: Sighting, shift: float = 0.0) -> None:
        super().__init__()
        self.place, self.shift = place, shift
        self.view = crop_view(CAMERA, sighting.detection.bbox)
        depth = sighting_of_bars(place, with_depth=True).frame.points @ self.view.rotation[:, 2]
        self.cube = self.view.cube(anchor_depth(depth, sighting.detection.mask))

    def predict(self, pictures: Tensor, half_field: Tensor, resolution: int = 32) -> Tensor:
        """Know it at once: a mirror image does not mirror what is known."""
        return self(pictures, half_field, resolution)

    def encode(self, pictures: Tensor, half_field: Tensor) -> Tensor:
        """Look at nothing."""
        return pictures

    def query(self, features: Tensor, half_field: Tensor, points: Tensor) -> Tensor:
        """Return the signed distance to the bars, steep."""
        crop = points[0].double().numpy() * self.cube.side + (0.0, 0.0, self.cube.depth)
        crop = crop - (0.0, 0.0, self.shift)
        table = (crop @ self.view.rotation.T) @ POSE[:3, :3].T + POSE[:3, 3]
        depth = depth_in_bars(table - (*self.place, 0.0))
        return torch.from_numpy(depth / self.cube.side * 40.0).float()[None]


class Constant(OccupancyNetwork):
    """Answers the same number everywhere."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, pictures: Tensor, half_field: Tensor, resolution: int) -> Tensor:
        """Return (B, R, R, R)."""
        return torch.full((len(pictures), *3 * (resolution,)), self.value)


def depth_in_bars(points: np.ndarray) -> np.ndarray:
    """Return metres inside the union of the bars, negative outside (not farther than needed)."""
    distance = np.abs(points[:, None] - BARS[:, 0]) - BARS[:, 1] / 2.0
    return -distance.max(axis=2).min(axis=1)


@cache
def sighting_of_bars(
    place: tuple[float, float], with_depth: bool, seed: int | None = None,
) -> Sighting:
    """Look at the bars; without depth their distance is known from elsewhere."""
    bars = trimesh.util.concatenate([
        trimesh.creation.box(size).apply_translation((*place, 0) + center)
        for center, size in BARS])
    frame, ids = tabletop_frame([bars], POSE, seed)
    mask = ids == 1
    detection = Detection('object', 1.0, bbox_of(mask), mask)
    if with_depth:
        return Sighting(frame, detection, SensorDistance().place(
            frame, detection, supported(frame).support))
    to_camera = np.linalg.inv(POSE)
    corners = bars.vertices @ to_camera[:3, :3].T + to_camera[:3, 3]
    up, center = to_camera[:3, 2], corners.mean(axis=0)
    rotation = object_axes(center, up)
    extents = corners @ rotation
    center = rotation @ (extents.min(axis=0) + extents.max(axis=0)) / 2.0
    placement = Placement(
        center, rotation, np.ptp(extents, axis=0), np.full(3, 0.01), 'fixed')
    return Sighting(Frame(frame.color, CAMERA), detection, placement)


def rebuild(
    network: OccupancyNetwork, sighting: Sighting, monkeypatch: pytest.MonkeyPatch,
    **options: float,
) -> ObjectModel:
    """Rebuild with another network than the bundled one."""
    with monkeypatch.context() as patch:
        patch.setattr(networks, 'load_network', lambda folder: network)
        reconstructor = VoxelReconstructor(VoxelOptions(**{'threshold': 0.5, **options}))
    return reconstructor.reconstruct(sighting)


def rebuilt_bars(
    place: tuple[float, float], with_depth: bool, monkeypatch: pytest.MonkeyPatch,
    **options: float,
) -> ObjectModel:
    sighting = sighting_of_bars(place, with_depth=with_depth)
    return rebuild(Known(place, sighting), sighting, monkeypatch, **options)


def on_table(model: ObjectModel) -> np.ndarray:
    """Return the vertices in the table's coordinates."""
    return model.points @ POSE[:3, :3].T + POSE[:3, 3]


def iou_with_bars(model: ObjectModel, place: tuple[float, float], mirror: bool = False) -> float:
    """Return the shared share of the volumes, by Open3D's ray casting."""
    points = np.random.default_rng(0).uniform((-0.15, -0.2, -0.05), (0.25, 0.2, 0.25), (20000, 3))
    ours = occupancy(on_table(model), model.faces, points + (*place, 0))
    theirs = depth_in_bars(points * ((1, -1, 1) if mirror else (1, 1, 1))) > 0
    return (ours & theirs).sum() / (ours | theirs).sum()


@pytest.mark.parametrize('with_depth', (False, True))
@pytest.mark.parametrize('place', PLACES)
def test_a_known_solid_comes_out_where_it_is(
    place: tuple[float, float], with_depth: bool, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Place, size and orientation are the truth's, also off the centre; no mirror image."""
    model = rebuilt_bars(place, with_depth, monkeypatch, resolution=64)
    assert_closed(model)
    assert model.reconstructor == 'voxel'
    assert iou_with_bars(model, place) > 0.85
    assert iou_with_bars(model, place, mirror=True) < 0.6
    vertices = on_table(model) - (*place, 0)
    assert vertices.min(axis=0) == pytest.approx((-0.03, -0.10, 0.0), abs=0.008)
    assert vertices.max(axis=0) == pytest.approx((0.15, 0.10, 0.18), abs=0.008)


def test_up_is_up_and_x_is_towards_the_camera(monkeypatch: pytest.MonkeyPatch) -> None:
    """The object frame is the placement's."""
    model = rebuilt_bars(PLACES[1], True, monkeypatch)
    table = POSE[:3, :3] @ model.rotation
    np.testing.assert_allclose(table[:, 2], (0, 0, 1), atol=0.02)
    assert table[:, 0] @ (POSE[:3, 3] - (*PLACES[1], 0)) > 0.5
    assert model.size[2] == pytest.approx(0.18, abs=0.01)


def test_without_depth_the_distance_sets_the_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice as far is twice as large."""
    sighting = sighting_of_bars(PLACES[1], with_depth=False)
    network = Known(PLACES[1], sighting)
    far = replace(sighting, placement=replace(
        sighting.placement, position=2.0 * sighting.placement.position))
    one, other = (rebuild(network, each, monkeypatch) for each in (sighting, far))
    np.testing.assert_allclose(other.size, 2.0 * one.size, rtol=1e-4)
    np.testing.assert_allclose(other.position, 2.0 * one.position, rtol=1e-4)


class Sunk(Known):
    """Answers with the bars and what goes on below them, as networks do."""

    def query(self, features: Tensor, half_field: Tensor, points: Tensor) -> Tensor:
        """Return the greater of the distances to the bars and to the bars 3 cm lower."""
        down = torch.from_numpy(self.view.rotation.T @ POSE[2, :3] * 0.03 / self.cube.side)
        return torch.maximum(super().query(features, half_field, points),
                             super().query(features, half_field, points + down.float()))


@pytest.mark.parametrize('nearer', (0.97, 1.0, 1.04))
@pytest.mark.parametrize('place', PLACES)
def test_without_depth_it_stands_on_its_support(
    place: tuple[float, float], nearer: float, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither a network that sees too much below nor a distance that is off moves the foot."""
    sighting = sighting_of_bars(place, with_depth=False)
    support = SupportPlane(POSE[2, :3], float(POSE[2, 3]))
    placement = replace(
        sighting.placement, support=support, position=nearer * sighting.placement.position)
    model = rebuild(Sunk(place, sighting), replace(sighting, placement=placement), monkeypatch)
    assert_closed(model)
    assert on_table(model)[:, 2].min() == pytest.approx(0.0, abs=0.003)
    assert model.size[2] == pytest.approx(0.18, rel=0.1)


def test_a_support_that_contradicts_the_place_costs_no_mesh(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A plane far above the object cuts nothing off."""
    sighting = sighting_of_bars(PLACES[0], with_depth=False)
    above = SupportPlane(POSE[2, :3], float(POSE[2, 3]) - 0.3)
    contradicted = replace(sighting, placement=replace(sighting.placement, support=above))
    model = rebuild(Known(PLACES[0], sighting), contradicted, monkeypatch)
    assert_closed(model)
    assert model.size[2] == pytest.approx(0.18, rel=0.1)


@pytest.mark.parametrize('limit', (200, 1000, 3000))
@pytest.mark.parametrize('with_depth', (False, True))
def test_triangles_are_a_parameter(
    limit: int, with_depth: bool, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However few triangles, the mesh stays closed and the same solid."""
    model = rebuilt_bars(PLACES[0], with_depth, monkeypatch, max_triangles=limit)
    assert 0.4 * limit < len(model.faces) <= limit
    assert_closed(model)
    assert iou_with_bars(model, PLACES[0]) > 0.8


@pytest.mark.parametrize('shift', (-0.02, 0.03))
def test_what_is_seen_is_where_it_was_measured(
    shift: float, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A network that is centimetres off does not move the visible side, nor fill free space."""
    sighting = sighting_of_bars(PLACES[1], True, seed=0)
    model = rebuild(Known(PLACES[1], sighting, shift), sighting, monkeypatch)
    seen = render([Surface(model.points, model.faces, model.colors, id=1)], CAMERA)
    mask = sighting.detection.mask
    gap = np.abs(seen.depth - sighting.frame.depth)[mask & (seen.ids == 1)]
    assert np.nanmedian(gap) < sighting.frame.depth_std(sighting.placement.position[2])
    assert (mask & (seen.ids == 1)).sum() / (mask | (seen.ids == 1)).sum() > 0.88
    assert on_table(model)[:, 2].min() > -0.005, 'it stands on the table, not in it'


def test_nothing_is_filled_where_the_picture_shows_other_things(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A network that sees the object centimetres too fat does not let it grow over its mask."""
    class Fat(Known):
        def query(self, features: Tensor, half_field: Tensor, points: Tensor) -> Tensor:
            """Return the distance to bars that are larger all around."""
            return super().query(features, half_field, points) + 3.0

    sighting = sighting_of_bars(PLACES[0], with_depth=True)
    model = rebuild(Fat(PLACES[0], sighting), sighting, monkeypatch)
    silhouette = render([Surface(model.points, model.faces, model.colors, id=1)], CAMERA).ids == 1
    assert (silhouette & ~sighting.detection.mask).sum() < 0.03 * sighting.detection.mask.sum()


def test_specks_and_hollows_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """A speck beside the object and a cavity in it, which nobody sees, are no part of the mesh."""
    class Odd(Known):
        def query(self, features: Tensor, half_field: Tensor, points: Tensor) -> Tensor:
            """Answer a hollow ball and a grain beside it."""
            distance = points[0].norm(dim=-1)
            grain = (points[0] - torch.tensor([0.4, 0.4, 0.0])).norm(dim=-1)
            solid = torch.minimum(0.3 - distance, distance - 0.15)
            return 40.0 * torch.maximum(solid, 0.04 - grain)[None]

    sighting = sighting_of_bars(PLACES[0], with_depth=False)
    model = rebuild(Odd(PLACES[0], sighting), sighting, monkeypatch)
    mesh = trimesh.Trimesh(model.vertices, model.faces, process=False)
    assert mesh.body_count == 1
    radius = mesh.extents.mean() / 2.0
    assert mesh.volume == pytest.approx(4.0 / 3.0 * np.pi * radius ** 3, rel=0.03)
    np.testing.assert_allclose(mesh.extents, 2.0 * radius, rtol=0.02)


def test_what_reaches_out_of_the_cube_ends_at_its_faces(monkeypatch: pytest.MonkeyPatch) -> None:
    """An endless bar becomes a closed one, as long as the cube."""
    class Endless(Known):
        def query(self, features: Tensor, half_field: Tensor, points: Tensor) -> Tensor:
            """Answer a round bar along the crop's rows."""
            return 40.0 * (0.2 - points[..., 1:].norm(dim=-1))

    sighting = sighting_of_bars(PLACES[0], with_depth=False)
    model = rebuild(Endless(PLACES[0], sighting), sighting, monkeypatch)
    assert_closed(model)
    view = crop_view(CAMERA, sighting.detection.bbox)
    across = (model.vertices @ model.rotation.T) @ view.rotation
    length, thickness = np.ptp(across[:, 0]), np.ptp(across[:, 1])
    assert length / thickness == pytest.approx(1.0 / 0.4, rel=0.03)


def test_colour_is_the_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is seen has the picture's colours, what is hidden those of what is near."""
    sighting = sighting_of_bars(PLACES[0], with_depth=True)
    color = np.zeros_like(sighting.frame.color)
    left = np.arange(640) < np.median(np.nonzero(sighting.detection.mask)[1])
    color[:, left], color[:, ~left] = (200, 40, 10), (10, 40, 200)
    color[~sighting.detection.mask] = (0, 255, 0)
    sighting = replace(sighting, frame=Frame(color, CAMERA, sighting.frame.depth))
    model = rebuild(Known(PLACES[0], sighting), sighting, monkeypatch)
    assert not (model.colors == (0, 255, 0)).all(axis=1).any(), 'the background is no part of it'
    is_left = CAMERA.project(model.points)[:, 0] < left.sum() - 0.5
    expected = np.where(is_left[:, None], (200, 40, 10), (10, 40, 200))
    assert (model.colors == expected).all(axis=1).mean() > 0.9


@pytest.fixture(scope='module')
def bundled_reconstructor() -> VoxelReconstructor:
    return VoxelReconstructor()


@pytest.fixture(scope='module')
def sightings(recorded: Callable[[str], Frame]) -> list[Sighting]:
    """Return what stands on a recorded table."""
    frame = supported(recorded('ycb_3'))
    return [Sighting(frame, found, SensorDistance().place(frame, found, frame.support))
            for found in TabletopDetector().detect(frame)]


def test_several_at_once_are_as_each_alone(
    bundled_reconstructor: VoxelReconstructor, sightings: list[Sighting],
) -> None:
    """The order is kept; one that shows nothing gives its error and leaves the others alone."""
    empty = replace(sightings[0], detection=replace(
        sightings[0].detection, mask=np.zeros_like(sightings[0].detection.mask)))
    together = bundled_reconstructor.reconstruct_batch([sightings[0], empty, *sightings[1:]])
    assert isinstance(together.pop(1), ReconstructionError)
    assert len(together) == len(sightings) == 3
    for model, sighting in zip(together, sightings):
        alone = bundled_reconstructor.reconstruct(sighting)
        np.testing.assert_allclose(model.position, alone.position, atol=1e-3)
        np.testing.assert_allclose(model.size, alone.size, atol=2e-3)
        assert_closed(model)
    assert bundled_reconstructor.reconstruct_batch([empty]) != []
    assert bundled_reconstructor.reconstruct_batch([]) == []


@pytest.mark.parametrize('with_depth', (False, True))
def test_bundled_network_on_a_recorded_scene(
    with_depth: bool, bundled_reconstructor: VoxelReconstructor, sightings: list[Sighting],
) -> None:
    """Closed meshes at their places; with depth the visible side is the measured surface."""
    for sighting in sightings:
        frame = sighting.frame
        if not with_depth:
            sighting = replace(sighting, frame=Frame(frame.color, frame.camera))
        model = bundled_reconstructor.reconstruct(sighting)
        assert_closed(model)
        assert len(model.faces) <= VoxelOptions().max_triangles
        distance = np.linalg.norm(model.position - sighting.placement.position)
        assert distance < 0.7 * np.linalg.norm(sighting.placement.size)
        if with_depth:
            seen = render([Surface(model.points, model.faces, model.colors, id=1)], frame.camera)
            gap = np.abs(seen.depth - frame.depth)[sighting.detection.mask & (seen.ids == 1)]
            assert np.nanmedian(gap) < sighting.frame.depth_std(sighting.placement.position[2])


def test_without_mask_the_box_is_enough(
    bundled_reconstructor: VoxelReconstructor, sightings: list[Sighting],
) -> None:
    """A detector that gives boxes only, and no depth to cut masks out with."""
    frame = sightings[0].frame
    one = replace(sightings[0], frame=Frame(frame.color, frame.camera),
                  detection=replace(sightings[0].detection, mask=None))
    assert_closed(bundled_reconstructor.reconstruct(one))


def test_a_mask_with_hardly_any_reading_is_rebuilt_without_depth(
    bundled_reconstructor: VoxelReconstructor, sightings: list[Sighting],
) -> None:
    """Glass has no readings; the shape is that of the picture alone."""
    frame, mask = sightings[0].frame, sightings[0].detection.mask
    blind = replace(sightings[0], frame=replace(frame, depth=np.where(mask, np.nan, frame.depth)))
    without = replace(sightings[0], frame=Frame(frame.color, frame.camera))
    one, other = map(bundled_reconstructor.reconstruct, (blind, without))
    np.testing.assert_allclose(one.vertices, other.vertices)


def small(sighting: Sighting, pixels: int) -> Sighting:
    """Leave only so many pixels of an object."""
    mask = np.zeros_like(sighting.detection.mask)
    v, u = np.argwhere(sighting.detection.mask)[500]
    mask[v, u:u + pixels] = True
    return replace(sighting, detection=replace(
        sighting.detection, bbox=bbox_of(mask) if pixels else sighting.detection.bbox, mask=mask))


@pytest.mark.parametrize('pixels', (0, 1, 5))
@pytest.mark.parametrize('with_depth', (False, True))
def test_too_little_of_an_object_is_one_clear_sentence(
    pixels: int, with_depth: bool, bundled_reconstructor: VoxelReconstructor,
    sightings: list[Sighting],
) -> None:
    """An empty mask and one of a few pixels show no shape."""
    frame = sightings[0].frame
    one = small(sightings[0], pixels)
    if not with_depth:
        one = replace(one, frame=Frame(frame.color, frame.camera))
    with pytest.raises(ReconstructionError, match='8 pixels'):
        bundled_reconstructor.reconstruct(one)


@pytest.mark.parametrize('with_depth', (False, True))
@pytest.mark.parametrize('value, words', (
    (-9.0, "'threshold'"), (9.0, 'weights'), (np.nan, "'dtype'"), (-np.inf, "'dtype'")))
def test_an_answer_that_is_no_solid_is_one_clear_sentence(
    value: float, words: str, with_depth: bool, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing, everything, and no numbers."""
    with pytest.raises(ReconstructionError, match=words):
        rebuild(Constant(value), sighting_of_bars(PLACES[0], with_depth=with_depth), monkeypatch)


def test_a_network_that_runs_out_of_memory_is_one_clear_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The error says what can be fixed."""
    class Hungry(Constant):
        def forward(self, pictures: Tensor, half_field: Tensor, resolution: int) -> Tensor:
            """Fail as CUDA does."""
            raise RuntimeError('CUDA out of memory. Tried to allocate 2 GiB')

    with pytest.raises(ReconstructionError, match="'max_batch'"):
        rebuild(Hungry(0.0), sighting_of_bars(PLACES[0], with_depth=True), monkeypatch)


def copy_of_weights(folder: Path, **changes: object) -> Path:
    shutil.copytree(bundled('voxel'), folder)
    config = json.loads((folder / 'config.json').read_text())
    (folder / 'config.json').write_text(json.dumps({**config, **changes}))
    return folder


def test_weights_of_ones_own(
    tmp_path: Path, sightings: list[Sighting], bundled_reconstructor: VoxelReconstructor,
) -> None:
    """A folder with a network is taken as it is, without scores, too; more threshold is less."""
    folder = copy_of_weights(tmp_path / 'run', validation={})
    volumes = []
    for threshold in (0.1, 0.0, 0.8):
        model = VoxelReconstructor(
            VoxelOptions(weights=str(folder), threshold=threshold)).reconstruct(sightings[1])
        volumes.append(trimesh.Trimesh(model.vertices, model.faces).volume)
    assert volumes[0] > volumes[1] > volumes[2], '0 is 0.5 where no validation says better'


def test_crops_are_as_large_as_the_weights_know_them(
    tmp_path: Path, sightings: list[Sighting], monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Objects of another size in pixels than in training would be strange to the network."""
    reconstructor = VoxelReconstructor(VoxelOptions(
        weights=str(copy_of_weights(tmp_path / 'run', picture_size=64))))
    seen = []
    network = SimpleNamespace(predict=lambda pictures, half_field, resolution: (
        seen.append(pictures.shape), torch.full((1, *3 * (resolution,)), -1.0))[1])
    monkeypatch.setattr(reconstructor, '_network', network)
    with pytest.raises(ReconstructionError):
        reconstructor.reconstruct(sightings[1])
    assert seen == [(1, 6, 64, 64)]


def test_wrong_weights_are_one_clear_sentence(tmp_path: Path) -> None:
    """All else that can be wrong with them is in `test_networks.py`."""
    other = copy_of_weights(tmp_path / 'run', network='resfest', options={})
    for folder, word in ((other, 'model.safetensors'), (tmp_path / 'nowhere', 'nowhere')):
        with pytest.raises(InputError, match=word):
            VoxelReconstructor(VoxelOptions(weights=str(folder)))


def test_a_device_that_is_not_there_is_one_clear_sentence() -> None:
    """Its name is said."""
    with pytest.raises(OptionError, match="'device'.*'cuda:77'"):
        VoxelReconstructor(VoxelOptions(device='cuda:77'))


def test_a_network_that_sees_nothing_does_not_break_the_scene(
    recorded: Callable[[str], Frame], monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every object stays as its box and says why."""
    monkeypatch.setattr(networks, 'load_network', lambda folder: Constant(-9.0))
    pipeline = Pipeline(PipelineOptions(detector='tabletop', reconstructor='voxel'),
                        {'tabletop': TabletopOptions(network='none')})
    scene = pipeline.run(recorded('ycb_3'))
    assert [found.model.reconstructor for found in scene.objects] == ['box'] * 3
    assert all("'threshold'" in found.note and found.is_final for found in scene.objects)


def test_the_whole_way(recorded: Callable[[str], Frame]) -> None:
    """All objects of a frame get their mesh, in batches."""
    pipeline = Pipeline(PipelineOptions(detector='tabletop', reconstructor='voxel'))
    passes = []
    batch = pipeline.reconstructor.reconstruct_batch
    pipeline.reconstructor.reconstruct_batch = (
        lambda given: passes.append(len(given)) or batch(given))
    scene = pipeline.run(recorded('ycb_1'))
    assert [found.model.reconstructor for found in scene.objects] == ['voxel'] * 5
    assert passes == [4, 1]
