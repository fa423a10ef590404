# SPDX-License-Identifier: Apache-2.0
"""Contact sheets of rendered training data and of predictions, for people to look at."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import trimesh
from scipy import ndimage

from img2scene_ros.camera import Camera
from img2scene_ros.errors import InputError
from img2scene_ros.learning.samples import CropSample
from img2scene_ros.learning.samples import CropSamples
from img2scene_ros.learning.samples import SceneSample
from img2scene_ros.learning.samples import SceneSamples
from img2scene_ros.learning.samples import read_index
from img2scene_ros.models.crop import Crop
from img2scene_ros.models.crop import Cube
from img2scene_ros.rendering.pictures import BACKDROP
from img2scene_ros.rendering.pictures import FONT
from img2scene_ros.rendering.pictures import captioned
from img2scene_ros.rendering.pictures import color_of
from img2scene_ros.rendering.raycast import Lights
from img2scene_ros.rendering.raycast import Surface
from img2scene_ros.rendering.raycast import look_at
from img2scene_ros.rendering.raycast import render


def draw_sheet(folder: Path, path: Path, count: int = 24) -> None:
    """
    Draw samples from all over a data set into one PNG.

    A crop is a row of colour, mask, depth, and its voxels from the crop's camera and from the
    side; a scene is its picture with boxes (full ones dotted) and names, and its depth.

    :raises InputError: no data set, or the picture cannot be written
    """
    kind = read_index(folder)['options']['kind']
    samples = CropSamples(folder) if kind == 'crops' else SceneSamples(folder)
    chosen = np.unique(np.linspace(0, len(samples) - 1, count).astype(int))
    panels = [_draw(samples[int(number)]) for number in chosen]
    columns = 2
    panels += [np.zeros_like(panels[0])] * (-len(panels) % columns)
    rows = [np.hstack(panels[i:i + columns]) for i in range(0, len(panels), columns)]
    if not cv2.imwrite(str(path), np.vstack(rows)[..., ::-1]):
        raise InputError(f"cannot write '{path}'")


def _draw(sample: CropSample | SceneSample) -> np.ndarray:
    return _draw_crop(sample) if isinstance(sample, CropSample) else _draw_scene(sample)


def _draw_crop(sample: CropSample) -> np.ndarray:
    crop, cube = sample.crop, sample.cube
    mask = np.where(crop.mask[..., None], crop.color, crop.color // 4)
    near = sample.anchor - 0.5 * cube.side, sample.anchor + cube.side
    front, side = _front_and_side(sample.occupancy_at(32), crop, cube)
    row = np.hstack([crop.color, mask, _depth_picture(crop.depth, *near), front, side])
    text = (f'{sample.truth.label}: {sample.truth.shape.split("/", 1)[1]}, {sample.anchor:.2f} m, '
            f'{100 * sample.truth.shown:.0f} % shown')
    return captioned(row, text)


def _front_and_side(volume: np.ndarray, crop: Crop, cube: Cube) -> tuple[np.ndarray, np.ndarray]:
    """Draw a volume as the crop's camera sees it, with the mask's outline, and from the side."""
    size, count = len(crop.color), len(volume)
    surface = _blocks(volume, cube.centers(count), cube.side / count)
    lights = Lights(0.3, 0.4, 0.3, sky_rays=4)
    front = render([surface], crop.view.camera(size), lights=lights, background=BACKDROP).color
    # The outline of the mask on the voxels shows at once whether they fit.
    outlines, _ = cv2.findContours(
        crop.mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    front = cv2.drawContours(np.ascontiguousarray(front), outlines, -1, (255, 80, 60), 1)
    center = np.array([0, 0, cube.depth])
    pose = look_at(center + 1.9 * cube.side * np.array([0.85, -0.45, -0.25]), center, (0, -1, 0))
    side = render([surface], Camera.from_field_of_view(size, size, 42), pose, lights,
                  BACKDROP).color
    return front, side


@dataclass(frozen=True, eq=False)
class PredictedRow:
    """
    One object, its truth and predictions.

    - caption: names it
    - crop: what the networks saw
    - cube: that the volumes fill
    - truth: (R, R, R) bool
    - predictions: volumes by the name of what predicted them
    """

    caption: str
    crop: Crop
    cube: Cube
    truth: np.ndarray
    predictions: dict[str, np.ndarray]


def draw_predictions(rows: Sequence[PredictedRow]) -> np.ndarray:
    """
    Draw objects, truths and predictions, each volume from the crop's camera and from the side.

    :return: (H, W, 3) uint8, RGB
    """
    return np.vstack([_draw_predicted(row) for row in rows])


def _draw_predicted(row: PredictedRow) -> np.ndarray:
    volumes = {'truth': row.truth, **row.predictions}
    pairs = [captioned(np.hstack(_front_and_side(volume, row.crop, row.cube)), name)
             for name, volume in volumes.items()]
    return np.hstack([captioned(row.crop.color, row.caption), *pairs])


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
        center, *ends = np.rint(sample.frame.camera.project([item.position, *axes])).astype(int)
        for end, hue in zip(ends, ((255, 0, 0), (0, 255, 0), (0, 90, 255))):
            cv2.line(picture, center.tolist(), end.tolist(), hue, 1)
    depth = sample.frame.depth
    low, high = np.nanpercentile(depth, (1, 90))
    return captioned(np.hstack([picture, _depth_picture(depth, low, high)]),
                     f'scene {sample.scene}, {len(sample.objects)} objects')


def _dotted(picture: np.ndarray, box: list[int], color: tuple[int, int, int]) -> None:
    xmin, ymin, xmax, ymax = box
    corners = np.array([(xmin, ymin), (xmax, ymin), (xmax, ymax), (xmin, ymax)])
    for one, other in zip(corners, np.roll(corners, -1, axis=0)):
        for share in np.arange(0, 1, 6 / max(np.abs(other - one).max(), 6)):
            cv2.circle(picture, np.rint(one + share * (other - one)).astype(int).tolist(), 0,
                       color, -1)


def _depth_picture(depth: np.ndarray, near: float, far: float) -> np.ndarray:
    """Return near things bright and far ones dark, missing readings black."""
    grey = np.clip(255 - 220 * (depth - near) / (far - near), 35, 255)
    colored = cv2.applyColorMap(np.nan_to_num(grey).astype(np.uint8), cv2.COLORMAP_VIRIDIS)
    return np.where(np.isnan(depth)[..., None], 0, colored[..., ::-1]).astype(np.uint8)


def _blocks(volume: np.ndarray, centers: np.ndarray, cell: float) -> Surface:
    """Return the outer cells of a volume as little boxes."""
    outer = volume & ~ndimage.binary_erosion(volume)
    block = trimesh.creation.box((cell, cell, cell))
    places = centers[outer]
    vertices = (places[:, None] + block.vertices).reshape(-1, 3)
    faces = (8 * np.arange(len(places))[:, None, None] + block.faces).reshape(-1, 3)
    return Surface(vertices, faces, np.full((len(vertices), 3), (120, 170, 220), np.uint8), 1)
