# SPDX-License-Identifier: Apache-2.0
"""How well a mesh fits what a frame shows: silhouette and depth, seen by a virtual camera."""

from dataclasses import dataclass

import numpy as np

from img2scene_ros.detection import mask_iou
from img2scene_ros.models.crop import CropView
from img2scene_ros.models.crop import crop_view
from img2scene_ros.models.crop import look_through
from img2scene_ros.rendering.raycast import raycasting_scene
from img2scene_ros.types import Fit
from img2scene_ros.types import Frame
from img2scene_ros.types import ObjectModel
from img2scene_ros.types import Sighting

SIZE = 96  # pixels of the virtual camera's side
_FARTHEST = 3.0  # half fields of the crop from the line of sight up to which a mesh counts


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a frame shows of an object's surroundings, through a virtual camera turned to it."""

    frame: Frame  # what was seen
    view: CropView  # the virtual camera
    rays: np.ndarray  # (S, S, 3) float32, the viewing rays, z = 1, view frame
    mask: np.ndarray  # (S, S) bool, the object's visible pixels
    depth: np.ndarray  # (S, S) float32, metres along the view's axis, NaN = no reading
    known: np.ndarray  # (S, S) bool, the pixels inside the picture

    def judged(self, rendered: np.ndarray) -> np.ndarray:
        """
        Tell at which pixels the mask says something about a mesh.

        It says nothing beyond the picture's border, nor where something else is nearer.

        :param rendered: (S, S) metres, the mesh's depth, inf where it is not
        :return: (S, S) bool
        """
        with np.errstate(invalid='ignore'):
            hidden = self.depth < rendered - 0.005 - 3.0 * self.frame.depth_std(self.depth)
        return self.known & ~(hidden & np.isfinite(rendered) & ~self.mask)

    def fit(self, rendered: np.ndarray) -> Fit:
        """
        Compare a mesh's depth image with what is seen.

        :param rendered: (S, S) metres, inf where the mesh is not
        """
        solid = np.isfinite(rendered)
        judged = self.judged(rendered)
        both = solid & self.mask & np.isfinite(self.depth)
        return Fit(
            mask_iou(solid & judged, self.mask & judged),
            float(np.median(np.abs(rendered - self.depth)[both])) if both.any() else None)


def evidence(frame: Frame, mask: np.ndarray, view: CropView, size: int = SIZE) -> Evidence:
    """
    Return what a virtual camera sees of an object.

    :param mask: (H, W) bool, the object's visible pixels
    :param size: pixels of its side
    """
    crop = look_through(view, frame, mask, size)
    rays = view.camera(size).rays
    pixels = frame.camera.project(rays @ view.rotation.T)
    inside = (pixels >= -0.5) & (pixels <= np.array(frame.shape)[::-1] - 0.5)
    depth = np.full(crop.mask.shape, np.nan, np.float32) if crop.depth is None else crop.depth
    return Evidence(frame, view, rays, crop.mask, depth, np.all(inside, axis=-1))


def measured_fit(model: ObjectModel, sighting: Sighting) -> Fit | None:
    """
    Compare a model with what it was rebuilt from.

    :return: None when there is no mask to compare with, or the model reaches behind the camera
    :raises MissingDependencyError: Open3D is not installed
    """
    mask = sighting.detection.mask
    if mask is None or not mask.any() or not len(model.faces):
        return None
    view = crop_view(sighting.frame.camera, sighting.detection.bbox)
    points = model.points @ view.rotation
    if not points[:, 2].min() > 0:
        return None
    reach = np.abs(points[:, :2] / points[:, 2:]).max()
    reach = np.clip(reach, view.half_field, _FARTHEST * view.half_field)
    seen = evidence(sighting.frame, mask, CropView(view.rotation, float(reach)))
    scene = raycasting_scene(points.astype(np.float32), model.faces)
    rays = np.concatenate([np.zeros_like(seen.rays), seen.rays], axis=-1)
    return seen.fit(scene.cast_rays(rays)['t_hit'].numpy())
