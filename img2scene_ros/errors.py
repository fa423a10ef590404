# SPDX-License-Identifier: Apache-2.0
"""The one kind of error a user is meant to read, and what is said once."""

import logging
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from typing import TypeVar

_LOGGER = logging.getLogger(__name__)
Result = TypeVar('Result')


class Img2SceneError(Exception):
    """Something its reader can fix: one sentence that says what, where, and how to fix it."""


class InputError(Img2SceneError):
    """A picture, depth image, calibration or file that cannot be used as it is."""


class OptionError(Img2SceneError):
    """An option with an unknown name or a value that is not allowed."""


class MissingDependencyError(Img2SceneError):
    """An optional package or a checkpoint that is not on this machine."""


class ReconstructionError(Img2SceneError):
    """An object that a reconstructor cannot rebuild from this view."""


def unexpected(error: BaseException) -> str:
    """Return what an error that nobody foresaw says, in one short line."""
    return f"unexpected {type(error).__name__}: {' '.join(str(error).split())[:200]}"


@contextmanager
def naming(whose: str) -> Iterator[None]:
    """Put whose they are before the errors that are raised within this."""
    try:
        yield
    except Img2SceneError as error:
        raise type(error)(f'{whose}: {error}') from error


@cache
def say_once(log: Callable[..., None], *words: Any) -> None:
    """Log something that holds for many frames; the same words are not logged again."""
    log(*words)


def attempt(step: Callable[..., Result], *arguments: Any) -> Result | Img2SceneError:
    """
    Return what a step returns, or the error that says why it failed.

    Whatever a step raises becomes such an error, so that one object's failure costs one object.
    """
    try:
        return step(*arguments)
    except Img2SceneError as error:
        return error
    except (Exception, SystemExit) as error:  # some libraries exit where they should raise
        _LOGGER.debug('traceback', exc_info=True)
        return Img2SceneError(unexpected(error))
