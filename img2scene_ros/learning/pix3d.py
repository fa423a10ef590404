# SPDX-License-Identifier: Apache-2.0
"""
Pix3D (Sun et al., CVPR 2018): from the published files to a folder that is quick to train from.

docs/learning.md describes the files; .done/ notes what is finished, of which sources, so that a
second run goes on there. `load_prepared` reads them. The published axes are x left, y up, z inward
for models, and x left, y outward, z up for voxels; models have no metric scale (most have a
diagonal of 1).
"""

import json
import re
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from img2scene_ros.camera import Camera
from img2scene_ros.errors import InputError
from img2scene_ros.files import write_whole
from img2scene_ros.learning.processes import shared_out

SIZE = 256
MARGIN = 1.5  # side of a stored square in longer sides of the mask's box
FILL = (124, 116, 104)  # beyond the photo: the mean colour of ImageNet, zero to most networks
SENSOR_WIDTH = 32.0  # millimetres, of all cameras
RESOLUTION = 128
# Cells between the extents of voxels and model: of 334 published shapes 329 are within 1.6, five
# swivel chairs, whose foot is turned and higher, beyond 6.
TOLERANCE = 3.0
FLAGS = ('truncated', 'occluded', 'slightly_occluded')
CREDIT = ('Sun, Wu, Zhang, Zhang, Zhang, Xue, Tenenbaum, Freeman: Pix3D: Dataset and Methods for '
          'Single-Image 3D Shape Modeling, CVPR 2018; CC BY 4.0')


@dataclass(frozen=True, eq=False)
class Pix3dPicture:
    """
    One prepared picture and the shape that is seen in it.

    Model coordinates v (x left, y up, z inward; no metric unit) lie at X = rotation v +
    translation in the optical frame of `camera`, the camera of the stored square.
    """

    id: str  # unique, names the files
    category: str  # 'chair', 'table', ...
    source: str  # the photo in the published data set, for example 'img/bed/0001.png'
    image: Path
    mask: Path
    voxels: Path
    camera: Camera  # without lens distortion
    rotation: np.ndarray  # (3, 3)
    translation: np.ndarray  # (3,)
    # (4, 4), takes the index (i, j, k, 1) of a cell's centre to model coordinates
    grid_to_model: np.ndarray
    # (xmin, ymin, xmax, ymax) pixels of the photo that the square shows, also beyond it
    crop: tuple[int, int, int, int]
    photo_size: tuple[int, int]  # (width, height) pixels of the photo
    truncated: bool  # as published
    occluded: bool  # as published
    slightly_occluded: bool  # as published

    @property
    def grid_to_camera(self) -> np.ndarray:
        """Return what takes a cell's index (i, j, k, 1) to the optical frame, (4, 4)."""
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = self.rotation, self.translation
        return pose @ self.grid_to_model

    def read_image(self) -> np.ndarray:
        """Read the picture: (size, size, 3) uint8, RGB."""
        return _read_picture(self.image, 'RGB')

    def read_mask(self) -> np.ndarray:
        """Read the mask: (size, size) bool."""
        return _read_picture(self.mask, 'L') > 127

    def read_voxels(self) -> np.ndarray:
        """Read the shape: (128, 128, 128) bool."""
        return np.load(self.voxels)


def load_prepared(folder: Path) -> list[Pix3dPicture]:
    """
    List the pictures of a prepared folder, in the order of the published list.

    :raises InputError: the folder was not prepared, or not to the end
    """
    folder = Path(folder)
    try:
        metadata = json.loads((folder / 'metadata.json').read_text())
        return [_picture_of(folder, metadata['size'], values) for values in metadata['pictures']]
    except OSError as error:
        raise InputError(
            f"'{folder}' holds no prepared Pix3D ({error.strerror}: metadata.json); "
            'make it with img2scene prepare-pix3d') from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"'{folder}/metadata.json' was not written by img2scene prepare-pix3d "
            f'({type(error).__name__}: {error}); prepare the data again') from error


def _picture_of(folder: Path, size: int, values: dict[str, Any]) -> Pix3dPicture:
    matrix = np.array(values['K'], float)
    return Pix3dPicture(
        values['id'], values['category'], values['source'],
        folder / values['image'], folder / values['mask'], folder / values['voxels'],
        Camera.from_calibration(size, size, matrix),
        np.array(values['R'], float), np.array(values['t'], float),
        np.array(values['grid_to_model'], float),
        tuple(values['crop_xyxy_px']), tuple(values['photo_size_px']),
        *(values[flag] for flag in FLAGS))


def pix3d_camera(
    width: int, height: int, focal_length: float, rotation: np.ndarray, translation: np.ndarray,
) -> tuple[Camera, np.ndarray, np.ndarray]:
    """
    Turn the published camera of a photo into the optical frame.

    The published camera looks along +z with x left and y up, and the principal point is the
    middle of the photo (demo.py of https://github.com/xingyuansun/pix3d renders so): with
    (X, Y, Z) = rot_mat v + trans_mat the pixel is W/2 - f X/Z, H/2 - f Y/Z, from the photo's
    upper left corner, half a pixel from the centre of its first pixel.

    :param width: pixels of the photo
    :param height: pixels of the photo
    :param focal_length: millimetres, for a sensor 32 mm wide
    :param rotation: (3, 3), rot_mat
    :param translation: (3,), trans_mat
    :return: the camera; R (3, 3) and t (3,) with R v + t in its optical frame
    """
    focal = focal_length * width / SENSOR_WIDTH
    camera = Camera(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)
    to_optical = np.diag([-1.0, -1.0, 1.0])
    return camera, to_optical @ rotation, to_optical @ translation


def grid_to_model(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """
    Place the voxels in the model's coordinates.

    The centres of the first and last cell span the longest side of the model's bounding box, and
    the middle of the grid is that of the box. (Measured on 334 published shapes: of points on the
    models 99.8 % lie in a solid cell then, 93.6 % when the faces of the cells span the side.)

    :param low: (3,) least model coordinates
    :param high: (3,) greatest model coordinates
    :return: (4, 4), takes the index (i, j, k, 1) of a cell's centre to model coordinates
    """
    cell = np.subtract(high, low).max() / (RESOLUTION - 1)
    axes = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # voxels' x, y, z to model's x, -z, y
    place = np.eye(4)
    place[:3, :3] = cell * axes
    place[:3, 3] = np.add(low, high) / 2 - place[:3, :3] @ np.full(3, (RESOLUTION - 1) / 2)
    return place


@dataclass(frozen=True)
class Skipped:
    """An entry that could not be used: its place in pix3d.json, and why."""

    index: int
    category: str
    image: str
    reason: str


def prepare_pix3d(
    raw: Path, out: Path, size: int = SIZE, jobs: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Skipped]:
    """
    Prepare the data set; go on where an earlier run ended.

    Every photo is cut to a square around the middle of its mask's box, 1.5 times as wide as the
    longer side of the box, and resized; the camera goes with it. What is done is not done again
    unless its source files changed. Every file is complete or not there at all.

    :param raw: the folder with pix3d.json
    :param out: made where it does not exist
    :param size: pixels of a side of the stored squares
    :param jobs: processes
    :param progress: is called with the numbers of finished and of all tasks
    :return: the entries that were skipped, also written to skipped.json
    :raises InputError: `raw` is no Pix3D folder, `out` cannot be written, or nothing is usable
    """
    raw, out = Path(raw), Path(out)
    listed = _read_list(raw)
    _check_size(out, size)
    skipped, annotations = [], []
    for index, entry in enumerate(listed):
        try:
            annotations.append(_parse(index, entry, raw))
        except _UnusableError as error:
            known = entry if isinstance(entry, dict) else {}
            category, image = (str(known.get(name) or '') for name in ('category', 'img'))
            skipped.append(Skipped(index, category.strip(), image, str(error)))
    shapes = sorted({item.shape for item in annotations})
    photos = [item.picture for item in annotations]
    total = len(shapes) + len(photos)
    results: list[dict[str, Any] | str] = []
    for work, sources, folder in (
            (_prepare_shape, shapes, 'model'), (_prepare_picture, photos, 'img')):
        once = partial(_once, work, raw, out, size)
        for result in shared_out(once, list(zip(_unique_names(sources, folder), sources)), jobs):
            results.append(result)
            progress(len(results), total)
    shape_of = dict(zip(shapes, results))
    pictures = []
    for item, picture in zip(annotations, results[len(shapes):]):
        shape = shape_of[item.shape]
        if isinstance(picture, str) or isinstance(shape, str):
            reason = picture if isinstance(picture, str) else str(shape)
            skipped.append(Skipped(item.index, item.category, item.picture[0], reason))
        else:
            pictures.append(_described(item, picture, shape, size))
    skipped.sort(key=lambda item: item.index)
    _write_text(out / 'skipped.json', _json_lines([vars(item) for item in skipped]) + '\n')
    _write_text(out / 'metadata.json', (
        f'{{"credit": {json.dumps(CREDIT)},\n"size": {size},\n'
        f'"pictures": {_json_lines(pictures)}}}\n'))
    if not pictures:
        reason = f'; the first: {skipped[0].reason}' if skipped else ''
        raise InputError(f"none of the {len(listed)} entries of '{raw}/pix3d.json' can be used"
                         f'{reason} (all are listed in {out}/skipped.json)')
    return skipped


class _UnusableError(Exception):
    """Why an entry or a file cannot be used."""


@dataclass(frozen=True, eq=False)
class _Annotation:
    """One entry of pix3d.json, checked; paths are relative to the data set's folder."""

    index: int
    picture: tuple[str, str]  # image and mask
    shape: tuple[str, ...]  # voxels, and the model where there is one
    category: str
    focal_length: float
    rotation: np.ndarray
    translation: np.ndarray
    flags: dict[str, bool]


def _read_list(raw: Path) -> list[Any]:
    try:
        listed = json.loads((raw / 'pix3d.json').read_bytes())
    except OSError as error:
        raise InputError(
            f"'{raw}' is no Pix3D folder ({error.strerror}: pix3d.json); give the folder that "
            'holds pix3d.json, img, mask and model') from error
    except ValueError as error:
        raise InputError(f"'{raw}/pix3d.json' is not valid JSON ({error}); unpack the data set "
                         'again') from error
    if not isinstance(listed, list):
        raise InputError(f"'{raw}/pix3d.json' is not Pix3D's list of entries; unpack the data set "
                         'again')
    return listed


def _check_size(out: Path, size: int) -> None:
    """Refuse to mix squares of two sizes."""
    try:
        before = json.loads((out / 'metadata.json').read_text())['size']
    except (OSError, ValueError, KeyError, TypeError):
        return
    if before != size:
        raise InputError(f"'{out}' holds data prepared with --size {before}; take that size or "
                         'choose another place')


def _parse(index: int, entry: Any, raw: Path) -> _Annotation:
    if not isinstance(entry, dict):
        raise _UnusableError('the entry is no JSON object')
    texts: dict[str, Any] = {
        name: entry.get(name) for name in ('category', 'img', 'mask', 'voxel')}
    for name, text in texts.items():
        if not isinstance(text, str) or not text.strip():
            raise _UnusableError(f"the entry has no '{name}'")
    model = entry.get('model')
    rotation = _numbers(entry, 'rot_mat', (3, 3))
    if not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3) or np.linalg.det(rotation) < 0:
        raise _UnusableError("'rot_mat' is no rotation")
    focal_length = float(_numbers(entry, 'focal_length', ()))
    if focal_length <= 0:
        raise _UnusableError(f"'focal_length' is {focal_length:g}")
    has_model = isinstance(model, str) and model and (raw / model).is_file()
    return _Annotation(
        index, (texts['img'], texts['mask']),
        (texts['voxel'], str(model)) if has_model else (texts['voxel'],),
        texts['category'].strip(),
        focal_length, rotation, _numbers(entry, 'trans_mat', (3,)),
        {flag: entry.get(flag) is True for flag in FLAGS})


def _numbers(entry: dict[str, Any], name: str, shape: tuple[int, ...]) -> np.ndarray:
    if entry.get(name) is None:
        raise _UnusableError(f"the entry has no '{name}'")
    try:
        values = np.array(entry[name], float)
    except (ValueError, TypeError, OverflowError):
        values = np.full(1, np.nan)
    if values.shape != shape or not np.isfinite(values).all():
        wanted = f"{' x '.join(map(str, shape))} finite numbers" if shape else 'a finite number'
        raise _UnusableError(f"'{name}' is not {wanted}")
    return values


def _unique_names(keys: Sequence[tuple[str, ...]], folder: str) -> list[str]:
    """Name files after the first path of each key; paths that look the same are numbered."""
    names: dict[str, None] = {}
    for path, *_ in keys:
        path = str(Path(path).with_suffix('')).removeprefix(f'{folder}/')
        stem = re.sub(r'[^A-Za-z0-9-]+', '_', path).strip('_') or 'unnamed'
        name, number = stem, 2
        while name in names:
            name, number = f'{stem}_{number}', number + 1
        names[name] = None
    return list(names)


def _once(
    work: Callable[..., dict[str, Any]], raw: Path, out: Path, size: int,
    named: tuple[str, tuple[str, ...]],
) -> dict[str, Any] | str:
    """
    Do a piece of work, unless a note says that it was done with these very sources.

    :param work: takes raw, out, size, name and sources; its result is JSON, with `files` in `out`
    :param named: a name for what is written, and the sources
    :return: the result, or why the sources cannot be used
    """
    name, sources = named
    note = out / '.done' / f'{work.__name__}_{name}.json'
    try:
        state = [size, list(sources), [_stamp(raw, source) for source in sources]]
        before, result = _read_note(note)
        if before != state or not all((out / file).is_file() for file in result['files']):
            result = work(raw, out, size, name, sources)
            write_whole(note, json.dumps([state, result]).encode())
        return result
    except _UnusableError as error:
        return str(error)


def _stamp(raw: Path, source: str) -> list[int]:
    """Return size and time of a source."""
    if not (raw / source).is_file():
        raise _UnusableError(f'{source} is missing')
    found = (raw / source).stat()
    return [found.st_size, found.st_mtime_ns]


def _read_note(path: Path) -> tuple[Any, Any]:
    """Return the state and the result of the last time, if any."""
    try:
        before, result = json.loads(path.read_text())
    except (OSError, ValueError):
        return None, None
    return before, result


def _described(
    annotation: _Annotation, picture: dict[str, Any], shape: dict[str, Any], size: int,
) -> dict[str, Any]:
    """Return an annotation's entry in metadata.json."""
    xmin, ymin, xmax, ymax = picture['crop_xyxy_px']
    width, height = picture['photo_size_px']
    photo, rotation, translation = pix3d_camera(
        width, height, annotation.focal_length, annotation.rotation, annotation.translation)
    camera = photo.cropped(xmin, ymin, xmax - xmin, ymax - ymin).resized(size, size)
    image, mask = picture['files']
    return {
        'id': Path(image).stem, 'category': annotation.category, 'source': annotation.picture[0],
        'image': image, 'mask': mask, 'voxels': shape['files'][0],
        'model': annotation.shape[1] if len(annotation.shape) > 1 else None,
        'K': camera.matrix.tolist(), 'R': rotation.tolist(), 't': translation.tolist(),
        'grid_to_model': shape['grid_to_model'], 'placed_by': shape['placed_by'],
        'crop_xyxy_px': [xmin, ymin, xmax, ymax], 'photo_size_px': [width, height],
        **annotation.flags,
    }


def _prepare_shape(
    raw: Path, out: Path, size: int, name: str, sources: tuple[str, ...],
) -> dict[str, Any]:
    """Store the voxels of a shape, placed by its model; where there is none its diagonal is 1."""
    voxels = _read_volume(raw, sources[0])
    span = np.ptp(np.argwhere(voxels), axis=0)
    if len(sources) > 1:
        low, high = _extents(raw, sources[1])
        place = grid_to_model(low, high)
        _check_same_shape(span, place, high - low, sources)
    else:
        half = span[[0, 2, 1]] / np.linalg.norm(span) / 2  # in the model's order of axes
        place = grid_to_model(-half, half)
    file = f'voxels/{name}.npy'
    write_whole(out / file, lambda opened: np.save(opened, voxels))
    return {'files': [file], 'grid_to_model': place.tolist(),
            'placed_by': 'model' if len(sources) > 1 else 'unit diagonal'}


def _read_volume(raw: Path, path: str) -> np.ndarray:
    """Return the published voxels, (128, 128, 128) bool."""
    from scipy.io import loadmat

    try:
        stored = loadmat(raw / path, variable_names=['voxel'])
    except Exception as error:  # the reader raises whatever a broken file makes it stumble over
        raise _UnusableError(f'{path} is no MATLAB file that can be read ({error})') from None
    if 'voxel' not in stored:
        raise _UnusableError(f"{path} has no variable 'voxel'")
    voxels = stored['voxel']
    if voxels.shape != (RESOLUTION,) * 3 or not np.issubdtype(voxels.dtype, np.number):
        raise _UnusableError(
            f"{path} holds {' x '.join(map(str, voxels.shape))} values, not {RESOLUTION}^3")
    if not (voxels > 0).any():
        raise _UnusableError(f'{path} is empty')
    return voxels > 0


def _extents(raw: Path, path: str) -> np.ndarray:
    """Return the least and the greatest corner of an OBJ file's vertices, (2, 3)."""
    try:
        with open(raw / path, errors='replace') as lines:
            vertices = np.array([line.split()[1:4] for line in lines if line.startswith('v ')],
                                float).reshape(-1, 3)
    except (OSError, ValueError) as error:
        raise _UnusableError(f'{path} cannot be read ({error})') from None
    if not len(vertices) or not np.isfinite(vertices).all() or not np.ptp(vertices, axis=0).any():
        raise _UnusableError(f'{path} holds no shape')
    return np.stack([vertices.min(axis=0), vertices.max(axis=0)])


def _check_same_shape(
    span: np.ndarray, place: np.ndarray, extents: np.ndarray, sources: tuple[str, ...],
) -> None:
    """Check that voxels, which span so many cells, are a model's shape."""
    cell = np.abs(place[:3, :3]).max()
    found, wanted = np.abs(place[:3, :3] @ span) / cell, extents / cell
    if np.abs(found - wanted).max() > TOLERANCE:
        found, wanted = (' x '.join(f'{n:.0f}' for n in cells) for cells in (found, wanted))
        raise _UnusableError(f'{sources[0]} spans {found} cells, {sources[1]} would span '
                             f'{wanted}: not the same shape')


def _prepare_picture(
    raw: Path, out: Path, size: int, name: str, sources: tuple[str, ...],
) -> dict[str, Any]:
    """Store a photo and its mask, cut to a square around the mask."""
    image_path, mask_path = sources
    image, mask = _read_source(raw, image_path, 'RGB'), _read_source(raw, mask_path, 'L') > 127
    height, width = mask.shape
    if image.shape[:2] != mask.shape:
        raise _UnusableError(
            f'{mask_path} is {width}x{height} pixels, {image_path} is '
            f'{image.shape[1]}x{image.shape[0]}')
    if not mask.any():
        raise _UnusableError(f'{mask_path} is empty')
    x, y, side = _square_around(mask)
    files = [f'images/{name}.png', f'masks/{name}.png']
    image = _resized(_cut(image, x, y, side, FILL), size)
    mask = _resized(_cut(mask.astype(np.uint8) * 255, x, y, side, 0), size) > 127
    for file, picture in zip(files, (image[..., ::-1], mask.astype(np.uint8) * 255)):
        write_whole(out / file, cv2.imencode('.png', picture)[1].tobytes())
    return {'files': files, 'photo_size_px': [width, height],
            'crop_xyxy_px': [x, y, x + side, y + side]}


def _square_around(mask: np.ndarray) -> tuple[int, int, int]:
    """Return the least x, the least y and the side of the square to store, in pixels."""
    v, u = np.nonzero(mask)
    low, high = np.array([u.min(), v.min()]), np.array([u.max(), v.max()]) + 1
    side = int(np.ceil(MARGIN * (high - low).max()))
    x, y = (low + high - side) // 2
    return int(x), int(y), side


def _cut(picture: np.ndarray, x: int, y: int, side: int, fill: Any) -> np.ndarray:
    """Return the square that starts at pixel (x, y), filled where it is beyond the picture."""
    height, width = picture.shape[:2]
    square = np.empty((side, side, *picture.shape[2:]), np.uint8)
    square[:] = fill
    left, top, right, bottom = max(x, 0), max(y, 0), min(x + side, width), min(y + side, height)
    square[top - y:bottom - y, left - x:right - x] = picture[top:bottom, left:right]
    return square


def _resized(square: np.ndarray, size: int) -> np.ndarray:
    how = cv2.INTER_AREA if len(square) > size else cv2.INTER_LINEAR
    return cv2.resize(square, (size, size), interpolation=how)


def _read_source(raw: Path, path: str, mode: str) -> np.ndarray:
    from PIL import UnidentifiedImageError

    try:
        return _read_picture(raw / path, mode)
    except UnidentifiedImageError:
        raise _UnusableError(f'{path} is no picture that can be read') from None
    except Exception as error:  # decoders raise whatever a broken file makes them stumble over
        raise _UnusableError(f'{path} cannot be read ({error})') from None


def _read_picture(path: Path, mode: str) -> np.ndarray:
    """Read 8-bit RGB or L; unlike OpenCV Pillow complains about files that are cut off."""
    from PIL import Image

    with Image.open(path) as picture:
        return np.array(picture.convert(mode))


def _write_text(path: Path, text: str) -> None:
    """Write a text file unless it holds just that."""
    if not path.is_file() or path.read_text() != text:
        write_whole(path, text.encode())


def _json_lines(items: list[dict[str, Any]]) -> str:
    """Return a JSON list with one item per line."""
    return '[' + ',\n'.join(json.dumps(item) for item in items) + ']'
