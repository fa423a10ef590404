# SPDX-License-Identifier: Apache-2.0
"""
How well voxel networks rebuild the things in Pix3D's photos: `img2scene evaluate pix3d`.

Networks answer in the view frame of a crop, up to a scale; Pix3D's protocol compares volumes in
the model's own axes. The annotated pose takes the one to the other: the cube is put at the true
visible depth, and the answer is looked up at the cells of a grid along the model's axes. So
orientation, distance and scale come from the truth, and what is compared is the shape.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from itertools import count
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from img2scene_ros.detection import bbox_of
from img2scene_ros.errors import InputError
from img2scene_ros.learning.augmentation import Example
from img2scene_ros.learning.evaluation import BATCH
from img2scene_ros.learning.evaluation import COLOR
from img2scene_ros.learning.evaluation import MASK
from img2scene_ros.learning.evaluation import RESOLUTION
from img2scene_ros.learning.evaluation import ROWS
from img2scene_ros.learning.evaluation import Candidate
from img2scene_ros.learning.evaluation import Report
from img2scene_ros.learning.evaluation import Scores
from img2scene_ros.learning.evaluation import baselines
from img2scene_ros.learning.evaluation import case_of
from img2scene_ros.learning.evaluation import means_of_others
from img2scene_ros.learning.evaluation import predict
from img2scene_ros.learning.evaluation import score_tables
from img2scene_ros.learning.metrics import pix3d_scores
from img2scene_ros.learning.metrics import surface_mesh
from img2scene_ros.learning.pix3d import Pix3dPicture
from img2scene_ros.learning.pix3d import load_prepared
from img2scene_ros.learning.samples import coarser
from img2scene_ros.learning.samples import evenly
from img2scene_ros.learning.sheets import draw_predictions
from img2scene_ros.learning.volumes import cells_reached
from img2scene_ros.models.crop import Crop
from img2scene_ros.models.crop import CropView
from img2scene_ros.models.crop import Cube
from img2scene_ros.models.crop import anchor_depth
from img2scene_ros.models.crop import cut_crop
from img2scene_ros.rendering.raycast import Surface
from img2scene_ros.rendering.raycast import render
from img2scene_ros.tables import markdown_table
from img2scene_ros.types import Frame

SIZE = 112  # pixels of a crop, which networks get at the size they know
FINE = 64  # cells of the true volume before it is pooled to 32
# The grid along the model's axes: two published cells wide, with room around the model for what
# was predicted beyond it. The protocol would pool more than 100 cells a side.
STEP, MARGIN, CELLS = 2, 18, 100
CEILING = f'truth in {RESOLUTION}^3 cells'  # what no answer of that resolution can beat
BASELINES = 5  # of both inputs together, the ceiling among them


@dataclass(frozen=True, eq=False)
class PictureView:
    """One picture as a network sees it, and its truth."""

    picture: Pix3dPicture
    crop: Crop  # without depth
    anchor: float  # median visible depth of the true shape at its true pose, in the model's unit
    # (4, 4), takes an index of the published voxels to the crop view frame
    grid_to_view: np.ndarray

    @property
    def cube(self) -> Cube:
        """Return the cube that the volumes fill."""
        return self.crop.view.cube(self.anchor)

    def truth(self, resolution: int) -> np.ndarray:
        """Return the cells of the cube that the true shape reaches into, [z, y, x] bool."""
        solid = ndimage.binary_fill_holes(self.picture.read_voxels())
        return cells_reached(
            solid, self.cube.to_cells(resolution) @ self.grid_to_view, resolution)

    def example(self) -> Example:
        """Return what networks get."""
        return Example(self.crop.color, self.crop.mask, None, self.anchor,
                       self.crop.view.half_field, coarser(self.truth(FINE), RESOLUTION))


def evaluate_pix3d(
    prepared: Path, candidates: Sequence[Candidate],
    progress: Callable[[int, int], None] = lambda done, total: None, every: bool = False,
) -> Report:
    """
    Score networks on prepared photos of Pix3D by its own protocol, category by category.

    :param prepared: what `img2scene prepare-pix3d` wrote
    :param progress: is called with the numbers of finished and of all pictures
    :param every: also pictures that are truncated or occluded, which the protocol skips
    :raises InputError: no prepared data, or no picture to score
    """
    pictures = load_prepared(prepared)
    chosen = pictures if every else [
        picture for picture in pictures
        if not (picture.truncated or picture.occluded or picture.slightly_occluded)]
    if not chosen:
        raise InputError(
            f"'{prepared}' holds no picture to score: {len(pictures)} are prepared, all truncated "
            'or occluded; --all takes them, too')
    chosen = sorted(chosen, key=lambda picture: picture.category)
    drawn = set(evenly(len(chosen), ROWS))
    scores: dict[tuple[str, str], Scores] = {}
    official, categories, rows, skipped = [], [], [], []
    steps = count(1)
    total = len(chosen) * (1 + 2 * len(candidates) + BASELINES)
    numbered = enumerate(chosen)
    for category, group in groupby(numbered, lambda item: item[1].category):
        views = []
        for number, picture in group:
            progress(next(steps), total)
            view = view_of_picture(picture)
            if view is None:
                skipped.append(f'{picture.id}: the mask does not show the model')
                continue
            views.append(view)
            if number in drawn:
                rows.append(_drawn(view, candidates))
        if views:
            categories += [category] * len(views)
            official += _score(
                category, views, candidates, scores, lambda: progress(next(steps), total))
    if not categories:
        raise InputError(f"no picture in '{prepared}' can be scored: {skipped[0]}")
    progress(total, total)
    summaries = [score.summary(categories) for name in (COLOR, MASK)
                 for score in scores.values() if score.input == name]
    about = {
        'pictures': len(categories), 'of': len(pictures), 'truncated_and_occluded': every,
        'weights': {candidate.title: candidate.config.get('step') for candidate in candidates}}
    title = (f'{len(categories)} of {len(pictures)} pictures'
             f"{'' if every else ', neither truncated nor occluded'}.")
    return Report(
        {'about': about, 'official': official, 'scores': summaries, 'skipped': skipped},
        _markdown(title, official, summaries), np.vstack(rows), skipped)


def view_of_picture(picture: Pix3dPicture) -> PictureView | None:
    """Return what a network sees of a picture; None when the mask misses the model."""
    mask = picture.read_mask()
    crop = cut_crop(Frame(picture.read_image(), picture.camera), bbox_of(mask), mask, SIZE)
    to_view = np.eye(4)
    to_view[:3, :3] = crop.view.rotation.T
    grid_to_view = to_view @ picture.grid_to_camera
    depth = _depth_of(picture.read_voxels(), grid_to_view, crop.view)
    anchor = anchor_depth(depth, crop.mask)
    return None if anchor is None else PictureView(picture, crop, anchor, grid_to_view)


def _depth_of(voxels: np.ndarray, grid_to_view: np.ndarray, view: CropView) -> np.ndarray:
    """Return the depth of the true shape at its true pose in a crop, NaN beside it."""
    vertices, faces = surface_mesh(voxels, 0.5)
    points = vertices @ grid_to_view[:3, :3].T + grid_to_view[:3, 3]
    return render([Surface(points, faces, np.zeros(points.shape, np.uint8), 1)],
                  view.camera(SIZE)).depth


def in_model_axes(volume: np.ndarray, view: PictureView) -> np.ndarray:
    """
    Carry a volume from the cube of its crop into the model's axes, trilinear.

    :param volume: (R, R, R), [z, y, x]
    :return: (100, 100, 100), axes as those of the published voxels, cells twice as wide
    """
    grid = np.eye(4)  # takes the result's index to the published one
    grid[:3, :3] *= STEP
    grid[:3, 3] = STEP * (0.5 - MARGIN) - 0.5
    matrix = view.cube.to_cells(len(volume)) @ view.grid_to_view @ grid
    return ndimage.affine_transform(
        volume.astype(np.float32), matrix[:3, :3], matrix[:3, 3], (CELLS,) * 3, order=1)


def _score(
    category: str, views: Sequence[PictureView], candidates: Sequence[Candidate],
    scores: dict[tuple[str, str], Scores], step: Callable[[], None],
) -> list[dict[str, Any]]:
    """Score a category: adds to `scores`, returns the official ones; `step` is called often."""
    official = []
    whole = [view.example() for view in views]
    for name in (COLOR, MASK):
        examples = whole if name == MASK else [replace(one, mask=None) for one in whole]
        cases = [case_of(example) for example in examples]
        truths = [case.truth for case in cases]
        means = means_of_others(
            truths, [category] * len(cases), [str(view.picture.voxels) for view in views])
        methods: dict[str, tuple[float | None, str, list[np.ndarray]]] = {
            candidate.title: (candidate.threshold(with_depth=False), '', [
                volume.astype(np.float16) for first in range(0, len(examples), BATCH)
                for volume in predict(candidate, examples[first:first + BATCH])])
            for candidate in candidates}
        for method, (constant, volumes) in baselines(cases, means).items():
            methods[method] = None, constant, volumes
        methods[CEILING] = None, '', truths
        for method, (threshold, constant, volumes) in methods.items():
            if method != CEILING:
                scores.setdefault(
                    (method, name), Scores(method, name, threshold, 'best per category'),
                ).add(volumes, cases)
            found = pix3d_scores(
                _carried(volumes, views, step),
                (view.picture.read_voxels() for view in views))
            official.append({
                'category': category, 'pictures': len(views), 'input': name, 'method': method,
                'constant': constant, 'iou': float(found.iou.mean()),
                'threshold': found.threshold, 'chamfer': float(found.chamfer.mean()),
                'emd': float(found.emd.mean())})
    return official


def _carried(
    volumes: Sequence[np.ndarray], views: Sequence[PictureView], step: Callable[[], None],
) -> Iterator[np.ndarray]:
    for volume, view in zip(volumes, views):
        step()
        yield in_model_axes(volume, view)


def _drawn(view: PictureView, candidates: Sequence[Candidate]) -> np.ndarray:
    example = view.example()
    return draw_predictions(view.picture.category, view.crop, view.cube, {
        'truth': example.occupancy, **{
            f'{candidate.name}: {MASK}':
                predict(candidate, [example])[0] > candidate.threshold(with_depth=False)
            for candidate in candidates}})


def _markdown(
    title: str, official: Sequence[dict[str, Any]], summaries: Sequence[dict[str, Any]],
) -> str:
    columns = {name: name for name in ('category', 'pictures', 'input', 'method')} | {
        'iou': 'IoU', 'threshold': 'threshold', 'chamfer': 'CD', 'emd': 'EMD'}
    protocol = markdown_table(
        list(columns.values()), [[one[name] for name in columns] for one in official])
    return '\n\n'.join([
        title, "Pix3D's protocol, in the model's axes by the annotated pose:", protocol,
        "In the crop's view frame:", score_tables(summaries)]) + '\n'
