"""Leave-one-out margins of a ridge regression on the features: what all other rows say of a label (Stone 1974).

A classifier trained by SGD learns wrong labels by heart, the sooner the more alike they are: errors of one kind
(asymmetric, instance-dependent) look right to it after a few epochs. A ridge regression on one-hot labels has a closed
form, and so has its prediction for a row when that row is left out. Its margin knows nothing of the row's own label.

With centered features X (N, D), one-hot labels Y and `A = (X'X + penalty I)^-1`: predictions `P = mean(Y) + X A X'Y`,
leverage `h_i = 1/N + x_i' A x_i`, and without row i `(P_i - h_i Y_i) / (1 - h_i)` (Hastie et al., The Elements of
Statistical Learning, §7.10). The penalty is chosen by generalized cross-validation (Golub, Heath & Wahba 1979).

Equal rows weigh 1/m each, so that m of them count as one, also in the choice of the penalty, and are left out together:
with `W` their weights and Y the one-hot labels, `(P_i - h_i sum(W Y)) / (1 - h_i sum(W))` over the group of row i.

Deviations from the paper: it has no such signal. Corrupted copies (§4.2) and the rows that they are copies of are not
fitted: both are judged by rows that are neither.

Cost: N D^2 multiplications for the sums and for the leverages of N fitted rows each, D^3 once; memory D^2. Sums merge
by addition.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dynacor_ray.core.symmetric_eigen import symmetric_eigen

MAX_FEATURES = 4096
"""With more features the D x D sums are too large; then there is no such margin."""
PENALTIES = np.logspace(-3, 2, 21)
"""Candidates, in units of the mean eigenvalue of X'X."""
_LEAST_LEFT = 1e-4
_FEW = 0.25
"""Share of rows up to which they are worth being picked out of the others."""
_LEAST_VARIANCE = 1e-6
"""Of the mean square: less is what rounding leaves of constant features."""


class RidgeSums:
    """Sums over rows, by which a ridge regression is solved (§4.3); those of several workers add up.

    mean: float (D,), near the mean of the features, and scale > 0: rows are shifted and scaled so that float32 products
    keep their digits. `totals` are the tensors to be summed over workers.
    """

    def __init__(self, num_classes: int, mean: Tensor, scale: float) -> None:
        dim, device = len(mean), mean.device
        self._mean, self._scale, self._classes = mean.float(), scale, num_classes
        self.gram = torch.zeros((dim, dim), dtype=torch.float64, device=device)
        self.cross = torch.zeros((num_classes, dim), dtype=torch.float64, device=device)
        self.total = torch.zeros(dim, dtype=torch.float64, device=device)
        self.labeled = torch.zeros(num_classes, dtype=torch.float64, device=device)

    @property
    def totals(self) -> tuple[Tensor, ...]:
        """Everything that adds up."""
        return self.gram, self.cross, self.total, self.labeled

    def add(self, features: Tensor, labels: Tensor, weights: Tensor | None = None) -> None:
        """Rows to fit, thousands at a time. features: float (B, D); labels: int64 (B,); on the device of `mean`.

        weights: float (B,), positive, of each row; None: 1.
        """
        rows = (features.float() - self._mean).mul_(self._scale)
        weighted = rows if weights is None else rows * weights.unsqueeze(1)
        self.gram += weighted.T @ rows
        self.total += weighted.sum(dim=0)
        self.cross.index_add_(0, labels, weighted.double())
        self.labeled += torch.bincount(labels, weights, minlength=self._classes)

    def solve(self) -> Ridge | None:
        """The regression, with the penalty of `best_penalty`; None for too few rows, constant or infinite features."""
        count = float(self.labeled.sum())
        if count < 2:
            return None
        center, share = self.total.cpu() / count, self.labeled.cpu() / count
        gram = self.gram.cpu() - count * torch.outer(center, center)
        if not torch.isfinite(gram).all():
            return None
        cross = self.cross.cpu().T - count * torch.outer(center, share)
        # half the time of float64; scores are kept as float16, and no penalty is below 1e-3 of the mean eigenvalue
        values, vectors = (part.double() for part in symmetric_eigen(gram))
        values = values.clamp(min=0.0)
        unit = float(values.mean(dim=0))
        if unit <= _LEAST_VARIANCE * float(self.gram.diagonal().mean(dim=0)):
            return None
        rotated = vectors.T @ cross
        spread = count * (1.0 - float((share**2).sum()))
        penalty = unit * best_penalty(
            values.numpy() / unit, (rotated**2).sum(dim=1).numpy() / unit, spread, count, PENALTIES
        )
        inverse = 1.0 / (values + penalty)
        weights = vectors @ (inverse[:, None] * rotated)
        device = self._mean.device
        return Ridge(
            mean=self._mean + center.float().to(device) / self._scale,
            scale=self._scale,
            share=share.float().to(device),
            weights=weights.float().to(device),
            whitening=(vectors * inverse.sqrt()).float().to(device),
            count=count,
            penalty=penalty / unit,
        )


def best_penalty(
    values: NDArray[np.float64],
    explained: NDArray[np.float64],
    spread: float,
    count: float,
    penalties: NDArray[np.float64],
) -> float:
    """The penalty with the least generalized cross-validation, N RSS / (N - df)^2 (Golub et al. 1979; for §4.3).

    values: float64 (D,), eigenvalues of X'X; explained: float64 (D,), squared length of each row of V'X'Y in its
    eigenvectors V; spread: sum of squares of the centered labels; count: N rows. Returns one of `penalties`.
    """
    shrunk = 1.0 / (values + penalties[:, None])
    residual = spread - (explained * (2.0 * shrunk - values * shrunk**2)).sum(axis=1)
    left = count - 1.0 - (values * shrunk).sum(axis=1)
    score = np.where(left > 0.5, residual / np.maximum(left, 0.5) ** 2, np.inf)
    return float(penalties[int(np.argmin(score))]) if np.isfinite(score).any() else float(penalties[-1])


@dataclass(frozen=True)
class Ridge:
    """A solved regression (§4.3). weights: float (D, C); whitening: float (D, D), so that |x whitening|^2 is leverage.

    share: float (C,), share of each label; penalty in units of the mean eigenvalue; count: rows that were fitted, by
    weight.
    """

    mean: Tensor
    scale: float
    share: Tensor
    weights: Tensor
    whitening: Tensor
    count: float
    penalty: float

    def to(self, device: torch.device) -> Ridge:
        """The same on another device (§4.3)."""
        tensors = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **tensors)  # type: ignore[arg-type]  # mypy takes any name to be possible

    def plain(self, features: Tensor) -> Tensor:
        """Scores of every class with all rows that were fitted, float (B, C). features: float (B, D)."""
        return self.share + self._centered(features) @ self.weights

    def _centered(self, features: Tensor) -> Tensor:
        return (features.float() - self.mean).mul_(self.scale)

    def predict(self, features: Tensor, labels: Tensor, is_fitted: Tensor) -> Tensor:
        """Scores of every class without the row's own label, float (B, C); they sum to 1, single ones may leave [0, 1].

        features: float (B, D); labels: int64 (B,); is_fitted: bool (B,), whether the row was among those summed.
        """
        return self.predict_without(features, own_labels(labels, is_fitted, len(self.share)))

    def predict_without(self, features: Tensor, left_out: Tensor) -> Tensor:
        """Scores of every class without some rows with the same features, float (B, C).

        features: float (B, D); left_out: float (B, C), weights of the rows left out by their label.
        """
        rows = self._centered(features)
        scores = self.share + rows @ self.weights
        weight = left_out.sum(dim=1, keepdim=True)
        chosen = weight.squeeze(dim=1).nonzero().squeeze(dim=1)
        # A leverage costs D^2 and is not needed where nothing is left out: beside a sample of many rows, in most.
        if len(chosen) > _FEW * len(rows):
            return self._without(scores, rows, left_out, weight)
        some = self._without(scores[chosen], rows[chosen], left_out[chosen], weight[chosen])
        return scores.index_copy(0, chosen, some)

    def _without(self, scores: Tensor, rows: Tensor, left_out: Tensor, weight: Tensor) -> Tensor:
        """Scores float (B, C) less what is left out. rows: centered and scaled, float (B, D); weight: float (B, 1)."""
        leverage = 1.0 / self.count + ((rows @ self.whitening) ** 2).sum(dim=1, keepdim=True)
        # Held below 1 for the whole group: what is left of its prediction must not be divided by nothing.
        leverage = torch.minimum(leverage, (1.0 - _LEAST_LEFT) / weight)
        return (scores - leverage * left_out) / (1.0 - leverage * weight)


def own_labels(labels: Tensor, is_fitted: Tensor, num_classes: int) -> Tensor:
    """What leaves out a row alone: its one-hot label, 0 where it was not fitted. int64 (B,), bool (B,) -> (B, C)."""
    return torch.nn.functional.one_hot(labels, num_classes) * is_fitted.unsqueeze(1).to(torch.float32)
