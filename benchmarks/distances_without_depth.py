# SPDX-License-Identifier: Apache-2.0
"""
How far the sources of distances are off without depth.

    python benchmarks/distances_without_depth.py SCENES

Every visible object of SCENES (`img2scene render --kind scenes`) is placed from its true box
alone. The camera's height and tilt over the support are known exactly, with the errors that the
options of `plane` assume, or not at all. Prints medians; `size` is the mean over the axes.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scenes import WHOLE
from scenes import error_rows
from scipy.spatial.transform import Rotation

from img2scene_ros.learning.samples import ObjectTruth
from img2scene_ros.learning.samples import SceneSample
from img2scene_ros.learning.samples import SceneSamples
from img2scene_ros.localization.combine import place
from img2scene_ros.localization.plane import PlaneDistance
from img2scene_ros.localization.plane import PlaneOptions
from img2scene_ros.localization.size_prior import SizePriorDistance
from img2scene_ros.tables import markdown_table
from img2scene_ros.types import Detection
from img2scene_ros.types import Frame
from img2scene_ros.types import Placement
from img2scene_ros.types import SupportPlane

LEAST_SIDE = 8  # pixels; smaller boxes are skipped
COLUMNS = ('plane', 'source', 'objects', 'placed', 'distance', '90 % below', 'size',
           'error / std', '> 2 std')
CELLS = [
    ('distance', lambda values: f'{np.median(values):.1%}'),
    ('distance', lambda values: f'{np.percentile(values, 90):.0%}'),
    ('size', lambda values: f'{np.median(values):.0%}'),
    ('ratio', lambda values: f'{np.median(values):.2f}'),
    ('ratio', lambda values: f'{(values > 2).mean():.0%}')]


class DistanceError(NamedTuple):
    """
    How far one object is off; NaN where it was not placed.

    - is_whole: nothing hides or cuts the object
    - distance: ln(placed distance / true distance)
    - size: mean of |ln(placed size / true size)| over the object's axes
    - ratio: error of the distance in its stated standard deviation
    """

    is_whole: bool
    distance: float = np.nan
    size: float = np.nan
    ratio: float = np.nan


def distance_errors(
    samples: Sequence[SceneSample], seed: int = 0,
) -> dict[tuple[str, str], list[DistanceError]]:
    """Return the errors of all objects, by what is known of the plane and by source."""
    exact = PlaneOptions(height_std=0.001, angle_std=0.05)
    usual = PlaneOptions()
    size_prior = SizePriorDistance()
    setups = {
        ('exact', '`plane`'): {'plane': PlaneDistance(exact)},
        ('exact', '`size_prior`'): {'size_prior': size_prior},
        ('1 degree, 2 %', '`plane`'): {'plane': PlaneDistance(usual)},
        ('1 degree, 2 %', '`size_prior`'): {'size_prior': size_prior},
        ('1 degree, 2 %', '`auto`'): {'plane': PlaneDistance(usual), 'size_prior': size_prior},
        ('unknown', '`size_prior`'): {'size_prior': size_prior}}
    errors = {setup: [] for setup in setups}
    random = np.random.default_rng(seed)
    for sample in samples:
        frame = Frame(sample.frame.color, sample.frame.camera)
        planes = {
            'exact': SupportPlane(sample.up, sample.support),
            '1 degree, 2 %': _disturbed(sample, usual, random), 'unknown': None}
        for truth in sample.objects:
            if (truth.visible_box[2:] - truth.visible_box[:2]).min() < LEAST_SIDE:
                continue
            detection = Detection(truth.label, 1.0, truth.visible_box)
            for (known, source), sources in setups.items():
                errors[known, source].append(
                    _error(place(sources, frame, detection, planes[known]), truth))
    return errors


def _error(placed: Placement | None, truth: ObjectTruth) -> DistanceError:
    is_whole = truth.shown > WHOLE
    if placed is None:
        return DistanceError(is_whole)
    distance, true, std = np.linalg.norm(
        [placed.position, truth.position, placed.position_std], axis=1)
    off = np.log(distance / true)
    return DistanceError(
        is_whole, off, np.abs(np.log(placed.size / truth.size)).mean(), off / (std / distance))


def _disturbed(
    sample: SceneSample, options: PlaneOptions, random: np.random.Generator,
) -> SupportPlane:
    """Return the support with errors as large as the options assume."""
    tilt, roll = np.radians(options.angle_std) * random.normal(size=2)
    height = sample.support * np.exp(options.height_std * random.normal())
    return SupportPlane(Rotation.from_rotvec([tilt, 0.0, roll]).apply(sample.up), height)


if __name__ == '__main__':
    errors = distance_errors(SceneSamples(Path(sys.argv[1])))
    print(markdown_table(COLUMNS, list(error_rows(errors, CELLS))))
