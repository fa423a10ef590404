# SPDX-License-Identifier: Apache-2.0
"""The options of a detector's training."""

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path

from img2scene_ros.errors import OptionError
from img2scene_ros.learning.training_config import RunOptions
from img2scene_ros.learning.training_config import TrainingConfig
from img2scene_ros.learning.training_config import read_sections
from img2scene_ros.learning.training_config import warmed_cosine
from img2scene_ros.options import Options
from img2scene_ros.options import option

STRIDE = 32  # the picture's sides are multiples of it
# Where the training differs from `RunOptions`; 'start_from' takes the same shape and classes only.
DEFAULTS = {'steps': 40000, 'batch': 16, 'learning_rate': 0.0007, 'weight_decay': 0.0001,
            'clip': 1.0, 'validation_samples': 250}


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
class DetectorTrainingOptions(RunOptions):
    """How a detector is trained."""

    sizes: str = option(
        '192x160:0.3 256x192:0.5 320x256:0.2',
        'WIDTHxHEIGHT:SHARE of the training, one after another; the last is the size that the '
        'detector works with')
    warm_up: int = option(200, 'Steps in which the learning rate rises', low=0)
    hold: float = option(
        0.45, 'Share of the training after which it falls to 0, as a cosine', low=0.0, high=1.0)
    dense: float = option(
        1.0, "Weight of the one-to-many loss of the encoder's proposals", low=0.0)
    candidates: int = option(8, 'Proposals that learn one object in it', low=1)
    least_shown: float = option(
        0.2, 'Objects of whose box less is visible are ignored', low=0.0, high=1.0)

    @property
    def stages(self) -> list['TrainingStage']:
        """Return the parts of the training."""
        return read_stages(self.sizes)

    def rate(self, step: int, done: float) -> float:
        """As `RunOptions`, with a plain between warm-up and cosine."""
        return self.learning_rate * warmed_cosine(
            (step + 1) / (self.warm_up + 1), done, self.hold)


@dataclass(frozen=True)
class TrainingStage:
    """A part of the training with pictures of one size."""

    width: int  # pixels
    height: int  # pixels
    end: float  # share of the training that is over when it ends


def read_detector_config(path: Path | None, assignments: Sequence[str] = ()) -> TrainingConfig:
    """Read the options of a detector's training; all else as `read_sections`."""
    config = read_sections(
        path, assignments, DetectorTrainingOptions, lambda _: DetectorModelOptions,
        DetectorAugmentationOptions, DEFAULTS)
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
