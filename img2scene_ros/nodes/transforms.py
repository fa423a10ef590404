# SPDX-License-Identifier: Apache-2.0
"""What TF knows at the stamps of pictures: the camera in the world, planes, other cameras."""

from dataclasses import replace
from time import monotonic
from typing import Any

import numpy as np
from rclpy.clock import ROSClock
from rclpy.node import Node
from rclpy.time import Time

from img2scene_ros.errors import InputError
from img2scene_ros.errors import MissingDependencyError
from img2scene_ros.io.bag_transforms import matrix_of
from img2scene_ros.nodes.pairing import Pair
from img2scene_ros.types import Frame
from img2scene_ros.types import SupportPlane

# Nanoseconds by which stamps go back where a bag starts again, or a simulation.
BACK = 500_000_000
PATIENCE = 2.0  # seconds of waiting at least where a simulation or a bag may be slow
APART = 2_000_000  # nanoseconds between two poses that tell how fast a camera moves
FASTEST = 5.0  # metres per second; arms and mobile robots stay below 3


class Transforms:
    """
    Looks up transforms at the stamps of pictures.

    :param timeout: seconds that a picture waits for them
    """

    def __init__(self, node: Node, timeout: float) -> None:
        self._node = node
        self._timeout = timeout
        self._latest_ns = self._cleared_ns = 0  # stamps of pictures
        self._frames: tuple[str, ...] = ()
        self._is_settled = True  # nothing of before the stamps went back is left
        self._buffer: Any = None  # a tf2_ros.Buffer
        self._listener: Any = None

    def listen(self, purpose: str, *frames: str) -> None:
        """
        Start listening to TF, if that has not begun.

        :param purpose: what it is needed for, a clause
        :param frames: in which the camera of every picture is to be known
        :raises MissingDependencyError: tf2_ros is not installed
        """
        self._frames += frames
        if self._buffer is not None:
            return
        try:
            from tf2_ros import Buffer
            from tf2_ros import TransformListener
        except ImportError as error:
            raise MissingDependencyError(
                f'{purpose}, but tf2_ros cannot be imported ({error}), so TF cannot be read; '
                'install it (ros-<distro>-tf2-ros-py)') from error
        self._buffer = Buffer()
        self._listener = TransformListener(self._buffer, self._node)

    def close(self) -> None:
        """Stop listening."""
        if self._listener is not None:
            self._listener.unregister()
        self._buffer = self._listener = None

    def has_come(self, pair: Pair) -> bool:
        """Tell whether TF knows all that a pair needs, or the pair has waited long enough."""
        buffer, header = self._buffer, pair.color.header
        clock, timeout = self._node.get_clock(), self._timeout
        if isinstance(clock, ROSClock) and clock.ros_time_is_active:
            timeout = max(timeout, PATIENCE)
        if buffer is None or monotonic() - pair.arrived > timeout:
            return True
        frames = {*self._frames, pair.depth.header.frame_id if pair.depth else ''}
        time = Time.from_msg(header.stamp)
        return all(buffer.can_transform(frame, header.frame_id, time)
                   for frame in frames - {'', header.frame_id})

    def follow_stamps(self, stamp_ns: int) -> None:
        """Forget what is known when the stamps go back, and again while old transforms come."""
        # tf2 refuses what is much older than the newest it has, and mixes what is a little.
        if self._buffer is not None and (
                stamp_ns < self._latest_ns - BACK
                or not self._is_settled and stamp_ns > self._cleared_ns + BACK):
            self._buffer.clear()
            self._is_settled, self._cleared_ns = False, stamp_ns
        self._latest_ns = stamp_ns

    def matrix(self, target: str, source: str, stamp_ns: int, purpose: str) -> np.ndarray:
        """
        Return what takes points of a frame to another at a stamp, (4, 4).

        :param purpose: the parameter or topic that needs it, as messages name it
        :raises InputError: TF does not know it then
        """
        buffer = self._buffer  # another thread may close
        if buffer is None:
            raise InputError(f'TF is not listened to, which {purpose} needs; activate the node')
        if stamp_ns == 0:
            raise InputError(
                f"pictures of '{source}' have no stamp (0), so TF does not tell where it is in "
                f"'{target}' ({purpose}); set the stamps in the driver")
        from tf2_ros import ExtrapolationException
        from tf2_ros import TransformException

        try:
            found = _looked_up(buffer, target, source, stamp_ns)
        except TransformException as error:
            cure = (
                'raise tf_timeout, or check that what publishes it has the clock of the camera '
                '(use_sim_time)' if isinstance(error, ExtrapolationException) else
                f'publish the transform that {purpose} needs')
            raise InputError(
                f"TF does not tell where '{source}' is in '{target}' ({purpose}) at the stamp of "
                f"the picture ({' '.join(str(error).split())}); {cure}") from error
        self._is_settled |= stamp_ns <= self._latest_ns + BACK  # not of before they went back
        try:
            before = _looked_up(buffer, target, source, max(stamp_ns - APART, 1))
        except TransformException:  # the first that is known
            return found
        speed = np.linalg.norm(found[:3, 3] - before[:3, 3]) / (APART * 1e-9)
        if speed > FASTEST:
            raise InputError(
                f"by TF '{source}' moves at {speed:.0f} m/s in '{target}' ({purpose}), as where "
                'two nodes publish one transform; see to it that only one does')
        return found


def _looked_up(buffer: Any, target: str, source: str, stamp_ns: int) -> np.ndarray:
    return matrix_of(buffer.lookup_transform(
        target, source, Time(nanoseconds=stamp_ns)).transform)


def in_world(frame: Frame, transforms: Transforms, target_frame: str) -> Frame:
    """
    Return a frame that knows where its camera was in the world, and so what is up.

    :param target_frame: a TF frame, its z axis up
    :raises InputError: TF does not know it at the frame's stamp
    """
    pose = transforms.matrix(target_frame, frame.frame_id, frame.stamp_ns, 'target_frame')
    return replace(frame, world_from_camera=pose, world_id=target_frame, up=pose[2, :3])


def support_at(frame: Frame, transforms: Transforms, support_frame: str) -> SupportPlane:
    """
    Return the plane z = 0 of a TF frame as a camera sees it.

    :param support_frame: its z axis is up
    :raises InputError: TF does not know it at the frame's stamp, or the camera is below the plane
    """
    pose = transforms.matrix(support_frame, frame.frame_id, frame.stamp_ns, 'support_frame')
    up, height = pose[2, :3], float(pose[2, 3])
    if height <= 0.0:
        raise InputError(
            f"the camera frame '{frame.frame_id}' is {-height:.2f} m below the plane z = 0 of "
            f"'{support_frame}' (support_frame); name the frame of the table or floor, z up")
    return SupportPlane(up, height)
