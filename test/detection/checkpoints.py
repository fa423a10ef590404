# SPDX-License-Identifier: Apache-2.0
"""Tiny checkpoints with random weights, of every family, saved as real ones are."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
import transformers

LABELS = {0: 'mug', 1: 'bowl', 2: 'box', 3: 'can'}
NAME = 'somebody/detector'


def resnet(stages: list[str]) -> transformers.PreTrainedConfig:
    return transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], layer_type='basic',
        out_features=stages)


def detr_config(**named) -> transformers.PreTrainedConfig:
    """Return the config of DETR-R50's revision no_timm, made tiny."""
    return transformers.DetrConfig(
        use_timm_backbone=False, backbone_config=resnet(['stage4']), num_queries=20,
        encoder_layers=1, decoder_layers=1, encoder_ffn_dim=16, decoder_ffn_dim=16,
        encoder_attention_heads=2, decoder_attention_heads=2, **named)


def rt_detr_sizes() -> dict[str, object]:
    return {
        'encoder_hidden_dim': 16, 'encoder_ffn_dim': 16, 'encoder_attention_heads': 2,
        'd_model': 16, 'num_queries': 20, 'decoder_in_channels': [16] * 3, 'decoder_ffn_dim': 16,
        'decoder_layers': 2, 'decoder_attention_heads': 2, 'decoder_n_points': 2}


def rf_detr_config() -> transformers.PreTrainedConfig:
    return transformers.RfDetrConfig(
        backbone_config=transformers.RfDetrDinov2Config(
            hidden_size=24, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2,
            image_size=96, patch_size=12, num_windows=2, out_indices=[1, 2]),
        d_model=32, num_queries=20, decoder_layers=2, decoder_ffn_dim=32, decoder_n_points=2,
        decoder_self_attention_heads=2, decoder_cross_attention_heads=2, group_detr=1,
        id2label=LABELS)


def build_detr() -> transformers.PreTrainedModel:
    return transformers.DetrForObjectDetection(detr_config(d_model=16, id2label=LABELS))


def build_rt_detr_v2() -> transformers.PreTrainedModel:
    return transformers.RTDetrV2ForObjectDetection(transformers.RTDetrV2Config(
        backbone_config=transformers.RTDetrResNetConfig(
            embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1],
            layer_type='basic', out_indices=[2, 3, 4]),
        encoder_in_channels=[8, 16, 16], id2label=LABELS, **rt_detr_sizes()))


def build_d_fine() -> transformers.PreTrainedModel:
    return transformers.DFineForObjectDetection(transformers.DFineConfig(
        backbone_config=transformers.HGNetV2Config(
            hidden_sizes=[8, 16, 16, 16], stem_channels=[3, 8, 8],
            stage_in_channels=[8, 8, 16, 16], stage_mid_channels=[8, 8, 8, 8],
            stage_out_channels=[8, 16, 16, 16], stage_num_blocks=[1, 1, 1, 1],
            stage_numb_of_layers=[1, 1, 1, 1], out_indices=[2, 3, 4]),
        encoder_in_channels=[16, 16, 16], id2label=LABELS, **rt_detr_sizes()))


def build_rf_detr() -> transformers.PreTrainedModel:
    return transformers.RfDetrForObjectDetection(rf_detr_config())


def build_rf_detr_seg() -> transformers.PreTrainedModel:
    return transformers.RfDetrForInstanceSegmentation(rf_detr_config())


def build_maskformer() -> transformers.PreTrainedModel:
    return transformers.MaskFormerForInstanceSegmentation(transformers.MaskFormerConfig(
        fpn_feature_size=32, mask_feature_size=32, decoder_config=detr_config(d_model=32),
        backbone_config=resnet(['stage1', 'stage2', 'stage3', 'stage4']), id2label=LABELS))


PROCESSORS = {
    'detr': lambda: transformers.DetrImageProcessorPil(
        size={'shortest_edge': 128, 'longest_edge': 224}),
    'rt_detr_v2': lambda: transformers.RTDetrImageProcessorPil(size={'height': 128, 'width': 160}),
    'd_fine': lambda: transformers.RTDetrImageProcessorPil(size={'height': 128, 'width': 160}),
    'maskformer': lambda: transformers.MaskFormerImageProcessorPil(
        size={'shortest_edge': 128, 'longest_edge': 224}),
}
# What published RF-DETR checkpoints hold; transformers cannot write it without torchvision.
RF_DETR_PROCESSOR = {
    'image_processor_type': 'RfDetrImageProcessor', 'do_resize': True, 'do_rescale': True,
    'do_normalize': True, 'image_mean': [0.485, 0.456, 0.406], 'image_std': [0.229, 0.224, 0.225],
    'resample': 2, 'rescale_factor': 1 / 255, 'size': {'height': 96, 'width': 96}}


def save(family: str, folder: Path, change: Callable = lambda model: None) -> Path:
    """Write a checkpoint of a family, with random weights that let the picture through."""
    torch.manual_seed(0)
    model = globals()[f'build_{family}']()
    for module in model.modules():
        if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)):
            torch.nn.init.xavier_uniform_(module.weight)
        if 'BatchNorm' in type(module).__name__:
            module.weight.data.fill_(1)
            module.bias.data.fill_(0)
    change(model)
    model.save_pretrained(folder)
    if family in PROCESSORS:
        PROCESSORS[family]().save_pretrained(folder)
    else:
        (folder / 'preprocessor_config.json').write_text(json.dumps(RF_DETR_PROCESSOR))
    return folder


def put_into_cache(folder: Path, cache_folder: Path, revision: str = 'main') -> Path:
    """Lay a checkpoint down as the Hub's client does: refs to commits, snapshots of links."""
    commit = '0123456789abcdef0123456789abcdef01234567'
    repository = cache_folder / 'models--somebody--detector'
    snapshot = repository / 'snapshots' / commit
    for part in ('blobs', 'refs', f'snapshots/{commit}'):
        (repository / part).mkdir(parents=True)
    (repository / 'refs' / revision).write_text(commit)
    for index, path in enumerate(sorted(folder.iterdir())):
        blob = shutil.copy(path, repository / 'blobs' / str(index))
        (snapshot / path.name).symlink_to(blob)
    return snapshot
