"""How many labels are wrong: a confident joint counted while the classifier trains (§4.3; Northcutt et al. 2021).

Confident learning counts a row for its most probable class among those whose probability reaches the class's own
threshold, the mean probability of the class over the rows labelled with it; the off-diagonal share of the C x C counts
estimates the noise rate. Here probabilities are those of the training pass itself and thresholds those of the epoch
before, so nothing is kept per row: counts and threshold sums merge over batches, workers and epochs by addition.

Deviations from confident learning: probabilities are not out of sample, so the estimate falls from epoch to epoch as
wrong labels are learnt by heart; only epochs after the first fifth and up to the third count, when the classes are
known and most wrong labels are not. Corrupted copies are not counted.

Cost: one softmax and one comparison per logit, done for thousands of rows at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MAX_JOINT_CLASSES = 2000
"""With more classes the C x C counts are too many; then each given class keeps two: itself, and all others."""
OTHER = -1
"""Stands for "another class than the given one" where single classes are not told apart."""
_FLUSH_ROWS = 8192


@dataclass(frozen=True)
class NoiseRate:
    """An estimate of the share of wrong labels (§3): its value and the range over the epochs that it is the mean of."""

    value: float
    low: float
    high: float


class JointCounter:
    """Counts one epoch (§4.3). thresholds: float (C,) of the epoch before, None in the first: then nothing is counted.

    After the last batch and `flush`, the sums are in `probability` float64 (C,), `labelled` float64 (C,) and `counts`
    int64, `cells` says of what; they merge over workers by addition.
    """

    def __init__(self, num_classes: int, thresholds: Tensor | None, device: torch.device) -> None:
        self._num_classes, self._thresholds = num_classes, thresholds
        self.probability = torch.zeros(num_classes, dtype=torch.float64, device=device)
        self.labelled = torch.zeros(num_classes, dtype=torch.float64, device=device)
        self._width = num_classes if num_classes <= MAX_JOINT_CLASSES else 2
        self.counts = torch.zeros(num_classes * self._width, dtype=torch.int64, device=device)
        self._waiting: list[tuple[Tensor, Tensor, Tensor]] = []
        self._rows = 0

    def add(self, logits: Tensor, labels: Tensor, counted: Tensor) -> None:
        """Rows of one batch. logits: float (B, C), detached; labels: int64 (B,); counted: bool (B,), the originals."""
        self._waiting.append((logits, labels, counted))
        self._rows += len(labels)
        if self._rows >= _FLUSH_ROWS:
            self.flush()

    def flush(self) -> None:
        """Count the rows that are waiting."""
        if not self._waiting:
            return
        logits, labels, counted = (torch.cat(parts, dim=0) for parts in zip(*self._waiting, strict=True))
        self._waiting, self._rows = [], 0
        rows = counted.to(logits.device)
        probability, labels = torch.softmax(logits[rows].float(), dim=1), labels[rows]
        given = probability.gather(1, labels.unsqueeze(1)).squeeze(dim=1)
        self.probability.index_add_(0, labels, given.double())
        self.labelled += torch.bincount(labels, minlength=self._num_classes)
        if self._thresholds is not None:
            top, confident = confident_class(probability, self._thresholds)
            column = top if self._width == self._num_classes else (top != labels).long()
            cell = labels[confident] * self._width + column[confident]
            self.counts += torch.bincount(cell, minlength=len(self.counts))

    def cells(self) -> Tensor:
        """Cells with a count (§4.3): int64 (n, 3), given class, predicted class (or OTHER) and count, on the CPU."""
        cell = self.counts.nonzero().flatten()
        given, column = cell // self._width, cell % self._width
        if self._width != self._num_classes:
            column = torch.where(column == 0, given, OTHER)
        return torch.stack((given, column, self.counts[cell]), dim=1).cpu()

    def thresholds(self) -> Tensor:
        """Mean probability of each class over the rows labelled with it, float (C,); above 1 for an absent class."""
        return torch.where(self.labelled > 0, self.probability / self.labelled.clamp(min=1), 2.0).float()


def confident_class(probability: Tensor, thresholds: Tensor) -> tuple[Tensor, Tensor]:
    """Most probable class among those that reach their threshold (Northcutt et al. 2021, Eq. 1; §4.3).

    probability: float (B, C), rows sum to 1; thresholds: float (C,). Returns the class, int64 (B,), and whether there
    is one, bool (B,): a row below every threshold is not counted.
    """
    above = probability >= thresholds
    return torch.where(above, probability, -1.0).argmax(dim=1), above.any(dim=1)


def estimate_noise_rate(
    epoch: NDArray[np.int64], is_diagonal: NDArray[np.bool_], count: NDArray[np.int64], num_epochs: int
) -> NoiseRate | None:
    """Off-diagonal share of the counts, averaged over the epochs that say most (§3; Northcutt et al. 2021).

    epoch, count: int64 (n,); is_diagonal: bool (n,), given = predicted; one entry per cell that is not zero.
    num_epochs: E. Returns None when none of those epochs has a count, as with E = 1.
    """
    rates = []
    for number in range(max(1, num_epochs // 5), max(1, num_epochs // 3) + 1):
        here = epoch == number
        total = int(count[here].sum(axis=0))
        if total:
            rates.append(float(count[here & ~is_diagonal].sum(axis=0) / total))
    return NoiseRate(sum(rates) / len(rates), min(rates), max(rates)) if rates else None
