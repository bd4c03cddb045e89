"""Cross-entropy: what the other losses are compared with (Table 7); in the end it learns wrong labels, too.

Defaults: none, for any data set. Cost: a log-softmax per row.
"""

from __future__ import annotations

from torch import Tensor

from dynacor_ray.method.dynamics import cross_entropy_loss


def ce_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """`-log p_y` per row (§5.5). float (B, C), int64 (B,) -> float (B,), at least 0."""
    return cross_entropy_loss(logits, labels)
