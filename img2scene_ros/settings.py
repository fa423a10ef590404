"""
Settings: options by the dotted names that the command line and ROS parameters share.

`detector` is an option of the pipeline, `tabletop.min_height` one of the backend `tabletop`.
"""

from collections.abc import Sequence
from dataclasses import Field
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from img2scene_ros.errors import InputError
from img2scene_ros.errors import OptionError
from img2scene_ros.options import Options
from img2scene_ros.pipeline import PipelineOptions
from img2scene_ros.registry import backends

GROUPS = ('detectors', 'distances', 'reconstructors')
TRUTH = {'true': True, 'false': False}
KINDS = {bool: 'true or false', int: 'integer', float: 'number', str: 'text', tuple: 'list'}


def read_options(settings: dict[str, Any]) -> tuple[PipelineOptions, dict[str, Options]]:
    """
    Build the options of the pipeline and of all its backends, by the backend's name.

    :param settings: values by dotted name; text is read as the option's type
    :raises OptionError: an unknown name or a value that is not allowed
    """
    known = declared_options()
    for name in settings:
        if name not in known:
            close = get_close_matches(name, known, 1)
            hint = f"; did you mean '{close[0]}'?" if close else ''
            raise OptionError(
                f"there is no option '{name}'{hint} "
                '(`img2scene reconstruct --help-options` lists them)')
    pipeline = _build(PipelineOptions, '', settings)
    return pipeline, {
        name: _build(options, f'{name}.', settings) for name, options in _backends().items()}


def read_assignments(assignments: Sequence[str]) -> dict[str, str]:
    """
    Split NAME=VALUE texts.

    :raises OptionError: a text without =
    """
    settings = {}
    for text in assignments:
        name, equals, value = text.partition('=')
        if not equals:
            raise OptionError(f"'{text}' sets nothing; write NAME=VALUE")
        settings[name.strip()] = value.strip()
    return settings


def read_parameter_file(path: Path) -> dict[str, Any]:
    """
    Read the options in a ROS parameter file; parameters of the node alone are skipped.

    :return: values by dotted name
    :raises InputError: it cannot be read or is no parameter file
    """
    try:
        nodes = yaml.safe_load(Path(path).read_text())
    except OSError as error:
        raise InputError(f"cannot read the parameter file '{path}': {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"the parameter file '{path}' is not YAML: "
                         f"{' '.join(str(error).split())}") from error
    sections = [
        node['ros__parameters'] for node in (nodes.values() if isinstance(nodes, dict) else ())
        if isinstance(node, dict) and isinstance(node.get('ros__parameters'), dict)]
    if not sections:
        raise InputError(
            f"'{path}' is no ROS parameter file; it must hold NODE: ros__parameters: NAME: VALUE")
    known, folders = declared_options(), tuple(f'{name}.' for name in _backends())
    return {
        name: value for section in sections for name, value in _flattened(section).items()
        if name in known or name.startswith(folders)}


def declared_options() -> dict[str, Field]:
    """Return the declaration of every option by its dotted name."""
    declared = {field.name: field for field in fields(PipelineOptions)}
    for name, options in _backends().items():
        declared |= {f'{name}.{field.name}': field for field in fields(options)}
    return declared


def describe_options() -> str:
    """Return a text that lists every option with its default, limits and description."""
    paragraphs = []
    for name, field in declared_options().items():
        rules = field.metadata
        limits = [f'{word} {rules[key]}' for word, key in (('from', 'low'), ('to', 'high'))
                  if rules[key] is not None]
        limits += [' | '.join(rules['choices'])] if rules['choices'] else []
        kind = f'{KINDS[type(field.default)]} {" ".join(limits)}'.strip()
        paragraphs.append(
            f"{name} = {_text(field.default)}  [{kind}]\n    {rules['description']}")
    return '\n'.join(paragraphs)


def _backends() -> dict[str, type[Options]]:
    return {
        name: backend.Options for group in GROUPS for name, backend in backends(group).items()}


def _build(options: type[Options], prefix: str, settings: dict[str, Any]) -> Options:
    values = {
        field.name: _typed(field, settings[prefix + field.name])
        for field in fields(options) if prefix + field.name in settings}
    try:
        return options(**values)
    except OptionError as error:
        raise OptionError(str(error).replace("option '", f"option '{prefix}", 1)) from error


def _typed(field: Field, value: Any) -> Any:
    """Read text as the option's type; what cannot be read is left for the option to refuse."""
    kind = type(field.default)
    if not isinstance(value, str) or kind is str:
        return value
    if kind is bool:
        return TRUTH.get(value.lower(), value)
    if kind is tuple:
        return tuple(part.strip() for part in value.strip('[]').split(',') if part.strip())
    try:
        return kind(value)
    except ValueError:
        return value


def _flattened(section: dict[str, Any], prefix: str = '') -> dict[str, Any]:
    flat = {}
    for name, value in section.items():
        if isinstance(value, dict):
            flat |= _flattened(value, f'{prefix}{name}.')
        else:
            flat[f'{prefix}{name}'] = value
    return flat


def _text(value: Any) -> str:
    return f"[{', '.join(value)}]" if isinstance(value, tuple) else str(value)
