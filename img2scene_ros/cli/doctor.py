# SPDX-License-Identifier: Apache-2.0
"""
img2scene doctor: what is installed, what is missing, and what fixes it.

It also says what will not work without it.
"""

import os
import platform
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version
from types import ModuleType
from typing import Any

OLDEST_PYTHON = (3, 10)
# Which Debian or Ubuntu package holds a system library that wheels expect.
SYSTEM_PACKAGES = {
    'libGL.so.1': 'libgl1',
    'libEGL.so.1': 'libegl1',
    'libX11.so.6': 'libx11-6',
    'libglib-2.0.so.0': 'libglib2.0-0',
    'libgomp.so.1': 'libgomp1',
    'libgthread-2.0.so.0': 'libglib2.0-0',
    'libstdc++.so.6': 'libstdc++6',
    'libusb-1.0.so.0': 'libusb-1.0-0',
}
# The release of rclpy tells the distribution where no set-up file was sourced.
DISTRIBUTIONS = {'3': 'humble', '7': 'jazzy', '9': 'kilted'}
FROM_ROS = 'sudo apt install ros-{distro}-{package} && source /opt/ros/{distro}/setup.bash'


@dataclass(frozen=True)
class Package:
    """A Python package that img2scene uses."""

    module: str  # what is imported
    distributions: tuple[str, ...]  # the names it may be installed under
    without: str  # what does not work when it is missing
    fix: str  # a command that installs it
    is_core: bool = False  # nothing works without it


@dataclass(frozen=True)
class Finding:
    """What was found out about one package."""

    package: Package
    version: str  # '' when it is missing or its version unknown
    trouble: str = ''  # why it cannot be used, one sentence; '' when it can
    is_broken: bool = False  # it is installed but cannot be loaded


def _core(module: str, distribution: str, *others: str) -> Package:
    return Package(module, (distribution, *others), 'nothing works',
                   f'pip install {distribution}', is_core=True)


def _ros(module: str, without: str) -> Package:
    package = module.replace('_', '-')
    return Package(module, (f'ros-{package}', module), without,
                   FROM_ROS.replace('{package}', package))


PACKAGES = (
    _core('numpy', 'numpy'),
    _core('scipy', 'scipy'),
    _core('cv2', 'opencv-python-headless', 'opencv-python', 'opencv-contrib-python'),
    _core('skimage', 'scikit-image'),
    _core('trimesh', 'trimesh'),
    _core('yaml', 'PyYAML'),
    _core('rich', 'rich'),
    Package('open3d', ('open3d-cpu', 'open3d'),
            "the reconstructor 'depth_shell' does not work and scene.png is not drawn",
            'pip install open3d-cpu (or open3d)'),
    Package('xatlas', ('xatlas',), 'meshes have no textures, only the colours of their vertices',
            'pip install xatlas'),
    Package('torch', ('torch',),
            "objects have no names, and 'depth_shell' rebuilds them instead of 'voxel'",
            'pip install torch'),
    Package('transformers', ('transformers',), "the detector 'detr' does not work",
            'pip install transformers'),
    Package('requests', ('requests',), "the reconstructor 'remote' does not work",
            'pip install requests'),
    Package('diffusers', ('diffusers',), "the reconstructor 'shap_e' does not work",
            'pip install diffusers'),
    Package('rosbags', ('rosbags',), 'recordings (.mcap, .db3, .bag) cannot be read',
            'pip install rosbags'),
    _ros('rclpy', 'there are no ROS nodes and no demo; `img2scene reconstruct` works'),
    _ros('sensor_msgs', 'there are no ROS nodes'),
    _ros('visualization_msgs', 'there are no ROS nodes'),
    _ros('diagnostic_msgs', 'there are no ROS nodes'),
    _ros('std_srvs', 'there are no ROS nodes'),
    Package('tf2_ros', ('tf2_ros_py', 'tf2_ros'), 'the parameter support_frame cannot be used',
            FROM_ROS.replace('{package}', 'tf2-ros-py')),
    _ros('vision_msgs', 'there are no ~/objects, ~/detections and ~/label_info'),
    _ros('tf2_msgs', 'objects have no TF frames'),
    _ros('moveit_msgs', "the output 'planning_scene' does not work"),
    _ros('launch_ros', 'there is no `ros2 launch`; start the nodes one by one'),
)


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    doctor = commands.add_parser(
        'doctor', help='show versions, what is missing and how to fix it',
        description='Show versions, what is missing and how to fix it; the exit code is 1 when '
        'img2scene cannot work.')
    doctor.set_defaults(run=lambda _: run_doctor())


def run_doctor() -> int:
    """Print what there is; return 0 when the core works and what is installed can be loaded."""
    findings = [examine(package) for package in PACKAGES]
    distro = _distro(findings)
    rows = [('Python', platform.python_version(), _python_trouble())]
    rows += [(finding.package.module, finding.version,
              finding.trouble and ('broken' if finding.is_broken else 'missing'))
             for finding in findings]
    rows += [('ROS distribution', distro or 'none', ''),
             ('RMW', os.environ.get('RMW_IMPLEMENTATION', 'default'), ''),
             ('GPU', _gpu(findings), '')]
    if not any(finding.trouble and finding.package.is_core for finding in findings):
        from img2scene_ros.detection.auto import expected

        rows += [('detector auto', *expected()), ('distance auto', *_distances())]
    for name, found, trouble in rows:
        print(f'{name:20} {found:24} {trouble or "ok"}'.rstrip())
    troubled = [finding for finding in findings if finding.trouble]
    if troubled:
        print()
    for finding in troubled:
        print(advice(finding, distro or '<distro>'))
    failed = _python_trouble() or any(
        finding.is_broken or finding.package.is_core for finding in troubled)
    return 1 if failed else 0


def examine(
    package: Package, load: Callable[[str], ModuleType] = import_module,
) -> Finding:
    """Import a package and tell what came of it."""
    found = _version(package)
    try:
        module = load(package.module)
    except ModuleNotFoundError as error:
        if error.name == package.module:
            return Finding(package, '', 'it is not installed')
        return Finding(package, found, f"it needs the Python package '{error.name}'", True)
    except Exception as error:  # a broken installation may raise anything
        return Finding(package, found, ' '.join(str(error).split()) or repr(error), True)
    return Finding(package, found or str(getattr(module, '__version__', '')))


def advice(finding: Finding, distro: str) -> str:
    """Return one line: what is wrong, what does not work, and the command that fixes it."""
    package = finding.package
    fix = package.fix.format(distro=distro)
    library = re.search(r'(lib[\w.+-]+?\.so[.\d]*)', finding.trouble)
    if finding.is_broken and library:
        name = library.group(1)
        fix = (f'sudo apt install {SYSTEM_PACKAGES[name]}' if name in SYSTEM_PACKAGES
                else f'install the system package that holds {name}')
        return (f'{package.module} cannot be loaded, because the system library {name} is '
                f'missing; {package.without}. Fix it: {fix}')
    what = f'cannot be loaded ({finding.trouble})' if finding.is_broken else 'is missing'
    return f'{package.module} {what}: {package.without}. Fix it: {fix}'


def _version(package: Package) -> str:
    for name in package.distributions:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return ''


def _python_trouble() -> str:
    if sys.version_info < OLDEST_PYTHON:
        return 'too old: img2scene needs Python {}.{} or newer'.format(*OLDEST_PYTHON)
    return ''


def _distro(findings: list[Finding]) -> str:
    found = {finding.package.module: finding for finding in findings}['rclpy'].version
    return os.environ.get('ROS_DISTRO') or DISTRIBUTIONS.get(found.split('.')[0], '')


def _distances() -> tuple[str, str]:
    from img2scene_ros.localization.combine import sources_of
    from img2scene_ros.localization.monocular import MonocularOptions

    names = sources_of('auto', {})
    without = '' if 'monocular' in names else (
        f"ok; 'monocular' too after `hf download {MonocularOptions().checkpoint}`")
    return ' '.join(names), without


def _gpu(findings: list[Finding]) -> str:
    if any(finding.trouble for finding in findings if finding.package.module == 'torch'):
        return 'unknown without torch'
    import torch

    if not torch.cuda.is_available():
        built = f'built for CUDA {torch.version.cuda}' if torch.version.cuda else 'CPU build'
        return f'none (torch: {built})'
    return f'{torch.cuda.get_device_name()} (CUDA {torch.version.cuda})'
