# SPDX-License-Identifier: Apache-2.0
"""How a failing command is heard."""

import pytest

from img2scene_ros.cli import main


def complaint(capsys: pytest.CaptureFixture, *arguments: object) -> str:
    """Return the one line that a failing command prints."""
    assert main([*map(str, arguments)]) in (1, 2)
    line, = capsys.readouterr().err.splitlines()
    assert line.startswith('img2scene: error: ')
    return line
