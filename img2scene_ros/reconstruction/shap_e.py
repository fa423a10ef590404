# SPDX-License-Identifier: Apache-2.0
"""
Shap-E: a closed, coloured mesh from one picture of an object, by diffusion.

    cut-out on white -> diffusers' ShapEImg2ImgPipeline -> mesh, z up -> turned and placed

The network is shown a picture but answers in its own upright frame, turned at will about the
vertical; so the turn that fits the mask best is taken. (Jun, Nichol: Shap-E: Generating
conditional 3D implicit functions, 2023.)
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from img2scene_ros import devices
from img2scene_ros.errors import ReconstructionError
from img2scene_ros.hub import checkpoint_folder
from img2scene_ros.hub import first_line
from img2scene_ros.hub import reading
from img2scene_ros.mesh.colors import mix
from img2scene_ros.mesh.colors import srgb
from img2scene_ros.options import Options
from img2scene_ros.options import option
from img2scene_ros.packages import require_packages
from img2scene_ros.reconstruction.cutout import cut_out
from img2scene_ros.reconstruction.cutout import on_plain
from img2scene_ros.reconstruction.generated import Generated
from img2scene_ros.reconstruction.generated import placed_upright
from img2scene_ros.types import ObjectModel
from img2scene_ros.types import Sighting

PICTURE_SIZE = 256  # pixels of the side of what the network is shown
# What a checkpoint consists of; weights are *.bin or *.safetensors.
_FILES = ('model_index.json', '*/*.json', '*/*model.[bs]*')


@dataclass(frozen=True)
class ShapEOptions(Options):
    """Which weights `shap_e` runs, where, and how long it thinks."""

    checkpoint: str = option(
        'openai/shap-e-img2img', 'Weights on the Hugging Face Hub (OWNER/NAME), or a folder that '
        'diffusers has saved', read_only=True)
    revision: str = option('main', 'Branch, tag or commit on the Hub', read_only=True)
    device: str = devices.device_option()
    dtype: str = devices.dtype_option()
    guidance_scale: float = option(
        3.0, 'How closely the network keeps to the picture', low=0.0, high=30.0)
    num_inference_steps: int = option(64, 'Steps of the diffusion', low=1, high=1000)
    seed: int = option(0, 'Where the diffusion starts', low=0, high=2147483647)
    max_triangles: int = option(20000, 'Greatest number of triangles of a mesh', low=200,
                                high=1000000)


class ShapEReconstructor:
    """
    Asks Shap-E what a cut-out shows.

    :raises MissingDependencyError: diffusers, torch or the weights are not on this machine
    :raises InputError: weights that are damaged, or of another network
    :raises OptionError: a device that is not there
    """

    Options = ShapEOptions

    def __init__(self, options: ShapEOptions = ShapEOptions()) -> None:
        require_packages(
            "the reconstructor 'shap_e'", ('diffusers', 'torch', 'transformers'),
            "use 'voxel', whose weights come with the package")
        self._device = devices.torch_device(options.device)
        folder = checkpoint_folder(
            options.checkpoint, options.revision, "the reconstructor 'voxel', whose weights come "
            'with the package', _FILES)
        with reading('pipeline', options.checkpoint):
            from diffusers import ShapEImg2ImgPipeline
            from diffusers.utils import logging

            logging.set_verbosity_error()
            logging.disable_progress_bar()
            self._pipeline = ShapEImg2ImgPipeline.from_pretrained(
                folder, local_files_only=True).to(
                self._device, devices.torch_dtype(options.dtype, self._device))
        self._pipeline.set_progress_bar_config(disable=True)
        self.options = options

    def reconstruct(self, sighting: Sighting) -> ObjectModel:
        """
        Rebuild one object.

        :raises ReconstructionError: too little is seen of it, or the network sees no solid
        """
        crop = cut_out(sighting, 'shap_e', PICTURE_SIZE)
        mesh = self._mesh(np.round(255.0 * on_plain(crop, 1.0)).astype(np.uint8))
        return placed_upright(
            as_generated(mesh).solid(self.options.max_triangles), sighting, 'shap_e', crop.view)

    def _mesh(self, picture: np.ndarray) -> Any:
        """Ask for diffusers' MeshDecoderOutput."""
        import torch
        from PIL import Image

        options = self.options
        try:
            return self._pipeline(
                Image.fromarray(picture), guidance_scale=options.guidance_scale,
                num_inference_steps=options.num_inference_steps, output_type='mesh',
                generator=torch.Generator(self._device).manual_seed(options.seed)).images[0]
        except (RuntimeError, ValueError, ZeroDivisionError) as error:
            # It fails in several ways where its answer has no surface at all.
            raise ReconstructionError(
                "the network of the reconstructor 'shap_e' gives no mesh "
                f'({type(error).__name__}: {first_line(error)}); choose another view or seed, or '
                "set 'device' to cpu if the memory is full") from error


def as_generated(mesh: Any) -> Generated:
    """
    Take over diffusers' mesh: z up, colours of its vertices in linear light.

    :param mesh: with verts (V, 3), faces (F, 3), and vertex_channels R, G, B (V,), tensors
    """
    vertices = mesh.verts.float().cpu().numpy().astype(float)
    faces = mesh.faces.cpu().numpy().astype(np.int64)
    light = np.stack([mesh.vertex_channels[name].float().cpu().numpy() for name in 'RGB'], axis=1)
    # From z up to glTF's y up.
    return Generated(
        vertices[:, [0, 2, 1]] * (1, 1, -1), faces,
        lambda face, weights: srgb(mix(light[faces[face]], weights)))


BACKEND = ShapEReconstructor
