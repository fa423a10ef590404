# SPDX-License-Identifier: Apache-2.0
"""The detector that is trained: a small RT-DETRv2 of transformers, its extra loss, its files."""

import json
import os
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.nn.functional as functional
from safetensors import SafetensorError
from torch import Tensor
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import RTDetrResNetConfig
from transformers import RTDetrV2Config
from transformers import RTDetrV2ForObjectDetection

from img2scene_ros.errors import InputError
from img2scene_ros.hub import quiet_libraries
from img2scene_ros.hub import reading
from img2scene_ros.learning.detector_config import DetectorModelOptions
from img2scene_ros.learning.detector_data import MEAN
from img2scene_ros.learning.detector_data import STD

STRIDES = (8, 16, 32)  # pixels per cell of the encoder's three maps
FILES = ('config.json', 'preprocessor_config.json', 'model.safetensors')


def build_detector(
    options: DetectorModelOptions, labels: Sequence[str],
) -> RTDetrV2ForObjectDetection:
    """Make a detector with random weights for the classes of these names."""
    stages = [options.stage_2, options.stage_3, options.stage_4]
    backbone = RTDetrResNetConfig(
        embedding_size=options.stem, hidden_sizes=[options.stem, *stages],
        depths=[1, options.layers, options.layers, 1], layer_type='basic', out_indices=[2, 3, 4])
    quiet_libraries()
    width = options.width
    model = RTDetrV2ForObjectDetection(RTDetrV2Config(
        backbone_config=backbone, freeze_backbone_batch_norms=False,
        encoder_in_channels=stages, encoder_hidden_dim=width, encoder_ffn_dim=2 * width,
        encoder_attention_heads=width // 16, hidden_expansion=0.5, d_model=width,
        decoder_in_channels=[width] * 3, decoder_ffn_dim=2 * width,
        decoder_attention_heads=width // 16, decoder_layers=options.decoder_layers,
        num_queries=options.queries, num_denoising=options.denoising,
        id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
        attn_implementation='eager'))  # faster than the fused one on so few tokens
    _initialize(model)
    return model


@torch.no_grad()
def _initialize(model: RTDetrV2ForObjectDetection) -> None:
    """
    Start with weights that signals get through.

    transformers draws those of norms, projections and encoder near 0 (standard deviation 0.01),
    which suits training that starts from a checkpoint.
    """
    special = ('sampling_offsets', 'attention_weights', 'class_embed', 'score_head')
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')
        elif isinstance(module, nn.Linear) and not any(part in name for part in special):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    # Boxes start as the proposals are.
    for head in (model.model.enc_bbox_head, *model.bbox_embed, *model.model.decoder.bbox_embed):
        nn.init.zeros_(head.layers[-1].weight)


def start_from(model: RTDetrV2ForObjectDetection, folder: Path) -> None:
    """
    Take over the weights of a trained detector.

    :raises InputError: it cannot be read, or has another shape or other classes
    """
    with reading('weights', str(folder)):
        trained = RTDetrV2ForObjectDetection.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True)
    classes = [list(one.config.id2label.values()) for one in (trained, model)]
    shapes = [{name: weight.shape for name, weight in one.state_dict().items()}
              for one in (trained, model)]
    if shapes[0] != shapes[1] or classes[0] != classes[1]:
        raise InputError(
            f"the detector in '{folder}' has another shape or other classes "
            f"({', '.join(classes[0])}) than the one to train ({', '.join(classes[1])}); use "
            'the same model options, and data of the same classes')
    model.load_state_dict(trained.state_dict())


def keep_maps_precise(model: RTDetrV2ForObjectDetection) -> None:
    """Let boxes be computed in float32 under autocast, by keeping the encoder's maps in it."""
    for projection in model.model.decoder_input_proj:
        projection.register_forward_hook(lambda module, inputs, output: output.float())


def dense_loss(
    logits: Tensor, boxes: Tensor, targets: Sequence[dict[str, Tensor]], width: int, height: int,
    candidates: int,
) -> Tensor:
    """
    Return the one-to-many loss of the encoder's proposals, ().

    Every object teaches the proposals in it that fit it best, as in TOOD (Feng et al., ICCV 2021):
    alignment s^0.5 u^4 of score s and IoU u, normalised to the best IoU. The decoder's one-to-one
    matching alone gives the encoder a few gradients per picture.

    :param logits: (B, N, C)
    :param boxes: (B, N, 4), centre and size in shares of the picture
    :param targets: as `picture_tensors` makes them
    :param width, height: of the picture, pixels
    """
    centers, cells = _cells(width, height, logits.device)
    truth = _padded([target['boxes'] for target in targets], 0.5)
    classes = _padded([target['class_labels'] for target in targets], 0)
    real = _padded([torch.ones_like(target['class_labels']) for target in targets], 0).bool()
    with torch.no_grad():
        iou = _overlap(boxes[:, :, None], truth[:, None])[0]
        away = (centers[None, :, None] - truth[:, None, :, :2]).abs()
        inside = (away < torch.maximum(truth[:, None, :, 2:], cells[None, :, None]) / 2).all(-1)
        score = logits.sigmoid().gather(2, classes[:, None].expand(-1, logits.shape[1], -1))
        alignment = score.sqrt() * iou ** 4 * (inside & real[:, None])
        best = alignment.topk(candidates, dim=1).values[:, -1:]
        alignment = alignment * (alignment >= best)
        fit, owner = alignment.max(dim=2)  # a proposal learns one object only
        scale = (iou * (alignment > 0)).amax(1) / alignment.amax(1).clamp(min=1e-12)
        quality = fit * scale.gather(1, owner)
        chosen = quality > 0
        right = torch.zeros_like(logits).scatter_(
            2, classes.gather(1, owner)[..., None], chosen[..., None].to(logits.dtype))
        wanted = right * quality[..., None]
        # Varifocal weights, as transformers' loss of the decoder.
        weight = 0.75 * logits.sigmoid() ** 2 * (1 - right) + wanted
        weight = weight * (~_ignored(centers, targets) | chosen)[..., None]
        total = quality.sum().clamp(min=1.0)
    named = functional.binary_cross_entropy_with_logits(logits, wanted, weight, reduction='sum')
    mine = boxes[chosen]
    true = truth.gather(1, owner[..., None].expand(-1, -1, 4))[chosen]
    placed = 5.0 * (mine - true).abs().sum(-1) + 2.0 * (1.0 - _overlap(mine, true)[1])
    return (named + (placed * quality[chosen]).sum()) / total


def _cells(width: int, height: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the centres of all cells and their sizes, (N, 2) each, in shares of the picture."""
    size = torch.tensor([width, height], dtype=torch.float32, device=device)
    centers, sizes = [], []
    for stride in STRIDES:
        y, x = torch.meshgrid(
            torch.arange(height // stride, device=device),
            torch.arange(width // stride, device=device), indexing='ij')
        centers.append((torch.stack([x, y], dim=-1).reshape(-1, 2) + 0.5) * stride / size)
        sizes.append((stride / size).expand(len(centers[-1]), 2))
    return torch.cat(centers), torch.cat(sizes)


def _padded(parts: Sequence[Tensor], fill: float) -> Tensor:
    """Return B parts (N, ...) as one tensor (B, G, ...), G at least 1, filled up."""
    one = parts[0].new_zeros(1, *parts[0].shape[1:])
    return pad_sequence([*parts, one], batch_first=True, padding_value=fill)[:-1]


def _ignored(centers: Tensor, targets: Sequence[dict[str, Tensor]]) -> Tensor:
    """Return which cells' centres lie in a box that is ignored, (B, N) bool."""
    boxes = _padded([target['ignored'] for target in targets], 0.0)  # no centre is in an empty one
    away = (centers[None, :, None] - boxes[:, None, :, :2]).abs()
    return (away < boxes[:, None, :, 2:] / 2).all(-1).any(-1)


def _overlap(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """
    Return IoU and generalized IoU (Rezatofighi et al., CVPR 2019) of boxes, centre and size.

    :param one, other: (..., 4), broadcast
    """
    one_low, one_high = _corners(one)
    other_low, other_high = _corners(other)
    shared = (torch.minimum(one_high, other_high)
              - torch.maximum(one_low, other_low)).clamp(min=0).prod(-1)
    union = (one[..., 2:].prod(-1) + other[..., 2:].prod(-1) - shared).clamp(min=1e-9)
    hull = (torch.maximum(one_high, other_high)
            - torch.minimum(one_low, other_low)).prod(-1).clamp(min=1e-9)
    iou = shared / union
    return iou, iou - (hull - union) / hull


def _corners(boxes: Tensor) -> tuple[Tensor, Tensor]:
    center, size = boxes.split(2, dim=-1)
    return center - size / 2, center + size / 2


def save_detector(
    model: RTDetrV2ForObjectDetection, out: Path, width: int, height: int,
) -> None:
    """
    Write a checkpoint folder of transformers in half precision; failure leaves what was there.

    :param width, height: of the pictures that the detector works with
    :raises InputError: the folder cannot be written
    """
    out = Path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix='.checkpoint', dir=out) as beside:
            deepcopy(model).half().save_pretrained(beside)
            (Path(beside) / FILES[1]).write_text(json.dumps({
                'image_processor_type': 'RTDetrImageProcessor', 'do_resize': True,
                'size': {'height': height, 'width': width}, 'resample': 2, 'do_rescale': True,
                'rescale_factor': 1 / 255, 'do_normalize': True, 'image_mean': MEAN,
                'image_std': STD, 'do_pad': False}, indent=2) + '\n')
            # The weights last: whoever finds them finds their shape, too.
            for name in FILES:
                os.replace(Path(beside) / name, out / name)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, 'strerror', None) or ' '.join(str(error).split())[:160]
        raise InputError(f"cannot write the detector into '{out}': {reason}") from error
