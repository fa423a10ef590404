# SPDX-License-Identifier: Apache-2.0
"""The plane that TF knows; tf2_ros, which pip does not have, is stood in for by its interface."""

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from geometry_msgs.msg import Quaternion
from geometry_msgs.msg import TransformStamped
from geometry_msgs.msg import Vector3
from harness import GEOMETRIC
from harness import NodeProcess
from harness import Robot
from rclpy.duration import Duration
from rclpy.time import Time
from scipy.spatial.transform import Rotation

from img2scene_ros.camera import Camera
from img2scene_ros.errors import InputError
from img2scene_ros.errors import MissingDependencyError
from img2scene_ros.nodes.demo_nodes import free_domain
from img2scene_ros.nodes.transforms import SupportFrame
from img2scene_ros.types import Frame

FRAME = Frame(np.zeros((48, 64, 3), np.uint8), Camera(64, 48, 60.0, 60.0, 31.5, 23.5),
              stamp_ns=12_345_678_901, frame_id='optical')


class TransformException(Exception):
    """As tf2_ros has it."""


class Buffer:
    """Knows one transform at one stamp, as tf2_ros.Buffer would after it was received."""

    known: TransformStamped

    def lookup_transform(
        self, target_frame: str, source_frame: str, time: Time, timeout: Duration,
    ) -> TransformStamped:
        """Return what takes points of the source frame to the target frame."""
        assert 0 < timeout.nanoseconds < 1e9, 'it waits, but not for long'
        if (target_frame, source_frame) != (
                self.known.header.frame_id, self.known.child_frame_id):
            raise TransformException(f'"{source_frame}" passed to lookupTransform does not exist')
        assert time.nanoseconds == FRAME.stamp_ns
        return self.known


class TransformListener:
    """Listens to nothing."""

    def __init__(self, buffer: Buffer, node: object) -> None:
        self.is_listening = True

    def unregister(self) -> None:
        """Stop."""
        self.is_listening = False


def transform(rotation: Rotation, translation: np.ndarray) -> TransformStamped:
    """Return the pose of the table in the camera's frame as TF holds it."""
    message = TransformStamped(child_frame_id='table')
    message.header.frame_id = 'optical'
    x, y, z, w = rotation.as_quat()
    message.transform.rotation = Quaternion(x=x, y=y, z=z, w=w)
    x, y, z = map(float, translation)
    message.transform.translation = Vector3(x=x, y=y, z=z)
    return message


@pytest.fixture
def tf2(monkeypatch: pytest.MonkeyPatch) -> type[Buffer]:
    """Put the stand-in where tf2_ros would be, and return its buffer."""
    module = ModuleType('tf2_ros')
    module.Buffer, module.TransformListener = Buffer, TransformListener
    module.TransformException = TransformException
    monkeypatch.setitem(sys.modules, 'tf2_ros', module)
    return Buffer


@pytest.mark.parametrize('turn', [0, 70, 200])
def test_the_plane_is_that_of_the_frame(tf2: type[Buffer], turn: float) -> None:
    """A camera 0.7 m above the table, looking 30 degrees down, wherever the table's x points."""
    table_in_camera = Rotation.from_euler('x', 90 + 30, degrees=True) * Rotation.from_euler(
        'z', turn, degrees=True)
    eye = np.array([0.3, -1.0, 0.7])  # of the camera in the table's frame
    tf2.known = transform(table_in_camera, -table_in_camera.apply(eye))
    support = SupportFrame(None, 'table').support(FRAME)
    # The optical axis goes down by half its length.
    assert support.normal == pytest.approx((0, -np.cos(np.pi / 6), -0.5), abs=1e-9)
    on_table = table_in_camera.apply(np.array([[0.2, 0.4, 0.0], [0.2, 0.4, 0.1]]) - eye)
    assert support.height(on_table) == pytest.approx((0.0, 0.1), abs=1e-9)
    assert support.hull is None


def test_what_tf_lacks_is_one_clear_sentence(tf2: type[Buffer]) -> None:
    """Frames that are not connected, and a plane above the camera."""
    tf2.known = transform(Rotation.from_euler('x', 120, degrees=True), (0, 0, 1))
    with pytest.raises(InputError, match="'floor'.*support_frame.*'optical'"):
        SupportFrame(None, 'floor').support(FRAME)
    tf2.known = transform(Rotation.from_euler('x', 90, degrees=True), (0, -0.4, 1))
    with pytest.raises(InputError, match="'optical'.*0.40 m.*'table'"):
        SupportFrame(None, 'table').support(FRAME)


def test_it_stops_listening(tf2: type[Buffer]) -> None:
    """A node that is deactivated receives no transforms."""
    support_frame = SupportFrame(None, 'table')
    listener = support_frame._listener
    support_frame.close()
    assert not listener.is_listening


def test_without_tf2_ros_the_node_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:
    """The node is not activated, and is when the parameter is fixed."""
    monkeypatch.setitem(sys.modules, 'tf2_ros', None)
    with pytest.raises(MissingDependencyError, match='support_frame.*tf2_ros'):
        SupportFrame(None, 'table')
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / 'tf2_ros.py').write_text("raise ImportError('there is no TF here')")
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    robot = Robot(free_domain())
    node = NodeProcess(
        'scene_node', robot.domain, tmp_path, *GEOMETRIC, '-p', 'support_frame:=table')
    robot.spin_until(lambda: 'tf2_ros cannot be imported' in robot.diagnosis(), 'it complains')
    assert len(node.complaints()) == 1 and robot.state == 'inactive'
    assert robot.change_state('cleanup') and not robot.set_parameter('support_frame', '')
    assert robot.change_state('configure') and robot.change_state('activate')
    assert node.stop() == 0
    robot.close()
