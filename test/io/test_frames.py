"""Frames: real files in, metres out, and one sentence for whatever does not fit."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from img2scene_ros.camera import Camera
from img2scene_ros.errors import InputError
from img2scene_ros.io.frames import Frame
from img2scene_ros.io.frames import find_frames
from img2scene_ros.io.frames import load_camera
from img2scene_ros.io.frames import load_frame
from img2scene_ros.io.frames import metric_depth

NAMES = ['table_blue_mug', 'ycb_1', 'ycb_3']
SMALL = Camera(4, 3, 5.0, 5.0, 1.5, 1.0)


def color(width: int = 4, height: int = 3) -> np.ndarray:
    return np.zeros((height, width, 3), np.uint8)


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
    red = color()
    red[..., 0] = 255
    cv2.imwrite(str(tmp_path / 'red.png'), cv2.cvtColor(red, cv2.COLOR_RGB2BGR))
    np.testing.assert_array_equal(load_frame(tmp_path / 'red.png').color, red)


def test_points_are_what_the_camera_unprojects(recorded):
    frame = recorded('ycb_1')
    v, u = np.mgrid[:480, :640]
    expected = frame.camera.unproject(np.stack([u, v], axis=-1), frame.depth)
    np.testing.assert_allclose(frame.points, expected, atol=1e-5)
    seen = np.isfinite(frame.depth)
    np.testing.assert_array_equal(np.isfinite(frame.points).all(axis=-1), seen)
    pixels = frame.camera.project(frame.points[seen])
    np.testing.assert_allclose(pixels, np.stack([u, v], axis=-1)[seen], atol=1e-3)


def test_a_frame_without_depth_has_no_points():
    frame = Frame(color(), SMALL)
    assert frame.points is None
    assert not frame.has_depth


@pytest.mark.parametrize('empty', [0.0, np.nan, np.inf, -1.0])
def test_a_depth_image_without_a_reading_counts_as_none(empty):
    frame = Frame(color(), SMALL, metric_depth(np.full((3, 4), empty, np.float32)))
    assert not frame.has_depth


def test_integer_depth_is_millimetres():
    depth = metric_depth(np.array([[0, 1, 750, 65535]], np.uint16))
    assert depth.dtype == np.float32
    np.testing.assert_allclose(depth, [[np.nan, 0.001, 0.75, 65.535]], rtol=1e-6)


@pytest.mark.parametrize('kind', [np.float32, np.float64])
def test_float_depth_is_metres(kind):
    raw = np.array([[0.0, -0.5, np.nan, np.inf, -np.inf, 0.75]], kind)
    depth = metric_depth(raw)
    assert depth.dtype == np.float32
    np.testing.assert_array_equal(depth, np.array([[np.nan] * 5 + [0.75]], np.float32))


def test_converting_depth_leaves_the_message_as_it_was():
    raw = np.array([[0.0, 0.75]], np.float32)
    raw.flags.writeable = False
    metric_depth(raw)
    np.testing.assert_array_equal(raw, np.array([[0.0, 0.75]], np.float32))


@pytest.mark.parametrize('raw, named', [
    (np.zeros((3, 4), np.uint8), 'uint8'),
    (np.zeros((3, 4), np.int32), 'int32'),
    (np.zeros((3, 4, 3), np.uint16), r'\(3, 4, 3\)'),
])
def test_refuses_other_kinds_of_depth(raw, named):
    with pytest.raises(InputError, match=named):
        metric_depth(raw)


@pytest.mark.parametrize('picture, named', [
    (np.zeros((3, 4), np.uint8), r'\(3, 4\)'),
    (np.zeros((3, 4, 4), np.uint8), r'\(3, 4, 4\)'),
    (np.zeros((3, 4, 3), np.float32), 'float32'),
    (np.zeros((0, 0, 3), np.uint8), 'empty'),
])
def test_refuses_pictures_that_are_not_rgb_bytes(picture, named):
    with pytest.raises(InputError, match=named):
        Frame(picture, SMALL)


def test_refuses_the_calibration_of_another_picture():
    with pytest.raises(InputError, match='calibration is for 4x3.*picture has 8x6'):
        Frame(color(8, 6), SMALL)


def test_refuses_depth_of_another_size():
    with pytest.raises(InputError, match='depth image has 2x3.*picture has 4x3.*registered'):
        Frame(color(), SMALL, np.ones((3, 2), np.float32))


def test_a_picture_alone_gets_the_camera_of_its_field_of_view(frames_folder):
    frame = load_frame(frames_folder / 'ycb_1' / 'color.png', field_of_view=33.4)
    assert frame.depth is None
    # The recording camera has fx = 1066.8 at 640 pixels: 33.4 degrees.
    assert frame.camera.fx == pytest.approx(1066.778, rel=2e-3)


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


def test_refuses_a_color_picture_given_as_depth(folder):
    with pytest.raises(InputError, match='depth image'):
        load_frame(folder / 'color.png', depth=folder / 'color.png')


@pytest.mark.parametrize('text, named', [
    ('', 'JSON'),
    ('[1, 2]', '3x3 K'),
    ('{"width": 640, "height": 480}', "'K'"),
    ('{"width": 640, "height": 480, "K": [1, 2, 3]}', '3x3 K'),
    ('{"width": null, "height": 480, "K": [1, 0, 0, 0, 1, 0, 0, 0, 1]}', 'width'),
    ('{"width": 640, "height": 480, "K": [0, 0, 0, 0, 0, 0, 0, 0, 1]}', 'not calibrated'),
    ('{"width": 640, "height": 480, "K": [9, 0, 9, 0, 9, 9, 0, 0, 1], "D": ["x"]}', '3x3 K'),
])
def test_says_what_is_wrong_with_a_camera_file(text, named, tmp_path):
    (tmp_path / 'camera.json').write_text(text)
    with pytest.raises(InputError, match=named):
        load_camera(tmp_path / 'camera.json')


def test_names_a_camera_file_that_is_no_text(tmp_path):
    (tmp_path / 'camera.json').write_bytes(b'\xff\xfe\x00')
    with pytest.raises(InputError, match='camera.json'):
        load_camera(tmp_path / 'camera.json')


def test_finds_frame_folders_by_name(frames_folder):
    expected = sorted(path.parent for path in frames_folder.glob('*/color.png'))
    assert len(expected) > 1
    assert find_frames(frames_folder) == expected


def test_a_frame_folder_is_one_frame(frames_folder):
    assert find_frames(frames_folder / 'ycb_1') == [frames_folder / 'ycb_1']


def test_finds_plain_pictures_by_name(tmp_path):
    for name in ['b.PNG', 'a.jpg', 'notes.txt']:
        (tmp_path / name).touch()
    assert [path.name for path in find_frames(tmp_path)] == ['a.jpg', 'b.PNG']


def test_says_when_there_is_nothing_to_read(tmp_path):
    with pytest.raises(InputError, match=tmp_path.name):
        find_frames(tmp_path)
    with pytest.raises(InputError, match='missing'):
        find_frames(tmp_path / 'missing')
