# SPDX-License-Identifier: Apache-2.0
"""Frames: real files in, metres out, and one sentence for whatever does not fit."""

import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from img2scene_ros.depth import DepthNoise
from img2scene_ros.errors import InputError
from img2scene_ros.errors import OptionError
from img2scene_ros.io.calibrations import read_calibration
from img2scene_ros.io.frames import load_frame
from img2scene_ros.io.frames import open_frames
from img2scene_ros.io.layouts import find_frames

NAMES = ['table_blue_mug', 'ycb_1', 'ycb_3']


@pytest.fixture
def folder(tmp_path: Path, frames_folder: Path) -> Path:
    """Return a copy of a frame folder that a test may damage."""
    return shutil.copytree(frames_folder / 'table_blue_mug', tmp_path / 'frame')


@pytest.mark.parametrize('name', NAMES)
def test_reads_the_recorded_frames(name, frames_folder, recorded):
    frame = recorded(name)
    millimetres = cv2.imread(str(frames_folder / name / 'depth.png'), cv2.IMREAD_UNCHANGED)
    assert frame.shape == millimetres.shape == (480, 640)
    np.testing.assert_array_equal(np.isnan(frame.depth), millimetres == 0)
    np.testing.assert_allclose(
        np.nan_to_num(frame.depth) * 1000, millimetres, atol=1e-3)
    values = json.loads((frames_folder / name / 'camera.json').read_text())
    np.testing.assert_array_equal(frame.camera.matrix, values['K'])
    assert frame.has_depth


def test_reads_colors_as_rgb(tmp_path):
    red = np.zeros((3, 4, 3), np.uint8)
    red[..., 0] = 255
    cv2.imwrite(str(tmp_path / 'red.png'), cv2.cvtColor(red, cv2.COLOR_RGB2BGR))
    np.testing.assert_array_equal(load_frame(tmp_path / 'red.png').color, red)


@pytest.mark.parametrize('size', [(6, 8), (3, 4)])
def test_large_frames_are_scaled_down_with_camera_and_depth(size, tmp_path, monkeypatch):
    monkeypatch.setattr('img2scene_ros.io.frames.MAX_SIDE', 4)
    depth = np.full(size, 1000, np.uint16)
    depth[:, size[1] // 2:] = 2000
    cv2.imwrite(str(tmp_path / 'color.png'), np.full((6, 8, 3), 90, np.uint8))
    cv2.imwrite(str(tmp_path / 'depth.png'), depth)
    (tmp_path / 'k.txt').write_text('8 8 3.5 2.5')
    frame = load_frame(tmp_path)
    assert frame.shape == (3, 4)
    assert (frame.camera.fx, frame.camera.cx, frame.camera.cy) == (4.0, 1.5, 1.0)
    np.testing.assert_allclose(frame.depth, np.tile([1.0, 1.0, 2.0, 2.0], (3, 1)))


def test_a_grey_picture_of_16_bits_has_depth_beside_it(tmp_path):
    cv2.imwrite(str(tmp_path / 'color.png'), np.full((3, 4), 0x7F80, np.uint16))
    cv2.imwrite(str(tmp_path / 'depth.png'), np.full((3, 4), 1000, np.uint16))
    assert (load_frame(tmp_path).color == 0x7F).all()


def test_a_picture_alone_gets_the_camera_of_its_field_of_view(frames_folder):
    frame = load_frame(frames_folder / 'ycb_1' / 'color.png', field_of_view=33.4)
    assert frame.depth is None
    # The recording camera has fx = 1066.8 at 640 pixels: 33.4 degrees.
    assert frame.camera.fx == pytest.approx(1066.778, rel=2e-3)


@pytest.mark.parametrize('degrees', [0.0, 180.0, 500.0, float('nan')])
def test_refuses_a_field_of_view_that_no_picture_has(degrees, frames_folder):
    folder = frames_folder / 'ycb_1'
    with pytest.raises(OptionError, match='field of view'):
        load_frame(folder / 'color.png', folder / 'depth.png', field_of_view=degrees)


def test_separate_files_make_the_same_frame_as_their_folder(frames_folder, recorded):
    folder = frames_folder / 'ycb_1'
    frame = load_frame(folder / 'color.png', folder / 'depth.png', folder / 'camera.json')
    np.testing.assert_array_equal(frame.color, recorded('ycb_1').color)
    np.testing.assert_array_equal(frame.depth, recorded('ycb_1').depth)
    np.testing.assert_array_equal(frame.camera.matrix, recorded('ycb_1').camera.matrix)


def test_a_frame_folder_needs_only_a_picture(folder):
    (folder / 'depth.png').unlink()
    (folder / 'camera.json').unlink()
    assert load_frame(folder).depth is None


@pytest.mark.parametrize('name', ['color.png', 'depth.png'])
def test_names_a_picture_that_cannot_be_read(name, folder):
    (folder / name).write_bytes(b'\x89PNG but not really')
    with pytest.raises(InputError, match=name):
        load_frame(folder)


@pytest.mark.skipif(os.geteuid() == 0, reason='root may read everything')
@pytest.mark.parametrize('name', ['color.png', 'depth.png', 'camera.json', '.'])
def test_names_what_may_not_be_read(name, folder):
    (folder / name).chmod(0)
    try:
        with pytest.raises(InputError, match=f"{(folder / name).name}'.*[Pp]ermission"):
            load_frame(next(iter(open_frames(folder))))
    finally:
        (folder / name).chmod(0o755)


def test_names_files_that_are_not_there(folder):
    with pytest.raises(InputError, match='nothing.png'):
        load_frame(folder / 'nothing.png')
    with pytest.raises(InputError, match='nowhere.png'):
        load_frame(folder / 'color.png', depth=folder / 'nowhere.png')
    with pytest.raises(InputError, match='never.json'):
        load_frame(folder / 'color.png', camera=folder / 'never.json')
    (folder / 'color.png').unlink()
    with pytest.raises(InputError, match=f'{folder.name}.*color.png'):
        load_frame(folder)


def write_noise(folder: Path, noise: object) -> None:
    values = json.loads((folder / 'camera.json').read_text()) | {'depth_noise': noise}
    (folder / 'camera.json').write_text(json.dumps(values))


def test_the_camera_file_tells_the_sensors_noise_unless_it_is_given(folder):
    write_noise(folder, {'model': 'stereo', 'baseline': 0.12})
    frame = load_frame(folder)
    assert frame.depth_noise == DepthNoise(model='stereo', baseline=0.12)
    assert frame.depth_std(2.0) == pytest.approx(0.08 * 4.0 / (frame.camera.fx * 0.12))
    given = DepthNoise(model='time_of_flight')
    assert load_frame(folder, depth_noise=given).depth_noise == given


@pytest.mark.parametrize('noise, named', [
    ({'model': 'sonar'}, "'model'"), ({'baseline': 'wide'}, "'baseline'"),
    ({'base_line': 0.1}, "'base_line'"), ('stereo', 'model'), ([0.1], 'model'), (None, 'model'),
])
def test_says_what_is_wrong_with_the_sensors_noise(noise, named, folder):
    write_noise(folder, noise)
    with pytest.raises(InputError, match=f'depth_noise.*camera.json.*{named}') as caught:
        load_frame(folder)
    assert '\n' not in str(caught.value)


def test_names_a_camera_file_that_is_no_text(tmp_path):
    (tmp_path / 'camera.json').write_bytes(b'\xff\xfe\x00')
    with pytest.raises(InputError, match='camera.json'):
        read_calibration(tmp_path / 'camera.json', (640, 480))


def test_finds_plain_pictures_by_name(tmp_path):
    for name in ['b.PNG', 'a.jpg', 'notes.txt']:
        (tmp_path / name).touch()
    assert [files.color.name for files in find_frames(tmp_path)] == ['a.jpg', 'b.PNG']


def test_says_when_there_is_nothing_to_read(tmp_path):
    with pytest.raises(InputError, match=tmp_path.name):
        find_frames(tmp_path)
    with pytest.raises(InputError, match='missing'):
        find_frames(tmp_path / 'missing')
