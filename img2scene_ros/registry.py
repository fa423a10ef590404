# SPDX-License-Identifier: Apache-2.0
"""
Backends by name.

A built-in backend is one module of its folder that names its class in `BACKEND`; the module's
name is the backend's name. Other packages add theirs through the Python entry points
`img2scene.detectors`, `img2scene.distances`, `img2scene.reconstructors` and `img2scene.outputs`; a
name that is taken stays with whoever has it, first of all with a built-in backend. Folders and
entry points are read once per process.
"""

import logging
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules
from typing import Any

from img2scene_ros.errors import OptionError

_LOGGER = logging.getLogger(__name__)

FOLDERS = {
    'detectors': 'img2scene_ros.detection',
    'distances': 'img2scene_ros.localization',
    'reconstructors': 'img2scene_ros.reconstruction',
    'outputs': 'img2scene_ros.nodes.outputs',
}


def backends(group: str) -> dict[str, type[Any]]:
    """
    Return every backend of a group, by name; one of another package that fails is skipped.

    :param group: a key of `FOLDERS`
    """
    built_in = {name: module.BACKEND for name, module in _modules(group).items()}
    return _of_other_packages(group) | built_in


@cache
def _modules(group: str) -> dict[str, Any]:
    """Return the modules of a group's folder that name a backend, by name."""
    package = import_module(FOLDERS[group])
    modules = {found.name: import_module(f'{package.__name__}.{found.name}')
               for found in iter_modules(package.__path__)}
    return {name: module for name, module in modules.items() if hasattr(module, 'BACKEND')}


@cache
def _of_other_packages(group: str) -> dict[str, type[Any]]:
    found: dict[str, type[Any]] = {}
    for entry in entry_points(group=f'img2scene.{group}'):
        package = entry.dist.name if entry.dist else 'unknown'
        if entry.name in found or entry.name in _modules(group):
            _LOGGER.warning(
                "'%s' of the package '%s' is skipped: there is one of that name among the %s "
                'already; rename its entry point', entry.name, package, group)
            continue
        try:
            found[entry.name] = entry.load()
        except Exception as error:  # whatever it is, the other backends must work
            _LOGGER.warning(
                "'%s' of the package '%s' is not among the %s: %s: %s", entry.name,
                package, group, type(error).__name__, error)
    return found


def backend(group: str, name: str) -> type[Any]:
    """
    Return one backend's class.

    :raises OptionError: there is none of that name
    """
    found = backends(group)
    if name not in found:
        raise OptionError(
            f"there is no '{name}' among the {group}; choose one of {', '.join(sorted(found))}")
    return found[name]
