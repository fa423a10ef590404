# SPDX-License-Identifier: Apache-2.0
"""~/overlay: the picture with boxes, masks and names drawn on it."""

from dataclasses import replace

from sensor_msgs.msg import Image

from img2scene_ros.nodes.messages import image_from_color
from img2scene_ros.nodes.messages import picture_header
from img2scene_ros.nodes.outputs import TopicOutput
from img2scene_ros.rendering.pictures import draw_overlay
from img2scene_ros.types import Scene


class OverlayOutput(TopicOutput):
    """Publishes an rgb8 picture per frame while someone listens."""

    kind, topic = Image, '~/overlay'

    def show(self, scene: Scene, changed: bool) -> None:
        """Draw and publish the picture if there is a subscriber."""
        if self._publisher.get_subscription_count():
            header = picture_header(scene.frame)
            seen = tuple(item for item in scene.objects if item.state == 'visible')
            self._publisher.publish(
                image_from_color(header, draw_overlay(replace(scene, objects=seen))))


BACKEND = OverlayOutput
