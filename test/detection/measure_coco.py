# SPDX-License-Identifier: Apache-2.0
"""
Measure what `coco` finds in photos whose things are annotated.

python test/detection/measure_coco.py PHOTOS LABELS [TILES ...], where LABELS holds for each photo
a .txt file of the same name: a line per thing, its class's number (from 0, of COCO's 80) and its
box's centre, width and height as shares of the picture's (the format of YOLO). A box is right when
it has the name of a thing that no better box has, and an IoU above .5 with it. Prints a Markdown
table.
"""

import sys
from pathlib import Path

import cv2
import numpy as np

from img2scene_ros.camera import Camera
from img2scene_ros.detection import box_iou
from img2scene_ros.detection.coco import CocoDetector
from img2scene_ros.detection.coco import CocoOptions
from img2scene_ros.types import Detection
from img2scene_ros.types import Frame

THRESHOLDS = (0.25, 0.3, 0.4, 0.5)


def main(photos: str, labels: str, *tiles: str) -> None:
    """Print the table."""
    detector = CocoDetector()
    print('| tiles | threshold | found | false boxes per photo |\n| --- | --- | --- | --- |')
    for budget in map(int, tiles or ('1', '5')):
        detector.options = CocoOptions(tiles=budget, score_threshold=min(THRESHOLDS))
        looks = []
        for path in sorted(Path(photos).glob('*.[jp][pn]g')):
            frame = read(path)
            truth = annotated(Path(labels) / f'{path.stem}.txt', frame, detector.names)
            looks.append((detector.detect(frame), truth))
        things = sum(len(truth) for _, truth in looks)
        for threshold in THRESHOLDS:
            found, false = np.sum(
                [judged(boxes, truth, threshold) for boxes, truth in looks], axis=0)
            print(f'| {budget} | {threshold} | {found} of {things} | {false / len(looks):.2f} |')


def read(path: Path) -> Frame:
    """Return a photo; its camera does not matter."""
    color = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    height, width = color.shape[:2]
    return Frame(color, Camera(width, height, width, width, width / 2, height / 2))


def annotated(path: Path, frame: Frame, names: list[str]) -> list[tuple[str, np.ndarray]]:
    """Return names and boxes of a photo's things."""
    lines = path.read_text().splitlines() if path.is_file() else []
    rows = np.array([line.split() for line in lines], float).reshape(-1, 5)
    size = np.array(frame.shape[::-1])
    return [(names[int(row[0])],
             np.concatenate([row[1:3] - row[3:] / 2, row[1:3] + row[3:] / 2]) * np.tile(size, 2))
            for row in rows]


def judged(
    found: list[Detection], truth: list[tuple[str, np.ndarray]], threshold: float,
) -> tuple[int, int]:
    """Return how many boxes are right, and how many are not."""
    free, right, counted = list(truth), 0, 0
    for one in found:
        if one.score < threshold:
            continue
        counted += 1
        fits = [box_iou(one.bbox[None], box[None])[0, 0] if name == one.label else 0.0
                for name, box in free]
        if fits and max(fits) > 0.5:
            free.pop(int(np.argmax(fits)))
            right += 1
    return right, counted - right


if __name__ == '__main__':
    main(*sys.argv[1:])
