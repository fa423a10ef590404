"""
The export directory: the scene as files that other programs read.

    scene.glb                    all objects at their places, each in a node '<id>_<label>'
    scene.png  overlay.png       pictures of the reconstruction and of the detections
    meshes/<id>_<label>.glb      one object; also as OBJ, PLY, STL or COLLADA (`scene/meshes.py`)
    collision/<id>_<label>.stl   its collision mesh (`scene/collision.py`); convex parts are
                                 numbered
    objects.json                 poses, sizes and where they came from

Single meshes are in their object frame, metres. GLB files follow glTF: y up, +z towards the
camera; all others are z up, +x towards the camera. In scene.glb up is the support plane's
normal where one is seen, so that the table is level, else the picture's; the origin is the camera.
"""

import json
import logging
import re
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from img2scene_ros.errors import InputError
from img2scene_ros.errors import MissingDependencyError
from img2scene_ros.errors import OptionError
from img2scene_ros.options import Options
from img2scene_ros.options import option
from img2scene_ros.rendering.pictures import draw_overlay
from img2scene_ros.rendering.pictures import draw_scene
from img2scene_ros.scene import Scene
from img2scene_ros.scene import SceneObject
from img2scene_ros.scene.collision import KINDS
from img2scene_ros.scene.collision import collision_parts
from img2scene_ros.scene.gltf import Node
from img2scene_ros.scene.gltf import OBJECT_FRONT
from img2scene_ros.scene.gltf import OBJECT_UP
from img2scene_ros.scene.gltf import glb
from img2scene_ros.scene.gltf import gltf_rotation
from img2scene_ros.scene.meshes import FORMATS
from img2scene_ros.scene.meshes import mesh_files

ENTRIES = {'scene.glb', 'scene.png', 'overlay.png', 'meshes', 'collision', 'objects.json'}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExportOptions(Options):
    """Which files of an object are written."""

    formats: tuple[str, ...] = option(
        ('glb',), f"Formats of the single meshes: {', '.join(FORMATS)}")
    collision: str = option(
        'mesh', 'Collision meshes: mesh (thinned out), hull (convex) or convex_parts (CoACD)',
        choices=KINDS)
    collision_triangles: int = option(
        1000, 'Greatest number of triangles of a collision mesh, or of each convex part',
        low=50, high=100000)

    def __post_init__(self) -> None:
        super().__post_init__()
        unknown = [name for name in self.formats if name not in FORMATS]
        if unknown or not self.formats:
            raise OptionError(
                f"option 'formats' is {list(self.formats)}; it must name some of "
                f"{', '.join(FORMATS)}")


def export_scene(
    folder: Path, scene: Scene, options: ExportOptions = ExportOptions(),
) -> None:
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
        _write(fresh, scene, options)
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


def _write(folder: Path, scene: Scene, options: ExportOptions) -> None:
    (folder / 'meshes').mkdir()
    (folder / 'collision').mkdir()
    summaries = [_write_object(folder, item, options) for item in scene.objects]
    (folder / 'scene.glb').write_bytes(_scene_glb(scene))
    (folder / 'objects.json').write_text(json.dumps(_summary(scene, summaries), indent=2) + '\n')
    (folder / 'overlay.png').write_bytes(_png(draw_overlay(scene)))
    try:
        (folder / 'scene.png').write_bytes(_png(draw_scene(scene)))
    except MissingDependencyError as error:
        log.warning('no scene.png: %s', error)


def _write_object(folder: Path, item: SceneObject, options: ExportOptions) -> dict[str, Any]:
    """Write an object's meshes; return its entry in objects.json."""
    stem = file_stem(item)
    for kind in options.formats:
        for name, content in mesh_files(item.model, stem, kind).items():
            (folder / 'meshes' / name).write_bytes(content)
    parts = collision_parts(item.model, options.collision, options.collision_triangles)
    names = [f'{stem}.stl'] if len(parts) == 1 else [
        f'{stem}_{number}.stl' for number in range(1, len(parts) + 1)]
    for name, part in zip(names, parts):
        (folder / 'collision' / name).write_bytes(part.export(file_type='stl'))
    return _object_summary(item) | {
        'mesh': f'meshes/{stem}.{options.formats[0]}',
        'collision': [f'collision/{name}' for name in names]}


def _scene_glb(scene: Scene) -> bytes:
    up = np.array([0.0, -1.0, 0.0]) if scene.support is None else scene.support.normal
    # A camera that looks straight down has the viewer at the lower edge of its picture.
    front = np.array([0.0, 0.0, -1.0]) if abs(up[2]) < 0.99 else np.array([0.0, 1.0, 0.0])
    to_gltf = _matrix(gltf_rotation(up, front))
    from_object = _matrix(gltf_rotation(OBJECT_UP, OBJECT_FRONT)).T
    return glb([
        Node(file_stem(item), item.model, to_gltf @ item.pose @ from_object, _extras(item))
        for item in scene.objects])


def _extras(item: SceneObject) -> dict[str, Any]:
    detection = item.detection
    return {'id': item.id, 'label': detection.label, 'score': float(detection.score)} | _fit(item)


def _fit(item: SceneObject) -> dict[str, Any]:
    """Return how well the mesh fits what was seen; nothing where that was not measured."""
    fit = item.model.fit
    if fit is None:
        return {}
    return {'fit': {'silhouette_iou': round(fit.silhouette_iou, 4),
                    'depth_residual_m': fit.depth_residual and round(fit.depth_residual, 5)}}


def _summary(scene: Scene, objects: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        'frame_id': scene.frame.frame_id,
        'stamp': scene.frame.stamp_ns * 1e-9,
        'objects': objects,
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
    } | _fit(item)


def _matrix(rotation: np.ndarray) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = rotation
    return matrix


def _png(picture: np.ndarray) -> bytes:
    return cv2.imencode('.png', cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1].tobytes()
