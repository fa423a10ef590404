# SPDX-License-Identifier: Apache-2.0
"""Collision meshes: closed, small, and never smaller than the object by more than a tolerance."""

import sys

import numpy as np
import pytest
import trimesh
from colored_models import model_of

from img2scene_ros.mesh.collision import collision_parts
from img2scene_ros.types import ObjectModel

TRANSFORM = trimesh.transformations.euler_matrix(0.4, 0.2, 0.9)


def mug() -> trimesh.Trimesh:
    """Return a hollow cup of thin wall with fine, bumpy triangles; closed."""
    profile = np.array([
        [0, 0], [0.04, 0], [0.042, 0.05], [0.04, 0.1], [0.036, 0.1], [0.038, 0.05], [0.036, 0.005],
        [0, 0.005]])
    cup = trimesh.creation.revolve(profile, sections=64).subdivide().subdivide()
    bumps = 0.0004 * np.sin(cup.vertices * 300).sum(axis=1)
    return trimesh.Trimesh(cup.vertices + cup.vertex_normals * bumps[:, None], cup.faces)


SHAPES = {
    'ring': trimesh.creation.torus(0.1, 0.02, 64, 48, transform=TRANSFORM),
    'ball': trimesh.creation.icosphere(5, 0.06),
    'stick': trimesh.creation.cylinder(0.006, 0.4, sections=400).subdivide(),
    'cup': mug(),
}


def outside(mesh: trimesh.Trimesh, points: np.ndarray) -> np.ndarray:
    """
    Return how far points lie outside of a closed mesh, metres, 0 inside.

    Inside by the winding number (Van Oosterom, Strackee: The solid angle of a plane triangle,
    1983); exact distances to all triangles.
    """
    gaps = []
    for part in np.array_split(points, 1 + len(points) // 200):
        a, b, c = np.moveaxis(mesh.triangles[None] - part[:, None, None], 2, 0)
        la, lb, lc = (np.linalg.norm(corner, axis=2) for corner in (a, b, c))
        angle = np.arctan2(
            (a * np.cross(b, c)).sum(axis=2),
            la * lb * lc + (a * b).sum(axis=2) * lc + (b * c).sum(axis=2) * la
            + (c * a).sum(axis=2) * lb)
        winding = angle.sum(axis=1) / (2 * np.pi)
        _, distance, _ = trimesh.proximity.closest_point_naive(mesh, part)
        gaps.append(np.where(winding > 0.5, 0.0, distance))
    return np.concatenate(gaps)


def samples(model: ObjectModel) -> np.ndarray:
    mesh = trimesh.Trimesh(model.vertices, model.faces, process=False)
    rng = np.random.default_rng(0)
    on_faces, _ = trimesh.sample.sample_surface(mesh, 600, seed=1)
    return np.concatenate([on_faces, rng.permutation(model.vertices)[:400]])


@pytest.mark.parametrize('triangles', [1000, 300])
@pytest.mark.parametrize('kind', ['mesh', 'hull'])
@pytest.mark.parametrize('shape', SHAPES)
def test_closed_small_and_around_the_object(shape, kind, triangles):
    pytest.importorskip('open3d')
    model = model_of(SHAPES[shape])
    assert len(model.faces) > triangles
    part, = collision_parts(model, kind, triangles)
    assert part.is_watertight and part.is_winding_consistent and part.volume > 0
    assert len(part.faces) <= triangles
    assert kind == 'mesh' or part.is_convex
    allowed = min(0.002, 0.01 * model.size.max())
    assert outside(part, samples(model)).max() <= allowed
    assert (np.ptp(part.vertices, axis=0) < 1.06 * model.size + 2 * allowed).all()


def test_hollow_things_stay_hollow():
    pytest.importorskip('open3d')
    for shape in ('ring', 'cup'):
        mesh = SHAPES[shape]
        part, = collision_parts(model_of(mesh), 'mesh')
        assert part.volume < 1.5 * mesh.volume < 0.8 * mesh.convex_hull.volume


def test_small_meshes_are_their_own_collision_meshes():
    box = trimesh.creation.box((0.1, 0.2, 0.05))
    for kind in ('mesh', 'hull'):
        part, = collision_parts(model_of(box), kind)
        assert len(part.faces) == 12
        np.testing.assert_allclose(part.bounds, box.bounds, atol=1e-8)
        assert part.volume == pytest.approx(0.001)


def test_open_meshes_get_their_hull():
    half = trimesh.creation.icosphere(4, 0.06)
    half.update_faces(half.triangles_center[:, 2] > 0)
    half.remove_unreferenced_vertices()
    part, = collision_parts(model_of(half))
    assert part.is_watertight and part.is_convex and len(part.faces) <= 1000
    assert outside(part, samples(model_of(half))).max() < 0.0006


def test_without_open3d_the_hull_takes_its_place(monkeypatch):
    monkeypatch.setitem(sys.modules, 'open3d', None)
    part, = collision_parts(model_of(SHAPES['ring']))
    assert part.is_convex and part.is_watertight


@pytest.mark.slow
def test_convex_parts_hold_the_object():
    pytest.importorskip('coacd', reason='convex parts need CoACD: pip install coacd')
    ring = trimesh.creation.torus(0.1, 0.02, 16, 8)
    model = model_of(ring)
    parts = collision_parts(model, 'convex_parts', 200)
    assert len(parts) > 3
    for part in parts:
        assert part.is_watertight and part.is_convex and len(part.faces) <= 200
    gap = np.min([outside(part, samples(model)) for part in parts], axis=0)
    assert gap.max() < 1e-5
    assert sum(part.volume for part in parts) < 0.8 * ring.convex_hull.volume


def test_without_coacd_the_mesh_is_not_parted(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, 'coacd', None)
    part, = collision_parts(model_of(trimesh.creation.box((0.1, 0.2, 0.05))), 'convex_parts')
    assert len(part.faces) == 12
    assert 'coacd' in caplog.text
