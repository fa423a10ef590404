# SPDX-License-Identifier: Apache-2.0
"""Exported scenes are read back as they were, in the world where it is known."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from synthetic import GEOMETRIC

from img2scene_ros.errors import InputError
from img2scene_ros.pipeline import Pipeline
from img2scene_ros.pipeline import parse_settings
from img2scene_ros.scene.export import ExportOptions
from img2scene_ros.scene.export import export_scene
from img2scene_ros.scene.saved import load_scene
from img2scene_ros.types import Frame
from img2scene_ros.types import Scene


def pose(*rotation: float, position: tuple[float, float, float]) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(rotation).as_matrix()
    matrix[:3, 3] = position
    return matrix


def without_texture(scene: Scene) -> Scene:
    return replace(scene, objects=tuple(
        replace(item, model=replace(item.model, texture=None)) for item in scene.objects))


@pytest.mark.parametrize('change', (lambda scene: scene, without_texture))
def test_objects_come_back_as_they_were(
    scene_of: Callable[[str], Scene], tmp_path: Path, change: Callable[[Scene], Scene],
) -> None:
    scene = change(scene_of('ycb_3'))
    export_scene(tmp_path, scene)
    loaded = load_scene(tmp_path, scene.frame)
    assert [item.id for item in loaded] == [item.id for item in scene.objects]
    for item, saved in zip(loaded, scene.objects):
        assert item.state == 'out_of_view' and item.is_final
        assert item.detection.label == saved.detection.label
        np.testing.assert_allclose(item.pose, saved.pose, atol=2e-5)
        np.testing.assert_allclose(item.position_std, saved.position_std, atol=1e-5)
        # The same triangles in space, whatever the order of vertices.
        np.testing.assert_allclose(
            item.model.vertices[item.model.faces],
            saved.model.vertices[saved.model.faces], atol=1e-6)
        assert len(item.model.vertices) == len(np.unique(saved.model.vertices, axis=0))
        if saved.model.texture is not None:
            np.testing.assert_array_equal(item.model.texture.image, saved.model.texture.image)
            np.testing.assert_allclose(item.model.texture.uv, saved.model.texture.uv, atol=1e-5)
        else:
            colors = item.model.colors[item.model.faces].astype(int)
            assert np.abs(colors - saved.model.colors[saved.model.faces]).max() <= 1


def test_objects_of_a_world_stay_there_when_the_camera_has_moved(
    scene_of: Callable[[str], Scene], tmp_path: Path,
) -> None:
    scene = scene_of('ycb_3')
    then, now = pose(0, 0.1, 0, position=(1, 0, 0.5)), pose(0.2, 0, 0.3, position=(0.8, 0.1, 0.6))
    export_scene(tmp_path, replace(scene, frame=replace(
        scene.frame, world_from_camera=then, world_id='map')))
    frame = replace(scene.frame, world_from_camera=now, world_id='map')
    for item, saved in zip(load_scene(tmp_path, frame), scene.objects):
        np.testing.assert_allclose(now @ item.pose, then @ saved.pose, atol=2e-5)
    with pytest.raises(InputError, match='target_frame'):
        load_scene(tmp_path, scene.frame)


def test_remembered_objects_are_known_again_when_they_are_seen(
    scene_of: Callable[[str], Scene], recorded: Callable[[str], Frame], tmp_path: Path,
) -> None:
    """In another process, whose camera is where it was."""
    export_scene(tmp_path, scene_of('ycb_3'))
    entries = json.loads((tmp_path / 'objects.json').read_text())
    for place, entry in enumerate(entries['objects']):
        entry['id'] = 11 + place
    (tmp_path / 'objects.json').write_text(json.dumps(entries))
    pipeline, frame = Pipeline(*parse_settings(GEOMETRIC)), recorded('ycb_3')
    pipeline.perceive(frame)
    pipeline.remember(load_scene(tmp_path, frame))
    assert {item.state for item in pipeline.scene.objects} == {'out_of_view'}
    scene = pipeline.perceive(replace(frame, stamp_ns=1_000_000_000))
    assert [item.id for item in scene.objects] == [11, 12, 13]
    assert {item.state for item in scene.objects} == {'visible'}
    assert pipeline.reconstruct_next() is None, 'they have their meshes'
    for item, saved in zip(scene.objects, scene_of('ycb_3').objects):
        assert np.linalg.norm(item.position - saved.position) < 0.005


def writing(**entry: Any) -> Callable[[Path], None]:
    """Return what changes the first object of an export directory."""
    def spoil(folder: Path) -> None:
        scene = json.loads((folder / 'objects.json').read_text())
        scene['objects'][0] |= entry
        (folder / 'objects.json').write_text(json.dumps(scene))
    return spoil


def twice(folder: Path) -> None:
    scene = json.loads((folder / 'objects.json').read_text())
    scene['objects'] *= 2
    (folder / 'objects.json').write_text(json.dumps(scene))


@pytest.mark.parametrize('spoil, words', (
    (writing(position_m=[float('nan'), 0, 0]), 'objects.json.*NaN'),
    (writing(position_m=[0, 0, 1e30]), 'objects.json.*1e\\+30'),
    (writing(id=-3), 'objects.json.*-3'),
    (twice, 'objects.json.*ids'),
    (writing(label=5), 'objects.json.*5'),
    (lambda folder: (folder / 'objects.json').unlink(), 'objects.json'),
    (lambda folder: (folder / 'objects.json').write_text('{"objects": [{}]}'), 'objects.json'),
    (lambda folder: (folder / 'objects.json').write_text('[1'), 'objects.json'),
    (lambda folder: next((folder / 'meshes').iterdir()).unlink(), 'meshes/1_'),
    (lambda folder: next((folder / 'meshes').iterdir()).write_bytes(b'glTF'), 'meshes/1_'),
))
def test_what_is_no_scene_is_named(
    scene_of: Callable[[str], Scene], tmp_path: Path, spoil: Callable[[Path], None], words: str,
) -> None:
    scene = scene_of('ycb_3')
    export_scene(tmp_path, replace(scene, objects=scene.objects[:1]))
    spoil(tmp_path)
    with pytest.raises(InputError, match=words):
        load_scene(tmp_path, scene.frame)


def test_scenes_without_glb_are_refused(scene_of: Callable[[str], Scene], tmp_path: Path) -> None:
    export_scene(tmp_path, scene_of('ycb_3'), ExportOptions(formats=('stl',)))
    with pytest.raises(InputError, match='export.formats'):
        load_scene(tmp_path, scene_of('ycb_3').frame)
