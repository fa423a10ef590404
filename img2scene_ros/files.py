# SPDX-License-Identifier: Apache-2.0
"""Files as users name them, and such that appear whole or not at all."""

import os
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
from contextlib import suppress
from pathlib import Path
from typing import Any
from typing import BinaryIO

from img2scene_ros.errors import InputError


def user_path(name: str) -> Path:
    """
    Return a path whose ~ is a home folder.

    :raises InputError: it is that of a user whom there is not
    """
    try:
        return Path(name).expanduser()
    except RuntimeError as error:
        raise InputError(
            f"there is no home folder for '{name}'; name the folder without ~") from error


def write_whole(path: Path, content: bytes | Callable[[BinaryIO], Any]) -> None:
    """
    Write a file, and the folder that it is in: it changes as a whole or not at all.

    :param content: bytes, or what writes to the file that it is given
    :raises InputError: it cannot be written
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            if isinstance(content, bytes):
                file.write(content)
            else:
                content(file)
    except (OSError, RuntimeError) as error:  # torch.save raises RuntimeError
        reason = getattr(error, 'strerror', None) or ' '.join(str(error).split())[:160]
        raise InputError(f"cannot write '{path}': {reason}") from error


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """
    Open a file beside its place; it is moved there afterwards.

    Whatever is raised meanwhile, an interrupt too, leaves what was there.

    :raises OSError: it cannot be written
    """
    beside = path.with_name(f'.{path.name}.part')
    try:
        with open(beside, 'wb') as file:
            yield file
        os.replace(beside, path)
    except BaseException:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise
