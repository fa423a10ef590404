# SPDX-License-Identifier: Apache-2.0
"""img2scene demo: recorded frames through the ROS nodes."""

import argparse
from pathlib import Path
from typing import Any

from img2scene_ros.cli.terminal import DEFAULT_OUT
from img2scene_ros.cli.terminal import open_console
from img2scene_ros.cli.terminal import print_objects
from img2scene_ros.errors import MissingDependencyError


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        'demo', help='play a recorded frame through the ROS nodes and save the scene',
        description='Play recorded frames through the real ROS nodes and save the scene.')
    parser.add_argument(
        '--frames', type=Path, metavar='PATH',
        help='a frame folder, a data set or a recording (default: the bundled frame)')
    parser.add_argument(
        '--out', type=Path, metavar='DIR', default=DEFAULT_OUT / 'demo',
        help='export directory (default: %(default)s)')
    parser.set_defaults(run=_run)


def _run(chosen: argparse.Namespace) -> int:
    try:
        from img2scene_ros.nodes.demo_nodes import run_demo
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"the demo runs the ROS nodes and needs the Python package '{error.name}': source "
            'your ROS 2 installation (source /opt/ros/<distro>/setup.bash) or use `make demo`, '
            'which brings its own; `img2scene reconstruct` works without') from error
    run_demo(chosen.frames, chosen.out)
    print_objects(open_console(), chosen.out)
    return 0
