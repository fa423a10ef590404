# SPDX-License-Identifier: Apache-2.0
"""Which pixels of a depth image are of one surface."""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from img2scene_ros.depth import measured
from img2scene_ros.types import Frame

# Neighbours on a slanted surface lie so many times as far apart as on one seen head-on, which from
# afar is more than the gap between two objects; 3 is a surface at 70 degrees to the picture.
_SLANT = 3.0


def linked_surfaces(
    frame: Frame, pixels: np.ndarray, gap: float, steps: Sequence[int],
    window: tuple[slice, slice] = np.s_[:, :],
) -> np.ndarray:
    """
    Label pixels by the surface they are part of: it goes on to neighbours that are near in space.

    :param pixels: bool, those to label, (H, W) or as large as the window
    :param gap: distance between two surfaces, metres; noise and slant come on top
    :param steps: pixels to the neighbours, right and down; more than 1 bridges holes in the depth
    :param window: the part of the frame that is labelled
    :return: int, of the same shape; 0 for all other pixels
    """
    points, depth = measured(frame.points)[window], measured(frame.depth)[window]
    rows, columns = pixels.shape
    count = np.count_nonzero(pixels)
    index = np.full(pixels.shape, -1)
    index[pixels] = np.arange(count)
    reach = np.maximum(gap, _SLANT * depth / frame.camera.fx) + 3.0 * frame.depth_std(depth)
    links = []
    for step in steps:
        for down, right in ((0, step), (step, 0)):
            one = np.s_[:max(rows - down, 0), :max(columns - right, 0)]
            other = np.s_[down:, right:]
            across = points[one] - points[other]
            near = np.einsum('...i,...i', across, across) < reach[one] ** 2
            near &= pixels[one] & pixels[other]
            links.append(np.stack([index[one][near], index[other][near]]))
    first, second = np.concatenate(links, axis=1)
    graph = coo_matrix((np.ones(len(first), bool), (first, second)), (count, count))
    labels = np.zeros(pixels.shape, int)
    if count:
        labels[pixels] = connected_components(graph, directed=False)[1] + 1
    return labels
