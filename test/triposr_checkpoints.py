# SPDX-License-Identifier: Apache-2.0
"""Small TripoSRs: one with random weights, and one whose answer is known."""

import numpy as np
import torch

from img2scene_ros.models.triposr_network import RADIUS
from img2scene_ros.models.triposr_network import TripoSR
from img2scene_ros.models.triposr_network import TripoSRConfig

LEVEL = np.log(25.0)  # of the density's logarithm at the surface
SEMI_AXES = np.array([0.35, 0.6, 0.45])  # towards the camera, right, up
STEEPNESS = 20.0
COLOR = 5.0  # how fast red grows towards the camera, green to the right, blue upwards


def small(**sizes: int) -> TripoSR:
    """Return a TripoSR with random weights, 0.2 M parameters."""
    torch.manual_seed(0)
    usual = {'vit_width': 64, 'vit_hidden': 64, 'vit_layers': 1, 'width': 64, 'layers': 1,
             'plane': 8, 'features': 4, 'neurons': 8, 'hidden_layers': 2}
    network = TripoSR(TripoSRConfig(**(usual | sizes))).eval()
    return network.requires_grad_(False)


def ellipsoid() -> TripoSR:
    """Return a TripoSR that answers with an ellipsoid, whatever it is shown; see `SEMI_AXES`."""
    network = small(plane=32)
    network.backbone.proj_out.weight.zero_()
    network.backbone.proj_out.bias.zero_()
    # Four channels per feature hold the four places that a token is spread to.
    axis = ((torch.arange(64) + 0.5) / 64 * 2 - 1) * RADIUS
    rows, columns = torch.meshgrid(axis, axis, indexing='ij')
    x, y, z = SEMI_AXES.tolist()
    features = torch.zeros(3, 4, 64, 64)
    features[0, 0] = STEEPNESS * (1 - (columns / x) ** 2 - (rows / y) ** 2)
    features[1, 0] = -STEEPNESS * (rows / z) ** 2
    features[0, 1], features[0, 2], features[1, 3] = columns, rows, rows
    tokens = features.unflatten(3, (32, 2)).unflatten(2, (32, 2)).permute(0, 1, 3, 5, 2, 4)
    network.tokenizer['embeddings'].zero_()
    network.tokenizer['embeddings'][:, :16] = tokens.flatten(1, 3)
    upsample = network.post_processor['upsample']
    upsample.weight.zero_()
    upsample.bias.zero_()
    for channel in range(16):
        feature, row, column = channel // 4, channel // 2 % 2, channel % 2
        upsample.weight[channel, feature, row, column] = 1.0
    # SiLU leaves large numbers as they are.
    first, _, second, _, last = network.decoder['layers']
    for layer in (first, second, last):
        layer.weight.zero_()
        layer.bias.zero_()
    for neuron in range(4):
        first.weight[neuron, [neuron, 4 + neuron, 8 + neuron]] = 1.0
        first.bias[neuron] = 400.0
        second.weight[neuron, neuron] = 1.0
        last.weight[neuron, neuron] = 1.0 if neuron == 0 else COLOR
        last.bias[neuron] = LEVEL + 1.0 - 400.0 if neuron == 0 else -400.0 * COLOR
    return network
