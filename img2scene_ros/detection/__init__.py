"""Detection: which objects a frame shows, as boxes and, where possible, masks."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from img2scene_ros.camera import box_edges
from img2scene_ros.frame import Frame
from img2scene_ros.options import Options
from img2scene_ros.support import SupportPlane

UNNAMED = 'object'  # the label from detectors that know no classes


@dataclass(frozen=True, eq=False)
class Detection:
    """
    One object in the picture.

    - label: the class name, or `UNNAMED`
    - score: confidence, 0 to 1
    - bbox: (4,) xmin, ymin, xmax, ymax in pixels, inside the picture; counts the edges of pixels,
      so one that covers pixel (0, 0) alone is 0, 0, 1, 1
    - mask: (H, W) bool, the object's visible pixels; None when the detector has no masks
    """

    label: str
    score: float
    bbox: np.ndarray
    mask: np.ndarray | None = None

    @property
    def center(self) -> np.ndarray:
        """Return the box's centre in the pixels of the camera, (2,)."""
        edges = box_edges(self.bbox)
        return (edges[:2] + edges[2:]) / 2.0


class Detector(Protocol):
    """Finds objects; its options may be replaced while it runs, except the read-only ones."""

    Options: type[Options]
    options: Options

    def detect(self, frame: Frame, support: SupportPlane | None) -> list[Detection]:
        """
        Find the objects in a frame.

        :param support: the plane that objects stand on, when the depth image shows one
        :raises Img2SceneError: the frame lacks what this detector needs
        """


def bbox_of(mask: np.ndarray) -> np.ndarray:
    """
    Return the tight box around a mask.

    :param mask: (H, W) bool, not empty
    :return: (4,) float, xmin, ymin, xmax, ymax in pixels, the upper ends exclusive
    """
    rows = np.flatnonzero(mask.any(axis=1))
    columns = np.flatnonzero(mask.any(axis=0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], float)
