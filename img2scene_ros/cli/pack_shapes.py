# SPDX-License-Identifier: Apache-2.0
"""img2scene pack-shapes: the shapes of training data in one file."""

import argparse
from pathlib import Path
from typing import Any

from img2scene_ros.cli.terminal import add_jobs
from img2scene_ros.cli.terminal import open_console
from img2scene_ros.cli.terminal import progress_bar


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        'pack-shapes', help='put the shapes of rendered training data into one file',
        description='Put the solids of shapes, with sizes, labels, colours and the split, into '
        'one compressed file, to be read where there is neither Open3D nor trimesh. Household '
        'objects drawn at random are added.')
    parser.add_argument('out', type=Path, metavar='OUT.npz', help='the file')
    parser.add_argument(
        '--shapes', type=Path, metavar='DIR',
        help='a folder of CATEGORY/SHAPE/voxel.mat and model.ply, as in Pix3D')
    parser.add_argument(
        '--meshes', type=Path, action='append', default=[], metavar='DIR',
        help='a folder of metric GLB meshes (may be repeated)')
    add_jobs(parser)
    parser.set_defaults(run=_run)


def _run(chosen: argparse.Namespace) -> int:
    from img2scene_ros.learning.packed_shapes import pack_shapes

    console = open_console()
    with progress_bar(console, 'packing') as progress:
        packed, skipped = pack_shapes(
            chosen.out, chosen.shapes, chosen.meshes, progress, chosen.jobs)
    for reason in skipped:
        console.print(f'skipped: {reason}')
    trained = sum(shape.split == 'train' for shape in packed)
    console.print(
        f'written: {chosen.out}, {trained} shapes for training, {len(packed) - trained} for '
        f'testing, {chosen.out.stat().st_size / 1e6:.1f} MB')
    return 0
