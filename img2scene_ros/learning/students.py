# SPDX-License-Identifier: Apache-2.0
"""
Training on examples that are drawn meanwhile, on one GPU or CPU: `img2scene learn`.

Needs torch, numpy, scipy and OpenCV, and the file of `img2scene pack-shapes`. Chunks of examples
are drawn as often as it takes to use each `reuse` times. By steps, what is learned is a function
of the options alone, stopped and resumed or not; by seconds, the schedule follows the clock.
"""

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Generator
from torch import Tensor
from torch import nn

from img2scene_ros.devices import autocast
from img2scene_ros.files import write_whole
from img2scene_ros.learning import live
from img2scene_ros.learning import training
from img2scene_ros.learning.arrangements import Stock
from img2scene_ros.learning.arrangements import open_stock
from img2scene_ros.learning.augmentation import AugmentationOptions
from img2scene_ros.learning.augmentation import Examples
from img2scene_ros.learning.augmentation import crop_inputs
from img2scene_ros.learning.augmentation import mirrored
from img2scene_ros.learning.loop import Processes
from img2scene_ros.learning.loop import Run
from img2scene_ros.learning.loop import Task
from img2scene_ros.learning.loop import arithmetic
from img2scene_ros.learning.metrics import found_share
from img2scene_ros.learning.packed_shapes import read_packed
from img2scene_ros.learning.training_config import TrainingOptions
from img2scene_ros.learning.training_config import read_sections
from img2scene_ros.models.frustum_unet import FrustumUNet
from img2scene_ros.models.instances import InstanceNetwork
from img2scene_ros.models.instances import group_instances
from img2scene_ros.models.instances import instance_loss
from img2scene_ros.models.networks import save_network
from img2scene_ros.options import option
from img2scene_ros.rendering.pictures import write_png
from img2scene_ros.tables import markdown_table
from img2scene_ros.weights import weights_folder

SHEET_ROWS = 12
LEAST_SEEN = 100  # pixels; objects that show less are not counted
HELD_SEED = 1_000_003
# Scenes that are drawn have occluders, surroundings and gaps of their own.
CHANGES = AugmentationOptions(
    occluder=0.0, background=0.0, missing_depth=0.0, mask_pixels=3, ragged_mask=0.3)

Batch = tuple[Examples, Generator]


@dataclass(frozen=True)
class StudentOptions(TrainingOptions):
    """How a student learns: as `TrainingOptions`, and what is drawn for it."""

    seconds: float = option(
        0.0, 'Length of the whole training, drawing and validation included; 0 goes by steps',
        low=0.0)
    chunk: int = option(2048, 'Examples that are drawn at once', low=1)
    kept: int = option(64, 'Chunks that are kept to be used again', low=1)
    reuse: float = option(8.0, 'How often an example is used, on average', low=0.1)


class Student(Task):
    """
    A kind of network, and what it learns from.

    :param shapes: a file of `img2scene pack-shapes`
    """

    kind: type[nn.Module]  # its class
    model: dict[str, Any]  # options of the network that differ from its own defaults
    defaults: dict[str, Any]  # those of `StudentOptions` that differ
    name: str  # as the command line calls it
    bundled: str  # the weights that the package holds

    def __init__(self, options: StudentOptions, model: Any, shapes: Path) -> None:
        self.options: StudentOptions = options
        self.optimizer = options.optimizer
        self.model_options = model
        self.shapes = shapes
        self.seconds = options.seconds or None

    @abstractmethod
    def draw(self, generator: Generator, count: int, stock: Stock) -> Examples:
        """Draw true examples."""

    @abstractmethod
    def table(self, details: dict[str, Any]) -> str:
        """Return what `score` returns as a Markdown table."""

    @abstractmethod
    def sheet(self, network: nn.Module) -> np.ndarray:
        """Draw some examples, truths and answers, (H, W, 3) uint8, RGB."""

    def build(self, device: torch.device) -> nn.Module:
        """As `Task`; draw what is validated with, too."""
        network = self.kind(self.model_options)
        if self.options.start_from:
            training.start_from(network, weights_folder(self.options.start_from, self.bundled))
        packed = read_packed(self.shapes)
        self.count, self.device = len(packed), device
        self.train, self.test = (
            open_stock(packed, split, device) for split in ('train', 'test'))
        self.held = self.draw(
            seeded(HELD_SEED, 1, device), self.options.validation_samples, self.test)
        return training.placed(network, device, self.options.channels_last)

    def about(self) -> dict[str, Any]:
        """As `Task`."""
        return {'student': self.name, 'shapes': self.count, **asdict(self.options), **{
            f'model.{name}': value for name, value in asdict(self.model_options).items()}}

    def drawn(self, step: int) -> int:
        """Return how many chunks so many steps need, if each example is used `reuse` times."""
        return ceil(step * self.options.batch / (self.options.chunk * self.options.reuse))

    def batches(self, run: Run, processes: Processes) -> Iterator[Batch]:
        """Yield examples of the chunks that are kept, and a step's chance."""
        options = self.options
        pool: Examples = {}
        number = max(0, self.drawn(run.step) - options.kept)
        while self.done(run) < 1.0:
            while number < self.drawn(run.step + 1):
                self._draw_into(pool, number)
                number += 1
            generator = seeded(options.seed, run.step, self.device)
            index = torch.randint(
                options.chunk * min(number, options.kept), (options.batch,), device=self.device,
                generator=generator)
            yield {name: values[index] for name, values in pool.items()}, generator

    def _draw_into(self, pool: Examples, number: int) -> None:
        """Draw a chunk of examples; it takes the place of the oldest when the pool is full."""
        options = self.options
        generator = seeded(options.seed + 1, number, self.device)
        first = number % options.kept * options.chunk
        for name, values in self.draw(generator, options.chunk, self.train).items():
            if name not in pool:
                pool[name] = values.new_empty((options.kept * options.chunk, *values.shape[1:]))
            pool[name][first:first + options.chunk] = values

    def save(self, run: Run, out: Path, scores: dict[str, Any]) -> None:
        """As `Task`, with `table.md` and `sheet.png`."""
        save_network(run.average, out, {
            'step': run.step, 'training': self.about(),
            'samples': self.drawn(run.step) * self.options.chunk,
            'picture_size': self.options.size or live.WIDTH, 'validation': scores}, half=True)
        write_whole(out / 'table.md', f'{self.table(scores)}\n'.encode())
        write_png(out / 'sheet.png', self.sheet(run.average))


class ShapeStudent(Student):
    """`frustum-unet`, taught how deep points of the cube lie in the solid."""

    kind, name, score_name, bundled = FrustumUNet, 'shape', 'IoU', 'voxel'
    model = {'width': 56, 'slices': 96, 'deep': 3, 'fine': 24}
    defaults = {'batch': 256, 'size': 112, 'resolution': 64, 'validation_samples': 1024}

    def draw(self, generator: Generator, count: int, stock: Stock) -> Examples:
        """Draw crops."""
        return live.draw_crops(stock, generator, count, self.options.size)

    def losses(self, model: FrustumUNet, batch: Batch) -> dict[str, Tensor]:
        """Compare occupancies at points between the cells' centres, another grid every time."""
        examples, generator = batch
        device = generator.device
        flipped = torch.rand(len(examples['shape']), device=device, generator=generator)
        crops = mirrored(examples, flipped < CHANGES.flip)
        pictures, half_field, anchor = crop_inputs(crops, generator, CHANGES)
        shift = torch.rand(3, device=device, generator=generator) - 0.5
        resolution = self.options.resolution
        depths = live.solid_depths(self.train.fields, crops, anchor, resolution, shift)
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        with autocast(device, arithmetic(self.options, device)):
            features = model.encode(pictures, half_field)
        logits = model.query_cells(features, half_field, resolution, shift=shift)
        return {'loss': training.occupancy_loss(logits, (0.5 + depths).clamp(0, 1), self.options)}

    @torch.inference_mode()
    def score(self, network: FrustumUNet) -> tuple[float, dict[str, Any]]:
        """Return IoU at 32^3 of cells that solids reach into, by input, as `VoxelTask`."""
        labels = [self.test.labels[i] for i in self.held['shape'].tolist()]
        return training.scored(lambda with_depth: (
            self._answers(network, part, with_depth)[:2] for part in parts_of(self.held)), labels)

    def table(self, details: dict[str, Any]) -> str:
        """Return the IoU at 32^3 by input and class."""
        rows = [['all', *(details[name]['iou'] for name in training.INPUTS)]]
        rows += [[label, *(details[name]['per_category'][label] for name in training.INPUTS)]
                 for label in details['rgb']['per_category']]
        return markdown_table(['IoU', *training.INPUTS], rows)

    def _answers(
        self, network: FrustumUNet, crops: Examples, with_depth: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits and truth of the cells that are reached, and pictures."""
        generator = seeded(HELD_SEED, 0, crops['shape'].device)
        pictures, half_field, anchor = crop_inputs(crops, generator, with_depth=with_depth)
        with autocast(generator.device, arithmetic(self.options, generator.device)):
            logits = network.reached(pictures, half_field)
        return logits, live.cells_reached(self.test.fields, crops, anchor), pictures

    @torch.inference_mode()
    def sheet(self, network: FrustumUNet) -> np.ndarray:
        """Draw colour, mask, depth; front and side of the truth, and of answers without depth."""
        crops = {name: values[:SHEET_ROWS] for name, values in self.held.items()}
        size = 2 * crops['mask'].shape[-1]
        columns = [_shown(crops['color'].permute(0, 2, 3, 1)), _shown(crops['mask'])]
        for with_depth in training.INPUTS.values():
            logits, truth, pictures = self._answers(network, crops, with_depth)
            columns += [_shown(pictures[:, 4] * 0.5 + 0.5)] if with_depth else []
            for volumes in (truth, logits > 0):
                for way in (volumes, volumes.permute(0, 3, 2, 1)):  # from the front, the left
                    columns.append([relief(volume) for volume in way.cpu().numpy()])
        return np.vstack([np.hstack([
            cv2.resize(picture, (size, size), interpolation=cv2.INTER_NEAREST)
            for picture in row]) for row in zip(*columns)])


class SegmentationStudent(Student):
    """`InstanceNetwork`, taught which pixels belong to which instance."""

    kind, name, score_name = InstanceNetwork, 'segmentation', 'objects found'
    bundled = 'instances'
    model = {}
    defaults = {'batch': 32, 'chunk': 256, 'reuse': 4.0, 'validation_samples': 256,
                'learning_rate': 0.001}

    def draw(self, generator: Generator, count: int, stock: Stock) -> Examples:
        """Draw whole pictures."""
        return live.draw_scenes(stock, generator, count)

    def losses(self, model: InstanceNetwork, batch: Batch) -> dict[str, Tensor]:
        """Compare foreground, centres and offsets."""
        examples, generator = batch
        channels = live.scene_inputs(examples, generator)
        with autocast(generator.device, arithmetic(self.options, generator.device)):
            outputs = model(channels)
        return {'loss': instance_loss(outputs.float(), examples['ids'].long())}

    @torch.inference_mode()
    def score(self, network: InstanceNetwork) -> tuple[float, dict[str, Any]]:
        """Return the share of objects that are found at an IoU above 0.5."""
        counts: Counter[str] = Counter()
        for part in parts_of(self.held):
            for found, truth in zip(self._answers(network, part), part['ids'].cpu()):
                counts.update(found_share(found.numpy(), truth.numpy(), least=LEAST_SEEN))
        return counts['found'] / max(1, counts['objects']), dict(counts)

    def table(self, details: dict[str, Any]) -> str:
        """Return the numbers of objects."""
        return markdown_table(list(details), [list(details.values())])

    def _answers(self, network: InstanceNetwork, scenes: Examples) -> Tensor:
        generator = seeded(HELD_SEED, 0, scenes['ids'].device)
        channels = live.scene_inputs(scenes, generator, is_plain=True)
        with autocast(generator.device, arithmetic(self.options, generator.device)):
            outputs = network(channels)
        return group_instances(outputs.float())

    @torch.inference_mode()
    def sheet(self, network: InstanceNetwork) -> np.ndarray:
        """Draw colour, true and found instances."""
        scenes = {name: values[:SHEET_ROWS] for name, values in self.held.items()}
        rows = zip(_shown(scenes['color'].permute(0, 2, 3, 1)), scenes['ids'].cpu().numpy(),
                   self._answers(network, scenes).numpy())
        return np.vstack([np.hstack([color, _painted(truth), _painted(found)])
                          for color, truth, found in rows])


STUDENTS = {student.name: student for student in (ShapeStudent, SegmentationStudent)}


def read_student_options(kind: str, settings: Sequence[str]) -> tuple[StudentOptions, Any]:
    """
    Return how a student learns, and the shape of its network.

    :param settings: NAME=VALUE, of the network model.NAME=VALUE
    :raises OptionError: an unknown name, or a value that is not allowed
    """
    student = STUDENTS[kind]
    model = {f'model.{name}': value for name, value in student.model.items()}
    config = read_sections(None, settings, StudentOptions, lambda _: student.kind.Config,
                           defaults=student.defaults | model)
    return config.training, config.model


def parts_of(examples: Examples) -> list[Examples]:
    """Split examples into parts of `VALIDATION_BATCH`."""
    parts = [values.split(training.VALIDATION_BATCH) for values in examples.values()]
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
