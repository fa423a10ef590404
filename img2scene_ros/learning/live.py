# SPDX-License-Identifier: Apache-2.0
"""
Examples that are drawn while a network learns, on the device it learns on: crops and scenes.

    arrange -> draw -> (crops of single objects, or whole pictures): true, kept and used again
    kept examples -> another light, wrong masks, a sensor's depth -> what a network gets

Crops and cubes are those of `models/crop.py`, so a network learns what a robot will ask it.
"""

from dataclasses import replace

import torch
import torch.nn.functional as functional
from torch import Generator
from torch import Tensor

from img2scene_ros.learning.arrangements import Chance
from img2scene_ros.learning.arrangements import Stock
from img2scene_ros.learning.arrangements import arrange
from img2scene_ros.learning.augmentation import Examples
from img2scene_ros.learning.augmentation import mask_boxes
from img2scene_ros.learning.dataset import SENSOR_WIDTH
from img2scene_ros.learning.samples import MIN_PIXELS
from img2scene_ros.learning.samples import MIN_SHOWN
from img2scene_ros.learning.samples import MIN_SIDE
from img2scene_ros.learning.sensors import light_changed
from img2scene_ros.learning.sensors import sensed_depth
from img2scene_ros.models.crop import CENTER_BEHIND_ANCHOR
from img2scene_ros.models.crop import MARGIN
from img2scene_ros.models.geometry import axes_of
from img2scene_ros.models.instances import scene_channels
from img2scene_ros.rendering.fields import DistanceFields
from img2scene_ros.rendering.traced import Scenes
from img2scene_ros.rendering.traced import camera_rays
from img2scene_ros.rendering.traced import draw

WIDTH, HEIGHT = 320, 240  # pixels of whole pictures
COARSE = 2  # objects are looked for in pictures so many times smaller
CROPS_PER_SCENE = 3
BOX_STD = 0.03  # of the boxes' edges, in sides
DROP_COLOR = 0.3  # share of the scenes; UOIS-Net-3D tells instances by depth alone
MOST_NOISE = 1.5  # greatest strength of a sensor's errors
UP_STD, OFFSET_STD = 0.02, 0.006  # radians and metres, errors of the support plane
OTHER_PLANE, OTHER_STD = 0.2, 0.3  # share of scenes where it is another plane; so far off, metres
RESOLUTION = 32  # cells along the side of a cube that solids may reach into
TRUTH_CELLS = 64  # that tell it


def draw_crops(stock: Stock, generator: Generator, count: int, size: int) -> Examples:
    """
    Draw crops of objects in random scenes.

    :param count: N
    :param size: S, pixels of a side
    :return: as `Examples`, with shape (N,) and to_local (N, 3, 4), from the crop view frame to the
        solid's coordinates
    """
    found: list[Examples] = []
    while sum(len(part['shape']) for part in found) < count:
        found.append(_some_crops(stock, generator, max(2, count // 2), size))
    return {name: torch.cat([part[name] for part in found])[:count] for name in found[0]}


def _some_crops(stock: Stock, generator: Generator, scenes_drawn: int, size: int) -> Examples:
    chance = Chance(generator)
    scenes = arrange(stock, generator, scenes_drawn, WIDTH, HEIGHT)
    boxes, wanted = visible_boxes(stock.fields, scenes)
    order = torch.where(wanted, chance.uniform(*wanted.shape), 2.0).argsort(dim=1)
    chosen = torch.zeros_like(wanted).scatter(1, order[:, :CROPS_PER_SCENE], True) & wanted
    scene, item = chosen.nonzero(as_tuple=True)
    sides = (boxes[scene, item, 2:] - boxes[scene, item, :2]).repeat(1, 2)
    jitter = (BOX_STD * chance.normal(len(scene), 4)).clamp(-0.15, 0.15)
    part = scenes[scene]
    views, half_field, outside = crop_cameras(part, boxes[scene, item] + jitter * sides, size)
    pictures = draw(stock.fields, views, size, size, generator)
    mask = (pictures.ids == item[:, None, None] + 1) & ~outside
    pose = part.pose[torch.arange(len(item), device=item.device), item]
    crops = {
        'color': pictures.color * ~outside[:, None],
        'depth': torch.where(outside, torch.nan, pictures.depth), 'mask': mask,
        'half_field': half_field,
        'magnification': views.focal / part.focal * (WIDTH / SENSOR_WIDTH),
        'shape': part.shape[torch.arange(len(item), device=item.device), item],
        'to_local': (torch.linalg.inv(pose) @ views.view)[:, :3]}
    shown = mask.flatten(1).any(dim=1)
    return {name: values[shown] for name, values in crops.items()}


def visible_boxes(fields: DistanceFields, scenes: Scenes) -> tuple[Tensor, Tensor]:
    """
    Return the boxes of what is visible of the objects, and which show enough to learn from.

    :return: (B, K, 4) xmin, ymin, xmax, ymax, pixels, whole numbers are the edges between them;
        (B, K) bool
    """
    width, height = WIDTH // COARSE, HEIGHT // COARSE
    coarse = replace(scenes, focal=scenes.focal / COARSE,
                     center=(scenes.center + 0.5) / COARSE - 0.5)
    ids = draw(fields, coarse, width, height).ids
    numbers = torch.arange(1, scenes.shape.shape[1] + 1, device=ids.device)
    mine = ids[:, None] == numbers[:, None, None]  # (B, K, H, W)
    boxes = COARSE * mask_boxes(mine).float()
    full = _full_boxes(fields, scenes)
    sides, full_sides = boxes[..., 2:] - boxes[..., :2], full[..., 2:] - full[..., :2]
    shown = sides.prod(dim=-1) / full_sides.prod(dim=-1)
    pixels = COARSE ** 2 * mine.sum(dim=(2, 3))
    return boxes, ((pixels >= MIN_PIXELS) & (sides.amin(dim=-1) >= MIN_SIDE)
                   & (shown >= MIN_SHOWN) & (scenes.shape >= 0))


def _full_boxes(fields: DistanceFields, scenes: Scenes) -> Tensor:
    """Return the boxes of whole objects, hidden parts too, (B, K, 4) pixels between edges."""
    to_camera = torch.linalg.inv(scenes.view)[:, None] @ scenes.pose
    points = fields.outermost[scenes.shape.clamp(min=0)] @ to_camera[..., :3, :3].mT \
        + to_camera[..., None, :3, 3]
    pixels = points[..., :2] / points[..., 2:].clamp(min=1e-3)
    pixels = pixels * scenes.focal[:, None, None, None] + scenes.center[:, None, None] + 0.5
    return torch.cat([pixels.amin(dim=2), pixels.amax(dim=2)], dim=-1)


def crop_cameras(scenes: Scenes, boxes: Tensor, size: int) -> tuple[Scenes, Tensor, Tensor]:
    """
    Return the scenes with the virtual cameras of boxes, as `crop_view`.

    :param boxes: (B, 4) pixels between edges, one per scene
    :return: the scenes, half fields (B,), and what of their pictures the real camera does not see,
        (B, S, S) bool
    """
    xmin, ymin, xmax, ymax = boxes.unbind(-1)
    middle = torch.stack([xmin + xmax, ymin + ymax], dim=-1) / 2
    places = torch.stack(
        [middle, *(boxes[:, corner] for corner in ([0, 1], [2, 1], [2, 3], [0, 3]))], dim=1)
    rays = (places - 0.5 - scenes.center[:, None]) / scenes.focal[:, None, None]
    rays = functional.pad(rays, (0, 1), value=1.0)
    turn = smallest_rotations(rays[:, 0])
    corners = rays[:, 1:] @ turn
    half_field = MARGIN * (corners[..., :2] / corners[..., 2:]).abs().flatten(1).amax(dim=1)
    view = scenes.view.clone()
    view[:, :3, :3] = scenes.view[:, :3, :3] @ turn
    middle = torch.full_like(scenes.center, (size - 1) / 2)
    crops = replace(scenes, focal=size / (2 * half_field), center=middle, view=view)
    back = camera_rays(crops.focal, crops.center, size, size) @ turn.mT
    pixels = back[..., :2] / back[..., 2:].clamp(min=1e-3) * scenes.focal[:, None, None] \
        + scenes.center[:, None]
    limits = torch.tensor([WIDTH, HEIGHT], device=view.device) - 0.5
    inside = ((pixels > -0.5) & (pixels < limits)).all(dim=-1) & (back[..., 2] > 0)
    return crops, half_field, ~inside.view(len(boxes), size, size)


def smallest_rotations(rays: Tensor) -> Tensor:
    """Return what turns the optical axis onto rays, (B, 3) to (B, 3, 3): `smallest_rotation`."""
    x, y, z = functional.normalize(rays, dim=1).unbind(-1)
    return torch.stack([
        1 - x * x / (1 + z), -x * y / (1 + z), x, -x * y / (1 + z), 1 - y * y / (1 + z), y,
        -x, -y, z], dim=-1).view(-1, 3, 3)


def solid_depths(
    fields: DistanceFields, crops: Examples, anchor: Tensor, resolution: int,
    shift: Tensor | None = None,
) -> Tensor:
    """
    Return how deep points of the cubes lie in the solids, in cells; negative outside.

    :param anchor: (B,) metres
    :param resolution: R, points along a side
    :param shift: (3,) z, y, x: moves the points off the cells' centres, in cells
    :return: (B, R, R, R), [z, y, x]
    """
    z, y, x = torch.meshgrid(*axes_of(resolution, anchor.device, shift), indexing='ij')
    cube = torch.stack([x, y, z], dim=-1).reshape(-1, 3)
    side = 2 * crops['half_field'] * anchor
    points = cube * side[:, None, None]
    points[..., 2] += (anchor + CENTER_BEHIND_ANCHOR * side)[:, None]
    matrix = crops['to_local']
    local = points @ matrix[:, :, :3].mT + matrix[:, None, :, 3]
    shape = crops['shape'][:, None].expand(-1, len(cube)).flatten()
    distance = fields.distance(shape, local.flatten(0, 1)).view(len(anchor), -1)
    scale = torch.linalg.det(matrix[:, :, :3]).abs() ** (1 / 3)  # of the solid's to metres
    depth = -distance / scale[:, None] / (side / resolution)[:, None]
    return depth.unflatten(1, (resolution,) * 3)


def cells_reached(fields: DistanceFields, crops: Examples, anchor: Tensor) -> Tensor:
    """
    Return which cells of the cubes the solids reach into, (B, 32, 32, 32) bool, [z, y, x].

    As `volumes.cells_reached` and `samples.coarser`: of 64 cells along a side, those whose centre
    lies no further from the solid than half a cell.
    """
    fine = solid_depths(fields, crops, anchor, TRUTH_CELLS)
    return functional.max_pool3d(fine[:, None], TRUTH_CELLS // RESOLUTION)[:, 0] > -0.5


def draw_scenes(stock: Stock, generator: Generator, count: int) -> Examples:
    """
    Draw whole pictures of random scenes.

    :return: color (N, 3, H, W) uint8, depth (N, H, W) true metres, ids (N, H, W) uint8, 0 = no
        object, up (N, 3) optical frame, offset (N,) metres from the camera down to the support,
        focal (N,), center (N, 2)
    """
    scenes = arrange(stock, generator, count, WIDTH, HEIGHT)
    pictures = draw(stock.fields, scenes, WIDTH, HEIGHT, generator)
    return {
        'color': pictures.color, 'depth': pictures.depth,
        'ids': pictures.ids.clamp(min=0).to(torch.uint8), 'up': scenes.view[:, 2, :3],
        'offset': scenes.view[:, 2, 3], 'focal': scenes.focal, 'center': scenes.center}


def scene_inputs(scenes: Examples, generator: Generator, is_plain: bool = False) -> Tensor:
    """
    Return what a segmentation network gets of pictures, (B, 9, H, W).

    :param is_plain: for validation: true colour, a usual sensor's depth, the true support plane
    """
    chance, count = Chance(generator), len(scenes['focal'])
    color, up, offset = scenes['color'], scenes['up'], scenes['offset']
    strength = torch.ones_like(offset)
    if not is_plain:
        strength = MOST_NOISE * chance.uniform(count)
        color = light_changed(color, generator)
        up = functional.normalize(up + UP_STD * chance.normal(count, 3), dim=1)
        is_other = chance.uniform(count) < OTHER_PLANE
        offset = offset + torch.where(is_other, OTHER_STD, OFFSET_STD) * chance.normal(count)
    depth = sensed_depth(
        scenes['depth'], scenes['color'], scenes['focal'], generator, strength=strength,
        magnification=torch.full_like(offset, WIDTH / SENSOR_WIDTH))
    height, width = depth.shape[1:]
    rays = camera_rays(scenes['focal'], scenes['center'], width, height)
    channels = scene_channels(color, depth, rays.mT.unflatten(2, (height, width)), up, offset)
    if not is_plain:
        channels[:, :3] *= (chance.uniform(count) >= DROP_COLOR)[:, None, None, None]
    return channels
