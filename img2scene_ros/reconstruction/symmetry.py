# SPDX-License-Identifier: Apache-2.0
"""Vertical symmetry planes of partly seen objects."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import ConvexHull

from img2scene_ros.reconstruction.view import View

_SAMPLES = 600  # seen points that a plane is judged by


@dataclass(frozen=True)
class Mirror:
    """A vertical plane: cos(angle) x + sin(angle) y = offset, in the placement's axes."""

    angle: float
    offset: float

    def reflected(self, points: np.ndarray) -> np.ndarray:
        """Return the mirror images of points, (N, 3) metres."""
        normal = np.array([np.cos(self.angle), np.sin(self.angle), 0.0])
        return points - 2.0 * (points @ normal - self.offset)[:, None] * normal


def find_mirror(view: View) -> tuple[Mirror, float]:
    """
    Find the vertical symmetry plane that completes the hidden side best.

    Coarse to fine over angle (0: straight across the line of sight) and offset.

    :return: the plane, and the share (0 to 1) by which its mirrored surface contradicts the view
    """
    surface = view.surface
    step = max(1, len(surface) // _SAMPLES)
    points = np.ascontiguousarray(surface[::step])
    near, reach = points[:, 0].max(), np.ptp(points[:, :2], axis=0).max()
    best = min(
        (_judged(view, points, Mirror(angle, np.cos(angle) * (near - behind * reach)))
         for angle in np.radians(np.arange(-60.0, 61.0, 12.0))
         for behind in np.linspace(0.05, 0.75, 18)),
        key=lambda judged: judged[0])
    for angle_step, offset_step in ((4.0, 0.02), (1.5, 0.007)):
        mirror = best[2]
        best = min(
            (_judged(view, points, Mirror(mirror.angle + np.radians(turn * angle_step),
                                          mirror.offset + shift * offset_step * reach))
             for turn in (-1, 0, 1) for shift in (-2, -1, 0, 1, 2)),
            key=lambda judged: judged[0])
    return best[2], best[1]


def _judged(view: View, points: np.ndarray, mirror: Mirror) -> tuple[float, float, Mirror]:
    """Return cost, disagreement with the view, and the plane."""
    mirrored = mirror.reflected(points)
    behind, beside, *_ = view.depths(mirrored)
    outside = np.clip(-np.minimum(behind, beside) - 0.5 * view.tolerance, 0.0, 0.02) / 0.02
    meets = (np.abs(behind) < 2.0 * view.tolerance) & (beside > -view.tolerance)
    # Nothing seen speaks against a deep object behind a plain front; a compact one is likelier,
    # though not a sheet.
    width = np.ptp(points[:, 1])
    area = ConvexHull(np.concatenate([points[:, :2], mirrored[:, :2]]), qhull_options='QJ').volume
    bulk = np.log(max(area / max(width, 1e-3) ** 2, 0.35))
    disagreement = float(outside.mean())
    cost = (disagreement + 0.05 * (1.0 - meets.mean()) + 0.06 * bulk
            + 0.03 * (1.0 - np.cos(mirror.angle)))
    return cost, disagreement, mirror
