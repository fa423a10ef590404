# SPDX-License-Identifier: Apache-2.0
"""Surfaces are cut where they jump or bend inwards, and nowhere else."""

import numpy as np
import pytest
import trimesh
from synthetic import box
from synthetic import camera_pose
from synthetic import tabletop_frame
from trimesh.transformations import rotation_matrix

from img2scene_ros.depth import measured
from img2scene_ros.detection.edges import cut_at_edges


def parts_of(meshes: list[trimesh.Trimesh], turn: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the parts that all meshes, taken for one surface, are cut into, and the true ids."""
    turned = rotation_matrix(np.radians(turn), (0, 0, 1))
    frame, truth = tabletop_frame(
        [mesh.apply_transform(turned) for mesh in meshes], camera_pose(60, 0.7))
    labels = ((truth > 0) & np.isfinite(measured(frame.depth))).astype(np.int32)
    height = np.where(labels > 0, 0.05, 0.0)
    return cut_at_edges(labels, frame, height)[0], truth


@pytest.mark.parametrize('turn', (0, 15, 30, 330))
def test_a_low_step_between_flush_blocks_is_cut(turn: float) -> None:
    """Each part is one of the blocks."""
    parts, truth = parts_of([
        box(0.16, 0.16, 0.05).apply_translation((-0.08, 0, 0)),
        box(0.16, 0.16, 0.055).apply_translation((0.08, 0, 0))], turn)
    owners = [np.bincount(truth[parts == part]).argmax() for part in np.unique(parts[parts > 0])]
    assert sorted(owners) == [1, 2]
    for part, owner in zip(np.unique(parts[parts > 0]), owners):
        assert np.mean(truth[parts == part] == owner) > 0.9


@pytest.mark.parametrize('turn', (0, 20, 45))
def test_what_is_round_or_bends_outwards_is_not_cut(turn: float) -> None:
    """Neither a lying can, nor the edges of a box."""
    can = trimesh.creation.cylinder(0.05, 0.16).apply_transform(
        rotation_matrix(np.pi / 2, (0, 1, 0))).apply_translation((0, 0, 0.05))
    for mesh in (can, box(0.16, 0.12, 0.08)):
        parts, _ = parts_of([mesh], turn)
        assert len(np.unique(parts[parts > 0])) == 1
