"""What a detector may look at, and what it answers: the common ground of all baselines (Kim et al., CVPR 2024, §5.1).

A detector is a pure function of `Evidence`; what the evidence costs (a training, neighbors) is gathered once and read
by all detectors that ask for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dynacor_ray.core.errors import ConfigError, expected_got

EvidencePart = Literal["dynamics", "published", "ablation", "neighbors", "prototypes"]
"""A part of the evidence that is gathered for all detectors alike; others come from trainings of their own."""


@dataclass(frozen=True)
class Verdict:
    """A detector's answer for N instances.

    is_label_issue: bool (N,), the flags; score: float64 (N,), finite, low = likely wrong, which ranks the instances.
    """

    is_label_issue: NDArray[np.bool_]
    score: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is known of N instances, aligned; a part that was not gathered is None. No part comes from true labels.

    given_label: int32 (N,) in 0..C-1.
    margins: float (N, E), logit margins of the DynaCor run (Eq. 1); q_noisy: float32 (N,), its Eq. 3;
    leave_one_out: float32 (N,), margins of a ridge regression without the row (`decision.leave_one_out_ridge`), None
    with a network, which has no fixed features.
    copy_margins: float (M, E), copy_q_noisy and copy_leave_one_out: float32 (M,), the same of the corrupted copies
    (§4.2); noise_rate: the rate which that training estimates, None when it was too short.
    log_odds: float64 (N,) and copy_log_odds (M,), of P(wrong) by the label noise model, None where it could not be
    fitted; log_odds_cut: from where on it flags.
    q_published, published_margin: float32 (N,), Eq. 3 and the mean margin of a training of its own, all as printed
    (Table 5); q_untrained, q_clustering_only: float32 (N,), Eq. 3 of that training without both losses and without the
    alignment loss (Table 4).
    neighbor_labels: int32 (N, K), given labels of the nearest other instances, nearest first; similarity: float32
    (N, K), their cosine similarity.
    prototype_margin: float (N,), cosine to the own class's prototype minus the largest to another's.
    trained: what the detectors' own classifiers say, by name (`baseline_classifiers.BaselineTraining`).
    """

    given_label: NDArray[np.integer[Any]]
    num_classes: int
    margins: NDArray[np.floating[Any]] | None = None
    q_noisy: NDArray[np.float32] | None = None
    copy_margins: NDArray[np.floating[Any]] | None = None
    copy_q_noisy: NDArray[np.float32] | None = None
    leave_one_out: NDArray[np.float32] | None = None
    copy_leave_one_out: NDArray[np.float32] | None = None
    noise_rate: float | None = None
    log_odds: NDArray[np.float64] | None = None
    copy_log_odds: NDArray[np.float64] | None = None
    log_odds_cut: float | None = None
    q_published: NDArray[np.float32] | None = None
    published_margin: NDArray[np.float32] | None = None
    q_untrained: NDArray[np.float32] | None = None
    q_clustering_only: NDArray[np.float32] | None = None
    neighbor_labels: NDArray[np.int32] | None = None
    similarity: NDArray[np.float32] | None = None
    prototype_margin: NDArray[np.floating[Any]] | None = None
    trained: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def part(self, name: str) -> NDArray[Any]:
        """An array of the evidence by its name. Raises ConfigError when it was not gathered."""
        value: NDArray[Any] | None = self.trained.get(name, getattr(self, name, None))
        if value is None:
            raise ConfigError(expected_got(f"evidence with {name}", "none", "gather what the detector reads first"))
        return value
