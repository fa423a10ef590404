"""The shipped parameter file, RViz layout and launch file fit the nodes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from img2scene_ros.nodes.parameters import ParameterGroup
from img2scene_ros.nodes.scene_node import NodeOptions
from img2scene_ros.pipeline import PipelineOptions
from img2scene_ros.registry import FOLDERS
from img2scene_ros.registry import backends
from img2scene_ros.scene.export import ExportOptions

ROOT = Path(__file__).parents[2]


def flat(values: dict[str, Any], prefix: str = '') -> dict[str, Any]:
    found = {}
    for name, value in values.items():
        found |= flat(value, f'{prefix}{name}.') if isinstance(value, dict) \
            else {prefix + name: value}
    return found


def test_parameter_file_holds_the_defaults() -> None:
    groups = [ParameterGroup(NodeOptions), ParameterGroup(PipelineOptions),
              ParameterGroup(ExportOptions, 'export.')] + [
        ParameterGroup(found.Options, f'{name}.')
        for group in FOLDERS for name, found in backends(group).items()]
    defaults = {
        name: getattr(group.options(), field)
        for group in groups for name, field in group.names.items()}
    content = yaml.safe_load((ROOT / 'config' / 'img2scene.yaml').read_text())
    for name, value in flat(content['/**']['ros__parameters']).items():
        expected = defaults[name]
        assert (tuple(value) if isinstance(value, list) else value) == expected, name
        assert isinstance(value, list) or type(value) is type(expected), name


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
        'Picture': 'image', 'Overlay': 'img2scene/overlay', 'Labels': 'img2scene/labels',
        'Meshes': 'img2scene/markers', 'Cloud': 'img2scene/cloud'}
    for name in ('Meshes', 'Cloud'):
        assert displays[name]['Topic']['Durability Policy'] == 'Transient Local'
    fixed_frame = layout['Visualization Manager']['Global Options']['Fixed Frame']
    assert fixed_frame == 'camera_color_optical_frame'


def test_rviz_looks_as_the_camera_does(layout: dict[str, Any]) -> None:
    """Follow rviz_default_plugins' OrbitViewController::updateCamera in the optical frame."""
    view = layout['Visualization Manager']['Views']['Current']
    yaw, pitch = view['Yaw'], view['Pitch']
    assert not view['Invert Z Axis'] and view['Target Frame'] == '<Fixed Frame>'
    backwards = np.array(
        [np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)])
    right = np.cross(-backwards, [0, 0, 1])
    down = np.cross(-backwards, right)
    assert -backwards[2] > 0.9, 'forward is z'
    np.testing.assert_allclose(right / np.linalg.norm(right), [1, 0, 0], atol=1e-3)
    assert down[1] / np.linalg.norm(down) > 0.9, 'down is y'


def test_launch_file_describes_every_argument() -> None:
    launch = pytest.importorskip('launch_ros', reason='launch_ros comes with ROS, not with pip')
    assert launch
    from launch.actions import DeclareLaunchArgument
    from launch.launch_description_sources import get_launch_description_from_python_launch_file
    description = get_launch_description_from_python_launch_file(
        str(ROOT / 'launch' / 'bringup.launch.py'))
    arguments = [
        entity for entity in description.entities if isinstance(entity, DeclareLaunchArgument)]
    assert {'image_topic', 'detector', 'rviz', 'replay'} <= {item.name for item in arguments}
    assert all(item.description for item in arguments)
