# SPDX-License-Identifier: Apache-2.0
"""What several commands read from and write to the terminal."""

import argparse
import json
import os
import sys
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

from img2scene_ros.options import Options

if TYPE_CHECKING:  # heavy, and not needed for --help
    from rich.console import Console

DEFAULT_OUT = Path('out')
PAGE_WIDTH = 100  # characters, where the output goes to a file


def open_console() -> 'Console':
    """Return what prints to the terminal, or in lines of `PAGE_WIDTH` to a file."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else PAGE_WIDTH
    return Console(width=width, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def progress_bar(
    console: 'Console', what: str, is_shown: bool = True,
) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on a terminal; yield what takes the numbers of what is done and of all."""
    from rich import progress

    with progress.Progress(
            what, progress.BarColumn(), progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(), progress.TimeRemainingColumn(), console=console,
            disable=not (console.is_terminal and is_shown)) as bar:
        task = bar.add_task('', total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def complain(sentence: str) -> None:
    """Print an error."""
    print(f'img2scene: error: {sentence}', file=sys.stderr)


def whole_number(text: str) -> int:
    """Read an argument that counts something."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number from 1")
    return int(text)


def add_settings(parser: argparse.ArgumentParser, *shorts: str) -> None:
    """Add what sets options of the pipeline; some have an argument of their own."""
    for name in shorts:
        parser.add_argument(f'--{name}', metavar='NAME', help=f'short for --set {name}=NAME')
    parser.add_argument(
        '--set', action='append', default=[], metavar='NAME=VALUE', dest='settings',
        help='set an option, by the name of its ROS parameter (may be repeated)')


def settings_of(chosen: argparse.Namespace, *shorts: str) -> dict[str, Any]:
    """
    Return the settings that were chosen of what `add_settings` added, by dotted names.

    :raises OptionError: a text without =
    """
    from img2scene_ros.settings import read_assignments

    return read_assignments(chosen.settings) | {
        name: getattr(chosen, name) for name in shorts if getattr(chosen, name) is not None}


def add_jobs(parser: argparse.ArgumentParser) -> None:
    """Add how many processes share the work."""
    parser.add_argument(
        '--jobs', type=whole_number, default=os.cpu_count(), metavar='N',
        help='processes (default: one per core, %(default)s)')


def add_options(parser: argparse.ArgumentParser, kind: type[Options]) -> None:
    """Add an argument for every option of a class."""
    for declared in fields(kind):
        flag, text = f"--{declared.name.replace('_', '-')}", declared.metadata['description']
        of_type: type[Any] = type(declared.default)
        if of_type is bool:
            parser.add_argument(flag, action='store_true', help=text)
        elif of_type is tuple:
            parser.add_argument(flag, nargs='+', default=(), metavar='NAME', help=text)
        else:
            parser.add_argument(
                flag, type=of_type, default=declared.default,
                metavar='|'.join(declared.metadata['choices']) or 'X',
                help=f'{text} (default: %(default)s)')


def options_of(chosen: argparse.Namespace, kind: type[Options]) -> Any:
    """
    Return the options that were chosen of those that `add_options` added.

    :raises OptionError: a value that is not allowed
    """
    return kind(**{declared.name: getattr(chosen, declared.name) for declared in fields(kind)})


def print_objects(
    console: 'Console', folder: Path, times: dict[str, float] | None = None,
    remarks: Sequence[str] = (),
) -> None:
    """
    Print what an export directory holds.

    :param times: seconds of each stage; None takes those in objects.json
    :param remarks: further lines
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    summary = json.loads((folder / 'objects.json').read_text())
    table = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    for heading in ('id', 'label', 'score', 'position [mm]', 'size [mm]', 'depth', 'mesh by'):
        table.add_column(heading)
    table.add_column('faces', justify='right')
    table.add_column('closed')
    for item in summary['objects']:
        table.add_row(
            str(item['id']), item['label'], f"{item['score']:.2f}",
            _millimetres(item['position_m'], 4), _millimetres(item['size_m'], 3),
            item['depth_source'], item['reconstructor'], str(item['triangles']),
            'yes' if item['watertight'] else 'no')
    # A narrow terminal wraps its lines, where a table drawn for it would cut names.
    page = Console(width=PAGE_WIDTH, color_system=None, markup=False, highlight=False)
    with page.capture() as drawn:
        page.print(table)
    console.print(drawn.get(), end='')
    count = len(summary['objects'])
    console.print(f"{count} object{'' if count == 1 else 's'} "
                  f"({_times(times or summary['timing_s'], count)})")
    for remark in remarks:
        console.print(remark)
    written = [name for name in ('scene.png', 'scene.glb', 'objects.json')
               if (folder / name).exists()]
    console.print(f"written: {folder}/{', '.join(written)}, ...")


def _times(seconds: dict[str, float], objects: int) -> str:
    """Return one line: the time of each stage, and of all."""
    parts = [f'{stage} {value:.2f} s' for stage, value in seconds.items()]
    if objects and 'reconstruct' in seconds:
        each = seconds['reconstruct'] / objects
        parts[list(seconds).index('reconstruct')] += f', {each:.2f} s each'
    return f"{'; '.join(parts)}; together {sum(seconds.values()):.2f} s"


def _millimetres(metres: Sequence[float], width: int) -> str:
    return ' '.join(f'{1000 * value:{width}.0f}' for value in metres)
