# SPDX-License-Identifier: Apache-2.0
"""The pipeline's choices: backends, options, and what happens where depth is missing."""

import sys
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import replace
from gc import collect
from threading import Thread
from weakref import ref

import numpy as np
import pytest
from synthetic import CAMERA
from synthetic import GEOMETRIC
from synthetic import box
from synthetic import camera_pose
from synthetic import can
from synthetic import tabletop_frame

from img2scene_ros.errors import Img2SceneError
from img2scene_ros.errors import InputError
from img2scene_ros.errors import MissingDependencyError
from img2scene_ros.errors import OptionError
from img2scene_ros.errors import ReconstructionError
from img2scene_ros.pipeline import Pipeline
from img2scene_ros.pipeline import PipelineOptions
from img2scene_ros.pipeline import parse_settings
from img2scene_ros.reconstruction import BatchReconstructor
from img2scene_ros.reconstruction.box import BoxReconstructor
from img2scene_ros.turning import turned_frame
from img2scene_ros.types import Detection
from img2scene_ros.types import Frame
from img2scene_ros.types import ObjectModel
from img2scene_ros.types import Scene
from img2scene_ros.types import Sighting


class MiddleDetector:
    """Stands in for a detector of pictures: one box in the middle, without mask."""

    def __init__(self, box: tuple[float, float, float, float]) -> None:
        self.box = np.array(box)

    def detect(self, frame: Frame) -> list[Detection]:
        """Return the box."""
        return [Detection('cup', 0.8, self.box)]


def look(shift: float = 0.0, seed: int = 0) -> Frame:
    """Photograph a can and a box on a table; the box is shifted [metres]."""
    things = [can(0.04, 0.11), box(0.1, 0.12, 0.07).apply_translation((0.0, 0.2 + shift, 0.0))]
    return tabletop_frame(things, camera_pose(35, 0.9), seed, CAMERA.resized(320, 240))[0]


def test_boxes_first_then_meshes_under_the_same_ids() -> None:
    """Objects are shown at once as boxes, then get their meshes; after clear they are new."""
    pipeline = Pipeline(*parse_settings(GEOMETRIC))
    shown = pipeline.perceive(look()).objects
    assert [one.model.reconstructor for one in shown] == ['box', 'box']
    assert not any(one.is_final for one in shown)
    while (scene := pipeline.reconstruct_next()) is not None:
        rebuilt = scene.objects
    assert [one.model.reconstructor for one in rebuilt] == ['depth_shell', 'depth_shell']
    assert all(one.is_final for one in rebuilt)
    assert [one.id for one in rebuilt] == [one.id for one in shown]
    pipeline.clear()
    assert pipeline.reconstruct_next() is None
    again = pipeline.perceive(look()).objects
    assert not {one.id for one in again} & {one.id for one in shown}


def test_the_scene_has_the_latest_frame() -> None:
    """Stamp and frame id are those of the picture."""
    frame = replace(look(), stamp_ns=17, frame_id='wrist')
    scene = Pipeline(PipelineOptions(detector='tabletop', reconstructor='box')).run(frame)
    assert (scene.frame.stamp_ns, scene.frame.frame_id) == (17, 'wrist')


def test_old_frames_are_let_go() -> None:
    """However many objects come and go, only the latest frame stays in memory."""
    pipeline = Pipeline(PipelineOptions(detector='tabletop', reconstructor='box'))
    frames = []
    for seed in range(4):
        frame = look(-0.45 + 0.15 * seed, seed)
        frames.append(ref(frame))
        pipeline.run(frame)
    del frame
    collect()
    assert [frame() is not None for frame in frames] == [False, False, False, True]


def test_settings_become_options() -> None:
    """Dotted names reach the options of their backend."""
    pipeline, backends = parse_settings(
        {'reconstructor': 'box', 'tabletop.min_height': 0.01, 'fixed.distance': 2})
    assert pipeline.reconstructor == 'box' and pipeline.detector == PipelineOptions().detector
    assert backends['tabletop'].min_height == 0.01
    assert backends['fixed'].distance == 2.0


@pytest.mark.parametrize('settings, words', (
    ({'detektor': 'detr'}, "'detektor'.*detector"),
    ({'tabletop.hight': 1.0}, "'tabletop.hight'.*tabletop.min_height"),
    ({'nothing.at_all': 1}, "'nothing.at_all'.*tabletop"),
    ({'tabletop.min_height': 9.0}, "'min_height'.*9.0"),
    ({'tabletop.min_height': 'tall'}, "'min_height'.*'tall'"),
))
def test_wrong_settings_are_one_clear_sentence(settings: dict, words: str) -> None:
    """The name, the value and what would be allowed are said."""
    with pytest.raises(OptionError, match=words):
        parse_settings(settings)


@pytest.mark.parametrize('kind', ('detector', 'distance', 'reconstructor'))
def test_unknown_backends_are_named(kind: str) -> None:
    """The wrong name and the right ones are said."""
    with pytest.raises(OptionError, match=f"'nonsense'.*{kind}s"):
        Pipeline(PipelineOptions(**{kind: 'nonsense'}))


def test_options_change_while_running(recorded: Callable[[str], Frame]) -> None:
    """A changed option counts from the next frame on."""
    pipeline = Pipeline(*parse_settings(GEOMETRIC))
    assert len(pipeline.perceive(recorded('ycb_3')).objects) == 3
    pipeline.clear()
    pipeline.configure({'tabletop.max_detections': 1, 'forget_after': 2})
    assert len(pipeline.perceive(recorded('ycb_3')).objects) == 1


def test_refused_changes_change_nothing() -> None:
    """Read-only options, bad values and unknown names leave all options as they were."""
    pipeline = Pipeline(*parse_settings(GEOMETRIC))
    before = pipeline.options, pipeline.detector.options
    for settings in ({'forget_after': 3, 'tabletop.gap': 0.02, 'detector': 'detr'},
                     {'forget_after': 3, 'tabletop.gap': -1.0},
                     {'tabletop.gap': 0.02, 'tabletop.nothing': 1}):
        with pytest.raises(OptionError):
            pipeline.configure(settings)
        assert (pipeline.options, pipeline.detector.options) == before


def test_a_box_detector_with_depth_gets_masks(recorded: Callable[[str], Frame]) -> None:
    """What a detector without masks finds is cut out by depth and rebuilt."""
    pipeline = Pipeline(*parse_settings(GEOMETRIC))
    pipeline.detector = MiddleDetector((345, 80, 494, 350))
    found, = pipeline.run(recorded('table_mustard_bottle')).objects
    assert found.detection.label == 'cup' and found.depth_source == 'sensor'
    assert found.model.reconstructor == 'depth_shell'
    assert found.model.size[2] == pytest.approx(0.19, rel=0.05)


@pytest.mark.parametrize('reconstructor', ('depth_shell', 'voxel'))
def test_an_object_without_readings_is_cut_out_by_colour(
    recorded: Callable[[str], Frame], reconstructor: str,
) -> None:
    """Glass beside things with depth: it gets a mask, and from a network a textured mesh."""
    frame = recorded('table_mustard_bottle')
    depth = frame.depth.copy()
    depth[80:350, 345:494] = np.nan
    pipeline = Pipeline(PipelineOptions(detector='tabletop', reconstructor=reconstructor))
    pipeline.detector = MiddleDetector((345, 80, 494, 350))
    found, = pipeline.run(replace(frame, depth=depth)).objects
    alone, = pipeline.perceive(Frame(frame.color, frame.camera)).objects
    np.testing.assert_array_equal(found.detection.mask, alone.detection.mask)
    assert found.is_final and found.depth_source != 'sensor'
    if reconstructor == 'voxel':
        assert found.model.reconstructor == 'voxel' and found.model.texture is not None
        assert found.model.fit.silhouette_iou > 0.6 and found.model.fit.depth_residual is None
    else:
        assert 'depth' in found.note


def test_a_picture_without_depth_gives_boxes_at_the_fixed_distance(
    recorded: Callable[[str], Frame],
) -> None:
    """The object is shown as its box, says so, and says where its distance came from."""
    frame = recorded('table_mustard_bottle')
    pipeline = Pipeline(*parse_settings(
        GEOMETRIC | {'distance': 'fixed', 'fixed.distance': 0.5}))
    pipeline.detector = MiddleDetector((352, 88, 486, 339))
    found, = pipeline.run(Frame(frame.color, frame.camera)).objects
    assert found.depth_source == 'fixed'
    assert np.linalg.norm(found.position) == pytest.approx(0.5)
    assert found.model.reconstructor == 'box' and found.is_final
    assert 'depth' in found.note


def test_tabletop_without_depth_says_so(recorded: Callable[[str], Frame]) -> None:
    """The error reaches the caller as it is."""
    frame = recorded('ycb_1')
    with pytest.raises(InputError, match='needs a depth image'):
        Pipeline(*parse_settings(GEOMETRIC)).run(Frame(frame.color, frame.camera))


@pytest.mark.slow
def test_both_speeds_at_once(recorded: Callable[[str], Frame]) -> None:
    """Two threads perceive and reconstruct; all objects get their mesh, none twice."""
    pipeline = Pipeline(*parse_settings(GEOMETRIC))
    scenes: list[Scene] = []
    pipeline.perceive(recorded('ycb_1'))

    def rebuild() -> None:
        while (scene := pipeline.reconstruct_next()) is not None:
            scenes.append(scene)

    worker = Thread(target=rebuild)
    worker.start()
    for _ in range(3):
        last = pipeline.perceive(recorded('ycb_1'))
    worker.join()
    last = pipeline.perceive(recorded('ycb_1'))
    assert len(scenes) == 5
    assert [found.model.reconstructor for found in last.objects] == ['depth_shell'] * 5
    assert len({found.id for found in last.objects}) == 5


def test_a_restart_while_an_object_is_rebuilt_leaves_no_scene(
    recorded: Callable[[str], Frame],
) -> None:
    """There is no frame any more that a scene could be of."""
    pipeline = Pipeline()
    pipeline.perceive(recorded('table_mustard_bottle'))

    class Restarting(BoxReconstructor):
        def reconstruct(self, sighting: Sighting) -> ObjectModel:
            pipeline.restart()
            return super().reconstruct(sighting)

    pipeline.reconstructor = Restarting()
    assert pipeline.reconstruct_next() is None
    assert pipeline.scene is None


class BatchBoxes(BatchReconstructor):
    """Stands in for a reconstructor that takes two objects at once."""

    max_batch = 2

    def __init__(self) -> None:
        self.passes: list[int] = []
        self.fails = False

    def reconstruct_batch(
        self, sightings: Sequence[Sighting],
    ) -> list[ObjectModel | Img2SceneError]:
        """Return boxes; of wide things an error; fail as a whole when several are too many."""
        self.passes.append(len(sightings))
        if self.fails and (len(sightings) > 1 or sightings[0].placement.size[2] > 0.15):
            raise RuntimeError('out of memory')
        return [BoxReconstructor().reconstruct(sighting) if sighting.placement.size[2] < 0.15
                else ReconstructionError('too tall') for sighting in sightings]


def test_a_reconstructor_gets_as_many_objects_as_it_takes(
    recorded: Callable[[str], Frame],
) -> None:
    """Five objects in three passes; one that cannot be rebuilt says so and stops no other."""
    pipeline = Pipeline(*parse_settings(GEOMETRIC))
    pipeline.reconstructor = BatchBoxes()
    proxies = {found.id: found.model for found in pipeline.perceive(recorded('ycb_1')).objects}
    scenes = list(iter(pipeline.reconstruct_next, None))
    assert pipeline.reconstructor.passes == [2, 2, 1] and len(scenes) == 3
    assert [sum(one.is_final for one in scene.objects) for scene in scenes] == [2, 4, 5]
    assert pipeline.rebuilt == 5
    tall = [one for one in scenes[-1].objects if one.note]
    assert 0 < len(tall) < 5 and {one.note for one in tall} == {'too tall'}
    for one in scenes[-1].objects:
        assert (one.model is proxies[one.id]) == (one in tall)


class Scaled:
    """Stands in for a reconstructor whose meshes have a wrong size."""

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def reconstruct(self, sighting: Sighting) -> ObjectModel:
        """Return a scaled box."""
        box = BoxReconstructor().reconstruct(sighting)
        return replace(box, vertices=box.vertices * np.float32(self.scale), reconstructor='mine')


@pytest.mark.slow
def test_meshes_say_how_well_they_fit(scene_of: Callable[[str], Scene]) -> None:
    """Silhouette and depth of what was rebuilt agree with what was seen."""
    for found in scene_of('ycb_3').objects:
        assert found.model.reconstructor == 'depth_shell'
        assert 0.8 < found.model.fit.silhouette_iou <= 1.0
        assert 0.0 <= found.model.fit.depth_residual < 0.005


def test_a_mesh_that_does_not_fit_is_not_shown(recorded: Callable[[str], Frame]) -> None:
    """A mesh of half the size covers a quarter of the mask; the box stays, and says why."""
    pipeline = Pipeline(*parse_settings(GEOMETRIC))
    pipeline.reconstructor = Scaled(0.5)
    found, = pipeline.run(recorded('table_cracker_box')).objects
    assert found.model.reconstructor == 'box' and found.is_final
    assert "mesh of 'mine' is not shown" in found.note and "'min_fit' (0.4)" in found.note
    pipeline = Pipeline(PipelineOptions(
        detector='tabletop', reconstructor='depth_shell', min_fit=0.05))
    pipeline.reconstructor = Scaled(0.5)
    found, = pipeline.run(recorded('table_cracker_box')).objects
    assert found.model.reconstructor == 'mine' and not found.note
    assert 0.1 < found.model.fit.silhouette_iou < 0.4


class HalfSegmenter:
    """Stands in for a segmenter: the left half of each box, and nothing in narrow ones."""

    def masks(
        self, frame: Frame, detections: Sequence[Detection],
    ) -> list[np.ndarray | Img2SceneError]:
        """Return masks."""
        masks: list[np.ndarray | Img2SceneError] = []
        for detection in detections:
            xmin, ymin, xmax, ymax = detection.bbox.astype(int)
            mask = np.zeros(frame.shape, bool)
            mask[ymin:ymax, xmin:(xmin + xmax) // 2] = True
            masks.append(mask if xmax - xmin > 120 else InputError('nothing is there'))
        return masks


def test_a_segmenter_makes_the_masks_that_the_detector_lacks(
    recorded: Callable[[str], Frame], caplog: pytest.LogCaptureFixture,
) -> None:
    """Where it sees nothing the depth image cuts the object out; that is said once."""
    frame = recorded('table_mustard_bottle')
    for width, share in ((149, 0.5), (110, None)):
        box = (345.0, 80.0, 345.0 + width, 350.0)
        pipeline = Pipeline(PipelineOptions(detector='tabletop', reconstructor='box'))
        pipeline.detector, pipeline.segmenter = MiddleDetector(box), HalfSegmenter()
        pipeline.perceive(frame)
        found, = pipeline.perceive(frame).objects
        filled = found.detection.mask.sum() / (width * 270)
        assert filled == pytest.approx(share, abs=0.01) if share else filled > 0.55
    assert [record.message for record in caplog.records] == ['nothing is there']


class CountingSegmenter:
    """Stands in for a segmenter that finds nothing, and says another number each time."""

    calls = 0

    def masks(self, frame: Frame, detections: Sequence[Detection]) -> list[Img2SceneError]:
        """Return errors."""
        self.calls += 1
        return [InputError(f'nothing in {self.calls * 1.5} pixels')] * len(detections)


def test_a_warning_that_differs_in_numbers_is_said_once(
    recorded: Callable[[str], Frame], caplog: pytest.LogCaptureFixture,
) -> None:
    """A camera that runs for days neither floods the log nor fills the memory."""
    pipeline = Pipeline(PipelineOptions(detector='tabletop', reconstructor='box'))
    pipeline.detector = MiddleDetector((345.0, 80.0, 455.0, 350.0))
    pipeline.segmenter = CountingSegmenter()
    for _ in range(3):
        pipeline.perceive(recorded('table_mustard_bottle'))
    assert [record.message for record in caplog.records] == ['nothing in 1.5 pixels']


def test_an_empty_mask_is_no_mask(recorded: Callable[[str], Frame]) -> None:
    """A detector that cuts out nothing is helped as one that has no masks."""
    class Empty(MiddleDetector):
        def detect(self, frame: Frame) -> list[Detection]:
            found, = super().detect(frame)
            return [replace(found, mask=np.zeros(frame.shape, bool))]

    pipeline = Pipeline(*parse_settings(GEOMETRIC))
    pipeline.detector = Empty((345, 80, 494, 350))
    found, = pipeline.run(recorded('table_mustard_bottle')).objects
    assert found.model.reconstructor == 'depth_shell' and found.detection.mask.any()


def test_a_pass_that_fails_is_tried_one_by_one(recorded: Callable[[str], Frame]) -> None:
    """A fault that one object causes costs the mesh of that object only."""
    pipeline = Pipeline(*parse_settings(GEOMETRIC))
    pipeline.reconstructor = BatchBoxes()
    pipeline.reconstructor.fails = True
    scene = pipeline.run(recorded('ycb_1'))
    failed = [one for one in scene.objects if one.note]
    assert 0 < len(failed) < 5 and all(one.is_final for one in scene.objects)
    assert all('RuntimeError: out of memory' in one.note for one in failed)


def test_run_tells_how_many_objects_are_rebuilt(recorded: Callable[[str], Frame]) -> None:
    told = []
    Pipeline(PipelineOptions(detector='tabletop', reconstructor='box', texture='none')).run(
        recorded('ycb_3'), lambda done, total: told.append((done, total)))
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]


class FaultyWithTall(BatchReconstructor):
    """Stands in for a reconstructor of a third party: boxes, and a fault with tall objects."""

    max_batch = 2

    def __init__(self, fault: Callable[[ObjectModel], object]) -> None:
        self.fault = fault

    def reconstruct_batch(
        self, sightings: Sequence[Sighting],
    ) -> list[ObjectModel | Img2SceneError]:
        """Return boxes; no more from the first tall object on when the fault gives nothing."""
        results = []
        for sighting in sightings:
            model = replace(BoxReconstructor().reconstruct(sighting), reconstructor='mine')
            if sighting.placement.size[2] > 0.15:
                model = self.fault(model)
            if model is not ...:
                results.append(model)
        return results


def exits(model: ObjectModel) -> None:
    """Leave, as libraries made for the command line do."""
    sys.exit('usage: ...')


@pytest.mark.parametrize('fault', (
    exits, lambda model: 1 / 0, lambda model: None, lambda model: ..., lambda model: 'no mesh',
    lambda model: replace(model, vertices=model.vertices * np.float32(np.nan)),
    lambda model: replace(model, faces=model.faces + 1), lambda model: replace(
        model, faces=model.faces[:0]), lambda model: replace(model, colors=model.colors[1:]),
    lambda model: replace(model, position=np.full(3, np.inf)),
), ids=('exits', 'raises', 'none', 'too few', 'text', 'nan', 'faces', 'empty', 'colors', 'inf'))
def test_a_fault_of_one_object_costs_its_mesh_alone(
    recorded: Callable[[str], Frame], fault: Callable[[ObjectModel], object],
) -> None:
    """The others get their meshes, all are final, and only those that failed have a note."""
    pipeline = Pipeline(PipelineOptions(
        detector='tabletop', reconstructor='depth_shell', texture='none'))
    pipeline.reconstructor = FaultyWithTall(fault)
    scene = pipeline.run(recorded('ycb_1'))
    failed = [one for one in scene.objects if one.note]
    assert len(scene.objects) == 5 and 0 < len(failed) < 5
    assert all(one.is_final for one in scene.objects) and pipeline.reconstruct_next() is None
    for one in scene.objects:
        assert one.model.reconstructor == ('box' if one in failed else 'mine')


@pytest.mark.parametrize('step', ('measured_fit', 'textured'))
def test_a_fault_while_a_mesh_is_finished_stops_nothing(
    recorded: Callable[[str], Frame], monkeypatch: pytest.MonkeyPatch, step: str,
) -> None:
    """All objects are final after it; a texture that fails costs no more than the texture."""
    def fails(*_: object) -> None:
        raise ValueError('out of range')

    monkeypatch.setattr(f'img2scene_ros.pipeline.{step}', fails)
    scene = Pipeline(*parse_settings(GEOMETRIC)).run(recorded('ycb_3'))
    assert len(scene.objects) == 3 and all(one.is_final for one in scene.objects)
    for one in scene.objects:
        if step == 'textured':
            assert one.model.reconstructor == 'depth_shell' and one.model.texture is None
        else:
            assert one.model.reconstructor == 'box' and 'out of range' in one.note


def test_without_open3d_there_are_meshes_that_nobody_compares(
    recorded: Callable[[str], Frame], monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The fit is unknown, which is said once; the objects are final."""
    monkeypatch.setitem(sys.modules, 'open3d', None)
    monkeypatch.setitem(sys.modules, 'open3d.t.geometry', None)
    scene = Pipeline(*parse_settings(GEOMETRIC | {'depth_shell.max_triangles': 200000})).run(
        recorded('ycb_3'))
    assert [one.model.reconstructor for one in scene.objects] == ['depth_shell'] * 3
    assert all(one.is_final and one.model.fit is None for one in scene.objects)
    assert len([record for record in caplog.records if 'open3d' in record.message]) == 1


@pytest.mark.parametrize('step', ('place', 'held_mask'))
def test_a_fault_with_one_detection_costs_that_detection(
    recorded: Callable[[str], Frame], monkeypatch: pytest.MonkeyPatch, step: str,
) -> None:
    """The other is there; where all fail the frame does."""
    class Two(MiddleDetector):
        def detect(self, frame: Frame) -> list[Detection]:
            found, = super().detect(frame)
            return [found, replace(found, bbox=found.bbox + 3.0)]

    import img2scene_ros.pipeline as module

    original, calls = getattr(module, step), []

    def fails_first(*arguments: object) -> object:
        calls.append(arguments)
        return 1 / 0 if len(calls) == 1 else original(*arguments)

    pipeline = Pipeline(*parse_settings(GEOMETRIC))
    pipeline.detector = Two((345, 80, 494, 350))
    with monkeypatch.context() as patched:
        patched.setattr(module, step, fails_first)
        assert len(pipeline.perceive(recorded('table_mustard_bottle')).objects) == 1
        patched.setattr(module, step, lambda *_: 1 / 0)
        with pytest.raises(Img2SceneError, match='ZeroDivisionError'):
            pipeline.perceive(recorded('table_mustard_bottle'))


def test_a_segmenter_that_fails_costs_no_object(recorded: Callable[[str], Frame]) -> None:
    """The depth image makes the mask instead."""
    class Failing:
        def masks(self, frame: Frame, detections: Sequence[Detection]) -> None:
            raise KeyError('pixel_values')

    pipeline = Pipeline(PipelineOptions(detector='tabletop', reconstructor='box'))
    pipeline.detector, pipeline.segmenter = MiddleDetector((345, 80, 494, 350)), Failing()
    found, = pipeline.perceive(recorded('table_mustard_bottle')).objects
    assert found.detection.mask.any()


def test_without_torch_the_defaults_go_on_by_depth_alone(monkeypatch, caplog) -> None:
    """One sentence for the detector and one for the reconstructor, each said once."""
    monkeypatch.setitem(sys.modules, 'torch', None)
    caplog.set_level('INFO')
    pipeline = Pipeline()
    for _ in range(2):
        scene = pipeline.run(look())
    assert [one.model.reconstructor for one in scene.objects] == ['depth_shell'] * 2
    assert {one.detection.label for one in scene.objects} == {'object'}
    said = [line for line in caplog.messages if 'torch' in line]
    assert len(said) == 2 and all('\n' not in line for line in said)
    assert sum("'depth_shell'" in line for line in said) == 1
    assert sum('depth alone' in line for line in said) == 1


def test_other_reconstructors_are_not_replaced_without_torch(monkeypatch) -> None:
    """Who asks for a network gets it or a sentence."""
    monkeypatch.setitem(sys.modules, 'torch', None)
    with pytest.raises(MissingDependencyError, match='torch'):
        Pipeline(*parse_settings(GEOMETRIC | {'reconstructor': 'triposr'}))


def test_what_the_depth_image_does_not_show_is_not_placed_by_a_guess(
    recorded: Callable[[str], Frame],
) -> None:
    """A monitor behind the table has no readings: metres by its usual size would be wrong."""
    frame = recorded('ycb_1')
    scene = Pipeline(PipelineOptions(reconstructor='box')).perceive(frame)
    assert len(scene.objects) == 5
    assert max(one.position[2] for one in scene.objects) < 1.2
    assert any("'tv'" in note for note in scene.notes)
    by_size = Pipeline(PipelineOptions(distance='size_prior', reconstructor='box'))
    assert by_size.perceive(frame).objects  # asked for, guesses are taken


def test_another_scene_knows_nothing_of_the_one_before(
    recorded: Callable[[str], Frame], monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither a rolled camera nor a noisier sensor of an earlier scene count after a restart."""
    frame, before = recorded('ycb_1'), turned_frame(recorded('ycb_3'), 1)
    noise = np.random.default_rng(0).normal(0.0, 0.01, before.shape).astype(np.float32)
    options = PipelineOptions(detector='tabletop', reconstructor='box')
    pipeline = Pipeline(options)
    pipeline.perceive(replace(before, depth=before.depth + noise))
    pipeline.restart()
    seen, fresh = pipeline.perceive(frame).objects, Pipeline(options).perceive(frame).objects
    np.testing.assert_array_equal(
        [one.position for one in seen], [one.position for one in fresh])
    pipeline.perceive(before)
    pipeline.restart()
    shapes = []
    monkeypatch.setattr(
        pipeline.detector, 'detect', lambda frame: shapes.append(frame.shape) or [])
    pipeline.perceive(Frame(frame.color, frame.camera))
    assert shapes == [frame.shape]


def test_the_robot_is_no_object_but_hides_some() -> None:
    """What its mask covers is remembered."""
    pipeline = Pipeline(PipelineOptions(
        detector='tabletop', reconstructor='box', texture='none'))
    frame = look()
    before = pipeline.perceive(frame).objects
    robot = np.zeros(frame.shape, bool)
    left, right = sorted(before, key=lambda one: one.detection.bbox[0])
    robot[:, int(right.detection.bbox[0] + left.detection.bbox[2]) // 2:] = True
    after = pipeline.perceive(replace(frame, robot=robot)).objects
    assert [one.id for one in after] == [one.id for one in before]
    assert {one.id: one.state for one in after} == {left.id: 'visible', right.id: 'hidden'}
    assert not any(one.detection.mask is not None and (one.detection.mask & robot).any()
                   for one in after)
    alone = Pipeline(PipelineOptions(detector='tabletop', reconstructor='box', texture='none'))
    assert len(alone.perceive(replace(frame, robot=robot)).objects) == 1
