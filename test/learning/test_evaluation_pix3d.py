# SPDX-License-Identifier: Apache-2.0
"""`img2scene evaluate pix3d`: the way into the model's axes, and bad input."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from complaints import complaint

from img2scene_ros.cli import main
from img2scene_ros.learning.evaluation import RESOLUTION
from img2scene_ros.learning.evaluation import hull_of
from img2scene_ros.learning.evaluation_pix3d import evaluate_pix3d
from img2scene_ros.learning.evaluation_pix3d import in_model_axes
from img2scene_ros.learning.evaluation_pix3d import view_of_picture
from img2scene_ros.learning.metrics import pix3d_voxels
from img2scene_ros.learning.metrics import voxel_iou
from img2scene_ros.learning.pix3d import load_prepared
from img2scene_ros.learning.pix3d import prepare_pix3d
from img2scene_ros.models.networks import build_network
from img2scene_ros.models.networks import save_network

pytestmark = pytest.mark.usefixtures('one_thread')

SAMPLE = Path(__file__).resolve().parents[2] / 'data/pix3d_sample'


@pytest.fixture(scope='module')
def prepared(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp('photos') / 'prepared'
    prepare_pix3d(SAMPLE, out)
    return out


@pytest.fixture(scope='module')
def weights(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('network') / 'small'
    torch.manual_seed(0)
    save_network(build_network('frustum-unet', width=8, slices=8, blocks=1), folder)
    return folder


@pytest.mark.parametrize('number', (0, 1))
def test_truth_carried_into_the_view_and_back_is_itself(prepared, number):
    """By the official steps; thin boards need fine cells."""
    view = view_of_picture(load_prepared(prepared)[number])
    published = pix3d_voxels(view.picture.read_voxels())
    truth = view.truth(256)
    assert voxel_iou(pix3d_voxels(in_model_axes(truth, view)), published, 0.1) > 0.97
    # Any mistake of an axis shows.
    for wrong in (truth[::-1], truth[:, ::-1], truth[..., ::-1], truth.transpose(1, 0, 2)):
        assert voxel_iou(pix3d_voxels(in_model_axes(wrong, view)), published, 0.1) < 0.5


def test_true_volume_lies_behind_the_mask_of_the_photo(prepared):
    view = view_of_picture(load_prepared(prepared)[0])
    truth = view.truth(RESOLUTION)
    hull = hull_of(view.crop.mask, view.crop.view.half_field)
    assert (hull & truth).sum() > 0.85 * truth.sum()
    assert (hull[..., ::-1] & truth).sum() < 0.9 * (hull & truth).sum()
    # The anchor is the depth of what is seen: it lies within the model's depths.
    place = view.picture.grid_to_camera
    depths = np.argwhere(view.picture.read_voxels()) @ place[2, :3] + place[2, 3]
    assert depths.min() < view.anchor < depths.max()


def test_a_mask_beside_the_model_shows_nothing(prepared):
    picture = load_prepared(prepared)[0]
    moved = replace(picture, translation=picture.translation + (0, 50.0, 0))
    assert view_of_picture(moved) is None


@pytest.mark.slow
def test_protocol_and_view_are_written(prepared, weights, tmp_path):
    """Of the two pictures one is cut off and hidden in part, so the protocol leaves it out."""
    files = [tmp_path / name for name in ('found.json', 'found.md', 'found.png')]
    assert main(['evaluate', 'pix3d', str(prepared), '--weights', str(weights),
                 '--json', str(files[0]), '--markdown', str(files[1]),
                 '--sheet', str(files[2])]) == 0
    values = json.loads(files[0].read_text())
    assert values['about']['pictures'] == 1
    methods = {(one['input'], one['method']) for one in values['official']}
    assert ('colour + mask', 'visual hull of the mask') in methods
    assert ('colour', 'small (frustum-unet)') in methods
    for one in values['official']:
        assert 0 <= one['iou'] < 1 and one['pictures'] == 1 and one['category'] == 'bed'
    best = max(values['official'], key=lambda one: one['iou'])
    assert best['method'] == 'truth in 32^3 cells' and best['iou'] > 0.5
    text = files[1].read_text()
    assert text.startswith('1 of 2 pictures, neither truncated nor occluded.')
    assert 'IoU per category' in text and files[2].stat().st_size > 1000


@pytest.mark.slow
def test_all_pictures_when_asked(prepared):
    report = evaluate_pix3d(prepared, [], every=True)
    assert report.values['about']['pictures'] == 2
    assert report.markdown.startswith('2 of 2 pictures.')


def test_bad_input_is_told_in_one_line(prepared, weights, tmp_path, capsys):
    command = 'evaluate', 'pix3d', tmp_path, '--weights', weights
    assert 'prepare-pix3d' in complaint(capsys, *command)
    metadata = json.loads((prepared / 'metadata.json').read_text())
    for picture in metadata['pictures']:
        picture['truncated'] = True
        for name in ('image', 'mask', 'voxels'):
            picture[name] = str(prepared / picture[name])
    (tmp_path / 'metadata.json').write_text(json.dumps(metadata))
    assert 'all truncated or occluded' in complaint(capsys, *command)
