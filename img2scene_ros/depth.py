# SPDX-License-Identifier: Apache-2.0
"""Depth images: in metres, and how far one reading may be off."""

from collections import deque
from dataclasses import dataclass
from dataclasses import replace
from fractions import Fraction

import numpy as np

from img2scene_ros.errors import InputError
from img2scene_ros.errors import OptionError
from img2scene_ros.options import Options
from img2scene_ros.options import option

UNITS = {'m': 1.0, 'cm': 0.01, 'mm': 0.001}  # metres
# Metres. No depth camera sees so far, and none so near that its millimetres were below: a float
# image whose median is beyond is in millimetres, and single such readings are a drawn background.
FARTHEST = 50.0
NOTHING_16 = 65535  # of 16 bits: what some sensors have where a distance does not fit
NOTHING = 65504.0  # greatest number of 16-bit floats: renderers have it, or more, where nothing is
MODELS = ('structured_light', 'stereo', 'time_of_flight')
_HELD = 30  # images whose median tells how noisy the sensor is
_ROWS = 60  # of an image, about, in which it is measured, and columns as far apart
_APART = 8  # pixels at a width of 640 over which noise is measured; stereo windows are as wide


def measured(depth: np.ndarray | None) -> np.ndarray:
    """
    Return the depth or the points of a frame, for what works only with a depth sensor.

    :raises InputError: the frame has none
    """
    if depth is None:
        raise InputError('the frame has no depth image; give one registered to the picture')
    return depth


@dataclass(frozen=True)
class DepthNoise(Options):
    """How the noise of a depth camera grows with the distance."""

    model: str = option(
        'structured_light', 'What kind the depth camera is of: structured_light (Kinect, '
        'PrimeSense), stereo (also active, as RealSense D400 or ZED) or time_of_flight (Azure '
        'Kinect, Femto)', choices=MODELS, read_only=True)
    baseline: float = option(
        0.05, 'Distance between the two cameras of a stereo camera [m]', low=0.001, high=10.0,
        read_only=True)
    disparity_std: float = option(
        0.08, "Standard deviation of a stereo camera's disparity [pixels of the depth image]",
        low=0.001, high=10.0, read_only=True)
    constant: float = option(
        0.001, 'Standard deviation of a time-of-flight reading near the camera [m]', low=0.0001,
        high=1.0, read_only=True)
    linear: float = option(
        0.001, 'By how much it grows with the distance [m per m]', low=0.0, high=1.0,
        read_only=True)
    scale: float = option(
        0.0, 'Factor on what the model says; 0: measured in the depth images, where they are '
        'noisier', low=0.0, high=100.0, read_only=True)

    def std(self, depth: np.ndarray, focal: float) -> np.ndarray:
        """
        Return the standard deviation of one depth reading.

        Structured light: Nguyen, Izadi, Lovell: Modeling Kinect sensor noise, 3DIMPVT 2012.
        Stereo: that of the disparity f b / z; a D435's in Keselman et al.: Intel RealSense
        stereoscopic depth cameras, CVPRW 2017. Time of flight: a constant, and shot noise that
        goes with z (Lange, Seitz: Solid-state time-of-flight range camera, IEEE J. Quantum
        Electronics 2001); chosen within those of Tölgyessy et al.: Evaluation of the Azure
        Kinect, Sensors 2021.

        :param depth: metres along the optical axis, of any shape, also a torch tensor
        :param focal: pixels of the depth image
        :return: metres, same shape
        """
        scale = self.scale or 1.0
        if self.model == 'stereo':
            return scale * self.disparity_std * depth ** 2 / (focal * self.baseline)
        if self.model == 'time_of_flight':
            return scale * (self.constant + self.linear * depth)
        return scale * (0.0012 + 0.0019 * (depth - 0.4) ** 2)

    def measured_scale(self, depth: np.ndarray, focal: float) -> float:
        """
        Return how many times noisier a depth image is than the model says; NaN where it is empty.

        On a plane the inverse of the depth goes straight across the picture. So its second
        differences are noise, but where there are edges, which a median does not mind. They are
        taken over `_APART` pixels, as neighbouring readings of a sensor are often off together.

        :param depth: (H, W) metres, NaN = no reading
        :param focal: pixels of the depth image
        """
        apart = max(1, round(_APART * depth.shape[1] / 640))
        ratios = []
        step, along = max(1, depth.shape[0] // _ROWS), max(1, apart // _APART)
        for image in (depth[::step], depth.T[::step]):
            ends, middle, others = (
                np.where(part > 0, part, np.float32(np.nan)) for part in (
                    image[:, :-2 * apart:along], image[:, apart:-apart:along],
                    image[:, 2 * apart::along]))
            bend = 1.0 / ends + 1.0 / others - 2.0 / middle
            off = np.abs(bend) * middle ** 2 / self.std(middle, focal)
            ratios.append(off[np.isfinite(off)])
        found = np.concatenate(ratios)
        # Of normal noise the median is 0.6745 deviations, and a bend is off by three readings.
        return float(np.median(found) / (0.6745 * np.sqrt(6.0))) if len(found) else np.nan


def parse_depth_unit(text: str) -> float:
    """
    Read the unit of depth images: m, cm, mm, or metres as a number or fraction, such as 1/5000.

    :raises OptionError: it is none, or more than a metre
    """
    try:
        unit = UNITS.get(text) or float(Fraction(text))
    except (ValueError, ZeroDivisionError):
        unit = 0.0
    if not 0.0 < unit <= 1.0:
        raise OptionError(
            f"the depth unit '{text}' is none; give {', '.join(UNITS)}, or metres per unit such "
            'as 0.0001 or 1/5000')
    return unit


class MeasuredNoise:
    """How noisy a depth sensor is, by its latest images: the median of what they show."""

    def __init__(self) -> None:
        self._scales: deque[float] = deque(maxlen=_HELD)

    def of(self, noise: DepthNoise, depth: np.ndarray, focal: float) -> DepthNoise:
        """
        Take in one more image; return the noise, scaled where images are noisier than it says.

        :param noise: the model; one with a given scale stays as it is
        :param depth: (H, W) metres, NaN = no reading
        :param focal: pixels of the depth image
        """
        if noise.scale:
            return noise
        scale = noise.measured_scale(depth, focal)
        if np.isfinite(scale):
            self._scales.append(scale)
        return replace(noise, scale=max(1.0, float(np.median(self._scales or [1.0]))))


def metric_depth(raw: np.ndarray, unit: float | None = None) -> np.ndarray:
    """
    Convert a depth image to metres with NaN for every pixel without a reading (REP-118).

    Some drivers have the greatest float where REP-118 has infinity.

    :param raw: (H, W) numbers
    :param unit: metres; None: uint16 are millimetres, floats metres
    :return: (H, W) float32
    :raises InputError: several channels, or a type whose unit has to be told
    """
    known = ('f', 'u', 'i') if unit else ('f',)
    if raw.ndim != 2 or raw.dtype != np.uint16 and raw.dtype.kind not in known:
        raise InputError(
            f'the depth image is {raw.shape} {raw.dtype}; it must have one channel, '
            'either 16-bit millimetres or float metres (other numbers need a depth unit)')
    scale = unit or (0.001 if raw.dtype == np.uint16 else 1.0)
    depth = raw.astype(np.float32) * np.float32(scale)
    is_read = (depth > 0) & (depth < NOTHING)
    if raw.dtype == np.uint16:
        is_read &= raw < NOTHING_16
    depth[~is_read] = np.nan
    return depth
