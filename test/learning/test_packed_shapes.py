# SPDX-License-Identifier: Apache-2.0
"""Packed shapes: solids and sizes against closed forms, splits, and reading with numpy alone."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import trimesh
from complaints import complaint
from shape_folders import write_shapes

from img2scene_ros.errors import InputError
from img2scene_ros.learning import shapes
from img2scene_ros.learning.data_config import SPLITS
from img2scene_ros.learning.packed_shapes import PackedShape
from img2scene_ros.learning.packed_shapes import pack_shapes
from img2scene_ros.learning.packed_shapes import read_packed

HEIGHT, RADIUS, WALL = 0.1, 0.04, 0.003  # metres, of the mug
AUTHORS = ('Ada', 'Ben', 'Cleo', 'Dan', 'Eve', 'Fay')


def mug(is_closed: bool) -> trimesh.Trimesh:
    """Return a mug without a handle, y up; open ones have a slit that is narrower than a cell."""
    inner = RADIUS - WALL
    mesh = trimesh.creation.revolve(np.array([
        (0, 0), (RADIUS, 0), (RADIUS, HEIGHT), (inner, HEIGHT), (inner, WALL), (0, WALL)]))
    mesh.apply_transform(trimesh.transformations.rotation_matrix(-np.pi / 2, (1, 0, 0)))
    if not is_closed:
        low = mesh.triangles_center[:, 1] < 1e-6
        foot = mesh.submesh([low], append=True).apply_translation((0, -0.0003, 0))
        mesh = trimesh.util.concatenate([mesh.submesh([~low], append=True), foot])
    return mesh


def save(folder: Path, name: str, mesh: trimesh.Trimesh, *colors: tuple[int, int, int]) -> None:
    """Write a GLB mesh whose left and right have one colour each."""
    if colors:
        right = (mesh.triangles_center[:, 0] > 0).astype(int) % len(colors)
        mesh = trimesh.Trimesh(mesh.triangles.reshape(-1, 3), np.arange(3 * len(right)).reshape(
            -1, 3), vertex_colors=np.repeat(np.array(colors, np.uint8)[right], 3, axis=0),
            process=False)
    mesh.export(folder / f'{name}.glb')


@pytest.fixture(scope='module')
def folders(tmp_path_factory) -> tuple[Path, Path]:
    """Return a folder of Pix3D shapes and one of meshes with an index."""
    base = tmp_path_factory.mktemp('packed')
    meshes = base / 'meshes'
    meshes.mkdir()
    index = []
    for number, author in enumerate(AUTHORS):
        for copy in range(3):
            name = f'bx_{number}_{copy}'
            save(meshes, name, trimesh.creation.box((0.1, 0.1, 0.35 + 0.1 * copy)))
            index.append({'name': name, 'label': ('crate', 'chest')[number % 2],
                          'author': author})
    save(meshes, 'mug', mug(True), (200, 30, 20), (10, 60, 220))
    save(meshes, 'torn_mug', mug(False))
    hollow = trimesh.util.concatenate(
        [trimesh.creation.box((0.2, 0.2, 0.2)), trimesh.creation.box((0.15, 0.15, 0.15))])
    hollow.update_faces(np.arange(len(hollow.faces)) != 12)  # not closed, out of reach
    save(meshes, 'hollow', hollow)
    sheet = trimesh.creation.box((0.2, 0.2, 0.2))
    sheet.update_faces(sheet.face_normals[:, 1] < 0.5)
    save(meshes, 'sheet', sheet)
    index += [{'name': name, 'label': 'cup', 'author': name}
              for name in ('mug', 'torn_mug', 'hollow', 'sheet')]
    (meshes / 'index.json').write_text(json.dumps(index))
    return write_shapes(base / 'shapes', chairs=7, tables=0), meshes


@pytest.fixture(scope='module', autouse=True)
def few_household_objects() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shapes, 'PROCEDURAL_TRAIN', 2)
        patch.setattr(shapes, 'PROCEDURAL_TEST', 1)
        yield


@pytest.fixture(scope='module')
def packed(folders, tmp_path_factory) -> tuple[dict[str, PackedShape], list[str], Path]:
    """Return what is read of a file by name, what was skipped, and the file."""
    out = tmp_path_factory.mktemp('out') / 'shapes.npz'
    written, skipped = pack_shapes(out, folders[0], [folders[1]])
    shown = {shape.name: shape for shape in read_packed(out)}
    assert list(shown) == [shape.name for shape in written]
    return shown, skipped, out


@pytest.mark.slow
def test_what_is_read_is_what_was_packed(packed, folders):
    shown, _, _ = packed
    for name, one in (
            ('pix3d/chair/STEPS_3', shapes.load_pix3d_shape(folders[0] / 'chair/STEPS_3')),
            ('procedural/cup/1', shapes.household_object('cup', 1)),
            ('mesh/mug', shapes.load_mesh(folders[1] / 'mug.glb'))):
        np.testing.assert_array_equal(shown[name].solid, one.solid)
        assert shown[name].label == one.label and shown[name].cell == one.cell
        assert tuple(shown[name].sizes) == one.sizes
    mug, chair = shown['mesh/mug'], shown['pix3d/chair/STEPS_3']
    assert mug.label == 'cup' and mug.author == 'mug'
    assert (mug.place, chair.place) == ('table', 'floor')
    assert len(chair.colors) == 0
    np.testing.assert_allclose(
        sorted(mug.colors.tolist()), [(10, 60, 220), (200, 30, 20)], atol=1)


@pytest.mark.parametrize('name', ('mesh/mug', 'mesh/torn_mug'))
def test_a_mug_stays_hollow_and_its_walls_are_as_thick_as_they_are(packed, name):
    shown, _, _ = packed
    solid, cell = shown[name].solid, shown[name].cell
    extents = np.ptp(np.argwhere(solid), axis=0) + 1
    np.testing.assert_allclose(extents * cell, (2 * RADIUS, 2 * RADIUS, HEIGHT), atol=1.01 * cell)
    x, y, z = np.array(solid.shape) // 2
    assert not solid[x, y, z:].any(), 'the inside is empty, and open above'
    assert abs(solid[x, y].sum() * cell - WALL) <= 1.01 * cell, 'the foot'
    for wall in (solid[:x, y, z], solid[x:, y, z], solid[x, :y, z], solid[x, y:, z]):
        assert WALL / cell >= 2 and abs(wall.sum() * cell - WALL) <= 1.01 * cell
    volume = np.pi * (RADIUS ** 2 * HEIGHT - (RADIUS - WALL) ** 2 * (HEIGHT - WALL))
    assert solid.sum() * cell ** 3 == pytest.approx(volume, rel=0.06)


def test_sealed_hollows_are_closed_and_open_sheets_skipped(packed):
    shown, skipped, _ = packed
    hollow = shown['mesh/hollow']
    assert hollow.solid.sum() * hollow.cell ** 3 == pytest.approx(0.2 ** 3, rel=0.05)
    assert 'mesh/sheet' not in shown
    assert any('mesh/sheet' in line and 'inside' in line for line in skipped)


def test_thin_sheets_beside_a_solid_are_kept(tmp_path):
    body = trimesh.creation.box((0.2, 0.2, 0.2))
    flag = trimesh.Trimesh([(0.1, 0, 0), (0.2, 0, 0), (0.2, 0.04, 0), (0.1, 0.04, 0)],
                           [(0, 1, 2), (0, 2, 3)])
    save(tmp_path, 'flag', trimesh.util.concatenate([body, flag]))
    solid = shapes.load_mesh(tmp_path / 'flag.glb').solid
    assert solid[-8].any() and solid[-8].sum() < 0.02 * solid[8].sum()


def test_meshes_of_one_author_and_label_are_on_one_side(packed, folders):
    shown, _, _ = packed
    sides = {}
    for name, shape in shown.items():
        if name.startswith('mesh/'):
            sides.setdefault((shape.author, shape.label), set()).add(shape.split)
    assert all(len(some) == 1 for some in sides.values())
    assert {'train'} in sides.values() and {'test'} in sides.values()
    for split in SPLITS:
        library = shapes.open_library(*folders, split, 0.15, 0)
        mine = {name for name, shape in shown.items()
                if shape.split == split and not name.startswith('procedural/')}
        assert mine == {name for name in library.names if not name.startswith('procedural/')}


def test_another_folder_does_not_train_what_is_tested(packed, folders, tmp_path):
    shown, _, _ = packed
    tested = next(shape for name, shape in shown.items()
                  if name.startswith('mesh/') and shape.split == 'test')
    for number in range(3):  # a seventh of three is none: all are for training
        save(tmp_path, f'more_{number}', trimesh.creation.box((0.1, 0.1, 0.1)))
    (tmp_path / 'index.json').write_text(json.dumps([
        {'name': f'more_{number}', 'author': tested.author if number else 'Gus',
         'label': tested.label} for number in range(3)]))
    both, skipped = pack_shapes(tmp_path / 'both.npz', None, [folders[1], tmp_path])
    names = {shape.name for shape in both}
    assert {'mesh/more_0', tested.name} <= names
    assert not {'mesh/more_1', 'mesh/more_2'} & names
    assert sum('mesh/more' in line for line in skipped) == 2


def test_the_surface_of_published_models_lies_in_their_voxels(tmp_path):
    source = Path(__file__).parents[2] / 'data/pix3d_sample/model/bed/IKEA_MALM_2'
    folder = tmp_path / 'bed' / 'IKEA_MALM_2'
    folder.mkdir(parents=True)
    (folder / 'voxel.mat').write_bytes((source / 'voxel.mat').read_bytes())
    model = trimesh.load(source / 'model.obj', force='mesh', process=False)
    trimesh.Trimesh(model.vertices, model.faces).export(folder / 'model.ply')
    shape = shapes.load_pix3d_shape(folder)
    surface, _ = trimesh.sample.sample_surface(
        trimesh.Trimesh(shape.vertices, shape.faces), 20000, seed=0)
    cells = np.floor(surface / shape.cell + np.array(shape.grid) / 2).astype(int)
    assert shape.solid[tuple(cells.clip(0, np.array(shape.grid) - 1).T)].mean() > 0.995


def test_broken_files_are_told_in_one_sentence(packed, folders, tmp_path, capsys):
    _, _, out = packed
    whole = out.read_bytes()
    (tmp_path / 'cut.npz').write_bytes(whole[:len(whole) // 2])
    middle = len(whole) // 2
    (tmp_path / 'flipped.npz').write_bytes(
        whole[:middle] + bytes(byte ^ 255 for byte in whole[middle:middle + 99])
        + whole[middle + 99:])
    (tmp_path / 'text.npz').write_text('nothing')
    (tmp_path / 'empty.npz').write_bytes(b'')
    np.savez(tmp_path / 'other.npz', values=np.zeros(3))
    np.save(tmp_path / 'array.npy', np.zeros(3))
    names = ('cut.npz', 'flipped.npz', 'text.npz', 'empty.npz', 'other.npz', 'array.npy', 'gone')
    for name in names:
        with pytest.raises(InputError, match=name):
            read_packed(tmp_path / name)
    before = out.read_bytes()
    assert str(tmp_path) in complaint(capsys, 'pack-shapes', out, '--meshes', tmp_path)
    assert out.read_bytes() == before
    (tmp_path / 'box.glb').write_bytes((folders[1] / 'mug.glb').read_bytes())
    (tmp_path / 'index.json').write_text('{"name": 3}')
    assert 'index.json' in complaint(capsys, 'pack-shapes', out, '--meshes', tmp_path)
