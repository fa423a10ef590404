# SPDX-License-Identifier: Apache-2.0
"""Single meshes in every format, read back by other programs."""

import io
from pathlib import Path

import numpy as np
import pytest
import trimesh
from colored_models import face_colors
from colored_models import model_of
from colored_models import open3d_model
from colored_models import sampled

from img2scene_ros.mesh.formats import FORMATS
from img2scene_ros.mesh.formats import mesh_files
from img2scene_ros.types import ObjectModel

BALL = trimesh.creation.icosphere(2, 0.05).apply_scale((1.0, 2.0, 3.0))


def written(folder: Path, model: ObjectModel, kind: str) -> Path:
    files = mesh_files(model, '7_tea_cup', kind)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder / next(iter(files))


def in_object_frame(points: np.ndarray, kind: str) -> np.ndarray:
    return points[..., [2, 0, 1]] if kind == 'glb' else points


@pytest.mark.parametrize('with_texture', [True, False])
@pytest.mark.parametrize('kind', FORMATS)
def test_geometry_is_the_same_in_every_format(tmp_path, kind, with_texture):
    if kind == 'dae':
        pytest.importorskip('collada')
    model = model_of(BALL, 3, with_texture)
    path = written(tmp_path, model, kind)
    mesh = trimesh.load(path, force='mesh', process=False)
    np.testing.assert_allclose(
        in_object_frame(mesh.triangles, kind), model.vertices[model.faces], atol=1e-6)
    mesh.merge_vertices(merge_tex=True, merge_norm=True)
    assert mesh.is_watertight and mesh.volume > 0


@pytest.mark.parametrize('kind', ['glb', 'obj', 'dae'])
def test_texture_is_on_the_right_faces(tmp_path, kind):
    if kind == 'dae':
        pytest.importorskip('collada')
    model = model_of(BALL, 3)
    mesh = trimesh.load(written(tmp_path, model, kind), force='mesh', process=False)
    material = mesh.visual.material
    image = material.image if kind == 'obj' else material.baseColorTexture
    colors = sampled(np.asarray(image.convert('RGB')), mesh.visual.uv[mesh.faces], 'bottom')
    np.testing.assert_array_equal(colors, face_colors(model))


@pytest.mark.parametrize('kind', ['glb', 'obj', 'dae'])
def test_open3d_finds_every_face_with_its_colour(tmp_path, kind):
    model = model_of(BALL, 3)
    triangles, colors = open3d_model(written(tmp_path, model, kind))
    if kind == 'dae':  # Assimp turns z up into y up
        triangles = triangles[..., [0, 2, 1]] * (1, -1, 1)
    np.testing.assert_allclose(
        in_object_frame(triangles, kind), model.vertices[model.faces], atol=1e-6)
    np.testing.assert_array_equal(colors, face_colors(model))


@pytest.mark.parametrize('kind', ['ply', 'stl'])
def test_open3d_reads_it(tmp_path, kind):
    open3d = pytest.importorskip('open3d')
    model = model_of(BALL, 3)
    mesh = open3d.io.read_triangle_mesh(str(written(tmp_path, model, kind)))
    triangles = np.asarray(mesh.vertices)[np.asarray(mesh.triangles)]
    np.testing.assert_allclose(triangles, model.vertices[model.faces], atol=1e-6)
    if kind == 'ply':
        np.testing.assert_array_equal(
            np.rint(np.asarray(mesh.vertex_colors) * 255), model.colors)


@pytest.mark.parametrize('kind', ['obj', 'ply'])
def test_vertex_colours_where_there_is_no_texture(tmp_path, kind):
    model = model_of(BALL, 3, with_texture=False)
    mesh = trimesh.load(written(tmp_path, model, kind), force='mesh', process=False)
    np.testing.assert_allclose(
        mesh.visual.vertex_colors[mesh.faces][..., :3], model.colors[model.faces], atol=1)


def test_collada_has_vertex_colours_where_there_is_no_texture(tmp_path):
    collada = pytest.importorskip('collada')
    model = model_of(BALL, 3, with_texture=False)
    triangles = collada.Collada(str(written(tmp_path, model, 'dae'))).geometries[0].primitives[0]
    colors = triangles.sources['COLOR'][0][4].data
    index = triangles.index[..., triangles.sources['COLOR'][0][0]]
    np.testing.assert_allclose(colors[index] * 255, model.colors[model.faces], atol=0.01)


@pytest.mark.parametrize('kind, names', [
    ('glb', {'7_tea_cup.glb'}), ('ply', {'7_tea_cup.ply'}), ('stl', {'7_tea_cup.stl'}),
    ('obj', {'7_tea_cup.obj', '7_tea_cup.mtl', '7_tea_cup.png'}),
    ('dae', {'7_tea_cup.dae', '7_tea_cup.png'})])
def test_files_refer_to_each_other_by_name(kind, names):
    files = mesh_files(model_of(BALL), '7_tea_cup', kind)
    assert set(files) == names
    if kind in ('obj', 'dae'):
        text = b''.join(content for name, content in files.items() if not name.endswith('png'))
        assert b'7_tea_cup.png' in text
    assert kind != 'obj' or b'mtllib 7_tea_cup.mtl' in files['7_tea_cup.obj']


def test_collada_is_well_formed_z_up_in_metres():
    from xml.etree import ElementTree
    document = ElementTree.parse(io.BytesIO(mesh_files(model_of(BALL), 'a', 'dae')['a.dae']))
    space = {'c': 'http://www.collada.org/2005/11/COLLADASchema'}
    assert document.find('.//c:up_axis', space).text == 'Z_UP'
    assert float(document.find('.//c:unit', space).get('meter')) == 1
    ids = {element.get('id') for element in document.iter() if element.get('id')}
    for element in document.iter():
        for name in ('source', 'url', 'target'):
            if element.get(name, '').startswith('#'):
                assert element.get(name)[1:] in ids


def test_ply_data_never_begin_with_a_line_feed():
    """RViz crashed on that (its first byte after the header is 0x0a)."""
    model = model_of(BALL)
    model.vertices[0, 0] = np.frombuffer(b'\n\x00\x80\x3c', '<f4')[0]
    before = model.vertices.copy()
    data = mesh_files(model, 'a', 'ply')['a.ply']
    body = data[data.index(b'end_header\n') + len(b'end_header\n'):]
    assert body[0] != 0x0a
    np.testing.assert_array_equal(model.vertices, before)
    loaded = trimesh.load(io.BytesIO(data), file_type='ply', process=False)
    np.testing.assert_allclose(loaded.vertices, before, atol=1e-8)
