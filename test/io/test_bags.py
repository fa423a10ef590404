# SPDX-License-Identifier: Apache-2.0
"""Recordings, written by rosbags' own writer, are read frame by frame."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from recorded_bags import plain_frame
from recorded_bags import write_bag

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


def test_compressed_depth_of_another_size_is_skipped_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture,
) -> None:
    frames = [replace(frame, depth=None) for frame in FRAMES]
    for frame in frames:  # which a frame itself would refuse
        object.__setattr__(frame, 'depth', np.ones((3, 4), np.float32))
    bag = open_frames(write_bag(tmp_path / 'bag', frames, is_compressed=True))
    assert not bag.has_depth
    assert 'aligned_depth_to_color/image_raw/compressedDepth' in caplog.text


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
    for name, content in (('cut.mcap', whole[:200]), ('none.mcap', b'nothing'), ('a.db3', b'no')):
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
