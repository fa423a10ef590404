# SPDX-License-Identifier: Apache-2.0
"""
Single objects among pixels that show objects.

Pixels are linked to their neighbours in the image where the surface goes on: what is linked is a
piece, cut further where a network sees several objects. Pieces side by side are of one object the
more surely, the more of their border the surface goes on across, the less the colour changes
there, and the nearer to each other the network sees the middle of their object. Such pieces are
joined, the surest first: greedy additive edge contraction (Keuper et al., "Efficient decomposition
of image and mesh graphs by lifted multicuts", ICCV 2015).
"""

from collections.abc import Sequence

import cv2
import numpy as np
from scipy import ndimage

from img2scene_ros.depth import measured
from img2scene_ros.detection.instance_masks import Seen
from img2scene_ros.detection.surfaces import Window
from img2scene_ros.detection.surfaces import link_reach
from img2scene_ros.detection.surfaces import linked_surfaces
from img2scene_ros.types import Frame

_LINK_STEPS = (2,)  # pixels over which holes are bridged
# Of pictures 640 pixels wide: least pixels of a piece, and pixels between pieces side by side.
_LEAST_PIXELS, _BESIDE = 60, 12
_COLOR_STEP = 20.0  # of CIELAB in bytes, and
_NO_STEP = 4.0  # pixels between two middles, that count as one
# Weights of what `evidence_of_pairs` returns, without and with a network: logistic regression on
# pieces of 120 rendered scenes (benchmarks/scores.py).
_WEIGHTS = {3: np.array([0.43, 2.33, -0.9]), 4: np.array([0.09, 2.79, -0.63, -1.26])}


def clusters(frame: Frame, pixels: np.ndarray, gap: float, seen: Seen | None) -> np.ndarray:
    """
    Label the pixels of single objects.

    Pixels without readings belong to the nearest piece that the network sees as the same object.

    :param pixels: (H, W) bool, those that show objects
    :param gap: metres between two surfaces
    :param seen: by a network; None without one
    :return: (H, W) int32, 0 = no object
    """
    pieces = pieces_of(frame, pixels, gap, seen)
    if not pieces.any():
        return pieces
    nearest, distance = _nearest_pixels(pieces)
    ends = _borders(pieces, nearest, distance <= _BESIDE * frame.shape[1] / 640)
    odds = np.zeros((pieces.max() + 1,) * 2)
    if ends.size:
        (one, other), evidence = evidence_of_pairs(frame, pieces, ends, gap, seen)
        odds[one, other] = odds[other, one] = evidence @ _WEIGHTS[evidence.shape[1]]
    labels = contracted(odds)[pieces]
    if seen is not None:
        unread = np.flatnonzero(np.isnan(measured(frame.depth)) & (seen.instances > 0))
        there = nearest.ravel()[unread]
        is_same = seen.instances.ravel()[unread] == seen.instances.ravel()[there]
        labels.ravel()[unread[is_same]] = labels.ravel()[there[is_same]]
    return labels


def pieces_of(frame: Frame, pixels: np.ndarray, gap: float, seen: Seen | None) -> np.ndarray:
    """Label surfaces, cut where a network sees several objects; (H, W) int32, small ones are 0."""
    pixels = pixels & np.isfinite(measured(frame.depth))
    pieces = np.zeros(frame.shape, np.int32)
    x, y, width, rows = cv2.boundingRect(pixels.view(np.uint8))
    if not rows:
        return pieces
    window = np.s_[y:y + rows, x:x + width]
    pieces[window] = linked_surfaces(frame, pixels[window], gap, _LINK_STEPS, window)
    at = np.flatnonzero(pixels)
    names = pieces.ravel()[at].astype(np.int64)
    if seen is not None:
        names = names * (int(seen.instances.max()) + 1) + seen.instances.ravel()[at]
    _, names, sizes = np.unique(names, return_inverse=True, return_counts=True)
    is_large = sizes >= _LEAST_PIXELS * (frame.shape[1] / 640) ** 2
    numbers = np.where(is_large, np.cumsum(is_large), 0)
    pieces.ravel()[at] = numbers[names]
    return pieces


def _nearest_pixels(pieces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the position of the pixel of a piece that is nearest to each, and how far it is."""
    distance, numbers = cv2.distanceTransformWithLabels(
        (pieces == 0).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    at = np.flatnonzero(pieces)
    positions = np.zeros(len(at) + 1, np.int64)
    positions[numbers.ravel()[at]] = at
    return positions[numbers], distance


def _borders(pieces: np.ndarray, nearest: np.ndarray, is_near: np.ndarray) -> np.ndarray:
    """
    Return the pixels of pieces where they are side by side.

    :param nearest: as `_nearest_pixels`
    :param is_near: bool, the pixels at which borders count
    :return: (2, N) positions in the flattened picture, N steps across borders
    """
    around = np.where(is_near, pieces.ravel()[nearest], 0)
    ends = []
    for one, other in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        crossed = (around[one] != around[other]) & (around[one] > 0) & (around[other] > 0)
        ends.append(np.stack([nearest[one][crossed], nearest[other][crossed]]))
    return np.concatenate(ends, axis=1)


def evidence_of_pairs(
    frame: Frame, pieces: np.ndarray, ends: np.ndarray, gap: float, seen: Seen | None,
) -> tuple[np.ndarray, np.ndarray]:
    """
    Return what tells whether pieces side by side are of one object.

    :param pieces: (H, W) int, 0 = none
    :param ends: as `_borders`
    :return: (2, P) numbers of pieces, and (P, 3) for each pair: 1, the share of their border across
        which the surface goes on, and the step of colour there. With a network (P, 4), the last
        is the logarithm of how far apart it sees their middles, of how far those scatter
    """
    both = np.sort(pieces.ravel()[ends], axis=0)
    pairs, steps = np.unique(both, axis=1, return_inverse=True)
    points = measured(frame.points).reshape(-1, 3)
    apart = np.linalg.norm(points[ends[0]] - points[ends[1]], axis=1)
    goes_on = apart < link_reach(frame, points[ends, 2].min(axis=0), gap)
    colors = cv2.cvtColor(frame.color.reshape(-1, 1, 3)[ends.ravel()], cv2.COLOR_RGB2LAB)
    colors = colors.reshape(2, -1, 3).astype(np.float32)
    change = np.linalg.norm(colors[0] - colors[1], axis=1) / _COLOR_STEP
    counts = np.bincount(steps, minlength=pairs.shape[1])
    values = [np.ones(len(counts)), *(np.bincount(steps, one) / counts for one in (goes_on, change))]
    if seen is not None:
        unit = _NO_STEP * frame.shape[1] / 640
        middles, spreads = _middles(pieces, seen.centers)
        between = np.linalg.norm(middles[pairs[0]] - middles[pairs[1]], axis=1)
        values.append(np.log((between + unit) / (spreads[pairs].sum(axis=0) + unit)))
    return pairs, np.stack(values, axis=1)


def _middles(pieces: np.ndarray, centers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean (N, 2) and standard deviation (N,) of where pieces point, pixels."""
    at = np.flatnonzero(pieces)
    own, votes = pieces.ravel()[at], centers.reshape(-1, 2)[at].astype(float)
    counts = np.maximum(np.bincount(own), 1)
    means, squares = (
        np.stack([np.bincount(own, axis) / counts for axis in some.T], axis=1)
        for some in (votes, votes ** 2))
    return means, np.sqrt(np.maximum(squares - means ** 2, 0.0).sum(axis=1))


def contracted(odds: np.ndarray) -> np.ndarray:
    """
    Join nodes of a graph, the surest pair first, as long as the odds are for it.

    :param odds: (N, N) logarithms of the odds that two are one, 0 = nothing is known
    :return: (N,) int32, the number of one of its nodes for each
    """
    odds, names = odds.copy(), np.arange(len(odds), dtype=np.int32)
    while True:
        one, other = divmod(int(odds.argmax()), len(odds))
        if odds[one, other] <= 0.0:
            return names
        names[names == other] = one
        odds[one] += odds[other]
        odds[:, one] = odds[one]
        odds[one, one] = 0.0
        odds[other] = odds[:, other] = 0.0


def windows_of(labels: np.ndarray) -> dict[int, Window]:
    """Return the part of the picture that each label takes."""
    return {label: window for label, window in enumerate(ndimage.find_objects(labels), 1)
            if window is not None}


def widened(windows: Sequence[Window], margin: int, shape: tuple[int, int]) -> Window:
    """Return the part of the picture that holds some others and what is around them."""
    rows, columns = (slice(max(0, min(part.start for part in parts) - margin),
                           min(size, max(part.stop for part in parts) + margin))
                     for parts, size in zip(zip(*windows), shape))
    return rows, columns


def square(frame: Frame, pixels: int) -> np.ndarray:
    """Return a kernel of that many pixels at a picture width of 640, of an odd size."""
    size = 2 * round(pixels * frame.shape[1] / 640 / 2 - 0.5) + 1
    return np.ones((max(3, size),) * 2, np.uint8)
