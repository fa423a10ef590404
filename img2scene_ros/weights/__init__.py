# SPDX-License-Identifier: Apache-2.0
"""Weights that come with the package, one folder per model; its README.md is the model card."""

from pathlib import Path

from img2scene_ros.errors import MissingDependencyError
from img2scene_ros.files import user_path


def weights_folder(name: str, kind: str) -> Path:
    """
    Return the folder of weights that an option names.

    :param name: a folder, or 'bundled' for the weights that come with the package
    :param kind: as `bundled`
    :raises MissingDependencyError: as `bundled`
    """
    return bundled(kind) if name == 'bundled' else user_path(name)


def bundled(name: str) -> Path:
    """
    Return the folder of a model that comes with the package.

    :param name: 'voxel', 'coco' or 'detector'
    :raises MissingDependencyError: the package was installed without these weights
    """
    folder = Path(__file__).parent / name
    if not (folder / 'model.safetensors').is_file():
        raise MissingDependencyError(
            f"there are no weights in '{folder}': install the package again from its complete "
            'sources, or name a folder with weights of your own')
    return folder
