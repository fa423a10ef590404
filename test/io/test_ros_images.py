# SPDX-License-Identifier: Apache-2.0
"""Images of messages are read as others made them; bad ones end in one clear sentence."""

import struct
from collections.abc import Callable
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from img2scene_ros.errors import InputError
from img2scene_ros.io.ros_images import color_from_compressed
from img2scene_ros.io.ros_images import color_from_image
from img2scene_ros.io.ros_images import depth_from_compressed
from img2scene_ros.io.ros_images import depth_from_image

HEIGHT, WIDTH = 7, 5


@pytest.fixture
def rgb() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def image(
    pixels: np.ndarray, encoding: str, padding: int = 0, big_endian: bool = False,
) -> SimpleNamespace:
    """Make a message as a driver would: rows of bytes, each followed by padding."""
    pixels = pixels.astype(pixels.dtype.newbyteorder('>' if big_endian else '<'))
    rows = pixels.reshape(len(pixels), -1).view(np.uint8)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=173)
    return SimpleNamespace(
        header=SimpleNamespace(frame_id='optical'), height=pixels.shape[0],
        width=pixels.shape[1], encoding=encoding, step=rows.shape[1], is_bigendian=big_endian,
        data=rows.tobytes())


def compressed(data: bytes, how: str) -> SimpleNamespace:
    return SimpleNamespace(
        header=SimpleNamespace(frame_id='optical'), format=how, data=data)


@pytest.mark.parametrize('big_endian', [False, True])
@pytest.mark.parametrize('padding', [0, 3, 64])
@pytest.mark.parametrize('encodings, order', [
    (('rgb8', 'rgb16'), (0, 1, 2)), (('bgr8', 'bgr16', '8UC3'), (2, 1, 0)),
    (('rgba8', 'rgba16'), (0, 1, 2, 0)), (('bgra8', 'bgra16', '8UC4'), (2, 1, 0, 0)),
    (('mono8', 'mono16', '8UC1'), 0),
])
def test_reads_color(
    rgb: np.ndarray, encodings: tuple[str, ...], order: tuple[int, ...] | int, padding: int,
    big_endian: bool,
) -> None:
    sent = rgb[..., order]
    expected = rgb if sent.ndim == 3 else np.dstack([sent] * 3)
    for encoding in encodings:
        pixels = sent.astype(np.uint16) * 257 if '16' in encoding else sent  # 255 becomes 65535
        received = color_from_image(image(pixels, encoding, padding, big_endian))
        assert received.dtype == np.uint8 and received.flags.c_contiguous
        np.testing.assert_array_equal(received, expected)


@pytest.mark.parametrize('big_endian', [False, True])
@pytest.mark.parametrize('padding', [0, 6])
@pytest.mark.parametrize('encoding', ['16UC1', 'mono16'])
def test_reads_millimetres(encoding: str, padding: int, big_endian: bool) -> None:
    millimetres = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 1000
    received = depth_from_image(image(millimetres, encoding, padding, big_endian))
    assert received.dtype == np.float32
    assert np.isnan(received[0, 0]), '0 is no reading'
    np.testing.assert_allclose(received.ravel()[1:], np.arange(1, HEIGHT * WIDTH), rtol=1e-6)


@pytest.mark.parametrize('big_endian', [False, True])
@pytest.mark.parametrize('padding', [0, 4])
def test_reads_metres(padding: int, big_endian: bool) -> None:
    metres = np.linspace(0.5, 3, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH)
    metres[0, :4] = np.nan, np.inf, 0, -1
    received = depth_from_image(image(metres, '32FC1', padding, big_endian))
    assert np.isnan(received[0, :4]).all()
    np.testing.assert_array_equal(received[1:], metres[1:])


def test_reads_last_row_without_padding(rgb: np.ndarray) -> None:
    message = image(rgb, 'rgb8', 5)
    message.data = message.data[:-5]
    np.testing.assert_array_equal(color_from_image(message), rgb)


def test_reads_without_copy(rgb: np.ndarray) -> None:
    message = image(rgb, 'rgb8')
    assert np.shares_memory(
        color_from_image(message), np.frombuffer(message.data, np.uint8))


@pytest.mark.parametrize('suffix', ['.png', '.jpg'])
def test_reads_compressed_like_cv2(rgb: np.ndarray, suffix: str) -> None:
    encoded = cv2.imencode(suffix, rgb[..., ::-1])[1]
    message = compressed(encoded.tobytes(), f'rgb8; {suffix}')
    expected = cv2.imdecode(encoded, cv2.IMREAD_COLOR)[..., ::-1]
    np.testing.assert_array_equal(color_from_compressed(message), expected)


@pytest.mark.parametrize('data', [b'', b'no picture'])
def test_refuses_compressed_data_that_are_no_picture(data: bytes) -> None:
    with pytest.raises(InputError, match="format 'jpeg'.*cannot be decoded.*raw"):
        color_from_compressed(compressed(data, 'jpeg'))


def short_step(message: SimpleNamespace) -> None:
    message.step -= 1


def truncated(message: SimpleNamespace) -> None:
    message.data = message.data[:-1]


def no_data(message: SimpleNamespace) -> None:
    message.data = b''


def no_width(message: SimpleNamespace) -> None:
    message.width = message.step = 0


def no_height(message: SimpleNamespace) -> None:
    message.height = 0


@pytest.mark.parametrize('damage, sentence', [
    (short_step, '14 bytes.*15'),
    (truncated, '104 bytes.*7 rows of 15'),
    (no_data, '0 bytes.*7 rows'),
    (no_width, '0x7 pixels'),
    (no_height, '5x0 pixels'),
])
def test_refuses_damaged_images(
    rgb: np.ndarray, damage: Callable[[SimpleNamespace], None], sentence: str,
) -> None:
    message = image(rgb, 'rgb8')
    damage(message)
    with pytest.raises(InputError, match=sentence):
        color_from_image(message)


def test_refuses_depth_as_color_and_color_as_depth(rgb: np.ndarray) -> None:
    with pytest.raises(InputError, match="'32FC1'"):
        color_from_image(image(rgb[..., 0].astype(np.float32), '32FC1'))
    with pytest.raises(InputError, match="'bgr8'.*depth"):
        depth_from_image(image(rgb, 'bgr8'))


def pairs_of_color(height: int = 32, width: int = 48) -> np.ndarray:
    """Return a picture whose 2x2 blocks have one colour each, as halved colour planes keep it."""
    v, u = np.mgrid[:height // 2, :width // 2]
    small = np.stack([40 + 4 * u, 60 + 8 * v, 200 - 3 * u - 4 * v], axis=-1).astype(np.uint8)
    return small.repeat(2, axis=0).repeat(2, axis=1)


def to_yuv(rgb: np.ndarray) -> np.ndarray:
    """Convert as ITU-R BT.601 defines it, in the range of video."""
    matrix = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0],
                       [112.0, -93.786, -18.214]])
    return (rgb / 255.0 @ matrix.T + (16.0, 128.0, 128.0)).round().astype(np.uint8)


def packed(yuv: np.ndarray, encoding: str) -> np.ndarray:
    """Return the bytes of an encoding, row by row."""
    y, u, v = np.moveaxis(yuv, -1, 0)
    if encoding in ('nv12', 'nv21'):
        chroma = (u, v) if encoding == 'nv12' else (v, u)
        planes = np.stack([plane[::2, ::2] for plane in chroma], axis=-1)
        return np.concatenate([y, planes.reshape(len(y) // 2, -1)])
    quads = [u[:, ::2], y[:, ::2], v[:, ::2], y[:, 1::2]]
    if encoding in ('yuyv', 'yuv422_yuy2'):
        quads = [quads[1], quads[0], quads[3], quads[2]]
    return np.stack(quads, axis=-1).reshape(len(y), -1)


@pytest.mark.parametrize('padding', [0, 16])
@pytest.mark.parametrize(
    'encoding', ['uyvy', 'yuv422', 'yuyv', 'yuv422_yuy2', 'nv12', 'nv21'])
def test_reads_yuv(encoding: str, padding: int) -> None:
    rgb = pairs_of_color()
    message = image(packed(to_yuv(rgb), encoding), encoding, padding)
    message.height, message.width = rgb.shape[:2]
    received = color_from_image(message)
    assert received.shape == rgb.shape
    # Eight bits of brightness and colour each leave an error of some steps.
    np.testing.assert_allclose(received.astype(int), rgb, atol=4)


@pytest.mark.parametrize('encoding', ['uyvy', 'nv12'])
def test_refuses_sizes_that_pairs_of_pixels_cannot_have(encoding: str) -> None:
    with pytest.raises(InputError, match=f"5x7.*'{encoding}'"):
        color_from_image(image(np.zeros((7, 5), np.uint8), encoding))


@pytest.mark.parametrize('bits, big_endian', [(8, False), (16, False), (16, True)])
@pytest.mark.parametrize('pattern', ['rggb', 'bggr', 'gbrg', 'grbg'])
def test_reads_bayer(pattern: str, bits: int, big_endian: bool) -> None:
    v, u = np.mgrid[:24, :32]
    rgb = np.stack([40 + 4 * u, 60 + 6 * v, 200 - 3 * u], axis=-1)
    sent = np.empty(u.shape, np.uint8)
    for i, color in enumerate(pattern):  # of the first row, then of the second
        part = slice(i // 2, None, 2), slice(i % 2, None, 2)
        sent[part] = rgb[..., 'rgb'.index(color)][part]
    if bits == 16:
        sent = sent.astype(np.uint16) * 257
    received = color_from_image(image(sent, f'bayer_{pattern}{bits}', 6, big_endian))
    np.testing.assert_allclose(received[2:-2, 2:-2].astype(int), rgb[2:-2, 2:-2], atol=3)


@pytest.mark.parametrize('read', [color_from_image, depth_from_image])
def test_unknown_encoding_is_named(read: Callable[[SimpleNamespace], np.ndarray]) -> None:
    with pytest.raises(InputError, match="'nonsense'"):
        read(image(np.zeros((4, 4), np.uint8), 'nonsense'))


def test_floats_in_millimetres_are_recognised_and_said(caplog: pytest.LogCaptureFixture) -> None:
    metres = np.linspace(0.3, 4.0, 480, dtype=np.float32).reshape(20, 24)
    message = image(metres * 1000.0, '32FC1')
    message.header.frame_id = 'odd_camera'
    for _ in range(2):
        np.testing.assert_allclose(depth_from_image(message), metres, rtol=1e-6)
    assert len(caplog.messages) == 1 and 'odd_camera' in caplog.text
    np.testing.assert_array_equal(depth_from_image(image(metres, '32FC1')), metres)


def depth_with_holes() -> np.ndarray:
    """Return (H, W) metres, NaN = no reading: a slope, a step, and what has none."""
    v, u = np.mgrid[:60, :83]
    depth = (0.8 + 0.004 * u + 0.002 * v).astype(np.float32)
    depth[20:40, 30:50] -= 0.3
    depth[np.random.default_rng(2).random(depth.shape) < 0.1] = np.nan
    depth[:5] = depth[50:, 60:] = np.nan
    return depth


def to_rvl(image: np.ndarray) -> bytes:
    """Encode as the paper does: Wilson: Fast lossless depth image compression, ISS 2017."""
    nibbles: list[int] = []

    def write(number: int) -> None:
        while True:
            nibble, number = number & 7, number >> 3
            nibbles.append(nibble | (8 if number else 0))
            if not number:
                return

    pixels, at, before = image.ravel().astype(int).tolist(), 0, 0
    while at < len(pixels):
        for is_zero in (True, False):
            run = at
            while run < len(pixels) and (pixels[run] == 0) == is_zero:
                run += 1
            write(run - at)
            for value in pixels[at:run] if not is_zero else ():
                change, before = value - before, value
                write(change << 1 if change >= 0 else (-change << 1) - 1)
            at = run
    nibbles += [0] * (-len(nibbles) % 8)
    words = [int(''.join(f'{nibble:x}' for nibble in nibbles[i:i + 8]), 16)
             for i in range(0, len(nibbles), 8)]
    return struct.pack(f'<II{len(words)}I', image.shape[1], image.shape[0], *words)


def to_png(image: np.ndarray) -> bytes:
    return cv2.imencode('.png', image)[1].tobytes()


@pytest.mark.parametrize('encode, how', [
    (to_png, '; compressedDepth png'), (to_png, '; compressedDepth'),
    (to_png, ''), (to_rvl, '; compressedDepth rvl')])
def test_reads_compressed_depth_in_millimetres(
    encode: Callable[[np.ndarray], bytes], how: str,
) -> None:
    sent = np.nan_to_num(depth_with_holes() * 1000.0).round().astype(np.uint16)
    sent[30, 30:34] = 1, 65534, 40000, 2  # jumps that need all bits
    received = depth_from_compressed(
        compressed(struct.pack('<iff', 0, 0.0, 0.0) + encode(sent), f'16UC1{how}'))
    np.testing.assert_array_equal(np.nan_to_num(received * 1000.0).round(), sent)


@pytest.mark.parametrize('encode, how', [(to_png, 'png'), (to_rvl, 'rvl')])
def test_reads_compressed_depth_in_metres(
    encode: Callable[[np.ndarray], bytes], how: str,
) -> None:
    """Quantised as image_transport does: 100 steps near, up to 10 m."""
    depth = depth_with_holes()
    a = 100.0 * 101.0
    b = 1.0 - a / 10.0
    steps = np.nan_to_num(a / depth + b).astype(np.uint16)
    received = depth_from_compressed(compressed(
        struct.pack('<iff', 0, a, b) + encode(steps), f'32FC1; compressedDepth {how}'))
    np.testing.assert_array_equal(np.isnan(received), np.isnan(depth))
    np.testing.assert_allclose(received, depth, rtol=2e-4)


def test_reads_a_png_of_the_plain_compressed_transport() -> None:
    sent = np.nan_to_num(depth_with_holes() * 1000.0).round().astype(np.uint16)
    received = depth_from_compressed(compressed(to_png(sent), '16UC1; png compressed '))
    np.testing.assert_array_equal(np.nan_to_num(received * 1000.0).round(), sent)


@pytest.mark.parametrize('data, how', [
    (b'', '16UC1; compressedDepth png'),
    (b'nothing at all, really', '16UC1; compressedDepth png'),
    (bytes(12) + b'short', '16UC1; compressedDepth rvl'),
    (bytes(12) + bytes(80), '16UC1; compressedDepth rvl'),
    (bytes(12) + struct.pack('<II', 8, 6) + bytes(4), '16UC1; compressedDepth rvl'),
    (bytes(12) + struct.pack('<II', 8, 6) + b'\xff' * 40, '16UC1; compressedDepth rvl'),
    (bytes(12) + to_rvl(np.ones((6, 8), int))[:-4], '16UC1; compressedDepth rvl'),
    (to_png(np.zeros((6, 8, 3), np.uint8)), '16UC1; png compressed'),
])
def test_damaged_compressed_depth_is_one_sentence(data: bytes, how: str) -> None:
    with pytest.raises(InputError, match=how) as caught:
        depth_from_compressed(compressed(data, how))
    assert '\n' not in str(caught.value)
