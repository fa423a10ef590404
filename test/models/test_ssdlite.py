# SPDX-License-Identifier: Apache-2.0
"""
The detector against its original: the ONNX file of TensorFlow's published weights.

`ssdlite_onnx.npz` holds what ONNX Runtime 1.32 made of the recorded frame ycb_1, for about a
hundred anchors: with the published weights, and with the published graph and the weights as they
are stored here, in half precision. A file named in IMG2SCENE_SSDLITE_ONNX is run here and now.
"""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from img2scene_ros.models.networks import build_network
from img2scene_ros.models.networks import load_network
from img2scene_ros.models.ssdlite import SsdLite
from img2scene_ros.weights import bundled

pytestmark = pytest.mark.usefixtures('one_thread')

REFERENCE = Path(__file__).parent / 'ssdlite_onnx.npz'
ONNX = os.environ.get('IMG2SCENE_SSDLITE_ONNX', '')
# COCO numbers its 80 classes from 1 to 90.
UNUSED = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
COLUMNS = [number for number in range(1, 91) if number not in UNUSED]


@pytest.fixture(scope='module')
def reference():
    with np.load(REFERENCE) as arrays:
        return dict(arrays)


@pytest.fixture(scope='module')
def picture(recorded):
    """(300, 300, 3) RGB."""
    return cv2.resize(recorded('ycb_1').color, (300, 300))


@pytest.fixture(scope='module')
def network():
    return load_network(bundled('coco'), SsdLite)


@torch.inference_mode()
def answers(network, picture):
    """Return codes (A, 4) and scores (A, 80)."""
    batch = torch.from_numpy(picture).permute(2, 0, 1)[None].float()
    codes, logits = network.outputs(batch / 127.5 - 1.0)
    return codes[0].numpy(), logits[0].sigmoid().numpy()


def test_network_computes_what_onnx_runtime_does_with_the_same_weights(
        network, picture, reference):
    codes, scores = answers(network, picture)
    rows = reference['rows']
    np.testing.assert_allclose(codes[rows], reference['half_codes'], atol=1e-3)
    np.testing.assert_allclose(scores[rows], reference['half_scores'], atol=1e-3)


def test_half_precision_moves_scores_by_less_than_a_hundredth(network, picture, reference):
    codes, scores = answers(network, picture)
    rows = reference['rows']
    np.testing.assert_allclose(codes[rows], reference['codes'], atol=0.1)
    np.testing.assert_allclose(scores[rows], reference['scores'], atol=0.01)


@pytest.mark.skipif(not ONNX, reason='IMG2SCENE_SSDLITE_ONNX names no ONNX file')
def test_network_answers_as_the_onnx_file_does_in_opencv(network, picture):
    original = cv2.dnn.readNetFromONNX(ONNX)
    original.setInput(picture[None].astype(np.float32) / 127.5 - 1.0)
    expected = {out.shape[-1]: out[0] for out in original.forward(
        original.getUnconnectedOutLayersNames())}
    codes, scores = answers(network, picture)
    np.testing.assert_allclose(codes, expected[4], atol=0.1)
    np.testing.assert_allclose(scores, expected[91][:, COLUMNS], atol=0.01)


@torch.inference_mode()
def test_boxes_follow_the_thing(network, picture):
    """A picture moved by a quarter of its width moves the surest box by as much."""
    black = np.zeros_like(picture)
    black[:, 75:] = picture[:, :225]
    pictures = torch.from_numpy(np.stack([picture, black])).permute(0, 3, 1, 2).float()
    boxes, scores = network(pictures)
    bottle = 39
    best = scores[..., bottle].argmax(dim=1)
    moved = boxes[1, best[1], ::2] - boxes[0, best[0], ::2]
    np.testing.assert_allclose(moved.numpy(), 0.25, atol=0.03)


@pytest.mark.parametrize('size', (224, 300))
@torch.inference_mode()
def test_anchors_fit_the_maps_at_any_size(size):
    boxes, scores = build_network('ssdlite', size=size, classes=3)(torch.zeros(1, 3, size, size))
    assert boxes.shape[:2] == scores.shape[:2] and scores.shape[2] == 3


def test_anchors_tile_the_picture():
    """Every cell's square anchor of a map is centred in it; SSD's paper, section 2.2."""
    anchors = SsdLite().anchors.numpy()
    assert len(anchors) == 1917
    counts = [(19, 3), (10, 6), (5, 6), (3, 6), (2, 6), (1, 6)]
    start = 0
    for cells, each in counts:
        rows = anchors[start:start + cells ** 2 * each].reshape(cells, cells, each, 4)
        start += cells ** 2 * each
        middles = (np.arange(cells) + 0.5) / cells
        np.testing.assert_allclose(rows[:, :, 0, 0], np.repeat(middles[:, None], cells, 1),
                                   rtol=1e-6)
        np.testing.assert_allclose(rows[:, :, 0, 1], np.repeat(middles[None], cells, 0), rtol=1e-6)
    assert start == len(anchors)
