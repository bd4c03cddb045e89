"""Symmetric cross-entropy: plus its reverse, which bounds what a wrong label can do (Wang et al., ICCV 2019).

Cost: a softmax per row.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dynacor_ray.robust.ce import ce_loss

LEAST = 1e-4
"""What log(0) of the one-hot label is clipped at: its log is about -9.2."""
PUBLISHED = {"cifar10": (0.1, 1.0), "cifar100": (6.0, 1.0)}
"""Data set -> alpha, beta."""


def sce_loss(logits: Tensor, labels: Tensor, alpha: float, beta: float) -> Tensor:
    """`alpha CE + beta RCE` per row, with `RCE = -sum_k p_k log(max(onehot_k, 1e-4))` (Wang et al. 2019).

    Args:
        logits: float (B, C).
        labels: int64 (B,).
        alpha: weight of cross-entropy, which learns hard classes and fits wrong labels.
        beta: weight of reverse cross-entropy, in [0, -log 1e-4] per row, which bears with wrong labels.

    Returns:
        float (B,), at least 0.
    """
    own = torch.softmax(logits, dim=1).gather(1, labels.unsqueeze(1)).squeeze(dim=1)
    # log(1) = 0 for the own class, log(1e-4) for each other one
    return alpha * ce_loss(logits, labels) - beta * math.log(LEAST) * (1.0 - own)
