# SPDX-License-Identifier: Apache-2.0
"""Objects of an export directory (`export.py`), read back as objects that are remembered."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from img2scene_ros.errors import InputError
from img2scene_ros.mesh.colors import srgb
from img2scene_ros.mesh.gltf import OBJECT_FRONT
from img2scene_ros.mesh.gltf import OBJECT_UP
from img2scene_ros.mesh.gltf import gltf_rotation
from img2scene_ros.types import Detection
from img2scene_ros.types import Fit
from img2scene_ros.types import Frame
from img2scene_ros.types import ObjectModel
from img2scene_ros.types import SceneObject
from img2scene_ros.types import Texture

_FARTHEST = 1e4  # metres; what is beyond is damaged, and nothing can draw it
_ROTATION_STD = 0.1  # radians; exports do not tell it


def load_scene(folder: Path, frame: Frame) -> tuple[SceneObject, ...]:
    """
    Read the objects of an export directory.

    One that was saved in a world is where it was there. Otherwise the camera is taken to be where
    it was then.

    :param frame: the latest one
    :return: objects whose state is 'out_of_view', in the frame's optical frame
    :raises InputError: the directory or a mesh cannot be read, or its world is not the frame's
    """
    path = Path(folder) / 'objects.json'
    try:
        saved = json.loads(path.read_text(), parse_constant=_refuse)
        camera_from_saved = _camera_from_saved(saved.get('world'), frame, path)
        _check_names(saved['objects'])
        return tuple(_object(path.parent, entry, camera_from_saved) for entry in saved['objects'])
    except OSError as error:
        raise InputError(
            f"cannot read '{error.filename or path}' ({error.strerror or error}); name a "
            'directory that ~/save_scene or `img2scene reconstruct` wrote') from error
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"'{path}' is not as ~/save_scene writes it ({type(error).__name__}: {error}); save "
            'the scene again') from error


def _refuse(number: str) -> None:
    raise ValueError(f'{number} is no number')


def _check_names(entries: list[dict[str, Any]]) -> None:
    ids = [entry['id'] for entry in entries]
    labels = [one['label'] for entry in entries for one in (entry, *entry['hypotheses'])]
    if len(set(ids)) < len(ids) or not all(type(one) is int and one > 0 for one in ids):
        raise ValueError(f'the ids are {ids}, but must be different whole numbers above 0')
    if not all(isinstance(label, str) for label in labels):
        raise ValueError(f'the labels are {labels}, but must be texts')


def _camera_from_saved(
    world: dict[str, Any] | None, frame: Frame, path: Path,
) -> np.ndarray:
    """Return what takes coordinates of the saved optical frame to that of the frame, (4, 4)."""
    if world is None:
        return np.eye(4)
    if frame.world_from_camera is None or frame.world_id != world['frame_id']:
        raise InputError(
            f"the scene of '{path}' was saved in the frame '{world['frame_id']}', but now the "
            f"camera is known in '{frame.world_id or frame.frame_id}'; set target_frame to "
            f"'{world['frame_id']}'")
    return np.linalg.inv(frame.world_from_camera) @ np.array(world['from_camera'], float)


def _object(folder: Path, entry: dict[str, Any], camera_from_saved: np.ndarray) -> SceneObject:
    turn = camera_from_saved[:3, :3]
    position = turn @ np.array(entry['position_m'], float) + camera_from_saved[:3, 3]
    if not np.abs(position).max() < _FARTHEST:
        raise ValueError(f"position_m is {entry['position_m']}")
    rotation = turn @ Rotation.from_quat(entry['orientation_xyzw']).as_matrix()
    axes = np.kron(np.eye(2), turn)
    deviations = np.append(entry['position_std_m'], np.full(3, _ROTATION_STD))
    vertices, faces, colors, texture = _mesh(folder / entry['mesh'])
    model = ObjectModel(
        vertices, faces, colors, position, rotation, entry['reconstructor'], texture,
        _fit(entry.get('fit')))
    names = tuple((one['label'], float(one['probability'])) for one in entry['hypotheses'])
    return SceneObject(
        id=int(entry['id']), position=position, rotation=rotation, model=model,
        detection=Detection(
            entry['label'], float(entry['score']), np.array(entry['bbox_xyxy_px'], float),
            hypotheses=names),
        covariance=axes @ np.diag(deviations ** 2) @ axes.T, depth_source=entry['depth_source'],
        note=entry.get('note', ''), state='out_of_view')


def _fit(entry: dict[str, Any] | None) -> Fit | None:
    return None if entry is None else Fit(entry['silhouette_iou'], entry['depth_residual_m'])


def _mesh(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, Texture | None]:
    """
    Read a GLB file that `gltf.glb` wrote.

    :return: vertices (V, 3), faces (F, 3), colours (V, 3) and texture, as of `ObjectModel`
    :raises InputError: it is of another format
    """
    import trimesh

    path = path.with_suffix('.glb') if path.with_suffix('.glb').exists() else path
    if path.suffix != '.glb':
        raise InputError(
            f"the mesh '{path}' is no GLB file; save scenes with glb among export.formats")
    try:
        mesh, = trimesh.load_scene(path, process=False).geometry.values()
    except OSError:
        raise
    except Exception as error:  # whatever trimesh makes of a damaged file
        raise InputError(
            f"the mesh '{path}' cannot be read ({error}); save the scene again") from error
    if not np.isfinite(mesh.vertices).all() or not len(mesh.faces):
        raise InputError(f"the mesh '{path}' is empty or damaged; save the scene again")
    # Vertices on the edges of charts were split.
    vertices, first, joined = np.unique(
        mesh.vertices, axis=0, return_index=True, return_inverse=True)
    rotation = gltf_rotation(OBJECT_UP, OBJECT_FRONT)
    vertices = (vertices @ rotation).astype(np.float32)
    faces = joined.reshape(-1)[mesh.faces].astype(np.int32)
    picture = getattr(getattr(mesh.visual, 'material', None), 'baseColorTexture', None)
    if picture is None:
        return vertices, faces, srgb(mesh.visual.vertex_attributes['color'][first, :3]), None
    image, uv = np.array(picture.convert('RGB')), mesh.visual.uv[mesh.faces]
    uv = np.stack([uv[..., 0], 1.0 - uv[..., 1]], axis=-1)  # trimesh counts from the lower edge
    size = np.array(image.shape[1::-1]) - 1
    columns, rows = np.round(np.clip(uv, 0, 1) * size).astype(int).reshape(-1, 2).T
    colors = np.zeros((len(vertices), 3), np.uint8)
    colors[faces.ravel()] = image[rows, columns]
    return vertices, faces, colors, Texture(image, uv.astype(np.float32))
