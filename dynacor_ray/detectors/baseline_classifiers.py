"""The classifiers that baselines ask for, as members of one panel that is trained in a single pass (§5.1, Table 1).

Every member is a classifier of the same kind on the same rows; they differ in labels, loss and in the rows that they
learn from, all pure functions of (seed, instance_id).

Deviations from the publications: the members see the rows in the same order, where separate trainings would each draw
one of their own; their weights are independent.

Cost: for the members asked for, one forward and backward pass each (2 for AUM, 5 for out-of-sample probabilities, of
4/5 of the rows, 1 for CORES), without a further reading of the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dynacor_ray.detectors.aum import threshold_samples
from dynacor_ray.detectors.confident_learning import fold_of
from dynacor_ray.detectors.cores import beta, cores_loss, cores_statistic, learning_rate_factor
from dynacor_ray.method.dynamics import cross_entropy_loss, logit_margin

FOLDS = 5
AUM_RUNS = 2
CLASSIFIERS = {"aum": AUM_RUNS, "out_of_sample": FOLDS, "cores": 1}
"""Parts of the evidence that the panel gives, and how many classifiers each asks for."""
PROBABILITIES, CORES = "probabilities", "cores"
AUM = tuple(f"aum_{run}" for run in range(AUM_RUNS))
"""Columns of the recorded values."""


class Member:
    """A classifier of the panel; this one learns the given labels of all rows by cross-entropy and records nothing."""

    extra_classes = 0
    stream = 0
    """Names its random start, different for every member that there is."""
    records = False
    """Whether every row is recorded in every epoch; else only in the last."""

    def learns(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Rows that it learns from. int64 (B,) -> bool (B,)."""
        return np.ones(len(ids), np.bool_)

    def label(self, ids: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Labels that it learns. int64 (B,) twice -> int64 (B,)."""
        return labels

    def loss(self, logits: Tensor, labels: Tensor, epoch: int, num_epochs: int) -> Tensor:
        """Loss per row. float (B, C), int64 (B,) -> float (B,)."""
        return cross_entropy_loss(logits, labels)

    def rate_factor(self, epoch: int, num_epochs: int) -> float:
        """What the learning rate is multiplied by."""
        return 1.0

    def record(self, logits: Tensor, labels: Tensor, ids: NDArray[np.int64], last: bool) -> dict[str, Tensor]:
        """Values to be kept of rows, by column: (B,) or (B, n). `last`: in the last epoch."""
        return {}


class AumMember(Member):
    """A training with an extra class, to which threshold samples are relabeled (Pleiss et al. 2020)."""

    extra_classes, records = 1, True

    def __init__(self, run: int, num_classes: int, seed: int) -> None:
        self._run, self._num_classes, self._seed = run, num_classes, seed
        self.stream = run

    def label(self, ids: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """The given label, or C for a threshold sample."""
        return np.where(threshold_samples(ids, self._num_classes, self._seed, self._run), self._num_classes, labels)

    def record(self, logits: Tensor, labels: Tensor, ids: NDArray[np.int64], last: bool) -> dict[str, Tensor]:
        """The logit margin."""
        return {AUM[self._run]: logit_margin(logits, labels)}


class FoldMember(Member):
    """A training without one fold, whose probabilities it predicts at the end (confident learning)."""

    def __init__(self, fold: int, seed: int) -> None:
        self._fold, self._seed = fold, seed
        self.stream = 10 + fold

    def learns(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """All but its fold."""
        others: NDArray[np.bool_] = fold_of(ids, FOLDS, self._seed) != self._fold
        return others

    def record(self, logits: Tensor, labels: Tensor, ids: NDArray[np.int64], last: bool) -> dict[str, Tensor]:
        """Probabilities (B, C) of the rows of its fold, 0 for all others: the members' sum has every row's."""
        if not last:
            return {}
        mine = torch.from_numpy(fold_of(ids, FOLDS, self._seed) == self._fold).to(logits.device)
        return {PROBABILITIES: torch.softmax(logits, dim=1) * mine[:, None]}


class CoresMember(Member):
    """A training with the confidence regularization of CORES (Cheng et al. 2021)."""

    stream = 20

    def __init__(self, prior: NDArray[np.floating[Any]]) -> None:
        self._prior = torch.from_numpy(np.asarray(prior, np.float32))

    def loss(self, logits: Tensor, labels: Tensor, epoch: int, num_epochs: int) -> Tensor:
        """Cross-entropy minus beta times its mean over labels drawn like the given ones."""
        return cores_loss(logits, labels, self._prior.to(logits.device), beta(epoch, num_epochs))

    def rate_factor(self, epoch: int, num_epochs: int) -> float:
        """1 / (1 + beta)."""
        return learning_rate_factor(beta(epoch, num_epochs))

    def record(self, logits: Tensor, labels: Tensor, ids: NDArray[np.int64], last: bool) -> dict[str, Tensor]:
        """The sieve's statistic at the end."""
        return {CORES: cores_statistic(logits, labels)} if last else {}


class Panel(nn.Module):
    """Classifiers side by side. forward: features (B, D) and the rows for each, int64 (b_k,) -> logits (b_k, C_k)."""

    def __init__(self, classifiers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.classifiers = nn.ModuleList(classifiers)

    def forward(self, features: Tensor, rows: Sequence[Tensor]) -> list[Tensor]:
        """Logits of every classifier for its rows."""
        pairs = zip(self.classifiers, rows, strict=True)
        return [classifier(features.index_select(0, chosen)) for classifier, chosen in pairs]


def make_members(parts: Sequence[str], num_classes: int, class_counts: NDArray[np.int64], seed: int) -> list[Member]:
    """The members that give the parts "aum", "out_of_sample" and "cores" of the evidence. class_counts: int64 (C,)."""
    members: list[Member] = []
    if "aum" in parts:
        members += [AumMember(run, num_classes, seed) for run in range(AUM_RUNS)]
    if "out_of_sample" in parts:
        members += [FoldMember(fold, seed) for fold in range(FOLDS)]
    if "cores" in parts:
        members.append(CoresMember(class_counts / class_counts.sum()))
    return members
