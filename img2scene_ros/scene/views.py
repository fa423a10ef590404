# SPDX-License-Identifier: Apache-2.0
"""The best views of one object from different sides, cut out so that they hold no whole frames."""

from dataclasses import dataclass
from dataclasses import replace

import numpy as np

from img2scene_ros.types import Sighting

_MOST = 4  # views of an object
_APART = np.cos(np.radians(35.0))  # views from sides that differ by less are of one side
_BETTER = 1.2  # times more of the object by which a view of a side takes the place of another
_MARGIN = 8  # pixels around what is cut out


@dataclass(frozen=True, eq=False)
class SideView:
    """
    An object from one side.

    - sighting: of a frame that is cut out around it
    - pose: (4, 4) camera from object, then
    - quality: how much of it is seen
    """

    sighting: Sighting
    pose: np.ndarray
    quality: float

    @property
    def direction(self) -> np.ndarray:
        """Return where the camera is as seen from the object, (3,) unit vector, its axes."""
        towards = -self.pose[:3, :3].T @ self.pose[:3, 3]
        return towards / np.linalg.norm(towards)


class Views:
    """Keeps the best few."""

    def __init__(self) -> None:
        self.kept: list[SideView] = []

    def consider(self, sighting: Sighting, pose: np.ndarray, quality: float) -> None:
        """Keep a view that is the first of its side, or clearly better than that which was."""
        view = SideView(sighting, pose, quality)
        same = [one for one in self.kept if one.direction @ view.direction > _APART]
        if any(quality <= _BETTER * one.quality for one in same):
            return
        kept = [one for one in self.kept if one not in same]
        kept.append(replace(view, sighting=_cut_out(sighting)))
        self.kept = sorted(kept, key=lambda one: one.quality)[-_MOST:]

    def turn(self, old_from_new: np.ndarray) -> None:
        """Go on in other axes of the object, (4, 4)."""
        self.kept = [replace(one, pose=one.pose @ old_from_new) for one in self.kept]


def _cut_out(sighting: Sighting) -> Sighting:
    """Return a sighting whose frame is no larger than it needs to be."""
    frame, detection = sighting.frame, sighting.detection
    height, width = frame.shape
    xmin, ymin = np.maximum(np.floor(detection.bbox[:2]).astype(int) - _MARGIN, 0).tolist()
    xmax, ymax = np.minimum(
        np.ceil(detection.bbox[2:]).astype(int) + _MARGIN, (width, height)).tolist()
    part = np.s_[ymin:ymax, xmin:xmax]
    cut, mask = replace(
        frame, color=frame.color[part].copy(),
        camera=frame.camera.cropped(xmin, ymin, xmax - xmin, ymax - ymin),
        depth=None if frame.depth is None else frame.depth[part].copy(),
        robot=None if frame.robot is None else frame.robot[part].copy()), detection.mask
    return Sighting(cut, replace(
        detection, bbox=detection.bbox - [xmin, ymin, xmin, ymin],
        mask=None if mask is None else mask[part].copy()), sighting.placement)
