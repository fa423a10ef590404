# SPDX-License-Identifier: Apache-2.0
"""What gets installed is what package.xml, the entry points and the launch files promise."""

import ast
import re
import shutil
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ElementTree
import zipfile
from configparser import ConfigParser
from email import message_from_bytes
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from img2scene_ros.errors import MissingDependencyError
from img2scene_ros.weights import bundled

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted((ROOT / 'img2scene_ros').rglob('*.py'))
LAUNCH_FILES = sorted((ROOT / 'launch').rglob('*.py'))
TESTS = sorted((ROOT / 'test').rglob('*.py'))
BENCHMARKS = sorted((ROOT / 'benchmarks').glob('*.py'))
# The rosdep keys of Python packages; ROS packages go by their own names.
KEYS = {
    'cv2': 'python3-opencv',
    'huggingface_hub': 'python3-transformers-pip',
    'numpy': 'python3-numpy',
    'PIL': 'python3-pil',
    'pytest': 'python3-pytest',
    'packaging': 'python3-packaging',
    'open3d': 'python3-open3d-pip',
    'requests': 'python3-requests',
    'rich': 'python3-rich',
    'safetensors': 'python3-transformers-pip',
    'scipy': 'python3-scipy',
    'skimage': 'python3-skimage',
    'tf2_ros': 'tf2_ros_py',
    'torch': 'python3-pytorch-pip',
    'transformers': 'python3-transformers-pip',
    'trimesh': 'python3-trimesh-pip',
    'yaml': 'python3-yaml',
}
# Optional, and rosdep has no key for them; `img2scene doctor` or a warning says how to get them.
WITHOUT_KEY = {'coacd', 'diffusers', 'rosbags', 'timm', 'xatlas'}


@pytest.fixture(scope='module')
def manifest() -> ElementTree.Element:
    return ElementTree.parse(ROOT / 'package.xml').getroot()


@pytest.fixture(scope='module')
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Build the package from a copy of its sources, as pip does."""
    folder = tmp_path_factory.mktemp('wheel')
    source = folder / 'source'
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(
        '.git', '.venv*', '.cache', 'out', 'build', 'install', 'log', '__pycache__', '*.egg-info',
        'test'))
    subprocess.run(
        [sys.executable, '-m', 'pip', 'wheel', '--quiet', '--no-deps', '--no-build-isolation',
         '--wheel-dir', str(folder), str(source)], check=True)
    return zipfile.ZipFile(next(folder.glob('img2scene-*.whl')))


@pytest.fixture(scope='module')
def source_files(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Return what a source distribution of a copy of the sources holds."""
    folder = tmp_path_factory.mktemp('sdist')
    shutil.copytree(ROOT, folder / 'source', ignore=shutil.ignore_patterns(
        '.git', '.venv*', '.cache', 'out', 'build', 'install', 'log', '__pycache__',
        '*.egg-info'))
    subprocess.run(
        [sys.executable, 'setup.py', '--quiet', 'sdist', '--dist-dir', str(folder)], check=True,
        cwd=folder / 'source')
    with tarfile.open(next(folder.glob('img2scene-*.tar.gz'))) as archive:
        return {name.partition('/')[2] for name in archive.getnames()}


def installed(wheel: zipfile.ZipFile) -> set[str]:
    """Return the data files by their place below the installation's prefix."""
    return {name.split('.data/data/')[1] for name in wheel.namelist() if '.data/data/' in name}


def imports_of(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module)
    return {name.split('.')[0] for name in names}


@pytest.mark.parametrize('files, kinds, example', [
    (MODULES + LAUNCH_FILES, ('depend', 'exec_depend'), 'ament_index_python'),
    (TESTS + BENCHMARKS, ('depend', 'exec_depend', 'test_depend'), 'python3-pytest'),
])
def test_package_xml_declares_every_import(manifest, files, kinds, example):
    declared = {element.text for kind in kinds for element in manifest.iter(kind)}
    own = {'img2scene_ros'} | {path.stem for path in TESTS + BENCHMARKS}
    imported = set().union(*map(imports_of, files)) - set(sys.stdlib_module_names) - own
    # Messages are built only where ROS does not bring them.
    generators = {name for name in imported if name.startswith('rosidl_')}
    needed = {KEYS.get(name, name) for name in imported - WITHOUT_KEY - generators}
    assert {'rclpy', 'python3-numpy', example} <= needed
    assert needed - declared == set()


def test_package_xml_tells_where_to_find_the_project(manifest):
    assert {url.get('type') for url in manifest.iter('url')} == {
        'website', 'repository', 'bugtracker'}
    assert manifest.find('author').text and manifest.find('maintainer').get('email')


def test_package_xml_and_setup_tell_the_same(manifest, wheel):
    metadata = wheel.read(
        next(name for name in wheel.namelist() if name.endswith('dist-info/METADATA'))).decode()
    for tag, field in (('name', 'Name'), ('version', 'Version'), ('license', 'License')):
        assert f'{field}: {manifest.find(tag).text}\n' in metadata
    citation = yaml.safe_load((ROOT / 'CITATION.cff').read_text())
    assert citation['version'] == manifest.find('version').text
    assert citation['license'] == manifest.find('license').text
    assert manifest.get('format') == '3'
    assert manifest.find('export/build_type').text == 'ament_python'


def test_changelog_is_in_the_form_of_catkin(manifest):
    """As REP 132 wants it: what is not released is 'Forthcoming', on top; others have a date."""
    titles = re.findall(r'^(.+)\n-{3,}$', (ROOT / 'CHANGELOG.rst').read_text(), re.MULTILINE)
    released = titles[titles[0] == 'Forthcoming':]
    assert all(re.fullmatch(r'\d+\.\d+\.\d+ \(\d{4}-\d\d-\d\d\)', title) for title in released)
    assert released[0].split()[0] == manifest.find('version').text


def test_least_versions_are_the_same_everywhere(manifest, wheel):
    metadata = message_from_bytes(wheel.read(
        next(name for name in wheel.namelist() if name.endswith('dist-info/METADATA'))))
    required = {item.name: item for item in map(Requirement, metadata.get_all('Requires-Dist'))}
    least = {element.text: element.get('version_gte') for element in manifest.iter('exec_depend')}
    lines = (ROOT / 'requirements.txt').read_text().splitlines()
    pinned = {item.name: item for item in map(Requirement, (
        line for line in lines if line and not line.startswith('#')))}
    for name, key in (('numpy', 'python3-numpy'), ('pillow', 'python3-pil'),
                      ('scikit-image', 'python3-skimage'), ('scipy', 'python3-scipy')):
        assert str(required[name].specifier) == f'>={least[key]}'
        assert required[name].specifier.contains(str(pinned[name].specifier).removeprefix('=='))


def test_commands_are_functions_that_exist(wheel):
    entries = ConfigParser()
    entries.read_string(wheel.read(
        next(name for name in wheel.namelist() if name.endswith('entry_points.txt'))).decode())
    scripts = dict(entries['console_scripts'])
    assert set(scripts) == {
        'img2scene', 'scene_node', 'detector_node', 'replay_node'}
    for place in scripts.values():
        module, function = place.split(':')
        assert callable(getattr(import_module(module), function))


def test_wheel_holds_all_modules_and_no_tests(wheel):
    modules = {name for name in wheel.namelist() if name.endswith('.py') and '.data' not in name}
    assert modules == {str(path.relative_to(ROOT)) for path in MODULES}


def test_launch_files_configuration_scripts_and_demo_frame_are_installed(wheel):
    names = installed(wheel)
    assert 'share/ament_index/resource_index/packages/img2scene' in names
    assert 'share/img2scene/package.xml' in names
    assert 'share/img2scene/launch/bringup.launch.py' in names
    for path in (path for folder in ('config', 'scripts') for path in (ROOT / folder).rglob('*')
                 if path.is_file()):
        assert f'share/img2scene/{path.relative_to(ROOT)}' in names
    for frame in ('ycb_1', 'table_blue_mug'):
        for name in ('color.png', 'depth.png', 'camera.json'):
            assert f'share/img2scene/frames/{frame}/{name}' in names


def test_source_distribution_holds_what_tests_and_make_need(source_files):
    needed = {'Makefile', 'pyproject.toml', 'README.md', 'LICENSE', 'CHANGELOG.rst'}
    needed |= {path.name for path in ROOT.glob('requirements*.txt')}
    for folder in ('benchmarks', 'config', 'data', 'docs', 'img2scene_ros', 'launch', 'scripts',
                   'test'):
        needed |= {str(path.relative_to(ROOT)) for path in (ROOT / folder).rglob('*')
                   if path.is_file() and path.suffix != '.pyc'}
    assert needed - source_files == set()


def test_weights_and_their_model_cards_are_installed(wheel):
    files = {path for path in (ROOT / 'img2scene_ros/weights').rglob('*')
             if path.is_file() and path.suffix not in ('.py', '.pyc')}
    names = {name: wheel.getinfo(name).file_size for name in wheel.namelist()}
    for path in files:
        assert names[str(path.relative_to(ROOT))] == path.stat().st_size
    for weights in (path for path in files if path.name == 'model.safetensors'):
        assert {weights.with_name('config.json'), weights.with_name('README.md')} <= files
    assert bundled('voxel') / 'README.md' in files
    with pytest.raises(MissingDependencyError, match="no weights in '.*nonsense'"):
        bundled('nonsense')


def test_only_the_nodes_import_ros():
    outside = [path for path in MODULES if 'nodes' not in path.parts]
    assert len(outside) < len(MODULES)
    for path in outside:
        assert not {name for name in imports_of(path) if name == 'rclpy' or '_msgs' in name}, path
