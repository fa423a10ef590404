# SPDX-License-Identifier: Apache-2.0
"""Sheets for people to look at: training data, predictions, evaluated scenes."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

import cv2
import numpy as np
import trimesh

from img2scene_ros.camera import Camera
from img2scene_ros.depth import measured
from img2scene_ros.learning.metrics import voxel_iou
from img2scene_ros.learning.pix3d import Pix3dPicture
from img2scene_ros.learning.samples import CropSample
from img2scene_ros.learning.samples import CropSamples
from img2scene_ros.learning.samples import SceneSample
from img2scene_ros.learning.samples import SceneSamples
from img2scene_ros.learning.samples import coarser
from img2scene_ros.learning.samples import evenly
from img2scene_ros.learning.samples import read_index
from img2scene_ros.learning.volumes import surface_cells
from img2scene_ros.models.crop import Crop
from img2scene_ros.models.crop import Cube
from img2scene_ros.rendering.pictures import BACKDROP
from img2scene_ros.rendering.pictures import FONT
from img2scene_ros.rendering.pictures import captioned
from img2scene_ros.rendering.pictures import color_of
from img2scene_ros.rendering.pictures import write_png
from img2scene_ros.rendering.raycast import Lights
from img2scene_ros.rendering.raycast import Surface
from img2scene_ros.rendering.raycast import look_at
from img2scene_ros.rendering.raycast import render

if TYPE_CHECKING:
    from img2scene_ros.learning.shapes import Shape
    from img2scene_ros.types import SceneObject

BLUE = (120, 170, 220)
VIRIDIS = cv2.applyColorMap(np.arange(256, dtype=np.uint8), cv2.COLORMAP_VIRIDIS)[:, 0, ::-1]
PANEL, CAPTION = 512, 24  # pixels of the check of Pix3D
MASK_COLOR, OUTLINE_COLOR = (60, 220, 60), (255, 40, 40)
CELLS_SHOWN = 64
UP = np.array([0, -1, 0])  # in an optical frame
SHRUNK = 0.8  # of a cell, so that the cells are seen apart


def draw_sheet(folder: Path, path: Path, count: int = 24) -> None:
    """
    Draw samples from all over a data set into one PNG.

    A crop is a row of colour, mask, depth, and its voxels from the crop's camera and from the
    side; a scene is its picture with boxes (full ones dotted) and names, and its depth.

    :raises InputError: no data set, or the picture cannot be written
    """
    kind = read_index(folder)['options']['kind']
    samples: Sequence[Any] = \
        CropSamples(folder) if kind == 'crops' else SceneSamples(folder)
    draw = _draw_crop if kind == 'crops' else _draw_scene
    panels = [draw(samples[number]) for number in evenly(len(samples), count)]
    columns = 2
    panels += [np.zeros_like(panels[0])] * (-len(panels) % columns)
    rows = [np.hstack(panels[i:i + columns]) for i in range(0, len(panels), columns)]
    write_png(path, np.vstack(rows))


def _draw_crop(sample: CropSample) -> np.ndarray:
    crop, cube = sample.crop, sample.cube
    mask = np.where(crop.mask[..., None], crop.color, crop.color // 4)
    near = sample.anchor - 0.5 * cube.side, sample.anchor + cube.side
    front, side = _front_and_side(coarser(sample.occupancy, 32), crop, cube)
    row = np.hstack([crop.color, mask, _depth_picture(measured(crop.depth), *near), front, side])
    text = (f'{sample.truth.label}: {sample.truth.shape.split("/", 1)[1]}, {sample.anchor:.2f} m, '
            f'{100 * sample.truth.shown:.0f} % shown')
    return captioned(row, text)


def _front_and_side(volume: np.ndarray, crop: Crop, cube: Cube) -> tuple[np.ndarray, np.ndarray]:
    """Draw a volume as the crop's camera sees it, with the mask's outline, and from the side."""
    size = len(crop.color)
    surface = block_surface(volume, np.linalg.inv(cube.to_cells(len(volume))), BLUE)
    lights = Lights(0.3, 0.4, 0.3, sky_rays=4)
    front = render([surface], crop.view.camera(size), lights=lights, background=BACKDROP).color
    # The outline of the mask on the voxels shows at once whether they fit.
    front = _outlined(front, crop.mask, (255, 80, 60), cv2.RETR_EXTERNAL)
    center = np.array([0, 0, cube.depth])
    pose = look_at(center + 1.9 * cube.side * np.array([0.85, -0.45, -0.25]), center, UP)
    side = render([surface], Camera.from_field_of_view(size, size, 42), pose, lights,
                  BACKDROP).color
    return front, side


def draw_predictions(
    caption: str, crop: Crop, cube: Cube, volumes: dict[str, np.ndarray],
) -> np.ndarray:
    """
    Draw an object and volumes, each from the crop's camera and from the side.

    :param cube: that the volumes fill
    :param volumes: (R, R, R) bool, by their captions
    :return: (h, w, 3) uint8, RGB
    """
    pairs = [captioned(np.hstack(_front_and_side(volume, crop, cube)), name)
             for name, volume in volumes.items()]
    return np.hstack([captioned(crop.color, caption), *pairs])


def _draw_scene(sample: SceneSample) -> np.ndarray:
    picture = sample.frame.color.copy()
    for item in sample.objects:
        color = color_of(item.id)
        mask = sample.ids == item.id
        picture[mask] = (0.75 * picture[mask] + 0.25 * np.array(color)).astype(np.uint8)
        full, seen = (np.rint(box).astype(int).tolist()
                      for box in (item.full_box, item.visible_box))
        _dotted(picture, full, color)
        cv2.rectangle(picture, seen[:2], [seen[2] - 1, seen[3] - 1], color, 1)
        cv2.putText(picture, item.label, (seen[0] + 2, seen[1] + 10), FONT, 0.35, color, 1)
        axes = item.position + 0.5 * item.size[:, None] * item.rotation.T
        points = np.array([item.position, *axes])
        center, *ends = np.rint(sample.frame.camera.project(points)).astype(int)
        for end, hue in zip(ends, ((255, 0, 0), (0, 255, 0), (0, 90, 255))):
            cv2.line(picture, center.tolist(), end.tolist(), hue, 1)
    depth = measured(sample.frame.depth)
    low, high = np.nanpercentile(depth, (1, 90))
    return captioned(np.hstack([picture, _depth_picture(depth, low, high)]),
                     f'scene {sample.scene}, {len(sample.objects)} objects')


def draw_evaluated_scene(
    sample: SceneSample, shapes: dict[int, 'Shape | None'],
    scenes: Mapping[str, Sequence['SceneObject']],
) -> np.ndarray:
    """
    Draw a scene with the boxes of the first way, then truth and meshes, from two sides each.

    :param shapes: by the ids of the true objects; None is not drawn
    :param scenes: what was found, by the way it was found
    :return: (h, w, 3) uint8, RGB
    """
    picture = sample.frame.color.copy()
    boxes = [(item.visible_box, (255, 255, 255)) for item in sample.objects] + [
        (one.detection.bbox, color_of(one.id)) for one in next(iter(scenes.values()))]
    for box, color in boxes:
        xmin, ymin, xmax, ymax = np.rint(box).astype(int).tolist()
        cv2.rectangle(picture, (xmin, ymin), (xmax - 1, ymax - 1), color, 1)
    meshes = {'truth': [
        (item.id, shape.vertices @ item.shape_pose[:3, :3].T + item.shape_pose[:3, 3], shape.faces)
        for item in sample.objects if (shape := shapes[item.id]) is not None]}
    meshes |= {name: [(one.id, one.points, one.model.faces) for one in found]
               for name, found in scenes.items()}
    center = np.mean([item.position for item in sample.objects], axis=0)
    aside = np.cross(center, sample.up)
    aside *= np.linalg.norm(center) / np.linalg.norm(aside)
    turned = look_at(center + 0.9 * aside + 0.4 * np.linalg.norm(center) * sample.up, center,
                     sample.up)
    lights = Lights(0.3, 0.4, 0.3, tuple(sample.up))
    panels = [captioned(picture, f'{sample.scene}: truth white, found coloured')]
    for name, some in meshes.items():
        surfaces = [
            Surface(points, faces, np.full(points.shape, color_of(number), np.uint8), number)
            for number, points, faces in some]
        panels += [
            captioned(render(surfaces, sample.frame.camera, pose, lights, BACKDROP).color, text)
            for text, pose in ((name, np.eye(4)), ('turned', turned))]
    return np.hstack(panels)


def write_pix3d_sheets(
    pictures: Sequence[Pix3dPicture], folder: Path, count: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """
    Draw some of the pictures, spread evenly over the list, into a folder as <id>.png.

    :param progress: is called with the numbers of finished and of all
    :raises InputError: the folder cannot be written
    :raises MissingDependencyError: Open3D is not installed
    """
    chosen = evenly(len(pictures), count)
    for done, index in enumerate(chosen, 1):
        write_png(folder / f'{pictures[index].id}.png', draw_pix3d_check(pictures[index]))
        progress(done, len(chosen))


def draw_pix3d_check(picture: Pix3dPicture) -> np.ndarray:
    """
    Draw the picture, its mask with the outline of the projected voxels, and the voxels in 3D.

    :return: (536, 1536, 3) uint8, RGB: three panels, each below its caption
    :raises MissingDependencyError: Open3D is not installed
    """
    voxels, mask, image = picture.read_voxels(), picture.read_mask(), picture.read_image()
    silhouette = render(
        [block_surface(voxels, picture.grid_to_camera)], picture.camera).ids > 0
    iou = float(voxel_iou(silhouette, mask))
    marked = image.copy()
    marked[mask] = (0.55 * image[mask] + 0.45 * np.array(MASK_COLOR)).astype(np.uint8)
    marked = _outlined(_enlarged(marked), _enlarged(silhouette.astype(np.uint8)), OUTLINE_COLOR,
                       cv2.RETR_LIST)
    return np.hstack([
        captioned(_enlarged(image), f'{picture.id} ({picture.category})', CAPTION),
        captioned(marked, f'mask, outline of the voxels (IoU {iou:.3f})', CAPTION),
        captioned(_draw_voxels(picture, voxels), 'voxels from the front, coloured by height',
                  CAPTION),
    ])


def _draw_voxels(picture: Pix3dPicture, voxels: np.ndarray) -> np.ndarray:
    """Draw the cells, pooled, coloured by their height, in model coordinates."""
    pooled = len(voxels) // CELLS_SHOWN
    coarse = voxels.reshape((CELLS_SHOWN, pooled) * 3).max(axis=(1, 3, 5))
    place = picture.grid_to_model.copy()
    place[:3, 3] += place[:3, :3] @ np.full(3, (pooled - 1) / 2)
    place[:3, :3] *= pooled
    cells = block_surface(coarse, place, scale=SHRUNK)
    low, high = cells.vertices.min(axis=0), cells.vertices.max(axis=0)
    center, radius = (low + high) / 2, np.linalg.norm(high - low) / 2
    camera = Camera.from_field_of_view(PANEL, PANEL, 30.0)
    # The model's front is its -z, its left side +x.
    towards = np.array([0.55, 0.45, -0.7]) * radius / np.sin(np.radians(15.0))
    up = np.array([0.0, 1.0, 0.0])
    return render([cells], camera, look_at(center + towards, center, up),
                  Lights(0.25, 0.45, 0.3, tuple(up)), BACKDROP, supersampling=2).color


def _enlarged(picture: np.ndarray) -> np.ndarray:
    return cv2.resize(picture, (PANEL, PANEL), interpolation=cv2.INTER_NEAREST)


def _dotted(picture: np.ndarray, box: list[int], color: tuple[int, int, int]) -> None:
    line = np.zeros(picture.shape[:2], np.uint8)
    cv2.rectangle(line, box[:2], box[2:], 1)
    v, u = np.nonzero(line)
    dots = (u + v) % 6 == 0
    picture[v[dots], u[dots]] = color


def _outlined(
    picture: np.ndarray, mask: np.ndarray, color: tuple[int, int, int], mode: int,
) -> np.ndarray:
    """Return the picture with the outlines of a mask: all of them or those outside, by `mode`."""
    outlines, _ = cv2.findContours(mask.astype(np.uint8), mode, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(np.ascontiguousarray(picture), outlines, -1, color, 1)


def _depth_picture(depth: np.ndarray, near: float, far: float) -> np.ndarray:
    """Return near things bright and far ones dark, missing readings black."""
    grey = np.clip(255 - 220 * (depth - near) / (far - near), 35, 255)
    colored = VIRIDIS[np.nan_to_num(grey).astype(np.uint8)]
    return np.where(np.isnan(depth)[..., None], 0, colored).astype(np.uint8)


def block_surface(
    volume: np.ndarray, place: np.ndarray, color: tuple[int, int, int] | None = None,
    scale: float = 1.0,
) -> Surface:
    """
    Return the outer cells of a volume as blocks.

    :param volume: (X, Y, Z) bool
    :param place: (4, 4), takes the index of a cell's centre to the coordinates of the surface
    :param color: RGB; None colours by the last index
    :param scale: side of a block in cells
    """
    index = surface_cells(volume)
    block = trimesh.creation.box((scale,) * 3)
    vertices = (index[:, None] + block.vertices).reshape(-1, 3) @ place[:3, :3].T + place[:3, 3]
    faces = (8 * np.arange(len(index))[:, None, None] + block.faces).reshape(-1, 3)
    colors = VIRIDIS[np.rint(index[:, 2] * 255 / volume.shape[2]).astype(np.uint8)]
    if color is not None:
        colors = np.full(colors.shape, color, np.uint8)
    return Surface(vertices, faces, colors.repeat(8, axis=0), id=1)
