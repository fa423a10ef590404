# SPDX-License-Identifier: Apache-2.0
"""The launch file: where launch is installed, as processes over real DDS, else by its text."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest
import yaml
from harness import TIMEOUT
from harness import Robot
from rcl_interfaces.srv import GetParameters
from rclpy.parameter import parameter_value_to_python

from img2scene_ros.nodes.demo_nodes import free_domain
from img2scene_ros.nodes.scene_node import NodeOptions
from img2scene_ros.pipeline import parse_settings
from img2scene_ros.registry import backends

ROOT = Path(__file__).parents[2]
FILE = ROOT / 'launch' / 'bringup.launch.py'
CAMERAS = sorted((ROOT / 'config' / 'cameras').glob('*.yaml'))
RUN = '''
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
arguments = [tuple(argument.split(':=', 1)) for argument in sys.argv[2:]]
service = LaunchService(argv=sys.argv[2:])
service.include_launch_description(LaunchDescription([IncludeLaunchDescription(
    PythonLaunchDescriptionSource(sys.argv[1]), launch_arguments=arguments)]))
sys.exit(service.run())
'''
SCRIPT = '''#!{python}
from img2scene_ros.nodes.process import {name}
{name}()
'''
Launch = Callable[..., 'Launched']


def declaration(argument: str) -> str:
    """Return the text of an argument's declaration."""
    return re.search(
        rf"DeclareLaunchArgument\(\s*'{argument}'.*?(?=DeclareLaunchArgument|\]\n)",
        FILE.read_text(), re.DOTALL).group()


@pytest.mark.parametrize('argument', ('detector', 'distance', 'reconstructor'))
def test_arguments_name_all_backends(argument: str) -> None:
    words = set(re.findall(r'\w+', declaration(argument)))
    built_in = {name for name, found in backends(f'{argument}s').items()
                if found.__module__.startswith('img2scene_ros.')}
    assert built_in <= words


def test_every_preset_is_a_choice() -> None:
    names, = re.findall(r'^CAMERAS = \[(.*)\]', FILE.read_text(), re.MULTILINE)
    assert set(re.findall(r'\w+', names)) == {path.stem for path in CAMERAS} | {'other'}


@pytest.mark.parametrize('path', CAMERAS, ids=lambda path: path.stem)
def test_presets_hold_topics_and_settings_that_the_node_takes(path: Path) -> None:
    preset = yaml.safe_load(path.read_text())
    assert set(preset['topics']) == {'image', 'camera_info', 'depth'}
    assert not any(topic.startswith('/') for topic in preset['topics'].values()), \
        'relative, so that they follow the namespace'
    settings = preset['parameters']
    own = {name: settings.pop(name) for name in list(settings) if '.' not in name}
    assert NodeOptions(**own).driver.startswith('ros2 ')
    parse_settings(settings)


class Launched:
    """A process that launches, in a process group of its own as a terminal makes one."""

    def __init__(self, domain: int, folder: Path, prefix: Path, *arguments: str) -> None:
        self._log = folder / f'launch-{monotonic()}.log'
        paths = [str(prefix), os.environ.get('AMENT_PREFIX_PATH', '')]
        self.process = subprocess.Popen(
            [sys.executable, '-c', RUN, str(FILE), *arguments], start_new_session=True,
            stdout=self._log.open('w'), stderr=subprocess.STDOUT, env=os.environ | {
                'ROS_DOMAIN_ID': str(domain), 'AMENT_PREFIX_PATH': os.pathsep.join(paths),
                'ROS_LOG_DIR': str(folder), 'RCUTILS_COLORIZED_OUTPUT': '0'})

    @property
    def log(self) -> str:
        return self._log.read_text()

    def stop(self) -> int:
        """Interrupt it as Ctrl-C does: its whole group."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGINT)
        return self.process.wait(TIMEOUT)


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """Return a folder where ament finds this source tree as an installed package."""
    for place in ('share/ament_index/resource_index/packages', 'share/img2scene', 'lib/img2scene'):
        (tmp_path / 'prefix' / place).mkdir(parents=True)
    prefix = tmp_path / 'prefix'
    (prefix / 'share/ament_index/resource_index/packages/img2scene').touch()
    (prefix / 'share/img2scene/config').symlink_to(ROOT / 'config')
    for name in ('scene_node', 'replay_node'):
        script = prefix / 'lib/img2scene' / name
        script.write_text(SCRIPT.format(python=sys.executable, name=name))
        script.chmod(0o755)
    return prefix


@pytest.fixture
def launch(prefix: Path, tmp_path: Path) -> Iterator[Launch]:
    """Return a function that launches with arguments in a DDS domain."""
    pytest.importorskip('launch_ros', reason='launch_ros comes with ROS, not with pip')
    started = []

    def start(domain: int, *arguments: str) -> Launched:
        started.append(Launched(domain, tmp_path, prefix, *arguments))
        return started[-1]

    yield start
    for launched in started:
        launched.stop()


def test_every_argument_is_described(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip('launch_ros', reason='launch_ros comes with ROS, not with pip')
    from launch.actions import DeclareLaunchArgument
    from launch.launch_description_sources import get_launch_description_from_python_launch_file
    monkeypatch.setenv('AMENT_PREFIX_PATH', str(prefix))
    description = get_launch_description_from_python_launch_file(str(FILE))
    arguments = [
        entity for entity in description.entities if isinstance(entity, DeclareLaunchArgument)]
    assert {'camera', 'image_topic', 'detector', 'target_frame', 'mesh_transport', 'rviz',
            'replay'} <= {item.name for item in arguments}
    assert all(item.description for item in arguments)


def test_without_rviz_it_says_so_and_goes_on(launch: Launch, frames_folder: Path) -> None:
    robot = Robot(free_domain())
    launched = launch(
        robot.domain, f'replay:={frames_folder / "ycb_3"}', 'detector:=tabletop',
        'reconstructor:=depth_shell', 'mesh_transport:=inline_texture')
    robot.spin_until(lambda: robot.markers, 'the replay is perceived')
    assert 'rviz2 is not installed' in launched.log
    values = robot.call(GetParameters, '/img2scene/get_parameters', GetParameters.Request(
        names=['detector', 'markers.mesh_transport'])).values
    assert [parameter_value_to_python(value) for value in values] == ['tabletop', 'inline_texture']
    robot.close()
    assert launched.stop() == 0
    assert 'Traceback' not in launched.log and 'no parameter' not in launched.log


def test_rviz_gets_the_frame_and_topics_of_the_camera(
    launch: Launch, prefix: Path, tmp_path: Path,
) -> None:
    """With a program in RViz's place that writes down its arguments."""
    (prefix / 'share/ament_index/resource_index/packages/rviz2').touch()
    (prefix / 'lib/rviz2').mkdir()
    written = tmp_path / 'arguments'
    program = prefix / 'lib/rviz2/rviz2'
    program.write_text(f'#!/bin/sh\necho "$@" > {written}.part\nmv {written}.part {written}\n')
    program.chmod(0o755)
    robot = Robot(free_domain())
    launched = launch(
        robot.domain, 'camera:=oak', 'namespace:=arm', 'detector:=tabletop',
        'reconstructor:=depth_shell')
    robot.spin_until(written.exists, 'RViz is started')
    robot.close()
    launched.stop()
    arguments = written.read_text()
    assert '-f oak-d-base-frame' in arguments
    assert 'img2scene.rviz' in arguments and 'image:=oak/rgb/image_rect' in arguments
    assert '/camera_info:=oak/rgb/camera_info' in arguments, "the Camera display's"


def test_camera_sets_topics_under_the_namespace_and_names_its_driver(launch: Launch) -> None:
    robot = Robot(free_domain(), '/arm/img2scene')
    launched = launch(
        robot.domain, 'camera:=realsense', 'namespace:=arm', 'rviz:=false', 'detector:=tabletop',
        'reconstructor:=depth_shell', 'depth_topic:=/elsewhere/depth')
    robot.spin_until(
        lambda: 'align_depth.enable:=true' in robot.diagnosis(), 'the driver is named')
    assert "'/arm/camera/camera/color/image_raw'" in robot.diagnosis()
    topics = dict(robot.node.get_topic_names_and_types())
    assert '/elsewhere/depth' in topics
    robot.close()
    assert launched.stop() == 0
    assert 'rviz2' not in launched.log


def test_other_cameras_have_relative_topics(launch: Launch) -> None:
    robot = Robot(free_domain(), '/arm/img2scene')
    launched = launch(
        robot.domain, 'image_topic:=color/image', 'namespace:=arm', 'rviz:=false',
        'detector:=tabletop', 'reconstructor:=depth_shell')
    robot.spin_until(lambda: "'/arm/color/image'" in robot.diagnosis(), 'the topic is named')
    topics = dict(robot.node.get_topic_names_and_types())
    assert {'/arm/camera_info', '/arm/depth'} <= set(topics)
    robot.close()
    assert launched.stop() == 0


def test_misspelt_arguments_are_said_with_the_nearest_name(launch: Launch) -> None:
    robot = Robot(free_domain())
    launched = launch(
        robot.domain, 'detectr:=tabletop', 'qwerty:=1', 'rviz:=false', 'autostart:=false')
    robot.spin_until(lambda: "'qwerty'" in launched.log, 'it warns')
    assert re.search("'detectr'.*'detector'", launched.log)
    assert "'rviz'" not in launched.log
    robot.close()
    launched.stop()


def test_a_parameter_file_that_is_not_there_starts_nothing(launch: Launch, tmp_path: Path) -> None:
    launched = launch(free_domain(), f'params_file:={tmp_path}/mine.yaml', 'rviz:=false')
    assert launched.process.wait(TIMEOUT) == 1
    assert 'mine.yaml' in launched.log and 'process started' not in launched.log
