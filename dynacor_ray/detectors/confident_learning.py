"""Confident learning (CL) through the library cleanlab (Northcutt, Jiang, Chuang, JAIR 2021; Table 1).

The confident joint counts instances by given and confidently predicted class, where class j's threshold t_j is the mean
probability of j over instances labeled j. Three filters read it: `prune_by_noise_rate` removes as many of each
off-diagonal cell as the calibrated joint says, by margin; `both` only what `prune_by_class` would remove too;
`confident_learning` the instances that were counted off the diagonal.

Deviations from the paper:

- None in the filters, which are cleanlab's.
- Folds are drawn by a key of each instance, not in equal numbers per class.
- A class that no label names is dropped from the probabilities, which are divided by their new sums: its threshold
  would be a mean of nothing.

Cost: five trainings on four fifths of the instances; a sort per pair of classes. cleanlab works in one process, on
float (N, C) held in memory.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dynacor_ray.core.errors import ConfigError, expected_got
from dynacor_ray.core.rng import Purpose, keyed_choice
from dynacor_ray.detectors.baseline_classifiers import BaselineClassifier, BaselineTraining
from dynacor_ray.detectors.evidence import Evidence, Verdict

FOLDS = 5


def fold_of(ids: NDArray[np.int64], folds: int, seed: int) -> NDArray[np.int64]:
    """The fold that holds an instance out, uniform on 0..folds-1, folds >= 2. int64 (N,) -> int64 (N,)."""
    return keyed_choice(seed, Purpose.FOLD, ids, folds)


class FoldClassifier(BaselineClassifier):
    """A training without one fold, whose probabilities it predicts at the end (Northcutt et al. 2021)."""

    def __init__(self, fold: int, seed: int) -> None:
        self._fold, self._seed = fold, seed
        self.stream = 10 + fold

    def learns(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """All but its fold."""
        others: NDArray[np.bool_] = fold_of(ids, FOLDS, self._seed) != self._fold
        return others

    def record(self, logits: Tensor, labels: Tensor, ids: NDArray[np.int64], last: bool) -> dict[str, Tensor]:
        """Probabilities (B, C) of the rows of its fold, 0 for all others: the sum over the folds has every row's."""
        if not last:
            return {}
        mine = torch.from_numpy(fold_of(ids, FOLDS, self._seed) == self._fold).to(logits.device)
        return {"probabilities": torch.softmax(logits, dim=1) * mine[:, None]}


OUT_OF_SAMPLE = BaselineTraining(
    "out_of_sample",
    lambda num_classes, class_counts, seed: [FoldClassifier(fold, seed) for fold in range(FOLDS)],
    lambda recorded: {"probabilities": recorded.last("probabilities")},
)
"""probabilities: float (N, C), rows sum to 1, of classifiers that did not see the instance."""


def among_present(
    labels: NDArray[np.integer[Any]], probabilities: NDArray[np.floating[Any]]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Labels and probabilities of the P classes that occur.

    Args:
        labels: integers (N,) in 0..C-1.
        probabilities: float (N, C).

    Returns:
        Labels, int64 (N,) in 0..P-1, and probabilities, float64 (N, P), whose rows sum to 1. A row with all its
        probability on absent classes becomes uniform.
    """
    present, dense = np.unique(labels, return_inverse=True)
    kept = np.maximum(probabilities[:, present].astype(np.float64), 0.0)
    total = kept.sum(axis=1, keepdims=True)
    kept = np.where(total > 0, kept / np.where(total > 0, total, 1.0), 1.0 / max(len(present), 1))
    return dense.astype(np.int64), kept


def find_issues(evidence: Evidence, filter_by: str) -> Verdict:
    """Confident learning with one of cleanlab's filters (Table 1; Northcutt et al. 2021).

    Args:
        evidence: probabilities, float (N, C).
        filter_by: name of the filter.

    Returns:
        Score: probability of the given label.

    Raises:
        ConfigError: cleanlab is not installed.
    """
    try:
        from cleanlab.filter import find_label_issues
        from cleanlab.rank import get_self_confidence_for_each_label
    except ImportError as error:
        remedy = "pip install 'dynacor-ray[cleanlab]', or leave confident learning out"
        raise ConfigError(expected_got("the library cleanlab", "none that can be imported", remedy)) from error
    labels, probabilities = among_present(evidence.given_label, evidence.part("probabilities"))
    if probabilities.shape[1] < 2:  # nothing that a label could be confused with, which cleanlab refuses
        return Verdict(np.zeros(len(labels), np.bool_), np.ones(len(labels)))
    flags = find_label_issues(labels, probabilities, filter_by=filter_by, n_jobs=1)
    score = get_self_confidence_for_each_label(labels, probabilities)
    return Verdict(np.asarray(flags, np.bool_), np.asarray(score, np.float64))


prune_by_noise_rate = functools.partial(find_issues, filter_by="prune_by_noise_rate")
"""CL, pruning by noise rate."""
both = functools.partial(find_issues, filter_by="both")
"""CL, pruning by class and by noise rate."""
confident_learning = functools.partial(find_issues, filter_by="confident_learning")
"""CL, off-diagonals of the confident joint."""
