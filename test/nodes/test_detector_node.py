# SPDX-License-Identifier: Apache-2.0
"""Detection on its own, and scenes of what others have detected, over real DDS."""

import re
from array import array
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import GEOMETRIC
from harness import FakeCamera
from harness import NodeProcess
from harness import Robot
from harness import half_size
from harness import meshes
from harness import stamp_of
from interface_packages import make_importable
from sensor_msgs.msg import Image

from img2scene_ros.errors import InputError
from img2scene_ros.nodes.demo_nodes import free_domain
from img2scene_ros.nodes.detection_inputs import DetectionPairing
from img2scene_ros.nodes.messages import header_of
from img2scene_ros.pipeline import Pipeline
from img2scene_ros.pipeline import PipelineOptions
from img2scene_ros.types import Frame

vision_msgs = pytest.importorskip('vision_msgs.msg', reason=make_importable())
SECOND = 1_000_000_000


@pytest.fixture
def robot() -> Iterator[Robot]:
    """Return a robot in a DDS domain that no node of another test is in."""
    robot = Robot(free_domain())
    yield robot
    robot.close()


def detection(
    box: tuple[float, float, float, float], *names: tuple[str, float], theta: float = 0.0,
    id: str = '',
) -> Any:
    """Return a Detection2D of centre, size, and names with scores."""
    one = vision_msgs.Detection2D(id=id)
    x, y, one.bbox.size_x, one.bbox.size_y = map(float, box)
    one.bbox.center.position.x, one.bbox.center.position.y = x, y
    one.bbox.center.theta = theta
    for name, score in names:
        result = vision_msgs.ObjectHypothesisWithPose()
        result.hypothesis.class_id, result.hypothesis.score = name, score
        one.results.append(result)
    return one


def read(*detections: Any, labels: np.ndarray | None = None) -> list[Any]:
    from img2scene_ros.nodes.vision_messages import detections_from_message

    return detections_from_message(
        vision_msgs.Detection2DArray(detections=list(detections)), (40, 60), labels)


def test_messages_of_any_detector_are_read() -> None:
    turned, beyond, unnamed = read(
        detection((30, 20, 20, 10), ('cup', 0.4), ('mug', 0.7), theta=np.pi / 2),
        detection((58, 38, 10, 10), ('edge', 2.0)),
        detection((80, 20, 10, 10), ('outside', 0.9)),
        detection((float('nan'), 20, 10, 10), ('nowhere', 0.9)),
        detection((30, 20, 0, 0), ('empty', 0.9)),
        detection((10, 10, 4, 4)))
    np.testing.assert_allclose(turned.bbox, [25, 10, 35, 30])
    assert (turned.label, turned.score) == ('mug', 0.7)
    assert [name for name, _ in turned.hypotheses] == ['mug', 'cup']
    np.testing.assert_allclose(beyond.bbox, [53, 33, 60, 40])
    assert beyond.score == 1.0
    assert unnamed.label == 'object' and unnamed.mask is None


@pytest.mark.parametrize('ids', (('7', '3'), ('one', 'two')))
def test_label_images_give_masks_by_id_else_by_place(ids: tuple[str, str]) -> None:
    values = (7, 3) if ids == ('7', '3') else (1, 2)
    labels = np.zeros((40, 60), np.uint16)
    labels[5:10, 20:30], labels[20:30, 5:15] = values
    first, second = read(*(detection((30, 20, 60, 40), id=id) for id in ids), labels=labels)
    np.testing.assert_array_equal(first.bbox, [20, 5, 30, 10])
    np.testing.assert_array_equal(second.mask, labels == values[1])
    with pytest.raises(InputError, match='label image'):
        read(labels=labels[:20])


def test_pictures_wait_for_detections_of_their_stamp_and_the_newest_counts() -> None:
    pairing = DetectionPairing()
    for second in range(1, 6):
        header = header_of('lens', second * SECOND)
        pairing.add_color(float(second), Image(header=header), partners=())
    assert pairing.take(0.0) is None, 'nobody has looked at them yet'

    def detected(second: int) -> Any:
        return vision_msgs.Detection2DArray(header=header_of('lens', second * SECOND))

    pairing.add('detections', 2.0, detected(2))
    pairing.add('detections', 4.0, detected(4))
    pair = pairing.take(0.0)
    assert pair.color.header.stamp == pair.detections.header.stamp == detected(4).header.stamp
    pairing.add('detections', 3.0, detected(3))
    assert pairing.take(0.0) is None, 'older than what was shown'
    pairing.has_labels = True
    pairing.add('detections', 5.0, detected(5))
    assert pairing.take(0.0) is None
    pairing.add('labels', 5.0, Image(header=detected(5).header))
    assert pairing.take(0.0).labels.header.stamp.sec == 5


def test_pictures_that_wait_for_detections_have_bounded_memory() -> None:
    """60 of a small camera, fewer of a large one; what is dropped is counted."""
    for size, kept in ((1_500_000, 60), (25_000_000, 10)):
        pairing, data = DetectionPairing(), array('B', bytes(size))
        for second in range(1, 101):
            picture = Image(header=header_of('lens', second * SECOND))
            picture._data = data  # one for all
            pairing.add_color(float(second), picture, partners=())
        assert pairing.dropped['no detections came in time'] == 100 - kept
        pairing.add('detections', 100.0 - kept, None)
        assert pairing.take(0.0) is None
        pairing.add('detections', 101.0 - kept, None)
        assert pairing.take(0.0).color.header.stamp.sec == 101 - kept


def test_detection_and_reconstruction_in_two_nodes_find_what_one_finds(
    robot: Robot, recorded: Callable[[str], Frame], tmp_path: Path,
) -> None:
    frame = half_size(recorded('ycb_3'))
    detector = NodeProcess(
        'detector_node', robot.domain, tmp_path, '-p', 'detector:=tabletop', '-p', 'detctor:=x')
    scene = NodeProcess(
        'scene_node', robot.domain, tmp_path, '-p', 'detector:=topic', *GEOMETRIC[2:],
        '-r', 'detections:=detector/detections', '-r', 'detection_labels:=detector/labels')
    camera = FakeCamera(robot, frame)
    robot.spin_until(lambda: 'listens to' in detector.log, 'the detector runs')
    robot.spin_until(lambda: robot.state == 'active', 'the scene node is active')
    robot.spin_until(
        lambda: robot.markers and len(meshes(robot.markers[-1])) >= 3, 'three objects are shown',
        camera.send)
    together = Pipeline(PipelineOptions(
        detector='tabletop', reconstructor='depth_shell')).perceive(frame)
    assert len(together.objects) == len(meshes(robot.markers[-1])) == 3
    shown = np.array([[m.pose.position.x, m.pose.position.y, m.pose.position.z]
                      for m in meshes(robot.markers[-1]).values()])
    for item in together.objects:
        assert np.linalg.norm(shown - item.position, axis=1).min() < 0.02
    assert "'detector'" in detector.complaints()[0], 'instead of detctor'
    robot.scene = '/detector'
    assert re.search("'detector'.*start it again", robot.set_parameter('detector', 'coco'))
    assert not robot.set_parameter('tabletop.max_detections', 1)
    labels: list[Image] = []
    robot.node.create_subscription(Image, '/detector/labels', labels.append, 1)
    robot.spin_until(
        lambda: labels and max(labels[-1].data) == 1, 'one object is left', camera.send)
    camera.close()
    assert detector.stop() == scene.stop() == 0
    assert 'Traceback' not in detector.log + scene.log


def test_boxes_of_a_slow_detector_belong_to_the_picture_that_it_saw(
    robot: Robot, recorded: Callable[[str], Frame], tmp_path: Path,
) -> None:
    """Without a label image depth cuts the box out; the name comes through."""
    frame = half_size(recorded('table_mustard_bottle'))
    scene = NodeProcess(
        'scene_node', robot.domain, tmp_path, '-p', 'detector:=topic', *GEOMETRIC[2:])
    camera = FakeCamera(robot, frame)
    robot.spin_until(lambda: robot.state == 'active', 'the scene node is active')
    robot.spin_until(
        lambda: "'/detections'" in robot.diagnosis(), 'the missing topic is named', camera.send)
    publisher = robot.node.create_publisher(vision_msgs.Detection2DArray, 'detections', 1)
    robot.spin_until(
        lambda: "no detections arrive on '/detections'" in robot.diagnosis(),
        'the silence is said', camera.send)
    sent, seen = [], []

    def send() -> None:
        camera.send()
        sent.append(camera.stamp_ns)
        if len(sent) % 10 == 0:  # one of ten pictures, told five pictures later
            seen.append(camera.stamp_ns)
        if seen and len(sent) % 10 == 5:
            bottle = detection((209.5, 106.75, 67, 125.5), ('bottle', 0.8))
            publisher.publish(vision_msgs.Detection2DArray(
                header=header_of('lens', seen[-1]), detections=[bottle]))

    robot.spin_until(
        lambda: robot.markers and meshes(robot.markers[-1]), 'the bottle is shown', send)
    assert stamp_of(robot.markers[-1]) in seen
    bottle, = meshes(robot.markers[-1]).values()
    assert bottle.ns == 'bottle'

    def send_wrong_stamps() -> None:
        camera.send()
        publisher.publish(vision_msgs.Detection2DArray(header=header_of('lens', SECOND)))

    robot.spin_until(
        lambda: "'/detections' come, but no picture" in robot.diagnosis(), 'it complains',
        send_wrong_stamps)
    robot.node.destroy_publisher(publisher)
    camera.close()
    assert scene.stop() == 0 and 'Traceback' not in scene.log
