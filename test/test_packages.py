# SPDX-License-Identifier: Apache-2.0
"""Parts of the package that need others: one sentence says which, how to get it, what else."""

import sys

import pytest
import trimesh

from img2scene_ros.cli import main
from img2scene_ros.errors import MissingDependencyError
from img2scene_ros.mesh.closing import decimated
from img2scene_ros.mesh.closing import repaired
from img2scene_ros.packages import importing
from img2scene_ros.packages import require_packages


def test_names_what_is_missing_and_only_that() -> None:
    packages = ('numpy', 'no_such_package', 'pillow', 'nor_this_one')
    with pytest.raises(MissingDependencyError, match='no_such_package nor_this_one'):
        require_packages("the detector 'x'", packages, "choose 'y'")
    require_packages("the detector 'x'", ('numpy', 'pillow', 'PyYAML'), "choose 'y'")


def test_a_package_whose_system_library_is_missing_is_named_with_the_library() -> None:
    with (pytest.raises(MissingDependencyError, match='open3d.*libGL.so.1'),
          importing('drawing', 'open3d', 'draw nothing')):
        raise OSError('libGL.so.1: cannot open shared object file')


def test_meshes_without_open3d(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'open3d', None)
    box = trimesh.creation.box()
    with pytest.raises(MissingDependencyError, match='max_triangles.*open3d'):
        decimated(box, 4)
    with pytest.raises(MissingDependencyError, match='open3d'):
        repaired(box.vertices, box.faces[:1], 100)


@pytest.mark.parametrize('command', (
    ['train', '--data', 'x', '--out', 'y'], ['train-detector', '--data', 'x', '--out', 'y'],
    ['learn', 'shape', '--shapes', 'x', '--out', 'y'], ['evaluate', 'shapes', 'x']))
def test_trainings_without_torch_name_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: list[str],
) -> None:
    monkeypatch.setitem(sys.modules, 'torch', None)
    assert main(command) == 1
    error, = capsys.readouterr().err.splitlines()
    assert 'torch' in error and "pip install '.[train]'" in error
