# SPDX-License-Identifier: Apache-2.0
"""What supports are published as: a rectangle that stays while the plane is seen to be there."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count

import cv2
import numpy as np

from img2scene_ros.detection.supports import support_under
from img2scene_ros.nodes.published import published_frame
from img2scene_ros.types import Scene
from img2scene_ros.types import SupportPlane

HEIGHT_TOLERANCE = 0.01  # metres that its corners may be off from a newer plane
OUTLINE_TOLERANCE = 0.03  # metres that a newer outline may go beyond the rectangle
AROUND = 0.5  # metres around the objects, where nothing tells where a plane ends


@dataclass(frozen=True, eq=False)
class SupportBox:
    """
    A rectangle in a support plane.

    - pose: (4, 4), its centre, z up
    - size: (2,) metres along its x and y
    """

    pose: np.ndarray
    size: np.ndarray

    def holds(self, support: SupportPlane, points: np.ndarray) -> bool:
        """Tell whether it still tells where a support is; parameters as `support_box`."""
        corners = np.array([[x, y, 0.0] for x in (-0.5, 0.5) for y in (-0.5, 0.5)])
        corners[:, :2] *= self.size
        heights = support.height(corners @ self.pose[:3, :3].T + self.pose[:3, 3])
        outline = points if support.hull is None else support.hull
        local = (outline - self.pose[:3, 3]) @ self.pose[:3, :2]
        return bool((np.abs(heights) < HEIGHT_TOLERANCE).all()
                    and (np.abs(local) < self.size / 2.0 + OUTLINE_TOLERANCE).all())


def published_supports(
    scene: Scene, before: Mapping[int, SupportBox],
) -> dict[int, SupportBox]:
    """
    Return where the main support is, and all others that an object stands on, by number.

    :param before: of an earlier scene; one that still holds keeps its number
    """
    frame = published_frame(scene.frame)
    positions = np.reshape([item.position for item in scene.objects], (-1, 3))
    under = [support_under(one[None], scene.supports) for one in positions]
    points = frame.points(positions)
    planes = [frame.support(one) for one in scene.supports if one is scene.support or one in under]
    found: dict[int, SupportBox] = {}
    new = []
    for plane in planes:
        held = next((number for number, box in before.items()
                     if number not in found and box.holds(plane, points)), None)
        if held is None:
            new.append(support_box(plane, points))
        else:
            found[held] = before[held]
    free = (number for number in count() if number not in found)
    return found | {number: box for number, box in zip(free, new) if box}


def support_box(support: SupportPlane, points: np.ndarray) -> SupportBox | None:
    """
    Return the smallest rectangle around the seen part of a support.

    :param points: (N, 3) metres, where objects are; the rectangle is around them where the plane
        has no outline
    :return: None where there is neither an outline nor an object
    """
    outline = points if support.hull is None else support.hull
    if not len(outline):
        return None
    axes = support.axes
    center, size, angle = cv2.minAreaRect((outline @ axes.T).astype(np.float32))
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    pose = np.eye(4)
    pose[:3, 0], pose[:3, 1], pose[:3, 2] = (
        c * axes[0] + s * axes[1], c * axes[1] - s * axes[0], support.normal)
    pose[:3, 3] = np.asarray(center) @ axes - support.offset * support.normal
    margin = 2.0 * AROUND if support.hull is None else 0.0
    return SupportBox(pose, np.asarray(size) + margin)
