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

if TYPE_CHECKING:
    from img2scene_ros.learning.shapes import Library
    from img2scene_ros.learning.shapes import Shape

FORMAT = 1
# Surfaces of Pix3D's models run through the centres of the outer cells; this is a little less, so
# that sheets of one cell remain.
PIX3D_SWELL = 0.45
MOST_COLORS, LEAST_SHARE = 4, 0.03  # base colours of a shape, and their least share of its area
TEXTS = ('names', 'labels', 'authors', 'splits', 'places')
NUMBERS = ('grids', 'cells', 'sizes')


@dataclass(frozen=True, eq=False)
class PackedShapes:
    """Many shapes' solids; every field holds one entry for each shape."""

    names: tuple[str, ...]  # source/class/number or the like, unique
    labels: tuple[str, ...]  # class names
    authors: tuple[str, ...]  # '' = unknown
    splits: tuple[str, ...]  # 'train' or 'test'; no label by one known author is in both
    places: tuple[str, ...]  # where they stand, 'table' or 'floor'
    grids: np.ndarray  # (N, 3), number of cells along x, y, z
    cells: np.ndarray  # (N,) metres before `sizes`, the side of a cell
    # (N, 2), least and greatest factor that makes a size that such things come in
    sizes: np.ndarray
    # (k, 3) uint8 each, RGB, the widest first; none where materials are drawn at random
    colors: tuple[np.ndarray, ...]
    # (B,) uint8, the solids, packed by `np.packbits` and deflated, one after the other
    bits: np.ndarray
    ends: np.ndarray  # (N,), where each ends in `bits`
    skipped: tuple[str, ...]  # reasons, for shapes that are not in the file

    def __len__(self) -> int:
        """Return the number of shapes."""
        return len(self.names)

    def swell(self, index: int) -> float:
        """Return how far the solid reaches beyond the true surface, in cells."""
        return PIX3D_SWELL if self.names[index].startswith('pix3d/') else 0.0

    def solid(self, index: int) -> np.ndarray:
        """Return the full cells, (X, Y, Z) bool, z up; the grid's middle is the origin."""
        start = self.ends[index - 1] if index else 0
        bits = zlib.decompress(self.bits[start:self.ends[index]].tobytes())
        grid = self.grids[index]
        return np.unpackbits(
            np.frombuffer(bits, np.uint8), count=grid.prod()).reshape(grid).view(bool)


def read_packed(path: Path) -> PackedShapes:
    """
    Read a file of shapes.

    :raises InputError: it cannot be read, is broken or is another file
    """
    try:
        with np.load(path) as arrays:
            about = json.loads(arrays['about'].tobytes())
            if about['format'] != FORMAT:
                raise ValueError(f"its format is {about['format']}, not {FORMAT}")
            columns: dict[str, Any] = {name: tuple(about[name]) for name in TEXTS}
            columns |= {name: arrays[name] for name in NUMBERS}
            packed = PackedShapes(
                **columns,
                colors=tuple(np.array(some, np.uint8).reshape(-1, 3) for some in about['colors']),
                bits=arrays['bits'], ends=arrays['ends'], skipped=tuple(about['skipped']))
    except (OSError, ValueError, KeyError, TypeError, EOFError, AttributeError,
            zipfile.BadZipFile, zlib.error) as error:
        raise InputError(
            f"cannot read the shapes '{path}'; make the file with `img2scene pack-shapes` "
            f'({type(error).__name__}: {error})') from error
    return packed


def pack_shapes(
    out: Path,
    pix3d: Path | None,
    meshes: Sequence[Path],
    progress: Callable[[int, int], None] = lambda done, total: None,
    jobs: int = 1,
) -> PackedShapes:
    """
    Write all shapes that rendered data is made of into one file; it appears whole or not at all.

    The split is that of `img2scene render`. A label of one author that one folder of meshes tests
    is not trained on from another.

    :param pix3d: a folder of CATEGORY/SHAPE/voxel.mat and model.ply; None for none
    :param meshes: folders of metric GLB meshes
    :param progress: is called with the numbers of finished and of all shapes
    :param jobs: processes
    :raises InputError: a folder that holds no shapes, or a file that cannot be written
    """
    from img2scene_ros.learning.processes import shared_out

    tasks, reasons = _tasks(pix3d, meshes)
    records: list[dict[str, Any]] = []
    for done, record in enumerate(shared_out(_record, tasks, jobs), 1):
        if isinstance(record, str):
            reasons.append(record)
        else:
            records.append(record)
        progress(done, len(tasks))
    packed = packed_of(records, reasons)
    write_packed(out, packed)
    return packed


def packed_of(records: Sequence[dict[str, Any]], skipped: Sequence[str] = ()) -> PackedShapes:
    """Put what `record_of` returns of shapes together."""
    columns: dict[str, Any] = {
        name: tuple(record[name] for record in records) for name in records[0]}
    bits = columns.pop('bits')
    return PackedShapes(
        **columns | {name: np.array(columns[name]) for name in NUMBERS},
        bits=np.frombuffer(b''.join(bits), np.uint8),
        ends=np.cumsum([len(some) for some in bits]), skipped=tuple(skipped))


def record_of(shape: 'Shape', split: str, place: str, author: str = '') -> dict[str, Any]:
    """Return a shape's entry for every field."""
    return {
        'names': shape.name, 'labels': shape.label, 'authors': author, 'splits': split,
        'places': place, 'grids': shape.grid, 'cells': shape.cell, 'sizes': shape.sizes,
        'colors': base_colors(shape), 'bits': zlib.compress(shape.bits.tobytes(), 9)}


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


def _record(task: _Task) -> dict[str, Any] | str:
    """Return a shape's entry for every field, or why it is skipped."""
    try:
        shape = task.library.load(task.name)
    except InputError as error:
        return f'{task.name}: {error}'
    return record_of(shape, task.split, task.place, task.kind[0] if task.kind else '')


def base_colors(shape: 'Shape') -> np.ndarray:
    """Return the few colours that cover most of a shape, the widest first: (k, 3) uint8, RGB."""
    import cv2

    if shape.colors is None:
        return np.zeros((0, 3), np.uint8)
    a, b, c = np.moveaxis(shape.vertices[shape.faces], 1, 0)
    areas = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    chosen = np.random.default_rng(0).choice(len(areas), 5000, p=areas / areas.sum())
    seen = shape.colors[shape.faces[chosen]].mean(axis=1, dtype=np.float32)
    cv2.setRNGSeed(0)
    _, nearest, colors = cv2.kmeans(
        seen, min(MOST_COLORS, len(np.unique(seen, axis=0))), np.zeros((len(seen), 1), np.int32),
        (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 30, 0.5), 3, cv2.KMEANS_PP_CENTERS)
    shares = np.bincount(nearest.ravel(), minlength=len(colors)) / len(seen)
    order = np.argsort(-shares)
    return np.rint(colors[order[shares[order] >= LEAST_SHARE]]).astype(np.uint8)


def write_packed(out: Path, packed: PackedShapes) -> None:
    """
    Write a file of shapes; it appears whole or not at all.

    :raises InputError: it cannot be written
    """
    about = {name: getattr(packed, name) for name in (*TEXTS, 'skipped')}
    about |= {'format': FORMAT, 'colors': [some.tolist() for some in packed.colors]}
    write_whole(out, lambda file: np.savez_compressed(
        file, about=np.frombuffer(json.dumps(about).encode(), np.uint8), grids=packed.grids,
        cells=packed.cells, sizes=packed.sizes, bits=packed.bits, ends=packed.ends))
