# SPDX-License-Identifier: Apache-2.0
"""The scene node's services: pausing, looking once, saving and loading, over real DDS."""

import json
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from harness import FakeCamera
from harness import NodeProcess
from harness import Robot
from harness import half_size
from harness import meshes
from rclpy.task import Future
from std_srvs.srv import SetBool
from std_srvs.srv import Trigger

from img2scene_ros.types import Frame

FRAME = 'ycb_3'


@pytest.fixture(scope='module')
def camera(
    robot: Robot, scene_node: NodeProcess, recorded: Callable[[str], Frame],
) -> Iterator[FakeCamera]:
    """Return a camera that sends pictures only when a test says so, beside an active node."""
    camera = FakeCamera(robot, half_size(recorded(FRAME)))
    robot.spin_until(lambda: robot.state == 'active', 'the node is active')
    for name, value in (('texture', 'none'), ('depth_shell.resolution', 24)):
        assert not robot.set_parameter(name, value), 'small meshes are quick to build'
    yield camera
    camera.close()


def enable(robot: Robot, wanted: bool) -> SetBool.Response:
    return robot.call(SetBool, '/img2scene/enable', SetBool.Request(data=wanted))


def ask(robot: Robot, service: str) -> Future:
    """Call a service without waiting for its answer."""
    client = robot.node.create_client(Trigger, f'{robot.scene}/{service}')
    robot.spin_until(client.service_is_ready, f'{service} is there')
    return client.call_async(Trigger.Request())


def values(robot: Robot) -> dict[str, str]:
    robot.diagnosis()
    return {item.key: item.value for item in robot.diagnostics[-1].status[0].values}


def look(robot: Robot, camera: FakeCamera) -> list[dict]:
    """Return what a look answers with while the camera sends pictures."""
    answer = ask(robot, 'look')
    robot.spin_until(answer.done, 'the look is over', camera.send)
    assert answer.result().success, answer.result().message
    return json.loads(answer.result().message)['objects']


def test_look_tells_without_pictures_why_it_found_nothing(
    robot: Robot, scene_node: NodeProcess,
) -> None:
    robot.spin_until(lambda: robot.state == 'active', 'the node is active')
    assert not robot.set_parameter('look_timeout', 1.0)
    answer = robot.call(Trigger, '/img2scene/look')
    assert not answer.success and 'look_timeout' in answer.message
    assert not robot.set_parameter('look_timeout', 60.0)


def test_look_answers_when_all_meshes_are_there(robot: Robot, camera: FakeCamera) -> None:
    objects = look(robot, camera)
    assert len(objects) == 3, 'spam, soup can and bowl'
    assert {item['reconstructor'] for item in objects} == {'depth_shell'}

    def are_shown() -> bool:
        shown = meshes(robot.markers[-1])
        places = {id: marker.pose.position for id, marker in shown.items()}
        return set(places) == {item['id'] for item in objects} and all(
            np.linalg.norm(np.subtract(item['position_m'], [place.x, place.y, place.z])) < 0.003
            for item in objects for place in [places[item['id']]])

    robot.spin_until(are_shown, 'the markers tell the same', camera.send)


def test_a_paused_node_leaves_pictures_alone_until_it_is_asked_to_look(
    robot: Robot, camera: FakeCamera,
) -> None:
    answer = enable(robot, False)
    assert answer.success and 'look' in answer.message
    robot.spin_until(
        lambda: int(values(robot).get('dropped: disabled', 0)) >= 3, 'pictures are left alone',
        camera.send)
    assert robot.call(Trigger, '/img2scene/clear').success
    robot.spin_until(lambda: not meshes(robot.markers[-1]), 'nothing is shown')
    for _ in range(3):
        camera.send()
    assert values(robot)['objects'] == '0' and 'paused' in robot.diagnosis()
    assert len(look(robot, camera)) == 3
    before = len(robot.markers)
    robot.spin_until(
        lambda: int(values(robot)['dropped: disabled']) >= 6, 'it is paused again', camera.send)
    assert len(robot.markers) == before
    assert enable(robot, True).success
    robot.spin_until(lambda: len(robot.markers) > before, 'it goes on', camera.send)


def test_a_saved_scene_comes_back_with_its_ids_and_meshes(
    robot: Robot, camera: FakeCamera, save_directory: Path,
) -> None:
    """What is where it was is known again, and what is not there any more is found out."""
    before = {item['id']: item for item in look(robot, camera)}
    assert robot.call(Trigger, '/img2scene/save_scene').success
    shown = meshes(robot.markers[-1])
    assert robot.call(Trigger, '/img2scene/clear').success
    assert {item['id'] for item in look(robot, camera)}.isdisjoint(before)
    answer = robot.call(Trigger, '/img2scene/load_scene')
    assert answer.success and str(save_directory) in answer.message
    after = {item['id']: item for item in look(robot, camera)}
    assert set(after) == set(before)
    for id, item in after.items():
        assert item['triangles'] == before[id]['triangles']
        np.testing.assert_allclose(item['position_m'], before[id]['position_m'], atol=0.005)
    assert set(meshes(robot.markers[-1])) == set(shown)


def test_a_directory_that_holds_no_scene_is_named(
    robot: Robot, camera: FakeCamera, save_directory: Path, tmp_path: Path,
) -> None:
    before = {item['id'] for item in look(robot, camera)}
    assert not robot.set_parameter('save_directory', str(tmp_path / 'nothing'))
    answer = robot.call(Trigger, '/img2scene/load_scene')
    assert not answer.success and str(tmp_path / 'nothing') in answer.message
    assert {item['id'] for item in look(robot, camera)} == before
    assert not robot.set_parameter('save_directory', str(save_directory))


def test_services_of_a_node_that_is_not_active_say_so(
    robot: Robot, scene_node: NodeProcess,
) -> None:
    assert robot.change_state('deactivate')
    answer = robot.call(Trigger, '/img2scene/look')
    assert not answer.success and 'inactive' in answer.message
    assert robot.change_state('cleanup')
    answer = enable(robot, False)
    assert not answer.success and 'unconfigured' in answer.message
    assert robot.change_state('configure') and robot.change_state('activate')
