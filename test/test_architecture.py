# SPDX-License-Identifier: Apache-2.0
"""The rooms of the package: which may import which (docs/architecture.md, Folders)."""

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / 'img2scene_ros'
NAME = PACKAGE.name
# From the lowest room to the highest; those of one line are one room.
ROOMS = (
    ('camera', 'depth', 'devices', 'errors', 'files', 'hub', 'options', 'packages', 'registry',
     'tables', 'turning', 'types', 'weights'),
    ('io',),
    ('rendering',),
    ('mesh',),
    ('models',),
    ('detection',),
    ('localization',),
    ('reconstruction',),
    ('scene',),
    ('pipeline',),
    ('benchmark', 'settings'),
    ('learning',),
    ('nodes',),
    ('cli',),
)
LEVELS = {name: level for level, names in enumerate(ROOMS) for name in names}
ROS = {'ament_index_python', 'launch', 'launch_ros', 'rclpy', 'std_srvs', 'tf2_ros'}
HEAVY = {'cv2', 'numpy', 'open3d', 'rclpy', 'scipy', 'torch', 'transformers', 'trimesh'}


@cache
def trees() -> dict[Path, ast.Module]:
    """Return every file of the package, relative to it, as Python reads it."""
    return {path.relative_to(PACKAGE): ast.parse(path.read_text())
            for path in sorted(PACKAGE.rglob('*.py'))}


def imported(tree: ast.AST) -> Iterator[str]:
    """Yield the dotted name of everything that is imported, wherever that is."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, 'imports are absolute'
            yield from (f'{node.module}.{alias.name}' for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def room_of(path: Path) -> str:
    return path.parts[0].removesuffix('.py')


def rooms_of(tree: ast.AST) -> set[str]:
    """Return the rooms that are imported."""
    return {name.split('.')[1] for name in imported(tree) if name.startswith(f'{NAME}.')}


def test_every_file_is_in_a_room() -> None:
    assert {room_of(path) for path in trees()} - {'__init__'} == set(LEVELS)


def test_a_room_imports_only_rooms_below_it() -> None:
    upward = [f'{path} imports {room}' for path, tree in trees().items()
              for room in rooms_of(tree) - {room_of(path)}
              if LEVELS[room] > LEVELS[room_of(path)]]
    assert not upward


def test_types_import_no_stage() -> None:
    assert rooms_of(trees()[Path('types.py')]) <= {'camera', 'depth', 'errors'}


def test_only_nodes_import_ros() -> None:
    users = {room_of(path) for path, tree in trees().items() for name in imported(tree)
             if name.split('.')[0] in ROS or name.split('.')[0].endswith('_msgs')}
    assert users == {'nodes'}


def test_nothing_but_commands_imports_learning() -> None:
    users = {path for path, tree in trees().items() if 'learning' in rooms_of(tree)}
    assert {room_of(path) for path in users} == {'learning', 'cli'}


def test_commands_import_what_is_heavy_when_they_run() -> None:
    code = f'import sys, {NAME}.cli; print(*{{name.split(".")[0] for name in sys.modules}})'
    loaded = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout
    assert not HEAVY & set(loaded.split())


def test_one_name_for_one_thing() -> None:
    files = Counter(path.name for path in trees() if not path.name.startswith('__'))
    classes = Counter(node.name for tree in trees().values() for node in tree.body
                      if isinstance(node, ast.ClassDef) and not node.name.startswith('_'))
    assert [name for name, count in (files + classes).items() if count > 1] == []
