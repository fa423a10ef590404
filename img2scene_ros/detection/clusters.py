# SPDX-License-Identifier: Apache-2.0
"""
Single objects among pixels that show objects.

Pixels are linked to their neighbours in the image where the surface goes on: what is linked is a
piece, cut further along concave creases and jumps (`edges.py`) and where a network sees several
objects. Pieces side by side are of one object the more surely, the more of their border the
surface goes on across, the less it bends inwards, jumps and changes its colour there, the more
level their tops are, and the nearer to each other the network sees the middle of their object.
Such pieces are joined, the surest first: greedy additive edge contraction (Keuper et al.,
"Efficient decomposition of image and mesh graphs by lifted multicuts", ICCV 2015).
"""

import cv2
import numpy as np

from img2scene_ros.depth import measured
from img2scene_ros.detection.edges import SurfaceEdges
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
# Degrees by which a border bends inwards, and standard deviations of the depth by which it jumps,
# that count as 1.
_BEND, _JUMP = 45.0, 6.0
_COLOR_STEP = 20.0  # of CIELAB in bytes, from which colour is another
_TOP, _SAME_TOP = 1.7, 0.01  # standard deviations of a piece's heights above their mean; metres
_SAME_MIDDLE = 4.0  # pixels of a picture 640 wide
# A sliver of less than so much of the piece that it goes on to, across so much of their border, is
# a part of that; logarithm of the odds of what is sure.
_PART, _GOES_ON, _SURE = 1.0 / 3.0, 0.2, 5.0
# Of what a network sees as one object: a piece of more is this object; one of less is a sliver of
# the edge of another, as its edges are not exact.
_WHOLE, _SLIVER = 2.0 / 3.0, 1.0 / 8.0
# Weights of what `evidence_of_pairs` returns, without and with a network: logistic regression on
# pieces of 79 real frames and 100 rendered scenes (benchmarks/scores.py). With a network colour
# counts a third less and bends a third more than fitted: the dark inside of a mug is of it.
WEIGHTS = {7: np.array([0.69, 3.32, -0.31, -1.71, -1.6, -2.72, -2.53]),
           10: np.array([1.5, 2.7, -0.15, -2.65, -0.9, -1.45, -3.4, -1.5, -0.4, -1.35])}
# Pixels at a picture width of 640: narrower bands without readings are shadows, wider patches
# belong to what is so near.
_SHADOW, _SIDE = 15, 5


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
    parts, edges = cut_at_edges(surfaces, frame, height)
    pieces = _pieces(parts, frame, seen)
    if not pieces.any():
        return pieces
    nearest, distance = nearest_pixels(pieces)
    ends = _borders(pieces, nearest, distance <= _BESIDE * frame.shape[1] / 640)
    # First what creases cut, so that others are compared with the whole of it.
    for is_one in _are_one(ends, surfaces, seen), np.ones(ends.shape[1], bool):
        borders = ends[:, is_one & np.diff(pieces.ravel()[ends], axis=0).any(axis=0)]
        if borders.size:
            pairs, evidence = evidence_of_pairs(
                frame, pieces, borders, height, edges, gap, seen)
            names = contracted(_odds(pieces, pairs, evidence, seen))
            pieces = np.unique(names, return_inverse=True)[1].astype(np.int32)[pieces]
    return pieces if seen is None else _with_unread(pieces, nearest, frame, seen)


def _are_one(
    ends: np.ndarray, surfaces: np.ndarray, seen: Segmentation | None,
) -> np.ndarray:
    """Tell which steps stay on a surface and on what a network sees as one object, (N,) bool."""
    maps = (surfaces,) if seen is None else (surfaces, seen.instances)
    return np.all([np.equal(*labels.ravel()[ends]) for labels in maps], axis=0)


def _odds(
    pieces: np.ndarray, pairs: np.ndarray, evidence: np.ndarray, seen: Segmentation | None,
) -> np.ndarray:
    """
    Return the logarithms of the odds that pieces are of one object, (N, N); 0 = not known.

    :param pairs, evidence: as `evidence_of_pairs`
    """
    odds = np.zeros((pieces.max() + 1,) * 2)
    one, other = pairs
    odds[one, other] = odds[other, one] = evidence @ WEIGHTS[evidence.shape[1]]
    if seen is None:
        return odds
    areas, instances = np.bincount(pieces.ravel()), _of_pieces(pieces, seen.instances)
    shares = (instances > 0) * areas / np.bincount(seen.instances.ravel())[instances]
    goes_on, size = evidence[:, 1:3].T
    smaller, larger = np.where(areas[one] < areas[other], pairs, pairs[::-1])
    is_seen = (instances[pairs] > 0).all(axis=0)
    is_apart = (instances[one] != instances[other]) & (shares[pairs] > _WHOLE).all(axis=0)
    # What is not seen as an object and larger than what is, such as a wall, is no part of it.
    is_wall = (instances[larger] == 0) & (instances[smaller] > 0)
    is_unknown = ~is_seen & ((goes_on <= _GOES_ON) | is_wall)
    is_part = (is_seen & (size < goes_on * np.log(_PART)) & (goes_on > _GOES_ON)
               & (shares[smaller] < _SLIVER))
    for which, value in ((is_apart, -_SURE), (is_unknown, 0.0)):
        odds[one[which], other[which]] = odds[other[which], one[which]] = value
    is_part_of = np.zeros(odds.shape, bool)
    is_part_of[one, other] = is_part_of[other, one] = is_part
    _loosen(odds, is_part_of, instances, shares > _SLIVER)
    return odds


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


def _loosen(
    odds: np.ndarray, is_part: np.ndarray, instances: np.ndarray, is_firm: np.ndarray,
) -> None:
    """
    Leave pieces that are not firm their neighbours of one instance, or a single other neighbour.

    So they join no two objects. Set the odds in place.

    :param odds: (N, N), as `_odds`
    :param is_part: (N, N) bool, of which one may be a part of the other
    :param instances: (N,) of which the pieces are parts, 0 = none
    :param is_firm: (N,) bool, more than a sliver of its instance
    """
    is_home = (instances[:, None] == instances) & (instances > 0)
    liking = np.where(odds == 0.0, -np.inf, odds - _SURE * ~(is_home | is_part))
    is_kept = is_firm[:, None] & is_firm
    for one in np.flatnonzero(~is_firm):
        best = liking[one].argmax()
        kept = is_home[one] if is_home[one, best] else [best]
        is_kept[one, kept] = is_kept[kept, one] = True
        if is_part[one, best]:
            odds[one, best] = odds[best, one] = _SURE
    odds[~is_kept] = 0.0


def _of_pieces(pieces: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the label of each piece, all of whose pixels have the same, (N,)."""
    each = np.zeros(pieces.max() + 1, labels.dtype)
    each[pieces.ravel()] = labels.ravel()
    return each


def _surfaces(frame: Frame, pixels: np.ndarray, gap: float) -> np.ndarray:
    """Label the surfaces that the readings of some pixels form, (H, W) int32."""
    pixels = pixels & np.isfinite(measured(frame.depth))
    surfaces = np.zeros(frame.shape, np.int32)
    x, y, width, rows = cv2.boundingRect(pixels.view(np.uint8))
    if rows:
        window = np.s_[y:y + rows, x:x + width]
        surfaces[window] = linked_surfaces(frame, pixels[window], gap, _LINK_STEPS, window)
    return surfaces


def _pieces(parts: np.ndarray, frame: Frame, seen: Segmentation | None) -> np.ndarray:
    """Cut surfaces where a network sees several objects; (H, W) int32, small pieces are 0."""
    pieces, at = np.zeros(frame.shape, np.int32), np.flatnonzero(parts)
    names = parts.ravel()[at].astype(np.int64)
    if seen is not None:
        names = names * (int(seen.instances.max()) + 1) + seen.instances.ravel()[at]
    _, names, sizes = np.unique(names, return_inverse=True, return_counts=True)
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


def evidence_of_pairs(
    frame: Frame, pieces: np.ndarray, ends: np.ndarray, height: np.ndarray, edges: SurfaceEdges,
    gap: float, seen: Segmentation | None,
) -> tuple[np.ndarray, np.ndarray]:
    """
    Return what tells whether pieces side by side are of one object.

    :param pieces: (H, W) int, 0 = none
    :param ends: as `_borders`
    :param edges: as `cut_at_edges`
    :return: (2, P) numbers of pieces, and (P, 7) for each pair: 1; the share of their border
        across which the surface goes on, alone, times the logarithm of how much larger one is, how
        much it bends inwards there, and how far it jumps; the step of colour; the difference of
        their tops. With a network (P, 10): the logarithm of how far apart it sees their middles,
        of how far those scatter; whether it sees both as one; whether it does not see both
    """
    pairs, borders = np.unique(
        np.sort(pieces.ravel()[ends], axis=0), axis=1, return_inverse=True)
    lengths, goes_on = np.bincount(borders.ravel()), _goes_on(frame, ends, gap)
    rows, columns = np.divmod(ends, frame.shape[1])
    bends, jumps = (
        np.minimum(edge[rows // 2, columns // 2].max(axis=0) / unit, 2.0) * goes_on
        for edge, unit in ((edges.bend, _BEND), (edges.jump, _JUMP)))
    goes_on, bend, jump, color = (np.bincount(borders.ravel(), step) / lengths for step in (
        goes_on, bends, jumps, _color_steps(frame, ends)))
    sizes = np.sort(np.bincount(pieces.ravel())[pairs], axis=0)
    at = np.flatnonzero(pieces)
    means, spreads = _moments(pieces.ravel()[at], height.reshape(-1, 1)[at])
    tops = (means[:, 0] + _TOP * spreads)[pairs]
    level = np.abs(tops[0] - tops[1]) / (np.abs(tops).max(axis=0) + _SAME_TOP)
    values = [np.ones(len(lengths)), goes_on, goes_on * np.log(sizes[0] / sizes[1]), bend,
              jump, color, level]
    if seen is not None:
        same = _SAME_MIDDLE * frame.shape[1] / 640
        middles, spreads = _moments(pieces.ravel()[at], seen.centers.reshape(-1, 2)[at])
        apart = np.linalg.norm(middles[pairs[0]] - middles[pairs[1]], axis=1)
        instances = _of_pieces(pieces, seen.instances)[pairs]
        both = instances.all(axis=0)
        values += [np.log((apart + same) / (spreads[pairs].sum(axis=0) + same)) * both,
                   both & (instances[0] == instances[1]), ~both]
    return pairs, np.stack(values, axis=1)


def _goes_on(frame: Frame, ends: np.ndarray, gap: float) -> np.ndarray:
    """Tell at which steps across borders the surface goes on, (N,) bool."""
    one, other = measured(frame.points).reshape(-1, 3)[ends]
    reach = link_reach(frame, np.minimum(one[:, 2], other[:, 2]), gap)
    return np.linalg.norm(one - other, axis=1) < reach


def _color_steps(frame: Frame, ends: np.ndarray) -> np.ndarray:
    """Return how much the colour changes at steps across borders, (N,), 0 to 1."""
    colors = cv2.cvtColor(frame.color.reshape(-1, 1, 3)[ends.ravel()], cv2.COLOR_RGB2LAB)
    one, other = colors.reshape(2, -1, 3).astype(np.float32)
    return np.minimum(np.linalg.norm(one - other, axis=1) / _COLOR_STEP, 1.0)


def _moments(labels: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the means (N, K) and the standard deviations (N,) of values (M, K) by label (M,)."""
    counts, values = np.maximum(np.bincount(labels), 1), values.astype(float)
    means, squares = (
        np.stack([np.bincount(labels, axis) / counts for axis in some.T], axis=1)
        for some in (values, values ** 2))
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
