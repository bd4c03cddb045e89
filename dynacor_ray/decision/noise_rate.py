"""How many labels are wrong, from how often sure predictions disagree with them while the classifier trains (§4.3).

A classifier disagrees with a given label for two reasons: the label is wrong, or the classifier does not know the class
yet. The second reason fades as its certainty grows, the first does not. So the share of disagreement is read among the
surest predictions only, the `OUTER` and the `INNER` share of all originals. A wrong label that is being learned makes
its row a little less sure than others, or is memorized already; how much is lost that way is seen on the
corrupted copies, nearly all of which are wrong (§4.2), and divided out. Where labels are clean, disagreement all but
vanishes towards the surest rows: if the inner share's is far below the outer's, the rest is the classifier's own doubt,
and what is left in the inner share goes on fading in the same proportion.

Nothing is kept per row: counts by certainty merge over batches, workers and epochs by addition.

Deviations from the paper: it has no such estimate. That some copies have the true label by chance (Eq. 12) is not
allowed for: it makes the estimate too high, memorized labels make it too low (two classes, 30% wrong: 35%
without, 26% with Eq. 12). With it estimates were nearer on 99 noisy sets, 1.7 instead of 2.0 points off on average,
but cuts at them lost 0.06 F1 points more, and 0.2 on those of `dynacor compare`. Human errors are rarer where a class
is easy to see, clean labels with a weak encoder look alike from a distance: the range says how far the two readings are
apart. The constants were chosen on 50 label sets made from CIFAR-10 and -10N, Fashion-MNIST, digits and Gaussian
classes (2 to 100 classes, 1,800 to 25,000 rows, 0 to 63% wrong).

What training has not learned by its end is read as well (`NoiseRate.unlearned`), of all rows: of classes with few rows
sure predictions say nothing, but the right labels are learned and the wrong ones, like those of the copies, are not.

Cost: a maximum, a logarithm and a count per row of logits that training computes anyway.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dynacor_ray.decision.likely_classes import MOST_CLASSES

BINS = 384
_BINS_PER_BIT, _LEAST_DOUBT = 16, 2.0**-24
OUTER, INNER = 0.6, 0.3
"""Shares of the originals, surest first, among which disagreement is read."""
_ALL_DOUBT, _NO_DOUBT = 0.29, 0.37
"""Ratio of inner to outer disagreement at which what the outer has more counts as doubt, or as wrong labels."""
_LEAST_SEEN = 0.05
"""Least share of the copies' disagreement that is divided by."""
SIGMAS = 1.96
"""Standard errors on both sides of an estimate that hold 95%."""
FEW_ROWS, FEW_ROWS_OF_MANY, TOO_FEW_ROWS = 30, 60, 10
"""Rows per class from which on an estimate counts in full, of at most MOST_CLASSES and of more, and from which on its
low end does."""
_LEAST_TRAINING, _WHOLE_TRAINING = 10, 20
"""Epochs from which on what is not learned is read, and from which on what is learned last needs no correction: a
training half as long is taken to leave twice as much to be learned."""
_FIRST_STEPS = 60
"""Steps of training before an epoch counts: earlier, no prediction is sure."""


@dataclass(frozen=True)
class NoiseRate:
    """An estimate of the share of wrong labels (§3): low <= value <= high, all in [0, 1].

    The ends are as far apart as the readings, and as another sample of as many rows would move them (95%).

    Attributes:
        surest: the reading among the INNER share, in [0, 1], which the classifier's doubt has least part in.
        unlearned: disagreement of all originals over that of the copies, in [0, 1], in the epoch that tells the two
            apart best: a late one, before wrong labels are memorized. 0 where that comes before _LEAST_TRAINING.
        learned: by how much it fell in the second half of these E epochs, times 20 / E for E < 20; may exceed 1.
        few_rows: whether classes have too few rows for it to count in full (`for_few_rows`).
    """

    value: float
    low: float
    high: float
    surest: float
    unlearned: float = 0.0
    learned: float = 0.0
    few_rows: bool = False


def count_confidence(largest: Tensor, disagrees: Tensor, is_copy: Tensor) -> Tensor:
    """Rows by kind, agreement and certainty of the prediction (§4.3), which add up over batches.

    largest: float (B,), probability p of the class that is predicted; disagrees: bool (B,), whether that is not the
    label; is_copy: bool (B,). Returns int64 (2, 2, BINS): original or copy; label predicted or not; bin of p, 1/16 of
    a bit of `-log2(1 - p)` wide.
    """
    doubt = (1.0 - largest.double()).clamp(min=0.0) + _LEAST_DOUBT
    level = (-torch.log2(doubt) * _BINS_PER_BIT).long().clamp(0, BINS - 1)
    cell = (is_copy.long() * 2 + disagrees.long()) * BINS + level
    return torch.bincount(cell, minlength=4 * BINS).view(2, 2, BINS)


def disagreement_among_sure(counts: NDArray[np.int64], share: float) -> float:
    """Share of wrong labels by the surest originals (§4.3): their disagreement over that of the copies as sure as they.

    counts: int64 (2, 2, BINS) from `count_confidence`, with originals and copies; share in (0, 1]. A bin that is only
    partly among the surest counts in proportion. Returns a float in [0, 1].
    """
    wrong, seen = _disagreeing(counts, share) / counts.sum(axis=(1, 2))
    return float(min(1.0, wrong / max(seen, _LEAST_SEEN * share)))


def sampling_error(counts: NDArray[np.int64], share: float) -> float:
    """Standard error of `disagreement_among_sure` (§4.3), as of a ratio of two binomial shares (delta method).

    Of no disagreement at all it is that of a single row.
    """
    wrong, seen = np.maximum(_disagreeing(counts, share), 1.0)
    originals, copies = counts.sum(axis=(1, 2))
    ratio = (wrong / originals) / max(seen / copies, _LEAST_SEEN * share)
    return float(ratio * np.sqrt(1.0 / wrong - 1.0 / originals + 1.0 / seen - 1.0 / copies))


def _disagreeing(counts: NDArray[np.int64], share: float) -> NDArray[np.float64]:
    """Rows among the surest `share` of the originals, and copies as sure, that disagree: float64 (2,)."""
    surest = counts[:, :, ::-1].cumsum(axis=2)
    both = np.concatenate([[0], surest[0].sum(axis=0)])
    wanted = share * both[-1]
    last = int(np.searchsorted(both, wanted))
    part = (wanted - both[last - 1]) / (both[last] - both[last - 1])
    found: NDArray[np.float64] = surest[:, 1, last - 1] - (1.0 - part) * counts[:, 1, ::-1][:, last - 1]
    return found


def counted_epochs(num_epochs: int, steps_per_epoch: int) -> range:
    """Epochs that say most (§4.3): classes are known, and most wrong labels not yet memorized. For E >= 1."""
    length = max(1, num_epochs // 4)
    slow = -(-_FIRST_STEPS // max(1, steps_per_epoch))
    first = min(max(num_epochs // 10, slow, min(1, num_epochs - 1)), max(num_epochs // 5, min(1, num_epochs - 1)))
    return range(first, min(first + length, num_epochs))


def estimate_noise_rate(
    counts: Mapping[int, NDArray[np.int64]], num_epochs: int, steps_per_epoch: int
) -> NoiseRate | None:
    """Noise rate by the disagreement of sure predictions, averaged over `counted_epochs` (§3, §4.3).

    counts: epoch -> int64 (2, 2, BINS). The low end assumes that errors are as frequent everywhere as among the surest
    INNER, or is the value where that is less; the high end is the largest reading of any of these epochs; both are
    moved outwards by the sampling error.
    None without originals or copies.
    """
    known = [counts[epoch] for epoch in counted_epochs(num_epochs, steps_per_epoch) if epoch in counts]
    if not known or any(not one.sum(axis=(1, 2)).all() for one in known):
        return None
    outer = [disagreement_among_sure(one, OUTER) for one in known]
    inner = float(np.mean([disagreement_among_sure(one, INNER) for one in known], axis=0))
    wide = float(np.mean(outer, axis=0))
    fading = inner / wide if wide > inner else 1.0
    certain = min(1.0, max(0.0, (fading - _ALL_DOUBT) / (_NO_DOUBT - _ALL_DOUBT)))
    doubtful = min(inner, wide) * fading
    value = doubtful + (wide - doubtful) * certain
    # The epochs tell of the same rows: their mean has the error of one of them.
    error = SIGMAS * float(np.mean([sampling_error(one, OUTER) for one in known], axis=0))
    low, high = max(0.0, min(inner, value) - error), min(1.0, max(outer) + error)
    return NoiseRate(value, low, high, inner, *_unlearned(counts))


def _unlearned(counts: Mapping[int, NDArray[np.int64]]) -> tuple[float, float]:
    """`NoiseRate.unlearned` and `NoiseRate.learned`."""
    epochs = [one for one in sorted(counts) if counts[one].sum(axis=(1, 2)).all()]
    originals, copies = np.array([counts[one][:, 1].sum(axis=1) / counts[one].sum(axis=(1, 2)) for one in epochs]).T
    last = epochs[int(np.argmax(copies - originals))]
    before = [one for one in epochs if one < (last + 1) // 2]
    if last + 1 < _LEAST_TRAINING or not before:
        return 0.0, 0.0
    now, then = (disagreement_among_sure(counts[one], 1.0) for one in (last, before[-1]))
    return now, max(0.0, then - now) * max(1.0, _WHOLE_TRAINING / (last + 1))


def for_few_rows(rate: NoiseRate, rows: int, num_classes: int) -> NoiseRate:
    """An estimate with as much of it as so many originals bear out (ours).

    A network that has seen few rows of a class confuses it surely, which looks like wrong labels: of 20 rows per class
    with right labels it says 9%. The more classes there are to confuse, the more rows it takes. So with fewer than
    FEW_ROWS per class, or FEW_ROWS_OF_MANY, only the low end counts, beside what training does not learn, with fewer
    than TOO_FEW_ROWS nothing does; the high end stays. rows: originals, > 0; num_classes: C >= 2.
    """
    per_class = rows / num_classes
    if per_class >= (FEW_ROWS_OF_MANY if num_classes > MOST_CLASSES else FEW_ROWS):
        return rate
    if per_class >= TOO_FEW_ROWS:
        return replace(rate, value=rate.low, surest=min(rate.surest, rate.low), few_rows=True)
    return replace(rate, value=0.0, low=0.0, surest=0.0, unlearned=0.0, learned=0.0, few_rows=True)
