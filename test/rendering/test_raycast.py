# SPDX-License-Identifier: Apache-2.0
"""The ray caster against closed forms."""

import numpy as np
import pytest
import trimesh

from img2scene_ros.camera import Camera
from img2scene_ros.rendering.raycast import Lights
from img2scene_ros.rendering.raycast import Surface
from img2scene_ros.rendering.raycast import look_at
from img2scene_ros.rendering.raycast import render
from img2scene_ros.types import Texture

CAMERA = Camera(160, 120, 150.0, 150.0, 75.0, 62.0)
COLOR = (200, 100, 50)
RADIUS = 0.1
CENTER = np.array([0.05, -0.03, 0.6])


def surface(mesh: trimesh.Trimesh, **named) -> Surface:
    return Surface(mesh.vertices, mesh.faces, np.full((len(mesh.vertices), 3), COLOR), **named)


def sphere(center: np.ndarray = CENTER, **named) -> Surface:
    mesh = trimesh.creation.icosphere(5, RADIUS)
    mesh.apply_translation(center)
    return surface(mesh, **named)


def sphere_depth(rays: np.ndarray, center: np.ndarray = CENTER) -> np.ndarray:
    """Intersect rays t * (x, y, 1) with the sphere: the depth, NaN where they miss."""
    a = (rays ** 2).sum(axis=-1)
    b = rays @ center
    with np.errstate(invalid='ignore'):
        return (b - np.sqrt(b * b - a * (center @ center - RADIUS ** 2))) / a


def test_sphere_has_the_silhouette_and_depth_of_the_closed_form():
    seen = render([sphere(id=7)], CAMERA)
    expected = sphere_depth(CAMERA.rays.astype(float))
    inside = np.isfinite(expected)
    both = inside & (seen.ids == 7)
    assert both.sum() / (inside | (seen.ids == 7)).sum() > 0.98
    assert set(np.unique(seen.ids)) == {0, 7}
    np.testing.assert_array_equal(np.isnan(seen.depth), seen.ids == 0)
    assert np.nanmax(np.abs(seen.depth - expected)[both]) < 0.004
    assert np.nanmedian(np.abs(seen.depth - expected)[both]) < 0.0002


def test_lens_distortion_bends_the_silhouette():
    bent = Camera(160, 120, 150.0, 150.0, 75.0, 62.0, np.array([0.4, 0.1, 0.01, -0.02, 0.0]))
    center = np.array([0.18, 0.12, 0.6])
    ids = render([sphere(center)], bent).depth
    inside = np.isfinite(sphere_depth(bent.rays.astype(float), center))
    straight = np.isfinite(sphere_depth(CAMERA.rays.astype(float), center))
    assert (np.isfinite(ids) ^ inside).sum() < 0.1 * (straight ^ inside).sum()


def test_texture_is_the_right_way_up_beside_a_plain_surface():
    """A square that fills the picture shows its texture as it is; v = 0 is at the top."""
    x, y = CAMERA.rays[..., 0], CAMERA.rays[..., 1]
    half = 0.5 / np.array([CAMERA.fx, CAMERA.fy])
    (x0, y0), (x1, y1) = (x.min(), y.min()) - half, (x.max(), y.max()) + half
    corners = np.array([[x0, y0, 1], [x1, y0, 1], [x1, y1, 1], [x0, y1, 1]])
    faces = np.array([[0, 2, 1], [0, 3, 2]])
    uv = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)[faces]
    image = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    poster = Surface(corners, faces, np.zeros((4, 3)), 1, texture=Texture(image, uv))
    flat = Lights(ambient=1.0, sky=0.0, headlight=0.0)
    alone = render([poster], CAMERA, lights=flat).color
    np.testing.assert_allclose(alone.astype(int), image, atol=2)
    both = render([sphere(id=2), poster, sphere(CENTER + (0, 0, 5), id=3)], CAMERA, lights=flat)
    np.testing.assert_array_equal(both.color[both.ids == 1], alone[both.ids == 1])
    np.testing.assert_array_equal(both.color[both.ids == 2], [COLOR] * (both.ids == 2).sum())


def test_near_surface_hides_the_far_one():
    seen = render([sphere(id=1), sphere(CENTER + (0, 0, 0.4), id=2)], CAMERA)
    u, v = np.rint(CAMERA.project(CENTER)).astype(int)
    assert seen.ids[v, u] == 1
    assert seen.depth[v, u] == pytest.approx(0.5, abs=0.005)


def test_camera_pose_moves_the_view():
    pose = look_at(CENTER + (0.7, 0, 0), CENTER, (0, -1, 0))
    seen = render([sphere()], CAMERA, pose)
    expected = sphere_depth(CAMERA.rays.astype(float), np.array([0, 0, 0.7]))
    both = np.isfinite(seen.depth) & np.isfinite(expected)
    assert both.sum() / np.isfinite(expected).sum() > 0.98
    assert np.median(np.abs(seen.depth - expected)[both]) < 0.0002
    np.testing.assert_allclose(pose[:3, :3].T @ pose[:3, :3], np.eye(3), atol=1e-12)
    assert np.linalg.det(pose[:3, :3]) == pytest.approx(1)
    assert pose[:3, 1] == pytest.approx([0, 1, 0]), 'the picture is upright'


def test_colors_are_interpolated_between_corners():
    corners = np.array([[-1, -1, 1], [1, -1, 1], [-1, 1, 1]], float)
    colors = np.array([[0, 0, 0], [200, 0, 0], [0, 100, 0]], np.uint8)
    seen = render(
        [Surface(corners, np.array([[0, 2, 1]]), colors)], CAMERA, lights=Lights(1, 0, 0))
    for u, v in ((20, 10), (60, 30), (40, 80)):
        x, y, _ = CAMERA.rays[v, u]
        expected = [200 * (x + 1) / 2, 100 * (y + 1) / 2, 0]
        np.testing.assert_allclose(seen.color[v, u], expected, atol=1)


def test_headlight_follows_lamberts_law_on_a_sphere():
    seen = render([sphere(id=1)], CAMERA, lights=Lights(0, 0, 1))
    depth = sphere_depth(CAMERA.rays.astype(float))
    points = CAMERA.rays * depth[..., None]
    normals = (points - CENTER) / RADIUS
    rays = CAMERA.rays / np.linalg.norm(CAMERA.rays, axis=-1, keepdims=True)
    cosine = -(normals * rays).sum(axis=-1)
    check = (seen.ids == 1) & (cosine > 0.3)
    assert check.sum() > 1000
    np.testing.assert_allclose(seen.color[check][:, 0], 200 * cosine[check], atol=4)


def test_box_keeps_flat_sides():
    box = trimesh.creation.box((0.2, 0.2, 0.2))
    box.apply_translation((0, 0, 0.6))
    seen = render([surface(box)], CAMERA, lights=Lights(0, 1, 0, up=(0, 0, -1)))
    front = seen.color[(np.abs(CAMERA.rays[..., :2]) * 0.5 < 0.098).all(axis=-1)]
    assert len(front) > 1000
    assert (front == COLOR).all()


def test_object_shades_the_ground_beside_it_and_not_far_away():
    ground = Surface(
        np.array([[-9, 0.1, -9], [9, 0.1, -9], [9, 0.1, 9], [-9, 0.1, 9]], float),
        np.array([[0, 1, 2], [0, 2, 3]]), np.full((4, 3), 200), lit=False)
    pose = look_at((0, -1.5, 0.2), (0, 0, 0.6), (0, -1, 0))
    ball = sphere(np.array([0, 0, 0.6]), id=1)
    shaded = render([ground, ball], CAMERA, pose, Lights(sky_rays=64))
    plain = render([ground, ball], CAMERA, pose)
    at = np.array([[0.15, 0.1, 0.6], [-0.15, 0.1, 0.6], [0.9, 0.1, 0.6]])
    pixels = np.rint(CAMERA.project((at - pose[:3, 3]) @ pose[:3, :3])).astype(int)
    for (u, v), point in zip(pixels, at):
        patch = shaded.color[v - 1:v + 2, u - 1:u + 2].mean() / plain.color[v, u].mean()
        assert patch == pytest.approx(1 - hidden_sky(point), abs=0.05)


def hidden_sky(point: np.ndarray) -> float:
    """
    Return the cosine-weighted share of the sky that the ball hides from a point of the ground.

    The form factor of a sphere of radius r at distance d whose centre is seen at the angle t
    from the normal, wholly above the horizon or touching it: (r / d)^2 cos t.
    """
    offset = np.array([0, 0, 0.6]) - point
    distance = np.linalg.norm(offset)
    return float((RADIUS / distance) ** 2 * (-offset[1] / distance))


def test_supersampling_smooths_edges_and_keeps_ids():
    coarse = render([sphere()], CAMERA, lights=Lights(1, 0, 0))
    fine = render([sphere()], CAMERA, lights=Lights(1, 0, 0), supersampling=3)
    assert set(np.unique(coarse.color[..., 0])) == {0, 200}
    between = (fine.color[..., 0] > 0) & (fine.color[..., 0] < 200)
    assert 40 < between.sum() < 400
    np.testing.assert_array_equal(fine.depth, coarse.depth)
    assert fine.color[..., 0].mean() == pytest.approx(coarse.color[..., 0].mean(), rel=0.01)


def test_nothing_to_see_shows_the_background():
    seen = render([], CAMERA, background=(1, 2, 3))
    assert (seen.color == (1, 2, 3)).all()
    assert np.isnan(seen.depth).all()
    assert not seen.ids.any()
