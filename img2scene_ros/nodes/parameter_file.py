# SPDX-License-Identifier: Apache-2.0
"""
Writes the scene node's parameter file from the options.

python -m img2scene_ros.nodes.parameter_file > config/img2scene.yaml, or `make config`.
"""

from dataclasses import Field
from dataclasses import fields
from textwrap import indent
from textwrap import wrap
from typing import Any

import yaml

from img2scene_ros.nodes.scene_node import NodeOptions
from img2scene_ros.options import Options
from img2scene_ros.pipeline import OTHER_GROUPS
from img2scene_ros.pipeline import PipelineOptions
from img2scene_ros.registry import FOLDERS
from img2scene_ros.registry import backends

WIDTH = 99  # columns
HEAD = '''\
# Parameters of the scene node, with their defaults; written by `make config`, not by hand.
# `/**` means in any namespace, whatever the node's name. `ros2 param describe /img2scene NAME`
# tells the range of any parameter. Those marked (*) only change while the node is unconfigured;
# all others also while it runs.
/**:
  ros__parameters:
'''


def parameter_file() -> str:
    """Return the file's text: every parameter with its default, under what it means."""
    sections = []
    for owner, group in scene_node_groups().items():
        margin, head = (6, f'    {owner}:\n') if owner else (4, '')
        sections += [head + _section(options, margin) for options in group if fields(options)]
    return HEAD + '\n'.join(sections)


def scene_node_groups() -> dict[str, list[type[Options]]]:
    """Return the scene node's options by what stands before their names."""
    found = {name: [found.Options] for group in FOLDERS for name, found in backends(group).items()}
    return {'': [NodeOptions, PipelineOptions],
            **{name: [options] for name, options in OTHER_GROUPS.items()}, **found}


def _section(options: type[Options], margin: int) -> str:
    entries = ''.join(_entry(declared, WIDTH - margin) for declared in fields(options))
    return indent(entries, ' ' * margin)


def _entry(declared: Field[Any], width: int) -> str:
    mark = ' (*)' if declared.metadata['read_only'] else ''
    comment = wrap(
        declared.metadata['description'] + mark, width, initial_indent='# ',
        subsequent_indent='# ', break_on_hyphens=False)
    default: Any = declared.default
    is_list = isinstance(default, tuple)
    line = yaml.safe_dump(
        {declared.name: list(default) if is_list else default},
        default_flow_style=None if is_list else False)
    return '\n'.join([*comment, line])


if __name__ == '__main__':
    print(parameter_file(), end='')
