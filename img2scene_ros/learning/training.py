# SPDX-License-Identifier: Apache-2.0
"""
Training of the voxel networks.

    img2scene train --config FILE.yaml --data TRAIN --validation TEST --out RUN

What is learned is a function of the options and the data alone: a run that was stopped and resumed
ends with the same weights as one that was not. RUN holds `model.safetensors` and `config.json`
(the moving average of the weights at its best validation), `state.pt` (what it takes to go on),
`log.jsonl`, and TensorBoard's files where it is installed. With several GPUs or machines
`torchrun` starts the processes, which share every batch.
"""

import logging
import os
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict
from dataclasses import dataclass
from math import cos
from math import isfinite
from math import pi
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor
from torch import distributed
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from img2scene_ros.devices import autocast
from img2scene_ros.errors import InputError
from img2scene_ros.errors import OptionError
from img2scene_ros.learning.dataset import TrainingExamples
from img2scene_ros.learning.dataset import ValidationExamples
from img2scene_ros.learning.dataset import positions_of
from img2scene_ros.learning.muon import Muon
from img2scene_ros.learning.runs import TrainingError
from img2scene_ros.learning.runs import move_average
from img2scene_ros.learning.runs import on_one_core
from img2scene_ros.learning.runs import open_log
from img2scene_ros.learning.runs import open_run
from img2scene_ros.learning.runs import save_state
from img2scene_ros.learning.runs import show_progress
from img2scene_ros.learning.runs import weight_groups
from img2scene_ros.learning.samples import CropSample
from img2scene_ros.learning.samples import CropSamples
from img2scene_ros.learning.training_config import TrainingConfig
from img2scene_ros.learning.training_config import TrainingOptions
from img2scene_ros.models.geometry import cell_centers
from img2scene_ros.models.networks import build_network
from img2scene_ros.models.networks import load_network
from img2scene_ros.models.networks import save_network
from img2scene_ros.models.occupancy import OccupancyNetwork
from img2scene_ros.models.resnet import load_imagenet_weights
from img2scene_ros.weights import weights_folder

STATE = 'state.pt'
LOG = 'log.jsonl'
THRESHOLDS = tuple(step / 20 for step in range(2, 15))  # .10 to .70
RESOLUTION = 32  # of the volumes that are validated
OPTIMIZERS = {'muon': Muon, 'adamw': torch.optim.AdamW, 'adam': torch.optim.Adam}
INPUTS = {'rgb': False, 'rgbd': True}  # what is validated, and whether it has depth

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Processes:
    """
    The processes that train together; without torchrun there is one.

    - rank: number of this one
    - count: of all
    - device: where this one computes
    """

    rank: int
    count: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Tell whether this process writes files and shows progress."""
        return self.rank == 0

    def mean(self, value: Tensor | float) -> float:
        """Return the mean of a number over all processes."""
        total = torch.as_tensor(value, dtype=torch.float64).detach().to(self.device, copy=True)
        if self.count > 1:
            distributed.all_reduce(total)
        return float(total) / self.count


@dataclass(eq=False)
class Run:
    """
    What changes while training, and so what is saved to go on.

    - network: what is trained
    - average: moving average of its weights, which is what gets saved and validated
    - step: number of steps done
    - best: the best score of a validation so far
    """

    network: OccupancyNetwork
    average: OccupancyNetwork
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    step: int = 0
    best: float = -1.0


def train(
    config: TrainingConfig,
    samples: Sequence[CropSample],
    out: Path,
    validation: Sequence[CropSample] | None = None,
    resume: bool = False,
    minutes: float | None = None,
) -> Run:
    """
    Train a network, or go on with it.

    :param validation: samples of other shapes; None saves the newest weights instead of the best
    :param out: folder of the run
    :param minutes: end after so long, ready to be resumed
    :raises InputError: a folder with another or a started run, samples that cannot be read, files
        that cannot be written; what was written before is then still there
    :raises OptionError: options that do not go together
    :raises TrainingError: the loss is not a number any more
    """
    end = None if minutes is None else monotonic() + 60.0 * minutes
    out = Path(out)
    check_sizes(samples, config.training)
    with join_processes() as processes:
        run = start(config, processes)
        open_run(run, about(config, samples), out, resume)
        with open_log(out, run.step, processes.leads) as log, \
                show_progress(config.training.steps, run.step, processes.leads) as show:
            for losses in steps(run, config, samples, processes, end):
                log(run.step, losses)
                show(run.step, losses['loss'])
                if processes.leads:
                    keep(run, config, samples, validation, out, log, losses['last'])
    return run


def check_sizes(samples: Sequence[CropSample], options: TrainingOptions) -> None:
    """
    Refuse crops of several sizes that shall stay as they are.

    :raises OptionError: `samples` are such
    """
    if isinstance(samples, CropSamples) and not options.size:
        sizes = sorted({rendered['size'] for rendered in samples.options})
        if len(sizes) > 1:
            raise OptionError(
                f"the data's crops have sides of {' and '.join(map(str, sizes))} pixels; choose "
                f"one for all with the option 'size', such as {sizes[0]}")


def about(config: TrainingConfig, samples: Sequence[CropSample]) -> dict[str, Any]:
    """Return what must stay the same for a run to go on."""
    return {**config.values(), 'number of samples': len(samples)}


@contextmanager
def join_processes() -> Iterator[Processes]:
    """
    Meet the other processes that torchrun started, and leave together with them.

    One that left while another still saves could end before gloo's threads let go of what they
    reduced last, which Python answers with an abort.
    """
    with_gpu = torch.cuda.is_available()
    device = torch.device('cpu')
    if with_gpu:
        device = torch.device('cuda', int(os.environ.get('LOCAL_RANK', 0)))
        torch.cuda.set_device(device)
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision('high')
    count = int(os.environ.get('WORLD_SIZE', 1))
    if count == 1:
        yield Processes(0, 1, device)
        return
    distributed.init_process_group('nccl' if with_gpu else 'gloo')
    try:
        yield Processes(distributed.get_rank(), count, device)
        distributed.barrier()
    finally:
        distributed.destroy_process_group()


def start(config: TrainingConfig, processes: Processes) -> Run:
    """
    Return a run at its first step.

    :raises InputError: weights to start from that cannot be read or are of another shape
    :raises OptionError: options that do not go together
    """
    options, device = config.training, processes.device
    if options.batch % processes.count:
        raise OptionError(f"option 'batch' is {options.batch}; {processes.count} processes cannot "
                          'share that evenly')
    torch.manual_seed(options.seed)
    network = build_network(options.network, **asdict(config.model))
    if options.start_from:
        start_from(network, weights_folder(options.start_from, 'voxel'))
    elif options.backbone_weights:
        if not hasattr(network, 'encoder'):
            raise OptionError(f"'{options.network}' has no ResNet that could start from the "
                              "option 'backbone_weights'")
        load_imagenet_weights(network.encoder, Path(options.backbone_weights))
    return Run(*to_train(network, options, device))


def to_train(
    network: nn.Module, options: TrainingOptions, device: torch.device,
) -> tuple[nn.Module, nn.Module, torch.optim.Optimizer, torch.amp.GradScaler]:
    """Put a network on the device; return it with its moving average, optimizer and scaler."""
    if options.channels_last:
        for weight in network.parameters():
            if weight.ndim == 4:
                weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    network = network.to(device)
    optimizer = OPTIMIZERS[options.optimizer](
        weight_groups(network, options.weight_decay, network.outer_layers))
    scaler = torch.amp.GradScaler(
        device.type, enabled=arithmetic(options, device) == torch.float16)
    return network, deepcopy(network).eval().requires_grad_(False), optimizer, scaler


def start_from(network: OccupancyNetwork, folder: Path) -> None:
    """
    Take over the weights of a trained network; what it lacks stays as it is.

    :param network: of the same shape, or one with further layers
    :raises InputError: it cannot be read, or its weights have no place in this one
    """
    trained = load_network(folder)
    weights, places = trained.state_dict(), network.state_dict()
    if type(trained) is not type(network) or any(
            name not in places or weight.shape != places[name].shape
            for name, weight in weights.items()):
        raise InputError(
            f"the network in '{folder}' has another shape ({trained.config}) than the one to "
            f'train ({network.config}); use the same model options')
    network.load_state_dict(weights, strict=False)


def steps(
    run: Run, config: TrainingConfig, samples: Sequence[CropSample], processes: Processes,
    end: float | None,
) -> Iterator[dict[str, Any]]:
    """
    Do the steps that are left.

    Yields whenever there is something to log, validate or save, and at the end: `loss`, the mean
    over all processes since the last time, the `learning_rate`, and whether it is the `last`.

    :raises TrainingError: the loss is not a number any more
    """
    options, device = config.training, processes.device
    examples = TrainingExamples(
        samples, config.augmentation, options.seed, options.resolution, options.size)
    loader = DataLoader(
        examples, options.batch // processes.count,
        sampler=positions_of(
            processes.rank, processes.count, options.batch, run.step, options.steps),
        num_workers=options.workers, worker_init_fn=on_one_core,
        pin_memory=device.type == 'cuda')
    model = run.network.train()
    if processes.count > 1:
        model = DistributedDataParallel(model)
    pauses = (options.log_every, options.save_every, options.validate_every)
    total, count = torch.zeros((), device=device), 0
    for batch in loader:
        # All chance depends on the step alone, so nothing of it has to be saved.
        torch.manual_seed(options.seed + options.steps * processes.rank + run.step)
        batch = [part.to(device, non_blocking=True) for part in batch]
        total += one_step(model, run, batch, options, device)
        count += 1
        last = run.step == options.steps
        if end is not None:
            last = last or processes.mean(float(monotonic() > end)) > 0
        if last or any(run.step % pause == 0 for pause in pauses):
            loss = processes.mean(total / count)
            if not isfinite(loss):
                raise TrainingError(
                    f'the loss is not a number any more at step {run.step}; start again with a '
                    'smaller learning_rate or with precision=fp32')
            rate = learning_rate(run.step - 1, options)
            yield {'loss': loss, 'learning_rate': rate, 'last': last}
            total, count = torch.zeros((), device=device), 0
        if last:
            return


def one_step(
    model: nn.Module, run: Run, batch: list[Tensor], options: TrainingOptions,
    device: torch.device,
) -> Tensor:
    """
    Change the weights once.

    :param batch: pictures (B, 6, S, S), half fields (B,), occupancies (B, R, R, R)
    :return: the loss, ()
    """
    pictures, half_field, occupancy = batch
    if options.channels_last:
        pictures = pictures.contiguous(memory_format=torch.channels_last)
    points = None
    if options.cells:
        chosen = torch.randperm(options.resolution ** 3, device=device)[:options.cells]
        points = cell_centers(options.resolution, device)[chosen]
        occupancy = occupancy.flatten(1)[:, chosen]
    with autocast(device, arithmetic(options, device)):
        logits = model(pictures, half_field, options.resolution, points=points)
    loss = occupancy_loss(logits, occupancy.float(), options)
    descend(run, loss, learning_rate(run.step, options), options)
    return loss.detach()


def descend(run: Run, loss: Tensor, rate: float, options: TrainingOptions) -> None:
    """Change the weights once, and their moving average."""
    for group in run.optimizer.param_groups:
        group['lr'] = rate
    run.optimizer.zero_grad(set_to_none=True)
    run.scaler.scale(loss).backward()
    if options.clip:
        run.scaler.unscale_(run.optimizer)
        nn.utils.clip_grad_norm_(run.network.parameters(), options.clip)
    run.scaler.step(run.optimizer)
    run.scaler.update()
    run.step += 1
    move_average(run.average, run.network, run.step, options.average)


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


def learning_rate(step: int, options: TrainingOptions) -> float:
    """Return the rate of a step: a linear warm-up, then a cosine down to 0."""
    rise = max(1.0, options.warm_up * options.steps)
    if step < rise:
        return options.learning_rate * (step + 1) / (rise + 1)
    done = (step - rise) / max(1.0, options.steps - rise)
    return options.learning_rate * 0.5 * (1.0 + cos(pi * min(done, 1.0)))


def arithmetic(options: TrainingOptions, device: torch.device) -> torch.dtype:
    """
    Return the type that convolutions and products are computed in.

    :raises OptionError: fp16 without a GPU
    """
    if options.precision == 'fp16' and device.type == 'cpu':
        raise OptionError("precision 'fp16' needs a GPU; a CPU takes bf16 or fp32")
    if options.precision == 'auto':
        if device.type == 'cpu':
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}[
        options.precision]


def keep(
    run: Run, config: TrainingConfig, samples: Sequence[CropSample],
    validation: Sequence[CropSample] | None, out: Path, log: Callable[[int, dict], None],
    is_last: bool,
) -> None:
    """
    Validate and save, whatever is due.

    :raises InputError: a file cannot be written; the one before is still there
    """
    options = config.training
    card = {
        'step': run.step, 'training': config.values(), 'samples': len(samples),
        'picture_size': options.size or len(samples[0].crop.mask)}
    if isinstance(samples, CropSamples):  # which shapes were not trained on
        card['split'] = samples.split
    saves = is_last or run.step % options.save_every == 0
    if validation is not None and (is_last or run.step % options.validate_every == 0):
        scores = validate(run.average, validation, options)
        log(run.step, scores)
        score = float(np.mean([scores[name]['iou'] for name in INPUTS]))
        logger.info('step %d: IoU %s', run.step, ', '.join(
            f"{scores[name]['iou']:.3f} {name}" for name in INPUTS))
        if score > run.best:
            run.best = score
            save_network(run.average, out, {**card, 'validation': scores})
    elif validation is None and saves:
        save_network(run.average, out, card)
    if saves:
        save_state(run, about(config, samples), out)


def validate(
    network: OccupancyNetwork, samples: Sequence[CropSample], options: TrainingOptions,
) -> dict[str, dict[str, Any]]:
    """
    Score a network at 32^3, from colour and mask, and from those and noisy depth.

    :return: for 'rgb' and 'rgbd': `iou`, the mean at the best `threshold`, `per_threshold` and
        `per_category`
    """
    device = next(network.parameters()).device
    numbers = np.linspace(
        0, len(samples) - 1, min(options.validation_samples, len(samples))).astype(int).tolist()
    dtype = arithmetic(options, device)
    scores = {}
    for name, with_depth in INPUTS.items():
        examples = ValidationExamples(samples, numbers, with_depth, RESOLUTION, options.size)
        ious, labels = [], []
        for pictures, half_field, occupancy, names in DataLoader(
                examples, min(64, options.batch), num_workers=options.workers,
                worker_init_fn=on_one_core):
            with torch.inference_mode(), autocast(device, dtype):
                logits = network.reached(
                    pictures.to(device), half_field.to(device), RESOLUTION)
            ious.append(threshold_ious(logits, occupancy.to(device)).cpu())
            labels += names
        scores[name] = summary(torch.cat(ious).numpy(), labels)
    return scores


def threshold_ious(logits: Tensor, occupancy: Tensor) -> Tensor:
    """
    Return the intersection over union of every sample at every one of THRESHOLDS.

    :param logits: (B, R, R, R)
    :param occupancy: (B, R, R, R) bool
    :return: (B, T)
    """
    filled, occupancy = logits.sigmoid().flatten(1), occupancy.flatten(1)
    scores = []
    for threshold in THRESHOLDS:
        full = filled > threshold
        union = (full | occupancy).sum(1)
        scores.append((full & occupancy).sum(1) / union.clamp(min=1))
    return torch.stack(scores, dim=1)


def summary(ious: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
    """Summarize the scores of N samples at T thresholds, (N, T)."""
    means = ious.mean(axis=0)
    best = int(means.argmax())
    of_label = np.array(labels)
    return {
        'iou': float(means[best]), 'threshold': THRESHOLDS[best],
        'per_threshold': dict(zip(map(str, THRESHOLDS), means.tolist())),
        'per_category': {label: float(ious[of_label == label, best].mean())
                         for label in sorted(set(labels))}}
