# SPDX-License-Identifier: Apache-2.0
"""Preparing Pix3D: two real entries, and every way in which they can be broken."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import trimesh
from complaints import complaint
from scipy.io import loadmat
from scipy.io import savemat
from skimage.measure import marching_cubes

from img2scene_ros.camera import Camera
from img2scene_ros.cli import main
from img2scene_ros.errors import InputError
from img2scene_ros.learning.pix3d import Pix3dPicture
from img2scene_ros.learning.pix3d import load_prepared
from img2scene_ros.learning.pix3d import prepare_pix3d
from img2scene_ros.learning.sheets import block_surface
from img2scene_ros.learning.sheets import draw_pix3d_check
from img2scene_ros.rendering.raycast import Surface
from img2scene_ros.rendering.raycast import render

SAMPLE = Path(__file__).resolve().parents[2] / 'data/pix3d_sample'
MODEL = SAMPLE / 'model/bed/IKEA_MALM_2/model.obj'
VOXELS = SAMPLE / 'model/bed/IKEA_MALM_2/voxel.mat'


@pytest.fixture(scope='module')
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp('pix3d') / 'prepared'
    assert prepare_pix3d(SAMPLE, out) == []
    return out


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Return a copy of the sample that may be broken."""
    return Path(shutil.copytree(SAMPLE, tmp_path / 'raw'))


def entries(raw: Path) -> list:
    return json.loads((raw / 'pix3d.json').read_text())


def write_entries(raw: Path, values: object) -> None:
    (raw / 'pix3d.json').write_text(json.dumps(values))


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return the time and content of every file, by its place."""
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
            for path in sorted(folder.rglob('*')) if path.is_file()}


def contents(folder: Path) -> dict[str, bytes]:
    return {name: data for name, (_, data) in files(folder).items()}


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return np.count_nonzero(one & other) / np.count_nonzero(one | other)


def silhouette(vertices: np.ndarray, faces: np.ndarray, camera: Camera) -> np.ndarray:
    """Return the pixels that show a mesh in the camera's optical frame."""
    return render([Surface(vertices, faces, np.zeros_like(vertices), 1)], camera).ids > 0


def photo_camera(picture: Pix3dPicture) -> Camera:
    """Undo the cut and the resizing."""
    xmin, ymin, xmax, ymax = picture.crop
    square = picture.camera.resized(xmax - xmin, ymax - ymin)
    return square.cropped(-xmin, -ymin, *picture.photo_size)


def published_mask(picture: Pix3dPicture) -> np.ndarray:
    path = SAMPLE / picture.source.replace('img/', 'mask/')
    return cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) > 127


def test_model_seen_by_the_prepared_camera_is_the_published_mask(prepared):
    mesh = trimesh.load(MODEL, force='mesh')
    for picture in load_prepared(prepared):
        vertices = mesh.vertices @ picture.rotation.T + picture.translation
        seen = silhouette(vertices, mesh.faces, photo_camera(picture))
        assert iou(seen, published_mask(picture)) > 0.995


def test_voxels_are_placed_where_the_model_is(prepared):
    for picture in load_prepared(prepared):
        voxels, mask = picture.read_voxels(), published_mask(picture)
        camera = photo_camera(picture)
        # The surface of the model runs through the centres of the outer cells.
        vertices, faces, _, _ = marching_cubes(np.pad(voxels, 1).astype(np.float32), 0.99)
        place = picture.grid_to_camera
        vertices = (vertices - 1) @ place[:3, :3].T + place[:3, 3]
        assert iou(silhouette(vertices, faces, camera), mask) > 0.98
        # As whole cubes they are half a cell wider on every side.
        assert iou(render([block_surface(voxels, place)], camera).ids > 0, mask) > 0.94


def test_points_on_the_model_are_in_solid_voxels(prepared):
    picture, mesh = load_prepared(prepared)[0], trimesh.load(MODEL, force='mesh')
    points, _ = trimesh.sample.sample_surface(mesh, 20000, seed=0)
    inverse = np.linalg.inv(picture.grid_to_model)
    index = np.rint(points @ inverse[:3, :3].T + inverse[:3, 3]).astype(int)
    assert index.min() >= 0 and index.max() <= 127
    assert picture.read_voxels()[tuple(index.T)].mean() > 0.995  # 0.958 if 128 cells spanned it


def test_voxels_are_not_mirrored(prepared):
    place = load_prepared(prepared)[0].grid_to_model
    index = np.argwhere(load_prepared(prepared)[0].read_voxels())
    points = index @ place[:3, :3].T + place[:3, 3]
    assert np.linalg.det(place[:3, :3]) > 0
    # The head of the bed is high and, away from the viewer, at +z.
    high = points[:, 1] > 0.9 * points[:, 1].max()
    assert points[high, 2].min() > 0.8 * points[:, 2].max()


def test_voxels_are_the_published_ones_stored_once(prepared):
    first, second = load_prepared(prepared)
    assert first.voxels == second.voxels
    np.testing.assert_array_equal(first.read_voxels(), loadmat(VOXELS)['voxel'] == 1)
    assert first.read_voxels().dtype == bool


def test_stored_square_shows_the_photo_where_its_camera_says(prepared):
    for picture in load_prepared(prepared):
        photo = cv2.cvtColor(cv2.imread(str(SAMPLE / picture.source)), cv2.COLOR_BGR2RGB)
        stored = picture.read_image()
        assert stored.shape == (256, 256, 3)
        # Directions that both cameras see, by the published formula for the photo.
        entry = entries(SAMPLE)[0 if picture.id == 'bed_0001' else 1]
        width, height = picture.photo_size
        focal = entry['focal_length'] * width / 32
        rays = picture.camera.rays
        u = (width / 2 + focal * rays[..., 0] - 0.5).astype(np.float32)
        v = (height / 2 + focal * rays[..., 1] - 0.5).astype(np.float32)
        scale = (picture.crop[2] - picture.crop[0]) / 256
        smooth = cv2.GaussianBlur(photo, (0, 0), scale / 2)
        expected = cv2.remap(smooth, u, v, cv2.INTER_LINEAR)
        inside = (u > scale) & (v > scale) & (u < width - scale) & (v < height - scale)
        error = np.abs(expected.astype(float) - stored)[inside].mean()
        misplaced = np.abs(np.roll(expected, 1, axis=1).astype(float) - stored)[inside].mean()
        assert error < 4.0 and error < 0.6 * misplaced
        beyond = (u < -scale) | (v < -scale) | (u > width + scale) | (v > height + scale)
        assert beyond.any() and (stored[beyond] == (124, 116, 104)).all()


def test_annotations_are_kept_in_their_order(prepared):
    first, second = load_prepared(prepared)
    assert (first.id, second.id) == ('bed_0001', 'bed_0002')
    assert first.category == 'bed'
    assert (first.truncated, second.truncated, second.occluded) == (False, True, True)
    assert first.photo_size == (395, 244)
    assert 'CC BY 4.0' in json.loads((prepared / 'metadata.json').read_text())['credit']


def test_second_run_changes_nothing(tmp_path):
    prepare_pix3d(SAMPLE, tmp_path)
    before = files(tmp_path)
    prepare_pix3d(SAMPLE, tmp_path)
    assert files(tmp_path) == before


def test_several_processes_write_the_same(tmp_path, prepared):
    prepare_pix3d(SAMPLE, tmp_path / 'out', jobs=2)
    assert contents(tmp_path / 'out') == contents(prepared)


@pytest.mark.parametrize('interruption', [
    KeyboardInterrupt(), OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))])
def test_interrupted_run_leaves_no_half_files_and_is_resumed(
        tmp_path, prepared, monkeypatch, interruption):
    done = []

    def replace(source: Path, target: Path) -> None:
        if len(done) == 5:
            raise interruption
        done.append(target)
        os.rename(source, target)

    with monkeypatch.context() as patched:
        patched.setattr('img2scene_ros.files.os.replace', replace)
        with pytest.raises((KeyboardInterrupt, InputError)) as stopped:
            prepare_pix3d(SAMPLE, tmp_path)
    if isinstance(interruption, OSError):
        assert 'No space left' in str(stopped.value) and str(tmp_path) in str(stopped.value)
    before = files(tmp_path)
    assert {tmp_path / name for name in before} == {*done}
    first = {name: before[name] for name in ('images/bed_0001.png', 'masks/bed_0001.png')}
    assert prepare_pix3d(SAMPLE, tmp_path) == []
    after = files(tmp_path)
    assert {name: after[name] for name in first} == first
    assert contents(tmp_path) == contents(prepared)


def test_cut_off_note_of_what_is_done_only_costs_that_file(tmp_path, prepared):
    prepare_pix3d(SAMPLE, tmp_path)
    note = min((tmp_path / '.done').iterdir())
    note.write_text(note.read_text()[:-20])
    assert prepare_pix3d(SAMPLE, tmp_path) == []
    assert contents(tmp_path) == contents(prepared)
    before = files(tmp_path)
    prepare_pix3d(SAMPLE, tmp_path)
    assert files(tmp_path) == before


def test_deleted_file_and_mended_source_are_done_again(tmp_path, raw):
    out = tmp_path / 'out'
    (raw / 'mask/bed/0002.png').write_text('no picture')
    assert len(prepare_pix3d(raw, out)) == 1
    (out / 'images/bed_0001.png').unlink()
    shutil.copy(SAMPLE / 'mask/bed/0002.png', raw / 'mask/bed/0002.png')
    assert prepare_pix3d(raw, out) == []
    assert len(load_prepared(out)) == 2
    assert (out / 'images/bed_0001.png').is_file()
    assert json.loads((out / 'skipped.json').read_text()) == []


def without(name: str) -> Callable[[Path, dict], None]:
    return lambda raw, entry: entry.pop(name)


def with_value(name: str, value: object) -> Callable[[Path, dict], None]:
    return lambda raw, entry: entry.__setitem__(name, value)


def removed(name: str) -> Callable[[Path, dict], None]:
    return lambda raw, entry: entry.__setitem__(name, entry[name].replace('bed', 'sofa'))


def with_picture(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable:
    def make(raw: Path, entry: dict) -> None:
        path = str(raw / entry[name])
        cv2.imwrite(path, change(cv2.imread(path)))
    return make


def with_bytes(name: str, change: Callable[[bytes], bytes]) -> Callable:
    def make(raw: Path, entry: dict) -> None:
        old, entry[name] = raw / entry[name], f'changed_{name}{Path(entry[name]).suffix}'
        (raw / entry[name]).write_bytes(change(old.read_bytes()))
    return make


def with_voxels(**variables: np.ndarray) -> Callable[[Path, dict], None]:
    def make(raw: Path, entry: dict) -> None:
        entry['voxel'] = 'model/other.mat'
        savemat(raw / 'model/other.mat', variables)
    return make


def jpeg_cut_off(raw: Path, entry: dict) -> None:
    data = cv2.imencode('.jpg', cv2.imread(str(raw / entry['img'])))[1].tobytes()
    entry['img'] = 'img/bed/0002.jpg'
    (raw / entry['img']).write_bytes(data[:len(data) // 2])


@pytest.mark.parametrize('damage, words', [
    (without('voxel'), ["no 'voxel'"]),
    (without('img'), ["no 'img'"]),
    (without('mask'), ["no 'mask'"]),
    (with_value('category', ''), ["no 'category'"]),
    (without('focal_length'), ["no 'focal_length'"]),
    (without('rot_mat'), ["no 'rot_mat'"]),
    (with_value('trans_mat', None), ["no 'trans_mat'"]),
    (with_value('trans_mat', [0.0, 1.0]), ["'trans_mat'", '3 finite numbers']),
    (with_value('trans_mat', [0.0, 'far', 1.0]), ["'trans_mat'"]),
    (with_value('focal_length', 0), ["'focal_length' is 0"]),
    (with_value('focal_length', float('nan')), ["'focal_length' is not a finite number"]),
    (with_value('rot_mat', [[1, 0, 0], [0, 1, 0], [0, 0, -1]]), ['no rotation']),
    (removed('img'), ['img/sofa/0002.png is missing']),
    (removed('mask'), ['mask/sofa/0002.png is missing']),
    (removed('voxel'), ['voxel.mat is missing']),
    (with_bytes('img', lambda data: b'no picture'), ['changed_img.png', 'no picture']),
    (with_bytes('img', lambda data: data[:len(data) // 2]), ['changed_img.png']),
    (jpeg_cut_off, ['0002.jpg', 'truncated']),
    (with_bytes('mask', lambda data: b''), ['changed_mask.png']),
    (with_picture('mask', lambda mask: mask[:, :-3]), ['1004x599', '1007x599']),
    (with_picture('mask', np.zeros_like), ['mask/bed/0002.png is empty']),
    (with_bytes('voxel', lambda data: b'no matrix' * 99), ['changed_voxel.mat']),
    (with_bytes('voxel', lambda data: data[:len(data) // 2]), ['changed_voxel.mat']),
    (with_voxels(volume=np.ones((128,) * 3)), ["no variable 'voxel'"]),
    (with_voxels(voxel=np.ones((64,) * 3)), ['64 x 64 x 64', '128^3']),
    (with_voxels(voxel=np.zeros((128,) * 3)), ['other.mat is empty']),
    (with_voxels(voxel=np.ones((128,) * 3)), ['127 x 127 x 127', 'not the same shape']),
    (with_bytes('model', lambda data: b'v 1 2 x\n'), ['changed_model.obj']),
    (with_bytes('model', lambda data: b'# nothing\n'), ['changed_model.obj holds no shape']),
])
def test_broken_entry_is_skipped_with_its_reason(tmp_path, raw, damage, words):
    values = entries(raw)
    damage(raw, values[1])
    write_entries(raw, values)
    skipped = prepare_pix3d(raw, tmp_path / 'out')
    assert [item.index for item in skipped] == [1]
    for word in words:
        assert word in skipped[0].reason
    assert [item.id for item in load_prepared(tmp_path / 'out')] == ['bed_0001']
    listed, = json.loads((tmp_path / 'out/skipped.json').read_text())
    assert listed['reason'] == skipped[0].reason


def test_entry_that_is_none_and_two_objects_in_one_photo(tmp_path, raw):
    first, second = entries(raw)
    again = dict(first, mask='mask/bed/again.png')
    mask = cv2.imread(str(raw / first['mask']))
    mask[:, :200] = 0
    cv2.imwrite(str(raw / again['mask']), mask)
    write_entries(raw, [first, 7, again])
    skipped = prepare_pix3d(raw, tmp_path / 'out')
    assert [(item.index, item.reason) for item in skipped] == [(1, 'the entry is no JSON object')]
    one, other = load_prepared(tmp_path / 'out')
    assert one.image != other.image
    assert other.read_mask().any() and one.crop != other.crop


def test_without_model_the_voxels_get_a_diagonal_of_one(tmp_path, raw, prepared):
    values = entries(raw)
    for entry in values:
        del entry['model']
    write_entries(raw, values)
    assert prepare_pix3d(raw, tmp_path / 'out') == []
    # The diagonal of this model is 1.
    np.testing.assert_allclose(
        load_prepared(tmp_path / 'out')[0].grid_to_model,
        load_prepared(prepared)[0].grid_to_model, rtol=0.005)
    listed = json.loads((tmp_path / 'out/metadata.json').read_text())['pictures']
    assert {item['placed_by'] for item in listed} == {'unit diagonal'}


def test_another_size_does_not_mix_with_what_is_there(tmp_path):
    prepare_pix3d(SAMPLE, tmp_path, size=64)
    assert load_prepared(tmp_path)[0].read_image().shape == (64, 64, 3)
    before = files(tmp_path)
    with pytest.raises(InputError, match='--size 64'):
        prepare_pix3d(SAMPLE, tmp_path, size=128)
    assert files(tmp_path) == before


def test_unfinished_run_of_another_size_does_not_mix_in(tmp_path, prepared):
    for size in (256, 64, 256):
        prepare_pix3d(SAMPLE, tmp_path, size=size)
        assert load_prepared(tmp_path)[1].read_image().shape == (size, size, 3)
        (tmp_path / 'metadata.json').rename(tmp_path / 'old.json')  # as if it had not ended
    (tmp_path / 'old.json').rename(tmp_path / 'metadata.json')
    assert contents(tmp_path) == contents(prepared)


def test_sheet_shows_picture_mask_and_voxels(prepared):
    picture = load_prepared(prepared)[0]
    sheet = draw_pix3d_check(picture)
    assert sheet.shape == (512 + 24, 3 * 512, 3)
    photo, marked, solid = (panel[24::2, ::2].astype(int) for panel in np.split(sheet, 3, axis=1))
    image, mask = picture.read_image(), picture.read_mask()
    np.testing.assert_array_equal(photo, image)
    red = (marked == (255, 40, 40)).all(axis=-1)
    near = cv2.dilate(mask.astype(np.uint8), np.ones((13, 13))) > 0
    assert red.sum() > 100 and near[red].all()
    np.testing.assert_array_equal(marked[~near], image[~near])
    tinted = marked[..., 1] - marked[..., 0] > image[..., 1].astype(int) - image[..., 0]
    assert tinted[mask & ~red].mean() > 0.95
    assert len(np.unique(solid.reshape(-1, 3), axis=0)) > 500


def test_command_lists_what_it_leaves_out_and_draws(tmp_path, raw, capsys):
    values = entries(raw)
    del values[1]['voxel']
    write_entries(raw, [*values, dict(values[0], category='table', mask='mask/none.png')])
    out = tmp_path / 'out'
    assert main(['prepare-pix3d', str(raw), str(out), '--jobs', '1', '--check', '3']) == 0
    printed = capsys.readouterr()
    assert "entry 1 img/bed/0002.png: the entry has no 'voxel'" in printed.out
    assert 'entry 2 img/bed/0001.png: mask/none.png is missing' in printed.out
    rows = [line.split() for line in printed.out.splitlines()]
    assert ['bed', '1', '1', '1'] in rows and ['table', '0', '0', '1'] in rows
    assert [path.name for path in (out / 'check').iterdir()] == ['bed_0001.png']
    assert printed.err == ''


@pytest.mark.parametrize('content, words', [
    (None, ['no Pix3D folder']),
    ('{', ['not valid JSON']),
    ('{}', ['list of entries']),
    ('[]', ['none of the 0 entries']),
    ('[{"img": "a.png"}]', ['none of the 1 entries', "no 'category'", 'skipped.json']),
])
def test_folder_that_is_no_pix3d_is_one_sentence(tmp_path, capsys, content, words):
    if content is not None:
        (tmp_path / 'pix3d.json').write_text(content)
    printed = complaint(capsys, 'prepare-pix3d', tmp_path, tmp_path / 'out')
    assert all(word in printed for word in words)


def test_place_that_cannot_be_written_is_one_sentence(tmp_path, capsys):
    (tmp_path / 'file').write_text('in the way')
    printed = complaint(capsys, 'prepare-pix3d', SAMPLE, tmp_path / 'file/out', '--jobs', 1)
    assert 'file/out' in printed and 'cannot write' in printed
    assert (tmp_path / 'file').read_text() == 'in the way'


def test_folder_that_was_not_prepared_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match='prepare-pix3d'):
        load_prepared(tmp_path)
    (tmp_path / 'metadata.json').write_text('{"pictures": [{}]}')
    with pytest.raises(InputError, match='prepare the data again'):
        load_prepared(tmp_path)
