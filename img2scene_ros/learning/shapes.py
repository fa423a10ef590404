# SPDX-License-Identifier: Apache-2.0
"""
The shapes that rendered training data is made of.

Three sources: folders laid out like Pix3D's (CATEGORY/SHAPE/voxel.mat and model.ply), metric
textured GLB meshes, and household objects drawn at random. Every shape has a solid beside its
surface, and belongs to one split: a network is never tested on a shape that it was trained on.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from scipy import ndimage

from img2scene_ros.errors import InputError
from img2scene_ros.rendering.raycast import raycasting_scene

TABLE, FLOOR = 'table', 'floor'
SMALL = 0.5  # metres; meshes below it stand on tables, others on floors

# Pix3D's shapes have no metric size. Category: class name, where it stands, and the least and the
# greatest diagonal in metres of what is sold as such.
PIX3D_CATEGORIES = {
    'bed': ('bed', FLOOR, 2.2, 3.0),
    'bookcase': ('bookcase', FLOOR, 1.2, 2.4),
    'chair': ('chair', FLOOR, 0.95, 1.4),
    'desk': ('desk', FLOOR, 1.2, 2.0),
    'misc': ('object', TABLE, 0.12, 0.35),
    'sofa': ('couch', FLOOR, 1.4, 2.8),
    'table': ('dining table', FLOOR, 0.8, 2.2),
    'tool': ('tool', TABLE, 0.15, 0.35),
    'wardrobe': ('wardrobe', FLOOR, 1.7, 2.6),
}
# Class names of GLB meshes without index.json, by the file's name without its number; others keep
# that name.
MESH_CLASSES = {
    'Ball': 'sports ball', 'ChairA': 'chair', 'Dumbbell': 'dumbbell',
    'KitchenTable': 'dining table', 'Trash': 'trash can',
}
PROCEDURAL_TRAIN, PROCEDURAL_TEST = 60, 20  # shapes of every procedural class per split
# Cells of a mesh's solid along its longest side: as few as give its walls two.
CELLS = (128, 192, 256)
WALL_CELLS = 2.0
KNOWN = 0.8  # share of the cells on a mesh's surface that must bound an inside
CREASE = np.radians(40.0)  # edges sharper than this look sharp
MOST_DRAWN = 50  # classes with more shapes than this are drawn no more often


@dataclass(frozen=True, eq=False)
class Shape:
    """An object's surface and solid, z up, the origin at the centre of its bounding box."""

    name: str  # source/class/number or the like, unique
    label: str  # the class name
    vertices: np.ndarray  # (V, 3) metres before `sizes`
    faces: np.ndarray  # (F, 3) int
    bits: np.ndarray  # the solid, packed by `np.packbits`, as data sets use many shapes
    grid: tuple[int, int, int]  # (X, Y, Z), number of cells of the solid along the axes
    cell: float  # metres before `sizes`, the side of a cell
    # least and greatest factor that makes a size that such things come in
    sizes: tuple[float, float] = (0.9, 1.1)
    colors: np.ndarray | None = None  # (V, 3) uint8, RGB; None where materials are drawn at random

    @property
    def solid(self) -> np.ndarray:
        """Return the cells that the object fills, (X, Y, Z) bool; their middle is the origin."""
        return np.unpackbits(self.bits, count=np.prod(self.grid)).reshape(self.grid).view(bool)


@dataclass(frozen=True)
class Library:
    """The shapes of one split, loaded when they are drawn."""

    # folder of CATEGORY/SHAPE/voxel.mat and model.ply; None where there is none
    pix3d: Path | None
    meshes: Path | None  # folder of GLB meshes; None where there is none
    # place ('table' or 'floor') to groups of shape names, a group being one class of one source
    # (all meshes of a folder without index.json are one)
    groups: dict[str, list[list[str]]]
    skipped: list[str] = field(default_factory=list)  # shapes that are not used, with the reason

    @property
    def names(self) -> list[str]:
        """Return the names of all shapes of the split."""
        return [name for groups in self.groups.values() for group in groups for name in group]

    def draw(self, random: np.random.Generator, place: str) -> Shape:
        """Draw a shape that stands on a 'table' or 'floor'; rare classes are drawn less."""
        groups = self.groups[place]
        weights = np.sqrt([min(len(group), MOST_DRAWN) for group in groups])
        group = groups[random.choice(len(groups), p=weights / weights.sum())]
        return self.load(group[random.integers(len(group))])

    def load(self, name: str) -> Shape:
        """
        Return the shape of a name.

        :raises InputError: its files cannot be read
        """
        source, rest = name.split('/', 1)
        if source == 'pix3d':
            assert self.pix3d is not None
            return load_pix3d_shape(self.pix3d / rest)
        if source == 'mesh':
            assert self.meshes is not None
            return load_mesh(self.meshes / f'{rest}.glb')
        kind, number = rest.split('/')
        return household_object(kind, int(number))


def open_library(
    pix3d: Path | None, meshes: Path | None, split: str, test_share: float, split_seed: int,
) -> Library:
    """
    Find all shapes of a split.

    The shapes of every category are shuffled by `split_seed` and cut into the two splits, so data
    sets of one split seed never share a shape between train and test, whatever else they differ
    in. Meshes of one label by one author are near-copies: they are all on the same side.

    :param pix3d: a folder of CATEGORY/SHAPE/voxel.mat and model.ply
    :param meshes: a folder of metric GLB meshes, y up; index.json beside them, a list of name,
        label and author, tells more about them
    :param split: 'train' or 'test'
    :param test_share: share of the shapes of every category that are for testing
    :raises InputError: a folder that holds no shapes
    """
    groups: dict[str, list[list[str]]] = {TABLE: [], FLOOR: []}
    skipped: list[str] = []
    for category, names in (_pix3d_names(pix3d, skipped) if pix3d else {}).items():
        chosen = _part(names, split, test_share, split_seed)
        groups[place_of(category)].append(chosen)
    if meshes:
        for place, names in _mesh_groups(meshes, skipped, split, test_share, split_seed):
            groups[place].append(names)
    # Numbers below are for training, above for testing, whatever the share.
    numbers = range(PROCEDURAL_TRAIN) if split == 'train' else \
        range(PROCEDURAL_TRAIN, PROCEDURAL_TRAIN + PROCEDURAL_TEST)
    groups[TABLE] += [[f'procedural/{kind}/{n}' for n in numbers] for kind in HOUSEHOLD]
    groups = {place: [group for group in some if group] for place, some in groups.items()}
    return Library(pix3d, meshes, groups, skipped)


def _part(names: list[str], split: str, test_share: float, seed: int) -> list[str]:
    shuffled = np.random.default_rng(seed).permutation(sorted(names)).tolist()
    count = round(test_share * len(names))
    return sorted(shuffled[:count] if split == 'test' else shuffled[count:])


def _category(name: str) -> tuple[str, str, float, float]:
    return PIX3D_CATEGORIES.get(name, (name, FLOOR, 0.5, 2.0))


def place_of(category: str) -> str:
    """Return where the shapes of a Pix3D category stand: 'table' or 'floor'."""
    return _category(category)[1]


def _pix3d_names(folder: Path, skipped: list[str]) -> dict[str, list[str]]:
    """Return the names of the shapes in a folder by category."""
    found: dict[str, list[str]] = {}
    for voxels in sorted(folder.glob('*/*/voxel.mat')):
        name = f'pix3d/{voxels.parent.parent.name}/{voxels.parent.name}'
        if (voxels.parent / 'model.ply').is_file():
            found.setdefault(voxels.parent.parent.name, []).append(name)
        else:
            skipped.append(f'{name}: no model.ply')
    if not found:
        raise InputError(
            f"the folder '{folder}' holds no shapes; it must hold CATEGORY/SHAPE/voxel.mat and "
            'model.ply')
    return found


def _mesh_groups(
    folder: Path, skipped: list[str], split: str, test_share: float, seed: int,
) -> list[tuple[str, list[str]]]:
    """Return where meshes of a split stand and their names, one group for every label."""
    kinds, places, reasons = _find_meshes(folder)
    skipped += reasons
    groups: dict[tuple[str, str], list[str]] = {}
    for place in (TABLE, FLOOR):  # those of a kind count where the first one stands
        firsts = {names[0]: names for names in kinds.values() if places[names[0]] == place}
        for first in _part(list(firsts), split, test_share, seed):
            for name in firsts[first]:
                label = mesh_kind(folder / f'{name[5:]}.glb')[1] if _mesh_index(folder) else ''
                groups.setdefault((places[name], label), []).append(name)
    return [(place, sorted(names)) for (place, _), names in sorted(groups.items())]


@cache
def _find_meshes(
    folder: Path,
) -> tuple[dict[tuple[str, str], list[str]], dict[str, str], list[str]]:
    """Return a folder's meshes by author and label, where each stands, and what is skipped."""
    kinds: dict[tuple[str, str], list[str]] = {}
    places, reasons = {}, []
    for path in sorted(folder.glob('*.glb')):
        name = f'mesh/{path.stem}'
        mesh = _read_mesh(path)
        if _closed_parts(mesh) is None and _flooded(mesh, mesh.extents.max() / CELLS[0]) is None:
            reasons.append(f'{name}: the mesh is not closed, and no inside is found')
        else:
            places[name] = TABLE if mesh.extents.max() < SMALL else FLOOR
            kinds.setdefault(mesh_kind(path), []).append(name)
    if not kinds:
        raise InputError(f"the folder '{folder}' holds no closed GLB meshes")
    return kinds, places, reasons


def mesh_kind(path: Path) -> tuple[str, str]:
    """
    Return who made a mesh ('' = unknown) and its label.

    :raises InputError: the index.json beside it cannot be read
    """
    stem = path.stem.rstrip('0123456789').rstrip('_')
    return _mesh_index(path.parent).get(
        path.stem, ('', MESH_CLASSES.get(stem, stem.lower())))


@cache
def _mesh_index(folder: Path) -> dict[str, tuple[str, str]]:
    path = folder / 'index.json'
    if not path.exists():
        return {}
    try:
        return {item['name']: (str(item['author']), str(item['label']))
                for item in json.loads(path.read_text())}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"cannot read '{path}': it must be a list of objects with name, label and author "
            f'({type(error).__name__}: {error})') from error


@cache
def load_pix3d_shape(folder: Path) -> Shape:
    """
    Read a Pix3D shape.

    The voxels' axes are x left, y outward, z up, the model's x left, y up, z inward, so
    voxel = (x, -z, y). The grid is a cube about the model's centre; the centres of its first and
    last cell span the model's longest side, as `pix3d.grid_to_model` says.

    :param folder: CATEGORY/SHAPE
    :raises InputError: voxel.mat or model.ply cannot be read
    """
    from scipy.io import loadmat

    try:
        voxels = np.asarray(loadmat(folder / 'voxel.mat')['voxel']) > 0
        mesh = trimesh.load(folder / 'model.ply', process=False)
        x, y, z = np.asarray(mesh.vertices, float).T
    except Exception as error:  # scipy and trimesh raise whatever they stumble over
        raise InputError(
            f"cannot read the shape '{folder}': voxel.mat must hold 'voxel' and model.ply a mesh "
            f'({type(error).__name__}: {error})') from error
    if voxels.ndim != 3 or len(set(voxels.shape)) > 1 or not voxels.any():
        raise InputError(
            f"'{folder / 'voxel.mat'}' holds no cube of voxels (its shape is {voxels.shape})")
    vertices = np.stack([x, -z, y], axis=1)
    vertices -= (vertices.min(axis=0) + vertices.max(axis=0)) / 2
    extents = np.ptp(vertices, axis=0)
    label, _, low, high = _category(folder.parent.name)
    diagonal = float(np.linalg.norm(extents))
    creased = _creased(trimesh.Trimesh(vertices, mesh.faces, process=False))
    solid = _filled(_trimmed(voxels))
    return Shape(
        f'pix3d/{folder.parent.name}/{folder.name}', label, *creased, np.packbits(solid),
        solid.shape, extents.max() / (len(voxels) - 1), (low / diagonal, high / diagonal))


@cache
def load_mesh(path: Path) -> Shape:
    """
    Read a metric, textured GLB mesh; a texture is sampled into vertex colours.

    :raises InputError: it cannot be read or has no inside
    """
    mesh = _read_mesh(path)
    solid, cell = _mesh_solid(mesh, path)
    # Textures need more vertices; those that have colours would lose them.
    fine = mesh if mesh.visual.kind == 'vertex' else \
        mesh.subdivide_to_size(mesh.extents.max() / 30, max_iter=20)
    visual = fine.visual
    if isinstance(visual, trimesh.visual.TextureVisuals):
        visual = visual.to_color()
    colors = np.asarray(visual.vertex_colors)[:, :3]
    return Shape(
        f'mesh/{path.stem}', mesh_kind(path)[1], np.asarray(fine.vertices),
        np.asarray(fine.faces), np.packbits(solid), solid.shape, cell, colors=colors)


def _read_mesh(path: Path) -> trimesh.Trimesh:
    """Return a mesh with z up and the origin at the centre of its bounding box."""
    try:
        mesh = trimesh.load(path).to_geometry()
        # glTF is y up: (x, y, z) there is (x, -z, y) here.
        mesh.apply_transform(trimesh.transformations.rotation_matrix(np.pi / 2, (1, 0, 0)))
        return mesh.apply_translation(-mesh.bounds.mean(axis=0))
    except Exception as error:  # trimesh raises whatever it stumbles over
        raise InputError(
            f"cannot read the mesh '{path}' ({type(error).__name__}: {error})") from error


def _mesh_solid(mesh: trimesh.Trimesh, path: Path) -> tuple[np.ndarray, float]:
    """Return the cells that a mesh about the origin fills, and their side in metres."""
    parts = _closed_parts(mesh)
    cell = _cell_of(mesh)
    if parts is not None:
        return _filled(solid_of(parts, cell)), cell
    for side in (cell, mesh.extents.max() / CELLS[0]):  # small cells leak through more gaps
        solid = _flooded(mesh, side)
        if solid is not None:
            return solid, side
    raise InputError(f"the mesh '{path}' is not closed, and no inside is found")


def _closed_parts(mesh: trimesh.Trimesh) -> list[trimesh.Trimesh] | None:
    """Return the connected parts of a mesh, None when one of them is not closed."""
    bare = trimesh.Trimesh(mesh.vertices, mesh.faces)
    bare.merge_vertices()
    bare.update_faces(bare.nondegenerate_faces())
    bare.update_faces(bare.unique_faces())
    return list(bare.split()) if bare.is_watertight else None


def _shape(name: str, label: str, parts: list[trimesh.Trimesh]) -> Shape:
    """Make a shape of closed parts."""
    whole = trimesh.util.concatenate(parts)
    center = whole.bounds.mean(axis=0)
    vertices, faces = _creased(whole)
    cell = _cell_of(whole)
    solid = _filled(solid_of([part.copy().apply_translation(-center) for part in parts], cell))
    return Shape(name, label, vertices - center, faces, np.packbits(solid), solid.shape, cell)


def _creased(mesh: trimesh.Trimesh) -> tuple[np.ndarray, np.ndarray]:
    """Return vertices and faces whose sharp edges have vertices of their own, to look sharp."""
    split = trimesh.graph.smooth_shade(mesh, angle=CREASE)
    return np.asarray(split.vertices), np.asarray(split.faces)


def solid_of(parts: list[trimesh.Trimesh], cell: float) -> np.ndarray:
    """
    Return which cells have their centre in one of some closed meshes.

    :param parts: about the origin; they may overlap
    :param cell: metres
    :return: (X, Y, Z) bool, the grid's centre is the origin
    """
    half = np.abs(np.concatenate([part.bounds for part in parts])).max(axis=0)
    shape = 2 * np.ceil(half / cell).astype(int)
    solid = np.zeros(shape, bool)
    for part in parts:
        solid |= _inside(part, shape, cell)
    return solid


def _inside(mesh: trimesh.Trimesh, shape: np.ndarray, cell: float) -> np.ndarray:
    """Return which cells' centres are in one closed mesh: after an odd number of crossings."""
    scene = raycasting_scene(np.array(mesh.vertices, np.float32), mesh.faces)
    return np.logical_xor.accumulate(_crossings(scene, shape, cell, 2) % 2 == 1, axis=2)


def _crossings(scene: Any, shape: np.ndarray, cell: float, axis: int) -> np.ndarray:
    """
    Return how often a surface is crossed on the way to each cell's centre from the one before.

    :param scene: of the surface, about the grid's centre
    :param axis: 0, 1 or 2, the way's direction
    :return: (X, Y, Z) uint8
    """
    order = [(axis + 1) % 3, (axis + 2) % 3, axis]
    u, v, first = ((np.arange(n) + 0.5 - n / 2) * cell for n in shape[order])
    # A little beside the middle, so that rays do not run along the edges of symmetric meshes.
    u, v = np.meshgrid(u + 0.0137 * cell, v + 0.0071 * cell, indexing='ij')
    rays = np.zeros((u.size, 6), np.float32)
    rays[:, order] = np.stack([u, v, np.full_like(u, first[0] - cell)], axis=-1).reshape(-1, 3)
    rays[:, 3 + axis] = 1
    crossed = scene.list_intersections(rays)
    steps = np.ceil(crossed['t_hit'].numpy() / cell - 1).astype(int)
    counts = np.zeros((u.size, shape[axis] + 1), np.uint8)
    np.add.at(counts, (crossed['ray_ids'].numpy().astype(int), steps.clip(0, shape[axis])), 1)
    return np.moveaxis(counts[:, :-1].reshape(*u.shape, -1), (0, 1, 2), order)


def _flooded(mesh: trimesh.Trimesh, cell: float) -> np.ndarray | None:
    """
    Return the cells that a flood from outside a mesh does not reach, (X, Y, Z) bool.

    Cells that the surface touches stop the flood, so that it does not leak through gaps narrower
    than a cell; then it goes on into those whose centre lies on its side of the surface. Sheets,
    which have no centres inside, are given one cell.

    :param mesh: about the origin; it need not be closed
    :param cell: metres
    :return: None where too much of the surface is open sheets
    """
    from open3d.geometry import TriangleMesh
    from open3d.geometry import VoxelGrid
    from open3d.utility import Vector3dVector
    from open3d.utility import Vector3iVector

    scene = raycasting_scene(np.array(mesh.vertices, np.float32), mesh.faces)
    shape = 2 * np.ceil(mesh.extents / 2 / cell).astype(int) + 4  # free ones around
    touched = VoxelGrid.create_from_triangle_mesh_within_bounds(
        TriangleMesh(Vector3dVector(mesh.vertices), Vector3iVector(mesh.faces)), cell,
        -shape * cell / 2, shape * cell / 2)
    surface = np.zeros(shape, bool)
    surface[tuple(np.array([voxel.grid_index for voxel in touched.get_voxels()]).T)] = True
    outside = _reached(~surface)
    crossed = [_crossings(scene, shape, cell, axis) > 0 for axis in range(3)]
    for _ in range(2):  # the surface's cells are hardly thicker
        before = outside.copy()
        for axis in range(3):
            new, old, wall = (np.moveaxis(a, axis, 0) for a in (outside, before, crossed[axis]))
            new[1:] |= old[:-1] & ~wall[1:]
            new[:-1] |= old[1:] & ~wall[1:]
    near = ndimage.maximum_filter(~outside, 3)
    if near[surface].mean() < KNOWN:
        return None
    return _filled(_trimmed(~outside | (surface & ~near)))


def _cell_of(mesh: trimesh.Trimesh) -> float:
    """Return the side in metres of cells that are fine enough for a mesh's walls."""
    points, faces = trimesh.sample.sample_surface(mesh, 4000, seed=0)
    scene = raycasting_scene(np.array(mesh.vertices, np.float32), mesh.faces)
    side = mesh.extents.max()
    apart = 1e-4 * side  # two faces at one place are no wall
    walls = []
    for ahead in (mesh.face_normals[faces], -mesh.face_normals[faces]):  # either may be inward
        rays = np.concatenate([points + apart * ahead, ahead], axis=1).astype(np.float32)
        walls.append(scene.cast_rays(rays)['t_hit'].numpy() + apart)
    thin = np.percentile(np.minimum(*walls), 5)
    return side / next((n for n in CELLS if thin * n >= WALL_CELLS * side), CELLS[-1])


def _reached(free: np.ndarray) -> np.ndarray:
    """Return the free cells that are reached from outside the grid, (X, Y, Z) bool."""
    regions, _ = ndimage.label(np.pad(free, 1, constant_values=True))
    return (regions == regions[0, 0, 0])[1:-1, 1:-1, 1:-1]


def _filled(solid: np.ndarray) -> np.ndarray:
    """Close sealed hollows."""
    return ~_reached(~solid)


def _trimmed(solid: np.ndarray) -> np.ndarray:
    """Cut empty margins off, the same from both ends, so that the centre stays."""
    filled = np.argwhere(solid)
    margin = np.minimum(filled.min(axis=0), np.array(solid.shape) - 1 - filled.max(axis=0))
    return solid[tuple(slice(m, n - m) for m, n in zip(margin, solid.shape))]


@cache
def household_object(kind: str, number: int) -> Shape:
    """
    Draw a household object; the same number always gives the same one.

    :param kind: a class name in `HOUSEHOLD`
    """
    random = np.random.default_rng([list(HOUSEHOLD).index(kind), number])
    return _shape(f'procedural/{kind}/{number}', kind, HOUSEHOLD[kind](random))


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
