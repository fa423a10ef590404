"""The pipeline's choices: backends, options, and what happens where depth is missing."""

from threading import Thread
from typing import Callable

import numpy as np
import pytest

from img2scene_ros.detection import Detection
from img2scene_ros.errors import InputError
from img2scene_ros.errors import OptionError
from img2scene_ros.frame import Frame
from img2scene_ros.pipeline import Pipeline
from img2scene_ros.pipeline import PipelineOptions
from img2scene_ros.pipeline import parse_settings
from img2scene_ros.scene import Scene
from img2scene_ros.support import SupportPlane


class MiddleDetector:
    """Stands in for a detector of pictures: one box in the middle, without mask."""

    def __init__(self, box: tuple[float, float, float, float]) -> None:
        self.box = np.array(box)

    def detect(self, frame: Frame, support: SupportPlane | None) -> list[Detection]:
        """Return the box."""
        return [Detection('cup', 0.8, self.box)]


def test_settings_become_options() -> None:
    """Dotted names reach the options of their backend."""
    pipeline, backends = parse_settings(
        {'reconstructor': 'box', 'tabletop.min_height': 0.01, 'fixed.distance': 2})
    assert pipeline.reconstructor == 'box' and pipeline.detector == 'tabletop'
    assert backends['tabletop'].min_height == 0.01
    assert backends['fixed'].distance == 2.0


@pytest.mark.parametrize('settings, words', (
    ({'detektor': 'detr'}, "no option 'detektor'; known here are detector"),
    ({'tabletop.hight': 1.0}, "no option 'tabletop.hight'; known here are tabletop.min_height"),
    ({'nothing.at_all': 1}, "no option 'nothing.at_all'; known here are .*tabletop"),
    ({'tabletop.min_height': 9.0}, "'min_height' is 9.0; it must be at most"),
    ({'tabletop.min_height': 'tall'}, "'min_height' takes a number"),
))
def test_wrong_settings_are_one_clear_sentence(settings: dict, words: str) -> None:
    """The name, the value and what would be allowed are said."""
    with pytest.raises(OptionError, match=words):
        parse_settings(settings)


@pytest.mark.parametrize('kind', ('detector', 'distance', 'reconstructor'))
def test_unknown_backends_are_named(kind: str) -> None:
    """The wrong name and the right ones are said."""
    with pytest.raises(OptionError, match=f"there is no 'nonsense' among the {kind}s"):
        Pipeline(PipelineOptions(**{kind: 'nonsense'}))


def test_options_change_while_running(recorded: Callable[[str], Frame]) -> None:
    """A changed option counts from the next frame on."""
    pipeline = Pipeline()
    assert len(pipeline.perceive(recorded('ycb_3')).objects) == 3
    pipeline.clear()
    pipeline.configure({'tabletop.max_detections': 1, 'forget_after': 2})
    assert len(pipeline.perceive(recorded('ycb_3')).objects) == 1


def test_refused_changes_change_nothing() -> None:
    """Read-only options, bad values and unknown names leave all options as they were."""
    pipeline = Pipeline()
    before = pipeline.options, pipeline.detector.options
    for settings in ({'forget_after': 3, 'tabletop.gap': 0.02, 'detector': 'detr'},
                     {'forget_after': 3, 'tabletop.gap': -1.0},
                     {'tabletop.gap': 0.02, 'tabletop.nothing': 1}):
        with pytest.raises(OptionError):
            pipeline.configure(settings)
        assert (pipeline.options, pipeline.detector.options) == before


def test_a_box_detector_with_depth_gets_masks(recorded: Callable[[str], Frame]) -> None:
    """What a detector without masks finds is cut out by depth and rebuilt."""
    pipeline = Pipeline()
    pipeline.detector = MiddleDetector((345, 80, 494, 350))
    found, = pipeline.run(recorded('table_mustard_bottle')).objects
    assert found.detection.label == 'cup' and found.depth_source == 'sensor'
    assert found.model.reconstructor == 'depth_shell'
    assert found.model.size[2] == pytest.approx(0.19, rel=0.05)


def test_a_picture_without_depth_gives_boxes_at_the_fixed_distance(
    recorded: Callable[[str], Frame],
) -> None:
    """The object is shown as its box, says so, and says where its distance came from."""
    frame = recorded('table_mustard_bottle')
    pipeline = Pipeline(backend_options=parse_settings({'fixed.distance': 0.5})[1])
    pipeline.detector = MiddleDetector((352, 88, 486, 339))
    found, = pipeline.run(Frame(frame.color, frame.camera)).objects
    assert found.depth_source == 'fixed'
    assert np.linalg.norm(found.position) == pytest.approx(0.5)
    assert found.model.reconstructor == 'box' and found.is_final
    assert 'needs a depth image' in found.note


def test_tabletop_without_depth_says_so(recorded: Callable[[str], Frame]) -> None:
    """The error reaches the caller as it is."""
    frame = recorded('ycb_1')
    with pytest.raises(InputError, match='needs a depth image'):
        Pipeline().run(Frame(frame.color, frame.camera))


def test_both_speeds_at_once(recorded: Callable[[str], Frame]) -> None:
    """Two threads perceive and reconstruct; all objects get their mesh, none twice."""
    pipeline = Pipeline()
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
