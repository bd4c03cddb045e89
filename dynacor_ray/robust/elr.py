"""Early-learning regularization: hold to what was predicted before memorizing wrong labels (Liu et al., NeurIPS 2020).

Each instance has a target, the running mean of its predictions over the epochs. The regularizer pulls the prediction
towards it, so that the gradient of a label that contradicts it fades.

Deviation from the paper: none in the loss. As in the authors' code the target is updated before the loss is taken, it
starts at 0, and probabilities are kept in [1e-4, 1 - 1e-4]. ELR+ (two networks, mixup) is not here.

Cost: one softmax per row; memory: C numbers per instance.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dynacor_ray.robust.ce import ce_loss

LEAST = 1e-4
"""Probabilities are kept in [LEAST, 1 - LEAST]."""
PUBLISHED = {"cifar10": (0.7, 3.0), "cifar100": (0.9, 7.0), "clothing1m": (0.7, 3.0)}
"""Data set -> momentum of the targets, weight of the regularizer; for asymmetric noise on CIFAR-10 (0.9, 1)."""


def update_targets(targets: Tensor, logits: Tensor, momentum: float) -> Tensor:
    """`t <- beta t + (1 - beta) p / sum p`, without a gradient (Liu et al. 2020).

    Args:
        targets: float (B, C), of the epoch before; 0 in the first.
        logits: float (B, C).
        momentum: beta, in [0, 1).

    Returns:
        float (B, C), in [0, 1]; rows sum to 1 - beta^epochs.
    """
    clipped = _probabilities(logits.detach())
    return momentum * targets + (1.0 - momentum) * clipped / clipped.sum(dim=1, keepdim=True)


def elr_loss(logits: Tensor, labels: Tensor, targets: Tensor, weight: float) -> Tensor:
    """`CE + lambda log(1 - <t, p>)` per row (Liu et al. 2020).

    Args:
        logits: float (B, C).
        labels: int64 (B,).
        targets: float (B, C), those of `update_targets` in this step.
        weight: lambda.

    Returns:
        float (B,).
    """
    agreement = (targets * _probabilities(logits)).sum(dim=1)
    return ce_loss(logits, labels) + weight * torch.log(1.0 - agreement)


def _probabilities(logits: Tensor) -> Tensor:
    return torch.softmax(logits, dim=1).clamp(LEAST, 1.0 - LEAST)
