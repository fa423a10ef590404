# SPDX-License-Identifier: Apache-2.0
"""What tests of all trainings share: data sets, logs, and that an interrupted run goes on."""

import json
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from img2scene_ros.cli import main
from img2scene_ros.learning import loop
from img2scene_ros.learning.data_config import RenderOptions
from img2scene_ros.learning.loop import Run
from img2scene_ros.learning.samples import write_index
from img2scene_ros.learning.samples import write_shard


def write_set(folder: Path, records: Sequence[list[bytes]], **options: Any) -> Path:
    """Write a data set of one shard, rendered with options."""
    folder.mkdir(parents=True, exist_ok=True)
    write_shard(folder / 'a.npz', records)
    count = len(records)
    write_index(folder, {'shards': ['a.npz'], 'options': asdict(
        RenderOptions(samples=count, shard_samples=count, **options))})
    return folder


def log_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / 'log.jsonl').read_text().splitlines()]


def losses_of(folder: Path) -> dict[int, float]:
    return {line['step']: line['loss'] for line in log_of(folder) if 'loss' in line}


def settings_of(settings: Sequence[str]) -> list[str]:
    """Return the words that set options on the command line."""
    return [word for setting in settings for word in ('--set', setting)]


def assert_command_trains_and_resumes(
    arguments: Sequence[str], first: str, last: str, capsys: pytest.CaptureFixture[str],
) -> None:
    """
    Train for one step, and then to the end.

    :param first: what is said after the first step
    :param last: what is said after the last one
    """
    assert main([*arguments, '--minutes', '0']) == 0
    assert first in capsys.readouterr().out
    assert main([*arguments]) == 1
    assert 'holds a training already' in capsys.readouterr().err
    assert main([*arguments, '--resume']) == 0
    assert last in capsys.readouterr().out


def assert_resumes_exactly(learn: Callable[..., Run], folder: Path, last: int = 4) -> Run:
    """
    Compare a run with one that was interrupted after it had saved its state of a step.

    :param learn: takes the folder of the run, and whether to go on with it
    """
    save_state = loop.save_state

    def interrupt(run: Run, *arguments: Any) -> None:
        save_state(run, *arguments)
        if run.step == last:
            raise KeyboardInterrupt

    whole = learn(folder / 'whole')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, 'save_state', interrupt)
        with pytest.raises(KeyboardInterrupt):
            learn(folder / 'parts')
    torch.manual_seed(12345)  # whatever chance was left over from something else
    parts = learn(folder / 'parts', resume=True)
    assert log_of(folder / 'parts') == log_of(folder / 'whole')
    assert len(losses_of(folder / 'whole')) == whole.step > last
    assert parts.best == whole.best
    for name in ('network', 'average'):
        before, after = (getattr(run, name).state_dict() for run in (whole, parts))
        assert all(torch.equal(before[key], after[key]) for key in before)
    return whole
