# SPDX-License-Identifier: Apache-2.0
"""
What depth cameras of three kinds, masks and light make of true pictures: batched, on any device.

Plain torch without loops over the batch, and nothing waits for the device. All chance is from a
generator on the pictures' device: the same state gives the same there. Call it outside autocast.
`read_depth` is for one image as numpy has it.
"""

import numpy as np
import torch
from torch import Generator
from torch import Tensor
from torch.nn import functional as F

from img2scene_ros.camera import Camera
from img2scene_ros.depth import MODELS
from img2scene_ros.depth import DepthNoise
from img2scene_ros.models.instances import largest_around

KINDS = tuple(DepthNoise(model) for model in MODELS)

# Of a usual camera of each kind, in the order of KINDS; pixels are the sensor's.
BASELINE = (0.075, DepthNoise.baseline, 0.0)  # m to the projector or second camera: Kinect, D435
STEP = (1 / 8, 1 / 32, 0.0)  # px of disparity: Kinect; Grunnet-Jepsen, Subpixel linearity
LATERAL = (0.5, 0.5, 0.3)  # px, standard deviation sideways: Handa 2014; time of flight chosen
EDGE_HOLES = (0.4, 0.3, 0.2)  # share of the pixels at depth edges without reading: chosen
FLYING = (0.0, 0.2, 0.5)  # share of those pixels that mix two depths: chosen
GRAZING = (12.0, 8.0, 6.0)  # degrees between ray and surface, flatter ones are lost: chosen
DULL = (22.0, 14.0, 14.0)  # brightness (0 to 255), darker surfaces are lost: chosen
TEXTURELESS = (0.0, 0.05, 0.0)  # share lost of surfaces without texture: chosen
# Of one kind, or of all.
SHINY = 250.0  # brightness, brighter surfaces are lost: chosen
GREY = 128.0  # brightness of the surfaces that time of flight's law is for: chosen
WINDOW = 2.0  # px, stereo errors at a distance d correlate by exp(-(d / 2 WINDOW)^2): chosen
# Two cameras' disparity is smoothed over so many pixels (standard deviation), where it changes by
# less than so many pixels; the greatest of what is drawn: chosen by the look of RealSense frames.
MATCHED, ACROSS = (0.0, 4.0, 0.0), 8.0
CLOUD = 0.05  # the same of patches, in picture heights: chosen
BLOBS = 0.003  # share of a picture in blobs without reading: chosen
PATCHES = 0.7  # share lost of dark and shiny surfaces: chosen
# Standard deviations of a relative error and of one in metres that all readings share: chosen.
SCALE, SHIFT = 0.01, 0.003
EDGE = 0.03  # a jump of the depth by more than this share is an edge: chosen
FLAT = 1.5  # brightness, standard deviation over 9 px of surfaces without texture: chosen
RAGGED = (1.2, 4.0)  # px that ragged edges of masks wander, and go together: chosen


def read_depth(
    depth: np.ndarray, camera: Camera, random: np.random.Generator,
    color: np.ndarray | None = None, kind: str | None = MODELS[0], strength: float = 1.0,
    magnification: float = 1.0, is_calibrated: bool = False,
) -> np.ndarray:
    """
    Return what a depth camera would have read, as `sensed_depth`.

    :param depth: (H, W) metres along the optical axis, NaN = nothing there
    :param random: the source of all chance; the same state gives the same readings
    :param color: (H, W, 3) uint8, RGB; None: everything is grey
    :param kind: one of `MODELS`; None draws it
    :param is_calibrated: there are no errors that all readings share
    :return: (H, W) float32 metres, NaN = no reading
    """
    color = np.full((*depth.shape, 3), int(GREY), np.uint8) if color is None else color
    seed = int(random.integers(2 ** 63))
    kinds = None if kind is None else torch.tensor([MODELS.index(kind)])
    read = sensed_depth(
        torch.tensor(depth)[None], torch.tensor(color.transpose(2, 0, 1))[None],
        torch.tensor([camera.fx]), torch.Generator().manual_seed(seed), kinds,
        torch.tensor([strength]), torch.tensor([magnification]))[0].numpy()
    if is_calibrated:
        return read
    scale, shift = strength * random.normal(size=2) * (SCALE, SHIFT)
    return (read * (1.0 + scale) + shift).astype(np.float32)


def sensed_depth(
    depth: Tensor, color: Tensor, focal: Tensor, generator: Generator,
    kinds: Tensor | None = None, strength: Tensor | None = None,
    magnification: Tensor | None = None,
) -> Tensor:
    """
    Return what depth cameras would have read.

    Readings of a sensor coarser than the picture are repeated, as crops look up the nearest one.
    The optical axis goes through the picture's middle.

    Nguyen, Izadi, Lovell: Modeling Kinect sensor noise, 3DIMPVT 2012. Handa et al.: A benchmark
    for RGB-D visual odometry, ICRA 2014. Keselman et al.: Intel RealSense stereoscopic depth
    cameras, CVPRW 2017. Grunnet-Jepsen et al.: Tuning D400 and Subpixel linearity improvement,
    Intel. Lange, Seitz: Solid-state time-of-flight range camera, IEEE J. Quantum Electronics 2001.
    Tölgyessy et al.: Evaluation of the Azure Kinect, Sensors 2021.

    :param depth: (B, H, W) metres along the optical axis, NaN = nothing there
    :param color: (B, 3, H, W) uint8, RGB
    :param focal: (B,) pixels of these pictures
    :param kinds: (B,) positions in KINDS; None = drawn
    :param strength: (B,) of all errors, 1 = a usual camera (None), 0 = the true depth
    :param magnification: (B,) pixels of these pictures under one of the sensor's; None = 1
    :return: (B, H, W) float32 metres, NaN = no reading
    """
    chance = {'generator': generator, 'device': depth.device}
    ones = torch.ones(len(depth), device=depth.device)
    kinds = torch.randint(len(KINDS), ones.shape, **chance) if kinds is None else kinds
    kinds, strength, magnification, focal = (one.view(-1, 1, 1) for one in (
        kinds, ones if strength is None else strength,
        ones if magnification is None else magnification, focal.float()))
    repeated = magnification.clamp(min=1)
    true = _zoomed(depth.float(), repeated)  # in the sensor's pixels, unless those are finer
    grey = _zoomed(color.float().mean(dim=1), repeated)
    patch, bare, blob = smooth_noise((3, *depth.shape), CLOUD * depth.shape[1], generator)
    window, rim = smooth_noise((2, *depth.shape), WINDOW, generator)
    white, right, down = torch.randn(3, *depth.shape, **chance)
    side = strength * (2 * torch.randint(2, kinds.shape, **chance) - 1)
    matched, across = torch.rand(2, *kinds.shape, **chance)
    true = smoothed(true, focal / magnification * _of(kinds, BASELINE), ACROSS * across,
                    strength * magnification.clamp(max=1) * _of(kinds, MATCHED) * matched)
    at_edge = edges(true)
    lost = shadow(true, focal / repeated, side * _of(kinds, BASELINE))
    lost |= grazing(true, focal / repeated, strength * _of(kinds, GRAZING) * (1 + 0.2 * patch)
                    ) & ~at_edge
    lost |= at_edge & lowest(rim, strength * _of(kinds, EDGE_HOLES))
    lost |= unreadable(grey, kinds, strength) & lowest(patch, PATCHES * ones.view(-1, 1, 1))
    lost |= textureless(grey) & lowest(bare, strength * _of(kinds, TEXTURELESS))
    lost |= lowest(blob, strength * BLOBS)
    read = torch.where(
        at_edge, flying(true, right, down, strength * _of(kinds, FLYING), generator), true)
    jitter = strength * magnification.clamp(max=1) * _of(kinds, LATERAL)
    read = moved(torch.where(lost, torch.nan, read), jitter * right, jitter * down)
    disparity = focal / magnification * _of(kinds, BASELINE)  # pixels, at one metre
    step = strength * _of(kinds, STEP)
    unit = torch.where(step > 0, disparity / step, torch.inf)
    # The laws are those of whole readings; rounding is a part of it, of step / sqrt(12).
    std = strength * axial_std(read, kinds, grey, focal / magnification)
    std = (std ** 2 - (read ** 2 / unit) ** 2 / 12).clamp(min=0).sqrt()
    read = quantised(read + std * torch.where(kinds == 1, window, white), unit)
    read = _zoomed(read, 1 / repeated)
    read = torch.where((read > 0) & ~depth.isnan(), read, torch.nan)
    return torch.where(strength == 0, depth.float(), read)


def axial_std(depth: Tensor, kinds: Tensor, grey: Tensor, focal: Tensor) -> Tensor:
    """
    Return the standard deviation of one reading, (B, H, W) metres.

    That of `DepthNoise`, but that shot noise goes with z / sqrt(albedo) (Lange, Seitz 2001).

    :param focal: (B, 1, 1) the sensor's pixels
    """
    shot = depth * (GREY / grey.clamp(min=4)).sqrt()
    structured, stereo, flight = (
        kind.std(z, focal) for kind, z in zip(KINDS, (depth, depth, shot)))
    return torch.where(kinds == 0, structured, torch.where(kinds == 1, stereo, flight))


def smoothed(depth: Tensor, disparity: Tensor, across: Tensor, reach: Tensor) -> Tensor:
    """
    Smooth disparity where it changes little: low steps become ramps, high ones stay.

    So do semi-global matching, which pays less for changes by a pixel (Hirschmüller, PAMI 2008),
    and the filters behind it.

    :param disparity: (B, 1, 1) pixels, at one metre
    :param across: (B, 1, 1) pixels of disparity within a window that are little
    :param reach: (B, 1, 1) pixels, standard deviation of the window, at most `MATCHED`'s greatest
    """
    known = disparity / depth
    read = known.isfinite()
    both = torch.stack([torch.where(read, known, 0.0), read.float()])
    side = int(2 * max(MATCHED))
    offsets = (torch.arange(pixels, device=depth.device) for pixels in depth.shape[1:])
    apart = [along - along[:, None] for along in offsets]
    down, right = ((-0.5 * (one / reach.clamp(min=1e-3)) ** 2).exp() * (one.abs() <= side)
                   for one in apart)
    total, weight = down @ both @ right
    ends = torch.stack([torch.where(read, sign * known, -torch.inf) for sign in (1, -1)])
    change = largest_around(ends, 2 * side + 1).sum(dim=0)  # largest - least
    is_smooth = (reach > 0) & read & (change < across)
    return torch.where(is_smooth, disparity * weight / total, depth)


def edges(depth: Tensor) -> Tensor:
    """
    Return the pixels beside a jump of the depth, or beside nothing.

    Inverse depth is linear over a plane's pixels, however steep, so its second difference tells
    jumps from slopes.
    """
    inverse = _inverse(depth)
    left, right, above, below = _neighbours(inverse)
    bend = torch.maximum((left + right - 2 * inverse).abs(), (above + below - 2 * inverse).abs())
    return bend > EDGE * F.max_pool2d(inverse, 3, 1, 1)


def shadow(depth: Tensor, focal: Tensor, baseline: Tensor) -> Tensor:
    """
    Return the pixels that the projector or second camera does not see.

    It stands beside the camera and sees a point at pixel u at u - focal * baseline / z; of the
    points that fall together there only the nearest is seen. Along a row: a pixel is in the shadow
    when one further to the right falls as far to the left or further (Keselman et al. 2017).

    :param baseline: (B, 1, 1) metres; positive: to the right, shadows are left of things
    """
    inverse = _inverse(depth)
    inverse = torch.where(baseline < 0, inverse.flip(-1), inverse)
    seen_at = torch.arange(depth.shape[-1], device=depth.device) - focal * baseline.abs() * inverse
    hidden = seen_at.flip(-1).cummin(dim=-1).values.flip(-1) < seen_at - 1e-3
    return torch.where(baseline < 0, hidden.flip(-1), hidden) & depth.isfinite()


def grazing(depth: Tensor, focal: Tensor, degrees: Tensor) -> Tensor:
    """
    Return the pixels whose surface is seen flatter than an angle.

    Of a plane, 1 / z = a x + b y + c at the ray (x, y, 1), and (a, b, c) is along its normal.
    """
    inverse = _inverse(depth)
    left, right, above, below = _neighbours(inverse)
    y, x = (torch.arange(pixels, device=depth.device) - (pixels - 1) / 2
            for pixels in depth.shape[1:])
    y, x = y[:, None] / focal, x / focal
    a, b = focal * (right - left) / 2, focal * (below - above) / 2
    c = inverse - a * x - b * y
    length = ((a ** 2 + b ** 2 + c ** 2) * (x ** 2 + y ** 2 + 1)).sqrt()
    return inverse < length * degrees.deg2rad().sin()


def unreadable(grey: Tensor, kinds: Tensor, strength: Tensor) -> Tensor:
    """Return the too dark and the too bright pixels."""
    return (grey < strength * _of(kinds, DULL)) | (255 - grey < strength * (255 - SHINY))


def textureless(grey: Tensor) -> Tensor:
    """Return the pixels without anything beside them that two cameras could match."""
    mean, square = F.avg_pool2d(torch.stack([grey, grey ** 2]), (1, 9), 1, (0, 4),
                                count_include_pad=False)
    return square - mean ** 2 < FLAT ** 2


def flying(
    depth: Tensor, right: Tensor, down: Tensor, share: Tensor, generator: Generator,
) -> Tensor:
    """Mix the depths of a share of the pixels with those of neighbours, as far as there are."""
    mix = torch.rand(depth.shape, generator=generator, device=depth.device) / share
    mixed = depth + mix * (moved(depth, right.sign(), down.sign()) - depth)
    return torch.where((mix < 1) & mixed.isfinite(), mixed, depth)


def moved(depth: Tensor, right: Tensor, down: Tensor) -> Tensor:
    """Read every pixel so many pixels beside."""
    rows, columns = (torch.arange(pixels, device=depth.device) for pixels in depth.shape[1:])
    return _looked_up(depth, rows[:, None] + down, columns + right)


def quantised(depth: Tensor, unit: Tensor) -> Tensor:
    """Round the disparity unit / z to whole numbers; an infinite unit has no steps."""
    return torch.where(unit.isinf(), depth, unit / (unit / depth).round().clamp(min=1))


def smooth_noise(shape: tuple[int, ...], cell: float, generator: Generator) -> Tensor:
    """
    Return normal noise of unit standard deviation that is alike nearby.

    At a distance d it correlates by exp(-(d / 2 cell)^2): random bumps on a lattice.

    :param shape: (..., H, W)
    :param cell: pixels
    """
    bumps = []
    for pixels in shape[-2:]:
        places = torch.arange(-2, pixels / cell + 2, device=generator.device)
        along = torch.arange(pixels, device=generator.device)[:, None] / cell - places
        bumps.append(F.normalize((-0.5 * along ** 2).exp(), dim=1))
    lattice = torch.randn(*shape[:-2], bumps[0].shape[1], bumps[1].shape[1], generator=generator,
                          device=generator.device)
    return bumps[0] @ lattice @ bumps[1].T


def wrong_masks(masks: Tensor, generator: Generator, most: int, ragged: float) -> Tensor:
    """
    Erode or dilate each mask by 0 to `most` pixels, some unevenly; one that would vanish stays.

    :param masks: (B, H, W) bool
    :param ragged: share of the masks whose edges wander, by 3 pixels or `most` if that is more
    """
    each, chance = (len(masks), 1, 1), {'generator': generator, 'device': masks.device}
    waves = RAGGED[0] * smooth_noise(masks.shape, RAGGED[1], generator)
    shift = torch.randint(-most, most + 1, each, **chance) + torch.where(
        torch.rand(each, **chance) < ragged, waves, 0)
    reach = max(most, 3)
    u = torch.arange(-reach, reach + 1, device=masks.device)
    radii = torch.arange(1, reach + 1, device=masks.device)[:, None, None]
    disks = (u ** 2 + u[:, None] ** 2 <= radii ** 2).float()[:, None]
    beyond, within = ((F.conv2d(one[:, None].float(), disks, padding=reach) < 0.5).sum(dim=1)
                      for one in (masks, ~masks))
    layer = ~masks + beyond - within  # pixels out of the mask's outermost pixels
    changed = layer <= shift.round().clamp(-reach, reach)
    return torch.where(changed.flatten(1).any(dim=1)[:, None, None], changed, masks)


def light_changed(color: Tensor, generator: Generator, strength: float = 1.0) -> Tensor:
    """
    Change gamma, gain, white balance, brightness and saturation; blur; add noise, per picture.

    On a CPU `detector_data.photometric`, in 8 bits, takes a fifth of the time.

    :param color: (B, 3, H, W) uint8, RGB
    :return: (B, 3, H, W) uint8
    """
    each, chance = (len(color), 1, 1, 1), {'generator': generator, 'device': color.device}
    gamma, gain, offset, saturation = strength * torch.randn(4, *each, **chance)
    balance = strength * torch.randn(len(color), 3, 1, 1, **chance)
    pixels = (color / 255) ** (0.2 * gamma).exp() * (0.2 * gain + 0.08 * balance).exp()
    pixels = 255 * (pixels + 0.05 * offset).clamp(0, 1)
    grey = pixels.mean(dim=1, keepdim=True)
    pixels = grey + (pixels - grey) * (0.3 * saturation).exp()
    blurred, blur, noise = torch.rand(3, *each, **chance)
    sigma = (strength * (blurred < 0.3) * (0.3 + blur)).clamp(min=0.01)
    kernel = (-0.5 * (torch.arange(-4, 5, device=color.device) / sigma) ** 2).exp()
    kernel = (kernel / kernel.sum(dim=-1, keepdim=True)).repeat_interleave(3, dim=0)
    count, pixels = len(kernel), F.pad(pixels, (4, 4, 4, 4), mode='replicate')
    pixels = F.conv2d(pixels.flatten(0, 1), kernel, groups=count)
    pixels = F.conv2d(pixels, kernel.mT, groups=count).view(color.shape)
    pixels = pixels + 6 * strength * noise * torch.randn(color.shape, **chance)
    return pixels.round().clamp(0, 255).byte()


def _of(kinds: Tensor, values: tuple[float, float, float]) -> Tensor:
    """Return the value of each picture's kind; a tensor of values would wait for the device."""
    return torch.where(kinds == 0, values[0], torch.where(kinds == 1, values[1], values[2]))


def lowest(noise: Tensor, share: Tensor) -> Tensor:
    """Return where normal noise is lowest, on a share of all pixels."""
    return noise < torch.special.ndtri(share.clamp(max=1))


def _inverse(depth: Tensor) -> Tensor:
    return (1 / depth).nan_to_num(0.0)


def _neighbours(image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the pixels to the left, to the right, above and below, the nearest ones outside."""
    wide = F.pad(image[:, None], (1, 1, 1, 1), mode='replicate')[:, 0]
    return wide[:, 1:-1, :-2], wide[:, 1:-1, 2:], wide[:, :-2, 1:-1], wide[:, 2:, 1:-1]


def _zoomed(image: Tensor, scale: Tensor) -> Tensor:
    """Look an image up `scale` times as far from its middle."""
    y, x = (torch.arange(pixels, device=image.device) - (pixels - 1) / 2
            for pixels in image.shape[1:])
    return _looked_up(image, scale * y[:, None] - y[0], scale * x - x[0])


def _looked_up(image: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return the (B, H, W) pixels nearest to rows and columns."""
    height, width = image.shape[1:]
    index = rows.round().clamp(0, height - 1) * width + columns.round().clamp(0, width - 1)
    return image.flatten(1).gather(1, index.flatten(1).long()).view(image.shape)
