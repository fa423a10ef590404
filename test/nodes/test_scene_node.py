# SPDX-License-Identifier: Apache-2.0
"""The scene node beside the replay node, each a process, over real DDS."""

import json
import re
import signal
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import trimesh
from harness import GEOMETRIC
from harness import NodeProcess
from harness import Robot
from harness import meshes
from harness import stamp_of
from harness import triangles
from rcl_interfaces.srv import DescribeParameters
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import Image
from sensor_msgs.msg import PointCloud2
from std_srvs.srv import Trigger
from visualization_msgs.msg import Marker
from visualization_msgs.msg import MarkerArray

from img2scene_ros.io.ros_images import color_from_image
from img2scene_ros.nodes.demo_nodes import free_domain
from img2scene_ros.registry import backends
from img2scene_ros.types import Frame

FRAME = 'ycb_3'


@pytest.fixture(scope='module')
def replay(
    robot: Robot, scene_node: NodeProcess, frames_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[NodeProcess]:
    """Play one recorded frame again and again; start when the first scene is complete."""
    replay = NodeProcess(
        'replay_node', robot.domain, tmp_path_factory.mktemp('logs'),
        '-p', f'folder:={frames_folder / FRAME}', '-p', 'rate:=3.0', '-p', 'frame_id:=optical')
    robot.spin_until(lambda: is_complete(robot), 'all objects are rebuilt')
    yield replay
    assert replay.stop() == 0


def is_complete(robot: Robot) -> bool:
    robot.diagnosis()
    values = {item.key: item.value for item in robot.diagnostics[-1].status[0].values}
    return values.get('objects', '0') != '0' and values['reconstructions pending'] == '0'


def latest(robot: Robot, kind: type, topic: str, condition: Callable[[Any], bool]) -> Any:
    """Return the next message that fulfils a condition."""
    received = []
    subscription = robot.subscribe(kind, f'{robot.scene}/{topic}', received.append) \
        if kind is not Image else robot.node.create_subscription(
            kind, f'{robot.scene}/{topic}', received.append, 1)
    robot.spin_until(lambda: any(map(condition, received)), f'{topic} arrives')
    robot.node.destroy_subscription(subscription)
    return next(message for message in received if condition(message))


def in_camera(marker: Marker) -> np.ndarray:
    """Return the marker's triangles in the camera's frame, (F, 3, 3) metres."""
    p, q = marker.pose.position, marker.pose.orientation
    rotation = Rotation.from_quat([q.x, q.y, q.z, q.w])
    corners = triangles(marker)
    return rotation.apply(corners.reshape(-1, 3)).reshape(corners.shape) + [p.x, p.y, p.z]


def by_name(shown: MarkerArray) -> dict[tuple[str, int], Marker]:
    """Return markers by namespace and id; the order in which they came means nothing."""
    return {(one.ns, one.id): one for one in shown.markers}


def next_markers(robot: Robot) -> MarkerArray:
    robot.markers.clear()
    robot.spin_until(lambda: robot.markers, 'markers arrive')
    return robot.markers[-1]


def test_markers_are_in_order_and_in_the_images_frame(robot: Robot, replay: NodeProcess) -> None:
    robot.spin_until(lambda: len(robot.markers) >= 5, 'the scene is shown again and again')
    for shown in robot.markers:
        assert {marker.header.frame_id for marker in shown.markers[1:]} <= {'optical'}
    stamps = [stamp_of(shown) for shown in robot.markers if meshes(shown)]
    assert stamps == sorted(stamps)


def test_every_number_is_finite_and_every_marker_can_be_drawn(
    robot: Robot, replay: NodeProcess,
) -> None:
    for marker in next_markers(robot).markers[1:]:
        p, q, s = marker.pose.position, marker.pose.orientation, marker.scale
        assert np.isfinite([p.x, p.y, p.z, s.x, s.y, s.z]).all()
        assert np.linalg.norm([q.x, q.y, q.z, q.w]) == pytest.approx(1)
        assert 0 < marker.color.a <= 1 and not marker.frame_locked
        if marker.ns == 'support':
            continue
        if marker.type == Marker.TEXT_VIEW_FACING:
            assert marker.text and s.z > 0
            continue
        assert marker.type == Marker.TRIANGLE_LIST and (s.x, s.y, s.z) == (1, 1, 1)
        assert len(marker.points) % 3 == 0 and len(marker.colors) == len(marker.points) > 0
        assert np.isfinite(triangles(marker)).all()
        assert all(0 <= c.r <= 1 and 0 <= c.g <= 1 and 0 <= c.b <= 1 and c.a == 1
                   for c in marker.colors)


def test_every_scene_is_whole_with_the_same_ids(
    robot: Robot, replay: NodeProcess,
) -> None:
    ids = set(meshes(next_markers(robot)))
    assert len(ids) >= 3, 'spam, soup can and bowl'
    robot.spin(2.0)
    for shown in robot.markers:
        assert set(meshes(shown)) == ids
        texts = [marker for marker in shown.markers if marker.type == Marker.TEXT_VIEW_FACING]
        assert {marker.id for marker in texts} == ids
        names = [(marker.ns, marker.id) for marker in shown.markers]
        assert len(set(names)) == len(names)


def test_meshes_are_closed(robot: Robot, replay: NodeProcess) -> None:
    for marker in meshes(next_markers(robot)).values():
        corners = triangles(marker)
        mesh = trimesh.Trimesh(
            corners.reshape(-1, 3), np.arange(corners.size // 3).reshape(-1, 3), process=True)
        assert mesh.is_watertight and mesh.volume > 0


def test_meshes_cover_what_the_labels_mark(
    robot: Robot, replay: NodeProcess, recorded: Callable[[str], Frame],
) -> None:
    message = latest(robot, Image, 'labels', lambda message: any(message.data))
    assert message.encoding == 'mono16' and message.header.frame_id == 'optical'
    labels = np.frombuffer(message.data, '<u2').reshape(message.height, message.width)
    camera = recorded(FRAME).camera
    shown = meshes(next_markers(robot))
    assert set(np.unique(labels)) - {0} <= set(shown)
    for id in set(np.unique(labels)) - {0}:
        drawn = np.zeros(labels.shape, np.uint8)
        pixels = camera.project(in_camera(shown[id])).round().astype(np.int32)
        cv2.fillPoly(drawn, list(pixels), 1)
        mask = labels == id
        both, either = (mask & (drawn > 0)).sum(), (mask | (drawn > 0)).sum()
        assert both / either > 0.6, f'object {id}'


def test_overlay_is_the_picture_with_drawings(
    robot: Robot, replay: NodeProcess, recorded: Callable[[str], Frame],
) -> None:
    message = latest(robot, Image, 'overlay', lambda message: True)
    drawn, picture = color_from_image(message), recorded(FRAME).color
    changed = (drawn != picture).any(axis=2).mean()
    assert 0.01 < changed < 0.6


def test_cloud_lies_on_the_meshes(robot: Robot, replay: NodeProcess) -> None:
    shown = meshes(next_markers(robot))
    message = latest(robot, PointCloud2, 'cloud', lambda message: message.width)
    assert [field.name for field in message.fields] == [
        'x', 'y', 'z', 'rgb', 'id', 'label', 'source']
    rows = np.frombuffer(message.data, np.dtype(
        [('xyz', '<f4', 3), ('rgb', '<u4'), ('id', '<u4'), ('label', '<u4'), ('source', '<u4')]))
    assert set(rows['id']) == set(shown)
    for id, marker in shown.items():
        points, corners = rows['xyz'][rows['id'] == id], in_camera(marker).reshape(-1, 3)
        assert len(points) >= 100
        np.testing.assert_array_less(corners.min(axis=0) - 0.003, points.min(axis=0))
        np.testing.assert_array_less(points.max(axis=0), corners.max(axis=0) + 0.003)
        # Half of the points are on either side of the middle, more or less.
        inside = (points < corners.mean(axis=0)).mean(axis=0)
        assert (inside > 0.15).all() and (inside < 0.85).all()


def test_scene_is_saved(robot: Robot, replay: NodeProcess, save_directory: Path) -> None:
    ids = set(meshes(next_markers(robot)))
    answer = robot.call(Trigger, '/img2scene/save_scene')
    assert answer.success and str(save_directory) in answer.message
    saved = json.loads((save_directory / 'objects.json').read_text())
    assert {item['id'] for item in saved['objects']} == ids
    assert saved['frame_id'] == 'optical'
    assert len(trimesh.load_scene(save_directory / 'scene.glb').geometry) == len(ids)
    assert not [path for path in save_directory.parent.iterdir() if path != save_directory]


def test_other_services_answer_while_a_scene_is_saved(
    robot: Robot, replay: NodeProcess,
) -> None:
    order = []
    for service in ('save_scene', 'clear'):
        client = robot.node.create_client(Trigger, f'{robot.scene}/{service}')
        robot.spin_until(client.service_is_ready, f'{service} is there')
        client.call_async(Trigger.Request()).add_done_callback(
            lambda future, service=service: order.append((service, future.result().success)))
    robot.spin_until(lambda: len(order) == 2, 'both services have answered')
    assert order == [('clear', True), ('save_scene', True)]
    robot.spin_until(lambda: is_complete(robot), 'all objects are rebuilt')


def test_directory_that_cannot_be_written_is_named(
    robot: Robot, scene_node: NodeProcess, replay: NodeProcess, save_directory: Path,
    tmp_path: Path,
) -> None:
    (tmp_path / 'file').touch()
    start = len(scene_node.log)
    assert not robot.set_parameter('save_directory', str(tmp_path / 'file' / 'scene'))
    answer = robot.call(Trigger, '/img2scene/save_scene')
    assert not answer.success and str(tmp_path / 'file') in answer.message
    assert len(scene_node.complaints(start)) == 1
    assert not robot.set_parameter('save_directory', str(save_directory))
    assert robot.call(Trigger, '/img2scene/save_scene').success, 'it replaces what it saved before'


def test_cleared_ids_are_not_used_again(robot: Robot, replay: NodeProcess) -> None:
    before = set(meshes(next_markers(robot)))
    assert robot.call(Trigger, '/img2scene/clear').success
    robot.spin_until(
        lambda: any(meshes(shown) and min(meshes(shown)) > max(before)
                    for shown in robot.markers), 'the objects come back as new ones')
    assert not any(set(meshes(shown)) & before and set(meshes(shown)) - before
                   for shown in robot.markers)


def test_parameters_describe_themselves(robot: Robot, replay: NodeProcess) -> None:
    names = ['tabletop.min_height', 'image_transport', 'detector', 'outputs', 'forget_after']
    height, transport, detector, outputs, forget = robot.call(
        DescribeParameters, '/img2scene/describe_parameters',
        DescribeParameters.Request(names=names)).descriptors
    assert '[m]' in height.description
    assert height.floating_point_range[0].from_value < height.floating_point_range[0].to_value
    assert 'raw, compressed' in transport.additional_constraints
    assert 'unconfigured' in detector.additional_constraints
    assert outputs.type == 9, 'an array of strings'
    assert set(backends('outputs')) <= set(re.findall(r'\w+', outputs.additional_constraints))
    assert set(backends('detectors')) <= set(re.findall(r'\w+', detector.additional_constraints))
    assert forget.floating_point_range[0].from_value == 0


@pytest.mark.parametrize('name, value, reason', [
    ('tabletop.min_height', 5.0, 'tabletop.min_height'),
    ('tabletop.min_height', float('nan'), 'tabletop.min_height'),
    ('tabletop.min_height', 'low', 'type'),
    ('forget_after', -1.0, 'forget_after'),
    ('detector', 'detr', "'detector' only changes while the node is unconfigured"),
    ('depth_noise.model', 'sonar', "'depth_noise.model'.*stereo"),
    ('image_transport', 'pigeon', "'image_transport'.*raw, compressed|unconfigured"),
    ('outputs', ['markers'], "'outputs' only changes while the node is unconfigured"),
])
def test_bad_parameter_values_are_refused(
    robot: Robot, replay: NodeProcess, name: str, value: Any, reason: str,
) -> None:
    refusal = robot.set_parameter(name, value)
    assert re.search(reason, refusal), refusal


def test_parameters_take_effect_while_running(robot: Robot, replay: NodeProcess) -> None:
    assert meshes(next_markers(robot))
    assert not robot.set_parameter('forget_after', 1.0)
    assert not robot.set_parameter('tabletop.max_distance', 0.2)
    assert not robot.set_parameter('markers.show_labels', False)
    assert robot.call(Trigger, '/img2scene/clear').success, 'else they are still seen there'
    robot.spin_until(
        lambda: not meshes(robot.markers[-1]), 'nothing is within 0.2 m of the camera')
    assert {marker.ns for marker in robot.markers[-1].markers if marker.action == Marker.ADD} <= {
        'support'}, 'what was shown is deleted'
    assert not robot.set_parameter('tabletop.max_distance', 4.0)
    robot.spin_until(lambda: meshes(robot.markers[-1]), 'the objects come back')
    assert all(marker.type != Marker.TEXT_VIEW_FACING for marker in robot.markers[-1].markers)


def test_life_cycle(robot: Robot, scene_node: NodeProcess, replay: NodeProcess) -> None:
    assert robot.state == 'active'
    assert not robot.change_state('configure'), 'impossible now; refused, not fatal'
    assert robot.change_state('deactivate') and robot.state == 'inactive'
    robot.spin(1.0)
    robot.markers.clear()
    robot.spin(2.0)
    assert not robot.markers
    assert robot.change_state('activate')
    robot.spin_until(lambda: robot.markers and meshes(robot.markers[-1]), 'objects are shown')
    assert robot.change_state('deactivate') and robot.change_state('cleanup')
    assert robot.state == 'unconfigured'
    answer = robot.call(Trigger, '/img2scene/save_scene')
    assert not answer.success and 'no scene yet' in answer.message
    assert robot.call(Trigger, '/img2scene/clear').success
    assert not robot.set_parameter('outputs', ['markers'])
    robot.markers.clear()
    assert robot.change_state('configure') and robot.change_state('activate')
    robot.spin_until(lambda: robot.markers and meshes(robot.markers[-1]), 'objects are shown')
    assert not robot.node.get_publishers_info_by_topic('/img2scene/cloud')


def test_late_subscriber_gets_the_full_scene(
    robot: Robot, scene_node: NodeProcess, replay: NodeProcess,
) -> None:
    robot.spin_until(lambda: is_complete(robot), 'all objects are rebuilt')
    replay.stop()
    shown = 0
    while shown < len(robot.markers):  # what was under way
        shown = len(robot.markers)
        robot.spin(3.0)
    late = Robot(robot.domain)
    late.spin_until(
        lambda: late.markers and by_name(late.markers[-1]) == by_name(robot.markers[-1]),
        'the late subscriber has what the other one has', lambda: robot.spin(0.1))
    assert len(meshes(late.markers[-1])) >= 3
    late.close()


def test_bad_start_is_mended_without_a_restart(tmp_path: Path) -> None:
    """Everything that can be wrong when the node is configured, in one node's life."""
    (tmp_path / 'parameters.yaml').write_text(
        '/**: {ros__parameters: {tabletop.min_height: 7.0, forget_after: soon,'
        ' image_transport: pigeon, detector: nonsense}}')
    robot = Robot(free_domain(), scene='/robot/img2scene')
    node = NodeProcess(
        'scene_node', robot.domain, tmp_path, '-r', '__ns:=/robot', *GEOMETRIC,
        '--params-file', str(tmp_path / 'parameters.yaml'))

    def refused(sentence: str) -> None:
        robot.spin_until(
            lambda: re.search(f'cannot configure: .*{sentence}', robot.diagnosis()), sentence)
        complaints = node.complaints()
        assert len(complaints) == len(refusals) + 1 and re.search(sentence, complaints[-1])
        refusals.append(complaints[-1])
        assert robot.state == 'unconfigured'

    refusals = []
    refused('(?=.*tabletop.min_height.*7.0)(?=.*forget_after.*soon)'
            "(?=.*'image_transport' is 'pigeon'; it must be one of raw, compressed)")
    assert not robot.set_parameter('tabletop.min_height', 0.01)
    assert not robot.set_parameter('forget_after', 5.0)
    assert 'one of raw' in robot.set_parameter('image_transport', 'dove')
    assert not robot.set_parameter('image_transport', 'raw')
    assert not robot.change_state('configure')
    refused("no 'nonsense' among the detectors; choose one of auto, coco, detr, tabletop")
    assert not robot.set_parameter('detector', 'detr')
    assert not robot.set_parameter('detr.checkpoint', str(tmp_path / 'no_such_checkpoint'))
    assert not robot.change_state('configure')
    refused('no_such_checkpoint')
    assert not robot.set_parameter('detector', 'tabletop')
    assert not robot.set_parameter('outputs', ['markers', 'smoke_signals'])
    assert not robot.change_state('configure')
    refused("no 'smoke_signals' among the outputs; choose one of cloud, .*, overlay")
    assert not robot.set_parameter('outputs', ['markers'])
    assert robot.change_state('configure') and robot.change_state('activate')
    robot.spin_until(lambda: 'cannot configure' not in robot.diagnosis(), 'all is well')
    robot.close()
    assert node.stop(signal.SIGTERM) == 0
    assert 'Traceback' not in node.log


def test_starts_without_a_network_and_tells_what_it_detects_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The chosen checkpoint is nowhere; the bundled network or depth alone do."""
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    monkeypatch.setenv('HF_HOME', str(tmp_path))
    robot = Robot(free_domain())
    node = NodeProcess(
        'scene_node', robot.domain, tmp_path, '-p', 'detector:=auto',
        '-p', 'detr.checkpoint:=nobody/nothing')
    robot.spin_until(lambda: 'active; listening' in node.log, 'the node is active')
    line, = (line for line in node.log.splitlines() if 'the detector takes' in line)
    assert "'coco'" in line or 'depth alone' in line
    assert 'hf download nobody/nothing' in line
    robot.close()
    assert node.stop() == 0
