# SPDX-License-Identifier: Apache-2.0
"""Rendered scenes and crops: geometry against closed forms, splits, chance and bad input."""

import shutil
from itertools import combinations
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import trimesh
from complaints import complaint
from scipy import ndimage
from shape_folders import write_meshes
from shape_folders import write_shapes
from shape_folders import write_steps

from img2scene_ros.cli import main
from img2scene_ros.errors import InputError
from img2scene_ros.learning.data_config import SPLITS
from img2scene_ros.learning.data_config import RenderOptions
from img2scene_ros.learning.household import HOUSEHOLD
from img2scene_ros.learning.samples import CropSample
from img2scene_ros.learning.shapes import FLOOR
from img2scene_ros.learning.shapes import TABLE
from img2scene_ros.learning.shapes import Shape
from img2scene_ros.learning.shapes import household_object
from img2scene_ros.learning.shapes import load_mesh
from img2scene_ros.learning.shapes import load_pix3d_shape
from img2scene_ros.learning.shapes import open_library
from img2scene_ros.learning.synthetic import Placed
from img2scene_ros.learning.synthetic import crop_samples
from img2scene_ros.learning.synthetic import random_scene
from img2scene_ros.learning.synthetic import scene_samples
from img2scene_ros.learning.synthetic import truths
from img2scene_ros.learning.synthetic import voxels
from img2scene_ros.learning.volumes import solid_of
from img2scene_ros.models.crop import Cube


@pytest.fixture(scope='module')
def shapes(tmp_path_factory) -> Path:
    return write_shapes(tmp_path_factory.mktemp('shapes') / 'shapes')


@pytest.fixture(scope='module')
def crops(shapes: Path) -> list[CropSample]:
    """Return 40 crops, half of furniture, none with a jittered box."""
    library = open_library(shapes, None, 'train', 0.2, 0)
    options = RenderOptions(size=96, box_jitter=0.0, sky_rays=0, width=240)
    return list(islice(crop_samples(library, options, 0), 40))


def filled(shape: Shape) -> np.ndarray:
    """Return the centres of a shape's filled cells in its own coordinates, (N, 3)."""
    return (np.argwhere(shape.solid) + 0.5 - np.array(shape.grid) / 2) * shape.cell


def is_inside(shape: Shape, points: np.ndarray) -> np.ndarray:
    """Tell which points (N, 3), in the shape's coordinates, lie in filled cells."""
    cells = np.floor(points / shape.cell + np.array(shape.grid) / 2).astype(int)
    known = ((cells >= 0) & (cells < shape.grid)).all(axis=1)
    inside = np.zeros(len(points), bool)
    inside[known] = shape.solid[tuple(cells[known].T)]
    return inside


# Shapes


@pytest.mark.parametrize('kind', HOUSEHOLD)
def test_household_objects_are_closed_and_of_plausible_size(kind):
    for number in (*range(12), 60, 61):
        for part in HOUSEHOLD[kind](np.random.default_rng(number)):
            assert part.is_watertight and part.is_winding_consistent and part.volume > 0
        shape = household_object(kind, number)
        extents = np.ptp(shape.vertices, axis=0)
        assert 0.02 < extents.max() < 0.4
        np.testing.assert_allclose(
            shape.vertices.min(axis=0) + shape.vertices.max(axis=0), 0, atol=1e-9)
        # Its solid reaches as far as its surface.
        reach = np.ptp(filled(shape), axis=0) + shape.cell
        np.testing.assert_allclose(reach, extents, atol=2.1 * shape.cell)


def test_solids_hold_the_volume_of_the_closed_form():
    ball = trimesh.creation.icosphere(4, 0.05)
    ring = trimesh.creation.annulus(0.03, 0.05, 0.04)
    cell = 0.001
    assert solid_of([ball], cell).sum() * cell ** 3 == pytest.approx(
        4 / 3 * np.pi * 0.05 ** 3, rel=0.01)
    assert solid_of([ring], cell).sum() * cell ** 3 == pytest.approx(
        np.pi * (0.05 ** 2 - 0.03 ** 2) * 0.04, rel=0.02)
    # Parts that overlap are one solid.
    assert solid_of([ball, ball.copy()], cell).sum() == solid_of([ball], cell).sum()


def test_pix3d_surface_and_voxels_have_the_same_axes(tmp_path):
    write_steps(tmp_path / 'chair' / 'STEPS')
    shape = load_pix3d_shape(tmp_path / 'chair' / 'STEPS')
    points = filled(shape)
    np.testing.assert_allclose(points.min(axis=0), shape.vertices.min(axis=0), atol=1e-6)
    np.testing.assert_allclose(points.max(axis=0), shape.vertices.max(axis=0), atol=1e-6)
    # z is up: the lower step is the wide one; the upper one is at the low end of x.
    bottom, top = points[points[:, 2] < -0.2], points[points[:, 2] > 0.2]
    assert np.ptp(bottom[:, 0]) > 2 * np.ptp(top[:, 0])
    high = shape.vertices[shape.vertices[:, 2] > 0.3]
    assert high[:, 0].max() == pytest.approx(top[:, 0].max())
    low, high = (np.linalg.norm(np.ptp(shape.vertices, axis=0)) * s for s in shape.sizes)
    assert (low, high) == pytest.approx((0.95, 1.4)), 'chairs are 0.95 to 1.4 m from end to end'


def test_meshes_are_turned_upright_and_open_ones_skipped(tmp_path):
    folder = write_meshes(tmp_path / 'meshes')
    library = open_library(None, folder, 'train', 0.0, 0)
    assert 'mesh/Closed_01' in library.names and 'mesh/Open_01' not in library.names
    assert [line for line in library.skipped if 'Open_01' in line and 'closed' in line]
    shape = load_mesh(folder / 'Closed_01.glb')
    np.testing.assert_allclose(np.ptp(shape.vertices, axis=0), (0.2, 0.1, 0.3), atol=1e-6)
    assert shape.solid.sum() * shape.cell ** 3 == pytest.approx(0.2 * 0.3 * 0.1, rel=0.03)
    assert len(shape.colors) == len(shape.vertices)


def test_splits_share_no_shape(shapes):
    train, test = (set(open_library(shapes, None, split, 0.2, 7).names) for split in SPLITS)
    assert not train & test
    for category, count, kept in (('chair', 10, 2), ('table', 5, 1)):
        names = {f'pix3d/{category}/STEPS_{number}' for number in range(count)}
        assert len(names & test) == kept and names <= train | test
    for kind in HOUSEHOLD:
        assert any(f'procedural/{kind}/' in name for name in train)
        assert any(f'procedural/{kind}/' in name for name in test)
    assert test == set(open_library(shapes, None, 'test', 0.2, 7).names)
    assert test != set(open_library(shapes, None, 'test', 0.2, 8).names)


# Scenes


@pytest.mark.slow
@pytest.mark.parametrize('place', (TABLE, FLOOR))
def test_objects_stand_on_the_support_and_none_in_another(shapes, place):
    library = open_library(shapes, None, 'train', 0.2, 0)
    options = RenderOptions(width=160, sky_rays=0)
    counts = []
    for seed in range(12):
        scene = random_scene(library, np.random.default_rng(seed), place, options)
        counts.append(len(scene.objects))
        for item in scene.objects:
            assert item.points[:, 2].min() == pytest.approx(0, abs=1e-6)
            assert ((item.points - scene.pose[:3, 3]) @ scene.pose[:3, 2] > 0.1).all()
        for one, other in combinations(scene.objects, 2):
            some = filled(one.shape)[::7]
            points = some @ one.pose[:3, :3].T + one.pose[:3, 3] - other.pose[:3, 3]
            assert not is_inside(other.shape, points @ np.linalg.inv(other.pose[:3, :3]).T).any()
    assert min(counts) == 1 and max(counts) >= 4


@pytest.mark.parametrize('most', (0.0, 0.3))
def test_axes_are_stretched_apart_by_no_more_than_told(shapes, most):
    library = open_library(shapes, None, 'train', 0.2, 0)
    options = RenderOptions(width=160, sky_rays=0, stretch=most)
    ratios = []
    for seed in range(12):
        for item in random_scene(library, np.random.default_rng(seed), TABLE, options).objects:
            axes = np.linalg.norm(item.pose[:3, :3], axis=0)
            ratios.append(axes.max() / axes.min())
    assert max(ratios) <= (1 + most) / (1 - most) + 1e-9
    assert np.median(ratios) >= 1 + 0.7 * most


def test_truth_of_a_scene(shapes):
    library = open_library(shapes, None, 'train', 0.2, 0)
    options = RenderOptions(kind='scenes', width=160, sky_rays=1)
    for sample in islice(scene_samples(library, options, 0), 8):
        assert sample.objects
        height = sample.frame.points @ sample.up + sample.support
        for item in sample.objects:
            mask = sample.ids == item.id
            v, u = np.nonzero(mask)
            assert item.visible_box.tolist() == [u.min(), v.min(), u.max() + 1, v.max() + 1]
            assert (item.full_box[:2] <= item.visible_box[:2] + 1).all()
            assert (item.full_box[2:] >= item.visible_box[2:] - 1).all()
            # What is seen lies in the box that pose and size describe, and above the support.
            local = (sample.frame.points[mask] - item.position) @ item.rotation
            assert (np.abs(local) <= item.size / 2 + 0.002).all()
            assert (height[mask] > -0.002).all()
            assert item.size[2] / 2 == pytest.approx(
                item.position @ sample.up + sample.support, abs=0.001), 'it stands'
            np.testing.assert_allclose(item.rotation[:, 2], sample.up, atol=1e-6)
            assert -item.position @ item.rotation[:, 0] > 0, 'x looks towards the camera'
            assert item.position @ item.rotation[:, 1] == pytest.approx(0, abs=1e-4)
            # The shape's own pose puts the visible points into its bounding box, too.
            shape = library.load(item.shape)
            own = np.linalg.inv(item.shape_pose)
            points = sample.frame.points[mask] @ own[:3, :3].T + own[:3, 3]
            assert (np.abs(points) <= np.ptp(shape.vertices, axis=0) / 2 * 1.001 + 1e-3).all()


def test_full_box_of_a_ball_is_that_of_the_closed_form(shapes):
    """The image of a ball on the optical axis is a disc of radius f r / sqrt(z^2 - r^2)."""
    library = open_library(shapes, None, 'train', 0.2, 0)
    scene = random_scene(library, np.random.default_rng(0), TABLE, RenderOptions())
    ball = household_object('orange', 0)
    radius = np.ptp(ball.vertices, axis=0)[2] / 2
    pose = scene.pose.copy()
    pose[:3, 3] += 0.5 * pose[:3, 2]
    item = Placed(1, ball, pose, None)
    ids = np.ones((scene.camera.height, scene.camera.width), int)
    scene.objects[:] = [item]
    truth, = truths(scene, ids)
    reach = scene.camera.fx * radius / np.sqrt(0.25 - radius ** 2)
    center = np.array([scene.camera.cx, scene.camera.cy]) + 0.5
    np.testing.assert_allclose(truth.full_box[:2], center - reach, atol=0.6)
    np.testing.assert_allclose(truth.full_box[2:], center + reach, atol=0.6)
    np.testing.assert_allclose(truth.size, 2 * radius, rtol=0.01)


# Crops


def test_voxels_of_a_ball_are_those_of_the_closed_form():
    ball = household_object('orange', 0)
    radius = np.ptp(ball.vertices, axis=0)[2] / 2
    pose, cube = np.eye(4), Cube(2.6 * radius, 0.5)
    pose[:3, 3] = (0.3 * radius, -0.1 * radius, 0.5 + 0.2 * radius)
    volume = voxels(ball, pose, cube)
    along = ((np.arange(64) + 0.5) / 64 - 0.5) * cube.side
    z, y, x = np.meshgrid(along + 0.5, along, along, indexing='ij')
    distance = np.linalg.norm(np.stack([x, y, z], axis=-1) - pose[:3, 3], axis=-1)
    assert volume[distance < radius * 0.96].all()
    reach = np.sqrt(3) / 2 * cube.side / 64  # from a cell's centre to its corners
    assert not volume[distance > radius + reach].any()


def test_nothing_solid_is_in_the_free_space_that_is_seen(crops):
    """Cells project in front of the depth image by no more than their own size."""
    for sample in crops:
        points = centers(sample)[sample.occupancy]
        focal = 96 / (2 * sample.crop.view.half_field)
        u, v = np.rint(focal * points[:, :2] / points[:, 2:] + 47.5).astype(int).T
        known = (u >= 0) & (u < 96) & (v >= 0) & (v < 96)
        # The nearest of the neighbouring pixels, 0 beyond the picture: at edges cells cover many.
        depth = ndimage.grey_erosion(
            np.nan_to_num(sample.crop.depth), size=(5, 5))[v[known], u[known]]
        in_front = points[known, 2] < depth - 2 * sample.cube.side / 64
        assert in_front.mean() < 0.01, sample.truth.shape


def test_what_is_seen_is_the_front_of_the_solid(crops):
    """Every visible point in the cube lies within a coarse cell of a filled one."""
    shares = []
    for sample in crops:
        v, u = np.nonzero(sample.crop.mask)
        focal = 96 / (2 * sample.crop.view.half_field)
        z = sample.crop.depth[v, u]
        points = np.stack([(u - 47.5) * z / focal, (v - 47.5) * z / focal, z], axis=1)
        cells = (points[:, ::-1] - (sample.cube.depth, 0, 0)) / sample.cube.side * 64 + 31.5
        inside = ((cells > 0) & (cells < 63)).all(axis=1)
        away = ndimage.distance_transform_edt(~sample.occupancy)
        near = away[tuple(np.rint(cells[inside]).astype(int).T)] <= 2
        shares.append(near.mean())
    assert np.mean(shares) > 0.98
    assert np.min(shares) > 0.8


def test_the_cube_holds_most_of_most_objects(crops, shapes):
    """What docs/benchmarks.md says, on few samples: whole objects lose a few percent."""
    library = open_library(shapes, None, 'train', 0.2, 0)
    assert len({sample.truth.shape for sample in crops}) > 15
    held = []
    for sample in crops:
        shape = library.load(sample.truth.shape)
        corner = (np.array(shape.grid) - 1) / 2
        points = (np.argwhere(shape.solid) - corner) * shape.cell
        optical = points @ sample.truth.shape_pose[:3, :3].T + sample.truth.shape_pose[:3, 3]
        cells = np.rint(trimesh.transform_points(
            optical @ sample.crop.view.rotation, sample.cube.to_cells(64))).astype(int)
        inside = ((cells >= 0) & (cells < 64)).all(axis=1)
        held.append(inside.mean())
        assert sample.occupancy[tuple(cells[inside].T)].mean() > 0.99
    shown = np.array([sample.truth.shown for sample in crops])
    assert np.mean(np.array(held)[shown > 0.9]) > 0.9


def test_the_anchor_is_the_median_of_what_is_visible(crops):
    for sample in crops:
        assert sample.anchor == np.median(sample.crop.depth[sample.crop.mask])


def centers(sample: CropSample) -> np.ndarray:
    """Return the cells' centres, (64, 64, 64, 3) metres, crop view frame."""
    along = ((np.arange(64) + 0.5) / 64 - 0.5) * sample.cube.side
    z, y, x = np.meshgrid(along + sample.cube.depth, along, along, indexing='ij')
    return np.stack([x, y, z], axis=-1)


# The command


def render(*arguments: object) -> int:
    return main(['render', *map(str, arguments)])


SMALL = ('--samples', 10, '--shard-samples', 4, '--size', 48, '--width', 160, '--sky-rays', 1)


def test_files_are_the_same_whatever_the_number_of_processes(shapes, tmp_path, capsys):
    for name, jobs in (('one', 1), ('two', 2)):
        assert render(shapes, tmp_path / name, *SMALL, '--jobs', jobs) == 0
    files = sorted(path.name for path in (tmp_path / 'one').iterdir())
    assert files == ['index.json'] + [f'shard_0000{n}.npz' for n in range(3)]
    for name in files:
        assert (tmp_path / 'one' / name).read_bytes() == (tmp_path / 'two' / name).read_bytes()
    assert render(shapes, tmp_path / 'other', *SMALL, '--seed', 1, '--jobs', 1) == 0
    assert (tmp_path / 'one' / files[1]).read_bytes() \
        != (tmp_path / 'other' / files[1]).read_bytes()
    assert 'crops of' in capsys.readouterr().out


def test_an_interrupted_run_goes_on(shapes, tmp_path, capsys):
    out = tmp_path / 'out'
    assert render(shapes, out, *SMALL, '--jobs', 1) == 0
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.glob('*.npz')}
    lost = out / 'shard_00001.npz'
    lost.unlink()
    assert render(shapes, out, *SMALL, '--jobs', 1, '--check') == 0
    for path, (content, time) in before.items():
        assert path.read_bytes() == content
        assert path == lost or path.stat().st_mtime_ns == time
    assert (out / 'check.png').stat().st_size > 10000
    assert render(shapes, out, *SMALL, '--seed', 5) == 1
    assert 'other options' in capsys.readouterr().err


def test_bad_input_is_one_sentence(shapes, tmp_path, capsys):
    def refused(*arguments: object) -> str:
        return complaint(capsys, 'render', *arguments, '--jobs', 1)

    (tmp_path / 'empty').mkdir()
    (tmp_path / 'file').write_text('')
    assert 'holds no shapes' in refused(tmp_path / 'empty', tmp_path / 'a')
    assert 'holds no shapes' in refused(tmp_path / 'nowhere', tmp_path / 'a')
    assert 'no closed GLB' in refused(shapes, tmp_path / 'a', '--meshes', tmp_path / 'empty')
    assert 'cannot write' in refused(shapes, tmp_path / 'file')
    assert 'samples' in refused(shapes, tmp_path / 'a', '--samples', 0)
    assert 'split' in refused(shapes, tmp_path / 'a', '--split', 'all')
    assert not (tmp_path / 'a').exists()
    broken = tmp_path / 'broken'
    shutil.copytree(shapes, broken)
    for path in broken.glob('*/*/voxel.mat'):
        path.write_bytes(b'nothing')
    assert 'voxel.mat' in refused(broken, tmp_path / 'b', '--floor-share', 1, '--samples', 3)
    assert not list((tmp_path / 'b').glob('*.npz'))


def test_a_mat_file_without_voxels_is_named(tmp_path):
    from scipy.io import savemat

    folder = tmp_path / 'chair' / 'STEPS'
    write_steps(folder)
    savemat(folder / 'voxel.mat', {'other': np.zeros(3)})
    with pytest.raises(InputError, match='voxel'):
        load_pix3d_shape(folder)
    savemat(folder / 'voxel.mat', {'voxel': np.zeros((4, 4, 4))})
    with pytest.raises(InputError, match='no cube'):
        load_pix3d_shape(folder)
