# SPDX-License-Identifier: Apache-2.0
"""
Cameras that are mounted on their side or upside down.

Their frames are turned by quarters until up is up in the picture, as detectors and networks know
things; what is found is turned back into the optical frame of the frame as it came.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np

from img2scene_ros.camera import Camera
from img2scene_ros.types import Detection
from img2scene_ros.types import Frame
from img2scene_ros.types import ObjectModel
from img2scene_ros.types import Scene
from img2scene_ros.types import SceneObject
from img2scene_ros.types import SupportPlane

_LOOKING_DOWN = np.sin(np.radians(15.0))  # up is so near the optical axis that roll means nothing
_KEPT = 60.0  # degrees off up to which a picture stays as it is turned; more than 45 is steady


def quarters_to_upright(up: np.ndarray, now: int = 0) -> int:
    """
    Return by how many quarters, counter-clockwise, a picture is turned until up is up in it.

    :param up: (3,) unit vector, optical frame
    :param now: the quarters until now, which are kept as long as that is about right
    """
    if np.hypot(*up[:2]) < _LOOKING_DOWN:
        return now
    clockwise = np.degrees(np.arctan2(up[0], -up[1]))  # by which up is off the picture's up
    off = (clockwise - 90.0 * now + 180.0) % 360.0 - 180.0
    return now if abs(off) <= _KEPT else int(round(clockwise / 90.0)) % 4


def turn(quarters: int) -> np.ndarray:
    """Return the rotation into the optical frame of the turned picture, (3, 3)."""
    quarter = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    return np.linalg.matrix_power(quarter, quarters % 4)


def turned_frame(frame: Frame, quarters: int) -> Frame:
    """
    Turn a frame counter-clockwise, with its camera and what it knows of the world.

    :raises InputError: as `Camera.turned`
    """
    if not quarters % 4:
        return frame
    rotation = turn(quarters)
    shape = frame.shape if quarters % 2 == 0 else frame.shape[::-1]
    return replace(
        frame, color=_turned(frame.color, quarters), camera=_turned_camera(frame.camera, quarters),
        depth=None if frame.depth is None else _turned(frame.depth, quarters),
        supports=turned_planes(frame.supports, rotation),
        up=None if frame.up is None else rotation @ frame.up,
        world_from_camera=_camera_turned(frame.world_from_camera, rotation),
        robot=None if frame.robot is None else _turned(frame.robot, quarters),
        detections=None if frame.detections is None else tuple(
            detection_turned_back(one, shape, -quarters) for one in frame.detections))


@lru_cache(maxsize=4)
def _turned_camera(camera: Camera, quarters: int) -> Camera:
    """Return one camera for all frames, which has its rays computed once."""
    return camera.turned(quarters)


def _camera_turned(pose: np.ndarray | None, rotation: np.ndarray) -> np.ndarray | None:
    """Return the pose in the world, (4, 4), of a camera that a (3, 3) rotation turns."""
    if pose is None:
        return None
    turned = np.eye(4)
    turned[:3, :3] = rotation.T
    return pose @ turned


def turned_planes(
    planes: Sequence[SupportPlane], rotation: np.ndarray,
) -> tuple[SupportPlane, ...]:
    """Return planes in axes that a (3, 3) rotation takes points to."""
    pose = np.eye(4)
    pose[:3, :3] = rotation
    return tuple(plane.moved(pose) for plane in planes)


def turned_back(scene: Scene, quarters: int) -> Scene:
    """
    Return what was found in a turned frame in the optical frame of the frame as it came.

    :param scene: with the frame as it came
    :param quarters: by which it was turned
    """
    if not quarters % 4:
        return scene
    back = turn(-quarters)
    return replace(
        scene, supports=turned_planes(scene.supports, back), objects=tuple(
            _object_turned(one, scene.frame.shape, back, quarters) for one in scene.objects))


def _object_turned(
    one: SceneObject, shape: tuple[int, int], back: np.ndarray, quarters: int,
) -> SceneObject:
    return replace(
        one, position=back @ one.position, rotation=back @ one.rotation,
        model=_model_turned(one.model, quarters),
        covariance=turned_covariance(one.covariance, back),
        detection=detection_turned_back(one.detection, shape, quarters))


@lru_cache(maxsize=64)
def _model_turned(model: ObjectModel, quarters: int) -> ObjectModel:
    """Turn a model back; it stays one and the same, as outputs take another one for a new mesh."""
    back = turn(-quarters)
    return replace(model, position=back @ model.position, rotation=back @ model.rotation)


def turned_covariance(covariance: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Return the covariance of a pose, (6, 6), in axes that a (3, 3) rotation takes points to."""
    both = np.kron(np.eye(2), rotation)
    return both @ covariance @ both.T


def detection_turned_back(
    detection: Detection, shape: tuple[int, int], quarters: int,
) -> Detection:
    """Turn a detection back into the picture of a shape (height, width)."""
    if not quarters % 4:
        return detection
    xmin, ymin, xmax, ymax = detection.bbox
    height, width = shape
    bbox = {1: (width - ymax, xmin, width - ymin, xmax),
            2: (width - xmax, height - ymax, width - xmin, height - ymin),
            3: (ymin, height - xmax, ymax, height - xmin)}[quarters % 4]
    mask = None if detection.mask is None else _turned(detection.mask, -quarters)
    return replace(detection, bbox=np.array(bbox, float), mask=mask)


def _turned(image: np.ndarray, quarters: int) -> np.ndarray:
    return np.ascontiguousarray(np.rot90(image, quarters))
