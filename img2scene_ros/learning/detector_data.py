# SPDX-License-Identifier: Apache-2.0
"""
What the training of a detector reads: rendered scenes as pictures with boxes.

As in `dataset.py`, position p of a training run is one sample of a shuffled epoch, changed with
chance that p alone seeds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from img2scene_ros.errors import InputError
from img2scene_ros.learning.dataset import sample_at
from img2scene_ros.learning.detector_config import DetectorAugmentationOptions
from img2scene_ros.learning.samples import ObjectTruth
from img2scene_ros.learning.samples import ScenePictures

MEAN = (0.485, 0.456, 0.406)  # of ImageNet, RGB
STD = (0.229, 0.224, 0.225)
LEAST_SIDE = 4  # pixels of the network's picture; what is smaller is ignored
TILES = 64, 120  # pixels, side of a close-up
SOURCES = 4  # pictures that close-ups in one come from
MOST_ENLARGED = 2.5
LEAST_LEFT = 0.3  # share of a box that must be left when the picture is cut


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture with what is to be found in it."""

    color: np.ndarray  # (H, W, 3) uint8, RGB
    boxes: np.ndarray  # (N, 4) xmin, ymin, xmax, ymax in pixels
    classes: np.ndarray  # (N,) int
    ignored: np.ndarray  # (N,) bool, objects that show too little to be learned


def open_pictures(*folders: Path) -> tuple[ScenePictures, list[str]]:
    """
    Open data sets of scenes and read all of them, so that what is broken shows at once.

    :return: the pictures, and the class names in them, sorted
    :raises InputError: as `ScenePictures` and `read_shard`, or no objects at all
    """
    pictures = ScenePictures(*folders)
    labels = sorted({truth.label for _, objects in pictures for truth in objects})
    if not labels:
        raise InputError(f"the scenes in '{folders[0]}' hold no objects")
    return pictures, labels


def picture_of(
    color: np.ndarray, objects: Sequence[ObjectTruth], labels: Sequence[str], least_shown: float,
) -> Picture:
    """
    Return what is to be found in a picture.

    :param labels: the class names; objects of others are skipped
    :param least_shown: share of an object's full box that its visible box must have
    """
    known = [truth for truth in objects if truth.label in labels]
    return Picture(
        color,
        np.array([truth.visible_box for truth in known], float).reshape(-1, 4),
        np.array([labels.index(truth.label) for truth in known], int),
        np.array([truth.shown < least_shown for truth in known], bool))


@dataclass(eq=False)
class DetectorExamples(Dataset):
    """Changed pictures by their position in the run, all of one size."""

    pictures: Sequence[tuple[np.ndarray, list[ObjectTruth]]]
    labels: Sequence[str]  # the class names
    options: DetectorAugmentationOptions
    least_shown: float  # share of a box below which objects are ignored
    seed: int
    width: int
    height: int
    tiles: float  # share of pictures that are put together of close-ups

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, position: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Return pixels (3, H, W) and target, as `picture_tensors` does."""
        random = np.random.default_rng((self.seed, 3, position))
        numbers = [sample_at(position, len(self.pictures), self.seed)]
        if random.random() < self.tiles:
            numbers += random.integers(len(self), size=SOURCES - 1).tolist()
        pictures = [picture_of(*self.pictures[number], self.labels, self.least_shown)
                    for number in numbers]
        return picture_tensors(
            augment_picture(pictures, random, self.options, self.width, self.height))


def collate(examples: Sequence[tuple[Tensor, dict]]) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Return colours (B, H, W, 3) and the B targets."""
    return torch.stack([color for color, _ in examples]), [target for _, target in examples]


def picture_tensors(picture: Picture) -> tuple[Tensor, dict[str, Tensor]]:
    """
    Return what transformers' detectors take, but for the colours.

    :return: colours (H, W, 3) uint8; `class_labels` (N,) and `boxes` (N, 4), centre and size
        in shares of the picture; `ignored` (M, 4), the same of what is ignored
    """
    height, width = picture.color.shape[:2]
    corners = picture.boxes / (width, height, width, height)
    boxes = torch.from_numpy(np.hstack(
        [(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]])).float()
    ignored = torch.from_numpy(picture.ignored)
    return torch.from_numpy(picture.color), {
        'class_labels': torch.from_numpy(picture.classes)[~ignored], 'boxes': boxes[~ignored],
        'ignored': boxes[ignored]}


def normalized(colors: Tensor) -> Tensor:
    """
    Return what the network sees of pictures, as the saved image processor does.

    :param colors: (B, H, W, 3) uint8
    :return: (B, 3, H, W), in the memory order that convolutions are fast with
    """
    mean, std = (torch.tensor(value, device=colors.device) for value in (MEAN, STD))
    return ((colors / 255.0 - mean) / std).permute(0, 3, 1, 2)


def augment_picture(
    pictures: Sequence[Picture], random: np.random.Generator, options: DetectorAugmentationOptions,
    width: int, height: int,
) -> Picture:
    """
    Scale, stretch, shift and mirror, change light and camera.

    :param pictures: one; or several, from which one is put together
    """
    if len(pictures) == 1:
        picture = framed(pictures[0], random, options, width, height)
    else:
        picture = tiled(pictures, random, options, width, height)
    color = photometric(picture.color, random, options.photometric)
    if random.random() < options.jpeg:
        quality = int(random.integers(20, 90))
        coded = cv2.imencode('.jpg', color, (cv2.IMWRITE_JPEG_QUALITY, quality))[1]
        decoded = cv2.imdecode(coded, cv2.IMREAD_COLOR)
        assert decoded is not None
        color = decoded
    return Picture(color, picture.boxes, picture.classes, picture.ignored)


def photometric(color: np.ndarray, random: np.random.Generator, strength: float) -> np.ndarray:
    """Change gamma, brightness, white balance and saturation; blur; add noise; all in 8 bits."""
    if strength == 0:
        return color
    levels = np.linspace(0, 1, 256) ** np.exp(strength * random.normal(0, 0.25))
    levels = levels * np.exp(strength * random.normal(0, 0.2)) + strength * random.normal(0, 0.05)
    color = cv2.LUT(color, np.clip(255 * levels, 0, 255).astype(np.uint8))
    saturation = np.exp(strength * random.normal(0, 0.3))
    mixing = saturation * np.eye(3) + (1 - saturation) / 3
    balance = np.exp(strength * random.normal(0, 0.12, (3, 1)))
    color = cv2.transform(color, balance * mixing)
    if random.random() < 0.35:
        color = cv2.GaussianBlur(color, (0, 0), 0.3 + strength * random.uniform(0, 1))
    if random.random() < 0.7:
        noise = np.empty(color.shape, np.int16)
        cv2.setRNGSeed(int(random.integers(2 ** 31)))
        deviation = strength * random.uniform(0, 9)
        cv2.randn(noise, np.zeros(3), np.full(3, deviation))  # a number is the first channel's
        color = cv2.add(color, noise, dtype=cv2.CV_8U)
    return color


def framed(
    picture: Picture, random: np.random.Generator, options: DetectorAugmentationOptions,
    width: int, height: int,
) -> Picture:
    """Show another part of a picture; what lies beyond its border gets one colour."""
    rows, columns = picture.color.shape[:2]
    zoom = np.exp(random.uniform(-np.log(options.zoom_out), np.log(options.zoom_in)))
    stretch = np.exp(random.uniform(-0.5, 0.5) * np.log(options.stretch))
    # Pixels of the result per pixel of the picture, and where the picture's corner goes.
    scale = np.array([width / columns * zoom * stretch, height / rows * zoom / stretch])
    room = np.array([width, height]) - scale * (columns, rows)
    corner = room * random.random(2)
    return moved(picture, scale, corner, random, options.flip, width, height)


def tiled(
    pictures: Sequence[Picture], random: np.random.Generator,
    options: DetectorAugmentationOptions, width: int, height: int,
) -> Picture:
    """
    Put a picture together of close-ups, as many as the eye still tells apart.

    A scene is mostly empty; this shows four times as many objects for the same time (compare the
    mosaics of YOLOv4, Bochkovskiy et al., 2020).
    """
    side = np.exp(random.uniform(*np.log(TILES)))
    columns, rows = (max(1, round(length / side)) for length in (width, height))
    x, y = (np.linspace(0, length, count + 1).astype(int)
            for length, count in ((width, columns), (height, rows)))
    color = np.empty((height, width, 3), np.uint8)
    boxes, classes, ignored = [], [], []
    for number in range(rows * columns):
        row, column = divmod(number, columns)
        corner = np.array([x[column], y[row]])
        size = np.array([x[column + 1], y[row + 1]]) - corner
        tile = close_up(pictures[number % len(pictures)], random, options, *size.tolist())
        color[y[row]:y[row + 1], x[column]:x[column + 1]] = tile.color
        boxes.append(tile.boxes + np.tile(corner, 2))
        classes.append(tile.classes)
        ignored.append(tile.ignored)
    return Picture(color, np.concatenate(boxes), np.concatenate(classes), np.concatenate(ignored))


def close_up(
    picture: Picture, random: np.random.Generator, options: DetectorAugmentationOptions,
    width: int, height: int,
) -> Picture:
    """Show one of a picture's objects, or any part of it where there is none."""
    clear = picture.boxes[~picture.ignored]
    if not len(clear):
        return framed(picture, random, options, width, height)
    box = clear[random.integers(len(clear))]
    share = random.uniform(0.4, 0.95)
    fit = (share * np.array([width, height]) / (box[2:] - box[:2])).min()
    stretch = np.exp(random.uniform(-0.5, 0.5) * np.log(options.stretch))
    scale = min(fit, MOST_ENLARGED) * np.array([stretch, 1 / stretch])
    shift = random.normal(0, 0.1, 2) * (width, height)
    corner = np.array([width, height]) / 2 + shift - scale * (box[:2] + box[2:]) / 2
    return moved(picture, scale, corner, random, options.flip, width, height)


def moved(
    picture: Picture, scale: np.ndarray, corner: np.ndarray, random: np.random.Generator,
    flip: float, width: int, height: int,
) -> Picture:
    """
    Draw a picture into a frame.

    :param scale: (2,) pixels of the frame per pixel of the picture
    :param corner: (2,) where the picture's upper left corner goes
    :param flip: how often it is then mirrored
    """
    if random.random() < flip:
        scale, corner = scale * (-1, 1), np.array([width - corner[0], corner[1]])
    # The first pixel's centre lies half a pixel from the corner.
    shift = corner + scale / 2 - 0.5
    color = cv2.warpAffine(
        picture.color, np.array([[scale[0], 0, shift[0]], [0, scale[1], shift[1]]]),
        (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT,
        borderValue=random.integers(0, 256, 3).tolist())
    whole = picture.boxes.reshape(-1, 2, 2) * scale + corner
    whole = np.concatenate([whole.min(axis=1), whole.max(axis=1)], axis=1)
    boxes = np.clip(whole, 0, (width, height, width, height))
    sides = boxes[:, 2:] - boxes[:, :2]
    left = sides.prod(axis=1) / np.maximum((whole[:, 2:] - whole[:, :2]).prod(axis=1), 1e-9)
    seen = (sides > 0).all(axis=1)
    ignored = picture.ignored | (left < LEAST_LEFT) | (sides < LEAST_SIDE).any(axis=1)
    return Picture(color, boxes[seen], picture.classes[seen], ignored[seen])
