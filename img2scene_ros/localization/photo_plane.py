# SPDX-License-Identifier: Apache-2.0
"""
The plane under the objects of a picture, where neither depth nor anybody tells it.

Things of known kinds that stand on one plane fix the camera's height above it and its tilt: the
farther up their feet are in the picture, the smaller they look (Hoiem, Efros, Hebert: Putting
objects in perspective, CVPR 2006). All their boxes are fitted together, each as an upright
elliptic cylinder of about its usual size, with the camera's height, tilt and roll as common
unknowns; what straight edges say of up (`gravity.py`) counts as one more measurement. Each answer
of the edges is tried, and the one that explains boxes and edges best is taken, by Laplace's
approximation of its probability (MacKay: Information theory, ch. 27).
"""

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from img2scene_ros.camera import Camera
from img2scene_ros.camera import box_edges
from img2scene_ros.localization import upright
from img2scene_ros.localization.class_sizes import ClassSize
from img2scene_ros.localization.gravity import Gravity
from img2scene_ros.localization.gravity import find_gravity
from img2scene_ros.localization.gravity import up_of
from img2scene_ros.types import Detection
from img2scene_ros.types import Frame
from img2scene_ros.types import SupportPlane

# Any camera: tilts that are tried and the standard deviation around them, degrees.
_ANY_TILTS, _ANY_STD = (10.0, 35.0, 60.0), 15.0
# Edges that are this sure need no second opinion; where they leave up open, their answers
# are right so much more seldom than they say.
_VERY_SURE, _UNSURE = 0.8, 0.3
_MOST = 6  # objects that are fitted together, the surest names first
_OWN = 5  # unknowns of one object
_STEP = 1e-4  # of derivatives
_LEAST_STD = np.radians(1.0)  # of what edges say of up: planes of objects are no better
# Standard deviations, of angles and of the height as a share, beyond which a plane tells nothing.
_MOST_ANGLE_STD, _MOST_HEIGHT_STD = np.radians(15.0), 0.7
_GUESS_STD = 0.4  # of the height, as a share of it, where its distances are guessed
# Things that stand on floors and carry others: where there are smaller things as well, the plane
# is that of the smaller ones. Metres of their usual height or width.
_LARGE = 0.5


class PicturedPlane:
    """The plane under the objects of the latest picture; an unchanged one is not asked again."""

    def __init__(self) -> None:
        self._seen: Sequence[Detection] | None = None
        self._found: tuple[SupportPlane | None, str] = None, ''

    def find(
        self, frame: Frame, detections: Sequence[Detection], sizes: Mapping[str, ClassSize],
        guess: float,
    ) -> tuple[SupportPlane | None, str]:
        """
        Estimate the plane as `photo_plane`.

        :param detections: the same list again as long as the picture stays the same, as detectors
            give it
        :return: the plane, and one sentence that says how sure it is
        """
        if self._seen is not detections:
            plane = photo_plane(frame.camera, detections, sizes, find_gravity(frame), guess)
            self._seen, self._found = detections, (plane, _said(plane))
        return self._found


def _said(plane: SupportPlane | None) -> str:
    if plane is None:
        return 'the picture does not tell where up is: the camera is taken to be level'
    tilt = np.degrees(np.arcsin(-plane.normal[2]))
    return (f'the plane under the objects is estimated: {plane.offset:.2f} m below the camera '
            f'(to within {plane.height_std or 0.0:.0%}), which looks {tilt:.0f} degrees below the '
            f'horizon (to within {np.degrees(plane.angle_std or 0.0):.0f})')


def photo_plane(
    camera: Camera, detections: Sequence[Detection], sizes: Mapping[str, ClassSize],
    answers: Sequence[Gravity], guess: float,
) -> SupportPlane | None:
    """
    Find the plane that most of the named things stand on.

    Where no thing of known size is seen whole but edges tell up, its height is guessed.

    :param sizes: usual ones, by label
    :param answers: what the edges say of up, the most probable first
    :param guess: metres, how far objects are where nothing tells
    :return: None where up stays open
    """
    items = _fittable(camera, detections, sizes)
    starts = answers[:1] if answers[0].share > _VERY_SURE else [
        *(one if one.is_sure else replace(one, share=_UNSURE * one.share) for one in answers),
        *(Gravity(up_of(np.radians(tilt), 0.0), np.radians(_ANY_STD), 1.0 / len(_ANY_TILTS))
          for tilt in _ANY_TILTS)]
    fits = [fit for start in starts if items and (fit := _fitted(camera, items, start))]
    best = max(fits, key=lambda fit: fit[1], default=(None, 0.0))[0]
    if best and ((best.angle_std or 0.0) < _MOST_ANGLE_STD
                 and (best.height_std or 0.0) < _MOST_HEIGHT_STD):
        return best
    return _guessed(camera, detections, answers[0], guess) if answers[0].is_sure else None


def _guessed(
    camera: Camera, detections: Sequence[Detection], gravity: Gravity, guess: float,
) -> SupportPlane | None:
    """Return the plane on which the feet of the objects are so far away."""
    rays = camera.rays_at([(one.center[0], box_edges(one.bbox)[3]) for one in detections])
    falls = -(rays @ gravity.up) / np.linalg.norm(rays, axis=-1)
    falls = falls[falls > 0.0]  # neither above the horizon nor off the lens's view
    if not len(falls):
        return None
    return SupportPlane(gravity.up, float(np.median(falls)) * guess,
                        angle_std=max(gravity.std, _LEAST_STD), height_std=_GUESS_STD)


def _fittable(
    camera: Camera, detections: Sequence[Detection], sizes: Mapping[str, ClassSize],
) -> list[tuple[np.ndarray, ClassSize]]:
    """Return boxes and usual sizes of what can be fitted, of one kind of plane."""
    found = [(one.score, one.bbox, sizes[one.label]) for one in detections
             if one.label in sizes and _shows_enough(camera, one.bbox)]
    small = [item for item in found if max(item[2].height, item[2].width) < _LARGE]
    found = sorted(small or found, key=lambda item: -item[0])[:_MOST]
    return [(box, size) for _, box, size in found]


def _shows_enough(camera: Camera, bbox: np.ndarray) -> bool:
    rays = camera.rays_at(box_edges(bbox).reshape(2, 2))
    return bool(upright.seen_edges(camera, bbox).sum() >= 3 and np.isfinite(rays).all())


class _Problem:
    """
    Residuals of all boxes, in standard deviations.

    The unknowns: tilt and roll off the start's in radians, ln(height), then of each object the
    pixel of its foot's middle, ln(depth), ln(width), ln(height).
    """

    def __init__(
        self, camera: Camera, items: Sequence[tuple[np.ndarray, ClassSize]], start: Gravity,
    ) -> None:
        self.camera, self.items, self.start = camera, items, start
        self.angle_std = max(start.std, _LEAST_STD)
        self.edges = [box_edges(box) for box, _ in items]
        self.stds = [upright.edge_stds(camera, box) for box, _ in items]

    def up(self, common: np.ndarray) -> np.ndarray:
        return Rotation.from_rotvec([common[0], 0.0, common[1]]).apply(self.start.up)

    def of_object(self, index: int, common: np.ndarray, own: np.ndarray) -> np.ndarray:
        """Return the 7 residuals of one object: its box, its size."""
        usual, up = self.items[index][1], self.up(common)
        ray = self.camera.rays_at(own[:2])
        fall = -(ray @ up) / np.linalg.norm(ray)
        distance = np.exp(common[2]) / max(fall, 1e-3)  # the horizon is far, and no nearer
        extents = np.exp(np.clip(own[2:], -7.0, 4.0))
        center = ray / np.linalg.norm(ray) * distance + up * extents[2] / 2.0
        box = upright.outline_box(self.camera, upright.outline(center, up, extents))
        off = (own[3:] - np.log((usual.width, usual.height))) / (
            usual.width_spread, usual.height_spread)
        # Names may be wrong, and toys are small: what is far off hardly counts (Cauchy).
        off = np.sign(off) * np.sqrt(2.0 * np.log1p(off ** 2 / 2.0))
        return np.concatenate([
            np.clip((box - self.edges[index]) / self.stds[index], -1e3, 1e3),
            [(own[2] - own[3]) / upright.DEEP_AS_WIDE.std], off])

    def parts(self, unknown: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the common unknowns, (3,), and each object's, (N, 5)."""
        return unknown[:3], unknown[3:].reshape(-1, _OWN)

    def residuals(self, unknown: np.ndarray) -> np.ndarray:
        common, owns = self.parts(unknown)
        return np.concatenate([common[:2] / self.angle_std, *(
            self.of_object(index, common, own) for index, own in enumerate(owns))])

    def jacobian(self, unknown: np.ndarray) -> np.ndarray:
        """Return the derivatives, by finite differences of one object at a time."""
        common, owns = self.parts(unknown)
        rows = np.zeros((2 + 7 * len(owns), len(unknown)))
        rows[:2, :2] = np.eye(2) / self.angle_std
        for index, own in enumerate(owns):
            mine = slice(2 + 7 * index, 9 + 7 * index)
            both = np.concatenate([common, own])
            here = self.of_object(index, common, own)
            columns = [0, 1, 2, *range(3 + _OWN * index, 3 + _OWN * (index + 1))]
            for place, column in enumerate(columns):
                step = _STEP * (100.0 if place in (3, 4) else 1.0)  # pixels
                moved = both.copy()
                moved[place] += step
                rows[mine, column] = (self.of_object(index, moved[:3], moved[3:]) - here) / step
        return rows

    def first_guess(self) -> np.ndarray | None:
        """Return unknowns to start from, None where most feet are above the horizon."""
        owns, heights = [], []
        for edges, (_, usual) in zip(self.edges, self.items):
            foot = np.array([(edges[0] + edges[2]) / 2.0, edges[3]])
            ray = self.camera.rays_at(foot)
            distance = self.camera.fx * np.hypot(usual.width, usual.height) / np.hypot(
                *(edges[2:] - edges[:2]))
            heights.append(-(ray @ self.start.up) / np.linalg.norm(ray) * distance)
            owns.append([*foot, np.log(usual.width), np.log(usual.width), np.log(usual.height)])
        height = float(np.median(heights))
        if height <= 0.0:
            return None
        return np.concatenate([[0.0, 0.0, np.log(height)], *owns])


def _fitted(
    camera: Camera, items: Sequence[tuple[np.ndarray, ClassSize]], start: Gravity,
) -> tuple[SupportPlane, float] | None:
    """Fit all objects, from one answer to where up is; return the plane and its log evidence."""
    problem = _Problem(camera, items, start)
    guess = problem.first_guess()
    if guess is None:
        return None
    found = least_squares(problem.residuals, guess, problem.jacobian, method='lm',
                          x_scale='jac', ftol=1e-4, xtol=1e-4, max_nfev=40)
    try:
        covariance = np.linalg.inv(found.jac.T @ found.jac)[:3, :3]
    except np.linalg.LinAlgError:
        return None
    angles = np.linalg.det(covariance[:2, :2])
    if not angles > 0.0:
        return None
    evidence = np.log(start.share) - found.cost + 0.5 * np.log(angles) - 2.0 * np.log(
        problem.angle_std)
    common, _ = problem.parts(found.x)
    angle_std, height_std = np.sqrt([max(covariance[0, 0], covariance[1, 1]), covariance[2, 2]])
    plane = SupportPlane(problem.up(common), float(np.exp(common[2])),
                         angle_std=float(angle_std), height_std=float(height_std))
    return plane, float(evidence)
