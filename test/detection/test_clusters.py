# SPDX-License-Identifier: Apache-2.0
"""Pieces are joined by what their pixels show together, and kept apart by their colours."""

from collections.abc import Callable

import numpy as np
import pytest
from synthetic import box
from synthetic import camera_pose
from synthetic import tabletop_frame

from img2scene_ros.depth import measured
from img2scene_ros.detection import clusters
from img2scene_ros.types import Frame


def graph_of(frame: Frame, pieces: np.ndarray) -> clusters.Graph:
    """Return the graph of pieces without a gap between them."""
    height = np.linspace(0.0, 0.1, pieces.size).reshape(pieces.shape)
    at = np.arange(pieces.size).reshape(pieces.shape)
    ends = clusters._borders(pieces, at, np.ones(pieces.shape, bool))
    bend = np.full((pieces.shape[0] // 2, pieces.shape[1] // 2), 20.0, np.float32)
    return clusters.Graph(clusters._sums(frame, pieces, height, None),
                          clusters._border_sums(frame, pieces, ends, bend, 0.006), 1.0)


def test_what_is_known_of_joined_pieces_is_what_their_pixels_show(
        recorded: Callable[[str], Frame]) -> None:
    """The third of three pieces is compared with both others as with one of all their pixels."""
    frame = recorded('table_cracker_box')
    is_read = np.isfinite(measured(frame.depth))
    rows, columns = np.indices(frame.shape)
    pieces = np.where(rows < 200, 3, np.where(columns < 300, 1, 2)).astype(np.int32) * is_read
    graph = graph_of(frame, pieces)
    apart = clusters.evidence_of_pairs(graph, np.array([[1], [3]]))
    graph.join(1, 2)
    known = clusters.evidence_of_pairs(graph, np.array([[1], [3]]))
    whole = graph_of(frame, np.where(pieces == 2, 1, pieces))
    np.testing.assert_allclose(
        known, clusters.evidence_of_pairs(whole, np.array([[1], [3]])), rtol=1e-6)
    assert not np.allclose(known, apart, rtol=0.01)
    assert not graph.borders[:, 2].any() and not graph.borders[:, :, 2].any()


@pytest.mark.parametrize(
    'colors', [((200, 40, 40), (40, 60, 200)), ((60, 160, 60), (60, 160, 60))])
def test_flush_blocks_are_apart_where_their_colours_are(colors: tuple) -> None:
    """One block is 5 mm higher; what has one colour may be a box and its lid."""
    frame, truth = tabletop_frame([
        box(0.16, 0.16, 0.05).apply_translation((-0.08, 0, 0)),
        box(0.16, 0.16, 0.055).apply_translation((0.08, 0, 0))], camera_pose(60, 0.7))
    for number, color in enumerate(colors, 1):
        frame.color[truth == number] = color
    height = np.where(truth > 0, 0.05, 0.0)
    found = clusters.clusters(frame, truth > 0, height, 0.006, None)
    owners = {np.bincount(found[truth == number]).argmax() for number in (1, 2)}
    assert len(owners) == len(set(colors))
