# SPDX-License-Identifier: Apache-2.0
"""
TripoSR: from one picture to density and colour at any point around the object.

    picture -> DINO ViT-B/16 -> 1,025 tokens of 768 channels
    a learned triplane, 3 x 32 x 32 tokens -> 16 transformer blocks, which look at the picture's
    tokens -> transposed convolution -> 3 planes of 64 x 64 x 40 features
    point -> its features on the planes (x, y), (x, z), (y, z) -> MLP -> density, colour

Tochilkin et al.: TripoSR: Fast 3D object reconstruction from a single image, arXiv:2403.02151,
2024. Modules bear the names of the published checkpoint, so its weights load as they are.

Axes: right-handed, x towards the camera, y right, z up. The picture is taken to show the object
from (1.9, 0, 0) with a field of view of 40 degrees.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as functional
from safetensors.torch import load_file
from torch import Tensor
from torch import nn

from img2scene_ros.errors import InputError
from img2scene_ros.models.channels import DEVIATION
from img2scene_ros.models.channels import MEAN

# As in the checkpoint that its authors released (VAST-AI-Research/TripoSR).
PICTURE_SIZE = 512  # pixels of a side
RADIUS = 0.87  # the planes reach from -RADIUS to RADIUS
WEIGHTS = ('model.safetensors', 'model.ckpt')  # names in a folder, the better first
_HEAD = 64  # channels of an attention head
_DENSITY_BIAS = -1.0  # added to the logarithm of the density
_PLANES = ((0, 1), (0, 2), (1, 2))  # the axes along a plane's columns and rows
_UNUSED = 'image_tokenizer.model.pooler.'


@dataclass(frozen=True)
class TripoSRConfig:
    """Sizes of a TripoSR; the defaults are those of the published one, 419 M parameters."""

    vit_width: int = 768
    vit_hidden: int = 3072
    vit_layers: int = 12
    vit_patch: int = 16  # pixels
    vit_patches: int = 14  # along a side of the pictures that the ViT was trained on
    width: int = 1024
    layers: int = 16
    plane: int = 32  # tokens along a side of a plane
    features: int = 40
    neurons: int = 64
    hidden_layers: int = 9

    @classmethod
    def of(cls, weights: Mapping[str, Tensor]) -> 'TripoSRConfig':
        """
        Read the sizes off a checkpoint's tensors.

        :raises KeyError: a tensor that every TripoSR has is missing
        """
        vit = 'image_tokenizer.model.'
        patch = weights[vit + 'embeddings.patch_embeddings.projection.weight']
        positions = weights[vit + 'embeddings.position_embeddings']
        planes = weights['tokenizer.embeddings']
        return cls(
            vit_width=patch.shape[0], vit_patch=patch.shape[-1],
            vit_patches=round((positions.shape[1] - 1) ** 0.5),
            vit_hidden=weights[vit + 'encoder.layer.0.intermediate.dense.weight'].shape[0],
            vit_layers=_count(weights, vit + 'encoder.layer.{}.layernorm_before.weight'),
            width=planes.shape[1], plane=planes.shape[-1],
            layers=_count(weights, 'backbone.transformer_blocks.{}.norm1.weight'),
            features=weights['post_processor.upsample.weight'].shape[1],
            neurons=weights['decoder.layers.0.weight'].shape[0],
            hidden_layers=sum(key.startswith('decoder.layers.') for key in weights) // 2 - 1)


def _count(weights: Mapping[str, Tensor], key: str) -> int:
    count = 0
    while key.format(count) in weights:
        count += 1
    return count


class TripoSR(nn.Module):
    """See above; N tokens, C channels, F features, P the side of a plane in features."""

    def __init__(self, config: TripoSRConfig = TripoSRConfig()) -> None:
        super().__init__()
        self.config = config
        self.image_tokenizer = nn.ModuleDict({'model': VisionTransformer(config)})
        self.tokenizer = nn.ParameterDict({
            'embeddings': torch.randn(3, config.width, config.plane, config.plane)
            / config.width ** 0.5})
        self.backbone = Backbone(config)
        self.post_processor = nn.ModuleDict({
            'upsample': nn.ConvTranspose2d(config.width, config.features, 2, 2)})
        widths = [3 * config.features] + [config.neurons] * config.hidden_layers
        hidden = [layer for inputs, outputs in zip(widths, widths[1:])
                  for layer in (nn.Linear(inputs, outputs), nn.SiLU())]
        self.decoder = nn.ModuleDict({
            'layers': nn.Sequential(*hidden, nn.Linear(config.neurons, 4))})

    def encode(self, pictures: Tensor) -> Tensor:
        """
        Look at pictures.

        :param pictures: (B, 3, H, W) in 0 to 1, the object on grey (0.5)
        :return: (B, 3, F, P, P), the planes' features
        """
        pictures = functional.interpolate(
            pictures, (PICTURE_SIZE, PICTURE_SIZE), mode='bilinear', align_corners=False,
            antialias=True)
        mean, std = (pictures.new_tensor(value)[:, None, None] for value in (MEAN, DEVIATION))
        seen = self.image_tokenizer['model']((pictures - mean) / std)
        planes = self.tokenizer['embeddings']
        tokens = planes.transpose(0, 1).flatten(1).expand(len(pictures), -1, -1)
        tokens = self.backbone(tokens, seen).unflatten(2, (3, *planes.shape[2:])).transpose(1, 2)
        return self.post_processor['upsample'](tokens.flatten(0, 1)).unflatten(0, (-1, 3))

    def query(self, planes: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """
        Ask for points around one object.

        :param planes: (3, F, P, P)
        :param points: (N, 3), from -RADIUS to RADIUS
        :return: (N,) natural logarithm of the density, and (N, 3) colour in 0 to 1
        """
        points = points / RADIUS
        places = torch.stack([points[:, axes] for axes in _PLANES])  # (3, N, 2)
        features = functional.grid_sample(planes, places[:, None], align_corners=False)
        answer = self.decoder['layers'](features[:, :, 0].flatten(0, 1).mT)
        return answer[:, 0] + _DENSITY_BIAS, answer[:, 1:].sigmoid()


class VisionTransformer(nn.Module):
    """ViT (Dosovitskiy et al., ICLR 2021), as DINO trains it; V is its width."""

    def __init__(self, config: TripoSRConfig) -> None:
        super().__init__()
        width = config.vit_width
        self.embeddings = VitEmbeddings(config)
        self.encoder = nn.ModuleDict({'layer': nn.ModuleList(
            VitLayer(width, config.vit_hidden) for _ in range(config.vit_layers))})
        self.layernorm = nn.LayerNorm(width, eps=1e-12)

    def forward(self, pictures: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, 1 + patches, V)."""
        tokens = self.embeddings(pictures)
        for layer in self.encoder['layer']:
            tokens = layer(tokens)
        return self.layernorm(tokens)


class VitEmbeddings(nn.Module):
    """Patches as tokens, after one that stands for the whole picture."""

    def __init__(self, config: TripoSRConfig) -> None:
        super().__init__()
        width, patch = config.vit_width, config.vit_patch
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position_embeddings = nn.Parameter(
            0.02 * torch.randn(1, 1 + config.vit_patches ** 2, width))
        self.patch_embeddings = nn.ModuleDict({
            'projection': nn.Conv2d(3, width, patch, patch)})

    def forward(self, pictures: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, 1 + patches, V)."""
        patches = self.patch_embeddings['projection'](pictures)
        first, positions = self.position_embeddings.split(
            [1, self.position_embeddings.shape[1] - 1], dim=1)
        side = round(positions.shape[1] ** 0.5)
        # DINO adds 0.1 to the new size; the weights were trained with what that does.
        positions = functional.interpolate(
            positions.mT.unflatten(2, (side, side)), mode='bicubic', align_corners=False,
            scale_factor=[(size + 0.1) / side for size in patches.shape[2:]])
        whole = (self.cls_token + first).expand(len(pictures), -1, -1)
        return torch.cat([whole, (patches + positions).flatten(2).mT], dim=1)


class VitLayer(nn.Module):
    """Self-attention and an MLP, each after a normalisation and around a shortcut."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.layernorm_before = nn.LayerNorm(width, eps=1e-12)
        self.attention = nn.ModuleDict({
            'attention': nn.ModuleDict({
                name: nn.Linear(width, width) for name in ('query', 'key', 'value')}),
            'output': nn.ModuleDict({'dense': nn.Linear(width, width)})})
        self.layernorm_after = nn.LayerNorm(width, eps=1e-12)
        self.intermediate = nn.ModuleDict({'dense': nn.Linear(width, hidden)})
        self.output = nn.ModuleDict({'dense': nn.Linear(hidden, width)})

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, V) to the same."""
        normed = self.layernorm_before(tokens)
        query, key, value = (
            self.attention['attention'][name](normed) for name in ('query', 'key', 'value'))
        tokens = tokens + self.attention['output']['dense'](attend(query, key, value))
        hidden = functional.gelu(self.intermediate['dense'](self.layernorm_after(tokens)))
        return tokens + self.output['dense'](hidden)


class Backbone(nn.Module):
    """Transformer blocks in which the triplane's tokens look at each other and at the picture."""

    def __init__(self, config: TripoSRConfig) -> None:
        super().__init__()
        width = config.width
        self.norm = nn.GroupNorm(32, width, eps=1e-6)
        self.proj_in = nn.Linear(width, width)
        self.transformer_blocks = nn.ModuleList(
            TransformerBlock(width, config.vit_width) for _ in range(config.layers))
        self.proj_out = nn.Linear(width, width)

    def forward(self, planes: Tensor, seen: Tensor) -> Tensor:
        """(B, C, N) of the planes, (B, M, V) of the picture, to (B, C, N)."""
        tokens = self.proj_in(self.norm(planes).mT)
        for block in self.transformer_blocks:
            tokens = block(tokens, seen)
        return planes + self.proj_out(tokens).mT


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention and a gated MLP (GEGLU; Shazeer, arXiv:2002.05202)."""

    def __init__(self, width: int, seen_width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn1 = Attention(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.attn2 = Attention(width, seen_width)
        self.norm3 = nn.LayerNorm(width)
        self.ff = FeedForward(width)

    def forward(self, tokens: Tensor, seen: Tensor) -> Tensor:
        """(B, N, C) and (B, M, V) to (B, N, C)."""
        normed = self.norm1(tokens)
        tokens = tokens + self.attn1(normed, normed)
        tokens = tokens + self.attn2(self.norm2(tokens), seen)
        return tokens + self.ff(self.norm3(tokens))


class Attention(nn.Module):
    """Multi-head attention."""

    def __init__(self, width: int, source_width: int) -> None:
        super().__init__()
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(source_width, width, bias=False)
        self.to_v = nn.Linear(source_width, width, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, tokens: Tensor, source: Tensor) -> Tensor:
        """(B, N, C) looks at (B, M, V): (B, N, C)."""
        return self.to_out[0](
            attend(self.to_q(tokens), self.to_k(source), self.to_v(source)))


class FeedForward(nn.Module):
    """A gated MLP, four times as wide inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.ModuleList([
            nn.ModuleDict({'proj': nn.Linear(width, 8 * width)}), nn.Identity(),
            nn.Linear(4 * width, width)])

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, C) to the same."""
        hidden, gate = self.net[0]['proj'](tokens).chunk(2, dim=-1)
        return self.net[2](hidden * functional.gelu(gate))


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """(B, N, C), (B, M, C), (B, M, C) to (B, N, C): attention by heads of 64 channels."""
    heads = [x.unflatten(2, (-1, _HEAD)).transpose(1, 2) for x in (query, key, value)]
    return functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)


def load_triposr(path: Path) -> TripoSR:
    """
    Read a checkpoint, ready for use (evaluation mode, as precise as it is stored).

    :param path: a file, .safetensors or a torch.save of the plain weights; or a folder with one
    :raises InputError: no such file, a broken one, or weights of another network
    """
    path = Path(path)
    if path.is_dir():
        found = [path / name for name in WEIGHTS if (path / name).is_file()]
        if not found:
            raise InputError(f"the folder '{path}' holds neither {' nor '.join(WEIGHTS)}")
        path = found[0]
    weights = {
        key: tensor for key, tensor in _read(path).items() if not key.startswith(_UNUSED)}
    try:
        config = TripoSRConfig.of(weights)
    except (KeyError, IndexError, AttributeError) as error:
        raise InputError(f"'{path}' holds no TripoSR: it lacks {error}") from error
    with torch.device('meta'):  # no memory, no random numbers: the checkpoint's are used
        network = TripoSR(config)
    expected = network.state_dict()
    odd = sorted(expected.keys() ^ weights.keys()) or [
        key for key, tensor in weights.items() if tensor.shape != expected[key].shape]
    if odd:
        raise InputError(
            f"'{path}' holds weights of another network than TripoSR (such as '{odd[0]}')")
    network.load_state_dict(weights, assign=True)
    return network.requires_grad_(False).eval()


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == '.safetensors':
            return load_file(path)
        weights = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # torch.load's errors are those of zip files, pickle and itself
        reason = getattr(error, 'strerror', None) or ' '.join(str(error).split())[:160]
        raise InputError(f"cannot read the weights '{path}': {reason}") from error
    if not (isinstance(weights, dict) and all(map(torch.is_tensor, weights.values()))):
        raise InputError(f"'{path}' holds no plain weights; give the published model.ckpt, or "
                         'a .safetensors file with the same keys')
    return weights
