# SPDX-License-Identifier: Apache-2.0
"""
Training on examples that are drawn meanwhile, on one GPU or CPU: `img2scene learn`.

    img2scene learn shape --shapes FILE --out RUN --seconds 240 --device cuda
    img2scene learn segmentation ...

Needs torch, numpy, scipy and OpenCV, and the file of `img2scene pack-shapes`. Chunks of examples
are drawn as often as it takes to use each `reuse` times. By steps, what is learned is a function
of the options alone, stopped and resumed or not; by seconds, the schedule follows the clock.
"""

import logging
from abc import ABC
from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from time import monotonic
from typing import Any

import cv2
import numpy as np
import torch
from torch import Generator
from torch import Tensor
from torch import nn

from img2scene_ros.devices import autocast
from img2scene_ros.errors import InputError
from img2scene_ros.errors import OptionError
from img2scene_ros.files import write_whole
from img2scene_ros.learning import live
from img2scene_ros.learning.arrangements import Stock
from img2scene_ros.learning.arrangements import open_stock
from img2scene_ros.learning.metrics import found_share
from img2scene_ros.learning.packed_shapes import read_packed
from img2scene_ros.learning.runs import TrainingError
from img2scene_ros.learning.runs import open_log
from img2scene_ros.learning.runs import open_run
from img2scene_ros.learning.runs import save_state
from img2scene_ros.learning.runs import show_progress
from img2scene_ros.learning.training import INPUTS
from img2scene_ros.learning.training import Run
from img2scene_ros.learning.training import arithmetic
from img2scene_ros.learning.training import descend
from img2scene_ros.learning.training import learning_rate
from img2scene_ros.learning.training import occupancy_loss
from img2scene_ros.learning.training import summary
from img2scene_ros.learning.training import threshold_ious
from img2scene_ros.learning.training import to_train
from img2scene_ros.learning.training_config import TrainingOptions
from img2scene_ros.learning.training_config import given_values
from img2scene_ros.learning.training_config import take_options
from img2scene_ros.models.frustum_unet import FrustumUNet
from img2scene_ros.models.instances import InstanceNetwork
from img2scene_ros.models.instances import group_instances
from img2scene_ros.models.instances import instance_loss
from img2scene_ros.models.networks import save_network
from img2scene_ros.options import option

VALIDATION_BATCH = 32
SHEET_ROWS = 12
LEAST_SEEN = 100  # pixels; objects that show less are not counted
HELD_SEED = 1_000_003

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StudentOptions(TrainingOptions):
    """How a student learns: as `TrainingOptions`, and what is drawn for it."""

    seconds: float = option(
        0.0, 'Length of the whole training, drawing and validation included; 0 goes by steps',
        low=0.0)
    chunk: int = option(2048, 'Examples that are drawn at once', low=1)
    kept: int = option(64, 'Chunks that are kept to be used again', low=1)
    reuse: float = option(8.0, 'How often an example is used, on average', low=0.1)


@dataclass(eq=False)
class LiveRun(Run):
    """
    A run on examples that are drawn meanwhile.

    - chunks: number of chunks drawn
    - seconds: of training so far
    """

    chunks: int = 0
    seconds: float = 0.0


class Student(ABC):
    """
    A kind of network, and what it learns from.

    - kind: its class; model: options of it, and defaults: those of `StudentOptions`, that differ
    """

    kind: type[nn.Module]
    model: dict[str, Any]
    defaults: dict[str, Any]

    def __init__(self, options: StudentOptions, train: Stock, test: Stock) -> None:
        self.options, self.train, self.test = options, train, test

    @abstractmethod
    def draw(self, generator: Generator, count: int, stock: Stock) -> live.Examples:
        """Draw true examples."""

    @abstractmethod
    def loss(self, network: nn.Module, examples: live.Examples, generator: Generator) -> Tensor:
        """Return the loss of examples that are changed at random."""

    @abstractmethod
    def score(self, network: nn.Module, held: live.Examples) -> tuple[float, dict[str, Any]]:
        """Return how good a network is, and what config.json says of it."""

    @abstractmethod
    def table(self, details: dict[str, Any]) -> str:
        """Return what `score` returns as a Markdown table."""

    @abstractmethod
    def sheet(self, network: nn.Module, held: live.Examples) -> np.ndarray:
        """Draw examples, truths and answers, (H, W, 3) uint8, RGB."""


class ShapeStudent(Student):
    """`frustum-unet`, taught how deep points of the cube lie in the solid."""

    kind = FrustumUNet
    model = {'width': 56, 'slices': 96, 'deep': 3, 'fine': 24}
    defaults = {'batch': 256, 'size': 112, 'resolution': 64, 'validation_samples': 1024}

    def draw(self, generator: Generator, count: int, stock: Stock) -> live.Examples:
        """Draw crops."""
        return live.draw_crops(stock, generator, count, self.options.size)

    def loss(self, network: FrustumUNet, examples: live.Examples, generator: Generator) -> Tensor:
        """Compare occupancies at points between the cells' centres, another grid every time."""
        device = generator.device
        flipped = torch.rand(len(examples['shape']), device=device, generator=generator) < 0.5
        crops = live.mirrored(examples, flipped)
        pictures, half_field, anchor = live.crop_inputs(crops, generator)
        shift = torch.rand(3, device=device, generator=generator) - 0.5
        resolution = self.options.resolution
        depths = live.solid_depths(self.train.fields, crops, anchor, resolution, shift)
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        with autocast(device, arithmetic(self.options, device)):
            features = network.encode(pictures, half_field)
        logits = network.query_cells(features, half_field, resolution, shift=shift)
        return occupancy_loss(logits, (0.5 + depths).clamp(0, 1), self.options)

    @torch.inference_mode()
    def score(self, network: FrustumUNet, held: live.Examples) -> tuple[float, dict[str, Any]]:
        """Return IoU at 32^3 of cells that solids reach into, by input, as `training.validate`."""
        labels = [self.test.labels[i] for i in held['shape'].tolist()]
        scores = {}
        for name in INPUTS:
            ious = [threshold_ious(*self._answers(network, part, name)[:2]).cpu()
                    for part in batches(held)]
            scores[name] = summary(torch.cat(ious).numpy(), labels)
        return float(np.mean([scores[name]['iou'] for name in INPUTS])), scores

    def table(self, details: dict[str, Any]) -> str:
        """Return the IoU at 32^3 by input and class."""
        rows = [['all', *(f"{details[name]['iou']:.3f}" for name in INPUTS)]]
        rows += [[label, *(f"{details[name]['per_category'][label]:.3f}" for name in INPUTS)]
                 for label in details['rgb']['per_category']]
        return markdown_table(['IoU', *INPUTS], rows)

    def _answers(
        self, network: FrustumUNet, crops: live.Examples, name: str,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits and truth of the cells that are reached, and pictures."""
        generator = seeded(HELD_SEED, 0, crops['shape'].device)
        pictures, half_field, anchor = live.crop_inputs(crops, generator, name)
        with autocast(generator.device, arithmetic(self.options, generator.device)):
            logits = network.reached(pictures, half_field)
        return logits, live.cells_reached(self.test.fields, crops, anchor), pictures

    @torch.inference_mode()
    def sheet(self, network: FrustumUNet, held: live.Examples) -> np.ndarray:
        """Draw colour, mask, depth; front and side of the truth, and of answers without depth."""
        crops = {name: values[:SHEET_ROWS] for name, values in held.items()}
        size = 2 * crops['mask'].shape[-1]
        columns = [_shown(crops['color'].permute(0, 2, 3, 1)), _shown(crops['mask'])]
        for name in INPUTS:
            logits, truth, pictures = self._answers(network, crops, name)
            columns += [_shown(pictures[:, 4] * 0.5 + 0.5)] if name == 'rgbd' else []
            for volumes in (truth, logits > 0):
                for way in (volumes, volumes.permute(0, 3, 2, 1)):  # from the front, the left
                    columns.append([relief(volume) for volume in way.cpu().numpy()])
        return np.vstack([np.hstack([
            cv2.resize(picture, (size, size), interpolation=cv2.INTER_NEAREST)
            for picture in row]) for row in zip(*columns)])


class SegmentationStudent(Student):
    """`InstanceNetwork`, taught which pixels belong to which instance."""

    kind = InstanceNetwork
    model = {}
    defaults = {'batch': 32, 'chunk': 256, 'reuse': 4.0, 'validation_samples': 256,
                'learning_rate': 0.001}

    def draw(self, generator: Generator, count: int, stock: Stock) -> live.Examples:
        """Draw whole pictures."""
        return live.draw_scenes(stock, generator, count)

    def loss(
        self, network: InstanceNetwork, examples: live.Examples, generator: Generator,
    ) -> Tensor:
        """Compare foreground, centres and offsets."""
        channels = live.scene_inputs(examples, generator)
        with autocast(generator.device, arithmetic(self.options, generator.device)):
            outputs = network(channels)
        return instance_loss(outputs.float(), examples['ids'].long())

    @torch.inference_mode()
    def score(self, network: InstanceNetwork, held: live.Examples) -> tuple[float, dict[str, Any]]:
        """Return the share of objects that are found at an IoU above 0.5."""
        counts: Counter[str] = Counter()
        for part in batches(held):
            for found, truth in zip(self._answers(network, part), part['ids'].cpu()):
                counts.update(found_share(found.numpy(), truth.numpy(), least=LEAST_SEEN))
        return counts['found'] / max(1, counts['objects']), dict(counts)

    def table(self, details: dict[str, Any]) -> str:
        """Return the numbers of objects."""
        return markdown_table(list(details), [list(map(str, details.values()))])

    def _answers(self, network: InstanceNetwork, scenes: live.Examples) -> Tensor:
        generator = seeded(HELD_SEED, 0, scenes['ids'].device)
        channels = live.scene_inputs(scenes, generator, is_plain=True)
        with autocast(generator.device, arithmetic(self.options, generator.device)):
            outputs = network(channels)
        return group_instances(outputs.float())

    @torch.inference_mode()
    def sheet(self, network: InstanceNetwork, held: live.Examples) -> np.ndarray:
        """Draw colour, true and found instances."""
        scenes = {name: values[:SHEET_ROWS] for name, values in held.items()}
        rows = zip(_shown(scenes['color'].permute(0, 2, 3, 1)), scenes['ids'].cpu().numpy(),
                   self._answers(network, scenes).numpy())
        return np.vstack([np.hstack([color, _painted(truth), _painted(found)])
                          for color, truth, found in rows])


STUDENTS = {'shape': ShapeStudent, 'segmentation': SegmentationStudent}


def read_student_options(kind: str, settings: Sequence[str]) -> tuple[StudentOptions, Any]:
    """
    Return how a student learns, and the shape of its network.

    :param settings: NAME=VALUE, of the network model.NAME=VALUE
    :raises OptionError: an unknown name, or a value that is not allowed
    """
    student = STUDENTS[kind]
    model = {f'model.{name}': value for name, value in student.model.items()}
    given = {**student.defaults, **model, **given_values(None, settings)}
    options = take_options(StudentOptions, given, '')
    model = take_options(student.kind.Config, given, 'model.')
    if given:
        raise OptionError(f"there is no option '{next(iter(given))}' of this training")
    return options, model


def learn(
    kind: str, shapes: Path, out: Path, options: StudentOptions, model: Any,
    device: torch.device, resume: bool = False, minutes: float | None = None,
) -> LiveRun:
    """
    Teach a student, or go on with it.

    OUT gets `model.safetensors` and `config.json` (the moving average of the weights at its best
    validation) with `table.md` and `sheet.png`, `log.jsonl` and `state.pt`.

    :param kind: one of `STUDENTS`
    :param shapes: a file of `img2scene pack-shapes`
    :param minutes: end after so long, ready to be resumed
    :raises InputError: files that cannot be read or written, a run of other options
    :raises TrainingError: the loss is not a number any more
    """
    began = monotonic()
    torch.manual_seed(options.seed)
    torch.backends.cudnn.benchmark = True
    packed = read_packed(shapes)
    network = STUDENTS[kind].kind(model)
    student = STUDENTS[kind](options, *(
        open_stock(packed, split, device) for split in ('train', 'test')))
    run = LiveRun(*to_train(network, options, device))
    about = {'student': kind, 'shapes': len(packed.names), **asdict(options),
             **{f'model.{name}': value for name, value in asdict(model).items()}}
    out = Path(out)
    open_run(run, about, out, resume)
    logger.info('%d shapes ready after %.0f s', len(packed.names), monotonic() - began)
    held = _held(student, device)
    pool: live.Examples = {}
    for number in range(max(0, run.chunks - options.kept), run.chunks):
        _draw_into(pool, student, number, device)
    before, losses = run.seconds, []
    with open_log(out, run.step, True) as log, show_progress(
            options.steps, run.step, True) as show:
        while (done := _done(run, options)) < 1.0:
            if _is_short(run, options):
                _draw_into(pool, student, run.chunks, device)
                run.chunks += 1
            losses.append(_step(run, student, pool, done))
            run.seconds = before + monotonic() - began
            over = minutes is not None and monotonic() - began > 60 * minutes
            is_last = over or _done(run, options) >= 1.0
            if is_last or run.step % options.log_every == 0:
                loss, losses = float(torch.stack(losses).mean()), []
                if not isfinite(loss):
                    raise TrainingError(
                        f'the loss is not a number any more at step {run.step}; start again with '
                        'a smaller learning_rate or with precision=fp32')
                log(run.step, {'loss': loss, 'seconds': run.seconds, 'drawn': run.chunks
                               * options.chunk, 'used': run.step * options.batch})
                show(round(_done(run, options) * options.steps), loss)
            if is_last or run.step % options.validate_every == 0:
                _validate(run, student, held, about, out, log)
                save_state(run, about, out)
            if over:
                break
    return run


def _done(run: LiveRun, options: StudentOptions) -> float:
    """Return which share of the training is done."""
    if options.seconds:
        return min(1.0, run.seconds / options.seconds)
    return run.step / options.steps


def _is_short(run: LiveRun, options: StudentOptions) -> bool:
    """Tell whether the examples drawn would be used more than `reuse` times."""
    return (run.step + 1) * options.batch > run.chunks * options.chunk * options.reuse


def _draw_into(
    pool: live.Examples, student: Student, number: int, device: torch.device,
) -> None:
    """Draw a chunk of examples; it takes the place of the oldest when the pool is full."""
    options = student.options
    generator = seeded(options.seed + 1, number, device)
    first = number % options.kept * options.chunk
    for name, values in student.draw(generator, options.chunk, student.train).items():
        if name not in pool:
            pool[name] = values.new_empty((options.kept * options.chunk, *values.shape[1:]))
        pool[name][first:first + options.chunk] = values


def _held(student: Student, device: torch.device) -> live.Examples:
    generator = seeded(HELD_SEED, 1, device)
    return student.draw(generator, student.options.validation_samples, student.test)


def _step(run: LiveRun, student: Student, pool: live.Examples, done: float) -> Tensor:
    """Change the weights once; all chance depends on the step alone."""
    options = student.options
    device = next(run.network.parameters()).device
    generator = seeded(options.seed, run.step, device)
    count = options.chunk * min(run.chunks, options.kept)
    index = torch.randint(count, (options.batch,), device=device, generator=generator)
    examples = {name: values[index] for name, values in pool.items()}
    loss = student.loss(run.network.train(), examples, generator)
    descend(run, loss, learning_rate(int(done * options.steps), options), options)
    return loss.detach()


def _validate(
    run: LiveRun, student: Student, held: live.Examples, about: dict[str, Any], out: Path,
    log: Any,
) -> None:
    """Score the average of the weights; keep it with its picture where it is the best so far."""
    score, details = student.score(run.average, held)
    log(run.step, {'score': score, 'validation': details})
    logger.info('step %d, %.0f s: score %.3f', run.step, run.seconds, score)
    if score <= run.best:
        return
    run.best = score
    options = student.options
    save_network(run.average, out, {
        'step': run.step, 'training': about, 'samples': run.chunks * options.chunk,
        'picture_size': options.size or live.WIDTH, 'validation': details}, half=True)
    write_whole(out / 'table.md', lambda file: file.write(student.table(details).encode()))
    sheet = student.sheet(run.average, held)
    if not cv2.imwrite(str(out / 'sheet.png'), sheet[..., ::-1]):
        raise InputError(f"cannot write '{out / 'sheet.png'}'")


def markdown_table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows of texts as a Markdown table."""
    lines = [heading, ['---'] * len(heading), *rows]
    return ''.join(f"| {' | '.join(line)} |\n" for line in lines)


def batches(examples: live.Examples) -> list[live.Examples]:
    """Split examples into parts of `VALIDATION_BATCH`."""
    parts = [values.split(VALIDATION_BATCH) for values in examples.values()]
    return [dict(zip(examples, part)) for part in zip(*parts)]


def seeded(seed: int, number: int, device: torch.device) -> Generator:
    """Return a generator of its own for each number."""
    return Generator(device).manual_seed((seed * 7_368_787 + number) % 2 ** 63)


def relief(volume: np.ndarray) -> np.ndarray:
    """Draw the first full cells of (R, R, R) along the first axis, near ones bright."""
    first = np.where(volume.any(axis=0), volume.argmax(axis=0), len(volume)).astype(float)
    slope = np.hypot(*np.gradient(first)) if len(volume) > 1 else 0 * first
    light = (1 - 0.6 * first / len(volume)) / np.sqrt(1 + 0.1 * slope ** 2)
    grey = np.where(first < len(volume), 255 * light, 40).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)


def _painted(ids: np.ndarray) -> np.ndarray:
    hue = (ids * 111 % 180).astype(np.uint8)
    full = np.where(ids > 0, 230, 0).astype(np.uint8)
    return cv2.cvtColor(np.stack([hue, full, full // 2 + 90], axis=-1), cv2.COLOR_HSV2RGB)


def _shown(values: Tensor) -> list[np.ndarray]:
    """Return pictures as (H, W, 3) uint8: of bytes, or of numbers from 0 to 1 without colours."""
    array = values.cpu().numpy()
    if array.ndim == 3:
        array = np.repeat((255 * array.clip(0, 1))[..., None], 3, axis=-1)
    return list(array.astype(np.uint8))
