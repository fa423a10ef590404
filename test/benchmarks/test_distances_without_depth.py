# SPDX-License-Identifier: Apache-2.0
"""The table of errors without depth, on scenes whose errors are known."""

import numpy as np
import pytest
from distances_without_depth import CELLS
from distances_without_depth import distance_errors
from pinhole import CAMERA
from pinhole import HEIGHT
from pinhole import cylinder
from pinhole import floor
from pinhole import in_camera
from pinhole import seen
from scenes import error_rows

from img2scene_ros.learning.samples import ObjectTruth
from img2scene_ros.learning.samples import SceneSample
from img2scene_ros.localization import object_axes
from img2scene_ros.types import Frame


def scene(y: float, scale: float = 1.0) -> SceneSample:
    """Return a scene of one cup, a cylinder so many times larger than cups usually are."""
    width = height = 0.095 * scale
    box = seen(in_camera(cylinder(0, y, width, height), 30)).bbox
    center = in_camera([0, y, height / 2], 30)
    up = floor(30).normal
    truth = ObjectTruth(
        1, 'cup', 'cup/1', box, box, center, object_axes(center, up),
        np.array([width, width, height]), np.eye(4))
    frame = Frame(np.zeros((480, 640, 3), np.uint8), CAMERA)
    return SceneSample(frame, np.zeros((480, 640), np.uint8), [truth], up, HEIGHT, '0')


def test_errors_are_those_of_the_scene() -> None:
    """A cup twice as large as usual seems at half its distance by its size, not by its foot."""
    errors = distance_errors([scene(1.2, 2.0)])
    by_foot, = errors['exact', '`plane`']
    by_size, = errors['exact', '`size_prior`']
    assert abs(by_foot.distance) < 0.02 and by_foot.is_whole
    assert by_size.distance == pytest.approx(-np.log(2), abs=0.03)
    assert by_size.size == pytest.approx(np.log(2), abs=0.03)
    assert by_size.ratio < -2


def test_the_table_has_a_row_for_every_way() -> None:
    """Medians of whole objects; nothing is hidden here."""
    scenes = [scene(y) for y in (0.9, 1.1, 1.3)]
    rows = list(error_rows(distance_errors(scenes), CELLS))
    assert [row[:2] for row in rows if row[2] == 'whole'] == [
        ['exact', '`plane`'], ['exact', '`size_prior`'], ['1 degree, 2 %', '`plane`'],
        ['1 degree, 2 %', '`size_prior`'], ['1 degree, 2 %', '`auto`'],
        ['unknown', '`size_prior`']]
    assert all(row[3] == '3 of 3' for row in rows if row[2] == 'whole')
    assert float(rows[0][4].rstrip('%')) < 2.0
