# SPDX-License-Identifier: Apache-2.0
"""
Muon: an optimizer that gives every direction of a weight matrix the same step.

The momentum of a matrix's gradient is replaced by the nearest orthogonal matrix, so that a few
strong directions do not outrun all others. Jordan et al., "Muon: An optimizer for hidden layers in
neural networks", 2024; lengths of steps as in Liu et al., "Muon is scalable for LLM training",
2025, so that learning rates of AdamW fit. `torch.optim.Muon` takes matrices only, no filters, and
one after another; here equal ones go together, which a CPU does in half the time.
"""

from collections import defaultdict

import torch
from torch import Tensor

MOMENTUM = 0.95
STEP_RMS = 0.2  # of a step's elements, at a learning rate of 1: AdamW's
ITERATIONS = 5
QUINTIC = (3.4445, -4.7750, 2.0315)  # takes singular values near 1 quickly, not exactly (Jordan)


class Muon(torch.optim.AdamW):
    """
    Muon for groups that are `hidden`, AdamW for the others.

    First and last layers, biases and norms do better with AdamW. A filter (out, in, h, w) counts
    as the matrix (out, in h w).
    """

    @torch.no_grad()
    def step(self) -> None:
        """Change the weights once; the gradients of hidden ones are used up by it."""
        for group in self.param_groups:
            alike = defaultdict(list)
            for weight in group['params']:
                if group['hidden'] and weight.grad is not None:
                    alike[weight.flatten(1).shape].append(weight)
            for weights in alike.values():
                self._step_matrices(weights, group['lr'], group['weight_decay'])
        super().step()

    def _step_matrices(self, weights: list[Tensor], rate: float, decay: float) -> None:
        """Change matrices of one shape, and take their gradients away from AdamW."""
        for weight in weights:
            if not self.state[weight]:  # with the names that AdamW knows how to load
                self.state[weight] = {
                    'step': torch.tensor(0.0), 'exp_avg': torch.zeros_like(weight)}
            self.state[weight]['exp_avg'].lerp_(weight.grad, 1.0 - MOMENTUM)
        ahead = torch.stack([  # Nesterov's: the momentum as it will be
            weight.grad.lerp(self.state[weight]['exp_avg'], MOMENTUM).flatten(1)
            for weight in weights])
        length = STEP_RMS * max(ahead.shape[1:]) ** 0.5
        for weight, change in zip(weights, orthogonalized(ahead)):
            weight.mul_(1.0 - rate * decay)
            weight.add_(change.reshape(weight.shape), alpha=-rate * length)
            weight.grad = None


def orthogonalized(matrices: Tensor) -> Tensor:
    """
    Bring singular values near 1, most within 0.7 to 1.2, by Newton-Schulz iterations in bf16.

    :param matrices: (N, R, C)
    :return: (N, R, C) of the same type
    """
    wide = matrices if matrices.shape[1] <= matrices.shape[2] else matrices.mT
    x = torch.nn.functional.normalize(wide, dim=(1, 2)).bfloat16()
    a, b, c = QUINTIC
    for _ in range(ITERATIONS):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    x = x.to(matrices.dtype)
    return x if wide is matrices else x.mT
