# SPDX-License-Identifier: Apache-2.0
"""
Textures: the picture itself on the side that the camera saw, the mesh's colours elsewhere.

The two meet without a seam. The mesh's colours are shifted by the difference to the picture,
which is carried on over the hidden side as a harmonic function (the membrane of Perez, Gangnet,
Blake: Poisson image editing, SIGGRAPH 2003); and the picture fades out towards its outline.
Light is not removed: the texture shows it as the picture does.
"""

from dataclasses import replace

import cv2
import numpy as np
from scipy import ndimage
from scipy import sparse
from scipy.sparse.linalg import spsolve

from img2scene_ros.camera import Camera
from img2scene_ros.camera import sampled
from img2scene_ros.mesh.colors import mix
from img2scene_ros.mesh.unwrap import rasterize
from img2scene_ros.mesh.unwrap import unwrap
from img2scene_ros.rendering.normals import face_normals
from img2scene_ros.rendering.normals import vertex_normals
from img2scene_ros.types import Frame
from img2scene_ros.types import ObjectModel
from img2scene_ros.types import Texture

MARGIN = 1.5  # pixels inside an outline that may still show what is beyond it
FADE = 4.0  # pixels from there over which the picture fades in
GRAZING, CLEAR = 0.15, 0.4  # cosines of surface and line of sight between which it fades in
NEAREST = 0.1  # least depth of a vertex, in medians of all; what is nearer fills the picture
STEEP = 5.0  # a surface that falls off by more metres per metre across ends there


def textured(
    model: ObjectModel, frame: Frame, mask: np.ndarray | None, size: int = 512,
) -> ObjectModel:
    """
    Give a model a texture from the picture it was rebuilt from.

    A model stays as it is when there is no mask, when it reaches the camera, or when the picture
    shows nothing of it.

    :param mask: (H, W) bool, the pixels whose colours are surely the object's
    :param size: greatest side of the texture; it is less where the picture has fewer pixels
    :raises MissingDependencyError: xatlas is not installed
    """
    points = model.points
    reaches_camera = points[:, 2].min() < NEAREST * np.median(points[:, 2])
    if mask is None or not mask.any() or reaches_camera:
        return model
    view = _Picture(frame, mask, points, model.faces, size)
    normals = face_normals(points, model.faces)
    uv, shape = unwrap(points, model.faces, view.camera, size)
    texel, face, weights = rasterize(uv * (shape[1], shape[0]) - 0.5, shape)
    corners = model.faces[face]
    seen, trust = view.look_up(mix(points[corners], weights), normals[face])
    if not (trust > 0.5).any():
        return model
    own = mix(_continued(model, view, points)[corners], weights)
    colors = own + trust[:, None] * (seen - own)
    return replace(model, texture=Texture(_filled(colors, texel, shape), uv))


class _Picture:
    """
    What a picture shows of a mesh, and how far it can be trusted there.

    - camera: that of the part around the object, scaled down to `size`

    :param points: (V, 3) metres, the mesh's vertices in the optical frame
    """

    def __init__(
        self, frame: Frame, mask: np.ndarray, points: np.ndarray, faces: np.ndarray, size: int,
    ) -> None:
        rows, columns = np.nonzero(mask)
        top, left = max(0, rows.min() - 2), max(0, columns.min() - 2)
        window = np.s_[top:rows.max() + 3, left:columns.max() + 3]
        color, own = frame.color[window], mask[window]
        height, width = own.shape
        scale = min(1.0, size / max(height, width))
        shape = max(1, round(width * scale)), max(1, round(height * scale))
        self._color = cv2.resize(color, shape, interpolation=cv2.INTER_AREA).astype(np.float32)
        own = cv2.resize(own.astype(np.uint8), shape, interpolation=cv2.INTER_NEAREST) > 0
        self.camera = frame.camera.cropped(int(left), int(top), width, height).resized(*shape)
        depth = _depth_image(self.camera, points, faces)
        is_seen = np.isfinite(depth)
        self._pixel = np.median(points[:, 2]) / self.camera.fx  # metres
        farthest = cv2.dilate(np.where(is_seen, depth, 0.0), np.ones((3, 3)))
        nearest = cv2.erode(np.where(is_seen, depth, 1e6).astype(np.float32), np.ones((3, 3)))
        ends = farthest - nearest > 2.0 * STEEP * self._pixel
        # What lies at the border of the picture goes on beyond it: no outline of the object.
        inner = (own & ~ends).astype(np.uint8)
        self._inside = cv2.distanceTransform(inner, cv2.DIST_L2, 3)
        self._farthest = farthest

    def look_up(
        self, points: np.ndarray, normals: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """
        Look points of the mesh up in the picture.

        :param points: (N, 3) metres, optical frame
        :param normals: (N, 3) unit length, optical frame
        :return: RGB (N, 3) float32, and from 0 (not seen) to 1 how far it is the point's (N,)
        """
        sight = points / np.linalg.norm(points, axis=1, keepdims=True)
        pixels = np.nan_to_num(self.camera.project(points), nan=-1e3)
        farthest = sampled(self._farthest, pixels, cv2.INTER_NEAREST)
        inside = sampled(self._inside, pixels)
        in_front = points[:, 2] <= farthest + 2.0 * self._pixel
        facing = -(normals * sight).sum(axis=1)
        trust = in_front * _step(facing, GRAZING, CLEAR) * _step(inside, MARGIN, MARGIN + FADE)
        return sampled(self._color, pixels), trust.astype(np.float32)


def _depth_image(camera: Camera, points: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return the depth of the mesh at every pixel, inf where there is none, (H, W) float32."""
    shape = camera.height, camera.width
    corners = camera.project(points)[faces]
    shown = np.isfinite(corners).all(axis=(1, 2))
    faces = faces[shown]
    pixel, face, weights = rasterize(corners[shown], shape)
    inverse = (weights / points[faces, 2][face]).sum(axis=1)  # it is linear in the picture
    nearest = np.zeros(shape[0] * shape[1])
    np.maximum.at(nearest, pixel, inverse)
    with np.errstate(divide='ignore'):
        return (1.0 / nearest).reshape(shape).astype(np.float32)


def _continued(model: ObjectModel, view: _Picture, points: np.ndarray) -> np.ndarray:
    """
    Shift the colours of vertices so that they go on from those that are seen.

    :param points: (V, 3) metres, the vertices in the optical frame
    :return: (V, 3) float, the picture's colours where it shows them
    """
    seen, trust = view.look_up(points, vertex_normals(points, model.faces))
    known = trust > 0.5
    colors = model.colors.astype(float)
    shift = np.where(known[:, None], seen - colors, 0.0)
    hidden = np.flatnonzero(~known)
    edges = model.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    both = np.concatenate([edges, edges[:, ::-1]])
    links = sparse.csr_matrix(
        (np.ones(len(both)), (both[:, 0], both[:, 1])), (len(colors), len(colors)))[hidden]
    # Each hidden vertex gets the mean of those around; parts that are all hidden get no shift.
    degree = np.asarray(links.sum(axis=1)).ravel() + 1e-6
    shift[hidden] = spsolve(
        (sparse.diags(degree) - links[:, hidden]).tocsc(), links @ shift)
    return colors + shift


def _filled(colors: np.ndarray, texel: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return the image (H, W, 3); texels that no face covers are as the nearest that one does."""
    image, empty = np.zeros((*shape, 3), np.uint8), np.ones(shape, bool)
    image.reshape(-1, 3)[texel] = np.clip(colors + 0.5, 0, 255)
    empty.reshape(-1)[texel] = False
    return image[tuple(ndimage.distance_transform_edt(
        empty, return_distances=False, return_indices=True))]


def _step(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Rise smoothly from 0 to 1 between two values."""
    t = np.clip((values - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)
