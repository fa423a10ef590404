# SPDX-License-Identifier: Apache-2.0
"""Recordings, written by rosbags' own writer, are read frame by frame."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from recorded_bags import LENS
from recorded_bags import plain_frame
from recorded_bags import write_bag
from recorded_bags import write_realsense_bag

from img2scene_ros.depth import DepthNoise
from img2scene_ros.errors import InputError
from img2scene_ros.errors import MissingDependencyError
from img2scene_ros.io.bags import Bag
from img2scene_ros.io.frames import load_frame
from img2scene_ros.io.frames import open_frames

FRAMES = [plain_frame(i) for i in range(5)]


def seen(bag: Bag) -> list[tuple[int, float | None]]:
    """Return colour and distance of every frame."""
    frames = [load_frame(source) for source in bag]
    return [(int(frame.color[0, 0, 0]),
             frame.depth if frame.depth is None else round(float(frame.depth[0, 0]), 4))
            for frame in frames]


@pytest.mark.parametrize('storage', ['MCAP', 'SQLITE3'])
@pytest.mark.parametrize('is_compressed', [False, True])
def test_pictures_come_with_their_depth_and_calibration(
    storage: str, is_compressed: bool, tmp_path: Path,
) -> None:
    bag = open_frames(write_bag(tmp_path / 'bag', FRAMES, storage, is_compressed=is_compressed))
    assert isinstance(bag, Bag) and bag.has_depth and len(bag) == 5
    assert seen(bag) == seen(bag) == [(10 * i, 1.0 + i) for i in range(5)]
    frame = load_frame(next(iter(bag)))
    assert frame.stamp_ns == 1_700_000_000_000_000_000
    assert (frame.camera.fx, frame.camera.cx) == (7.0, 3.5)


def test_pictures_as_the_sensor_has_them_are_pictures(tmp_path: Path) -> None:
    bag = open_frames(write_bag(tmp_path / 'bag', FRAMES, is_bayer=True))
    assert seen(bag) == [(10 * i, 1.0 + i) for i in range(5)]


@pytest.mark.parametrize('size, is_read', [((3, 4), True), ((3, 5), False)])
def test_depth_of_another_size_is_read_where_the_aspect_is_the_same(
    size: tuple[int, int], is_read: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture,
) -> None:
    frames = [replace(frame, depth=None) for frame in FRAMES]
    for frame in frames:  # which a frame itself would refuse
        object.__setattr__(frame, 'depth', np.ones(size, np.float32))
    bag = open_frames(write_bag(tmp_path / 'bag', frames, is_compressed=True))
    assert bag.has_depth == is_read
    assert is_read or 'aligned_depth_to_color/image_raw/compressedDepth' in caplog.text
    frame = load_frame(next(iter(bag)))
    assert not is_read or frame.depth[3, 4] == pytest.approx(1.0)


def test_every_nth_frame_is_taken_and_named_by_its_number(tmp_path: Path) -> None:
    path = write_bag(tmp_path / 'bag', FRAMES)
    bag = open_frames(path, every=2)
    assert len(bag) == 3
    assert [source.name for source in bag] == [f'{path.stem}_00000{i}' for i in (0, 2, 4)]
    assert seen(bag) == [(0, 1.0), (20, 3.0), (40, 5.0)]


def test_depth_of_another_camera_is_skipped_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture,
) -> None:
    bag = open_frames(write_bag(
        tmp_path / 'bag', FRAMES, depth_frame='camera_depth_optical_frame'))
    assert not bag.has_depth
    assert seen(bag) == [(10 * i, None) for i in range(5)]
    assert 'camera_depth_optical_frame' in caplog.text


DEPTH_LENS = 'camera_depth_optical_frame'
ALONG = (0.0, 0.0, 0.0, 1.0)  # not turned
BESIDE = [('camera_link', DEPTH_LENS, (0.0, 0.0, 0.7, *ALONG)),
          ('camera_link', LENS, (0.0, 0.0, 0.5, *ALONG)),
          ('base', 'camera_link', (1.0, 2.0, 3.0, 0.6, 0.0, 0.0, 0.8))]


@pytest.mark.parametrize('tf', ['/tf_static', '/tf'])
def test_depth_of_another_camera_is_registered(tf: str, tmp_path: Path) -> None:
    """The depth camera is 0.2 m before that of the picture."""
    bag = open_frames(write_bag(
        tmp_path / 'bag', FRAMES, depth_frame=DEPTH_LENS, transforms=BESIDE, tf=tf))
    assert bag.has_depth
    for i, source in enumerate(bag):
        assert load_frame(source).depth[3, 4] == pytest.approx(1.2 + i, abs=1e-3)


def test_registered_depth_is_turned_as_transforms_tell(tmp_path: Path) -> None:
    frame = plain_frame(0)
    frame.depth[:, 4:] = 2.0
    turned = [('camera_link', DEPTH_LENS, (0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0)),
              ('camera_link', LENS, (0.0, 0.0, 0.0, *ALONG))]
    bag = open_frames(write_bag(
        tmp_path / 'bag', [frame], depth_frame=DEPTH_LENS, transforms=turned))
    depth = load_frame(next(iter(bag))).depth
    assert depth[3, 1] == pytest.approx(2.0) and depth[3, 6] == pytest.approx(1.0)
    stereo = DepthNoise(model='stereo')
    assert load_frame(next(iter(bag)), depth_noise=stereo).depth_noise == stereo


def test_depth_camera_that_moves_is_skipped_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture,
) -> None:
    moving = [*BESIDE, ('camera_link', DEPTH_LENS, (0.0, 0.0, 0.9, *ALONG))]
    bag = open_frames(write_bag(
        tmp_path / 'bag', FRAMES, depth_frame=DEPTH_LENS, transforms=moving, tf='/tf'))
    assert not bag.has_depth
    assert DEPTH_LENS in caplog.text and '/tf_static' in caplog.text


@pytest.mark.parametrize('unit', [0.001, 0.0001])
def test_recordings_of_librealsense(unit: float, tmp_path: Path) -> None:
    """Points of the reference, which is the depth camera, are 0.1 m farther from the other."""
    bag = open_frames(write_realsense_bag(tmp_path / 'd435.bag', FRAMES, unit))
    frames = [load_frame(source) for source in bag]
    assert [int(frame.color[0, 0, 0]) for frame in frames] == [0, 10, 20, 30, 40]
    assert [frame.depth[3, 4] for frame in frames] == pytest.approx(
        [1.1, 2.1, 3.1, 4.1, 5.1], abs=1e-3)
    assert frames[0].camera.fx == 7.0


@pytest.mark.parametrize('storage, suffix', [('MCAP', '.mcap'), ('SQLITE3', '.db3')])
def test_files_of_a_split_bag_without_metadata(
    storage: str, suffix: str, tmp_path: Path,
) -> None:
    (tmp_path / 'bag').mkdir()
    for i, frames in enumerate((FRAMES[:3], FRAMES[3:])):
        write_bag(tmp_path / f'{i}', frames, storage)
        part, = (tmp_path / f'{i}').glob(f'*{suffix}')
        part.rename(tmp_path / f'bag/bag_{i}{suffix}')
    bag = open_frames(tmp_path / 'bag')
    assert len(bag) == 5
    assert len(list(bag)) == 5
    (tmp_path / 'bag/rgb').mkdir()
    cv2.imwrite(str(tmp_path / 'bag/rgb/0.png'), np.zeros((6, 8, 3), np.uint8))
    frames = open_frames(tmp_path / 'bag')  # a recording beside frames is none of them
    assert [files.color.name for files in frames] == ['0.png']


def test_pictures_without_their_depth_are_an_error(tmp_path: Path) -> None:
    bag = open_frames(write_bag(tmp_path / 'bag', FRAMES[:1], delay=0.2))
    with pytest.raises(InputError, match='color/image_raw.*aligned_depth'):
        list(bag)


@pytest.mark.parametrize('info', [{'with_info': False}, {'is_calibrated': False}])
def test_bag_without_calibration_says_what_is_assumed(
    info: dict[str, bool], tmp_path: Path, caplog: pytest.LogCaptureFixture,
) -> None:
    path = write_bag(tmp_path / 'bag', FRAMES[:2], **info)
    source = next(iter(open_frames(path)))
    assert load_frame(source, field_of_view=90.0).camera.fx == pytest.approx(4.0)
    assert '90 degrees' in caplog.text
    (tmp_path / 'k.txt').write_text('9 9 4 3')
    assert load_frame(source, camera=tmp_path / 'k.txt').camera.fx == 9.0


def test_unknown_encoding_is_named(tmp_path: Path) -> None:
    bag = open_frames(write_bag(tmp_path / 'bag', FRAMES[:2]))
    source = next(iter(bag))
    source.read.args[0].encoding = 'nonsense'
    with pytest.raises(InputError, match='nonsense'):
        load_frame(source)


def test_damaged_recording_is_one_sentence(tmp_path: Path) -> None:
    whole = write_bag(tmp_path / 'bag', FRAMES).read_bytes()
    for name, content in (('cut.mcap', whole[:200]), ('none.mcap', b'nothing'), ('a.db3', b'no'),
                          ('b.mcap.zstd', whole), ('c.bag', b'#ROSBAG V2.0')):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=name) as caught:
            open_frames(tmp_path / name)
        assert '\n' not in str(caught.value)
    with pytest.raises(InputError, match='nowhere.mcap'):
        open_frames(tmp_path / 'nowhere.mcap')


def test_a_folder_with_other_metadata_is_no_bag(tmp_path: Path) -> None:
    (tmp_path / 'metadata.yaml').write_text('author: nobody\n')
    with pytest.raises(InputError, match='no frames'):
        open_frames(tmp_path)


def test_bag_without_pictures_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match='no pictures.*sensor_msgs/Image'):
        open_frames(write_bag(tmp_path / 'bag', []))


def test_missing_library_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__('sys').modules, 'rosbags.highlevel', None)
    (tmp_path / 'a.mcap').touch()
    with pytest.raises(MissingDependencyError, match='pip install rosbags'):
        open_frames(tmp_path / 'a.mcap')
