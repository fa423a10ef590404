# SPDX-License-Identifier: Apache-2.0
"""Calibrations as the tools write them give the camera that was calibrated."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from img2scene_ros.camera import Camera
from img2scene_ros.errors import InputError
from img2scene_ros.io.calibrations import read_calibration

SIZE = 640, 480
FX, FY, CX, CY = 615.25, 614.5, 322.75, 238.125
K = [FX, 0.0, CX, 0.0, FY, CY, 0.0, 0.0, 1.0]
D = [0.1, -0.2, 0.001, -0.002, 0.05]

FRAME_FOLDER = json.dumps({
    'width': 640, 'height': 480, 'K': np.reshape(K, (3, 3)).tolist(), 'D': D,
    'distortion_model': 'plumb_bob'})
# As yaml-cpp writes it in camera_calibration_parsers.
CAMERA_INFO = '''image_width: 640
image_height: 480
camera_name: head_camera
camera_matrix:
  rows: 3
  cols: 3
  data: [615.25, 0, 322.75, 0, 614.5, 238.125, 0, 0, 1]
distortion_model: plumb_bob
distortion_coefficients:
  rows: 1
  cols: 5
  data: [0.1, -0.2, 0.001, -0.002, 0.05]
rectification_matrix:
  rows: 3
  cols: 3
  data: [1, 0, 0, 0, 1, 0, 0, 0, 1]
projection_matrix:
  rows: 3
  cols: 4
  data: [600, 0, 320, 0, 0, 600, 240, 0, 0, 0, 1, 0]'''
TOPIC_ECHO = '''header:
  stamp:
    sec: 1700000000
    nanosec: 123456789
  frame_id: camera_color_optical_frame
height: 480
width: 640
distortion_model: plumb_bob
d:
- 0.1
- -0.2
- 0.001
- -0.002
- 0.05
k:
- 615.25
- 0.0
- 322.75
- 0.0
- 614.5
- 238.125
- 0.0
- 0.0
- 1.0
r:
- 1.0
- 0.0
- 0.0
- 0.0
- 1.0
- 0.0
- 0.0
- 0.0
- 1.0
p:
- 600.0
- 0.0
- 320.0
- 0.0
- 0.0
- 600.0
- 240.0
- 0.0
- 0.0
- 0.0
- 1.0
- 0.0
binning_x: 0
binning_y: 0
roi:
  x_offset: 0
  y_offset: 0
  height: 0
  width: 0
  do_rectify: false
---
header:
  stamp:
    sec: 17000'''  # the second message was cut off
# ROS 1 writes lists in one line, and capitals.
ROSTOPIC_ECHO = '''header:
  seq: 7
height: 480
width: 640
distortion_model: "plumb_bob"
D: [0.1, -0.2, 0.001, -0.002, 0.05]
K: [615.25, 0.0, 322.75, 0.0, 614.5, 238.125, 0.0, 0.0, 1.0]
---
'''


def realsense(name: str, size: tuple[int, int], scale: float = 1.0, end: str = '\n\n') -> str:
    """Write what print(const rs2_intrinsics&) of rs-enumerate-devices.cpp does."""
    rows = [('Width', size[0]), ('Height', size[1]), ('PPX', CX * scale), ('PPY', CY * scale),
            ('Fx', FX * scale), ('Fy', FY * scale), ('Distortion', 'Inverse Brown Conrady')]
    lines = [f' Intrinsic of "{name}" / {size[0]}x{size[1]} / {{YUYV/RGB8/BGR8/RGBA8/BGRA8/Y16}}']
    lines += [f"{f'  {key}: ':14}\t{value}" for key, value in rows]
    lines.append(f"{'  Coeffs: ':14}" + ''.join(f'\t{value}  ' for value in D))
    return '\n'.join([*lines, f"{'  FOV (deg): ':14}\t55 x 42.67"]) + end


ENUMERATED = ('Device info: \n    Name                          : \tIntel RealSense D435\n\n'
              'Intrinsic Parameters:\n\n' + realsense('Depth', (640, 480), 0.6)
              + realsense('Color', (320, 240), 0.7) + realsense('Color', (640, 480))
              + realsense('Color', (1280, 720), 1.5)
              + 'Extrinsic Parameters:\n\nExtrinsic from "Depth"\t  To\t  "Color" :\n')
INTRINSICS = json.dumps({
    'width': 640, 'height': 480, 'ppx': CX, 'ppy': CY, 'fx': FX, 'fy': FY,
    'model': 'distortion.inverse_brown_conrady', 'coeffs': D, 'depth_scale': 0.00025})
OPEN3D = json.dumps({
    'width': 640, 'height': 480, 'intrinsic_matrix': [FX, 0, 0, 0, FY, 0, CX, CY, 1]})
OPEN3D_VIEW = json.dumps({
    'class_name': 'PinholeCameraParameters', 'extrinsic': np.eye(4).ravel().tolist(),
    'intrinsic': json.loads(OPEN3D), 'version_major': 1, 'version_minor': 0})
BOP = json.dumps({'cx': CX, 'cy': CY, 'depth_scale': 0.1, 'fx': FX, 'fy': FY, 'height': 480,
                  'width': 640})
BOP_SCENE = json.dumps({
    '3': {'cam_K': [1.0, 0, 2, 0, 3, 4, 0, 0, 1], 'depth_scale': 1.0},
    '12': {'cam_K': K, 'depth_scale': 0.1, 'cam_R_w2c': np.eye(3).ravel().tolist()}})
# As cv2.FileStorage writes it.
OPENCV = '''%YAML:1.0
---
image_width: 640
image_height: 480
camera_matrix: !!opencv-matrix
   rows: 3
   cols: 3
   dt: d
   data: [ 615.25, 0., 322.75, 0., 614.5, 238.125, 0., 0., 1. ]
distortion_coefficients: !!opencv-matrix
   rows: 1
   cols: 5
   dt: d
   data: [ 0.1, -0.2, 0.001, -0.002, 0.05 ]
'''
NUMPY = str(np.reshape(K, (3, 3)))


@pytest.mark.parametrize('name, text, is_distorted, unit', [
    ('camera.json', FRAME_FOLDER, True, None),
    ('head.yaml', CAMERA_INFO, True, None),
    ('info.txt', TOPIC_ECHO, True, None),
    ('info1.txt', ROSTOPIC_ECHO, True, None),
    ('rs.txt', ENUMERATED, True, None),
    ('rs.json', INTRINSICS, True, 0.00025),
    ('o3d.json', OPEN3D, False, None),
    ('view.json', OPEN3D_VIEW, False, None),
    ('bop.json', BOP, False, 0.0001),
    ('scene_camera.json', BOP_SCENE, False, 0.0001),
    ('four.txt', f'# fx fy cx cy\n{FX} {FY} {CX} {CY}\n', False, None),
    ('four.csv', f'{FX},{FY},{CX},{CY}', False, None),
    ('cam_K.txt', f'{FX} 0.000000000000000000e+00 {CX}\n0 {FY} {CY}\n0 0 1\n', False, None),
    ('numpy.txt', NUMPY, False, None),
    ('list.txt', str(np.reshape(K, (3, 3)).tolist()), False, None),
    ('scannet.txt', str(np.pad(np.reshape(K, (3, 3)), (0, 1))), False, None),
    ('projection.txt', str(np.pad(np.reshape(K, (3, 3)), ((0, 0), (0, 1)))), False, None),
    ('opencv.yaml', OPENCV, True, None),
])
def test_every_tools_file_is_the_same_camera(
    name: str, text: str, is_distorted: bool, unit: float | None, tmp_path: Path,
) -> None:
    (tmp_path / name).write_text(text)
    found = read_calibration(tmp_path / name, SIZE, '000012')
    np.testing.assert_allclose(found.camera.matrix.ravel(), K, rtol=1e-7)
    assert (found.camera.width, found.camera.height) == SIZE
    assert found.camera.has_distortion == is_distorted
    if is_distorted:
        np.testing.assert_allclose(found.camera.distortion, D)
    assert found.depth_unit == (None if unit is None else pytest.approx(unit))


def test_arrays_are_calibrations(tmp_path: Path) -> None:
    np.save(tmp_path / 'camK.npy', np.reshape(K, (3, 3)))
    np.testing.assert_allclose(
        read_calibration(tmp_path / 'camK.npy', SIZE).camera.matrix.ravel(), K)


@pytest.mark.parametrize('text', [
    '3.6 3.6 320 240', '0.96 1.28 0.5 0.5', '69 42 320 240'])  # millimetres, shares, degrees
def test_k_that_is_not_in_pixels_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / 'k.txt').write_text(text)
    with pytest.raises(InputError, match='k.txt.*in pixels'):
        read_calibration(tmp_path / 'k.txt', SIZE)


@pytest.mark.parametrize('text, is_said', [
    (f'{FX} {CX} {FY} {CY}', True),  # another order
    (f'{2 * FX} {2 * FY} {2 * CX} {2 * CY}', True),  # of another size
    (json.dumps({'width': 4000, 'height': 3000, 'K': K}), True),
    (f'{FX} {FY} {CX} {CY}', False)])
def test_k_that_is_likely_wrong_is_said_once(
    text: str, is_said: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / 'k.txt').write_text(text)
    for _ in range(2):
        read_calibration(tmp_path / 'k.txt', SIZE)
    said = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(said) == is_said
    assert not is_said or 'k.txt' in caplog.text


def test_open3d_itself_writes_the_same_camera(tmp_path: Path) -> None:
    open3d = pytest.importorskip('open3d')
    intrinsic = open3d.camera.PinholeCameraIntrinsic(640, 480, FX, FY, CX, CY)
    open3d.io.write_pinhole_camera_intrinsic(str(tmp_path / 'o3d.json'), intrinsic)
    found = read_calibration(tmp_path / 'o3d.json', SIZE)
    np.testing.assert_allclose(found.camera.matrix, intrinsic.intrinsic_matrix)


def test_inverse_brown_conrady_projects_as_librealsense(tmp_path: Path) -> None:
    """rs2_project_point_to_pixel of rsutil.h, with the coefficients of a real D455."""
    k1, k2, p1, p2, k3 = coefficients = -0.0565, 0.0688, -0.000717, -0.000025, -0.0224
    (tmp_path / 'rs.json').write_text(json.dumps(
        json.loads(INTRINSICS) | {'coeffs': coefficients}))
    x, y = np.meshgrid(np.linspace(-0.5, 0.5, 9), np.linspace(-0.38, 0.38, 9))
    r2 = x ** 2 + y ** 2
    bend = 1 + k1 * r2 + k2 * r2 ** 2 + k3 * r2 ** 3
    u, v = x * bend, y * bend
    expected = np.stack([(u + 2 * p1 * u * v + p2 * (r2 + 2 * u * u)) * FX + CX,
                         (v + 2 * p2 * u * v + p1 * (r2 + 2 * v * v)) * FY + CY], axis=-1)
    camera = read_calibration(tmp_path / 'rs.json', SIZE).camera
    points = np.stack([x, y, np.ones_like(x)], axis=-1)
    np.testing.assert_allclose(camera.project(points), expected, atol=0.05)


def test_roi_and_binning_of_a_camera_info_count(tmp_path: Path) -> None:
    text = TOPIC_ECHO.partition('---')[0].replace('binning_x: 0', 'binning_x: 2').replace(
        'binning_y: 0', 'binning_y: 2').replace('x_offset: 0', 'x_offset: 100').replace(
        'height: 0', 'height: 240').replace('width: 0', 'width: 320')
    (tmp_path / 'info.txt').write_text(text)
    camera = read_calibration(tmp_path / 'info.txt', (160, 120)).camera
    assert (camera.fx, camera.cx) == (FX / 2, (CX - 100) / 2)


@pytest.mark.parametrize('text', [
    json.dumps({'width': 640, 'height': 480, 'K': np.reshape(K, (3, 3)).T.tolist()}),
    CAMERA_INFO.replace('[615.25, 0, 322.75, 0, 614.5, 238.125, 0, 0, 1]',
                        '[615.25, 0, 0, 0, 614.5, 0, 322.75, 238.125, 1]'),
    json.dumps(json.loads(OPEN3D) | {'intrinsic_matrix': K}),
    f'{FX} 0 0\n0 {FY} 0\n{CX} {CY} 1\n',
])
def test_transposed_k_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / 'k.txt').write_text(text)
    with pytest.raises(InputError, match='k.txt.*transposed'):
        read_calibration(tmp_path / 'k.txt', SIZE)


def test_skew_is_refused_unless_it_moves_nothing(tmp_path: Path) -> None:
    for skew, is_refused in ((20.0, True), (-1.0, True), (0.01, False)):
        (tmp_path / 'k.txt').write_text(f'{FX} {skew} {CX}\n0 {FY} {CY}\n0 0 1')
        if is_refused:
            with pytest.raises(InputError, match='k.txt.*skew'):
                read_calibration(tmp_path / 'k.txt', SIZE)
        else:
            assert read_calibration(tmp_path / 'k.txt', SIZE).camera.fx == FX


def test_calibration_of_another_size_is_scaled_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / 'o3d.json').write_text(OPEN3D)
    with caplog.at_level(logging.INFO, 'img2scene_ros'):
        camera = read_calibration(tmp_path / 'o3d.json', (320, 240)).camera
    assert '640x480' in caplog.text and '320x240' in caplog.text
    # The same rays through the middle of a pixel of the small picture and of its four in the large
    expected = Camera(640, 480, FX, FY, CX, CY).rays_at(np.array([200.5, 100.5]))
    np.testing.assert_allclose(camera.rays_at(np.array([100.0, 50.0])), expected)


@pytest.mark.parametrize('size, words', [
    ((640, 360), '640x480.*640x360'), ((480, 640), 'turned'), ((848, 480), '848x480')])
def test_calibration_of_another_aspect_is_refused(
    size: tuple[int, int], words: str, tmp_path: Path,
) -> None:
    (tmp_path / 'o3d.json').write_text(OPEN3D)
    with pytest.raises(InputError, match=f'o3d.json.*{words}'):
        read_calibration(tmp_path / 'o3d.json', size)


@pytest.mark.parametrize('text, words', [
    ('nothing of use', '3x3'),
    ('', 'JSON'),
    ('[1, 2]', '3x3'),
    (json.dumps({'K': [1, 2, 3]}), '3x3'),
    (json.dumps({'K': [0] * 8 + [1]}), 'not calibrated'),
    (json.dumps({'K': K, 'D': ['x']}), '3x3'),
    (json.dumps({'K': K, 'width': None, 'height': 480}), 'width'),
    ('1 2 3 4 5', '3x3'),
    ('[' * 100000, '3x3'),
    ('image_width: 640\nimage_height: 480\n', "'K'"),
    ('{"width": 640, "fx": 1, "fy": 1, "cx": 1, "cy": 1}', 'height'),
    (json.dumps({'fx': FX, 'fy': FY, 'cx': CX}), 'fx fy cx cy'),
    (BOP_SCENE.replace('"12"', '"13"'), "'000012'"),
    (json.dumps({'K': K, 'depth_scale': 20}), 'depth_scale'),
    (json.dumps({'K': K, 'depth_scale': 'mm'}), 'mm'),
    (INTRINSICS.replace('inverse_brown_conrady', 'ftheta'), 'ftheta'),
    (realsense('Depth', SIZE), 'Color'),
    (realsense('Color', SIZE) + realsense('Color', SIZE, 1.1), 'one camera'),
])
def test_unusable_calibration_is_one_sentence(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / 'odd.txt').write_text(text)
    with pytest.raises(InputError, match=f'odd.txt.*{words}') as caught:
        read_calibration(tmp_path / 'odd.txt', SIZE, '000012')
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('entries, unit', [
    ({'K': K, 'depth_scale': 0.001}, 0.001), ({'K': K, 'depth_scale': 0.01}, 0.01),
    ({'K': K, 'depth_scale': 5000}, 0.0002), ({'K': K, 'depth_scale': 1.0}, 1.0),
    ({'cam_K': K, 'depth_scale': 1.0}, 0.001),
    ({'fx': FX, 'fy': FY, 'cx': CX, 'cy': CY, 'depth_scale': 1000.0}, 0.001),
    ({'fx': FX, 'fy': FY, 'cx': CX, 'cy': CY, 'depth_scale': 0.0001}, 0.0001),
])
def test_depth_scale_is_metres_per_unit_or_what_its_tool_means(
    entries: dict[str, object], unit: float, tmp_path: Path,
) -> None:
    (tmp_path / 'camera.json').write_text(json.dumps(entries))
    assert read_calibration(tmp_path / 'camera.json', SIZE).depth_unit == pytest.approx(unit)
