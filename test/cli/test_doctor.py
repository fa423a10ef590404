# SPDX-License-Identifier: Apache-2.0
"""The doctor's diagnoses of installations that are not in order."""

from types import ModuleType

import pytest

from img2scene_ros.cli import doctor
from img2scene_ros.cli import main
from img2scene_ros.cli.doctor import Package
from img2scene_ros.cli.doctor import advice
from img2scene_ros.cli.doctor import examine

OPEN3D = next(package for package in doctor.PACKAGES if package.module == 'open3d')
RCLPY = next(package for package in doctor.PACKAGES if package.module == 'rclpy')


def raising(error: Exception):
    def load(_: str) -> ModuleType:
        raise error
    return load


@pytest.mark.parametrize('library, package', [
    ('libGL.so.1', 'libgl1'), ('libgomp.so.1', 'libgomp1'), ('libusb-1.0.so.0', 'libusb-1.0-0'),
    ('libX11.so.6', 'libx11-6')])
def test_missing_system_library_is_named_with_its_package(library, package):
    words = f'{library}: cannot open shared object file: No such file or directory'
    finding = examine(OPEN3D, raising(ImportError(words)))
    assert finding.is_broken
    line = advice(finding, 'jazzy')
    assert f'the system library {library} is missing' in line
    assert line.endswith(f'sudo apt install {package}')


def test_unknown_system_library_is_named():
    finding = examine(OPEN3D, raising(OSError('libfoo-2.so.7: cannot open shared object file')))
    assert 'the system package that holds libfoo-2.so.7' in advice(finding, 'jazzy')


def test_missing_ros_package_is_no_breakage_and_names_the_distribution():
    finding = examine(
        RCLPY, raising(ModuleNotFoundError("No module named 'rclpy'", name='rclpy')))
    assert finding.trouble and not finding.is_broken
    line = advice(finding, 'kilted')
    assert 'ros-kilted-rclpy' in line and 'no ROS nodes' in line


def test_package_that_lacks_another_package_is_broken():
    finding = examine(
        OPEN3D, raising(ModuleNotFoundError("No module named 'dash'", name='dash')))
    assert finding.is_broken
    assert "needs the Python package 'dash'" in advice(finding, 'jazzy')


@pytest.mark.parametrize('error, code', [
    (ModuleNotFoundError("No module named 'x'", name='x'), 0),
    (ImportError('libGL.so.1: cannot open shared object file'), 1)])
def test_exit_code_tells_broken_from_missing(monkeypatch, capsys, error, code):
    package = Package('x', ('x',), 'x does not work', 'pip install x')
    monkeypatch.setattr(doctor, 'PACKAGES', (RCLPY, package))
    monkeypatch.setattr(doctor, '_gpu', lambda _: 'none')
    found = examine
    monkeypatch.setattr(
        doctor, 'examine', lambda package: found(
            package, raising(error) if package.module == 'x' else lambda _: ModuleType('fine')))
    assert doctor.run_doctor() == code
    printed = capsys.readouterr().out
    assert 'x does not work' in printed


def test_missing_core_package_is_a_failure(monkeypatch, capsys):
    core = Package('x', ('x',), 'nothing works', 'pip install x', is_core=True)
    monkeypatch.setattr(doctor, 'PACKAGES', (RCLPY, core))
    monkeypatch.setattr(doctor, '_gpu', lambda _: 'none')
    assert doctor.run_doctor() == 1
    assert 'pip install x' in capsys.readouterr().out


def test_this_installation_is_in_order(capsys):
    assert main(['doctor']) == 0
    printed = capsys.readouterr().out
    assert 'numpy' in printed and 'GPU' in printed
