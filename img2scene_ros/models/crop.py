# SPDX-License-Identifier: Apache-2.0
"""
What a voxel network sees of an object, and where the cube is that it fills.

A virtual camera stands where the real one stands, turned to the middle of the object's box by the
smallest rotation (the crop view frame). Its square picture reaches `MARGIN` times as far as the
box. The cube is aligned with the virtual camera's axes and as wide as its picture at the anchor,
the median depth of what is visible of the object. So a crop without any depth defines the cube up
to its scale, and a depth image defines it wholly.

Volumes are indexed [z, y, x]: volume[k] is one slice at right angles to the view, an image with
rows downwards and columns to the right, and mirroring the picture mirrors the last axis.
"""

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from img2scene_ros.camera import Camera
from img2scene_ros.camera import box_edges
from img2scene_ros.camera import sampled
from img2scene_ros.errors import InputError
from img2scene_ros.errors import ReconstructionError
from img2scene_ros.types import Frame

_WIDEST = 4.0  # half field of a crop, tangent: 76 degrees
MARGIN = 1.2  # half field of the crop, in longer halves of the box
# How far the cube's centre lies behind the anchor, in cube sides: what is visible is the front.
# On rendered scenes this loses the least of the solids (docs/benchmarks.md, Training data).
CENTER_BEHIND_ANCHOR = 0.18
# Data sets and weights record what they were made with.
GEOMETRY = {'margin': MARGIN, 'center_behind_anchor': CENTER_BEHIND_ANCHOR}


def check_geometry(recorded: dict[str, float] | None, owner: str) -> None:
    """
    Refuse data or weights whose crops and cubes lie elsewhere.

    :param recorded: the `GEOMETRY` that they were made with
    :param owner: whose it is, for the error
    :raises InputError: it is another one
    """
    if recorded != GEOMETRY:
        raise InputError(
            f"'{owner}' was made for other crops ({recorded}) than this version cuts "
            f'({GEOMETRY}); make it again')


@dataclass(frozen=True, eq=False)
class CropView:
    """The virtual camera of a crop; it shares the real camera's centre."""

    rotation: np.ndarray  # (3, 3), turns crop view axes into optical axes
    half_field: float  # tangent of half the angle that the square picture spans

    def camera(self, size: int) -> Camera:
        """Return the virtual camera for a picture of size x size pixels."""
        focal = size / (2.0 * self.half_field)
        return Camera(size, size, focal, focal, (size - 1) / 2.0, (size - 1) / 2.0)

    def cube(self, anchor: float) -> 'Cube':
        """Return the cube of an object whose visible surface has this median depth in metres."""
        side = 2.0 * self.half_field * anchor
        return Cube(side, anchor + CENTER_BEHIND_ANCHOR * side)


@dataclass(frozen=True)
class Cube:
    """A cube on the axis of a crop view, aligned with its axes."""

    side: float  # metres
    depth: float  # metres from the camera to its centre

    def centers(self, resolution: int) -> np.ndarray:
        """Return the cells' centres in the crop view frame: (R, R, R, 3) metres, [z, y, x]."""
        along = (np.arange(resolution) + 0.5) / resolution - 0.5
        z, y, x = np.meshgrid(along, along, along, indexing='ij')
        return np.stack([x, y, z], axis=-1) * self.side + (0.0, 0.0, self.depth)

    def to_cells(self, resolution: int) -> np.ndarray:
        """Return what takes (x, y, z, 1) of the crop view frame to the index [z, y, x]: (4, 4)."""
        matrix = np.eye(4)
        matrix[:3, :3] = np.eye(3)[::-1] * resolution / self.side
        matrix[:3, 3] = resolution / 2 - 0.5
        matrix[0, 3] -= self.depth * resolution / self.side
        return matrix


@dataclass(frozen=True, eq=False)
class Crop:
    """An object's surroundings as its virtual camera sees them."""

    view: CropView  # the virtual camera
    color: np.ndarray  # (S, S, 3) uint8, RGB; black outside of the picture
    mask: np.ndarray  # (S, S) bool, the object's visible pixels
    # (S, S) float32, metres along the crop's axis, NaN = no reading; None = no sensor
    depth: np.ndarray | None = None

    @cached_property
    def anchor(self) -> float | None:
        """Return the median visible depth in metres, None when there is no reading."""
        return None if self.depth is None else anchor_depth(self.depth, self.mask)


def crop_view(camera: Camera, bbox: np.ndarray) -> CropView:
    """
    Return the virtual camera of a box.

    :param bbox: (4,) xmin, ymin, xmax, ymax in pixels
    :raises ReconstructionError: an empty box, one that the lens model does not reach, or one too
        wide for a picture
    """
    xmin, ymin, xmax, ymax = box_edges(bbox)
    across = np.linspace(0.0, 1.0, 9)  # edges of the box are curves in space
    pixels = np.stack(np.meshgrid(
        xmin + across * (xmax - xmin), ymin + across * (ymax - ymin)), axis=-1).reshape(-1, 2)
    rays = camera.rays_at(pixels)
    rays = rays[np.isfinite(rays).all(axis=-1)]
    center = camera.rays_at([(xmin + xmax) / 2.0, (ymin + ymax) / 2.0])
    if not (xmax > xmin and ymax > ymin and np.isfinite(center).all()):
        raise ReconstructionError(
            f'the box {np.round(bbox, 1).tolist()} is empty or lies beyond what the lens shows')
    rotation = smallest_rotation(center)
    turned = rays @ rotation
    with np.errstate(divide='ignore'):
        half_field = MARGIN * float(np.abs(turned[:, :2] / turned[:, 2:]).max())
    if turned[:, 2].min() <= 0 or half_field > _WIDEST:
        raise ReconstructionError(
            f'the box {np.round(bbox, 1).tolist()} is wider than a picture can show; move the '
            'camera away from the object')
    return CropView(rotation, half_field)


def smallest_rotation(ray: np.ndarray) -> np.ndarray:
    """
    Return the rotation by the smallest angle that turns the optical axis onto a ray.

    Rodrigues' formula about the axis z x ray, without angles.

    :param ray: (3,) any length, in front of the camera
    :return: (3, 3), its last column is the ray's direction
    """
    x, y, z = ray / np.linalg.norm(ray)
    return np.array([
        [1 - x * x / (1 + z), -x * y / (1 + z), x],
        [-x * y / (1 + z), 1 - y * y / (1 + z), y],
        [-x, -y, z]])


def anchor_depth(depth: np.ndarray, mask: np.ndarray) -> float | None:
    """Return the median depth in a mask, None when there is no reading in it."""
    seen = depth[mask & np.isfinite(depth)]
    return float(np.median(seen)) if len(seen) else None


def cut_crop(frame: Frame, bbox: np.ndarray, mask: np.ndarray | None, size: int) -> Crop:
    """
    Cut a crop out of a frame; lens distortion is taken out on the way.

    :param bbox: (4,) xmin, ymin, xmax, ymax in pixels
    :param mask: (H, W) bool; None takes the whole box
    :param size: pixels of the crop's side
    :raises ReconstructionError: as `crop_view`
    """
    view = crop_view(frame.camera, bbox)
    if mask is None:
        v, u = np.mgrid[:frame.camera.height, :frame.camera.width]
        xmin, ymin, xmax, ymax = box_edges(bbox)
        mask = (u >= xmin) & (u < xmax) & (v >= ymin) & (v < ymax)
    return look_through(view, frame, mask, size)


def look_through(view: CropView, frame: Frame, mask: np.ndarray, size: int) -> Crop:
    """
    Return what a virtual camera sees of a frame.

    :param mask: (H, W) bool
    :param size: pixels of the crop's side
    """
    virtual = view.camera(size)
    pixels = frame.camera.project(virtual.rays @ view.rotation.T)
    pixels = np.nan_to_num(pixels, nan=-1e6)
    # Where the crop is coarser than the picture, averaging first keeps fine texture from aliasing.
    blur = 0.5 * frame.camera.fx / virtual.fx
    color = _blurred(frame.color, blur)
    cover = _blurred(mask.astype(np.float32), blur)
    depth = None
    if frame.points is not None:
        # The nearest reading: a mean across an edge would lie on neither side.
        points = sampled(frame.points, pixels, cv2.INTER_NEAREST, np.nan)
        depth = (points @ view.rotation[:, 2]).astype(np.float32)
    return Crop(view, sampled(color, pixels), sampled(cover, pixels) > 0.5, depth)


def _blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), sigma) if sigma > 0.5 else image
