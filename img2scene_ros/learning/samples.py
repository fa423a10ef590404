# SPDX-License-Identifier: Apache-2.0
"""
The files of rendered training data, and their reader.

A data set is a folder with `index.json` and shards of some hundred records each. A shard is an
.npz file of two arrays: `blobs`, the records' parts one after another, and `ends`, (N, parts),
where each part ends. The parts are coded one by one (JPEG, PNG, deflated bits, JSON), so a record
can be decoded alone and a data set fits into memory as it is on disk. Needs only numpy and OpenCV.
"""

import json
import zipfile
import zlib
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from typing import Generic
from typing import TypeVar

import cv2
import numpy as np

from img2scene_ros.camera import Camera
from img2scene_ros.depth import measured
from img2scene_ros.errors import InputError
from img2scene_ros.files import write_whole
from img2scene_ros.models.crop import GEOMETRY
from img2scene_ros.models.crop import Crop
from img2scene_ros.models.crop import CropView
from img2scene_ros.models.crop import Cube
from img2scene_ros.models.crop import check_geometry
from img2scene_ros.types import Frame

FORMAT = 3  # 1 had volumes of cells' centres, 2 Pix3D's solids 0.8 % too small
RESOLUTION = 64  # cells of the stored volumes
JPEG_QUALITY = 92
MIN_PIXELS, MIN_SIDE, MIN_SHOWN = 150, 12, 0.3  # what counts as visible enough for a crop
# Depths of crops are stored in steps of a thousandth of the cube's side, from 1.5 sides before
# the anchor to 2.5 behind it; what lies beyond is moved to the end of that range.
STEPS, NEAREST, FARTHEST = 1000, -1.5, 2.5
# What index.json must tell of how a data set was rendered.
RENDERED = ('kind', 'samples', 'shard_samples', 'size', 'test_share', 'split_seed')

Record = TypeVar('Record')
Records = TypeVar('Records', bound='_Records')


@dataclass(frozen=True, eq=False)
class ObjectTruth:
    """What is true of one object in a picture."""

    id: int  # its number in the picture's instance mask
    label: str  # class name
    shape: str  # the shape's name
    visible_box: np.ndarray  # (4,) pixels, around its visible pixels; upper ends exclusive
    # (4,) pixels, around all of it, hidden parts and parts beyond the border, too
    full_box: np.ndarray
    position: np.ndarray  # (3,) metres, the object frame's origin in the optical frame
    # (3, 3), turns object axes (z up, x horizontally to the camera) into optical axes
    rotation: np.ndarray
    size: np.ndarray  # (3,) metres along the object's axes
    # (4, 4), takes the shape's own coordinates to the optical frame, scale included
    shape_pose: np.ndarray

    @property
    def shown(self) -> float:
        """Return the visible box's share of the full box, 0 to 1."""
        return float(min(1.0, _area(self.visible_box) / max(_area(self.full_box), 1e-9)))


@dataclass(frozen=True, eq=False)
class CropSample:
    """One object as a voxel network gets it, and its solid."""

    crop: Crop  # colour, mask and true depth as the virtual camera sees them
    anchor: float  # metres, the median true depth of what is visible
    # (64, 64, 64) bool, [z, y, x]: cells of the cube that the solid reaches into
    occupancy: np.ndarray
    truth: ObjectTruth  # of the object, in the picture that the crop is of
    camera: Camera  # of that picture
    scene: str  # number of the scene; crops of one scene have the same

    @property
    def cube(self) -> Cube:
        """Return the cube that the volume fills."""
        return self.crop.view.cube(self.anchor)


@dataclass(frozen=True, eq=False)
class SceneSample:
    """One picture of a scene with everything that is true of it."""

    frame: Frame  # colour and true depth
    ids: np.ndarray  # (H, W) uint8, the object's id at every pixel, 0 = none
    objects: list[ObjectTruth]  # all that are visible
    up: np.ndarray  # (3,) unit vector, optical frame
    # metres from the camera down to the support plane: up . p + support = height above it
    support: float
    scene: str  # number of the scene


def coarser(volume: np.ndarray, resolution: int) -> np.ndarray:
    """
    Return a volume with fewer cells; one is filled if any of the cells in it was, thin parts too.

    :param volume: (N, N, N) bool
    :param resolution: a divisor of N
    """
    cells = len(volume) // resolution
    return np.any(volume.reshape((resolution, cells) * 3), axis=(1, 3, 5))


def evenly(count: int, most: int) -> list[int]:
    """Return the numbers of up to `most` of `count` samples, spread over all."""
    return np.linspace(0, count - 1, min(most, count)).astype(int).tolist()


def encode_crop(sample: CropSample) -> list[bytes]:
    """Return the parts of a record."""
    view = sample.crop.view
    about = {
        'anchor': sample.anchor, 'rotation': view.rotation.tolist(),
        'half_field': view.half_field, 'truth': _plain(asdict(sample.truth)),
        'camera': _camera_values(sample.camera), 'scene': sample.scene,
        'size': len(sample.crop.color)}
    away = (measured(sample.crop.depth) - sample.anchor) / sample.cube.side
    codes = 1 + np.rint((np.clip(away, NEAREST, FARTHEST) - NEAREST) * STEPS)
    return [_packed_json(about), _jpeg(sample.crop.color), _png(np.nan_to_num(codes, nan=0)),
            _packed_bits(sample.crop.mask), _packed_bits(sample.occupancy)]


def decode_crop(parts: Sequence[bytes]) -> CropSample:
    """Return the record that `encode_crop` made these parts of."""
    about = json.loads(zlib.decompress(parts[0]))
    size, anchor = about['size'], about['anchor']
    view = CropView(np.array(about['rotation']), about['half_field'])
    codes = _image(parts[2]).astype(np.float32)
    depth = anchor + view.cube(anchor).side * ((codes - 1) / STEPS + NEAREST)
    crop = Crop(
        view, _color(parts[1]), _bits(parts[3], (size,) * 2),
        np.where(codes > 0, depth, np.nan).astype(np.float32))
    return CropSample(
        crop, anchor, _bits(parts[4], (RESOLUTION,) * 3), _truth(about['truth']),
        Camera(**about['camera']), about['scene'])


def encode_scene(sample: SceneSample) -> list[bytes]:
    """Return the parts of a record; depth is stored in millimetres."""
    about = {
        'camera': _camera_values(sample.frame.camera), 'scene': sample.scene,
        'up': sample.up.tolist(), 'support': sample.support,
        'objects': [_plain(asdict(truth)) for truth in sample.objects]}
    millimetres = np.clip(np.nan_to_num(np.rint(measured(sample.frame.depth) * 1000)), 0, 65535)
    return [_packed_json(about), _jpeg(sample.frame.color), _png(millimetres),
            cv2.imencode('.png', sample.ids)[1].tobytes()]


def decode_scene(parts: Sequence[bytes]) -> SceneSample:
    """Return the record that `encode_scene` made these parts of."""
    about = json.loads(zlib.decompress(parts[0]))
    depth = _image(parts[2]).astype(np.float32) / 1000
    frame = Frame(
        _color(parts[1]), Camera(**about['camera']), np.where(depth > 0, depth, np.nan))
    return SceneSample(
        frame, _image(parts[3]), [_truth(values) for values in about['objects']],
        np.array(about['up']), about['support'], about['scene'])


def decode_picture(parts: Sequence[bytes]) -> tuple[np.ndarray, list[ObjectTruth]]:
    """Return colour (H, W, 3) and objects of a scene, three times as fast as all of it."""
    about = json.loads(zlib.decompress(parts[0]))
    return _color(parts[1]), [_truth(values) for values in about['objects']]


def write_shard(path: Path, records: Sequence[Sequence[bytes]]) -> None:
    """
    Write coded records; the file appears whole or not at all.

    :raises InputError: the file cannot be written
    """
    ends = np.cumsum([len(part) for parts in records for part in parts], dtype=np.int64)
    blobs = np.frombuffer(b''.join(part for parts in records for part in parts), np.uint8)
    write_whole(path, lambda file: np.savez_compressed(
        file, blobs=blobs, ends=ends.reshape(len(records), -1)))


def read_shard(path: Path) -> list[list[bytes]]:
    """
    Return the coded records of a shard.

    :raises InputError: it cannot be read
    """
    try:
        with np.load(path) as arrays:
            blobs, ends = arrays['blobs'].tobytes(), arrays['ends']
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(
            f"cannot read the shard '{path}'; delete it and run `img2scene render` again "
            f'({type(error).__name__}: {error})') from error
    starts = np.concatenate([[0], ends.ravel()[:-1]]).reshape(ends.shape)
    return [[blobs[a:b] for a, b in zip(*row)] for row in zip(starts, ends)]


class _Records(Sequence, Generic[Record]):
    """
    The records of finished data sets, one after another, decoded when they are asked for.

    - options: what each of the sets was rendered with
    """

    KIND: str
    _decode: Callable[[Sequence[bytes]], Record]  # of the parts of a record

    def __init__(self, *folders: Path) -> None:
        """
        Open data sets; their shards are read when they are first needed.

        :raises InputError: no data set, one of the other kind, an unfinished one, or some whose
            shapes were split in different ways
        """
        self.options: list[dict[str, Any]] = []
        self._places: list[tuple[Path, int]] = []  # of every record: its shard, and where in it
        self._read: dict[Path, list[list[bytes]]] = {}
        for folder in map(Path, folders):
            self._add(folder, read_index(folder))
            if self.split != _split(self.options[-1]):
                raise InputError(
                    f"'{folders[0]}' and '{folder}' split the shapes in different ways "
                    f'({self.split}, {_split(self.options[-1])}), so one trains on shapes that '
                    'the other tests; render them with the same --test-share and --split-seed')

    def _add(self, folder: Path, index: dict[str, Any]) -> None:
        options, names = index['options'], index['shards']
        if options['kind'] != self.KIND:
            raise InputError(
                f"'{folder}' holds {options['kind']}, not {self.KIND}; "
                f'make them with `img2scene render --kind {self.KIND}`')
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise InputError(
                f"'{folder}' lacks {len(missing)} of {len(names)} shards; run the "
                'same `img2scene render` again to finish it')
        self.options.append(options)
        self._places += [
            (folder / names[shard], place) for shard, place in (
                divmod(number, options['shard_samples']) for number in range(options['samples']))]

    @property
    def split(self) -> dict[str, Any]:
        """Return how the shapes were split into those to train and those to test."""
        return _split(self.options[0])

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, number: int) -> Record:  # type: ignore[override]  # no slices
        shard, place = self._places[number]
        return self._decode(self._shard(shard)[place])

    def read(self: Records) -> Records:
        """
        Read all shards, so that what is broken shows at once.

        :raises InputError: as `read_shard`
        """
        for shard, _ in self._places:
            self._shard(shard)
        return self

    def _shard(self, path: Path) -> list[list[bytes]]:
        if path not in self._read:
            self._read[path] = read_shard(path)
        return self._read[path]


class CropSamples(_Records[CropSample]):
    """Data sets of crops: a sequence of `CropSample`."""

    KIND, _decode = 'crops', staticmethod(decode_crop)


class SceneSamples(_Records[SceneSample]):
    """Data sets of scenes: a sequence of `SceneSample`."""

    KIND, _decode = 'scenes', staticmethod(decode_scene)


class ScenePictures(_Records[tuple[np.ndarray, list[ObjectTruth]]]):
    """Data sets of scenes, their colours and objects only: a sequence of `decode_picture`."""

    KIND, _decode = 'scenes', staticmethod(decode_picture)


def read_index(folder: Path) -> dict[str, Any]:
    """
    Return index.json: format, crop, options, shards, shapes, labels, skipped.

    :raises InputError: there is none, it is none, or another version made it in another way
    """
    path = Path(folder) / 'index.json'
    try:
        index = json.loads(path.read_text())
        index['shards'], [index['options'][name] for name in RENDERED]
    except OSError as error:
        raise InputError(
            f"'{folder}' is no data set (cannot read index.json: {error.strerror}); make one with "
            '`img2scene render`') from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"'{path}' is not the index of a data set ({error})") from error
    if index.get('format') != FORMAT:
        raise InputError(
            f"'{folder}' was rendered by another version (format {index.get('format')}, this one "
            f'reads {FORMAT}); render it again in another folder')
    check_geometry(index.get('crop'), str(path))
    return index


def write_index(folder: Path, index: dict[str, Any]) -> None:
    """
    Write index.json with the format and the crops' geometry; it appears whole or not at all.

    :raises InputError: the folder cannot be written
    """
    text = json.dumps(index | {'format': FORMAT, 'crop': GEOMETRY}, indent=1) + '\n'
    write_whole(Path(folder) / 'index.json', text.encode())


def _split(options: dict[str, Any]) -> dict[str, Any]:
    return {name: options[name] for name in ('test_share', 'split_seed')}


def _area(box: np.ndarray) -> float:
    return max(box[2] - box[0], 0) * max(box[3] - box[1], 0)


def _truth(values: dict[str, Any]) -> ObjectTruth:
    arrays: dict[str, Any] = {
        name: np.array(value) if isinstance(value, list) else value
        for name, value in values.items()}
    return ObjectTruth(**arrays)


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {name: np.round(value, 6).tolist() if isinstance(value, np.ndarray) else value
            for name, value in values.items()}


def _camera_values(camera: Camera) -> dict[str, Any]:
    return {name: getattr(camera, name) for name in ('width', 'height', 'fx', 'fy', 'cx', 'cy')}


def _packed_json(values: dict[str, Any]) -> bytes:
    return zlib.compress(json.dumps(values).encode())


def _packed_bits(array: np.ndarray) -> bytes:
    return zlib.compress(np.packbits(array).tobytes())


def _bits(packed: bytes, shape: tuple[int, ...]) -> np.ndarray:
    bits = np.unpackbits(np.frombuffer(zlib.decompress(packed), np.uint8))
    return bits[:np.prod(shape)].reshape(shape).astype(bool)


def _jpeg(color: np.ndarray) -> bytes:
    return cv2.imencode(
        '.jpg', color[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))[1].tobytes()


def _color(coded: bytes) -> np.ndarray:
    return np.ascontiguousarray(_image(coded)[..., ::-1])


def _png(values: np.ndarray) -> bytes:
    return cv2.imencode('.png', values.astype(np.uint16))[1].tobytes()


def _image(coded: bytes) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(coded, np.uint8), cv2.IMREAD_UNCHANGED)
    assert image is not None, 'a part of a record is no picture'
    return image
