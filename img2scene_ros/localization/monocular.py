# SPDX-License-Identifier: Apache-2.0
"""Places objects by a network that guesses metric depth from the picture alone."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from img2scene_ros import devices
from img2scene_ros import hub
from img2scene_ros.errors import InputError
from img2scene_ros.localization import OPTICAL_UP
from img2scene_ros.localization import object_axes
from img2scene_ros.localization import position_std
from img2scene_ros.options import Options
from img2scene_ros.options import option
from img2scene_ros.packages import TRANSFORMERS
from img2scene_ros.packages import missing_packages
from img2scene_ros.packages import require_packages
from img2scene_ros.types import Detection
from img2scene_ros.types import Frame
from img2scene_ros.types import Placement
from img2scene_ros.types import SupportPlane

# Families of transformers that answer in metres; Depth Anything does in its metric checkpoints.
_METRIC = ('depth_pro', 'glpn', 'zoedepth')
_INNER = 0.5  # share of each side of a box in which depth is read where there is no mask
# How far an object's middle lies behind the median of what is seen of it, in the lesser of its
# width and height: 0.43 for an upright cylinder, 0.5 for a cube seen head-on, less from above.
_BEHIND, _BEHIND_STD = 0.4, 0.15


@dataclass(frozen=True)
class MonocularOptions(Options):
    """Which network guesses depth, and how much it is trusted."""

    checkpoint: str = option(
        'depth-anything/Depth-Anything-V2-Metric-Indoor-Small-hf',
        "Metric depth model on the Hugging Face Hub (OWNER/NAME), or a folder; distance 'auto' "
        'never downloads the default one', read_only=True)
    revision: str = option('main', 'Branch, tag or commit on the Hub', read_only=True)
    device: str = devices.device_option()
    dtype: str = devices.dtype_option()
    relative_std: float = option(
        0.2, 'Standard deviation of its distances, as a share of them', low=0.01, high=1.0)


def is_at_hand(options: MonocularOptions) -> bool:
    """Tell whether the model is configured, or already on this machine with what it needs."""
    if options.checkpoint != MonocularOptions().checkpoint:
        return True
    if missing_packages(TRANSFORMERS):
        return False
    return hub.cached_checkpoint(options.checkpoint, options.revision) is not None


class MonocularDistance:
    """
    Reads an object's distance from a depth map that a network makes of the picture.

    :raises MissingDependencyError: a package or the checkpoint is not on this machine
    :raises InputError: the checkpoint is damaged, or its depth has no metres
    :raises OptionError: a device that is not there
    """

    Options = MonocularOptions

    def __init__(self, options: MonocularOptions = MonocularOptions()) -> None:
        require_packages("the source of distances 'monocular'", TRANSFORMERS,
                         'choose another distance')
        self.options = options
        self._device = devices.torch_device(options.device)
        self._dtype = devices.torch_dtype(options.dtype, self._device)
        hub.quiet_libraries()
        folder = hub.checkpoint_folder(
            options.checkpoint, options.revision, "another source of distances, as 'size_prior'")
        self._processor, self._model = _load(folder, options.checkpoint)
        self._model.to(self._device)
        self._latest: tuple[Frame, np.ndarray] | None = None

    def place(
        self, frame: Frame, detection: Detection, support: SupportPlane | None,
    ) -> Placement | None:
        """
        Place a detection behind the median depth in its mask, or in the inner part of its box.

        :return: None where the map has no depth, and off the lens's view
        :raises InputError: the model cannot take the picture
        """
        ray = frame.camera.rays_at(detection.center)
        depth = self._depth(frame)[_region(detection, frame.shape)]
        depth = depth[np.isfinite(depth) & (depth > 0)]
        if not len(depth) or not np.isfinite(ray).all():
            return None
        surface = float(np.median(depth))
        sides = (detection.bbox[2:] - detection.bbox[:2]) * surface / (
            frame.camera.fx, frame.camera.fy)
        least = float(sides.min())
        z = surface + _BEHIND * least
        position = ray * z
        up = OPTICAL_UP if support is None else support.normal
        width, height = sides * z / surface
        along = np.hypot(
            self.options.relative_std * np.linalg.norm(position), _BEHIND_STD * least)
        return Placement(
            position, object_axes(position, up), np.array([width, width, height]),
            position_std(ray, along, z / frame.camera.fx), 'monocular')

    def _depth(self, frame: Frame) -> np.ndarray:
        """Return the depth map of a frame, (H, W) metres; all its objects share one pass."""
        if self._latest is None or self._latest[0] is not frame:
            self._latest = frame, self._estimated(frame)
        return self._latest[1]

    def _estimated(self, frame: Frame) -> np.ndarray:
        import torch

        inputs = self._processor(
            images=frame.color, return_tensors='pt', input_data_format='channels_last')
        try:
            with torch.inference_mode(), devices.autocast(self._device, self._dtype):
                outputs = self._model(**inputs.to(self._device))
        except RuntimeError as error:
            raise InputError(
                f"the model of the checkpoint '{self.options.checkpoint}' failed on a picture of "
                f'{frame.shape[1]}x{frame.shape[0]} ({hub.first_line(error)}); check the size in '
                "its preprocessor_config.json and the GPU's free memory") from error
        depth = outputs.predicted_depth.float()
        depth = torch.nn.functional.interpolate(
            depth[:, None], frame.shape, mode='bilinear', align_corners=False)
        return depth[0, 0].cpu().numpy()


def _region(detection: Detection, shape: tuple[int, int]) -> np.ndarray:
    if detection.mask is not None:
        return detection.mask
    margin = (detection.bbox[2:] - detection.bbox[:2]) * (1.0 - _INNER) / 2.0
    left, top = np.floor(detection.bbox[:2] + margin).astype(int)
    right, bottom = np.ceil(detection.bbox[2:] - margin).astype(int)
    region = np.zeros(shape, bool)
    region[max(top, 0):bottom, max(left, 0):right] = True
    return region


def _load(folder: Path, checkpoint: str) -> tuple[Any, Any]:
    import torch
    from transformers import AutoConfig
    from transformers import AutoImageProcessor
    from transformers import AutoModelForDepthEstimation

    for name in ('config.json', 'preprocessor_config.json'):
        if not (folder / name).is_file():
            raise InputError(
                f"the checkpoint '{checkpoint}' holds no {name}; give a folder that "
                "transformers' save_pretrained wrote")
    with hub.reading('config.json', checkpoint):
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    metric = getattr(config, 'depth_estimation_type', '') == 'metric'
    if not (metric or config.model_type in _METRIC):
        raise InputError(
            f"the checkpoint '{checkpoint}' ({config.model_type}) gives no metric depth; choose "
            f"one that does, for example '{MonocularOptions().checkpoint}'")
    with hub.reading('preprocessor_config.json', checkpoint):
        processor = AutoImageProcessor.from_pretrained(
            folder, local_files_only=True, backend='pil')
    with hub.reading('weights', checkpoint):
        model = AutoModelForDepthEstimation.from_pretrained(
            folder, config=config, dtype=torch.float32, local_files_only=True)
    return processor, model.eval()


BACKEND = MonocularDistance
