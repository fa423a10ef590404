# SPDX-License-Identifier: Apache-2.0
"""Training of the voxel networks, `img2scene train`; docs/learning.md says what a run holds."""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Generator
from torch import Tensor
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.data import default_collate

from img2scene_ros.devices import autocast
from img2scene_ros.errors import InputError
from img2scene_ros.errors import OptionError
from img2scene_ros.learning import loop
from img2scene_ros.learning.augmentation import Examples
from img2scene_ros.learning.augmentation import crop_inputs
from img2scene_ros.learning.augmentation import mirrored
from img2scene_ros.learning.augmentation import occupancy_at
from img2scene_ros.learning.dataset import TrainingExamples
from img2scene_ros.learning.dataset import positions_of
from img2scene_ros.learning.dataset import resized
from img2scene_ros.learning.dataset import tensors_of
from img2scene_ros.learning.metrics import THRESHOLDS
from img2scene_ros.learning.metrics import voxel_iou
from img2scene_ros.learning.samples import CropSample
from img2scene_ros.learning.samples import CropSamples
from img2scene_ros.learning.samples import evenly
from img2scene_ros.learning.training_config import TrainingConfig
from img2scene_ros.learning.training_config import TrainingOptions
from img2scene_ros.models.backbone import load_imagenet_weights
from img2scene_ros.models.geometry import cell_centers
from img2scene_ros.models.networks import build_network
from img2scene_ros.models.networks import load_network
from img2scene_ros.models.networks import save_network
from img2scene_ros.models.occupancy import OccupancyNetwork
from img2scene_ros.weights import weights_folder

RESOLUTION = 32  # of the volumes that are validated
VALIDATION_BATCH = 32
INPUTS = {'rgb': False, 'rgbd': True}  # what is validated, and whether it has depth


class VoxelTask(loop.Task):
    """
    Occupancies of crops, scored by their IoU.

    :param validation: samples of other shapes; None saves the newest weights instead of the best
    :raises OptionError: crops of several sizes that shall stay as they are
    """

    score_name = 'IoU'

    def __init__(
        self, config: TrainingConfig, samples: Sequence[CropSample],
        validation: Sequence[CropSample] | None,
    ) -> None:
        self.config = config
        self.options: TrainingOptions = config.training
        self.optimizer = self.options.optimizer
        self.samples = samples
        self.validation = validation
        self.is_scored = validation is not None
        if isinstance(samples, CropSamples) and not self.options.size:
            sizes = sorted({rendered['size'] for rendered in samples.options})
            if len(sizes) > 1:
                raise OptionError(
                    f"the data's crops have sides of {' and '.join(map(str, sizes))} pixels; "
                    f"choose one for all with the option 'size', such as {sizes[0]}")

    def about(self) -> dict[str, Any]:
        """As `Task`."""
        return {**self.config.values(), 'number of samples': len(self.samples)}

    def build(self, device: torch.device) -> nn.Module:
        """As `Task`."""
        options, self.device = self.options, device
        network = build_network(options.network, **asdict(self.config.model))
        if options.start_from:
            start_from(network, weights_folder(options.start_from, 'voxel'))
        elif options.backbone_weights:
            if not hasattr(network, 'encoder'):
                raise OptionError(f"'{options.network}' has no ResNet that could start from the "
                                  "option 'backbone_weights'")
            load_imagenet_weights(network.encoder, Path(options.backbone_weights))
        return placed(network, device, options.channels_last)

    def batches(self, run: loop.Run, processes: loop.Processes) -> Iterator[Examples]:
        """Yield crops and their solids."""
        options = self.options
        yield from DataLoader(
            TrainingExamples(self.samples, options.seed, options.size),
            options.batch // processes.count,
            sampler=positions_of(
                processes.rank, processes.count, options.batch, run.step, options.steps),
            num_workers=options.workers, worker_init_fn=loop.on_one_core,
            pin_memory=self.device.type == 'cuda')

    def losses(self, model: nn.Module, batch: Examples) -> dict[str, Tensor]:
        """Change crops and compare what is answered with their solids."""
        options, device, changes = self.options, self.device, self.config.augmentation
        generator = Generator(device).manual_seed(torch.initial_seed())  # that of the step
        crops = {name: part.to(device, non_blocking=True) for name, part in batch.items()}
        flipped = torch.rand(len(crops['mask']), device=device, generator=generator)
        crops = mirrored(crops, flipped < changes.flip)
        pictures, half_field, anchor = crop_inputs(crops, generator, changes)
        occupancy = occupancy_at(crops, anchor, options.resolution)
        if options.channels_last:
            pictures = pictures.contiguous(memory_format=torch.channels_last)
        points = None
        if options.cells:
            chosen = torch.randperm(options.resolution ** 3, device=device)[:options.cells]
            points = cell_centers(options.resolution, device)[chosen]
            occupancy = occupancy.flatten(1)[:, chosen]
        with autocast(device, loop.arithmetic(options, device)):
            logits = model(pictures, half_field, options.resolution, points=points)
        return {'loss': occupancy_loss(logits, occupancy.float(), options)}

    @torch.inference_mode()
    def score(self, network: OccupancyNetwork) -> tuple[float, dict[str, Any]]:
        """
        Score a network at 32^3, from colour and mask, and from those and noisy depth.

        :return: the mean IoU, and for 'rgb' and 'rgbd' the `summary`
        """
        options, samples = self.options, self.validation
        assert samples is not None  # as `is_scored`
        numbers = evenly(len(samples), options.validation_samples)
        labels = [samples[number].truth.label for number in numbers]

        def answers(with_depth: bool) -> Iterator[tuple[Tensor, Tensor]]:
            for first in range(0, len(numbers), VALIDATION_BATCH):
                part = [samples[number] for number in numbers[first:first + VALIDATION_BATCH]]
                crops = default_collate([
                    tensors_of(replace(one, crop=resized(one.crop, options.size)))
                    for one in part])
                crops = {name: part.to(self.device) for name, part in crops.items()}
                generator = Generator(self.device).manual_seed(first)
                pictures, half_field, anchor = crop_inputs(
                    crops, generator, with_depth=with_depth)
                with autocast(self.device, loop.arithmetic(options, self.device)):
                    logits = network.reached(pictures, half_field, RESOLUTION)
                yield logits, occupancy_at(crops, anchor, RESOLUTION)

        return scored(answers, labels)

    def save(self, run: loop.Run, out: Path, scores: dict[str, Any]) -> None:
        """As `Task`."""
        card = {
            'step': run.step, 'training': self.config.values(), 'samples': len(self.samples),
            'picture_size': self.options.size or len(self.samples[0].crop.mask)}
        if isinstance(self.samples, CropSamples):  # which shapes were not trained on
            card['split'] = self.samples.split
        if scores:
            card['validation'] = scores
        save_network(run.average, out, card)


def placed(network: nn.Module, device: torch.device, channels_last: bool = True) -> nn.Module:
    """Put a network on a device; most are faster with the channels of filters last in memory."""
    if channels_last:
        for weight in network.parameters():
            if weight.ndim == 4:
                weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    return network.to(device)


def start_from(network: nn.Module, folder: Path) -> None:
    """
    Take over the weights of a trained network; what it lacks stays as it is.

    :param network: of the same shape, or one with further layers
    :raises InputError: it cannot be read, or its weights have no place in this one
    """
    trained = load_network(folder, nn.Module)
    weights, places = trained.state_dict(), network.state_dict()
    if type(trained) is not type(network) or any(
            name not in places or weight.shape != places[name].shape
            for name, weight in weights.items()):
        raise InputError(
            f"the network in '{folder}' has another shape ({trained.config}) than the one to "
            f'train ({network.config}); use the same model options')
    network.load_state_dict(weights, strict=False)


def occupancy_loss(logits: Tensor, occupancy: Tensor, options: TrainingOptions) -> Tensor:
    """
    Return the weighted sum of the cross-entropy and 1 - soft Dice, ().

    Soft Dice of every sample (Milletari et al., V-Net, 3DV 2016) keeps what little is full from
    being outvoted by what is empty. 1 cell is added above and below, for volumes without any.

    :param logits: (B, R, R, R), or (B, N) of some cells
    :param occupancy: of the same shape, 0 or 1
    """
    balance = logits.new_tensor(options.full_cells)
    entropy = functional.binary_cross_entropy_with_logits(logits, occupancy, pos_weight=balance)
    filled, occupancy = logits.sigmoid().flatten(1), occupancy.flatten(1)
    overlap = 2.0 * (filled * occupancy).sum(1) + 1.0
    dice = overlap / (filled.sum(1) + occupancy.sum(1) + 1.0)
    return options.bce * entropy + options.dice * (1.0 - dice).mean()


def scored(
    answers: Callable[[bool], Iterable[tuple[Tensor, Tensor]]], labels: Sequence[str],
) -> tuple[float, dict[str, Any]]:
    """
    Score what is answered to all `INPUTS`.

    :param answers: takes whether there is depth to logits and truths of all samples, in parts of
        (B, R, R, R) each
    :param labels: of the samples
    :return: the mean IoU, and for every input its `summary`
    """
    scores = {
        name: summary([
            voxel_iou(filled, solid, THRESHOLDS)
            for logits, truth in answers(with_depth)
            for filled, solid in zip(logits.sigmoid().cpu().numpy(), truth.cpu().numpy())], labels)
        for name, with_depth in INPUTS.items()}
    return float(np.mean([scores[name]['iou'] for name in INPUTS])), scores


def summary(scores: Sequence[np.ndarray], labels: Sequence[str]) -> dict[str, Any]:
    """Summarize the IoUs of N samples at every one of THRESHOLDS, (T,) each."""
    ious = np.array(scores)
    means = ious.mean(axis=0)
    best = int(means.argmax())
    of_label = np.array(labels)
    return {
        'iou': float(means[best]), 'threshold': float(THRESHOLDS[best]),
        'per_threshold': dict(zip(map(str, THRESHOLDS), means.tolist())),
        'per_category': {label: float(ious[of_label == label, best].mean())
                         for label in sorted(set(labels))}}
