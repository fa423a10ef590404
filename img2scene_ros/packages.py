# SPDX-License-Identifier: Apache-2.0
"""Packages that only parts of img2scene need: where one is missing, one sentence says so."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from img2scene_ros.errors import MissingDependencyError

_MODULES = {'pillow': 'PIL', 'PyYAML': 'yaml'}  # where it is not the package's own name
TRANSFORMERS = ('torch', 'transformers', 'pillow')  # what its image models need


def missing_packages(packages: tuple[str, ...]) -> list[str]:
    """Return those of the packages, by their names for pip, that are not installed."""
    return [name for name in packages if find_spec(_MODULES.get(name, name)) is None]


def require_packages(
    user: str, packages: tuple[str, ...], otherwise: str, extra: str = '',
) -> None:
    """
    Make sure that packages are installed, without importing them.

    :param user: what needs them
    :param packages: their names for pip
    :param otherwise: what else can be done, after 'or'
    :param extra: the extra of img2scene that brings them, as setup.py says
    :raises MissingDependencyError: some are not installed
    """
    missing = missing_packages(packages)
    if missing:
        names = f"'.[{extra}]'` in img2scene's folder" if extra else f"{' '.join(missing)}`"
        raise MissingDependencyError(
            f"{user} needs {' and '.join(missing)}; install with `pip install {names}, or "
            f'{otherwise}')


@contextmanager
def importing(user: str, package: str, otherwise: str) -> Iterator[None]:
    """
    Import within this a package that may be missing or broken; parameters as `require_packages`.

    :raises MissingDependencyError: it cannot be imported
    """
    try:
        yield
    except (ImportError, OSError) as error:  # OSError: a system library that it needs
        raise MissingDependencyError(
            f'{user} needs {package} ({error}); install with `pip install {package}`, or '
            f'{otherwise}') from error
