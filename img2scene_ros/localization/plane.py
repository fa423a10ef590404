# SPDX-License-Identifier: Apache-2.0
"""Places objects by where they stand: the rays of their boxes meet a known plane."""

from dataclasses import dataclass

import numpy as np

from img2scene_ros.camera import Camera
from img2scene_ros.camera import box_edges
from img2scene_ros.localization import upright
from img2scene_ros.localization.class_sizes import usual_sizes
from img2scene_ros.localization.gravity import up_of
from img2scene_ros.options import Options
from img2scene_ros.options import option
from img2scene_ros.types import Detection
from img2scene_ros.types import Frame
from img2scene_ros.types import Placement
from img2scene_ros.types import SupportPlane

# A plane seen in the depth image is more exact than one that was told: radians, share.
_MEASURED_TILT_STD, _MEASURED_HEIGHT_STD = np.radians(0.3), 0.005
_FOOT_MARGIN = 0.1  # metres that an object may stand beyond the seen outline of its support
# Of a class without known size: how much taller than wide (ln; rendered objects and furniture).
_ANY_PROPORTION = upright.Belief((0.0, -1.0, 1.0), -0.3, 1.1)


@dataclass(frozen=True)
class PlaneOptions(Options):
    """The plane under the objects, where neither the depth image nor TF shows it."""

    camera_height: float = option(
        0.0, 'Height of the camera above the plane that objects stand on [m]; 0 is unknown. '
        'Counts where the depth image shows no plane and TF tells none', low=0.0, high=100.0)
    tilt: float = option(
        0.0, 'How far below the horizon the camera looks [degrees]', low=-90.0, high=90.0)
    roll: float = option(
        0.0, 'How far the camera is rolled, its right side down [degrees]',
        low=-180.0, high=180.0)
    height_std: float = option(
        0.02, 'Standard deviation of that height, and of the one from TF, as a share of it',
        low=0.001, high=0.5)
    angle_std: float = option(
        1.0, 'Standard deviation of tilt and roll, also of those from TF [degrees]',
        low=0.01, high=30.0)

    def support(self) -> SupportPlane | None:
        """Return the plane, None when the height is unknown."""
        if self.camera_height == 0.0:
            return None
        up = up_of(np.radians(self.tilt), np.radians(self.roll))
        return SupportPlane(up, self.camera_height)


class PlaneDistance:
    """
    Finds the upright object on the plane whose box is the one that was seen.

    The box's lower edge is where the object meets the plane, its other edges tell how large it
    is and so how far its centre lies behind that. How large things of its class are is not used,
    only how tall they are for their width; so this source errs independently of `size_prior`.
    """

    Options = PlaneOptions

    def __init__(self, options: PlaneOptions = PlaneOptions()) -> None:
        self.options = options

    def place(
        self, frame: Frame, detection: Detection, support: SupportPlane | None,
    ) -> Placement | None:
        """
        Place a detection that stands on the support.

        :return: None without support, for a foot that is beyond the picture, above the horizon
            or off the support's outline, and where the distance stays open
        """
        if support is None or not upright.seen_edges(frame.camera, detection.bbox)[
                lower_edge(frame.camera, detection, support)]:
            return None
        foot = _foot(frame.camera, detection, support)
        if foot is None or not support.is_over(foot, _FOOT_MARGIN):
            return None
        width, height = (detection.bbox[2:] - detection.bbox[:2]) * foot[2] / frame.camera.fx
        usual = usual_sizes().get(detection.label)
        found = upright.fit_upright(
            frame.camera, detection.bbox, surroundings(support, self.options),
            [upright.DEEP_AS_WIDE, usual.proportion_belief() if usual else _ANY_PROPORTION],
            float(np.linalg.norm(foot)), (width, width, height))
        if found is None:
            return None
        return upright.place_upright(
            found, frame.camera, detection, support.normal, 'plane', support)


def surroundings(
    support: SupportPlane, options: PlaneOptions = PlaneOptions(),
) -> upright.Surroundings:
    """Return what a support tells, and how surely."""
    angle, height = np.radians(options.angle_std), options.height_std
    if support.hull is not None:
        angle, height = _MEASURED_TILT_STD, _MEASURED_HEIGHT_STD
    if support.height_std is not None:
        angle, height = support.angle_std, support.height_std
    return upright.Surroundings(
        support.normal, angle, angle, support.offset, height * support.offset)


def lower_edge(camera: Camera, detection: Detection, support: SupportPlane) -> int:
    """Return the index of the box's edge that is lowest in space; a camera may hang sideways."""
    ray = camera.rays_at(detection.center)
    down = ray * support.normal[2] - support.normal  # how a falling point moves in the picture
    if abs(down[0]) > abs(down[1]):
        return 2 if down[0] > 0 else 0
    return 3 if down[1] > 0 else 1


def _foot(camera: Camera, detection: Detection, support: SupportPlane) -> np.ndarray | None:
    """Return where the middle of the box's lowest edge meets the support, (3,) metres."""
    middle = detection.center
    edge = lower_edge(camera, detection, support)
    middle[edge % 2] = box_edges(detection.bbox)[edge]
    ray = camera.rays_at(middle)
    slope = ray @ support.normal
    # Within a twentieth of a degree of the horizon a pixel is worth more than the distance.
    if not slope < -1e-3 * np.linalg.norm(ray):
        return None
    return ray * (-support.offset / slope)


BACKEND = PlaneDistance
