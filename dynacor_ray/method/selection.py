"""Choosing an epoch, or among runs, without clean labels (Kim et al., CVPR 2024, §4.4, Eq. 9; Table 3).

All statistics take one entry per distinct sign pattern and the number of rows behind it; with counts of 1 they are the
plain per-row formulas.

Deviations from the paper: where a group of Eq. 9 is empty the metric is 0, the least a square can be, so that a
collapsed clustering is never preferred. The released code averages Eq. 9's second mean over the originals whose copy is
in the corrupted set only: the caller passes their counts instead.

Cost: one pass over the distinct patterns per epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynacor_ray.core.errors import ConfigError, expected_got

_CHUNK = 256
EPOCH_CHOICES = ("validation_metric", "noise_rate", "davies_bouldin", "last")


RUN_RULES = ("validation_metric", "noise_rate")
"""Rules that can also choose among runs."""


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """What is known about one epoch of the clustering without clean labels (§4.4, Table 3).

    epoch: 0 is the state before training. validation_metric: Eq. 9, in [0, 1]. davies_bouldin: >= 0, None where it is
    infinite, which JSON cannot say. flagged_originals, flagged_corrupted: flagged share of each set, in [0, 1].
    """

    epoch: int
    validation_metric: float
    davies_bouldin: float | None
    flagged_originals: float
    flagged_corrupted: float


def validation_metric(
    q_noisy: NDArray[np.floating[Any]],
    flagged: NDArray[np.bool_],
    corrupted_count: NDArray[np.int64],
    original_count: NDArray[np.int64],
) -> float:
    """Eq. 9: `(mean q_noisy over flagged corrupted - mean q_noisy over unflagged originals)^2`; larger is better.

    q_noisy: float (u,) in [0, 1]; flagged: bool (u,); the counts: int (u,), rows of each set behind an entry (for the
    released code: `original_count` counts only the originals with a copy). Returns a float in [0, 1], 0 when either
    group is empty.
    """
    caught = np.where(flagged, corrupted_count, 0)
    kept = np.where(flagged, 0, original_count)
    if caught.sum() == 0 or kept.sum() == 0:
        return 0.0
    q = np.asarray(q_noisy, dtype=np.float64)
    return float((np.average(q, weights=caught, axis=0) - np.average(q, weights=kept, axis=0)) ** 2)


def davies_bouldin(
    embedding: NDArray[np.floating[Any]], flagged: NDArray[np.bool_], counts: NDArray[np.int64]
) -> float:
    """Davies-Bouldin index of the clusters flagged / unflagged (Table 3, §4.4): `(S_1 + S_0) / |m_1 - m_0|`.

    S_k is the mean Euclidean distance of cluster k's rows to their mean m_k. embedding: float (u, D); flagged: bool
    (u,); counts: int (u,), rows behind an entry. Returns a float >= 0, smaller is better; infinite when a cluster is
    empty or both means coincide.
    """
    weights = np.stack((flagged, ~flagged), axis=0) * counts
    size = weights.sum(axis=1)
    if (size == 0).any():
        return float("inf")
    share = (weights / size[:, None]).astype(embedding.dtype)
    means = share @ embedding
    distance = np.empty(len(embedding), dtype=embedding.dtype)
    for start in range(0, len(embedding), _CHUNK):  # what fits a core's cache: all at once takes four times as long
        rows = slice(start, start + _CHUNK)
        offset = embedding[rows] - means[np.where(flagged[rows], 0, 1)]
        distance[rows] = np.sqrt(np.einsum("ud,ud->u", offset, offset))
    gap = float(np.linalg.norm(means[0] - means[1], axis=0))
    return float((share @ distance).sum(axis=0)) / gap if gap > 0.0 else float("inf")


def rate_agreement(flagged_originals: float, noise_rate: float) -> float:
    """Minus the distance between the flagged share and an estimate of the noise rate (§3, §4.4); larger is better.

    The cut of a ranking with the largest F1 flags about as many rows as are wrong (where precision equals recall it is
    exactly as many), and F1 falls on both sides; how many are wrong is estimated apart from the clustering
    (`noise_rate.estimate_noise_rate`). Both in [0, 1]; returns a float in [-1, 0].

    >>> rate_agreement(flagged_originals=0.25, noise_rate=0.5)
    -0.25
    """
    return -abs(flagged_originals - noise_rate)


def choose_epoch(records: Sequence[EpochRecord], rule: str, noise_rate: float | None = None) -> int:
    """The epoch to keep (§4.4, Table 3): best by a rule of RUN_RULES, smallest Davies-Bouldin index, or the last.

    records: one per epoch, epoch 0 included. noise_rate: needed by the rule of that name. Of equally good epochs the
    earliest. Returns its `epoch`. Raises ConfigError for an unknown rule, no records or no noise rate where needed.
    """
    if rule not in EPOCH_CHOICES:
        raise ConfigError(expected_got(f"a rule among {', '.join(EPOCH_CHOICES)}", repr(rule), "pass one of these"))
    if not records:
        raise ConfigError(expected_got("at least one epoch", "none", "record epoch 0 before training"))
    if rule == "last":
        return records[-1].epoch
    if rule == "davies_bouldin":
        return min(records, key=_davies_bouldin_or_infinity).epoch
    return max(records, key=lambda record: score(record, rule, noise_rate)).epoch


def score(record: EpochRecord, rule: str, noise_rate: float | None = None) -> float:
    """What a rule of RUN_RULES says of an epoch (§4.4); larger is better. Raises ConfigError as `choose_epoch` does."""
    if rule == "validation_metric":
        return record.validation_metric
    if noise_rate is None:
        remedy = "train for two epochs or more, or choose by validation_metric"
        raise ConfigError(expected_got("an estimate of the noise rate", "none", remedy))
    return rate_agreement(record.flagged_originals, noise_rate)


def _davies_bouldin_or_infinity(record: EpochRecord) -> float:
    return float("inf") if record.davies_bouldin is None else record.davies_bouldin
