"""Random ReLU features beside the given ones, so that a closed form is no longer linear (Rahimi & Recht 2008, ours).

A ridge regression on `[z, max(0, W z + b)]` has the same exact leave-one-out scores as one on the features alone
(`leave_one_out_ridge`), and ranks wrong labels better where classes are not linear in the features. `z` are features
that are centered and scaled. W and b come from a seed: every worker draws the same.

Cost: N D K multiplications, and the ridge's on D + K columns, of which the cube is most where rows are few. So K grows
with the rows: with a third of them they rank as well as with more.
"""

from __future__ import annotations

import torch
from torch import Tensor

FEWEST, MOST = 256, 1024
"""Random features: from 1,500 on they gain little and cost the square."""
_PER_ROW = 1 / 3


def feature_count(rows: int) -> int:
    """How many random features pay for so many rows (ours): FEWEST to MOST."""
    return min(MOST, max(FEWEST, round(_PER_ROW * rows)))


class RandomFeatures:
    """K random ReLU features of D given ones (ours).

    mean: float (D,); scale > 0: one over the features' spread; count: K >= 0. W has rows of standard normals over
    sqrt(D), so that `W z` spreads as z does, and b is standard normal.
    """

    def __init__(self, mean: Tensor, scale: float, count: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        dim, device = len(mean), mean.device
        self._mean, self._scale = mean.float(), scale
        self._weights = (torch.randn((dim, count), generator=generator) / max(dim, 1) ** 0.5).to(device)
        self._shift = torch.randn(count, generator=generator).to(device)

    @property
    def dim(self) -> int:
        """Number of columns that `widen` gives."""
        return len(self._mean) + len(self._shift)

    def widen(self, features: Tensor) -> Tensor:
        """The features, centered and scaled, and the random ones beside them. float (B, D) -> float32 (B, D + K)."""
        rows = (features.float() - self._mean).mul_(self._scale)
        return torch.cat([rows, (rows @ self._weights).add_(self._shift).relu_()], dim=1)
