# SPDX-License-Identifier: Apache-2.0
"""
The loop of all trainings: by steps or by the clock, resumed exactly, shared by processes.

What is trained is a `Task`. By steps, what is learned is a function of the options and the data
alone: a run that was stopped and resumed ends with the same weights as one that was not. With
several GPUs or machines `torchrun` starts the processes, which share every batch.
"""

import logging
import os
from abc import ABC
from abc import abstractmethod
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import AbstractContextManager
from contextlib import contextmanager
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from time import monotonic
from typing import Any

import cv2
import torch
from torch import Tensor
from torch import distributed
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from img2scene_ros.errors import Img2SceneError
from img2scene_ros.errors import OptionError
from img2scene_ros.learning.muon import Muon
from img2scene_ros.learning.runs import open_log
from img2scene_ros.learning.runs import open_run
from img2scene_ros.learning.runs import progress_logger
from img2scene_ros.learning.runs import save_state
from img2scene_ros.learning.training_config import RunOptions

OPTIMIZERS = {'muon': Muon, 'adamw': torch.optim.AdamW, 'adam': torch.optim.Adam}

logger = logging.getLogger(__name__)


class TrainingError(Img2SceneError):
    """A training that cannot go on."""


@dataclass(frozen=True)
class Processes:
    """The processes that train together; without torchrun there is one."""

    rank: int  # number of this one
    count: int  # of all
    device: torch.device  # where this one computes

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


@dataclass(eq=False)
class Run:
    """What changes while training, and so what is saved to go on."""

    network: nn.Module  # what is trained
    average: nn.Module  # moving average of its weights, which is what gets saved and validated
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    step: int = 0  # number of steps done
    seconds: float = 0.0  # spent so far
    best: float = -1.0  # the best score of a validation so far


class Task(ABC):
    """What is trained, by what, and how good it is."""

    options: RunOptions  # of the training
    optimizer: str = 'adamw'  # one of `OPTIMIZERS`
    score_name: str  # what `score` counts
    # of the whole training, earlier sessions included; None goes by steps
    seconds: float | None = None
    # whether there is something to validate with; else the newest weights are saved
    is_scored: bool = True

    def done(self, run: Run) -> float:
        """Return which share of the training is done, 0 to 1."""
        if self.seconds is None:
            return min(1.0, run.step / self.options.steps)
        return min(1.0, run.seconds / max(self.seconds, 1e-9))

    @abstractmethod
    def build(self, device: torch.device) -> nn.Module:
        """Return the network at its first step, on its device."""

    @abstractmethod
    def about(self) -> dict[str, Any]:
        """Return what must stay the same for a run to go on; it is asked for after `build`."""

    @abstractmethod
    def batches(self, run: Run, processes: Processes) -> Iterator[Any]:
        """Yield what each step learns from, from `run.step` on until all is done."""

    @abstractmethod
    def losses(self, model: nn.Module, batch: Any) -> dict[str, Tensor]:
        """Return the `loss` of a batch and parts of it worth a line in the log, () each."""

    @abstractmethod
    def score(self, network: nn.Module) -> tuple[float, dict[str, Any]]:
        """Return how good a network is, greater is better, and what the log says of it."""

    @abstractmethod
    def save(self, run: Run, out: Path, scores: dict[str, Any]) -> None:
        """
        Write the average; `scores` are what the log says of it.

        :raises InputError: a file cannot be written; the one before is still there
        """


def carry_out(
    task: Task, out: Path, resume: bool = False, minutes: float | None = None,
    device: torch.device | None = None,
) -> Run:
    """
    Train, or go on with it.

    :param out: folder of the run
    :param minutes: end after so long, ready to be resumed
    :param device: None shares the work with the processes of torchrun
    :raises InputError: a folder with another or a started run, data that cannot be read, files
        that cannot be written; what was written before is then still there
    :raises OptionError: options that do not go together
    :raises TrainingError: the loss is not a number any more
    """
    began = monotonic()
    torch.backends.cudnn.benchmark = True
    joined: AbstractContextManager[Processes] = \
        join_processes() if device is None else nullcontext(Processes(0, 1, device))
    with joined as processes:
        run = start(task, processes)
        open_run(run, task.about(), out, resume)
        count, unit = (task.options.steps, 'step') if task.seconds is None else \
            (round(task.seconds), 'second')
        show = progress_logger(count, round(task.done(run) * count), processes.leads, unit)
        with open_log(out, run.step, processes.leads) as log:
            for values, is_last in steps(task, run, processes, began, minutes):
                log(run.step, values)
                show(round(task.done(run) * count), values['loss'])
                if processes.leads:
                    keep(task, run, out, log, is_last)
    return run


def start(task: Task, processes: Processes) -> Run:
    """
    Return a run at its first step.

    :raises InputError: weights to start from that cannot be read or are of another shape
    :raises OptionError: options that do not go together
    """
    options, device = task.options, processes.device
    if options.batch % processes.count:
        raise OptionError(f"option 'batch' is {options.batch}; {processes.count} processes cannot "
                          'share that evenly')
    scaler = torch.amp.GradScaler(
        device.type, enabled=arithmetic(options, device) == torch.float16)
    torch.manual_seed(options.seed)
    network = task.build(device)
    optimizer = OPTIMIZERS[task.optimizer](weight_groups(
        network, options.weight_decay, getattr(network, 'outer_layers', ())))
    return Run(network, deepcopy(network).eval().requires_grad_(False), optimizer, scaler)


def weight_groups(
    network: nn.Module, decay: float, outer_layers: tuple[str, ...] = (),
) -> list[dict[str, Any]]:
    """
    Return an optimizer's groups: weight decay is for matrices and filters only.

    :param outer_layers: names of the layers that read inputs or give answers; the matrices and
        filters of all others are `hidden`, which `Muon` tells apart
    """
    matrices = {name: w for name, w in network.named_parameters() if w.ndim > 1}
    hidden = {name: w for name, w in matrices.items() if not name.startswith(outer_layers)}
    outer = [w for name, w in matrices.items() if name not in hidden]
    return [{'params': list(hidden.values()), 'weight_decay': decay, 'hidden': True},
            {'params': outer, 'weight_decay': decay, 'hidden': False},
            {'params': [w for w in network.parameters() if w.ndim <= 1], 'weight_decay': 0.0,
             'hidden': False}]


def arithmetic(options: RunOptions, device: torch.device) -> torch.dtype:
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


def steps(
    task: Task, run: Run, processes: Processes, began: float, minutes: float | None,
) -> Iterator[tuple[dict[str, float], bool]]:
    """
    Do the steps that are left.

    Yields whenever there is something to log, validate or save, and at the end: the losses, means
    over all processes since the last time, with the `learning_rate` (and the `seconds` that the
    schedule follows), and whether it is the last time.

    :raises TrainingError: the loss is not a number any more
    """
    options, before = task.options, run.seconds
    model = run.network.train()
    if processes.count > 1:
        model = DistributedDataParallel(model)
    pauses = (options.log_every, options.save_every, options.validate_every)
    totals: dict[str, Tensor] = {}
    count = 0
    for batch in task.batches(run, processes):
        # All chance depends on the step alone, so nothing of it has to be saved.
        torch.manual_seed(options.seed + options.steps * processes.rank + run.step)
        losses = task.losses(model, batch)
        rate = options.rate(run.step, task.done(run))
        descend(run, losses['loss'], rate, options)
        totals = {name: loss.detach() + totals.get(name, 0.0) for name, loss in losses.items()}
        count += 1
        run.seconds = before + monotonic() - began
        is_last = task.done(run) >= 1.0
        if minutes is not None:
            over = run.seconds - before > 60.0 * minutes
            is_last = is_last or processes.mean(float(over)) > 0
        if is_last or any(run.step % pause == 0 for pause in pauses):
            values = {name: processes.mean(total / count) for name, total in totals.items()}
            if not isfinite(values['loss']):
                raise TrainingError(
                    f'the loss is not a number any more at step {run.step}; start again with a '
                    'smaller learning_rate or with precision=fp32')
            clock = {} if task.seconds is None else {'seconds': run.seconds}
            yield {**values, 'learning_rate': rate, **clock}, is_last
            totals, count = {}, 0
        if is_last:
            return


def descend(run: Run, loss: Tensor, rate: float, options: RunOptions) -> None:
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


@torch.no_grad()
def move_average(average: nn.Module, network: nn.Module, step: int, decay: float) -> None:
    """Move the average towards the weights; faster at the start. Statistics are copied."""
    decay = min(decay, (1.0 + step) / (10.0 + step))
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1.0 - decay)
    for kept, new in zip(average.buffers(), network.buffers()):
        kept.copy_(new)


def keep(
    task: Task, run: Run, out: Path, log: Callable[[int, dict], None], is_last: bool,
) -> None:
    """
    Validate and save, whatever is due.

    :raises InputError: a file cannot be written; the one before is still there
    """
    options = task.options
    saves = is_last or run.step % options.save_every == 0
    if task.is_scored and (is_last or run.step % options.validate_every == 0):
        score, details = task.score(run.average)
        log(run.step, details)
        logger.info('step %d: %s %.3f', run.step, task.score_name, score)
        if score > run.best:
            run.best = score
            task.save(run, out, details)
    elif not task.is_scored and saves:
        task.save(run, out, {})
    if saves:
        save_state(run, task.about(), out)


def on_one_core(_: int) -> None:
    """Set a worker up: there are as many of them as shall work at once."""
    cv2.setNumThreads(1)
