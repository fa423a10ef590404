# SPDX-License-Identifier: Apache-2.0
"""
TripoSR: a closed, coloured mesh from one picture of an object.

    cut-out on grey -> network -> triplane -> density near its surface -> closed mesh, colours
    -> sized, moved and turned a little until it fits mask, depth and support (`placing.py`)

The network completes what no one saw, in shape and colour; it needs no depth. Its mesh has no
metric size: the place where it fits sets it. `models/triposr_network.py` is the network,
`mesh/isosurface.py` finds its surface without asking for every point of the grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from img2scene_ros import devices
from img2scene_ros.errors import Img2SceneError
from img2scene_ros.errors import ReconstructionError
from img2scene_ros.errors import attempt
from img2scene_ros.files import user_path
from img2scene_ros.hub import checkpoint_folder
from img2scene_ros.hub import first_line
from img2scene_ros.mesh.closing import MIN_PART
from img2scene_ros.mesh.closing import closed_mesh
from img2scene_ros.mesh.closing import main_parts
from img2scene_ros.models.crop import Crop
from img2scene_ros.options import Options
from img2scene_ros.options import option
from img2scene_ros.packages import require_packages
from img2scene_ros.reconstruction import BatchReconstructor
from img2scene_ros.reconstruction.cutout import cut_out
from img2scene_ros.reconstruction.cutout import on_plain
from img2scene_ros.reconstruction.placing import placed
from img2scene_ros.types import ObjectModel
from img2scene_ros.types import Sighting

if TYPE_CHECKING:
    from torch import Tensor

# The network's axes are x towards the camera, y right, z up; the view's x right, y down, z away.
_TO_VIEW = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, -1.0], [-1.0, 0.0, 0.0]])


@dataclass(frozen=True)
class TriposrOptions(Options):
    """Which weights `triposr` runs, where, and how finely it rebuilds."""

    checkpoint: str = option(
        'stabilityai/TripoSR', 'Weights on the Hugging Face Hub (OWNER/NAME), a folder with '
        'model.ckpt or model.safetensors, or such a file', read_only=True)
    revision: str = option('main', 'Branch, tag or commit on the Hub', read_only=True)
    device: str = devices.device_option()
    dtype: str = devices.dtype_option('the transformers')
    resolution: int = option(
        256, 'Points of the density along a side of the cube around an object', low=32, high=512)
    threshold: float = option(25.0, 'Density at the surface', low=0.1, high=1000.0)
    foreground: float = option(
        0.85, "Share of the picture's side that the object takes up", low=0.3, high=1.0)
    max_triangles: int = option(20000, 'Greatest number of triangles of a mesh', low=200,
                                high=1000000)
    max_batch: int = option(4, 'Most objects that the network sees in one pass', low=1,
                            high=64)
    points_per_chunk: int = option(
        32768, 'Points whose density is asked for at once; 1.5 MB per 1,000', low=1024,
        high=16777216)


class TriposrReconstructor(BatchReconstructor):
    """
    Asks TripoSR what a cut-out shows.

    :raises MissingDependencyError: torch or the weights are not on this machine
    :raises InputError: weights that are damaged, or of another network
    :raises OptionError: a device that is not there
    """

    Options = TriposrOptions

    def __init__(self, options: TriposrOptions = TriposrOptions()) -> None:
        require_packages("the reconstructor 'triposr'", ('torch', 'safetensors'),
                         "use 'depth_shell' with a depth camera")
        from torch import nn

        from img2scene_ros.models.triposr_network import load_triposr

        self._device = devices.torch_device(options.device)
        self._dtype = devices.torch_dtype(options.dtype, self._device)
        self._network = load_triposr(_checkpoint(options)).float()
        # Normalisations, shortcuts and the density stay in float32.
        for part in (self._network.image_tokenizer, self._network.backbone):
            for layer in part.modules():
                if isinstance(layer, nn.Linear):
                    layer.to(self._dtype)
        self._network.to(self._device)
        self.options = options

    def reconstruct_batch(
        self, sightings: Sequence[Sighting],
    ) -> list[ObjectModel | Img2SceneError]:
        """Rebuild several objects in one pass; one that cannot be rebuilt gives its error."""
        from img2scene_ros.models.triposr_network import PICTURE_SIZE

        crops = [attempt(cut_out, sighting, 'triposr', PICTURE_SIZE, self.options.foreground)
                 for sighting in sightings]
        good = [crop for crop in crops if isinstance(crop, Crop)]
        planes = iter(self._planes(good) if good else ())
        return [
            attempt(self._model, sighting, crop, next(planes)) if isinstance(crop, Crop) else crop
            for sighting, crop in zip(sightings, crops)]

    def _planes(self, crops: Sequence[Crop]) -> 'Tensor':
        """Encode crops: (N, 3, F, P, P) float32."""
        import torch

        pictures = torch.from_numpy(
            np.stack([on_plain(crop, 0.5).transpose(2, 0, 1) for crop in crops]))
        try:
            with torch.inference_mode(), devices.autocast(self._device, self._dtype):
                return self._network.encode(pictures.to(self._device)).float()
        except RuntimeError as error:
            raise ReconstructionError(
                f"the network of the reconstructor 'triposr' failed on {len(crops)} crops "
                f"({first_line(error)}); set 'max_batch' lower, or 'device' to cpu") from error

    def _model(self, sighting: Sighting, crop: Crop, planes: 'Tensor') -> ObjectModel:
        from img2scene_ros.models.triposr_network import RADIUS

        cell = 2.0 * RADIUS / (self.options.resolution - 1)
        solid, first = _trimmed(self._solid(planes))
        vertices, faces = closed_mesh(
            solid, cell, first * cell - RADIUS, self.options.max_triangles)
        return placed(
            vertices @ _TO_VIEW.T, faces, self._colors(planes, vertices), sighting, 'triposr',
            crop.view)

    def _solid(self, planes: 'Tensor') -> np.ndarray:
        """
        Return how far the density's logarithm lies above the surface's: (R, R, R), [x, y, z].

        :raises ReconstructionError: the density has no surface, or is not a number
        """
        import torch

        from img2scene_ros.mesh.isosurface import sample_near_surface
        from img2scene_ros.models.triposr_network import RADIUS

        options = self.options
        surface = float(np.log(options.threshold))

        def above(points: 'Tensor') -> 'Tensor':
            return torch.cat([
                self._network.query(planes, part)[0]
                for part in points.split(options.points_per_chunk)]) - surface

        with torch.inference_mode():
            solid = sample_near_surface(
                above, options.resolution, RADIUS, self._device).cpu().numpy()
        if not (solid > 0).any():
            raise ReconstructionError(
                'the network sees no solid here; choose a view that shows the object whole, or '
                "lower 'threshold'")
        if (solid > 0).all():
            raise ReconstructionError(
                'the network takes all the space around the object for solid; check its weights')
        return solid

    def _colors(self, planes: 'Tensor', vertices: np.ndarray) -> np.ndarray:
        """Ask for the colours of vertices: (V, 3) uint8."""
        import torch

        points = torch.from_numpy(vertices).float().to(self._device)
        with torch.inference_mode():
            colors = torch.cat([
                self._network.query(planes, part)[1]
                for part in points.split(self.options.points_per_chunk)])
        return (255.0 * colors).round().byte().cpu().numpy()


def _checkpoint(options: TriposrOptions) -> Path:
    """Return the file or folder that holds the weights."""
    path = user_path(options.checkpoint)
    if path.is_file():
        return path
    return checkpoint_folder(
        options.checkpoint, options.revision, "the reconstructor 'voxel', whose weights come "
        'with the package', ('model.ckpt',))


def _trimmed(solid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    Cut a solid out of its grid, without specks and without hollows that nobody can see into.

    :param solid: (R, R, R), positive inside
    :return: (X, Y, Z), negative all around; and (3,) the index of its first cell in the grid
    """
    solid = np.pad(solid, 1, constant_values=-1.0)
    window, = ndimage.find_objects((solid > 0).view(np.uint8))
    solid = solid[tuple(slice(side.start - 1, side.stop + 1) for side in window)]
    solid = main_parts(solid, 1.0, MIN_PART)
    hollow = ndimage.binary_fill_holes(solid > 0) & (solid <= 0)
    return np.where(hollow, 1.0, solid), np.array([side.start - 2 for side in window])


BACKEND = TriposrReconstructor
