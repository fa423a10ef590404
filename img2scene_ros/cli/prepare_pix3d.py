# SPDX-License-Identifier: Apache-2.0
"""img2scene prepare-pix3d: training data of the Pix3D data set."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

from img2scene_ros.cli.terminal import add_jobs
from img2scene_ros.cli.terminal import open_console
from img2scene_ros.cli.terminal import progress_bar
from img2scene_ros.cli.terminal import whole_number

if TYPE_CHECKING:  # heavy, and not needed for --help
    from rich.console import Console

    from img2scene_ros.learning.pix3d import Pix3dPicture
    from img2scene_ros.learning.pix3d import Skipped


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        'prepare-pix3d', help='make training data of the Pix3D data set',
        description='Make training data of the Pix3D data set: square pictures and masks around '
        'the objects, voxels, and their cameras in metadata.json. What cannot be used is listed, '
        'also in skipped.json. An interrupted run goes on where it ended.')
    parser.add_argument(
        'raw', type=Path, metavar='RAW', help='the data set: a folder with pix3d.json')
    parser.add_argument('out', type=Path, metavar='OUT', help='where to write')
    parser.add_argument(
        '--size', type=whole_number, default=256, metavar='PX',
        help='side of the stored pictures (default: %(default)s)')
    add_jobs(parser)
    parser.add_argument(
        '--check', type=whole_number, nargs='?', const=12, metavar='N',
        help='also draw N pictures, spread over all, with their masks and voxels into OUT/check '
        '(default: %(const)s)')
    parser.set_defaults(run=_run)


def _run(chosen: argparse.Namespace) -> int:
    from img2scene_ros.learning.pix3d import load_prepared
    from img2scene_ros.learning.pix3d import prepare_pix3d

    console = open_console()
    with progress_bar(console, 'preparing') as progress:
        skipped = prepare_pix3d(chosen.raw, chosen.out, chosen.size, chosen.jobs, progress)
    pictures = load_prepared(chosen.out)
    _print_prepared(console, pictures, skipped)
    console.print(f'written: {chosen.out}/metadata.json, images, masks, voxels')
    if chosen.check:
        from img2scene_ros.learning.sheets import write_pix3d_sheets

        with progress_bar(console, 'drawing') as progress:
            write_pix3d_sheets(pictures, chosen.out / 'check', chosen.check, progress)
        console.print(f'written: {chosen.out}/check')
    return 0


def _print_prepared(
    console: 'Console', pictures: Sequence['Pix3dPicture'], skipped: Sequence['Skipped'],
) -> None:
    from rich import box
    from rich.table import Table

    for item in skipped:
        console.print(f'skipped: entry {item.index} {item.image}: {item.reason}')
    table = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    table.add_column('category')
    for heading in ('pictures', 'shapes', 'skipped'):
        table.add_column(heading, justify='right')
    categories = {item.category for item in pictures} | {item.category for item in skipped}
    for category in sorted(categories):
        kept = [item for item in pictures if item.category == category]
        table.add_row(
            category or '(none)', str(len(kept)), str(len({item.voxels for item in kept})),
            str(sum(item.category == category for item in skipped)))
    console.print(table)
