"""The one kind of error a user is meant to read."""

from collections.abc import Callable
from typing import Any
from typing import TypeVar

Result = TypeVar('Result')


class Img2SceneError(Exception):
    """Something its reader can mend: one sentence that says what, where, and how to mend it."""


class InputError(Img2SceneError):
    """A picture, depth image, calibration or file that cannot be used as it is."""


class OptionError(Img2SceneError):
    """An option with an unknown name or a value that is not allowed."""


class MissingDependencyError(Img2SceneError):
    """An optional package or a checkpoint that is not on this machine."""


class ReconstructionError(Img2SceneError):
    """An object that a reconstructor cannot rebuild from this view."""


def attempt(step: Callable[..., Result], *arguments: Any) -> Result | Img2SceneError:
    """Return what a step returns, or what it has to say to the user."""
    try:
        return step(*arguments)
    except Img2SceneError as error:
        return error
