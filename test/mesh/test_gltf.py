# SPDX-License-Identifier: Apache-2.0
"""GLB files with textures, read back by trimesh, Open3D and Khronos' validator."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import trimesh
from colored_models import face_colors
from colored_models import model_of
from colored_models import open3d_model
from scipy.spatial.transform import Rotation

from img2scene_ros.mesh.gltf import Node
from img2scene_ros.mesh.gltf import glb

BOX = trimesh.creation.box((0.1, 0.2, 0.05))
VALIDATE = '''
const report = require('gltf-validator').validateBytes(
  new Uint8Array(require('fs').readFileSync(process.argv[1])));
report.then(found => console.log(JSON.stringify(found)));
'''


def tree_of(data: bytes) -> dict:
    """Return a GLB file's JSON chunk (glTF 2.0 specification, section 4.4)."""
    return json.loads(data[20:20 + int.from_bytes(data[12:16], 'little')])


def pose(seed: int) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.random(random_state=seed).as_matrix()
    matrix[:3, 3] = (0.1 * seed, -0.2, 0.3)
    return matrix


def node(number: int, with_texture: bool = True) -> Node:
    mesh = BOX if number % 2 else trimesh.creation.icosphere(2, 0.05)
    return Node(f'{number}_thing', model_of(mesh, number, with_texture), pose(number),
                {'id': number, 'label': 'thing', 'score': 0.5, 'nested': {'iou': 0.9}})


def test_open3d_finds_every_face_with_its_colour(tmp_path):
    item = node(1)
    (tmp_path / 'a.glb').write_bytes(glb([item]))
    triangles, colors = open3d_model(tmp_path / 'a.glb')
    expected = trimesh.transform_points(item.model.vertices[:, [1, 2, 0]], item.pose)
    np.testing.assert_allclose(triangles, expected[item.model.faces], atol=1e-6)
    np.testing.assert_array_equal(colors, face_colors(item.model))


def test_normals_are_of_unit_length_and_look_outwards():
    item = node(2)
    mesh = next(iter(trimesh.load(
        trimesh.util.wrap_as_stream(glb([item])), file_type='glb').geometry.values()))
    normals = mesh.vertex_normals
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-6)
    assert ((normals * mesh.vertices).sum(axis=1) > 0.99 * 0.05).all(), 'as those of a ball'


def test_each_object_is_a_named_node_with_its_extras_below_an_identity_root():
    nodes = [node(1), node(2, False)]
    tree = tree_of(glb(nodes))
    root = tree['nodes'][tree['scenes'][0]['nodes'][0]]
    assert set(root) == {'name', 'children'}
    for item, index in zip(nodes, root['children']):
        written = tree['nodes'][index]
        assert (written['name'], written['extras']) == (item.name, item.extras)
        np.testing.assert_allclose(
            np.reshape(written['matrix'], (4, 4)).T, item.pose, atol=1e-12)


def test_shared_meshes_and_textures_are_written_once():
    one, other = node(1), node(3)
    shared = [Node(f'{i}', one.model, pose(i), {}) for i in range(5)] + [other]
    data = glb(shared)
    tree = tree_of(data)
    assert (len(tree['meshes']), len(tree['images']), len(tree['textures'])) == (2, 2, 2)
    assert data.count(b'\x89PNG') == 2
    assert len(data) < len(glb([one])) + len(glb([other])) + 2000


@pytest.mark.parametrize('numbers', [[], [1], [1, 2, 3, 4]])
@pytest.mark.parametrize('with_texture', [True, False])
def test_khronos_validator_has_nothing_to_complain_about(tmp_path, numbers, with_texture):
    node_js = shutil.which('node')
    found = node_js and subprocess.run(
        [node_js, '-e', "require.resolve('gltf-validator')"], capture_output=True)
    if not found or found.returncode:
        pytest.skip('needs Node.js with gltf-validator (npm install gltf-validator, NODE_PATH)')
    path = Path(tmp_path / 'a.glb')
    path.write_bytes(glb([node(number, with_texture) for number in numbers]))
    report = json.loads(subprocess.run(
        [node_js, '-e', VALIDATE, str(path)], capture_output=True, check=True).stdout)
    issues = report['issues']
    assert (issues['numErrors'], issues['numWarnings']) == (0, 0), issues['messages']
    assert report['info']['drawCallCount'] == len(numbers)
