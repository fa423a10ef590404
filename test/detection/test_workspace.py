# SPDX-License-Identifier: Apache-2.0
"""Nothing outside the workspace is an object, wherever the camera is and however it is turned."""

from dataclasses import replace

import numpy as np
import pytest
from synthetic import GEOMETRIC
from synthetic import box
from synthetic import camera_pose
from synthetic import can
from synthetic import tabletop_frame

from img2scene_ros.errors import OptionError
from img2scene_ros.pipeline import Pipeline
from img2scene_ros.pipeline import PipelineOptions
from img2scene_ros.settings import read_assignments
from img2scene_ros.turning import turned_frame
from img2scene_ros.types import Frame
from img2scene_ros.types import Scene

POSE = camera_pose(40, 0.9)
LEFT, RIGHT = (0.0, -0.15), (0.05, 0.17)  # of two things on the table, x and y
AROUND_LEFT = (-0.15, -0.3, -0.05, 0.15, 0.0, 0.3)  # in the table's coordinates


@pytest.fixture(scope='module')
def frame() -> Frame:
    """Return a frame of two things that knows what is up, and nothing of the world."""
    things = [can(0.04, 0.12).apply_translation((*LEFT, 0)),
              box(0.08, 0.1, 0.1).apply_translation((*RIGHT, 0))]
    return replace(tabletop_frame(things, POSE)[0], up=POSE[2, :3])


def perceived(frame: Frame, workspace: tuple[float, ...]) -> Scene:
    return Pipeline(PipelineOptions(**GEOMETRIC, workspace=workspace)).perceive(frame)


def on_table(scene: Scene) -> list[np.ndarray]:
    """Return the places of the objects of a frame as it came, x and y on the table."""
    return sorted((tuple((POSE[:3, :3] @ one.position + POSE[:3, 3])[:2])
                   for one in scene.objects), key=lambda place: place[1])


def test_without_one_objects_are_everywhere(frame: Frame) -> None:
    assert np.allclose(on_table(perceived(frame, (0.0,) * 6)), [LEFT, RIGHT], atol=0.03)


def test_box_in_the_world(frame: Frame) -> None:
    scene = perceived(replace(frame, world_from_camera=POSE, world_id='table'), AROUND_LEFT)
    assert np.allclose(on_table(scene), [LEFT], atol=0.03)


def test_box_in_the_optical_frame(frame: Frame) -> None:
    """Optical x points to the right, which is the table's y here or its opposite."""
    at = np.linalg.inv(POSE) @ (*LEFT, 0.06, 1.0)
    box = (*(at[:3] - 0.12), *(at[:3] + 0.12))
    assert np.allclose(on_table(perceived(frame, box)), [LEFT], atol=0.03)


def test_box_in_the_optical_frame_of_a_camera_on_its_side(frame: Frame) -> None:
    turned = turned_frame(frame, 1)
    at = np.linalg.inv(POSE) @ (*LEFT, 0.06, 1.0)
    back = np.array([at[1], -at[0], at[2]])  # a quarter takes x, y to y, -x
    scene = perceived(turned, (*(back - 0.12), *(back + 0.12)))
    assert len(scene.objects) == 1
    assert np.linalg.norm(scene.objects[0].position - back) < 0.06


def test_what_reaches_out_is_cut(frame: Frame) -> None:
    """A box whose upper half is outside keeps the pixels of its lower half."""
    world = replace(frame, world_from_camera=POSE, world_id='table')
    low = perceived(world, (-0.2, 0.0, -0.05, 0.3, 0.3, 0.06)).objects
    whole = perceived(world, (-0.2, 0.0, -0.05, 0.3, 0.3, 0.3)).objects
    mask, readings = low[0].detection.mask, world.points @ POSE[:3, :3].T + POSE[:3, 3]
    assert np.nanmax(readings[mask][:, 2]) <= 0.06 < np.nanmax(
        readings[whole[0].detection.mask][:, 2])


@pytest.mark.parametrize('workspace', [
    (1.0, 0.0, 0.0, 0.5, 1.0, 1.0), (0.0, 0.0, 1.0), [0.0] * 7, (0.0,) * 5 + (float('nan'),),
    'everywhere'])
def test_what_is_no_box_is_refused(workspace: object) -> None:
    with pytest.raises(OptionError, match="'workspace'"):
        PipelineOptions(workspace=workspace)


def test_command_line_takes_one() -> None:
    settings = read_assignments(['workspace=[-1, -1, 0, 1, 1, 0.5]'])
    assert PipelineOptions(**settings).workspace == (-1.0, -1.0, 0.0, 1.0, 1.0, 0.5)
