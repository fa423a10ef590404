# SPDX-License-Identifier: Apache-2.0
"""The benchmark's table."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from synthetic import GEOMETRIC

from img2scene_ros.benchmark import accuracy
from img2scene_ros.benchmark import bench
from img2scene_ros.cli import main
from img2scene_ros.io.frames import open_frames
from img2scene_ros.pipeline import Pipeline
from img2scene_ros.pipeline import parse_settings
from img2scene_ros.types import Frame


@pytest.mark.slow
def test_a_row_per_frame(frames_folder: Path) -> None:
    """Frames with truth get their accuracy, the others do not."""
    frames = [files for name in ('table_pepper_can', 'ycb_3')
              for files in open_frames(frames_folder / name)]
    table = bench(frames, GEOMETRIC, repeats=1)
    with_truth, without = ([cell.strip() for cell in line.split('|')[1:-1]]
                           for line in table.splitlines()[-2:])
    assert with_truth[:3] == ['table_pepper_can', '1', '1'] and float(with_truth[5]) > 0.85
    assert without[:3] == ['ycb_3', '3', '3'] and without[5:] == ['', '', '']


@pytest.mark.slow
def test_another_reconstructor(frames_folder: Path) -> None:
    """What is set is what is measured: boxes have other silhouettes."""
    frames = open_frames(frames_folder / 'table_pepper_can')
    rows = [bench(frames, GEOMETRIC | {'reconstructor': name}, repeats=1).splitlines()[-1]
            for name in ('box', 'depth_shell')]
    box, shell = (float(row.split('|')[7]) for row in rows)
    assert box != shell


def test_the_sensors_noise_counts(frames_folder: Path) -> None:
    """Nothing stands out of the noise of a very bad depth camera."""
    row = bench(open_frames(frames_folder / 'table_pepper_can'), repeats=1, settings=GEOMETRIC | {
        'depth_noise.model': 'time_of_flight', 'depth_noise.constant': 1.0}).splitlines()[-1]
    assert row.split('|')[2].strip() == '0'


def test_frames_of_a_data_set(frames_folder: Path, tmp_path: Path) -> None:
    """Which are several in a folder, each with its depth image elsewhere."""
    for place, name in (('rgb', 'color.png'), ('depth', 'depth.png')):
        (tmp_path / place).mkdir()
        for i in range(2):
            shutil.copy(frames_folder / 'table_pepper_can' / name, tmp_path / place / f'{i}.png')
    assert main(['bench', str(tmp_path), '--set', 'detector=tabletop', '--set',
                 'reconstructor=box']) == 0


def test_accuracy_falls_when_the_object_is_elsewhere(
    recorded: Callable[[str], Frame], frames_folder: Path,
) -> None:
    """A mesh that is moved aside does not cover the silhouette any more."""
    name = 'table_pepper_can'
    frame = recorded(name)
    found, = Pipeline(*parse_settings(GEOMETRIC)).run(frame).objects
    right = accuracy(frames_folder / name, frame, [found])
    moved = replace(found, position=found.position + np.array([0.02, 0, 0]))
    wrong = accuracy(frames_folder / name, frame, [moved])
    assert right.silhouette_iou > 0.85 > wrong.silhouette_iou
    assert right.height_error == pytest.approx(0.0, abs=0.005)
    assert accuracy(frames_folder / 'ycb_3', frame, [found]) is None


def test_objects_without_a_mask_are_measured_by_their_box(
    recorded: Callable[[str], Frame], frames_folder: Path,
) -> None:
    """The object that fills most of the truth is still the one that is taken."""
    name = 'table_pepper_can'
    frame = recorded(name)
    found, = Pipeline(*parse_settings(GEOMETRIC)).run(frame).objects
    bare = replace(found, detection=replace(found.detection, mask=None))
    aside = replace(bare, detection=replace(bare.detection, bbox=np.array([0.0, 0.0, 50.0, 50.0])))
    expected = accuracy(frames_folder / name, frame, [found])
    assert accuracy(frames_folder / name, frame, [aside, bare]) == expected
