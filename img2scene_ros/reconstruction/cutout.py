# SPDX-License-Identifier: Apache-2.0
"""
An object cut out of its picture, as networks take it that make a mesh of one picture.

A virtual camera is turned to the middle of the object's mask; the object is in the middle of its
square picture, its longer side as wide as the networks were trained on.
"""

import cv2
import numpy as np

from img2scene_ros.camera import Camera
from img2scene_ros.detection import bbox_of
from img2scene_ros.errors import ReconstructionError
from img2scene_ros.models.crop import Crop
from img2scene_ros.models.crop import CropView
from img2scene_ros.models.crop import crop_view
from img2scene_ros.models.crop import look_through
from img2scene_ros.models.crop import smallest_rotation
from img2scene_ros.reconstruction import check_size
from img2scene_ros.types import Sighting

FOREGROUND = 0.85  # of the picture's side that the object takes up, as TripoSR shows them


def cut_out(sighting: Sighting, reconstructor: str, size: int, foreground: float = FOREGROUND,
            ) -> Crop:
    """
    Cut an object out.

    :param reconstructor: whose name errors bear
    :param size: pixels of the picture's side
    :param foreground: share of the side that the object's longer side takes up
    :raises ReconstructionError: no mask, or hardly anything in it
    """
    frame, mask = sighting.frame, sighting.detection.mask
    if mask is None:
        raise ReconstructionError(
            f"the reconstructor '{reconstructor}' needs a mask of the object; use a depth camera "
            'or a detector that finds masks')
    check_size(np.ptp(np.argwhere(mask), axis=0).max() + 1 if mask.any() else 0)
    crop = look_through(_centred_view(frame.camera, mask, foreground), frame, mask, size)
    if not crop.mask.any():
        raise ReconstructionError("the object's mask is too thin to show a shape")
    return crop


def on_plain(crop: Crop, level: float) -> np.ndarray:
    """
    Return the object before a plain background: (S, S, 3) float32 in 0 to 1.

    :param level: of the background, 0 (black) to 1 (white)
    """
    return np.where(crop.mask[..., None], crop.color / np.float32(255.0), np.float32(level))


def png(crop: Crop) -> bytes:
    """Return the object as a PNG file with a transparent background, white beneath it."""
    color = np.where(crop.mask[..., None], crop.color, np.uint8(255))
    alpha = np.where(crop.mask, np.uint8(255), np.uint8(0))
    return cv2.imencode('.png', np.dstack([color[..., ::-1], alpha]))[1].tobytes()


def _centred_view(camera: Camera, mask: np.ndarray, foreground: float) -> CropView:
    """Return the virtual camera that has a mask in its middle, as wide as a share of it."""
    view = crop_view(camera, bbox_of(mask))
    rays = camera.rays_at(np.argwhere(mask)[:, ::-1])

    def reach(rotation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        turned = rays @ rotation
        plane = turned[:, :2] / turned[:, 2:]
        return np.nanmin(plane, axis=0), np.nanmax(plane, axis=0)

    middle = np.sum(reach(view.rotation), axis=0) / 2.0
    rotation = smallest_rotation(view.rotation @ np.append(middle, 1.0))
    # Rays run through the middle of pixels; the outer ones reach half a pixel further.
    half_field = np.abs(reach(rotation)).max() + 0.5 / camera.fx
    return CropView(rotation, float(half_field / foreground))
