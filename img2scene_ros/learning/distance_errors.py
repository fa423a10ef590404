# SPDX-License-Identifier: Apache-2.0
"""
How far the sources of distances are off without depth: `python -m` with a folder of scenes.

Every visible object of rendered scenes is placed from its true box alone. The camera's height and
tilt over the support are known exactly, with the errors that the options of `plane` assume, or
not at all.
"""

import sys
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from img2scene_ros.learning.samples import SceneSample
from img2scene_ros.learning.samples import SceneSamples
from img2scene_ros.localization.combine import place
from img2scene_ros.localization.plane import PlaneDistance
from img2scene_ros.localization.plane import PlaneOptions
from img2scene_ros.localization.size_prior import SizePriorDistance
from img2scene_ros.types import Detection
from img2scene_ros.types import Frame
from img2scene_ros.types import SupportPlane

LEAST_SIDE = 8  # pixels; smaller boxes are left out
WHOLE = 0.9  # share of its full box that an object shows that counts as whole
HEADING = (
    '| plane | source | objects | placed | distance | 90 % below | size | error / std | > 2 std |',
    '| --- | --- | --- | --- | --- | --- | --- | --- | --- |')


@dataclass(frozen=True)
class DistanceError:
    """
    How far one object is off; NaN where it was not placed.

    - distance: ln(placed distance / true distance)
    - size: mean of |ln(placed size / true size)| over the object's axes
    - ratio: error of the distance in its stated standard deviation
    - is_whole: nothing hides or cuts the object
    """

    distance: float
    size: float
    ratio: float
    is_whole: bool


def distance_errors(
    samples: Sequence[SceneSample], seed: int = 0,
) -> dict[tuple[str, str], list[DistanceError]]:
    """Return the errors of all objects, by what is known of the plane and by source."""
    exact = PlaneOptions(height_std=0.001, angle_std=0.05)
    usual = PlaneOptions()
    size_prior = SizePriorDistance()
    setups = {
        ('exact', 'plane'): {'plane': PlaneDistance(exact)},
        ('exact', 'size_prior'): {'size_prior': size_prior},
        ('1 degree, 2 %', 'plane'): {'plane': PlaneDistance(usual)},
        ('1 degree, 2 %', 'size_prior'): {'size_prior': size_prior},
        ('1 degree, 2 %', 'auto'): {'plane': PlaneDistance(usual), 'size_prior': size_prior},
        ('unknown', 'size_prior'): {'size_prior': size_prior}}
    errors: dict[tuple[str, str], list[DistanceError]] = {setup: [] for setup in setups}
    rng = np.random.default_rng(seed)
    for sample in samples:
        frame = Frame(sample.frame.color, sample.frame.camera)
        planes = {
            'exact': SupportPlane(sample.up, sample.support),
            '1 degree, 2 %': _disturbed(sample, usual, rng), 'unknown': None}
        for truth in sample.objects:
            if (truth.visible_box[2:] - truth.visible_box[:2]).min() < LEAST_SIDE:
                continue
            detection = Detection(truth.label, 1.0, truth.visible_box)
            for (known, source), sources in setups.items():
                placed = place(sources, frame, detection, planes[known])
                if placed is None:
                    error = DistanceError(np.nan, np.nan, np.nan, truth.shown > WHOLE)
                else:
                    off = float(np.log(
                        np.linalg.norm(placed.position) / np.linalg.norm(truth.position)))
                    std = np.linalg.norm(placed.position_std) / np.linalg.norm(placed.position)
                    error = DistanceError(
                        off, float(np.abs(np.log(placed.size / truth.size)).mean()),
                        float(off / std), truth.shown > WHOLE)
                errors[known, source].append(error)
    return errors


def _disturbed(
    sample: SceneSample, options: PlaneOptions, rng: np.random.Generator,
) -> SupportPlane:
    """Return the support with errors as large as the options assume."""
    tilt, roll = np.radians(options.angle_std) * rng.normal(size=2)
    height = sample.support * np.exp(options.height_std * rng.normal())
    return SupportPlane(Rotation.from_rotvec([tilt, 0.0, roll]).apply(sample.up), height)


def distance_table(errors: dict[tuple[str, str], list[DistanceError]]) -> Iterator[str]:
    """Return the lines of a Markdown table of medians: of whole objects, then of the others."""
    yield from HEADING
    for is_whole, what in ((True, 'whole'), (False, 'hidden or cut')):
        for (known, source), all_errors in errors.items():
            some = [error for error in all_errors if error.is_whole == is_whole]
            placed = [error for error in some if np.isfinite(error.distance)]
            if not placed:
                continue
            off, size, ratio = np.abs([
                (error.distance, error.size, error.ratio) for error in placed]).T
            yield (f'| {known} | `{source}` | {what} | {len(off)} of {len(some)} '
                   f'| {np.median(off):.1%} | {np.percentile(off, 90):.0%} '
                   f'| {np.median(size):.0%} | {np.median(ratio):.2f} '
                   f'| {(ratio > 2).mean():.0%} |')


def main(arguments: Sequence[str]) -> None:
    """Print the table for the scenes in a folder that `img2scene render --kind scenes` wrote."""
    print('\n'.join(distance_table(distance_errors(SceneSamples(Path(arguments[0]))))))


if __name__ == '__main__':
    main(sys.argv[1:])
