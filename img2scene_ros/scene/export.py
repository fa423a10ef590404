"""
The export directory: the scene as files that other programs read.

    scene.glb                    all objects at their places, each in a node '<id>_<label>'
    scene.png  overlay.png       pictures of the reconstruction and of the detections
    meshes/<id>_<label>.glb      one object in its object frame
    collision/<id>_<label>.stl   a closed mesh of at most 1000 triangles or the convex hull, in the
                                 object frame (z up), metres
    objects.json                 poses, sizes and where they came from

GLB files follow glTF: metres, y up, +z towards the camera. In scene.glb up is the support plane's
normal where one is seen, so that the table is level, else the picture's; the origin is the camera.
"""

import json
import logging
import re
import shutil
import uuid
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from img2scene_ros.errors import InputError
from img2scene_ros.errors import MissingDependencyError
from img2scene_ros.frame import Frame
from img2scene_ros.reconstruction import ObjectModel
from img2scene_ros.rendering.pictures import draw_overlay
from img2scene_ros.rendering.pictures import draw_scene
from img2scene_ros.scene import Scene
from img2scene_ros.scene import SceneObject

ENTRIES = {'scene.glb', 'scene.png', 'overlay.png', 'meshes', 'collision', 'objects.json'}
COLLISION_TRIANGLES = 1000
OBJECT_UP, OBJECT_FRONT = (0.0, 0.0, 1.0), (1.0, 0.0, 0.0)
MATERIAL = {'pbrMetallicRoughness': {'metallicFactor': 0.0, 'roughnessFactor': 0.9}}

log = logging.getLogger(__name__)


def export_scene(folder: Path, frame: Frame, scene: Scene) -> None:
    """
    Write the export directory.

    It is built beside its place and moved there when it is complete, so a failing or interrupted
    export leaves what was there before. Only an empty directory or an older export is replaced.
    Without Open3D there is no scene.png.

    :param folder: made with its parents where it does not exist
    :raises InputError: it cannot be written, or there is something else in its place
    """
    folder = Path(folder).resolve()
    fresh = folder.with_name(f'.{folder.name}-{uuid.uuid4().hex}')
    try:
        _check_replaceable(folder)
        fresh.mkdir(parents=True)
        _write(fresh, frame, scene)
        _replace(folder, fresh)
    except OSError as error:
        raise InputError(
            f"cannot write the export directory '{folder}' ({error.strerror or error}); "
            'choose another place for it') from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def file_stem(item: SceneObject) -> str:
    """Return '<id>_<label>', with the label made safe for file names and URIs."""
    label = re.sub(r'[^A-Za-z0-9.-]+', '_', item.detection.label).strip('._')
    return f"{item.id}_{label or 'object'}"


def gltf_rotation(up: np.ndarray, front: np.ndarray) -> np.ndarray:
    """
    Return the change of axes to glTF: y up, +z the side to look at first.

    :param up: (3,) unit length, in the axes to leave; becomes +y
    :param front: (3,) towards the viewer; its part square to `up` becomes +z
    :return: (3, 3), turns the axes to leave into glTF's
    """
    x = np.cross(up, front)
    x = x / np.linalg.norm(x)
    return np.stack([x, np.asarray(up, float), np.cross(x, up)])


def _check_replaceable(folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"'{folder}' is a file; choose another place for the export directory")
    if folder == Path.cwd():
        raise InputError('the export directory cannot be the current one; name one inside it')
    names = {path.name for path in folder.iterdir()}
    foreign = sorted(names - ENTRIES)
    if foreign or (names and 'objects.json' not in names):
        raise InputError(
            f"'{folder}' holds other things than an export ('{(foreign or sorted(names))[0]}'), "
            'so it is not replaced; choose another place for the export directory')


def _replace(folder: Path, fresh: Path) -> None:
    """Put `fresh` in the place of `folder`; put the old one back when that fails."""
    if not folder.exists():
        fresh.rename(folder)
        return
    old = fresh.with_suffix('.old')
    folder.rename(old)
    try:
        fresh.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _write(folder: Path, frame: Frame, scene: Scene) -> None:
    (folder / 'meshes').mkdir()
    (folder / 'collision').mkdir()
    for item in scene.objects:
        stem = file_stem(item)
        (folder / 'meshes' / f'{stem}.glb').write_bytes(_glb([(item, np.eye(4))]))
        (folder / 'collision' / f'{stem}.stl').write_bytes(_collision_stl(item.model))
    (folder / 'scene.glb').write_bytes(_scene_glb(scene))
    (folder / 'objects.json').write_text(json.dumps(_summary(scene), indent=2) + '\n')
    (folder / 'overlay.png').write_bytes(_png(draw_overlay(frame, scene)))
    try:
        (folder / 'scene.png').write_bytes(_png(draw_scene(frame, scene)))
    except MissingDependencyError as error:
        log.warning('no scene.png: %s', error)


def _scene_glb(scene: Scene) -> bytes:
    up = np.array([0.0, -1.0, 0.0]) if scene.support is None else scene.support.normal
    # A camera that looks straight down has the viewer at the lower edge of its picture.
    front = np.array([0.0, 0.0, -1.0]) if abs(up[2]) < 0.99 else np.array([0.0, 1.0, 0.0])
    to_gltf = _matrix(gltf_rotation(up, front))
    from_object = _matrix(gltf_rotation(OBJECT_UP, OBJECT_FRONT)).T
    return _glb([(item, to_gltf @ item.pose @ from_object) for item in scene.objects])


def _glb(placed: list[tuple[SceneObject, np.ndarray]]) -> bytes:
    """
    Return a GLB file with one node per object.

    :param placed: objects, and the (4, 4) pose of each one's glTF axes in the file's
    """
    import trimesh
    from trimesh.exchange.gltf import export_glb

    rotation = gltf_rotation(OBJECT_UP, OBJECT_FRONT)
    world = trimesh.Scene()
    for item, pose in placed:
        model, stem = item.model, file_stem(item)
        mesh = trimesh.Trimesh(model.vertices @ rotation.T, model.faces, process=False)
        # trimesh writes bytes; the format wants linear light, which bytes are too coarse for.
        mesh.vertex_attributes['_COLOR_0'] = _linear(model.colors)
        detection = item.detection
        extras = {'id': item.id, 'label': detection.label, 'score': float(detection.score)}
        world.add_geometry(mesh, stem, stem, transform=pose, metadata=extras)
    return export_glb(world, include_normals=True, tree_postprocessor=_finish_materials)


def _finish_materials(tree: dict[str, Any]) -> None:
    """Name the colours as glTF does and make the surfaces dull."""
    for mesh in tree.get('meshes', ()):
        for primitive in mesh['primitives']:
            attributes = primitive['attributes']
            attributes['COLOR_0'] = attributes.pop('_COLOR_0')
            primitive['material'] = 0
            tree['materials'] = [MATERIAL]


def _linear(colors: np.ndarray) -> np.ndarray:
    """Convert sRGB bytes to linear light, float32 0 to 1 (IEC 61966-2-1)."""
    values = colors / np.float32(255)
    return np.where(
        values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4).astype(np.float32)


def _collision_stl(model: ObjectModel) -> bytes:
    import trimesh

    mesh = trimesh.Trimesh(model.vertices, model.faces, process=False)
    if len(mesh.faces) > COLLISION_TRIANGLES:
        mesh = mesh.convex_hull
    return mesh.export(file_type='stl')


def _summary(scene: Scene) -> dict[str, Any]:
    return {
        'frame_id': scene.frame_id,
        'stamp': scene.stamp_ns * 1e-9,
        'objects': [_object_summary(item) for item in scene.objects],
        'timing_s': {stage: round(seconds, 4) for stage, seconds in scene.timing.items()},
    }


def _object_summary(item: SceneObject) -> dict[str, Any]:
    import trimesh

    model = item.model
    mesh = trimesh.Trimesh(model.vertices, model.faces, process=False)
    return {
        'id': item.id,
        'label': item.detection.label,
        'score': round(float(item.detection.score), 4),
        'bbox_xyxy_px': np.round(item.detection.bbox, 1).tolist(),
        'position_m': np.round(item.position, 5).tolist(),
        'orientation_xyzw': np.round(Rotation.from_matrix(item.rotation).as_quat(), 6).tolist(),
        'size_m': np.round(model.size.astype(float), 5).tolist(),
        'position_std_m': np.round(item.position_std, 5).tolist(),
        'depth_source': item.depth_source,
        'reconstructor': model.reconstructor,
        'triangles': len(model.faces),
        'watertight': bool(mesh.is_watertight),
        'mesh': f'meshes/{file_stem(item)}.glb',
    }


def _matrix(rotation: np.ndarray) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = rotation
    return matrix


def _png(picture: np.ndarray) -> bytes:
    return cv2.imencode('.png', cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1].tobytes()
