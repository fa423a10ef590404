# SPDX-License-Identifier: Apache-2.0
"""
Pictures of many scenes at once, in plain torch on any device: the counterpart of `raycast`.

    scenes of solids and boxes, one camera each -> depth, instance ids, colour

Each solid is traced only through the pixels that its box can be seen in; of what is met along a
ray the nearest counts. Scene coordinates are metres, z up.
"""

from dataclasses import dataclass
from dataclasses import fields as fields_of
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor

from img2scene_ros.rendering.fields import DistanceFields
from img2scene_ros.rendering.fields import slab_test

PATTERNS = ('plain', 'stripes', 'checkers', 'band', 'noise', 'grain')
NEAREST = 1e-3  # metres; solids' corners that lie nearer have no place in the picture
RISE = 3e-3  # metres off the surface, where shadow rays start


@dataclass(frozen=True, eq=False)
class Materials:
    """What K objects and M boxes of B scenes look like; S = K + M."""

    pattern: Tensor  # (B, S) numbers of `PATTERNS`
    colors: Tensor  # (B, S, 3, 3) RGB, 0 to 1: ground, figure, and what is printed on a band
    axes: Tensor  # (B, S, 3, 3) directions of the pattern, one per row
    period: Tensor  # (B, S) metres
    phases: Tensor  # (B, S, 6) radians, the chance of the noise
    shine: Tensor  # (B, S) strength of the highlights


@dataclass(frozen=True, eq=False)
class Light:
    """The light of B scenes."""

    sun: Tensor  # (B, 3) unit vector to it
    strengths: Tensor  # (B, 4) of the ambient light, the sky, the sun, and a light at the camera
    tint: Tensor  # (B, 3) colour


@dataclass(frozen=True, eq=False)
class Scenes:
    """B scenes and one camera in each."""

    shape: Tensor  # (B, K) which solid, -1 = none
    pose: Tensor  # (B, K, 4, 4) the solid's coordinates to the scene's
    boxes: Tensor  # (B, M, 2, 3) least and greatest corner of axis-aligned boxes, NaN = none
    materials: Materials
    light: Light
    focal: Tensor  # (B,) pixels of a picture
    center: Tensor  # (B, 2) likewise; (0, 0) is the centre of the first pixel
    view: Tensor  # (B, 4, 4) the camera's optical coordinates to the scene's

    def __getitem__(self, index: Tensor) -> 'Scenes':
        """Return some of the scenes."""
        return _picked(self, index)


def _picked(values: Any, index: Tensor) -> Any:
    if isinstance(values, Tensor):
        return values[index]
    return type(values)(*(
        _picked(getattr(values, field.name), index) for field in fields_of(values)))


@dataclass(frozen=True, eq=False)
class Pictures:
    """What the cameras of B scenes see."""

    depth: Tensor  # (B, H, W) metres along the optical axis, NaN where nothing is
    ids: Tensor  # (B, H, W) int16: k + 1 for object k, -1 - m for box m, 0 where nothing is
    color: Tensor | None = None  # (B, 3, H, W) uint8, RGB, None unless asked for


def draw(
    fields: DistanceFields, scenes: Scenes, width: int, height: int,
    generator: torch.Generator | None = None,
) -> Pictures:
    """
    Draw scenes.

    :param generator: the chance of soft shadows; None draws no colour
    """
    directions = scene_rays(scenes, width, height)
    depth, ids, normal_axis = _boxes_seen(scenes, directions)
    scene, item, pixel = _pairs(fields, scenes, width, height)
    found = _traced(fields, scenes, scene, item, scenes.view[scene, :3, 3],
                    directions[scene, pixel])
    ray = scene * (width * height) + pixel
    depth = depth.flatten().scatter_reduce(0, ray, found, 'amin')
    nearest = torch.isfinite(found) & (found == depth[ray])
    ids.view(-1)[ray[nearest]] = item[nearest].to(ids.dtype) + 1
    depth = depth.view(ids.shape)
    color = None
    if generator is not None:
        color = _colors(fields, scenes, directions, depth, ids, normal_axis, height, generator)
    depth = torch.where(torch.isfinite(depth), depth, torch.nan)
    size = len(ids), height, width
    return Pictures(depth.view(size), ids.view(size), color)


def camera_rays(focal: Tensor, center: Tensor, width: int, height: int) -> Tensor:
    """Return the pixels' rays, z = 1, optical coordinates, as in `Scenes`: (B, H * W, 3)."""
    device = focal.device
    v, u = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device),
                          indexing='ij')
    pixels = torch.stack([u.flatten(), v.flatten()], dim=-1)
    rays = (pixels - center[:, None]) / focal[:, None, None]
    return functional.pad(rays, (0, 1), value=1.0)


def scene_rays(scenes: Scenes, width: int, height: int) -> Tensor:
    """Return the pixels' rays in scene coordinates, (B, H * W, 3); lengths along them: depths."""
    rays = camera_rays(scenes.focal, scenes.center, width, height)
    return rays @ scenes.view[:, :3, :3].mT


def _boxes_seen(scenes: Scenes, directions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return depth (inf: nothing), id and the axis of the face seen, (B, N) each."""
    origin = scenes.view[:, None, :3, 3]
    depth = torch.full(directions.shape[:2], torch.inf, device=directions.device)
    ids = torch.zeros_like(depth, dtype=torch.int16)
    for number in range(scenes.boxes.shape[1]):
        low, high = scenes.boxes[:, number].unbind(1)
        near, far = slab_test(origin, directions, low[:, None], high[:, None])
        closer = (near <= far) & (near > 0) & (near < depth)  # NaN is nowhere
        depth = torch.where(closer, near, depth)
        ids = torch.where(closer, -1 - number, ids)
    box = (-1 - ids.long()).clamp(min=0)
    faces = scenes.boxes.gather(1, box[..., None, None].expand(-1, -1, 2, 3))
    points = origin + directions * depth[..., None].nan_to_num(posinf=0.0)
    return depth, ids, (points[:, :, None] - faces).abs().amin(dim=2).argmin(dim=-1)


def _pairs(
    fields: DistanceFields, scenes: Scenes, width: int, height: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the scenes, objects and pixels, (P,) each, where objects' boxes may be seen."""
    scene, item = (scenes.shape >= 0).nonzero(as_tuple=True)
    corners = box_corners(fields.half[scenes.shape[scene, item]])
    optical = torch.linalg.inv(scenes.view)[scene] @ scenes.pose[scene, item]
    corners = corners @ optical[:, :3, :3].mT + optical[:, None, :3, 3]
    pixels = (corners[..., :2] / corners[..., 2:] * scenes.focal[scene, None, None]
              + scenes.center[scene, None])
    size = torch.tensor([width, height], device=pixels.device)
    low = (pixels.amin(dim=1) - 1).floor().clamp(min=0).minimum(size)
    high = (pixels.amax(dim=1) + 2).ceil().clamp(min=0).minimum(size)
    crosses = (corners[..., 2].amin(dim=1) < NEAREST)[:, None]
    low, high = torch.where(crosses, 0, low).long(), torch.where(crosses, size, high).long()
    columns, rows = (high - low).unbind(-1)
    area = columns * rows
    owner = torch.arange(len(area), device=area.device).repeat_interleave(area)
    inner = torch.arange(len(owner), device=area.device) - (area.cumsum(0) - area)[owner]
    column = low[owner, 0] + inner % columns[owner]
    row = low[owner, 1] + inner.div(columns[owner], rounding_mode='floor')
    return scene[owner], item[owner], row * width + column


def box_corners(half: Tensor) -> Tensor:
    """Return the corners of boxes about the origin, (P, 3) half extents to (P, 8, 3)."""
    signs = torch.tensor([-1.0, 1.0], device=half.device)
    return torch.cartesian_prod(signs, signs, signs) * half[:, None]


def _traced(
    fields: DistanceFields, scenes: Scenes, scene: Tensor, item: Tensor, origin: Tensor,
    direction: Tensor,
) -> Tensor:
    """Return along P rays (scene coordinates) the t where they meet their object, inf: never."""
    back = torch.linalg.inv(scenes.pose)[scene, item]
    shape = scenes.shape[scene, item]
    local = (back[:, :3, :3] @ direction[..., None])[..., 0]
    start = (back[:, :3, :3] @ origin[..., None])[..., 0] + back[:, :3, 3]
    near, far = fields.boxes_met(shape, start, local)
    return fields.trace(shape, start, local, near, far)


def _colors(
    fields: DistanceFields, scenes: Scenes, directions: Tensor, depth: Tensor, ids: Tensor,
    normal_axis: Tensor, height: int, generator: torch.Generator,
) -> Tensor:
    """Return the colours of all pixels, (B, 3, H, W) uint8."""
    count = scenes.shape.shape[1]
    scene, pixel = torch.isfinite(depth).nonzero(as_tuple=True)
    direction, number = directions[scene, pixel], ids[scene, pixel].long()
    point = scenes.view[scene, :3, 3] + direction * depth[scene, pixel][:, None]
    surface = torch.where(number > 0, number - 1, count - 1 - number)
    normal = functional.one_hot(normal_axis[scene, pixel], 3).to(point.dtype)
    place, mine = point.clone(), number > 0
    back = torch.linalg.inv(scenes.pose)[scene[mine], surface[mine]]
    local = (back[:, :3, :3] @ point[mine][..., None])[..., 0] + back[:, :3, 3]
    gradient = fields.normals(scenes.shape[scene[mine], surface[mine]], local)
    normal[mine] = (back[:, :3, :3].mT @ gradient[..., None])[..., 0]
    place[mine] = local / back[:, :3, :3].norm(dim=1).mean(dim=1, keepdim=True)
    normal = functional.normalize(normal, dim=1)
    normal = torch.where(((normal * direction).sum(1) > 0)[:, None], -normal, normal)
    lit = _sun_seen(
        fields, scenes, ids.unflatten(1, (height, ids.shape[1] // height)), depth, directions,
        generator)
    materials = scenes.materials
    albedo = pattern_colors(place, *(part[scene, surface] for part in (
        materials.pattern, materials.colors, materials.axes, materials.period,
        materials.phases)))
    light, gleam = _shading(scenes, scene, surface, normal, direction, lit[scene, pixel])
    shaded = (albedo * light[:, None] + gleam[:, None]) * scenes.light.tint[scene]
    picture = scenes.light.tint.mul(0.7)[:, None].repeat(1, ids.shape[1], 1)
    picture[scene, pixel] = shaded
    picture = (255 * picture).clamp(0, 255).to(torch.uint8)
    return picture.mT.unflatten(2, (height, ids.shape[1] // height)).contiguous()


def _sun_seen(
    fields: DistanceFields, scenes: Scenes, ids: Tensor, depth: Tensor, directions: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """
    Return how much of the sun each pixel's point sees, (B, N) from 0 to 1.

    One ray to a random point of the sun for every second pixel of every second row, then smoothed:
    objects cast soft shadows, boxes none.
    """
    height, width = ids.shape[1:]
    rows = torch.arange(0, height, 2, device=ids.device)[:, None] * width
    some = (rows + torch.arange(0, width, 2, device=ids.device)).flatten()
    part = depth[:, some]
    start = (scenes.view[:, None, :3, 3]
             + directions[:, some] * part.nan_to_num(posinf=0.0)[..., None])
    spread = 0.12 * torch.randn(start.shape, device=ids.device, generator=generator)
    sun = scenes.light.sun[:, None] + spread
    start = start + RISE * sun + 0.5 * RISE * torch.tensor([0, 0, 1.0], device=ids.device)
    met = torch.isfinite(part)
    pairs = [_near_rays(fields, scenes, number, start, sun, met)
             for number in range(scenes.shape.shape[1])]
    scene, pixel, item = torch.cat(pairs, dim=1)
    found = _traced(fields, scenes, scene, item, start[scene, pixel], sun[scene, pixel])
    hidden = torch.isfinite(found)
    shade = torch.zeros_like(part, dtype=torch.bool)
    shade[scene[hidden], pixel[hidden]] = True
    lit = 1.0 - shade.float().view(len(ids), 1, (height + 1) // 2, (width + 1) // 2)
    lit = functional.avg_pool2d(lit, 3, 1, 1, count_include_pad=False)
    return functional.interpolate(lit, (height, width), mode='bilinear').flatten(1)


def _near_rays(
    fields: DistanceFields, scenes: Scenes, number: int, start: Tensor, direction: Tensor,
    wanted: Tensor,
) -> Tensor:
    """Return scene, ray and `number` of the rays that pass near object `number`, (3, P)."""
    shape, pose = scenes.shape[:, number], scenes.pose[:, number]
    radius = (pose[:, :3, :3].norm(dim=1) * fields.half[shape.clamp(min=0)]).norm(dim=1)[:, None]
    middle = pose[:, None, :3, 3] - start
    along = (middle * direction).sum(-1) / (direction * direction).sum(-1)
    aside = (middle - along[..., None] * direction).norm(dim=-1)
    near = (aside < radius) & (along > -radius) & wanted & (shape >= 0)[:, None]
    scene, ray = near.nonzero(as_tuple=True)
    return torch.stack([scene, ray, torch.full_like(scene, number)])


def _shading(
    scenes: Scenes, scene: Tensor, surface: Tensor, normal: Tensor, direction: Tensor,
    lit: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return the light that P surface points scatter (Lambert) and mirror (Blinn-Phong)."""
    ambient, sky, sun, camera = scenes.light.strengths[scene].unbind(-1)
    back = -functional.normalize(direction, dim=1)
    to_sun = scenes.light.sun[scene]
    facing = (normal * to_sun).sum(1).clamp(min=0) * lit
    light = ambient + sky * (0.5 + 0.5 * normal[:, 2]) * (0.6 + 0.4 * lit) + sun * facing \
        + camera * (normal * back).sum(1).abs()
    half = functional.normalize(back + to_sun, dim=1)
    gleam = (normal * half).sum(1).clamp(min=0) ** 40 * lit
    return light, gleam * scenes.materials.shine[scene, surface]


def pattern_colors(
    place: Tensor, pattern: Tensor, colors: Tensor, axes: Tensor, period: Tensor, phases: Tensor,
) -> Tensor:
    """
    Return the colours of P points of surfaces, (P, 3) in the range of `colors`.

    :param place: (P, 3) metres on the surface
    :param pattern: (P,); this and what follows are as in `Materials`, of each point's surface
    """
    ground, figure, printed = colors.unbind(1)
    a, b, c = ((axes @ place[..., None])[..., 0] / period[:, None]).unbind(-1)
    band = (a.abs() < 0.8).float()
    shares = torch.stack([
        torch.zeros_like(a), (torch.sin(2 * torch.pi * a) > 0).float(),
        (a.floor() + b.floor() + c.floor()) % 2, band, _noise(a, b, c, phases),
        _noise(4 * a, 0.3 * b, c, phases)], dim=1)
    share = shares.gather(1, pattern[:, None])
    color = ground + (figure - ground) * share
    lines = (torch.sin(18 * a + phases[:, 0]) > 0.2) & (torch.sin(9 * (b + c)) > -0.3)
    lines &= (a.abs() < 0.6) & (pattern == PATTERNS.index('band'))
    return torch.where(lines[:, None], printed, color)


def _noise(a: Tensor, b: Tensor, c: Tensor, phases: Tensor) -> Tensor:
    """Return smooth noise, 0 to 1: sines whose arguments other sines bend."""
    one, two, three, four, five, six = phases.unbind(-1)
    bent = 2 * torch.sin(1.7 * b + one) + 2 * torch.sin(2.3 * c + two)
    fine = torch.sin(7 * a + 3 * torch.sin(3.1 * b + three) + four)
    return 0.5 + 0.3 * torch.sin(3 * a + bent + five) + 0.2 * fine * torch.sin(5 * c + six)
