# SPDX-License-Identifier: Apache-2.0
"""The demo, as a newcomer runs it: real processes, real DDS."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic
from time import sleep

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy')


FRAMES = Path(__file__).resolve().parents[2] / 'data/frames'


def command(frames: Path, out: Path) -> list[str]:
    return [sys.executable, '-m', 'img2scene_ros.cli', 'demo',
            '--frames', str(frames), '--out', str(out)]


def demo(frames: Path, out: Path) -> subprocess.CompletedProcess:
    return subprocess.run(command(frames, out), capture_output=True, text=True)


def leftovers(frames: Path) -> list[str]:
    """Return the command lines of processes that still play the frames."""
    found = []
    for path in Path('/proc').glob('[0-9]*/cmdline'):
        try:
            command = path.read_bytes().replace(b'\0', b' ').decode(errors='replace')
        except OSError:
            continue
        if str(frames) in command and '_node' in command:
            found.append(command)
    return found


def test_demo_saves_the_scene_and_ends_its_processes(tmp_path):
    frames = tmp_path / 'frames' / 'bottle'
    shutil.copytree(FRAMES / 'table_mustard_bottle', frames)
    result = demo(frames, tmp_path / 'demo')
    assert result.returncode == 0, result.stderr
    summary = json.loads((tmp_path / 'demo/objects.json').read_text())
    assert [item['reconstructor'] for item in summary['objects']] == (
        ['voxel'] * len(summary['objects']))
    assert summary['objects'] and summary['stamp'] > 0
    assert cv2.imread(str(tmp_path / 'demo/scene.png')) is not None
    assert f"{len(summary['objects'])} objects have been seen and rebuilt" in result.stdout
    assert f'{tmp_path}/demo/scene.png' in result.stdout
    assert not leftovers(frames)


def test_demo_tells_why_a_node_has_ended(tmp_path):
    frames = tmp_path / 'frames'
    shutil.copytree(FRAMES / 'table_mustard_bottle', frames)
    cv2.imwrite(str(frames / 'depth.png'), np.zeros((10, 10), np.uint16))
    result = demo(frames, tmp_path / 'demo')
    assert result.returncode == 1
    assert 'replay_node' in result.stderr
    assert '10x10' in result.stderr, 'the last lines of its log'
    assert 'Traceback' not in result.stderr
    assert not (tmp_path / 'demo').exists()
    assert not leftovers(frames)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_demo_that_is_interrupted_ends_quietly_with_its_processes(tmp_path, number):
    frames = tmp_path / 'frames'
    shutil.copytree(FRAMES / 'table_mustard_bottle', frames)
    process = subprocess.Popen(
        command(frames, tmp_path / 'demo'), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True)
    assert 'playing' in process.stdout.readline()
    deadline = monotonic() + 60
    while len(leftovers(frames)) < 1 and monotonic() < deadline:
        sleep(0.1)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, '')
    assert not leftovers(frames)
