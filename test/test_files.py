# SPDX-License-Identifier: Apache-2.0
"""Files that appear whole or not at all."""

from pathlib import Path
from typing import BinaryIO

import pytest

from img2scene_ros.errors import InputError
from img2scene_ros.files import user_path
from img2scene_ros.files import write_whole


def test_a_file_and_its_folder_are_made(tmp_path: Path) -> None:
    path = tmp_path / 'new/folder/file'
    write_whole(path, lambda file: file.write(b'all'))
    assert path.read_bytes() == b'all' and list(path.parent.iterdir()) == [path]


def test_the_home_of_nobody_is_one_clear_sentence() -> None:
    assert user_path('~/scene') == Path.home() / 'scene'
    with pytest.raises(InputError, match="'~nobody_of_this_name/scene'"):
        user_path('~nobody_of_this_name/scene')


@pytest.mark.parametrize('error, seen', [
    (OSError(28, 'No space left on device'), InputError),
    (RuntimeError('unexpected pos 64 vs 0'), InputError),
    (KeyboardInterrupt(), KeyboardInterrupt)])
def test_what_was_there_stays_when_writing_ends_early(
    tmp_path: Path, error: BaseException, seen: type[BaseException],
) -> None:
    def write(file: BinaryIO) -> None:
        file.write(b'half')
        raise error

    path = tmp_path / 'file'
    path.write_bytes(b'old')
    with pytest.raises(seen) as caught:
        write_whole(path, write)
    assert path.read_bytes() == b'old' and list(tmp_path.iterdir()) == [path]
    assert seen is KeyboardInterrupt or str(path) in str(caught.value)
