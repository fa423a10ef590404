# SPDX-License-Identifier: Apache-2.0
"""`img2scene evaluate shapes`: which shapes, which views, what is written, and bad input."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from complaints import complaint
from shape_folders import write_shapes

from img2scene_ros.cli import main
from img2scene_ros.errors import InputError
from img2scene_ros.errors import OptionError
from img2scene_ros.learning.data_config import ShapeOptions
from img2scene_ros.learning.evaluation import RESOLUTION
from img2scene_ros.learning.evaluation import Candidate
from img2scene_ros.learning.evaluation import Report
from img2scene_ros.learning.evaluation import hull_of
from img2scene_ros.learning.evaluation import write_report
from img2scene_ros.learning.evaluation_shapes import DILATED
from img2scene_ros.learning.evaluation_shapes import ERODED
from img2scene_ros.learning.evaluation_shapes import INPUTS
from img2scene_ros.learning.evaluation_shapes import NOISY
from img2scene_ros.learning.evaluation_shapes import evaluate_shapes
from img2scene_ros.learning.evaluation_shapes import input_of
from img2scene_ros.learning.evaluation_shapes import split_of
from img2scene_ros.learning.evaluation_shapes import view_of
from img2scene_ros.learning.samples import coarser
from img2scene_ros.learning.shapes import load_pix3d_shape
from img2scene_ros.learning.shapes import open_library
from img2scene_ros.models.networks import build_network
from img2scene_ros.models.networks import save_network
from img2scene_ros.models.occupancy import OccupancyNetwork

pytestmark = pytest.mark.usefixtures('one_thread')
SHAPES = 'evaluate', 'shapes'


class Everything(OccupancyNetwork):
    """Takes every cell for solid."""

    def encode(self, pictures: torch.Tensor, half_field: torch.Tensor) -> torch.Tensor:
        return pictures

    def query(self, features, half_field, points) -> torch.Tensor:
        return torch.full(points.shape[:2], 5.0)


@pytest.fixture(scope='module')
def shapes(tmp_path_factory) -> Path:
    return write_shapes(tmp_path_factory.mktemp('evaluated') / 'shapes', chairs=4, tables=2)


@pytest.fixture(scope='module')
def weights(tmp_path_factory) -> Path:
    """Return a folder with two small networks that were never trained."""
    folder = tmp_path_factory.mktemp('networks')
    torch.manual_seed(0)
    for name in ('one', 'other'):
        network = build_network('frustum-unet', width=8, slices=8, blocks=1)
        save_network(network, folder / name, {'validation': {'rgb': {'threshold': 0.05}}})
    return folder


def candidate(**config: object) -> Candidate:
    return Candidate('everything', Everything(), {'network': 'none', **config})


def test_a_view_shows_the_whole_shape_alone(shapes):
    shape = load_pix3d_shape(shapes / 'chair/STEPS_0')
    for number in range(3):
        sample = view_of(shape, number, ShapeOptions())
        assert sample.truth.shown >= 0.9 and sample.crop.mask.sum() > 150
        truth = coarser(sample.occupancy, RESOLUTION)
        hull = hull_of(sample.crop.mask, sample.crop.view.half_field)
        assert (hull & truth).sum() > 0.85 * truth.sum()
        # With a perfect box the longer side of the mask takes 1 / 1.2 of the crop, or less where
        # perspective turns the box's edges.
        rows, columns = np.nonzero(sample.crop.mask)
        longest = max(np.ptp(rows), np.ptp(columns)) + 1
        assert 0.7 < longest / len(sample.crop.mask) < 0.86


def test_views_depend_on_seed_shape_and_number_only(shapes):
    one, other = (load_pix3d_shape(shapes / f'chair/STEPS_{n}') for n in (0, 1))

    def color(shape, number, **options) -> np.ndarray:
        return view_of(shape, number, ShapeOptions(**options)).crop.color

    first = color(one, 0)
    assert np.array_equal(first, color(one, 0, views=9, split='test'))
    for view in (color(one, 1), color(other, 0), color(one, 0, seed=1)):
        assert not np.array_equal(first, view)


def test_inputs_differ_by_what_they_say(shapes):
    sample = view_of(load_pix3d_shape(shapes / 'chair/STEPS_0'), 0, ShapeOptions())
    inputs = {name: input_of(sample, name) for name in INPUTS}
    mask = sample.crop.mask
    assert not (inputs[ERODED].mask & ~mask).any() and not (mask & ~inputs[DILATED].mask).any()
    reach = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5)[inputs[DILATED].mask]
    assert 1.5 < reach.max() < 2.5
    assert [name for name, example in inputs.items() if example.depth is not None] == [
        NOISY, 'colour + mask + true depth']
    noise = inputs[NOISY].depth - sample.crop.depth
    assert 0 < np.nanstd(noise[mask]) < 0.1 * sample.cube.side


def test_a_network_that_fills_everything_scores_the_share_of_full_cells(shapes):
    report = evaluate_shapes(shapes, [candidate()], ShapeOptions(views=1, categories=('table',)))
    views = [view_of(load_pix3d_shape(shapes / f'table/STEPS_{number}'), 0, ShapeOptions())
             for number in range(2)]
    truth = [coarser(view.occupancy, RESOLUTION) for view in views]
    score = report.values['scores'][0]
    assert score['input'] == 'colour' and score['threshold'] == 0.5
    assert score['iou'] == pytest.approx(np.mean(truth))
    assert score['per_category']['table']['iou'] == score['iou']
    # Two equal shapes, one view of each: the mean shape of the one is the other one's view.
    mean = next(one for one in report.values['scores'] if one['method'] == 'mean shape')
    assert mean['iou'] == pytest.approx(
        (truth[0] & truth[1]).sum() / (truth[0] | truth[1]).sum(), abs=1e-6)


@pytest.mark.slow
def test_test_split_is_that_of_render(shapes):
    options = ShapeOptions(split='test', views=1)
    split = {'test_share': 0.5, 'split_seed': 3}
    library = open_library(shapes, None, 'test', **split)
    expected = [name for name in library.names if name.startswith('pix3d/')]
    report = evaluate_shapes(shapes, [candidate(split=split)], options)
    assert report.values['about']['shapes'] == sorted(expected) and len(expected) == 3
    assert report.values['about']['mean_shape'] == 'of 3 views of shapes of the training split'


def test_split_is_what_the_weights_tell():
    assert split_of([candidate()]) == {'test_share': 0.15, 'split_seed': 0}
    other = candidate(split={'test_share': 0.3, 'split_seed': 0})
    assert split_of([other])['test_share'] == 0.3
    with pytest.raises(OptionError, match='different splits'):
        split_of([candidate(), other])


def test_networks_stand_side_by_side_in_all_files(shapes, weights, tmp_path, capsys):
    files = {name: tmp_path / f'found.{name}' for name in ('json', 'md', 'png')}
    code = main([
        'evaluate', 'shapes', str(shapes), '--views', '1', '--categories', 'table',
        '--weights', str(weights / 'one'), '--weights', str(weights / 'other'),
        '--json', str(files['json']), '--markdown', str(files['md']),
        '--sheet', str(files['png'])])
    assert code == 0 and '|' not in capsys.readouterr().out
    values = json.loads(files['json'].read_text())
    networks = [one for one in values['scores'] if 'threshold' in one]
    assert {one['method'] for one in networks} == {'one (frustum-unet)', 'other (frustum-unet)'}
    assert len({one['input'] for one in networks}) == 6
    # The threshold is the one that the weights recorded; without one for depth it is 0.5.
    assert {one['threshold'] for one in networks if 'depth' not in one['input']} == {0.05}
    assert {one['threshold'] for one in networks if 'depth' in one['input']} == {0.5}
    text = files['md'].read_text()
    assert text.count('| one (frustum-unet) |') == 18 and '| visual hull of the mask |' in text
    # Two views, each a row of the picture and pairs of pictures of the truth and 2 x 2 answers.
    assert cv2.imread(str(files['png'])).shape == (2 * (112 + 16), 112 * (1 + 2 + 4 * 2), 3)


def test_bad_input_is_told_in_one_line(shapes, weights, tmp_path, capsys):
    one = '--weights', weights / 'one'
    (tmp_path / 'empty').mkdir()
    assert 'holds no shapes' in complaint(capsys, *SHAPES, tmp_path / 'empty', *one)
    (shapes / 'sofa').mkdir(exist_ok=True)
    assert "no shapes of the category 'sofa'" in complaint(
        capsys, *SHAPES, shapes, '--categories', 'sofa', *one)
    assert 'no network in' in complaint(capsys, *SHAPES, shapes, '--weights', tmp_path)
    assert "'split' is 'nonsense'" in complaint(
        capsys, *SHAPES, shapes, '--split', 'nonsense', *one)
    config = json.loads((weights / 'one/config.json').read_text())
    mixed = tmp_path / 'mixed'
    mixed.mkdir()
    (mixed / 'model.safetensors').write_bytes((weights / 'one/model.safetensors').read_bytes())
    config['options']['width'] = 16
    (mixed / 'config.json').write_text(json.dumps(config))
    assert 'weights of another network' in complaint(capsys, *SHAPES, shapes, '--weights', mixed)


def test_broken_shapes_are_skipped_and_named(tmp_path, weights, capsys):
    folder = write_shapes(tmp_path / 'shapes', chairs=2, tables=1)
    (folder / 'chair/STEPS_0/voxel.mat').write_bytes(b'nothing')
    (folder / 'chair/STEPS_1/model.ply').unlink()
    report = evaluate_shapes(folder, [candidate()], ShapeOptions(views=1))
    assert report.values['about']['shapes'] == ['pix3d/table/STEPS_0']
    reasons = '\n'.join(report.skipped)
    assert 'pix3d/chair/STEPS_1: no model.ply' in reasons and 'voxel.mat' in reasons
    # One shape alone has no mean of others.
    assert 'mean shape' not in {score['method'] for score in report.values['scores']}
    alone = write_shapes(tmp_path / 'alone', chairs=1, tables=0)
    (alone / 'chair/STEPS_0/voxel.mat').write_bytes(b'nothing')
    assert 'can be used' in complaint(capsys, *SHAPES, alone, '--weights', weights / 'one')


def test_file_that_cannot_be_written_is_told_and_leaves_the_old_one(tmp_path):
    report = Report({'a': 1}, 'tables', np.zeros((2, 2, 3), np.uint8))
    (tmp_path / 'file').write_text('')
    with pytest.raises(InputError, match='cannot write'):
        write_report(report, None, tmp_path / 'file/found.md', None)
    (tmp_path / 'old.json').write_text('old')
    (tmp_path / '.old.json.part').mkdir()  # in the way of what is written beside
    with pytest.raises(InputError, match='cannot write'):
        write_report(report, tmp_path / 'old.json', None, None)
    assert (tmp_path / 'old.json').read_text() == 'old'
