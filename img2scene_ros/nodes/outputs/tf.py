# SPDX-License-Identifier: Apache-2.0
"""/tf: a frame per object, <node>/<label>_<id>."""

from dataclasses import dataclass

from geometry_msgs.msg import TransformStamped
from rclpy.lifecycle import LifecycleNode

from img2scene_ros.nodes.messages import transform_from_matrix
from img2scene_ros.nodes.outputs import TopicOutput
from img2scene_ros.nodes.outputs import importing_messages
from img2scene_ros.nodes.published import object_name
from img2scene_ros.nodes.published import own_name
from img2scene_ros.nodes.published import published_frame
from img2scene_ros.options import Options
from img2scene_ros.options import option
from img2scene_ros.types import Scene


@dataclass(frozen=True)
class TfOptions(Options):
    """Whether there are frames."""

    publish_tf: bool = option(
        True, 'Publish a TF frame img2scene/<label>_<id> for every object, behind the '
        'namespace of the node if it has one')


class TfOutput(TopicOutput):
    """Publishes the pose of every object at the stamp of every picture."""

    Options = TfOptions
    topic, qos = '/tf', 100

    def __init__(self, node: LifecycleNode, options: TfOptions) -> None:
        with importing_messages('tf', 'tf2_msgs'):
            from tf2_msgs.msg import TFMessage
        self.kind = TFMessage
        self._prefix = own_name(node, '/')
        self._stamp_ns = -1  # of the latest transforms: TF complains of those that come twice
        super().__init__(node, options)

    def show(self, scene: Scene, changed: bool) -> None:
        """Publish the frames, once per picture."""
        stamp_ns = scene.frame.stamp_ns
        if not self.options.publish_tf or not scene.objects or stamp_ns == self._stamp_ns:
            return
        self._stamp_ns = stamp_ns
        frame = published_frame(scene.frame)
        self._publisher.publish(self.kind(transforms=[
            TransformStamped(
                header=frame.header, child_frame_id=f'{self._prefix}/{object_name(item)}',
                transform=transform_from_matrix(frame.pose(item)))
            for item in scene.objects]))


BACKEND = TfOutput
