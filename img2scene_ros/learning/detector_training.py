# SPDX-License-Identifier: Apache-2.0
"""
Training of the compact detector on rendered scenes: `img2scene train-detector`.

Model, matching and loss are transformers' own (RT-DETRv2), with one loss more for the encoder's
proposals. The schedule follows the number of steps, or the clock.
"""

from collections.abc import Iterator
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch import nn
from torch.utils.data import DataLoader

from img2scene_ros.devices import autocast
from img2scene_ros.learning import detector_model
from img2scene_ros.learning import loop
from img2scene_ros.learning.detector_config import DetectorTrainingOptions
from img2scene_ros.learning.detector_data import DetectorExamples
from img2scene_ros.learning.detector_data import collate
from img2scene_ros.learning.detector_data import normalized
from img2scene_ros.learning.detector_data import picture_of
from img2scene_ros.learning.metrics import Boxes
from img2scene_ros.learning.metrics import average_precisions
from img2scene_ros.learning.samples import ObjectTruth
from img2scene_ros.learning.samples import evenly
from img2scene_ros.learning.training import placed
from img2scene_ros.learning.training_config import TrainingConfig
from img2scene_ros.weights import weights_folder

Pictures = Sequence[tuple[np.ndarray, list[ObjectTruth]]]
Batch = tuple[Tensor, list[dict[str, Tensor]]]


class DetectorTask(loop.Task):
    """
    Boxes and names of what pictures show, scored by COCO's AP50.

    :param config: as `read_detector_config`
    :param labels: the class names
    :param validation: pictures of other shapes; None saves the newest weights instead of the best
    :param minutes: how long the whole training lasts, its earlier sessions included; the schedule
        follows the clock then instead of the number of steps
    """

    score_name = 'AP50'

    def __init__(
        self, config: TrainingConfig, pictures: Pictures, labels: Sequence[str],
        validation: Pictures | None, minutes: float | None,
    ) -> None:
        self.config = config
        self.options: DetectorTrainingOptions = config.training
        self.pictures = pictures
        self.labels = labels
        self.validation = validation
        self.is_scored = validation is not None
        self.seconds = None if minutes is None else 60.0 * minutes
        self.stage = self.options.stages[0]

    def about(self) -> dict[str, Any]:
        """As `Task`."""
        return {**self.config.values(), 'class names': list(self.labels),
                'number of pictures': len(self.pictures)}

    def build(self, device: torch.device) -> nn.Module:
        """As `Task`."""
        self.device = device
        network = detector_model.build_detector(self.config.model, self.labels)
        if self.options.start_from:
            detector_model.start_from(network, weights_folder(self.options.start_from, 'detector'))
        detector_model.keep_maps_precise(network)
        return placed(network, device)

    def batches(self, run: loop.Run, processes: loop.Processes) -> Iterator[Batch]:
        """Yield colours (B, H, W, 3) uint8 and B targets, in the size that is due."""
        options, changes = self.options, self.config.augmentation
        for self.stage in options.stages:
            examples = DetectorExamples(
                self.pictures, self.labels, changes, options.least_shown, options.seed,
                self.stage.width, self.stage.height,
                changes.tiles if self.stage.end < 1 else 0.0)
            for batch in DataLoader(
                    examples, options.batch,
                    sampler=range(options.batch * run.step, 2 ** 40),
                    collate_fn=collate, num_workers=options.workers,
                    worker_init_fn=loop.on_one_core):
                if self.done(run) >= self.stage.end:
                    break
                yield batch

    def losses(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return the `loss` and its `dense` part."""
        options = self.options
        colors, targets = batch
        targets = [{name: value.to(self.device) for name, value in target.items()}
                   for target in targets]
        with autocast(self.device, loop.arithmetic(options, self.device)):
            outputs = model(normalized(colors.to(self.device)), labels=targets)
        dense = detector_model.dense_loss(
            outputs.enc_outputs_class.float(), outputs.enc_outputs_coord_logits.float().sigmoid(),
            targets, self.stage.width, self.stage.height, options.candidates)
        return {'loss': outputs.loss + options.dense * dense, 'dense': dense}

    @torch.inference_mode()
    def score(self, network: nn.Module) -> tuple[float, dict[str, Any]]:
        """
        Score a detector.

        :return: the mean average precision at an IoU of 0.5 over the classes that the pictures
            show; the same as `ap50`, and `per_class`
        """
        options, pictures = self.options, self.validation
        assert pictures is not None  # as `is_scored`
        numbers = evenly(len(pictures), options.validation_samples)
        width, height = self.stage.width, self.stage.height
        size = np.array([width, height] * 2)
        found, truth = [], []
        for start in range(0, len(numbers), options.batch):
            chosen = [picture_of(*pictures[number], self.labels, options.least_shown)
                      for number in numbers[start:start + options.batch]]
            colors = np.stack([cv2.resize(
                picture.color, (width, height), interpolation=cv2.INTER_AREA)
                for picture in chosen])
            outputs = network(normalized(torch.from_numpy(colors).to(self.device)))
            for picture, logits, boxes in zip(chosen, outputs.logits, outputs.pred_boxes):
                found.append(found_boxes(logits, boxes, size))
                # Detectors work in the size of the network; so are these boxes measured.
                scale = np.tile(size[:2] / picture.color.shape[1::-1], 2)
                truth.append(Boxes(picture.boxes * scale, picture.classes,
                                   np.ones(len(picture.boxes)), picture.ignored))
        scores = {self.labels[number]: score
                  for number, score in average_precisions(found, truth).items()}
        mean = float(np.mean(list(scores.values()) or [0.0]))
        return mean, {'ap50': mean, 'per_class': scores}

    def save(self, run: loop.Run, out: Path, scores: dict[str, Any]) -> None:
        """As `Task`."""
        detector_model.save_detector(run.average, out, self.stage.width, self.stage.height)


def found_boxes(logits: Tensor, boxes: Tensor, size: np.ndarray) -> Boxes:
    """
    Return the best pairs of box and class, as many as there are queries, as transformers does.

    :param logits: (Q, C)
    :param boxes: (Q, 4), centre and size in shares of the picture
    :param size: (4,) width, height, width, height
    """
    scores, best = logits.sigmoid().flatten().topk(len(logits))
    queries = best // logits.shape[1]
    center, extent = boxes[queries, :2], boxes[queries, 2:]
    corners = torch.cat([center - extent / 2, center + extent / 2], dim=1)
    return Boxes(corners.cpu().numpy() * size, (best % logits.shape[1]).cpu().numpy(),
                 scores.cpu().numpy(), np.zeros(len(best), bool))
