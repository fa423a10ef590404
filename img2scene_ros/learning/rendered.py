# SPDX-License-Identifier: Apache-2.0
"""Writes rendered data sets: `img2scene render`."""

from collections.abc import Callable
from collections.abc import Iterable
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path

from img2scene_ros.errors import InputError
from img2scene_ros.learning import samples
from img2scene_ros.learning.data_config import RenderOptions
from img2scene_ros.learning.processes import shared_out
from img2scene_ros.learning.shapes import Library
from img2scene_ros.learning.shapes import open_library
from img2scene_ros.learning.synthetic import crop_samples
from img2scene_ros.learning.synthetic import scene_samples


def render_dataset(
    shapes: Path | None,
    meshes: Path | None,
    out: Path,
    options: RenderOptions,
    jobs: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Library:
    """
    Render a data set, or finish one that was interrupted.

    Every shard depends on the options and its own number only, so the files are the same however
    many processes make them, and shards that are there already are kept.

    :param shapes: folder laid out like Pix3D's models; None for none
    :param meshes: folder of metric GLB meshes; None for none
    :param out: the data set's folder
    :param jobs: processes
    :param progress: is called with the numbers of finished and of all samples
    :return: the shapes that were drawn from
    :raises InputError: no shapes, a broken one, or a folder that cannot be used
    """
    library = open_library(
        shapes, meshes, options.split, options.test_share, options.split_seed)
    count = -(-options.samples // options.shard_samples)
    names = [_shard_name(number) for number in range(count)]
    _start(out, {
        'options': asdict(options), 'shards': names, 'shapes': library.names,
        'skipped': library.skipped})
    todo = [number for number in range(count) if not (out / names[number]).is_file()]
    finished = count - len(todo)
    progress(min(finished * options.shard_samples, options.samples), options.samples)
    for _ in shared_out(partial(_render_shard, library, options, out), todo, jobs):
        finished += 1
        progress(min(finished * options.shard_samples, options.samples), options.samples)
    return library


def _start(out: Path, index: dict) -> None:
    """Write the index, unless the same one is there already."""
    if (out / 'index.json').exists():
        before = samples.read_index(out)
        if before != before | index:
            raise InputError(
                f"'{out}' holds a data set of other options or shapes; give another folder, or "
                'delete it')
    elif out.is_dir() and any(out.iterdir()):
        raise InputError(f"the folder '{out}' is not empty; give a new one")
    samples.write_index(out, index)


def _shard_name(number: int) -> str:
    return f'shard_{number:05d}.npz'


def _render_shard(library: Library, options: RenderOptions, out: Path, number: int) -> None:
    count = min(options.shard_samples, options.samples - number * options.shard_samples)
    if options.kind == 'crops':
        records: Iterable = map(samples.encode_crop, crop_samples(library, options, number))
    else:
        records = map(samples.encode_scene, scene_samples(library, options, number))
    samples.write_shard(out / _shard_name(number), list(islice(records, count)))
