"""Choosing an epoch, or a run, without clean labels (Kim et al., CVPR 2024, §4.4, Eq. 9; Table 3).

All statistics take one entry per distinct sign pattern and the number of rows behind it; with counts of 1 they are the
plain per-row formulas.

Deviations from the paper:

- Where a group of Eq. 9 is empty the metric is 0, the minimum of a square, so that a collapsed clustering is never
  preferred.
- The released code averages Eq. 9's second mean only over the originals whose copy is in the corrupted set: the
  caller passes their counts instead.

Cost: one pass over the distinct patterns per epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from dynacor_ray.core.errors import ConfigError, expected_got

_CHUNK = 256
EpochChoice = Literal["validation_metric", "noise_rate", "davies_bouldin", "last"]
EPOCH_CHOICES: tuple[str, ...] = get_args(EpochChoice)
RunRule = Literal["validation_metric", "noise_rate"]
RUN_RULES: tuple[str, ...] = get_args(RunRule)
"""Rules that can also choose among runs."""


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """What is known about one epoch of the clustering without clean labels (§4.4, Table 3).

    Attributes:
        epoch: 0 is the state before training.
        validation_metric: Eq. 9, in [0, 1].
        davies_bouldin: >= 0; None where it is infinite, which JSON cannot express.
        flagged_originals: flagged share of the originals, in [0, 1].
        flagged_corrupted: flagged share of the copies, in [0, 1].
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

    Args:
        q_noisy: float (u,) in [0, 1].
        flagged: bool (u,).
        corrupted_count: int64 (u,), copies behind each entry.
        original_count: int64 (u,), originals behind each entry; for the released code only those with a copy.

    Returns:
        A float in [0, 1]; 0 when either group is empty.
    """
    flagged_copies = np.where(flagged, corrupted_count, 0)
    unflagged_originals = np.where(flagged, 0, original_count)
    if flagged_copies.sum() == 0 or unflagged_originals.sum() == 0:
        return 0.0
    q = np.asarray(q_noisy, dtype=np.float64)
    noisy, clean = (np.average(q, weights=counts, axis=0) for counts in (flagged_copies, unflagged_originals))
    return float((noisy - clean) ** 2)


def davies_bouldin(
    embedding: NDArray[np.floating[Any]], flagged: NDArray[np.bool_], counts: NDArray[np.int64]
) -> float:
    """Davies-Bouldin index of the clusters flagged / unflagged (Table 3, §4.4): `(S_1 + S_0) / |m_1 - m_0|`.

    S_k is the mean Euclidean distance of cluster k's rows to their mean m_k.

    Args:
        embedding: float (u, D).
        flagged: bool (u,).
        counts: int64 (u,), rows behind each entry.

    Returns:
        A float >= 0, smaller is better; infinite when a cluster is empty or both means coincide.
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


def choose_epoch(records: Sequence[EpochRecord], rule: str, noise_rate: float | None = None) -> int:
    """The epoch to keep (§4.4, Table 3): best by a rule of RUN_RULES, smallest Davies-Bouldin index, or the last.

    Args:
        records: one per epoch, epoch 0 included.
        rule: one of EPOCH_CHOICES.
        noise_rate: an estimate in [0, 1], needed by the rule of that name.

    Returns:
        `epoch` of the best record, the earliest of equally good ones.

    Raises:
        ConfigError: no noise rate where it is needed.
    """
    if rule == "last":
        return records[-1].epoch
    if rule == "davies_bouldin":
        return min(records, key=lambda one: np.inf if one.davies_bouldin is None else one.davies_bouldin).epoch
    return max(records, key=lambda record: score(record, rule, noise_rate)).epoch


def score(record: EpochRecord, rule: str, noise_rate: float | None = None) -> float:
    """Score of an epoch by a rule of RUN_RULES (§4.4); larger is better. Raises ConfigError as `choose_epoch` does.

    The rule `noise_rate` (ours) is minus the distance between the flagged share and an estimate of the noise rate made
    apart from the clustering (`decision.noise_rate`): the cut of a ranking with the largest F1 flags about as many rows
    as are wrong, and F1 falls on both sides.
    """
    if rule == "validation_metric":
        return record.validation_metric
    if noise_rate is None:
        remedy = "train for two epochs or more, or choose by validation_metric"
        raise ConfigError(expected_got("an estimate of the noise rate", "none", remedy))
    return -abs(record.flagged_originals - noise_rate)
