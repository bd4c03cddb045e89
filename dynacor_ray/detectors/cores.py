"""CORES: a loss that punishes agreeing with the label prior, and a sieve on it (Cheng et al., ICLR 2021; Table 1).

The confidence regularizer subtracts beta times the expected cross-entropy with a label drawn from the prior. It drives
predictions to be confident, so that an instance whose loss is still above its mean over all labels has a wrong label.

Deviations from the paper:

- The regularizer, which is unbounded, would drive logits to infinity. As usual in practice 1e-8 is added to its
  probabilities, so that a class with no probability left has no gradient.
- The sieve is read once, at the end of training (`cores`). Whether sieved instances are left out of later epochs is up
  to the training loop.
- The statistic is computed from logits, from which the normalizer cancels: exact, and without a softmax.

Cost: one training; per row and epoch one softmax and one weighted sum over classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dynacor_ray.core.errors import DataError, expected_got
from dynacor_ray.detectors.baseline_classifiers import BaselineClassifier, BaselineTraining
from dynacor_ray.detectors.evidence import Evidence, Verdict

BETA = 2.0
"""Weight of the regularizer on its plateau."""
LEAST = 1e-8
"""Added to the probabilities in the regularizer."""


def beta(epoch: int, num_epochs: int) -> float:
    """Weight of the regularizer in an epoch, in [0, 2].

    0 for the first tenth of the epochs, linear to 2 over the next three tenths, then 2.

    Args:
        epoch: in 0..E-1.
        num_epochs: E.
    """
    # in tenths of an epoch, which are whole numbers: the plateau is reached exactly
    risen = min(max(10 * epoch - num_epochs, 0), 3 * num_epochs)
    return BETA * risen / (3 * num_epochs)


def cores_loss(logits: Tensor, labels: Tensor, prior: Tensor, beta: float) -> Tensor:
    """`CE - beta * sum_k prior_k * (-log p_k)`, per row (Cheng et al. 2021).

    Args:
        logits: float (B, C).
        labels: int64 (B,).
        prior: float (C,), shares of the given labels; sums to 1.
        beta: weight of the regularizer.

    Returns:
        float (B,), at least beta * log(LEAST).
    """
    own = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    return own + beta * (torch.log(torch.softmax(logits, dim=1) + LEAST) * prior).sum(dim=1)


def cores_statistic(logits: Tensor, labels: Tensor) -> Tensor:
    """`CE - mean_k(-log p_k)`, per row; above 0 the sieve drops it (Cheng et al. 2021).

    Args:
        logits: float (B, C).
        labels: int64 (B,).

    Returns:
        float (B,). The log-sum-exp cancels, which leaves mean_k f_k - f_y.
    """
    return logits.mean(dim=1) - logits.gather(1, labels.unsqueeze(1)).squeeze(dim=1)


class CoresClassifier(BaselineClassifier):
    """A training with the confidence regularization of CORES (Cheng et al. 2021)."""

    stream = 20

    def __init__(self, prior: NDArray[np.floating[Any]]) -> None:
        self._prior = torch.from_numpy(np.asarray(prior, np.float32))

    def loss(self, logits: Tensor, labels: Tensor, epoch: int, num_epochs: int) -> Tensor:
        """Cross-entropy minus beta times its mean over labels drawn like the given ones."""
        return cores_loss(logits, labels, self._prior.to(logits.device), beta(epoch, num_epochs))

    def rate_factor(self, epoch: int, num_epochs: int) -> float:
        """1 / (1 + beta)."""
        return 1.0 / (1.0 + beta(epoch, num_epochs))

    def record(self, logits: Tensor, labels: Tensor, ids: NDArray[np.int64], last: bool) -> dict[str, Tensor]:
        """The sieve's statistic at the end."""
        return {"cores": cores_statistic(logits, labels)} if last else {}


CORES_TRAINING = BaselineTraining(
    "cores",
    lambda num_classes, class_counts, seed: [CoresClassifier(class_counts / class_counts.sum())],
    lambda recorded: {"cores": recorded.last("cores")},
)
"""cores: float (N,), cross-entropy minus its mean over all labels, at the end of the training."""


def cores(evidence: Evidence) -> Verdict:
    """CORES (Table 1; Cheng et al. 2021): flags a positive statistic.

    Args:
        evidence: cores, float (N,).

    Returns:
        Score: minus the statistic.

    Raises:
        DataError: a value is not finite, as after a training that diverged.
    """
    score = -evidence.part("cores").astype(np.float64)
    if not np.isfinite(score).all():
        got = f"{int((~np.isfinite(score)).sum(axis=0))} others"
        raise DataError(expected_got("finite statistics of CORES", got, "train with a lower learning rate"))
    return Verdict(score < 0, score)
