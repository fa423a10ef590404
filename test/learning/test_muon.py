# SPDX-License-Identifier: Apache-2.0
"""Muon steps evenly in all directions, and knows which weights it is for."""

import pytest
import torch

from img2scene_ros.learning.loop import weight_groups
from img2scene_ros.learning.muon import STEP_RMS
from img2scene_ros.learning.muon import Muon
from img2scene_ros.learning.muon import orthogonalized
from img2scene_ros.models.networks import NETWORKS
from img2scene_ros.models.networks import build_network

pytestmark = pytest.mark.usefixtures('one_thread')


def nearest_orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    return u @ vh


@pytest.mark.parametrize('shape', [(24, 60), (60, 24), (5, 90)])
def test_matrices_come_near_the_orthogonal_ones_of_their_svd(shape):
    torch.manual_seed(0)
    # Columns of very different lengths: the strongest direction is 100 times the weakest.
    matrices = torch.randn(3, *shape) * torch.logspace(0, 2, shape[1])
    for matrix, found in zip(matrices, orthogonalized(matrices)):
        values = torch.linalg.svdvals(found)
        assert 0.5 < values.min() and values.max() < 1.25
        truth = nearest_orthogonal(matrix)
        assert (found * truth).sum() / found.norm() / truth.norm() > 0.95


def test_a_step_goes_evenly_in_all_directions():
    """Filters as the nearest orthogonal matrix, of the length that AdamW's steps have."""
    torch.manual_seed(0)
    filters = torch.nn.Parameter(torch.randn(16, 4, 3, 3))
    before = filters.detach().clone()
    filters.grad = torch.randn(16, 4, 3, 3)
    truth = nearest_orthogonal(filters.grad.flatten(1))
    optimizer = Muon([{'params': [filters], 'weight_decay': 0.1, 'hidden': True}], lr=0.01)
    optimizer.step()
    change = (filters - before * (1 - 0.01 * 0.1)).flatten(1).detach()
    assert (change * truth).sum() / change.norm() / truth.norm() < -0.95
    assert change.square().mean().sqrt() == pytest.approx(0.01 * STEP_RMS, rel=0.15)


def test_other_weights_change_as_with_adamw():
    torch.manual_seed(0)
    values = torch.randn(8, 8)
    gradients = torch.randn(3, 8, 8)
    ends = []
    for kind in (Muon, torch.optim.AdamW):
        weight = torch.nn.Parameter(values.clone())
        optimizer = kind([{'params': [weight], 'weight_decay': 0.1, 'hidden': False}], lr=0.01)
        for gradient in gradients:
            weight.grad = gradient.clone()
            optimizer.step()
        ends.append(weight.detach())
    assert torch.equal(*ends)


@pytest.mark.parametrize('name', sorted(NETWORKS))
def test_networks_tell_their_outer_layers(name):
    network = build_network(name)
    for layer in network.outer_layers:
        assert network.get_submodule(layer)
    hidden, outer, vectors = weight_groups(network, 0.1, network.outer_layers)
    counts = [sum(weight.numel() for weight in group['params'])
              for group in (hidden, outer, vectors)]
    assert sum(counts) == sum(weight.numel() for weight in network.parameters())
    assert counts[0] > 0.9 * sum(counts) and 0 < counts[1] < 0.05 * sum(counts)
