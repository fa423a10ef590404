# SPDX-License-Identifier: Apache-2.0
"""img2scene bench: time and accuracy on recorded frames."""

import argparse
from pathlib import Path
from typing import Any

from img2scene_ros.cli.terminal import add_settings
from img2scene_ros.cli.terminal import settings_of


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        'bench', help='measure time and accuracy on recorded frames',
        description='Measure the time per frame and per mesh on recorded frames, and the accuracy '
        'where a frame folder holds mask.png and measured.json; prints a Markdown table.')
    parser.add_argument(
        'frames', nargs='+', type=Path, metavar='FRAMES',
        help='what `img2scene reconstruct` takes: frame folders, data sets, recordings, pictures')
    add_settings(parser)
    parser.set_defaults(run=_run)


def _run(chosen: argparse.Namespace) -> int:
    from img2scene_ros.benchmark import bench
    from img2scene_ros.io.frames import open_frames

    opened = [open_frames(path) for path in chosen.frames]
    frames = (frame for source in opened for frame in source)
    print(bench(frames, settings_of(chosen)))
    return 0
