# SPDX-License-Identifier: Apache-2.0
"""Tables in Markdown."""

from collections.abc import Sequence
from typing import Any


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a table; floats have three decimals, None is a dash."""
    lines = [headings, ['---'] * len(headings), *rows]
    return '\n'.join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return '-'
    return f'{value:.3f}' if isinstance(value, float) else str(value)
