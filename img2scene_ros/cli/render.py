# SPDX-License-Identifier: Apache-2.0
"""img2scene render: training data from random scenes."""

import argparse
from pathlib import Path
from typing import Any

from img2scene_ros.cli import terminal
from img2scene_ros.learning.data_config import RenderOptions


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        'render', help='make training data by rendering random scenes',
        description='Make training data by rendering random scenes of shapes: crops of objects '
        'with mask, depth and voxels, or whole pictures. An interrupted run goes on where it '
        'ended; the same seed and options give the same files.')
    parser.add_argument(
        'shapes', type=Path, metavar='SHAPES',
        help='a folder of CATEGORY/SHAPE/voxel.mat and model.ply, as in Pix3D; household objects '
        'drawn at random are added')
    parser.add_argument('out', type=Path, metavar='OUT', help='where to write')
    parser.add_argument(
        '--meshes', type=Path, metavar='DIR', help='also use the closed, metric GLB meshes in DIR')
    terminal.add_options(parser, RenderOptions)
    terminal.add_jobs(parser)
    parser.add_argument(
        '--check', action='store_true', help='also draw some samples into OUT/check.png')
    parser.set_defaults(run=_run)


def _run(chosen: argparse.Namespace) -> int:
    from img2scene_ros.learning.rendered import render_dataset

    options = terminal.options_of(chosen, RenderOptions)
    console = terminal.open_console()
    with terminal.progress_bar(console, 'rendering') as progress:
        library = render_dataset(
            chosen.shapes, chosen.meshes, chosen.out, options, chosen.jobs, progress)
    for reason in library.skipped:
        console.print(f'skipped: {reason}')
    size = sum(path.stat().st_size for path in chosen.out.glob('*.npz'))
    console.print(f'written: {chosen.out}, {options.samples} {options.kind} of '
                  f'{len(library.names)} shapes, {size / options.samples / 1000:.1f} kB each')
    if chosen.check:
        from img2scene_ros.learning.sheets import draw_sheet

        draw_sheet(chosen.out, chosen.out / 'check.png')
        console.print(f'written: {chosen.out}/check.png')
    return 0
