# SPDX-License-Identifier: Apache-2.0
"""Sheets that show whether a prepared Pix3D picture, its mask, camera and voxels fit."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import trimesh

from img2scene_ros.camera import Camera
from img2scene_ros.errors import InputError
from img2scene_ros.learning.metrics import voxel_iou
from img2scene_ros.learning.pix3d import Pix3dPicture
from img2scene_ros.learning.volumes import surface_cells
from img2scene_ros.rendering.pictures import BACKDROP
from img2scene_ros.rendering.pictures import captioned
from img2scene_ros.rendering.raycast import Lights
from img2scene_ros.rendering.raycast import Surface
from img2scene_ros.rendering.raycast import look_at
from img2scene_ros.rendering.raycast import render

if TYPE_CHECKING:
    from rich.console import Console

PANEL = 512
CAPTION = 24
MASK_COLOR, OUTLINE_COLOR = (60, 220, 60), (255, 40, 40)
CELLS_SHOWN = 64
SHRUNK = 0.8  # of a cell, so that the cells are seen apart


def write_sheets(
    pictures: Sequence[Pix3dPicture], folder: Path, count: int, console: 'Console | None' = None,
) -> None:
    """
    Draw some of the pictures, spread evenly over the list, into a folder as <id>.png.

    :param console: shows the progress
    :raises InputError: the folder cannot be written
    :raises MissingDependencyError: Open3D is not installed
    """
    from rich.progress import track

    chosen = np.unique(np.linspace(0, len(pictures) - 1, count).round().astype(int))
    quiet = console is None or not console.is_terminal
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for index in track(chosen, 'Drawing', console=console, disable=quiet):
            sheet = cv2.cvtColor(draw_check(pictures[index]), cv2.COLOR_RGB2BGR)
            (folder / f'{pictures[index].id}.png').write_bytes(
                cv2.imencode('.png', sheet)[1].tobytes())
    except OSError as error:
        raise InputError(
            f"cannot write the sheets to '{folder}' ({error.strerror or error}); make room or "
            'prepare the data in another place') from error


def draw_check(picture: Pix3dPicture) -> np.ndarray:
    """
    Draw the picture, its mask with the outline of the projected voxels, and the voxels in 3D.

    :return: (536, 1536, 3) uint8, RGB: three panels, each below its caption
    :raises MissingDependencyError: Open3D is not installed
    """
    voxels, mask, image = picture.read_voxels(), picture.read_mask(), picture.read_image()
    silhouette = project_voxels(voxels, picture.grid_to_camera, picture.camera)
    iou = float(voxel_iou(silhouette, mask))
    marked = image.copy()
    marked[mask] = (0.55 * image[mask] + 0.45 * np.array(MASK_COLOR)).astype(np.uint8)
    marked = _enlarged(marked)
    outlines, _ = cv2.findContours(
        _enlarged(silhouette.astype(np.uint8)), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(marked, outlines, -1, OUTLINE_COLOR, 1)
    return np.hstack([
        captioned(_enlarged(image), f'{picture.id} ({picture.category})', CAPTION),
        captioned(marked, f'mask, outline of the voxels (IoU {iou:.3f})', CAPTION),
        captioned(_draw_voxels(picture, voxels), 'voxels from the front, coloured by height',
                  CAPTION),
    ])


def project_voxels(voxels: np.ndarray, grid_to_camera: np.ndarray, camera: Camera) -> np.ndarray:
    """
    Return the pixels whose centres see a solid cell.

    :param voxels: (X, Y, Z) bool
    :param grid_to_camera: (4, 4), takes the index of a cell's centre to the optical frame
    :return: (H, W) bool
    """
    return render([_cells(voxels, grid_to_camera)], camera).ids > 0


def _draw_voxels(picture: Pix3dPicture, voxels: np.ndarray) -> np.ndarray:
    """Draw the cells, pooled, coloured by their height, in model coordinates."""
    pooled = len(voxels) // CELLS_SHOWN
    coarse = voxels.reshape((CELLS_SHOWN, pooled) * 3).max(axis=(1, 3, 5))
    place = picture.grid_to_model.copy()
    place[:3, 3] += place[:3, :3] @ np.full(3, (pooled - 1) / 2)
    place[:3, :3] *= pooled
    cells = _cells(coarse, place, SHRUNK)
    low, high = cells.vertices.min(axis=0), cells.vertices.max(axis=0)
    center, radius = (low + high) / 2, np.linalg.norm(high - low) / 2
    camera = Camera.from_field_of_view(PANEL, PANEL, 30.0)
    # The model's front is its -z, its left side +x.
    towards = np.array([0.55, 0.45, -0.7]) * radius / np.sin(np.radians(15.0))
    up = np.array([0.0, 1.0, 0.0])
    return render([cells], camera, look_at(center + towards, center, up),
                  Lights(0.25, 0.45, 0.3, tuple(up)), BACKDROP, supersampling=2).color


def _cells(voxels: np.ndarray, place: np.ndarray, scale: float = 1.0) -> Surface:
    """
    Return the solid cells that have an empty neighbour as cubes, coloured by the last index.

    :param place: (4, 4), takes the index of a cell's centre to the coordinates of the surface
    :param scale: side of a cube in cells
    """
    cubes = trimesh.voxel.ops.multibox(surface_cells(voxels), pitch=scale)
    height = np.rint(np.rint(cubes.vertices[:, 2:]) * 255 / voxels.shape[2]).astype(np.uint8)
    colors = cv2.applyColorMap(height, cv2.COLORMAP_VIRIDIS)[:, 0, ::-1]
    return Surface(cubes.vertices @ place[:3, :3].T + place[:3, 3], cubes.faces, colors, id=1)


def _enlarged(picture: np.ndarray) -> np.ndarray:
    return cv2.resize(picture, (PANEL, PANEL), interpolation=cv2.INTER_NEAREST)
