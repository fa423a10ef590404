# SPDX-License-Identifier: Apache-2.0
"""Random materials: colours as functions of the place on a surface."""

import colorsys
from dataclasses import dataclass

import numpy as np

PATTERNS = ('plain', 'plain', 'stripes', 'checkers', 'band', 'noise', 'grain')


@dataclass(frozen=True, eq=False)
class SolidTexture:
    """A solid texture."""

    pattern: str  # one of `PATTERNS`
    colors: np.ndarray  # (3, 3) RGB, 0 to 255: ground, figure, and what is printed on a band
    axes: np.ndarray  # (3, 3), directions of the pattern, one per row
    period: float  # metres
    phases: np.ndarray  # (6,) radians, the chance of the noise

    def at(self, points: np.ndarray) -> np.ndarray:
        """Return the colours of points: (N, 3) metres to (N, 3) RGB, 0 to 255."""
        ground, figure, print_ = self.colors
        return _mixed(ground, figure, self._figure(points)) if self.pattern != 'band' else \
            _mixed(_mixed(ground, figure, self._figure(points)), print_, self._print(points))

    def _figure(self, points: np.ndarray) -> np.ndarray:
        """Return how much of the figure's colour points have, (N,) 0 to 1."""
        a, b, c = (points @ self.axes.T / self.period).T
        if self.pattern == 'stripes':
            return (np.sin(2 * np.pi * a) > 0).astype(float)
        if self.pattern == 'checkers':
            return (np.floor(a) + np.floor(b) + np.floor(c)) % 2
        if self.pattern == 'band':
            return (np.abs(a) < 0.8).astype(float)
        if self.pattern == 'noise':
            return _noise(a, b, c, self.phases)
        if self.pattern == 'grain':
            return _noise(4 * a, 0.3 * b, c, self.phases)
        return np.zeros(len(points))

    def _print(self, points: np.ndarray) -> np.ndarray:
        """Return where something is printed on the band, (N,) 0 or 1."""
        a, b, c = (points @ self.axes.T / self.period).T
        lines = (np.sin(18 * a + self.phases[0]) > 0.2) & (np.sin(9 * (b + c)) > -0.3)
        return (lines & (np.abs(a) < 0.6)).astype(float)


def random_texture(random: np.random.Generator, extent: float, vivid: float = 0.6) -> SolidTexture:
    """
    Draw a material.

    :param extent: metres, size of the thing; patterns are finer
    :param vivid: greatest saturation of the colours, 0 to 1
    """
    pattern = PATTERNS[random.integers(len(PATTERNS))]
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


def _mixed(one: np.ndarray, other: np.ndarray, share: np.ndarray) -> np.ndarray:
    return one + (other - one) * share[:, None]


def _noise(a: np.ndarray, b: np.ndarray, c: np.ndarray, phases: np.ndarray) -> np.ndarray:
    """Return smooth noise, 0 to 1: sines whose arguments other sines bend."""
    bent = 2 * np.sin(1.7 * b + phases[0]) + 2 * np.sin(2.3 * c + phases[1])
    fine = np.sin(7 * a + 3 * np.sin(3.1 * b + phases[2]) + phases[3])
    return 0.5 + 0.3 * np.sin(3 * a + bent + phases[4]) + 0.2 * fine * np.sin(5 * c + phases[5])
