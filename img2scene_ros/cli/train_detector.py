# SPDX-License-Identifier: Apache-2.0
"""img2scene train-detector: a compact detector on rendered scenes."""

import argparse
from typing import Any

from img2scene_ros.cli.train import add_training_arguments
from img2scene_ros.packages import require_packages


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        'train-detector', help='train a compact detector on rendered scenes',
        description="Train a compact detector of the DETR family on rendered scenes. OUT gets the "
        "best weights as a checkpoint folder of transformers, which the detector 'detr' loads "
        '(--set detr.checkpoint=OUT), a log and what it takes to resume.')
    add_training_arguments(
        parser, 'scenes', 'img2scene render --kind scenes', 'those of config/train/detector.yaml')
    parser.add_argument(
        '--minutes', type=float, metavar='M',
        help='let the whole training last so long, earlier sessions included: learning rate and '
        'picture size follow the clock, not the steps')
    parser.set_defaults(run=_run)


def _run(chosen: argparse.Namespace) -> int:
    require_packages(
        'img2scene train-detector', ('torch', 'transformers', 'safetensors'), 'train elsewhere',
        extra='train')
    from img2scene_ros.devices import torch_device
    from img2scene_ros.learning.detector_config import read_detector_config
    from img2scene_ros.learning.detector_data import open_pictures
    from img2scene_ros.learning.detector_training import DetectorTask
    from img2scene_ros.learning.loop import carry_out

    config = read_detector_config(chosen.config, chosen.settings)
    pictures, labels = open_pictures(*chosen.data)
    validation = open_pictures(chosen.validation)[0] if chosen.validation else None
    run = carry_out(DetectorTask(config, pictures, labels, validation, chosen.minutes),
                    chosen.out, chosen.resume, device=torch_device('auto'))
    score = f', AP50 {run.best:.3f}' if validation else ''
    print(f'written: {chosen.out}/model.safetensors, config.json, preprocessor_config.json, '
          f'log.jsonl ({run.step} steps, {run.seconds / 60:.0f} minutes{score})')
    return 0
