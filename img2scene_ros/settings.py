# SPDX-License-Identifier: Apache-2.0
"""
Settings as people write them: NAME=VALUE texts and ROS parameter files.

Names are those of the ROS parameters: `detector` is an option of the pipeline,
`tabletop.min_height` one of the backend `tabletop`.
"""

from collections.abc import Sequence
from dataclasses import Field
from dataclasses import fields
from pathlib import Path
from typing import Any

from img2scene_ros.errors import InputError
from img2scene_ros.options import flattened
from img2scene_ros.options import read_yaml
from img2scene_ros.options import split_assignment
from img2scene_ros.options import typed
from img2scene_ros.pipeline import BACKEND_GROUPS
from img2scene_ros.pipeline import OTHER_GROUPS
from img2scene_ros.pipeline import PipelineOptions
from img2scene_ros.registry import backends

KINDS = {bool: 'true or false', int: 'whole number', float: 'number', str: 'text', tuple: 'list'}


def read_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """
    Split NAME=VALUE texts and read the values as the types of the options.

    What cannot be read stays a text, for `parse_settings` to refuse.

    :return: values by dotted name
    :raises OptionError: a text without =
    """
    declared = declared_options()
    settings = {}
    for text in assignments:
        name, value = split_assignment(text)
        settings[name] = typed(declared[name], value) if name in declared else value
    return settings


def read_parameter_file(path: Path) -> dict[str, Any]:
    """
    Read the options in a ROS parameter file; parameters of the node alone are skipped.

    :return: values by dotted name
    :raises InputError: it cannot be read or is no parameter file
    """
    nodes = read_yaml(path, 'parameter file')
    sections = [
        node['ros__parameters'] for node in (nodes.values() if isinstance(nodes, dict) else ())
        if isinstance(node, dict) and isinstance(node.get('ros__parameters'), dict)]
    if not sections:
        raise InputError(
            f"'{path}' is no ROS parameter file; it must hold NODE: ros__parameters: NAME: VALUE")
    known = declared_options()
    of_backends = tuple({name.partition('.')[0] + '.' for name in known if '.' in name})
    return {
        name: value for section in sections for name, value in flattened(section).items()
        if name in known or name.startswith(of_backends)}


def declared_options() -> dict[str, Field[Any]]:
    """Return the declaration of every option by its dotted name."""
    declared = {field.name: field for field in fields(PipelineOptions)}
    for group in BACKEND_GROUPS:
        for name, backend in backends(group).items():
            declared |= {f'{name}.{field.name}': field for field in fields(backend.Options)}
    return declared | {f'{name}.{field.name}': field
                       for name, group in OTHER_GROUPS.items() for field in fields(group)}


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


def _text(value: Any) -> str:
    return f"[{', '.join(map(str, value))}]" if isinstance(value, tuple) else str(value)
