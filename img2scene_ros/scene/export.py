# SPDX-License-Identifier: Apache-2.0
"""
The export directory: the scene as files that other programs read.

    scene.glb                    all objects at their places, each in a node '<id>_<label>'
    scene.png  overlay.png       pictures of the reconstruction and of the detections
    meshes/<id>_<label>.glb      one object; also as OBJ, PLY, STL or COLLADA (`mesh/formats.py`)
    collision/<id>_<label>.stl   its collision mesh (`mesh/collision.py`); convex parts are
                                 numbered
    objects.json                 poses, sizes and where they came from

Single meshes are in their object frame, metres. GLB files follow glTF: y up, +z towards the
camera; all others are z up, +x towards the camera. In scene.glb up is the support plane's
normal where one is seen, so that the table is level, else the picture's; the origin is the camera.
"""

import json
import logging
import os
import re
import shutil
import uuid
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from img2scene_ros.errors import Img2SceneError
from img2scene_ros.errors import InputError
from img2scene_ros.errors import OptionError
from img2scene_ros.errors import attempt
from img2scene_ros.mesh.collision import KINDS
from img2scene_ros.mesh.collision import collision_parts
from img2scene_ros.mesh.formats import FORMATS
from img2scene_ros.mesh.formats import mesh_files
from img2scene_ros.mesh.gltf import OBJECT_FRONT
from img2scene_ros.mesh.gltf import OBJECT_UP
from img2scene_ros.mesh.gltf import Node
from img2scene_ros.mesh.gltf import glb
from img2scene_ros.mesh.gltf import gltf_rotation
from img2scene_ros.options import Options
from img2scene_ros.options import option
from img2scene_ros.rendering.pictures import draw_overlay
from img2scene_ros.rendering.pictures import draw_scene
from img2scene_ros.types import Frame
from img2scene_ros.types import Scene
from img2scene_ros.types import SceneObject
from img2scene_ros.types import depth_coverage

# What is in an export; the file that names the others is first.
ENTRIES = ('objects.json', 'scene.glb', 'scene.png', 'overlay.png', 'meshes', 'collision')
WORK = '.img2scene-'  # begins the names of folders in which exports are built
_REPLACING = Lock()  # exports to one place come one after the other

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

    It is built in a hidden folder and moved to its place when it is complete, so a failing or
    interrupted export leaves what was there before. Only an empty directory or an older export is
    replaced; the directory itself stays, since it may be a mount point. objects.json leaves first
    and comes last: who reads it finds all that it names. Without Open3D there is no scene.png, and
    an object that cannot be written is skipped.

    :param folder: made with its parents where it does not exist
    :raises InputError: it cannot be written, or there is something else in its place
    """
    folder = Path(os.path.realpath(folder))  # unlike resolve() it takes loops of links
    name = f'{WORK}{uuid.uuid4().hex}'
    try:
        check_replaceable(folder)
        fresh = folder / name if folder.exists() else folder.with_name(name)
        try:
            fresh.mkdir(parents=True)
            _write(fresh, scene, options)
            with _REPLACING:
                _replace(folder, fresh)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    except OSError as error:
        raise InputError(
            f"cannot write the export directory '{folder}' ({error.strerror or error}); "
            'choose another place for it') from error


def file_stem(item: SceneObject) -> str:
    """Return '<id>_<label>', with the label made safe for file names and URIs."""
    label = re.sub(r'[^A-Za-z0-9.-]+', '_', item.detection.label).strip('._')
    return f"{item.id}_{label or 'object'}"


def check_replaceable(folder: Path) -> None:
    """
    Check that a place is free or holds an export, and may be written.

    :raises InputError: there is something else, or it may not
    """
    if not os.path.exists(folder):
        place = next(one for one in folder.absolute().parents if os.path.exists(one))
        if not os.access(place, os.W_OK):
            raise InputError(
                f"cannot write the export directory '{folder}' ('{place}' may not be written); "
                'choose another place for it')
        return
    if not folder.is_dir():
        raise InputError(f"'{folder}' is a file; choose another place for the export directory")
    names = {path.name for path in folder.iterdir() if not path.name.startswith(WORK)}
    names -= {'lost+found'}  # of a file system of its own
    foreign = sorted(names.difference(ENTRIES))
    if foreign or (names and 'objects.json' not in names and not any(folder.glob(f'{WORK}*'))):
        raise InputError(
            f"'{folder}' holds other things than an export ('{(foreign or sorted(names))[0]}'), "
            'so it is not replaced; choose another place for the export directory')


def _replace(folder: Path, fresh: Path) -> None:
    """Put `fresh` in the place of `folder`, or of what is in it; undo that when it fails."""
    if not folder.exists():
        fresh.rename(folder)
        return
    old = fresh / 'old'
    old.mkdir()
    moves = [(folder / name, old / name) for name in ENTRIES if (folder / name).exists()]
    moves += [(fresh / name, folder / name) for name in reversed(ENTRIES)
              if (fresh / name).exists()]
    done = []
    try:
        for source, target in moves:
            source.rename(target)
            done.append((source, target))
    except BaseException:
        for source, target in reversed(done):
            target.rename(source)
        raise


def _write(folder: Path, scene: Scene, options: ExportOptions) -> None:
    (folder / 'meshes').mkdir()
    (folder / 'collision').mkdir()
    kept, summaries = [], []
    for item in scene.objects:
        written = attempt(_object_files, item, scene.frame, options)
        if isinstance(written, Img2SceneError):
            log.warning('%s is not exported: %s', file_stem(item), written)
            continue
        files, entry = written
        for name, content in files.items():
            (folder / name).write_bytes(content)
        kept.append(item)
        summaries.append(entry)
    scene = replace(scene, objects=tuple(kept))
    (folder / 'scene.glb').write_bytes(_scene_glb(scene))
    (folder / 'objects.json').write_text(json.dumps(summary(scene, summaries), indent=2) + '\n')
    (folder / 'overlay.png').write_bytes(_png(draw_overlay(scene)))
    picture = attempt(draw_scene, scene)
    if isinstance(picture, Img2SceneError):
        log.warning('no scene.png: %s', picture)
    else:
        (folder / 'scene.png').write_bytes(_png(picture))


def _object_files(
    item: SceneObject, frame: Frame, options: ExportOptions,
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Return an object's files by their place in the export, and its entry in objects.json."""
    stem = file_stem(item)
    files = {f'meshes/{name}': content for kind in options.formats
             for name, content in mesh_files(item.model, stem, kind).items()}
    parts = collision_parts(item.model, options.collision, options.collision_triangles)
    names = [f'collision/{stem}.stl'] if len(parts) == 1 else [
        f'collision/{stem}_{number}.stl' for number in range(1, len(parts) + 1)]
    files |= {name: part.export(file_type='stl') for name, part in zip(names, parts)}
    return files, _object_summary(item, frame) | {
        'mesh': f'meshes/{stem}.{options.formats[0]}', 'collision': names}


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


def summary(scene: Scene, objects: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """
    Return what objects.json holds.

    :param objects: the objects' entries; None makes them, without the names of files
    """
    if objects is None:
        objects = [_object_summary(item, scene.frame) for item in scene.objects]
    return {
        'frame_id': scene.frame.frame_id,
        'stamp': scene.frame.stamp_ns * 1e-9,
        **_world(scene.frame),
        'objects': objects,
        'notes': list(scene.notes),
        'timing_s': {stage: round(seconds, 4) for stage, seconds in scene.timing.items()},
    }


def _world(frame: Frame) -> dict[str, Any]:
    """Return where the camera is in the world; nothing where that is not known."""
    if frame.world_from_camera is None or not frame.world_id:
        return {}
    return {'world': {'frame_id': frame.world_id,
                      'from_camera': np.asarray(frame.world_from_camera, float).tolist()}}


def _object_summary(item: SceneObject, frame: Frame) -> dict[str, Any]:
    import trimesh

    model = item.model
    coverage = depth_coverage(frame, item.detection) if item.state == 'visible' else None
    mesh = trimesh.Trimesh(model.vertices, model.faces, process=False)
    return {
        'id': item.id,
        'label': item.detection.label,
        'score': round(float(item.detection.score), 4),
        'hypotheses': [{'label': name, 'probability': round(float(share), 4)}
                       for name, share in item.detection.hypotheses],
        'bbox_xyxy_px': np.round(item.detection.bbox, 1).tolist(),
        'position_m': np.round(item.position, 5).tolist(),
        'orientation_xyzw': np.round(Rotation.from_matrix(item.rotation).as_quat(), 6).tolist(),
        'size_m': np.round(model.size.astype(float), 5).tolist(),
        'position_std_m': np.round(item.position_std, 5).tolist(),
        'depth_source': item.depth_source,
        'depth_coverage': None if coverage is None else round(coverage, 3),
        'reconstructor': model.reconstructor,
        'triangles': len(model.faces),
        'watertight': bool(mesh.is_watertight),
        'note': item.note,
        'state': item.state,
    } | _fit(item)


def _matrix(rotation: np.ndarray) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = rotation
    return matrix


def _png(picture: np.ndarray) -> bytes:
    return cv2.imencode('.png', cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1].tobytes()
