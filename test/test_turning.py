# SPDX-License-Identifier: Apache-2.0
"""Tests of cameras that are mounted on their side or upside down."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from img2scene_ros.camera import Camera
from img2scene_ros.detection import mask_iou
from img2scene_ros.detection.supports import supported
from img2scene_ros.errors import InputError
from img2scene_ros.pipeline import Pipeline
from img2scene_ros.pipeline import PipelineOptions
from img2scene_ros.turning import quarters_to_upright
from img2scene_ros.turning import turn
from img2scene_ros.turning import turned_frame
from img2scene_ros.types import Frame
from img2scene_ros.types import Scene

LENSES = {
    'plumb_bob': [-0.2, 0.05, 0.003, -0.002, 0.01],
    'rational_polynomial': [0.3, 0.1, 0.002, 0.004, 0.01, 0.2, 0.05, 0.01],
    'thin_prism': [0.1, 0.01, 0.001, 0.002, 0.0, 0.0, 0.0, 0.0, 0.003, 0.001, -0.002, 0.004],
    'equidistant': [0.05, 0.01, -0.002, 0.001],
}


@pytest.mark.parametrize('lens', LENSES)
@pytest.mark.parametrize('quarters', [1, 2, 3])
def test_a_turned_camera_sees_a_turned_point_at_the_turned_pixel(lens: str, quarters: int) -> None:
    model = 'equidistant' if lens == 'equidistant' else 'rational_polynomial'
    camera = Camera(64, 48, 60.0, 55.0, 30.0, 25.0, np.array(LENSES[lens]), model)
    image = np.zeros((48, 64), np.uint8)
    image[10, 50] = 1
    row, column = np.argwhere(np.rot90(image, quarters))[0]
    point = camera.unproject(np.array([50.0, 10.0]), 2.0)
    seen = camera.turned(quarters).project(turn(quarters) @ point)
    np.testing.assert_allclose(seen, (column, row), atol=1e-4)


def test_a_tilted_lens_is_refused() -> None:
    bent = np.zeros(14)
    bent[12] = 0.01
    with pytest.raises(InputError, match='tilted'):
        Camera(64, 48, 60.0, 60.0, 32.0, 24.0, bent, 'rational_polynomial').turned(1)


@pytest.mark.parametrize('up, now, quarters', [
    ((0, -1, 0), 0, 0), ((1, 0, 0), 0, 1), ((0, 1, 0), 0, 2), ((-1, 0, 0), 0, 3),
    ((0, 0, -1), 2, 2),  # looking straight down, any turn is as good
    ((0.8, -0.6, 0), 0, 0), ((0.8, -0.6, 0), 1, 1),  # between two turns, the present one stays
])
def test_up_is_up_in_the_turned_picture(
    up: tuple[float, float, float], now: int, quarters: int,
) -> None:
    assert quarters_to_upright(np.array(up), now) == quarters


@pytest.fixture(scope='module')
def level(recorded: Callable[[str], Frame]) -> Scene:
    return found(recorded('ycb_3'))


def found(frame: Frame) -> Scene:
    return Pipeline(PipelineOptions(
        detector='tabletop', reconstructor='depth_shell', texture='none')).run(frame)


@pytest.mark.parametrize('quarters', [1, 2, 3])
def test_a_rolled_camera_sees_the_same_objects(
    recorded: Callable[[str], Frame], level: Scene, quarters: int,
) -> None:
    frame = turned_frame(recorded('ycb_3'), quarters)
    scene = found(frame)
    assert scene.frame is frame and len(scene.objects) == len(level.objects) == 3
    here = turn(quarters)
    for one in level.objects:
        other = min(scene.objects, key=lambda item: np.linalg.norm(
            item.position - here @ one.position))
        np.testing.assert_allclose(other.position, here @ one.position, atol=0.004)
        np.testing.assert_allclose(other.model.size, one.model.size, atol=0.006)
        assert (other.rotation[:, 2] @ (here @ one.rotation[:, 2])) > 0.999
        assert mask_iou(other.detection.mask, np.rot90(one.detection.mask, quarters)) > 0.97
        left, top, right, bottom = other.detection.bbox.astype(int)
        assert other.detection.mask[top:bottom, left:right].sum() == other.detection.mask.sum()


def test_a_given_up_chooses_the_plane(recorded: Callable[[str], Frame]) -> None:
    frame = recorded('ycb_3')
    support = supported(frame).support
    same = supported(replace(frame, up=support.normal)).support
    # It is fitted to what faces up, which differs by some pixels: far less than the noise.
    np.testing.assert_allclose(same.normal, support.normal, atol=1e-4)
    assert same.offset == pytest.approx(support.offset, abs=1e-4)
    assert supported(replace(frame, up=np.array([1.0, 0.0, 0.0]))).support is None


def test_meshes_before_a_rolled_camera_stay_the_same(recorded: Callable[[str], Frame]) -> None:
    """Another frame of the same scene brings no new meshes, which would be sent again."""
    pipeline = Pipeline(PipelineOptions(
        detector='tabletop', reconstructor='depth_shell', texture='none'))
    frame = turned_frame(recorded('ycb_3'), 1)
    before, after = pipeline.run(frame).objects, pipeline.perceive(replace(frame)).objects
    assert [one.id for one in after] == [one.id for one in before]
    assert all(one.model is old.model for one, old in zip(after, before))


def test_a_camera_that_is_rolled_meanwhile_keeps_its_objects(
    recorded: Callable[[str], Frame],
) -> None:
    """Poses are in the world, so that the quarters by which frames are turned change no object."""
    pipeline = Pipeline(PipelineOptions(
        detector='tabletop', reconstructor='box', texture='none'))
    frame = replace(recorded('ycb_3'), world_from_camera=np.eye(4), world_id='base')
    before = pipeline.run(frame).objects
    after = pipeline.perceive(turned_frame(frame, 1)).objects
    assert [one.id for one in after] == [one.id for one in before]
    for one, old in zip(after, before):
        np.testing.assert_allclose(one.position, turn(1) @ old.position, atol=0.004)
        assert one.model.vertices is old.model.vertices
