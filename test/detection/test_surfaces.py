# SPDX-License-Identifier: Apache-2.0
"""Surfaces of depth images, against what is true of every pixel by itself."""

import numpy as np
import pytest
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from img2scene_ros.camera import Camera
from img2scene_ros.detection.surfaces import heights_above
from img2scene_ros.detection.surfaces import linked_surfaces
from img2scene_ros.detection.surfaces import surface_normals
from img2scene_ros.types import Frame
from img2scene_ros.types import SupportPlane

CAMERA = Camera(64, 48, 60.0, 60.0, 31.5, 23.5)


def frame_of(depth: np.ndarray, camera: Camera = CAMERA) -> Frame:
    return Frame(np.zeros((*depth.shape, 3), np.uint8), camera, depth.astype(np.float32))


@pytest.mark.parametrize('seed', range(4))
def test_pixels_are_linked_as_one_by_one(seed: int) -> None:
    """Pixels that are near each other in space, over holes of up to eight pixels, are one."""
    random = np.random.default_rng(seed)
    depth = 0.5 + 0.1 * random.integers(0, 3, (6, 8)).repeat(8, axis=0).repeat(8, axis=1)
    depth[random.random(depth.shape) < 0.4] = np.nan
    frame = frame_of(depth)
    pixels = np.isfinite(depth) & (random.random(depth.shape) < 0.9)
    points, width = frame.points.reshape(-1, 3), depth.shape[1]
    links = []
    for one in np.flatnonzero(pixels):
        z = points[one, 2]
        reach = max(0.006, 3.0 * z / 60.0) + 3.0 * frame.depth_std(z)
        for step in (1, 2, 4, 8):
            for other in ([one + step] if one % width + step < width else []) + [
                    one + step * width]:
                if other < depth.size and pixels.flat[other] and (
                        np.linalg.norm(points[one] - points[other]) < reach):
                    links.append((one, other))
    links = np.array(links).T
    parts = connected_components(
        coo_matrix((np.ones(links.shape[1]), links), (depth.size,) * 2), directed=False)[1]
    labels = linked_surfaces(frame, pixels, 0.006, (2, 4, 8))
    assert (labels > 0).tolist() == pixels.tolist()
    pairs = set(zip(labels[pixels].tolist(), parts.reshape(depth.shape)[pixels].tolist()))
    assert len(pairs) == len({one for one, _ in pairs}) == len({other for _, other in pairs}) > 5


def test_a_warped_support_is_flat_again() -> None:
    """Heights are above the sheet as it lies, and a thing on it does not bend it."""
    camera = Camera(160, 120, 150.0, 150.0, 79.5, 59.5)
    x, y = camera.rays[..., 0], camera.rays[..., 1]
    depth = 1.0 + 0.02 * x ** 2 - 0.015 * x * y + 0.01 * y ** 3
    depth[50:70, 60:80] -= 0.05
    hull = np.array([(-0.6, -0.45, 1.0), (0.6, -0.45, 1.0), (0.6, 0.45, 1.0), (-0.6, 0.45, 1.0)])
    height, noise = heights_above(
        frame_of(depth, camera), SupportPlane(np.array([0.0, 0.0, -1.0]), 1.0, hull))
    bare = np.ones(depth.shape, bool)
    bare[50:70, 60:80] = False
    assert np.abs(height[bare]).max() < 0.001
    assert height[~bare] == pytest.approx(0.05, abs=0.001)
    assert (noise > 0).all()


def test_what_is_known_to_be_no_support_does_not_raise_it() -> None:
    """A board of 8 mm on nine tenths of a table."""
    camera = Camera(160, 120, 150.0, 150.0, 79.5, 59.5)
    depth = np.ones((120, 160))
    board = np.zeros(depth.shape, bool)
    board[6:, :152] = True
    depth[board] -= 0.008
    support = SupportPlane(np.array([0.0, 0.0, -1.0]), 1.0)
    height, _ = heights_above(frame_of(depth, camera), support, ~board)
    assert height[board] == pytest.approx(0.008, abs=1e-4)
    assert np.abs(height[~board]).max() < 1e-4


@pytest.mark.parametrize('every', (1, 2))
def test_normals_of_a_plane(every: int) -> None:
    normal = np.array([0.3, -0.5, -1.0]) / np.linalg.norm([0.3, -0.5, -1.0])
    depth = -0.8 / (CAMERA.rays @ normal)
    found = surface_normals(frame_of(depth), 4, every)
    assert found.shape == (48 // every, 64 // every, 3)
    inner = slice(8 // every, -8 // every)  # depths are averaged, across the border not evenly
    assert found[inner, inner] @ normal == pytest.approx(1.0, abs=1e-5)
