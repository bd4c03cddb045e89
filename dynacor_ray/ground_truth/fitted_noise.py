"""Label noise that is fitted to all rows (ours): errors on rows that are hard to see, and those of a weak annotator.

Each kind reads the rows block by block, so that no more than a few numbers per row are ever in one place: sums per
class are merged, and the labels are made from a sketch of every row. The result is the same for any blocks but for the
last bits of the sums.

Cost: hard rows read the features twice, one product (N, D) x (D, C); the weak annotator once, (N, D) x (D, 12).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynacor_ray.core.rng import Purpose, derive_seed, keyed_uniform
from dynacor_ray.ground_truth.synthetic_noise import checked_features, checked_labels, flip

ANNOTATOR_FEATURES, ANNOTATOR_SHARE, ANNOTATOR_ROWS = 12, 0.25, 50_000
"""Random projections that the weak annotator sees; the share of the rows that it learns from, and about the most."""
_BLOCK = 65_536


@dataclass(frozen=True)
class ClassSums:
    """Features summed by class, to be merged. sums: float64 (C, D); counts: int64 (C,)."""

    sums: NDArray[np.float64]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, features: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]], num_classes: int) -> ClassSums:
        """Of a block. features: float (n, D); labels: integers (n,) in 0..C-1. Raises DataError for NaN."""
        rows = checked_features(features, np.asarray(labels, np.int64))
        sums = np.zeros((num_classes, rows.shape[1]))
        for one in np.unique(labels):
            sums[one] = rows[labels == one].sum(axis=0, dtype=np.float64)
        return cls(sums, np.bincount(labels, minlength=num_classes).astype(np.int64))

    def merge(self, other: ClassSums) -> ClassSums:
        """The sums of both."""
        return ClassSums(self.sums + other.sums, self.counts + other.counts)

    def means(self) -> NDArray[np.float64]:
        """Mean of every class, float64 (C, D); infinite for a class without rows."""
        means = self.sums / np.maximum(self.counts, 1)[:, None]
        means[self.counts == 0] = np.inf
        return means


def difficulty(
    features: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]], means: NDArray[np.float64]
) -> NDArray[np.float64]:
    """How clearly a row shows its class, and which other class it is nearest to.

    Args:
        features: float (n, D).
        labels: true labels, integers (n,).
        means: float64 (C, D), of `ClassSums.means`.

    Returns:
        float64 (n, 2): squared distance to the nearest other mean less that to the own one; the other class.
    """
    distance = np.full((len(labels), len(means)), np.inf)
    for one in np.flatnonzero(np.isfinite(means[:, 0])):
        distance[:, one] = ((features - means[one]) ** 2).sum(axis=1)
    own = np.take_along_axis(distance, np.asarray(labels, np.int64)[:, None], axis=1)[:, 0]
    np.put_along_axis(distance, np.asarray(labels, np.int64)[:, None], np.inf, axis=1)
    return np.stack([distance.min(axis=1) - own, distance.argmin(axis=1).astype(np.float64)], axis=1)


def hard_rows(
    true_labels: NDArray[np.integer[Any]],
    ids: NDArray[np.int64],
    rate: float,
    num_classes: int,
    seed: int,
    sketch: NDArray[np.float64],
) -> NDArray[np.int32]:
    """Given labels that are wrong only where a class is hard to see: the other class that is nearest.

    Of the hardest 2 * `rate` of the rows every second one, drawn by its id, gets the label of that other class; beyond
    a rate of 1/2, that share of all rows.

    Args:
        true_labels: integers (N,) in 0..C-1, of all rows.
        ids: int64 (N,).
        rate: in [0, 1].
        num_classes: C >= 2.
        seed: any integer.
        sketch: float64 (N, 2), of `difficulty`.

    Returns:
        int32 (N,).

    Raises:
        ConfigError: rate or C out of range.
        DataError: a label out of range.
    """
    labels = checked_labels(true_labels, rate, num_classes)
    order = np.argsort(sketch[:, 0], kind="stable")
    is_hard = np.zeros(len(labels), np.bool_)
    is_hard[order[: round(min(1.0, 2.0 * rate) * len(labels))]] = True
    return flip(labels, sketch[:, 1].astype(np.int64), ids, np.where(is_hard, max(0.5, rate), 0.0), seed)


def glance(features: NDArray[np.floating[Any]], seed: int) -> NDArray[np.float32]:
    """What the weak annotator sees of rows: a few random projections. float (n, D) -> float32 (n, 12)."""
    stream = np.random.Generator(np.random.PCG64(derive_seed(seed, int(Purpose.NOISE_LABEL))))
    projection = stream.standard_normal((features.shape[1], ANNOTATOR_FEATURES)) / np.sqrt(features.shape[1])
    seen: NDArray[np.float32] = (features @ projection).astype(np.float32)
    return seen


def weak_annotator(
    true_labels: NDArray[np.integer[Any]],
    ids: NDArray[np.int64],
    rate: float,
    num_classes: int,
    seed: int,
    sketch: NDArray[np.float32],
) -> NDArray[np.int32]:
    """Given labels of which a share `rate` comes from a weak classifier: errors that are a function of x.

    A logistic regression on what it sees, fitted on a quarter of the rows (at most about 50,000) with their true
    labels, draws the label of the rows chosen by their ids; it may be right. sketch: float32 (N, 12), of `glance`. The
    rest as in `hard_rows`.
    """
    from sklearn.linear_model import LogisticRegression

    labels = checked_labels(true_labels, rate, num_classes)
    share = min(ANNOTATOR_SHARE, ANNOTATOR_ROWS / max(len(labels), 1))
    fitted = keyed_uniform(seed, Purpose.NOISE_RATE, ids) < share
    if len(np.unique(labels[fitted])) < 2:
        return labels.astype(np.int32)
    model = LogisticRegression(max_iter=200).fit(sketch[fitted], labels[fitted])
    draw, chosen = keyed_uniform(seed, Purpose.NOISE_LABEL, ids), labels.copy()
    for start in range(0, len(labels), _BLOCK):
        rows = slice(start, start + _BLOCK)
        upto = np.cumsum(model.predict_proba(sketch[rows]), axis=1)
        chosen[rows] = model.classes_[np.argmax(upto > (draw[rows] * upto[:, -1])[:, None], axis=1)]
    return flip(labels, chosen, ids, rate, seed)
