# SPDX-License-Identifier: Apache-2.0
"""What an evaluation leaves: tables in Markdown, values in JSON, a sheet of pictures."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from img2scene_ros.files import write_whole

COLUMNS = {'iou': 'IoU', 'best_iou': 'IoU, best threshold', 'chamfer': 'Chamfer',
           'f_score': 'F-score'}


@dataclass(frozen=True, eq=False)
class Report:
    """
    What an evaluation found.

    - values: for JSON
    - markdown: the tables
    - sheet: (H, W, 3) uint8, RGB
    - left_out: what could not be used, with the reason
    """

    values: dict[str, Any]
    markdown: str
    sheet: np.ndarray
    left_out: Sequence[str] = ()


def write_report(
    report: Report, json_file: Path | None, markdown_file: Path | None, sheet_file: Path | None,
) -> list[Path]:
    """
    Write the files that are wanted; each changes as a whole or not at all.

    :return: those that were written
    :raises InputError: one cannot be written
    """
    contents = {
        json_file: lambda file: file.write((json.dumps(report.values, indent=1) + '\n').encode()),
        markdown_file: lambda file: file.write(report.markdown.encode()),
        sheet_file: lambda file: file.write(cv2.imencode('.png', report.sheet[..., ::-1])[1])}
    wanted = {path: write for path, write in contents.items() if path is not None}
    for path, write in wanted.items():
        write_whole(path, write)
    return list(wanted)


def table(headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a Markdown table; numbers have three decimals, None is a dash."""
    lines = [headings, ['---'] * len(headings), *rows]
    return '\n'.join(f"| {' | '.join(map(_cell, line))} |" for line in lines) + '\n'


def _cell(value: Any) -> str:
    if value is None:
        return '-'
    return f'{value:.3f}' if isinstance(value, float) else str(value)


def score_tables(summaries: Sequence[dict[str, Any]]) -> str:
    """Return the tables of `Scores.summary`: the means, per category, per threshold."""
    means = [[one['input'], one['method'], *(one[name] for name in COLUMNS), _remark(one)]
             for one in summaries]
    categories = sorted(summaries[0]['per_category'])
    by_category = [
        [one['input'], one['method'],
         *(one['per_category'][category]['iou'] for category in categories)]
        for one in summaries]
    networks = [one for one in summaries if 'per_threshold' in one]
    by_threshold = [[one['input'], one['method'], *one['per_threshold'].values()]
                    for one in networks]
    parts = [
        table(['input', 'method', *COLUMNS.values(), ''], means),
        'IoU per category:\n', table(['input', 'method', *categories], by_category)]
    if networks:
        thresholds = list(networks[0]['per_threshold'])
        parts += ['IoU per threshold:\n', table(['input', 'method', *thresholds], by_threshold)]
    return '\n'.join(parts)


def _remark(one: dict[str, Any]) -> str:
    if 'threshold' in one:
        return f"threshold {one['threshold']:g}, best {one['best_threshold']:g}"
    return one['constant']
