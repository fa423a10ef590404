# SPDX-License-Identifier: Apache-2.0
"""Random materials: colours as functions of the place on a surface."""

import colorsys
from dataclasses import dataclass

import numpy as np
import torch

from img2scene_ros.rendering.traced import PATTERNS
from img2scene_ros.rendering.traced import pattern_colors

DRAWN = ('plain', *PATTERNS)  # of which one is drawn: two of seven are plain


@dataclass(frozen=True, eq=False)
class SolidTexture:
    """A solid texture, as one of `traced.Materials`."""

    pattern: str  # one of `PATTERNS`
    colors: np.ndarray  # (3, 3) RGB, 0 to 255: ground, figure, and what is printed on a band
    axes: np.ndarray  # (3, 3), directions of the pattern, one per row
    period: float  # metres
    phases: np.ndarray  # (6,) radians, the chance of the noise

    def at(self, points: np.ndarray) -> np.ndarray:
        """Return the colours of points: (N, 3) metres to (N, 3) RGB, 0 to 255."""
        place, *parts = (torch.tensor(part, dtype=torch.float32) for part in (
            points, self.colors, self.axes, self.period, self.phases))
        pattern = torch.full(place.shape[:1], PATTERNS.index(self.pattern))
        return pattern_colors(
            place, pattern, *(part.expand(len(place), *part.shape) for part in parts)).numpy()


def random_texture(random: np.random.Generator, extent: float, vivid: float = 0.6) -> SolidTexture:
    """
    Draw a material.

    :param extent: metres, size of the thing; patterns are finer
    :param vivid: greatest saturation of the colours, 0 to 1
    """
    pattern = DRAWN[random.integers(len(DRAWN))]
    period = extent * random.uniform(0.3, 0.6) if pattern == 'band' \
        else extent * np.exp(random.uniform(np.log(0.06), np.log(0.5)))
    axes = np.eye(3)[random.permutation(3)] if random.random() < 0.5 else np.eye(3)[[2, 0, 1]]
    colors = np.array([random_color(random, vivid) for _ in range(3)])
    if pattern in ('noise', 'grain'):  # natural materials vary a little about one colour
        colors[1] = colors[0] * random.uniform(0.6, 0.95)
    return SolidTexture(pattern, colors, axes, float(period), random.uniform(0, 2 * np.pi, 6))


def random_color(random: np.random.Generator, vivid: float) -> np.ndarray:
    """Draw a colour: (3,) RGB, 0 to 255; a third of all are near white, grey or black."""
    saturation = random.uniform(0, 0.12 if random.random() < 0.33 else vivid)
    value = random.uniform(0.12, 1.0)
    return 255 * np.array(colorsys.hsv_to_rgb(random.random(), saturation, value))
