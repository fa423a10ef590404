# SPDX-License-Identifier: Apache-2.0
"""
An occupancy network's answer as a mesh: from a picture alone, or with depth.

    crop of the sighting -> network -> logits in the crop's cube -> closed mesh -> object frame

The network completes what no one saw. What a depth image did see is measured, not guessed: there
the network's solid is cut and filled so that its surface lies where the readings are, nothing is
left in free space, and the two go over into each other behind the surface. Without depth the shape
is known up to its scale; the distance of the placement sets it, and the support, where the object
stands on one.

What lies outside of the crop's cube (`models/crop.py`) is lost.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from typing import Any

import numpy as np
from scipy import ndimage

from img2scene_ros import devices
from img2scene_ros.detection import bbox_of
from img2scene_ros.detection.masks import colored_pixels
from img2scene_ros.errors import Img2SceneError
from img2scene_ros.errors import ReconstructionError
from img2scene_ros.errors import attempt
from img2scene_ros.hub import first_line
from img2scene_ros.mesh.closing import closed_mesh
from img2scene_ros.mesh.closing import main_parts
from img2scene_ros.mesh.colors import picture_colors
from img2scene_ros.mesh.colors import spread_colors
from img2scene_ros.models.crop import Crop
from img2scene_ros.models.crop import Cube
from img2scene_ros.models.crop import cut_crop
from img2scene_ros.options import Options
from img2scene_ros.options import option
from img2scene_ros.packages import require_packages
from img2scene_ros.reconstruction import BatchReconstructor
from img2scene_ros.reconstruction import check_size
from img2scene_ros.reconstruction import model_of
from img2scene_ros.reconstruction.view import MIN_READINGS
from img2scene_ros.reconstruction.view import View
from img2scene_ros.rendering.raycast import raycasting_scene
from img2scene_ros.types import ObjectModel
from img2scene_ros.types import Placement
from img2scene_ros.types import Sighting
from img2scene_ros.weights import weights_folder

# Set by hand.
_LOGITS_PER_CELL = 1.0  # how steeply logits rise at a surface, in 32nds of the cube
_REACH = 2.0  # cells from the surface up to which distances differ
_WALL = 1.5  # cells along the line of sight; what is measured is at least so thick
_LEAST_LEFT = 0.2  # share of a solid without depth that lies above its support, if that is right
_MIN_PART = 0.02  # of the largest part; smaller parts are specks


@dataclass(frozen=True)
class VoxelOptions(Options):
    """Which network `voxel` asks, where it runs, and how finely it rebuilds."""

    weights: str = option(
        'bundled', "The network: 'bundled', or a folder that `img2scene train` wrote",
        read_only=True)
    device: str = devices.device_option()
    dtype: str = devices.dtype_option()
    resolution: int = option(40, 'Cells along a side of the cube around an object', low=16,
                             high=128)
    threshold: float = option(
        0.0, 'Least probability of a cell that belongs to the object; 0 is what was best in the '
        "network's validation", low=0.0, high=0.95)
    max_triangles: int = option(12000, 'Greatest number of triangles of a mesh', low=200,
                                high=200000)
    max_batch: int = option(4, 'Most objects that the network sees in one pass', low=1,
                            high=64)


class VoxelReconstructor(BatchReconstructor):
    """
    Asks a network what solid a crop shows.

    :raises MissingDependencyError: torch or the weights are not on this machine
    :raises InputError: weights that are damaged, or of another network
    :raises OptionError: a device that is not there
    """

    Options = VoxelOptions

    def __init__(self, options: VoxelOptions = VoxelOptions()) -> None:
        require_packages("the reconstructor 'voxel'", ('torch', 'safetensors'),
                         "use 'depth_shell' with a depth camera")
        from img2scene_ros.models.networks import load_network
        from img2scene_ros.models.networks import picture_size
        from img2scene_ros.models.networks import read_network_config

        self._device = devices.torch_device(options.device)
        self._dtype = devices.torch_dtype(options.dtype, self._device)
        folder = weights_folder(options.weights, 'voxel')
        self._network: Any = load_network(folder).to(self._device)
        config = read_network_config(folder)
        self._crop_size = picture_size(config)
        self._validation = config.get('validation', {})
        self._trained_resolution = min(
            config.get('training', {}).get('resolution', 32), options.resolution)
        self.options = options

    def reconstruct_batch(
        self, sightings: Sequence[Sighting],
    ) -> list[ObjectModel | Img2SceneError]:
        """Rebuild several objects in one pass; one that cannot be rebuilt gives its error."""
        crops = [attempt(_crop, sighting, self._crop_size) for sighting in sightings]
        good = [(sighting, crop) for sighting, crop in zip(sightings, crops)
                if isinstance(crop, Crop)]
        answers = iter(self._logits(good) if good else ())
        return [
            attempt(self._model, sighting, crop, next(answers)) if isinstance(crop, Crop) else crop
            for sighting, crop in zip(sightings, crops)]

    def _logits(self, seen: Sequence[tuple[Sighting, Crop]]) -> np.ndarray:
        """
        Ask the network, and interpolate: (N, R, R, R) float32, indexed [x, y, z].

        Between the cells that it was trained on a network's answers are worse than their means.
        """
        import torch
        from torch.nn.functional import interpolate

        from img2scene_ros.models.channels import crop_channels

        pictures = torch.from_numpy(np.stack([
            crop_channels(crop.color, None if sighting.detection.mask is None else crop.mask,
                          crop.depth, crop.anchor, crop.view.half_field)
            for sighting, crop in seen]))
        half_field = torch.tensor([crop.view.half_field for _, crop in seen], dtype=torch.float32)
        try:
            with torch.inference_mode(), devices.autocast(self._device, self._dtype):
                logits = self._network.predict(
                    pictures.to(self._device), half_field.to(self._device),
                    self._trained_resolution)
            logits = interpolate(
                logits[:, None], (self.options.resolution,) * 3, mode='trilinear')
        except RuntimeError as error:
            raise ReconstructionError(
                f"the network of the reconstructor 'voxel' failed on {len(seen)} crops "
                f"({first_line(error)}); set 'max_batch' or 'resolution' lower, or 'device' to "
                'cpu') from error
        return logits[:, 0].cpu().numpy().transpose(0, 3, 2, 1)

    def _model(self, sighting: Sighting, crop: Crop, logits: np.ndarray) -> ObjectModel:
        inside = self._cells_inside(crop, logits)
        cube = crop.view.cube(crop.anchor or _anchor(inside, sighting, crop))
        cell = cube.side / len(logits)
        if crop.anchor is not None:
            inside = _as_measured(inside, sighting, crop, cube)
        inside = _above_support(inside, sighting, crop, cube)
        inside = _closed(main_parts(inside, 1.0, _MIN_PART))
        first = np.array([-0.5, -0.5, -0.5]) * (cube.side + cell) + (0.0, 0.0, cube.depth)
        vertices, faces = closed_mesh(inside, cell, first, self.options.max_triangles)
        vertices = vertices @ crop.view.rotation.T @ sighting.placement.rotation
        if crop.anchor is None:
            vertices = vertices * _stretch_to_support(vertices[:, 2].min(), sighting.placement)
        model = model_of(vertices, faces, np.zeros((len(vertices), 3), np.uint8),
                         sighting.placement.rotation, 'voxel')
        return replace(model, colors=_colors(sighting, model))

    def _cells_inside(self, crop: Crop, logits: np.ndarray) -> np.ndarray:
        """
        Return how many cells deep the network takes cells to lie in the object, up to `_REACH`.

        :raises ReconstructionError: the network's answer is no solid
        """
        kind = 'rgb' if crop.anchor is None else 'rgbd'
        threshold = (self.options.threshold
                     or self._validation.get(kind, {}).get('threshold', 0.5))
        depth = (logits - np.log(threshold / (1.0 - threshold))) / _LOGITS_PER_CELL
        depth = depth * (len(logits) / 32.0)
        if not np.isfinite(depth).all():
            raise ReconstructionError(
                "the network of the reconstructor 'voxel' answers with numbers that are not "
                "finite; its weights are damaged, or 'dtype' must be float32")
        if not (depth > 0).any():
            raise ReconstructionError(
                "the network sees no solid here; move the camera closer, or lower 'threshold'")
        if (depth > 0).all():
            raise ReconstructionError(
                'the network takes all the space around the object for solid; check its weights')
        return np.clip(depth, -_REACH, _REACH)


def _crop(sighting: Sighting, size: int) -> Crop:
    """Cut out what the network sees; without a mask or enough readings on it, without depth."""
    frame, detection = sighting.frame, sighting.detection
    mask = detection.mask
    seen = detection.bbox if mask is None or not mask.any() else bbox_of(mask)
    check_size(0 if mask is not None and not mask.any() else max(seen[2:] - seen[:2]))
    crop = cut_crop(frame, detection.bbox, mask, size)
    if not crop.mask.any():
        raise ReconstructionError("the object's mask lies outside of its box")
    readings = (0 if mask is None or frame.depth is None
                else np.count_nonzero(mask & np.isfinite(frame.depth)))
    return crop if readings >= MIN_READINGS and crop.anchor else replace(crop, depth=None)


def _as_measured(
    inside: np.ndarray, sighting: Sighting, crop: Crop, cube: Cube,
) -> np.ndarray:
    """
    Correct a solid by what the depth image shows.

    A distance to the measured surface takes the place of the network's down to half the
    thickness of a wall behind it, so the surface is where it was measured; from there on the
    deeper of the two holds. (Curless, Levoy: A volumetric method for building complex models
    from range images, SIGGRAPH 1996, with the network's answer as the prior.)

    :param inside: (R, R, R) cells, [x, y, z]
    """
    cell = cube.side / len(inside)
    view = View(sighting, _WALL * cell)
    optical = cube.centers(len(inside)).transpose(2, 1, 0, 3).reshape(-1, 3) @ crop.view.rotation.T
    points = view.to_object(optical)
    *metres, measured = view.depths(points)
    behind, beside, along = (each / cell for each in metres)
    guessed = inside.ravel()
    wall = np.minimum(behind, _WALL - along)
    corrected = np.maximum(np.minimum(guessed, behind), wall)
    result = measured * corrected + (1.0 - measured) * guessed
    result = np.minimum(result, beside)
    return np.clip(result, -_REACH, _REACH).reshape(inside.shape)


def _anchor(inside: np.ndarray, sighting: Sighting, crop: Crop) -> float:
    """Return the anchor in metres that puts a solid's middle as deep as its standing placement."""
    placement = sighting.placement
    rotation, ray = placement.rotation, crop.view.rotation[:, 2]
    bottom = placement.position @ rotation[:, 2] - placement.size[2] / 2.0
    points = crop.view.cube(1.0).centers(len(inside)).transpose(2, 1, 0, 3)[inside > 0]
    points = points @ crop.view.rotation.T @ rotation
    middle = rotation @ (points.min(axis=0) + points.max(axis=0)) / 2.0
    return float(placement.position @ ray / (middle @ ray)
                 * _stretch_to_support(bottom, placement))


def _above_support(
    inside: np.ndarray, sighting: Sighting, crop: Crop, cube: Cube,
) -> np.ndarray:
    """
    Cut off what lies below the support.

    Networks are trained on all cells that a solid reaches into, and blur what is hidden: so what
    they see goes on below what it stands on. Where next to nothing is above it, the placement or
    the support is wrong, and nothing is cut.

    :param inside: (R, R, R) cells, [x, y, z]
    """
    support = sighting.placement.support
    if support is None:
        return inside
    points = cube.centers(len(inside)).transpose(2, 1, 0, 3) @ crop.view.rotation.T
    height = support.height(points) * (len(inside) / cube.side)
    cut = np.minimum(inside, np.clip(height, -_REACH, _REACH))
    least = 0.0 if crop.anchor is not None else _LEAST_LEFT * np.count_nonzero(inside > 0)
    return cut if np.count_nonzero(cut > 0) > least else inside


def _stretch_to_support(lowest: float, placement: Placement) -> float:
    """
    Return the scale about the camera, which nothing in the picture tells, that lets a thing stand.

    :param lowest: metres along the placement's z axis, of its lowest point
    :return: 1 without support, or where the placement contradicts it
    """
    if placement.support is None or lowest >= 0.0:
        return 1.0
    scale = placement.support.offset / -lowest
    return scale if abs(np.log(scale)) < 3.0 * placement.relative_std + 0.1 else 1.0


def _closed(inside: np.ndarray) -> np.ndarray:
    """Fill what nobody can see into, and end the solid at the faces of the cube: (R + 2)^3."""
    hollow = ndimage.binary_fill_holes(inside > 0) & (inside <= 0)
    padded = np.pad(np.where(hollow, _REACH, inside), 1, mode='edge')
    core = padded[1:-1, 1:-1, 1:-1].copy()
    padded = -np.abs(padded)
    padded[1:-1, 1:-1, 1:-1] = core
    return padded


def _colors(sighting: Sighting, model: ObjectModel) -> np.ndarray:
    """Colour vertices from the picture; those that the mesh itself hides as the nearest seen."""
    optical = model.points.astype(np.float32)
    colors, shown = picture_colors(sighting.frame, colored_pixels(sighting), optical)
    rays = np.concatenate([np.zeros_like(optical), optical], axis=1)
    scene = raycasting_scene(optical, model.faces)
    shown &= scene.cast_rays(rays)['t_hit'].numpy() > 1.0 - 1e-3
    return spread_colors(model.vertices, colors, shown)


BACKEND = VoxelReconstructor
