# SPDX-License-Identifier: Apache-2.0
"""
Writes the parameter tables of docs/nodes.md from the options.

python -m img2scene_ros.nodes.parameter_tables docs/nodes.md, or `make config`.
"""

import re
import sys
from collections.abc import Mapping
from dataclasses import Field
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from img2scene_ros.depth import DepthNoise
from img2scene_ros.nodes.detector_node import DetectorNodeOptions
from img2scene_ros.nodes.parameter_file import scene_node_groups
from img2scene_ros.nodes.parameters import constraints
from img2scene_ros.nodes.replay_node import ReplayOptions
from img2scene_ros.options import Options
from img2scene_ros.registry import backends
from img2scene_ros.tables import markdown_table

MARKED = re.compile(r'(<!-- parameters of (\w+) -->\n).*?(<!-- end -->)', re.DOTALL)


def with_tables(text: str) -> str:
    """Return a document with the table of each node that it has a mark for."""
    nodes: dict[str, Mapping[str, list[type[Options]]]] = {
        'scene_node': scene_node_groups(),
        'detector_node': {'': [DetectorNodeOptions], 'depth_noise': [DepthNoise], **{
            name: [found.Options] for name, found in backends('detectors').items()}},
        'replay_node': {'': [ReplayOptions]}}
    return MARKED.sub(lambda mark: mark[1] + _table(nodes[mark[2]]) + '\n' + mark[3], text)


def _table(groups: Mapping[str, list[type[Options]]]) -> str:
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
    document = Path(sys.argv[1])
    document.write_text(with_tables(document.read_text()))
