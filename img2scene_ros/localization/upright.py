# SPDX-License-Identifier: Apache-2.0
"""
What a box in the picture tells of an upright object, and how sure that is.

The object is taken for an upright elliptic cylinder whose width lies across the line of sight.
Its place and size are the unknowns, the edges of its box the measurements. What else is known
(that it stands on a plane, how large things of its class are) counts as one more measurement with
its standard deviation. Non-linear least squares give the most probable answer, the inverse of the
normal matrix its covariance (Triggs, McLauchlan, Hartley, Fitzgibbon: Bundle Adjustment, a Modern
Synthesis, 1999). So errors of pixels, tilt and height are propagated by one and the same model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from img2scene_ros.camera import Camera
from img2scene_ros.camera import box_edges
from img2scene_ros.localization import object_axes
from img2scene_ros.localization import position_std
from img2scene_ros.types import Detection
from img2scene_ros.types import Placement
from img2scene_ros.types import SupportPlane

_AROUND = np.linspace(0.0, 2.0 * np.pi, 32, endpoint=False)
_RIM = np.stack([np.cos(_AROUND), np.sin(_AROUND), np.ones_like(_AROUND)], axis=1) / 2.0
_OUTLINE = np.concatenate([_RIM, _RIM * (1, 1, -1)])  # of a cylinder of size 1, in object axes
_BORDER = 1.5  # pixels; an edge of a box that is so near to the picture's border is cut by it
# Standard deviation of a box's edge: pixels, and a share of the box's side. A box whose edges are
# 2 % off overlaps the true one with an IoU of about 0.9.
_EDGE_STD, _EDGE_SHARE = 1.0, 0.02
# Seen from a random side, things are as deep as wide to within this (standard deviation of the
# ratio's logarithm; measured on rendered household objects and furniture).
_DEPTH_TO_WIDTH_STD = 0.26
_FAR = 1e4  # standard deviations
_MAX_LOG_STD = 1.0  # an answer that may be wrong by a factor of e is none


class Belief(NamedTuple):
    """
    One thing known of the size: a weighted sum of ln(depth), ln(width) and ln(height).

    - weights: of the three logarithms
    - mean: what the sum should be
    - std: its standard deviation
    """

    weights: tuple[float, float, float]
    mean: float
    std: float


DEEP_AS_WIDE = Belief((1.0, -1.0, 0.0), 0.0, _DEPTH_TO_WIDTH_STD)


@dataclass(frozen=True, eq=False)
class Surroundings:
    """
    What is known of where an object stands.

    - up: (3,) unit vector, optical frame
    - tilt_std, roll_std: radians, standard deviations of `up` about the picture's x axis and
      about the optical axis
    - offset: metres from the camera down to what the object stands on; None = unknown
    - offset_std: metres
    """

    up: np.ndarray
    tilt_std: float
    roll_std: float
    offset: float | None = None
    offset_std: float = 0.0


@dataclass(frozen=True, eq=False)
class Upright:
    """
    An upright object.

    - center: (3,) metres, optical frame
    - log_std: standard deviation of its distance's natural logarithm: 0.1 is about 10 %
    - outline: (N, 3) metres, points all around it, optical frame
    """

    center: np.ndarray
    log_std: float
    outline: np.ndarray


def seen_edges(camera: Camera, bbox: np.ndarray) -> np.ndarray:
    """Tell which edges of a box are the object's and not the picture's border: (4,) bool."""
    return np.concatenate([
        bbox[:2] > _BORDER, bbox[2:] < np.array([camera.width, camera.height]) - _BORDER])


def edge_stds(camera: Camera, bbox: np.ndarray) -> np.ndarray:
    """
    Return the standard deviations of a box's edges, (4,) pixels.

    An edge at the picture's border may lie anywhere beyond: its standard deviation is the box's
    side.
    """
    sides = np.tile(bbox[2:] - bbox[:2], 2)
    return np.where(
        seen_edges(camera, bbox), np.hypot(_EDGE_STD, _EDGE_SHARE * sides), sides.max())


def fit_upright(
    camera: Camera, bbox: np.ndarray, surroundings: Surroundings, beliefs: Sequence[Belief],
    distance: float, size: Sequence[float],
) -> Upright | None:
    """
    Find the upright object that a box shows.

    :param bbox: (4,) xmin, ymin, xmax, ymax in pixels
    :param beliefs: what is known of the size
    :param distance: metres, a first guess
    :param size: depth, width and height in metres, a first guess
    :return: None when the box leaves its distance open
    """
    edges, edge_std = box_edges(bbox), edge_stds(camera, bbox)
    weights, means, stds = (np.array(column, float) for column in zip(*beliefs))

    def residuals(unknown: np.ndarray) -> np.ndarray:
        center, up, extents = _solid(camera, surroundings, unknown)
        parts = [
            (outline_box(camera, outline(center, up, extents)) - edges) / edge_std,
            (weights @ unknown[3:6] - means) / stds,
            unknown[6:] / (surroundings.tilt_std, surroundings.roll_std)]
        if surroundings.offset is not None:
            foot = up @ center + surroundings.offset - extents[2] / 2.0
            parts.append([foot / surroundings.offset_std])
        # What the lens does not show is far from whatever is seen.
        return np.nan_to_num(np.concatenate(parts), nan=_FAR)

    start = np.concatenate([
        (edges[:2] + edges[2:]) / 2.0, [np.log(distance)], np.log(size), [0.0, 0.0]])
    if not np.isfinite(camera.rays_at(start[:2])).all():
        return None
    # The least and greatest of many points have kinks, where the steps become tiny: what is found
    # by then is good enough, and its cost tells if it is not.
    found = least_squares(
        residuals, start, method='lm', x_scale='jac', ftol=1e-5, xtol=1e-5, max_nfev=200)
    try:
        covariance = np.linalg.inv(found.jac.T @ found.jac)
    except np.linalg.LinAlgError:
        return None
    log_std = float(np.sqrt(covariance[2, 2])) * _scale_factor(
        2.0 * found.cost, len(found.fun) - len(start))
    if not log_std < _MAX_LOG_STD:
        return None
    center, up, extents = _solid(camera, surroundings, found.x)
    return Upright(center, log_std, outline(center, up, extents))


def _scale_factor(chi_squared: float, spare: int) -> float:
    """
    Return by how much measurements that contradict each other are less sure than they say.

    The scale factor of the Particle Data Group (Review of Particle Physics, introduction).
    """
    return max(1.0, np.sqrt(chi_squared / max(1, spare)))


def _solid(
    camera: Camera, surroundings: Surroundings, unknown: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """
    Return the object's centre, up and size.

    :param unknown: (8,) pixel of the centre, ln(distance), ln(depth), ln(width), ln(height), and
        the errors of tilt and roll in radians
    """
    ray = camera.rays_at(unknown[:2])
    center = ray / np.linalg.norm(ray) * np.exp(unknown[2])
    up = Rotation.from_rotvec([unknown[6], 0.0, unknown[7]]).apply(surroundings.up)
    return center, up, np.exp(unknown[3:6])


def outline(center: np.ndarray, up: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Return points all around an upright elliptic cylinder, (N, 3) metres."""
    return center + (_OUTLINE * size) @ object_axes(center, up).T


def outline_box(camera: Camera, points: np.ndarray) -> np.ndarray:
    """Return the box around points (N, 3) as `box_edges` gives it, (4,)."""
    # Points behind the camera have no pixel; far off, they make the object unlikely.
    pixels = np.nan_to_num(camera.project(points), nan=1e5)
    return np.concatenate([pixels.min(axis=0), pixels.max(axis=0)])


def place_upright(
    found: Upright, camera: Camera, detection: Detection, up: np.ndarray, source: str,
    support: SupportPlane | None = None,
) -> Placement:
    """
    Place a detection where an upright object was found, on the ray of its bbox centre.

    :param up: (3,) the object frame's z axis, optical frame
    :param source: name of the distance source
    :param support: what it stands on, if that is known
    """
    ray = camera.rays_at(detection.center)
    position = ray * (found.center @ ray) / (ray @ ray)
    rotation = object_axes(position, up)
    across = np.hypot(np.linalg.norm(found.center - position) / 2.0, position[2] / camera.fx)
    std = position_std(ray, found.log_std * float(np.linalg.norm(position)), across)
    return Placement(
        position, rotation, np.ptp(found.outline @ rotation, axis=0), std, source, support)
