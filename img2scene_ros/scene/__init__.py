"""The scene: what is there now, with ids that last."""

from dataclasses import dataclass
from dataclasses import field

import numpy as np

from img2scene_ros.detection import Detection
from img2scene_ros.frame import Frame
from img2scene_ros.reconstruction import ObjectModel
from img2scene_ros.support import SupportPlane


@dataclass(frozen=True, eq=False)
class SceneObject:
    """
    One object of the scene.

    - id: positive, never used again for another object
    - detection: how the latest frame that showed it saw it
    - position, rotation: pose of the object frame in the scene's frame, (3,) metres and (3, 3)
    - position_std: (3,) metres, standard deviation along the scene frame's axes
    - depth_source: where its distance came from
    - model: its mesh; a box with `reconstructor` 'box' until (or unless) it is rebuilt
    - is_final: the mesh is done; False while a reconstruction is pending
    - note: why the object has no better mesh, one sentence; '' when all went well
    """

    id: int
    detection: Detection
    position: np.ndarray
    rotation: np.ndarray
    position_std: np.ndarray
    depth_source: str
    model: ObjectModel
    is_final: bool = True
    note: str = ''

    @property
    def pose(self) -> np.ndarray:
        """Return the pose as a matrix that takes object to scene coordinates, (4, 4)."""
        pose = np.eye(4)
        pose[:3, :3] = self.rotation
        pose[:3, 3] = self.position
        return pose

    @property
    def points(self) -> np.ndarray:
        """Return the mesh's vertices in the scene's frame, (V, 3) metres."""
        return self.model.vertices @ self.rotation.T + self.position


@dataclass(frozen=True, eq=False)
class Scene:
    """
    All objects that are there when a frame is taken.

    - frame: the latest, in whose optical frame the poses are
    - objects: ordered by id
    - support: the plane most of them stand on, in the optical frame, when one is seen
    - timing: seconds per stage: 'detect', 'localize', 'reconstruct'
    """

    frame: Frame
    objects: tuple[SceneObject, ...] = ()
    support: SupportPlane | None = None
    timing: dict[str, float] = field(default_factory=dict)
