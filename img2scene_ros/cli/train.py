# SPDX-License-Identifier: Apache-2.0
"""img2scene train: a voxel network on rendered crops."""

import argparse
import os
from pathlib import Path
from typing import Any

from img2scene_ros.packages import require_packages


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        'train', help='train a voxel network on rendered crops',
        description='Train a voxel network on rendered crops. OUT gets the best weights '
        '(model.safetensors, config.json), a log and what it takes to resume. Several GPUs: '
        'torchrun --nproc-per-node N -m img2scene_ros.cli train ...')
    add_training_arguments(
        parser, 'crops', 'img2scene render', 'those of the compact network, see config/train')
    parser.add_argument(
        '--minutes', type=float, metavar='M', help='end after so long, ready to be resumed')
    parser.set_defaults(run=_run)


def _run(chosen: argparse.Namespace) -> int:
    require_packages('img2scene train', ('torch', 'safetensors'), 'train elsewhere', extra='train')
    from img2scene_ros.learning.loop import carry_out
    from img2scene_ros.learning.samples import CropSamples
    from img2scene_ros.learning.training import VoxelTask
    from img2scene_ros.learning.training_config import read_config

    config = read_config(chosen.config, chosen.settings)
    samples = CropSamples(*chosen.data).read()
    validation = CropSamples(chosen.validation).read() if chosen.validation else None
    run = carry_out(VoxelTask(config, samples, validation), chosen.out, chosen.resume,
                    chosen.minutes)
    if os.environ.get('RANK', '0') != '0':  # torchrun's first process tells it for all
        return 0
    score = f', mean IoU {run.best:.3f}' if validation else ''
    print(f'written: {chosen.out}/model.safetensors, config.json, log.jsonl '
          f'({run.step} of {config.training.steps} steps{score})')
    return 0


def add_training_arguments(
    parser: argparse.ArgumentParser, samples: str, made_by: str, default: str,
) -> None:
    """Add what all trainings take; `samples` of `made_by` are what they learn from."""
    parser.add_argument(
        '--config', type=Path, metavar='FILE.yaml', help=f'options (default: {default})')
    parser.add_argument(
        '--data', type=Path, required=True, nargs='+', metavar='DIR',
        help=f'{samples} of `{made_by}`')
    parser.add_argument(
        '--validation', type=Path, metavar='DIR',
        help=f'{samples} of other shapes (--split test); without, the newest weights are saved, '
        'not the best')
    add_run_arguments(parser)


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what starts a run and goes on with it."""
    parser.add_argument(
        '--set', action='append', default=[], metavar='NAME=VALUE', dest='settings',
        help='set an option of the training, sections with a dot: model.width=64 (may be '
        'repeated)')
    parser.add_argument(
        '--out', type=Path, required=True, metavar='DIR', help='folder of the run')
    parser.add_argument(
        '--resume', action='store_true', help='go on with the run in OUT, with the same options')
