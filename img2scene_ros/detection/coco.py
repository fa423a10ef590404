# SPDX-License-Identifier: Apache-2.0
"""
Detection of the 80 classes of COCO with the bundled network, which was trained on photos.

It looks at the whole picture and, where the option `tiles` allows, at parts of it that overlap:
small things are larger there. Needs torch, but neither transformers nor a download.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt
from pathlib import Path

import cv2
import numpy as np

from img2scene_ros.detection import check_labels
from img2scene_ros.detection import without_overlap
from img2scene_ros.devices import device_option
from img2scene_ros.devices import torch_device
from img2scene_ros.errors import InputError
from img2scene_ros.hub import first_line
from img2scene_ros.options import Options
from img2scene_ros.options import option
from img2scene_ros.packages import require_packages
from img2scene_ros.types import Detection
from img2scene_ros.types import Frame
from img2scene_ros.weights import weights_folder

# Measured on the first 128 photos of COCO val2017 (docs/benchmarks.md): the IoU above which boxes
# of one class are one object, and boxes of any class (one place holds one object); the least
# scores that leave about two false boxes in a picture, of the picture alone and with tiles.
_SAME = 0.5
_ONE_PLACE = 0.8
_THRESHOLD, _TILES_THRESHOLD = 0.25, 0.4
# Tiles share this part of their sides, so that what a border cuts is whole in the next one. A box
# that comes this near to such a border is cut. Larger ones are parts of things, or the whole
# picture shows them well enough. All are shares of the tile's side; the last one as above.
_SHARED = 1.0 / 3.0
_BORDER = 0.01
_LARGEST = 0.6
_LEAST_TILE = 32  # pixels; smaller ones show nothing
# Names that a detection carries, and the least score of those beside its label.
_HYPOTHESES = 5
_LEAST_SCORE = 0.02


@dataclass(frozen=True)
class CocoOptions(Options):
    """How `coco` looks at the picture, and what of its detections is kept."""

    weights: str = option(
        'bundled', "Folder of the network, or 'bundled' for the one that comes with the package",
        read_only=True)
    device: str = device_option()
    score_threshold: float = option(
        -1.0, 'Least score of a detection; below 0 is 0.25 for the picture alone and 0.4 with '
        'tiles, which leave about two false boxes per picture', low=-1.0, high=1.0)
    tiles: int = option(
        1, 'How many pictures the network may look at for one frame: 1 is the frame alone; from 5 '
        'on also 2x2 tiles of it, from 10 on 3x3 and so on, which finds smaller things and takes '
        'as many times as long', low=1, high=26)
    labels: tuple[str, ...] = option((), 'Class names to keep; empty keeps all')
    max_detections: int = option(50, 'Greatest number of objects, best first', low=1, high=500)


class CocoDetector:
    """
    Finds things of COCO's classes in colour; ignores depth and the support plane.

    :raises MissingDependencyError: torch or the bundled weights are not on this machine
    :raises InputError: the weights are damaged or another network's
    :raises OptionError: a device or a label that is not there
    """

    Options = CocoOptions

    def __init__(self, options: CocoOptions = CocoOptions()) -> None:
        folder = coco_folder(options)
        import torch

        from img2scene_ros.models.networks import load_network
        from img2scene_ros.models.ssdlite import SsdLite

        network = load_network(folder, SsdLite)
        self.names = _class_names(folder, network.config.classes)
        self._device = torch_device(options.device)
        self._network = network.to(self._device, memory_format=torch.channels_last)
        self.options = options
        self._candidates(np.zeros((2, 2, 3), np.uint8), [(0, 0, 2, 2)])  # no frame waits for it

    @property
    def options(self) -> CocoOptions:
        """Return the options in use; a filter for unknown labels is refused when it is set."""
        return self._options

    @options.setter
    def options(self, options: CocoOptions) -> None:
        check_labels(options.labels, self.names, "the detector 'coco'")
        self._options = options

    def detect(self, frame: Frame) -> list[Detection]:
        """
        Find the objects in a frame, best first, without masks.

        :raises InputError: the machine lacks the memory
        """
        options = self.options
        windows = tile_windows(frame.shape, options.tiles)
        threshold = options.score_threshold
        if threshold < 0:
            threshold = _TILES_THRESHOLD if len(windows) > 1 else _THRESHOLD
        boxes, scores = self._candidates(frame.color, windows)
        columns = [index for index, name in enumerate(self.names)
                   if not options.labels or name in options.labels]
        best = scores[:, columns].max(axis=1)
        classes = np.array(columns)[scores[:, columns].argmax(axis=1)]
        order = np.argsort(-best, kind='stable')
        order = order[best[order] >= threshold]
        kept = np.concatenate([order[:0], *(
            without_overlap(order[classes[order] == index], boxes, best, _SAME)
            for index in np.unique(classes[order]))])
        kept = kept[np.argsort(-best[kept], kind='stable')]
        kept = without_overlap(kept, boxes, best, _ONE_PLACE)[:options.max_detections]
        return [
            Detection(self.names[classes[index]], float(best[index]), boxes[index],
                      hypotheses=self._hypotheses(scores[index], columns))
            for index in kept]

    def _candidates(
        self, color: np.ndarray, windows: Sequence[tuple[int, int, int, int]],
    ) -> tuple[np.ndarray, np.ndarray]:
        """
        Return all boxes of all windows, (N, 4) pixels inside the picture, and scores, (N, C).

        The first window is the picture. Boxes of the others that are large there, or cut by a
        border, are skipped: the picture or another tile shows them whole.
        """
        import torch

        size = self._network.config.size
        pictures = np.stack([_scaled(color[ymin:ymax, xmin:xmax], size)
                             for xmin, ymin, xmax, ymax in windows])
        pictures = torch.from_numpy(pictures).to(self._device).permute(0, 3, 1, 2).float()
        try:
            with torch.inference_mode():
                outputs = self._network(pictures)
        except RuntimeError as error:
            raise InputError(
                f"the detector 'coco' failed on {len(windows)} pictures of {size}x{size} "
                f"({first_line(error)}); check the free memory, or lower 'tiles'") from error
        boxes, scores = (output.cpu().numpy() for output in outputs)
        height, width = color.shape[:2]
        found = []
        for index, (window, relative, values) in enumerate(
                zip(windows, boxes.astype(float), scores)):
            xmin, ymin, xmax, ymax = window
            placed = (relative.clip(0.0, 1.0) * np.tile((xmax - xmin, ymax - ymin), 2)
                      + np.tile((xmin, ymin), 2))
            inner = np.array([xmin > 0, ymin > 0, xmax < width, ymax < height])
            near = np.hstack([relative[:, :2] < _BORDER, relative[:, 2:] > 1.0 - _BORDER])
            keep = ~(near & inner).any(axis=1) & (placed[:, 2:] - placed[:, :2] >= 1).all(axis=1)
            if index > 0:
                keep &= (relative[:, 2:] - relative[:, :2]).max(axis=1) <= _LARGEST
            found.append((placed[keep], values[keep]))
        return tuple(np.concatenate(part) for part in zip(*found))

    def _hypotheses(
        self, scores: np.ndarray, columns: Sequence[int],
    ) -> tuple[tuple[str, float], ...]:
        """Return the likeliest names of a box, best first; the first one whatever its score."""
        order = sorted(columns, key=lambda index: -scores[index])[:_HYPOTHESES]
        return tuple((self.names[index], float(scores[index])) for rank, index in enumerate(order)
                     if rank == 0 or scores[index] >= _LEAST_SCORE)


def coco_folder(options: CocoOptions) -> Path:
    """
    Return the folder of the network that the options name, without loading it.

    :raises MissingDependencyError: torch or the bundled weights are not on this machine
    """
    require_packages("the detector 'coco'", ('torch', 'safetensors'),
                     "use the detector 'tabletop', which needs none of them")
    return weights_folder(options.weights, 'coco')


def tile_windows(shape: tuple[int, int], budget: int) -> list[tuple[int, int, int, int]]:
    """
    Return the parts of a picture to look at: the whole first, then a grid of overlapping tiles.

    :param shape: height and width of the picture, pixels
    :param budget: how many at most
    :return: xmin, ymin, xmax, ymax in pixels
    """
    height, width = shape
    windows = [(0, 0, width, height)]
    count = min(isqrt(budget - 1), min(shape) // _LEAST_TILE)
    if count < 2:
        return windows
    share = 1.0 / (count - (count - 1) * _SHARED)
    starts = np.linspace(0.0, 1.0 - share, count)
    for y in starts:
        for x in starts:
            windows.append((round(x * width), round(y * height),
                            round((x + share) * width), round((y + share) * height)))
    return windows


def _scaled(picture: np.ndarray, size: int) -> np.ndarray:
    """Stretch a picture to a square, as in training; one that shrinks a lot is averaged."""
    shrinks = min(picture.shape[:2]) > 2 * size
    return cv2.resize(picture, (size, size),
                      interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _class_names(folder: Path, count: int) -> list[str]:
    """
    Return what config.json calls the network's classes.

    :raises InputError: they do not fit it
    """
    from img2scene_ros.models.networks import CONFIG
    from img2scene_ros.models.networks import read_network_config

    names = read_network_config(folder).get('classes')
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"'{folder / CONFIG}' must list the network's {count} class names in "
                         "'classes'")
    if len(names) != count or len(set(names)) != count:
        raise InputError(
            f"'{folder / CONFIG}' lists {len(set(names))} different class names in 'classes', but "
            f'the network tells {count}; use the list of its training')
    return names


BACKEND = CocoDetector
