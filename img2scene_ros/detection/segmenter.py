# SPDX-License-Identifier: Apache-2.0
"""
Segmentation of objects in their boxes with a network of Hugging Face's transformers.

SAM 2 is given the boxes. MaskFormer and Mask2Former are given none: the segment that fits the box
best counts. SegFormer, too: the pixels count whose class has the detection's name. These look at
the picture once for all boxes; CLIPSeg is given the detection's name and sees each box with its
surroundings.
"""

from collections.abc import Callable
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from img2scene_ros.detection import bbox_of
from img2scene_ros.detection import box_iou
from img2scene_ros.detection import mask_iou
from img2scene_ros.detection.masks import recut
from img2scene_ros.devices import torch_device
from img2scene_ros.errors import Img2SceneError
from img2scene_ros.errors import InputError
from img2scene_ros.errors import attempt
from img2scene_ros.hub import checkpoint_folder
from img2scene_ros.hub import first_line
from img2scene_ros.hub import processor_values
from img2scene_ros.hub import quiet_libraries
from img2scene_ros.hub import reading
from img2scene_ros.packages import TRANSFORMERS
from img2scene_ros.packages import require_packages
from img2scene_ros.types import UNNAMED
from img2scene_ros.types import Detection
from img2scene_ros.types import Frame

_TOKENIZER_FILES = ('tokenizer*.json', 'vocab.json', 'merges.txt', 'special_tokens_map.json')
_ALTERNATIVE = "'none': then masks come from depth or colour"
# Set by hand.
_SURROUNDINGS = 0.25  # of a box that CLIPSeg is shown, in its sides
_LEAST_OVERLAP = 0.4  # IoU of a segment's box and the detection's
_COARSE = 3.0  # picture pixels per cell of an answer from which its edges are sharpened
_LEAST_SHARED = 0.75  # IoU before and after; colour that moves an edge further does not show it


class Segmenter:
    """
    Segments detections in their boxes.

    :param checkpoint: a folder, or OWNER/NAME on the Hub
    :param revision: branch, tag or commit on the Hub
    :param device: as `torch_device`
    :raises MissingDependencyError: a package or the checkpoint is not on this machine
    :raises InputError: the checkpoint is damaged, or no segmenter of these families
    :raises OptionError: a device that is not there
    """

    def __init__(self, checkpoint: str, revision: str = 'main', device: str = 'auto') -> None:
        require_packages("the option 'segmenter'", TRANSFORMERS, f'set it to {_ALTERNATIVE}')
        quiet_libraries()
        self.checkpoint = checkpoint
        folder = checkpoint_folder(checkpoint, revision, _ALTERNATIVE, optional=_TOKENIZER_FILES)
        self._family = _family_of(folder, checkpoint)(folder, checkpoint, torch_device(device))

    def masks(
        self, frame: Frame, detections: Sequence[Detection],
    ) -> list[np.ndarray | Img2SceneError]:
        """
        Segment the detections of a frame.

        :return: for each a mask (H, W) bool inside its box, or the error that says why not
        """
        if not detections:
            return []
        import torch

        try:
            with torch.inference_mode():
                answers = self._family.answers(frame.color, detections)
        except RuntimeError as error:
            failed = InputError(
                f"the segmenter '{self.checkpoint}' failed ({first_line(error)}); check the size "
                "in its preprocessor_config.json and the GPU's free memory")
            return [failed] * len(detections)
        return [answer if isinstance(answer, Img2SceneError) else
                attempt(self._mask, frame.color, detection, *answer)
                for detection, answer in zip(detections, answers)]

    def _mask(
        self, color: np.ndarray, detection: Detection, answer: np.ndarray,
        window: tuple[int, int, int, int],
    ) -> np.ndarray:
        """
        Scale an answer to the picture, sharpen its edges, and cut it at the box.

        :param answer: (h, w), positive inside, of the part of the picture in the window
        :param window: left, top, right, bottom in pixels
        :raises InputError: nothing is left
        """
        left, top, right, bottom = window
        size = right - left, bottom - top
        whole = np.full(color.shape[:2], -1.0, np.float32)
        whole[top:bottom, left:right] = cv2.resize(
            answer.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
        mask = np.zeros(color.shape[:2], bool)
        mask[detection.window] = whole[detection.window] > 0
        if not mask.any():
            raise InputError(
                f"the segmenter '{self.checkpoint}' sees no '{detection.label}' in its box")
        cell = max(size[0] / answer.shape[1], size[1] / answer.shape[0])
        return sharpened(color, mask, cell) if cell > _COARSE else mask


def sharpened(color: np.ndarray, mask: np.ndarray, cell: float) -> np.ndarray:
    """
    Move the edge of a coarse mask to where the colour changes.

    GrabCut decides about a band around the edge.

    :param color: (H, W, 3) uint8, RGB
    :param mask: (H, W) bool, not empty
    :param cell: pixels by which the edge may be off
    :return: (H, W) bool
    """
    def kinds_of(inside: np.ndarray, scale: float) -> np.ndarray:
        kinds = np.where(inside, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
        for side, certain in ((inside, cv2.GC_FGD), (1 - inside, cv2.GC_BGD)):
            kinds[cv2.distanceTransform(side, cv2.DIST_L2, 5) > cell * scale] = certain
        return kinds

    sharp = recut(color, mask, int(np.ceil(3.0 * cell)) + 2, kinds_of)
    return sharp if mask_iou(sharp, mask) > _LEAST_SHARED else mask


class _BoxPrompted:
    """SAM 2. Prepares pictures itself: transformers' own processor needs torchvision."""

    def __init__(self, folder: Path, checkpoint: str, device: Any) -> None:
        from transformers import Sam2Model

        with reading('preprocessor_config.json', checkpoint):
            values = processor_values(folder)
            self._size = values['size']['width'], values['size']['height']
            self._mean, self._std = (
                np.array(values[name], np.float32) for name in ('image_mean', 'image_std'))
        self._model = _loaded(Sam2Model, folder, checkpoint).to(device)

    def answers(self, color: np.ndarray, detections: Sequence[Detection]) -> list[Any]:
        import torch

        height, width = color.shape[:2]
        picture = cv2.resize(color.astype(np.float32) / 255.0, self._size)
        picture = torch.from_numpy(((picture - self._mean) / self._std).transpose(2, 0, 1))
        scale = np.tile(np.array(self._size) / (width, height), 2)
        boxes = np.stack([detection.bbox for detection in detections]) * scale
        boxes = torch.from_numpy(boxes.astype(np.float32))
        found = self._model(
            pixel_values=picture[None].to(self._model.device),
            input_boxes=boxes[None].to(self._model.device), multimask_output=False)
        logits = found.pred_masks[0, :, 0].float().cpu().numpy()
        return [(answer, (0, 0, width, height)) for answer in logits]


class _WholePicture:
    """
    A model that looks at the whole picture, whatever the boxes.

    - KIND: the class of transformers that loads it
    """

    KIND: str

    def __init__(self, folder: Path, checkpoint: str, device: Any) -> None:
        import transformers

        self._processor = _image_processor(folder, checkpoint)
        self._model = _loaded(getattr(transformers, self.KIND), folder, checkpoint).to(device)
        self._checkpoint = checkpoint

    def _outputs(self, color: np.ndarray) -> Any:
        return self._model(**self._processor(
            images=color, return_tensors='pt', input_data_format='channels_last').to(
                self._model.device))


class _Universal(_WholePicture):
    """MaskFormer, Mask2Former: segments of the whole picture, of which one fits a box."""

    KIND = 'AutoModelForUniversalSegmentation'

    def answers(self, color: np.ndarray, detections: Sequence[Detection]) -> list[Any]:
        height, width = color.shape[:2]
        found = self._outputs(color)
        classes = found.class_queries_logits[0].float().softmax(-1).cpu().numpy()
        segments = found.masks_queries_logits[0].float().cpu().numpy()
        scale = np.array([width, height, width, height]) / np.tile(segments.shape[:0:-1], 2)
        boxes = np.array([
            bbox_of(segment > 0) * scale if (segment > 0).any() else np.zeros(4)
            for segment in segments])
        return [self._best(detection, classes, segments, boxes, (0, 0, width, height))
                for detection in detections]

    def _best(
        self, detection: Detection, classes: np.ndarray, segments: np.ndarray, boxes: np.ndarray,
        window: tuple[int, int, int, int],
    ) -> Any:
        index = _class_of(detection.label, self._model.config.id2label)
        certainty = 1.0 - classes[:, -1] if index is None else classes[:, index]
        overlap = box_iou(detection.bbox[None], boxes)[0]
        best = int(np.argmax(overlap * certainty))
        if overlap[best] < _LEAST_OVERLAP:
            return InputError(
                f"the segmenter '{self._checkpoint}' has no segment that fits the box of "
                f"'{detection.label}'")
        return segments[best], window


class _Semantic(_WholePicture):
    """SegFormer and the like: a class for every pixel of the picture."""

    KIND = 'AutoModelForSemanticSegmentation'

    def answers(self, color: np.ndarray, detections: Sequence[Detection]) -> list[Any]:
        height, width = color.shape[:2]
        found = self._outputs(color)
        logits = found.logits[0].float().cpu().numpy()
        return [self._class_map(detection, logits, (0, 0, width, height))
                for detection in detections]

    def _class_map(
        self, detection: Detection, logits: np.ndarray, window: tuple[int, int, int, int],
    ) -> Any:
        index = _class_of(detection.label, self._model.config.id2label)
        if index is None:
            return InputError(
                f"the segmenter '{self._checkpoint}' knows no class '{detection.label}'; choose "
                'one that was trained on it, or a SAM 2 model, which needs no names')
        others = np.delete(logits, index, axis=0)
        return logits[index] - others.max(axis=0, initial=-np.inf), window


class _NamePrompted:
    """CLIPSeg: looks for what a text names, in a square of its own size."""

    def __init__(self, folder: Path, checkpoint: str, device: Any) -> None:
        from transformers import AutoTokenizer
        from transformers import CLIPSegForImageSegmentation

        self._processor = _image_processor(folder, checkpoint)
        with reading('tokenizer', checkpoint):
            self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self._model = _loaded(CLIPSegForImageSegmentation, folder, checkpoint).to(device)
        self._checkpoint = checkpoint

    def answers(self, color: np.ndarray, detections: Sequence[Detection]) -> list[Any]:
        return [self._answer(color, detection) for detection in detections]

    def _answer(self, color: np.ndarray, detection: Detection) -> Any:
        if detection.label in ('', UNNAMED):
            return InputError(
                f"the segmenter '{self._checkpoint}' needs class names, but the detector "
                'gives none; use a detector with names, or a SAM 2 model')
        height, width = color.shape[:2]
        margin = _SURROUNDINGS * (detection.bbox[2:] - detection.bbox[:2])
        left, top = np.maximum(np.floor(detection.bbox[:2] - margin).astype(int), 0)
        right, bottom = np.minimum(
            np.ceil(detection.bbox[2:] + margin).astype(int), (width, height))
        words = self._tokenizer(
            [f'a photo of a {detection.label}'], return_tensors='pt', truncation=True)
        picture = self._processor(
            images=color[top:bottom, left:right], return_tensors='pt',
            input_data_format='channels_last')
        device = self._model.device
        found = self._model(
            input_ids=words['input_ids'].to(device),
            attention_mask=words['attention_mask'].to(device),
            pixel_values=picture['pixel_values'].to(device))
        logits = found.logits.float().cpu().numpy()
        return logits.reshape(logits.shape[-2:]), (left, top, right, bottom)


# By the model_type of config.json; all other semantic segmenters of transformers, too.
_FAMILIES: dict[str, Callable[..., Any]] = {
    'sam2': _BoxPrompted, 'sam2_video': _BoxPrompted, 'maskformer': _Universal,
    'mask2former': _Universal, 'clipseg': _NamePrompted}


def _family_of(folder: Path, checkpoint: str) -> Callable[..., Any]:
    """
    Return the class that runs a checkpoint.

    :raises InputError: there is none
    """
    from transformers import AutoConfig
    from transformers.models.auto import modeling_auto

    if not (folder / 'config.json').is_file():
        raise InputError(
            f"the folder '{checkpoint}' holds no config.json; give a folder that "
            "transformers' save_pretrained wrote")
    with reading('config.json', checkpoint):
        kind = AutoConfig.from_pretrained(folder, local_files_only=True).model_type
    if kind in modeling_auto.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES:
        return _Semantic
    if kind not in _FAMILIES:
        raise InputError(
            f"the checkpoint '{checkpoint}' is a '{kind}', which is no segmenter that is known "
            'here; choose SAM 2, MaskFormer, Mask2Former, SegFormer or CLIPSeg')
    return _FAMILIES[kind]


def _image_processor(folder: Path, checkpoint: str) -> Any:
    from transformers import AutoImageProcessor

    with reading('preprocessor_config.json', checkpoint):
        return AutoImageProcessor.from_pretrained(folder, local_files_only=True, backend='pil')


def _loaded(kind: Any, folder: Path, checkpoint: str) -> Any:
    import torch

    with reading('weights', checkpoint):
        return kind.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()


def _class_of(label: str, names: dict[int, str]) -> int | None:
    """Return the class of a name; classes may list several, as 'sofa, couch'."""
    for index, name in names.items():
        if label.lower() in [part.strip() for part in name.lower().replace(';', ',').split(',')]:
            return int(index)
    return None
