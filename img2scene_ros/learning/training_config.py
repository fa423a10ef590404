# SPDX-License-Identifier: Apache-2.0
"""The options of a training, from a YAML file and NAME=VALUE texts."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import fields
from math import cos
from math import pi
from pathlib import Path
from typing import Any

from img2scene_ros.errors import InputError
from img2scene_ros.errors import OptionError
from img2scene_ros.learning.augmentation import AugmentationOptions
from img2scene_ros.models.networks import NETWORKS
from img2scene_ros.models.networks import network_class
from img2scene_ros.options import Options
from img2scene_ros.options import flattened
from img2scene_ros.options import option
from img2scene_ros.options import read_yaml
from img2scene_ros.options import split_assignment
from img2scene_ros.options import typed


@dataclass(frozen=True)
class RunOptions(Options):
    """What all trainings have; some change the defaults."""

    start_from: str = option(
        '', "Folder of a trained network to start from, of the same shape or with fewer blocks, "
        "'bundled' is the one that the package holds; empty is none")
    steps: int = option(
        20000, 'Number of steps of the whole training, unless its time is given', low=1)
    batch: int = option(32, 'Examples per step, of all processes together', low=1)
    learning_rate: float = option(0.002, 'Greatest learning rate', low=0.0)
    weight_decay: float = option(
        0.03, 'Weight decay (muon, adamw) or L2 penalty (adam), not of biases and norms', low=0.0)
    clip: float = option(5.0, 'Greatest norm of the gradient; 0 is no limit', low=0.0)
    average: float = option(
        0.999, 'Decay per step of the moving average of the weights, which is what gets saved',
        low=0.0, high=0.99999)
    precision: str = option(
        'auto', 'Arithmetic: auto is bf16 or fp16 on a GPU and fp32 on a CPU',
        choices=('auto', 'fp32', 'bf16', 'fp16'))
    workers: int = option(0, 'Processes that prepare examples, per training process', low=0)
    seed: int = option(0, 'Seed of the weights, the order and the augmentation', low=0)
    log_every: int = option(50, 'Steps between two lines of the log', low=1)
    save_every: int = option(500, 'Steps between two states to resume from', low=1)
    validate_every: int = option(1000, 'Steps between two validations', low=1)
    validation_samples: int = option(512, 'Samples of a validation', low=1)

    def rate(self, step: int, done: float) -> float:
        """
        Return the learning rate of a step: a linear warm-up, then a cosine down to 0.

        :param done: share of the training that is done before it, 0 to 1
        """
        raise NotImplementedError


def warmed_cosine(risen: float, done: float, hold: float) -> float:
    """
    Return which share of the greatest learning rate is due, 0 to 1.

    :param risen: share of the warm-up that is done; 1 or more after it
    :param done: share of the training
    :param hold: share of the training after which it falls
    """
    fall = max(0.0, done - hold) / max(1e-9, 1.0 - hold)
    return min(1.0, risen) * 0.5 * (1.0 + cos(pi * min(fall, 1.0)))


@dataclass(frozen=True)
class TrainingOptions(RunOptions):
    """How a voxel network is trained."""

    network: str = option('frustum-unet', 'Which network', choices=tuple(NETWORKS))
    backbone_weights: str = option(
        '', "A file of a ResNet's weights to start from, with torchvision's names; empty is none")
    size: int = option(
        0, "Pixels of a side that crops are scaled to, a multiple of 16; 0 is the data's",
        low=0, high=512)
    resolution: int = option(
        32, 'Cells along a side of the volumes that are learned, a divisor of 64', low=8, high=64)
    cells: int = option(
        0, 'Random cells of a volume that a step looks at, which saves networks that ask point '
        'by point most of their time; 0 is all', low=0)
    optimizer: str = option(
        'muon', 'What changes the weights', choices=('muon', 'adamw', 'adam'))
    warm_up: float = option(
        0.05, 'Share of the steps in which the learning rate rises; then it falls as a cosine',
        low=0.0, high=1.0)
    bce: float = option(10.0, 'Weight of the binary cross-entropy in the loss', low=0.0)
    full_cells: float = option(
        1.0, 'Class balance: weight of full cells against empty ones in the cross-entropy',
        low=0.01)
    dice: float = option(1.0, 'Weight of the soft Dice loss', low=0.0)
    channels_last: bool = option(True, 'Memory order that is faster on most machines')

    def rate(self, step: int, done: float) -> float:
        """As `RunOptions`; the warm-up is a share of the training, at least a step."""
        rise = max(1.0, self.warm_up * self.steps)
        return self.learning_rate * warmed_cosine(
            (done * self.steps + 1.0) / (rise + 1.0), done, rise / self.steps)


@dataclass(frozen=True)
class TrainingConfig:
    """All options of a training."""

    training: Any  # how; the `RunOptions` of its kind
    model: Any  # the network's shape
    augmentation: Any = None  # how examples are changed; None where nothing can be set

    def values(self) -> dict[str, Any]:
        """Return all options by their dotted names, those of `training` without a dot."""
        sections = {'model.': self.model, 'augmentation.': self.augmentation}
        return {**asdict(self.training), **{
            f'{prefix}{name}': value for prefix, section in sections.items() if section
            for name, value in asdict(section).items()}}


def read_config(path: Path | None, assignments: Sequence[str] = ()) -> TrainingConfig:
    """Read the options of a voxel network's training; all else as `read_sections`."""
    config = read_sections(
        path, assignments, TrainingOptions,
        lambda training: network_class(training.network).Config, AugmentationOptions)
    resolution, size = config.training.resolution, config.training.size
    if 64 % resolution:
        raise OptionError(f"option 'resolution' is {resolution}; it must divide 64")
    if size % 16:
        raise OptionError(f"option 'size' is {size}; it must be a multiple of 16")
    return config


def read_sections(
    path: Path | None, assignments: Sequence[str], training: type[RunOptions],
    model_of: Callable[[Any], type[Options]], augmentation: type[Options] | None = None,
    defaults: Mapping[str, Any] = {},
) -> TrainingConfig:
    """
    Read the options of a training.

    :param path: YAML: NAME: VALUE, with sections `model` and `augmentation`; None is all defaults
    :param assignments: NAME=VALUE or SECTION.NAME=VALUE; they go before the file
    :param training, augmentation: classes of these options
    :param model_of: takes the options of the training to the class of the network's
    :param defaults: where they differ from those of the classes, by dotted names
    :raises InputError: the file cannot be read
    :raises OptionError: an unknown name or a value that is not allowed
    """
    given = dict(defaults)
    if path:
        values = read_yaml(path, 'config')
        if not isinstance(values, dict):
            raise InputError(f"the config '{path}' must hold NAME: VALUE lines")
        given |= flattened(values)
    for text in assignments:
        name, given[name] = split_assignment(text)
    chosen = _taken(training, given, '')
    config = TrainingConfig(
        chosen, _taken(model_of(chosen), given, 'model.'),
        _taken(augmentation, given, 'augmentation.') if augmentation else None)
    if given:
        raise OptionError(f"there is no option '{next(iter(given))}' of this training")
    return config


def _taken(kind: type[Options], given: dict[str, Any], prefix: str) -> Options:
    """Take the options of one class out of what is given."""
    chosen = {}
    for field in fields(kind):
        if prefix + field.name in given:
            value = given.pop(prefix + field.name)
            chosen[field.name] = typed(field, value) if isinstance(value, str) else value
    return kind(**chosen)
