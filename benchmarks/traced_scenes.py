# SPDX-License-Identifier: Apache-2.0
"""
How the renderer of many scenes at once compares with the ray caster.

    python benchmarks/traced_scenes.py parity [PIX3D_SHAPES]
    python benchmarks/traced_scenes.py learn OUT [NAME=VALUE ...]

`parity` prints errors of depth and masks, and the time of both on one core. `learn` trains the
same small network on the same crops of household objects, drawn by either, and prints the IoU of
both on the same crops of other objects.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from time import process_time

import numpy as np
import torch
from arranged_scenes import camera_of
from arranged_scenes import stage_of
from arranged_scenes import stock_of

from img2scene_ros.learning import live
from img2scene_ros.learning import students
from img2scene_ros.learning.arrangements import arrange
from img2scene_ros.learning.household import HOUSEHOLD
from img2scene_ros.learning.loop import carry_out
from img2scene_ros.learning.packed_shapes import packed_shape
from img2scene_ros.learning.packed_shapes import write_packed
from img2scene_ros.learning.shapes import household_object
from img2scene_ros.learning.shapes import open_library
from img2scene_ros.rendering import traced
from img2scene_ros.rendering.fields import DistanceFields

TRAIN, TEST = range(6), range(60, 63)  # numbers of the household objects
SETTINGS = ['size=64', 'resolution=32', 'batch=16', 'chunk=100', 'kept=20', 'reuse=8',
            'steps=400', 'validate_every=400', 'validation_samples=150', 'learning_rate=0.002',
            'model.width=24', 'model.slices=48', 'model.deep=2', 'model.fine=12',
            'precision=fp32']


def parity(pix3d: Path | None) -> None:
    """Print how both renderers see the same scenes."""
    shapes = [household_object(kind, 1) for kind in HOUSEHOLD]
    if pix3d:
        library = open_library(pix3d, None, 'test', 0.15, 0)
        names = [name for name in library.names if name.startswith('pix3d/')]
        shapes += [library.load(name) for name in names[::3]]
    shapes = tuple(shapes)
    stock = stock_of(shapes)
    scenes = arrange(stock, torch.Generator().manual_seed(0), 40, live.WIDTH, live.HEIGHT)
    begin = process_time()
    seen = traced.draw(stock.fields, scenes, live.WIDTH, live.HEIGHT)
    plain = process_time() - begin
    begin = process_time()
    traced.draw(stock.fields, scenes, live.WIDTH, live.HEIGHT, torch.Generator())
    print(f'traced: {40 / plain:.1f} scenes per second of depth and ids, '
          f'{40 / (process_time() - begin):.1f} with colour')
    errors, shared, union, spent = [], 0, 0, 0.0
    for number in range(40):
        stage = stage_of(scenes, number, shapes)
        begin = process_time()
        cast = stage.look(*camera_of(scenes, number, live.WIDTH, live.HEIGHT))
        spent += process_time() - begin
        ids = seen.ids[number].numpy()
        for item in np.unique(cast.ids[cast.ids > 0]):
            shared += np.count_nonzero((ids == item) & (cast.ids == item))
            union += np.count_nonzero((ids == item) | (cast.ids == item))
        same = (ids == cast.ids) & (ids > 0)
        item = ids[same] - 1
        cell = (stock.fields.cell[scenes.shape[number][item]]
                * scenes.pose[number][item][:, :3, :3].norm(dim=1).amax(dim=1)).numpy()
        errors.append((seen.depth[number].numpy() - cast.depth)[same] / cell)
    errors = np.concatenate(errors)
    print(f'ray caster: {40 / spent:.1f} scenes per second without shadows')
    print(f'masks: IoU {shared / union:.4f}; depth, in cells: mean {errors.mean():.2f}, '
          f'of {(np.abs(errors) < 1).mean():.1%} below 1, median {np.median(np.abs(errors)):.2f}')


def learn(out: Path, settings: list[str]) -> None:
    """Print what is learned from either renderer."""
    out.mkdir(parents=True, exist_ok=True)
    groups = {split: [household_object(kind, n) for kind in HOUSEHOLD for n in numbers]
              for split, numbers in (('train', TRAIN), ('test', TEST))}
    write_packed(out / 'shapes.npz', [packed_shape(shape, split, 'table')
                                      for split, group in groups.items() for shape in group])
    options = students.read_student_options('shape', [*SETTINGS, *settings])
    for name, draw in (('traced', traced.draw), ('cast', _casting(groups))):
        live.draw = draw
        student = students.STUDENTS['shape'](*options, out / 'shapes.npz')
        carry_out(student, out / name, device=torch.device('cpu'))
        print(f'{name}:\n{(out / name / "table.md").read_text()}')


def _casting(groups: dict[str, list]) -> Callable[..., traced.Pictures]:
    """Return what draws as `traced.draw`, but with the shapes' own surfaces, by the ray caster."""
    by_count = {len(group): tuple(group) for group in groups.values()}

    def draw(
        fields: DistanceFields, scenes: traced.Scenes, width: int, height: int,
        generator: torch.Generator | None = None,
    ) -> traced.Pictures:
        shapes = by_count[len(fields.cell)]
        depth = torch.full((len(scenes.focal), height * width), torch.inf)
        ids = torch.zeros(depth.shape, dtype=torch.int16)
        for number in range(len(depth)):
            cast = stage_of(scenes, number, shapes).look(
                *camera_of(scenes, number, width, height))
            depth[number] = torch.from_numpy(cast.depth.ravel()).nan_to_num(nan=torch.inf)
            ids[number] = torch.from_numpy(cast.ids.ravel().astype(np.int16))
        rays = traced.scene_rays(scenes, width, height)
        color = None
        if generator is not None:
            _, _, axis = traced._boxes_seen(scenes, rays)
            color = traced._colors(
                fields, scenes, rays, depth, ids, axis, height, generator)
        size = len(depth), height, width
        return traced.Pictures(
            torch.where(depth.isfinite(), depth, torch.nan).view(size), ids.view(size), color)

    return draw


if __name__ == '__main__':
    torch.set_num_threads(1)
    if sys.argv[1] == 'parity':
        parity(Path(sys.argv[2]) if len(sys.argv) > 2 else None)
    else:
        learn(Path(sys.argv[2]), sys.argv[3:])
