"""The one kind of error a user is meant to read."""


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
