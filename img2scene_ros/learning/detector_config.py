# SPDX-License-Identifier: Apache-2.0
"""The options of a detector's training, from a YAML file and NAME=VALUE texts."""

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path
from typing import Any

from img2scene_ros.errors import OptionError
from img2scene_ros.learning.training_config import dotted_values
from img2scene_ros.learning.training_config import given_values
from img2scene_ros.learning.training_config import take_options
from img2scene_ros.options import Options
from img2scene_ros.options import option

STRIDE = 32  # the picture's sides are multiples of it


@dataclass(frozen=True)
class DetectorModelOptions(Options):
    """The shape of the network, an RT-DETRv2 (Lv et al., 2024)."""

    stem: int = option(24, 'Channels of the stem and of the first stage', low=8)
    stage_2: int = option(64, 'Channels at an eighth of the resolution', low=8)
    stage_3: int = option(128, 'Channels at a sixteenth', low=8)
    stage_4: int = option(256, 'Channels at a thirty-second', low=8)
    layers: int = option(2, 'Residual blocks of the stages 2 and 3', low=1)
    width: int = option(96, 'Channels of encoder and decoder, a multiple of 32', low=32)
    decoder_layers: int = option(3, 'Layers of the decoder', low=2)
    queries: int = option(32, 'Most objects that are found in a picture', low=8)
    denoising: int = option(
        12, 'Noisy copies of true boxes that the decoder learns to mend, per picture', low=0)


@dataclass(frozen=True)
class DetectorAugmentationOptions(Options):
    """How strongly pictures are changed."""

    flip: float = option(0.5, 'Share of pictures that are mirrored', low=0.0, high=1.0)
    zoom_in: float = option(
        2.0, 'Greatest factor by which pictures are scaled up', low=1.0, high=4.0)
    zoom_out: float = option(
        1.3, 'Greatest factor by which they are scaled down', low=1.0, high=4.0)
    stretch: float = option(
        1.25, 'Greatest factor by which they get wider or narrower', low=1.0, high=2.0)
    tiles: float = option(
        0.6, 'Share of pictures that are put together of close-ups, but for the last size',
        low=0.0, high=1.0)
    photometric: float = option(
        1.0, 'Strength of changes of light, contrast, colour, sharpness and noise', low=0.0,
        high=3.0)
    jpeg: float = option(0.3, 'Share of pictures that are compressed', low=0.0, high=1.0)


@dataclass(frozen=True)
class DetectorTrainingOptions(Options):
    """How a detector is trained."""

    start_from: str = option(
        '', "Folder of a trained detector of the same shape and classes to start from, 'bundled' "
        'is the one that the package holds; empty is none')
    steps: int = option(
        40000, 'Number of steps of the whole training, unless its time is given', low=1)
    batch: int = option(16, 'Pictures per step', low=1)
    sizes: str = option(
        '192x160:0.3 256x192:0.5 320x256:0.2',
        'WIDTHxHEIGHT:SHARE of the training, one after another; the last is the size that the '
        'detector works with')
    learning_rate: float = option(0.0007, 'Greatest learning rate', low=0.0)
    weight_decay: float = option(0.0001, 'Weight decay, not of biases and norms', low=0.0)
    warm_up: int = option(200, 'Steps in which the learning rate rises', low=0)
    hold: float = option(
        0.45, 'Share of the training after which it falls to 0, as a cosine', low=0.0, high=1.0)
    clip: float = option(1.0, 'Greatest norm of the gradient; 0 is no limit', low=0.0)
    average: float = option(
        0.999, 'Decay per step of the moving average of the weights, which is what gets saved',
        low=0.0, high=0.99999)
    dense: float = option(
        1.0, "Weight of the one-to-many loss of the encoder's proposals", low=0.0)
    candidates: int = option(8, 'Proposals that learn one object in it', low=1)
    least_shown: float = option(
        0.2, 'Objects of whose box less is visible are ignored', low=0.0, high=1.0)
    precision: str = option(
        'auto', 'Arithmetic: auto is bf16 on a GPU and fp32 on a CPU',
        choices=('auto', 'fp32', 'bf16'))
    workers: int = option(0, 'Processes that prepare pictures', low=0)
    seed: int = option(0, 'Seed of the weights, the order and the augmentation', low=0)
    log_every: int = option(50, 'Steps between two lines of the log', low=1)
    save_every: int = option(500, 'Steps between two states to resume from', low=1)
    validate_every: int = option(1000, 'Steps between two validations', low=1)
    validation_samples: int = option(250, 'Pictures of a validation', low=1)


@dataclass(frozen=True)
class TrainingStage:
    """
    A part of the training with pictures of one size.

    - width, height: pixels
    - end: share of the training that is over when it ends
    """

    width: int
    height: int
    end: float


@dataclass(frozen=True)
class DetectorConfig:
    """
    All options of a training.

    - training: how
    - model: the network's shape
    - augmentation: how pictures are changed
    """

    training: DetectorTrainingOptions
    model: DetectorModelOptions
    augmentation: DetectorAugmentationOptions

    @property
    def stages(self) -> list[TrainingStage]:
        """Return the parts of the training."""
        return read_stages(self.training.sizes)

    def values(self) -> dict[str, Any]:
        """Return all options by their dotted names."""
        return dotted_values(self)


def read_detector_config(path: Path | None, assignments: Sequence[str] = ()) -> DetectorConfig:
    """
    Read the options of a training.

    :param path: YAML: NAME: VALUE, with sections `model` and `augmentation`; None is all defaults
    :param assignments: NAME=VALUE or SECTION.NAME=VALUE; they go before the file
    :raises InputError: the file cannot be read
    :raises OptionError: an unknown name or a value that is not allowed
    """
    given = given_values(path, assignments)
    config = DetectorConfig(
        take_options(DetectorTrainingOptions, given, ''),
        take_options(DetectorModelOptions, given, 'model.'),
        take_options(DetectorAugmentationOptions, given, 'augmentation.'))
    if given:
        raise OptionError(f"there is no option '{next(iter(given))}' of this training")
    read_stages(config.training.sizes)
    if config.model.width % 32:
        raise OptionError(f"option 'model.width' is {config.model.width}; it must be a multiple "
                          'of 32')
    return config


def read_stages(text: str) -> list[TrainingStage]:
    """
    Read the option 'sizes'.

    :raises OptionError: it is not written as it should be
    """
    stages, end = [], 0.0
    try:
        for part in text.split():
            size, share = part.split(':')
            width, height = map(int, size.split('x'))
            end += float(share)
            stages.append(TrainingStage(width, height, end))
    except ValueError as error:
        raise OptionError(f"option 'sizes' is '{text}'; write WIDTHxHEIGHT:SHARE, as in "
                          "'256x192:0.7 320x256:0.3'") from error
    odd = [stage for stage in stages if stage.width % STRIDE or stage.height % STRIDE
           or min(stage.width, stage.height) < STRIDE]
    if odd or not stages:
        raise OptionError(f"option 'sizes' is '{text}'; sides must be multiples of {STRIDE} "
                          'pixels')
    if abs(end - 1) > 1e-6 or any(stage.end > 1 for stage in stages[:-1]):
        raise OptionError(f"option 'sizes' is '{text}'; the shares must add up to 1")
    return [*stages[:-1], replace(stages[-1], end=1.0)]
