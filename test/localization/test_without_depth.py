# SPDX-License-Identifier: Apache-2.0
"""Pictures without depth go the whole way; what they say is compared with the depth sensor."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import trimesh
from synthetic import GEOMETRIC

from img2scene_ros.camera import Camera
from img2scene_ros.cli import main
from img2scene_ros.detection import tabletop
from img2scene_ros.detection.supports import supported
from img2scene_ros.detection.tabletop import TabletopOptions
from img2scene_ros.localization.combine import place
from img2scene_ros.localization.plane import PlaneDistance
from img2scene_ros.localization.sensor import SensorDistance
from img2scene_ros.localization.size_prior import SizePriorDistance
from img2scene_ros.pipeline import Pipeline
from img2scene_ros.pipeline import parse_settings
from img2scene_ros.types import Detection
from img2scene_ros.types import Frame
from img2scene_ros.types import Placement
from img2scene_ros.types import SupportPlane

# Class and box of the object on recorded tables, read off the pictures by hand.
RECORDED = {
    'table_blue_mug': ('cup', (267, 163, 422, 327)),
    'table_cracker_box': ('box', (346, 48, 513, 332)),
    'table_green_bowl': ('bowl', (233, 187, 435, 330)),
    'table_mustard_bottle': ('bottle', (346, 87, 488, 344)),
    'table_pepper_can': ('can', (405, 333, 462, 450)),
}


class ToldDetector:
    """Stands in for a detector of pictures that finds the one object of a recorded frame."""

    Options = TabletopOptions
    box = np.array(RECORDED['table_mustard_bottle'][1], float)

    def __init__(self, options: TabletopOptions = TabletopOptions()) -> None:
        self.options = options

    def detect(self, frame: Frame) -> list[Detection]:
        """Return the box, without mask."""
        return [Detection('bottle', 0.9, self.box)]


def without_depth(frame: Frame, support: SupportPlane | None = None) -> Frame:
    """Return the picture alone."""
    return Frame(frame.color, frame.camera, supports=(support,) if support else ())


def measured(frame: Frame, detection: Detection, mask_file: Path) -> Placement:
    """Return what the depth sensor says."""
    mask = cv2.imread(str(mask_file), cv2.IMREAD_GRAYSCALE) > 0
    return SensorDistance().place(
        frame, Detection(detection.label, 1.0, detection.bbox, mask), supported(frame).support)


@pytest.mark.parametrize('name', RECORDED)
def test_recorded_objects_are_where_the_sensor_sees_them(
    name: str, recorded: Callable[[str], Frame], frames_folder: Path,
) -> None:
    """Plane and usual size, from the picture and a told plane, agree with measured depth."""
    frame, (label, box) = recorded(name), RECORDED[name]
    detection = Detection(label, 1.0, np.array(box, float))
    seen = supported(frame).support
    told = SupportPlane(seen.normal, seen.offset)
    truth = measured(frame, detection, frames_folder / name / 'mask.png')
    true = np.linalg.norm(truth.position)
    sources = {'plane': PlaneDistance(), 'size_prior': SizePriorDistance()}
    picture = without_depth(frame)
    found = {key: source.place(picture, detection, told) for key, source in sources.items()}
    found['auto'] = place(sources, picture, detection, told)
    for key, one in found.items():
        off = np.linalg.norm(one.position) / true - 1
        print(f'{name} {key}: {off:+.1%} +- {np.linalg.norm(one.position_std) / true:.1%}, '
              f'size {one.size.round(3)}, measured {truth.size.round(3)}')
    for one in (found['plane'], found['auto']):
        # Things that narrow to their foot, as mug and bowl, seem to be a little further.
        assert np.linalg.norm(one.position) == pytest.approx(true, rel=0.12)
        off = np.linalg.norm(one.position) - true
        assert abs(off) < 2.5 * np.linalg.norm(one.position_std)
    assert found['auto'].depth_source.startswith('plane')


def test_a_told_plane_counts_where_depth_shows_none(recorded: Callable[[str], Frame]) -> None:
    """TF before the parameters, and before both the plane that is measured."""
    frame = recorded('table_mustard_bottle')
    pipeline = Pipeline(*parse_settings(
        GEOMETRIC | {'plane.camera_height': 0.5, 'plane.tilt': 40.0}))
    pipeline.detector = ToldDetector()
    up = np.array([0.0, -np.cos(0.5), -np.sin(0.5)])
    by_options = pipeline.perceive(without_depth(frame)).support
    assert by_options.offset == 0.5 and by_options.normal[2] == pytest.approx(-np.sin(0.698), 1e-3)
    by_frame = pipeline.perceive(without_depth(frame, SupportPlane(up, 0.4))).support
    assert by_frame.offset == 0.4
    both = Frame(frame.color, frame.camera, frame.depth, supports=(SupportPlane(up, 0.4),))
    assert pipeline.perceive(both).support.offset == pytest.approx(
        supported(frame).support.offset, abs=1e-6)


def test_where_the_plane_is_may_change_while_running(recorded: Callable[[str], Frame]) -> None:
    """A camera twice as high sees everything twice as far and large."""
    seen = supported(recorded('table_mustard_bottle')).support
    tilt = float(np.degrees(np.arcsin(-seen.normal[2])))
    places = []
    for height in (0.3, 0.6):
        pipeline = Pipeline(*parse_settings(GEOMETRIC | {'distance': 'plane'}))
        pipeline.detector = ToldDetector()
        frame = without_depth(recorded('table_mustard_bottle'))
        assert not pipeline.perceive(frame).objects, 'nothing is known of the plane'
        pipeline.configure({'plane.camera_height': height, 'plane.tilt': tilt})
        found, = pipeline.perceive(frame).objects
        assert found.depth_source == 'plane'
        places.append(found)
    assert places[1].position == pytest.approx(2 * places[0].position, rel=0.02)
    assert places[1].model.size == pytest.approx(2 * places[0].model.size, rel=0.05)


@pytest.mark.parametrize('name', RECORDED)
def test_up_is_told_by_the_picture_alone(
    name: str, recorded: Callable[[str], Frame],
) -> None:
    """Neither depth nor a told plane: what it stands on is that of the depth image."""
    label, box = RECORDED[name]
    pipeline, seen = Pipeline(), supported(recorded(name)).support
    pipeline.detector = ToldDetector()
    pipeline.detector.detect = lambda frame: [
        Detection(label, 0.9, np.array(box, float))]
    scene = pipeline.perceive(without_depth(recorded(name)))
    item, = scene.objects
    assert item.rotation[:, 2] @ seen.normal > np.cos(np.radians(5.0))
    off = np.log(scene.support.offset / seen.offset)  # one thing of about usual size
    assert abs(off) < 2.5 * scene.support.height_std
    note, = scene.notes
    assert f'{scene.support.offset:.2f} m' in note


def test_a_picture_that_tells_nothing_of_up_says_so() -> None:
    camera = Camera.from_field_of_view(640, 480, 60.0)
    pipeline = Pipeline()
    pipeline.detector = ToldDetector()
    pipeline.detector.detect = lambda frame: [
        Detection('object', 0.9, ToldDetector.box)]
    scene = pipeline.perceive(Frame(np.full((480, 640, 3), 128, np.uint8), camera))
    assert scene.support is None
    assert scene.objects[0].rotation[:, 2] @ (0.0, -1.0, 0.0) == pytest.approx(1.0)
    assert any('level' in note for note in scene.notes)


@pytest.mark.slow
def test_a_photo_becomes_a_scene_on_the_command_line(
    frames_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    recorded: Callable[[str], Frame],
) -> None:
    """A picture and its camera file, a told plane, and any detector of boxes are enough."""
    monkeypatch.setattr(tabletop, 'BACKEND', ToldDetector)
    folder = frames_folder / 'table_mustard_bottle'
    assert main([
        'reconstruct', str(folder / 'color.png'), '--camera', str(folder / 'camera.json'),
        '--out', str(tmp_path / 'out'), '--detector', 'tabletop', '--reconstructor', 'box',
        '--set', 'plane.camera_height=0.299', '--set', 'plane.tilt=28']) == 0
    summary = json.loads((tmp_path / 'out/objects.json').read_text())
    item, = summary['objects']
    assert item['depth_source'].startswith('plane')
    detection = Detection('bottle', 1.0, ToldDetector.box)
    truth = measured(recorded('table_mustard_bottle'), detection, folder / 'mask.png')
    assert item['position_m'] == pytest.approx(truth.position, abs=0.03)
    assert item['size_m'][2] == pytest.approx(truth.size[2], rel=0.1)
    scene = trimesh.load_scene(tmp_path / 'out/scene.glb')
    # glTF is y up, and up is the told plane's normal: the bottle stands upright.
    assert scene.extents[1] == pytest.approx(item['size_m'][2], rel=0.02)
    assert (tmp_path / 'out/scene.png').is_file()
