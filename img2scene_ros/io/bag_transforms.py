# SPDX-License-Identifier: Apache-2.0
"""Where the cameras of a recording are in each other: /tf_static, /tf, extrinsics of RealSense."""

import re
from itertools import islice
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

MOST = 1000  # messages of a topic; cameras that are fixed to each other are in the first ones

# Of librealsense's own recordings: the stream is the frame (ros_file_format.h).
_STREAM = re.compile(r'(/device_\d+/sensor_\d+/[^/]+_\d+)/')


def stream_of(topic: str) -> str:
    """Return what names a stream in librealsense's own recordings; '' elsewhere."""
    found = _STREAM.match(topic)
    return found[1] if found else ''


def relative_unit(reader: Any, topic: str) -> float:
    """Return the unit of a stream of depth images of librealsense, in millimetres; else 1."""
    option = stream_of(topic).rpartition('/')[0] + '/option/Depth_Units/value'
    values = [message.data for connection in reader.connections if connection.topic == option
              for message in _first_messages(reader, connection)]
    return 1000.0 * values[0] if values else 1.0


class BagTransforms:
    """
    Transforms between frames that are fixed to each other.

    :param reader: an open AnyReader of rosbags
    """

    def __init__(self, reader: Any) -> None:
        self._parents: dict[str, tuple[str, np.ndarray]] = {}
        self._moving: set[str] = set()
        for connection in reader.connections:
            if connection.msgtype.lower().endswith('/tfmessage'):
                for message in _first_messages(reader, connection):
                    for one in message.transforms:
                        self._add(
                            one.header.frame_id, one.child_frame_id, matrix_of(one.transform))
            elif connection.msgtype.endswith('/Transform') and stream_of(connection.topic):
                # It takes points of the common reference to the stream (rs2_extrinsics).
                reference = connection.topic.rpartition('/tf/')[2]
                for message in _first_messages(reader, connection):
                    self._add(reference, stream_of(connection.topic),
                              np.linalg.inv(matrix_of(message)))

    def matrix(self, target: str, source: str) -> np.ndarray | None:
        """Return what takes points of a frame to another, (4, 4); None if nothing tells."""
        to_target, to_source = self._above(target), self._above(source)
        shared = next((frame for frame in to_source if frame in to_target), None)
        return None if shared is None else (
            np.linalg.inv(to_target[shared]) @ to_source[shared])

    def _add(self, parent: str, child: str, matrix: np.ndarray) -> None:
        known = self._parents.setdefault(_plain(child), (_plain(parent), matrix))
        if known[0] != _plain(parent) or not np.allclose(known[1], matrix, atol=1e-5):
            self._moving.add(_plain(child))

    def _above(self, frame: str) -> dict[str, np.ndarray]:
        """Return a frame and those that it is fixed in, each with what takes its points there."""
        name = _plain(frame)
        found = {name: np.eye(4)}
        while name in self._parents and name not in self._moving:
            parent, matrix = self._parents[name]
            if parent in found:
                break
            found[parent] = matrix @ found[name]
            name = parent
        return found


def _first_messages(reader: Any, connection: Any) -> list[Any]:
    return [reader.deserialize(data, connection.msgtype)
            for _, _, data in islice(reader.messages([connection]), MOST)]


def _plain(frame: str) -> str:
    """Return the name of a frame; in ROS 1 it may begin with a slash."""
    return frame.removeprefix('/')


def matrix_of(transform: Any) -> np.ndarray:
    """Return a geometry_msgs/Transform as what takes points of the child to the parent, (4, 4)."""
    q, t = transform.rotation, transform.translation
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_quat([q.x, q.y, q.z, q.w]).as_matrix()
    matrix[:3, 3] = t.x, t.y, t.z
    return matrix
