# SPDX-License-Identifier: Apache-2.0
"""Folders as data sets lay them out: every picture with its own depth image and calibration."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import ExifTags
from PIL import Image
from scipy.io import savemat

from img2scene_ros.depth import DepthNoise
from img2scene_ros.errors import InputError
from img2scene_ros.io.frames import load_frame
from img2scene_ros.io.frames import open_frames
from img2scene_ros.io.layouts import find_frames
from img2scene_ros.io.photos import load_photo

HEIGHT, WIDTH = 6, 8


def picture(path: Path, value: int = 100) -> Path:
    """Write a picture of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((HEIGHT, WIDTH, 3), value, np.uint8)).save(path)
    return path


def depth(path: Path, units: int) -> Path:
    """Write a depth image of one distance."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((HEIGHT, WIDTH), units, np.uint16))
    return path


def text(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def seen(folder: Path) -> list[tuple[str, int, float | None, float]]:
    """Return name, colour, distance and focal length of every frame of a folder."""
    frames = [(files.name, load_frame(files)) for files in open_frames(folder)]
    return [(name, int(frame.color[0, 0, 0]),
             None if frame.depth is None else round(float(frame.depth[0, 0]), 4),
             frame.camera.fx) for name, frame in frames]


@pytest.mark.parametrize('color', ['color.png', 'rgb.PNG', 'Image.png', 'Color.BMP'])
@pytest.mark.parametrize('other', ['depth.png', 'DEPTH.TIF', 'Depth.pgm'])
@pytest.mark.parametrize('calibration', ['camera.json', 'cam_K.txt', 'Intrinsics.TXT'])
def test_a_frame_folder_by_any_name(
    color: str, other: str, calibration: str, tmp_path: Path,
) -> None:
    folder = tmp_path / 'one'
    picture(folder / color)
    depth(folder / other, 800)
    text(folder / calibration, '[7, 0, 3.5, 0, 7, 2.5, 0, 0, 1]' if 'json' not in calibration else
         {'width': WIDTH, 'height': HEIGHT, 'K': [7, 0, 3.5, 0, 7, 2.5, 0, 0, 1]})
    assert seen(folder) == [('one', 100, 0.8, 7.0)]
    assert seen(tmp_path) == [('one', 100, 0.8, 7.0)]


def test_rgb_and_depth_side_by_side(tmp_path: Path) -> None:
    for i in (1, 2):
        picture(tmp_path / f'set/rgb/000{i}.png', 10 * i)
        depth(tmp_path / f'set/depth/000{i}.png', 500 * i)
    picture(tmp_path / 'set/masks/0001.png')
    text(tmp_path / 'set/cam_K.txt', '9 0 4\n0 9 3\n0 0 1\n')
    expected = [('set_0001', 10, 0.5, 9.0), ('set_0002', 20, 1.0, 9.0)]
    assert seen(tmp_path / 'set') == expected
    assert seen(tmp_path) == expected
    assert [files.name for files in open_frames(tmp_path, every=2)] == ['set_0001']


def test_names_of_two_words_belong_together(tmp_path: Path) -> None:
    """As of 7-Scenes, YCB-Video and RealSense's own export."""
    for folder, color, other in (
            ('a', 'frame-000000.color.png', 'frame-000000.depth.png'),
            ('b', '000001-color.jpg', '000001-depth.png'), ('c', 'x_Color_5.png', 'x_Depth_5.tif'),
            ('d', 'rgb_0007.png', 'depth_0007.pgm')):
        picture(tmp_path / folder / color)
        depth(tmp_path / folder / other, 700)
        (_, _, distance, _), = seen(tmp_path / folder)
        assert distance == pytest.approx(0.7)


@pytest.mark.parametrize('color, other', [
    ('image_color/test0.png', 'disparity/test0.png'),  # OSD
    ('images/1.png', 'depths/1.png'), ('color_images/1.png', 'depth_images/1.png'),
    ('color/1.png', 'aligned_depth/1.png'),
    ('rgb/frame_0001.png', 'depth/0001.png'),
    ('rgb/0000002-000000033369.jpg', 'depth/0000002-000000033361.png'),  # Redwood
    ('rgb_cam1/000000.png', 'depth_cam1/000000.png')])  # BOP, several cameras
def test_folders_and_files_by_the_names_of_data_sets(
    color: str, other: str, tmp_path: Path,
) -> None:
    picture(tmp_path / color)
    depth(tmp_path / other, 700)
    for beside in ('annotation', 'label', 'mask_visib'):
        depth(tmp_path / beside / Path(color).with_suffix('.png').name, 3)
    (_, _, distance, _), = seen(tmp_path)
    assert distance == pytest.approx(0.7)


def test_folder_named_depth_is_that_of_several(tmp_path: Path) -> None:
    picture(tmp_path / 'color/1.png')
    for name, units in (('depth', 700), ('depth_bfx', 1), ('depth_color', 2), ('depths', 3)):
        depth(tmp_path / name / '1.png', units)
    assert [found[2] for found in seen(tmp_path)] == [0.7]
    (tmp_path / 'depth').rename(tmp_path / 'depth_raw')
    (tmp_path / 'depths').rename(tmp_path / 'other')
    with pytest.raises(InputError, match='depth_bfx and depth_raw'):
        find_frames(tmp_path)


def test_every_camera_of_bop_has_its_calibration(tmp_path: Path) -> None:
    for camera, focal in (('cam1', 10.0), ('cam2', 20.0)):
        picture(tmp_path / f'rgb_{camera}/000000.png')
        depth(tmp_path / f'depth_{camera}/000000.png', 9000)
        text(tmp_path / f'scene_camera_{camera}.json', {
            '0': {'cam_K': [focal, 0, 3.5, 0, focal, 2.5, 0, 0, 1], 'depth_scale': 0.1}})
    name = tmp_path.name
    assert seen(tmp_path) == [
        (f'{name}_cam1_000000', 100, 0.9, 10.0), (f'{name}_cam2_000000', 100, 0.9, 20.0)]


@pytest.mark.parametrize('color, other, meta', [
    ('000001-color.png', '000001-depth.png', '000001-meta.mat'),  # YCB-Video
    ('rgb/0001.png', 'depth/0001.png', 'meta/0001.mat')])  # GraspNet
def test_meta_files_tell_calibration_and_unit(
    color: str, other: str, meta: str, tmp_path: Path,
) -> None:
    picture(tmp_path / color)
    depth(tmp_path / other, 9000)
    depth(tmp_path / other.replace('depth', 'label'), 3)
    (tmp_path / meta).parent.mkdir(exist_ok=True)
    savemat(tmp_path / meta, {
        'intrinsic_matrix': [[9.0, 0, 3.5], [0, 9, 2.5], [0, 0, 1]], 'factor_depth': 10000})
    assert [found[1:] for found in seen(tmp_path)] == [(100, 0.9, 9.0)]


def test_depth_of_another_size_is_that_of_its_own_calibration(tmp_path: Path) -> None:
    """As in ScanNet, where a camera beside saw it: an edge is where both calibrations say."""
    picture(tmp_path / 'color/0.jpg').unlink()
    Image.new('RGB', (33, 24)).save(tmp_path / 'color/0.jpg')
    image = np.full((12, 16), 1000, np.uint16)
    image[:, 10:] = 2000
    (tmp_path / 'depth').mkdir()
    cv2.imwrite(str(tmp_path / 'depth/0.png'), image)
    for name, fx, cx, cy in (('color', 30, 15.5, 11.5), ('depth', 15, 8.5, 5.5)):
        text(tmp_path / f'intrinsic/intrinsic_{name}.txt',
             f'{fx} 0 {cx} 0\n0 {fx} {cy} 0\n0 0 1 0\n0 0 0 1\n')
    frame = load_frame(tmp_path)
    edge = 15.5 + (9.5 - 8.5) / 15 * 30
    assert frame.shape == (24, 33)
    u = np.flatnonzero(np.isfinite(frame.depth[12]))
    np.testing.assert_allclose(frame.depth[12, u], np.where(u <= edge, 1.0, 2.0), rtol=1e-5)
    assert {int(edge), int(edge) + 1} <= set(u)


def test_a_coarser_depth_image_of_the_same_picture_is_spread(tmp_path: Path) -> None:
    """As a phone's: 256x192 for 1920x1440."""
    picture(tmp_path / 'color.png').unlink()
    Image.new('RGB', (4 * WIDTH, 4 * HEIGHT)).save(tmp_path / 'color.png')
    depth(tmp_path / 'depth.png', 800)
    frame = load_frame(tmp_path)
    assert frame.shape == (4 * HEIGHT, 4 * WIDTH)
    assert np.isfinite(frame.depth).mean() > 0.9
    np.testing.assert_allclose(frame.depth[np.isfinite(frame.depth)], 0.8, rtol=1e-5)
    depth(tmp_path / 'depth.png', 800).unlink()
    cv2.imwrite(str(tmp_path / 'depth.png'), np.full((HEIGHT + 3, WIDTH), 800, np.uint16))
    with pytest.raises(InputError, match=f'depth.png.*{WIDTH}x{HEIGHT + 3}'):
        load_frame(tmp_path)


def test_hidden_files_are_no_pictures(tmp_path: Path) -> None:
    picture(tmp_path / 'rgb/1.png')
    depth(tmp_path / 'depth/1.png', 900)
    for name in ('rgb/._1.png', 'depth/._1.png', '._color.png'):
        (tmp_path / name).write_bytes(b'\0\5\x16\7')
    assert [found[2] for found in seen(tmp_path)] == [0.9]


def test_tum_is_paired_by_stamp_and_has_its_factor(tmp_path: Path) -> None:
    folder = tmp_path / 'rgbd_dataset'
    for i, stamp in enumerate(('1305031102.175304', '1305031102.211214', '1305031103.5')):
        picture(folder / f'rgb/{stamp}.png', 10 * i)
    for i, stamp in enumerate(('1305031102.160407', '1305031102.226738')):
        depth(folder / f'depth/{stamp}.png', 5000 * (i + 1))
    head = "# {} images\n# file: 'rgbd_dataset_freiburg1_xyz.bag'\n# timestamp filename\n"
    for name in ('rgb', 'depth'):
        text(folder / f'{name}.txt', head.format(name) + ''.join(
            f'{path.stem} {name}/{path.name}\n' for path in sorted((folder / name).iterdir())))
    text(folder / 'camera.txt', '5 5 3.5 2.5')
    assert seen(folder) == [('rgbd_dataset_1305031102.175304', 0, 1.0, 5.0),
                            ('rgbd_dataset_1305031102.211214', 10, 2.0, 5.0)]


def test_bop_scenes_have_a_calibration_and_a_unit_per_picture(tmp_path: Path) -> None:
    for scene, suffix in (('000001', 'png'), ('000002', 'jpg')):
        folder = tmp_path / scene
        for i in (0, 12):
            picture(folder / f'rgb/{i:06d}.{suffix}', 100 + i)
            depth(folder / f'depth/{i:06d}.png', 9000)
            depth(folder / f'mask/{i:06d}_000000.png', 1)
        text(folder / 'scene_camera.json', {
            str(i): {'cam_K': [10.0 + i, 0, 3.5, 0, 10, 2.5, 0, 0, 1], 'depth_scale': scale}
            for i, scale in ((0, 0.1), (12, 0.2))})
    assert seen(tmp_path / '000001') == [
        ('000001_000000', 100, 0.9, 10.0), ('000001_000012', 112, 1.8, 22.0)]
    assert len(find_frames(tmp_path)) == 4


def test_depth_images_are_no_photos(tmp_path: Path) -> None:
    for name in ('depth.png', 'picture.png'):
        depth(tmp_path / name, 900)
        with pytest.raises(InputError, match=f'{name}.*depth image'):
            load_photo(tmp_path / name)
    (tmp_path / 'picture.png').unlink()
    with pytest.raises(InputError, match='depth.png'):
        find_frames(tmp_path)
    picture(tmp_path / 'photo.jpg')
    with pytest.raises(InputError, match='depth.png.*no picture'):
        find_frames(tmp_path)


@pytest.mark.parametrize('name', ['depth.png', 'depth.exr', 'depth.h5', 'depth'])
def test_a_depth_file_that_cannot_be_read_is_not_passed_over(name: str, tmp_path: Path) -> None:
    picture(tmp_path / 'color.png')
    (tmp_path / name).write_bytes(b'no image')
    with pytest.raises(InputError, match=f"depth image.*{name}'"):
        load_frame(tmp_path)


def test_a_missing_depth_image_is_named(tmp_path: Path) -> None:
    picture(tmp_path / 'rgb/1.png')
    picture(tmp_path / 'rgb/2.png')
    depth(tmp_path / 'depth/1.png', 900)
    assert load_frame(find_frames(tmp_path)[0]).has_depth
    with pytest.raises(InputError, match='depth/2.png'):
        load_frame(find_frames(tmp_path)[1])


def test_two_depth_images_of_one_picture_are_refused(tmp_path: Path) -> None:
    picture(tmp_path / 'color.png')
    depth(tmp_path / 'depth.png', 900)
    depth(tmp_path / 'depth.tif', 900)
    with pytest.raises(InputError, match='depth.png and depth.tif'):
        load_frame(tmp_path)


def test_units_given_count_before_those_of_files(tmp_path: Path) -> None:
    picture(tmp_path / 'color.png')
    depth(tmp_path / 'depth.png', 5000)
    text(tmp_path / 'camera.json', {
        'width': WIDTH, 'height': HEIGHT, 'K': [7, 0, 3.5, 0, 7, 2.5, 0, 0, 1],
        'depth_scale': 0.0001, 'depth_noise': {'model': 'stereo'}})
    frame = load_frame(tmp_path)
    assert frame.depth[0, 0] == pytest.approx(0.5)
    assert frame.depth_noise == DepthNoise(model='stereo')
    assert load_frame(tmp_path, depth_unit=0.0002).depth[0, 0] == pytest.approx(1.0)


def test_depth_without_calibration_says_what_is_assumed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture,
) -> None:
    picture(tmp_path / 'color.png')
    depth(tmp_path / 'depth.png', 900)
    assert load_frame(tmp_path).camera.fx == pytest.approx(WIDTH / 2 / np.tan(np.radians(30)))
    said, = caplog.records
    assert '60 degrees' in said.getMessage() and str(tmp_path) in said.getMessage()


@pytest.mark.parametrize('orientation', range(2, 9))
def test_turned_picture_with_depth_is_refused(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.new('RGB', (WIDTH, HEIGHT)).save(tmp_path / 'color.jpg', exif=exif)
    depth(tmp_path / 'depth.png', 900)
    with pytest.raises(InputError, match=f'color.jpg.*orientation {orientation}'):
        load_frame(tmp_path)
    exif[ExifTags.Base.Orientation] = orientation % 2  # 0 is written where nothing is known
    Image.new('RGB', (WIDTH, HEIGHT)).save(tmp_path / 'color.jpg', exif=exif)
    assert load_frame(tmp_path).has_depth


def test_lists_of_tum_that_do_not_fit_are_one_sentence(tmp_path: Path) -> None:
    text(tmp_path / 'rgb.txt', '1.0 rgb/1.png\n')
    text(tmp_path / 'depth.txt', '9.0 depth/9.png\n')
    with pytest.raises(InputError, match='rgb.txt.*stamps'):
        find_frames(tmp_path)
    text(tmp_path / 'depth.txt', 'no list')
    with pytest.raises(InputError, match='depth.txt'):
        find_frames(tmp_path)
