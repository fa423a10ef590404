"""
What the networks are fed: a crop as six channels.

0 to 2: colour, RGB scaled to ImageNet's mean and deviation. 3: the mask. 4: depth, in cube sides
behind the anchor. 5: where there is a depth reading. A channel that a camera lacks is zero, the
sixth tells a missing reading from one at the anchor, and a mask is never all zero; so one set of
weights serves cameras with depth and without.
"""

import numpy as np

CHANNELS = 6
# Of ImageNet's training pictures, in units of 255.
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)
DEPTH_REACH = 1.0  # cube sides; what lies further from the anchor counts as so far


def crop_channels(
    color: np.ndarray,
    mask: np.ndarray | None,
    depth: np.ndarray | None,
    anchor: float,
    half_field: float,
) -> np.ndarray:
    """
    Return the channels of one crop.

    :param color: (S, S, 3) uint8, RGB
    :param mask: (S, S) bool; None where there is none
    :param depth: (S, S) metres along the crop's axis, NaN = no reading; None where there is none
    :param anchor: median visible depth in metres; not used without depth
    :param half_field: tangent of half the angle that the crop spans
    :return: (6, S, S) float32
    """
    channels = np.zeros((CHANNELS, *color.shape[:2]), np.float32)
    channels[:3] = ((color / np.float32(255) - MEAN) / DEVIATION).transpose(2, 0, 1)
    if mask is not None:
        channels[3] = mask
    if depth is not None:
        read = np.isfinite(depth)
        behind = (np.where(read, depth, anchor) - anchor) / (2.0 * half_field * anchor)
        channels[4] = np.clip(behind, -DEPTH_REACH, DEPTH_REACH)
        channels[5] = read
    return channels
