# SPDX-License-Identifier: Apache-2.0
"""
How well a prediction fits the truth: shapes, masks of instances, boxes.

Volumes are occupancies of 0 to 1 on a regular grid, (X, Y, Z); points are (N, 3), both sets in one
frame and unit, which is also the unit of the distances.
"""

from collections import Counter
from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage
from scipy.optimize import linear_sum_assignment
from scipy.spatial import KDTree
from scipy.spatial.distance import cdist

from img2scene_ros.detection import box_iou
from img2scene_ros.detection import mask_iou
from img2scene_ros.mesh.colors import mix
from img2scene_ros.rendering.normals import face_areas
from img2scene_ros.rendering.normals import random_weights
from img2scene_ros.rendering.normals import sampled_faces

THRESHOLDS = np.arange(2, 15) / 20  # .10 to .70, at which probabilities count as solid
# The official evaluation of Pix3D, https://github.com/xingyuansun/pix3d, eval/eval.py:
# np.arange(.01, .5, .01) leaves out .5.
PIX3D_THRESHOLDS = np.arange(1, 50) / 100
PIX3D_LEVEL = 0.1
PIX3D_RESOLUTION = 32
PIX3D_POINTS = 1024
LEAST_PIECE = 0.03  # of an object's pixels
RECALLS = np.linspace(0, 1, 101)  # at which COCO takes the precision


def voxel_iou(
    prediction: np.ndarray, truth: np.ndarray, thresholds: np.ndarray | float = 0.5,
) -> np.ndarray:
    """
    Return the intersection over union of a predicted and a true solid.

    :param prediction: (X, Y, Z) occupancy; a cell is solid above the threshold
    :param truth: (X, Y, Z) bool, or occupancy that is cut at the same thresholds
    :param thresholds: one or (T,)
    :return: one IoU per threshold, in the shape of `thresholds`; 0 where both are empty
    """
    ious = [mask_iou(prediction > level, truth if truth.dtype == bool else truth > level)
            for level in np.ravel(thresholds)]
    return np.reshape(ious, np.shape(thresholds))


def chamfer_and_f_score(
    prediction: np.ndarray, truth: np.ndarray, tau: float = 0.0,
) -> tuple[float, float]:
    """
    Compare two sets of points by the distances to their nearest neighbours in the other set.

    The Chamfer distance is the mean distance there plus the mean distance back, not squared: Sun
    et al., Pix3D, CVPR 2018, section 5. Papers that square the distances, or take the mean of the
    two directions, have other numbers.

    The F-score is the harmonic mean of precision and recall, the shares of predicted and of true
    points that are nearer than tau to one of the other set: Tatarchenko et al., What Do
    Single-view 3D Reconstruction Networks Learn?, CVPR 2019, section 5, where tau is 1 % of the
    side length of the reconstructed volume.
    """
    there, back = KDTree(truth).query(prediction)[0], KDTree(prediction).query(truth)[0]
    precision, recall = (there < tau).mean(), (back < tau).mean()
    total = precision + recall
    return (float(there.mean() + back.mean()),
            float(2 * precision * recall / total) if total else 0.0)


def earth_movers_distance(points: np.ndarray, others: np.ndarray) -> float:
    """
    Return the mean distance of the best one-to-one assignment of two sets of equal size.

    As in Sun et al., CVPR 2018, section 5; exact, where their code approximates by an auction, so
    it is never greater. 1,024 points take about 0.1 s.
    """
    assert len(points) == len(others), 'the earth mover needs as many points here as there'
    costs = cdist(points, others)
    return float(costs[linear_sum_assignment(costs)].mean())


def isosurface_points(
    volume: np.ndarray, count: int, level: float, random: np.random.Generator,
) -> np.ndarray:
    """
    Draw points from the closed surface around the cells above a level, uniformly by area.

    :param volume: (X, Y, Z) occupancy, 0 outside
    :return: (count, 3), in cells: (0, 0, 0) is the centre of the first cell; (0, 3) for a volume
        with no cell above the level
    """
    if not (volume > level).any():
        return np.zeros((0, 3))
    vertices, faces = surface_mesh(volume, level)
    face, weights = sampled_faces(vertices, faces, count, random)
    return mix(vertices[faces[face]], weights)


def surface_mesh(volume: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """
    Return the closed surface around the cells above a level, of which there must be one.

    :param volume: (X, Y, Z) occupancy, 0 outside
    :return: vertices (V, 3) in cells, as `isosurface_points`, and faces (F, 3)
    """
    vertices, faces = _marching_cubes(np.pad(volume, 1), level)
    return vertices - 1.0, faces


@dataclass(frozen=True, eq=False)
class Pix3dScores:
    """The official scores of N predictions."""

    threshold: float  # the one that the IoU is taken at
    iou: np.ndarray  # (N,)
    chamfer: np.ndarray  # (N,) in longest sides of the shape's bounding box
    emd: np.ndarray  # (N,) in longest sides of the shape's bounding box


def pix3d_scores(
    predictions: Iterable[np.ndarray], truths: Iterable[np.ndarray],
) -> Pix3dScores:
    """
    Score predictions by the official protocol of Pix3D.

    IoU at 32^3 after both were cropped and resized (`pix3d_voxels`), at the one threshold of .01,
    .02, ... .49 that maximizes the mean; Chamfer and earth mover's distance of 1,024 points of
    each isosurface at 0.1 (`pix3d_points`). The source is eval/eval.py of
    https://github.com/xingyuansun/pix3d, which draws its points without a seed and approximates
    the earth mover's distance.

    :param predictions: cubes of occupancies in the axes of the true voxels
    :param truths: cubes of the same shapes, of the same or another resolution
    """
    random = np.random.default_rng(0)
    ious, chamfer, emd = [], [], []
    for prediction, truth in zip(predictions, truths, strict=True):
        ious.append(voxel_iou(pix3d_voxels(prediction), pix3d_voxels(truth), PIX3D_THRESHOLDS))
        points, others = pix3d_points(prediction, random), pix3d_points(truth, random)
        chamfer.append(chamfer_and_f_score(points, others)[0])
        emd.append(earth_movers_distance(points, others))
    best = np.mean(ious, axis=0).argmax()
    return Pix3dScores(
        float(PIX3D_THRESHOLDS[best]), np.array(ious)[:, best], np.array(chamfer), np.array(emd))


def pix3d_voxels(volume: np.ndarray) -> np.ndarray:
    """
    Bring a volume to 32^3 as the official evaluation of Pix3D does.

    A volume of more than 100 cells a side is max-pooled by 4. Then the bounding box of what
    reaches 0.1 is stretched, all sides by one factor and about its centre, until the centres of
    its first and last cell along the longest side are those of the result, by trilinear
    interpolation with zeros outside the box (`downsample_voxel` in eval/eval.py).

    :param volume: (X, X, X) occupancy, 0 to 1
    :return: (32, 32, 32)
    """
    volume = np.asarray(volume, float)
    if len(volume) > 100:
        cells = len(volume) // 4
        volume = volume[:4 * cells, :4 * cells, :4 * cells]
        volume = volume.reshape(cells, 4, cells, 4, cells, 4).max(axis=(1, 3, 5))
    solid = np.argwhere(volume >= PIX3D_LEVEL)
    if not len(solid):
        return np.zeros((PIX3D_RESOLUTION,) * 3)
    low, high = solid.min(axis=0), solid.max(axis=0)
    box = volume[tuple(slice(a, b + 1) for a, b in zip(low, high))]
    reach = (high - low).max() / 2
    axes = [np.linspace(middle - reach, middle + reach, PIX3D_RESOLUTION)
            for middle in (high - low) / 2]
    return ndimage.map_coordinates(box, np.meshgrid(*axes, indexing='ij'), order=1)


def pix3d_points(volume: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """
    Draw 1,024 points of the isosurface at 0.1 as the official evaluation of Pix3D does.

    Not uniformly by area: every triangle of the marching cubes gives at least one point, of all
    points 1,024 are kept at random. The surface is open where it meets the border of the volume.
    The points' bounding box is centred and its longest side made 1 (`get_surface_points` and
    `load_pts_from_list` in eval/eval.py).

    :param volume: (X, Y, Z) occupancy, 0 to 1
    :return: (1024, 3); all zero for a volume without a surface
    """
    volume = np.asarray(volume, float)
    if volume.max() <= PIX3D_LEVEL or volume.min() >= PIX3D_LEVEL:
        return np.zeros((PIX3D_POINTS, 3))
    vertices, faces = _marching_cubes(volume, PIX3D_LEVEL)
    areas = face_areas(vertices, faces)
    counts, density = np.ones(len(faces), int), 1e-6 / len(volume) ** 2
    while counts.sum() < PIX3D_POINTS:
        counts, density = np.maximum((areas * density).astype(int), 1), 2 * density
    points = mix(vertices[faces.repeat(counts, axis=0)], random_weights(counts.sum(), random))
    points = random.permutation(points)[:PIX3D_POINTS]
    low, high = points.min(axis=0), points.max(axis=0)
    return (points - (low + high) / 2) / (high - low).max()


def _marching_cubes(volume: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    from skimage.measure import marching_cubes

    vertices, faces, _, _ = marching_cubes(np.asarray(volume, np.float32), level)
    return vertices.astype(float), faces


def found_share(
    predicted: np.ndarray, truth: np.ndarray, iou: float = 0.5, least: int = 1,
) -> Counter[str]:
    """
    Compare one picture's instances with the true ones; the counts of several can be added.

    `found`: of the `objects`, those with a mask of their own above the IoU. `pieces`: further
    masks that are mostly of the same object. `merged`: masks that cover most of two objects.
    `false`: masks that lie mostly on none.

    :param predicted: (H, W) int, 0 = no object
    :param truth: (H, W) int, 0 = no object
    :param least: pixels; objects that show less do not count, but what is found there is not false
    """
    count = int(predicted.max()) + 1
    shared: np.ndarray = np.bincount(
        (truth.astype(np.int64) * count + predicted).ravel(),
        minlength=(int(truth.max()) + 1) * count).reshape(-1, count)
    areas, sizes = shared.sum(axis=1)[1:, None], shared.sum(axis=0)[1:]
    there = sizes > 0
    shared, sizes = shared[1:, 1:][:, there], sizes[there]
    false = shared.sum(axis=0) <= 0.5 * sizes
    counts = areas[:, 0] >= max(least, 1)
    shared, areas = shared[counts], areas[counts]
    overlap = shared / (areas + sizes - shared)
    pieces = ((shared > 0.5 * sizes) & (sizes > LEAST_PIECE * areas)).sum(axis=1)
    merged = (shared > 0.5 * areas).sum(axis=0) > 1
    matched = linear_sum_assignment(overlap * (overlap > iou), maximize=True)
    return Counter(
        objects=len(areas), found=int((overlap[matched] > iou).sum()),
        pieces=int((pieces - 1).clip(min=0).sum()), merged=int(merged.sum()),
        false=int(false.sum()))


@dataclass(frozen=True, eq=False)
class Boxes:
    """The boxes of one picture, found or true."""

    boxes: np.ndarray  # (N, 4) xmin, ymin, xmax, ymax in any unit
    labels: np.ndarray  # (N,) class names or numbers
    scores: np.ndarray  # (N,) of what was found; of what is true 1
    ignored: np.ndarray  # (N,) bool, of what is true: whoever finds it is neither right nor wrong


def average_precisions(
    found: Sequence[Boxes], truth: Sequence[Boxes], least_iou: float = 0.5,
) -> dict[Any, float]:
    """
    Return the average precision of every class that has truth which is not ignored.

    As COCO computes it: cocodataset/cocoapi, cocoeval.py.

    :param found: one entry per picture
    :param truth: of the same pictures
    :param least_iou: of a box that counts as found
    """
    labels = sorted({label for boxes in truth for label in boxes.labels[~boxes.ignored].tolist()})
    return {label: _average_precision(label, found, truth, least_iou) for label in labels}


def _average_precision(
    label: str | int, found: Sequence[Boxes], truth: Sequence[Boxes], least_iou: float,
) -> float:
    scores, hits, count = [], [], 0
    for mine, true in zip(found, truth, strict=True):
        mine_here, true_here = mine.labels == label, true.labels == label
        order = np.argsort(-mine.scores[mine_here], kind='stable')
        ignored = true.ignored[true_here]
        hit, counts = _matched(
            box_iou(mine.boxes[mine_here][order], true.boxes[true_here]), ignored, least_iou)
        scores.append(mine.scores[mine_here][order][counts])
        hits.append(hit[counts])
        count += int((~ignored).sum())
    order = np.argsort(-np.concatenate(scores), kind='stable')
    hits = np.concatenate(hits)[order]
    right = np.cumsum(hits)
    recall = right / count
    precision = right / np.arange(1, len(hits) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    # The best precision at this recall or a greater one; 0 where it is never reached.
    place = np.searchsorted(recall, RECALLS)
    return float(np.append(precision, 0)[place].mean())


def _matched(
    iou: np.ndarray, ignored: np.ndarray, least_iou: float,
) -> tuple[np.ndarray, np.ndarray]:
    """
    Give every found box, best first, the true box that it overlaps most and that is still free.

    :param iou: (found, true)
    :return: whether each is right, and whether it counts, both (found,) bool
    """
    hit, counts = np.zeros(len(iou), bool), np.ones(len(iou), bool)
    free = np.ones(len(ignored), bool)
    for number, row in enumerate(iou):
        # What is not ignored goes first, however well it fits something ignored.
        for candidates in (free & ~ignored, ignored):
            overlap = np.where(candidates, row, -1.0)
            if len(row) and overlap.max() >= least_iou:
                best = int(overlap.argmax())
                free[best] = False
                hit[number], counts[number] = not ignored[best], not ignored[best]
                break
    return hit, counts
