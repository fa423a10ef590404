# SPDX-License-Identifier: Apache-2.0
"""
Single objects among pixels that show objects.

Pixels are linked to their neighbours in the image where the surface goes on: what is linked is a
piece, cut further along concave creases and jumps (`edges.py`) and where a network sees several
objects. Pieces side by side are of one object the more surely, the more of their border the
surface goes on across, the less it bends inwards there, the more alike their colours are, the
more they lie in one plane, the more level their tops are, and the nearer to each other the
network sees the middle of their object. The surest pair is joined, what is known of it is summed
up, and so on: Nunez-Iglesias et al., "Machine learning of hierarchical clustering to segment 2D
and 3D images", PLoS ONE 2013.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from img2scene_ros.depth import measured
from img2scene_ros.detection.edges import cut_at_edges
from img2scene_ros.detection.instance_masks import Segmentation
from img2scene_ros.detection.labelling import nearest_pixels
from img2scene_ros.detection.labelling import square
from img2scene_ros.detection.surfaces import link_reach
from img2scene_ros.detection.surfaces import linked_surfaces
from img2scene_ros.types import Frame

_LINK_STEPS = (2,)  # pixels over which holes are bridged
# Of pictures 640 pixels wide: least pixels of a piece, and pixels between pieces side by side.
_LEAST_PIXELS, _BESIDE = 60, 12
_SLIVER = 0.07  # share of what a network sees as one object on a surface; less is no piece
_BEND = 45.0  # degrees by which a border bends inwards that count as 1, at most 2
_TOP, _SAME_TOP = 1.7, 0.01  # standard deviations of a piece's heights above their mean; metres
_SAME_MIDDLE = 4.0  # pixels of a picture 640 wide
_FLAT = 0.001  # metres, besides the noise, by which a piece is thick at least
# Of a and b of CIELAB in bytes: a step that shows, and size and number of bins about grey; the
# share of a piece's pixels above which it has a colour.
_SAME_COLOR, _BIN, _BINS, _HAS_COLOR = 5.0, 8.0, 8, 0.05
_GREY = slice(3, 5)  # bins of what is white, grey or black, as many things are
# Weights of what `evidence_of_pairs` returns, without and with a network: logistic regression on
# what comes up while the pieces of 87 real frames and 60 rendered scenes are joined
# (benchmarks/scores.py). The constants are .3 less than fitted: a wrong join spoils two objects, a
# wrong cut only one.
WEIGHTS = {9: np.array([0.09, 2.06, -0.79, -1.76, -2.32, -2.41, 1.56, 1.94, -1.53]),
           11: np.array([0.24, 1.22, -0.44, -1.66, -2.37, -1.92, 1.95, 2.14, -1.29, -1.43, -1.17])}
# Pixels at a picture width of 640: narrower bands without readings are shadows, wider patches
# belong to what is so near.
_SHADOW, _SIDE = 15, 5
_HALF = np.s_[::2, ::2]


def clusters(
    frame: Frame, pixels: np.ndarray, height: np.ndarray, gap: float, seen: Segmentation | None,
) -> np.ndarray:
    """
    Label the pixels of single objects.

    :param pixels: (H, W) bool, those that show objects
    :param height: (H, W) metres above the support, NaN = no reading
    :param gap: metres between two surfaces
    :param seen: by a network; None without one
    :return: (H, W) int32, 0 = no object
    """
    surfaces = _surfaces(frame, pixels, gap)
    parts, bend = cut_at_edges(surfaces, frame, height)
    pieces = _pieces(surfaces, parts, frame, seen)
    if not pieces.any():
        return pieces
    nearest, distance = nearest_pixels(pieces)
    ends = _borders(pieces, nearest, distance <= _BESIDE * frame.shape[1] / 640)
    if ends.size:
        names = joined(Graph(
            _sums(frame, pieces, height, seen), _border_sums(frame, pieces, ends, bend, gap),
            frame.shape[1] / 640))
        pieces = np.unique(names, return_inverse=True)[1].astype(np.int32)[pieces]
    return pieces if seen is None else _with_unread(pieces, nearest, frame, seen)


@dataclass(frozen=True, eq=False)
class Graph:
    """
    Pieces of objects, and what of them adds up when they are joined.

    - sums: of the pixels of each piece, (N, K) each, see `_sums`; no. 0 is none
    - borders: (5, N, N), of the steps across the border of two: their number, across how many the
      surface goes on, how much it bends inwards at these; the first one's a and b of CIELAB there
    - scale: pixels of the picture to those of one 640 wide
    """

    sums: dict[str, np.ndarray]
    borders: np.ndarray
    scale: float

    def join(self, one: int, other: int) -> None:
        """Make one piece of two, the first; nothing is left of the other."""
        for sums in self.sums.values():
            sums[one] += sums[other]
            sums[other] = 0.0
        self.borders[:, one] += self.borders[:, other]
        self.borders[:, :, one] += self.borders[:, :, other]
        self.borders[:, one, one] = 0.0
        self.borders[:, other] = self.borders[:, :, other] = 0.0


def joined(graph: Graph) -> np.ndarray:
    """
    Join the pieces of a graph in place, the surest pair first, as long as the odds are for it.

    :return: (N,) int32, the number of one of the pieces of its object for each
    """
    names = np.arange(len(graph.borders[0]), dtype=np.int32)
    odds = np.full((len(names),) * 2, -np.inf)
    pairs = np.stack(np.nonzero(np.triu(graph.borders[0])))
    while True:
        if pairs.size:
            evidence = evidence_of_pairs(graph, pairs)
            odds[tuple(pairs)] = odds[tuple(pairs[::-1])] = evidence @ WEIGHTS[evidence.shape[1]]
        one, other = divmod(int(odds.argmax()), len(names))
        if odds[one, other] <= 0.0:
            return names
        graph.join(one, other)
        names[names == other] = one
        odds[[one, other]] = odds[:, [one, other]] = -np.inf
        beside = np.flatnonzero(graph.borders[0, one])
        pairs = np.stack([np.full_like(beside, one), beside])


def evidence_of_pairs(graph: Graph, pairs: np.ndarray) -> np.ndarray:
    """
    Return what tells whether pieces side by side are of one object.

    :param pairs: (2, P) numbers of pieces
    :return: (P, 9) for each pair: 1; the share of their border across which the surface goes on,
        alone, times the logarithm of how much larger one is, and how much it bends inwards there;
        the difference of their tops; the logarithm of how far apart their colours are, as a whole
        and beside the border; how much of the colours both have, and how much of those of the
        smaller one the other has; the logarithm of how much thicker both are than one. With a
        network (P, 11): the logarithm of how far apart it sees their middles, of how far those
        scatter; the share of them that it does not see
    """
    steps, goes_on, bend = graph.borders[:3, pairs[0], pairs[1]]
    beside = graph.borders[3:, pairs[0], pairs[1]] - graph.borders[3:, pairs[1], pairs[0]]
    goes_on = goes_on / steps
    pixels = np.maximum(graph.sums['pixels'][pairs], 1.0)
    means = {name: sums[pairs] / pixels for name, sums in graph.sums.items()}
    high = means['heights']
    tops = high[..., 0] + _TOP * _spread(high)
    level = np.abs(tops[0] - tops[1]) / (np.abs(tops).max(axis=0) + _SAME_TOP)
    apart = np.linalg.norm(means['colors'][0] - means['colors'][1], axis=1)
    apart = np.sqrt(apart * np.linalg.norm(beside, axis=0) / steps)
    small, large = np.take_along_axis(means['bins'], pixels.argsort(axis=0), axis=0)
    points = graph.sums['points'][pairs].sum(axis=0) / pixels.sum(axis=0)
    values = [np.ones(len(steps)), goes_on,
              -goes_on * np.abs(np.log(pixels[0] / pixels[1]))[:, 0], bend / steps, level,
              np.log1p(apart / _SAME_COLOR), np.minimum(small, large).sum(axis=1),
              (small * large / (large + _HAS_COLOR)).sum(axis=1),
              np.log(_thickness(points) / _thickness(means['points']).max(axis=0))]
    if 'middles' in means:
        same, middles = _SAME_MIDDLE * graph.scale, means['middles']
        apart = np.linalg.norm(middles[0, :, :-1] - middles[1, :, :-1], axis=1)
        both = means['seen'].prod(axis=0)[:, 0]
        values += [np.log((apart + same) / (_spread(middles).sum(axis=0) + same)) * both,
                   1.0 - both]
    return np.stack(values, axis=1)


def _spread(means: np.ndarray) -> np.ndarray:
    """Return standard deviations (...) by means (..., K + 1), the last of the squared length."""
    return np.sqrt(np.maximum(means[..., -1] - (means[..., :-1] ** 2).sum(axis=-1), 0.0))


def _thickness(means: np.ndarray) -> np.ndarray:
    """
    Return how far points are off the plane through them, metres.

    :param means: (..., 10) of x, y, z, xx, xy, xz, yy, yz, zz, and the depth's deviation
    """
    point = means[..., :3]
    squares = means[..., [3, 4, 5, 4, 6, 7, 5, 7, 8]].reshape(*point.shape, 3)
    least = np.linalg.eigvalsh(squares - point[..., None] * point[..., None, :])[..., 0]
    return np.sqrt(np.maximum(least, 0.0)) + means[..., 9] + _FLAT


def _sums(
    frame: Frame, pieces: np.ndarray, height: np.ndarray, seen: Segmentation | None,
) -> dict[str, np.ndarray]:
    """
    Sum up what is known of every second pixel of every second row, by piece.

    :return: pixels (N, 1); heights (N, 2), with squares; points (N, 10), as `_thickness`; colors
        (N, 2), a and b of CIELAB, and bins (N, B) of them but grey; with a network middles (N, 3)
        that it sees, row, column and the sum of their squares, and seen (N, 1), where it sees an
        object
    """
    labels = pieces[_HALF]
    at = np.flatnonzero(labels)
    labels, count = labels.ravel()[at], int(pieces.max()) + 1

    def summed(*values: np.ndarray) -> np.ndarray:
        return np.stack([np.bincount(labels, value, count) for value in values], axis=1)

    high = height[_HALF].ravel()[at]
    x, y, z = measured(frame.points)[_HALF].reshape(-1, 3)[at].astype(float).T
    colors = _colors(frame.color[_HALF].reshape(-1, 3)[at])
    bins = np.clip(colors // _BIN - 128 // _BIN + _BINS // 2, 0, _BINS - 1).astype(int)
    bins = np.bincount((labels * _BINS + bins[:, 0]) * _BINS + bins[:, 1],
                       minlength=count * _BINS ** 2).reshape(count, _BINS, _BINS).astype(float)
    bins[:, _GREY, _GREY] = 0.0
    sums = {'pixels': summed(np.ones(len(at))), 'heights': summed(high, high ** 2),
            'points': summed(x, y, z, x * x, x * y, x * z, y * y, y * z, z * z,
                             frame.depth_std(z)),
            'colors': summed(*colors.T), 'bins': bins.reshape(count, -1)}
    if seen is not None:
        row, column = seen.centers[_HALF].reshape(-1, 2)[at].astype(float).T
        sums['middles'] = summed(row, column, row ** 2 + column ** 2)
        sums['seen'] = summed(seen.instances[_HALF].ravel()[at] > 0)
    return sums


def _border_sums(
    frame: Frame, pieces: np.ndarray, ends: np.ndarray, bend: np.ndarray, gap: float,
) -> np.ndarray:
    """
    Sum up what is known of borders, see `Graph`.

    :param ends: as `_borders`
    :param bend: as `cut_at_edges`
    :return: (5, N, N)
    """
    ends = np.concatenate([ends, ends[::-1]], axis=1)  # either side is the first once
    goes_on = _goes_on(frame, ends, gap)
    rows, columns = np.divmod(ends, frame.shape[1])
    bends = np.minimum(bend[rows // 2, columns // 2].max(axis=0) / _BEND, 2.0)
    count = int(pieces.max()) + 1
    one, other = pieces.ravel()[ends]
    colors = _colors(frame.color.reshape(-1, 3)[ends[0]])
    return np.stack([
        np.bincount(one * count + other, value, count ** 2).reshape(count, count)
        for value in (np.ones(len(one)), goes_on, bends * goes_on, *colors.T)])


def _colors(pixels: np.ndarray) -> np.ndarray:
    """Return a and b of CIELAB, in bytes, of RGB pixels (N, 3); (N, 2)."""
    return cv2.cvtColor(pixels[:, None], cv2.COLOR_RGB2LAB)[:, 0, 1:].astype(float)


def _with_unread(
    labels: np.ndarray, nearest: np.ndarray, frame: Frame, seen: Segmentation,
) -> np.ndarray:
    """
    Add to objects the patches without readings that the network sees as theirs.

    They touch it. Narrow bands are the shadows of a sensor whose projector or second camera is
    beside it.

    :param nearest: positions, as `nearest_pixels`
    """
    unread = np.isnan(measured(frame.depth)) & (seen.instances > 0)
    wide = cv2.morphologyEx(unread.view(np.uint8), cv2.MORPH_OPEN, square(frame, _SHADOW))
    at = np.flatnonzero(wide)
    there = nearest.ravel()[at]
    is_same = seen.instances.ravel()[at] == seen.instances.ravel()[there]
    at, there = at[is_same], there[is_same]
    added = np.zeros_like(wide)
    added.ravel()[at] = 1
    _, patches = cv2.connectedComponents(added)
    is_beside = cv2.dilate((labels > 0).view(np.uint8), square(frame, _SIDE)) > 0
    touches = np.isin(patches.ravel()[at], patches[is_beside & (patches > 0)])
    labels = labels.copy()
    labels.ravel()[at[touches]] = labels.ravel()[there[touches]]
    return labels


def _surfaces(frame: Frame, pixels: np.ndarray, gap: float) -> np.ndarray:
    """Label the surfaces that the readings of some pixels form, (H, W) int32."""
    pixels = pixels & np.isfinite(measured(frame.depth))
    surfaces = np.zeros(frame.shape, np.int32)
    x, y, width, rows = cv2.boundingRect(pixels.view(np.uint8))
    if rows:
        window = np.s_[y:y + rows, x:x + width]
        surfaces[window] = linked_surfaces(frame, pixels[window], gap, _LINK_STEPS, window)
    return surfaces


def _pieces(
    surfaces: np.ndarray, parts: np.ndarray, frame: Frame, seen: Segmentation | None,
) -> np.ndarray:
    """
    Cut parts of surfaces where a network sees several objects; (H, W) int32, small ones are 0.

    Slivers of what it sees as one object, on one surface, are of the largest piece of it.
    """
    pieces, at = np.zeros(frame.shape, np.int32), np.flatnonzero(parts)
    names, wholes = parts.ravel()[at].astype(np.int64), surfaces.ravel()[at].astype(np.int64)
    if seen is not None:
        instances = seen.instances.ravel()[at]
        names, wholes = (labels * (int(seen.instances.max()) + 1) + instances
                         for labels in (names, wholes))
    _, first, names, sizes = np.unique(
        names, return_index=True, return_inverse=True, return_counts=True)
    wholes = np.unique(wholes, return_inverse=True)[1]
    whole, order = wholes[first], sizes.argsort()
    largest = np.zeros(len(sizes), int)
    largest[whole[order]] = order
    is_sliver = sizes < _SLIVER * np.bincount(wholes)[whole]
    names = np.where(is_sliver, largest[whole], np.arange(len(sizes)))[names]
    is_large = sizes >= _LEAST_PIXELS * (frame.shape[1] / 640) ** 2
    pieces.ravel()[at] = np.where(is_large, np.cumsum(is_large), 0)[names]
    return pieces


def _borders(pieces: np.ndarray, nearest: np.ndarray, is_near: np.ndarray) -> np.ndarray:
    """
    Return the pixels of pieces where they are side by side.

    :param nearest: positions, as `nearest_pixels`
    :param is_near: bool, the pixels at which borders count
    :return: (2, N) positions in the flattened picture, N steps across borders
    """
    around = np.where(is_near, pieces.ravel()[nearest], 0)
    ends = []
    for one, other in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        crossed = (around[one] != around[other]) & (around[one] > 0) & (around[other] > 0)
        ends.append(np.stack([nearest[one][crossed], nearest[other][crossed]]))
    return np.concatenate(ends, axis=1)


def _goes_on(frame: Frame, ends: np.ndarray, gap: float) -> np.ndarray:
    """Tell at which steps across borders the surface goes on, (N,) bool."""
    one, other = measured(frame.points).reshape(-1, 3)[ends]
    reach = link_reach(frame, np.minimum(one[:, 2], other[:, 2]), gap)
    return np.linalg.norm(one - other, axis=1) < reach
