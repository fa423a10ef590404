# SPDX-License-Identifier: Apache-2.0
"""Photos: EXIF as cameras write it, photos without it, large and broken ones."""

from pathlib import Path
from zlib import crc32

import cv2
import numpy as np
import pytest
from PIL import ExifTags
from PIL import Image

from img2scene_ros.errors import InputError
from img2scene_ros.errors import OptionError
from img2scene_ros.io.photos import load_photo

TAGS = ExifTags.Base


def photo(path: Path, size: tuple[int, int] = (400, 300), orientation: int = 1,
          **values: object) -> Path:
    """Write a photo that is red at its upper left, with EXIF values."""
    picture = np.full((size[1], size[0], 3), 40, np.uint8)
    picture[:size[1] // 4, :size[0] // 4] = (230, 20, 20)
    exif = Image.Exif()
    exif[TAGS.Orientation] = orientation
    exif[ExifTags.IFD.Exif] = {TAGS[name]: value for name, value in values.items()}
    Image.fromarray(picture).save(path, exif=exif, quality=95)
    return path


def field_of(frame) -> tuple[float, float]:
    """Return the angles between the borders of a picture, degrees."""
    camera = frame.camera
    return tuple(2 * np.degrees(np.arctan(side / 2 / focal)) for side, focal in (
        (camera.width, camera.fx), (camera.height, camera.fy)))


def test_film_equivalent_gives_the_field_of_view(tmp_path: Path) -> None:
    """On film, 24 mm high and 36 mm wide, 28 mm see 65.5 by 46.4 degrees."""
    found = load_photo(photo(tmp_path / 'a.jpg', (600, 400), FocalLengthIn35mmFilm=28))
    assert field_of(found.frame) == pytest.approx((65.5, 46.4), abs=0.05)
    assert '28 mm' in found.camera and 'EXIF' in found.camera
    assert found.resized == ''
    # Other formats go by their diagonal, which is 75.4 degrees.
    found = load_photo(photo(tmp_path / 'b.jpg', (400, 300), FocalLengthIn35mmFilm=28))
    camera = found.frame.camera
    assert 2 * np.degrees(np.arctan(250 / camera.fx)) == pytest.approx(75.4, abs=0.05)


@pytest.mark.parametrize('unit, resolution', [(2, 4000 / (22.3 / 25.4)), (3, 4000 / 2.23),
                                              (4, 4000 / 22.3)])
@pytest.mark.parametrize('width', [4000, 1000])
def test_focal_length_and_sensor_give_the_field_of_view(
    tmp_path: Path, unit: int, resolution: float, width: int,
) -> None:
    """A sensor 22.3 mm wide behind 18 mm sees 63.6 degrees, also when scaled down since."""
    found = load_photo(photo(
        tmp_path / 'a.jpg', (width, 3 * width // 4), FocalLength=18.0,
        FocalPlaneXResolution=resolution, FocalPlaneResolutionUnit=unit, ExifImageWidth=4000,
        ExifImageHeight=3000))
    assert field_of(found.frame)[0] == pytest.approx(63.6, abs=0.05)
    assert '22.3 mm' in found.camera


@pytest.mark.parametrize('orientation, corner', [
    (1, (0, 0)), (2, (0, 1)), (3, (1, 1)), (4, (1, 0)), (5, (0, 0)), (6, (0, 1)), (7, (1, 1)),
    (8, (1, 0))])
def test_photo_is_turned_upright(
    tmp_path: Path, orientation: int, corner: tuple[int, int],
) -> None:
    """Where the file's upper left corner is shown is what the EXIF standard says."""
    found = load_photo(photo(
        tmp_path / 'a.jpg', orientation=orientation, FocalLengthIn35mmFilm=28))
    height, width = found.frame.shape
    assert (width, height) == ((400, 300) if orientation < 5 else (300, 400))
    assert (found.frame.camera.width, found.frame.camera.height) == (width, height)
    place = (height - 10) * corner[0] + 5, (width - 10) * corner[1] + 5
    assert found.frame.color[place][0] > 200 and found.frame.color[place][1] < 60
    assert found.frame.camera.fx == pytest.approx(28 * 500 / 43.27, rel=1e-3)


@pytest.mark.parametrize('values', [
    {}, {'FocalLengthIn35mmFilm': 0}, {'FocalLength': 4.2},
    {'FocalLength': 4.2, 'FocalPlaneXResolution': 0.0},
    {'FocalLength': 4.2, 'FocalPlaneXResolution': 1000.0, 'FocalPlaneResolutionUnit': 77}])
def test_photo_that_does_not_tell_gets_a_field_of_view(
    tmp_path: Path, values: dict[str, object],
) -> None:
    path = photo(tmp_path / 'a.jpg', **values)
    found = load_photo(path)
    assert field_of(found.frame)[0] == pytest.approx(60.0)
    assert 'assumed' in found.camera and '--fov' in found.camera


def test_field_of_view_that_is_told_counts(tmp_path: Path) -> None:
    path = photo(tmp_path / 'a.jpg', FocalLengthIn35mmFilm=28)
    found = load_photo(path, field_of_view=90.0)
    assert found.frame.camera.fx == pytest.approx(200.0)
    assert 'as told' in found.camera
    for wrong in (0.0, 180.0, -5.0, float('nan')):
        with pytest.raises(OptionError, match='between 1 and 170'):
            load_photo(path, field_of_view=wrong)


def test_large_photo_is_scaled_down_with_its_camera(tmp_path: Path) -> None:
    path = photo(tmp_path / 'a.jpg', (4000, 3000), FocalLengthIn35mmFilm=26)
    found = load_photo(path)
    assert found.frame.shape == (1200, 1600)
    assert found.resized == 'scaled down from 4000x3000 to 1600x1200 pixels'
    assert found.frame.camera.fx == pytest.approx(26 * 2000 / 43.27, rel=1e-3)
    assert found.frame.camera.cx == pytest.approx(799.5)


def test_calibration_is_that_of_the_full_size(tmp_path: Path) -> None:
    (tmp_path / 'camera.json').write_text(
        '{"width": 3200, "height": 1600, "K": [2000, 0, 1600.5, 0, 2100, 799.5, 0, 0, 1]}')
    found = load_photo(photo(tmp_path / 'a.jpg', (3200, 1600)), tmp_path / 'camera.json')
    assert found.frame.camera.fx == pytest.approx(1000.0)
    assert found.frame.camera.fy == pytest.approx(1050.0)
    with pytest.raises(InputError, match='3200x1600'):
        load_photo(photo(tmp_path / 'b.jpg'), tmp_path / 'camera.json')


@pytest.mark.parametrize('mode', ['L', 'RGBA', 'P', 'CMYK', '1'])
def test_any_kind_of_picture_becomes_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ('a.jpg' if mode == 'CMYK' else 'a.png')
    Image.new(mode, (40, 30)).save(path)
    assert load_photo(path).frame.color.shape == (30, 40, 3)


def test_colours_are_those_that_opencv_reads(tmp_path: Path) -> None:
    path = photo(tmp_path / 'a.png')
    np.testing.assert_array_equal(
        load_photo(path).frame.color, cv2.imread(str(path))[..., ::-1])


def test_broken_photo_is_one_sentence(tmp_path: Path) -> None:
    whole = photo(tmp_path / 'a.jpg').read_bytes()
    huge = bytearray((photo(tmp_path / 'b.png')).read_bytes())
    huge[16:24] = (100_000).to_bytes(4, 'big') * 2
    huge[29:33] = crc32(huge[12:29]).to_bytes(4, 'big')
    for name, content, words in (
            ('cut.jpg', whole[:len(whole) // 2], 'damaged'),
            ('text.jpg', b'no picture', 'not a picture'),
            ('empty.png', b'', 'not a picture'),
            ('phone.heic', b'\0\0\0\x18ftypheic' + bytes(50), 'convert it to JPEG'),
            ('huge.png', bytes(huge), 'too large')):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=words) as caught:
            load_photo(tmp_path / name)
        assert name in str(caught.value) and '\n' not in str(caught.value)
    with pytest.raises(InputError, match='no picture'):
        load_photo(tmp_path / 'nowhere.jpg')
