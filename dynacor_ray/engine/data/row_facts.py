"""What the training must know of its rows before the first one arrives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dynacor_ray.core.duplicates import TwinLabels
from dynacor_ray.method.corruption import CorruptionConfig


@dataclass(frozen=True)
class RowFacts:
    """What must be known of the training rows before the first one arrives; features are centered and scaled.

    Of images, whose network does that itself, mean is empty.
    """

    num_originals: int
    num_copies: int
    num_classes: int
    dim: int
    mean: np.ndarray
    scale: float
    class_counts: np.ndarray
    """Originals per given label, int64 (C,)."""
    corruption: CorruptionConfig | None = None
    """What made the copies; None without copies."""
    twins: TwinLabels | None = None
    """Rows with the same image or feature, which weigh as one and are left out together; None without any."""
    value_type: str = "float32"
    """Of one number of a row; "uint8" for images."""
    weighted: bool = False
    """Whether rows have a column `weight`: what each counts in the loss."""

    def row_weights(self, keys: np.ndarray) -> np.ndarray | None:
        """Weight of each row among its twins, float32 (n,); None without any. keys: int64 (n,)."""
        if self.twins is None:
            return None
        weights: np.ndarray = (1.0 / self.twins.sizes(keys >> 1)).astype(np.float32)
        return weights

    @property
    def row_bytes(self) -> int:
        """Of one row in memory."""
        return self.dim * np.dtype(self.value_type).itemsize

    @property
    def total(self) -> int:
        """Rows of one epoch over all ranks, without padding."""
        return self.num_originals + self.num_copies
