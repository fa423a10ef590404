# SPDX-License-Identifier: Apache-2.0
"""
How well voxel networks rebuild the things in Pix3D's photos: `img2scene evaluate pix3d`.

Networks answer in the view frame of a crop, up to a scale; Pix3D's protocol compares volumes in
the model's own axes. The annotated pose takes the one to the other: the cube is put at the true
visible depth, and the answer is looked up at the cells of a grid along the model's axes. So
orientation, distance and scale come from the truth, and what is compared is the shape.
"""

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from img2scene_ros.detection import bbox_of
from img2scene_ros.errors import InputError
from img2scene_ros.learning import evaluation
from img2scene_ros.learning.dataset import Example
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
CEILING = f'truth in {evaluation.RESOLUTION}^3 cells'  # what no answer of that resolution can beat


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
                       self.crop.view.half_field, coarser(self.truth(FINE), evaluation.RESOLUTION))


def evaluate_pix3d(
    prepared: Path, candidates: Sequence[evaluation.Candidate],
    progress: Callable[[int, int], None] = lambda done, total: None, every: bool = False,
) -> evaluation.Report:
    """
    Score networks on prepared photos of Pix3D by its own protocol, category by category.

    :param prepared: what `img2scene prepare-pix3d` wrote
    :param progress: is called with the numbers of finished and of all pictures and answers
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
    total = len(chosen) * (1 + 2 * len(candidates))
    step = evaluation.counted(progress, total)
    views: dict[str, list[PictureView]] = {}
    skipped = []
    for picture in sorted(chosen, key=lambda picture: picture.category):
        view = view_of_picture(picture)
        if view is None:
            skipped.append(f'{picture.id}: the mask does not show the model')
        else:
            views.setdefault(picture.category, []).append(view)
        step()
    if not views:
        raise InputError(f"no picture in '{prepared}' can be scored: {skipped[0]}")
    categories = [category for category, some in views.items() for _ in some]
    scores: dict[tuple[str, str], tuple[evaluation.Answers, list[np.ndarray]]] = {}
    official, rows = [], []
    drawn = set(evenly(len(categories), evaluation.ROWS))
    for category, some in views.items():
        found, answered = _score(category, some, candidates, scores, step)
        official += found
        first = categories.index(category)
        rows += [draw_predictions(category, view.crop, view.cube, answered[number])
                 for number, view in enumerate(some) if first + number in drawn]
    progress(total, total)
    summaries = [evaluation.summary(name, one, np.concatenate(values), categories)
                 for wanted in (evaluation.COLOR, evaluation.MASK)
                 for (name, _), (one, values) in scores.items() if name == wanted]
    about = {
        'pictures': len(categories), 'of': len(pictures), 'truncated_and_occluded': every,
        'weights': {candidate.title: candidate.config.get('step') for candidate in candidates}}
    title = (f'{len(categories)} of {len(pictures)} pictures'
             f"{'' if every else ', neither truncated nor occluded'}.")
    return evaluation.Report(
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
    category: str, views: Sequence[PictureView], candidates: Sequence[evaluation.Candidate],
    scores: dict[tuple[str, str], tuple[evaluation.Answers, list[np.ndarray]]],
    step: Callable[[], None],
) -> tuple[list[dict[str, Any]], list[dict[str, np.ndarray]]]:
    """
    Score a category.

    :param scores: by input and method those in the view frame, which are added to
    :return: the official scores, and per view the truth and what is answered to colour and mask
    """
    official = []
    whole = [view.example() for view in views]
    truths = [example.occupancy for example in whole]
    drawn = [{'truth': truth} for truth in truths]
    means = evaluation.means_of_others(
        truths, [category] * len(views), [str(view.picture.voxels) for view in views])
    for name in (evaluation.COLOR, evaluation.MASK):
        examples = whole if name == evaluation.MASK else [replace(one, mask=None) for one in whole]
        cases = [evaluation.case_of(example) for example in examples]
        given = list(evaluation.answers(candidates, examples, cases, means, step))
        for one in given:
            some = one if one.threshold else one._replace(constant='best per category')
            values = evaluation.scores_of(one, cases)
            scores.setdefault((name, one.method), (some, []))[1].append(values)
        for one in [*given, evaluation.Answers(CEILING, None, '', truths)]:
            found = pix3d_scores(
                map(in_model_axes, one.volumes, views),
                (view.picture.read_voxels() for view in views))
            official.append({
                'category': category, 'pictures': len(views), 'input': name,
                'method': one.method, 'constant': one.constant, 'iou': float(found.iou.mean()),
                'threshold': found.threshold, 'chamfer': float(found.chamfer.mean()),
                'emd': float(found.emd.mean())})
    for candidate, one in zip(candidates, given):
        for row, volume in zip(drawn, one.volumes):
            row[f'{candidate.name}: {evaluation.MASK}'] = volume > one.threshold
    return official, drawn


def _markdown(
    title: str, official: Sequence[dict[str, Any]], summaries: Sequence[dict[str, Any]],
) -> str:
    columns = {name: name for name in ('category', 'pictures', 'input', 'method')} | {
        'iou': 'IoU', 'threshold': 'threshold', 'chamfer': 'CD', 'emd': 'EMD'}
    protocol = markdown_table(
        list(columns.values()), [[one[name] for name in columns] for one in official])
    return '\n\n'.join([
        title, "Pix3D's protocol, in the model's axes by the annotated pose:", protocol,
        "In the crop's view frame:", evaluation.score_tables(summaries)]) + '\n'
