"""
Backends by name.

A built-in backend is one module of its folder that names its class in `BACKEND`; the module's
name is the backend's name. Other packages add theirs through the Python entry points
`img2scene.detectors`, `img2scene.distances`, `img2scene.reconstructors` and `img2scene.outputs`.
"""

import logging
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules

from img2scene_ros.errors import OptionError

_LOGGER = logging.getLogger(__name__)

FOLDERS = {
    'detectors': 'img2scene_ros.detection',
    'distances': 'img2scene_ros.localization',
    'reconstructors': 'img2scene_ros.reconstruction',
    'outputs': 'img2scene_ros.nodes.outputs',
}


def backends(group: str) -> dict[str, type]:
    """
    Return every backend of a group, by name; one of another package that fails is left out.

    :param group: a key of `FOLDERS`
    """
    package = import_module(FOLDERS[group])
    found = {}
    for module in iter_modules(package.__path__):
        backend = getattr(import_module(f'{package.__name__}.{module.name}'), 'BACKEND', None)
        if backend is not None:
            found[module.name] = backend
    for entry in entry_points(group=f'img2scene.{group}'):
        try:
            found[entry.name] = entry.load()
        except Exception as error:  # whatever it is, the other backends must work
            _LOGGER.warning(
                "'%s' of the package '%s' is not among the %s: %s: %s", entry.name,
                entry.dist.name, group, type(error).__name__, error)
    return found


def backend(group: str, name: str) -> type:
    """
    Return one backend's class.

    :raises OptionError: there is none of that name
    """
    found = backends(group)
    if name not in found:
        raise OptionError(
            f"there is no '{name}' among the {group}; choose one of {', '.join(sorted(found))}")
    return found[name]
