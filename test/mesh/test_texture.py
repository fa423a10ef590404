# SPDX-License-Identifier: Apache-2.0
"""Textures: the picture where it shows the object, and never what is behind it."""

import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
import trimesh

from img2scene_ros.camera import Camera
from img2scene_ros.detection.masks import without_background
from img2scene_ros.errors import MissingDependencyError
from img2scene_ros.mesh.texture import textured
from img2scene_ros.pipeline import Pipeline
from img2scene_ros.pipeline import PipelineOptions
from img2scene_ros.rendering.raycast import Lights
from img2scene_ros.rendering.raycast import Surface
from img2scene_ros.rendering.raycast import render
from img2scene_ros.types import Frame
from img2scene_ros.types import ObjectModel

pytest.importorskip('xatlas')

CAMERA = Camera.from_field_of_view(320, 240, 50.0)
BACKGROUND = (0, 255, 0)
PLACE = np.array([0.02, -0.01, 0.5])
BOXES = PipelineOptions(detector='tabletop', reconstructor='box')
FLAT = Lights(ambient=1.0, sky=0.0, headlight=0.0)


def model_of(mesh: trimesh.Trimesh, color: tuple[int, int, int]) -> ObjectModel:
    colors = np.full((len(mesh.vertices), 3), color, np.uint8)
    return ObjectModel(
        mesh.vertices.astype(np.float32), mesh.faces.astype(np.int32), colors, PLACE, np.eye(3),
        'test')


def silhouette(model: ObjectModel) -> np.ndarray:
    surface = Surface(model.vertices + PLACE, model.faces, model.colors, 1)
    return render([surface], CAMERA).ids == 1


def textured_from(
    model: ObjectModel, color: np.ndarray, mask: np.ndarray | None, size: int = 512,
) -> ObjectModel:
    """Texture a model from a picture and a mask as the pipeline does."""
    trusted = None if mask is None else without_background(color, mask)
    return textured(model, Frame(color, CAMERA), trusted, size)


def on_green(picture: np.ndarray | tuple[int, int, int], mask: np.ndarray) -> np.ndarray:
    return np.where(mask[..., None], picture, BACKGROUND).astype(np.uint8)


def surface_colors(
    model: ObjectModel, face: np.ndarray, weights: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return points in faces, optical frame, and their colours, interpolated."""
    points = (model.vertices[model.faces[face]] * weights[..., None]).sum(axis=1) + PLACE
    uv = (model.texture.uv[face] * weights[..., None]).sum(axis=1)
    height, width = model.texture.image.shape[:2]
    place = (uv * (width, height) - 0.5).astype(np.float32)
    colors = cv2.remap(model.texture.image, place[None], None, cv2.INTER_LINEAR,
                       borderMode=cv2.BORDER_REPLICATE)
    return points, colors[0]


def anywhere(model: ObjectModel, count: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Return random faces, by their areas, and barycentric weights."""
    rng = np.random.default_rng(0)
    areas = trimesh.Trimesh(model.vertices, model.faces, process=False).area_faces
    return (rng.choice(len(model.faces), count, p=areas / areas.sum()),
            rng.dirichlet((1, 1, 1), count))


def box() -> trimesh.Trimesh:
    """Return a box whose front and top can be seen; also its 12 triangles are enough."""
    return trimesh.creation.box(
        (0.12, 0.1, 0.08), trimesh.transformations.euler_matrix(-0.5, 0.4, 0.1))


@pytest.mark.parametrize('rounds', [0, 4])
def test_seen_faces_show_the_picture_itself(rounds):
    mesh = box()
    for _ in range(rounds):
        mesh = mesh.subdivide()
    model = model_of(mesh, (90, 90, 90))
    mask = silhouette(model)
    v, u = np.mgrid[:240, :320]
    pattern = np.stack([128 + 60 * np.sin(u / 4.0), 60 + 0 * u, 128 + 60 * np.cos(v / 5.0)], -1)
    result = textured_from(model, on_green(pattern, mask), mask)
    points, colors = surface_colors(result, *anywhere(result))
    depth = render([Surface(model.vertices + PLACE, model.faces, model.colors, 1)], CAMERA).depth
    u, v = CAMERA.project(points).T
    inner = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5)
    column, row = np.rint(u).astype(int), np.rint(v).astype(int)
    face, weights = anywhere(result)
    sight = points / np.linalg.norm(points, axis=1)[:, None]
    clear = -(mesh.face_normals[face] * sight).sum(axis=1) > 0.45
    seen = clear & (inner[row, column] > 8) & (points[:, 2] < depth[row, column] + 0.002)
    assert seen.sum() > 500
    red, blue = 128 + 60 * np.sin(u / 4.0), 128 + 60 * np.cos(v / 5.0)
    truth = np.stack([red, np.full_like(red, 60), blue], axis=1)
    # Half a texel, where the pattern changes by 15 per pixel.
    error = np.abs(colors - truth)[seen]
    assert error.mean() < 2.5 and error.max() < 15


@pytest.mark.parametrize('mesh', [
    trimesh.creation.icosphere(4, 0.06), trimesh.creation.box((0.14, 0.12, 0.04)).subdivide()])
def test_no_background_anywhere_even_if_mask_and_mesh_are_too_large(mesh):
    model = model_of(mesh, (100, 40, 40))
    mask = silhouette(model)
    shown = cv2.erode(mask.astype(np.uint8), np.ones((7, 7))).astype(bool)  # by 3 pixels
    picture = on_green((200, 80, 80), shown)
    picture = cv2.GaussianBlur(picture, (0, 0), 0.8)  # pixels at the outline are mixed
    result = textured_from(model, picture, mask)
    texels = result.texture.image.reshape(-1, 3).astype(int)
    assert (texels[:, 1] - texels[:, 0]).max() < -40, 'also between the charts'


def test_hidden_side_goes_on_without_a_seam():
    """A ball of one colour is one in the picture; a network's other brightness is evened out."""
    model = model_of(trimesh.creation.icosphere(4, 0.06), (140, 60, 20))
    mask = silhouette(model)
    result = textured_from(model, on_green((200, 80, 50), mask), mask)
    _, colors = surface_colors(result, *anywhere(result))
    np.testing.assert_allclose(colors, np.broadcast_to((200, 80, 50), colors.shape), atol=2)


def test_differences_fade_out_smoothly_over_the_hidden_side():
    """With a picture that is red on the left and blue on the right, so is the back."""
    model = model_of(trimesh.creation.icosphere(5, 0.06), (120, 100, 120))
    mask = silhouette(model)
    u = np.arange(320)[None, :, None]
    half = CAMERA.project(PLACE)[0]
    picture = on_green(np.where(u < half, (200, 60, 60), (60, 60, 200)), mask)
    result = textured_from(model, picture, mask)
    points, colors = surface_colors(result, *anywhere(result))
    # From right to left around the back.
    back = points[:, 2] > PLACE[2] + 0.02
    x = (points[back, 0] - PLACE[0]) / 0.06
    assert np.corrcoef(x, colors[back, 2].astype(int) - colors[back, 0])[0, 1] > 0.9
    # Neighbours on the hidden side differ little: there is no edge but the picture's.
    order = np.argsort(x)
    smooth = np.convolve(colors[back][order, 0].astype(float), np.ones(50) / 50, 'valid')
    assert np.abs(np.diff(smooth)).max() < 4


def test_what_the_object_itself_hides_does_not_get_the_picture_of_what_is_before_it():
    front = trimesh.creation.box((0.05, 0.05, 0.02), trimesh.transformations.translation_matrix(
        (0, 0, -0.08)))
    rear = trimesh.creation.box((0.16, 0.16, 0.02))
    mesh = trimesh.util.concatenate([front.subdivide_to_size(0.01), rear.subdivide_to_size(0.01)])
    model = model_of(mesh, (20, 20, 200))
    is_front = model.vertices[:, 2] < -0.05
    colored = replace(model, colors=np.where(is_front[:, None], (200, 20, 20), (20, 20, 200)))
    shown = render(
        [Surface(model.vertices + PLACE, model.faces, colored.colors, 1)], CAMERA, lights=FLAT,
        background=BACKGROUND)
    assert (shown.color[..., 0] > 150).any(), 'the picture shows the part in front'
    result = textured_from(model, shown.color, shown.ids == 1)
    face, weights = anywhere(result)
    points, colors = surface_colors(result, face, weights)
    on_rear = points[:, 2] > PLACE[2] - 0.05
    assert colors[on_rear, 0].max() < 60
    ahead = (points[:, 2] < PLACE[2] - 0.0899) & (np.abs(points[:, :2] - PLACE[:2]) < .015).all(1)
    assert ahead.any() and (colors[ahead, 0] > 180).all()


@pytest.mark.parametrize('size', [64, 128, 512])
def test_size_and_mesh_are_kept_within_their_limits(size):
    model = model_of(trimesh.creation.icosphere(4, 0.08), (90, 90, 90))
    mask = silhouette(model)
    result = textured_from(model, on_green((200, 80, 50), mask), mask, size)
    height, width = result.texture.image.shape[:2]
    assert max(height, width) <= size
    assert max(height, width) > 0.6 * min(size, 200), 'the ball is 100 pixels wide'
    assert result.vertices is model.vertices and result.faces is model.faces
    assert result.texture.uv.shape == (len(model.faces), 3, 2)
    assert result.texture.uv.dtype == np.float32
    assert 0 <= result.texture.uv.min() and result.texture.uv.max() <= 1


@pytest.mark.parametrize('mesh', [
    trimesh.creation.torus(0.06, 0.02, 48, 24, transform=trimesh.transformations.euler_matrix(
        1.0, 0.3, 0)),
    trimesh.creation.annulus(0.03, 0.05, 0.1).subdivide_to_size(0.01), box()])
def test_faces_do_not_share_texels(mesh):
    model = model_of(mesh, (90, 90, 90))
    mask = silhouette(model)
    texture = textured_from(model, on_green((200, 80, 50), mask), mask).texture
    height, width = texture.image.shape[:2]
    corners = texture.uv * (width, height)
    one, other = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = np.abs(one[:, 0] * other[:, 1] - one[:, 1] * other[:, 0]).sum() / 2
    fine = np.zeros((height * 8, width * 8), np.uint8)
    for triangle in corners:
        cv2.fillConvexPoly(fine, np.rint(triangle * 8 * 16).astype(np.int32), 1, shift=4)
    assert area < 1.02 * fine.sum() / 64


def test_without_a_mask_vertex_colours_stay():
    model = model_of(box(), (90, 90, 90))
    picture = on_green((200, 80, 50), silhouette(model))
    assert textured_from(model, picture, None) is model
    assert textured_from(model, picture, np.zeros((240, 320), bool)) is model


def test_an_object_behind_the_camera_or_out_of_the_mask_stays_as_it_is():
    model = model_of(box(), (90, 90, 90))
    mask = np.zeros((240, 320), bool)
    mask[:40, :40] = True
    assert textured_from(model, on_green((9, 9, 9), mask), mask) is model
    behind = replace(model, position=-PLACE)
    assert textured_from(behind, on_green((9, 9, 9), mask), mask) is behind


def test_without_xatlas_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, 'xatlas', None)
    model = model_of(box(), (90, 90, 90))
    mask = silhouette(model)
    with pytest.raises(MissingDependencyError, match='xatlas'):
        textured_from(model, on_green((200, 80, 50), mask), mask)


def test_every_rebuilt_object_of_a_recorded_frame_has_a_texture(recorded):
    pipeline = Pipeline(PipelineOptions(
        detector='tabletop', reconstructor='depth_shell', texture_size=256))
    scene = pipeline.run(recorded('ycb_3'))
    assert scene.objects
    for item in scene.objects:
        assert max(item.model.texture.image.shape) <= 256


def test_pipeline_without_xatlas_warns_once_and_keeps_vertex_colours(
        recorded, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, 'xatlas', None)
    scene = Pipeline(BOXES).run(recorded('ycb_3'))
    assert len(scene.objects) > 1
    assert all(item.model.texture is None and not item.note for item in scene.objects)
    assert ['xatlas' in record.message for record in caplog.records] == [True]


def test_texture_none_leaves_vertex_colours(recorded):
    assert all(item.model.texture for item in Pipeline(BOXES).run(recorded('ycb_3')).objects)
    scene = Pipeline(replace(BOXES, texture='none')).run(recorded('ycb_3'))
    assert all(item.model.texture is None for item in scene.objects)
