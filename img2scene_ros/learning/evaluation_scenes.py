# SPDX-License-Identifier: Apache-2.0
"""
How well objects are found and rebuilt in rendered scenes: `img2scene evaluate scenes`.

Every scene goes through the pipeline twice: with a noisy depth image, and as a picture alone. The
detector is scored by COCO's average precision on everything that it finds, whatever becomes of it
later; what the pipeline makes of it is compared with the true solids and poses.
"""

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import field
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from img2scene_ros.depth import measured
from img2scene_ros.detection import Detector
from img2scene_ros.detection import box_iou
from img2scene_ros.detection import mask_iou
from img2scene_ros.errors import Img2SceneError
from img2scene_ros.learning.data_config import SceneOptions
from img2scene_ros.learning.evaluation import Report
from img2scene_ros.learning.metrics import Boxes
from img2scene_ros.learning.metrics import average_precisions
from img2scene_ros.learning.samples import ObjectTruth
from img2scene_ros.learning.samples import SceneSample
from img2scene_ros.learning.samples import evenly
from img2scene_ros.learning.sensors import read_depth
from img2scene_ros.learning.shapes import SMALL
from img2scene_ros.learning.shapes import Library
from img2scene_ros.learning.shapes import Shape
from img2scene_ros.learning.sheets import draw_evaluated_scene
from img2scene_ros.learning.synthetic import is_visible_enough
from img2scene_ros.pipeline import Pipeline
from img2scene_ros.pipeline import parse_settings
from img2scene_ros.rendering.raycast import raycasting_scene
from img2scene_ros.tables import markdown_table
from img2scene_ros.types import Detection
from img2scene_ros.types import Frame
from img2scene_ros.types import SceneObject
from img2scene_ros.types import SupportPlane

MODES = {'RGB-D': True, 'RGB': False}  # and whether there is a depth image
LEAST_IOU = 0.5  # of boxes or masks of one object
COCO_IOUS = np.arange(10, 20) / 20  # .50 to .95
CELLS = 48  # along each side of the box in which two solids are compared
ROWS = 6  # of the sheet
COLUMNS = {
    'iou': 'median 3D IoU', 'iou_at_true_distance': '..., at the true distance',
    'size_percent': 'size error [%]', 'size_mm': 'size error [mm]',
    'position_percent': 'position error [% of distance]', 'position_mm': 'position error [mm]'}


@dataclass(frozen=True)
class Match:
    """One true object and what was made of it; errors are absolute values."""

    label: str  # the true class
    is_named: bool  # the label found is the true one
    is_large: bool  # its true size is 0.5 m or more
    is_rebuilt: bool  # it has a mesh, not only a box
    depth_source: str  # where its distance came from
    iou: float | None  # of the solids where they are; None where the true solid is not at hand
    # the same, after moving and scaling what was found along its ray
    iou_at_true_distance: float | None
    size_percent: float  # mean over the object's axes, of its diagonal
    size_mm: float  # mean over the object's axes
    position_percent: float  # of the centre, of its distance
    position_mm: float  # of the centre


@dataclass(eq=False)
class Watched:
    """A detector that remembers what it found; without one it finds what is true."""

    inner: Detector | None
    sample: SceneSample = field(init=False)
    found: list[Detection] = field(default_factory=list)

    def detect(self, frame: Frame) -> list[Detection]:
        """Find the objects in a frame."""
        self.found = true_detections(self.sample) if self.inner is None else \
            self.inner.detect(frame)
        return self.found


def evaluate_scenes(
    samples: Sequence[SceneSample], library: Library, settings: dict[str, Any],
    options: SceneOptions = SceneOptions(),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """
    Score a pipeline on rendered scenes.

    :param samples: as `SceneSamples`
    :param library: the shapes that the scenes are of, as far as they are at hand
    :param settings: of the pipeline, by dotted names
    :param progress: is called with the numbers of finished and of all scenes
    :raises OptionError: an unknown setting, or a value that is not allowed
    :raises Img2SceneError: a backend that cannot be built, a shape that cannot be read
    """
    if options.perfect_boxes:
        settings = settings | {'detector': 'tabletop'}  # is not asked, and needs no weights
    pipeline = Pipeline(*parse_settings(settings))
    watched = Watched(None if options.perfect_boxes else pipeline.detector)
    pipeline.detector = watched  # type: ignore[assignment]  # its options are not asked for
    numbers = evenly(len(samples), options.samples)
    drawn = set(numbers[::max(1, len(numbers) // ROWS)][:ROWS])
    found: dict[str, list[Boxes]] = {mode: [] for mode in MODES}
    matches: dict[str, list[Match]] = {mode: [] for mode in MODES}
    failures: dict[str, list[str]] = {mode: [] for mode in MODES}
    truth, wanted, rows = [], [], []
    for done, number in enumerate(numbers, 1):
        sample = watched.sample = samples[number]
        shapes = {item.id: given_shape(library, item.shape) for item in sample.objects}
        truth.append(true_boxes(sample))
        wanted += [item for item in sample.objects if is_visible_enough(item, sample.ids)]
        scenes = {}
        for mode, with_depth in MODES.items():
            pipeline.restart()
            watched.found = []  # where it fails before it has detected
            try:
                scenes[mode] = pipeline.run(_frame(sample, with_depth, options, number)).objects
            except Img2SceneError as error:
                scenes[mode] = ()
                failures[mode].append(str(error))
            found[mode].append(boxes_of(watched.found))
            matches[mode] += matches_of(sample, shapes, scenes[mode])
        if number in drawn:
            rows.append(draw_evaluated_scene(sample, shapes, scenes))
        progress(done, len(numbers))
    values = {
        'about': {
            'scenes': len(numbers), 'objects': len(wanted), **asdict(options),
            'settings': {name: str(value) for name, value in settings.items()}},
        'detector': {} if options.perfect_boxes else {
            mode: detector_scores(some, truth) for mode, some in found.items()},
        'objects': [_summary(mode, group, wanted, some)
                    for group in GROUPS for mode, some in matches.items()],
        'failures': {mode: {'scenes': len(some), 'first': (some or [''])[0]}
                     for mode, some in failures.items()}}
    return Report(values, _markdown(values), np.vstack(rows))


def given_shape(library: Library, name: str) -> Shape | None:
    """Return a shape, None when the folder that it is from was not given."""
    source = {'pix3d': library.pix3d, 'mesh': library.meshes}
    if name.split('/')[0] in source and source[name.split('/')[0]] is None:
        return None
    return library.load(name)


def true_detections(sample: SceneSample) -> list[Detection]:
    """Return what a perfect detector finds: the visible boxes and masks."""
    return [Detection(item.label, 1.0, np.asarray(item.visible_box, float), sample.ids == item.id)
            for item in sample.objects if is_visible_enough(item, sample.ids)]


def _frame(sample: SceneSample, with_depth: bool, options: SceneOptions, number: int) -> Frame:
    frame = sample.frame
    depth = None
    if with_depth:
        random = np.random.default_rng((options.seed, number))
        depth = read_depth(measured(frame.depth), frame.camera, random, frame.color)
    known = (SupportPlane(sample.up, sample.support),) if options.known_plane else ()
    return Frame(frame.color, frame.camera, depth, supports=known)


def boxes_of(found: Sequence[Detection]) -> Boxes:
    """Return detections as boxes to score, none of them ignored."""
    return Boxes(
        np.array([one.bbox for one in found], float).reshape(-1, 4),
        np.array([one.label for one in found], object),
        np.array([one.score for one in found], float), np.zeros(len(found), bool))


def true_boxes(sample: SceneSample) -> Boxes:
    """Return the visible boxes; of what shows too little nothing is expected."""
    objects = sample.objects
    return Boxes(
        np.array([item.visible_box for item in objects], float).reshape(-1, 4),
        np.array([item.label for item in objects], object), np.ones(len(objects)),
        np.array([not is_visible_enough(item, sample.ids) for item in objects], bool))


def detector_scores(found: Sequence[Boxes], truth: Sequence[Boxes]) -> dict[str, Any]:
    """
    Return COCO's average precision and the recall at IoU 0.5, of all boxes that were found.

    :param found: per picture
    :param truth: per picture
    :return: per class and their mean, with names and without: `ap50`, `ap50_95`; `recall`
    """
    def at_all(mine: Sequence[Boxes], true: Sequence[Boxes]) -> dict[str, dict[str, float]]:
        each = [average_precisions(mine, true, iou) for iou in COCO_IOUS]
        return {label: {'ap50': each[0][label],
                        'ap50_95': float(np.mean([one[label] for one in each]))}
                for label in each[0]}

    nameless = [[Boxes(one.boxes, np.full(len(one.boxes), 'any', object), one.scores, one.ignored)
                 for one in some] for some in (found, truth)]
    per_class = at_all(found, truth)
    hits = [(box_iou(true.boxes[~true.ignored], mine.boxes).max(axis=1, initial=0) >= LEAST_IOU)
            for mine, true in zip(found, truth)]
    return {
        'ap50': float(np.mean([one['ap50'] for one in per_class.values()])),
        'ap50_95': float(np.mean([one['ap50_95'] for one in per_class.values()])),
        'any_class': at_all(*nameless)['any'], 'recall': float(np.concatenate(hits).mean()),
        'per_class': per_class}


def matches_of(
    sample: SceneSample, shapes: dict[int, Shape | None], found: Sequence[SceneObject],
) -> list[Match]:
    """Pair true and found objects so that their boxes or masks overlap most."""
    wanted = [item for item in sample.objects if is_visible_enough(item, sample.ids)]
    overlap = np.array([[_overlap(item, one.detection, sample.ids) for one in found]
                        for item in wanted]).reshape(len(wanted), len(found))
    return [_match(wanted[i], shapes[wanted[i].id], found[j])
            for i, j in zip(*linear_sum_assignment(-overlap)) if overlap[i, j] >= LEAST_IOU]


def _overlap(item: ObjectTruth, detection: Detection, ids: np.ndarray) -> float:
    boxes = float(box_iou(item.visible_box[None], detection.bbox[None])[0, 0])
    if detection.mask is None:
        return boxes
    return max(boxes, mask_iou(ids == item.id, detection.mask))


def _match(item: ObjectTruth, shape: Shape | None, found: SceneObject) -> Match:
    distance = np.linalg.norm(item.position)
    away = 1000 * np.linalg.norm(found.position - item.position)
    scale = distance / np.linalg.norm(found.position)
    size = found.model.size
    diagonal = np.linalg.norm(item.size)
    iou, iou_there = (None, None) if shape is None else (
        solid_iou(found.points, found.model.faces, shape, item.shape_pose),
        solid_iou(found.points * scale, found.model.faces, shape, item.shape_pose))
    return Match(
        item.label, found.detection.label == item.label, bool(item.size.max() >= SMALL),
        found.model.reconstructor != 'box', found.depth_source, iou, iou_there,
        float(100 * abs(np.linalg.norm(size) / diagonal - 1)),
        float(1000 * np.abs(size - item.size).mean()), float(away / 10 / distance), float(away))


def solid_iou(
    points: np.ndarray, faces: np.ndarray, shape: Shape, pose: np.ndarray,
) -> float:
    """
    Return the intersection over union of a closed mesh and a true solid, both in one frame.

    The centres of 48^3 cells of the box around both are looked up in either: in the mesh by the
    parity of the crossings of a ray, in the solid by its voxels.

    :param points: (V, 3) metres
    :param faces: (F, 3)
    :param pose: (4, 4), takes the shape's coordinates to that frame
    """
    corners = np.array(np.meshgrid(*[(-0.5, 0.5)] * 3)).reshape(3, -1).T
    corners = corners * shape.grid * shape.cell @ pose[:3, :3].T + pose[:3, 3]
    both = np.concatenate([points, corners])
    low, high = both.min(axis=0), both.max(axis=0)
    axes = [a + (np.arange(CELLS) + 0.5) / CELLS * (b - a) for a, b in zip(low, high)]
    centers = np.stack(np.meshgrid(*axes, indexing='ij'), axis=-1).reshape(-1, 3)
    scene = raycasting_scene(np.asarray(points, np.float32), np.asarray(faces))
    mine = scene.compute_occupancy(centers.astype(np.float32)).numpy() > 0
    back = np.linalg.inv(pose)
    cells = (centers @ back[:3, :3].T + back[:3, 3]) / shape.cell + np.array(shape.grid) / 2
    cells = np.floor(cells).astype(int)
    inside = ((cells >= 0) & (cells < shape.grid)).all(axis=1)
    true = np.zeros(len(centers), bool)
    true[inside] = shape.solid[tuple(cells[inside].T)]
    return mask_iou(mine, true)


# Names to what they hold, by the true size of objects and matches alike.
GROUPS: dict[str, Callable[[bool], bool]] = {
    'all': lambda is_large: True,
    f'under {SMALL} m': lambda is_large: not is_large,
    f'{SMALL} m and more': lambda is_large: is_large}


def _summary(
    mode: str, group: str, wanted: Sequence[ObjectTruth], matches: Sequence[Match],
) -> dict[str, Any]:
    holds = GROUPS[group]
    total = sum(holds(bool(item.size.max() >= SMALL)) for item in wanted)
    mine = [match for match in matches if holds(match.is_large)]
    medians = {}
    for name in COLUMNS:
        values = [getattr(match, name) for match in mine if getattr(match, name) is not None]
        medians[name] = float(np.median(values)) if values else None
    sources = sorted({match.depth_source for match in mine})
    return {
        'mode': mode, 'group': group, 'objects': total, 'found': len(mine),
        'named': sum(match.is_named for match in mine),
        'rebuilt': sum(match.is_rebuilt for match in mine), **medians,
        'with_solid': sum(match.iou is not None for match in mine),
        'depth_sources': {source: sum(match.depth_source == source for match in mine)
                          for source in sources}}


def _markdown(values: dict[str, Any]) -> str:
    about = values['about']
    boxes = 'true boxes and masks' if about['perfect_boxes'] else 'detected boxes'
    parts = [f"{about['scenes']} scenes, {about['objects']} objects that show enough; {boxes}; "
             f"plane {'known' if about['known_plane'] else 'not given'}."]
    for mode, scores in values['detector'].items():
        rows = [['any class', *scores['any_class'].values()],
                ['mean of classes', scores['ap50'], scores['ap50_95']],
                *([label, *aps.values()] for label, aps in scores['per_class'].items())]
        parts.append(f"Detector, {mode}: recall {scores['recall']:.3f} at IoU 0.5.")
        parts.append(markdown_table(['class', 'AP50', 'AP50:95'], rows))
    names = ('mode', 'group', 'objects', 'found', 'named', 'rebuilt')
    parts.append('Objects, end to end; medians over those that were found:')
    parts.append(markdown_table(
        [*names, *COLUMNS.values(), 'distance from'],
        [[one[name] for name in (*names, *COLUMNS)]
         + [', '.join(f'{source} {count}' for source, count in one['depth_sources'].items())]
         for one in values['objects']]))
    for mode, failed in values['failures'].items():
        if failed['scenes']:
            parts.append(f"{mode}: {failed['scenes']} scenes failed, the first: {failed['first']}")
    without = values['objects'][0]['found'] - values['objects'][0]['with_solid']
    if without:
        parts.append(f'{without} of the objects found (RGB-D) have no 3D IoU, since the folder of '
                     'their shapes was not given (--shapes, --meshes).')
    return '\n\n'.join(parts) + '\n'
