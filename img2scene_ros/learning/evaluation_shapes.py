# SPDX-License-Identifier: Apache-2.0
"""
How well voxel networks rebuild shapes: `img2scene evaluate shapes`.

Every shape stands alone on its support, in a room of random materials and light, and is seen from
random sides; field of view, elevation and distance are drawn as for training. A view depends
on the seed, the shape and its own number only. The cube lies where a robot would put it: at the
true median depth without a depth camera, at the measured one with it.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from zlib import crc32

import cv2
import numpy as np

from img2scene_ros.errors import InputError
from img2scene_ros.errors import OptionError
from img2scene_ros.learning import evaluation
from img2scene_ros.learning import synthetic
from img2scene_ros.learning.data_config import SPLITS
from img2scene_ros.learning.data_config import RenderOptions
from img2scene_ros.learning.data_config import ShapeOptions
from img2scene_ros.learning.dataset import Example
from img2scene_ros.learning.dataset import noisy_example
from img2scene_ros.learning.dataset import plain_example
from img2scene_ros.learning.samples import CropSample
from img2scene_ros.learning.samples import coarser
from img2scene_ros.learning.samples import evenly
from img2scene_ros.learning.shapes import Library
from img2scene_ros.learning.shapes import Shape
from img2scene_ros.learning.shapes import open_library
from img2scene_ros.learning.shapes import place_of
from img2scene_ros.learning.sheets import draw_predictions

WHOLE = 0.9  # least share of its full box that a view shows
MASK_ERROR = 2  # pixels of the crop
ERODED, DILATED = f'mask eroded by {MASK_ERROR} px', f'mask dilated by {MASK_ERROR} px'
NOISY, TRUE = 'colour + mask + noisy depth', 'colour + mask + true depth'
INPUTS = evaluation.COLOR, evaluation.MASK, ERODED, DILATED, NOISY, TRUE
SHOWN = evaluation.MASK, NOISY  # the inputs whose predictions are drawn
REFERENCES = 160  # views of training shapes that the mean shape is of


def evaluate_shapes(
    folder: Path, candidates: Sequence[evaluation.Candidate],
    options: ShapeOptions = ShapeOptions(),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> evaluation.Report:
    """
    Score networks on rendered views of shapes.

    :param folder: CATEGORY/SHAPE/voxel.mat and model.ply, as in Pix3D
    :param progress: is called with the numbers of finished and of all views and answers
    :raises InputError: no shapes, or none of a category that is asked for
    :raises OptionError: networks that were trained on different splits
    """
    split = split_of(candidates)
    names, skipped = _chosen(folder, options.split, split, options.categories)
    library = Library(Path(folder), None, {})
    total = len(names) * options.views * (1 + len(INPUTS) * len(candidates))
    step = evaluation.counted(progress, total)
    samples = []
    for sample in views(library, names, options, skipped):
        samples.append(sample)
        step()
    if not samples:
        raise InputError(f"no shape in '{folder}' can be used: {skipped[0]}")
    shapes = [sample.truth.shape for sample in samples]
    categories = [shape.split('/')[1] for shape in shapes]
    solids = [coarser(sample.occupancy, evaluation.RESOLUTION) for sample in samples]
    means, mean_of = _means(library, folder, split, options, solids, categories, shapes)
    drawn = {number: {'truth': solids[number]} for number in evenly(len(samples), evaluation.ROWS)}
    summaries = []
    for name in INPUTS:
        examples = [input_of(sample, name) for sample in samples]
        cases = [evaluation.case_of(example) for example in examples]
        given = list(evaluation.answers(candidates, examples, cases, means, step))
        summaries += [evaluation.summary(name, one, evaluation.scores_of(one, cases), categories)
                      for one in given]
        for candidate, one in zip(candidates, given):
            for number, row in drawn.items():
                if name in SHOWN:
                    row[f'{candidate.name}: {name}'] = one.volumes[number] > one.threshold
    progress(total, total)
    rows = [draw_predictions(categories[number], samples[number].crop, samples[number].cube, row)
            for number, row in drawn.items()]
    used = sorted(set(shapes))
    about = {
        'shapes': used, 'views': len(shapes), 'seed': options.seed,
        'split': options.split, **split, 'box_jitter': options.box_jitter, 'mean_shape': mean_of,
        'resolution': evaluation.RESOLUTION,
        'weights': {candidate.title: candidate.config.get('step') for candidate in candidates}}
    title = (f'{len(shapes)} views of {len(used)} shapes ({_split_text(options, split)}), '
             f'seed {options.seed}. Mean shape: {mean_of}.')
    return evaluation.Report(
        {'about': about, 'scores': summaries, 'skipped': skipped},
        f'{title}\n\n{evaluation.score_tables(summaries)}\n', np.vstack(rows), skipped)


def split_of(candidates: Sequence[evaluation.Candidate]) -> dict[str, float]:
    """
    Return how the shapes were split that networks were trained on.

    :return: test_share and split_seed, those of `img2scene render` where the weights tell none
    :raises OptionError: they were split in different ways
    """
    defaults = RenderOptions()
    usual = {'test_share': defaults.test_share, 'split_seed': defaults.split_seed}
    splits = [candidate.config.get('split', usual) for candidate in candidates]
    if any(split != splits[0] for split in splits):
        raise OptionError(
            'these networks were trained on different splits, so no shapes are new to all of '
            'them; evaluate them one by one')
    return splits[0] if splits else usual


def _chosen(
    folder: Path, split: str, splitting: dict[str, Any], categories: Sequence[str],
) -> tuple[list[str], list[str]]:
    """Return the names of the shapes of a split, and those that are skipped."""
    names = []
    for part in SPLITS if split == 'all' else (split,):
        library = open_library(Path(folder), None, part, **splitting)
        names += [name for name in library.names if name.startswith('pix3d/')]
    found = {name.split('/')[1] for name in names}
    for category in categories:
        if category not in found:
            raise InputError(
                f"'{folder}' holds no shapes of the category '{category}' in the split '{split}'; "
                f"there are {', '.join(sorted(found)) or 'none'}")
    if not names:
        raise InputError(f"'{folder}' holds too few shapes for the split '{split}'; take --split "
                         'all')
    wanted = set(categories) or found
    return sorted(name for name in names if name.split('/')[1] in wanted), library.skipped


def views(
    library: Library, names: Sequence[str], options: ShapeOptions, skipped: list[str],
) -> Iterator[CropSample]:
    """Yield the views of shapes; what cannot be used is noted in `skipped`."""
    for name in names:
        try:
            shape = library.load(name)
        except InputError as error:
            skipped.append(f'{name}: {error}')
            continue
        for number in range(options.views):
            sample = view_of(shape, number, options)
            if sample is None:
                skipped.append(f'{name}: view {number} found no place to see it whole from')
            else:
                yield sample


def view_of(shape: Shape, number: int, options: ShapeOptions) -> CropSample | None:
    """Draw one view of a shape alone, None when no place shows it whole and large enough."""
    random = np.random.default_rng([options.seed, crc32(shape.name.encode()), number])
    rendering = RenderOptions(box_jitter=options.box_jitter, size=options.size)
    place = place_of(shape.name.split('/')[1])
    for _ in range(synthetic.ATTEMPTS):
        scene = synthetic.scene_of(shape, random, place, rendering)
        ids = scene.stage.look_for_ids(scene.camera, scene.pose)
        for truth in synthetic.truths(scene, ids):
            if synthetic.is_visible_enough(truth, ids) and truth.shown >= WHOLE:
                sample = synthetic.crop_sample(
                    scene, truth, f'{shape.name}/{number}', rendering, random)
                if sample is not None:
                    return sample
    return None


def input_of(sample: CropSample, name: str) -> Example:
    """Return what networks get of a view, by the name of the input."""
    if name == NOISY:
        return noisy_example(sample, np.random.default_rng(crc32(sample.scene.encode())))
    error = {ERODED: -MASK_ERROR, DILATED: MASK_ERROR}.get(name, 0)
    mask = None if name == evaluation.COLOR else resized_mask(sample.crop.mask, error)
    return replace(plain_example(sample, with_depth=name == TRUE), mask=mask)


def resized_mask(mask: np.ndarray, pixels: int) -> np.ndarray:
    """Dilate a mask by so many pixels, or erode it (negative); one that would vanish stays."""
    if pixels == 0:
        return mask
    reach = abs(int(pixels))
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    how = cv2.dilate if pixels > 0 else cv2.erode
    changed = how(mask.astype(np.uint8), disk) > 0
    return changed if changed.any() else mask


def _means(
    library: Library, folder: Path, split: dict[str, float], options: ShapeOptions,
    solids: Sequence[np.ndarray], categories: Sequence[str], shapes: Sequence[str],
) -> tuple[list[np.ndarray] | None, str]:
    """Return the mean shape for every view, and what it is of."""
    if options.split != 'test':
        means = evaluation.means_of_others(solids, categories, shapes)
        return means, 'none, a category has only one shape' if means is None else \
            'of the views of the other shapes of the category'
    names, _ = _chosen(folder, 'train', split, ())
    names = np.random.default_rng(0).permutation(names)[:REFERENCES].tolist()
    one_each = replace(options, views=1, categories=())
    others = [coarser(sample.occupancy, evaluation.RESOLUTION)
              for sample in views(library, names, one_each, [])]
    mean = np.asarray(np.mean(others, axis=0, dtype=np.float32))
    return [mean] * len(solids), f'of {len(others)} views of shapes of the training split'


def _split_text(options: ShapeOptions, split: dict[str, float]) -> str:
    if options.split == 'all':
        return 'all of the folder'
    return (f"split '{options.split}', test share {split['test_share']:g}, "
            f"split seed {split['split_seed']:g}")
