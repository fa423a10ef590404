# SPDX-License-Identifier: Apache-2.0
"""Poses, sizes and names of objects as other nodes read them, in the camera's frame or a world."""

import os
import re
import sys
from collections.abc import Callable
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from harness import GEOMETRIC
from harness import LATCHED
from harness import NodeProcess
from harness import Robot
from interface_packages import CACHE
from interface_packages import make_importable
from output_stage import WORLD_FROM_CAMERA
from output_stage import OutputStage
from output_stage import frame_at
from rclpy.lifecycle import LifecycleNode
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import PointCloud2

from img2scene_ros.errors import MissingDependencyError
from img2scene_ros.nodes.messages import nanoseconds
from img2scene_ros.nodes.outputs import importing_messages
from img2scene_ros.nodes.outputs.cloud import CloudOptions
from img2scene_ros.nodes.outputs.cloud import CloudOutput
from img2scene_ros.nodes.outputs.detections import DetectionsOutput
from img2scene_ros.nodes.outputs.objects import ObjectsOutput
from img2scene_ros.nodes.outputs.tf import TfOptions
from img2scene_ros.nodes.outputs.tf import TfOutput
from img2scene_ros.options import Options
from img2scene_ros.types import Detection
from img2scene_ros.types import ObjectModel
from img2scene_ros.types import Scene
from img2scene_ros.types import SceneObject

vision_msgs = pytest.importorskip('vision_msgs.msg', reason=make_importable())
tf2_msgs = pytest.importorskip('tf2_msgs.msg', reason=make_importable())


def thing(id: int, position: Any = (0.1, 0.2, 1.0), label: str = 'mug', **known: Any) -> Any:
    box = trimesh.creation.box((0.1, 0.2, 0.3))
    model = ObjectModel(
        box.vertices.astype(np.float32), box.faces.astype(np.int32),
        np.full((8, 3), 100, np.uint8), np.zeros(3), np.eye(3), 'test')
    # x of the camera is known to 1 mm, y to 2 mm, ..., the turn about its z to .06.
    known = {'covariance': np.diag([0.001, 0.002, 0.003, 0.04, 0.05, 0.06]) ** 2, **known}
    return SceneObject(
        id, Detection(label, 0.9, np.array([2.0, 1, 5, 4])), np.array(position), np.eye(3),
        depth_source='sensor', model=model, **known)


@pytest.fixture
def stage() -> Iterator[Callable[..., OutputStage]]:
    stages = []

    def make(output: Callable, options: Any) -> OutputStage:
        stages.append(OutputStage(output, options))
        return stages[-1]
    yield make
    for one in stages:
        one.close()


def matrix(pose: Any) -> np.ndarray:
    """Return the matrix of a pose or transform message."""
    place = getattr(pose, 'position', None) or pose.translation
    turn = getattr(pose, 'orientation', None) or pose.rotation
    made = np.eye(4)
    made[:3, :3] = Rotation.from_quat([turn.x, turn.y, turn.z, turn.w]).as_matrix()
    made[:3, 3] = place.x, place.y, place.z
    return made


def test_objects_have_pose_covariance_size_and_names(stage: Callable[..., OutputStage]) -> None:
    stage = stage(ObjectsOutput, Options())
    received = stage.listen(vision_msgs.Detection3DArray, '/img2scene/objects')
    mug = thing(7)
    named = replace(mug.detection, hypotheses=(('mug', 0.7), ('bowl', 0.3)))
    scene = stage.show(replace(mug, detection=named), thing(9, label='egg', state='hidden'))
    stage.spin_until(lambda: received)
    message, = received
    assert message.header.frame_id == 'camera'
    assert nanoseconds(message.header.stamp) == scene.frame.stamp_ns
    first, second = message.detections
    assert (first.id, second.id) == ('7', '9')
    assert [(one.hypothesis.class_id, one.hypothesis.score) for one in first.results] == [
        ('mug', 0.7), ('bowl', 0.3)]
    assert [(one.hypothesis.class_id, one.hypothesis.score) for one in second.results] == [
        ('egg', 0.9)]
    np.testing.assert_allclose(matrix(first.bbox.center), mug.pose)
    size = first.bbox.size
    np.testing.assert_allclose([size.x, size.y, size.z], [0.1, 0.2, 0.3], atol=1e-6)
    np.testing.assert_allclose(
        np.reshape(first.results[0].pose.covariance, (6, 6)), mug.covariance)


def test_objects_are_in_the_world_when_it_is_known(stage: Callable[..., OutputStage]) -> None:
    stage = stage(ObjectsOutput, Options())
    received = stage.listen(vision_msgs.Detection3DArray, '/img2scene/objects')
    stage.show(thing(7, (0.1, 0.2, 1.5)), world=WORLD_FROM_CAMERA)
    stage.spin_until(lambda: received)
    found, = received[0].detections
    assert found.header.frame_id == received[0].header.frame_id == 'map'
    # The camera looks along x from (1, 2, 3): to the right y is less, downwards z is.
    place = found.bbox.center.position
    np.testing.assert_allclose([place.x, place.y, place.z], [1 + 1.5, 2 - 0.1, 3 - 0.2])
    # The world's x is the camera's z, and so on: its variances change places.
    covariance = np.reshape(found.results[0].pose.covariance, (6, 6))
    np.testing.assert_allclose(
        np.sqrt(np.diag(covariance)), [0.003, 0.001, 0.002, 0.06, 0.04, 0.05])
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-12)


def test_detections_are_what_the_picture_shows(stage: Callable[..., OutputStage]) -> None:
    stage = stage(DetectionsOutput, Options())
    boxes = stage.listen(vision_msgs.Detection2DArray, '/img2scene/detections')
    infos = stage.listen(vision_msgs.LabelInfo, '/img2scene/label_info', LATCHED)
    for _ in range(2):
        stage.show(thing(7), thing(9, label='egg', state='hidden'), world=WORLD_FROM_CAMERA)
    stage.spin_until(lambda: len(boxes) == 2 and infos)
    found, = boxes[0].detections
    assert found.id == '7' and found.header.frame_id == 'camera', 'boxes are in the picture'
    assert found.results[0].hypothesis.class_id == 'mug'
    place = found.bbox.center.position
    assert (place.x, place.y, found.bbox.size_x, found.bbox.size_y) == (3.5, 2.5, 3.0, 3.0)
    assert len(infos) == 1, 'names are sent when they change'
    late = stage.listen(vision_msgs.LabelInfo, '/img2scene/label_info', LATCHED)
    stage.spin_until(lambda: late)
    assert {one.class_id: one.class_name for one in late[0].class_map} == {7: 'mug', 9: 'egg'}


def test_every_object_has_a_tf_frame_once_per_picture(stage: Callable[..., OutputStage]) -> None:
    stage = stage(TfOutput, TfOptions())
    received = stage.listen(tf2_msgs.TFMessage, '/tf')
    mug, book = thing(7), thing(9, (0.0, 0.0, 2.0), 'pocket book')
    scene = stage.show(mug, book, world=WORLD_FROM_CAMERA)
    stage.output.show(scene, True)  # as when a mesh has been rebuilt
    stage.show()
    stage.show(mug)
    stage.spin_until(lambda: len(received) >= 2)
    stage.spin()
    first, second = received
    assert [one.child_frame_id for one in first.transforms] == [
        'img2scene/mug_7', 'img2scene/pocket_book_9']
    assert {one.header.frame_id for one in first.transforms} == {'map'}
    assert {nanoseconds(one.header.stamp) for one in first.transforms} == {scene.frame.stamp_ns}
    np.testing.assert_allclose(
        matrix(first.transforms[1].transform)[:3, 3], [1 + 2.0, 2, 3], atol=1e-12)
    np.testing.assert_allclose(
        matrix(first.transforms[1].transform)[:3, :3], WORLD_FROM_CAMERA[:3, :3], atol=1e-12)
    assert [one.header.frame_id for one in second.transforms] == ['camera']
    stage.output.options = TfOptions(publish_tf=False)
    stage.show(mug)
    stage.spin()
    assert len(received) == 2


def test_frames_of_two_nodes_are_apart() -> None:
    stage = OutputStage(TfOutput, TfOptions(), arguments=('-r', '__ns:=/arm/left'))
    received = stage.listen(tf2_msgs.TFMessage, '/tf')
    stage.show(thing(7))
    stage.spin_until(lambda: received)
    assert received[0].transforms[0].child_frame_id == 'arm/left/img2scene/mug_7'
    stage.close()


@pytest.mark.parametrize('points, sources', [
    ('model', {0}), ('measured', {1}), ('both', {0, 1})])
def test_cloud_has_points_of_meshes_and_readings(
    stage: Callable[..., OutputStage], points: str, sources: set[int],
) -> None:
    stage = stage(CloudOutput, CloudOptions(points=points, points_per_object=500))
    received = stage.listen(PointCloud2, '/img2scene/cloud')
    mug = thing(70000, (0.0, 0.0, 1.0))
    mask = np.zeros((6, 8), bool)
    mask[2:4, 2:6] = True
    mug = replace(mug, detection=replace(mug.detection, mask=mask))
    depth = np.full((6, 8), 0.85, np.float32)
    depth[2, 2] = np.nan
    frame = replace(frame_at(5, WORLD_FROM_CAMERA), depth=depth)
    stage.output.show(Scene(frame, (mug, replace(mug, id=4, state='hidden'))), True)
    stage.spin_until(lambda: received)
    message, = received
    rows = np.frombuffer(message.data, np.dtype(
        [('xyz', '<f4', 3), ('rgb', '<u4'), ('id', '<u4'), ('label', '<u4'), ('source', '<u4')]))
    assert message.header.frame_id == 'map' and set(rows['source']) == sources
    assert set(rows['label'][rows['id'] == 70000]) == {70000 - 65535}, 'as in ~/labels'
    seen = rows[(rows['source'] == 1)]
    assert set(seen['id']) <= {70000}, 'what is hidden is not measured'
    if 1 in sources:
        assert len(seen) == 7
        # .85 m in front of the camera, which is at 1, 2, 3 and looks along x.
        np.testing.assert_allclose(seen['xyz'][:, 0], 1.85, rtol=1e-6)
    for id in {70000, 4} if 0 in sources else ():
        of_mesh = rows['xyz'][(rows['source'] == 0) & (rows['id'] == id)]
        assert len(of_mesh) == 500
        # The box's sides along the camera's x, y, z are .1, .2, .3.
        off = np.abs(of_mesh - [2.0, 2.0, 3.0]) / [0.15, 0.05, 0.1]
        np.testing.assert_allclose(off.max(axis=1), 1.0, atol=1e-5)


@pytest.mark.parametrize('output, options, package', [
    (ObjectsOutput, Options, 'vision_msgs'),
    (DetectionsOutput, Options, 'vision_msgs'),
    (TfOutput, TfOptions, 'tf2_msgs')])
def test_missing_messages_are_named(
    monkeypatch: pytest.MonkeyPatch, output: Callable, options: type, package: str,
) -> None:
    monkeypatch.setitem(sys.modules, f'{package}.msg', None)
    with pytest.raises(MissingDependencyError, match=f'{package}.*outputs'):
        output(LifecycleNode, options())


def test_other_errors_of_an_import_are_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError), importing_messages('objects', 'vision_msgs'):
        raise ZeroDivisionError


def test_node_goes_on_without_outputs_whose_messages_are_missing(
    robot: Robot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    paths = os.environ.get('PYTHONPATH', '').split(os.pathsep)
    built = [path for path in paths if str(CACHE) in path]
    if not built:
        pytest.skip('the messages are installed for good')
    monkeypatch.setenv('PYTHONPATH', os.pathsep.join(set(paths) - set(built)))
    node = NodeProcess(
        'scene_node', robot.domain, tmp_path, *GEOMETRIC, '-p', 'outputs:=[objects, cloud]')
    robot.spin_until(lambda: 'active; listening' in node.log, 'the node is active')
    assert re.search("'objects' is skipped.*vision_msgs", node.log)
    assert not node.complaints()
    robot.spin_until(
        lambda: robot.node.get_publishers_info_by_topic('/img2scene/cloud'), 'there is a cloud')
    assert not robot.node.get_publishers_info_by_topic('/img2scene/objects')
    assert node.stop() == 0
