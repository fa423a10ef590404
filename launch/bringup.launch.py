# SPDX-License-Identifier: Apache-2.0
"""Start the whole system: scene node, RViz, and on request recorded frames instead of a camera."""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument
from launch.actions import OpaqueFunction
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.actions import Node
from launch_ros.descriptions import ParameterFile
from launch_ros.parameter_descriptions import ParameterValue

from launch import LaunchContext
from launch import LaunchDescription

TOPICS = ('image', 'camera_info', 'depth')
BOOLEAN = ('true', 'false')
# Parameters of the scene node that have an argument of their own, empty by default.
CHOICES = ('detector', 'reconstructor', 'distance', 'support_frame')


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments; what is started follows from their values."""
    config = Path(get_package_share_directory('img2scene')) / 'config'
    arguments = [
        DeclareLaunchArgument(
            'image_topic', default_value='/camera/color/image_raw',
            description='Colour picture (sensor_msgs/Image)'),
        DeclareLaunchArgument(
            'camera_info_topic', default_value='/camera/color/camera_info',
            description='Calibration of the colour picture (sensor_msgs/CameraInfo)'),
        DeclareLaunchArgument(
            'depth_topic', default_value='/camera/aligned_depth_to_color/image_raw',
            description='Depth image registered to the colour picture (sensor_msgs/Image)'),
        DeclareLaunchArgument(
            'image_transport', default_value='raw', choices=['raw', 'compressed'],
            description='Transport of the colour picture'),
        DeclareLaunchArgument(
            'detector', default_value='',
            description='What finds the objects: auto, tabletop, detr, ...; empty: as '
            'params_file says'),
        DeclareLaunchArgument(
            'reconstructor', default_value='',
            description='What rebuilds the objects: voxel, depth_shell, ...; empty: as '
            'params_file says'),
        DeclareLaunchArgument(
            'distance', default_value='',
            description='Where distances come from: auto, sensor, plane, size_prior, ...; empty: '
            'as params_file says'),
        DeclareLaunchArgument(
            'support_frame', default_value='',
            description='TF frame whose plane z = 0 objects stand on, for cameras without depth; '
            'empty: as params_file says'),
        DeclareLaunchArgument(
            'params_file', default_value=str(config / 'img2scene.yaml'),
            description='Parameters of the scene node (YAML)'),
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
            'rviz', default_value='true', choices=BOOLEAN, description='Start RViz'),
        DeclareLaunchArgument(
            'rviz_config', default_value=str(config / 'img2scene.rviz'),
            description='Layout of RViz'),
        DeclareLaunchArgument(
            'fixed_frame', default_value='camera_color_optical_frame',
            description='Fixed frame of RViz; any frame that TF connects with the camera'),
        DeclareLaunchArgument(
            'replay', default_value='',
            description='Recorded frames or a bag to play instead of a camera (docs/inputs.md)'),
        DeclareLaunchArgument(
            'replay_rate', default_value='5.0', description='Recorded frames per second'),
        DeclareLaunchArgument(
            'replay_loop', default_value='true', choices=BOOLEAN,
            description='Start the recording again when it ends'),
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=_nodes)])


def _nodes(context: LaunchContext) -> list[Node]:
    """Return the nodes; the topics of a recording take the place of the camera's."""
    value = {name: LaunchConfiguration(name).perform(context) for name in (
        'namespace', 'replay', 'log_level', *CHOICES)}
    is_replay = bool(value['replay'])
    topics = [
        (name, f'replay/{name}' if is_replay else LaunchConfiguration(f'{name}_topic'))
        for name in TOPICS]
    use_sim_time = {
        'use_sim_time': ParameterValue(LaunchConfiguration('use_sim_time'), value_type=bool)}
    chosen = {name: value[name] for name in CHOICES if value[name]}
    logger = '.'.join([*value['namespace'].strip('/').split('/'), 'img2scene']).lstrip('.')
    nodes = [
        LifecycleNode(
            package='img2scene', executable='scene_node', name='img2scene',
            namespace=LaunchConfiguration('namespace'), output='screen', emulate_tty=True,
            remappings=topics,
            arguments=['--ros-args', '--log-level', f"{logger}:={value['log_level']}"],
            parameters=[
                ParameterFile(LaunchConfiguration('params_file')), use_sim_time, chosen,
                {'image_transport': LaunchConfiguration('image_transport'),
                 'autostart': ParameterValue(
                     LaunchConfiguration('autostart'), value_type=bool)}]),
        Node(
            package='rviz2', executable='rviz2', name='rviz2',
            namespace=LaunchConfiguration('namespace'), output='screen', remappings=topics,
            arguments=['-d', LaunchConfiguration('rviz_config'),
                       '-f', LaunchConfiguration('fixed_frame')],
            parameters=[use_sim_time], condition=IfCondition(LaunchConfiguration('rviz'))),
    ]
    if is_replay:
        nodes.append(Node(
            package='img2scene', executable='replay_node', name='replay',
            namespace=LaunchConfiguration('namespace'), output='screen', remappings=topics,
            parameters=[use_sim_time, {
                'folder': value['replay'],
                'rate': ParameterValue(LaunchConfiguration('replay_rate'), value_type=float),
                'loop': ParameterValue(LaunchConfiguration('replay_loop'), value_type=bool)}]))
    return nodes
