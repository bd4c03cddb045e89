"""Which labels are given for which classes: a confident joint, counted while training (§4.3; Northcutt et al. 2021).

Confident learning counts a row for its most probable class among those whose probability reaches the class's own
threshold, the mean probability of the class over the rows labeled with it; the off-diagonal C x C counts say which
classes are confused. Here probabilities are those of the training pass itself and thresholds those of the epoch
before, so nothing is kept per row: counts and threshold sums merge over batches, workers and epochs by addition.

Deviations from confident learning: probabilities are not out of sample, so the off-diagonal counts fall from epoch to
epoch as wrong labels are memorized; of each epoch's counts only those of `noise_rate.counted_epochs` are read.
How many labels are wrong in all is estimated by `noise_rate`, whose counts are taken in the same go. Corrupted copies
are counted there, not in the joint.

Cost: one softmax and one comparison per logit; next to nothing when thousands of rows are added at a time.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dynacor_ray.decision.noise_rate import BINS, count_confidence

MAX_JOINT_CLASSES = 2000
"""With more classes the C x C counts are too many; then each given class keeps two: itself, and all others."""
OTHER = -1
"""Stands for "another class than the given one" where single classes are not told apart."""


ORIGINAL, COPY, PADDING = 0, 1, -1
"""Kinds of rows."""


class JointCounter:
    """Counts one epoch (§4.3). thresholds: float (C,) of the epoch before, None in the first: then it has no joint.

    The sums are in `probability` float64 (C,), `labeled` float64 (C,), `counts` int64, `cells` says of what, and
    `confidence` int64 (2, 2, BINS); they merge over workers by addition.
    """

    def __init__(self, num_classes: int, thresholds: Tensor | None, device: torch.device) -> None:
        self._num_classes, self._thresholds = num_classes, thresholds
        self.probability = torch.zeros(num_classes, dtype=torch.float64, device=device)
        self.labeled = torch.zeros(num_classes, dtype=torch.float64, device=device)
        self._width = num_classes if num_classes <= MAX_JOINT_CLASSES else 2
        self.counts = torch.zeros(num_classes * self._width, dtype=torch.int64, device=device)
        self.confidence = torch.zeros((2, 2, BINS), dtype=torch.int64, device=device)

    def add(self, logits: Tensor, labels: Tensor, kind: Tensor) -> Tensor:
        """Count some rows; returns their most probable classes, int64 (B,), padding included.

        logits: float (B, C), detached; labels: int64 (B,); kind: (B,), e.g. ORIGINAL.
        """
        kind = kind.to(logits.device)
        real = kind != PADDING
        probability, largest, predicted = _softmax(logits.float())
        everywhere = predicted
        if not bool(real.all()):
            probability, largest, predicted = probability[real], largest[real], predicted[real]
            labels, kind = labels[real], kind[real]
        is_original = kind == ORIGINAL
        self.confidence += count_confidence(largest, predicted != labels, kind == COPY)
        given = probability.gather(1, labels.unsqueeze(1)).squeeze(dim=1).double()
        self.probability.index_add_(0, labels, torch.where(is_original, given, 0.0))
        self.labeled += torch.bincount(labels[is_original], minlength=self._num_classes)
        if self._thresholds is not None:
            top, confident = confident_class(probability, largest, predicted, self._thresholds)
            column = top if self._width == self._num_classes else (top != labels).long()
            cell = (labels * self._width + column)[confident & is_original]
            self.counts += torch.bincount(cell, minlength=len(self.counts))
        return everywhere

    def cells(self) -> Tensor:
        """Cells with a count (§4.3): int64 (n, 3), given class, predicted class (or OTHER) and count, on the CPU."""
        cell = self.counts.nonzero().flatten()
        given, column = cell // self._width, cell % self._width
        if self._width != self._num_classes:
            column = torch.where(column == 0, given, OTHER)
        return torch.stack((given, column, self.counts[cell]), dim=1).cpu()

    def thresholds(self) -> Tensor:
        """Mean probability of each class over the rows labeled with it, float (C,); above 1 for an absent class."""
        return torch.where(self.labeled > 0, self.probability / self.labeled.clamp(min=1), 2.0).float()


def confident_class(
    probability: Tensor, largest: Tensor, predicted: Tensor, thresholds: Tensor
) -> tuple[Tensor, Tensor]:
    """Most probable class among those that reach their threshold (Northcutt et al. 2021, Eq. 1; §4.3).

    probability: float (B, C), rows sum to 1; largest, predicted: their maximum, float (B,), and its class, int64 (B,);
    thresholds: float (C,). Returns the class, int64 (B,), and whether there is one, bool (B,): a row below every
    threshold is not counted.
    """
    reached = largest >= thresholds[predicted]
    # The predicted class reaches its threshold in most rows; only the others are searched.
    rest = (~reached).nonzero().flatten()
    others = probability[rest]
    found, top = torch.where(others >= thresholds, others, -1.0).max(dim=1)
    return predicted.index_copy(0, rest, top), reached.index_copy(0, rest, found >= 0)


def _softmax(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`torch.softmax` over classes, its maximum and where that is: float (B, C), float (B,) and int64 (B,).

    Many times as fast on a CPU where classes are few; one search for the maximum serves all that need it.
    """
    top, predicted = logits.max(dim=1, keepdim=True)
    power = (logits - top).exp_()
    total = power.sum(dim=1, keepdim=True)
    return power.div_(total), total.reciprocal_().squeeze(dim=1), predicted.squeeze(dim=1)


def class_noise_rates(
    given: NDArray[np.int64],
    predicted: NDArray[np.int64],
    count: NDArray[np.int64],
    num_classes: int,
    noise_rate: float,
) -> NDArray[np.float64]:
    """Share of wrong labels of each given class (§3): off-diagonal share of its counts, scaled to an overall rate.

    given, predicted (OTHER allowed), count: int64 (n,), cells of the epochs that count; noise_rate in [0, 1]. Returns
    float64 (C,) in [0, 1]; weighted by the classes' counts their mean is `noise_rate`, unless a class reaches 1. NaN
    for a class without counts.
    """
    total = np.bincount(given, weights=count, minlength=num_classes)
    off = given != predicted
    wrong = np.bincount(given[off], weights=count[off], minlength=num_classes)
    overall = wrong.sum() / total.sum() if total.sum() else 0.0
    scale = noise_rate / overall if overall else 0.0
    share = np.divide(wrong, total, out=np.full(num_classes, np.nan), where=total > 0)
    scaled: NDArray[np.float64] = np.minimum(1.0, share * scale)
    return scaled
