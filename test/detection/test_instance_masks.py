# SPDX-License-Identifier: Apache-2.0
"""The network that tells objects apart."""

import pytest

from img2scene_ros.detection.tabletop import TabletopDetector
from img2scene_ros.detection.tabletop import TabletopOptions
from img2scene_ros.errors import InputError


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
