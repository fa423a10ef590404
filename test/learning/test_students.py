# SPDX-License-Identifier: Apache-2.0
"""Training on examples that are drawn meanwhile, at toy size."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from trainings import assert_resumes_exactly
from trainings import losses_of
from trainings import settings_of

from img2scene_ros.errors import InputError
from img2scene_ros.errors import OptionError
from img2scene_ros.learning.loop import carry_out
from img2scene_ros.learning.packed_shapes import packed_shape
from img2scene_ros.learning.packed_shapes import write_packed
from img2scene_ros.learning.shapes import household_object
from img2scene_ros.learning.students import STUDENTS
from img2scene_ros.learning.students import ShapeStudent
from img2scene_ros.learning.students import read_student_options
from img2scene_ros.models.networks import load_network

CPU = torch.device('cpu')
SMALL = {
    'shape': ['size=32', 'resolution=16', 'batch=8', 'chunk=16', 'kept=2', 'reuse=4', 'steps=12',
              'validation_samples=2', 'validate_every=6', 'save_every=6', 'log_every=1',
              'model.width=4', 'model.slices=16', 'model.deep=1', 'model.fine=4',
              'learning_rate=0.01'],
    'segmentation': ['batch=1', 'chunk=2', 'kept=1', 'steps=2', 'validation_samples=2',
                     'model.width=4', 'model.deep=0']}
BARE = '''
import json
import sys
from importlib.abc import MetaPathFinder

class Bare(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('open3d', 'trimesh', 'safetensors', 'yaml', 'rich', 'PIL',
                                  'skimage', 'transformers', 'rclpy', 'xatlas', 'requests'):
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)

sys.meta_path.insert(0, Bare())
from img2scene_ros.cli import main
sys.exit(any(main(arguments) for arguments in json.loads(sys.argv[1])))
'''


@pytest.fixture(scope='module')
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of three shapes, two to train on."""
    path = tmp_path_factory.mktemp('shapes') / 'shapes.npz'
    write_packed(path, [
        packed_shape(household_object(kind, 0), split, 'table')
        for kind, split in (('cup', 'train'), ('box', 'train'), ('can', 'test'))])
    return path


def _learn(kind: str, shapes: Path, out: Path, *more: str, **how):
    options, model = read_student_options(kind, [*SMALL[kind], *more])
    return carry_out(STUDENTS[kind](options, model, shapes), out, device=CPU, **how)


@pytest.mark.usefixtures('one_thread')
def test_shape_student_learns_resumes_exactly_and_is_used(shapes, tmp_path):
    assert_resumes_exactly(
        lambda out, resume=False: _learn('shape', shapes, out, resume=resume), tmp_path, last=6)
    losses = list(losses_of(tmp_path / 'whole').values())
    assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3])
    # The package's reader and the format's own agree on what was written.
    network = load_network(tmp_path / 'whole')
    stored = load_file(tmp_path / 'whole/model.safetensors')
    assert all(torch.equal(values.half(), stored[name])
               for name, values in network.state_dict().items() if values.is_floating_point())
    assert (tmp_path / 'whole/sheet.png').stat().st_size > 1000
    # The file scores as the network did where it was trained, but for half precision.
    config = json.loads((tmp_path / 'whole/config.json').read_text())
    student = ShapeStudent(*read_student_options('shape', SMALL['shape']), shapes)
    student.build(CPU)
    _, scores = student.score(network)
    for name, score in scores.items():
        assert score['iou'] == pytest.approx(config['validation'][name]['iou'], abs=0.01)


def test_trains_with_only_torch_numpy_scipy_and_opencv(shapes, tmp_path):
    commands = []
    for kind in SMALL:
        commands.append(['learn', kind, '--shapes', str(shapes), '--out', str(tmp_path / kind),
                         '--device', 'cpu', *settings_of([*SMALL[kind], 'steps=1'])])
    done = subprocess.run(
        [sys.executable, '-c', BARE, json.dumps(commands)],
        capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for kind in SMALL:
        assert {'model.safetensors', 'config.json', 'sheet.png', 'table.md', 'state.pt'} <= {
            path.name for path in (tmp_path / kind).iterdir()}


def test_a_student_starts_from_a_trained_one(shapes, tmp_path):
    first = tmp_path / 'first'
    _learn('segmentation', shapes, first, 'steps=1', 'average=0')
    run = _learn('segmentation', shapes, tmp_path / 'second', 'steps=1', 'learning_rate=0',
                 f'start_from={first}')
    weights = load_file(first / 'model.safetensors')
    for name, weight in run.network.named_parameters():
        assert torch.equal(weight.half(), weights[name]), 'nothing is learned at a rate of 0'


def test_schedule_follows_the_clock(shapes, tmp_path):
    run = _learn('segmentation', shapes, tmp_path / 'run', 'seconds=3', 'steps=1000')
    assert run.seconds >= 3.0 and 0 < run.step < 1000


def test_what_cannot_be_used_is_refused(shapes, tmp_path):
    with pytest.raises(OptionError, match='speed'):
        read_student_options('shape', ['speed=3'])
    (tmp_path / 'broken.npz').write_bytes(b'no shapes')
    with pytest.raises(InputError, match='broken.npz'):
        _learn('shape', tmp_path / 'broken.npz', tmp_path / 'run')
