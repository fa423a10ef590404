# SPDX-License-Identifier: Apache-2.0
"""Depth images of a camera beside the picture's are registered by its camera_info and TF."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import small_tf2
from geometry_msgs.msg import TransformStamped
from harness import GEOMETRIC
from harness import NodeProcess
from harness import Robot
from harness import meshes
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import Image
from synthetic import box
from synthetic import camera_pose
from synthetic import can
from synthetic import tabletop_frame

from img2scene_ros.camera import Camera
from img2scene_ros.nodes.demo_nodes import free_domain
from img2scene_ros.nodes.messages import header_of
from img2scene_ros.nodes.messages import image_from_color
from img2scene_ros.nodes.messages import image_from_depth
from img2scene_ros.nodes.messages import info_from_camera
from img2scene_ros.types import Frame

POSE = camera_pose(40, 0.9)
PLACES = np.array([[0.0, -0.15, 0.06], [0.05, 0.17, 0.05]])  # on the table
CAMERA = Camera(320, 240, 300.0, 300.0, 159.5, 119.5)
DEPTH_CAMERA = Camera(424, 240, 210.0, 210.0, 212.0, 119.0)


class TwoCameras:
    """Publishes pictures, and the depth images of another camera 6 cm beside."""

    def __init__(self, robot: Robot) -> None:
        self.shift = np.eye(4)  # from the depth camera to the picture's
        self.shift[:3, :3] = Rotation.from_euler('y', 3.0, degrees=True).as_matrix()
        self.shift[:3, 3] = -0.06, 0.002, 0.004
        things = [can(0.04, 0.12).apply_translation((*PLACES[0, :2], 0)),
                  box(0.08, 0.1, 0.1).apply_translation((*PLACES[1, :2], 0))]
        self.picture = tabletop_frame(things, POSE, None, CAMERA)[0]
        self.other: Frame = tabletop_frame(things, POSE @ self.shift, None, DEPTH_CAMERA)[0]
        self._node = robot.node
        self._publishers = {topic: self._node.create_publisher(kind, topic, 1) for topic, kind in (
            ('/rgb/image', Image), ('/rgb/camera_info', CameraInfo),
            ('/depth/image', Image), ('/depth/camera_info', CameraInfo),
            ('/tf', TransformStamped))}

    def send(self, with_tf: bool = True) -> None:
        stamp = self._node.get_clock().now().nanoseconds
        color, depth = header_of('rgb_optical', stamp), header_of('depth_optical', stamp)
        for topic, message in (
                ('/rgb/camera_info', info_from_camera(color, CAMERA)),
                ('/depth/camera_info', info_from_camera(depth, DEPTH_CAMERA)),
                ('/rgb/image', image_from_color(color, self.picture.color)),
                ('/depth/image', image_from_depth(depth, self.other.depth)),
                *([('/tf', small_tf2.transform_message(
                    self.shift, 'rgb_optical', 'depth_optical', stamp))] if with_tf else [])):
            self._publishers[topic].publish(message)


@pytest.fixture
def robot() -> Iterator[Robot]:
    robot = Robot(free_domain())
    yield robot
    robot.close()


def test_depth_of_a_camera_beside_is_registered_or_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, robot: Robot,
) -> None:
    """Without TF it is refused, naming both frames; with it objects are where they are."""
    (tmp_path / 'tf2_ros.py').write_text(Path(small_tf2.__file__).read_text())
    monkeypatch.setenv('PYTHONPATH', str(tmp_path), prepend=':')
    cameras = TwoCameras(robot)
    node = NodeProcess(
        'scene_node', robot.domain, tmp_path, *GEOMETRIC, '-r', 'image:=/rgb/image',
        '-p', 'outputs:=[markers]',  # the stand-in's /tf is of another type than that of `tf`
        '-r', 'camera_info:=/rgb/camera_info', '-r', 'depth:=/depth/image',
        '-p', 'workspace:=[-2.0, -2.0, 0.0, 2.0, 2.0, 2.0]')
    robot.spin_until(
        lambda: "'depth_optical'" in robot.diagnosis() and "'rgb_optical'" in robot.diagnosis(),
        'it is refused', lambda: cameras.send(with_tf=False))
    assert 'align_depth.enable:=true' in robot.diagnosis()
    assert not any(meshes(shown) for shown in robot.markers)
    robot.spin_until(
        lambda: any(len(meshes(shown)) == 2 for shown in robot.markers), 'objects are shown',
        cameras.send)
    shown = next(shown for shown in reversed(robot.markers) if len(meshes(shown)) == 2)
    found = np.array([
        [one.pose.position.x, one.pose.position.y, one.pose.position.z]
        for one in meshes(shown).values()])
    found = found @ POSE[:3, :3].T + POSE[:3, 3]
    assert np.allclose(found[np.argsort(found[:, 1])], PLACES, atol=0.015)
    assert node.stop() == 0
