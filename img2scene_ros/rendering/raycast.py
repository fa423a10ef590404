# SPDX-License-Identifier: Apache-2.0
"""
A headless ray caster: colour, depth and silhouettes of triangle meshes, without OpenGL.

Everything is in metres and in one scene frame of any orientation. Cameras look along the z of
their optical frame: x right, y down, z forward (REP-103).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from img2scene_ros.camera import Camera
from img2scene_ros.camera import sampled
from img2scene_ros.packages import importing
from img2scene_ros.rendering.normals import face_normals
from img2scene_ros.rendering.normals import unit
from img2scene_ros.rendering.normals import vertex_normals
from img2scene_ros.types import Texture

CREASE = np.cos(np.radians(40.0))  # between the normals at a corner; sharper edges stay sharp


@dataclass(frozen=True, eq=False)
class Surface:
    """A coloured triangle mesh at its place in the scene."""

    vertices: np.ndarray  # (V, 3) metres, scene frame
    faces: np.ndarray  # (F, 3) int, counter-clockwise seen from outside
    colors: np.ndarray  # (V, 3) uint8, RGB
    id: int = 0  # what `Rendering.ids` says where it is seen
    # False for colours that already hold the light, as those of a photo do: they are only darkened
    # by the share of the sky that lit surfaces hide, and they cast no shadows
    lit: bool = True
    texture: Texture | None = None  # finer colours than those of the vertices, where there are any


@dataclass(frozen=True)
class Lights:
    """How lit surfaces are shaded (Lambert); the three strengths should add up to about 1."""

    ambient: float = 0.3  # strength of the light that reaches everything
    sky: float = 0.4  # strength of the light from `up`
    headlight: float = 0.3  # strength of the light at the camera
    # direction to the sky, unit length, scene frame
    up: tuple[float, float, float] = (0.0, -1.0, 0.0)
    sky_rays: int = 0  # rays per sample that look for the sky, for soft shadows; 0 is no shadows


@dataclass(frozen=True, eq=False)
class Rendering:
    """What a camera sees."""

    color: np.ndarray  # (H, W, 3) uint8, RGB
    depth: np.ndarray  # (H, W) float32, metres along the optical axis, NaN where nothing is
    ids: np.ndarray  # (H, W) int32, the id of the surface, 0 where nothing is


def render(
    surfaces: Sequence[Surface],
    camera: Camera,
    pose: np.ndarray | None = None,
    lights: Lights = Lights(),
    background: np.ndarray | tuple[int, int, int] = (0, 0, 0),
    supersampling: int = 1,
) -> Rendering:
    """
    Look at surfaces with a camera.

    Lens distortion is honoured: a pixel shows what lies along `camera.rays`.

    :param pose: (4, 4), takes the camera's optical coordinates to scene coordinates; None is
        the identity
    :param background: RGB where nothing is seen: one colour or an (H, W, 3) picture
    :param supersampling: the colour of a pixel is the mean of this many rays squared; depth
        and ids are those of the ray through its centre
    :raises MissingDependencyError: Open3D is not installed
    """
    return Stage(surfaces, lights).look(camera, pose, background, supersampling)


def look_at(eye: np.ndarray, target: np.ndarray, up: np.ndarray) -> np.ndarray:
    """
    Return the pose of a camera that looks at a point with `up` upwards in its picture.

    :param eye: (3,) metres, scene frame
    :param target: (3,) metres, scene frame
    :param up: (3,) not parallel to the line of sight
    :return: (4, 4), takes the camera's optical coordinates to scene coordinates
    """
    forward = np.subtract(target, eye)
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, up)
    right = right / np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    pose[:3, 3] = eye
    return pose


@dataclass(frozen=True, eq=False)
class _Hits:
    """What each of N (or H x W) rays meets; the distance is in lengths of the ray, inf = none."""

    origin: np.ndarray
    direction: np.ndarray
    distance: np.ndarray
    face: np.ndarray
    uv: np.ndarray


class Stage:
    """
    Surfaces and their light, ready to be looked at from several places.

    :raises MissingDependencyError: Open3D is not installed
    """

    def __init__(self, surfaces: Sequence[Surface], lights: Lights = Lights()) -> None:
        offsets = np.cumsum([0] + [len(surface.vertices) for surface in surfaces])
        self.vertices = _stacked([s.vertices for s in surfaces], np.float32)
        self.colors = _stacked([s.colors for s in surfaces], np.float32)
        self.faces = _stacked(
            [s.faces + offset for s, offset in zip(surfaces, offsets)], np.int64)
        counts = [len(surface.faces) for surface in surfaces]
        ends = np.cumsum(counts)
        self.textures = [
            (end - count, end, surface.texture)
            for surface, count, end in zip(surfaces, counts, ends) if surface.texture]
        # One more entry, which the faces of rays that meet nothing point at.
        self.ids = np.repeat([s.id for s in surfaces] + [0], counts + [1])
        self.lit = np.repeat([s.lit for s in surfaces] + [False], counts + [1])
        self.lights = lights
        self.face_normals = face_normals(self.vertices, self.faces)
        self.normals = vertex_normals(self.vertices, self.faces).astype(np.float32)
        self.scene = raycasting_scene(self.vertices, self.faces)
        lit = self.lit[:-1]
        self.occluders = (
            self.scene if lit.all() else raycasting_scene(self.vertices, self.faces[lit]))

    def look(
        self,
        camera: Camera,
        pose: np.ndarray | None = None,
        background: np.ndarray | tuple[int, int, int] = (0, 0, 0),
        supersampling: int = 1,
    ) -> Rendering:
        """Look with a camera; the parameters are those of `render`."""
        pose = np.eye(4) if pose is None else np.asarray(pose, float)
        backdrop = np.broadcast_to(
            np.asarray(background, np.float32), (camera.height, camera.width, 3))
        hits = self._cast(camera.rays, pose)
        depth = np.where(np.isfinite(hits.distance), hits.distance, np.nan)
        ids = self.ids[hits.face]
        n = supersampling
        if n > 1:
            fine = camera.resized(camera.width * n, camera.height * n)
            hits = self._cast(fine.rays, pose)
            backdrop = backdrop.repeat(n, axis=0).repeat(n, axis=1)
        color = self._shade(hits, backdrop)
        color = color.reshape(camera.height, n, camera.width, n, 3).mean(axis=(1, 3))
        return Rendering(
            np.clip(color + 0.5, 0, 255).astype(np.uint8),
            depth.astype(np.float32), ids.astype(np.int32))

    def look_for_ids(self, camera: Camera, pose: np.ndarray) -> np.ndarray:
        """Return what `look` says in `Rendering.ids`, (H, W) int32, without any colour."""
        return self.ids[self._cast(camera.rays, pose).face].astype(np.int32)

    def _cast(self, rays: np.ndarray, pose: np.ndarray) -> _Hits:
        """Follow rays (..., 3) in camera coordinates; with z = 1 distances are depths."""
        has_ray = np.isfinite(rays).all(axis=-1)  # others meet every triangle's box: very slow
        direction = np.where(has_ray[..., None], rays, 0) @ pose[:3, :3].T.astype(np.float32)
        origin = np.broadcast_to(pose[:3, 3].astype(np.float32), direction.shape)
        found = self.scene.cast_rays(np.concatenate([origin, direction], axis=-1))
        face = found['primitive_ids'].numpy().astype(np.int64)
        distance = np.where(has_ray, found['t_hit'].numpy(), np.float32(np.inf))
        return _Hits(
            origin, direction, distance, np.where(np.isfinite(distance), face, len(self.faces)),
            found['primitive_uvs'].numpy())

    def _shade(self, hits: _Hits, backdrop: np.ndarray) -> np.ndarray:
        """Return the float colour of every ray, the backdrop's where it meets nothing."""
        met = np.isfinite(hits.distance)
        face, direction = hits.face[met], hits.direction[met]
        point = hits.origin[met] + direction * hits.distance[met][:, None]
        u, v = hits.uv[met].T
        weights = np.stack([1 - u - v, u, v], axis=-1)[..., None].astype(np.float32)
        color = (self.colors[self.faces[face]] * weights).sum(axis=1)
        for start, end, texture in self.textures:
            part = np.flatnonzero((face >= start) & (face < end))
            height, width = texture.image.shape[:2]
            uv = (texture.uv[face[part] - start] * weights[part]).sum(axis=1)
            color[part] = sampled(
                texture.image.astype(np.float32), uv * (width, height) - 0.5, outside=None)
        picture = backdrop.copy()
        picture[met] = color * self._light(face, weights, point, direction)[:, None]
        return picture

    def _light(
        self, face: np.ndarray, weights: np.ndarray, point: np.ndarray, direction: np.ndarray,
    ) -> np.ndarray:
        lights, lit = self.lights, self.lit[face]
        up = np.asarray(lights.up, np.float32)
        flat = self.face_normals[face]
        corners = self.normals[self.faces[face]]
        # Corners of edges sharper than CREASE stay sharp.
        sharp = np.einsum('nci,ni->nc', corners, flat) < CREASE
        corners = np.where(sharp[..., None], flat[:, None], corners)
        normal = unit((corners * weights).sum(axis=1))
        facing = -np.einsum('ni,ni->n', normal, unit(direction))
        normal = np.where(facing[:, None] < 0, -normal, normal)
        visible = self._sky_seen(point, np.where(lit[:, None], normal, up))
        sky = (0.5 + 0.5 * normal @ up) * visible
        shaded = lights.ambient + lights.sky * sky + lights.headlight * np.abs(facing)
        return np.where(lit, shaded, visible)

    def _sky_seen(self, points: np.ndarray, axes: np.ndarray) -> np.ndarray:
        """Return the share of cosine-weighted rays around each axis that meet no lit surface."""
        if not self.lights.sky_rays or not len(points):
            return np.ones(len(points), np.float32)
        count = self.lights.sky_rays
        random = np.random.default_rng(0)
        turn = random.random(len(points), np.float32)
        start = points + axes * 1e-3
        hidden = np.zeros(len(points), np.float32)
        for index in range(count):
            # Axis + uniform point of the unit sphere is a cosine-weighted direction. The points
            # lie on a Fibonacci spiral, turned at random: less noise than points at random.
            z = 1 - 2 * (index + random.random(len(points), np.float32)) / count
            angle = 2 * np.pi * (turn + np.float32(0.618034 * index))
            radius = np.sqrt(1 - z * z)
            sphere = np.stack([radius * np.cos(angle), radius * np.sin(angle), z], axis=-1)
            hidden += self.occluders.test_occlusions(
                np.concatenate([start, axes + sphere], axis=-1)).numpy()
        return 1.0 - hidden / count


def _stacked(arrays: list[np.ndarray], kind: type) -> np.ndarray:
    return np.concatenate([np.zeros((0, 3)), *arrays]).astype(kind)


def raycasting_scene(vertices: np.ndarray, faces: np.ndarray) -> Any:
    """
    Return an Open3D scene of one mesh.

    :param vertices: (V, 3) float32
    :param faces: (F, 3) int
    :raises MissingDependencyError: Open3D is not installed
    """
    with importing('drawing meshes', 'open3d', 'the smaller open3d-cpu'):
        import open3d
    scene = open3d.t.geometry.RaycastingScene()
    scene.add_triangles(
        np.ascontiguousarray(vertices), np.ascontiguousarray(faces.astype(np.uint32)))
    return scene
