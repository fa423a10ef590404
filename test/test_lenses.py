# SPDX-License-Identifier: Apache-2.0
"""Wide lenses of every model, from the frame to the pictures of the export, against the truth."""

import cv2
import numpy as np
import pytest
from synthetic import GEOMETRIC
from synthetic import box
from synthetic import camera_pose
from synthetic import can
from synthetic import tabletop_frame

from img2scene_ros.camera import Camera
from img2scene_ros.errors import ReconstructionError
from img2scene_ros.models.crop import crop_view
from img2scene_ros.pipeline import Pipeline
from img2scene_ros.pipeline import parse_settings
from img2scene_ros.scene.export import export_scene

# Focal length in pixels at 400 x 300, coefficients and model.
LENSES = {
    'pinhole of 114 degrees': (130.0, [], 'plumb_bob'),
    'barrel': (262.0, [-0.3, 0, 0, 0], 'plumb_bob'),
    'rational': (187.0, [5.7, 3.8, -1e-4, 1e-4, 0.2, 6.0, 5.6, 1.1], 'rational_polynomial'),
    'thin prism': (262.0, [-0.2, 0.03, 1e-3, -1e-3, 0, 0, 0, 0, 4e-3, -2e-3, 3e-3, 2e-3],
                   'rational_polynomial'),
    'tilted': (262.0, [-0.2, 0.03, 1e-3, -1e-3, 0, 0, 0, 0, 4e-3, -2e-3, 3e-3, 2e-3, 0.02, -0.03],
               'rational_polynomial'),
    'fisheye': (156.0, [-0.01, 0.003, -0.002, 4e-4], 'equidistant'),
    'ideal fisheye of 183 degrees': (125.0, [0.0, 0.0, 0.0, 0.0], 'equidistant'),
}


def lens(name: str) -> Camera:
    focal, distortion, model = LENSES[name]
    return Camera(400, 300, focal, focal, 199.5, 149.5, np.array(distortion, float), model)


@pytest.mark.parametrize('name', LENSES)
def test_objects_get_their_place_and_size_through_any_lens(tmp_path, name):
    camera, pose = lens(name).resized(320, 240), camera_pose(40.0, 0.4)
    truths = [can(0.035, 0.1), box(0.06, 0.05, 0.1).apply_translation((-0.02, 0.16, 0))]
    frame, _ = tabletop_frame(truths, pose, camera=camera)
    scene = Pipeline(*parse_settings(GEOMETRIC | {'depth_shell.resolution': 32})).run(frame)
    export_scene(tmp_path / 'out', scene)
    assert cv2.imread(str(tmp_path / 'out/scene.png')).any()
    assert len(scene.objects) == len(truths)
    to_camera = np.linalg.inv(pose)
    for truth in truths:
        middle = to_camera[:3, :3] @ truth.bounds.mean(axis=0) + to_camera[:3, 3]
        found = min(scene.objects, key=lambda one: np.linalg.norm(one.position - middle))
        assert found.model.reconstructor == 'depth_shell' and not found.note
        assert found.model.texture is not None and found.model.fit.silhouette_iou > 0.8
        points = found.points @ pose[:3, :3].T + pose[:3, 3]
        bounds = np.array([points.min(axis=0), points.max(axis=0)])
        np.testing.assert_allclose(bounds.mean(axis=0), truth.bounds.mean(axis=0), atol=0.008)
        np.testing.assert_allclose(np.ptp(bounds, axis=0), truth.extents, atol=0.016)


def test_what_the_lens_model_folds_back_has_no_pixel():
    """With k1 = -0.3 pictures end where r (1 - 0.3 r^2) is greatest: at r = 1 / sqrt(0.9)."""
    camera, end = lens('barrel'), 1.0 / np.sqrt(0.9)
    rays = np.array([[0.99 * end, 0.0, 1.0], [0.0, 1.01 * end, 1.0], [1.5 * end, 0.0, 1.0]])
    pixels = camera.project(rays)
    assert np.isfinite(pixels[0]).all() and np.isnan(pixels[1:]).all()


def test_a_fisheye_lens_without_coefficients_is_no_pinhole():
    """A pixel's distance from the middle is the focal length times the angle."""
    camera = lens('ideal fisheye of 183 degrees')
    angles = np.linspace(0.0, 1.5, 7)
    pixels = camera.project(np.stack([np.sin(angles), 0 * angles, np.cos(angles)], axis=-1))
    np.testing.assert_allclose(pixels[:, 0], 199.5 + 125.0 * angles, atol=1e-6)


def test_readings_that_the_lens_model_does_not_reach_are_none():
    frame, _ = tabletop_frame([can(0.05, 0.1)], camera_pose(40.0, 0.4), camera=lens('barrel'))
    readings = np.isfinite(frame.depth)
    assert readings.any() and np.isfinite(frame.points[readings]).all()
    full = type(frame)(frame.color, frame.camera, np.ones(frame.shape, np.float32))
    assert np.isnan(full.depth).any() and np.isfinite(full.points[np.isfinite(full.depth)]).all()


def test_a_box_whose_corner_the_lens_does_not_reach_has_a_view():
    """And one that spans more than half the space is refused."""
    view = crop_view(lens('barrel'), np.array([150.0, 2.0, 390.0, 200.0]))
    assert np.isfinite(view.half_field) and np.isfinite(view.rotation).all()
    with pytest.raises(ReconstructionError, match='box'):
        crop_view(lens('ideal fisheye of 183 degrees'), np.array([0.0, 0.0, 400.0, 300.0]))
