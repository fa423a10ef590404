# SPDX-License-Identifier: Apache-2.0
"""~/objects: names, poses with covariance and sizes, for planners and other nodes."""

from rclpy.lifecycle import LifecycleNode

from img2scene_ros.nodes.outputs import NoOptions
from img2scene_ros.nodes.outputs import TopicOutput
from img2scene_ros.nodes.outputs import importing_messages
from img2scene_ros.types import Scene


class ObjectsOutput(TopicOutput):
    """Publishes all objects of every frame, also those that are hidden, under stable ids."""

    def __init__(self, node: LifecycleNode, options: NoOptions) -> None:
        with importing_messages('objects', 'vision_msgs'):
            from vision_msgs.msg import Detection3DArray
        super().__init__(node, options, Detection3DArray, '~/objects', 10)

    def show(self, scene: Scene, changed: bool) -> None:
        """Publish the objects if there is a subscriber."""
        from img2scene_ros.nodes.vision_messages import objects_message

        if self._publisher.get_subscription_count():
            self._publisher.publish(objects_message(scene))


BACKEND = ObjectsOutput
