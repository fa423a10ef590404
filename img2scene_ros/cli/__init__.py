# SPDX-License-Identifier: Apache-2.0
"""
The command line: img2scene reconstruct | demo | render | train | evaluate | ...

Every command is one file with `add_parser`; what is heavy is imported when the command runs.
"""

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from img2scene_ros.cli.terminal import complain
from img2scene_ros.errors import Img2SceneError
from img2scene_ros.errors import OptionError

# In the order of --help.
COMMANDS = ('reconstruct', 'demo', 'bench', 'prepare_pix3d', 'render', 'pack_shapes', 'learn',
            'train', 'evaluate', 'train_detector', 'doctor')


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the command line.

    :return: the exit code: 0, 1 for failures, 2 for wrong usage, 130 after an interrupt, 141 when
        nobody reads the output any more
    """
    _prepare_streams()
    try:
        chosen = _parser().parse_args(arguments)
        code = chosen.run(chosen)
        sys.stdout.flush()
        return code
    except OptionError as error:
        complain(str(error))
        return 2
    except Img2SceneError as error:
        complain(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        if error.filename is None:  # the output; what is not written yet goes nowhere
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return 141
        where = 'the output' if error.filename is None else f"'{error.filename}'"
        complain(f'{where} cannot be read or written ({error.strerror or error})')
        return 1


def _prepare_streams() -> None:
    """Let nothing but the package's own sentences be printed, on terminals of any encoding."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, 'reconfigure'):  # names of files may be no text
            stream.reconfigure(errors='backslashreplace')
    logging.basicConfig(format='img2scene: %(message)s')
    logging.getLogger('img2scene_ros').setLevel(logging.INFO)
    os.environ.setdefault('OPENCV_LOG_LEVEL', 'SILENT')
    if not sys.warnoptions:
        warnings.simplefilter('ignore')


class _Parser(argparse.ArgumentParser):
    """Reports wrong usage in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f'img2scene: error: {message} (see {self.prog} --help)\n')


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog='img2scene', description='Object models for robots: camera images in, '
                     'posed closed meshes out.')
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    for command in COMMANDS:
        import_module(f'{__name__}.{command}').add_parser(commands)
    return parser
