# SPDX-License-Identifier: Apache-2.0
"""
Rendered training data: random scenes of known truth, and the crops of their objects.

A scene is one to eight shapes on a table or a floor in a room, with random materials, light and
camera. The ray caster draws white surfaces; what it draws is the light, and the materials are
multiplied in pixel by pixel, so that patterns need no fine meshes. Crops are not cut out of a
picture but drawn by their own virtual cameras.

Scene coordinates: metres, z up, the support at z = 0.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import replace
from functools import cached_property

import cv2
import numpy as np
import trimesh

from img2scene_ros.camera import Camera
from img2scene_ros.detection import bbox_of
from img2scene_ros.learning import samples
from img2scene_ros.learning.data_config import SPLITS
from img2scene_ros.learning.data_config import RenderOptions
from img2scene_ros.learning.shapes import FLOOR
from img2scene_ros.learning.shapes import TABLE
from img2scene_ros.learning.shapes import Library
from img2scene_ros.learning.shapes import Shape
from img2scene_ros.learning.textures import SolidTexture
from img2scene_ros.learning.textures import random_texture
from img2scene_ros.learning.volumes import cells_reached
from img2scene_ros.localization import object_axes
from img2scene_ros.models.crop import Crop
from img2scene_ros.models.crop import Cube
from img2scene_ros.models.crop import anchor_depth
from img2scene_ros.models.crop import crop_view
from img2scene_ros.rendering import raycast
from img2scene_ros.types import Frame

WHITE = 160  # brightness of surfaces while the light is drawn; leaves room for strong light
FIELDS_OF_VIEW = (40.0, 75.0)  # degrees
ELEVATIONS = (5.0, 75.0)  # degrees
DISTANCES = {TABLE: (0.4, 1.5), FLOOR: (1.5, 5.0)}  # metres from the camera to what it looks at
MOST_OBJECTS = {TABLE: 8, FLOOR: 5}
GAP = {TABLE: 0.004, FLOOR: 0.03}  # least metres between the footprints of two objects
NEAREST = {TABLE: 0.15, FLOOR: 0.4}  # metres, least depth of any part of an object
SUPPORT_ID, FLOOR_ID, FIRST_WALL_ID = -1, -2, -3
ATTEMPTS = 40


@dataclass(frozen=True, eq=False)
class Placed:
    """A shape that stands in a scene."""

    id: int
    shape: Shape
    pose: np.ndarray  # (4, 4), takes the shape's coordinates to scene coordinates, scale included
    texture: SolidTexture | None  # None for shapes with colours of their own

    @cached_property
    def points(self) -> np.ndarray:
        """Return the vertices in the scene, (V, 3) metres."""
        return self.shape.vertices @ self.pose[:3, :3].T + self.pose[:3, 3]


@dataclass(frozen=True, eq=False)
class SyntheticScene:
    """Objects, their surroundings and one camera."""

    objects: list[Placed]
    camera: Camera
    pose: np.ndarray  # (4, 4), takes the camera's optical coordinates to scene coordinates
    stage: raycast.Stage  # all surfaces, white
    # materials of the surroundings by id; texture coordinates are scene coordinates
    textures: dict[int, SolidTexture]
    tint: np.ndarray  # (3,) colour of the light
    background: np.ndarray  # (3,) RGB above the walls

    def look(self, camera: Camera, pose: np.ndarray) -> raycast.Rendering:
        """Look at the scene with materials; the ids of surroundings are negative."""
        seen = self.stage.look(camera, pose)
        points = (camera.rays * seen.depth[..., None]) @ pose[:3, :3].T + pose[:3, 3]
        color = np.empty(seen.color.shape, np.float32)
        color[seen.ids == 0] = self.background
        light = _without_noise(seen.color.astype(np.float32), seen.ids) * (self.tint / WHITE)
        for item in self.objects:
            mine = seen.ids == item.id
            if item.texture is None:
                color[mine] = light[mine] * 255  # its own colours are in the light
            elif mine.any():
                local = (points[mine] - item.pose[:3, 3]) @ np.linalg.inv(item.pose[:3, :3]).T
                scale = np.linalg.norm(item.pose[:3, 0])
                color[mine] = light[mine] * item.texture.at(local * scale)
        for id_, texture in self.textures.items():
            mine = seen.ids == id_
            color[mine] = light[mine] * texture.at(points[mine])
        return raycast.Rendering(np.clip(color, 0, 255).astype(np.uint8), seen.depth, seen.ids)


def _without_noise(light: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Smooth the light on surroundings: they are flat, so only shadows and their noise vary."""
    smooth = light.copy()
    for id_ in np.unique(ids[ids < 0]):
        mine = ids == id_
        weight = mine.astype(np.float32)
        total = cv2.blur(light * weight[..., None], (7, 7))
        smooth[mine] = total[mine] / cv2.blur(weight, (7, 7))[mine][:, None]
    return smooth


def scenes(
    library: Library, options: RenderOptions, shard: int,
) -> Iterator[tuple[str, SyntheticScene]]:
    """Yield the endless scenes of a shard with their names; each depends on its number only."""
    number = 0
    while True:
        seed = [options.seed, SPLITS.index(options.split), shard, number]
        random = np.random.default_rng(seed)
        place = FLOOR if library.groups[FLOOR] and random.random() < options.floor_share else TABLE
        yield '-'.join(map(str, seed)), random_scene(library, random, place, options)
        number += 1


def crop_samples(
    library: Library, options: RenderOptions, shard: int,
) -> Iterator[samples.CropSample]:
    """Yield the endless crops of a shard."""
    for name, scene in scenes(library, options, shard):
        random = np.random.default_rng([*map(int, name.split('-')), 1])
        ids = scene.stage.look_for_ids(scene.camera, scene.pose)
        for truth in truths(scene, ids):
            if is_visible_enough(truth, ids):
                sample = crop_sample(scene, truth, name, options, random)
                if sample is not None:
                    yield sample


def scene_samples(
    library: Library, options: RenderOptions, shard: int,
) -> Iterator[samples.SceneSample]:
    """Yield the endless scenes of a shard, drawn."""
    for name, scene in scenes(library, options, shard):
        seen = scene.look(scene.camera, scene.pose)
        ids = np.maximum(seen.ids, 0).astype(np.uint8)
        yield samples.SceneSample(
            Frame(seen.color, scene.camera, seen.depth), ids, truths(scene, ids),
            scene.pose[2, :3], float(scene.pose[2, 3]), name)


def truths(scene: SyntheticScene, ids: np.ndarray) -> list[samples.ObjectTruth]:
    """
    Return what is true of the objects that a picture shows.

    :param ids: (H, W) as the scene's camera sees them
    """
    from_scene = np.linalg.inv(scene.pose)
    up = scene.pose[2, :3]
    found = []
    for item in scene.objects:
        mask = ids == item.id
        if not mask.any():
            continue
        points = item.points @ from_scene[:3, :3].T + from_scene[:3, 3]
        pixels = scene.camera.project(points)
        position = (points.min(axis=0) + points.max(axis=0)) / 2
        for _ in range(3):  # the axes depend on where the centre is, and it on the axes
            rotation = object_axes(position, up)
            local = points @ rotation
            position = rotation @ (local.min(axis=0) + local.max(axis=0)) / 2
        # Pixels' whole numbers are their centres, boxes count their edges.
        full = np.concatenate([pixels.min(axis=0), pixels.max(axis=0)]) + 0.5
        found.append(samples.ObjectTruth(
            item.id, item.shape.label, item.shape.name, bbox_of(mask), full, position, rotation,
            np.ptp(local, axis=0), from_scene @ item.pose))
    return found


def is_visible_enough(truth: samples.ObjectTruth, ids: np.ndarray) -> bool:
    """Tell whether a crop of the object shows enough to learn from."""
    width, height = truth.visible_box[2:] - truth.visible_box[:2]
    return (min(width, height) >= samples.MIN_SIDE and truth.shown >= samples.MIN_SHOWN
            and int((ids == truth.id).sum()) >= samples.MIN_PIXELS)


def crop_sample(
    scene: SyntheticScene, truth: samples.ObjectTruth, name: str, options: RenderOptions,
    random: np.random.Generator,
) -> samples.CropSample | None:
    """Draw the crop of an object; None when the crop shows nothing of it."""
    size = truth.visible_box[2:] - truth.visible_box[:2]
    jitter = random.normal(0, options.box_jitter, 4).clip(-0.15, 0.15)
    view = crop_view(scene.camera, truth.visible_box + jitter * np.tile(size, 2))
    camera = view.camera(options.size)
    turned = scene.pose.copy()
    turned[:3, :3] = scene.pose[:3, :3] @ view.rotation
    seen = scene.look(camera, turned)
    outside = _beyond(scene.camera, camera.rays @ view.rotation.T)
    mask = (seen.ids == truth.id) & ~outside
    anchor = anchor_depth(seen.depth, mask)
    if anchor is None:
        return None
    # As soft as an image of 1 to 4 times the picture's width would be, stretched to the crop.
    sigma = 0.5 * camera.fx / scene.camera.fx / np.exp(random.uniform(0, np.log(4)))
    color = cv2.GaussianBlur(seen.color, (0, 0), max(sigma, 0.4))
    color[outside] = 0
    crop = Crop(view, color, mask, np.where(outside, np.nan, seen.depth).astype(np.float32))
    item = scene.objects[truth.id - 1]
    shape_to_view = np.linalg.inv(turned) @ item.pose
    occupancy = voxels(item.shape, shape_to_view, view.cube(anchor))
    return samples.CropSample(crop, anchor, occupancy, truth, scene.camera, name)


def voxels(shape: Shape, pose: np.ndarray, cube: Cube) -> np.ndarray:
    """
    Return the cells of a cube that a shape's solid reaches into.

    :param pose: (4, 4), takes the shape's coordinates to the crop view frame
    :return: (R, R, R) bool, [z, y, x]
    """
    # All grids are affine: the map from the one's indices to the other's is one matrix.
    from_cells = np.eye(4)
    from_cells[:3, :3] *= shape.cell
    from_cells[:3, 3] = shape.cell * (0.5 - np.array(shape.grid) / 2)
    return cells_reached(
        shape.solid, cube.to_cells(samples.RESOLUTION) @ pose @ from_cells, samples.RESOLUTION)


def random_scene(
    library: Library, random: np.random.Generator, place: str, options: RenderOptions,
) -> SyntheticScene:
    """Draw a scene on a 'table' or on the 'floor'."""
    return _furnished(_objects(library, random, place, options.stretch), random, place, options)


def scene_of(
    shape: Shape, random: np.random.Generator, place: str, options: RenderOptions,
) -> SyntheticScene:
    """Draw a scene of one shape alone, as `random_scene` draws those of several."""
    stretch, turn = _stretch_and_turn(shape, random, options.stretch)
    center = np.array([0, 0, np.ptp(shape.vertices[:, 2]) * stretch[2] / 2])
    return _furnished([_placed(1, shape, stretch, turn, center, random)], random, place, options)


def _furnished(
    objects: list[Placed], random: np.random.Generator, place: str, options: RenderOptions,
) -> SyntheticScene:
    """Draw a camera, a room and the light around objects."""
    camera, pose = _camera(objects, random, place, options.width)
    surroundings, textures = _surroundings(objects, pose[:3, 3], random, place)
    surfaces = [raycast.Surface(item.points, item.shape.faces, _white(item.shape), item.id)
                for item in objects]
    stage = raycast.Stage(surfaces + surroundings, _lights(random, options.sky_rays))
    return SyntheticScene(
        objects, camera, pose, stage, textures, random.uniform(0.88, 1.05, 3),
        random.uniform(0, 255, 3))


def _white(shape: Shape) -> np.ndarray:
    if shape.colors is None:
        return np.full((len(shape.vertices), 3), WHITE, np.uint8)
    return (shape.colors * (WHITE / 255)).astype(np.uint8)


def _objects(
    library: Library, random: np.random.Generator, place: str, most_stretch: float,
) -> list[Placed]:
    """Put objects side by side; one that finds no room is left away."""
    objects: list[Placed] = []
    footprints: list[cv2.typing.RotatedRect] = []
    area = 0.0
    spread = random.uniform(0.7, 1.8)
    for _ in range(random.integers(1, MOST_OBJECTS[place] + 1)):
        shape = library.draw(random, place)
        stretch, turn = _stretch_and_turn(shape, random, most_stretch)
        extents = np.ptp(shape.vertices, axis=0) * stretch
        area += extents[0] * extents[1]
        for attempt in range(ATTEMPTS):
            reach = spread * np.sqrt(area) * (0.5 + attempt / ATTEMPTS) * bool(objects)
            angle, radius = random.uniform(0, 2 * np.pi), reach * np.sqrt(random.random())
            center = np.array([radius * np.cos(angle), radius * np.sin(angle), extents[2] / 2])
            yaw = float(np.degrees(np.arctan2(turn[1, 0], turn[0, 0])))
            rectangle = center[:2].tolist(), (extents[:2] + GAP[place]).tolist(), yaw
            if all(cv2.rotatedRectangleIntersection(rectangle, other)[0] == cv2.INTERSECT_NONE
                   for other in footprints):
                objects.append(
                    _placed(len(objects) + 1, shape, stretch, turn, center, random))
                footprints.append(rectangle)
                break
    return objects


def _stretch_and_turn(
    shape: Shape, random: np.random.Generator, most_stretch: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw factors along the shape's axes, (3,), and a rotation about z, (3, 3)."""
    size = np.exp(random.uniform(*np.log(shape.sizes)))
    stretch = size * random.uniform(1 - most_stretch, 1 + most_stretch, 3)
    yaw = random.uniform(0, 2 * np.pi)
    return stretch, np.array([
        [np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1.0]])


def _placed(
    id_: int, shape: Shape, stretch: np.ndarray, turn: np.ndarray, center: np.ndarray,
    random: np.random.Generator,
) -> Placed:
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = turn * stretch, center
    longest = float((np.ptp(shape.vertices, axis=0) * stretch).max())
    texture = None if shape.colors is not None else \
        random_texture(random, longest, random.uniform(0.2, 1.0))
    return Placed(id_, shape, pose, texture)


def _camera(
    objects: list[Placed], random: np.random.Generator, place: str, width: int,
) -> tuple[Camera, np.ndarray]:
    """Draw intrinsics and a place that looks at one of the objects, and not from within any."""
    height = width * 3 // 4
    points = np.concatenate([item.points for item in objects])
    focus = objects[random.integers(len(objects))]
    low, high = focus.points.min(axis=0), focus.points.max(axis=0)
    target = random.uniform(0.7 * low + 0.3 * high, 0.3 * low + 0.7 * high)
    near, far = DISTANCES[place]
    while True:
        camera = Camera.from_field_of_view(width, height, random.uniform(*FIELDS_OF_VIEW))
        shift = random.normal(0, 0.01 * width, 2)
        camera = Camera(width, height, camera.fx, camera.fx, camera.cx + shift[0],
                        camera.cy + shift[1])
        azimuth = random.uniform(0, 2 * np.pi)
        rise = np.radians(random.uniform(*ELEVATIONS))
        towards = np.array([np.cos(rise) * np.cos(azimuth), np.cos(rise) * np.sin(azimuth),
                            np.sin(rise)])
        distance = np.exp(random.uniform(np.log(near), np.log(far)))
        eye = target + distance * towards
        # What it looks at is anywhere in the middle of the picture; the horizon is not level.
        aim = target + distance * random.normal(0, 0.12, 3)
        roll = np.array([*random.normal(0, 0.05, 2), 1.0])
        pose = raycast.look_at(eye, aim, roll)
        depths = (points - eye) @ pose[:3, 2]
        if depths.min() > NEAREST[place]:
            return camera, pose
        near *= 1.01  # the objects may be too wide for the least distance
        far = max(far, near)


def _lights(random: np.random.Generator, sky_rays: int) -> raycast.Lights:
    tilt = random.normal(0, 0.5, 2)
    x, y, z = np.array([*tilt, 1.0]) / np.linalg.norm([*tilt, 1.0])
    ambient, sky, headlight = random.dirichlet((3, 5, 1.5)) * random.uniform(0.9, 1.5)
    return raycast.Lights(ambient, sky, headlight, (x, y, z), sky_rays)


def _surroundings(
    objects: list[Placed], eye: np.ndarray, random: np.random.Generator, place: str,
) -> tuple[list[raycast.Surface], dict[int, SolidTexture]]:
    """Draw a table or none, the floor, and four walls around everything."""
    points = np.concatenate([item.points for item in objects])[:, :2]
    low, high = points.min(axis=0), points.max(axis=0)
    surfaces, textures = [], {}
    ground = 0.0
    if place == TABLE:
        ground = -random.uniform(0.5, 0.95)
        low, high = low - random.uniform(0.03, 0.5, 2), high + random.uniform(0.03, 0.5, 2)
        thick = random.uniform(0.015, 0.05)
        surfaces.append(_block((*low, -thick), (*high, 0.0), SUPPORT_ID))
        textures[SUPPORT_ID] = random_texture(random, 0.6, 0.5)
    low, high = np.minimum(low, eye[:2]), np.maximum(high, eye[:2])
    low, high = low - random.uniform(0.05, 2.0, 2), high + random.uniform(0.05, 2.0, 2)
    top = ground + random.uniform(2.2, 3.0)
    surfaces.append(_block((*low, ground - 0.1), (*high, ground), FLOOR_ID))
    textures[FLOOR_ID] = random_texture(random, 1.5, 0.4)
    (a, c), (b, d) = low, high
    thin = 0.02
    paper = random_texture(random, 2.0, 0.3)
    for number, (x0, y0, x1, y1) in enumerate((
            (a - thin, c, a, d), (b, c, b + thin, d), (a, c - thin, b, c), (a, d, b, d + thin))):
        id_ = FIRST_WALL_ID - number
        surfaces.append(_block((x0, y0, ground), (x1, y1, top), id_))
        textures[id_] = replace(paper, colors=paper.colors * random.uniform(0.7, 1.0))
    return surfaces, textures


def _block(low: tuple, high: tuple, id_: int) -> raycast.Surface:
    """
    Return an axis-aligned box between two corners.

    It takes shadows and casts none: else the few rays of the soft shadows would make noise.
    """
    box = trimesh.creation.box(bounds=np.array([low, high]))
    return raycast.Surface(
        box.vertices, box.faces, np.full((8, 3), WHITE, np.uint8), id_, lit=False)


def _beyond(camera: Camera, rays: np.ndarray) -> np.ndarray:
    """Return the rays that a camera does not see, (H, W) bool."""
    u, v = np.moveaxis(camera.project(rays), -1, 0)
    inside = (u > -0.5) & (u < camera.width - 0.5) & (v > -0.5) & (v < camera.height - 0.5)
    return ~inside  # NaN is outside
