# SPDX-License-Identifier: Apache-2.0
"""Textured meshes on their way to viewers, over real DDS; the viewer has the faults of RViz."""

import re
import socket
from collections.abc import Callable
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import cv2
import numpy as np
import pytest
import rclpy
from harness import QUEUED
from harness import FakeCamera
from harness import NodeProcess
from harness import Robot
from harness import half_size
from harness import meshes
from harness import triangles
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import CompressedImage
from textured_models import textured_model
from visualization_msgs.msg import Marker
from visualization_msgs.msg import MarkerArray

from img2scene_ros.camera import Camera
from img2scene_ros.errors import InputError
from img2scene_ros.nodes.demo_nodes import free_domain
from img2scene_ros.nodes.marker_messages import Viewed
from img2scene_ros.nodes.marker_messages import textured_marker
from img2scene_ros.nodes.outputs.markers import MarkersOptions
from img2scene_ros.nodes.outputs.markers import MarkersOutput
from img2scene_ros.types import Detection
from img2scene_ros.types import Frame
from img2scene_ros.types import ObjectModel
from img2scene_ros.types import Scene
from img2scene_ros.types import SceneObject
from img2scene_ros.types import Texture

FRAME = Frame(np.zeros((6, 8, 3), np.uint8), Camera(8, 6, 5.0, 5.0, 3.5, 2.5), None, 1, 'camera')


class Viewer:
    """
    Shows markers as RViz was seen to, and fails where RViz darkens, complains or ends.

    - shown: markers by (ns, id)
    - pictures: the texture that each of them bears
    - loaded: number of textures that were loaded, none of which is ever freed
    """

    def __init__(self) -> None:
        self.shown: dict[tuple[str, int], Marker] = {}
        self.pictures: dict[tuple[str, int], np.ndarray] = {}
        self.loaded = 0

    def show(self, array: MarkerArray) -> None:
        names = [(marker.ns, marker.id) for marker in array.markers]
        assert len(set(names)) == len(names), 'duplicates are an error'
        for name, marker in zip(names, array.markers):
            if marker.action == Marker.DELETEALL:
                self.shown, self.pictures = {}, {}
            elif marker.action == Marker.DELETE:
                self.shown.pop(name, None)
                self.pictures.pop(name, None)
            else:
                self._add(name, marker)

    def _add(self, name: tuple[str, int], marker: Marker) -> None:
        before = self.shown.get(name)
        if before and before.type != marker.type:
            self.pictures.pop(name, None)
        if marker.texture_resource:
            assert len(marker.uv_coordinates) == len(marker.points) and not marker.colors
            assert (marker.color.r, marker.color.g, marker.color.b) == (1,) * 3
        else:
            assert name not in self.pictures, 'it has a texture, which would remain'
        if marker.texture_resource.startswith('embedded://'):
            assert name not in self.pictures, 'the texture is multiplied with the one before'
            if before and before.type == marker.type:
                assert len(before.points) != len(marker.points), 'updated in place, without uv'
            assert marker.texture.format in ('png', 'jpeg', 'jpg')
            picture = cv2.imdecode(np.frombuffer(marker.texture.data, np.uint8), 1)
            self.pictures[name] = picture[..., ::-1]
            self.loaded += 1
        self.shown[name] = marker

    def check(self, scene: Scene, textured: bool = True) -> None:
        """Fail unless exactly this scene is shown, with its textures."""
        meshes = {name: marker for name, marker in self.shown.items() if name[0] != 'labels'}
        assert set(meshes) == {(item.detection.label, item.id) for item in scene.objects}
        assert set(self.shown) - set(meshes) == {('labels', item.id) for item in scene.objects}
        for item in scene.objects:
            marker, model = meshes[item.detection.label, item.id], item.model
            place = marker.pose.position
            np.testing.assert_allclose([place.x, place.y, place.z], item.position)
            np.testing.assert_allclose(triangles(marker), model.vertices[model.faces], atol=1e-6)
            if model.texture is None or not textured:
                assert len(marker.colors) == len(marker.points)
                continue
            np.testing.assert_array_equal(
                self.pictures[item.detection.label, item.id], model.texture.image)
            uv = np.array([[place.u, place.v] for place in marker.uv_coordinates])
            np.testing.assert_allclose(uv.reshape(-1, 3, 2), model.texture.uv)


class Stage:
    """The markers output in an active node of its own, and a viewer of its topic."""

    def __init__(self, **options: Any) -> None:
        self.domain = free_domain()
        self._context = Context()
        rclpy.init(context=self._context, domain_id=self.domain)
        self.node = LifecycleNode('img2scene', context=self._context)
        self.node.declare_parameters(
            '', [('republish_distance', 0.002), ('republish_angle', 2.0)])
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self.output = MarkersOutput(self.node, MarkersOptions(**options))
        self.node.trigger_configure()
        self.node.trigger_activate()
        self.output.activate()
        self.robots: list[Robot] = []
        self.viewer, _ = self.join()

    def join(self) -> tuple[Viewer, Robot]:
        """Let a viewer join."""
        robot, viewer = Robot(self.domain), Viewer()
        robot.node.create_subscription(
            MarkerArray, '/img2scene/markers', viewer.show, QUEUED)
        self.robots.append(robot)
        topic = '/img2scene/markers'
        count = 2 * len(self.robots)  # every robot has a subscription of its own
        robot.spin_until(
            lambda: self.node.count_subscribers(topic) == count, 'it has joined', self.spin)
        for _ in range(5):
            self.spin()
        return viewer, robot

    def spin(self) -> None:
        """Let the node look for viewers, and the viewers see what there is."""
        end = monotonic() + 0.1
        while monotonic() < end:
            self._executor.spin_once(timeout_sec=0.01)
        for robot in self.robots:
            robot.spin(0.1)

    def show(self, *objects: SceneObject) -> Scene:
        """Show a scene and wait until the viewers have it."""
        scene = Scene(FRAME, objects)
        seen = [len(robot.markers) for robot in self.robots]
        try:
            self.output.show(scene, True)
        finally:
            for robot, before in zip(self.robots, seen):
                robot.spin_until(lambda: len(robot.markers) > before, 'the scene is shown')
                robot.spin(0.1)
        return scene

    def close(self) -> None:
        for robot in self.robots:
            robot.close()
        self.output.close()
        self._executor.remove_node(self.node)
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)


@pytest.fixture
def stage(request: pytest.FixtureRequest) -> Iterator[Callable[..., Stage]]:
    """Return a function that makes a stage."""
    stages = []

    def make(**options: Any) -> Stage:
        stages.append(Stage(**options))
        return stages[-1]
    yield make
    for one in stages:
        one.close()


def thing(id: int, model: ObjectModel | None = None, x: float = 0.0, label: str = 'egg') -> Any:
    detection = Detection(label, 0.9, np.array([2.0, 1, 5, 4]), None)
    return SceneObject(
        id, detection, np.array([x, 0.0, 1.0]), np.eye(3), 0.01 ** 2 * np.eye(6), 'sensor',
        model or textured_model(id))


def plain(model: ObjectModel) -> ObjectModel:
    return replace(model, texture=None)


def test_textures_are_sent_once_while_objects_move(stage: Callable[..., Stage]) -> None:
    stage = stage(mesh_transport='inline_texture')
    one, other, box = thing(1), thing(2), thing(3, plain(textured_model(0, 1)))
    for step in range(10):
        scene = stage.show(one, replace(other, position=np.array([0.1, 0.1 * step, 1.0])), box)
        stage.viewer.check(scene)
    assert stage.viewer.loaded == 2


def test_late_viewers_get_the_textures_without_a_new_frame(stage: Callable[..., Stage]) -> None:
    stage = stage(mesh_transport='inline_texture')
    one, other = thing(1), thing(2)
    stage.show(one, other)
    scene = stage.show(one, replace(other, position=np.ones(3)))
    late, robot = stage.join()
    robot.spin_until(lambda: len(late.pictures) == 2, 'the textures have come', stage.spin)
    stage.spin()
    for viewer in (late, stage.viewer):
        viewer.check(scene)
    scene = stage.show(one, other)
    for viewer in (late, stage.viewer):
        viewer.check(scene)


def test_viewers_that_join_an_inactive_node_get_the_textures(
    stage: Callable[..., Stage],
) -> None:
    stage, one = stage(mesh_transport='inline_texture'), thing(1)
    stage.show(one)
    stage.show(one)
    stage.output.deactivate()
    late, _ = stage.join()
    assert not late.shown
    stage.output.activate()
    scene = stage.show(one)
    for viewer in (late, stage.viewer):
        viewer.check(scene)


def test_every_change_of_a_scene_is_shown_right(stage: Callable[..., Stage]) -> None:
    stage, loaded = stage(mesh_transport='inline_texture'), []
    egg, other = textured_model(1), textured_model(2)
    smaller = textured_model(3, 1)
    for objects in [
            [],
            [thing(1, plain(smaller))],  # as a box, before it is rebuilt
            [thing(1, egg), thing(2, plain(smaller))],
            [thing(1, egg), thing(2, other)],
            [thing(1, egg), thing(2, other, 0.3)],
            [thing(2, other)],  # one has gone
            [thing(2, other), thing(1, egg)],  # and is back
            [thing(2, smaller), thing(1, egg)],  # rebuilt
            [thing(2, egg), thing(1, egg)],
            [thing(2, egg, label='ball'), thing(1, egg)],
            [thing(2, plain(egg), label='ball'), thing(1, egg)],
            [thing(2, egg, label='ball'), thing(1, egg)],  # as many points as before
            [], [thing(1, egg)]]:
        stage.viewer.check(stage.show(*objects))
        loaded.append(stage.viewer.loaded)
    assert loaded[:8] == [0, 0, 1, 2, 2, 2, 3, 5], 'only what is new, until one is replaced'


def test_messages_stay_small_however_many_objects_have_gone() -> None:
    viewed, viewer, stays = Viewed(), Viewer(), textured_model(1, 0)
    texture = CompressedImage(format='png', data=list(stays.texture.png))
    for id in range(2, 300):
        markers = {
            ('egg', 1): textured_marker(stays.vertices, stays.faces, stays.texture.uv),
            ('egg', id): Marker(type=Marker.TEXT_VIEW_FACING, text='passes by')}
        for (_, marker_id), marker in markers.items():
            marker.ns, marker.id = 'egg', marker_id
        array = MarkerArray(markers=[marker for marker, _ in viewed.update(
            markers, {}, {('egg', 1): (stays, texture)}, {('egg', id)})])
        assert len(array.markers) <= 102
        viewer.show(array)
        assert set(viewer.shown) == set(markers)
    assert viewer.loaded == 3


@pytest.mark.parametrize('change, sentence', [
    (lambda texture: Texture(texture.image[:0], texture.uv), 'no picture'),
    (lambda texture: Texture(texture.image[..., :2], texture.uv), 'no picture'),
    (lambda texture: Texture(texture.image / 255, texture.uv), 'no picture'),
    (lambda texture: Texture(texture.image, texture.uv[1:]), 'does not fit'),
    (lambda texture: Texture(texture.image, texture.uv * np.nan), 'does not fit')])
def test_damaged_textures_are_not_sent(
    stage: Callable[..., Stage], change: Callable[[Texture], Texture], sentence: str,
) -> None:
    stage = stage(mesh_transport='inline_texture')
    model = textured_model()
    bad = replace(model, texture=change(model.texture))
    with pytest.raises(InputError, match=f'{sentence}.*egg 1'):
        stage.show(thing(1, bad))
    stage.viewer.check(Scene(FRAME, (thing(1, bad),)), textured=False)
    assert stage.viewer.loaded == 0
    stage.viewer.check(stage.show(thing(1, model)))


@pytest.mark.parametrize('transport', ['file', 'http'])
def test_meshes_are_fetched_by_name(
    stage: Callable[..., Stage], transport: str, tmp_path: Path,
) -> None:
    stage = stage(mesh_transport=transport, mesh_directory=str(tmp_path))
    egg, box = thing(1), thing(2, plain(textured_model(0, 1)))
    uris = []
    for step in range(3):
        stage.show(replace(egg, position=np.array([0.0, step, 1.0])), box)
        marker = stage.viewer.shown['egg', 1]
        assert marker.type == Marker.MESH_RESOURCE and marker.mesh_use_embedded_materials
        color, scale = marker.color, marker.scale
        assert (color.r, color.g, color.b, color.a) == (0, 0, 0, 0), 'else no texture is shown'
        assert (scale.x, scale.y, scale.z) == (1, 1, 1) and marker.pose.position.y == step
        uris.append(marker.mesh_resource)
        assert stage.viewer.shown['egg', 2].type == Marker.TRIANGLE_LIST
    assert len(set(uris)) == 1 and uris[0].startswith(f'{transport}://')
    content = urlopen(uris[0], timeout=10).read()
    stage.show(thing(1, textured_model(9)), box)
    assert stage.viewer.shown['egg', 1].mesh_resource != uris[0], 'viewers never look again'
    assert urlopen(uris[0], timeout=10).read() == content, 'for viewers that lag behind'
    stage.output.deactivate()
    with pytest.raises(URLError):
        urlopen(uris[0], timeout=10)
    assert not list(tmp_path.iterdir())


def test_without_room_meshes_are_shown_inline(
    stage: Callable[..., Stage], tmp_path: Path,
) -> None:
    stage = stage(mesh_transport='file', mesh_directory=str(tmp_path))
    for path in tmp_path.iterdir():
        path.rmdir()
    with pytest.raises(InputError, match=f'{tmp_path}.*egg 1'):
        stage.show(thing(1))
    stage.viewer.check(Scene(FRAME, (thing(1),)), textured=False)
    with pytest.raises(InputError, match=str(tmp_path)):
        stage.output.show(Scene(FRAME, (thing(1),)), False)
    path.mkdir()
    stage.show(thing(1))
    assert stage.viewer.shown['egg', 1].type == Marker.MESH_RESOURCE


@pytest.fixture(scope='module')
def camera(
    robot: Robot, scene_node: NodeProcess, recorded: Callable[[str], Frame],
) -> FakeCamera:
    """Return the camera of a scene node that shows what it sees without delay."""
    pytest.importorskip('xatlas', reason='without it objects have no texture')
    robot.spin_until(lambda: 'active; listening' in scene_node.log, 'the node is active')
    assert not robot.set_parameter('republish_period', 0.2)
    return FakeCamera(robot, half_size(recorded('table_cracker_box')))


def restart(robot: Robot, **parameters: Any) -> None:
    """Let the scene node start again with some parameters of the markers."""
    assert robot.change_state('deactivate') and robot.change_state('cleanup')
    for name, value in parameters.items():
        assert not robot.set_parameter(f'markers.{name}', value)
    assert robot.change_state('configure') and robot.change_state('activate')


def named_mesh(robot: Robot, camera: FakeCamera) -> str:
    """Return the URI of a mesh in the next scene that names one."""
    def resources() -> list[str]:
        return [marker.mesh_resource for array in robot.markers[-1:] for marker in array.markers
                if marker.type == Marker.MESH_RESOURCE and marker.action == Marker.ADD]
    robot.markers.clear()
    robot.spin_until(resources, 'a mesh is named', camera.send)
    return resources()[0]


def test_node_serves_what_it_sees_while_it_is_active(
    robot: Robot, scene_node: NodeProcess, camera: FakeCamera,
) -> None:
    restart(robot, mesh_transport='http')
    uri = named_mesh(robot, camera)
    assert re.match(r'http://127\.0\.0\.1:\d+/\w+\.dae$', uri)
    assert urlopen(uri, timeout=10).read().startswith(b'<?xml')
    picture = urlopen(uri.replace('.dae', '.png'), timeout=10).read()
    assert cv2.imdecode(np.frombuffer(picture, np.uint8), 1).std() > 5

    assert 'only changes while the node is unconfigured' in robot.set_parameter(
        'markers.mesh_transport', 'file')
    assert robot.change_state('deactivate')
    with pytest.raises(URLError):
        urlopen(uri, timeout=10)
    assert robot.change_state('activate')
    urlopen(named_mesh(robot, camera), timeout=10).close()
    assert not scene_node.complaints()


def test_port_in_use_costs_only_the_textures(
    robot: Robot, scene_node: NodeProcess, camera: FakeCamera,
) -> None:
    with socket.socket() as other:
        other.bind(('127.0.0.1', 0))
        other.listen()
        port = other.getsockname()[1]
        restart(robot, mesh_transport='http', http_port=port)
        robot.markers.clear()
        robot.spin_until(
            lambda: 'shown inline' in robot.diagnosis(), 'the port is in use', camera.send)
        robot.spin_until(lambda: len(robot.markers) > 5, 'more scenes are shown', camera.send)
        complaint, = scene_node.complaints()
        assert f"cannot serve meshes on '127.0.0.1:{port}'" in complaint
        assert meshes(robot.markers[-1])
    assert robot.change_state('deactivate') and robot.change_state('activate')
    assert f':{port}/' in named_mesh(robot, camera)
    robot.spin_until(lambda: 'shown inline' not in robot.diagnosis(), 'all is well', camera.send)


def test_node_writes_what_it_sees_and_tidies_up(
    robot: Robot, scene_node: NodeProcess, camera: FakeCamera, tmp_path: Path,
) -> None:
    restart(robot, mesh_transport='file', mesh_directory=str(tmp_path / 'meshes'))
    uri = named_mesh(robot, camera)
    assert uri.startswith((tmp_path / 'meshes').as_uri())
    assert urlopen(uri).read().startswith(b'<?xml')
    assert robot.change_state('deactivate')
    assert not list((tmp_path / 'meshes').iterdir())
