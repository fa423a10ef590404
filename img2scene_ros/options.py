# SPDX-License-Identifier: Apache-2.0
"""
Options: declared once, here read by the command line, the nodes and the documentation.

A backend declares its options as a frozen dataclass deriving from `Options`, one `option(...)`
per field. The node turns each field into a ROS parameter `<backend>.<field>` with the same
description and range; the command line takes the same names.
"""

from collections.abc import Sequence
from dataclasses import Field
from dataclasses import dataclass
from dataclasses import field
from dataclasses import fields
from math import isfinite
from pathlib import Path
from typing import Any
from typing import Protocol

from img2scene_ros.errors import InputError
from img2scene_ros.errors import OptionError
from img2scene_ros.packages import importing


def option(
    default: Any,
    description: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    group: str = '',
    read_only: bool = False,
) -> Any:
    """
    Declare one option of an `Options` dataclass.

    :param default: bool, int, float, str, tuple of str, or tuple of as many floats as there are;
        its type is the option's type
    :param description: one sentence with the unit
    :param low: least allowed number
    :param high: greatest allowed number
    :param choices: the allowed strings; empty means any
    :param group: the backends that it names, as a key of `registry.FOLDERS`; '' if it names none
    :param read_only: cannot be changed while running (it would mean loading a model again)
    """
    return field(default=default, metadata={
        'description': description, 'low': low, 'high': high,
        'choices': choices, 'group': group, 'read_only': read_only,
    })


@dataclass(frozen=True)
class Options:
    """
    Base of all option classes; checks every value when it is made.

    :raises OptionError: a value of the wrong type, out of its range or not among its choices
    """

    def __post_init__(self) -> None:
        for declared in fields(self):
            value = _checked(declared, getattr(self, declared.name))
            object.__setattr__(self, declared.name, value)


class Configurable(Protocol):
    """Has options, which may be replaced while it runs, except the read-only ones."""

    Options: type[Any]
    options: Any


TRUTH = {'true': True, 'false': False}
_KINDS = {
    bool: 'true or false', int: 'a whole number', float: 'a number', str: 'a text',
    tuple: 'a list of texts',
}


def is_numbers(default: Any) -> bool:
    """Tell whether an option of this default takes a list of numbers."""
    return isinstance(default, tuple) and bool(default) and type(default[0]) is float


def split_assignment(text: str) -> tuple[str, str]:
    """
    Return name and value of NAME=VALUE.

    :raises OptionError: a text without =
    """
    name, equals, value = (part.strip() for part in text.partition('='))
    if not equals:
        raise OptionError(f"'{text}' sets nothing; write NAME=VALUE")
    return name, value


def typed(declared: Field[Any], text: str) -> Any:
    """Read a text as the type of its option; what cannot be read is left for it to refuse."""
    kind: type[Any] = type(declared.default)
    if kind is bool:
        return TRUTH.get(text.lower(), text)
    try:
        if kind is tuple:
            item = float if is_numbers(declared.default) else str
            return tuple(item(part.strip()) for part in text.strip('[]').split(',')
                         if part.strip())
        return kind(text)
    except ValueError:
        return text


def read_yaml(path: Path, what: str) -> Any:
    """
    Read a file of options.

    :param what: names it in errors
    :raises InputError: it cannot be read
    """
    with importing(f'the {what}', 'PyYAML', 'set its options with NAME=VALUE'):
        import yaml
    try:
        return yaml.safe_load(Path(path).read_text())
    except OSError as error:
        raise InputError(f"cannot read the {what} '{path}': {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(
            f"the {what} '{path}' is not YAML: {' '.join(str(error).split())}") from error


def flattened(section: dict[str, Any], prefix: str = '') -> dict[str, Any]:
    """Return the values of nested sections by dotted names."""
    flat: dict[str, Any] = {}
    for name, value in section.items():
        if isinstance(value, dict):
            flat |= flattened(value, f'{prefix}{name}.')
        else:
            flat[f'{prefix}{name}'] = value
    return flat


def _checked(declared: Field[Any], value: Any) -> Any:
    kind: type[Any] = type(declared.default)
    if is_numbers(declared.default):
        return _numbers(declared, value)
    if kind is float and type(value) is int:
        value = float(value)
    if kind is tuple and isinstance(value, list):
        value = tuple(value)
    if (type(value) is not kind
            or kind is float and not isfinite(value)
            or kind is tuple and not all(type(item) is str for item in value)):
        raise OptionError(f"option '{declared.name}' takes {_KINDS[kind]}, not {value!r}")
    low, high = declared.metadata['low'], declared.metadata['high']
    choices = declared.metadata['choices']
    if low is not None and not value >= low:
        raise OptionError(f"option '{declared.name}' is {value}; it must be at least {low}")
    if high is not None and not value <= high:
        raise OptionError(f"option '{declared.name}' is {value}; it must be at most {high}")
    if choices and value not in choices:
        raise OptionError(
            f"option '{declared.name}' is '{value}'; it must be one of {', '.join(choices)}")
    return value


def _numbers(declared: Field[Any], value: Any) -> tuple[float, ...]:
    default: Any = declared.default
    count = len(default)
    if (isinstance(value, str) or not isinstance(value, Sequence) or len(value) != count
            or not all(isinstance(item, (int, float)) and type(item) is not bool
                       and isfinite(item) for item in value)):
        raise OptionError(f"option '{declared.name}' takes {count} numbers, not {value!r}")
    return tuple(float(item) for item in value)
