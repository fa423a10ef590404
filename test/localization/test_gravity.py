# SPDX-License-Identifier: Apache-2.0
"""Up from one picture: drawn edges of known cameras, and the planes that a depth sensor sees."""

from collections.abc import Callable
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from img2scene_ros.camera import Camera
from img2scene_ros.detection.supports import supported
from img2scene_ros.localization.gravity import find_gravity
from img2scene_ros.localization.gravity import up_of
from img2scene_ros.types import Frame

CAMERA = Camera.from_field_of_view(640, 480, 60.0)
BENT = Camera(640, 480, 554.0, 554.0, 319.5, 239.5, np.array([-0.12, 0.02, 0.0, 0.0, 0.0]))
RECORDED = ('table_blue_mug', 'table_cracker_box', 'table_mustard_bottle', 'ycb_1', 'ycb_2')


def degrees_off(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.degrees(np.arccos(np.clip(one @ other, -1.0, 1.0))))


def edges_of_boxes(degrees: float) -> Iterator[tuple[int, np.ndarray]]:
    """Yield axis and ends (2, 3) of the edges of turned boxes; x and y are level, z is up."""
    turn = Rotation.from_euler('z', degrees, degrees=True)
    for center in ((-0.5, 0.1, 0.0), (0.4, -0.3, 0.1), (0.1, 0.5, -0.1)):
        corners = np.array(center) + turn.apply(0.25 * np.array(
            [(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]))
        for corner in range(8):
            for axis, bit in enumerate((4, 2, 1)):
                if not corner & bit:
                    yield axis, corners[[corner, corner | bit]]


def drawn(
    camera: Camera, tilt: float, roll: float, kinds: tuple[int, ...] = (0, 1, 2),
    turn: float = 25.0,
) -> Frame:
    """Draw boxes 3 m away; `kinds` of their edges, by axis."""
    up = up_of(np.radians(tilt), np.radians(roll))
    right = np.cross((0.0, 0.0, 1.0), up)
    right /= np.linalg.norm(right)
    to_optical = np.stack([right, np.cross(up, right), up], axis=1)
    picture = np.full((camera.height, camera.width, 3), 90, np.uint8)
    for axis, (start, end) in edges_of_boxes(turn):
        if axis in kinds:
            path = np.linspace(start, end, 30) @ to_optical.T + (0.0, 0.0, 3.0)
            pixels = np.rint(camera.project(path) * 16).astype(np.int32)
            cv2.polylines(picture, [pixels[:, None]], False, (220, 200, 180), 2, cv2.LINE_AA, 4)
    return Frame(picture, camera)


@pytest.mark.parametrize('camera', (CAMERA, BENT), ids=('straight', 'bent'))
@pytest.mark.parametrize('tilt, roll', ((3.0, 0.0), (30.0, -6.0), (50.0, 8.0), (65.0, 2.0)))
def test_edges_of_boxes_tell_up(camera: Camera, tilt: float, roll: float) -> None:
    best = find_gravity(drawn(camera, tilt, roll))[0]
    assert best.is_sure
    assert degrees_off(best.up, up_of(np.radians(tilt), np.radians(roll))) < 1.0


@pytest.mark.parametrize('kinds', ((), (0,)), ids=('nothing', 'one direction'))
def test_too_little_to_see_is_not_sure(kinds: tuple[int, ...]) -> None:
    assert not find_gravity(drawn(CAMERA, 40.0, 0.0, kinds, 0.0))[0].is_sure


@pytest.mark.parametrize('name', RECORDED)
def test_up_is_that_of_the_plane_that_depth_shows(
    name: str, recorded: Callable[[str], Frame],
) -> None:
    frame = recorded(name)
    best = find_gravity(Frame(frame.color, frame.camera))[0]
    assert best.is_sure
    assert degrees_off(best.up, supported(frame).support.normal) < 5.0
