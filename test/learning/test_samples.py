# SPDX-License-Identifier: Apache-2.0
"""The files of training data: what is written is read again, whole or with one clear sentence."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from shape_folders import write_shapes

from img2scene_ros.errors import InputError
from img2scene_ros.learning.data_config import RenderOptions
from img2scene_ros.learning.rendered import render_dataset
from img2scene_ros.learning.samples import CropSamples
from img2scene_ros.learning.samples import SceneSamples
from img2scene_ros.learning.samples import write_shard
from img2scene_ros.learning.shapes import open_library
from img2scene_ros.learning.sheets import draw_sheet
from img2scene_ros.learning.synthetic import crop_samples
from img2scene_ros.learning.synthetic import scene_samples

SMALL = {'width': 160, 'sky_rays': 1, 'samples': 7, 'shard_samples': 3}
OPTIONS = {kind: RenderOptions(kind=kind, size=50, **SMALL) for kind in ('crops', 'scenes')}


@pytest.fixture(scope='module')
def folders(tmp_path_factory) -> dict[str, Path]:
    """Return a shapes folder and a rendered data set of each kind."""
    base = tmp_path_factory.mktemp('data')
    write_shapes(base / 'shapes')
    for kind, options in OPTIONS.items():
        render_dataset(base / 'shapes', None, base / kind, options)
    return {name: base / name for name in ('shapes', 'crops', 'scenes')}


def test_crops_come_back_as_they_were_rendered(folders):
    samples = CropSamples(folders['crops'])
    assert len(samples) == 7
    library = open_library(folders['shapes'], None, 'train', 0.15, 0)
    # The second shard starts with sample 3.
    for number, shard in ((0, 0), (3, 1)):
        made = next(crop_samples(library, OPTIONS['crops'], shard))
        read = samples[number]
        np.testing.assert_array_equal(read.occupancy, made.occupancy)
        np.testing.assert_array_equal(read.crop.mask, made.crop.mask)
        np.testing.assert_array_equal(read.crop.view.rotation, made.crop.view.rotation)
        assert (read.anchor, read.truth.shape, read.scene) == (
            made.anchor, made.truth.shape, made.scene)
        assert read.crop.color.shape == (50, 50, 3)
        assert np.abs(read.crop.color.astype(int) - made.crop.color).mean() < 4
        side = made.cube.side
        low, high = made.anchor - 1.5 * side, made.anchor + 2.5 * side
        np.testing.assert_allclose(
            read.crop.depth, np.clip(made.crop.depth, low, high), atol=0.00051 * side)
        assert (read.camera.width, read.camera.fx) == (160, made.camera.fx)
        for name, value in vars(made.truth).items():
            if isinstance(value, np.ndarray):
                np.testing.assert_allclose(getattr(read.truth, name), value, atol=1e-6)


def test_scenes_come_back_as_they_were_rendered(folders):
    samples = SceneSamples(folders['scenes'])
    library = open_library(folders['shapes'], None, 'train', 0.15, 0)
    made, read = next(scene_samples(library, OPTIONS['scenes'], 0)), samples[0]
    np.testing.assert_array_equal(read.ids, made.ids)
    np.testing.assert_allclose(read.frame.depth, made.frame.depth, atol=0.00051)
    assert np.abs(read.frame.color.astype(int) - made.frame.color).mean() < 4
    assert [item.label for item in read.objects] == [item.label for item in made.objects]
    np.testing.assert_allclose(read.up, made.up)


def test_fifty_thousand_samples_fit_into_a_gigabyte(folders, tmp_path):
    options = RenderOptions(samples=12, sky_rays=1)
    render_dataset(folders['shapes'], None, tmp_path / 'out', options)
    size = (tmp_path / 'out' / 'shard_00000.npz').stat().st_size
    assert size / 12 < 20_000


def test_unusable_folders_are_one_clear_sentence(folders, tmp_path):
    with pytest.raises(InputError, match='no data set'):
        CropSamples(tmp_path)
    with pytest.raises(InputError, match='holds scenes, not crops'):
        CropSamples(folders['scenes'])
    (tmp_path / 'index.json').write_text('{"options": 3}')
    with pytest.raises(InputError, match='not the index'):
        CropSamples(tmp_path)
    index = json.loads((folders['crops'] / 'index.json').read_text())
    (tmp_path / 'index.json').write_text(json.dumps(index | {'format': 1}))
    with pytest.raises(InputError, match='format 1'):
        CropSamples(tmp_path)
    (tmp_path / 'index.json').write_text(json.dumps(index))
    with pytest.raises(InputError, match='lacks 3 of 3'):
        CropSamples(tmp_path)
    for name in index['shards']:
        (tmp_path / name).write_bytes((folders['crops'] / name).read_bytes()[:400])
    with pytest.raises(InputError, match='cannot read the shard'):
        CropSamples(tmp_path)[0]


def test_data_sets_one_after_another(folders, tmp_path):
    """Of other sizes and lengths of their shards; the last shard may be short."""
    more, one = tmp_path / 'more', folders['crops']
    options = RenderOptions(width=160, sky_rays=0, samples=5, shard_samples=2, size=48, seed=3)
    render_dataset(folders['shapes'], None, more, options)
    parts = [CropSamples(one), CropSamples(more)]
    both = CropSamples(one, more)
    assert len(both) == len(parts[0]) + 5
    scenes = [sample.scene for part in parts for sample in part]
    assert [sample.scene for sample in both] == scenes
    assert both[-1].scene == scenes[-1] and len(both[-1].crop.mask) == 48
    with pytest.raises(IndexError):
        both[len(both)]
    index = json.loads((more / 'index.json').read_text())
    index['options']['split_seed'] = 1
    (more / 'index.json').write_text(json.dumps(index))
    with pytest.raises(InputError, match='split the shapes in different ways.*--split-seed'):
        CropSamples(one, more)


def test_a_shard_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(InputError, match='file/shard.npz'):
        write_shard(tmp_path / 'file' / 'shard.npz', [[b'a', b'b']])
    (tmp_path / 'taken.npz').mkdir()
    with pytest.raises(InputError, match='cannot write'):
        write_shard(tmp_path / 'taken.npz', [[b'a', b'b']])
    assert {path.name for path in tmp_path.iterdir()} == {'file', 'taken.npz'}


@pytest.mark.parametrize('kind', ('crops', 'scenes'))
def test_the_sheet_shows_the_samples(folders, tmp_path, kind):
    draw_sheet(folders[kind], tmp_path / 'sheet.png', count=4)
    sheet = cv2.imread(str(tmp_path / 'sheet.png'))[..., ::-1]
    if kind == 'crops':
        picture = CropSamples(folders[kind])[0].crop.color
    else:
        picture = SceneSamples(folders[kind])[0].frame.color
    height, width = picture.shape[:2]
    shown = sheet[16:16 + height, :width]  # below the caption
    # Boxes and names are drawn over a part of a scene.
    assert (shown == picture).all(axis=2).mean() > 0.4
    assert sheet.shape[0] == 2 * (height + 16), 'two rows of two'
    with pytest.raises(InputError, match='cannot write'):
        draw_sheet(folders[kind], tmp_path / 'sheet.png' / 'sheet.png', count=1)
