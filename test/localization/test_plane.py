# SPDX-License-Identifier: Apache-2.0
"""Places by where things stand, against solids of known size at known places."""

import numpy as np
import pytest
from pinhole import CAMERA
from pinhole import FRAME
from pinhole import HEIGHT
from pinhole import cuboid
from pinhole import cylinder
from pinhole import floor
from pinhole import in_camera
from pinhole import seen

from img2scene_ros.localization.plane import PlaneDistance
from img2scene_ros.localization.plane import PlaneOptions
from img2scene_ros.types import SupportPlane

SURE = PlaneDistance(PlaneOptions(height_std=0.001, angle_std=0.05))


@pytest.mark.parametrize('tilt, roll, x, y', [
    (0, 0, 0.0, 2.0), (35, 0, 0.0, 1.0), (35, 0, 0.35, 1.1), (35, 0, -0.3, 0.8),
    (60, 0, 0.1, 0.5), (30, 25, 0.1, 1.2), (25, -40, -0.1, 1.4), (30, 90, 0.0, 1.3),
    (30, 180, 0.1, 1.2), (-5, 0, 0.0, 2.5)])
def test_an_upright_cylinder_is_found_where_it_stands(
    tilt: float, roll: float, x: float, y: float,
) -> None:
    """Place and size are right whatever the camera's tilt and roll, also off the middle."""
    width, height = 0.12, 0.2
    detection = seen(in_camera(cylinder(x, y, width, height), tilt, roll))
    found = SURE.place(FRAME, detection, floor(tilt, roll))
    center = in_camera([x, y, height / 2], tilt, roll)
    # On the line of sight through the box's centre, which is nearly that of the solid's.
    assert np.linalg.norm(found.position) == pytest.approx(np.linalg.norm(center), rel=0.01)
    assert np.linalg.norm(found.position - center) < 0.02
    assert found.size == pytest.approx((width, width, height), rel=0.12)
    assert found.rotation[:, 2] == pytest.approx(floor(tilt, roll).normal)
    assert found.depth_source == 'plane' and found.support is not None


@pytest.mark.parametrize('x, y, tilt', [(0.0, 1.5, 30), (0.2, 1.2, 35), (-0.5, 2.5, 15)])
def test_a_box_is_found_where_it_stands(x: float, y: float, tilt: float) -> None:
    """The corners of a box bound it a little differently; that costs a few per cent."""
    width, depth, height = 0.14, 0.12, 0.25
    detection = seen(in_camera(cuboid(x, y, width, depth, height), tilt))
    found = SURE.place(FRAME, detection, floor(tilt))
    center = in_camera([x, y, height / 2], tilt)
    assert np.linalg.norm(found.position) == pytest.approx(np.linalg.norm(center), rel=0.02)
    assert found.size[1:] == pytest.approx((width, height), rel=0.12)


def test_errors_are_as_large_as_stated() -> None:
    """With errors of tilt, height and box as assumed, error over std is about 1."""
    rng = np.random.default_rng(3)
    source = PlaneDistance()
    ratios = []
    for _ in range(60):
        tilt = rng.uniform(10, 50)
        distance = HEIGHT / np.tan(np.radians(tilt)) * rng.uniform(0.9, 1.1)
        width, height = rng.uniform(0.08, 0.2), rng.uniform(0.08, 0.3)
        # As deep as wide to within a quarter.
        ratio = np.exp(0.26 * rng.normal())
        solid = cylinder(0.0, 0.0, 1.0, height) * (width, width * ratio, 1.0) + (0, distance, 0)
        detection = seen(in_camera(solid, tilt))
        sides = np.tile(detection.bbox[2:] - detection.bbox[:2], 2)
        detection.bbox[:] += rng.normal(size=4) * np.hypot(1.0, 0.02 * sides)
        wrong = floor(tilt + rng.normal(), rng.normal())
        told = SupportPlane(wrong.normal, HEIGHT * np.exp(0.02 * rng.normal()))
        found = source.place(FRAME, detection, told)
        true = np.linalg.norm(in_camera([0, distance, height / 2], tilt))
        placed = np.linalg.norm(found.position)
        ratios.append(np.log(placed / true) * placed / np.linalg.norm(found.position_std))
    assert 0.6 < np.sqrt(np.mean(np.square(ratios))) < 1.5


def test_what_is_less_known_is_less_sure() -> None:
    """A larger error of tilt or height is stated."""
    detection = seen(in_camera(cylinder(0, 2.5, 0.1, 0.2), 15))
    usual, tilted, high = (
        np.linalg.norm(PlaneDistance(options).place(FRAME, detection, floor(15)).position_std)
        for options in (PlaneOptions(), PlaneOptions(angle_std=4.0), PlaneOptions(height_std=0.2)))
    assert tilted > 2 * usual and high > 2 * usual


def test_a_foot_beyond_the_picture_is_no_answer() -> None:
    """A box cut by the lower border would stand anywhere; one cut above stands where it does."""
    tall = in_camera(cylinder(0, 0.75, 0.1, 0.2), 20)
    assert seen(tall).bbox[3] == 480
    assert SURE.place(FRAME, seen(tall), floor(20)) is None
    sideways = seen(in_camera(cylinder(0, 0.55, 0.1, 0.2), 20, 90))
    assert sideways.bbox[2] == 640, 'its right side hangs down'
    assert SURE.place(FRAME, sideways, floor(20, 90)) is None
    tower = seen(in_camera(cylinder(0, 1.5, 0.2, 1.6), 20))
    assert tower.bbox[1] == 0
    found = SURE.place(FRAME, tower, floor(20))
    foot = in_camera([0, 1.5, 0], 20)  # what is seen goes up to half the object's height
    assert np.linalg.norm(found.position) == pytest.approx(np.linalg.norm(foot), rel=0.15)
    whole = SURE.place(FRAME, seen(in_camera(cylinder(0, 1.5, 0.2, 0.5), 20)), floor(20))
    assert np.linalg.norm(found.position_std) > np.linalg.norm(whole.position_std)


def test_above_the_horizon_and_without_plane_there_is_no_answer() -> None:
    """What does not stand on the plane below is not placed on it."""
    cloud = seen(in_camera(cylinder(0, 3.0, 0.4, 0.3) + (0, 0, 1.0), 0))
    assert cloud.bbox[3] < CAMERA.cy
    assert SURE.place(FRAME, cloud, floor(0)) is None
    assert SURE.place(FRAME, seen(in_camera(cylinder(0, 1, 0.1, 0.2), 30)), None) is None


def test_beside_a_measured_table_there_is_no_answer() -> None:
    """The outline of a support that was seen says where one can stand on it."""
    def table(y: float) -> SupportPlane:
        corners = [(-0.4, y - 0.4, 0), (0.4, y - 0.4, 0), (0.4, y + 0.4, 0), (-0.4, y + 0.4, 0)]
        return SupportPlane(floor(30).normal, HEIGHT, in_camera(corners, 30))

    detection = seen(in_camera(cylinder(0, 1.2, 0.1, 0.2), 30))
    assert SURE.place(FRAME, detection, table(1.2)) is not None
    assert SURE.place(FRAME, detection, table(2.2)) is None


def test_the_plane_of_the_options() -> None:
    """Height, tilt and roll mean what they say."""
    assert PlaneOptions(tilt=30.0).support() is None, 'without height'
    for tilt, roll in ((0, 0), (30, 0), (30, 20), (-10, -170)):
        told = PlaneOptions(camera_height=HEIGHT, tilt=tilt, roll=roll).support()
        assert told.normal == pytest.approx(floor(tilt, roll).normal, abs=1e-12)
    told = PlaneOptions(camera_height=0.5, tilt=30.0).support()
    # Looking 30 degrees down from half a metre, the optical axis meets the floor after 1 m.
    assert told.height(np.array([0.0, 0.0, 1.0])) == pytest.approx(0.0)
