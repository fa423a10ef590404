# SPDX-License-Identifier: Apache-2.0
"""Recordings, read without ROS through the library rosbags: .mcap, .db3, folders of them, .bag."""

import logging
from collections import deque
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from functools import cached_property
from functools import partial
from math import ceil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from img2scene_ros.camera import Camera
from img2scene_ros.errors import Img2SceneError
from img2scene_ros.errors import InputError
from img2scene_ros.errors import naming
from img2scene_ros.io import ros_images
from img2scene_ros.io.bag_transforms import BagTransforms
from img2scene_ros.io.bag_transforms import relative_unit
from img2scene_ros.io.bag_transforms import stream_of
from img2scene_ros.io.calibrations import lens_model
from img2scene_ros.io.calibrations import same_aspect
from img2scene_ros.io.layouts import PAIR_TOLERANCE
from img2scene_ros.io.layouts import PICTURE_SUFFIXES
from img2scene_ros.io.layouts import nearest
from img2scene_ros.packages import importing

SUFFIXES = ('.mcap', '.db3', '.bag', '.zstd')
WAITING = 30  # pictures that may wait for their depth images

_LOGGER = logging.getLogger(__name__)
_IMAGE, _COMPRESSED, _INFO = (
    f'sensor_msgs/msg/{name}' for name in ('Image', 'CompressedImage', 'CameraInfo'))


@dataclass(frozen=True, eq=False)
class BagFrame:
    """A picture of a bag, with its depth image and calibration; decoded when asked for."""

    path: Path  # the bag
    name: str  # of the bag, with the number of the pair of picture and depth image
    has_depth: bool
    stamp_ns: int
    camera: Camera | None  # None where the bag has no calibration for it
    depth_camera: Camera | None  # of depth images that are not registered yet; None where they are
    camera_from_depth: np.ndarray  # (4, 4), takes points of that camera to the picture's
    # returns the picture (H, W, 3) uint8 and the depth (H, W) float32 metres or None
    read: Callable[[], tuple[np.ndarray, np.ndarray | None]]


@dataclass(frozen=True, eq=False)
class _Topic:
    """A topic by its first message."""

    connection: Any
    message: Any
    kind: str  # color, grey, depth, info, or '' for what is none
    # by which metres of depth images are multiplied, in librealsense's own recordings
    unit: float = 1.0

    @classmethod
    def of(cls, reader: Any, connection: Any) -> '_Topic':
        _, _, data = next(reader.messages([connection]))
        message = reader.deserialize(data, connection.msgtype)
        if connection.msgtype == _INFO:  # in ROS 1 there are K, D and P
            lower = {name.lower(): value for name, value in vars(message).items()}
            return cls(connection, SimpleNamespace(**lower), 'info')
        # image_transport: '<encoding>; jpeg compressed bgr8', '<encoding>; compressedDepth png'.
        is_raw = connection.msgtype == _IMAGE
        encoding = message.encoding if is_raw else message.format
        name = encoding.partition(';')[0].strip()
        # librealsense records depth as mono16.
        is_depth = name in ros_images.DEPTH and 'depth' in connection.topic.lower()
        if name in ros_images.GREY and not is_depth:
            return cls(connection, message, 'grey')
        if name in ros_images.DEPTH or 'compressedDepth' in encoding:
            return cls(connection, message, 'depth', relative_unit(reader, connection.topic))
        return cls(connection, message, '' if is_raw and name not in ros_images.COLOR else 'color')

    @property
    def name(self) -> str:
        return self.connection.topic

    @property
    def is_raw(self) -> bool:
        return self.connection.msgtype == _IMAGE

    @property
    def frame(self) -> str:
        return stream_of(self.name) or self.message.header.frame_id

    @property
    def namespace(self) -> str:
        return stream_of(self.name) or self._base.rpartition('/')[0]

    @property
    def leaf(self) -> str:
        return self._base.rpartition('/')[2]

    @property
    def _base(self) -> str:
        return self.name.removesuffix('/compressed').removesuffix('/compressedDepth')

    def read(self, message: Any) -> np.ndarray:
        """Return the pixels of one of its messages."""
        if self.kind == 'depth':
            read = ros_images.depth_from_image if self.is_raw else ros_images.depth_from_compressed
            return read(message) * np.float32(self.unit)
        read = ros_images.color_from_image if self.is_raw else ros_images.color_from_compressed
        return read(message)

    @cached_property
    def size(self) -> tuple[int, int]:
        """Return height and width of the first message's image; 0 where it cannot be read."""
        if self.is_raw:
            return self.message.height, self.message.width
        try:
            return self.read(self.message).shape[:2]
        except InputError:
            return 0, 0

    def is_registered(self, depth: '_Topic') -> bool:
        """Tell whether a depth image is of this picture: the same frame and size."""
        return depth.frame == self.frame and depth.size == self.size

    def is_calibrated(self, info: '_Topic') -> bool:
        """Tell whether a calibration is of this picture; K of 0 means that there is none."""
        return info.kind == 'info' and info.message.k[0] != 0 and (
            info.namespace == self.namespace or info.frame == self.frame)

    def calibration(self, topics: Sequence['_Topic']) -> '_Topic | None':
        """Return the calibration of this image, by its namespace rather than its frame."""
        return next(iter(sorted(
            filter(self.is_calibrated, topics),
            key=lambda info: info.namespace != self.namespace)), None)

    def camera(self, info: '_Topic') -> Camera:
        """
        Return the camera of this image.

        :raises InputError: there is no calibration in the message
        """
        message = info.message
        if stream_of(info.name):
            message = SimpleNamespace(**vars(message) | {
                'distortion_model': lens_model(message.distortion_model)})
        return ros_images.camera_from_info(message, rectified='rect' in self.leaf)


@dataclass(frozen=True, eq=False)
class _Choice:
    """The topics of pictures, of their depth images and calibration, or None."""

    color: _Topic
    info: _Topic | None
    depth: _Topic | None = None
    depth_camera: Camera | None = None  # see `BagFrame`
    camera_from_depth: np.ndarray = field(default_factory=lambda: np.eye(4))  # see `BagFrame`

    @property
    def worth(self) -> tuple[bool, bool, bool, bool, int]:
        """Return what the choice goes by."""
        return (self.depth is not None, self.info is not None, self.color.kind == 'color',
                self.color.is_raw, self.color.connection.msgcount)


class Bag:
    """
    A recording, frame by frame; topics are found by type and first message.

    The picture's topic is one with depth images, else with a calibration, and colour rather than
    grey. Depth images are those of its frame and size, else others that calibrations and
    transforms tell how to register. The log says which were taken.

    :param path: a .mcap, .db3 or .bag file, or a folder of .mcap or .db3 files
    :param every: take every so many-th frame
    :raises InputError: it cannot be read or holds no pictures
    :raises MissingDependencyError: rosbags is not installed
    """

    def __init__(self, path: Path, every: int = 1) -> None:
        self._path, self._every = Path(path), every
        with self._opened() as reader:
            self._chosen = self._choose(reader)
            # Each file of a split bag has its own connections.
            count = sum(found.msgcount for found in reader.connections
                        if found.topic == self._chosen.color.name)
        self._length = ceil(count / every)
        info = self._chosen.info
        self._camera = self._calibrated(self._chosen.color, info) if info else None

    @staticmethod
    def is_one(path: Path) -> bool:
        """
        Tell whether a path is a bag, by its name, its metadata.yaml or what is in it.

        :raises OSError: a folder that cannot be read
        """
        if not path.is_dir():
            return path.suffix.lower() in SUFFIXES
        inside = list(path.iterdir())
        if path / 'metadata.yaml' in inside:
            return 'rosbag2_bagfile_information' in (
                path / 'metadata.yaml').read_text(errors='replace')
        others = any(one.is_dir() or one.suffix.lower() in PICTURE_SUFFIXES for one in inside)
        return bool(_parts(path)) and not others

    @property
    def has_depth(self) -> bool:
        """Tell whether its frames have depth images."""
        return self._chosen.depth is not None

    def __len__(self) -> int:
        """Return how many frames there are; fewer where pictures lack their depth image."""
        return self._length

    def __iter__(self) -> Iterator[BagFrame]:
        count = 0
        with self._opened() as reader:
            for color, depth in self._pairs(reader):
                if count % self._every == 0:
                    yield BagFrame(
                        self._path, f'{self._path.stem}_{count:06d}', self.has_depth,
                        _stamp(color), self._camera, self._chosen.depth_camera,
                        self._chosen.camera_from_depth, partial(self._read, color, depth))
                count += 1
        color, depth = self._chosen.color, self._chosen.depth
        if not count and depth:
            raise InputError(
                f"no picture of '{self._path}' on {color.name} has a depth image on "
                f'{depth.name} within {PAIR_TOLERANCE:g} s; check their stamps')

    def _files(self) -> list[Path]:
        """Return what to open: the folder by its metadata.yaml, else all files in it."""
        return (_parts(self._path) if self._path.is_dir() and not (
            self._path / 'metadata.yaml').is_file() else [self._path])

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        if not self._path.exists():
            raise InputError(f"there is no recording '{self._path}'; check the path")
        with importing('reading a recording', 'rosbags', 'export its frames as pictures'):
            from rosbags.highlevel import AnyReader
            from rosbags.typesys import Stores
            from rosbags.typesys import get_typestore
        try:
            # Bags of before Iron lack the definitions of their messages.
            with AnyReader(self._files(),
                           default_typestore=get_typestore(Stores.ROS2_HUMBLE)) as reader:
                yield reader
        except Img2SceneError:
            raise
        except Exception as error:  # whatever SQLite and the decompressors raise, too
            raise InputError(
                f"the recording '{self._path}' cannot be read ({type(error).__name__}: "
                f"{' '.join(str(error).split())[:200]}); a compressed one needs metadata.yaml, so "
                'give its folder; one that was cut off is mended by `mcap recover` or `ros2 bag '
                'reindex`') from error

    def _choose(self, reader: Any) -> _Choice:
        """Find the topics of picture, depth image and calibration."""
        topics = [_Topic.of(reader, connection) for connection in {
            connection.topic: connection for connection in reader.connections
            if connection.msgcount and connection.msgtype in (_IMAGE, _COMPRESSED, _INFO)
        }.values()]
        depths = sorted((topic for topic in topics if topic.kind == 'depth'),
                        key=lambda topic: not topic.is_raw)
        choices = []
        for color in topics:
            if color.kind in ('color', 'grey'):
                registered = next(filter(color.is_registered, depths), None)
                choices.append(_Choice(color, color.calibration(topics), registered))
        if not choices:
            raise InputError(
                f"the recording '{self._path}' holds no pictures (sensor_msgs/Image in "
                f"{', '.join(ros_images.COLOR)}, or CompressedImage); record the camera's topics")
        if depths and not any(choice.depth and choice.color.kind == 'color'
                              for choice in choices):
            transforms = BagTransforms(reader)
            choices = [self._registrable(choice, depths, topics, transforms)
                       for choice in choices]
        best = max(choices, key=lambda choice: choice.worth)
        color, depth, info = best.color, best.depth, best.info
        _LOGGER.info(
            "'%s': picture %s, depth %s%s, calibration %s", self._path, color.name,
            depth.name if depth else 'none', ' (registered)' if best.depth_camera else '',
            info.name if info else 'none')
        if depths and depth is None:
            _LOGGER.warning(
                "'%s': %s is of '%s', not of the picture's '%s', and is skipped, since the "
                'recording does not tell how to register it; record the camera_info of both and '
                '/tf_static, or registered depth', self._path, depths[0].name, depths[0].frame,
                color.frame)
        return best

    def _registrable(
        self, choice: _Choice, depths: Sequence[_Topic], topics: Sequence[_Topic],
        transforms: BagTransforms,
    ) -> _Choice:
        """Return a choice with depth images that can be registered to its pictures."""
        if choice.depth or not choice.info:
            return choice
        camera = self._calibrated(choice.color, choice.info)
        for depth in depths:
            own = self._depth_camera(depth, topics, choice.color, camera)
            shift = transforms.matrix(choice.color.frame, depth.frame)
            if own is not None and shift is not None:
                return replace(
                    choice, depth=depth, depth_camera=own, camera_from_depth=shift)
        return choice

    def _depth_camera(
        self, depth: _Topic, topics: Sequence[_Topic], color: _Topic, camera: Camera,
    ) -> Camera | None:
        """Return the camera of depth images, where something tells one of their size."""
        info, size = depth.calibration(topics), depth.size[::-1]
        own = self._calibrated(depth, info) if info else None
        if own and (own.width, own.height) == size:
            return own
        is_same = depth.frame == color.frame and same_aspect(size, (camera.width, camera.height))
        return camera.resized(*size) if is_same else None

    def _calibrated(self, images: _Topic, info: _Topic) -> Camera:
        with naming(f"'{self._path}', {info.name}"):
            return images.camera(info)

    def _pairs(self, reader: Any) -> Iterator[tuple[Any, Any]]:
        """Yield the messages of picture and depth image that belong together by their stamps."""
        chosen = self._chosen
        names = {topic.name for topic in (chosen.color, chosen.depth) if topic}
        colors: deque[Any] = deque()
        depths: deque[Any] = deque()
        for connection, _, data in reader.messages(
                [found for found in reader.connections if found.topic in names]):
            message = reader.deserialize(data, connection.msgtype)
            if chosen.depth is None:
                yield message, None
                continue
            (colors if connection.topic == chosen.color.name else depths).append(message)
            # The nearest depth image is known as soon as a later one has come.
            while colors and (len(colors) > WAITING or depths and _stamp(
                    depths[-1]) > _stamp(colors[0]) + 1e9 * PAIR_TOLERANCE):
                yield from _paired(colors.popleft(), depths)
        while colors:
            yield from _paired(colors.popleft(), depths)

    def _read(self, color: Any, depth: Any | None) -> tuple[np.ndarray, np.ndarray | None]:
        chosen = self._chosen
        return (chosen.color.read(color),
                chosen.depth.read(depth) if chosen.depth and depth is not None else None)


def _paired(color: Any, depths: deque[Any]) -> Iterator[tuple[Any, Any]]:
    """Yield a picture with its depth image, if there is one; drop what is too old for later."""
    stamp = _stamp(color)
    while depths and _stamp(depths[0]) < stamp - 1e9 * PAIR_TOLERANCE:
        depths.popleft()
    found = nearest(1e-9 * stamp, 1e-9 * np.array([_stamp(depth) for depth in depths]))
    if found is not None:
        yield color, depths[found]


def _parts(folder: Path) -> list[Path]:
    """Return the files of a bag in a folder without metadata.yaml, of one kind."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    found = [[path for path in files if path.suffix == suffix] for suffix in ('.mcap', '.db3')]
    return found[0] or found[1]


def _stamp(message: Any) -> int:
    return message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec
