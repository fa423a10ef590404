# SPDX-License-Identifier: Apache-2.0
"""Meshes of generative models: closed whatever they were, and coloured as they were."""

import numpy as np
import pytest
import trimesh
from photographed import CAMERA
from photographed import bars
from photographed import sighting
from photographed import with_mask
from PIL import Image
from scipy.spatial import cKDTree
from trimesh.visual import TextureVisuals
from trimesh.visual.material import PBRMaterial

from img2scene_ros.errors import ReconstructionError
from img2scene_ros.mesh import gltf
from img2scene_ros.mesh.colors import linear
from img2scene_ros.mesh.colors import srgb
from img2scene_ros.models.crop import crop_view
from img2scene_ros.reconstruction.generated import Generated
from img2scene_ros.reconstruction.generated import placed_upright
from img2scene_ros.reconstruction.generated import read_glb
from img2scene_ros.types import ObjectModel

BALL = trimesh.creation.icosphere(4)  # radius 1


def generated(mesh: trimesh.Trimesh) -> Generated:
    return Generated(mesh.vertices, mesh.faces, lambda face, weights: np.zeros((len(face), 3)))


def solid_of(mesh: trimesh.Trimesh, triangles: int = 20000) -> trimesh.Trimesh:
    vertices, faces, _ = generated(mesh).solid(triangles)
    solid = trimesh.Trimesh(vertices, faces, process=False)
    assert solid.is_watertight and solid.is_winding_consistent and solid.volume > 0
    return solid


def without(mesh: trimesh.Trimesh, keep: np.ndarray) -> trimesh.Trimesh:
    return mesh.submesh([np.flatnonzero(keep)], append=True)


def distance(one: trimesh.Trimesh, other: trimesh.Trimesh) -> float:
    """Return how far the surface of the one is from that of the other, on average."""
    samples = [trimesh.sample.sample_surface(mesh, 4000, seed=i)[0]
               for i, mesh in enumerate((one, other))]
    return cKDTree(samples[1]).query(samples[0])[0].mean()


def test_closed_mesh_stays_as_it_is() -> None:
    solid = solid_of(BALL)
    assert len(solid.faces) == len(BALL.faces)
    assert solid.volume == pytest.approx(BALL.volume)


def test_mesh_that_is_inside_out_is_turned() -> None:
    inverted = trimesh.Trimesh(BALL.vertices, BALL.faces[:, ::-1], process=False)
    assert solid_of(inverted).volume == pytest.approx(BALL.volume)


def test_seams_are_no_holes() -> None:
    """In files every face may have vertices of its own."""
    soup = trimesh.Trimesh(
        BALL.triangles.reshape(-1, 3), np.arange(3 * len(BALL.faces)).reshape(-1, 3),
        process=False)
    solid = solid_of(soup)
    assert len(solid.faces) == len(BALL.faces) and len(solid.vertices) == len(BALL.vertices)


def test_small_holes_are_filled_without_touching_the_rest() -> None:
    holed = without(BALL, np.arange(len(BALL.faces)) % 400 != 7)
    assert not holed.is_watertight
    solid = solid_of(holed)
    assert solid.volume == pytest.approx(BALL.volume, rel=0.005)
    assert cKDTree(solid.vertices).query(holed.vertices)[0].max() < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize('keep', [
    BALL.triangles_center[:, 1] < 0.6,  # an open bowl
    np.random.default_rng(0).random(len(BALL.faces)) < 0.7,  # torn all over
], ids=['bowl', 'torn'])
def test_open_mesh_is_wrapped(keep: np.ndarray) -> None:
    torn = without(BALL, keep)
    solid = solid_of(torn)
    assert distance(torn, solid) < 0.04, 'a cell is 2 / 64 wide'
    assert np.abs(solid.bounds - torn.bounds).max() < 0.04


def test_sheet_becomes_a_thin_solid() -> None:
    sheet = trimesh.Trimesh([(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0)], [(0, 1, 2), (0, 2, 3)])
    solid = solid_of(sheet)
    assert solid.extents == pytest.approx((1.0, 1.0, 0.02), abs=0.03)


def test_triangles_are_as_few_as_asked_for() -> None:
    solid = solid_of(BALL, 1000)
    assert len(solid.faces) <= 1000
    assert solid.volume == pytest.approx(BALL.volume, rel=0.03)


def two_coloured_box() -> trimesh.Trimesh:
    """Return a finely divided box with a texture: blue where x < 0, red where x > 0."""
    box = trimesh.creation.box((1.0, 0.5, 0.5)).subdivide().subdivide().subdivide()
    picture = np.zeros((8, 64, 3), np.uint8)
    picture[:, :32, 2] = picture[:, 32:, 0] = 200
    box.visual = TextureVisuals(
        np.column_stack([box.vertices[:, 0] + 0.5, np.full(len(box.vertices), 0.5)]),
        material=PBRMaterial(baseColorTexture=Image.fromarray(picture)))
    return box


def test_texture_colours_the_vertices() -> None:
    vertices, _, colors = read_glb(two_coloured_box().export(file_type='glb')).solid(20000)
    clear = np.abs(vertices[:, 0]) > 0.05
    expected = np.where(vertices[:, :1] < 0, (0, 0, 200), (200, 0, 0))
    np.testing.assert_allclose(colors[clear], expected[clear], atol=1)


def test_colours_survive_wrapping() -> None:
    box = two_coloured_box()
    box.update_faces(box.triangles_center[:, 1] < 0.24)  # without a lid
    vertices, faces, colors = read_glb(box.export(file_type='glb')).solid(20000)
    assert trimesh.Trimesh(vertices, faces, process=False).is_watertight
    clear = np.abs(vertices[:, 0]) > 0.1
    expected = np.where(vertices[:, :1] < 0, (0, 0, 200), (200, 0, 0))
    np.testing.assert_allclose(colors[clear], expected[clear], atol=1)


def test_parts_keep_their_places_and_colours() -> None:
    scene = trimesh.Scene()
    for x, color in ((-2.0, (200, 10, 10, 255)), (2.0, (10, 200, 10, 255))):
        part = trimesh.creation.box((1, 1, 1))
        part.visual.vertex_colors = color
        scene.add_geometry(part, transform=trimesh.transformations.translation_matrix((x, 0, 0)))
    vertices, _, colors = read_glb(scene.export(file_type='glb')).solid(20000)
    assert vertices.min(axis=0) == pytest.approx((-2.5, -0.5, -0.5))
    expected = np.where(vertices[:, :1] < 0, (200, 10, 10), (10, 200, 10))
    np.testing.assert_allclose(colors, expected, atol=1)


def test_colours_without_a_type_of_their_own_are_grey() -> None:
    _, _, colors = read_glb(BALL.export(file_type='glb')).solid(20000)
    assert np.ptp(colors) == 0 and 80 < colors[0, 0] < 200


def test_srgb_is_the_inverse_of_linear() -> None:
    levels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(srgb(linear(levels)), levels)
    assert srgb(np.array([-1.0, 2.0])).tolist() == [0, 255]


def test_own_files_are_read_as_they_were_written() -> None:
    """The exporter writes vertex colours as linear floats, as the standard says."""
    colors = np.random.default_rng(0).integers(0, 256, (len(BALL.vertices), 3), np.uint8)
    model = ObjectModel(BALL.vertices.astype(np.float32), BALL.faces, colors, np.zeros(3),
                        np.eye(3), 'test')
    read = read_glb(gltf.glb([gltf.Node('ball', model, np.eye(4), {})]))
    vertices, _, found = read.solid(20000)
    _, index = cKDTree(model.vertices @ gltf.gltf_rotation(
        gltf.OBJECT_UP, gltf.OBJECT_FRONT).T).query(vertices)
    # Eight bits of linear light are coarse in the dark.
    bright = colors[index] > 60
    np.testing.assert_allclose(found[bright], colors[index][bright].astype(int), atol=3)


def test_face_of_nothing_is_refused() -> None:
    with pytest.raises(ReconstructionError, match='faces'):
        generated(trimesh.Trimesh(BALL.vertices, np.zeros((0, 3), int))).solid(100)
    with pytest.raises(ReconstructionError, match='extent'):
        generated(trimesh.Trimesh(np.ones((3, 3)), [(0, 1, 2)], process=False)).solid(100)


def test_without_a_mask_the_box_alone_places_a_mesh() -> None:
    """Nothing shows which way it faces; that is no error."""
    seen = with_mask(sighting(), None)
    bbox = seen.detection.bbox
    mesh = bars()
    model = placed_upright(
        (7.0 * mesh.vertices, mesh.faces, np.zeros((len(mesh.vertices), 3), np.uint8)), seen,
        'test', crop_view(CAMERA, bbox))
    edges = CAMERA.project(model.points)
    assert np.ptp(edges, axis=0).max() == pytest.approx((bbox[2:] - bbox[:2]).max(), rel=0.1)
