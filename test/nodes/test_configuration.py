# SPDX-License-Identifier: Apache-2.0
"""The shipped parameter file, RViz layout and launch file fit the nodes."""

import json
import re
import runpy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from harness import NodeProcess
from harness import Robot
from rcl_interfaces.srv import GetParameters
from rcl_interfaces.srv import ListParameters
from rclpy.parameter import Parameter
from rclpy.parameter import parameter_value_to_python
from synthetic import GEOMETRIC

from img2scene_ros.nodes.demo_nodes import free_domain
from img2scene_ros.nodes.parameters import ParameterGroup
from img2scene_ros.nodes.parameters import on_change
from img2scene_ros.nodes.replay_node import OPTICAL
from img2scene_ros.nodes.replay_node import ReplayOptions
from img2scene_ros.options import Options
from img2scene_ros.options import option
from img2scene_ros.pipeline import Pipeline
from img2scene_ros.pipeline import parse_settings
from img2scene_ros.types import Frame

ROOT = Path(__file__).parents[2]
FILE = ROOT / 'config' / 'img2scene.yaml'
PAGE = ROOT / 'docs' / 'nodes.md'
WRITTEN = runpy.run_path(str(ROOT / 'scripts' / 'write_parameters.py'))


def flat(values: dict[str, Any], prefix: str = '') -> dict[str, Any]:
    found = {}
    for name, value in values.items():
        found |= flat(value, f'{prefix}{name}.') if isinstance(value, dict) \
            else {prefix + name: value}
    return found


def test_parameter_file_is_what_a_node_declares(tmp_path: Path) -> None:
    """Every parameter of a node that has no file, with its value, and nothing else."""
    robot = Robot(free_domain())
    node = NodeProcess('scene_node', robot.domain, tmp_path, '-p', 'autostart:=false')
    names = robot.call(ListParameters, '/img2scene/list_parameters').result.names
    values = robot.call(
        GetParameters, '/img2scene/get_parameters', GetParameters.Request(names=names)).values
    declared = {name: parameter_value_to_python(value) for name, value in zip(names, values)}
    assert declared.pop('autostart') is False
    for name in ('use_sim_time', 'start_type_description_service'):  # rclpy's own
        declared.pop(name, None)
    written = flat(yaml.safe_load(FILE.read_text())['/**']['ros__parameters'])
    assert written.pop('autostart') is True
    assert written == declared
    assert {name: type(value) for name, value in written.items()} == {
        name: type(value) for name, value in declared.items()}
    assert node.stop() == 0
    robot.close()


def test_a_node_takes_the_parameter_file(tmp_path: Path) -> None:
    robot = Robot(free_domain())
    node = NodeProcess('scene_node', robot.domain, tmp_path, '--params-file', str(FILE))
    robot.spin_until(lambda: robot.state == 'active', 'it is active')
    assert node.stop() == 0
    assert node.complaints() == []
    robot.close()


def test_parameter_file_is_as_it_is_generated() -> None:
    assert FILE.read_text() == WRITTEN['parameter_file'](
        WRITTEN['nodes']()['scene_node']), 'run make config'


@pytest.mark.parametrize('name, parameters', (
    ('detector_node', ('-p', 'detector:=tabletop')), ('replay_node', ('-p', 'folder:={frame}'))))
def test_the_page_of_a_node_has_all_its_parameters(
    frames_folder: Path, tmp_path: Path, name: str, parameters: tuple[str, ...],
) -> None:
    robot = Robot(free_domain())
    node = NodeProcess(name, robot.domain, tmp_path, *(
        part.format(frame=frames_folder / 'ycb_3') for part in parameters))
    service = f"/{name.removesuffix('_node')}/list_parameters"
    declared = set(robot.call(ListParameters, service).result.names)
    table = PAGE.read_text().split(f'<!-- parameters of {name} -->')[1].split('<!-- end -->')[0]
    listed = set(re.findall(r'^\| `([\w.]+)` \|', table, re.MULTILINE))
    own = {'use_sim_time', 'start_type_description_service'}  # rclpy's
    assert listed == {one for one in declared if not one.startswith('qos_overrides')} - own
    assert node.stop() == 0
    robot.close()


def test_tables_of_parameters_are_as_they_are_generated() -> None:
    assert PAGE.read_text() == WRITTEN['with_tables'](PAGE.read_text()), 'run make config'


def test_misspelt_parameters_are_said_with_the_nearest_name(
    tmp_path: Path, frames_folder: Path,
) -> None:
    """From YAML and the command line, of both nodes; right ones and QoS overrides are not."""
    file = tmp_path / 'parameters.yaml'
    file.write_text(
        '/**: {ros__parameters: {tabletop.min_hight: 0.01, tabletop.gap: 0.01, xyz: 1,'
        ' qos_overrides./clock.subscription.depth: 3}}')
    others = tmp_path / 'others.yaml'
    others.write_text('{scene_node: {ros__parameters: {rate: 3.0}}, arm: {img2scene: '
                      '{ros__parameters: {rate: 3.0}}}}')
    robot = Robot(free_domain())
    scene = NodeProcess(
        'scene_node', robot.domain, tmp_path, '-p', 'autostart:=false', '-p', 'detectr:=tabletop',
        '--params-file', str(file), '--params-file', str(others))
    replay = NodeProcess(
        'replay_node', robot.domain, tmp_path, '-p', f'folder:={frames_folder / "ycb_3"}',
        '-p', 'rte:=3.0', '-r', '__ns:=/arm', '-r', '__node:=img2scene', '--params-file',
        str(others))
    robot.spin_until(lambda: 'waiting to be configured' in scene.log, 'the scene node runs')
    robot.spin_until(lambda: 'playing' in replay.log, 'the replay node runs')
    one, two, three, four = scene.complaints()
    assert "'detectr'" in one and "'detector'" in one
    assert "'tabletop.min_hight'" in two and "'tabletop.min_height'" in two
    assert "'xyz'" in three and 'param list /img2scene' in three
    assert 'others.yaml' in four and '/scene_node, /arm/img2scene' in four
    replayed, = replay.complaints()
    assert "'rte'" in replayed and "'rate'" in replayed
    robot.close()
    assert scene.stop() == replay.stop() == 0


@pytest.fixture
def layout() -> dict[str, Any]:
    return yaml.safe_load((ROOT / 'config' / 'img2scene.rviz').read_text())


def test_rviz_shows_what_the_nodes_publish(layout: dict[str, Any]) -> None:
    displays = {
        display['Name']: display for display in layout['Visualization Manager']['Displays']}
    topics = {
        name: display['Topic']['Value'] for name, display in displays.items()
        if 'Topic' in display}
    # Relative names, so that they follow the namespace and the remapping of the launch file.
    assert topics == {
        'Meshes on the picture': 'image', 'Overlay': 'img2scene/overlay',
        'Labels': 'img2scene/labels', 'Meshes': 'img2scene/markers', 'Cloud': 'img2scene/cloud'}
    for name in ('Meshes', 'Cloud'):
        assert displays[name]['Topic']['Durability Policy'] == 'Transient Local'
    assert {name for name, display in displays.items() if not display['Enabled']} == {
        'Labels', 'Cloud', 'Frames'}


def test_foxglove_shows_what_the_nodes_publish() -> None:
    layout = json.loads((ROOT / 'config' / 'foxglove.json').read_text())
    panels = layout['configById']

    def shown(part: Any) -> set[str]:
        return {part} if isinstance(part, str) else shown(part['first']) | shown(part['second'])

    assert shown(layout['layout']) == set(panels)
    assert panels['3D!scene']['topics']['/img2scene/markers']['visible']
    assert panels['3D!scene']['followTf'] == ReplayOptions().body_frame
    assert panels['Image!overlay']['imageMode']['imageTopic'] == '/img2scene/overlay'
    assert {panel['serviceName'] for panel in panels.values() if 'serviceName' in panel} == {
        '/img2scene/look', '/img2scene/clear'}


def docks(layout: dict[str, Any]) -> dict[str, bool]:
    """Return which docks QMainWindow::saveState wrote, by name, and whether they are shown."""
    state = bytes.fromhex(layout['Window Geometry']['QMainWindow State'])
    found = {}
    for start in (match.end() for match in re.finditer(b'\xfb\0\0\0', state)):
        end = start + 1 + state[start]
        found[state[start + 1:end].decode('utf-16-be')] = bool(state[end] & 1)
    return found


def test_rviz_has_a_dock_for_every_picture_and_none_in_tabs(layout: dict[str, Any]) -> None:
    displays = layout['Visualization Manager']['Displays']
    pictures = {display['Name']: display['Enabled'] for display in displays
                if display['Class'].endswith(('/Image', '/Camera'))}
    assert pictures.items() <= docks(layout).items()
    assert b'\xfa' not in bytes.fromhex(layout['Window Geometry']['QMainWindow State']), 'tabs'


@pytest.mark.parametrize('name', ('ycb_1', 'ycb_2', 'ycb_3', 'table_mustard_bottle'))
def test_rviz_looks_at_the_scene_with_z_up(
    layout: dict[str, Any], recorded: Callable[[str], Frame], name: str,
) -> None:
    """Follow rviz_default_plugins' OrbitViewController::updateCamera in the body frame."""
    manager = layout['Visualization Manager']
    view = manager['Views']['Current']
    assert manager['Global Options']['Fixed Frame'] == ReplayOptions().body_frame
    assert not view['Invert Z Axis'] and view['Target Frame'] == '<Fixed Frame>'
    yaw, pitch = view['Yaw'], view['Pitch']
    backwards = np.array(
        [np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)])
    right = np.cross(-backwards, [0, 0, 1]) / np.cos(pitch)
    axes = np.stack([right, np.cross(right, -backwards), -backwards])
    assert axes[1, 2] > 0.9, 'up on the screen is z'
    eye = np.array(list(view['Focal Point'].values())) + view['Distance'] * backwards
    half = np.tan(np.radians(22.5))  # of Ogre's cameras, upwards; the window is wider than high
    for item in Pipeline(*parse_settings(GEOMETRIC)).perceive(recorded(name)).objects:
        x, y, z = ((item.points @ OPTICAL[:3, :3].T - eye) @ axes.T).T
        assert (z > 0).all() and (np.abs(y / z) < half).all() and (np.abs(x / z) < half).all()


def test_a_list_of_texts_can_be_emptied_at_run_time(tmp_path: Path) -> None:
    """`ros2 param set` has no empty list of texts, but one with an empty text."""
    @dataclass(frozen=True)
    class Listed(Options):
        labels: tuple[str, ...] = option((), 'Names')

    robot, group = Robot(free_domain()), ParameterGroup(Listed, 'listed.')
    group.declare(robot.node)
    changes: list[dict[str, Any]] = []
    on_change(robot.node, changes.append)
    for value, labels in ((['cup', 'can'], ('cup', 'can')), ([''], ())):
        robot.node.set_parameters([Parameter('listed.labels', value=value)])
        assert group.read(robot.node).labels == labels
        assert changes[-1] == {'listed.labels': list(labels)}
    robot.close()
