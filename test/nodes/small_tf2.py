# SPDX-License-Identifier: Apache-2.0
"""
As much of tf2_ros as the node uses, for machines without it: pip does not have it.

A buffer with tf2's rules: transforms are interpolated between two stamps and never extrapolated,
static ones hold always, what is 10 s older than the newest is refused. The listener receives
single TransformStamped on /tf, as tf2_msgs is not on PyPI either.
"""

from threading import Lock
from typing import Any

import numpy as np
from geometry_msgs.msg import TransformStamped
from rclpy.time import Time
from scipy.spatial.transform import Rotation
from scipy.spatial.transform import Slerp

MEMORY = 10 * 10 ** 9  # nanoseconds


class TransformException(Exception):
    """The base of all."""


class LookupException(TransformException):
    """A frame is unknown."""


class ConnectivityException(TransformException):
    """Two frames are in different trees."""


class ExtrapolationException(TransformException):
    """A stamp is outside those known."""


class Buffer:
    """Transforms by child frame."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._known: dict[str, tuple[str, bool, dict[int, np.ndarray]]] = {}

    def set_transform(self, transform: TransformStamped, _authority: str = '') -> None:
        """Add a transform that holds at its stamp."""
        self._set(transform, False)

    def set_transform_static(self, transform: TransformStamped, _authority: str = '') -> None:
        """Add a transform that holds always."""
        self._set(transform, True)

    def clear(self) -> None:
        """Forget all but the static transforms."""
        with self._lock:
            for _, is_static, samples in self._known.values():
                if not is_static:
                    samples.clear()

    def can_transform(self, target_frame: str, source_frame: str, time: Time) -> bool:
        """Tell whether a transform is known now."""
        try:
            self.lookup_transform(target_frame, source_frame, time)
            return True
        except TransformException:
            return False

    def lookup_transform(
        self, target_frame: str, source_frame: str, time: Time,
    ) -> TransformStamped:
        """Return what takes points of the source frame to the target frame."""
        with self._lock:
            from_target = self._to_root(target_frame, time.nanoseconds)
            from_source = self._to_root(source_frame, time.nanoseconds)
        if from_target[0] != from_source[0]:
            raise ConnectivityException(
                f'{target_frame!r} and {source_frame!r} are not in one tree')
        return transform_message(
            np.linalg.inv(from_target[1]) @ from_source[1], target_frame, source_frame,
            time.nanoseconds)

    def _set(self, transform: TransformStamped, is_static: bool) -> None:
        q, t = transform.transform.rotation, transform.transform.translation
        matrix = np.eye(4)
        matrix[:3, :3] = Rotation.from_quat([q.x, q.y, q.z, q.w]).as_matrix()
        matrix[:3, 3] = t.x, t.y, t.z
        stamp = transform.header.stamp.sec * 10 ** 9 + transform.header.stamp.nanosec
        with self._lock:
            known = self._known.setdefault(
                transform.child_frame_id, (transform.header.frame_id, is_static, {}))
            if stamp >= max(known[2], default=0) - MEMORY:
                known[2][stamp] = matrix

    def _to_root(self, frame: str, stamp: int) -> tuple[str, np.ndarray]:
        parents = {parent for parent, _, _ in self._known.values()}
        if frame not in self._known and frame not in parents:
            raise LookupException(f'"{frame}" passed to lookupTransform does not exist')
        matrix = np.eye(4)
        while frame in self._known:
            frame, is_static, samples = self._known[frame]
            matrix = (next(iter(samples.values())) if is_static
                      else _between(samples, stamp)) @ matrix
        return frame, matrix


class TransformListener:
    """Puts what is published on /tf into a buffer."""

    def __init__(self, buffer: Buffer, node: Any) -> None:
        self.is_listening = True
        self._node = node
        self._subscription = node and node.create_subscription(
            TransformStamped, '/tf', buffer.set_transform, 10)

    def unregister(self) -> None:
        """Stop."""
        self.is_listening = False
        if self._node:
            self._node.destroy_subscription(self._subscription)


def _between(samples: dict[int, np.ndarray], stamp: int) -> np.ndarray:
    stamps = sorted(samples)
    if not stamps or not stamps[0] <= stamp <= stamps[-1]:
        raise ExtrapolationException(
            f'Lookup would require extrapolation at time {stamp}, but data are from {stamps[:1]} '
            f'to {stamps[-1:]}')
    if stamp in samples:
        return samples[stamp]
    after = next(i for i, other in enumerate(stamps) if other > stamp)
    times = stamps[after - 1:after + 1]
    share = (stamp - times[0]) / (times[1] - times[0])
    first, second = (samples[time] for time in times)
    matrix = np.eye(4)
    matrix[:3, :3] = Slerp([0.0, 1.0], Rotation.from_matrix(
        [first[:3, :3], second[:3, :3]]))(share).as_matrix()
    matrix[:3, 3] = (1.0 - share) * first[:3, 3] + share * second[:3, 3]
    return matrix


def transform_message(
    matrix: np.ndarray, parent: str, child: str, stamp_ns: int,
) -> TransformStamped:
    """Return a message of (4, 4), which takes points of the child to its parent."""
    message = TransformStamped(child_frame_id=child)
    message.header.frame_id = parent
    message.header.stamp = Time(nanoseconds=stamp_ns).to_msg()
    q, t = message.transform.rotation, message.transform.translation
    q.x, q.y, q.z, q.w = map(float, Rotation.from_matrix(matrix[:3, :3]).as_quat())
    t.x, t.y, t.z = map(float, matrix[:3, 3])
    return message
