# SPDX-License-Identifier: Apache-2.0
"""~/objects: names, poses with covariance and sizes, for planners and other nodes."""

from rclpy.lifecycle import LifecycleNode

from img2scene_ros.nodes.outputs import TopicOutput
from img2scene_ros.nodes.outputs import importing_messages
from img2scene_ros.options import Options
from img2scene_ros.types import Scene


class ObjectsOutput(TopicOutput):
    """Publishes all objects of every frame, also those that are hidden, under stable ids."""

    topic, qos = '~/objects', 10

    def __init__(self, node: LifecycleNode, options: Options) -> None:
        with importing_messages('objects', 'vision_msgs'):
            from vision_msgs.msg import Detection3DArray

            from img2scene_ros.nodes import vision_messages
        self._messages, self.kind = vision_messages, Detection3DArray
        super().__init__(node, options)

    def show(self, scene: Scene, changed: bool) -> None:
        """Publish the objects if there is a subscriber."""
        if self._publisher.get_subscription_count():
            self._publisher.publish(self._messages.objects_message(scene))


BACKEND = ObjectsOutput
