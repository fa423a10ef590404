# SPDX-License-Identifier: Apache-2.0
"""Start the whole system: scene node, RViz, and on request recorded frames instead of a camera."""

from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from ament_index_python.packages import PackageNotFoundError
from ament_index_python.packages import get_package_prefix
from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument
from launch.actions import LogInfo
from launch.actions import OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.actions import Node
from launch_ros.descriptions import ParameterFile
from launch_ros.parameter_descriptions import ParameterValue

from launch import LaunchContext
from launch import LaunchDescription
from launch import LaunchDescriptionEntity

CAMERAS = ['realsense', 'oak', 'zed', 'orbbec', 'azure_kinect', 'usb', 'other']
TOPICS = ('image', 'camera_info', 'depth')
OTHER_TOPICS = ('depth_camera_info', 'mask')
BOOLEAN = ['true', 'false']
# The rotation of an optical frame (z forward, y down) in a body frame (x forward, z up; REP-103).
OPTICAL = ['--qx', '-0.5', '--qy', '0.5', '--qz', '-0.5', '--qw', '0.5']
# Parameters of the scene node by the argument that sets them where it is not empty.
CHOICES = {
    'detector': 'detector',
    'reconstructor': 'reconstructor',
    'distance': 'distance',
    'support_frame': 'support_frame',
    'target_frame': 'target_frame',
    'mesh_transport': 'markers.mesh_transport',
    'image_transport': 'image_transport',
}


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments; what is started follows from their values."""
    config = Path(get_package_share_directory('img2scene')) / 'config'
    otherwise = 'empty: as params_file says'
    arguments = [
        DeclareLaunchArgument(
            'camera', default_value='', choices=['', *CAMERAS],
            description='Whose topics to listen to, and how its depth images are: a file of '
            'config/cameras, or other for the topics below; empty: realsense, or other where one '
            'of the topics is named'),
        DeclareLaunchArgument(
            'image_topic', default_value='',
            description="Colour picture (sensor_msgs/Image); empty: the camera's; names without "
            'a / in front are under the namespace'),
        DeclareLaunchArgument(
            'camera_info_topic', default_value='',
            description="Calibration of the colour picture (sensor_msgs/CameraInfo); empty: the "
            "camera's"),
        DeclareLaunchArgument(
            'depth_topic', default_value='',
            description='Depth image registered to the colour picture (sensor_msgs/Image); empty: '
            "the camera's"),
        DeclareLaunchArgument(
            'depth_camera_info_topic', default_value='',
            description='Calibration of a depth camera whose images are not registered to the '
            'colour picture; empty: camera_info beside the depth image'),
        DeclareLaunchArgument(
            'mask_topic', default_value='',
            description='Where the picture shows the robot itself (sensor_msgs/Image, mono8); '
            'empty: mask'),
        DeclareLaunchArgument(
            'image_transport', default_value='', choices=['', 'raw', 'compressed'],
            description=f'Transport of the colour picture; {otherwise}'),
        DeclareLaunchArgument(
            'detector', default_value='',
            description=f'What finds the objects: auto, tabletop, coco, detr, topic; {otherwise}'),
        DeclareLaunchArgument(
            'reconstructor', default_value='',
            description='What rebuilds the objects: voxel, depth_shell, triposr, shap_e, remote, '
            f'box; {otherwise}'),
        DeclareLaunchArgument(
            'distance', default_value='',
            description='Where distances come from: auto, sensor, plane, size_prior, monocular, '
            f'fixed; {otherwise}'),
        DeclareLaunchArgument(
            'support_frame', default_value='',
            description='TF frame whose plane z = 0 objects stand on, for cameras without depth; '
            f'{otherwise}'),
        DeclareLaunchArgument(
            'target_frame', default_value='',
            description='TF frame that results are given in, such as base_link or map; '
            f'{otherwise}'),
        DeclareLaunchArgument(
            'mesh_transport', default_value='',
            choices=['', 'inline', 'inline_texture', 'file', 'http'],
            description='How meshes reach viewers: inline (any viewer), inline_texture, file '
            f'(RViz on this machine, looks best), http (other machines, Foxglove); {otherwise}'),
        DeclareLaunchArgument(
            'params_file', default_value='',
            description='Parameters of the scene node (YAML), as in config/img2scene.yaml; they '
            "overrule the camera's; empty: its defaults"),
        DeclareLaunchArgument(
            'namespace', default_value='', description='Namespace of all nodes'),
        DeclareLaunchArgument(
            'autostart', default_value='true', choices=BOOLEAN,
            description='Configure and activate the scene node at once'),
        DeclareLaunchArgument(
            'use_sim_time', default_value='false', choices=BOOLEAN,
            description='Take the time from /clock'),
        DeclareLaunchArgument(
            'log_level', default_value='info', choices=['debug', 'info', 'warn', 'error'],
            description='Least severity of what the scene node logs'),
        DeclareLaunchArgument(
            'rviz', default_value='true', choices=BOOLEAN,
            description='Start RViz, where it is installed'),
        DeclareLaunchArgument(
            'rviz_config', default_value=str(config / 'img2scene.rviz'),
            description='Layout of RViz'),
        DeclareLaunchArgument(
            'fixed_frame', default_value='',
            description='Fixed frame of RViz, z up, connected with the camera by TF; empty: '
            "target_frame, else the camera's"),
        DeclareLaunchArgument(
            'replay', default_value='',
            description='Recorded frames or a bag to play instead of a camera (docs/inputs.md)'),
        DeclareLaunchArgument(
            'replay_rate', default_value='5.0', description='Recorded frames per second'),
        DeclareLaunchArgument(
            'replay_loop', default_value='true', choices=BOOLEAN,
            description='Start the recording again when it ends'),
    ]
    names = [argument.name for argument in arguments]
    return LaunchDescription([*arguments, OpaqueFunction(function=_system, args=[config, names])])


def _system(
    context: LaunchContext, config: Path, names: list[str],
) -> list[LaunchDescriptionEntity]:
    """
    Return the nodes.

    Packages are looked for first: launch ends on one that is not installed, and leaves what it
    has started without a parent.
    """
    value = {name: LaunchConfiguration(name).perform(context) for name in names}
    if value['params_file']:
        value['params_file'] = str(Path(value['params_file']).expanduser())
        if not Path(value['params_file']).is_file():
            raise RuntimeError(f"there is no file '{value['params_file']}' (params_file)")
    camera = _camera(config, value)
    topics = list(camera['topics'].items())
    sim_time = {'use_sim_time': _typed('use_sim_time', bool)}
    common = {'namespace': value['namespace'], 'output': 'screen', 'remappings': topics}
    nodes: list[LaunchDescriptionEntity] = [
        *_unknown(context, names), _scene_node(value, camera, sim_time, common)]
    if value['replay']:
        nodes.append(Node(
            package='img2scene', executable='replay_node', name='replay',
            parameters=[sim_time, {
                'folder': value['replay'],
                'rate': _typed('replay_rate', float),
                'loop': _typed('replay_loop', bool)}], **common))
    frame = camera['fixed_frame']
    if camera.get('optical_frame') and _is_installed('tf2_ros'):
        nodes.append(Node(
            package='tf2_ros', executable='static_transform_publisher', name='optical_frame',
            namespace=value['namespace'], output='log', arguments=[
                *OPTICAL, '--frame-id', frame, '--child-frame-id', camera['optical_frame']]))
    if value['rviz'] == 'true' and not _is_installed('rviz2'):
        nodes.append(LogInfo(
            msg='rviz2 is not installed, so nothing is shown (sudo apt install '
            'ros-$ROS_DISTRO-rviz2); all else runs. rviz:=false is silent about it'))
    elif value['rviz'] == 'true':
        # RViz's Camera display makes `/camera_info` of the name `image`, whatever the namespace.
        info = camera['topics'].get('camera_info', 'camera_info')
        nodes.append(Node(
            package='rviz2', executable='rviz2', name='rviz2', parameters=[sim_time],
            arguments=['-d', value['rviz_config'],
                       '-f', value['fixed_frame'] or value['target_frame'] or frame],
            **common | {'remappings': [*topics, ('/camera_info', info)]}))
    return nodes


def _unknown(context: LaunchContext, names: list[str]) -> list[LogInfo]:
    """Warn of arguments that there are not, such as misspelt ones, which launch ignores."""
    given = [argument.partition(':=')[0] for argument in context.argv]
    nearest = {name: ''.join(get_close_matches(name, names, 1)) for name in given}
    return [LogInfo(msg=f"there is no argument '{name}', so its value is not used; " + (
        f"did you mean '{near}'?" if near else '--show-args lists them all'))
        for name, near in nearest.items() if name not in names]


def _camera(config: Path, value: dict[str, str]) -> dict[str, Any]:
    """Return topics, parameters and frames of the camera, or of the replay."""
    named = {name: value[f'{name}_topic'] for name in TOPICS if value[f'{name}_topic']}
    if value['replay']:
        return {'topics': {name: f'replay/{name}' for name in TOPICS},
                'fixed_frame': 'camera_link', 'parameters': {}}
    name = value['camera'] or ('other' if named else 'realsense')
    if name == 'other':
        camera = {'topics': {}, 'fixed_frame': 'camera_link', 'parameters': {}}
    else:
        camera = yaml.safe_load((config / 'cameras' / f'{name}.yaml').read_text())
    others = {name: value[f'{name}_topic'] for name in OTHER_TOPICS if value[f'{name}_topic']}
    return camera | {'topics': camera['topics'] | named | others}


def _scene_node(
    value: dict[str, str], camera: dict[str, Any], sim_time: dict[str, ParameterValue],
    common: dict[str, Any],
) -> LifecycleNode:
    logger = '.'.join([*value['namespace'].strip('/').split('/'), 'img2scene']).lstrip('.')
    chosen = {
        parameter: ParameterValue(value[name], value_type=str)
        for name, parameter in CHOICES.items() if value[name]}
    return LifecycleNode(
        package='img2scene', executable='scene_node', name='img2scene', emulate_tty=True,
        arguments=['--ros-args', '--log-level', f"{logger}:={value['log_level']}"],
        parameters=[
            # Texts as texts: launch reads others as YAML.
            {name: ParameterValue(setting, value_type=str) if type(setting) is str else setting
             for name, setting in camera['parameters'].items()},
            *([ParameterFile(value['params_file'])] if value['params_file'] else []),
            sim_time, chosen,
            {'autostart': _typed('autostart', bool)}], **common)


def _typed(name: str, kind: type) -> ParameterValue:
    return ParameterValue(LaunchConfiguration(name), value_type=kind)


def _is_installed(package: str) -> bool:
    try:
        get_package_prefix(package)
        return True
    except PackageNotFoundError:
        return False
