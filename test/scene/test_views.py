# SPDX-License-Identifier: Apache-2.0
"""Tests of the views of an object that are kept."""

import numpy as np
import pytest
import trimesh
from synthetic import CAMERA
from synthetic import box
from synthetic import camera_pose
from synthetic import tabletop_frame

from img2scene_ros.detection import bbox_of
from img2scene_ros.scene.views import Views
from img2scene_ros.types import UNNAMED
from img2scene_ros.types import Detection
from img2scene_ros.types import Placement
from img2scene_ros.types import Sighting


def sighting(pose: np.ndarray) -> Sighting:
    """Return a box on the table as a camera at a pose sees it."""
    frame, owners = tabletop_frame([box(0.1, 0.06, 0.08)], pose, None, CAMERA.resized(160, 120))
    mask = owners == 1
    return Sighting(frame, Detection(UNNAMED, 1.0, bbox_of(mask), mask), Placement(
        np.zeros(3), np.eye(3), np.ones(3), np.zeros(3), 'sensor'))


def test_the_best_view_of_each_side_is_kept() -> None:
    """Around an object: one view of some 40 degrees, the best, and no more than four."""
    views = Views()
    for number, degrees in enumerate(range(0, 360, 10)):
        turn = trimesh.transformations.rotation_matrix(np.radians(degrees), (0, 0, 1))
        pose = turn @ camera_pose(35, 0.9)
        views.consider(sighting(pose), np.linalg.inv(pose), 100.0 + number % 3)
    directions = np.array([view.direction for view in views.kept])
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1.0)
    angles = np.degrees(np.arccos(np.clip(directions @ directions.T, -1, 1)))
    assert len(views.kept) == 4 and angles[np.triu_indices(4, 1)].min() > 30.0
    count = len(views.kept)
    views.consider(sighting(pose), np.linalg.inv(pose), 1000.0)
    assert len(views.kept) == count and views.kept[-1].quality == 1000.0


def test_what_is_cut_out_shows_the_same() -> None:
    """The object's readings are where they were, in a fraction of the memory."""
    pose, views = camera_pose(35, 0.9), Views()
    seen = sighting(pose)
    views.consider(seen, np.linalg.inv(pose), 1.0)
    kept, = [view.sighting for view in views.kept]
    assert kept.frame.depth.size < 0.2 * seen.frame.depth.size
    points = [one.frame.points[one.detection.mask] for one in (seen, kept)]
    np.testing.assert_allclose(points[1], points[0], atol=1e-6)
    colors = [one.frame.color[one.detection.mask] for one in (seen, kept)]
    np.testing.assert_array_equal(*colors)
    assert kept.detection.bbox == pytest.approx(bbox_of(kept.detection.mask))
