# SPDX-License-Identifier: Apache-2.0
"""The whole way, free of ROS: frames in, scenes out."""

import logging
import re
from collections import deque
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import fields
from dataclasses import replace
from functools import partial
from threading import Lock
from time import perf_counter
from typing import Any
from typing import cast

import cv2
import numpy as np

from img2scene_ros import turning
from img2scene_ros.depth import DepthNoise
from img2scene_ros.depth import MeasuredNoise
from img2scene_ros.detection import Detector
from img2scene_ros.detection import bbox_of
from img2scene_ros.detection.masks import colored_pixels
from img2scene_ros.detection.masks import held_mask
from img2scene_ros.detection.segmenter import Segmenter
from img2scene_ros.detection.supports import HeldSupport
from img2scene_ros.detection.supports import support_under
from img2scene_ros.detection.supports import why_nothing
from img2scene_ros.detection.workspace import EVERYWHERE
from img2scene_ros.detection.workspace import Workspace
from img2scene_ros.detection.workspace import check_workspace
from img2scene_ros.errors import Img2SceneError
from img2scene_ros.errors import MissingDependencyError
from img2scene_ros.errors import OptionError
from img2scene_ros.errors import ReconstructionError
from img2scene_ros.errors import Result
from img2scene_ros.errors import attempt
from img2scene_ros.errors import naming
from img2scene_ros.localization import DistanceSource
from img2scene_ros.localization.combine import place
from img2scene_ros.localization.combine import sources_of
from img2scene_ros.localization.doubt import reasons_to_skip
from img2scene_ros.localization.extents import usual_extents
from img2scene_ros.localization.fixed import FixedDistance
from img2scene_ros.localization.photo_plane import PicturedPlane
from img2scene_ros.localization.size_prior import SizePriorDistance
from img2scene_ros.mesh.texture import textured
from img2scene_ros.options import Options
from img2scene_ros.options import option
from img2scene_ros.reconstruction import BatchReconstructor
from img2scene_ros.reconstruction import Reconstructor
from img2scene_ros.reconstruction.box import BoxReconstructor
from img2scene_ros.reconstruction.fit import measured_fit
from img2scene_ros.registry import backend
from img2scene_ros.registry import backends
from img2scene_ros.scene.export import ExportOptions
from img2scene_ros.scene.tracks import Tracker
from img2scene_ros.scene.world import World
from img2scene_ros.types import Detection
from img2scene_ros.types import Frame
from img2scene_ros.types import ObjectModel
from img2scene_ros.types import Scene
from img2scene_ros.types import SceneObject
from img2scene_ros.types import Sighting
from img2scene_ros.types import SupportPlane
from img2scene_ros.types import depth_coverage

_LOGGER = logging.getLogger(__name__)
BACKEND_GROUPS = ('detectors', 'distances', 'reconstructors')
OTHER_GROUPS = {'export': ExportOptions, 'depth_noise': DepthNoise}  # options of no backend
_REMEMBERED = 100  # kinds of warnings that are not said again
_ROBOT = 0.5  # share of a detection that shows the robot by which it is the robot
_SOME = 1000  # readings of an object, about, that tell what it stands on
_COVERED = 0.6  # share of an object's pixels with readings, below which its mesh is called a guess


@dataclass(frozen=True)
class PipelineOptions(Options):
    """Which backends do the work, and how long objects are kept."""

    detector: str = option(
        'auto', 'What finds the objects: auto (a network that gives names and, with a depth '
        'camera, tabletop, merged), tabletop (whatever stands on a plane, without names; needs no '
        'torch), coco (a bundled network of 80 classes), detr (a transformers model) or topic '
        '(another node, by vision_msgs)',
        group='detectors', read_only=True)
    distance: str = option(
        'auto', 'Where distances come from: sensor (the depth image), plane (where an object '
        'stands), size_prior (how large such things are), monocular (a network), fixed, or auto '
        '(the sensor where it sees the object, else all others, weighted by certainty)',
        group='distances', read_only=True)
    segmenter: str = option(
        'none', "What segments the boxes of detectors without masks: 'none' (depth, "
        'else colour), or a checkpoint on the Hugging Face Hub (OWNER/NAME) or in a folder: SAM '
        '2, Mask2Former, MaskFormer, SegFormer or CLIPSeg', read_only=True)
    segmenter_revision: str = option(
        'main', "Branch, tag or commit of the segmenter's checkpoint on the Hub", read_only=True)
    reconstructor: str = option(
        'voxel', 'What rebuilds the objects: voxel (a network, with depth or without; where torch '
        'is missing depth_shell takes its place), depth_shell (the seen surface, completed; needs '
        'depth), triposr, shap_e (large networks, from the picture alone), remote (a server; '
        'pictures leave the machine) or box', group='reconstructors', read_only=True)
    birth_sightings: int = option(
        3, 'Sightings within birth_time that make an object, in a stream of frames; where they '
        'come more slowly, one in every frame over that time', low=1, high=1000)
    birth_time: float = option(1.0, 'See birth_sightings [s]', low=0.0, high=60.0)
    birth_score: float = option(
        0.3, "Least mean score of an object's first sightings", low=0.0, high=1.0)
    forget_after: float = option(
        60.0, 'Seconds, by the stamps of the pictures, for which an object that is hidden or out '
        'of view is remembered; one whose place is seen to be empty goes at once [s]',
        low=0.0, high=1e6)
    workspace: tuple[float, ...] = option(
        EVERYWHERE, 'Box in which objects are: least x, y, z, then greatest x, y, z, in the '
        'target_frame where TF tells the camera in it, else in the optical frame; all 0: '
        'everywhere [m]')
    better_view: float = option(
        1.5, 'An object is rebuilt when this many times more of it is seen than before',
        low=1.05, high=100.0)
    min_fit: float = option(
        0.4, "Least IoU of a mesh's silhouette and the object's mask; below it the object stays "
        'as it was shown before, at first a box', low=0.0, high=1.0)
    texture: str = option(
        'bake', 'bake: rebuilt objects get a texture from the picture, with its light (needs '
        'xatlas); none: they have only the colours of their vertices', choices=('bake', 'none'))
    texture_size: int = option(
        512, 'Greatest side of a texture [pixels]; it has no more than the picture', low=32,
        high=8192)


    def __post_init__(self) -> None:
        super().__post_init__()
        check_workspace(self.workspace)


@dataclass(eq=False)
class _Held:
    """
    What the frames of a scene leave to the next ones.

    - quarters: by which frames are turned until up is up in the picture
    """

    noise: MeasuredNoise = field(default_factory=MeasuredNoise)
    world: World = field(default_factory=World)
    support: HeldSupport = field(default_factory=HeldSupport)
    plane: PicturedPlane = field(default_factory=PicturedPlane)
    quarters: int = 0


class Pipeline:
    """
    Turns frames into a scene at two speeds.

    `perceive` is fast and runs on every frame; `reconstruct_next` is slow and runs beside it.
    The two may be called from different threads at once.

    - rebuilt: how many objects `reconstruct_next` has worked on so far

    :param options: which backends to build
    :param backend_options: options of backends, by backend name; defaults for the others
    :raises OptionError: no backend of that name
    :raises Img2SceneError: a backend that cannot be built
    """

    def __init__(
        self, options: PipelineOptions = PipelineOptions(),
        backend_options: dict[str, Options] | None = None,
    ) -> None:
        chosen = backend_options or {}
        self.distances: dict[str, DistanceSource] = {
            name: _build('distances', name, chosen)
            for name in sources_of(options.distance, chosen)}
        self.reconstructor, self.options = _reconstructor(options, chosen)
        self.detector: Detector = _build('detectors', options.detector, chosen)
        self.segmenter = (
            None if options.segmenter == 'none' else
            Segmenter(options.segmenter, options.segmenter_revision))
        self._proxy = BoxReconstructor()
        self._said: deque[str] = deque(maxlen=_REMEMBERED)  # warnings are said once
        self.rebuilt = 0
        self._lock = Lock()
        self._tracker = Tracker()
        self._tell_tracker()
        self._frame: Frame | None = None  # the latest, as it came
        self._held = _Held()
        self._supports: tuple[SupportPlane, ...] = ()
        self._notes: tuple[str, ...] = ()
        self._timing: dict[str, float] = {}
        _prepare()

    def perceive(self, frame: Frame, is_streamed: bool = False) -> Scene:
        """
        Detect, localize and track; return the scene with the meshes there are so far.

        :param is_streamed: more frames follow soon: an object is shown when it was seen often
            enough, so that what noise makes of one frame is none; else at once
        :raises Img2SceneError: the frame lacks what the detector needs
        """
        start = perf_counter()
        as_it_came, held = frame, self._held
        located = held.world.locate(self._supported(frame, held))
        notes = [located.note] if located.note else []
        frame, quarters = _upright(located.frame, held.quarters)
        found = self._detected(frame)
        is_free = self.options.distance == 'auto'  # distances may come from anything
        is_photo = is_free and not frame.supports and not frame.has_depth
        if not found and frame.depth is not None:
            notes.append(why_nothing(frame))
        if found and is_photo:
            sizes = cast(SizePriorDistance, self.distances['size_prior']).sizes
            guess = self.distances.get('fixed', FixedDistance()).options.distance
            support, said = held.plane.find(frame, found, sizes, guess)
            frame = replace(frame, supports=() if support is None else (support,))
            notes.append(said)
        workspace = Workspace(self.options.workspace, frame, turning.turn(quarters), as_it_came)
        detections = self._each(workspace.part_inside, self._each(
            lambda detection: _with_mask(frame, detection),
            self._segmented(frame, found)))
        detected = perf_counter()
        seen = self._each(
            lambda detection: self._placed(frame, detection, notes), detections)
        seen = [one for one in seen if workspace.holds(one[0].placement.position)]
        if is_photo:
            reasons = reasons_to_skip(
                [one.detection for one, _ in seen], [one.placement for one, _ in seen])
            seen = [one for one, reason in zip(seen, reasons) if not reason]
            notes += filter(None, reasons)
        sightings, proxies = [one for one, _ in seen], [proxy for _, proxy in seen]
        localized = perf_counter()
        with self._lock:
            if located.new_from_old is not None:
                self._tracker.move(located.new_from_old)
            if not located.is_followed:
                self._tracker.lose_all()
            self._tracker.update(frame, sightings, proxies, not is_streamed)
            held.quarters = quarters
            self._frame, self._supports = as_it_came, frame.supports
            self._notes = tuple(notes)
            self._timing.update(detect=detected - start, localize=localized - detected)
            return self._scene(as_it_came)

    def detect(self, frame: Frame) -> list[Detection]:
        """
        Detect alone: what a frame shows, with masks where the detector or the segmenter has them.

        :raises Img2SceneError: the frame lacks what the detector needs
        """
        held, shape = self._held, frame.shape
        frame, held.quarters = _upright(self._supported(frame, held), held.quarters)
        return [turning.detection_turned_back(one, shape, held.quarters)
                for one in self._segmented(frame, self._detected(frame))]

    def _detected(self, frame: Frame) -> list[Detection]:
        return [one for one in map(
            partial(_beside_robot, frame), self.detector.detect(frame)) if one]

    def reconstruct_next(self) -> Scene | None:
        """
        Rebuild the objects that need it most, as many as the reconstructor takes at once.

        :return: the scene after it; None if no object needs it, or after a restart meanwhile
        """
        with self._lock:
            jobs = self._tracker.next_jobs(getattr(self.reconstructor, 'max_batch', 1))
        if not jobs:
            return None
        start = perf_counter()
        results = [
            result if isinstance(result, Img2SceneError) else
            attempt(self._finished, result, sighting)
            for result, (_, sighting) in zip(
                self._rebuilt([sighting for _, sighting in jobs]), jobs)]
        for result in results:
            if not isinstance(result, (ObjectModel, ReconstructionError)):
                self._warn_once(str(result))
        with self._lock:
            for (id, sighting), result in zip(jobs, results):
                model = result if isinstance(result, ObjectModel) else None
                self._tracker.finish(
                    id, sighting, model, _guessed(sighting) if model else str(result))
            self.rebuilt += len(jobs)
            self._timing['reconstruct'] = perf_counter() - start
            return None if self._frame is None else self._scene(self._frame)

    def _supported(self, frame: Frame, held: '_Held') -> Frame:
        """Return a frame that knows its sensor's noise, and the supports that are seen or told."""
        plane = self.distances.get('plane')
        told = frame.support or (plane.options.support() if plane else None)
        known = () if told is None else (told,)
        if frame.depth is None:
            return replace(frame, supports=known)
        frame = replace(
            frame, up=frame.up if told is None or frame.up is not None else told.normal,
            depth_noise=held.noise.of(frame.depth_noise, frame.depth, frame.camera.fx))
        return replace(frame, supports=held.support.find(frame) or known)

    def _each(
        self, step: Callable[[Detection], Result | None], detections: Sequence[Detection],
    ) -> list[Result]:
        """Do a step for each detection; one for which it fails or gives None is skipped."""
        results = [attempt(step, detection) for detection in detections]
        errors = [result for result in results if isinstance(result, Img2SceneError)]
        if errors and len(errors) == len(results):
            raise errors[0]
        for error in errors:
            self._warn_once(f'an object is skipped: {error}')
        return [result for result in results
                if result is not None and not isinstance(result, Img2SceneError)]

    def _placed(
        self, frame: Frame, detection: Detection, notes: list[str],
    ) -> tuple[Sighting, ObjectModel] | None:
        """Return an object at its place, and its proxy; None where no source can tell."""
        support = frame.support
        if frame.depth is not None and detection.mask is not None:
            support = support_under(frame.readings_at(detection.pixels(_SOME)), frame.supports)
        placement = place(self.distances, frame, detection, support)
        if placement is None:
            if frame.has_depth:
                notes.append(f"a '{detection.label}' is skipped: the depth image shows nothing of "
                             'it, and its distance would only be guessed')
            return None
        sighting = Sighting(frame, detection, placement)
        return sighting, self._proxy.reconstruct(sighting)

    def _segmented(self, frame: Frame, detections: list[Detection]) -> list[Detection]:
        """Ask the segmenter for the masks that the detector did not find."""
        bare = [index for index, one in enumerate(detections)
                if one.mask is None or not one.mask.any()]
        if self.segmenter is None or not bare:
            return detections
        masks = attempt(self.segmenter.masks, frame, [detections[index] for index in bare])
        if isinstance(masks, Img2SceneError):
            masks = [masks] * len(bare)
        segmented = list(detections)
        for index, mask in zip(bare, masks):
            if isinstance(mask, Img2SceneError):
                self._warn_once(str(mask))
            else:
                segmented[index] = replace(detections[index], mask=mask)
        return segmented

    def _warn_once(self, message: str) -> None:
        """Log a warning, unless one like it, whatever its numbers, was logged before."""
        kind = re.sub(r'\d+', '#', message)
        if kind not in self._said:
            _LOGGER.warning(message)
            self._said.append(kind)

    def _rebuilt(self, sightings: Sequence[Sighting]) -> list[ObjectModel | Img2SceneError]:
        """Rebuild all at once; when that fails as a whole, one by one."""
        if not isinstance(self.reconstructor, BatchReconstructor):
            return [attempt(self.reconstructor.reconstruct, sighting) for sighting in sightings]
        results = attempt(self.reconstructor.reconstruct_batch, sightings)
        if isinstance(results, list) and len(results) == len(sightings):
            return results
        if len(sightings) > 1:
            return [self._rebuilt([sighting])[0] for sighting in sightings]
        return [results if isinstance(results, Img2SceneError) else ReconstructionError(
            f"the reconstructor '{self.options.reconstructor}' does not answer with one result "
            'per object')]

    def _finished(self, model: ObjectModel, sighting: Sighting) -> ObjectModel:
        """Check a new mesh, measure how well it fits what was seen, and give it its texture."""
        _check_mesh(model, self.options.reconstructor)
        if model.reconstructor != 'box':  # which is a proxy itself
            model = self._fitting(model, sighting)
        return self._textured(model, sighting) if self.options.texture == 'bake' else model

    def _fitting(self, model: ObjectModel, sighting: Sighting) -> ObjectModel:
        """Measure how well a model fits what was seen, where that can be measured."""
        try:
            model = replace(model, fit=model.fit or measured_fit(model, sighting))
        except MissingDependencyError as error:
            self._warn_once(f'how well meshes fit is not measured: {error}')
        least = self.options.min_fit
        if model.fit and model.fit.silhouette_iou < least:
            raise ReconstructionError(
                f"the mesh of '{model.reconstructor}' is not shown: its silhouette has an IoU of "
                f"{model.fit.silhouette_iou:.2f} with the mask, less than 'min_fit' ({least:g})")
        return model

    def _textured(self, model: ObjectModel, sighting: Sighting) -> ObjectModel:
        """Give a model its texture; whatever goes wrong with it costs only the texture."""
        result = attempt(
            textured, model, sighting.frame, colored_pixels(sighting), self.options.texture_size)
        if isinstance(result, ObjectModel):
            return result
        self._warn_once(f'an object gets no texture: {result}')
        return model

    def run(
        self, frame: Frame, progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Scene:
        """
        Go the whole way with one frame; 'reconstruct' in the timing is the sum over its objects.

        :param progress: called after every step with how many objects are rebuilt, and of how many
        :raises Img2SceneError: as `perceive`
        """
        scene = self.perceive(frame)
        start, before, total = perf_counter(), self.rebuilt, len(scene.objects)
        progress(0, total)
        while (rebuilt := self.reconstruct_next()) is not None:
            scene = rebuilt
            progress(self.rebuilt - before, total)
        return replace(scene, timing=scene.timing | {'reconstruct': perf_counter() - start})

    @property
    def detector_status(self) -> str:
        """Return what the detector runs on and why, as far as it tells."""
        return getattr(self.detector, 'status', '')

    @property
    def scene(self) -> Scene | None:
        """Return the scene as it is now; None before the first frame."""
        with self._lock:
            return None if self._frame is None else self._scene(self._frame)

    def clear(self) -> None:
        """Forget all objects; their ids are not used again."""
        with self._lock:
            self._tracker.clear()

    def remember(self, objects: Sequence[SceneObject]) -> None:
        """
        Go on with objects that were seen at another time, in place of those that are known.

        :param objects: in the optical frame of the latest frame, of which there must be one
        """
        with self._lock:
            assert self._frame is not None
            turned = turning.turned_back(Scene(self._frame, tuple(objects)), -self._held.quarters)
            self._tracker.remember(turned.objects)

    def restart(self) -> None:
        """Begin with another scene, whose ids start at 1 again."""
        with self._lock:
            self._tracker = Tracker()
            self._tell_tracker()
            self._held, self._frame = _Held(), None

    def configure(self, settings: dict[str, Any]) -> None:
        """
        Change options while running; settings of backends that are not in use are ignored.

        :param settings: by name: 'better_view', 'tabletop.min_height'
        :raises OptionError: an unknown name, a value out of range, or a read-only option
        """
        options, _ = parse_settings(settings, self.options)
        changes: dict[str, dict[str, Any]] = {}
        for name, value in settings.items():
            owner, _, field = name.rpartition('.')
            used = self if not owner else self._used().get(owner)
            if used is None:
                continue
            declared = {item.name: item for item in fields(used.options)}[field]
            if declared.metadata['read_only'] and getattr(used.options, field) != value:
                raise OptionError(
                    f"the option '{name}' cannot be changed while running; start again with it")
            changes.setdefault(owner, {})[field] = value
        changes.pop('', None)
        for owner, values in changes.items():
            self._used()[owner].options = replace(self._used()[owner].options, **values)
        self.options = options
        self._tell_tracker()

    def _tell_tracker(self) -> None:
        options = self.options
        self._tracker.forget_after = options.forget_after
        self._tracker.better_view = options.better_view
        self._tracker.birth = options.birth_sightings, options.birth_time, options.birth_score

    def _used(self) -> dict[str, Any]:
        """Return the backends in use by name."""
        return {self.options.detector: self.detector,
                self.options.reconstructor: self.reconstructor,
                **getattr(self.detector, 'parts', {})} | self.distances

    def _scene(self, frame: Frame) -> Scene:
        scene = Scene(
            frame, self._tracker.objects(), self._supports, dict(self._timing), self._notes)
        return turning.turned_back(scene, self._held.quarters)


def _prepare() -> None:
    """Have computed what is computed at its first use, for the first frame to take no longer."""
    usual_extents()
    cv2.cvtColor(np.zeros((1, 1, 3), np.float32), cv2.COLOR_RGB2LAB)  # OpenCV's tables


def parse_settings(
    settings: dict[str, Any], base: PipelineOptions = PipelineOptions(),
) -> tuple[PipelineOptions, dict[str, Any]]:
    """
    Sort settings by dotted names into options.

    :param settings: for example {'detector': 'detr', 'detr.score_threshold': 0.7}
    :param base: values of the pipeline's options that the settings do not name
    :return: the pipeline's options, and those of every backend (or of OTHER_GROUPS) that is named
    :raises OptionError: an unknown name or a value that is not allowed
    """
    known = {name: found.Options for group in BACKEND_GROUPS
             for name, found in backends(group).items()} | OTHER_GROUPS
    sorted_settings: dict[str, dict[str, Any]] = {'': {}}
    for name, value in settings.items():
        owner, _, field = name.rpartition('.')
        declared = known.get(owner) if owner else PipelineOptions
        names = [item.name for item in fields(declared)] if declared else []
        if field not in names:
            near = [f'{owner}.{item}' if owner else item for item in names] or sorted(known)
            raise OptionError(
                f"there is no option '{name}'; known here are {', '.join(near)}")
        sorted_settings.setdefault(owner, {})[field] = value
    pipeline = replace(base, **sorted_settings.pop(''))
    chosen = {}
    for owner, values in sorted_settings.items():
        with naming(owner):
            chosen[owner] = known[owner](**values)
    return pipeline, chosen


def _build(group: str, name: str, chosen: dict[str, Options]) -> Any:
    """Make a backend with its options, and those of the backends that it names as its parts."""
    found = backend(group, name)
    parts = {part: chosen.get(part, backend(group, part).Options())
             for part in getattr(found, 'PARTS', ())}
    return found(chosen.get(name, found.Options()), **parts)


def _reconstructor(
    options: PipelineOptions, chosen: dict[str, Options],
) -> tuple[Reconstructor, PipelineOptions]:
    """Build the reconstructor; return it, and the options with its name."""
    try:
        return _build('reconstructors', options.reconstructor, chosen), options
    except MissingDependencyError as error:
        if options.reconstructor != 'voxel':
            raise
        _LOGGER.warning("'depth_shell' rebuilds the objects, because %s", error)
        options = replace(options, reconstructor='depth_shell')
        return _build('reconstructors', 'depth_shell', chosen), options


def _check_mesh(model: ObjectModel, reconstructor: str) -> None:
    """Make sure that what a reconstructor answers with can be shown and written."""
    if not isinstance(model, ObjectModel):
        raise ReconstructionError(
            f"the reconstructor '{reconstructor}' answers with a {type(model).__name__} instead "
            'of a mesh')
    is_finite = all(np.isfinite(part).all() for part in (
        model.vertices, model.position, model.rotation))
    if not (len(model.faces) and is_finite and model.colors.shape == model.vertices.shape
            and model.faces.min() >= 0 and model.faces.max() < len(model.vertices)):
        raise ReconstructionError(
            f"the mesh of the reconstructor '{reconstructor}' is damaged: no faces, values that "
            'are not finite, or faces and colours that do not fit its vertices')


def _upright(frame: Frame, quarters: int) -> tuple[Frame, int]:
    """Turn a frame until up is up; return it, and by how many quarters that is now."""
    up = frame.support.normal if frame.support else frame.up
    quarters = quarters if up is None else turning.quarters_to_upright(up, quarters)
    return turning.turned_frame(frame, quarters), quarters


def _beside_robot(frame: Frame, detection: Detection) -> Detection | None:
    """Return what a detection shows beside the robot itself; None for the robot."""
    if frame.robot is None:
        return detection
    robot = frame.robot[detection.window if detection.mask is None else detection.mask]
    if robot.size and robot.mean() > _ROBOT:
        return None
    if detection.mask is None or not robot.any():
        return detection
    mask = detection.mask & ~frame.robot
    return replace(detection, mask=mask, bbox=bbox_of(mask))


def _guessed(sighting: Sighting) -> str:
    """Say how much of an object no reading of the depth image shows, where that is much."""
    share = depth_coverage(sighting.frame, sighting.detection)
    if share is None or share >= _COVERED or not sighting.frame.has_depth:
        return ''
    if 'sensor' not in sighting.placement.depth_source:
        return 'the depth image does not show it; place, size and mesh are guessed by its box'
    return (f'only {share:.0%} of its pixels have depth readings; its mesh is a guess where they '
            'are missing')


def _with_mask(frame: Frame, detection: Detection) -> Detection:
    if detection.mask is not None and detection.mask.any():
        return detection
    return replace(detection, mask=held_mask(frame, detection))
