# SPDX-License-Identifier: Apache-2.0
"""What viewers are sent of a scene that changes, and what they then show."""

from collections.abc import Callable
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from harness import QUEUED
from output_stage import WORLD_FROM_CAMERA
from output_stage import OutputStage
from output_stage import at
from test_mesh_transport import Viewer
from test_mesh_transport import thing
from test_pose_outputs import matrix
from textured_models import textured_model
from visualization_msgs.msg import Marker
from visualization_msgs.msg import MarkerArray

from img2scene_ros.nodes.outputs.markers import MarkersOptions
from img2scene_ros.nodes.outputs.markers import MarkersOutput
from img2scene_ros.types import SceneObject
from img2scene_ros.types import SupportPlane

TABLE = SupportPlane(np.array([0.0, -1, 0]), 0.6, np.array(
    [[-0.5, 0.6, 1.0], [0.5, 0.6, 1.0], [0.5, 0.6, 1.6], [-0.5, 0.6, 1.6]]))

FLOOR = SupportPlane(np.array([0.0, -1, 0]), 1.0, np.array(
    [[-2.0, 1.0, 1.0], [2.0, 1.0, 1.0], [2.0, 1.0, 3.0], [-2.0, 1.0, 3.0]]))


@pytest.fixture
def stage() -> Iterator[Callable[..., OutputStage]]:
    stages = []

    def make(**options: Any) -> OutputStage:
        stages.append(OutputStage(MarkersOutput, MarkersOptions(**options)))
        return stages[-1]
    yield make
    for one in stages:
        one.close()


def listen(stage: OutputStage) -> list[MarkerArray]:
    """Return where messages will be, from when the node has noticed."""
    received = stage.listen(MarkerArray, '/img2scene/markers', QUEUED)
    stage.spin()
    received.clear()
    return received


def sent(stage: OutputStage, received: list[MarkerArray], *objects: SceneObject, **scene: Any) \
        -> list[str]:
    """Show a scene; return what is sent of it: 'label id', and '-label id' of what is deleted."""
    received.clear()
    stage.show(*objects, **scene)
    stage.spin_until(lambda: received)
    stage.spin(0.1)
    array, = received
    signs = {Marker.ADD: '', Marker.DELETE: '-', Marker.DELETEALL: '-all '}
    return [f'{signs[one.action]}{one.ns} {one.id}' for one in array.markers]


def test_only_what_has_changed_is_sent(stage: Callable[..., OutputStage]) -> None:
    stage = stage()
    received = listen(stage)
    egg, mug = thing(1), thing(2, label='mug')
    everything = ['egg 1', 'labels 1', 'mug 2', 'labels 2']
    # First what an earlier life of the node has left is deleted.
    assert sent(stage, received, egg, mug) == ['-all  0', *everything]
    moved = at(mug, 0.2, 0.0, 1.0)
    assert sent(stage, received, egg, moved) == ['mug 2', 'labels 2']
    jitter = at(egg, 0.001, 0.0, 1.0)
    rebuilt = replace(moved, model=textured_model(7))
    assert sent(stage, received, jitter, rebuilt) == ['mug 2', 'labels 2']
    hidden = replace(egg, state='hidden')
    assert sent(stage, received, hidden, rebuilt) == ['egg 1', 'labels 1']
    assert sent(stage, received, hidden, rebuilt) == everything, 'all, once in a while'
    assert sent(stage, received, hidden, rebuilt, supports=(TABLE,)) == ['support 0']
    assert sent(stage, received, hidden, supports=(TABLE,)) == ['-labels 2', '-mug 2']
    # The floor is shown while something is on it.
    on_floor = at(thing(5), 0.9, 0.9, 1.3)
    added = sent(stage, received, hidden, on_floor, supports=(TABLE, FLOOR))
    assert [name for name in added if name[0] != '-'] == ['egg 5', 'labels 5', 'support 1']
    assert '-support 1' in sent(stage, received, hidden, supports=(TABLE, FLOOR))
    cup = at(replace(rebuilt, id=3), 0.0, 0.0, 1.0)
    assert sent(stage, received, cup, supports=(TABLE,))[-2:] == ['mug 3', 'labels 3']
    # In the world a camera that moves moves nothing.
    assert len(sent(stage, received, cup, world=WORLD_FROM_CAMERA)) > 2
    nearer = WORLD_FROM_CAMERA.copy()
    nearer[0, 3] += 0.5
    back, other = at(cup, 0.0, 0.0, 0.5), thing(4, x=0.5)
    added = sent(stage, received, back, other, world=nearer)
    assert [name for name in added if name[0] != '-'] == ['egg 4', 'labels 4']


@pytest.mark.parametrize('transport', ['inline', 'inline_texture'])
def test_late_viewers_show_what_the_others_show(
    stage: Callable[..., OutputStage], transport: str,
) -> None:
    stage, viewer, late = stage(mesh_transport=transport), Viewer(), Viewer()
    stage.robot.node.create_subscription(
        MarkerArray, '/img2scene/markers', viewer.show, QUEUED)
    egg, mug = thing(1), thing(2, label='mug')
    for step in range(8):  # more than the queue holds
        scene = stage.show(egg, at(mug, 0.1 * step, 0.0, 1.0))
        stage.spin(0.1)
    stage.robot.node.create_subscription(MarkerArray, '/img2scene/markers', late.show, QUEUED)
    for one in (viewer, late):
        stage.spin_until(lambda: {('egg', 1), ('mug', 2)} <= one.shown.keys()
                         and one.shown['mug', 2].pose.position.x == scene.objects[1].position[0])
    for one in (viewer, late):
        one.check(scene, textured=transport != 'inline')


def test_viewers_get_all_again_when_their_transforms_reach_back(
    stage: Callable[..., OutputStage],
) -> None:
    stage, late, egg = stage(mesh_transport='inline_texture'), Viewer(), thing(1)
    stage.show(egg)
    stage.robot.node.create_subscription(MarkerArray, '/img2scene/markers', late.show, QUEUED)
    topic = '/img2scene/markers'
    stage.spin_until(lambda: late.pictures and stage.node.count_subscribers(topic) == 2)
    stage.spin(1.0)  # the node counts both
    before, stamps = late.loaded, []
    while late.loaded == before:  # RViz leaves those white that it could not place
        stamps.append(stage.show(egg).frame.stamp_ns)
        stage.spin(0.1)
    shown = late.shown['egg', 1].header.stamp
    assert shown.sec * 10**9 + shown.nanosec == stamps[-1]
    before = late.loaded
    for _ in range(30):
        stage.show(egg)
        stage.spin(0.1)
    assert late.loaded == before


def test_nothing_is_shown_by_a_node_that_is_not_active(
    stage: Callable[..., OutputStage],
) -> None:
    stage, viewer, late = stage(), Viewer(), Viewer()
    stage.robot.node.create_subscription(
        MarkerArray, '/img2scene/markers', viewer.show, QUEUED)
    stage.show(thing(1), supports=(TABLE,))
    stage.spin_until(lambda: viewer.shown)
    stage.output.deactivate()
    stage.spin_until(lambda: not viewer.shown)
    stage.robot.node.create_subscription(MarkerArray, '/img2scene/markers', late.show, QUEUED)
    stage.spin(0.5)
    assert not late.shown and not viewer.shown
    stage.output.activate()
    stage.show(thing(1))
    stage.spin_until(lambda: viewer.shown and late.shown)


@pytest.mark.parametrize('transport', ['inline', 'inline_texture', 'file'])
def test_what_is_not_seen_as_drawn_is_translucent(
    stage: Callable[..., OutputStage], transport: str,
) -> None:
    stage, viewer = stage(mesh_transport=transport), Viewer()
    stage.robot.node.create_subscription(
        MarkerArray, '/img2scene/markers', viewer.show, QUEUED)
    box = replace(textured_model(5), texture=None, reconstructor='box')
    stage.show(
        thing(1), replace(thing(2), state='hidden'), replace(thing(3), state='out_of_view'),
        replace(thing(4), is_stale=True), thing(5, box), supports=(TABLE,))
    stage.spin_until(lambda: len(viewer.shown) == 11)
    seen = viewer.shown['egg', 1]
    assert seen.color.a == (0.0 if transport == 'file' else 1.0)
    assert seen.mesh_use_embedded_materials == (transport == 'file')
    for id in (2, 3, 4, 5):
        assert 0.2 < viewer.shown['egg', id].color.a < 0.7
        assert not viewer.shown['egg', id].mesh_use_embedded_materials
    assert viewer.shown['egg', 2].color.a < viewer.shown['egg', 4].color.a
    texts = [viewer.shown['labels', id].text for id in range(1, 6)]
    assert texts == [
        'egg 1', 'egg 2 (hidden)', 'egg 3 (out of view)', 'egg 4 (stale)', 'egg 5']


def test_names_are_over_the_objects_and_hold_together(
    stage: Callable[..., OutputStage],
) -> None:
    stage, viewer = stage(), Viewer()
    stage.robot.node.create_subscription(
        MarkerArray, '/img2scene/markers', viewer.show, QUEUED)
    upright = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # z is up: the camera's -y
    egg = replace(thing(1), rotation=upright)
    stage.show(egg, supports=(TABLE,))
    stage.spin_until(lambda: len(viewer.shown) == 3)
    text = viewer.shown['labels', 1]
    assert text.scale.x == pytest.approx(0.3 * text.scale.z), 'else RViz tears words apart'
    top = egg.points[:, 1].min()
    assert text.pose.position.y + text.scale.z / 2 <= top <= text.pose.position.y + 0.05
    table = viewer.shown['support', 0]
    np.testing.assert_allclose(matrix(table.pose)[:3, 3], [0, 0.6, 1.3], atol=1e-6)
    assert sorted([table.scale.x, table.scale.y]) == pytest.approx([0.6, 1.0])
    assert table.color.a < 0.4
    assert table.header.frame_id == 'camera'
    stage.show(egg, world=WORLD_FROM_CAMERA)
    stage.spin_until(lambda: viewer.shown['egg', 1].header.frame_id == 'map')
    np.testing.assert_allclose(
        matrix(viewer.shown['egg', 1].pose), WORLD_FROM_CAMERA @ egg.pose, atol=1e-9)
