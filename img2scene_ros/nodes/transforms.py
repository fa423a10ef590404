# SPDX-License-Identifier: Apache-2.0
"""What TF knows: where the plane that objects stand on is in the camera's frame."""

from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.time import Time
from scipy.spatial.transform import Rotation

from img2scene_ros.errors import InputError
from img2scene_ros.errors import MissingDependencyError
from img2scene_ros.types import Frame
from img2scene_ros.types import SupportPlane

TIMEOUT = 0.2  # seconds to wait for the transform of a picture that has just been taken


class SupportFrame:
    """
    Looks up the plane z = 0 of a TF frame.

    The node's executor receives the transforms; look up from another thread.

    :param name: the frame, its z axis up
    :raises MissingDependencyError: tf2_ros is not installed
    """

    def __init__(self, node: Node, name: str) -> None:
        try:
            from tf2_ros import Buffer
            from tf2_ros import TransformListener
        except ImportError as error:
            raise MissingDependencyError(
                f"the parameter 'support_frame' is '{name}' but tf2_ros cannot be imported "
                f'({error}), so TF cannot be read; install it (ros-<distro>-tf2-ros-py), or leave '
                "'support_frame' empty and set plane.camera_height and plane.tilt") from error
        self.name = name
        self._buffer = Buffer()
        self._listener = TransformListener(self._buffer, node)

    def close(self) -> None:
        """Stop listening."""
        self._listener.unregister()

    def support(self, frame: Frame) -> SupportPlane:
        """
        Return the plane at the frame's stamp.

        :raises InputError: TF does not connect the two frames, or the camera is below the plane
        """
        from tf2_ros import TransformException

        try:
            found = self._buffer.lookup_transform(
                frame.frame_id, self.name, Time(nanoseconds=frame.stamp_ns),
                Duration(seconds=TIMEOUT)).transform
        except TransformException as error:
            raise InputError(
                f"TF does not tell where '{self.name}' (support_frame) is for the camera frame "
                f"'{frame.frame_id}': {str(error).strip()}; publish the transform or leave "
                "support_frame empty") from error
        q, t = found.rotation, found.translation
        up = Rotation.from_quat([q.x, q.y, q.z, q.w]).as_matrix()[:, 2]
        height = float(-up @ (t.x, t.y, t.z))
        if height <= 0.0:
            raise InputError(
                f"the camera frame '{frame.frame_id}' is {-height:.2f} m below the plane z = 0 of "
                f"'{self.name}' (support_frame); name the frame of the table or floor, z up")
        return SupportPlane(up, height)
