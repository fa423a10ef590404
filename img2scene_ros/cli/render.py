# SPDX-License-Identifier: Apache-2.0
"""img2scene render: training data from random scenes."""

import argparse
import os
from pathlib import Path
from typing import Any

from img2scene_ros.cli.terminal import open_console
from img2scene_ros.cli.terminal import progress_bar
from img2scene_ros.cli.terminal import whole_number


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
    parser.add_argument(
        '--kind', default='crops', help='crops (default) or scenes')
    parser.add_argument(
        '--samples', type=int, default=1000, metavar='N', help='default: %(default)s')
    parser.add_argument(
        '--split', default='train', help='shapes to train (default) or to test with')
    parser.add_argument(
        '--seed', type=int, default=0, help='of the scenes (default: %(default)s)')
    for name, kind, help_ in (
            ('test-share', float, 'share of the shapes that is kept for testing'),
            ('split-seed', int, 'of the split; the same for training and test data'),
            ('size', int, 'pixels of the side of a crop'),
            ('width', int, 'pixels of the width of a picture'),
            ('floor-share', float, 'share of scenes with furniture, the rest is tabletops'),
            ('box-jitter', float, "standard deviation of the boxes' edges, in sides"),
            ('stretch', float, 'most that each axis of a shape is stretched or shrunk by'),
            ('sky-rays', int, 'rays per pixel for soft shadows; 0 is no shadows'),
            ('shard-samples', int, 'samples per file')):
        parser.add_argument(
            f'--{name}', type=kind, default=argparse.SUPPRESS, metavar='X', help=help_)
    parser.add_argument(
        '--jobs', type=whole_number, default=os.cpu_count(), metavar='N',
        help='processes (default: one per core, %(default)s)')
    parser.add_argument(
        '--check', action='store_true', help='also draw some samples into OUT/check.png')
    parser.set_defaults(run=_run)


def _run(chosen: argparse.Namespace) -> int:
    from img2scene_ros.learning.rendered import render_dataset
    from img2scene_ros.learning.synthetic import RenderOptions

    options = RenderOptions(**{
        name: value for name, value in vars(chosen).items()
        if name in RenderOptions.__dataclass_fields__})
    console = open_console()
    with progress_bar(console, 'rendering') as progress:
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
