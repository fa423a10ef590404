# SPDX-License-Identifier: Apache-2.0
"""Recordings, written by rosbags' own writer, are read frame by frame."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from img2scene_ros.errors import InputError
from img2scene_ros.errors import MissingDependencyError
from img2scene_ros.io.bags import Bag
from img2scene_ros.io.frames import load_frame
from img2scene_ros.io.frames import open_frames

HEIGHT, WIDTH = 6, 8
LENS = 'camera_color_optical_frame'


def write_bag(path: Path, storage: str = 'MCAP', frames: int = 5, depth_frame: str = LENS,
              delay: float = 0.004, encoding: str = 'rgb8', with_info: bool = True,
              is_compressed: bool = False) -> Path:
    """
    Record a camera at 30 Hz and an infrared one; frame i has the colour 10 i, 1 + i m away.

    :param delay: of the depth images' stamps behind the pictures', seconds
    :return: the .mcap file, or the folder of the bag
    """
    rosbags = pytest.importorskip('rosbags.rosbag2')
    typesys = pytest.importorskip('rosbags.typesys')
    store = typesys.get_typestore(typesys.Stores.ROS2_JAZZY)
    message = {name: store.types[f'{name[:name.index("/")]}/msg/{name[name.index("/") + 1:]}']
               for name in ('builtin_interfaces/Time', 'std_msgs/Header', 'sensor_msgs/Image',
                            'sensor_msgs/CameraInfo', 'sensor_msgs/CompressedImage',
                            'sensor_msgs/RegionOfInterest')}

    def header(stamp: int, frame_id: str) -> object:
        return message['std_msgs/Header'](stamp=message['builtin_interfaces/Time'](
            sec=stamp // 10 ** 9, nanosec=stamp % 10 ** 9), frame_id=frame_id)

    def image(stamp: int, frame_id: str, encoding: str, pixels: np.ndarray) -> object:
        return message['sensor_msgs/Image'](
            header=header(stamp, frame_id), height=HEIGHT, width=WIDTH, encoding=encoding,
            is_bigendian=0, step=pixels.nbytes // HEIGHT, data=pixels.reshape(-1).view(np.uint8))

    with rosbags.Writer(path, version=9,
                        storage_plugin=getattr(rosbags.StoragePlugin, storage)) as writer:
        def connect(topic: str, kind: str) -> object:
            return writer.add_connection(topic, f'sensor_msgs/msg/{kind}', typestore=store)

        kind = 'CompressedImage' if is_compressed else 'Image'
        infrared = connect('/camera/infra1/image_rect_raw', 'Image')
        depth = connect('/camera/aligned_depth_to_color/image_raw', 'Image')
        color = connect('/camera/color/image_raw' + '/compressed' * is_compressed, kind)
        info = connect('/camera/color/camera_info', 'CameraInfo') if with_info else None
        rows = []
        for i in range(frames):
            stamp = 1_700_000_000_000_000_000 + i * 33_333_333
            late = stamp + round(1e9 * delay)
            pixels = np.full((HEIGHT, WIDTH, 3), 10 * i, np.uint8)
            if is_compressed:
                sent = message['sensor_msgs/CompressedImage'](
                    header=header(stamp, LENS), format='rgb8; png compressed bgr8',
                    data=cv2.imencode('.png', pixels)[1].ravel())
            else:
                sent = image(stamp, LENS, encoding, pixels)
            rows += [
                (stamp, infrared, image(stamp, 'infra', 'mono8', pixels[..., 0].copy()), 'Image'),
                (stamp, color, sent, kind),
                # The driver sends depth images two pictures late.
                (stamp + 70_000_000, depth, image(late, depth_frame, '16UC1', np.full(
                    (HEIGHT, WIDTH), 1000 * (1 + i), np.uint16)), 'Image')]
            if info:
                rows.append((stamp, info, message['sensor_msgs/CameraInfo'](
                    header=header(stamp, LENS), height=HEIGHT, width=WIDTH,
                    distortion_model='plumb_bob', d=np.zeros(5),
                    k=np.array([7.0, 0, 3.5, 0, 7, 2.5, 0, 0, 1]), r=np.eye(3).ravel(),
                    p=np.eye(3, 4).ravel(), binning_x=0, binning_y=0,
                    roi=message['sensor_msgs/RegionOfInterest'](
                        x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)),
                    'CameraInfo'))
        for time, connection, sent, kind in sorted(rows, key=lambda row: row[0]):
            writer.write(connection, time, store.serialize_cdr(sent, f'sensor_msgs/msg/{kind}'))
    return next(path.glob('*.mcap')) if storage == 'MCAP' else path


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
    bag = open_frames(write_bag(tmp_path / 'bag', storage, is_compressed=is_compressed))
    assert isinstance(bag, Bag) and bag.has_depth and len(bag) == 5
    assert seen(bag) == seen(bag) == [(10 * i, 1.0 + i) for i in range(5)]
    frame = load_frame(next(iter(bag)))
    assert frame.stamp_ns == 1_700_000_000_000_000_000
    assert (frame.camera.fx, frame.camera.cx) == (7.0, 3.5)


def test_every_nth_frame_is_taken_and_named_by_its_number(tmp_path: Path) -> None:
    path = write_bag(tmp_path / 'bag')
    bag = open_frames(path, every=2)
    assert len(bag) == 3
    assert [source.name for source in bag] == [f'{path.stem}_00000{i}' for i in (0, 2, 4)]
    assert seen(bag) == [(0, 1.0), (20, 3.0), (40, 5.0)]


def test_depth_of_another_camera_is_left_out_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture,
) -> None:
    bag = open_frames(write_bag(tmp_path / 'bag', depth_frame='camera_depth_optical_frame'))
    assert not bag.has_depth
    assert seen(bag) == [(10 * i, None) for i in range(5)]
    assert 'camera_depth_optical_frame' in caplog.text


def test_pictures_without_their_depth_are_an_error(tmp_path: Path) -> None:
    bag = open_frames(write_bag(tmp_path / 'bag', frames=1, delay=0.2))
    with pytest.raises(InputError, match='color/image_raw.*aligned_depth'):
        list(bag)


def test_bag_without_calibration_says_what_is_assumed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture,
) -> None:
    path = write_bag(tmp_path / 'bag', frames=2, with_info=False)
    source = next(iter(open_frames(path)))
    assert load_frame(source, field_of_view=90.0).camera.fx == pytest.approx(WIDTH / 2)
    assert '90 degrees' in caplog.text
    (tmp_path / 'k.txt').write_text('9 9 4 3')
    assert load_frame(source, camera=tmp_path / 'k.txt').camera.fx == 9.0


def test_unknown_encoding_is_named(tmp_path: Path) -> None:
    bag = open_frames(write_bag(tmp_path / 'bag', frames=2))
    source = next(iter(bag))
    source.read.args[0].encoding = 'bayer_rggb8'
    with pytest.raises(InputError, match='bayer_rggb8'):
        load_frame(source)


def test_damaged_recording_is_one_sentence(tmp_path: Path) -> None:
    whole = write_bag(tmp_path / 'bag').read_bytes()
    for name, content in (('cut.mcap', whole[:200]), ('none.mcap', b'nothing'), ('a.db3', b'no')):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=name) as caught:
            open_frames(tmp_path / name)
        assert '\n' not in str(caught.value)
    with pytest.raises(InputError, match='nowhere.mcap'):
        open_frames(tmp_path / 'nowhere.mcap')


def test_bag_without_pictures_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match='no pictures.*sensor_msgs/Image'):
        open_frames(write_bag(tmp_path / 'bag', frames=0))


def test_missing_library_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__('sys').modules, 'rosbags.highlevel', None)
    (tmp_path / 'a.mcap').touch()
    with pytest.raises(MissingDependencyError, match='pip install rosbags'):
        open_frames(tmp_path / 'a.mcap')
