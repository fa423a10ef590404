#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
Write all parameters from the options: config/img2scene.yaml and the tables of docs/nodes.md.

`make config` does that.
"""

import re
from collections.abc import Mapping
from dataclasses import Field
from dataclasses import fields
from pathlib import Path
from textwrap import indent
from textwrap import wrap
from typing import Any

import yaml

from img2scene_ros.depth import DepthNoise
from img2scene_ros.nodes.detector_node import DetectorNodeOptions
from img2scene_ros.nodes.parameters import constraints
from img2scene_ros.nodes.replay_node import ReplayOptions
from img2scene_ros.nodes.scene_node import NodeOptions
from img2scene_ros.options import Options
from img2scene_ros.pipeline import OTHER_GROUPS
from img2scene_ros.pipeline import PipelineOptions
from img2scene_ros.registry import FOLDERS
from img2scene_ros.registry import backends
from img2scene_ros.tables import markdown_table

Groups = Mapping[str, list[type[Options]]]  # by what stands before their names

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / 'config' / 'img2scene.yaml'
PAGE = ROOT / 'docs' / 'nodes.md'
WIDTH = 99  # columns
MARKED = re.compile(r'(<!-- parameters of (\w+) -->\n).*?(<!-- end -->)', re.DOTALL)
HEAD = '''\
# Parameters of the scene node, with their defaults; written by `make config`, not by hand.
# `/**` means in any namespace, whatever the node's name. `ros2 param describe /img2scene NAME`
# tells the range of any parameter. Those marked (*) only change while the node is unconfigured;
# all others also while it runs.
/**:
  ros__parameters:
'''


def nodes() -> dict[str, Groups]:
    """Return the options of every node."""
    found = {name: [found.Options] for group in FOLDERS for name, found in backends(group).items()}
    detectors = {name: [found.Options] for name, found in backends('detectors').items()}
    return {
        'scene_node': {'': [NodeOptions, PipelineOptions],
                       **{name: [options] for name, options in OTHER_GROUPS.items()}, **found},
        'detector_node': {'': [DetectorNodeOptions], 'depth_noise': [DepthNoise], **detectors},
        'replay_node': {'': [ReplayOptions]}}


def parameter_file(groups: Groups) -> str:
    """Return a parameter file: every parameter with its default, under what it means."""
    sections = []
    for owner, group in groups.items():
        margin, head = (6, f'    {owner}:\n') if owner else (4, '')
        sections += [head + indent(''.join(
            _entry(declared, WIDTH - margin) for declared in fields(options)), ' ' * margin)
            for options in group if fields(options)]
    return HEAD + '\n'.join(sections)


def with_tables(text: str) -> str:
    """Return a document with the table of each node that it has a mark for."""
    tables = nodes()
    return MARKED.sub(lambda mark: mark[1] + _table(tables[mark[2]]) + '\n' + mark[3], text)


def _entry(declared: Field[Any], width: int) -> str:
    mark = ' (*)' if declared.metadata['read_only'] else ''
    comment = wrap(
        declared.metadata['description'] + mark, width, initial_indent='# ',
        subsequent_indent='# ', break_on_hyphens=False)
    default = declared.default
    line = yaml.safe_dump(
        {declared.name: list(default) if isinstance(default, tuple) else default},
        default_flow_style=None if isinstance(default, tuple) else False)
    return '\n'.join([*comment, line])


def _table(groups: Groups) -> str:
    rows = [_row(f'{owner}.' if owner else '', declared)
            for owner, group in groups.items() for options in group
            for declared in fields(options)]
    return markdown_table(('parameter', 'default', 'meaning'), rows)


def _row(prefix: str, declared: Field[Any]) -> tuple[str, str, str]:
    default, rules = declared.default, declared.metadata
    if isinstance(default, tuple):
        default = list(default)
    shown = yaml.safe_dump(default, default_flow_style=True, width=1000).removesuffix('...\n')
    limits = constraints(declared)
    if rules['low'] is not None and rules['high'] is not None:
        limits.insert(0, f"{rules['low']:g} to {rules['high']:g}")
    meaning = '; '.join([rules['description'], *limits]) + (' (*)' if rules['read_only'] else '')
    return f'`{prefix}{declared.name}`', f'`{shown.strip()}`', meaning.replace('|', r'\|')


if __name__ == '__main__':
    FILE.write_text(parameter_file(nodes()['scene_node']))
    PAGE.write_text(with_tables(PAGE.read_text()))
