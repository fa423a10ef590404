# SPDX-License-Identifier: Apache-2.0
"""Collision objects for MoveIt; imported only where moveit_msgs is there."""

import numpy as np
import trimesh
from geometry_msgs.msg import Point
from moveit_msgs.msg import CollisionObject
from moveit_msgs.msg import PlanningScene
from moveit_msgs.msg import PlanningSceneComponents
from moveit_msgs.srv import GetPlanningScene
from shape_msgs.msg import Mesh
from shape_msgs.msg import MeshTriangle
from shape_msgs.msg import SolidPrimitive
from std_msgs.msg import Header

from img2scene_ros.nodes.messages import pose_from_matrix


def scene_diff(objects: list[CollisionObject]) -> PlanningScene:
    """Make a change of a planning scene that leaves all else as it is, the robot too."""
    scene = PlanningScene(is_diff=True)
    scene.robot_state.is_diff = True
    scene.world.collision_objects = objects
    return scene


def added(
    header: Header, name: str, pose: np.ndarray, shapes: list[trimesh.Trimesh] | np.ndarray,
) -> CollisionObject:
    """
    Make an object that takes the place of one of that name.

    :param pose: (4, 4) in the header's frame
    :param shapes: meshes in the object's frame, or the (3,) sides of a box around its origin
    """
    item = moved(header, name, pose)
    item.operation = CollisionObject.ADD
    if isinstance(shapes, np.ndarray):
        item.primitives = [SolidPrimitive(type=SolidPrimitive.BOX, dimensions=shapes.tolist())]
        item.primitive_poses = [pose_from_matrix(np.eye(4))]
    else:
        item.meshes = [_mesh(shape) for shape in shapes]
        item.mesh_poses = [pose_from_matrix(np.eye(4))] * len(shapes)
    return item


def moved(header: Header, name: str, pose: np.ndarray) -> CollisionObject:
    """Make the new pose (4, 4) of an object that is there."""
    return CollisionObject(
        header=header, id=name, operation=CollisionObject.MOVE,
        pose=pose_from_matrix(pose))


def removed(header: Header, name: str) -> CollisionObject:
    """Make the removal of an object."""
    return CollisionObject(header=header, id=name, operation=CollisionObject.REMOVE)


def names_request() -> GetPlanningScene.Request:
    """Ask which objects there are in the world, and which are attached to the robot."""
    return GetPlanningScene.Request(components=PlanningSceneComponents(components=(
        PlanningSceneComponents.WORLD_OBJECT_NAMES
        | PlanningSceneComponents.ROBOT_STATE_ATTACHED_OBJECTS)))


def _mesh(shape: trimesh.Trimesh) -> Mesh:
    return Mesh(
        vertices=[Point(x=x, y=y, z=z) for x, y, z in np.asarray(shape.vertices, float).tolist()],
        triangles=[MeshTriangle(vertex_indices=face) for face in np.asarray(
            shape.faces, np.uint32)])
