# SPDX-License-Identifier: Apache-2.0
"""
Shapes in one file: solids, sizes, labels and base colours, without surfaces.

Reading takes numpy alone; packing (`img2scene pack-shapes`) takes Open3D and trimesh.
"""

import json
import zipfile
import zlib
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any
from typing import NamedTuple

import numpy as np

from img2scene_ros.errors import InputError
from img2scene_ros.files import write_whole
from img2scene_ros.learning.data_config import SPLITS
from img2scene_ros.learning.data_config import RenderOptions
from img2scene_ros.rendering.normals import face_areas

if TYPE_CHECKING:
    from img2scene_ros.learning.shapes import Library
    from img2scene_ros.learning.shapes import Shape

FORMAT = 1
# Surfaces of Pix3D's models run through the centres of the outer cells; this is a little less, so
# that sheets of one cell remain.
PIX3D_SWELL = 0.45
MOST_COLORS, LEAST_SHARE = 4, 0.03  # base colours of a shape, and their least share of its area
# What the file holds, one entry for each shape, and the field of `PackedShape` that it is.
TEXTS = {'names': 'name', 'labels': 'label', 'authors': 'author', 'splits': 'split',
         'places': 'place'}
NUMBERS = {'grids': 'grid', 'cells': 'cell', 'sizes': 'sizes'}


@dataclass(frozen=True, eq=False)
class PackedShape:
    """A shape's solid, and what scenes need to know of it."""

    name: str  # source/class/number or the like, unique
    label: str  # class name
    author: str  # '' = unknown
    split: str  # 'train' or 'test'; no label by one known author is in both
    place: str  # where it stands, 'table' or 'floor'
    grid: tuple[int, int, int]  # number of cells along x, y, z
    cell: float  # metres before `sizes`, the side of a cell
    sizes: tuple[float, float]  # least and greatest factor that makes a size such things come in
    # (k, 3) uint8, RGB, the widest first; none where materials are drawn at random
    colors: np.ndarray
    bits: bytes  # the solid, packed by `np.packbits` and deflated

    @property
    def swell(self) -> float:
        """Return how far the solid reaches beyond the true surface, in cells."""
        return PIX3D_SWELL if self.name.startswith('pix3d/') else 0.0

    @property
    def solid(self) -> np.ndarray:
        """Return the full cells, (X, Y, Z) bool, z up; the grid's middle is the origin."""
        bits = np.frombuffer(zlib.decompress(self.bits), np.uint8)
        return np.unpackbits(bits, count=np.prod(self.grid)).reshape(self.grid).view(bool)


def read_packed(path: Path) -> list[PackedShape]:
    """
    Read a file of shapes.

    :raises InputError: it cannot be read, is broken or is another file
    """
    try:
        with np.load(path) as arrays:
            about = json.loads(arrays['about'].tobytes())
            if about['format'] != FORMAT:
                raise ValueError(f"its format is {about['format']}, not {FORMAT}")
            columns = {field: about[name] for name, field in TEXTS.items()}
            columns |= {field: arrays[name].tolist() for name, field in NUMBERS.items()}
            columns['colors'] = [
                np.array(some, np.uint8).reshape(-1, 3) for some in about['colors']]
            bits, ends = arrays['bits'].tobytes(), arrays['ends'].tolist()
            columns['bits'] = [bits[start:end] for start, end in zip([0, *ends], ends)]
            return [PackedShape(**dict(zip(columns, row))) for row in zip(*columns.values())]
    except (OSError, ValueError, KeyError, TypeError, EOFError, AttributeError,
            zipfile.BadZipFile, zlib.error) as error:
        raise InputError(
            f"cannot read the shapes '{path}'; make the file with `img2scene pack-shapes` "
            f'({type(error).__name__}: {error})') from error


def write_packed(
    out: Path, shapes: Sequence[PackedShape], skipped: Sequence[str] = (),
) -> None:
    """
    Write a file of shapes; it appears whole or not at all.

    :param skipped: reasons, for shapes that are not in the file
    :raises InputError: it cannot be written
    """
    about: dict[str, Any] = {
        name: [getattr(shape, field) for shape in shapes] for name, field in TEXTS.items()}
    about |= {'format': FORMAT, 'colors': [shape.colors.tolist() for shape in shapes],
              'skipped': list(skipped)}
    numbers: dict[str, Any] = {
        name: np.array([getattr(shape, field) for shape in shapes])
        for name, field in NUMBERS.items()}
    write_whole(out, lambda file: np.savez_compressed(
        file, about=np.frombuffer(json.dumps(about).encode(), np.uint8), **numbers,
        bits=np.frombuffer(b''.join(shape.bits for shape in shapes), np.uint8),
        ends=np.cumsum([len(shape.bits) for shape in shapes])))


def pack_shapes(
    out: Path,
    pix3d: Path | None,
    meshes: Sequence[Path],
    progress: Callable[[int, int], None] = lambda done, total: None,
    jobs: int = 1,
) -> tuple[list[PackedShape], list[str]]:
    """
    Write all shapes that rendered data is made of into one file; it appears whole or not at all.

    The split is that of `img2scene render`. A label of one author that one folder of meshes tests
    is not trained on from another.

    :param pix3d: a folder of CATEGORY/SHAPE/voxel.mat and model.ply; None for none
    :param meshes: folders of metric GLB meshes
    :param progress: is called with the numbers of finished and of all shapes
    :param jobs: processes
    :return: the shapes, and the reasons why others are not in the file
    :raises InputError: a folder that holds no shapes, or a file that cannot be written
    """
    from img2scene_ros.learning.processes import shared_out

    tasks, reasons = _tasks(pix3d, meshes)
    packed: list[PackedShape] = []
    for done, one in enumerate(shared_out(_packed, tasks, jobs), 1):
        if isinstance(one, str):
            reasons.append(one)
        else:
            packed.append(one)
        progress(done, len(tasks))
    write_packed(out, packed, reasons)
    return packed, reasons


def packed_shape(shape: 'Shape', split: str, place: str, author: str = '') -> PackedShape:
    """Return what is kept of a shape."""
    return PackedShape(
        shape.name, shape.label, author, split, place, shape.grid, shape.cell, shape.sizes,
        base_colors(shape), zlib.compress(shape.bits.tobytes(), 9))


class _Task(NamedTuple):
    """A shape to pack; `kind` is who made a mesh, and its label."""

    library: 'Library'
    name: str
    kind: tuple[str, str] | None
    split: str
    place: str


def _tasks(pix3d: Path | None, meshes: Sequence[Path]) -> tuple[list[_Task], list[str]]:
    """Return the shapes to pack, and the reasons why others are not."""
    from img2scene_ros.learning.shapes import Library
    from img2scene_ros.learning.shapes import mesh_kind
    from img2scene_ros.learning.shapes import open_library

    usual = RenderOptions()
    tasks, reasons = [], []
    for source in ((pix3d, None), *((None, Path(folder)) for folder in meshes)):
        for split in SPLITS:
            library = open_library(*source, split, usual.test_share, usual.split_seed)
            reasons += library.skipped
            for place, groups in library.groups.items():
                for name in sum(groups, []):
                    is_mesh = name.startswith('mesh/')
                    if is_mesh == bool(library.meshes):  # all libraries have household objects
                        kind = mesh_kind(library.meshes / f'{name[5:]}.glb') \
                            if is_mesh and library.meshes else None
                        tasks.append(_Task(Library(*source, {}), name, kind, split, place))
    tested = {task.kind for task in tasks if task.kind and task.split == 'test'}
    kept: dict[str, _Task] = {}
    for task in tasks:
        if task.kind in tested and task.split == 'train':
            reasons.append(f'{task.name}: its label and author are tested with another folder')
        elif task.name in kept:
            reasons.append(f"{task.name}: another folder than '{task.library.meshes}' has it, too")
        else:
            kept[task.name] = task
    return list(kept.values()), list(dict.fromkeys(reasons))


def _packed(task: _Task) -> PackedShape | str:
    """Return what is kept of a shape, or why it is skipped."""
    try:
        shape = task.library.load(task.name)
    except InputError as error:
        return f'{task.name}: {error}'
    return packed_shape(shape, task.split, task.place, task.kind[0] if task.kind else '')


def base_colors(shape: 'Shape') -> np.ndarray:
    """Return the few colours that cover most of a shape, the widest first: (k, 3) uint8, RGB."""
    import cv2

    if shape.colors is None:
        return np.zeros((0, 3), np.uint8)
    areas = face_areas(shape.vertices, shape.faces)
    chosen = np.random.default_rng(0).choice(len(areas), 5000, p=areas / areas.sum())
    seen = shape.colors[shape.faces[chosen]].mean(axis=1, dtype=np.float32)
    cv2.setRNGSeed(0)
    _, nearest, colors = cv2.kmeans(
        seen, min(MOST_COLORS, len(np.unique(seen, axis=0))), np.zeros((len(seen), 1), np.int32),
        (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 30, 0.5), 3, cv2.KMEANS_PP_CENTERS)
    shares = np.bincount(nearest.ravel(), minlength=len(colors)) / len(seen)
    order = np.argsort(-shares)
    return np.rint(colors[order[shares[order] >= LEAST_SHARE]]).astype(np.uint8)
