"""Features of very many numbers, in fewer: each is added to one of M, with a sign (Weinberger et al. 2009).

Inner products keep their value on average, with a deviation of about 1/sqrt(M) of the lengths. So a closed form whose
sums have the square of the features' number (`leave_one_out_ridge`) is open to texts of 50,000 words as well.

Cost: an addition per number.
"""

from __future__ import annotations

import torch
from torch import Tensor

HASHED = 2048
"""M: with twice as many the closed form takes eight times as long."""


class FeatureHashing:
    """D numbers in HASHED, by places and signs from a seed: every worker draws the same."""

    def __init__(self, dim: int, seed: int, device: torch.device) -> None:
        generator = torch.Generator().manual_seed(seed)
        self._place = torch.randint(HASHED, (dim,), generator=generator).to(device)
        self._sign = (1.0 - 2.0 * torch.randint(2, (dim,), generator=generator)).to(device)

    def hashed(self, features: Tensor) -> Tensor:
        """Float (..., D) -> float32 (..., HASHED)."""
        signed = features.float() * self._sign
        return signed.new_zeros((*features.shape[:-1], HASHED)).index_add_(-1, self._place, signed)
