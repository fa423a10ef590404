# SPDX-License-Identifier: Apache-2.0
"""
Training of the compact detector on rendered scenes.

    img2scene train-detector --config FILE.yaml --data TRAIN --validation TEST --out RUN

Model, matching and loss are transformers' own (RT-DETRv2), with one loss more for the encoder's
proposals. RUN is a checkpoint folder of transformers, which the detector `detr` loads: the moving
average of the weights at its best validation, in half precision. Beside it lie `state.pt` (what it
takes to go on) and `log.jsonl`. The schedule follows the number of steps, or the clock.
"""

import logging
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from math import cos
from math import isfinite
from math import pi
from pathlib import Path
from time import monotonic
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch import nn
from torch.utils.data import DataLoader

from img2scene_ros.devices import autocast
from img2scene_ros.devices import torch_device
from img2scene_ros.learning.dataset import positions_of
from img2scene_ros.learning.detector_config import DetectorConfig
from img2scene_ros.learning.detector_config import DetectorTrainingOptions
from img2scene_ros.learning.detector_config import TrainingStage
from img2scene_ros.learning.detector_data import DetectorExamples
from img2scene_ros.learning.detector_data import collate
from img2scene_ros.learning.detector_data import normalized
from img2scene_ros.learning.detector_data import picture_of
from img2scene_ros.learning.detector_model import build_detector
from img2scene_ros.learning.detector_model import dense_loss
from img2scene_ros.learning.detector_model import keep_maps_precise
from img2scene_ros.learning.detector_model import save_detector
from img2scene_ros.learning.detector_model import start_from
from img2scene_ros.learning.metrics import Boxes
from img2scene_ros.learning.metrics import average_precisions
from img2scene_ros.learning.runs import TrainingError
from img2scene_ros.learning.runs import move_average
from img2scene_ros.learning.runs import on_one_core
from img2scene_ros.learning.runs import open_log
from img2scene_ros.learning.runs import open_run
from img2scene_ros.learning.runs import save_state
from img2scene_ros.learning.runs import show_progress
from img2scene_ros.learning.runs import weight_groups
from img2scene_ros.learning.samples import ObjectTruth
from img2scene_ros.weights import weights_folder

Pictures = Sequence[tuple[np.ndarray, list[ObjectTruth]]]

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class DetectorRun:
    """
    What changes while training, and so what is saved to go on.

    - network: what is trained
    - average: moving average of its weights, which is what gets saved and validated
    - step: number of steps done
    - seconds: spent so far
    - best: the best score of a validation so far
    """

    network: nn.Module
    average: nn.Module
    optimizer: torch.optim.Optimizer
    step: int = 0
    seconds: float = 0.0
    best: float = -1.0


def train_detector(
    config: DetectorConfig,
    pictures: Pictures,
    labels: Sequence[str],
    out: Path,
    validation: Pictures | None = None,
    resume: bool = False,
    minutes: float | None = None,
) -> DetectorRun:
    """
    Train a detector, or go on with it.

    :param labels: the class names
    :param validation: pictures of other shapes; None saves the newest weights instead of the best
    :param out: folder of the run
    :param minutes: how long the whole training lasts, its earlier sessions included; the schedule
        follows the clock then instead of the number of steps
    :raises InputError: a folder with another or a started run, pictures that cannot be read, files
        that cannot be written; what was written before is then still there
    :raises TrainingError: the loss is not a number any more
    """
    out = Path(out)
    device = torch_device('auto')
    run = start(config, labels, device)
    open_run(run, about(config, pictures, labels), out, resume)
    with open_log(out, run.step, True) as log, _progress_shown(run, config, minutes) as show:
        for losses in steps(run, config, pictures, labels, minutes, device):
            stage = losses.pop('stage')
            log(run.step, losses)
            show(losses['loss'])
            keep(run, config, pictures, labels, validation, out, stage, log, losses['last'])
    return run


def about(
    config: DetectorConfig, pictures: Pictures, labels: Sequence[str],
) -> dict[str, Any]:
    """Return what must stay the same for a run to go on."""
    return {**config.values(), 'class names': list(labels), 'number of pictures': len(pictures)}


def start(
    config: DetectorConfig, labels: Sequence[str], device: torch.device,
) -> DetectorRun:
    """
    Return a run at its first step.

    :raises InputError: as `start_from`
    """
    torch.manual_seed(config.training.seed)
    network = build_detector(config.model, labels)
    if config.training.start_from:
        start_from(network, weights_folder(config.training.start_from, 'detector'))
    network = network.to(device, memory_format=torch.channels_last)
    average = deepcopy(network).eval().requires_grad_(False)
    keep_maps_precise(network)
    optimizer = torch.optim.AdamW(weight_groups(network, config.training.weight_decay))
    return DetectorRun(network.train(), average, optimizer)


def progress(run: DetectorRun, options: DetectorTrainingOptions, minutes: float | None) -> float:
    """Return which share of the training is done, 0 to 1."""
    done = run.step / options.steps if minutes is None else run.seconds / 60 / max(minutes, 1e-9)
    return min(done, 1.0)


def steps(
    run: DetectorRun, config: DetectorConfig, pictures: Pictures, labels: Sequence[str],
    minutes: float | None, device: torch.device,
) -> Iterator[dict[str, Any]]:
    """
    Do the steps that are left.

    Yields whenever there is something to log, validate or save, and at the end: `loss`, the mean
    since the last time, its part `dense`, the `learning_rate`, the `stage`, and whether it is the
    `last`.

    :raises TrainingError: the loss is not a number any more
    """
    options = config.training
    pauses = (options.log_every, options.save_every, options.validate_every)
    total, count = torch.zeros(2, device=device), 0
    began, before = monotonic(), run.seconds
    for stage, batch in _batches(run, config, pictures, labels, minutes):
        # All chance depends on the step alone, so nothing of it has to be saved.
        torch.manual_seed(options.seed + run.step)
        rate = learning_rate(run.step, progress(run, options, minutes), options)
        total += one_step(run, batch, stage, rate, options, device)
        count += 1
        run.seconds = before + monotonic() - began
        last = progress(run, options, minutes) == 1.0
        if last or any(run.step % pause == 0 for pause in pauses):
            loss, dense = (total / count).tolist()
            if not isfinite(loss):
                raise TrainingError(
                    f'the loss is not a number any more at step {run.step}; start again with a '
                    'smaller learning_rate or with precision=fp32')
            yield {'loss': loss, 'dense': dense, 'learning_rate': rate, 'stage': stage,
                   'minutes': run.seconds / 60, 'last': last}
            total, count = torch.zeros(2, device=device), 0
        if last:
            return


def _batches(
    run: DetectorRun, config: DetectorConfig, pictures: Pictures, labels: Sequence[str],
    minutes: float | None,
) -> Iterator[tuple[TrainingStage, tuple[Tensor, list[dict[str, Tensor]]]]]:
    """Yield batches for ever, in the size that the progress of the run asks for."""
    options = config.training
    for stage in config.stages:
        examples = DetectorExamples(
            pictures, labels, config.augmentation, options.least_shown, options.seed, stage.width,
            stage.height, config.augmentation.tiles if stage.end < 1 else 0.0)
        loader = DataLoader(
            examples, options.batch,
            sampler=positions_of(0, 1, options.batch, run.step, 2 ** 40 // options.batch),
            collate_fn=collate, num_workers=options.workers, worker_init_fn=on_one_core)
        for batch in loader:
            if progress(run, options, minutes) >= stage.end:
                break
            yield stage, batch


def one_step(
    run: DetectorRun, batch: tuple[Tensor, list[dict[str, Tensor]]], stage: TrainingStage,
    rate: float, options: DetectorTrainingOptions, device: torch.device,
) -> Tensor:
    """
    Change the weights once.

    :param batch: colours (B, H, W, 3) uint8 and the B targets
    :return: the loss and its dense part, (2,)
    """
    colors, targets = batch
    targets = [{name: value.to(device) for name, value in target.items()} for target in targets]
    for group in run.optimizer.param_groups:
        group['lr'] = rate
    with autocast(device, arithmetic(options, device)):
        outputs = run.network(normalized(colors.to(device)), labels=targets)
    dense = dense_loss(
        outputs.enc_outputs_class.float(), outputs.enc_outputs_coord_logits.float().sigmoid(),
        targets, stage.width, stage.height, options.candidates)
    loss = outputs.loss + options.dense * dense
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if options.clip:
        nn.utils.clip_grad_norm_(run.network.parameters(), options.clip)
    run.optimizer.step()
    run.step += 1
    move_average(run.average, run.network, run.step, options.average)
    return torch.stack([loss.detach(), dense.detach()])


def learning_rate(step: int, done: float, options: DetectorTrainingOptions) -> float:
    """
    Return the rate of a step: a linear warm-up, a plain, a cosine down to 0.

    :param done: share of the training, 0 to 1
    """
    rise = min(1.0, (step + 1) / (options.warm_up + 1))
    fall = max(0.0, done - options.hold) / max(1e-9, 1.0 - options.hold)
    return options.learning_rate * rise * 0.5 * (1.0 + cos(pi * min(fall, 1.0)))


def arithmetic(options: DetectorTrainingOptions, device: torch.device) -> torch.dtype:
    """Return the type that convolutions and products are computed in."""
    with_bf16 = options.precision == 'bf16' or (
        options.precision == 'auto' and device.type == 'cuda' and torch.cuda.is_bf16_supported())
    return torch.bfloat16 if with_bf16 else torch.float32


def keep(
    run: DetectorRun, config: DetectorConfig, pictures: Pictures, labels: Sequence[str],
    validation: Pictures | None, out: Path, stage: TrainingStage, log: Callable[[int, dict], None],
    is_last: bool,
) -> None:
    """
    Validate and save, whatever is due.

    :raises InputError: a file cannot be written; the one before is still there
    """
    options = config.training
    saves = is_last or run.step % options.save_every == 0
    if validation is not None and (is_last or run.step % options.validate_every == 0):
        scores = validate(run.average, validation, labels, stage, options)
        log(run.step, scores)
        logger.info('step %d: AP50 %.3f at %dx%d', run.step, scores['ap50'], stage.width,
                    stage.height)
        if scores['ap50'] > run.best:
            run.best = scores['ap50']
            save_detector(run.average, out, stage.width, stage.height)
    elif validation is None and saves:
        save_detector(run.average, out, stage.width, stage.height)
    if saves:
        save_state(run, about(config, pictures, labels), out)


@torch.inference_mode()
def validate(
    network: nn.Module, pictures: Pictures, labels: Sequence[str], stage: TrainingStage,
    options: DetectorTrainingOptions,
) -> dict[str, Any]:
    """
    Score a detector.

    :return: `ap50`, the mean average precision at an IoU of 0.5 over the classes of `labels` that
        the pictures show, and `per_class`
    """
    device = next(network.parameters()).device
    numbers = np.linspace(
        0, len(pictures) - 1, min(options.validation_samples, len(pictures))).astype(int).tolist()
    size = np.array([stage.width, stage.height] * 2)
    found, truth = [], []
    for start_ in range(0, len(numbers), options.batch):
        chosen = [picture_of(*pictures[number], labels, options.least_shown)
                  for number in numbers[start_:start_ + options.batch]]
        colors = np.stack([cv2.resize(
            picture.color, (stage.width, stage.height), interpolation=cv2.INTER_AREA)
            for picture in chosen])
        outputs = network(normalized(torch.from_numpy(colors).to(device)))
        for picture, logits, boxes in zip(chosen, outputs.logits, outputs.pred_boxes):
            found.append(found_boxes(logits, boxes, size))
            # Detectors work in the size of the network; so are these boxes measured.
            scale = np.tile(size[:2] / picture.color.shape[1::-1], 2)
            truth.append(Boxes(picture.boxes * scale, picture.classes,
                               np.ones(len(picture.boxes)), picture.ignored))
    scores = {labels[number]: score
              for number, score in average_precisions(found, truth).items()}
    return {'ap50': float(np.mean(list(scores.values()) or [0.0])), 'per_class': scores}


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


@contextmanager
def _progress_shown(
    run: DetectorRun, config: DetectorConfig, minutes: float | None,
) -> Iterator[Callable[[float], None]]:
    """Yield what shows the loss and how much is done, in steps or in seconds."""
    options = config.training
    if minutes is None:
        with show_progress(options.steps, run.step, True) as show:
            yield lambda loss: show(run.step, loss)
    else:
        with show_progress(round(60 * minutes), round(run.seconds), True, 'second') as show:
            yield lambda loss: show(round(run.seconds), loss)
