# SPDX-License-Identifier: Apache-2.0
"""Places objects by how large things of their class usually are."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from img2scene_ros.localization import OPTICAL_UP
from img2scene_ros.localization import upright
from img2scene_ros.localization.class_sizes import read_sizes
from img2scene_ros.localization.class_sizes import usual_sizes
from img2scene_ros.localization.plane import lower_edge
from img2scene_ros.localization.plane import surroundings
from img2scene_ros.options import Options
from img2scene_ros.options import option
from img2scene_ros.types import Detection
from img2scene_ros.types import Frame
from img2scene_ros.types import Placement
from img2scene_ros.types import SupportPlane

# A known support tells the camera's tilt; one without any mostly looks down on things, by 5 to 45
# degrees. Radians.
_KNOWN_ANGLE_STD = np.radians(1.0)
_USUAL_TILT, _USUAL_TILT_STD, _USUAL_ROLL_STD = np.radians((25.0, 20.0, 10.0))
_USUAL_UP = np.array([0.0, -np.cos(_USUAL_TILT), -np.sin(_USUAL_TILT)])


@dataclass(frozen=True)
class SizePriorOptions(Options):
    """How large things are."""

    file: str = option(
        '', 'YAML file of class sizes, before those of the package; lines like bottle: '
        '{height: [0.24, 0.25], width: [0.075, 0.2]}, each metres and relative spread; empty: '
        'none', read_only=True)


class SizePriorDistance:
    """
    Finds the upright object of usual size whose box is the one that was seen.

    Seen from above, a box is as high as the object is tall and deep, so the tilt counts: taken
    from the support if there is one, else only roughly known and estimated with the rest.

    - sizes: usual sizes by label

    :raises InputError: the file of class sizes cannot be used
    """

    Options = SizePriorOptions

    def __init__(self, options: SizePriorOptions = SizePriorOptions()) -> None:
        self.options = options
        self.sizes = usual_sizes() | (read_sizes(Path(options.file)) if options.file else {})

    def place(
        self, frame: Frame, detection: Detection, support: SupportPlane | None,
    ) -> Placement | None:
        """
        Place a detection of a class whose size is known.

        :return: None for other classes, off the lens's view, and for a box that the picture's
            border cuts both in width and in height, unless it is known what the object stands on
        """
        usual = self.sizes.get(detection.label)
        seen = upright.seen_edges(frame.camera, detection.bbox)
        if usual is None or not np.isfinite(frame.camera.rays_at(detection.center)).all():
            return None
        # Where the border hides its foot, `plane` cannot tell; but it stands there all the same.
        is_cut = support and not seen[lower_edge(frame.camera, detection, support)]
        ground = support if is_cut else None
        if not (ground or seen[[0, 2]].all() or seen[[1, 3]].all()):
            return None
        sides = detection.bbox[2:] - detection.bbox[:2]
        distance = frame.camera.fx * np.hypot(usual.width, usual.height) / np.hypot(*sides)
        found = upright.fit_upright(
            frame.camera, detection.bbox, surroundings(ground) if ground else _around(support),
            [upright.DEEP_AS_WIDE, *usual.size_beliefs()], distance,
            (usual.width, usual.width, usual.height))
        if found is None:
            return None
        up = OPTICAL_UP if support is None else support.normal
        return upright.place_upright(found, frame.camera, detection, up, 'size_prior', ground)


def _around(support: SupportPlane | None) -> upright.Surroundings:
    if support is None:
        return upright.Surroundings(_USUAL_UP, _USUAL_TILT_STD, _USUAL_ROLL_STD)
    return upright.Surroundings(support.normal, _KNOWN_ANGLE_STD, _KNOWN_ANGLE_STD)


BACKEND = SizePriorDistance
