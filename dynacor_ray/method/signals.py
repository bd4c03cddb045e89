"""The training signals of Table 6 by name, and the epoch-wide state of alignment (Kim et al., CVPR 2024, §4.3).

All are read from the pass that training makes anyway, so one training records them side by side (Figs. 5 and 6). The
functions themselves are in `dynamics`. Axes: B batch, C classes, D pre-logits.

Deviations from the paper:

- The directions of alignment (FINE) are those of the previous epoch, since an epoch's own are known only at its end.
  In the first epoch alignment is 0 for every row.
- Only originals enter the directions.

Cost: a softmax per signal on (B, C). For alignment one more matrix product of the size of a 512 x 512 layer, the gram
matrices float (C, D, D) in memory, and C eigenvectors of a D x D matrix per epoch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dynacor_ray.method.dynamics import (
    alignment,
    cross_entropy_loss,
    first_eigenvectors,
    given_label_probability,
    logit_margin,
    probability_difference,
)


@dataclass(frozen=True)
class BatchOutputs:
    """What training computes for one batch.

    Attributes:
        logits: float (B, C).
        label: int64 (B,).
        features: float (B, D), before the last layer.
        directions: float (C, D) from `ClassGrams`, None in the first epoch.
    """

    logits: Tensor
    label: Tensor
    features: Tensor
    directions: Tensor | None


@dataclass(frozen=True)
class Signal:
    """A training signal of Table 6.

    Attributes:
        name: its key in SIGNALS.
        title: what a table shows.
        column: where it is recorded.
        value: BatchOutputs -> float (B,).
        high_is_wrong: whether large values indicate a wrong label.
        sign_only: whether only the sign of the recorded value counts.
    """

    name: str
    title: str
    column: str
    value: Callable[[BatchOutputs], Tensor]
    high_is_wrong: bool = False
    sign_only: bool = False

    def read(self, recorded: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """The signal's dynamics from what was recorded (Eq. 1). float (N, E) -> float32 (N, E)."""
        wide = recorded.astype(np.float32)
        return np.where(wide >= 0, np.float32(1), np.float32(-1)) if self.sign_only else wide


def _margin(batch: BatchOutputs) -> Tensor:
    return logit_margin(batch.logits, batch.label)


def _alignment(batch: BatchOutputs) -> Tensor:
    if batch.directions is None:
        return torch.zeros_like(batch.logits[:, 0])
    return alignment(batch.features, batch.label, batch.directions)


SIGNALS = {
    signal.name: signal
    for signal in (
        Signal("margin_sign", "margin sign", "margin", _margin, sign_only=True),
        Signal("margin", "logit margin", "margin", _margin),
        Signal("probability", "probability", "probability", lambda b: given_label_probability(b.logits, b.label)),
        Signal(
            "probability_difference",
            "prob. difference",
            "probability_difference",
            lambda b: probability_difference(b.logits, b.label),
            high_is_wrong=True,
        ),
        Signal("loss", "loss", "loss", lambda b: cross_entropy_loss(b.logits, b.label), high_is_wrong=True),
        Signal("alignment", "alignment", "alignment", _alignment),
    )
}
"""Name -> signal (Table 6). The first is DynaCor's."""
COLUMNS = tuple(dict.fromkeys(signal.column for signal in SIGNALS.values()))
"""Recorded columns; one may serve several signals."""


def record_signals(batch: BatchOutputs) -> dict[str, Tensor]:
    """Column -> value of every signal for one batch (§4.3, Table 6), float (B,)."""
    values: dict[str, Tensor] = {}
    for signal in SIGNALS.values():
        if signal.column not in values:
            values[signal.column] = signal.value(batch)
    return values


@dataclass
class ClassGrams:
    """Gram matrices of the pre-logits per given label, `sum of v_x v_x^T` (Table 6; FINE), over any batches.

    Attributes:
        sums: float (C, D, D); those of several workers add up.
    """

    sums: Tensor

    @classmethod
    def empty(cls, num_classes: int, dim: int, device: torch.device) -> ClassGrams:
        """The matrices of no rows."""
        return cls(torch.zeros((num_classes, dim, dim), device=device))

    def add(self, features: Tensor, labels: Tensor) -> None:
        """Add rows, thousands at a time. features: float (B, D); labels: int64 (B,)."""
        for label in torch.unique(labels).tolist():
            members = features[labels == label]
            self.sums[label].addmm_(members.T, members)

    def directions(self) -> Tensor:
        """First eigenvector of each class's matrix, float (C, D); 0 for a class without rows."""
        return first_eigenvectors(self.sums)
