# SPDX-License-Identifier: Apache-2.0
"""How large things of a class usually are; the numbers are in class_sizes.yaml."""

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any
from typing import NamedTuple

import numpy as np
import yaml

from img2scene_ros.errors import InputError
from img2scene_ros.files import user_path
from img2scene_ros.localization.upright import Belief
from img2scene_ros.options import read_yaml

YAML_LOADER: Any = getattr(yaml, 'CSafeLoader', yaml.SafeLoader)  # that in C, where it is built


class ClassSize(NamedTuple):
    """
    Usual size of a class, and how much it varies.

    - height, width: metres; width is the extent across the line of sight, from any side
    - height_spread, width_spread: standard deviations of their natural logarithms
    """

    height: float
    height_spread: float
    width: float
    width_spread: float

    def size_beliefs(self) -> list[Belief]:
        """Return what this says of width and height."""
        return [Belief((0.0, 1.0, 0.0), np.log(self.width), self.width_spread),
                Belief((0.0, 0.0, 1.0), np.log(self.height), self.height_spread)]

    def proportion_belief(self) -> Belief:
        """Return what this says of the ratio of height and width, and no more."""
        return Belief((0.0, -1.0, 1.0), np.log(self.height / self.width),
                      float(np.hypot(self.height_spread, self.width_spread)))


@cache
def usual_sizes() -> dict[str, ClassSize]:
    """Return the sizes that come with the package, by class name."""
    return _parsed(packaged('class_sizes.yaml'), 'class_sizes.yaml')


def packaged(name: str) -> Any:
    """Return what a YAML file that comes with the package holds."""
    return yaml.load(files('img2scene_ros.localization').joinpath(name).read_text(), YAML_LOADER)


def read_sizes(path: Path) -> dict[str, ClassSize]:
    """
    Read a file like class_sizes.yaml.

    :raises InputError: it cannot be read, or an entry lacks a number or has an impossible one
    """
    return _parsed(read_yaml(user_path(str(path)), 'file of class sizes'), str(path))


def _parsed(entries: Any, name: str) -> dict[str, ClassSize]:
    if not isinstance(entries, dict):
        raise InputError(
            f"the file of class sizes '{name}' must hold lines like "
            'bottle: {height: [0.24, 0.25], width: [0.075, 0.2]}')
    return {str(label): _size(str(label), entry, name) for label, entry in entries.items()}


def _size(label: str, entry: Any, name: str) -> ClassSize:
    try:
        (height, height_spread), (width, width_spread) = entry['height'], entry['width']
        size = ClassSize(
            float(height), float(height_spread), float(width), float(width_spread))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"'{label}' in the file of class sizes '{name}' must be {{height: [metres, spread], "
            f'width: [metres, spread]}}, not {entry}') from error
    if not all(0.0 < value < 1000.0 for value in size):
        raise InputError(
            f"'{label}' in the file of class sizes '{name}' has a size or spread that is not "
            f'positive: {entry}')
    return size
