# SPDX-License-Identifier: Apache-2.0
"""The export directory, read back by other programs."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from threading import Thread

import cv2
import numpy as np
import pytest
import trimesh
from colored_models import color_per_face
from scipy.spatial.transform import Rotation

from img2scene_ros.camera import Camera
from img2scene_ros.errors import InputError
from img2scene_ros.errors import OptionError
from img2scene_ros.mesh.gltf import gltf_rotation
from img2scene_ros.scene import export
from img2scene_ros.scene.export import ExportOptions
from img2scene_ros.scene.export import check_replaceable
from img2scene_ros.scene.export import export_scene
from img2scene_ros.types import Detection
from img2scene_ros.types import Fit
from img2scene_ros.types import Frame
from img2scene_ros.types import ObjectModel
from img2scene_ros.types import Scene
from img2scene_ros.types import SceneObject
from img2scene_ros.types import SupportPlane

SIZE = (64, 48)
TILT = np.array([0.0, -np.cos(0.5), -np.sin(0.5)])
TABLE = SupportPlane(TILT, 0.4, np.array([
    [x, (0.4 - z * np.sin(0.5)) / np.cos(0.5), z] for x, z in ((-1, 0.3), (1, 0.3), (0, 1.5))]))


def scene_object(number: int, label: str, mesh: trimesh.Trimesh) -> SceneObject:
    rng = np.random.default_rng(number)
    rotation = Rotation.random(random_state=number).as_matrix()
    position = np.array([0.1 * number - 0.2, 0.05, 0.7])
    vertices = mesh.vertices - (mesh.vertices.min(axis=0) + mesh.vertices.max(axis=0)) / 2
    model = ObjectModel(
        vertices.astype(np.float32), mesh.faces.astype(np.int32),
        rng.integers(0, 256, (len(vertices), 3), dtype=np.uint8), position, rotation, 'test')
    detection = Detection(label, 0.75, np.array([3.0, 4.0, 20.0, 30.5]))
    covariance = np.diag([0.001, 0.002, 0.003, 0.1, 0.1, 0.1]) ** 2
    return SceneObject(number, detection, position, rotation, covariance, 'sensor', model)


@pytest.fixture
def frame() -> Frame:
    return Frame(np.full((SIZE[1], SIZE[0], 3), 90, np.uint8),
                 Camera.from_field_of_view(*SIZE, 60.0), None, 1_500_000_000, 'camera_optical')


@pytest.fixture
def scene(frame: Frame) -> Scene:
    return Scene(frame, (
        scene_object(1, 'box', trimesh.creation.box((0.1, 0.2, 0.05))),
        scene_object(3, 'coffee cup/Tasse ü', trimesh.creation.icosphere(3, 0.06)),
    ), (TABLE,), {'detect': 0.25})


def world_points(glb: Path) -> dict[str, np.ndarray]:
    loaded = trimesh.load(glb)
    points = {}
    for node in loaded.graph.nodes_geometry:
        pose, geometry = loaded.graph[node]
        points[node] = trimesh.transform_points(loaded.geometry[geometry].vertices, pose)
    return points


def test_export_holds_the_promised_files(tmp_path, scene):
    export_scene(tmp_path / 'out', scene)
    found = {str(path.relative_to(tmp_path / 'out'))
             for path in (tmp_path / 'out').rglob('*') if path.is_file()}
    assert found == {
        'scene.glb', 'scene.png', 'overlay.png', 'objects.json',
        'meshes/1_box.glb', 'meshes/3_coffee_cup_Tasse.glb',
        'collision/1_box.stl', 'collision/3_coffee_cup_Tasse.stl'}
    assert [path.name for path in tmp_path.iterdir()] == ['out'], 'nothing is left beside it'
    assert cv2.imread(str(tmp_path / 'out/overlay.png')).shape == (48, 64, 3)
    assert cv2.imread(str(tmp_path / 'out/scene.png')).shape[1] == 3 * 64


def test_scene_glb_has_every_point_at_its_place_with_the_table_level(tmp_path, scene):
    export_scene(tmp_path / 'out', scene)
    written = world_points(tmp_path / 'out/scene.glb')
    assert set(written) == {'1_box', '3_coffee_cup_Tasse'}
    for item, name in zip(scene.objects, ('1_box', '3_coffee_cup_Tasse')):
        points = written[name]
        np.testing.assert_allclose(points[:, 1], item.points @ TILT, atol=1e-6)
        np.testing.assert_allclose(points[:, 0], item.points[:, 0], atol=1e-6)
        assert (points[:, 2] < 0).all(), 'a glTF camera at the origin looks along -z'
        np.testing.assert_allclose(
            np.linalg.norm(points, axis=1), np.linalg.norm(item.points, axis=1), atol=1e-6)


def test_scene_glb_without_a_table_has_the_axes_of_a_gltf_camera(tmp_path, frame, scene):
    export_scene(tmp_path / 'out', Scene(frame, scene.objects))
    written = world_points(tmp_path / 'out/scene.glb')
    np.testing.assert_allclose(
        written['1_box'], scene.objects[0].points * (1, -1, -1), atol=1e-6)


def test_scene_glb_of_a_camera_that_looks_straight_down(tmp_path, frame, scene):
    hull = np.array([[-1.0, -1, 1], [1, -1, 1], [0, 1, 1]])
    down = SupportPlane(np.array([0.0, 0.0, -1.0]), 1.0, hull)
    export_scene(tmp_path / 'out', Scene(frame, scene.objects, (down,)))
    points = world_points(tmp_path / 'out/scene.glb')['1_box']
    x, y, z = scene.objects[0].points.T
    np.testing.assert_allclose(points, np.stack([x, -z, y], axis=1), atol=1e-6)


@pytest.mark.parametrize('up, front', [((0, -1, 0), (0, 0, -1)), (TILT, (0, 0, -1)),
                                       ((0, 0, 1), (1, 0, 0))])
def test_change_of_axes_is_a_rotation(up, front):
    rotation = gltf_rotation(np.array(up), np.array(front))
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1)
    np.testing.assert_allclose(rotation @ up, (0, 1, 0), atol=1e-12)
    assert (rotation @ front)[2] > 0


def test_nodes_carry_names_labels_and_scores_and_the_root_is_identity(tmp_path, scene):
    export_scene(tmp_path / 'out', scene)
    tree = glb_tree(tmp_path / 'out/scene.glb')
    root = tree['nodes'][tree['scenes'][0]['nodes'][0]]
    assert not {'matrix', 'translation', 'rotation', 'scale'} & set(root)
    assert {node['name']: node['extras'] for node in tree['nodes'] if node is not root} == {
        '1_box': {'id': 1, 'label': 'box', 'score': 0.75},
        '3_coffee_cup_Tasse': {'id': 3, 'label': 'coffee cup/Tasse ü', 'score': 0.75}}


@pytest.mark.parametrize('residual', [0.004, None])
def test_the_fit_is_in_the_extras_and_in_objects_json(tmp_path, scene, residual):
    box, cup = scene.objects
    fitted = replace(box, model=replace(box.model, fit=Fit(0.87, residual)))
    export_scene(tmp_path / 'out', replace(scene, objects=(fitted, cup)))
    expected = {'silhouette_iou': 0.87, 'depth_residual_m': residual}
    summary = json.loads((tmp_path / 'out/objects.json').read_text())
    extras = {node['name']: node.get('extras')
              for node in glb_tree(tmp_path / 'out/scene.glb')['nodes']}
    assert summary['objects'][0]['fit'] == extras['1_box']['fit'] == expected
    assert 'fit' not in summary['objects'][1] and 'fit' not in extras['3_coffee_cup_Tasse']


def test_single_meshes_are_upright_and_face_the_viewer(tmp_path, scene):
    export_scene(tmp_path / 'out', scene)
    points = next(iter(world_points(tmp_path / 'out/meshes/1_box.glb').values()))
    x, y, z = scene.objects[0].model.vertices.T
    np.testing.assert_allclose(points, np.stack([y, z, x], axis=1), atol=1e-6)


def test_colors_are_linear_light_as_gltf_wants(tmp_path, scene):
    export_scene(tmp_path / 'out', scene)
    path = tmp_path / 'out/meshes/1_box.glb'
    tree, data = glb_tree(path), path.read_bytes()
    accessor = tree['accessors'][tree['meshes'][0]['primitives'][0]['attributes']['COLOR_0']]
    view = tree['bufferViews'][accessor['bufferView']]
    start = len(data) - tree['buffers'][0]['byteLength'] + view['byteOffset']
    linear = np.frombuffer(data, '<f4', accessor['count'] * 3, start).reshape(-1, 3)
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    np.testing.assert_allclose(srgb * 255, scene.objects[0].model.colors, atol=0.01)


def test_collision_meshes_are_closed_small_and_in_the_object_frame(tmp_path, scene):
    export_scene(tmp_path / 'out', scene)
    for item, name in zip(scene.objects, ('1_box', '3_coffee_cup_Tasse')):
        mesh = trimesh.load(tmp_path / f'out/collision/{name}.stl')
        assert mesh.is_watertight
        np.testing.assert_allclose(mesh.extents, item.model.size, atol=1e-6)
        np.testing.assert_allclose(mesh.bounds.sum(axis=0), 0, atol=1e-6)


def test_collision_may_be_the_convex_hull(tmp_path, frame):
    torus = scene_object(1, 'ring', trimesh.creation.torus(0.1, 0.02))
    scene = Scene(frame, (torus,))
    export_scene(tmp_path / 'out', scene, ExportOptions(collision='hull'))
    hull = trimesh.load(tmp_path / 'out/collision/1_ring.stl')
    assert hull.is_watertight and hull.is_convex and len(hull.faces) <= 1000
    # The hull of a torus is a disc of radius R with a half-round rim of radius r.
    big, small = 0.1, 0.02
    volume = (2 * np.pi * small * big ** 2 + np.pi ** 2 * small ** 2 * big
              + 4 / 3 * np.pi * small ** 3)
    assert 0.98 * volume < hull.volume < 1.06 * volume


def test_collision_meshes_are_thinned_out_as_told(tmp_path, frame):
    pytest.importorskip('open3d')
    torus = scene_object(1, 'ring', trimesh.creation.torus(0.1, 0.02))
    scene = Scene(frame, (torus,))
    export_scene(tmp_path / 'out', scene, ExportOptions(collision_triangles=400))
    thin = trimesh.load(tmp_path / 'out/collision/1_ring.stl')
    assert thin.is_watertight and len(thin.faces) <= 400
    assert thin.euler_number == 0, 'it still has its hole'


def test_convex_parts_are_numbered_files(tmp_path, frame, monkeypatch):
    parts = [trimesh.creation.box((0.1, 0.1, 0.1)), trimesh.creation.icosphere(1)]
    monkeypatch.setattr('img2scene_ros.scene.export.collision_parts', lambda *_: parts)
    scene = Scene(frame, (scene_object(1, 'box', parts[0]),))
    export_scene(tmp_path / 'out', scene, ExportOptions(collision='convex_parts'))
    summary = json.loads((tmp_path / 'out/objects.json').read_text())
    assert summary['objects'][0]['collision'] == ['collision/1_box_1.stl', 'collision/1_box_2.stl']
    for name, part in zip(summary['objects'][0]['collision'], parts):
        assert len(trimesh.load(tmp_path / 'out' / name).faces) == len(part.faces)


def test_single_meshes_in_all_formats_and_the_first_is_the_objects_mesh(tmp_path, scene):
    export_scene(tmp_path / 'out', scene, ExportOptions(formats=('obj', 'glb', 'stl')))
    names = {path.name for path in (tmp_path / 'out/meshes').iterdir()}
    assert names == {f'{stem}.{kind}' for stem in ('1_box', '3_coffee_cup_Tasse')
                     for kind in ('obj', 'glb', 'stl')}
    summary = json.loads((tmp_path / 'out/objects.json').read_text())
    assert [item['mesh'] for item in summary['objects']] == [
        'meshes/1_box.obj', 'meshes/3_coffee_cup_Tasse.obj']


@pytest.mark.parametrize('values, named', [
    ({'formats': ('glb', 'fbx')}, r"'formats' is \['glb', 'fbx'\].*glb, obj, ply, stl, dae"),
    ({'formats': ()}, "'formats'.*some of"), ({'collision': 'box'}, 'mesh, hull, convex_parts'),
    ({'collision_triangles': 3}, 'at least 50')])
def test_wrong_options_are_one_sentence(values, named):
    with pytest.raises(OptionError, match=named):
        ExportOptions(**values)


def test_textures_are_in_the_scene_and_in_the_meshes(tmp_path, scene):
    box, cup = scene.objects
    texture = color_per_face(len(box.model.faces), np.random.default_rng(0))
    textured_box = replace(box, model=replace(box.model, texture=texture))
    export_scene(tmp_path / 'out', replace(scene, objects=(textured_box, cup)))
    for path, meshes in (('scene.glb', 2), ('meshes/1_box.glb', 1)):
        data = (tmp_path / 'out' / path).read_bytes()
        assert data.count(b'\x89PNG') == 1
        assert len(glb_tree(tmp_path / 'out' / path)['meshes']) == meshes


def test_objects_json_places_the_object_frame(tmp_path, scene):
    export_scene(tmp_path / 'out', scene)
    summary = json.loads((tmp_path / 'out/objects.json').read_text())
    assert list(summary) == ['frame_id', 'stamp', 'objects', 'notes', 'timing_s']
    assert (summary['frame_id'], summary['stamp']) == ('camera_optical', 1.5)
    assert summary['timing_s'] == {'detect': 0.25}
    for item, entry in zip(scene.objects, summary['objects']):
        assert list(entry) == [
            'id', 'label', 'score', 'hypotheses', 'bbox_xyxy_px', 'position_m',
            'orientation_xyzw', 'size_m', 'position_std_m', 'depth_source', 'depth_coverage',
            'reconstructor', 'triangles', 'watertight', 'note', 'state', 'mesh', 'collision']
        assert (entry['id'], entry['label']) == (item.id, item.detection.label)
        assert entry['bbox_xyxy_px'] == [3, 4, 20, 30.5]
        assert entry['watertight'] is True
        assert entry['collision'] == [f"collision/{Path(entry['mesh']).stem}.stl"]
        mesh = trimesh.load(tmp_path / 'out' / entry['mesh'], force='mesh')
        assert entry['triangles'] == len(mesh.faces)
        # From the single mesh (y up, z to the viewer) through the pose into the scene.
        points = Rotation.from_quat(entry['orientation_xyzw']).apply(
            mesh.vertices[:, [2, 0, 1]]) + entry['position_m']
        np.testing.assert_allclose(points, item.points, atol=2e-5)
        np.testing.assert_allclose(
            entry['size_m'], np.ptp(mesh.vertices, axis=0)[[2, 0, 1]], atol=2e-5)


def test_scene_without_objects_is_exported(tmp_path, frame):
    export_scene(tmp_path / 'out', Scene(frame))
    assert json.loads((tmp_path / 'out/objects.json').read_text())['objects'] == []
    assert not trimesh.load(tmp_path / 'out/scene.glb').geometry


def test_without_open3d_only_the_picture_of_the_scene_is_missing(
        tmp_path, scene, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, 'open3d', None)
    monkeypatch.setitem(sys.modules, 'open3d.t.geometry', None)
    export_scene(tmp_path / 'out', scene)
    names = {path.name for path in (tmp_path / 'out').iterdir()}
    assert names == {'scene.glb', 'overlay.png', 'objects.json', 'meshes', 'collision'}
    assert 'pip install open3d' in caplog.text


def test_older_export_is_replaced(tmp_path, frame, scene):
    export_scene(tmp_path / 'out', scene)
    export_scene(tmp_path / 'out', Scene(frame, scene.objects[:1]))
    assert [path.name for path in (tmp_path / 'out/meshes').iterdir()] == ['1_box.glb']
    assert [path.name for path in tmp_path.iterdir()] == ['out']


def test_directory_with_other_things_is_left_alone(tmp_path, scene):
    export_scene(tmp_path / 'out', scene)
    (tmp_path / 'out/notes.txt').write_text('mine')
    with pytest.raises(InputError, match='notes.txt'):
        export_scene(tmp_path / 'out', scene)
    assert (tmp_path / 'out/notes.txt').read_text() == 'mine'
    (tmp_path / 'home').mkdir()
    (tmp_path / 'home/meshes').mkdir()
    with pytest.raises(InputError, match='meshes'):
        export_scene(tmp_path / 'home', scene)


@pytest.mark.parametrize('breaks', [
    'img2scene_ros.scene.export.draw_overlay', 'img2scene_ros.scene.export._scene_glb',
    'pathlib.Path.write_bytes', 'pathlib.Path.write_text'])
def test_failing_export_keeps_the_older_one(tmp_path, frame, scene, monkeypatch, breaks):
    export_scene(tmp_path / 'out', scene)
    before = (tmp_path / 'out/objects.json').read_bytes()

    def no_space(*_, **__):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(breaks, no_space)
    with pytest.raises(InputError, match='No space left on device'):
        export_scene(tmp_path / 'out', Scene(frame, scene.objects[:1]))
    assert (tmp_path / 'out/objects.json').read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ['out']


def test_interrupted_export_leaves_nothing(tmp_path, scene, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr('img2scene_ros.scene.export.draw_scene', interrupt)
    with pytest.raises(KeyboardInterrupt):
        export_scene(tmp_path / 'out', scene)
    assert not list(tmp_path.iterdir())


def test_place_that_cannot_be_written_is_one_sentence(tmp_path, scene):
    (tmp_path / 'file').write_text('in the way')
    for place in (tmp_path / 'file', tmp_path / 'file/out', Path('/proc/out')):
        with pytest.raises(InputError, match='choose another place') as caught:
            export_scene(place, scene)
        assert '\n' not in str(caught.value)
    assert (tmp_path / 'file').read_text() == 'in the way'


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write everywhere')
def test_directory_without_permission_is_one_sentence(tmp_path, scene):
    tmp_path.chmod(0o555)
    try:
        for check in (check_replaceable, lambda place: export_scene(place, scene)):
            with pytest.raises(InputError, match='choose another place'):
                check(tmp_path / 'out')
    finally:
        tmp_path.chmod(0o755)


def entries(folder: Path) -> set[str]:
    """Return the files that an export should have, and those that it has must be the same."""
    summary = json.loads((folder / 'objects.json').read_text())
    named = {name for item in summary['objects'] for name in (item['mesh'], *item['collision'])}
    found = {str(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file()}
    assert found == named | {'objects.json', 'scene.glb', 'scene.png', 'overlay.png'}
    return named


# What a process does that may write into a directory, not beside it.
EXPORT_TWICE = '''
import os, sys
from pathlib import Path
import numpy as np
from img2scene_ros.camera import Camera
from img2scene_ros.types import Frame
from img2scene_ros.types import Scene
from img2scene_ros.scene.export import export_scene
if os.geteuid() == 0 and sys.argv[2] == 'nobody':
    os.setuid(65534)
color, camera = np.full((48, 64, 3), 90, np.uint8), Camera.from_field_of_view(64, 48, 60.0)
for name in ('first', 'second'):
    export_scene(Path(sys.argv[1]), Scene(Frame(color, camera, frame_id=name)))
'''


def test_directory_whose_parent_is_read_only_is_written():
    with TemporaryDirectory() as parent:
        out = Path(parent) / 'out'
        out.mkdir()
        out.chmod(0o777)
        Path(parent).chmod(0o555)
        try:
            result = subprocess.run(
                [sys.executable, '-c', EXPORT_TWICE, str(out), 'nobody'],
                capture_output=True, text=True)
            assert result.returncode == 0, result.stderr
            assert json.loads((out / 'objects.json').read_text())['frame_id'] == 'second'
            names = {path.name for path in out.iterdir()}
            # Nobody else may be allowed to import Open3D.
            assert names | {'scene.png'} == set(export.ENTRIES)
        finally:
            Path(parent).chmod(0o755)


def test_mount_point_is_written(tmp_path):
    out = tmp_path / 'out'
    out.mkdir()
    mount = f"mount -t tmpfs none '{out}' && mkdir '{out}/lost+found'"
    check = f"mountpoint -q '{out}' && grep -q second '{out}/objects.json'"
    alone = ['unshare', '--mount', '--map-root-user', 'sh', '-c']
    if subprocess.run([*alone, mount], capture_output=True).returncode:
        pytest.skip('mounting is not permitted here')
    result = subprocess.run(
        [*alone, f'{mount} && "$0" -c "$1" "$2" root && {check}',
         sys.executable, EXPORT_TWICE, str(out)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_directory_that_cannot_be_moved_is_written(tmp_path, frame, scene, monkeypatch):
    """As a mount point, where the mounting itself is not permitted: EBUSY, see rename(2)."""
    out, original = tmp_path / 'out', Path.rename
    out.mkdir()

    def rename(path: Path, target: Path) -> Path:
        if out in (path, target):
            raise OSError(16, 'Device or resource busy')
        return original(path, target)

    monkeypatch.setattr(Path, 'rename', rename)
    for objects in ((), scene.objects):
        export_scene(out, replace(scene, objects=objects))
        assert len(entries(out)) == 2 * len(objects)


def test_current_directory_is_written(tmp_path, frame, scene, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        export_scene(Path('.'), scene)
    assert len(entries(tmp_path)) == 4


def test_readers_never_see_a_half_written_export(tmp_path, frame, scene):
    out, ended, seen = tmp_path / 'out', Event(), set()
    scenes = [Scene(replace(scene.frame, frame_id=name), (item,))
              for name, item in zip(('one', 'other'), scene.objects)]
    export_scene(out, scenes[0])

    def read() -> None:
        while not ended.is_set():
            try:
                before = (out / 'objects.json').read_bytes()
            except FileNotFoundError:  # being replaced
                continue
            item, = json.loads(before)['objects']
            there = all((out / name).is_file() for name in (item['mesh'], *item['collision']))
            try:
                same = (out / 'objects.json').read_bytes() == before
            except FileNotFoundError:
                continue
            if same:
                seen.add((item['label'], there))

    reader = Thread(target=read)
    reader.start()
    try:
        for turn in range(12):
            export_scene(out, scenes[turn % 2])
    finally:
        ended.set()
        reader.join()
    assert seen == {(item.detection.label, True) for item in scene.objects}


@pytest.mark.parametrize('count', range(1, 12))
@pytest.mark.parametrize('how', [OSError(5, 'Input/output error'), KeyboardInterrupt()])
def test_replacing_that_fails_halfway_is_undone(tmp_path, frame, scene, monkeypatch, count, how):
    out = tmp_path / 'out'
    export_scene(out, replace(scene, objects=scene.objects[:1]))
    before, original, calls = entries(out), Path.rename, []

    def rename(path: Path, target: Path) -> Path:
        calls.append(path)
        if len(calls) == count:
            raise how
        return original(path, target)

    monkeypatch.setattr(Path, 'rename', rename)
    with pytest.raises((InputError, KeyboardInterrupt)):
        export_scene(out, scene)
    assert entries(out) == before
    assert {path.name for path in out.iterdir()} == {
        'objects.json', 'scene.glb', 'scene.png', 'overlay.png', 'meshes', 'collision'}
    export_scene(out, scene)
    assert len(entries(out)) == 4


def test_export_that_was_killed_is_replaced(tmp_path, frame, scene):
    export_scene(tmp_path, scene)
    old = tmp_path / '.img2scene-1/old'
    old.mkdir(parents=True)
    (tmp_path / 'objects.json').rename(old / 'objects.json')
    export_scene(tmp_path, scene)
    assert (tmp_path / 'objects.json').is_file()


@pytest.mark.parametrize('step', ['collision_parts', 'mesh_files'])
def test_object_that_cannot_be_written_costs_itself_alone(
        tmp_path, frame, scene, monkeypatch, caplog, step):
    original = getattr(export, step)

    def fails_with_boxes(model, *arguments):
        return 1 / 0 if len(model.faces) == 12 else original(model, *arguments)

    monkeypatch.setattr(export, step, fails_with_boxes)
    export_scene(tmp_path / 'out', scene)
    assert entries(tmp_path / 'out') == {
        'meshes/3_coffee_cup_Tasse.glb', 'collision/3_coffee_cup_Tasse.stl'}
    assert set(world_points(tmp_path / 'out/scene.glb')) == {'3_coffee_cup_Tasse'}
    assert '1_box' in caplog.text and 'ZeroDivisionError' in caplog.text


def test_picture_of_the_scene_that_fails_costs_itself_alone(
        tmp_path, frame, scene, monkeypatch, caplog):
    monkeypatch.setattr(export, 'draw_scene', lambda *_: 1 / 0)
    export_scene(tmp_path / 'out', scene)
    assert not (tmp_path / 'out/scene.png').exists() and 'scene.png' in caplog.text
    assert (tmp_path / 'out/objects.json').is_file()


def glb_tree(path: Path) -> dict:
    """Return a GLB file's JSON chunk (glTF 2.0 specification, section 4.4)."""
    data = path.read_bytes()
    assert data[:4] == b'glTF' and data[16:20] == b'JSON'
    return json.loads(data[20:20 + int.from_bytes(data[12:16], 'little')])
