# SPDX-License-Identifier: Apache-2.0
"""
The shapes that rendered training data is made of.

Three sources: folders laid out like Pix3D's (CATEGORY/SHAPE/voxel.mat and model.ply), metric
textured GLB meshes, and household objects drawn at random. Every shape has a solid beside its
surface, and belongs to one split: a network is never tested on a shape that it was trained on.
"""

import json
from dataclasses import dataclass
from dataclasses import field
from functools import cache
from pathlib import Path

import numpy as np
import trimesh

from img2scene_ros.errors import InputError
from img2scene_ros.learning import volumes
from img2scene_ros.learning.household import HOUSEHOLD

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
        widest = mesh.extents.max() / volumes.CELLS[0]
        if _closed_parts(mesh) is None and volumes.flooded(mesh, widest) is None:
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
    solid = volumes.filled(volumes.trimmed(voxels))
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
    cell = volumes.cell_of(mesh)
    if parts is not None:
        return volumes.filled(volumes.solid_of(parts, cell)), cell
    # Small cells leak through more gaps.
    for side in (cell, mesh.extents.max() / volumes.CELLS[0]):
        solid = volumes.flooded(mesh, side)
        if solid is not None:
            return solid, side
    raise InputError(f"the mesh '{path}' is not closed, and no inside is found")


def _closed_parts(mesh: trimesh.Trimesh) -> list[trimesh.Trimesh] | None:
    """Return the connected parts of a mesh, None when one of them is not closed."""
    bare = trimesh.Trimesh(mesh.vertices, mesh.faces, validate=True)
    return list(bare.split()) if bare.is_watertight else None


def _creased(mesh: trimesh.Trimesh) -> tuple[np.ndarray, np.ndarray]:
    """Return vertices and faces whose sharp edges have vertices of their own, to look sharp."""
    split = trimesh.graph.smooth_shade(mesh, angle=CREASE)
    return np.asarray(split.vertices), np.asarray(split.faces)


@cache
def household_object(kind: str, number: int) -> Shape:
    """
    Draw a household object; the same number always gives the same one.

    :param kind: a class name in `HOUSEHOLD`
    """
    random = np.random.default_rng([list(HOUSEHOLD).index(kind), number])
    parts = HOUSEHOLD[kind](random)
    whole = trimesh.util.concatenate(parts)
    center = whole.bounds.mean(axis=0)
    vertices, faces = _creased(whole)
    cell = volumes.cell_of(whole)
    centered = [part.apply_translation(-center) for part in parts]
    solid = volumes.filled(volumes.solid_of(centered, cell))
    return Shape(f'procedural/{kind}/{number}', kind, vertices - center, faces,
                 np.packbits(solid), solid.shape, cell)
