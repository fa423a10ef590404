# SPDX-License-Identifier: Apache-2.0
"""
planning_scene: the objects as MoveIt's collision objects <node>_<label>_<id>.

MoveIt is sent changes only: ADD with geometry, MOVE, REMOVE. It answers none of them, so once a
second it is asked what it has: what a former life of this node has left is removed, what is
missing is added again, and what is attached to the robot is left alone.
"""

from concurrent.futures import Future
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from time import monotonic
from typing import Any

import numpy as np
import trimesh
from rclpy.lifecycle import LifecycleNode
from std_msgs.msg import Header

from img2scene_ros.mesh.collision import collision_parts
from img2scene_ros.nodes import published
from img2scene_ros.nodes.outputs import importing_messages
from img2scene_ros.nodes.support_box import SupportBox
from img2scene_ros.nodes.support_box import published_supports
from img2scene_ros.nodes.topics import timer
from img2scene_ros.options import Options
from img2scene_ros.options import option
from img2scene_ros.types import ObjectModel
from img2scene_ros.types import Scene
from img2scene_ros.types import SceneObject

SUPPORT = 'support'  # its name; others have a number behind it
PERIOD = 0.1  # seconds between two looks for MoveIt, its answers and new shapes
ASK_PERIOD = 1.0  # seconds between two questions what MoveIt has
GRACE = 2.0  # seconds that MoveIt may need for a change before it counts as missed


@dataclass(frozen=True)
class PlanningSceneOptions(Options):
    """What MoveIt gets."""

    geometry: str = option(
        'mesh', 'Shape of the collision objects: mesh (closed, thinned out), box, or convex_parts '
        '(CoACD, which takes seconds per object); boxes until it is made',
        choices=('mesh', 'box', 'convex_parts'), read_only=True)
    triangles: int = option(
        1000, 'Greatest number of triangles of a mesh, or of each convex part', low=20,
        high=100000)
    supports: bool = option(True, 'Add the supports as boxes under the objects')
    support_thickness: float = option(0.02, 'Thickness of that box [m]', low=0.001, high=1.0)
    max_rate: float = option(5.0, 'Greatest number of changes per second', low=0.1, high=100.0)


@dataclass(frozen=True, eq=False)
class _Sent:
    """What MoveIt was sent of an object: pose (4, 4), its shape's origin, and when."""

    pose: np.ndarray
    origin: object
    at: float


class PlanningSceneOutput:
    """
    Keeps MoveIt's planning scene like the scene, by changes.

    A new name is a new object: REMOVE and ADD. Everything is sent again when a subscriber joins.
    """

    Options = PlanningSceneOptions

    def __init__(self, node: LifecycleNode, options: PlanningSceneOptions) -> None:
        with importing_messages('planning_scene', 'moveit_msgs'):
            from moveit_msgs.msg import PlanningScene
            from moveit_msgs.srv import GetPlanningScene

            from img2scene_ros.nodes import planning_messages
        self.options = options
        self._node = node
        self._prefix = published.own_name(node, '_') + '_'  # of the names of all that it adds
        self._messages = planning_messages
        self._lock = Lock()  # workers show scenes, the executor looks for MoveIt
        self._is_active = False
        self._scene: Scene | None = None  # the latest, and whether MoveIt has it
        self._is_due = False
        self._sent: dict[str, _Sent] = {}
        self._supports: dict[int, SupportBox] = {}
        self._attached: set[str] = set()
        self._removed: dict[str, float] = {}  # when
        self._strays: set[str] = set()  # to be removed
        self._subscribers = 0
        self._changed_at = self._asked_at = 0.0
        self._answer: Any = None
        self._shapes: dict[ObjectModel, Future[list[trimesh.Trimesh]]] = {}
        self._shaper = ThreadPoolExecutor(1)
        self._publisher = node.create_lifecycle_publisher(PlanningScene, 'planning_scene', 10)
        self._client = node.create_client(GetPlanningScene, 'get_planning_scene')
        self._timer = timer(node, PERIOD, self._on_timer)

    def activate(self) -> None:
        """Begin; MoveIt is asked what there is."""
        with self._lock:
            self._is_active = True
            self._sent, self._supports, self._scene = {}, {}, None

    def deactivate(self) -> None:
        """Remove all objects."""
        with self._lock:
            names = [name for name in self._sent if name not in self._attached]
            if names and self._publisher.is_activated:
                self._publisher.publish(self._messages.scene_diff(
                    [self._messages.removed(Header(), name) for name in names]))
            self._is_active = False
            self._sent, self._supports, self._scene = {}, {}, None

    def show(self, scene: Scene, changed: bool) -> None:
        """Send what has changed, unless something was sent just now; then it is sent later."""
        with self._lock:
            self._scene, self._is_due = scene, True
            self._send()

    def close(self) -> None:
        """Remove all objects and destroy the publisher."""
        self.deactivate()
        self._shaper.shutdown(wait=False, cancel_futures=True)
        self._node.destroy_timer(self._timer)
        self._node.destroy_client(self._client)
        self._node.destroy_lifecycle_publisher(self._publisher)

    def _on_timer(self) -> None:
        with self._lock:
            if not self._is_active:
                return
            before, self._subscribers = self._subscribers, self._publisher.get_subscription_count()
            if self._subscribers > before:
                self._sent, self._is_due = {}, True
            self._ask()
            self._send()

    def _on_shape(self, _: Future) -> None:
        self._is_due = True

    def _ask(self) -> None:
        """Ask MoveIt what it has, and take its answer."""
        if self._answer is None:
            if self._client.service_is_ready() and monotonic() - self._asked_at > ASK_PERIOD:
                self._asked_at = monotonic()
                self._answer = self._client.call_async(self._messages.names_request())
            return
        if not self._answer.done():
            if monotonic() - self._asked_at > 5.0 * ASK_PERIOD:  # it has ended without an answer
                self._client.remove_pending_request(self._answer)
                self._answer = None
            return
        answer, self._answer = self._answer.result(), None
        if answer is None:
            return
        there = {item.id for item in answer.scene.world.collision_objects}
        before, self._attached = self._attached, {
            item.object.id for item in answer.scene.robot_state.attached_collision_objects}
        missed = {name for name, sent in self._sent.items()
                  if name not in there | self._attached and sent.at < self._asked_at - GRACE}
        for name in missed:
            del self._sent[name]
        self._removed = {name: at for name, at in self._removed.items()
                         if at >= self._asked_at - GRACE}
        self._strays = {
            name for name in there if name.startswith(self._prefix)
            and name not in self._sent.keys() | self._removed.keys()}
        self._is_due |= bool(missed or self._strays or before != self._attached)

    def _send(self) -> None:
        is_late = monotonic() - self._changed_at >= 1.0 / self.options.max_rate
        # Without a subscriber nothing is sent; all is when one joins.
        if not (self._scene and self._is_active and self._is_due and is_late
                and self._publisher.is_activated and self._publisher.get_subscription_count()):
            return
        self._is_due = False
        changes = self._changes(self._scene)
        if changes:
            self._publisher.publish(self._messages.scene_diff(changes))
            self._changed_at = monotonic()

    def _changes(self, scene: Scene) -> list[Any]:
        """Return what makes a planning scene like a scene; it counts as sent."""
        frame = published.published_frame(scene.frame)
        objects = {self._prefix + published.object_name(item): item for item in scene.objects}
        models = {item.model for item in scene.objects}
        self._shapes = {model: shape for model, shape in self._shapes.items() if model in models}
        if not self.options.supports:
            self._supports = {}
        elif scene.supports or not scene.frame.world_id:  # else they are hidden, or out of view
            self._supports = published_supports(scene, self._supports)
        supports = {self._prefix + (f'{SUPPORT}_{number + 1}' if number else SUPPORT): box
                    for number, box in self._supports.items()}
        wanted = objects.keys() | supports.keys()
        gone = (self._sent.keys() | self._strays) - wanted - self._attached
        changes = [self._messages.removed(frame.header, name) for name in sorted(gone)]
        self._removed |= dict.fromkeys(gone, monotonic())
        self._strays = set()
        self._sent = {name: sent for name, sent in self._sent.items() if name in wanted}
        for name, box in supports.items():
            changes += self._support_change(name, box, frame)
        for name, item in objects.items():
            if name not in self._attached:
                changes += self._object_change(name, item, frame)
        return changes

    def _object_change(
        self, name: str, item: SceneObject, frame: published.PublishedFrame,
    ) -> list[Any]:
        pose, sent = frame.pose(item), self._sent.get(name)
        shape = self._shape(item.model)
        origin = (item.model, isinstance(shape, np.ndarray))
        if sent is None or sent.origin != origin:
            change = self._messages.added(frame.header, name, pose, shape)
        elif published.has_moved(sent.pose, pose, *published.noticeable_motion(self._node)):
            change = self._messages.moved(frame.header, name, pose)
        else:
            return []
        self._sent[name] = _Sent(pose, origin, monotonic())
        return [change]

    def _support_change(
        self, name: str, box: SupportBox, frame: published.PublishedFrame,
    ) -> list[Any]:
        sent = self._sent.get(name)
        if sent and sent.origin is box:
            return []
        thickness, pose = self.options.support_thickness, box.pose.copy()
        pose[:3, 3] -= pose[:3, 2] * thickness / 2.0
        self._sent[name] = _Sent(pose, box, monotonic())
        return [self._messages.added(frame.header, name, pose, np.array([*box.size, thickness]))]

    def _shape(self, model: ObjectModel) -> list[trimesh.Trimesh] | np.ndarray:
        """Return the meshes of an object, or its sides while they are being made."""
        kind = self.options.geometry
        if kind == 'box' or model.reconstructor == 'box':
            return model.size.astype(float)
        if model not in self._shapes:
            self._shapes[model] = self._shaper.submit(
                collision_parts, model, kind, self.options.triangles)
            self._shapes[model].add_done_callback(self._on_shape)
        shape = self._shapes[model]
        if not shape.done() or shape.exception():
            return model.size.astype(float)
        return shape.result()


BACKEND = PlanningSceneOutput
