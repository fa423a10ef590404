"""
What depth cameras of three kinds, masks and light make of true pictures: batched, on any device.

For training where pictures are drawn. Plain torch without loops over the batch, and nothing is
brought to the CPU. All chance is from a generator on the pictures' device: the same state gives
the same result there. Call it outside of autocast.
"""

from collections.abc import Sequence

import torch
from torch import Generator
from torch import Tensor
from torch.nn import functional as F

from img2scene_ros.frame import depth_std

KINDS = ('structured light', 'stereo', 'time of flight')

# Of a usual camera of each kind, in the order of KINDS; pixels are the sensor's.
#            structured, stereo, time of flight
BASELINE = (0.075, 0.050, 0.0)  # m between projector or second camera and camera: Kinect, D435
STEP = (1 / 8, 1 / 32, 0.0)  # px of disparity: Nguyen 2012; Grunnet-Jepsen, subpixel linearity
LATERAL = (0.5, 0.5, 0.3)  # px, standard deviation of sideways jitter: Handa 2014; ToF chosen
EDGE_HOLES = (0.4, 0.3, 0.2)  # share of the pixels at depth edges without reading: chosen
FLYING = (0.0, 0.2, 0.5)  # share of those pixels that read between near and far: chosen
GRAZING = (12.0, 8.0, 6.0)  # degrees between ray and surface; flatter ones are lost: chosen
DULL = (22.0, 14.0, 14.0)  # brightness, 0 to 255, below which readings get lost: chosen
SHINY = (250.0, 250.0, 252.0)  # brightness above which readings get lost: chosen
TEXTURELESS = (0.0, 0.05, 0.0)  # share of patches without texture without reading: chosen
# Of all kinds, or of one.
DISPARITY_STD = 0.08  # px, stereo: Keselman 2017; Grunnet-Jepsen, tuning of D400
TOF_STD = 0.001, 0.001  # m, m per m at GREY, about Azure Kinect's: Tölgyessy 2021
GREY = 128.0  # brightness of usual surfaces: chosen
WINDOW = 3.0  # px, stereo errors at a distance d go together by exp(-(d / 2 WINDOW)^2): chosen
CLOUD = 0.05  # of the height, the same of patches: chosen
BLOBS = 0.003  # share of the picture in blobs without reading: chosen, as depth_noise.blobs
PATCH = -0.5  # clouds above it are lost on dark and shiny surfaces, which is 69 %: chosen
EDGE = 0.03  # a jump of the depth by more than this share is an edge: chosen
FLAT = 1.5  # brightness, standard deviation in 5 x 5 px below which there's no texture: chosen
FINEST = 0.5  # magnification; of finer sensors the errors stay as wide: chosen
RAGGED = 0.3, 1.2  # share of masks with ragged edges, px that they wander: chosen


def sensed_depth(
    depth: Tensor,
    color: Tensor,
    focal: Tensor,
    generator: Generator,
    kinds: Tensor | None = None,
    strength: Tensor | None = None,
    magnification: Tensor | None = None,
) -> Tensor:
    """
    Return what depth cameras would have read.

    The optical axis is taken to go through the pictures' middle. Readings of a sensor coarser
    than the pictures are repeated, as the nearest reading is looked up when crops are magnified.

    Nguyen, Izadi, Lovell: Modeling Kinect sensor noise, 3DIMPVT 2012. Handa et al.: A benchmark
    for RGB-D visual odometry, ICRA 2014. Keselman et al.: Intel RealSense stereoscopic depth
    cameras, CVPRW 2017. Grunnet-Jepsen et al.: Best known methods for tuning RealSense D400, and
    Subpixel linearity improvement, Intel. Lange, Seitz: Solid-state time-of-flight range camera,
    IEEE J. Quantum Electronics 2001. Tölgyessy et al.: Evaluation of the Azure Kinect, Sensors
    2021.

    :param depth: (B, H, W) metres along the optical axis, NaN = nothing there
    :param color: (B, 3, H, W) uint8, RGB
    :param focal: (B,) pixels of these pictures
    :param generator: the source of all chance
    :param kinds: (B,) positions in KINDS; None = drawn
    :param strength: (B,) of all errors, 1 = a usual camera (None), 0 = the true depth
    :param magnification: (B,) pixels of these pictures that a sensor's pixel covers; None = 1
    :return: (B, H, W) float32 metres, NaN = no reading
    """
    batch, height, width = depth.shape
    chance = {'generator': generator, 'device': depth.device}
    ones = torch.ones(batch, device=depth.device)
    kinds = torch.randint(len(KINDS), (batch,), **chance) if kinds is None else kinds
    kinds, strength, magnification, focal = (
        each.view(batch, 1, 1) for each in (
            kinds, ones if strength is None else strength,
            ones if magnification is None else magnification, focal.float()))
    repeated = magnification.clamp(min=1)
    fine = magnification.clamp(FINEST, 1)
    # From here on all is in the sensor's pixels, or in the pictures' where those are coarser.
    rows, columns = (((torch.arange(pixels, device=depth.device) + 0.5) * repeated).long()
                     for pixels in (height, width))
    true = _looked_up(depth.float(), rows.mT, columns)
    grey = _looked_up(color.float().mean(dim=1), rows.mT, columns)
    clouds = smooth_noise((3, batch, height, width), CLOUD * height * ones[:, None, None],
                          CLOUD * height, generator)
    windows = smooth_noise((4, *depth.shape), WINDOW * fine, WINDOW * FINEST, generator)
    white = torch.randn(3, *depth.shape, **chance)
    noise, right, down = torch.where(kinds == KINDS.index('stereo'), windows[:3], white)
    side = 2.0 * torch.randint(2, (batch, 1, 1), **chance) - 1
    disparity = focal / magnification * _of(kinds, BASELINE)  # pixels, at one metre
    step = strength * _of(kinds, STEP)
    unit = torch.where(step > 0, disparity / step, torch.inf)
    jitter = strength * fine * _of(kinds, LATERAL)

    at_edge = edges(true)
    lost = shadow(true, focal / repeated, side * strength * _of(kinds, BASELINE))
    lost |= ~at_edge & grazing(
        true, focal / repeated, repeated,
        strength * _of(kinds, GRAZING) * (1 + 0.2 * clouds[0]))
    lost |= at_edge & _lowest(windows[3], strength * _of(kinds, EDGE_HOLES))
    lost |= unreadable(grey, strength, kinds) & (clouds[0] > PATCH)
    lost |= textureless(grey) & _lowest(clouds[1], strength * _of(kinds, TEXTURELESS))
    lost |= _lowest(clouds[2], strength * BLOBS)
    read = flying(true, at_edge, strength * _of(kinds, FLYING), generator)
    read = jittered(torch.where(lost, torch.nan, read), jitter * right, jitter * down)
    std = strength * axial_std(read, kinds, grey, disparity)
    # The laws are of whole readings, and rounding alone errs by the square root of 1/12 step.
    read = read + noise * (std ** 2 - (read ** 2 / unit) ** 2 / 12).clamp(min=0).sqrt()
    read = quantised(read, unit)
    rows, columns = ((torch.arange(pixels, device=depth.device) / repeated).long()
                     for pixels in (height, width))
    read = _looked_up(read, rows.mT, columns)
    read = torch.where((read > 0) & ~depth.isnan(), read, torch.nan)
    return torch.where(strength == 0, depth.float(), read)


def axial_std(depth: Tensor, kinds: Tensor, grey: Tensor, disparity: Tensor) -> Tensor:
    """
    Return the standard deviation of one reading, in metres.

    Structured light: Nguyen et al. 2012. Stereo: z^2 / (f b) times that of the disparity. Time of
    flight: that of the shot noise is as z / sqrt(albedo) (Lange, Seitz 2001), and a constant.

    :param disparity: pixels at one metre, f b
    """
    dark = (GREY / grey.clamp(min=4)).sqrt()
    tof = TOF_STD[0] + TOF_STD[1] * depth * dark
    return torch.where(kinds == 0, depth_std(depth), torch.where(
        kinds == 1, DISPARITY_STD * depth ** 2 / disparity, tof))


def edges(depth: Tensor) -> Tensor:
    """Return the pixels beside a jump of the depth, or nothing, as `depth_noise.edges` does."""
    inverse = F.pad(_inverse(depth)[:, None], (1, 1, 1, 1), mode='replicate')[:, 0]
    here = inverse[:, 1:-1, 1:-1]
    across = inverse[:, 1:-1, 2:] + inverse[:, 1:-1, :-2] - 2 * here
    down = inverse[:, 2:, 1:-1] + inverse[:, :-2, 1:-1] - 2 * here
    nearest = F.max_pool2d(inverse, 3, stride=1)
    return torch.maximum(across.abs(), down.abs()) > EDGE * nearest


def shadow(depth: Tensor, focal: Tensor, baseline: Tensor) -> Tensor:
    """
    Return the pixels that the projector or second camera does not see, by `depth_noise.shadow`.

    :param baseline: (B, 1, 1) metres; positive: to the right, shadows are left of things
    """
    turned = torch.where(baseline < 0, depth.flip(-1), depth)
    u = torch.arange(depth.shape[-1], device=depth.device)
    seen_at = u - focal * baseline.abs() * _inverse(turned)
    hidden = seen_at.flip(-1).cummin(dim=-1).values.flip(-1) < seen_at - 1e-3
    return torch.where(baseline < 0, hidden.flip(-1), hidden) & depth.isfinite()


def grazing(depth: Tensor, focal: Tensor, repeated: Tensor, degrees: Tensor) -> Tensor:
    """
    Return the pixels whose surface is seen flatter than an angle.

    Of a plane, 1 / z = a x + b y + c at the ray (x, y, 1), and (a, b, c) is along its normal.

    :param repeated: (B, 1, 1) pixels of the picture in one of these: where its middle is
    """
    height, width = depth.shape[-2:]
    x, y = ((torch.arange(pixels, device=depth.device) - (pixels / repeated - 1) / 2) / focal
            for pixels in (width, height))
    y = y.mT
    inverse = _inverse(depth)
    padded = F.pad(inverse[:, None], (1, 1, 1, 1), mode='replicate')[:, 0]
    a = focal / 2 * (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2])
    b = focal / 2 * (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1])
    c = inverse - a * x - b * y
    length = ((a ** 2 + b ** 2 + c ** 2) * (x ** 2 + y ** 2 + 1)).sqrt()
    return inverse < length * degrees.deg2rad().sin()


def unreadable(grey: Tensor, strength: Tensor, kinds: Tensor) -> Tensor:
    """Return the too dark and the too bright pixels."""
    return (grey < strength * _of(kinds, DULL)) | (
        grey > 255 - strength * (255 - _of(kinds, SHINY)))


def textureless(grey: Tensor) -> Tensor:
    """Return the pixels without anything around them that two cameras could match."""
    around = F.avg_pool2d(torch.stack([grey, grey ** 2], dim=1), 5, 1, 2, count_include_pad=False)
    return around[:, 1] - around[:, 0] ** 2 < FLAT ** 2


def flying(depth: Tensor, at_edge: Tensor, share: Tensor, generator: Generator) -> Tensor:
    """Let a share of the pixels at edges read something between near and far."""
    chosen, mix = torch.rand(2, *depth.shape, generator=generator, device=depth.device)
    near = -F.max_pool2d(-depth.nan_to_num(torch.inf), 3, 1, 1)
    far = F.max_pool2d(depth.nan_to_num(-torch.inf), 3, 1, 1)
    return torch.where(
        at_edge & (chosen < share) & depth.isfinite(), near + mix * (far - near), depth)


def jittered(depth: Tensor, right: Tensor, down: Tensor) -> Tensor:
    """Read every pixel some pixels beside; only edges notice."""
    rows, columns = (torch.arange(pixels, device=depth.device) for pixels in depth.shape[1:])
    return _looked_up(
        depth, rows[:, None] + down.round().long(), columns + right.round().long())


def quantised(depth: Tensor, unit: Tensor) -> Tensor:
    """Round the disparity unit / z to whole numbers; an infinite unit has no steps."""
    return torch.where(unit.isinf(), depth, unit / (unit / depth).round().clamp(min=1))


def smooth_noise(
    shape: Sequence[int], cell: Tensor, least: float, generator: Generator,
) -> Tensor:
    """
    Return normal noise that at a distance d goes together by exp(-(d / 2 cell)^2).

    :param shape: N, B, H, W
    :param cell: (B, 1, 1) pixels
    :param least: pixels, not more than any cell
    :return: (N, B, H, W) of unit standard deviation everywhere
    """
    weights = []
    for pixels in shape[2:]:
        u = torch.arange(pixels, device=cell.device)[:, None]
        bumps = (-0.5 * (u / cell - torch.arange(
            int(pixels / least) + 3, device=cell.device) + 1) ** 2).exp()
        weights.append(bumps / bumps.norm(dim=-1, keepdim=True))
    rows, columns = weights
    lattice = torch.randn(*shape[:2], rows.shape[-1], columns.shape[-1], generator=generator,
                          device=cell.device)
    return rows @ lattice @ columns.mT


def wrong_masks(masks: Tensor, generator: Generator, most: int = 3) -> Tensor:
    """
    Erode or dilate masks by 0 to `most` pixels, some with ragged edges.

    :param masks: (B, H, W) bool
    :return: (B, H, W) bool; a mask that would vanish stays
    """
    chance = {'generator': generator, 'device': masks.device}
    batch = len(masks)
    shift = torch.randint(-most, most + 1, (batch, 1, 1), **chance)
    ragged = torch.rand(batch, 1, 1, **chance) < RAGGED[0]
    cell = torch.full((batch, 1, 1), 4.0, device=masks.device)
    waves = RAGGED[1] * ragged * smooth_noise((1, *masks.shape), cell, 4.0, generator)[0]
    shift = (shift + waves).round().clamp(-most, most)
    # Layers are numbered outwards, 0 is the innermost side of the outline.
    layer = (~masks).float()
    for radius in range(1, most + 1):
        layer += (~_dilated(masks, radius)).float() - (~_dilated(~masks, radius)).float()
    changed = layer <= shift
    return torch.where(changed.any(dim=-1).any(dim=-1)[:, None, None], changed, masks)


def light_changed(color: Tensor, generator: Generator, strength: float = 1.0) -> Tensor:
    """
    Change gamma, gain, white balance and saturation; blur; add noise; each picture its own way.

    As `augmentation.photometric`.

    :param color: (B, 3, H, W) uint8, RGB
    :return: (B, 3, H, W) uint8
    """
    batch, channels, height, width = color.shape
    chance = {'generator': generator, 'device': color.device}
    normal = strength * torch.randn(7, batch, 1, 1, 1, **chance)
    gamma, gain, saturation = (0.2 * normal[0]).exp(), (0.2 * normal[1]).exp(), 0.3 * normal[2]
    balance = (0.08 * normal[3:6, :, 0].movedim(0, 1)).exp()
    pixels = ((color / 255) ** gamma * gain * balance + 0.05 * normal[6]).clamp(0, 1) * 255
    grey = pixels.mean(dim=1, keepdim=True)
    pixels = grey + (pixels - grey) * saturation.exp()
    blurred, blur, noise = torch.rand(3, batch, 1, 1, 1, **chance)
    sigma = (strength * (blurred < 0.3) * (0.3 + blur)).clamp(min=0.01).expand(-1, channels, 1, 1)
    kernel = (-0.5 * (torch.arange(-4, 5, device=color.device) / sigma) ** 2).exp()
    kernel = (kernel / kernel.sum(dim=-1, keepdim=True)).reshape(-1, 1, 1, 9)
    pixels = F.pad(pixels.reshape(1, -1, height, width), (4, 4, 4, 4), mode='replicate')
    pixels = F.conv2d(F.conv2d(pixels, kernel, groups=len(kernel)), kernel.mT, groups=len(kernel))
    grain = torch.randn(color.shape, **chance)
    return (pixels.view(color.shape) + 6 * strength * noise * grain).round().clamp(0, 255).byte()


def _of(kinds: Tensor, values: tuple[float, float, float]) -> Tensor:
    """Return the value of each picture's kind; a tensor of values would have to be copied."""
    return torch.where(kinds == 0, values[0], torch.where(kinds == 1, values[1], values[2]))


def _lowest(noise: Tensor, share: Tensor) -> Tensor:
    """Return where noise is lowest, on a share of all pixels."""
    return noise < torch.special.ndtri(share.clamp(max=1))


def _inverse(depth: Tensor) -> Tensor:
    return (1 / depth).nan_to_num(0.0)


def _looked_up(image: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return (B, H, W) pixels by their rows and columns, the nearest ones where outside."""
    height, width = image.shape[1:]
    index = rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)
    return image.flatten(1).gather(1, index.flatten(1)).view(image.shape)


def _dilated(masks: Tensor, radius: int) -> Tensor:
    """Return what is within some pixels of masks."""
    u = torch.arange(-radius, radius + 1, device=masks.device)
    disk = (u ** 2 + u[:, None] ** 2 <= radius ** 2).float()
    return F.conv2d(masks[:, None].float(), disk[None, None], padding=radius)[:, 0] > 0.5
