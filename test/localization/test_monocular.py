# SPDX-License-Identifier: Apache-2.0
"""Places by a depth network: a tiny checkpoint of known answer, and some that cannot be used."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from pinhole import FRAME
from pinhole import ball_ahead
from pinhole import floor

from img2scene_ros.errors import InputError
from img2scene_ros.errors import MissingDependencyError
from img2scene_ros.localization.combine import sources_of
from img2scene_ros.localization.monocular import MonocularDistance
from img2scene_ros.localization.monocular import MonocularOptions
from img2scene_ros.localization.monocular import is_at_hand
from img2scene_ros.types import Detection
from img2scene_ros.types import Frame

pytestmark = pytest.mark.usefixtures('one_thread')
DEPTH = 1.5  # metres, what the checkpoint sees everywhere
CUP = Detection('cup', 0.9, np.array([300.0, 200.0, 360.0, 300.0]))


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny metric Depth Anything, whose last layer answers 1.5 m whatever it sees."""
    folder = tmp_path_factory.mktemp('depth')
    backbone = transformers.Dinov2Config(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, mlp_ratio=2, image_size=56,
        patch_size=14, out_indices=[1, 2, 3, 4], apply_layernorm=True, reshape_hidden_states=False)
    model = transformers.DepthAnythingForDepthEstimation(transformers.DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=16, neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8, head_hidden_size=8, depth_estimation_type='metric', max_depth=20))
    model.head.conv3.weight.data.zero_()
    share = torch.tensor(DEPTH / 20)
    model.head.conv3.bias.data.fill_(torch.logit(share))
    model.save_pretrained(folder)
    transformers.DPTImageProcessorPil(
        size={'height': 56, 'width': 56}, keep_aspect_ratio=True, ensure_multiple_of=14,
    ).save_pretrained(folder)
    return folder


@pytest.fixture
def source(checkpoint: Path) -> MonocularDistance:
    """Return a source that runs the checkpoint on the CPU."""
    return MonocularDistance(MonocularOptions(checkpoint=str(checkpoint), device='cpu'))


def test_the_middle_lies_a_little_behind_the_depth_that_the_network_sees(
    source: MonocularDistance,
) -> None:
    """The place is on the line of sight; by similar triangles the cup is 17 cm wide."""
    found = source.place(FRAME, CUP, floor(30))
    width = 60 * DEPTH / 520
    assert 0.1 * width < found.position[2] - DEPTH < 0.6 * width
    assert FRAME.camera.project(found.position) == pytest.approx((329.5, 249.5))
    scale = found.position[2] / DEPTH
    assert found.size[1:] == pytest.approx((width * scale, 100 * DEPTH / 500 * scale), rel=1e-3)
    assert found.depth_source == 'monocular'
    assert found.rotation[:, 2] == pytest.approx(floor(30).normal)
    share = np.linalg.norm(found.position_std) / np.linalg.norm(found.position)
    assert share == pytest.approx(0.2, abs=0.02), 'as the option says'


def test_a_ball_on_the_optical_axis_is_placed_on_it(source: MonocularDistance) -> None:
    """Half a pixel would be 1.4 mm."""
    frame, ball, support = ball_ahead()
    found = source.place(frame, ball, support)
    assert found.position[:2] == pytest.approx((0, 0), abs=1e-5)


def test_the_depth_is_that_of_the_mask_or_of_the_inner_box(
    source: MonocularDistance, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Background at the box's edges does not count."""
    depth = np.full(FRAME.shape, 5.0, np.float32)
    depth[220:280, 310:350] = 1.0
    depth[290:300, 300:360] = 0.7
    monkeypatch.setattr(source, '_estimated', lambda frame: depth)
    inner = source.place(FRAME, CUP, None)
    assert 1.0 < inner.position[2] < 1.1
    mask = np.zeros(FRAME.shape, bool)
    mask[290:300, 300:360] = True
    masked = source.place(FRAME, replace(CUP, mask=mask), None)
    assert 0.7 < masked.position[2] < 0.8


def test_all_objects_of_a_frame_share_one_pass(source: MonocularDistance) -> None:
    """The network is slow; it runs once per picture."""
    passes = []
    source._model.register_forward_hook(lambda *_: passes.append(1))
    for box in ((10, 10, 60, 60), (100, 100, 200, 200), (300, 50, 330, 90)):
        assert source.place(FRAME, Detection('cup', 0.9, np.array(box, float)), None)
    assert len(passes) == 1
    source.place(Frame(FRAME.color, FRAME.camera), CUP, None)
    assert len(passes) == 2


def test_a_network_without_metres_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    """Relative depth has no scale."""
    folder = shutil.copytree(checkpoint, tmp_path / 'relative')
    config = json.loads((folder / 'config.json').read_text())
    (folder / 'config.json').write_text(
        json.dumps(config | {'depth_estimation_type': 'relative'}))
    with pytest.raises(InputError, match="relative' .depth_anything"):
        MonocularDistance(MonocularOptions(checkpoint=str(folder)))


@pytest.mark.parametrize('name', ['config.json', 'preprocessor_config.json', 'model.safetensors'])
def test_a_damaged_checkpoint_is_one_clear_sentence(
    name: str, checkpoint: Path, tmp_path: Path,
) -> None:
    """What is missing or cannot be read is named."""
    folder = shutil.copytree(checkpoint, tmp_path / 'damaged')
    (folder / name).write_text('{"')
    with pytest.raises(InputError, match='damaged') as caught:
        MonocularDistance(MonocularOptions(checkpoint=str(folder)))
    assert '\n' not in str(caught.value)
    if name.endswith('config.json'):
        (folder / name).unlink()
        with pytest.raises(InputError, match=f'damaged.*holds no {name}'):
            MonocularDistance(MonocularOptions(checkpoint=str(folder)))


def test_offline_it_says_what_to_do_and_auto_goes_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing is downloaded unasked; what was asked for and is not there is one sentence."""
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_CACHE', str(tmp_path / 'hub'))
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', True)
    assert not is_at_hand(MonocularOptions())
    assert sources_of('auto', {}) == ('sensor', 'plane', 'size_prior', 'fixed')
    with pytest.raises(MissingDependencyError, match='depth-anything.*size_prior'):
        MonocularDistance()
