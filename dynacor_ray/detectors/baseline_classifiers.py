"""What a detector declares that needs classifiers of its own, beside its judge function (§5.1, Table 1).

A `BaselineTraining` names the classifiers and what is read of them afterwards. The trainings of all chosen detectors
are done in one pass over the rows; every classifier is of the same kind, and they differ in labels, loss and in the
rows that they learn from, all pure functions of (seed, instance_id).

Deviations from the publications: the classifiers see the rows in the same order, where separate trainings would each
draw one of their own; their weights are independent.

Cost: one forward and backward pass per classifier (2 for AUM, 5 for out-of-sample probabilities, of 4/5 of the rows, 1
for CORES), without a further reading of the data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dynacor_ray.method.dynamics import cross_entropy_loss


class BaselineClassifier:
    """One classifier; this one learns the given labels of all rows by cross-entropy and records nothing."""

    extra_classes = 0
    stream = 0
    """Names its random start, different for every classifier that there is."""
    records = False
    """Whether every row is recorded in every epoch; else only in the last."""
    keeps_features = False
    """Whether what its last layer saw of every row is recorded in the last epoch, as the column `feature`."""

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
        """Values to be kept of rows, by column: (B,) or (B, n). `last`: in the last epoch.

        Values that several classifiers give the same column are added up.
        """
        return {}


class RecordedColumns(Protocol):
    """What the classifiers recorded of N instances, in the order of their ids."""

    @property
    def ids(self) -> NDArray[np.int64]:
        """int64 (N,), increasing."""

    @property
    def num_classes(self) -> int:
        """C."""

    @property
    def seed(self) -> int:
        """Of the training."""

    def mean(self, names: Sequence[str]) -> NDArray[np.float64]:
        """Columns of one value per row, averaged over the epochs, float64 (columns, N)."""

    def last(self, name: str) -> NDArray[Any]:
        """A column of the last epoch, (N,) or (N, n)."""


@dataclass(frozen=True)
class BaselineTraining:
    """The classifiers that a detector needs.

    Attributes:
        part: Name of this part of the evidence; one word, since names of folders are made of it.
        classifiers: (C, instances per class int64 (C,), seed) -> the classifiers.
        read: What was recorded -> arrays of the evidence by name, for `Evidence.part`.
    """

    part: str
    classifiers: Callable[[int, NDArray[np.int64], int], Sequence[BaselineClassifier]]
    read: Callable[[RecordedColumns], dict[str, NDArray[Any]]]
