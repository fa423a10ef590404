# SPDX-License-Identifier: Apache-2.0
"""MoveIt's planning scene, changed over real DDS; MoveIt is played with what it refuses."""

import signal
from collections.abc import Callable
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import active_count
from time import monotonic
from time import sleep
from typing import Any

import numpy as np
import pytest
import trimesh
from harness import GEOMETRIC
from harness import FakeCamera
from harness import NodeProcess
from harness import Robot
from harness import half_size
from interface_packages import make_importable
from output_stage import WORLD_FROM_CAMERA
from output_stage import OutputStage
from output_stage import at
from output_stage import frame_at
from rclpy.node import Node
from test_pose_outputs import matrix
from test_pose_outputs import thing

from img2scene_ros.nodes.outputs.planning_scene import PlanningSceneOptions
from img2scene_ros.nodes.outputs.planning_scene import PlanningSceneOutput
from img2scene_ros.nodes.support_box import support_box
from img2scene_ros.types import Frame
from img2scene_ros.types import ObjectModel
from img2scene_ros.types import Scene
from img2scene_ros.types import SceneObject
from img2scene_ros.types import SupportPlane

moveit_msgs = pytest.importorskip('moveit_msgs.msg', reason=make_importable())
services = pytest.importorskip('moveit_msgs.srv', reason=make_importable())

OPERATIONS = {0: 'ADD', 1: 'REMOVE', 2: 'APPEND', 3: 'MOVE'}
FAST = {'geometry': 'box', 'max_rate': 100.0}


class MoveIt:
    """
    A planning scene that is changed as MoveIt's is (planning_scene.cpp), and complains likewise.

    - world: what was added, by id, at its present pose
    - log: 'ADD id', 'MOVE id' and so on, in the order in which they came
    """

    def __init__(self, node: Node) -> None:
        self.world: dict[str, Any] = {}
        self.attached: set[str] = set()
        self.log: list[str] = []
        self._destroy = [
            lambda made=node.create_subscription(
                moveit_msgs.PlanningScene, '/planning_scene', self._change, 100):
            node.destroy_subscription(made),
            lambda made=node.create_service(
                services.GetPlanningScene, '/get_planning_scene', self._tell):
            node.destroy_service(made)]

    def end(self) -> None:
        for destroy in self._destroy:
            destroy()

    def _change(self, scene: Any) -> None:
        assert scene.is_diff and scene.robot_state.is_diff, 'else everything else is dropped'
        for item in scene.world.collision_objects:
            operation = OPERATIONS[item.operation[0]]
            self.log.append(f'{operation} {item.id}')
            shapes = len(item.primitives) + len(item.meshes)
            if operation == 'ADD':
                assert shapes, 'There are no shapes specified in the collision object message'
                assert len(item.primitives) == len(item.primitive_poses)
                assert len(item.meshes) == len(item.mesh_poses)
                assert item.id not in self.attached, 'it would collide with itself'
                self.world[item.id] = item
            elif operation == 'MOVE':
                assert item.id in self.world, 'MOVE of an object that does not exist'
                assert not shapes, 'Move operation ignores the geometry'
                self.world[item.id].pose, self.world[item.id].header = item.pose, item.header
            else:
                assert operation == 'REMOVE' and item.id, 'removes what is of others, too'
                assert item.id in self.world, 'Tried to remove an object that does not exist'
                del self.world[item.id]

    def _tell(self, request: Any, response: Any) -> Any:
        if request.components.components & 8:
            response.scene.world.collision_objects = [
                moveit_msgs.CollisionObject(id=name) for name in self.world]
        if request.components.components & 4:
            for name in self.attached:
                attached = moveit_msgs.AttachedCollisionObject()
                attached.object.id = name
                response.scene.robot_state.attached_collision_objects.append(attached)
        return response


@pytest.fixture
def stage() -> Iterator[Callable[..., OutputStage]]:
    stages = []

    def make(**options: Any) -> OutputStage:
        stages.append(OutputStage(PlanningSceneOutput, PlanningSceneOptions(**options)))
        return stages[-1]
    yield make
    for one in stages:
        one.close()


def tells(
    stage: OutputStage, moveit: MoveIt, expected: list[str], *objects: SceneObject, **scene: Any,
) -> None:
    """Fail unless a scene tells MoveIt exactly this."""
    moveit.log.clear()
    stage.show(*objects, **scene)
    stage.spin_until(lambda: len(moveit.log) >= len(expected))
    stage.spin()
    assert moveit.log == expected


def started(stage: OutputStage) -> MoveIt:
    """Return a MoveIt that the output has found."""
    moveit = MoveIt(stage.robot.node)
    stage.spin_until(lambda: stage.node.count_subscribers('/planning_scene')
                     and stage.output._client.service_is_ready())
    stage.spin()
    return moveit


def sphere(id: int) -> SceneObject:
    mesh = trimesh.creation.icosphere(4, 0.05)
    return replace(thing(id, label='ball'), model=ObjectModel(
        mesh.vertices.astype(np.float32), mesh.faces.astype(np.int32),
        np.full((len(mesh.vertices), 3), 100, np.uint8), np.zeros(3), np.eye(3), 'test'))


def test_changes_are_sent_exactly(stage: Callable[..., OutputStage]) -> None:
    stage = stage(**FAST)
    moveit = started(stage)
    mug, egg = thing(1), thing(2, (0.3, 0.0, 1.0), 'egg')
    tells(stage, moveit, ['ADD img2scene_mug_1', 'ADD img2scene_egg_2'], mug, egg)
    tells(stage, moveit, [], mug, egg)
    jitter = at(egg, *egg.position + 0.001)
    tells(stage, moveit, [], mug, jitter)  # less than republish_distance
    away = at(egg, *egg.position + 0.05)
    tells(stage, moveit, ['MOVE img2scene_egg_2'], mug, away)
    np.testing.assert_allclose(matrix(moveit.world['img2scene_egg_2'].pose), away.pose)
    hidden = replace(away, state='hidden')
    tells(stage, moveit, [], mug, hidden)  # what is hidden is still in the way
    rebuilt = replace(mug, model=replace(mug.model))
    tells(stage, moveit, ['ADD img2scene_mug_1'], rebuilt, away)  # a better mesh
    cup = replace(rebuilt, detection=replace(mug.detection, label='cup'))
    tells(stage, moveit, ['REMOVE img2scene_mug_1', 'ADD img2scene_cup_1'], cup, away)
    tells(stage, moveit, ['REMOVE img2scene_egg_2'], cup)
    tells(stage, moveit, ['REMOVE img2scene_cup_1'])
    assert not moveit.world


def test_poses_are_in_the_world_and_a_moving_camera_moves_nothing(
    stage: Callable[..., OutputStage],
) -> None:
    stage = stage(**FAST)
    moveit = started(stage)
    mug = thing(1, (0.1, 0.2, 1.5))
    tells(stage, moveit, ['ADD img2scene_mug_1'], mug, world=WORLD_FROM_CAMERA)
    found = moveit.world['img2scene_mug_1']
    assert found.header.frame_id == 'map'
    np.testing.assert_allclose(matrix(found.pose)[:3, 3], [2.5, 1.9, 2.8])
    nearer = WORLD_FROM_CAMERA.copy()
    nearer[0, 3] += 0.5
    tells(stage, moveit, [], at(mug, 0.1, 0.2, 1.0), world=nearer)
    tells(stage, moveit, ['MOVE img2scene_mug_1'], mug, world=nearer)
    box, = found.primitives
    np.testing.assert_allclose(box.dimensions, [0.1, 0.2, 0.3], atol=1e-6)


@pytest.mark.parametrize('geometry', ['mesh', 'convex_parts'])
def test_meshes_follow_boxes(stage: Callable[..., OutputStage], geometry: str) -> None:
    if geometry == 'convex_parts':
        pytest.importorskip('coacd', reason='without it there are no convex parts')
    stage = stage(geometry=geometry, triangles=200)
    moveit = started(stage)
    stage.show(sphere(3))
    stage.spin_until(lambda: moveit.world.get('img2scene_ball_3') is not None
                     and moveit.world['img2scene_ball_3'].meshes)
    assert moveit.log[-1] == 'ADD img2scene_ball_3'
    for mesh in moveit.world['img2scene_ball_3'].meshes:
        points = np.array([[point.x, point.y, point.z] for point in mesh.vertices])
        made = trimesh.Trimesh(points, [one.vertex_indices for one in mesh.triangles])
        assert made.is_watertight and made.volume > 0 and 20 <= len(made.faces) <= 200
        assert np.linalg.norm(points, axis=1).max() == pytest.approx(0.05, abs=0.006)
    moveit.log.clear()
    stage.show(sphere(3))  # the same mesh, made anew: another model
    stage.spin_until(lambda: moveit.log)


def test_support_is_a_box_under_the_objects(stage: Callable[..., OutputStage]) -> None:
    stage = stage(**FAST, support_thickness=0.04)
    moveit = started(stage)
    # A table 0.6 m below the camera, which looks along the horizon: up is -y.
    hull = np.array([[-0.5, 0.6, 1.0], [0.5, 0.6, 1.0], [0.5, 0.6, 1.6], [-0.5, 0.6, 1.6]])
    table = SupportPlane(np.array([0.0, -1, 0]), 0.6, hull)
    tells(stage, moveit, ['ADD img2scene_support'], supports=(table,))
    box = moveit.world['img2scene_support']
    pose, sides = matrix(box.pose), np.array(box.primitives[0].dimensions)
    corners = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
    corners = corners * sides @ pose[:3, :3].T + pose[:3, 3]
    np.testing.assert_allclose(corners.min(axis=0), [-0.5, 0.6, 1.0], atol=1e-6)
    np.testing.assert_allclose(corners.max(axis=0), [0.5, 0.64, 1.6], atol=1e-6)
    np.testing.assert_allclose(pose[:3, 2], [0, -1, 0], atol=1e-6)
    noisy = replace(table, offset=0.602, hull=hull + [0, -0.002, 0.004])
    tells(stage, moveit, [], supports=(noisy,))
    lower = replace(table, offset=0.65, hull=hull + [0, 0.05, 0])
    tells(stage, moveit, ['ADD img2scene_support'], supports=(lower,))
    floor = replace(table, offset=1.0, hull=np.array(
        [[-2.0, 1.0, 1.0], [2.0, 1.0, 1.0], [2.0, 1.0, 3.0], [-2.0, 1.0, 3.0]]))
    on_floor = at(thing(1), 0.9, 0.9, 1.3)
    tells(stage, moveit, ['ADD img2scene_support_2', 'ADD img2scene_mug_1'], on_floor,
          supports=(lower, floor))
    assert moveit.world['img2scene_support_2'].pose.position.y == pytest.approx(1.02)
    tells(stage, moveit, ['REMOVE img2scene_mug_1', 'REMOVE img2scene_support_2'],
          supports=(lower, floor))
    tells(stage, moveit, ['REMOVE img2scene_support'])


def test_support_without_an_end_is_around_the_objects() -> None:
    floor = SupportPlane(np.array([0.0, -1, 0]), 0.6)
    points = np.array([[0.0, 0.5, 1.0], [1.0, 0.5, 1.0]])
    box = support_box(floor, points)
    np.testing.assert_allclose(box.pose[:3, 3], [0.5, 0.6, 1.0], atol=1e-6)
    np.testing.assert_allclose(sorted(box.size), [1.0, 2.0], atol=1e-6)
    assert support_box(floor, points[:0]) is None
    assert box.holds(floor, points) and not box.holds(floor, points + [1.0, 0, 0])


def test_all_is_sent_again_when_moveit_returns(stage: Callable[..., OutputStage]) -> None:
    stage = stage(**FAST)
    moveit = started(stage)
    mug = thing(1)
    tells(stage, moveit, ['ADD img2scene_mug_1'], mug)
    moveit.end()
    stage.spin_until(lambda: not stage.node.count_subscribers('/planning_scene'))
    stage.spin()
    stage.show(mug, thing(2, label='egg'))
    moveit = MoveIt(stage.robot.node)
    stage.spin_until(lambda: len(moveit.world) == 2)
    stage.spin(1.5)
    assert moveit.log == ['ADD img2scene_mug_1', 'ADD img2scene_egg_2']


def test_scene_is_right_after_a_kill(stage: Callable[..., OutputStage]) -> None:
    first = stage(**FAST)
    moveit = started(first)
    moveit.world['table_of_the_cell'] = None  # somebody else's
    first.show(thing(1), thing(2, label='egg'))
    first.spin_until(lambda: len(moveit.world) == 3)
    first.kill()
    second = OutputStage(
        PlanningSceneOutput, PlanningSceneOptions(**FAST), first.domain, first.robot)
    try:
        second.spin_until(lambda: second.output._client.service_is_ready())
        second.show(thing(1, (0.4, 0.0, 1.0)))
        second.spin_until(lambda: set(moveit.world) == {
            'img2scene_mug_1', 'table_of_the_cell'})
        second.spin(1.5)
        assert set(moveit.world) == {'img2scene_mug_1', 'table_of_the_cell'}
        place = moveit.world['img2scene_mug_1'].pose.position
        np.testing.assert_allclose([place.x, place.y, place.z], [0.4, 0.0, 1.0])
        second.output.deactivate()
        second.spin_until(lambda: set(moveit.world) == {'table_of_the_cell'})
    finally:
        second.output.close()
        second.kill()
        first.output.close = first.kill = lambda: None


def test_what_the_robot_holds_is_left_alone(stage: Callable[..., OutputStage]) -> None:
    stage = stage(**FAST)
    moveit = started(stage)
    mug = thing(1)
    tells(stage, moveit, ['ADD img2scene_mug_1'], mug)
    moveit.attached = {'img2scene_mug_1'}
    del moveit.world['img2scene_mug_1']
    stage.spin_until(lambda: stage.output._attached)
    lifted = at(mug, 0.1, 0.0, 0.8)
    tells(stage, moveit, [], lifted)
    tells(stage, moveit, [], replace(lifted, model=replace(lifted.model)))
    tells(stage, moveit, [])  # hidden by the gripper
    moveit.attached.clear()
    stage.show(at(mug, 0.5, 0.2, 1.0))
    stage.spin_until(lambda: 'img2scene_mug_1' in moveit.world)
    place = moveit.world['img2scene_mug_1'].pose.position
    np.testing.assert_allclose([place.x, place.y, place.z], [0.5, 0.2, 1.0])


def test_changes_are_limited_in_rate_and_the_last_one_counts(
    stage: Callable[..., OutputStage],
) -> None:
    stage = stage(geometry='box', max_rate=1.0)
    moveit = started(stage)
    mug = thing(1)
    for step in range(10):
        stage.show(at(mug, 0.1 * step, 0.0, 1.0))
        stage.spin(0.02)
    stage.spin_until(lambda: moveit.world
                     and moveit.world['img2scene_mug_1'].pose.position.x > 0.89)
    assert moveit.log == ['ADD img2scene_mug_1', 'MOVE img2scene_mug_1']


def test_nothing_is_left_of_twenty_lives(stage: Callable[..., OutputStage]) -> None:
    stage = stage(**FAST)
    node, before = stage.node, active_count()
    kept = [len(list(entities)) for entities in (node.publishers, node.clients, node.timers)]
    stage.listen(moveit_msgs.PlanningScene, '/planning_scene')
    for _ in range(20):
        output = PlanningSceneOutput(node, PlanningSceneOptions(triangles=100))
        output._publisher.on_activate(None)
        output.activate()
        output.show(Scene(frame_at(1), (sphere(1),)), True)
        output.deactivate()
        output.close()
    stage.spin()
    assert kept == [
        len(list(entities)) for entities in (node.publishers, node.clients, node.timers)]
    deadline = monotonic() + 60.0
    while active_count() > before and monotonic() < deadline:
        sleep(0.1)  # shapes that were begun are finished
    assert active_count() <= before


def test_killed_node_leaves_a_scene_that_the_next_one_puts_right(
    robot: Robot, recorded: Callable[[str], Frame], tmp_path: Path,
) -> None:
    moveit = MoveIt(robot.node)
    moveit.world['img2scene_ghost_99'] = None  # of a life before
    moveit.world['table_of_the_cell'] = None
    arguments = (*GEOMETRIC, '-p', 'outputs:=[planning_scene]')

    def is_complete() -> bool:
        return 'img2scene_support' in moveit.world and 'img2scene_ghost_99' not in moveit.world \
            and len(moveit.world) > 2 and any(
                item and item.meshes for item in moveit.world.values())

    node = NodeProcess('scene_node', robot.domain, tmp_path, *arguments)
    camera = FakeCamera(robot, half_size(recorded('table_cracker_box')))
    robot.spin_until(is_complete, 'MoveIt has meshes', camera.send)
    first = set(moveit.world)
    node.stop(signal.SIGKILL)
    moveit.world['img2scene_ghost_99'] = None
    node = NodeProcess('scene_node', robot.domain, tmp_path, *arguments)
    moveit.log.clear()
    robot.spin_until(
        lambda: is_complete() and moveit.log.count('ADD img2scene_support'), 'it is right again',
        camera.send)
    assert set(moveit.world) == first
    assert not node.complaints()
    assert node.stop() == 0
    robot.spin_until(lambda: set(moveit.world) == {'table_of_the_cell'}, 'all is removed')
    camera.close()


def test_two_nodes_leave_each_others_objects_alone(stage: Callable[..., OutputStage]) -> None:
    """As of two cameras; after seconds, in which what is nobody's is removed."""
    first = stage(**FAST)
    moveit = started(first)
    tells(first, moveit, ['ADD img2scene_mug_1'], thing(1))
    second = OutputStage(
        PlanningSceneOutput, PlanningSceneOptions(**FAST), first.domain, first.robot,
        ('-r', '__ns:=/left', '-r', 'planning_scene:=/planning_scene',
         '-r', 'get_planning_scene:=/get_planning_scene'))
    second.spin_until(lambda: second.output._client.service_is_ready()
                      and second.node.count_subscribers('/planning_scene'))
    second.show(thing(1))
    for _ in range(10):
        first.spin()
        second.spin()
    assert set(moveit.world) == {'img2scene_mug_1', 'left_img2scene_mug_1'}
    assert not [line for line in moveit.log if line.startswith('REMOVE')]
    second.output.close()
    second.kill()
