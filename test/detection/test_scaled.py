# SPDX-License-Identifier: Apache-2.0
"""Large pictures, which are looked at in every nth row and column."""

import numpy as np
import pytest
from synthetic import box
from synthetic import camera_pose
from synthetic import can
from synthetic import tabletop_frame

from img2scene_ros.camera import Camera
from img2scene_ros.depth import DepthNoise
from img2scene_ros.detection import bbox_of
from img2scene_ros.detection import mask_iou
from img2scene_ros.detection.scaled import enlarged
from img2scene_ros.detection.scaled import reduced
from img2scene_ros.detection.scaled import reduced_detection
from img2scene_ros.detection.supports import supported
from img2scene_ros.detection.tabletop import TabletopDetector
from img2scene_ros.pipeline import Pipeline
from img2scene_ros.pipeline import PipelineOptions
from img2scene_ros.types import Detection
from img2scene_ros.types import Frame

BENT = np.array([-0.2, 0.05, 0.001, -0.002, 0.0])


@pytest.mark.parametrize('distortion', (np.zeros(0), BENT))
@pytest.mark.parametrize(('size', 'step'), (((1281, 963), 2), ((2048, 1536), 3)))
def test_points_of_a_reduced_frame_are_points_of_the_frame(
    size: tuple[int, int], step: int, distortion: np.ndarray,
) -> None:
    camera = Camera(*size, 1500.0, 1490.0, 630.0, 470.0, distortion)
    depth = np.random.default_rng(0).uniform(0.5, 2.0, size[::-1]).astype(np.float32)
    depth[40:60, 30:90] = np.nan
    frame = Frame(np.zeros((*size[::-1], 3), np.uint8), camera, depth,
                  depth_noise=DepthNoise('stereo'))
    small, found = reduced(frame)
    assert found == step
    rows, columns = (np.arange(side) * step + step // 2 for side in small.shape)
    np.testing.assert_allclose(small.points, frame.points[np.ix_(rows, columns)], atol=2e-6)
    np.testing.assert_allclose(small.depth_std(np.array(1.0)), frame.depth_std(np.array(1.0)))


def test_without_depth_or_with_few_pixels_the_frame_stays() -> None:
    for frame in (Frame(np.zeros((1536, 2048, 3), np.uint8), Camera.from_field_of_view(
            2048, 1536, 60.0)), tabletop_frame([box(0.1, 0.1, 0.1)], camera_pose(40, 0.8))[0]):
        assert reduced(frame) == (frame, 1)


@pytest.mark.parametrize('size', ((1280, 960), (2047, 1534)))
def test_masks_end_at_the_edges_of_the_full_picture(size: tuple[int, int]) -> None:
    camera = Camera.from_field_of_view(*size, 57.0)
    shapes = [can(0.04, 0.12).apply_translation((0.0, -0.1, 0.06)),
              box(0.08, 0.06, 0.1).apply_translation((0.05, 0.1, 0.05))]
    frame, ids = tabletop_frame(shapes, camera_pose(35, 0.9), camera=camera)
    found = TabletopDetector().detect(supported(frame))
    assert len(found) == 2
    small, step = reduced(frame)
    for index in (2, 3):
        truth = ids == index - 1
        one = max(found, key=lambda each: mask_iou(each.mask, truth))
        assert mask_iou(one.mask, truth) > 0.96
        there = reduced_detection(Detection('thing', 0.5, one.bbox, truth), frame, small)
        back, = enlarged([there], small, frame, step)
        repeated = np.kron(there.mask, np.ones((step, step), bool))
        whole = np.zeros(frame.shape, bool)
        whole[:repeated.shape[0], :repeated.shape[1]] = repeated
        assert mask_iou(back.mask, truth) > max(0.985, mask_iou(whole, truth))


def test_what_the_border_cuts_reaches_the_border() -> None:
    camera = Camera.from_field_of_view(2047, 1535, 57.0)  # of which no step is a divisor
    depth = np.full((1535, 2047), 1.0, np.float32)
    frame = Frame(np.zeros((1535, 2047, 3), np.uint8), camera, depth)
    small, step = reduced(frame)
    mask = np.zeros(small.shape, bool)
    mask[-100:, -200:] = True
    cut = Detection('thing', 0.5, np.array([
        small.shape[1] - 200, small.shape[0] - 100, *small.shape[::-1]], float), mask)
    back, = enlarged([cut], small, frame, step)
    assert back.mask[-1, -1] and tuple(back.bbox[2:]) == (2047, 1535)


def test_boxes_of_large_frames_get_masks_as_those_of_clusters() -> None:
    frame, ids = tabletop_frame(
        [box(0.08, 0.06, 0.1).apply_translation((0.0, 0.0, 0.05))], camera_pose(35, 0.9),
        camera=Camera.from_field_of_view(1280, 960, 57.0))
    pipeline = Pipeline(PipelineOptions(detector='tabletop', reconstructor='box'))
    pipeline.detector = _Boxes(Detection('thing', 0.5, bbox_of(ids == 1)))
    one, = pipeline.perceive(frame).objects
    assert mask_iou(one.detection.mask, ids == 1) > 0.96
    np.testing.assert_allclose(one.model.size, (0.08, 0.06, 0.1), atol=0.006)


class _Boxes:
    """A detector without masks."""

    def __init__(self, *found: Detection) -> None:
        self.found = list(found)

    def detect(self, frame: Frame) -> list[Detection]:
        return self.found
