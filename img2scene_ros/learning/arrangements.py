# SPDX-License-Identifier: Apache-2.0
"""
Random scenes for training, many at once in plain torch.

Things stand, lie, lean, touch and are stacked on a table, a floor, in a tray, in a bin or on a
shelf, and a camera looks at them.

Scene coordinates: metres, z up, what the things stand on is z = 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

import torch
import torch.nn.functional as functional
from torch import Tensor

from img2scene_ros.learning.packed_shapes import PackedShape
from img2scene_ros.rendering.fields import DistanceFields
from img2scene_ros.rendering.traced import PATTERNS
from img2scene_ros.rendering.traced import Light
from img2scene_ros.rendering.traced import Materials
from img2scene_ros.rendering.traced import Scenes

SUPPORTS = ('table', 'floor', 'tray', 'bin', 'shelf')
SHARES = (0.34, 0.24, 0.14, 0.14, 0.14)  # of the supports
TABLE, FLOOR, TRAY, BIN, SHELF = range(5)
MOST_OBJECTS = 12
MOST_DRAWN = 50  # labels with more shapes than this are drawn no more often
LYING, LEANING = 0.2, 0.1  # shares of the small things; the others stand
STACKED, TOUCHING = 0.25, 0.5  # shares of the places tried; the others stand up to GAP apart
GAP, WIDER_GAP = 0.06, 0.3  # metres; on floors the second
PLACES = 12  # tried for each object
AXES = 16  # horizontal directions in which footprints are told apart
OVERLAP = 1e-4  # metres
SINKING = 12  # steps
# Least and greatest elevation of the camera in degrees, and logarithm of its distance in metres.
ELEVATIONS = ((5, 90), (5, 75), (10, 90), (35, 90), (-5, 35))
LOG_DISTANCES = tuple((log(near), log(far)) for near, far in (
    (0.3, 3.0), (1.2, 4.5), (0.3, 1.5), (0.3, 1.5), (0.4, 2.0)))
NEAREST = (0.15, 0.4)  # metres, least depth of any part of a thing; on floors the second
ROLLED = 0.35  # share of cameras with any roll; the others are nearly level
FIELDS_OF_VIEW = (40, 75)  # degrees
STRETCH = 0.08
SLOTS = 11  # boxes: support, ground, four walls, four sides of a container, what is over or under


@dataclass(frozen=True, eq=False)
class Stock:
    """What scenes are made of."""

    fields: DistanceFields  # of N solids
    small: Tensor  # (N,) how often each is drawn on tables
    large: Tensor  # (N,) how often each is drawn on floors
    sizes: Tensor  # (N, 2) least and greatest factor
    colors: Tensor  # (N, 4, 3) base colours, RGB, 0 to 1; NaN = drawn at random
    labels: tuple[str, ...]  # their class names


def open_stock(
    shapes: Sequence[PackedShape], split: str, device: torch.device | str,
) -> Stock:
    """Compute the fields of the shapes of a split, 'train' or 'test'."""
    chosen = [shape for shape in shapes if shape.split == split]
    fields = DistanceFields(
        (shape.solid for shape in chosen), [shape.cell for shape in chosen], device,
        [shape.swell for shape in chosen])
    groups = [(shape.label, shape.place) for shape in chosen]
    often = {group: min(MOST_DRAWN, groups.count(group)) ** 0.5 / groups.count(group)
             for group in set(groups)}
    small, large = ([often[group] * (group[1] == place) for group in groups]
                    for place in ('table', 'floor'))
    colors = torch.full((len(chosen), 4, 3), torch.nan)
    for row, shape in zip(colors, chosen):
        base = torch.as_tensor(shape.colors) / 255.0
        row[:len(base)] = base
        if len(base):
            row[len(base):] = base[0]
    return Stock(fields, torch.tensor(small, device=device), torch.tensor(large, device=device),
                 torch.tensor([shape.sizes for shape in chosen], device=device),
                 colors.to(device), tuple(shape.label for shape in chosen))


class Chance:
    """Random numbers of one generator on its device."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Return numbers from low to high."""
        device = self.generator.device
        return low + (high - low) * torch.rand(shape, device=device, generator=self.generator)

    def normal(self, *shape: int) -> Tensor:
        """Return numbers of unit variance."""
        return torch.randn(shape, device=self.generator.device, generator=self.generator)

    def of_ranges(self, ranges: tuple[tuple[float, float], ...], kind: Tensor) -> Tensor:
        """Return a number from the range of each kind, (B,)."""
        low, high = torch.tensor(ranges, device=kind.device, dtype=torch.float32)[kind].unbind(-1)
        return low + (high - low) * self.uniform(len(kind))

    def draw(self, weights: Tensor, count: int) -> Tensor:
        """Draw numbers by weights, (B, N) to (B, count)."""
        return torch.multinomial(weights, count, True, generator=self.generator)


def arrange(
    stock: Stock, generator: torch.Generator, count: int, width: int, height: int,
    kind: Tensor | None = None,
) -> Scenes:
    """
    Draw scenes with a camera each.

    :param count: B
    :param width: pixels of the pictures, and their height
    :param kind: (B,) on which of `SUPPORTS` each stands; None draws them
    """
    chance = Chance(generator)
    device = generator.device
    if kind is None:
        kind = chance.draw(torch.tensor(SHARES, device=device), count)
    shape, turn = _things(stock, chance, kind)
    outermost = stock.fields.outermost[shape.clamp(min=0)] @ turn.mT
    shape, position = _places(stock.fields, chance, shape, turn, outermost, kind)
    points = outermost + position[:, :, None]
    known = (shape >= 0)[..., None, None]
    low = torch.where(known, points, torch.inf).flatten(1, 2).amin(dim=1)
    high = torch.where(known, points, -torch.inf).flatten(1, 2).amax(dim=1)
    focal, center, view = _cameras(chance, kind, shape, position, points, width, height)
    boxes = _boxes(chance, kind, low, high, view[:, :3, 3])
    pose = torch.eye(4, device=device).repeat(*shape.shape, 1, 1)
    pose[..., :3, :3], pose[..., :3, 3] = turn, position
    materials = _materials(stock, chance, shape, points)
    return Scenes(shape, pose, boxes, materials, _light(chance, count), focal, center, view)


def _things(stock: Stock, chance: Chance, kind: Tensor) -> tuple[Tensor, Tensor]:
    """Draw shapes, (B, K), -1 = none, and what turns and stretches each, (B, K, 3, 3)."""
    count, most = len(kind), MOST_OBJECTS
    floor = (kind == FLOOR)[:, None]
    if not bool(stock.large.any()):
        shape = chance.draw(stock.small, count * most)
    else:
        shape = torch.where(floor, chance.draw(stock.large, count * most).view(count, most),
                            chance.draw(stock.small, count * most).view(count, most))
    shape = shape.view(count, most)
    number = (chance.uniform(count, 1) * torch.where(floor, 5, most)).long()
    shape = torch.where(torch.arange(most, device=kind.device) <= number, shape, -1)
    low, high = stock.sizes[shape.clamp(min=0)].unbind(-1)
    size = low * (high / low) ** chance.uniform(count, most)
    stretch = size[..., None] * chance.uniform(count, most, 3, low=1 - STRETCH, high=1 + STRETCH)
    lot = chance.uniform(count, most)
    tilt = torch.where(lot < LYING, torch.pi / 2, 0.0)
    leaning = (lot >= LYING) & (lot < LYING + LEANING)
    tilt = torch.where(leaning, chance.uniform(count, most, low=0.09, high=0.45), tilt)
    tilt = torch.where(floor, 0.0, tilt)
    first, second = chance.uniform(2, count, most, high=2 * torch.pi)
    turn = rotation(second, 2) @ rotation(tilt, 0) @ rotation(first, 2)
    return shape, turn * stretch[..., None, :]


def rotation(angle: Tensor, axis: int) -> Tensor:
    """Return rotations about the x, y or z axis, (...) radians to (..., 3, 3)."""
    one, other = (axis + 1) % 3, (axis + 2) % 3
    turn = torch.eye(3, device=angle.device).repeat(*angle.shape, 1, 1)
    turn[..., one, one] = turn[..., other, other] = angle.cos()
    turn[..., other, one], turn[..., one, other] = angle.sin(), -angle.sin()
    return turn


def _places(
    fields: DistanceFields, chance: Chance, shape: Tensor, turn: Tensor, outermost: Tensor,
    kind: Tensor,
) -> tuple[Tensor, Tensor]:
    """
    Put things side by side, on top of each other and into each other; without room one is skipped.

    Two things are apart if one of `AXES` horizontal directions or z parts them. What is put on top
    sinks until it meets something.

    :param turn: (B, K, 3, 3) of the solids
    :param outermost: (B, K, D, 3) turned points
    :return: shapes, -1 = skipped, and positions (B, K, 3)
    """
    batch, most = shape.shape
    angles = torch.arange(AXES, device=shape.device) * (torch.pi / AXES)
    axes = functional.pad(torch.stack([angles.cos(), angles.sin()], dim=-1), (0, 1))
    axes = torch.cat([axes, torch.tensor([[0, 0, 1.0]], device=shape.device)])
    spans = outermost @ axes.T
    least, greatest = spans.amin(dim=2), spans.amax(dim=2)  # (B, K, A)
    position = torch.zeros(batch, most, 3, device=shape.device)
    position[:, :, 2] = -least[:, :, -1]
    kept = shape >= 0
    for number in range(1, most):
        tried = _tried(chance, number, kept, position, outermost, greatest, kind)
        tried[..., 2] -= least[:, number, None, -1]
        shift = (tried @ axes.T)[:, :, None]
        place = position[:, None, :number] @ axes.T
        apart = ((least[:, number, None, None] + shift
                  > greatest[:, None, :number] + place - OVERLAP)
                 | (greatest[:, number, None, None] + shift
                    < least[:, None, :number] + place + OVERLAP)).any(dim=-1)
        free = (apart | ~kept[:, None, :number]).all(dim=-1)
        best = free.float().argmax(dim=1)
        position[:, number] = tried.gather(1, best[:, None, None].expand(-1, -1, 3))[:, 0]
        kept[:, number] &= free.any(dim=1)
        position[:, number, 2] -= _room_below(
            fields, torch.where(kept, shape, -1)[:, :number + 1], turn, outermost, position,
            -least[:, number, -1])
    return torch.where(kept, shape, -1), position


def _room_below(
    fields: DistanceFields, shape: Tensor, turn: Tensor, outermost: Tensor, position: Tensor,
    lowest: Tensor,
) -> Tensor:
    """
    Return how far the last of some things sinks until it meets another or the support, metres.

    Outermost points of each are kept out of the solid of the other.

    :param shape: (B, N), -1 = none
    :param lowest: (B,) its position's z on the support
    :return: (B,)
    """
    last = shape.shape[1] - 1
    place, room = position[:, last].clone(), torch.zeros_like(lowest)
    if last == 0 or not bool(((shape[:, last] >= 0) & (place[:, 2] > lowest + OVERLAP)).any()):
        return room
    mine = shape[:, last, None].expand(-1, last)
    is_there = (mine >= 0) & (shape[:, :last] >= 0)
    for _ in range(SINKING):
        apart = (place[:, None] - position[:, :last])[:, :, None]
        near = torch.minimum(
            _clearance(fields, shape[:, :last], turn[:, :last],
                       outermost[:, last, None] + apart),
            _clearance(fields, mine, turn[:, last, None].expand(-1, last, -1, -1),
                       outermost[:, :last] - apart))
        near = torch.where(is_there, near, torch.inf).amin(dim=1).clamp(min=0.0)
        step = torch.minimum(near, place[:, 2] - lowest).clamp(min=0.0)
        place[:, 2] -= step
        room += step
    return room


def _clearance(fields: DistanceFields, shape: Tensor, turn: Tensor, points: Tensor) -> Tensor:
    """
    Return how far points are at least out of solids, (B, N) metres.

    :param shape: (B, N), -1 = any
    :param points: (B, N, D, 3) metres from the solids' middles
    """
    back = torch.linalg.inv(turn)
    local = points @ back.mT
    solid = shape.clamp(min=0)[..., None].expand(local.shape[:3])
    distance = fields.distance(solid.flatten(), local.flatten(0, 2)).view(solid.shape)
    # Beyond a field the distance is that of its border.
    beyond = (local.abs() - fields.half[solid]).clamp(min=0.0).norm(dim=-1)
    return distance.maximum(beyond).amin(dim=-1) / torch.linalg.matrix_norm(back, 2)


def _tried(
    chance: Chance, number: int, kept: Tensor, position: Tensor, outermost: Tensor,
    greatest: Tensor, kind: Tensor,
) -> Tensor:
    """Return places for an object beside or on one that stands already, (B, T, 3)."""
    batch = len(kept)
    other = chance.draw(kept[:, :number].float(), PLACES)
    angle = chance.uniform(batch, PLACES, high=2 * torch.pi)
    ahead = torch.stack([angle.cos(), angle.sin(), torch.zeros_like(angle)], dim=-1)
    theirs = outermost.gather(1, other[..., None, None].expand(-1, -1, *outermost.shape[2:]))
    reach = (theirs @ ahead[..., None])[..., 0].amax(dim=-1)
    mine = -(outermost[:, number] @ ahead.mT).amin(dim=1)
    gap = chance.uniform(batch, PLACES) * torch.where(kind == FLOOR, WIDER_GAP, GAP)[:, None]
    gap = torch.where(chance.uniform(batch, PLACES) < TOUCHING, 2 * OVERLAP, gap)
    aside = torch.stack([-ahead[..., 1], ahead[..., 0], ahead[..., 2]], dim=-1)
    sideways = chance.uniform(batch, PLACES, low=-0.5, high=0.5) * reach
    beside = (reach + mine + gap)[..., None] * ahead + sideways[..., None] * aside
    top = greatest[:, :, -1] + position[:, :, 2]
    on_top = 0.15 * chance.uniform(batch, PLACES, 1) * ahead * reach[..., None]
    stacked = (chance.uniform(batch, PLACES) < STACKED) & (kind != FLOOR)[:, None]
    base = position.gather(1, other[..., None].expand(-1, -1, 3))
    tried = base + torch.where(stacked[..., None], on_top, beside)
    tried[..., 2] = torch.where(stacked, top.gather(1, other) + OVERLAP, 0.0)
    return tried


def _cameras(
    chance: Chance, kind: Tensor, shape: Tensor, position: Tensor, points: Tensor, width: int,
    height: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return focal lengths (B,), centres (B, 2) and views (B, 4, 4)."""
    batch = len(kind)
    field = torch.deg2rad(chance.uniform(batch, low=FIELDS_OF_VIEW[0], high=FIELDS_OF_VIEW[1]))
    focal = width / 2 / torch.tan(field / 2)
    center = torch.tensor([width - 1, height - 1], device=kind.device) / 2 \
        + 0.01 * width * chance.normal(batch, 2)
    focus = chance.draw((shape >= 0).float(), 1)[..., None].expand(-1, -1, 3)
    distance = chance.of_ranges(LOG_DISTANCES, kind).exp()
    target = position.gather(1, focus)[:, 0] + 0.05 * distance[:, None] * chance.normal(batch, 3)
    rise = torch.deg2rad(chance.of_ranges(ELEVATIONS, kind))
    turn = chance.uniform(batch, low=-torch.pi, high=torch.pi)
    turn = torch.where(kind == SHELF, -torch.pi / 2 + 0.25 * turn, turn)
    towards = torch.stack([rise.cos() * turn.cos(), rise.cos() * turn.sin(), rise.sin()], dim=-1)
    roll = torch.where(chance.uniform(batch) < ROLLED, chance.uniform(
        batch, low=-torch.pi, high=torch.pi), 0.05 * chance.normal(batch))
    view = torch.eye(4, device=kind.device).repeat(batch, 1, 1)
    aim = functional.normalize(-towards + 0.1 * chance.normal(batch, 3), dim=1)
    view[:, :3, :3] = looking(aim, roll)
    eye = target + distance[:, None] * towards
    depth = ((points - eye[:, None, None]) * aim[:, None, None]).sum(-1)
    depth = torch.where((shape >= 0)[..., None], depth, torch.inf).flatten(1).amin(dim=1)
    nearest = torch.where(kind == FLOOR, NEAREST[1], NEAREST[0])
    view[:, :3, 3] = eye - (nearest - depth).clamp(min=0)[:, None] * aim
    view[:, 2, 3] = view[:, 2, 3].clamp(min=-0.3)
    return focal, center, view


def looking(ahead: Tensor, roll: Tensor) -> Tensor:
    """Return the rotations of cameras that look along unit vectors, (B, 3) and (B,) radians."""
    up = torch.tensor([1e-3, 0, 1.0], device=ahead.device).expand_as(ahead)
    right = functional.normalize(torch.linalg.cross(ahead, up), dim=1)
    axes = torch.stack([right, torch.linalg.cross(ahead, right), ahead], dim=-1)
    return axes @ rotation(roll, 2)


def _boxes(chance: Chance, kind: Tensor, low: Tensor, high: Tensor, eye: Tensor) -> Tensor:
    """Return what surrounds the things, (B, SLOTS, 2, 3), NaN = none; see `SLOTS`."""
    batch = len(kind)
    boxes = torch.full((batch, SLOTS, 2, 3), torch.nan, device=kind.device)

    def put(slot: int, where: Tensor, *corners: Tensor) -> None:
        """Set corners x0, y0, z0, x1, y1, z1, (B,) each, where a support asks for it."""
        box = torch.stack(corners, dim=-1).view(batch, 2, 3)
        boxes[:, slot] = torch.where(where[:, None, None], box, boxes[:, slot])

    contained = (kind == TRAY) | (kind == BIN)
    flat = torch.zeros_like(eye[:, 0])
    margin = chance.uniform(batch, 2, 2) * torch.where(contained, 0.05, 0.4)[:, None, None] + 0.01
    x0, y0 = (low[:, :2] - margin[:, 0]).unbind(1)
    x1, y1 = (high[:, :2] + margin[:, 1]).unbind(1)
    thick = torch.where(contained, 0.004, 0.03) * chance.uniform(batch, low=0.6, high=1.6)
    put(0, kind != FLOOR, x0, y0, -thick, x1, y1, flat)
    ground = torch.where(kind == FLOOR, 0.0, -chance.uniform(batch, low=0.45, high=0.95))
    rim = torch.where(kind == TRAY, chance.uniform(batch, low=0.012, high=0.05),
                      chance.uniform(batch, low=0.06, high=0.25))
    wall = chance.uniform(batch, low=0.003, high=0.015)
    put(6, contained | (kind == SHELF), x0 - wall, y1, -thick, x1 + wall, y1 + wall,
        torch.where(contained, rim, high[:, 2] + 0.4))
    put(7, contained, x0 - wall, y0 - wall, -thick, x1 + wall, y0, rim)
    put(8, contained, x0 - wall, y0 - wall, -thick, x0, y1, rim)
    put(9, contained, x1, y0 - wall, -thick, x1 + wall, y1, rim)
    beyond = chance.uniform(4, batch, high=0.4) + wall
    put(10, contained, x0 - beyond[0], y0 - beyond[1], -thick - 0.03, x1 + beyond[2],
        y1 + beyond[3], -thick)
    over = high[:, 2] + chance.uniform(batch, low=0.03, high=0.3)
    put(10, kind == SHELF, x0, y0, over, x1, y1, over + thick)
    sides = (kind == SHELF) & (chance.uniform(batch) < 0.7)
    put(8, sides, x0 - wall, y0, -thick, x0, y1, over + 0.2)
    put(9, sides, x1, y0, -thick, x1 + wall, y1, over + 0.2)
    room = chance.uniform(batch, 2, 2, low=0.45, high=2.0)
    a, b = (torch.minimum(low, eye)[:, :2] - room[:, 0]).unbind(1)
    c, d = (torch.maximum(high, eye)[:, :2] + room[:, 1]).unbind(1)
    always = torch.ones_like(contained)
    top = ground + 4.0 + eye[:, 2].clamp(min=0)
    put(1, always, a, b, ground - 0.1, c, d, ground)
    for slot, sides in enumerate(((a - 0.1, b, a, d), (c, b, c + 0.1, d), (a, b - 0.1, c, b),
                                  (a, d, c, d + 0.1)), 2):
        put(slot, always, sides[0], sides[1], ground, sides[2], sides[3], top)
    return boxes


def _materials(stock: Stock, chance: Chance, shape: Tensor, points: Tensor) -> Materials:
    batch, most = shape.shape
    count = most + SLOTS
    colors = _random_colors(chance, batch, count)
    base = stock.colors[shape.clamp(min=0)]
    order = chance.uniform(batch, most, 4).argsort(dim=-1)[..., :3]
    base = base.gather(2, order[..., None].expand(-1, -1, -1, 3))
    jittered = (base + 0.06 * chance.normal(batch, most, 1, 3)).clamp(0, 1)
    colors[:, :most] = torch.where(base.isnan(), colors[:, :most], jittered)
    pattern = (len(PATTERNS) * chance.uniform(batch, count) ** 1.4).long()
    # Natural materials vary a little about one colour.
    natural = (pattern >= PATTERNS.index('noise'))[..., None]
    darker = colors[..., 0, :] * chance.uniform(batch, count, 1, low=0.6, high=0.95)
    colors[..., 1, :] = torch.where(natural, darker, colors[..., 1, :])
    extent = (points.amax(dim=2) - points.amin(dim=2)).amax(dim=-1)
    extent = functional.pad(extent, (0, SLOTS), value=0.8)
    period = extent * (0.06 * (0.6 / 0.06) ** chance.uniform(batch, count))
    angles = chance.uniform(2, batch, count, high=2 * torch.pi)
    axes = rotation(angles[0], 0) @ rotation(angles[1], 2)
    straight = (chance.uniform(batch, count) < 0.5)[..., None, None]
    axes = torch.where(straight, torch.eye(3, device=shape.device), axes)
    return Materials(pattern, colors, axes, period, chance.uniform(
        batch, count, 6, high=2 * torch.pi), chance.uniform(batch, count) ** 3)


def _random_colors(chance: Chance, batch: int, count: int) -> Tensor:
    """Draw colours, (B, S, 3, 3), RGB, 0 to 1; a third are near white, grey or black."""
    pure = chance.uniform(batch, count, 3, 3)
    pure = (pure - pure.amin(-1, True)) / (pure.amax(-1, True) - pure.amin(-1, True) + 1e-3)
    grey = chance.uniform(batch, count, 3, 1) < 0.33
    vivid = chance.uniform(batch, count, 3, 1) * torch.where(grey, 0.12, 0.9)
    return (1 - vivid * (1 - pure)) * chance.uniform(batch, count, 3, 1, low=0.08)


def _light(chance: Chance, batch: int) -> Light:
    tilt = functional.pad(0.6 * chance.normal(batch, 2), (0, 1), value=1.0)
    lots = -torch.log(chance.uniform(batch, 4, low=1e-3))  # exponential: shares of all
    lots = lots * torch.tensor([1.0, 1.0, 1.4, 0.5], device=tilt.device)
    shares = lots / lots.sum(dim=1, keepdim=True) * chance.uniform(batch, 1, low=0.9, high=1.6)
    return Light(functional.normalize(tilt, dim=1), shares,
                 chance.uniform(batch, 3, low=0.85, high=1.05))
