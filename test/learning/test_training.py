# SPDX-License-Identifier: Apache-2.0
"""Training learns, resumes exactly, shares its work, and fails in one sentence."""

import errno
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from time import sleep
from typing import Any

import numpy as np
import pytest
import torch
from solids import SIZE
from solids import solid_sample
from trainings import assert_command_trains_and_resumes
from trainings import assert_resumes_exactly
from trainings import log_of
from trainings import losses_of
from trainings import settings_of
from trainings import write_set

from img2scene_ros.cli import main
from img2scene_ros.errors import Img2SceneError
from img2scene_ros.errors import InputError
from img2scene_ros.errors import OptionError
from img2scene_ros.learning import loop
from img2scene_ros.learning import training
from img2scene_ros.learning.dataset import resized
from img2scene_ros.learning.loop import Run
from img2scene_ros.learning.loop import TrainingError
from img2scene_ros.learning.loop import carry_out
from img2scene_ros.learning.runs import open_log
from img2scene_ros.learning.samples import CropSample
from img2scene_ros.learning.samples import encode_crop
from img2scene_ros.learning.training import occupancy_loss
from img2scene_ros.learning.training_config import TrainingConfig
from img2scene_ros.learning.training_config import TrainingOptions
from img2scene_ros.learning.training_config import read_config
from img2scene_ros.models.networks import load_network
from img2scene_ros.models.networks import read_network_config
from img2scene_ros.weights import bundled

pytestmark = pytest.mark.usefixtures('one_thread')

ROOT = Path(__file__).resolve().parents[2]
SPLIT = {'test_share': 0.3, 'split_seed': 4}
QUICK = ('steps=6', 'batch=4', 'resolution=16', 'log_every=1', 'save_every=2', 'validate_every=3',
         'model.width=8', 'model.slices=16', 'validation_samples=4')


def config(*settings: str) -> TrainingConfig:
    return read_config(None, [*QUICK, *settings])


def train(
    config: TrainingConfig, samples: list[CropSample], out: Path,
    validation: list[CropSample] | None = None, **how: Any,
) -> Run:
    return carry_out(training.VoxelTask(config, samples, validation), out, **how)


@pytest.fixture(scope='module')
def samples() -> list[CropSample]:
    return [solid_sample(number) for number in range(16)]


def test_compact_network_learns_balls_and_boxes(tmp_path, samples):
    """From colour and mask, and with depth: the cells of 16 solids, without augmentation."""
    off = [f'augmentation.{name}=0' for name in (
        'flip', 'occluder', 'background', 'photometric', 'mask_pixels', 'ragged_mask',
        'missing_depth', 'drop_mask')]
    chosen = read_config(None, [
        *off, 'steps=150', 'batch=8', 'learning_rate=0.005', 'average=0.9', 'model.width=16',
        'model.slices=32', 'validate_every=150', 'log_every=50', 'save_every=150',
        'augmentation.depth_noise=0.5', 'augmentation.drop_depth=0.5'])
    run = train(chosen, samples, tmp_path, samples)
    assert run.step == 150
    scores = next(line for line in log_of(tmp_path) if 'rgb' in line)
    for name in ('rgb', 'rgbd'):
        assert scores[name]['iou'] > 0.9, scores
        assert set(scores[name]['per_category']) == {'ball', 'box'}
        best = str(scores[name]['threshold'])
        assert scores[name]['per_threshold'][best] == scores[name]['iou']
    losses = losses_of(tmp_path)
    assert losses[150] < 0.3 * losses[50]
    # What was saved is what was validated.
    assert read_network_config(tmp_path)['validation']['rgb'] == scores['rgb']
    assert sum(w.numel() for w in load_network(tmp_path).parameters()) > 1e5


def test_resumed_run_ends_as_an_uninterrupted_one(tmp_path, samples):
    assert_resumes_exactly(lambda out, resume=False: train(
        config('precision=fp32'), samples, out, samples, resume=resume), tmp_path)


def test_lines_of_steps_that_were_lost_are_dropped_from_the_log(tmp_path, samples):
    train(config(), samples, tmp_path, minutes=0)
    with open(tmp_path / 'log.jsonl', 'a') as file:
        file.write('{"step": 5, "loss": 0.0}\n')
    train(config(), samples, tmp_path, resume=True)
    assert losses_of(tmp_path)[5] > 0
    assert [line['step'] for line in log_of(tmp_path)] == [1, 2, 3, 4, 5, 6]


def test_average_is_what_is_saved(tmp_path, samples):
    run = train(config('average=0.5'), samples, tmp_path)
    saved = load_network(tmp_path).state_dict()
    assert all(torch.equal(saved[key], value) for key, value in run.average.state_dict().items())
    assert not torch.equal(saved['stem.0.weight'], run.network.state_dict()['stem.0.weight'])


def test_training_starts_from_a_trained_network(tmp_path, samples):
    train(config('average=0'), samples, tmp_path / 'first')
    first = load_network(tmp_path / 'first').state_dict()
    run = train(config(f"start_from={tmp_path / 'first'}", 'learning_rate=0', 'size=32'),
                samples, tmp_path / 'second')
    for name, weight in run.network.named_parameters():
        assert torch.equal(weight, first[name]), 'nothing is learned at a rate of 0'
    with pytest.raises(InputError, match='another shape'):
        train(config(f"start_from={tmp_path / 'first'}", 'model.width=12'), samples,
              tmp_path / 'third')


def test_training_starts_from_the_bundled_network(tmp_path, samples):
    chosen = read_config(None, ['start_from=bundled', 'steps=1', 'batch=2', 'learning_rate=0'])
    run = train(chosen, samples[:2], tmp_path)
    bundled_weights = load_network(bundled('voxel')).state_dict()
    for name, weight in run.network.named_parameters():
        assert torch.equal(weight, bundled_weights[name])


@pytest.mark.parametrize('option', ['model.deep', 'model.blocks'])
def test_a_deeper_network_starts_from_a_shallower_one(tmp_path, samples, option):
    """Blocks that were not there at first change nothing before they have learned something."""
    start = f"start_from={tmp_path / 'first'}"
    train(config('average=0', f'{option}=1'), samples, tmp_path / 'first')
    train(config(start, 'learning_rate=0', 'steps=1', f'{option}=3'), samples,
          tmp_path / 'second')
    pictures = torch.randn(2, 6, 32, 32, generator=torch.Generator().manual_seed(0))
    half_field = torch.tensor([0.2, 0.3])
    shallow, deep = (load_network(tmp_path / name) for name in ('first', 'second'))
    # A step moves the statistics of the batch norms, so those are taken over, too.
    deep.load_state_dict(shallow.state_dict(), strict=False)
    assert len(deep.state_dict()) > len(shallow.state_dict())
    with torch.inference_mode():
        torch.testing.assert_close(
            deep(pictures, half_field, 16), shallow(pictures, half_field, 16))
    with pytest.raises(InputError, match='another shape'):
        train(config(f"start_from={tmp_path / 'second'}", f'{option}=1'), samples,
              tmp_path / 'third')


def test_looking_at_all_cells_in_random_order_changes_nothing(tmp_path, samples):
    train(config(), samples, tmp_path / 'volume')
    train(config(f'cells={16 ** 3}'), samples, tmp_path / 'cells')
    volume, cells = losses_of(tmp_path / 'volume'), losses_of(tmp_path / 'cells')
    assert list(cells.values()) == pytest.approx(list(volume.values()), rel=1e-3)
    train(config('cells=200'), samples, tmp_path / 'some')
    some = losses_of(tmp_path / 'some')
    assert list(some.values()) != pytest.approx(list(volume.values()), rel=1e-3)
    assert list(some.values()) == pytest.approx(list(volume.values()), rel=0.5)


def test_validation_keeps_the_best(tmp_path, samples, monkeypatch):
    scores = iter([0.3, 0.5, 0.4])
    monkeypatch.setattr(training.VoxelTask, 'score', lambda *_: (next(scores), {'rgb': {}}))
    run = train(config('validate_every=2'), samples, tmp_path, samples)
    assert run.best == 0.5
    assert read_network_config(tmp_path)['step'] == 4


def test_loss_is_the_sum_of_cross_entropy_and_dice():
    """Against the formulas, written out in numpy for one volume."""
    logits = torch.tensor([[[[0.5, -1.0], [2.0, 0.0]]]])
    truth = torch.tensor([[[[1.0, 0.0], [1.0, 1.0]]]])
    p = 1 / (1 + np.exp(-logits.numpy().ravel().astype(float)))
    t = truth.numpy().ravel()
    entropy = -(2.5 * t * np.log(p) + (1 - t) * np.log(1 - p)).mean()
    dice = 1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)
    options = TrainingOptions(bce=3.0, dice=0.7, full_cells=2.5)
    assert float(occupancy_loss(logits, truth, options)) == pytest.approx(
        3.0 * entropy + 0.7 * dice, rel=1e-5)


def test_learning_rate_rises_then_falls_to_zero():
    options = TrainingOptions(steps=1000, learning_rate=0.01, warm_up=0.1)
    rates = [options.rate(step, step / 1000) for step in range(1001)]
    assert 0 < rates[0] < 0.0002
    assert int(np.argmax(rates)) in (99, 100) and max(rates) == pytest.approx(0.01, rel=0.02)
    assert (np.diff(rates[:100]) > 0).all() and (np.diff(rates[101:]) < 0).all()
    assert rates[550] == pytest.approx(0.005, rel=0.01)  # half way down
    assert rates[1000] == pytest.approx(0.0, abs=1e-9)


TWO_PROCESSES = '''
import json, os, sys
import torch
from pathlib import Path
sys.path.insert(0, {tests!r})
torch.set_num_threads(1)
from solids import SIZE
from solids import solid_sample
from img2scene_ros.learning.dataset import TrainingExamples
from img2scene_ros.learning.loop import carry_out
from img2scene_ros.learning.training import VoxelTask
from img2scene_ros.learning.training_config import read_config

positions, look_up = [], TrainingExamples.__getitem__
def remember(self, position):
    positions.append(position)
    return look_up(self, position)
TrainingExamples.__getitem__ = remember

out = Path(sys.argv[1])
samples = [solid_sample(number) for number in range(16)]
run = carry_out(VoxelTask(read_config(None, sys.argv[2:]), samples, samples), out / 'run')
rank = os.environ['RANK']
torch.save(dict(run.network.named_parameters()), out / f'weights_{{rank}}.pt')
(out / f'positions_{{rank}}.json').write_text(json.dumps(positions))
'''


def test_two_processes_share_every_batch_and_end_with_equal_weights(tmp_path, samples):
    script = tmp_path / 'both.py'
    script.write_text(TWO_PROCESSES.format(tests=str(Path(__file__).parent)))
    result = subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2',
         str(script), str(tmp_path), *QUICK],
        capture_output=True, text=True, timeout=240, cwd=ROOT)
    assert result.returncode == 0, result.stderr[-3000:]
    seen = [json.loads((tmp_path / f'positions_{rank}.json').read_text()) for rank in range(2)]
    assert seen[0] == list(range(0, 24, 2)) and seen[1] == list(range(1, 24, 2))
    weights = [torch.load(tmp_path / f'weights_{rank}.pt') for rank in range(2)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    # The same batch as one process has. Only batch norm tells them apart: it sees half of it.
    alone = train(config('steps=1'), samples, tmp_path / 'alone')
    assert alone.step == 1
    assert losses_of(tmp_path / 'run')[1] == pytest.approx(
        losses_of(tmp_path / 'alone')[1], rel=0.1)
    assert load_network(tmp_path / 'run')


def test_batch_that_cannot_be_shared_is_one_sentence(samples):
    processes = loop.Processes(0, 3, torch.device('cpu'))
    with pytest.raises(OptionError, match="'batch' is 4; 3 processes"):
        loop.start(training.VoxelTask(config(), samples, None), processes)


def test_run_of_other_options_or_data_is_not_resumed(tmp_path, samples):
    train(config(), samples, tmp_path, minutes=0)
    with pytest.raises(InputError, match='holds a training already'):
        train(config(), samples, tmp_path)
    for settings, word in ((('learning_rate=0.1',), 'learning_rate was 0.002 and is 0.1'),
                           (('model.width=16',), 'model.width'),
                           (('augmentation.flip=0',), 'augmentation.flip'),
                           (('network=resnet18-unproject',), 'no option')):
        with pytest.raises(Img2SceneError, match=word):
            train(config(*settings), samples, tmp_path, resume=True)
    with pytest.raises(InputError, match='number of samples was 16 and is 9'):
        train(config(), samples[:9], tmp_path, resume=True)
    with pytest.raises(InputError, match='no training to resume'):
        train(config(), samples, tmp_path / 'nothing', resume=True)
    assert train(config('log_every=2', 'workers=0'), samples, tmp_path, resume=True).step == 6


@pytest.mark.parametrize('content', (b'', b'nothing', None))
def test_broken_state_is_one_sentence(tmp_path, samples, content):
    path = tmp_path / 'state.pt'
    if content is None:
        torch.save({'step': 3}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(InputError, match='no state of a training') as caught:
        train(config(), samples, tmp_path, resume=True)
    assert '\n' not in str(caught.value)


def test_state_of_another_version_is_one_sentence(tmp_path, samples):
    train(config(), samples, tmp_path, minutes=0)
    state = torch.load(tmp_path / 'state.pt', weights_only=True)
    state['run']['optimizer']['param_groups'].pop()
    torch.save(state, tmp_path / 'state.pt')
    with pytest.raises(InputError, match='another version'):
        train(config(), samples, tmp_path, resume=True)


def test_loss_that_is_not_a_number_ends_the_run_and_spoils_no_state(
        tmp_path, samples, monkeypatch):
    train(config(), samples, tmp_path, minutes=0)
    good = (tmp_path / 'state.pt').read_bytes()
    monkeypatch.setattr(training, 'occupancy_loss', lambda logits, *_: logits.sum() * np.nan)
    with pytest.raises(TrainingError, match='not a number any more at step 2'):
        train(config(), samples, tmp_path, resume=True)
    assert (tmp_path / 'state.pt').read_bytes() == good


def test_full_disk_leaves_the_state_before(tmp_path, samples, monkeypatch):
    train(config(), samples, tmp_path, minutes=0)
    good = (tmp_path / 'state.pt').read_bytes()

    def write_half(state, file):
        file.write(b'half')
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(torch, 'save', write_half)
    with pytest.raises(InputError, match='No space left on device'):
        train(config(), samples, tmp_path, resume=True)
    assert (tmp_path / 'state.pt').read_bytes() == good
    assert not list(tmp_path.glob('.*'))


def test_curves_are_written_for_tensorboard(tmp_path):
    """Read by TensorBoard itself; a resumed run's curves replace those of steps that were lost."""
    reader = pytest.importorskip('tensorboard.backend.event_processing.event_accumulator')
    for first, losses in ((0, (0.5, 0.4, 0.3)), (2, (0.2,))):
        with open_log(tmp_path, first, True) as log:
            for step, loss in enumerate(losses, first + 1):
                log(step, {'loss': loss, 'rgb': {'iou': 0.1}})
        sleep(1.0)  # files are read in the order of their names, which count seconds
    events = reader.EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, pytest.approx(event.value)) for event in events.Scalars('loss')] == [
        (1, 0.5), (2, 0.4), (3, 0.2)]
    assert len(events.Scalars('rgb/iou')) == 3


@pytest.mark.parametrize('name', sorted(
    path for path in (ROOT / 'config/train').glob('*.yaml') if path.stem != 'detector'))
def test_configs_are_valid(name):
    chosen = read_config(name)
    assert chosen.training.network.replace('-', '_') == name.stem


def test_config_of_the_compact_network_tells_the_defaults():
    """The other configs and the command line's help say so."""
    told = read_config(ROOT / 'config/train/frustum_unet.yaml')
    assert told.values() == read_config(None).values()


@pytest.mark.parametrize('settings, words', [
    (('lerning_rate=1',), ['lerning_rate']),
    (('learning_rate',), ['NAME=VALUE']),
    (('learning_rate=fast',), ['learning_rate', 'a number']),
    (('model.widht=3',), ['model.widht']),
    (('network=pix2vox',), ['pix2vox', 'resfest']),
    (('resolution=48',), ['resolution', '64']),
    (('size=50',), ['size', 'multiple of 16']),
    (('augmentation.flip=2',), ['flip', 'at most 1']),
])
def test_wrong_setting_is_one_sentence(settings, words):
    with pytest.raises(OptionError) as caught:
        read_config(None, settings)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize('settings, words', [
    (('precision=fp16',), ['fp16', 'GPU']),
    (('backbone_weights=a.pth',), ['no ResNet']),
])
def test_options_that_do_not_go_together_are_one_sentence(tmp_path, samples, settings, words):
    with pytest.raises(OptionError) as caught:
        train(config(*settings), samples, tmp_path)
    for word in words:
        assert word in str(caught.value)


def test_settings_go_before_the_file(tmp_path):
    path = tmp_path / 'mine.yaml'
    path.write_text('learning_rate: 1e-3\nbatch: 8\nmodel: {width: 16}\n'
                    'augmentation: {flip: 0.25}\nchannels_last: true\n')
    chosen = read_config(path, ['batch=12', 'channels_last=false', 'augmentation.drop_mask=0.5'])
    assert chosen.training.learning_rate == 0.001
    assert (chosen.training.batch, chosen.training.channels_last) == (12, False)
    assert (chosen.model.width, chosen.model.slices) == (16, 48)
    assert (chosen.augmentation.flip, chosen.augmentation.drop_mask) == (0.25, 0.5)


@pytest.fixture(scope='module')
def shards(tmp_path_factory, samples) -> Path:
    return write_set(tmp_path_factory.mktemp('shards'), [encode_crop(one) for one in samples],
                     size=SIZE, **SPLIT)


def test_several_data_sets_are_one(tmp_path, shards, samples, capsys):
    larger = write_set(tmp_path / 'larger', [
        encode_crop(replace(sample, crop=resized(sample.crop, 64)))
        for sample in samples[:4]], size=64, **SPLIT)
    arguments = ['train', '--data', str(shards), str(larger), '--out', str(tmp_path / 'run'),
                 *settings_of(QUICK)]
    assert main(arguments) == 2
    message = capsys.readouterr().err
    assert f'{SIZE} and 64 pixels' in message and "option 'size'" in message
    assert main([*arguments, '--set', 'size=32']) == 0
    assert read_network_config(tmp_path / 'run')['samples'] == 20


def test_command_line_trains_and_resumes(tmp_path, shards, capsys):
    arguments = ['train', '--data', str(shards), '--validation', str(shards),
                 '--out', str(tmp_path / 'run'), *settings_of(QUICK)]
    assert_command_trains_and_resumes(
        arguments, '1 of 6 steps', '6 of 6 steps, mean IoU 0.', capsys)
    about = read_network_config(tmp_path / 'run')
    assert about['split'] == SPLIT, 'which shapes are new to it'
    assert about['picture_size'] == SIZE
    assert load_network(tmp_path / 'run')


def test_command_line_under_torchrun_tells_the_result_once(tmp_path, shards):
    result = subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2',
         '-m', 'img2scene_ros.cli', 'train', '--data', str(shards), '--validation', str(shards),
         '--out', str(tmp_path / 'run'), *settings_of(QUICK)],
        capture_output=True, text=True, timeout=240, cwd=ROOT)
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.count('written') == 1, result.stdout
    assert '6 of 6 steps, mean IoU 0.' in result.stdout


@pytest.mark.parametrize('arguments, code, word', [
    (['--data', 'nowhere'], 1, 'nowhere'),
    (['--data', 'nowhere', '--config', 'none.yaml'], 1, 'none.yaml'),
    (['--data', 'nowhere', '--set', 'x=1'], 2, "'x'"),
])
def test_wrong_usage_is_one_sentence(tmp_path, capsys, arguments, code, word):
    assert main(['train', '--out', str(tmp_path / 'run'), *arguments]) == code
    error = capsys.readouterr().err
    assert error.count('\n') == 1 and word in error
    assert not (tmp_path / 'run').exists()
