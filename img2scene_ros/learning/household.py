# SPDX-License-Identifier: Apache-2.0
"""Household objects, drawn at random."""

from collections.abc import Callable

import numpy as np
import trimesh


def _box(random: np.random.Generator) -> list[trimesh.Trimesh]:
    return [trimesh.creation.box(np.exp(random.uniform(np.log(0.03), np.log(0.28), 3)))]


def _book(random: np.random.Generator) -> list[trimesh.Trimesh]:
    return [trimesh.creation.box(random.uniform((0.11, 0.17, 0.008), (0.21, 0.3, 0.05)))]


def _can(random: np.random.Generator) -> list[trimesh.Trimesh]:
    r, h = random.uniform(0.025, 0.06), random.uniform(0.05, 0.18)
    rim = 0.04 * r
    profile = [(0, 0), (r - rim, 0), (r, rim), (r, h), (r - rim, h), (r - 2 * rim, h - 2 * rim),
               (0, h - 2 * rim)]
    return _maybe_lying(_turned(profile), random, 0.2)


def _bottle(random: np.random.Generator) -> list[trimesh.Trimesh]:
    r, h = random.uniform(0.025, 0.05), random.uniform(0.14, 0.32)
    neck, body, end = random.uniform(0.3, 0.55), random.uniform(0.4, 0.65), 0.86
    t = np.linspace(0, 1, 9)
    shoulder = 1 - (1 - neck) * (3 * t ** 2 - 2 * t ** 3)
    cap = neck * random.uniform(1.05, 1.25)
    profile = np.array([
        (0, 0), (0.94, 0), (1, 0.015),
        *zip(shoulder, body + (end - 0.06 - body) * t),
        (neck, end), (cap, end), (cap, 1), (0, 1)])
    parts = [_turned(profile * (r, h))[0]]
    parts[0].apply_scale((1, random.choice([1.0, random.uniform(0.6, 1.0)]), 1))
    return _maybe_lying(parts, random, 0.15)


def _bowl(random: np.random.Generator) -> list[trimesh.Trimesh]:
    r, deep = random.uniform(0.05, 0.13), random.uniform(0.3, 0.6)
    wall = random.uniform(0.003, 0.006)
    t = np.linspace(0, np.pi / 2, 12)
    foot = random.uniform(0.3, 0.6)
    outer = np.stack([foot + (1 - foot) * np.sin(t), deep * (1 - np.cos(t))], axis=1) * r
    return _turned(_hollow(outer, wall))


def _plate(random: np.random.Generator) -> list[trimesh.Trimesh]:
    r, h = random.uniform(0.08, 0.15), random.uniform(0.012, 0.03)
    wall = random.uniform(0.003, 0.005)
    return _turned(_hollow(np.array([(0.6 * r, 0), (0.7 * r, 0.35 * h), (r, h)]), wall))


def _cup(random: np.random.Generator) -> list[trimesh.Trimesh]:
    r, h = random.uniform(0.03, 0.05), random.uniform(0.06, 0.14)
    wall = random.uniform(0.003, 0.005)
    foot = r * random.uniform(0.65, 1.0)
    parts = _turned(_hollow(np.array([(foot, 0), (r, h)]), wall))
    if random.random() < 0.7:
        t = np.linspace(-np.pi / 2, np.pi / 2, 16)
        high, reach = h * random.uniform(0.25, 0.36), random.uniform(0.6, 1.1) * r
        z = 0.5 * h + high * np.sin(t)
        # Its ends lie within the wall.
        start = foot + (r - foot) * z / h - wall / 2
        path = np.stack([start + reach * np.cos(t), 0 * t, z], axis=1)
        parts.append(_tube(path, np.full(len(t), random.uniform(0.0035, 0.007))))
    return _maybe_lying(parts, random, 0.1)


def _wine_glass(random: np.random.Generator) -> list[trimesh.Trimesh]:
    r, h = random.uniform(0.03, 0.045), random.uniform(0.14, 0.22)
    stem, wide = random.uniform(0.35, 0.5), random.uniform(0.75, 1.0)
    t = np.linspace(0, 1, 12)
    cup = np.stack([0.12 + (wide - 0.12) * np.sin(t * np.pi * 0.62) / np.sin(np.pi / 2),
                    stem + (1 - stem) * t], axis=1) * (r, h)
    foot = [(0, 0), (0.9 * r, 0), (0.9 * r, 0.012 * h), (0.1 * r, 0.03 * h)]
    inner = np.maximum(cup[::-1] - (0.002, 0), (1e-4, 0)) + (0, 0.002)
    inner[0, 1] = cup[-1, 1]
    return _turned([*foot, *cup, *inner, (0, inner[-1, 1])])


def _vase(random: np.random.Generator) -> list[trimesh.Trimesh]:
    h, wall = random.uniform(0.12, 0.35), 0.004
    t = np.linspace(0, 1, 16)
    a, b, c = random.uniform(0.25, 0.4), random.uniform(-0.25, 0.25), random.uniform(-0.15, 0.15)
    radius = h * np.clip(
        0.6 * a + 0.3 * a * np.sin(np.pi * t) + b * np.sin(np.pi * t) * (0.5 - t)
        + c * np.sin(2 * np.pi * t), 0.06, 0.5)
    return _turned(_hollow(np.stack([radius, h * t], axis=1), wall))


def _banana(random: np.random.Generator) -> list[trimesh.Trimesh]:
    length, thick = random.uniform(0.15, 0.22), random.uniform(0.015, 0.021)
    bend = random.uniform(0.7, 1.4)
    t = np.linspace(-1, 1, 24)
    radius = length / (2 * bend)
    path = np.stack([radius * np.sin(bend * t), radius * np.cos(bend * t), 0 * t], axis=1)
    return [_tube(path, thick * np.clip((1 - np.abs(t) ** 3.5) ** 0.6, 0.25, 1))]


def _apple(random: np.random.Generator) -> list[trimesh.Trimesh]:
    r = random.uniform(0.03, 0.045)
    t = np.linspace(-np.pi / 2, np.pi / 2, 24)
    dent = random.uniform(0.1, 0.3)
    z = np.sin(t) * (1 - dent * np.cos(t - np.pi / 2).clip(0) ** 8)
    profile = np.stack([np.cos(t), z], axis=1) * r
    profile[[0, -1], 0] = 0
    return _turned(profile)


def _orange(random: np.random.Generator) -> list[trimesh.Trimesh]:
    return [trimesh.creation.icosphere(3, random.uniform(0.03, 0.05))]


# Class name to a function that draws one as closed parts, metres, z up.
HOUSEHOLD: dict[str, Callable[[np.random.Generator], list[trimesh.Trimesh]]] = {
    'apple': _apple, 'banana': _banana, 'book': _book, 'bottle': _bottle, 'bowl': _bowl,
    'box': _box, 'can': _can, 'cup': _cup, 'orange': _orange, 'plate': _plate, 'vase': _vase,
    'wine glass': _wine_glass,
}


def _turned(profile: np.ndarray | list) -> list[trimesh.Trimesh]:
    """Turn a profile of (radius, height), from the bottom's middle to the top's, about z."""
    return [trimesh.creation.revolve(np.asarray(profile, float), sections=48)]


def _hollow(outer: np.ndarray, wall: float) -> list[tuple[float, float]]:
    """Return the profile of a vessel, open at the top, from the outer profile of its wall."""
    along = np.gradient(outer, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    inner = (outer + wall * np.stack([-along[:, 1], along[:, 0]], axis=1))[::-1]
    inner = np.maximum(inner, (1e-4, wall))
    return [(0.0, 0.0), *map(tuple, outer), *map(tuple, inner), (0.0, inner[-1, 1])]


def _tube(path: np.ndarray, radius: np.ndarray) -> trimesh.Trimesh:
    """Return a closed tube about a plane path (N, 3) with a radius (N,) at each point."""
    ahead = np.gradient(path, axis=0)
    ahead /= np.linalg.norm(ahead, axis=1, keepdims=True)
    flat = np.linalg.svd(path - path.mean(axis=0))[2][2]
    side = np.cross(ahead, flat)
    count = 12
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    ring = (np.cos(angle)[:, None] * side[:, None] + np.sin(angle)[:, None] * flat)
    rings = path[:, None] + radius[:, None, None] * ring
    vertices = np.concatenate([rings.reshape(-1, 3), path[[0, -1]]])
    index = np.arange(len(path) * count).reshape(-1, count)
    a, b = index[:-1], index[1:]
    right = np.roll(index, -1, axis=1)
    faces = [np.stack([a, right[:-1], b], axis=-1), np.stack([b, right[:-1], right[1:]], axis=-1)]
    first, last = len(vertices) - 2, len(vertices) - 1
    caps = [np.stack([right[0], index[0], np.full(count, first)], axis=-1),
            np.stack([index[-1], right[-1], np.full(count, last)], axis=-1)]
    mesh = trimesh.Trimesh(
        vertices, np.concatenate([part.reshape(-1, 3) for part in faces + caps]))
    mesh.fix_normals()
    return mesh


def _maybe_lying(
    parts: list[trimesh.Trimesh], random: np.random.Generator, share: float,
) -> list[trimesh.Trimesh]:
    """Lay a share of all objects on their side."""
    if random.random() < share:
        turn = trimesh.transformations.rotation_matrix(np.pi / 2, (0, 1, 0))
        for part in parts:
            part.apply_transform(turn)
    return parts
