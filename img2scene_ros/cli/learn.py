# SPDX-License-Identifier: Apache-2.0
"""img2scene learn: a network on examples that are drawn meanwhile."""

import argparse
from pathlib import Path
from typing import Any

from img2scene_ros.cli.train import add_run_arguments
from img2scene_ros.packages import require_packages


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        'learn', help='train a network on examples that are drawn meanwhile, on a GPU',
        description='Train the shape network or the segmentation network on examples that are '
        'drawn on the same device meanwhile. Needs only torch, numpy, scipy and OpenCV.')
    parser.add_argument('student', choices=('shape', 'segmentation'), help='what to train')
    parser.add_argument('--shapes', type=Path, required=True, metavar='FILE',
                        help='what `img2scene pack-shapes` wrote')
    add_run_arguments(parser)
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda or cuda:N')
    parser.add_argument('--minutes', type=float, metavar='M',
                        help='end after so long, ready to be resumed')
    parser.add_argument(
        '--seconds', type=float, metavar='S',
        help='length of the whole training, which the schedule follows (default: by steps)')
    parser.set_defaults(run=_run)


def _run(chosen: argparse.Namespace) -> int:
    require_packages('img2scene learn', ('torch',), 'train elsewhere', extra='train')
    from img2scene_ros.devices import torch_device
    from img2scene_ros.learning.loop import carry_out
    from img2scene_ros.learning.students import STUDENTS
    from img2scene_ros.learning.students import read_student_options

    settings = list(chosen.settings)
    if chosen.seconds is not None:
        settings.append(f'seconds={chosen.seconds}')
    options, model = read_student_options(chosen.student, settings)
    run = carry_out(STUDENTS[chosen.student](options, model, chosen.shapes), chosen.out,
                    chosen.resume, chosen.minutes, torch_device(chosen.device))
    print(f'written: {chosen.out}/model.safetensors, config.json, table.md, sheet.png '
          f'({run.step} steps, {run.seconds:.0f} s, score {run.best:.3f})')
    return 0
