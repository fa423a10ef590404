# SPDX-License-Identifier: Apache-2.0
"""
The files of a training's run, its log and its progress.

A run is a folder. Beside what was learned it holds `state.pt`, all it takes to go on, `log.jsonl`,
and TensorBoard's files where that is installed.
"""

import json
import logging
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import torch

from img2scene_ros.errors import InputError
from img2scene_ros.files import write_whole

STATE = 'state.pt'
LOG = 'log.jsonl'
# Options that may change from one session to the next without another outcome.
FREE = {'workers', 'log_every', 'save_every', 'validate_every', 'validation_samples'}

logger = logging.getLogger(__name__)


def open_run(run: Any, about: dict[str, Any], out: Path, resume: bool) -> None:
    """
    Go on with the run of a folder, or see that there is none yet.

    :param run: as `save_state`
    :param about: options and data of the training; but for `FREE` they must be as they were
    :raises InputError: a folder with a run, or one to go on with without a state, with a broken
        one, or with one of other options or data
    """
    if resume:
        _load_state(run, about, out)
    elif (out / STATE).exists():
        raise InputError(f"'{out}' holds a training already; go on with --resume or choose "
                         'another folder')


def save_state(run: Any, about: dict[str, Any], out: Path) -> None:
    """
    Save what it takes to go on.

    :param run: its attributes are numbers, or know their own state as torch's modules do
    :raises InputError: it cannot be written; the one before is still there
    """
    parts = {name: part.state_dict() if hasattr(part, 'state_dict') else part
             for name, part in vars(run).items()}
    write_whole(out / STATE, lambda file: torch.save({'about': about, 'run': parts}, file))


def _load_state(run: Any, about: dict[str, Any], out: Path) -> None:
    path = out / STATE
    try:
        state = torch.load(path, map_location='cpu', weights_only=True)
        before, parts = state['about'], state['run']
    except OSError as error:
        raise InputError(f"there is no training to resume in '{out}': cannot read {STATE} "
                         f'({error.strerror})') from error
    except Exception as error:  # torch raises all kinds
        raise InputError(f"'{path}' is no state of a training or is broken; start again without "
                         '--resume in another folder') from error
    for name in sorted(before.keys() | about.keys()):
        if name not in FREE and before.get(name) != about.get(name):
            raise InputError(
                f"'{out}' was trained with other options ({name} was {before.get(name)} and is "
                f'{about.get(name)} now); resume with the same or choose another folder')
    try:
        for name, part in parts.items():
            if hasattr(getattr(run, name), 'load_state_dict'):
                getattr(run, name).load_state_dict(part)
            else:
                setattr(run, name, part)
    except (AttributeError, KeyError, RuntimeError, ValueError) as error:
        raise InputError(f"'{path}' is of another version of the training and cannot go on; start "
                         'again in another folder with start_from') from error


@contextmanager
def open_log(
    out: Path, step: int, leads: bool,
) -> Iterator[Callable[[int, dict[str, Any]], None]]:
    """
    Yield what writes a line of values to log.jsonl and to TensorBoard.

    :param step: lines of later steps, of a session that was not saved, are dropped
    :raises InputError: the folder cannot be written
    """
    if not leads:
        yield lambda step, values: None
        return
    path = out / LOG
    try:
        out.mkdir(parents=True, exist_ok=True)
        lines = path.read_text().splitlines() if step and path.exists() else []
        kept = [line for line in lines if json.loads(line)['step'] <= step]
        path.write_text(''.join(f'{line}\n' for line in kept))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"cannot write the log '{path}': {error}") from error
    board = _tensorboard(out, step)

    def write(step: int, values: dict[str, Any]) -> None:
        try:
            with open(path, 'a') as file:
                file.write(json.dumps({'step': step, **values}) + '\n')
        except OSError as error:
            raise InputError(f"cannot write the log '{path}': {error.strerror}") from error
        for name, value in _scalars(values):
            if board:
                board.add_scalar(name, value, step)

    yield write
    if board:
        board.close()


def _scalars(values: dict[str, Any], prefix: str = '') -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _scalars(value, f'{prefix}{name}/')
        else:
            yield prefix + name, value


def _tensorboard(out: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        logger.info("TensorBoard is not installed (it is in img2scene's extra 'train'), so the "
                    'curves are in %s only', out / LOG)
        return None
    return SummaryWriter(str(out), purge_step=step + 1)


def progress_logger(
    count: int, first: int, leads: bool, unit: str,
) -> Callable[[int, float], None]:
    """
    Return what logs how far a training is, its loss and the time that is left.

    :param count: of all units, which are steps or seconds
    :param first: number of those that were done before
    """
    began = monotonic()

    def show(done: int, loss: float) -> None:
        pace = 1.0 if unit == 'second' else (monotonic() - began) / max(1, done - first)
        logger.info('%s %d of %d: loss %.4f, %.1f minutes left', unit, done, count, loss,
                    (count - done) * pace / 60)

    return show if leads else lambda done, loss: None
