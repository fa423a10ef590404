# SPDX-License-Identifier: Apache-2.0
"""Work that several processes share."""

import signal
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children
from multiprocessing import get_context
from typing import TypeVar

import cv2

from img2scene_ros.errors import InputError

Item = TypeVar('Item')
Result = TypeVar('Result')


def shared_out(
    work: Callable[[Item], Result], items: Sequence[Item], jobs: int,
) -> Iterator[Result]:
    """
    Yield what work returns for each item, in order.

    :param work: can be pickled, as the items and what it returns
    :param jobs: processes; an interrupt ends them, too
    :raises InputError: a process was ended from outside
    """
    if min(jobs, len(items)) <= 1:
        yield from map(work, items)
        return
    # Spawned, since neither Open3D's threads nor those of a progress bar survive a fork.
    with ProcessPoolExecutor(
            min(jobs, len(items)), get_context('spawn'), _start_worker) as pool:
        try:
            for future in [pool.submit(work, item) for item in items]:
                yield future.result()
        except BrokenProcessPool as error:
            raise InputError(
                'a worker process was ended from outside, most often for want of memory; run the '
                'command again with a smaller --jobs, it goes on where it ended') from error
        except BaseException:  # an interrupt, too: else what is queued would be done first
            for process in active_children():
                process.terminate()
            raise


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it, without a traceback
    cv2.setNumThreads(1)
