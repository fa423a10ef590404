"""The whole way, free of ROS: frames in, scenes out."""

import logging
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import fields
from dataclasses import replace
from threading import Lock
from time import perf_counter
from typing import Any

from img2scene_ros.detection import Detection
from img2scene_ros.detection import Detector
from img2scene_ros.detection.masks import mask_from_color
from img2scene_ros.detection.masks import mask_from_depth
from img2scene_ros.detection.segmenter import Segmenter
from img2scene_ros.errors import Img2SceneError
from img2scene_ros.errors import OptionError
from img2scene_ros.errors import ReconstructionError
from img2scene_ros.frame import Frame
from img2scene_ros.localization import DistanceSource
from img2scene_ros.localization import Sighting
from img2scene_ros.localization.combine import place
from img2scene_ros.localization.combine import sources_of
from img2scene_ros.options import Options
from img2scene_ros.options import option
from img2scene_ros.reconstruction import BatchReconstructor
from img2scene_ros.reconstruction import ObjectModel
from img2scene_ros.reconstruction import Reconstructor
from img2scene_ros.reconstruction.box import BoxReconstructor
from img2scene_ros.reconstruction.fit import measured_fit
from img2scene_ros.reconstruction.texture import textured
from img2scene_ros.registry import backend
from img2scene_ros.registry import backends
from img2scene_ros.scene import Scene
from img2scene_ros.scene.export import ExportOptions
from img2scene_ros.scene.tracks import Tracker
from img2scene_ros.support import SupportPlane
from img2scene_ros.support import find_support

_LOGGER = logging.getLogger(__name__)
BACKEND_GROUPS = ('detectors', 'distances', 'reconstructors')


@dataclass(frozen=True)
class PipelineOptions(Options):
    """Which backends do the work, and how long objects are kept."""

    detector: str = option(
        'tabletop', 'What finds the objects: tabletop (with a depth camera, whatever stands on a '
        'plane), detr (a transformers model), or auto (both, merged)', read_only=True)
    distance: str = option(
        'auto', 'Where distances come from: sensor (the depth image), plane (where an object '
        'stands), size_prior (how large such things are), monocular (a network), fixed, or auto '
        '(the sensor where it sees the object, else all that can tell, by their certainty)',
        read_only=True)
    segmenter: str = option(
        'none', "What cuts masks out of the boxes of detectors without masks: 'none' (depth, "
        'else colour), or a checkpoint on the Hugging Face Hub (OWNER/NAME) or in a folder: SAM '
        '2, Mask2Former, MaskFormer, SegFormer or CLIPSeg', read_only=True)
    segmenter_revision: str = option(
        'main', "Branch, tag or commit of the segmenter's checkpoint on the Hub", read_only=True)
    reconstructor: str = option(
        'depth_shell', 'What rebuilds the objects: depth_shell (the seen surface, completed), '
        'voxel (a network, also without depth), triposr, shap_e (large networks, from the picture '
        'alone), remote (a server; pictures leave the machine) or box', read_only=True)
    forget_after: int = option(
        10, 'Frames after which an object that is not seen any more is no longer shown',
        low=1, high=10000)
    better_view: float = option(
        1.5, 'An object is rebuilt when this many times more of it is seen than before',
        low=1.05, high=100.0)
    min_fit: float = option(
        0.4, "Least IoU of a mesh's silhouette and the object's mask; below it the object stays "
        'as it was shown before, at first a box', low=0.0, high=1.0)
    texture: str = option(
        'bake', "bake: rebuilt objects get a texture from the picture (needs xatlas); none: they "
        'have only the colours of their vertices', choices=('bake', 'none'))
    texture_size: int = option(
        512, 'Greatest side of a texture [pixels]; it has no more than the picture', low=32,
        high=8192)


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
        self.options = options
        chosen = backend_options or {}
        self.distances: dict[str, DistanceSource] = {
            name: _build('distances', name, chosen)
            for name in sources_of(options.distance, chosen)}
        self.reconstructor: Reconstructor = _build(
            'reconstructors', options.reconstructor, chosen)
        self.detector: Detector = _build('detectors', options.detector, chosen)
        self.segmenter = (
            None if options.segmenter == 'none' else
            Segmenter(options.segmenter, options.segmenter_revision))
        self._proxy = BoxReconstructor()
        self._said: set[str] = set()  # warnings are said once
        self.rebuilt = 0
        self._lock = Lock()
        self.restart()
        self._support: SupportPlane | None = None
        self._timing: dict[str, float] = {}

    def perceive(self, frame: Frame) -> Scene:
        """
        Detect, localize and track; return the scene with the meshes there are so far.

        :raises Img2SceneError: the frame lacks what the detector needs
        """
        start = perf_counter()
        support = find_support(frame) or frame.support or self._told_support()
        detections = [
            _with_mask(frame, detection, support)
            for detection in self._segmented(frame, self.detector.detect(frame, support))]
        detected = perf_counter()
        placements = [place(self.distances, frame, detection, support)
                      for detection in detections]
        sightings = [Sighting(frame, detection, placement)
                     for detection, placement in zip(detections, placements) if placement]
        proxies = [self._proxy.reconstruct(sighting) for sighting in sightings]
        localized = perf_counter()
        with self._lock:
            self._tracker.update(frame, support, sightings, proxies)
            self._frame, self._support = frame, support
            self._timing.update(detect=detected - start, localize=localized - detected)
            return self._scene()

    def reconstruct_next(self) -> Scene | None:
        """
        Rebuild the objects that need it most, as many as the reconstructor takes at once.

        :return: the scene after it, None if no object needs it
        """
        with self._lock:
            jobs = self._tracker.next_jobs(getattr(self.reconstructor, 'max_batch', 1))
        if not jobs:
            return None
        start = perf_counter()
        results = [
            self._fitting(result, sighting) if isinstance(result, ObjectModel) else result
            for result, (_, sighting) in zip(
                self._rebuilt([sighting for _, sighting in jobs]), jobs)]
        if self.options.texture == 'bake':
            results = [
                self._textured(result, sighting) if isinstance(result, ObjectModel) else result
                for result, (_, sighting) in zip(results, jobs)]
        with self._lock:
            for (id, sighting), result in zip(jobs, results):
                model = result if isinstance(result, ObjectModel) else None
                self._tracker.finish(id, sighting, model, '' if model else str(result))
            self.rebuilt += len(jobs)
            self._timing['reconstruct'] = perf_counter() - start
            return self._scene()

    def _segmented(self, frame: Frame, detections: list[Detection]) -> list[Detection]:
        """Ask the segmenter for the masks that the detector did not find."""
        bare = [index for index, one in enumerate(detections)
                if one.mask is None or not one.mask.any()]
        if self.segmenter is None or not bare:
            return detections
        segmented = list(detections)
        for index, mask in zip(
                bare, self.segmenter.masks(frame, [detections[index] for index in bare])):
            if isinstance(mask, Img2SceneError):
                self._warn_once(str(mask))
            else:
                segmented[index] = replace(detections[index], mask=mask)
        return segmented

    def _warn_once(self, message: str) -> None:
        if message not in self._said:
            _LOGGER.warning(message)
            self._said.add(message)

    def _rebuilt(self, sightings: Sequence[Sighting]) -> list[ObjectModel | Img2SceneError]:
        """Rebuild all at once; when that fails as a whole, one by one."""
        try:
            if isinstance(self.reconstructor, BatchReconstructor):
                return self.reconstructor.reconstruct_batch(sightings)
            return [self.reconstructor.reconstruct(sighting) for sighting in sightings]
        except Exception as error:  # A fault of a backend costs one mesh, not the scene.
            if len(sightings) > 1:
                return [self._rebuilt([sighting])[0] for sighting in sightings]
            if isinstance(error, Img2SceneError):
                return [error]
            note = f'the reconstructor failed: {type(error).__name__}: {error}'
            _LOGGER.error(note)
            _LOGGER.debug('traceback', exc_info=True)
            return [ReconstructionError(note)]

    def _fitting(
        self, model: ObjectModel, sighting: Sighting,
    ) -> ObjectModel | ReconstructionError:
        """Measure how well a model fits what was seen; a wrong one gives an error."""
        if model.reconstructor == 'box':  # is a proxy itself
            return model
        model = replace(model, fit=model.fit or measured_fit(model, sighting))
        least = self.options.min_fit
        if model.fit and model.fit.silhouette_iou < least:
            return ReconstructionError(
                f"the mesh of '{model.reconstructor}' is not shown: its silhouette has an IoU of "
                f"{model.fit.silhouette_iou:.2f} with the mask, less than 'min_fit' ({least:g})")
        return model

    def _textured(self, model: ObjectModel, sighting: Sighting) -> ObjectModel:
        """Give a model its texture; whatever goes wrong with it costs only the texture."""
        try:
            return textured(model, sighting, self.options.texture_size)
        except Exception as error:
            reason = str(error) if isinstance(error, Img2SceneError) else (
                f'an object gets no texture: {type(error).__name__}: {error}')
            self._warn_once(reason)
            _LOGGER.debug('traceback', exc_info=True)
            return model

    def run(
        self, frame: Frame, progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Scene:
        """
        Go the whole way with one frame; 'reconstruct' in the timing is the sum over its objects.

        :param progress: told after every step how many objects are rebuilt, and of how many
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
            return None if self._frame is None else self._scene()

    def clear(self) -> None:
        """Forget all objects; their ids are not used again."""
        with self._lock:
            self._tracker.clear()

    def restart(self) -> None:
        """Begin with another scene, whose ids start at 1 again."""
        with self._lock:
            self._tracker = Tracker(self.options.forget_after, self.options.better_view)
            self._frame: Frame | None = None  # the latest

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
        self._tracker.forget_after = options.forget_after
        self._tracker.better_view = options.better_view

    def _used(self) -> dict[str, Any]:
        """Return the backends in use by name."""
        return {self.options.detector: self.detector,
                self.options.reconstructor: self.reconstructor,
                **getattr(self.detector, 'parts', {})} | self.distances

    def _told_support(self) -> SupportPlane | None:
        plane = self.distances.get('plane')
        return plane.options.support() if plane else None

    def _scene(self) -> Scene:
        return Scene(
            self._frame, self._tracker.objects(), self._support, dict(self._timing))


def parse_settings(
    settings: dict[str, Any], base: PipelineOptions = PipelineOptions(),
) -> tuple[PipelineOptions, dict[str, Options]]:
    """
    Sort settings by dotted names into options.

    :param settings: for example {'detector': 'detr', 'detr.score_threshold': 0.7}
    :param base: values of the pipeline's options that the settings do not name
    :return: the pipeline's options, and those of every backend (or 'export') that is named
    :raises OptionError: an unknown name or a value that is not allowed
    """
    known = {name: found.Options for group in BACKEND_GROUPS
             for name, found in backends(group).items()} | {'export': ExportOptions}
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
        try:
            chosen[owner] = known[owner](**values)
        except OptionError as error:
            raise OptionError(f'{owner}: {error}') from error
    return pipeline, chosen


def _build(group: str, name: str, chosen: dict[str, Options]) -> Any:
    """Make a backend with its options, and those of the backends that it names as its parts."""
    found = backend(group, name)
    parts = {part: chosen.get(part, backend(group, part).Options())
             for part in getattr(found, 'PARTS', ())}
    return found(chosen.get(name, found.Options()), **parts)


def _with_mask(
    frame: Frame, detection: Detection, support: SupportPlane | None,
) -> Detection:
    if detection.mask is not None and detection.mask.any():
        return detection
    if frame.has_depth:
        return replace(detection, mask=mask_from_depth(frame, detection.bbox, support))
    return replace(detection, mask=mask_from_color(frame, detection.bbox))
