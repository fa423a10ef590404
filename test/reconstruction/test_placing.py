# SPDX-License-Identifier: Apache-2.0
"""Placing meshes that are known up to size, place and a small turn: against where they were."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from img2scene_ros.camera import Camera
from img2scene_ros.depth import DepthNoise
from img2scene_ros.detection import bbox_of
from img2scene_ros.errors import ReconstructionError
from img2scene_ros.localization import object_axes
from img2scene_ros.localization.plane import PlaneDistance
from img2scene_ros.localization.sensor import SensorDistance
from img2scene_ros.models.crop import crop_view
from img2scene_ros.reconstruction.fit import measured_fit
from img2scene_ros.reconstruction.placing import placed
from img2scene_ros.rendering.raycast import Surface
from img2scene_ros.rendering.raycast import look_at
from img2scene_ros.rendering.raycast import render
from img2scene_ros.types import Detection
from img2scene_ros.types import Frame
from img2scene_ros.types import ObjectModel
from img2scene_ros.types import Placement
from img2scene_ros.types import Sighting
from img2scene_ros.types import SupportPlane

CAMERA = Camera(640, 480, 600.0, 610.0, 310.0, 250.0)


def jug() -> trimesh.Trimesh:
    """Return a jug without any symmetry, standing on z = 0, metres."""
    body = trimesh.creation.cylinder(0.05, 0.16, sections=48).apply_translation((0, 0, 0.08))
    handle = trimesh.creation.torus(0.035, 0.008).apply_transform(
        trimesh.transformations.rotation_matrix(np.pi / 2, (1, 0, 0)))
    handle.apply_translation((0, 0.0, 0.09)).apply_translation((0.075, 0, 0))
    spout = trimesh.creation.box((0.05, 0.02, 0.03)).apply_translation((-0.02, -0.06, 0.145))
    return trimesh.util.concatenate([body, handle, spout])


def stool() -> trimesh.Trimesh:
    """Return a stool with a back on one side, standing on z = 0, metres."""
    legs = [trimesh.creation.box((0.04, 0.04, 0.4)).apply_translation((x, y, 0.2))
            for x in (-0.15, 0.15) for y in (-0.12, 0.12)]
    seat = trimesh.creation.box((0.38, 0.3, 0.04)).apply_translation((0, 0, 0.42))
    back = trimesh.creation.box((0.3, 0.03, 0.25)).apply_translation((-0.04, 0.13, 0.56))
    return trimesh.util.concatenate([*legs, seat, back])


class Shot:
    """
    An object on a table, photographed.

    :param at: (2,) metres, where it stands on the table
    :param before: extents and middle of a box that stands in front of it
    """

    def __init__(
        self, mesh: trimesh.Trimesh, distance: float, elevation: float = 30.0,
        at: tuple[float, float] = (0.0, 0.0), yaw: float = 0.6,
        before: tuple[tuple[float, ...], tuple[float, ...]] | None = None,
    ) -> None:
        mesh = mesh.copy().apply_transform(
            trimesh.transformations.rotation_matrix(yaw, (0, 0, 1)))
        mesh.apply_translation((*at, 0))
        rise = np.radians(elevation)
        eye = distance * np.array([np.cos(rise), 0, np.sin(rise)])
        pose = look_at(eye, np.array([0, 0, 0.5 * mesh.bounds[1, 2]]), np.array([0, 0, 1.0]))
        table = trimesh.creation.box((4, 4, 0.02)).apply_translation((0, 0, -0.01))
        things = [table, mesh]
        if before is not None:
            things.append(trimesh.creation.box(before[0]).apply_translation(before[1]))
        self.seen = render([
            Surface(thing.vertices, thing.faces, np.full((len(thing.vertices), 3), 120), id)
            for id, thing in enumerate(things)], CAMERA, pose)
        back = np.linalg.inv(pose)
        self.faces = mesh.faces
        self.points = mesh.vertices @ back[:3, :3].T + back[:3, 3]
        self.support = SupportPlane(pose[2, :3], float(pose[2, 3]))

    def sighting(self, knows: str = 'depth', wider: int = 0) -> Sighting:
        """
        Return the object as a pipeline would.

        :param knows: 'depth' (noisy, and the plane), 'plane', or 'nothing'
        :param wider: pixels by which the mask is too wide
        """
        mask = (self.seen.ids == 1).astype(np.uint8)
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * abs(wider) + 1,) * 2)
        mask = (cv2.dilate if wider > 0 else cv2.erode)(mask, kernel) > 0
        depth = self.seen.depth
        std = DepthNoise().std(depth, CAMERA.fx)
        noise = np.random.default_rng(0).normal(size=depth.shape) * std
        frame = Frame(self.seen.color, CAMERA, (depth + noise).astype(np.float32)
                      if knows == 'depth' else None)
        detection = Detection('thing', 1.0, bbox_of(mask), mask)
        position = self.points.mean(axis=0)
        placement = {
            'depth': lambda: SensorDistance().place(frame, detection, self.support),
            'plane': lambda: PlaneDistance().place(frame, detection, self.support),
            'nothing': lambda: Placement(
                1.2 * position, object_axes(position, np.array([0, -1.0, 0])), np.ones(3),
                0.2 * position, 'fixed')}[knows]()
        return Sighting(frame, detection, placement)

    def answer(self, sighting: Sighting, turn: float = 0.0) -> np.ndarray:
        """Return the true mesh as a network answers: in view axes, of another size, elsewhere."""
        view = crop_view(CAMERA, sighting.detection.bbox)
        off = Rotation.from_rotvec(np.radians(turn) * np.array([0.6, 0.64, -0.48])).as_matrix()
        return 7.0 * (self.points @ view.rotation @ off.T) + (3.0, -40.0, 5.0)

    def placed(self, sighting: Sighting, turn: float = 0.0) -> ObjectModel:
        vertices = self.answer(sighting, turn)
        return placed(
            vertices, self.faces, np.full((len(vertices), 3), 90, np.uint8), sighting, 'mine')

    def errors(self, model: ObjectModel) -> tuple[float, float, float]:
        """Return the errors of place and size as shares, and of the turn in degrees."""
        found = model.points
        both = [points - points.mean(axis=0) for points in (found, self.points)]
        size = np.linalg.norm(both[0]) / np.linalg.norm(both[1])
        turn, _ = Rotation.align_vectors(*both)
        away = np.linalg.norm(found.mean(axis=0) - self.points.mean(axis=0))
        return (away / np.linalg.norm(self.points.mean(axis=0)), abs(size - 1),
                float(np.degrees(turn.magnitude())))


SHOTS = [lambda: Shot(jug(), 0.7), lambda: Shot(jug(), 0.9, 55.0, (0.1, 0.25), 2.4),
         lambda: Shot(stool(), 2.0), lambda: Shot(stool(), 1.8, 20.0, (0.0, -0.4), -2.0)]


@pytest.mark.parametrize('shot', SHOTS)
@pytest.mark.parametrize('turn', [0.0, 5.0])
@pytest.mark.parametrize('wider', [0, 2, -2])
def test_depth_gives_place_and_size_back(shot, turn, wider):
    """The network's view may be off by some degrees, the mask by two pixels."""
    shot = shot()
    model = shot.placed(shot.sighting('depth', wider), turn)
    place, size, left = shot.errors(model)
    assert place < 0.01 and size < 0.03
    assert left < max(2.0, 0.7 * turn)
    assert model.fit.depth_residual < 0.004


@pytest.mark.parametrize('shot', SHOTS)
@pytest.mark.parametrize('turn', [0.0, 5.0])
def test_without_depth_the_plane_gives_them(shot, turn):
    """The mesh stands on the plane."""
    shot = shot()
    model = shot.placed(shot.sighting('plane'), turn)
    place, size, _ = shot.errors(model)
    assert place < 0.02 and size < 0.03
    found = model.points
    assert abs(shot.support.height(found).min()) < 1e-4


@pytest.mark.parametrize('shot', SHOTS)
def test_without_either_it_lies_in_the_right_direction(shot):
    """All that is known is a distance that is 20 % too long: so is the size."""
    shot = shot()
    model = shot.placed(shot.sighting('nothing'))
    found = model.points
    assert np.linalg.norm(found.mean(axis=0)) == pytest.approx(
        1.2 * np.linalg.norm(shot.points.mean(axis=0)), rel=0.1)
    looks = CAMERA.project(found), CAMERA.project(shot.points)
    assert np.abs(looks[0] - looks[1]).max() < 0.03 * np.ptp(looks[1], axis=0).max()
    assert model.fit.silhouette_iou > 0.95 and model.fit.depth_residual is None


@pytest.mark.parametrize('before, most', [
    (((0.03, 0.2, 0.12), (0.14, -0.08, 0.06)), 0.75), (((0.03, 0.06, 0.2), (0.14, 0, 0.1)), 0.4)])
def test_what_something_hides_is_no_evidence(before, most):
    """A board hides a corner, a post the middle; the mask is much smaller than the object."""
    open, hidden = Shot(jug(), 0.7), Shot(jug(), 0.7, before=before)
    sighting = hidden.sighting()
    share = np.count_nonzero(sighting.detection.mask) / np.count_nonzero(
        open.sighting().detection.mask)
    assert share < most
    model = hidden.placed(sighting)
    place, size, _ = hidden.errors(model)
    assert place < 0.02 and size < 0.03
    assert model.fit.silhouette_iou > 0.9


@pytest.mark.parametrize('at', [(0.0, -0.36), (0.0, 0.36)])
def test_picture_border_may_cut_the_object(at):
    shot = Shot(jug(), 0.7, at=at)
    sighting = shot.sighting()
    full = CAMERA.project(shot.points)
    assert full[:, 0].min() < -15 or full[:, 0].max() > 655
    model = shot.placed(sighting)
    place, size, _ = shot.errors(model)
    assert place < 0.02 and size < 0.03
    assert model.fit.silhouette_iou > 0.9


def test_model_is_in_the_object_frame():
    """Its origin is the middle of its box; z is up; faces and colours are as they were."""
    shot = Shot(jug(), 0.7)
    sighting = shot.sighting()
    model = shot.placed(sighting)
    np.testing.assert_allclose(model.vertices.min(axis=0), -model.vertices.max(axis=0), atol=1e-6)
    assert model.rotation is sighting.placement.rotation and model.reconstructor == 'mine'
    assert model.vertices.dtype == np.float32 and model.faces.dtype == np.int32
    assert model.rotation[:, 2] @ shot.support.normal > 0.999
    assert model.size[2] == pytest.approx(0.16, rel=0.04)


def test_fit_tells_right_from_wrong():
    """The true mesh fits; another shape, one too small and one behind do not."""
    shot = Shot(jug(), 0.7)
    sighting = shot.sighting()
    good = shot.placed(sighting)
    assert good.fit.silhouette_iou > 0.95 and good.fit.depth_residual < 0.003
    ball = trimesh.creation.icosphere(3)
    pen = trimesh.creation.box((0.1, 1.0, 0.1))
    for mesh, most in ((ball, 0.85), (pen, 0.5)):
        wrong = placed(mesh.vertices, mesh.faces, np.zeros((len(mesh.vertices), 3), np.uint8),
                       sighting, 'mine')
        assert wrong.fit.silhouette_iou < most
    small = measured_fit(replace(good, vertices=0.5 * good.vertices), sighting)
    assert small.silhouette_iou == pytest.approx(0.25, abs=0.07)
    behind = replace(good, position=1.1 * good.position, vertices=1.1 * good.vertices)
    fit = measured_fit(behind, sighting)
    assert fit.silhouette_iou > 0.95, 'it looks the same'
    assert fit.depth_residual == pytest.approx(
        0.1 * np.nanmedian(sighting.frame.depth[sighting.detection.mask]), rel=0.05)


def test_without_a_mask_the_box_counts_and_there_is_no_fit():
    shot = Shot(stool(), 2.0)
    sighting = shot.sighting('plane')
    bare = replace(sighting, detection=replace(sighting.detection, mask=None))
    model = shot.placed(bare)
    place, size, _ = shot.errors(model)
    assert place < 0.02 and size < 0.03 and model.fit is None


def test_what_shows_nothing_is_one_sentence():
    shot = Shot(jug(), 0.7)
    sighting = shot.sighting()
    empty = np.zeros((480, 640), bool)
    pixel = empty.copy()
    pixel[200, 300] = True
    for mask, words in ((empty, 'mask'), (pixel, '8 pixels')):
        with pytest.raises(ReconstructionError, match=words) as caught:
            shot.placed(replace(sighting, detection=replace(sighting.detection, mask=mask)))
        assert '\n' not in str(caught.value)
