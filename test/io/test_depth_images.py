# SPDX-License-Identifier: Apache-2.0
"""Depth images of any format and unit are the same metres."""

import logging
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from img2scene_ros.depth import parse_depth_unit
from img2scene_ros.errors import InputError
from img2scene_ros.errors import OptionError
from img2scene_ros.io.depth_images import read_depth

METRES = np.linspace(0.5, 2.0, 12).reshape(3, 4).round(3)
METRES[0, 0] = np.nan


def write(path: Path, values: np.ndarray) -> Path:
    """Write numbers as other programs do."""
    if path.suffix == '.npy':
        np.save(path, values)
    elif path.suffix == '.npz':
        np.savez(path, depth=values, color=np.zeros(3))
    else:
        os.environ['OPENCV_IO_ENABLE_OPENEXR'] = '1'
        path.write_bytes(cv2.imencode(path.suffix, values)[1].tobytes())
    return path


def units(metres: float, kind: type) -> np.ndarray:
    """Return the depth in a unit, 0 where there is no reading."""
    return np.nan_to_num(METRES / metres).round(0 if kind in (np.uint16, np.int32) else 9).astype(
        kind)


@pytest.mark.parametrize('name, values, unit', [
    ('a.png', units(0.001, np.uint16), None),
    ('a.PNG', units(0.0001, np.uint16), 0.0001),
    ('a.tif', units(0.001, np.uint16), None),
    ('a.tiff', METRES.astype(np.float32), None),
    ('a.pgm', units(0.001, np.uint16), None),
    ('a.pgm', units(1 / 5000, np.uint16), 1 / 5000),
    ('a.exr', METRES.astype(np.float32), None),
    ('a.exr', np.dstack([METRES.astype(np.float32)] * 3), None),  # as Blender writes it
    ('a.exr', units(0.01, np.float32), 0.01),
    ('a.npy', METRES, None),
    ('a.npy', METRES.astype(np.float32)[..., None], None),
    ('a.npy', METRES[None], None),
    ('a.npy', units(0.001, np.uint16).astype('>u2'), None),
    ('a.npz', METRES, None),
    ('a.pfm', METRES.astype(np.float32), None),
    (os.fsdecode(b'\xff [1] 100%.png'), units(0.001, np.uint16), None),
    ('a.npy', units(0.001, np.int32), 0.001),
    ('a.npy', units(0.001, np.float32), 0.001),
])
def test_every_format_and_unit_is_the_same_metres(
    name: str, values: np.ndarray, unit: float | None, tmp_path: Path,
) -> None:
    depth = read_depth(write(tmp_path / name, values), unit)
    assert depth.dtype == np.float32
    np.testing.assert_allclose(depth, METRES, atol=2e-4)


@pytest.mark.parametrize('kind, nothing', [
    (np.uint16, 0), (np.uint16, 65535), (float, np.inf), (float, -np.inf), (float, -1.0),
    (float, 1e10), (np.float16, 65504.0), (float, 60.0)])
def test_what_is_no_reading(kind: type, nothing: float, tmp_path: Path) -> None:
    values = np.full((3, 4), 1000 if kind is np.uint16 else 1.0).astype(kind)
    values[1] = nothing
    depth = read_depth(write(tmp_path / 'a.npy', values))
    assert np.isnan(depth[1]).all() and np.allclose(depth[::2], 1.0)


def test_first_row_of_pfm_is_the_lowest(tmp_path: Path) -> None:
    rows = np.array([[3.0, 3.0], [2.0, 2.0], [1.0, 1.0]], '<f4')
    (tmp_path / 'a.pfm').write_bytes(b'Pf\n2 3\n-1.0\n' + rows.tobytes())
    assert read_depth(tmp_path / 'a.pfm')[:, 0].tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize('text, unit', [
    ('mm', 0.001), ('cm', 0.01), ('m', 1.0), ('0.0001', 0.0001), ('1e-3', 0.001),
    ('1/5000', 0.0002)])
def test_units_are_names_or_metres(text: str, unit: float) -> None:
    assert parse_depth_unit(text) == pytest.approx(unit)


@pytest.mark.parametrize('text', ['', 'inch', '0', '-0.001', '5000', '1/0', 'nan'])
def test_what_is_no_unit_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match='1/5000'):
        parse_depth_unit(text)


@pytest.mark.parametrize('name, content', [
    ('depth.png', b'\x89PNG but not really'), ('depth.exr', b'exr'), ('depth.npy', b''),
    ('depth.npy', b'\x93NUMPY\x01\x00'), ('depth.raw', bytes(24)), ('depth.tiff', b'II*\0')])
def test_damaged_file_is_one_sentence(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f'depth image.*{name}') as caught:
        read_depth(tmp_path / name)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('values', [
    np.full((3, 4), 200, np.uint8),
    np.dstack([np.full((3, 4), value, np.uint8) for value in (10, 20, 30)]),
    np.dstack([np.full((3, 4), 1000 * value, np.uint16) for value in (1, 2, 3)])])
def test_pictures_are_no_depth(values: np.ndarray, tmp_path: Path) -> None:
    """Eight bits are a picture of depth, unless their unit is told."""
    path = write(tmp_path / 'depth.png', values)
    with pytest.raises(InputError, match='one channel'):
        read_depth(path)
    if values.ndim == 2:
        assert read_depth(path, 0.01)[0, 0] == pytest.approx(2.0)


@pytest.mark.parametrize('values, unit, hint', [
    (units(0.0001, np.uint16), None, '0.0001'),  # of BOP, taken for millimetres
    (units(0.001, np.float32), None, 'mm'),
    (units(0.001, np.uint16), 0.00001, 'mm'),
    (METRES, 0.001, ' m '),
])
def test_a_likely_wrong_unit_is_said_once(
    values: np.ndarray, unit: float | None, hint: str, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name in ('a.npy', 'b.npy'):
        read_depth(write(tmp_path / name, values), unit)
    said, = caplog.records
    assert said.levelno == logging.WARNING
    assert 'a.npy' in said.getMessage() and hint in said.getMessage()


def test_a_likely_right_unit_is_not_worth_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture,
) -> None:
    read_depth(write(tmp_path / 'a.npy', METRES))
    read_depth(write(tmp_path / 'empty.npy', np.zeros((3, 4))))
    assert not caplog.records
