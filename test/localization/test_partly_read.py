# SPDX-License-Identifier: Apache-2.0
"""Objects of which the depth image shows a part only, against the truth of drawn scenes."""

from dataclasses import replace

import numpy as np
import pytest
import trimesh
from synthetic import box
from synthetic import camera_pose
from synthetic import can
from synthetic import tabletop_frame

from img2scene_ros.detection import bbox_of
from img2scene_ros.detection.supports import supported
from img2scene_ros.localization.combine import place
from img2scene_ros.localization.plane import PlaneDistance
from img2scene_ros.localization.sensor import SensorDistance
from img2scene_ros.types import Detection
from img2scene_ros.types import Frame

SOURCES = {'sensor': SensorDistance(), 'plane': PlaneDistance()}
# What is not read, by the position in the object's box, right and down, 0 to 1.
UNREAD = {
    'upper half': lambda right, down: down < 0.5,
    'lower half': lambda right, down: down > 0.5,
    'left half': lambda right, down: right < 0.5,
    'all but the label': lambda right, down: np.abs(down - 0.5) > 0.1,
}


def scenes() -> list[tuple[trimesh.Trimesh, np.ndarray]]:
    """Return 12 boxes and cans that stand on a table, each with a camera pose."""
    rng = np.random.default_rng(11)
    found = []
    for index in range(12):
        mesh = (box(*rng.uniform(0.05, 0.15, 3)) if index % 2 else
                can(rng.uniform(0.03, 0.06), rng.uniform(0.08, 0.2)))
        mesh.apply_translation((*rng.uniform(-0.1, 0.1, 2), 0))
        found.append((mesh, camera_pose(rng.uniform(15, 50), rng.uniform(0.5, 0.9))))
    return found


def without(frame: Frame, mask: np.ndarray, kind: str) -> Frame:
    """Return the frame without the readings of a part of what a mask shows."""
    assert frame.depth is not None
    xmin, ymin, xmax, ymax = bbox_of(mask)
    down, right = np.mgrid[:mask.shape[0], :mask.shape[1]]
    is_unread = UNREAD[kind]((right - xmin) / (xmax - xmin), (down - ymin) / (ymax - ymin))
    return replace(frame, depth=np.where(mask & is_unread, np.float32(np.nan), frame.depth))


@pytest.mark.parametrize('kind', UNREAD)
@pytest.mark.parametrize('is_supported', [True, False])
def test_the_outline_tells_the_size_where_readings_are_missing(
    kind: str, is_supported: bool,
) -> None:
    """
    Half a can is no can of half the size, nor is what is read of a glass its label.

    Without a known support nothing tells how much of a box's height in the picture is its depth.
    """
    errors = []
    for seed, (mesh, pose) in enumerate(scenes()):
        frame, truth = tabletop_frame([mesh], pose, seed)
        mask, support = truth == 1, supported(frame).support
        found = place(
            SOURCES, without(frame, mask, kind), Detection('object', 1.0, bbox_of(mask), mask),
            support if is_supported else None)
        to_camera = np.linalg.inv(pose)
        points = mesh.vertices @ to_camera[:3, :3].T + to_camera[:3, 3]
        assert np.linalg.norm(found.position - (points.min(axis=0) + points.max(axis=0)) / 2) < (
            0.04 if is_supported else 0.08)
        errors.append(found.size / np.ptp(points @ found.rotation, axis=0) - 1.0)
    _, width, height = np.median(np.abs(errors), axis=0)
    assert width < 0.1
    assert height < 0.15 or not is_supported


def test_what_is_seen_through_glass_is_not_the_glass() -> None:
    """Readings on the table behind it neither place it there nor make it flat."""
    mesh, pose = can(0.035, 0.15), camera_pose(35, 0.7)
    frame, truth = tabletop_frame([mesh], pose)
    table, _ = tabletop_frame([], pose)
    mask, support = truth == 1, supported(frame).support
    rng = np.random.default_rng(0)
    depth = np.where(rng.random(mask.shape) < 0.2, table.depth, np.float32(np.nan))
    seen = replace(frame, depth=np.where(mask, depth, frame.depth))
    found = place(SOURCES, seen, Detection('bottle', 0.9, bbox_of(mask), mask), support)
    assert found.depth_source == 'plane'
    assert np.allclose(found.size[1:], (0.07, 0.15), rtol=0.15)


def test_a_detection_that_depth_does_not_show_is_skipped() -> None:
    """Where the table is read all over a box and nothing stands on it, nothing is placed."""
    frame, _ = tabletop_frame([], camera_pose(35, 0.7))
    support = supported(frame).support
    ghost = Detection('cup', 0.5, np.array([300.0, 200.0, 360.0, 280.0]))
    assert place(SOURCES, frame, ghost, support) is None
