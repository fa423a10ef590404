# SPDX-License-Identifier: Apache-2.0
"""
Segmenters of every family, as tiny checkpoints with random weights, saved as real ones are.

What they find means nothing; so their outputs are replaced by known ones where it matters that
prompts, sizes and coordinates are right.
"""

import json
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import checkpoints
import cv2
import numpy as np
import pytest
import torch
import transformers
from test_masks import drawn
from test_masks import iou

from img2scene_ros.camera import Camera
from img2scene_ros.detection import segmenter
from img2scene_ros.detection.segmenter import Segmenter
from img2scene_ros.detection.segmenter import sharpened
from img2scene_ros.errors import Img2SceneError
from img2scene_ros.errors import InputError
from img2scene_ros.errors import MissingDependencyError
from img2scene_ros.types import Detection
from img2scene_ros.types import Frame

pytestmark = pytest.mark.usefixtures('one_thread')

LABELS = {0: 'mug, cup', 1: 'bowl', 2: 'box', 3: 'can'}
FAMILIES = ['sam2', 'maskformer', 'mask2former', 'segformer', 'clipseg']
SIZE = (200, 320)  # height and width of the picture
BOXES = {'mug': (40.0, 60.0, 140.0, 160.0), 'bowl': (180.0, 20.0, 300.0, 80.0)}
CLIP_WORDS = ['a</w>', 'photo</w>', 'of</w>', 'mug</w>', 'bowl</w>']


def save_sam2(folder: Path) -> None:
    backbone = transformers.Sam2HieraDetConfig(
        hidden_size=8, num_attention_heads=1, blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[8, 16, 16, 16], num_attention_heads_per_stage=[1, 1, 2, 2],
        global_attention_blocks=[3], window_positional_embedding_background_size=[2, 2],
        image_size=[128, 128])
    vision = transformers.Sam2VisionConfig(
        backbone_config=backbone, backbone_channel_list=[16, 16, 16, 8],
        backbone_feature_sizes=[[32, 32], [16, 16], [8, 8]], fpn_hidden_size=16)
    config = transformers.Sam2Config(
        vision_config=vision,
        prompt_encoder_config=transformers.Sam2PromptEncoderConfig(
            hidden_size=16, image_size=128, mask_input_channels=4),
        mask_decoder_config=transformers.Sam2MaskDecoderConfig(
            hidden_size=16, mlp_dim=16, num_hidden_layers=1, num_attention_heads=2,
            iou_head_hidden_dim=16))
    transformers.Sam2Model(config).save_pretrained(folder)
    (folder / 'preprocessor_config.json').write_text(json.dumps({
        'image_processor_type': 'Sam2ImageProcessorFast', 'size': {'height': 128, 'width': 128},
        'image_mean': [0.485, 0.456, 0.406], 'image_std': [0.229, 0.224, 0.225]}))


def save_mask2former(folder: Path) -> None:
    transformers.Mask2FormerForUniversalSegmentation(transformers.Mask2FormerConfig(
        backbone_config=transformers.SwinConfig(
            embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4,
            image_size=64, out_features=['stage1', 'stage2', 'stage3', 'stage4']),
        feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=16,
        dim_feedforward=16, encoder_layers=1, decoder_layers=2, num_attention_heads=2,
        num_queries=10, id2label=LABELS)).save_pretrained(folder)
    transformers.Mask2FormerImageProcessorPil(
        size={'shortest_edge': 96, 'longest_edge': 192}).save_pretrained(folder)


def save_segformer(folder: Path) -> None:
    transformers.SegformerForSemanticSegmentation(transformers.SegformerConfig(
        depths=[1, 1, 1, 1], hidden_sizes=[8, 8, 16, 16], num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=16, id2label=LABELS)).save_pretrained(folder)
    transformers.SegformerImageProcessorPil(
        size={'height': 128, 'width': 128}).save_pretrained(folder)


def save_clipseg(folder: Path) -> None:
    sizes = {'hidden_size': 16, 'intermediate_size': 16, 'num_hidden_layers': 3,
             'num_attention_heads': 2}
    transformers.CLIPSegForImageSegmentation(transformers.CLIPSegConfig(
        text_config={**sizes, 'vocab_size': 20, 'eos_token_id': 1, 'bos_token_id': 0},
        vision_config={**sizes, 'image_size': 64, 'patch_size': 16}, projection_dim=16,
        extract_layers=[0, 1, 2], reduce_dim=8, decoder_num_attention_heads=2,
        decoder_intermediate_size=16)).save_pretrained(folder)
    transformers.ViTImageProcessorPil(size={'height': 64, 'width': 64}).save_pretrained(folder)
    words = ['<|startoftext|>', '<|endoftext|>', *CLIP_WORDS]
    (folder / 'vocab.json').write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / 'merges.txt').write_text('#version: 0.2\n')
    (folder / 'tokenizer_config.json').write_text(json.dumps({
        'tokenizer_class': 'CLIPTokenizer', 'model_max_length': 77,
        'unk_token': '<|endoftext|>', 'pad_token': '<|endoftext|>',
        'bos_token': '<|startoftext|>', 'eos_token': '<|endoftext|>'}))


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that gives the checkpoint of a family, written once."""
    def written(family: str) -> Path:
        folder = tmp_path_factory.mktemp(family)
        torch.manual_seed(0)
        if family in ('maskformer', 'detr'):
            checkpoints.save(family, folder)
        else:
            globals()[f'save_{family}'](folder)
        return folder

    return cache(written)


def picture() -> Frame:
    color = np.random.default_rng(0).integers(0, 255, (*SIZE, 3)).astype(np.uint8)
    return Frame(cv2.GaussianBlur(color, (0, 0), 4), Camera.from_field_of_view(*SIZE[::-1], 60))


def detections(*names: str) -> list[Detection]:
    return [Detection(name, 0.9, np.array(BOXES[name])) for name in names]


def truth(name: str) -> np.ndarray:
    """Return an ellipse in the box of a name, which reaches its upper edge only: (H, W) bool."""
    xmin, ymin, xmax, ymax = BOXES[name]
    v, u = np.mgrid[:SIZE[0], :SIZE[1]]
    x, y = (u - (xmin + xmax) / 2) / (0.45 * (xmax - xmin)), (v - ymin) / (0.8 * (ymax - ymin))
    return (x ** 2 + y ** 2 < 1) & (v >= ymin)


def logits(name: str, size: tuple[int, int]) -> torch.Tensor:
    """Return an answer of (h, w) that covers the whole picture."""
    return torch.from_numpy(cv2.resize(
        truth(name).astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA) - 0.5) * 8


@pytest.mark.parametrize('family', FAMILIES)
def test_masks_lie_in_their_boxes(family: str, checkpoint: Callable) -> None:
    """Whatever random weights say: a mask of the picture's size inside the box, or an error."""
    found = Segmenter(str(checkpoint(family)))
    answers = found.masks(picture(), detections('mug', 'bowl'))
    assert len(answers) == 2
    for answer, name in zip(answers, BOXES):
        if isinstance(answer, Img2SceneError):
            assert '\n' not in str(answer)
            continue
        xmin, ymin, xmax, ymax = map(int, BOXES[name])
        assert answer.shape == SIZE and answer.dtype == bool and answer.any()
        assert answer[ymin:ymax, xmin:xmax].sum() == answer.sum()
    assert found.masks(picture(), []) == []


class Answering:
    """Stands in for a model: answers what a function returns, and remembers what was asked."""

    def __init__(self, found: Segmenter, answer: Callable[..., SimpleNamespace]) -> None:
        self.device = torch.device('cpu')
        self.config = SimpleNamespace(id2label=LABELS)
        self.asked: list[dict[str, torch.Tensor]] = []
        self._answer = answer
        found._family._model = self

    def __call__(self, **inputs: torch.Tensor) -> SimpleNamespace:
        """Answer."""
        self.asked.append(inputs)
        return self._answer(**inputs)


def answering(family: str, found: Segmenter) -> list[dict[str, torch.Tensor]]:
    """Let the model of a segmenter answer what is true; return what it will have been asked."""
    def answer(**inputs: torch.Tensor) -> SimpleNamespace:
        height, width = inputs['pixel_values'].shape[-2:]
        size = height // 4, width // 4
        if family == 'sam2':
            # The object whose box is asked for, by the box's middle in the scaled picture.
            names = ['mug' if box[0] + box[2] < width else 'bowl'
                     for box in inputs['input_boxes'][0]]
            return SimpleNamespace(
                pred_masks=torch.stack([logits(name, size) for name in names])[None, :, None])
        if family == 'segformer':
            maps = torch.stack([logits(name, size) for name in BOXES])
            return SimpleNamespace(logits=torch.cat([maps, maps.new_zeros(2, *size)])[None])
        nothing = torch.full(size, -4.0)
        classes = torch.full((5, 5), -5.0)
        classes[0, 1] = classes[1, 0] = classes[2, 4] = classes[3, 4] = classes[4, 4] = 5.0
        masks = torch.stack([logits('bowl', size), logits('mug', size), nothing, -nothing,
                             logits('mug', size)])
        return SimpleNamespace(
            class_queries_logits=classes[None], masks_queries_logits=masks[None])

    return Answering(found, answer).asked


@pytest.mark.parametrize('family', ['sam2', 'maskformer', 'mask2former', 'segformer'])
def test_answers_land_on_the_right_pixels(
    family: str, checkpoint: Callable, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The picture is not square; each detection gets its own object, in any order."""
    monkeypatch.setattr(segmenter, 'sharpened', lambda color, mask, cell: mask)
    found = Segmenter(str(checkpoint(family)))
    asked = answering(family, found)
    for names in (('mug', 'bowl'), ('bowl', 'mug'), ('bowl',)):
        for name, mask in zip(names, found.masks(picture(), detections(*names))):
            assert iou(mask, truth(name)) > 0.93, name
    assert len(asked) == 3, 'once per picture'


def test_boxes_reach_sam2_in_its_own_pixels(checkpoint: Callable) -> None:
    found = Segmenter(str(checkpoint('sam2')))
    asked = answering('sam2', found)
    found.masks(picture(), detections('mug', 'bowl'))
    expected = np.array(list(BOXES.values())) * np.tile((128 / 320, 128 / 200), 2)
    np.testing.assert_allclose(asked[0]['input_boxes'][0], expected, rtol=1e-5)
    shown = asked[0]['pixel_values'][0].numpy().transpose(1, 2, 0)
    shown = (shown * (0.229, 0.224, 0.225) + (0.485, 0.456, 0.406)) * 255
    np.testing.assert_allclose(shown, cv2.resize(picture().color, (128, 128)), atol=1.0)


def test_clipseg_looks_for_the_name_around_the_box(
    checkpoint: Callable, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(segmenter, 'sharpened', lambda color, mask, cell: mask)
    found = Segmenter(str(checkpoint('clipseg')))

    def answer(**inputs: torch.Tensor) -> SimpleNamespace:
        name = ['mug', 'bowl'][len(asked) - 1]
        xmin, ymin, xmax, ymax = BOXES[name]
        dx, dy = 0.25 * (xmax - xmin), 0.25 * (ymax - ymin)
        window = truth(name)[int(max(0, ymin - dy)):int(ymax + dy),
                             int(max(0, xmin - dx)):int(min(xmax + dx, SIZE[1]))]
        part = cv2.resize(window.astype(np.float32), (64, 64), interpolation=cv2.INTER_AREA)
        return SimpleNamespace(logits=torch.from_numpy(part - 0.5))

    asked = Answering(found, answer).asked
    for name, mask in zip(BOXES, found.masks(picture(), detections('mug', 'bowl'))):
        assert iou(mask, truth(name)) > 0.93
    words = found._family._tokenizer(['a photo of a mug'])['input_ids'][0]
    assert asked[0]['input_ids'][0].tolist() == words
    assert asked[0]['input_ids'].tolist() != asked[1]['input_ids'].tolist()
    assert asked[0]['pixel_values'].shape == (1, 3, 64, 64)


def test_names_matter_where_a_model_needs_them(checkpoint: Callable) -> None:
    """A missing class and a missing name are one sentence each; others get their masks."""
    frame = picture()
    nameless = Detection('object', 0.9, np.array(BOXES['mug']))
    unknown = Detection('giraffe', 0.9, np.array(BOXES['mug']))
    error, = Segmenter(str(checkpoint('segformer'))).masks(frame, [unknown])
    assert isinstance(error, InputError) and 'giraffe' in str(error)
    error, = Segmenter(str(checkpoint('clipseg'))).masks(frame, [nameless])
    assert isinstance(error, InputError) and 'clipseg' in str(error)
    found = Segmenter(str(checkpoint('mask2former')))
    answering('mask2former', found)
    mask, = found.masks(frame, [nameless])
    assert iou(mask, truth('mug')) > 0.9, 'the box is enough'
    nowhere = Detection('mug', 0.9, np.array([0.0, 180.0, 20.0, 200.0]))
    error, = found.masks(frame, [nowhere])
    assert isinstance(error, InputError) and "'mug'" in str(error)


def test_what_is_no_segmenter_is_one_sentence(checkpoint: Callable, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'detr'"):
        Segmenter(str(checkpoint('detr')))
    with pytest.raises(InputError, match='config.json'):
        Segmenter(str(tmp_path))
    with pytest.raises(InputError, match='/no/such/folder'):
        Segmenter('/no/such/folder')


def test_segmenter_that_is_not_there_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path / 'hub'))
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    with pytest.raises(MissingDependencyError, match='facebook/sam2.1-hiera-tiny') as caught:
        Segmenter('facebook/sam2.1-hiera-tiny')
    assert '\n' not in str(caught.value)
    for name in ('torch', 'transformers', 'PIL'):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError, match='torch transformers pillow'):
        Segmenter('facebook/sam2.1-hiera-tiny')


@pytest.mark.parametrize('cell', [6, 12])
def test_coarse_edges_move_to_where_the_colour_changes(cell: int) -> None:
    frame, true = drawn((180, 60, 40), (90, 110, 100))
    shape = true.shape[1] // cell, true.shape[0] // cell
    coarse = cv2.resize(true.astype(np.float32), shape, interpolation=cv2.INTER_AREA)
    coarse = cv2.resize(coarse, true.shape[::-1], interpolation=cv2.INTER_LINEAR) > 0.5
    before, after = iou(coarse, true), iou(sharpened(frame.color, coarse, cell), true)
    assert after > 0.97 and 1 - after < 0.6 * (1 - before)
    same = sharpened(np.full_like(frame.color, 90), coarse, cell)
    assert iou(same, coarse) > 0.75, 'where colour tells nothing it stays about as it is'
