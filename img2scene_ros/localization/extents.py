# SPDX-License-Identifier: Apache-2.0
"""How large objects are along their own three sides, and how well that suits a class."""

from dataclasses import dataclass
from functools import cache
from itertools import permutations

import numpy as np

from img2scene_ros.depth import measured
from img2scene_ros.detection import box_iou
from img2scene_ros.localization import READINGS
from img2scene_ros.localization import box_around
from img2scene_ros.localization import quantiles
from img2scene_ros.localization.class_sizes import packaged
from img2scene_ros.localization.combine import GUESSES
from img2scene_ros.types import Sighting

# Standard deviation of a measured side beyond its noise, as a share: masks cut edges off, and
# the sides of a box are not quite those of the thing. Of drawn cans, boxes and bowls.
_SHAPE_STD = 0.1
# ... of the end of a side that nobody sees, beyond the picture or behind the object's top.
_UNSEEN_STD = 0.7
# Readings show how large a thing is when the box around them has this IoU with its own.
_SHOWN = 0.5
# A thing that is taken for one of a class, but is none, has a size that spreads this many times
# wider; see `size_ratio`.
_WIDER = 3.0
# So many of what a detector knows for sure are toys, models or pictures, of any size.
_TOYS = 0.01


@dataclass(frozen=True, eq=False)
class Extents:
    """
    The sides of the box around an object, in any order, natural logarithms of metres.

    - least, most: (3,) how much of each is seen, and what it may be as its end is hidden
    - stds: (3,) standard deviation of both
    - unseen: (3,) further standard deviation of `most`, upwards
    """

    least: np.ndarray
    most: np.ndarray
    stds: np.ndarray
    unseen: np.ndarray


@cache
def usual_extents() -> dict[str, np.ndarray]:
    """Return the logarithms of the usual sides and their spreads, (2, 3), by class name."""
    return {label: np.array([np.log(metres), spreads]) for label, (metres, spreads) in (
        (label, zip(*sides)) for label, sides in packaged('extents.yaml').items())}


def measured_extents(sighting: Sighting) -> Extents | None:
    """
    Return how large an object is.

    Readings show the outline on the ground, as the rectangle of least area around them (a banana
    that lies across is no plate); without them width and height are known by the distance. What
    lies along the line of sight may be as deep as wide and high, or any deeper where the camera
    does not see the top; the picture's border hides the end of any side.

    :return: None where the distance was guessed by how large such things are, and where too little
        has readings (of a chair its frame, of a bottle its label)
    """
    placement = sighting.placement
    sources = placement.depth_source.split('+')
    if any(source in GUESSES for source in sources):  # which prove nothing
        return None
    least, noise, share = placement.size.copy(), 0.0, 0.0
    if sources == ['sensor']:
        pixels = sighting.detection.pixels(READINGS)
        read = pixels[np.isfinite(measured(sighting.frame.depth).take(pixels))]
        if not len(read) or box_iou(
                box_around(read, sighting.frame.shape[1])[None],
                sighting.detection.bbox[None])[0, 0] < _SHOWN:
            return None
        least[:2] = _sides(sighting)
        noise = float(sighting.frame.depth_std(placement.position[2]))
    else:
        least[0] = 0.0
        share = placement.relative_std
    least = np.maximum(least, 1e-3)
    most = np.append(max(least[0], min(least[1:])), least[1:])
    top = placement.position @ placement.rotation[:, 2] + placement.size[2] / 2.0
    is_unseen = np.array([top > 0.0, False, False]) | is_cut(sighting)
    return Extents(
        np.log(least), np.log(most),
        np.sqrt(_SHAPE_STD ** 2 + share ** 2 + (noise / least) ** 2), _UNSEEN_STD * is_unseen)


def size_ratio(extents: Extents | None, label: str) -> float:
    """
    Tell what the measured size says for a name: 1 is nothing, less is against it.

    The ratio of two likelihoods for each side: of a thing of the class, and of another that is
    taken for one. Both are log-normal about the usual size, the latter `_WIDER` times as wide,
    since what looks like a thing mostly has its size, too; for the same reason size speaks
    against names only (at most 1). Few things, toys, bear the name at any size.

    :param extents: None where the size is not known
    :return: `_TOYS` to 1
    """
    usual = usual_extents().get(label)
    if extents is None or usual is None:
        return 1.0
    orders = np.array(list(permutations(range(3))))
    means, spreads = usual[:, orders]
    spreads = np.hypot(extents.stds, spreads)
    z = np.maximum(np.maximum((extents.least - means) / spreads,
                              (means - extents.most) / np.hypot(spreads, extents.unseen)), 0.0)
    ratios = _WIDER * np.exp(-0.5 * z ** 2 * (1.0 - _WIDER ** -2))
    best = np.minimum(ratios, 1.0).prod(axis=1).max()
    return float(_TOYS + (1.0 - _TOYS) * best)


def _sides(sighting: Sighting) -> np.ndarray:
    """Return the sides of the outline in plan, first that towards the camera, (2,) metres."""
    points = sighting.frame.readings_at(sighting.detection.pixels(READINGS))
    plan = sighting.placement.rotation[:, :2].T.astype(np.float32) @ points.T
    return np.ptp(quantiles(plan, (0.01, 0.99)), axis=0)


def is_cut(sighting: Sighting) -> bool:
    """Tell whether the picture's border cuts the object."""
    height, width = sighting.frame.shape
    xmin, ymin, xmax, ymax = sighting.detection.bbox
    return bool(xmin < 1 or ymin < 1 or xmax > width - 1 or ymax > height - 1)
