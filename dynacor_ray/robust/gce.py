"""Generalized cross-entropy: between cross-entropy and mean absolute error (Zhang & Sabuncu, NeurIPS 2018).

Deviation from the paper: the truncated loss is a function of the current prediction; the paper prunes rows by the model
of an epoch before, every tenth epoch.

Cost: a log-softmax and one power per row.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

Q = 0.7
"""The paper's exponent, for all data sets: 0 in the limit is cross-entropy, 1 mean absolute error."""
TRUNCATED_BELOW = 0.5
"""k of the truncated loss in the paper, which truncates from the 40th of 120 epochs on."""


def gce_loss(logits: Tensor, labels: Tensor, q: float = Q, k: float | None = None) -> Tensor:
    """`(1 - p_y^q) / q` per row; truncated, rows with p_y <= k count `(1 - k^q) / q` (Zhang & Sabuncu 2018).

    Args:
        logits: float (B, C).
        labels: int64 (B,).
        q: in (0, 1].
        k: probability in (0, 1) up to which the loss is constant, so that a row teaches nothing; None: not truncated.

    Returns:
        float (B,), in [0, 1/q].
    """
    log_p = F.log_softmax(logits, dim=1).gather(1, labels.unsqueeze(1)).squeeze(dim=1)
    loss = -torch.expm1(q * log_p) / q  # exact also where p_y is near 1
    return loss if k is None else loss.clamp(max=(1.0 - k**q) / q)
