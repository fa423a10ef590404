# SPDX-License-Identifier: Apache-2.0
"""Recordings of ROS 2, read without ROS through the library rosbags: .mcap, .db3, bag folders."""

import logging
from collections import deque
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from img2scene_ros.camera import Camera
from img2scene_ros.errors import Img2SceneError
from img2scene_ros.errors import InputError
from img2scene_ros.io.layouts import PAIR_TOLERANCE
from img2scene_ros.io.layouts import nearest
from img2scene_ros.io.ros_images import COLOR
from img2scene_ros.io.ros_images import DEPTH
from img2scene_ros.io.ros_images import GREY
from img2scene_ros.io.ros_images import camera_from_info
from img2scene_ros.io.ros_images import color_from_compressed
from img2scene_ros.io.ros_images import color_from_image
from img2scene_ros.io.ros_images import depth_from_compressed
from img2scene_ros.io.ros_images import depth_from_image
from img2scene_ros.packages import importing

SUFFIXES = ('.mcap', '.db3')
WAITING = 30  # pictures that may wait for their depth images

_LOGGER = logging.getLogger(__name__)
_IMAGE, _COMPRESSED, _INFO = (
    f'sensor_msgs/msg/{name}' for name in ('Image', 'CompressedImage', 'CameraInfo'))


@dataclass(frozen=True, eq=False)
class BagFrame:
    """
    A picture of a bag, with its depth image and calibration; decoded when asked for.

    - path: the bag
    - name: of the bag, with the number of the pair of picture and depth image
    - camera: None where the bag has no calibration for it
    - read: returns the picture (H, W, 3) uint8 and the depth (H, W) float32 metres or None
    """

    path: Path
    name: str
    has_depth: bool
    stamp_ns: int
    camera: Camera | None
    read: Callable[[], tuple[np.ndarray, np.ndarray | None]]


@dataclass(frozen=True, eq=False)
class _Topic:
    """
    A topic by its first message.

    - kind: color, grey, depth, info, or '' for what is none
    """

    connection: Any
    message: Any
    kind: str

    @classmethod
    def of(cls, reader: Any, connection: Any) -> '_Topic':
        _, _, data = next(reader.messages([connection]))
        message = reader.deserialize(data, connection.msgtype)
        if connection.msgtype == _INFO:
            return cls(connection, message, 'info')
        # image_transport: '<encoding>; jpeg compressed bgr8', '<encoding>; compressedDepth png'.
        is_raw = connection.msgtype == _IMAGE
        encoding = message.encoding if is_raw else message.format
        name = encoding.partition(';')[0].strip()
        if name in GREY:
            return cls(connection, message, 'grey')
        if name in DEPTH or 'compressedDepth' in encoding:
            return cls(connection, message, 'depth')
        return cls(connection, message, '' if is_raw and name not in COLOR else 'color')

    @property
    def name(self) -> str:
        return self.connection.topic

    @property
    def is_raw(self) -> bool:
        return self.connection.msgtype == _IMAGE

    @property
    def namespace(self) -> str:
        return self._base.rpartition('/')[0]

    @property
    def leaf(self) -> str:
        return self._base.rpartition('/')[2]

    @property
    def _base(self) -> str:
        return self.name.removesuffix('/compressed').removesuffix('/compressedDepth')

    def read(self, message: Any) -> np.ndarray:
        """
        Return the pixels of one of its messages.

        :raises InputError: they cannot be read
        """
        if self.kind == 'depth':
            return (depth_from_image if self.is_raw else depth_from_compressed)(message)
        return (color_from_image if self.is_raw else color_from_compressed)(message)

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
        return (depth.message.header.frame_id == self.message.header.frame_id
                and depth.size == self.size)

    def is_calibrated(self, info: '_Topic') -> bool:
        """Tell whether a calibration is of this picture; K of 0 means that there is none."""
        return info.kind == 'info' and info.message.k[0] != 0 and (
            info.namespace == self.namespace
            or info.message.header.frame_id == self.message.header.frame_id)


class Bag:
    """
    A recording, frame by frame; topics are found by type and first message.

    The picture's topic is one with a depth image in its frame and of its size, else with a
    calibration, and colour rather than grey. A depth image in another frame is not registered to
    the picture and is skipped. The log says which were taken.

    :param path: a .mcap or .db3 file, or the folder with its metadata.yaml
    :param every: take every so many-th frame
    :raises InputError: it cannot be read or holds no pictures
    :raises MissingDependencyError: rosbags is not installed
    """

    def __init__(self, path: Path, every: int = 1) -> None:
        self._path, self._every = Path(path), every
        with self._opened() as reader:
            self._choose(reader)

    @staticmethod
    def is_one(path: Path) -> bool:
        """Tell whether a path is a bag, by its name or its metadata.yaml."""
        metadata = path / 'metadata.yaml'
        if metadata.is_file():
            return 'rosbag2_bagfile_information' in metadata.read_text(errors='replace')
        return path.suffix.lower() in SUFFIXES and not path.is_dir()

    @property
    def has_depth(self) -> bool:
        """Tell whether its frames have depth images."""
        return self._depth is not None

    def __len__(self) -> int:
        """Return how many frames there are; fewer where pictures lack their depth image."""
        return ceil(self._color.connection.msgcount / self._every)

    def __iter__(self) -> Iterator[BagFrame]:
        count = 0
        with self._opened() as reader:
            for color, depth in self._pairs(reader):
                if count % self._every == 0:
                    yield BagFrame(
                        self._path, f'{self._path.stem}_{count:06d}', self.has_depth,
                        _stamp(color), self._camera, partial(self._read, color, depth))
                count += 1
        if not count and self._depth:
            raise InputError(
                f"no picture of '{self._path}' on {self._color.name} has a depth image on "
                f'{self._depth.name} within {PAIR_TOLERANCE:g} s; check their stamps')

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
            with AnyReader([self._path],
                           default_typestore=get_typestore(Stores.ROS2_HUMBLE)) as reader:
                yield reader
        except Img2SceneError:
            raise
        except Exception as error:  # whatever SQLite and the decompressors raise, too
            raise InputError(
                f"the recording '{self._path}' cannot be read ({type(error).__name__}: "
                f"{' '.join(str(error).split())[:200]}); check it with `ros2 bag info`") from error

    def _choose(self, reader: Any) -> None:
        """Find the topics of picture, depth image and calibration."""
        topics = [_Topic.of(reader, connection) for connection in reader.connections
                  if connection.msgcount and connection.msgtype in (_IMAGE, _COMPRESSED, _INFO)]
        depths = sorted((topic for topic in topics if topic.kind == 'depth'),
                        key=lambda topic: not topic.is_raw)
        choices = [(color, next(filter(color.is_registered, depths), None),
                    next(iter(sorted(filter(color.is_calibrated, topics),
                                     key=lambda info: info.namespace != color.namespace)), None))
                   for color in topics if color.kind in ('color', 'grey')]
        if not choices:
            raise InputError(
                f"the recording '{self._path}' holds no pictures (sensor_msgs/Image in "
                f"{', '.join(COLOR)}, or CompressedImage); record the camera's topics")
        color, depth, info = max(choices, key=lambda choice: (
            choice[1] is not None, choice[2] is not None, choice[0].kind == 'color',
            choice[0].is_raw, choice[0].connection.msgcount))
        self._color, self._depth = color, depth
        self._camera = self._calibrated(color, info) if info else None
        _LOGGER.info(
            "'%s': picture %s, depth %s, calibration %s", self._path, color.name,
            depth.name if depth else 'none', info.name if info else 'none')
        if depths and depth is None:
            _LOGGER.warning(
                "'%s': %s is not registered to the picture (its frame_id is '%s', not '%s', or it "
                'has another size) and is skipped', self._path, depths[0].name,
                depths[0].message.header.frame_id, color.message.header.frame_id)

    def _calibrated(self, color: _Topic, info: _Topic) -> Camera:
        try:
            return camera_from_info(info.message, rectified='rect' in color.leaf)
        except InputError as error:
            raise InputError(f"'{self._path}', {info.name}: {error}") from error

    def _pairs(self, reader: Any) -> Iterator[tuple[Any, Any]]:
        """Yield the messages of picture and depth image that belong together by their stamps."""
        names = {topic.name for topic in (self._color, self._depth) if topic}
        colors: deque[Any] = deque()
        depths: deque[Any] = deque()
        for connection, _, data in reader.messages(
                [found for found in reader.connections if found.topic in names]):
            message = reader.deserialize(data, connection.msgtype)
            if self._depth is None:
                yield message, None
                continue
            (colors if connection.topic == self._color.name else depths).append(message)
            # The nearest depth image is known as soon as a later one has come.
            while colors and (len(colors) > WAITING or depths and _stamp(
                    depths[-1]) > _stamp(colors[0]) + 1e9 * PAIR_TOLERANCE):
                yield from _paired(colors.popleft(), depths)
        while colors:
            yield from _paired(colors.popleft(), depths)

    def _read(self, color: Any, depth: Any | None) -> tuple[np.ndarray, np.ndarray | None]:
        return (self._color.read(color),
                self._depth.read(depth) if self._depth and depth is not None else None)


def _paired(color: Any, depths: deque[Any]) -> Iterator[tuple[Any, Any]]:
    """Yield a picture with its depth image, if there is one; drop what is too old for later."""
    stamp = _stamp(color)
    while depths and _stamp(depths[0]) < stamp - 1e9 * PAIR_TOLERANCE:
        depths.popleft()
    found = nearest(1e-9 * stamp, 1e-9 * np.array([_stamp(depth) for depth in depths]))
    if found is not None:
        yield color, depths[found]


def _stamp(message: Any) -> int:
    return message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec
