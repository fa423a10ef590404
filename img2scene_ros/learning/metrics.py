# SPDX-License-Identifier: Apache-2.0
"""
How well a prediction fits the truth: shapes by voxel IoU, Chamfer distance, F-score, EMD; masks.

Volumes are occupancies of 0 to 1 on a regular grid, (X, Y, Z); points are (N, 3), both sets in one
frame and unit, which is also the unit of the distances.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import interpn
from scipy.optimize import linear_sum_assignment
from scipy.spatial import KDTree
from scipy.spatial.distance import cdist

from img2scene_ros.detection import mask_iou

# The official evaluation of Pix3D, https://github.com/xingyuansun/pix3d, eval/eval.py:
# np.arange(.01, .5, .01) leaves out .5.
PIX3D_THRESHOLDS = np.arange(1, 50) / 100
PIX3D_LEVEL = 0.1
PIX3D_RESOLUTION = 32
PIX3D_POINTS = 1024
LEAST_PIECE = 0.03  # of an object's pixels


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
    levels = np.ravel(thresholds)
    scores = np.zeros(len(levels))
    for index, level in enumerate(levels):
        solid = truth if truth.dtype == bool else truth > level
        scores[index] = mask_iou(prediction > level, solid)
    return scores.reshape(np.shape(thresholds))


def best_threshold(ious: np.ndarray, thresholds: np.ndarray = PIX3D_THRESHOLDS) -> int:
    """
    Find the one threshold that suits a whole set of shapes best.

    :param ious: (N, T) of N shapes at T thresholds
    :param thresholds: (T,)
    :return: the index of the threshold with the greatest mean IoU, the lowest of equal ones
    """
    means = np.asarray(ious).mean(axis=0)
    assert means.shape == np.shape(thresholds)
    return int(np.argmax(means))


def chamfer_distance(points: np.ndarray, others: np.ndarray) -> float:
    """
    Return the mean distance to the nearest neighbour, there plus back, not squared.

    As in Sun et al., Pix3D, CVPR 2018, section 5. Papers that square the distances, or take the
    mean of the two directions, have other numbers.
    """
    return chamfer_and_f_score(points, others, 0.0)[0]


def f_score(prediction: np.ndarray, truth: np.ndarray, tau: float) -> float:
    """
    Return the harmonic mean of precision and recall at the distance tau.

    Precision is the share of predicted points nearer than tau to a true one, recall that of true
    points nearer than tau to a predicted one: Tatarchenko et al., What Do Single-view 3D
    Reconstruction Networks Learn?, CVPR 2019, section 5, where tau is 1 % of the side length of
    the reconstructed volume.
    """
    return chamfer_and_f_score(prediction, truth, tau)[1]


def chamfer_and_f_score(
    prediction: np.ndarray, truth: np.ndarray, tau: float,
) -> tuple[float, float]:
    """Return `chamfer_distance` and `f_score`, which share the search for neighbours."""
    there, back = _nearest(prediction, truth)
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


def sample_mesh(
    vertices: np.ndarray, faces: np.ndarray, count: int, random: np.random.Generator,
) -> np.ndarray:
    """
    Draw points from a triangle mesh, uniformly by area.

    :param vertices: (V, 3)
    :param faces: (F, 3) int
    :return: (count, 3)
    """
    triangles = vertices[faces]
    areas = _areas(triangles)
    return _inside(triangles[random.choice(len(faces), count, p=areas / areas.sum())], random)


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
    return sample_mesh(*surface_mesh(volume, level), count, random)


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
    """
    The official scores of N predictions.

    - threshold: the one that the IoU is taken at
    - iou, chamfer, emd: (N,); distances in longest sides of the shape's bounding box
    """

    threshold: float
    iou: np.ndarray
    chamfer: np.ndarray
    emd: np.ndarray


def pix3d_scores(
    predictions: Iterable[np.ndarray], truths: Iterable[np.ndarray], seed: int = 0,
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
    random = np.random.default_rng(seed)
    ious, chamfer, emd = [], [], []
    for prediction, truth in zip(predictions, truths, strict=True):
        ious.append(voxel_iou(pix3d_voxels(prediction), pix3d_voxels(truth), PIX3D_THRESHOLDS))
        points, others = pix3d_points(prediction, random), pix3d_points(truth, random)
        chamfer.append(chamfer_distance(points, others))
        emd.append(earth_movers_distance(points, others))
    best = best_threshold(np.array(ious))
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
    # A box one cell thick has nothing to interpolate between; zeros beyond it change no value.
    box = np.pad(box, [(0, 1)] * 3)
    reach = (high - low).max() / 2
    axes = [np.linspace(middle - reach, middle + reach, PIX3D_RESOLUTION)
            for middle in (high - low) / 2]
    grid = np.stack(np.meshgrid(*axes, indexing='ij'), axis=-1)
    resized = interpn(
        [np.arange(n) for n in box.shape], box, grid, bounds_error=False, fill_value=0.0)
    beyond = (grid > high - low).any(axis=-1)
    return np.where(beyond, 0.0, resized)


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
    triangles = vertices[faces]
    areas = _areas(triangles)
    counts, density = np.ones(len(faces), int), 1e-6 / len(volume) ** 2
    while counts.sum() < PIX3D_POINTS:
        counts, density = np.maximum((areas * density).astype(int), 1), 2 * density
    points = random.permutation(_inside(triangles.repeat(counts, axis=0), random))[:PIX3D_POINTS]
    low, high = points.min(axis=0), points.max(axis=0)
    return (points - (low + high) / 2) / (high - low).max()


def _nearest(points: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return KDTree(others).query(points)[0], KDTree(points).query(others)[0]


def _marching_cubes(volume: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    from skimage.measure import marching_cubes

    vertices, faces, _, _ = marching_cubes(np.asarray(volume, np.float32), level)
    return vertices.astype(float), faces


def _areas(triangles: np.ndarray) -> np.ndarray:
    a, b, c = np.moveaxis(triangles, 1, 0)
    return np.linalg.norm(np.cross(b - a, c - a), axis=-1) / 2


def _inside(triangles: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Draw one point from each triangle, uniformly: (N, 3, 3) to (N, 3)."""
    root, share = np.sqrt(random.random(len(triangles))), random.random(len(triangles))
    weights = np.stack([1 - root, root * (1 - share), root * share], axis=-1)
    return np.einsum('nc,nci->ni', weights, triangles)


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
    shared = np.bincount(
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
