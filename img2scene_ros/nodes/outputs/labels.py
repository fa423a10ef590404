# SPDX-License-Identifier: Apache-2.0
"""~/labels: which object every pixel shows, for programs that segment clouds or pictures."""

import numpy as np
from sensor_msgs.msg import Image

from img2scene_ros.nodes.messages import image_from_labels
from img2scene_ros.nodes.messages import picture_header
from img2scene_ros.nodes.outputs import TopicOutput
from img2scene_ros.types import Scene
from img2scene_ros.types import SceneObject


class LabelsOutput(TopicOutput):
    """Publishes a mono16 picture per frame while someone listens: pixel = track id, 0 = none."""

    kind, topic = Image, '~/labels'

    def show(self, scene: Scene, changed: bool) -> None:
        """Publish the labels of the frame if there is a subscriber."""
        if self._publisher.get_subscription_count():
            header = picture_header(scene.frame)
            self._publisher.publish(image_from_labels(header, label_image(scene)))


def label_image(scene: Scene) -> np.ndarray:
    """
    Draw the objects' masks with their ids, nearer ones over farther ones.

    :return: (H, W) uint16; ids above 65,535 start again at 1
    """
    labels = np.zeros(scene.frame.shape, np.uint16)
    for item in sorted(scene.objects, key=lambda item: -item.position[2]):
        mask = item.detection.mask
        if item.state == 'visible' and mask is not None and mask.shape == labels.shape:
            labels[mask] = pixel_value(item)
    return labels


def pixel_value(item: SceneObject) -> int:
    """Return the value of the pixels that show an object."""
    return (item.id - 1) % 65535 + 1


BACKEND = LabelsOutput
