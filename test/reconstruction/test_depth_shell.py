# SPDX-License-Identifier: Apache-2.0
"""`depth_shell` on recorded and on drawn objects: closed, in the right place, the right size."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import trimesh
from rebuilt import assert_closed
from rebuilt import occupancy
from synthetic import bowl
from synthetic import box
from synthetic import camera_pose
from synthetic import can
from synthetic import tabletop_frame

from img2scene_ros.detection import bbox_of
from img2scene_ros.detection.supports import supported
from img2scene_ros.errors import ReconstructionError
from img2scene_ros.localization.sensor import SensorDistance
from img2scene_ros.reconstruction.depth_shell import DepthShellOptions
from img2scene_ros.reconstruction.depth_shell import DepthShellReconstructor
from img2scene_ros.rendering.raycast import Surface
from img2scene_ros.rendering.raycast import render
from img2scene_ros.types import Detection
from img2scene_ros.types import Frame
from img2scene_ros.types import ObjectModel
from img2scene_ros.types import Scene
from img2scene_ros.types import Sighting

TABLE_FRAMES = ('table_blue_mug', 'table_cracker_box', 'table_green_bowl',
                'table_mustard_bottle', 'table_pepper_can')


def rebuild(frame: Frame, mask: np.ndarray, **options: int) -> ObjectModel:
    """Rebuild what a mask shows."""
    detection = Detection('object', 1.0, bbox_of(mask), mask)
    placement = SensorDistance().place(frame, detection, supported(frame).support)
    return DepthShellReconstructor(DepthShellOptions(**options)).reconstruct(
        Sighting(frame, detection, placement))


def volume_iou(model: ObjectModel, truth: trimesh.Trimesh, pose: np.ndarray) -> float:
    """Return the shared share of two solids; the truth is in the table's coordinates."""
    vertices = model.points @ pose[:3, :3].T + pose[:3, 3]
    low = np.minimum(vertices.min(axis=0), truth.bounds[0])
    high = np.maximum(vertices.max(axis=0), truth.bounds[1])
    points = np.random.default_rng(0).uniform(low, high, (20000, 3))
    ours = occupancy(vertices, model.faces, points)
    theirs = occupancy(truth.vertices, truth.faces, points)
    return (ours & theirs).sum() / (ours | theirs).sum()


@pytest.mark.parametrize('name', TABLE_FRAMES)
def test_recorded_object(
    name: str, scene_of: Callable[[str], Scene], recorded: Callable[[str], Frame],
    frames_folder: Path,
) -> None:
    """One closed mesh of the measured height, whose silhouette is the object's."""
    frame, (found,) = recorded(name), scene_of(name).objects
    assert_closed(found.model)
    measured = json.loads((frames_folder / name / 'measured.json').read_text())
    assert found.model.size[2] == pytest.approx(measured['height_above_table_m'], abs=0.005)
    seen = render(
        [Surface(found.points, found.model.faces, found.model.colors, id=1)], frame.camera)
    truth = cv2.imread(str(frames_folder / name / 'mask.png'), cv2.IMREAD_UNCHANGED) > 0
    silhouette = seen.ids == 1
    assert (silhouette & truth).sum() / (silhouette | truth).sum() >= 0.85
    # The seen side of the mesh is the measured surface.
    gap = np.abs(seen.depth - frame.depth)[silhouette & found.detection.mask]
    assert np.nanmedian(gap) < 0.002


# Products' heights and widths in metres, where they stand upright and unoccluded; pixels on them.
PRODUCTS = {
    'mustard bottle': ('ycb_1', (365, 290), 0.190, None),
    'soup can behind the bottle': ('ycb_1', (440, 290), 0.102, None),
    'bleach': ('ycb_2', (265, 100), 0.250, None),
    'master chef can': ('ycb_2', (345, 290), 0.140, None),
    'soup can': ('ycb_3', (230, 400), 0.102, 0.068),
}


@pytest.mark.slow
@pytest.mark.parametrize('product', PRODUCTS)
def test_size_of_real_products(product: str, scene_of: Callable[[str], Scene]) -> None:
    """Sizes are within a tenth of what the product measures."""
    name, (u, v), height, width = PRODUCTS[product]
    found = [one for one in scene_of(name).objects if one.detection.mask[v, u]]
    assert len(found) == 1
    assert found[0].model.size[2] == pytest.approx(height, rel=0.1)
    if width:
        assert found[0].model.size[:2] == pytest.approx((width, width), rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize('name', ('ycb_1', 'ycb_2', 'ycb_3'))
def test_all_meshes_of_a_cluttered_scene(name: str, scene_of: Callable[[str], Scene]) -> None:
    """Every object, occluded or not, gets a closed mesh of at most the wished triangles."""
    for found in scene_of(name).objects:
        assert found.model.reconstructor == 'depth_shell'
        assert_closed(found.model)
        assert len(found.model.faces) <= DepthShellOptions().max_triangles


@pytest.mark.parametrize('elevation', (20, 35, 55))
@pytest.mark.parametrize('shape, least', (
    (box(0.06, 0.16, 0.2), 0.85), (box(0.12, 0.1, 0.08), 0.85), (can(0.035, 0.1), 0.85),
    (can(0.05, 0.18), 0.85), (box(0.18, 0.1, 0.04), 0.8)))
def test_hidden_side_is_completed(
    shape: trimesh.Trimesh, least: float, elevation: float,
) -> None:
    """Volume, size and place agree with the truth, though half of the object is hidden."""
    shape = shape.copy().apply_transform(
        trimesh.transformations.rotation_matrix(0.5, (0, 0, 1)))
    pose = camera_pose(elevation, 0.8)
    frame, truth = tabletop_frame([shape], pose)
    model = rebuild(frame, truth == 1)
    assert_closed(model)
    assert volume_iou(model, shape, pose) > least
    center = pose[:3, :3] @ model.position + pose[:3, 3]
    assert np.linalg.norm(center - shape.bounds.mean(axis=0)) < 0.008
    assert model.size[2] == pytest.approx(shape.extents[2], abs=0.003)


def test_a_bowl_stays_hollow() -> None:
    """The free space seen inside a bowl is not filled."""
    pose, shape = camera_pose(45, 0.7), bowl(0.08, 0.07)
    frame, truth = tabletop_frame([shape], pose)
    model = rebuild(frame, truth == 1)
    assert_closed(model)
    inside = np.array([(0, 0, 0.05), (0.02, 0, 0.05), (-0.03, 0, 0.05), (0, 0.03, 0.05)])
    assert not occupancy(model.points @ pose[:3, :3].T + pose[:3, 3], model.faces, inside).any()


def test_colour_is_the_pictures() -> None:
    """Every vertex of a one-coloured object has its colour, hidden ones included."""
    frame, truth = tabletop_frame([can(0.04, 0.12)], camera_pose(35, 0.8))
    color = frame.color.copy()
    color[truth == 1] = (200, 40, 10)
    model = rebuild(Frame(color, frame.camera, frame.depth), truth == 1)
    assert (model.colors == (200, 40, 10)).all(axis=1).mean() > 0.99


def test_without_support_it_closes_at_what_is_seen() -> None:
    """An object that stands on nothing seen (held by a gripper) is closed as well."""
    frame, truth = tabletop_frame([can(0.04, 0.12)], camera_pose(30, 0.8))
    detection = Detection('object', 1.0, bbox_of(truth == 1), truth == 1)
    placement = SensorDistance().place(frame, detection, None)
    assert placement.support is None
    model = DepthShellReconstructor().reconstruct(Sighting(frame, detection, placement))
    assert_closed(model)
    assert 0.05 < model.size.max() < 0.2


def test_cut_by_the_border() -> None:
    """An object half outside the picture is closed as well."""
    shape = box(0.12, 0.12, 0.1).apply_translation((0, 0.42, 0))
    frame, truth = tabletop_frame([shape], camera_pose(35, 0.8))
    model = rebuild(frame, truth == 1)
    assert_closed(model)
    assert model.size.max() < 0.25


def test_triangles_are_a_parameter() -> None:
    """Fewer triangles are asked for, fewer come, and the mesh stays closed."""
    frame, truth = tabletop_frame([can(0.04, 0.12)], camera_pose(35, 0.8))
    model = rebuild(frame, truth == 1, max_triangles=1000)
    assert len(model.faces) <= 1000
    assert_closed(model)


def test_too_little_is_one_clear_sentence() -> None:
    """No mask, no depth, and too few readings each say so."""
    frame, truth = tabletop_frame([can(0.04, 0.12)], camera_pose(35, 0.8))
    mask = truth == 1
    detection = Detection('object', 1.0, bbox_of(mask), mask)
    placement = SensorDistance().place(frame, detection, supported(frame).support)
    few = mask & (np.cumsum(mask).reshape(mask.shape) < 20)
    for sighting in (
            Sighting(frame, Detection('object', 1.0, bbox_of(mask)), placement),
            Sighting(Frame(frame.color, frame.camera), detection, placement),
            Sighting(frame, Detection('object', 1.0, bbox_of(few), few), placement)):
        with pytest.raises(ReconstructionError):
            DepthShellReconstructor().reconstruct(sighting)
