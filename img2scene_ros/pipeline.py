"""The whole way, free of ROS: frames in, scenes out."""

import logging
from dataclasses import dataclass
from dataclasses import fields
from dataclasses import replace
from threading import Lock
from time import perf_counter
from typing import Any

from img2scene_ros.detection import Detection
from img2scene_ros.detection import Detector
from img2scene_ros.detection.masks import mask_from_depth
from img2scene_ros.errors import Img2SceneError
from img2scene_ros.errors import OptionError
from img2scene_ros.frame import Frame
from img2scene_ros.localization import DistanceSource
from img2scene_ros.localization import Placement
from img2scene_ros.localization import Sighting
from img2scene_ros.options import Options
from img2scene_ros.options import option
from img2scene_ros.reconstruction import Reconstructor
from img2scene_ros.reconstruction.box import BoxReconstructor
from img2scene_ros.registry import backend
from img2scene_ros.registry import backends
from img2scene_ros.scene import Scene
from img2scene_ros.scene.tracks import Tracker
from img2scene_ros.support import SupportPlane
from img2scene_ros.support import find_support

_LOGGER = logging.getLogger(__name__)
BACKEND_GROUPS = ('detectors', 'distances', 'reconstructors')


@dataclass(frozen=True)
class PipelineOptions(Options):
    """Which backends do the work, and how long objects are kept."""

    detector: str = option('tabletop', 'Detector, by name', read_only=True)
    distance: str = option(
        'auto', "Where distances come from, by name; 'auto' takes the depth sensor where it "
        'sees the object, else the fixed distance', read_only=True)
    reconstructor: str = option('depth_shell', 'Reconstructor, by name', read_only=True)
    forget_after: int = option(
        10, 'Frames after which an object that is not seen any more is no longer shown',
        low=1, high=10000)
    better_view: float = option(
        1.5, 'An object is rebuilt when this many times more of it is seen than before',
        low=1.05, high=100.0)


class Pipeline:
    """
    Turns frames into a scene at two speeds.

    `perceive` is fast and runs on every frame; `reconstruct_next` is slow and runs beside it.
    The two may be called from different threads at once.

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
        names = ('sensor', 'fixed') if options.distance == 'auto' else (options.distance,)
        self.distances: dict[str, DistanceSource] = {
            name: _build('distances', name, chosen) for name in names}
        self.reconstructor: Reconstructor = _build(
            'reconstructors', options.reconstructor, chosen)
        self.detector: Detector = _build('detectors', options.detector, chosen)
        self._proxy = BoxReconstructor()
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
        support = find_support(frame)
        detections = [_with_mask(frame, detection, support)
                      for detection in self.detector.detect(frame, support)]
        detected = perf_counter()
        placements = [self._place(frame, detection, support) for detection in detections]
        sightings = [Sighting(frame, detection, placement)
                     for detection, placement in zip(detections, placements) if placement]
        proxies = [self._proxy.reconstruct(sighting) for sighting in sightings]
        localized = perf_counter()
        with self._lock:
            self._tracker.update(frame, support, sightings, proxies)
            self._support = support
            self._timing.update(detect=detected - start, localize=localized - detected)
            return self._scene()

    def reconstruct_next(self) -> Scene | None:
        """Rebuild the object that needs it most; return the scene after it, None if none does."""
        with self._lock:
            job = self._tracker.next_job()
        if job is None:
            return None
        id, sighting = job
        start = perf_counter()
        model, note = None, ''
        try:
            model, note = self.reconstructor.reconstruct(sighting), ''
        except Img2SceneError as error:
            note = str(error)
        except Exception as error:  # A fault of a backend costs one mesh, not the scene.
            note = f'the reconstructor failed: {type(error).__name__}: {error}'
            _LOGGER.error(note)
            _LOGGER.debug('traceback', exc_info=True)
        with self._lock:
            self._tracker.finish(id, sighting, model, note)
            self._timing['reconstruct'] = perf_counter() - start
            return self._scene()

    def run(self, frame: Frame) -> Scene:
        """
        Go the whole way with one frame; 'reconstruct' in the timing is the sum over its objects.

        :raises Img2SceneError: as `perceive`
        """
        scene = self.perceive(frame)
        start = perf_counter()
        while (rebuilt := self.reconstruct_next()) is not None:
            scene = rebuilt
        return replace(scene, timing=scene.timing | {'reconstruct': perf_counter() - start})

    @property
    def scene(self) -> Scene:
        """Return the scene as it is now."""
        with self._lock:
            return self._scene()

    def clear(self) -> None:
        """Forget all objects; their ids are not used again."""
        with self._lock:
            self._tracker.clear()

    def restart(self) -> None:
        """Begin with another scene, whose ids start at 1 again."""
        with self._lock:
            self._tracker = Tracker(self.options.forget_after, self.options.better_view)

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
                self.options.reconstructor: self.reconstructor} | self.distances

    def _place(
        self, frame: Frame, detection: Detection, support: SupportPlane | None,
    ) -> Placement | None:
        for source in self.distances.values():
            placement = source.place(frame, detection, support)
            if placement is not None:
                return placement
        return None

    def _scene(self) -> Scene:
        return replace(self._tracker.scene(), support=self._support, timing=dict(self._timing))


def parse_settings(
    settings: dict[str, Any], base: PipelineOptions = PipelineOptions(),
) -> tuple[PipelineOptions, dict[str, Options]]:
    """
    Sort settings by dotted names into options.

    :param settings: for example {'detector': 'detr', 'detr.score_threshold': 0.7}
    :param base: values of the pipeline's options that the settings do not name
    :return: the pipeline's options, and those of every backend that is named
    :raises OptionError: an unknown name or a value that is not allowed
    """
    known = {name: found.Options for group in BACKEND_GROUPS
             for name, found in backends(group).items()}
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
    found = backend(group, name)
    return found(chosen.get(name, found.Options()))


def _with_mask(
    frame: Frame, detection: Detection, support: SupportPlane | None,
) -> Detection:
    if detection.mask is not None:
        return detection
    return replace(detection, mask=mask_from_depth(frame, detection.bbox, support))
