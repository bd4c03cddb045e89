"""DivideMix: rows of likely wrong labels become unlabeled ones of a semi-supervised training (Li et al., ICLR 2020).

Two networks divide the rows for each other, by `loss_mixture` on the other one's losses. Labels of the labeled rows are
refined by the own prediction, those of the unlabeled rows guessed by both; then MixMatch trains on mixtures of rows.

Deviations from the paper:

- A step takes the labeled and the unlabeled rows of one batch, as many of each as there are (128 together by default
  and by the recipe for CIFAR); the paper takes 64 of both. So every row is seen once in an epoch, by both networks in
  the same step.
- A row's loss is that of the predictions that refine its label in this epoch, the mean over its views; the paper makes
  a further pass after each epoch.
- The share of a mixture is drawn for each pair of rows. The squared error is the mean over rows and classes, as in the
  published code, for which the published weights were chosen.

Cost: per network two forward passes without a gradient, and one with, on two views of every row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from dynacor_ray.robust.losses import MANY_CLASSES

VIEWS = 2
"""M: augmented views of a row."""
TEMPERATURE = 0.5
BETA = 4.0
"""Both parameters of the distribution of a mixture's share."""
THRESHOLD = 0.5
"""Rows with a right label's probability of at least this much are labeled ones."""
RAMP_UP_EPOCHS = 16
WARM_UP = {"cifar10": 10, "cifar100": 30}
"""Data set -> epochs of cross-entropy before the first division, of 300 on images."""

FEATURE_WARM_UP = 5
"""Of heads on features, which know most classes within a few epochs; ours."""


@dataclass(frozen=True, kw_only=True)
class DivideMix:
    """Settings of a training.

    Attributes:
        warm_up: epochs of cross-entropy before the first division.
        unlabeled_weight: lambda_u, of the squared error on unlabeled rows once it is ramped up.
        loss_epochs: epochs over which a row's loss is averaged.
        penalize_confidence: whether the warm-up has the negative entropy as a penalty, as for asymmetric noise.
        by_dynamics: whether DynaCor's flags (Eq. 4) divide the rows in place of the mixture: DDyna-S.
    """

    warm_up: int
    unlabeled_weight: float
    loss_epochs: int = 1
    penalize_confidence: bool = False
    by_dynamics: bool = False

    @classmethod
    def published(cls, data_set: str, num_classes: int, epochs: int, *, on_features: bool, **chosen: Any) -> Self:
        """With the published warm-up for a data set, else for one of as many classes; on features with ours.

        Args:
            data_set: Its kind of source, such as "cifar10".
            num_classes: C.
            epochs: Of the whole training.
            on_features: Whether heads on features are trained.
            chosen: Other settings, and `warm_up` where it is not None.
        """
        like = "cifar100" if num_classes >= MANY_CLASSES else "cifar10"
        usual = FEATURE_WARM_UP if on_features else WARM_UP.get(data_set, WARM_UP[like])
        warm_up = chosen.pop("warm_up")
        return cls(warm_up=min(usual, epochs // 2) if warm_up is None else warm_up, **chosen)


def sharpen(probabilities: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """`p^(1/T) / sum p^(1/T)`. float (n, C) -> float (n, C), rows sum to 1."""
    powers = probabilities ** (1.0 / temperature)
    return powers / powers.sum(dim=1, keepdim=True)


def refine_labels(labels: Tensor, own: Tensor, clean: Tensor) -> Tensor:
    """Co-refinement: `sharpen(w onehot + (1 - w) p)`.

    Args:
        labels: int64 (n,), as given.
        own: float (n, C), the own network's probabilities, mean over the views.
        clean: float (n,), w in [0, 1], the probability that the label is right.

    Returns:
        float (n, C).
    """
    w = clean.unsqueeze(1)
    return sharpen(w * F.one_hot(labels, own.shape[1]) + (1.0 - w) * own)


def guess_labels(first: Tensor, second: Tensor) -> Tensor:
    """Co-guessing: the sharpened mean of both networks' probabilities. float (n, C) each -> float (n, C)."""
    return sharpen((first + second) / 2.0)


def mix(values: Tensor, partner: Tensor, share: Tensor) -> Tensor:
    """MixMatch: `l a + (1 - l) b` with `l = max(share, 1 - share)`, so that a row stays nearer to itself.

    Args:
        values: float (n, ...), inputs or targets.
        partner: int64 (n,), the row that each is mixed with.
        share: float (n,), drawn from Beta(4, 4).
    """
    larger = torch.maximum(share, 1.0 - share).view(-1, *[1] * (values.dim() - 1))
    return larger * values + (1.0 - larger) * values[partner]


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """`-sum_c t_c log p_c` per row. float (n, C) each -> float (n,)."""
    return -(targets * F.log_softmax(logits, dim=1)).sum(dim=1)


def squared_error(logits: Tensor, targets: Tensor) -> Tensor:
    """`mean_c (p_c - t_c)^2` per row. float (n, C) each -> float (n,)."""
    return ((torch.softmax(logits, dim=1) - targets) ** 2).mean(dim=1)


def prior_penalty(logits: Tensor) -> Tensor:
    """`sum_c (1/C) log((1/C) / mean p_c)`, against predicting few classes only. float (n, C), n >= 1 -> scalar >= 0."""
    mean = torch.softmax(logits, dim=1).mean(dim=0).clamp(min=torch.finfo(logits.dtype).tiny)
    prior = 1.0 / logits.shape[1]
    return (prior * torch.log(prior / mean)).sum(dim=0)


def negative_entropy(logits: Tensor) -> Tensor:
    """`sum_c p_c log p_c` per row, which the warm-up makes small. float (n, C) -> float (n,), in [-log C, 0]."""
    log_p = F.log_softmax(logits, dim=1)
    return (log_p.exp() * log_p).sum(dim=1)


def ramp_up(epoch: int, warm_up: int) -> float:
    """Share of lambda_u in an epoch: linear from 0 in the first after the warm-up to 1, in RAMP_UP_EPOCHS epochs.

    >>> [ramp_up(epoch, 10) for epoch in (10, 18, 26, 40)]
    [0.0, 0.5, 1.0, 1.0]
    """
    return min(max((epoch - warm_up) / RAMP_UP_EPOCHS, 0.0), 1.0)
