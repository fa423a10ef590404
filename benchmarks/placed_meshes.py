# SPDX-License-Identifier: Apache-2.0
"""
How far meshes are off after `reconstruction/placing.py`.

    python benchmarks/placed_meshes.py SCENES SHAPES [--meshes MESHES] [--objects 200]

A perfect network is played: it answers with the true shape of every visible object of SCENES
(`img2scene render SHAPES SCENES --kind scenes`), in the axes of the crop view, at any size and
offset; objects of MESHES are skipped where it is not given. What `placed` makes of it is compared
with the truth: with noisy depth, with the support plane alone, and with neither. Prints medians;
positions are in shares of the distance.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from scenes import WHOLE
from scenes import error_rows
from scenes import noisy_depth
from scipy.spatial.transform import Rotation

from img2scene_ros.detection import bbox_of
from img2scene_ros.errors import Img2SceneError
from img2scene_ros.learning.evaluation_scenes import given_shape
from img2scene_ros.learning.samples import ObjectTruth
from img2scene_ros.learning.samples import SceneSample
from img2scene_ros.learning.samples import SceneSamples
from img2scene_ros.learning.shapes import Library
from img2scene_ros.learning.shapes import open_library
from img2scene_ros.learning.synthetic import is_visible_enough
from img2scene_ros.localization.combine import place
from img2scene_ros.localization.fixed import FixedDistance
from img2scene_ros.localization.plane import PlaneDistance
from img2scene_ros.localization.plane import PlaneOptions
from img2scene_ros.localization.sensor import SensorDistance
from img2scene_ros.localization.size_prior import SizePriorDistance
from img2scene_ros.models.crop import crop_view
from img2scene_ros.reconstruction.placing import placed
from img2scene_ros.tables import markdown_table
from img2scene_ros.types import Detection
from img2scene_ros.types import Frame
from img2scene_ros.types import Sighting
from img2scene_ros.types import SupportPlane

KNOWN = ('depth and plane', 'plane', 'neither')
VIEWS = {'0 degrees': 0.0, '5 degrees': 5.0}  # that the network's view is off
MASKS = {'exact': 0, '2 px wider': 2, '2 px narrower': -2}
COLUMNS = ('known', 'view off', 'mask', 'objects', 'placed', 'position', '90 % below', 'size',
           '90 % below', 'turn', 'silhouette IoU')
CELLS = [
    ('position', lambda values: f'{np.median(values):.1%}'),
    ('position', lambda values: f'{np.percentile(values, 90):.1%}'),
    ('size', lambda values: f'{np.median(values):.1%}'),
    ('size', lambda values: f'{np.percentile(values, 90):.1%}'),
    ('turn', lambda values: f'{np.median(values):.1f} degrees'),
    ('silhouette_iou', lambda values: f'{np.nanmedian(values):.2f}')]


class PlacingError(NamedTuple):
    """
    How far one object is off; NaN where it was not placed.

    - is_whole: nothing hides or cuts the object
    - position: of the middle of its vertices, as a share of its distance
    - size: |ln(placed size / true size)|
    - turn: degrees
    - silhouette_iou: what its `Fit` says
    """

    is_whole: bool
    position: float = np.nan
    size: float = np.nan
    turn: float = np.nan
    silhouette_iou: float = np.nan


def placing_errors(
    samples: Sequence[SceneSample], library: Library, objects: int, seed: int = 0,
) -> dict[tuple[str, str, str], list[PlacingError]]:
    """
    Return the errors of objects, by what is known, how far the view is off, and mask.

    :param objects: greatest number of them
    """
    setups = [('depth and plane', view, mask) for view in VIEWS for mask in MASKS] + [
        (known, view, 'exact') for known in KNOWN[1:] for view in VIEWS]
    errors = {setup: [] for setup in setups}
    random = np.random.default_rng(seed)
    for sample in samples:
        depth = noisy_depth(sample, random)
        for truth in sample.objects:
            if not is_visible_enough(truth, sample.ids):
                continue
            shape = given_shape(library, truth.shape)
            if shape is None:
                continue
            pose = truth.shape_pose
            points = shape.vertices @ pose[:3, :3].T + pose[:3, 3]
            axis = random.normal(size=3)
            for known, view, mask in setups:
                turn = np.radians(VIEWS[view]) * axis / np.linalg.norm(axis)
                sighting = _sighting(sample, truth, known, depth, MASKS[mask])
                errors[known, view, mask].append(
                    _error(points, shape.faces, turn, sighting, truth))
            if len(errors[setups[0]]) == objects:
                return errors
    return errors


def _sighting(
    sample: SceneSample, truth: ObjectTruth, known: str, depth: np.ndarray, wider: int,
) -> Sighting | None:
    """Return an object as it would be seen, None when nothing can tell its distance."""
    mask = (sample.ids == truth.id).astype(np.uint8)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * abs(wider) + 1,) * 2)
    mask = (cv2.dilate if wider > 0 else cv2.erode)(mask, kernel) > 0 if wider else mask > 0
    if not mask.any():
        return None
    frame = Frame(sample.frame.color, sample.frame.camera,
                  depth if known == 'depth and plane' else None)
    support = None if known == 'neither' else SupportPlane(sample.up, sample.support)
    detection = Detection(truth.label, 1.0, bbox_of(mask), mask)
    sources = {'sensor': SensorDistance(), 'fixed': FixedDistance()} if frame.has_depth else {
        'plane': PlaneDistance(PlaneOptions(height_std=0.001, angle_std=0.05)),
        'size_prior': SizePriorDistance(), 'fixed': FixedDistance()}
    return Sighting(frame, detection, place(sources, frame, detection, support))


def _error(
    points: np.ndarray, faces: np.ndarray, turn: np.ndarray, sighting: Sighting | None,
    truth: ObjectTruth,
) -> PlacingError:
    """Place the true mesh (V, 3), and compare it with where it was."""
    is_whole = truth.shown > WHOLE
    if sighting is None:
        return PlacingError(is_whole)
    view = crop_view(sighting.frame.camera, sighting.detection.bbox)
    answer = points @ view.rotation @ Rotation.from_rotvec(turn).as_matrix().T
    answer = (answer - answer.mean(axis=0)) / np.ptp(answer, axis=0).max()
    try:
        model = placed(answer, faces, np.zeros((len(points), 3), np.uint8), sighting, 'true')
    except Img2SceneError:
        return PlacingError(is_whole)
    found = model.points
    off = found.mean(axis=0) - points.mean(axis=0)
    spread = [each - each.mean(axis=0) for each in (found, points)]
    size = np.linalg.norm(spread[0]) / np.linalg.norm(spread[1])
    turned, _ = Rotation.align_vectors(*spread)
    return PlacingError(
        is_whole, np.linalg.norm(off) / np.linalg.norm(points.mean(axis=0)), abs(np.log(size)),
        np.degrees(turned.magnitude()), model.fit.silhouette_iou if model.fit else np.nan)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.strip().split('\n')[0])
    parser.add_argument('scenes', type=Path, help='rendered scenes')
    parser.add_argument('shapes', type=Path, help='the shapes they are of')
    parser.add_argument('--meshes', type=Path, help='the GLB meshes they are of')
    parser.add_argument('--objects', type=int, default=200, help='greatest number of objects')
    chosen = parser.parse_args()
    library = open_library(chosen.shapes, chosen.meshes, 'test', 0.15, 0)
    errors = placing_errors(SceneSamples(chosen.scenes), library, chosen.objects)
    print(markdown_table(COLUMNS, list(error_rows(errors, CELLS))))
