# SPDX-License-Identifier: Apache-2.0
"""~/detections: boxes in the picture; ~/label_info: the names of the pixels of ~/labels."""

from rclpy.lifecycle import LifecycleNode

from img2scene_ros.nodes.messages import picture_header
from img2scene_ros.nodes.outputs import TopicOutput
from img2scene_ros.nodes.outputs import importing_messages
from img2scene_ros.nodes.outputs.labels import pixel_value
from img2scene_ros.nodes.topics import LATCHED
from img2scene_ros.options import Options
from img2scene_ros.types import Scene


class DetectionsOutput(TopicOutput):
    """Publishes what every picture shows, under the objects' ids; names are latched."""

    topic, qos = '~/detections', 10

    def __init__(self, node: LifecycleNode, options: Options) -> None:
        with importing_messages('detections', 'vision_msgs'):
            from vision_msgs.msg import Detection2DArray
            from vision_msgs.msg import LabelInfo

            from img2scene_ros.nodes import vision_messages
        self._messages, self.kind = vision_messages, Detection2DArray
        self._names: dict[int, str] | None = None  # as published last
        super().__init__(node, options)
        self._info = node.create_lifecycle_publisher(LabelInfo, '~/label_info', LATCHED)

    def show(self, scene: Scene, changed: bool) -> None:
        """Publish the boxes if there is a subscriber, and the names when they have changed."""
        header = picture_header(scene.frame)
        names = {pixel_value(item): item.detection.label for item in scene.objects}
        if names != self._names and self._info.is_activated:
            self._info.publish(self._messages.label_info(header, names))
            self._names = names
        if self._publisher.get_subscription_count():
            self._publisher.publish(self._messages.detections_message(header, {
                str(item.id): item.detection for item in scene.objects
                if item.state == 'visible'}))

    def close(self) -> None:
        """Destroy the publishers."""
        super().close()
        self._node.destroy_lifecycle_publisher(self._info)


BACKEND = DetectionsOutput
