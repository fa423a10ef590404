# SPDX-License-Identifier: Apache-2.0
"""What is drawn and sampled on meshes whose shape is known."""

from dataclasses import replace

import numpy as np
import pytest
import trimesh

from img2scene_ros.camera import Camera
from img2scene_ros.nodes.marker_messages import shaded_colors
from img2scene_ros.nodes.outputs.cloud import sampled
from img2scene_ros.nodes.outputs.labels import label_image
from img2scene_ros.nodes.workers import differs
from img2scene_ros.types import Detection
from img2scene_ros.types import Frame
from img2scene_ros.types import ObjectModel
from img2scene_ros.types import Scene
from img2scene_ros.types import SceneObject


def model_of(mesh: trimesh.Trimesh, color: int = 100) -> ObjectModel:
    colors = np.full((len(mesh.vertices), 3), color, np.uint8)
    return ObjectModel(
        mesh.vertices.astype(np.float32), mesh.faces.astype(np.int32), colors,
        np.zeros(3), np.eye(3), 'test')


@pytest.fixture
def item() -> SceneObject:
    mask = np.zeros((6, 8), bool)
    mask[1:4, 2:5] = True
    detection = Detection('mug', 0.9, np.array([2.0, 1, 5, 4]), mask)
    return SceneObject(
        1, detection, np.array([0.0, 0, 1]), np.eye(3), 0.01 ** 2 * np.eye(6), 'sensor',
        model_of(trimesh.creation.box((0.1, 0.2, 0.3))))


@pytest.fixture
def frame() -> Frame:
    return Frame(np.zeros((6, 8, 3), np.uint8), Camera(8, 6, 5.0, 5.0, 3.5, 2.5))


def test_box_is_shaded_flat_and_brightest_where_the_lights_are() -> None:
    model = model_of(trimesh.creation.box((1, 1, 1)))
    colors = shaded_colors(model, np.array([1.0, 0, 0]))[..., 0]
    assert (colors == colors[:, :1]).all(), 'one shade per face'
    normals = trimesh.Trimesh(model.vertices, model.faces).face_normals
    shade = {tuple(normal.round().astype(int)): color for normal, color in zip(
        normals, colors[:, 0])}
    assert shade[1, 0, 0] > shade[0, 1, 0], 'the side that the camera sees'
    assert shade[0, 0, 1] > shade[0, 0, -1], 'the top'
    assert 0 < shade[-1, 0, 0] == shade[0, 0, -1] < 100, 'dim, not black, in the shade'


def test_sphere_is_shaded_smoothly() -> None:
    model = model_of(trimesh.creation.icosphere(4))
    colors = shaded_colors(model, np.array([1.0, 0, 0]))
    spread = colors.astype(int).max(axis=1) - colors.astype(int).min(axis=1)
    assert spread.max() <= 12, 'neighbouring corners differ little'
    shared = {}
    for corner, color in zip(model.faces.ravel(), colors.reshape(-1, 3)):
        assert (shared.setdefault(corner, color) == color).all(), 'no seams between triangles'


def test_shading_keeps_the_hue_and_bright_colors_do_not_wrap() -> None:
    model = model_of(trimesh.creation.icosphere(2), 255)
    assert shaded_colors(model, np.array([0.0, 0, 1])).max() == 255
    model = replace(model, colors=np.tile(np.uint8([200, 100, 0]), (len(model.vertices), 1)))
    colors = shaded_colors(model, np.array([1.0, 0, 0])).reshape(-1, 3).astype(int)
    assert (abs(colors[:, 0] - 2 * colors[:, 1]) <= 2).all() and (colors[:, 2] == 0).all()


def test_samples_lie_on_the_mesh_evenly_and_stay() -> None:
    mesh = trimesh.creation.box((1, 1, 4))
    points, colors = sampled(model_of(mesh), 20000)
    np.testing.assert_allclose(np.max(np.abs(points) / [0.5, 0.5, 2], axis=1), 1, atol=1e-6)
    on_caps = np.isclose(np.abs(points[:, 2]), 2).mean()
    assert on_caps == pytest.approx(2 / 18, abs=0.01), 'the caps have 2 of 18 square metres'
    # Uniform on a square: mean 0, variance 1/12.
    cap = points[np.isclose(points[:, 2], 2)][:, :2]
    np.testing.assert_allclose(cap.mean(axis=0), 0, atol=0.03)
    np.testing.assert_allclose(cap.var(axis=0), 1 / 12, atol=0.01)
    assert (colors == 100).all()
    np.testing.assert_array_equal(points, sampled(model_of(mesh), 20000)[0])


def test_samples_take_their_color_from_where_they_lie() -> None:
    mesh = trimesh.creation.box((1, 1, 1)).subdivide_loop(0)
    model = model_of(mesh)
    red = ((mesh.vertices[:, 2] + 0.5) * 200).astype(np.uint8)
    model = replace(model, colors=np.stack([red, red * 0, red * 0], axis=1))
    points, colors = sampled(model, 1000)
    np.testing.assert_allclose(colors[:, 0], (points[:, 2] + 0.5) * 200, atol=1)


def test_labels_show_the_nearer_object_in_front(frame: Frame, item: SceneObject) -> None:
    other = np.zeros((6, 8), bool)
    other[3:6, 4:7] = True
    behind = replace(
        item, id=65536 + 6, position=np.array([0.0, 0, 2]),
        detection=replace(item.detection, mask=other))
    labels = label_image(Scene(frame, (item, behind)))
    assert labels.dtype == np.uint16
    assert (labels[item.detection.mask] == 1).all()
    assert set(labels[other & ~item.detection.mask]) == {7}, '65,535 ids, then 1 again'
    assert not labels[~other & ~item.detection.mask].any()


def test_labels_leave_out_masks_of_another_resolution(frame: Frame, item: SceneObject) -> None:
    old = replace(item, detection=replace(item.detection, mask=np.ones((12, 16), bool)))
    bare = replace(item, detection=replace(item.detection, mask=None))
    assert not label_image(Scene(frame, (old, bare))).any()


def test_scene_differs_only_when_it_is_noticeable(frame: Frame, item: SceneObject) -> None:
    def changed(*objects: SceneObject) -> bool:
        later = Scene(replace(frame, stamp_ns=9), objects)
        return differs(Scene(frame, (item,)), later, 0.01, np.radians(5))

    def turned(degrees: float) -> SceneObject:
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        return replace(item, rotation=np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]]))

    assert not changed(item)
    assert not changed(replace(item, position=item.position + [0.006, 0.006, 0]))
    assert changed(replace(item, position=item.position + [0.008, 0.008, 0]))
    assert not changed(turned(4.9))
    assert changed(turned(5.1))
    assert changed(replace(item, id=2))
    assert changed(replace(item, model=replace(item.model)))
    assert changed() and changed(item, item)
    assert differs(None, Scene(frame), 1, 1)
    assert differs(Scene(frame), Scene(replace(frame, frame_id='b')), 1, 1)
