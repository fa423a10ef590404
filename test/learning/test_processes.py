# SPDX-License-Identifier: Apache-2.0
"""Work that processes share: in order, ended at once by an interrupt, one sentence for a loss."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from time import sleep

import pytest

from img2scene_ros.errors import InputError
from img2scene_ros.learning.processes import shared_out

ENDLESS = '''
import signal
import sys
import time
from pathlib import Path

from img2scene_ros.learning.processes import shared_out

def work(number):
    Path(sys.argv[1], str(number)).touch()
    time.sleep(3600)

if __name__ == '__main__':
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells may have it ignored
    list(shared_out(work, range(6), 2))
'''


def halved(number: int) -> float:
    return number / 2


def ended(number: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize('jobs', (1, 2))
def test_results_come_in_order(jobs):
    assert list(shared_out(halved, range(9), jobs)) == [n / 2 for n in range(9)]


def test_a_process_that_was_ended_from_outside_is_one_sentence():
    with pytest.raises(InputError, match='--jobs'):
        list(shared_out(ended, range(2), 2))


def test_an_interrupt_ends_work_that_never_would(tmp_path):
    """As Ctrl-C: every process of the group gets the signal, once two of them are at work."""
    (tmp_path / 'endless.py').write_text(ENDLESS)
    (tmp_path / 'started').mkdir()
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / 'endless.py'), str(tmp_path / 'started')],
        stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, 'PYTHONPATH': str(Path(__file__).parents[2])})
    try:
        while len(list((tmp_path / 'started').iterdir())) < 2:
            assert process.poll() is None
            sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)
        errors = process.communicate(timeout=240)[1]
    finally:
        process.kill()
    assert errors.count('Traceback') == 1 and errors.rstrip().endswith('KeyboardInterrupt')
    assert len(list((tmp_path / 'started').iterdir())) == 2
