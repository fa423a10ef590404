# SPDX-License-Identifier: Apache-2.0
"""
Detection with any object detector or instance segmenter of Hugging Face's transformers.

The default checkpoint is RF-DETR-Seg: of the real-time detectors it is the family that finds boxes
and masks in one pass, and reconstruction lives on masks. It needs neither timm nor torchvision.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from typing import NamedTuple

import cv2
import numpy as np

from img2scene_ros.detection import bbox_of
from img2scene_ros.detection import check_labels
from img2scene_ros.detection import shortened
from img2scene_ros.detection import without_overlap
from img2scene_ros.devices import autocast
from img2scene_ros.devices import device_option
from img2scene_ros.devices import dtype_option
from img2scene_ros.devices import torch_device
from img2scene_ros.devices import torch_dtype
from img2scene_ros.errors import InputError
from img2scene_ros.hub import checkpoint_folder
from img2scene_ros.hub import first_line
from img2scene_ros.hub import processor_values
from img2scene_ros.hub import quiet_libraries
from img2scene_ros.hub import reading
from img2scene_ros.options import Options
from img2scene_ros.options import option
from img2scene_ros.packages import TRANSFORMERS
from img2scene_ros.packages import require_packages
from img2scene_ros.types import Detection
from img2scene_ros.types import Frame
from img2scene_ros.weights import bundled

_LOGGER = logging.getLogger(__name__)
BUNDLED = 'bundled'  # names the weights that come with the package
# What counts for checkpoints that recommend nothing themselves.
_SCORE_THRESHOLD, _NMS_IOU = 0.5, 1.0


@dataclass(frozen=True)
class DetrOptions(Options):
    """Which checkpoint `detr` runs, where, and what of its detections is kept."""

    checkpoint: str = option(
        'Roboflow/rf-detr-seg-small', "Model on the Hugging Face Hub (OWNER/NAME), a folder, or "
        "'bundled', the small model that comes with the package. Downloaded once; where it cannot "
        "be, the detector 'auto' takes the bundled one", read_only=True)
    revision: str = option(
        'main', "Branch, tag or commit on the Hub; DETR-R50 without timm is 'no_timm'",
        read_only=True)
    device: str = device_option()
    dtype: str = dtype_option()
    score_threshold: float = option(
        -1.0, 'Least score of a detection; below 0 is what the checkpoint recommends (in its '
        'config.json: "img2scene": {"score_threshold": 0.3, "nms_iou": 0.6}), else 0.5',
        low=-1.0, high=1.0)
    labels: tuple[str, ...] = option((), 'Class names to keep; empty keeps all')
    max_detections: int = option(50, 'Greatest number of objects, best first', low=1, high=500)
    nms_iou: float = option(
        -1.0, 'Of two boxes that overlap by more than this IoU only the better one is kept, '
        'whatever their labels: one place holds one object; 1 keeps all, below 0 is what the '
        'checkpoint recommends, else 1', low=-1.0, high=1.0)


class DetrDetector:
    """
    Finds objects with a transformers model; ignores depth and the support plane.

    :raises MissingDependencyError: a package or the checkpoint is not on this machine
    :raises InputError: the checkpoint is damaged, or no detector
    :raises OptionError: a device or a label that is not there
    """

    Options = DetrOptions

    def __init__(self, options: DetrOptions = DetrOptions()) -> None:
        require_detr_packages()
        self._device = torch_device(options.device)
        self._dtype = torch_dtype(options.dtype, self._device)
        quiet_libraries()
        folder = bundled('detector') if options.checkpoint == BUNDLED else checkpoint_folder(
            options.checkpoint, options.revision,
            f"'{BUNDLED}', or the detector 'tabletop', which needs no weights")
        config = _load_config(folder, options.checkpoint)
        has_masks = _is_segmenter(config, options.checkpoint)
        self._processor = _load_processor(folder, config, has_masks, options.checkpoint)
        self._model = _load_model(folder, config, has_masks, options.checkpoint).to(self._device)
        self._names = config.id2label
        self._recommended = _recommended(config, options.checkpoint)
        self.options = options

    @property
    def options(self) -> DetrOptions:
        """Return the options in use; a filter for unknown labels is refused when it is set."""
        return self._options

    @options.setter
    def options(self, options: DetrOptions) -> None:
        check_labels(
            options.labels, self._names.values(), f"the checkpoint '{options.checkpoint}'")
        self._options = options

    def detect(self, frame: Frame) -> list[Detection]:
        """
        Find the objects in a frame, best first.

        :raises InputError: the model cannot take the picture, for its size or lack of memory
        """
        options = self.options
        inputs = self._processor.prepare(frame.color)
        try:
            outputs = self._infer(inputs)
        except RuntimeError as error:
            height, width = inputs['pixel_values'].shape[2:]
            raise InputError(
                f"the model of the checkpoint '{options.checkpoint}' failed on a picture scaled "
                f'to {width}x{height} ({first_line(error)}); check the size in its '
                "preprocessor_config.json and the GPU's free memory") from error
        found = self._processor.decode(outputs, self._value('score_threshold'), frame.shape)
        return self._detections(found, options, frame.shape)

    def _value(self, name: str) -> float:
        chosen = getattr(self.options, name)
        return self._recommended[name] if chosen < 0 else chosen

    def _infer(self, inputs: Any) -> Any:
        import torch

        # Autocast keeps in float32 what would suffer, above all the arithmetic on boxes.
        with torch.inference_mode(), autocast(self._device, self._dtype):
            outputs = self._model(**inputs.to(self._device))
        for name, value in outputs.items():
            if torch.is_tensor(value) and value.is_floating_point():
                outputs[name] = value.float()
        return outputs

    def _detections(
        self, found: '_Candidates', options: DetrOptions, shape: tuple[int, int],
    ) -> list[Detection]:
        height, width = shape
        names = np.array(
            [self._names.get(int(index), f'class {index}') for index in found.classes], str)
        boxes = np.clip(found.boxes.astype(float), 0, (width, height, width, height))
        # Under a pixel there is nothing to see; NaN fails the comparison too.
        keep = (boxes[:, 2:] - boxes[:, :2] >= 1).all(axis=1)
        if options.labels:
            keep &= np.isin(names, options.labels)
        order = np.argsort(-found.scores, kind='stable')
        order = without_overlap(order[keep[order]], boxes, found.scores, self._value('nms_iou'))
        detections = []
        for index in order[:options.max_detections]:
            mask = (_mask_in_box(found.masks[index], boxes[index], shape)
                    if found.masks else None)
            detections.append(
                Detection(str(names[index]), float(found.scores[index]), boxes[index], mask))
        return detections


class _Candidates(NamedTuple):
    """
    What a model found in one picture.

    - scores: (N,)
    - classes: (N,) int
    - boxes: (N, 4) xmin, ymin, xmax, ymax in pixels, perhaps beyond the picture
    - masks: N arrays of any size that cover the picture, positive inside; empty = no masks
    """

    scores: np.ndarray
    classes: np.ndarray
    boxes: np.ndarray
    masks: list[np.ndarray]


class _BoxProcessor:
    """Prepares pictures and decodes boxes the way transformers does for the model's family."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoImageProcessor

        # Pillow prepares the picture even where torchvision is installed: same results everywhere.
        self._processor = AutoImageProcessor.from_pretrained(
            folder, local_files_only=True, backend='pil')

    def prepare(self, color: np.ndarray) -> Any:
        return self._processor(
            images=color, return_tensors='pt', input_data_format='channels_last')

    def decode(self, outputs: Any, threshold: float, shape: tuple[int, int]) -> _Candidates:
        found = self._processor.post_process_object_detection(
            outputs, threshold, target_sizes=[shape])[0]
        scores, classes, boxes = (
            found[name].cpu().numpy() for name in ('scores', 'labels', 'boxes'))
        return _Candidates(scores, classes, boxes, masks=[])


class _MaskProcessor(_BoxProcessor):
    """The same for segmenters that find masks only; their boxes are the masks' boxes."""

    def decode(self, outputs: Any, threshold: float, shape: tuple[int, int]) -> _Candidates:
        found = self._processor.post_process_instance_segmentation(
            outputs, threshold, target_sizes=[shape], return_binary_maps=True)[0]
        segments = found['segments_info']
        masks = [mask > 0 for mask in found['segmentation'].cpu().numpy()] if segments else []
        return _Candidates(
            np.array([segment['score'] for segment in segments]),
            np.array([segment['label_id'] for segment in segments], int),
            np.array([bbox_of(mask) for mask in masks]).reshape(-1, 4),
            [mask - np.float32(0.5) for mask in masks])


class _RfDetrProcessor:
    """
    The same for RF-DETR, whose processor in transformers needs torchvision.

    It also keeps boxes and masks together. Computes what transformers' RfDetrImageProcessor does.
    """

    def __init__(self, folder: Path) -> None:
        values = processor_values(folder)
        self._size = values['size']['height'], values['size']['width']
        self._mean = values['image_mean']
        self._std = values['image_std']

    def prepare(self, color: np.ndarray) -> Any:
        import torch
        from transformers import BatchFeature

        picture = torch.from_numpy(np.ascontiguousarray(color, np.float32))
        picture = picture.permute(2, 0, 1)[None] / 255.0
        picture = torch.nn.functional.interpolate(
            picture, self._size, mode='bilinear', align_corners=False, antialias=False)
        mean, std = (torch.tensor(value)[:, None, None] for value in (self._mean, self._std))
        return BatchFeature({'pixel_values': (picture - mean) / std})

    def decode(self, outputs: Any, threshold: float, shape: tuple[int, int]) -> _Candidates:
        scores = outputs.logits[0].sigmoid().cpu().numpy()
        best = np.argsort(-scores, axis=None, kind='stable')[:len(scores)]
        best = best[scores.ravel()[best] > threshold]
        queries, classes = np.unravel_index(best, scores.shape)
        center, size = np.split(outputs.pred_boxes[0].cpu().numpy()[queries], 2, axis=1)
        boxes = np.hstack([center - size / 2, center + size / 2]) * (shape[::-1] * 2)
        masks = outputs.get('pred_masks')
        return _Candidates(
            scores[queries, classes], classes, boxes,
            [] if masks is None else list(masks[0].cpu().numpy()[queries]))


def _mask_in_box(mask: np.ndarray, box: np.ndarray, shape: tuple[int, int]) -> np.ndarray | None:
    """Scale a mask to the picture and drop what lies outside of the box; None if all does."""
    inside = cv2.resize(mask, shape[::-1], interpolation=cv2.INTER_LINEAR) > 0
    left, top = np.floor(box[:2]).astype(int)
    right, bottom = np.ceil(box[2:]).astype(int)
    cut = np.zeros(shape, bool)
    cut[top:bottom, left:right] = inside[top:bottom, left:right]
    return cut if cut.any() else None


def require_detr_packages() -> None:
    """
    Make sure that the packages that every checkpoint needs are there, without importing them.

    :raises MissingDependencyError: some are not
    """
    require_packages("the detector 'detr'", TRANSFORMERS,
                     "use the detector 'tabletop', which needs none of them")


def _load_config(folder: Path, checkpoint: str) -> Any:
    from transformers import AutoConfig

    if not (folder / 'config.json').is_file():
        raise InputError(
            f"the folder '{checkpoint}' holds no config.json; give a folder that "
            "transformers' save_pretrained wrote")
    with reading('config.json', checkpoint):
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    backbone = getattr(config, 'backbone_config', None)
    if getattr(backbone, 'model_type', '') == 'timm_backbone':
        require_packages(f"the checkpoint '{checkpoint}'", ('timm',),
                         "set 'revision' to 'no_timm' (facebook/detr-* have it)")
    return config


def _recommended(config: Any, checkpoint: str) -> dict[str, float]:
    """
    Return the values that suit a checkpoint's scores, from the entry `img2scene` of config.json.

    A small model is less sure of itself and repeats itself more than those of the Hub.
    """
    values = {'score_threshold': _SCORE_THRESHOLD, 'nms_iou': _NMS_IOU}
    stated = getattr(config, 'img2scene', None) or {}
    with reading("entry 'img2scene' in config.json", checkpoint):
        return {name: float(stated.get(name, usual)) for name, usual in values.items()}


def _is_segmenter(config: Any, checkpoint: str) -> bool:
    """
    Tell instance segmenters from object detectors, by the class that saved the checkpoint.

    :raises InputError: the checkpoint is neither
    """
    from transformers.models.auto import modeling_auto

    detectors = modeling_auto.MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES
    segmenters = modeling_auto.MODEL_FOR_INSTANCE_SEGMENTATION_MAPPING_NAMES
    usual = detectors.get(config.model_type, segmenters.get(config.model_type))
    architecture = config.architectures[0] if config.architectures else usual
    if architecture in segmenters.values():
        return True
    if architecture in detectors.values():
        return False
    raise InputError(
        f"the checkpoint '{checkpoint}' is a {architecture or config.model_type}, which is "
        'neither an object detector nor an instance segmenter of transformers; choose another, '
        f"for example '{DetrOptions().checkpoint}'")


def _load_processor(folder: Path, config: Any, has_masks: bool, checkpoint: str) -> Any:
    if not any(folder.glob('*processor_config.json')):
        raise InputError(
            f"the checkpoint '{checkpoint}' holds no preprocessor_config.json; copy that of the "
            'model it was trained from')
    with reading('preprocessor_config.json', checkpoint):
        if config.model_type == 'rf_detr':
            return _RfDetrProcessor(folder)
        return _MaskProcessor(folder) if has_masks else _BoxProcessor(folder)


def _load_model(folder: Path, config: Any, has_masks: bool, checkpoint: str) -> Any:
    import torch
    from transformers import AutoModelForInstanceSegmentation
    from transformers import AutoModelForObjectDetection

    family = AutoModelForInstanceSegmentation if has_masks else AutoModelForObjectDetection
    with reading('weights', checkpoint):
        model, loading = family.from_pretrained(
            folder, config=config, dtype=torch.float32, local_files_only=True,
            output_loading_info=True)
    if loading['missing_keys']:
        _LOGGER.warning(
            "the checkpoint '%s' lacks %d of the model's weights (%s): expect nonsense",
            checkpoint, len(loading['missing_keys']), shortened(sorted(loading['missing_keys'])))
    return model.eval()


BACKEND = DetrDetector
