# SPDX-License-Identifier: Apache-2.0
"""The network that tells objects apart: its masks have the frame's edges, whatever its size."""

import numpy as np
import pytest

from img2scene_ros.camera import Camera
from img2scene_ros.detection.instance_masks import at_full_resolution
from img2scene_ros.detection.instance_masks import coarse_grid
from img2scene_ros.detection.tabletop import TabletopDetector
from img2scene_ros.detection.tabletop import TabletopOptions
from img2scene_ros.errors import InputError
from img2scene_ros.types import Frame


@pytest.mark.parametrize('size', [(640, 480), (1280, 720), (848, 480), (480, 640), (2048, 1536)])
def test_the_network_sees_the_whole_picture_at_its_own_size(size: tuple[int, int]) -> None:
    rows, columns = coarse_grid(size[::-1])
    assert len(rows) * len(columns) == pytest.approx(320 * 240, rel=0.01)
    for places, side in ((rows, size[1]), (columns, size[0])):
        steps = np.diff(places)
        assert steps.max() - steps.min() <= 1  # evenly
        assert places[0] < steps.max() and side - places[-1] <= steps.max()


def test_a_small_picture_is_not_magnified() -> None:
    rows, columns = coarse_grid((60, 80))
    assert np.array_equal(rows, np.arange(60)) and np.array_equal(columns, np.arange(80))


@pytest.mark.parametrize('factor', [2, 4])
def test_masks_end_where_the_depth_jumps(factor: int) -> None:
    height, width = 240 * factor, 320 * factor
    v, u = np.mgrid[:height, :width]
    near = u + 0.37 * v < 0.6 * width
    depth = np.where(near, 0.8, 1.0).astype(np.float32) + 1e-4 * u.astype(np.float32) / factor
    frame = Frame(np.zeros((height, width, 3), np.uint8),
                  Camera(width, height, width, width, width / 2, height / 2), depth)
    rows, columns = coarse_grid(frame.shape)
    true = np.where(near, 1, 2).astype(np.int32)
    coarse = true[np.ix_(rows, columns)]
    blocky = np.kron(coarse, np.ones((factor, factor), np.int32))
    found = at_full_resolution(coarse, frame, rows, columns)
    assert np.count_nonzero(blocky != true) > 100 * factor
    assert np.count_nonzero(found != true) < 0.05 * np.count_nonzero(blocky != true)


def test_without_torch_geometry_tells_objects_apart(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr('img2scene_ros.packages.find_spec', lambda name: None)
    caplog.set_level('DEBUG', logger='img2scene_ros.detection.tabletop')
    detector = TabletopDetector()
    assert 'torch' in caplog.text and detector.network is None


def test_weights_of_another_network_are_refused() -> None:
    from img2scene_ros.weights import bundled

    with pytest.raises(InputError, match='another task'):
        TabletopDetector(TabletopOptions(network=str(bundled('coco'))))
