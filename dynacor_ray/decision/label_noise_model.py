"""A model of the label noise: which class a row shows, how often each class is mislabeled, and as what (ours).

Let `s(x)` be class scores that have not seen the row's own label (`leave_one_out_ridge`). A row's class c is drawn from
`p_c = softmax(weight s(x) + bias)_c`, its given label y from `T[c, y]`, where `T[c, c] = 1 - error_c` and
`T[c, j] = error_c pairs[c, j]`. The parameters are those of the largest penalized likelihood of the given labels,

    sum_i log sum_c p_ic T[c, y_i] - 1/2 |bias|^2 - 1/2 sum_c (e_c - mean e)^2 - w sum_cj log(1 + (q_cj / s)^2)
        - 1/2 |weight / 20|^2,

with `error = sigmoid(e)` and the rows of `pairs` softmax of q: error rates are shrunk to one rate, pairs to the uniform
distribution, the more the fewer rows a class has. A pair (c, j) is no parameter if no row labeled j ranks c first.

From the fit every row has the joint `P(true = c | x, y)`; what follows from that is in `expected_f1`. The gradient
is exact: with `r_ic` the joint, `dL/dlogit_ic = r_ic - p_ic`, and the sums of r by label are what the error rates and
pairs need.

Cost: about 60 evaluations of a softmax over (N, C) of a sample; a softmax per row to apply.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from dynacor_ray.core.errors import DataError, expected_got
from dynacor_ray.decision.noise_rate import SIGMAS

PAIR_WEIGHT, PAIR_WIDTH = 4.0, 0.5
"""w and s of the penalty on pairs, which is that of a Student distribution: chance hardly moves them from the uniform
distribution, and a class that is really taken for another goes as far as it must."""
_EVALUATIONS = 150
_START_WEIGHT, _START_ERROR, _START_ROWS = 8.0, 0.1, 10.0
_TINY = 1e-300
_LARGE_WEIGHT = 20.0
"""Of scores in units of their spread: keeps the log odds finite where the scores separate all classes."""
_MOST_PAIRS = 2000
"""With more classes pairs stay uniform: the C x C matrix would be too large."""


@dataclass(frozen=True)
class LabelNoiseModel:
    """A fitted model. weight: float (K,), one per block of scores; bias, error: float (C,); pairs: float (C, C).

    error: P(label is wrong | true class); pairs[c, j]: P(given = j | true = c, wrong), rows sum to 1, diagonal 0.
    """

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    error: NDArray[np.float64]
    pairs: NDArray[np.float64]

    def class_probability(self, scores: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """P(true = c | x), without the label. scores: float (K, N, C). Returns float64 (N, C), rows sum to 1."""
        return _softmax(np.einsum("k,knc->nc", self.weight, scores) + self.bias)

    def joint(
        self,
        scores: NDArray[np.floating[Any]],
        labels: NDArray[np.integer[Any]],
        twins: NDArray[np.floating[Any]] | None = None,
    ) -> NDArray[np.float64]:
        """P(true = c | x, given = y): float64 (N, C), rows sum to 1.

        scores: float (K, N, C); labels: ints (N,); twins: float (N, C), how often each label was given to others of the
        same x, independently of this one.
        """
        matrix = transition(self.error, self.pairs)
        joint = self.class_probability(scores) * matrix.T[labels]
        if twins is not None:
            told = twins @ np.log(np.maximum(matrix, _TINY)).T
            joint = np.maximum(joint, _TINY) * np.exp(told - told.max(axis=1, keepdims=True))
        normal: NDArray[np.float64] = joint / joint.sum(axis=1, keepdims=True)
        return normal

    def log_odds(
        self,
        scores: NDArray[np.floating[Any]],
        labels: NDArray[np.integer[Any]],
        twins: NDArray[np.floating[Any]] | None = None,
    ) -> NDArray[np.float64]:
        """log P(wrong) / P(right) of each row, float64 (N,); arguments as of `joint`."""
        joint, rows = self.joint(scores, labels, twins), np.arange(len(labels))
        right = np.maximum(joint[rows, labels], _TINY)
        joint[rows, labels] = 0.0
        odds: NDArray[np.float64] = np.log(np.maximum(joint.sum(axis=1), _TINY)) - np.log(right)
        return odds


def transition(error: NDArray[np.float64], pairs: NDArray[np.float64]) -> NDArray[np.float64]:
    """T[c, y] = P(given = y | true = c): float64 (C, C), rows sum to 1."""
    matrix: NDArray[np.float64] = error[:, None] * pairs
    np.fill_diagonal(matrix, 1.0 - error)
    return matrix


@dataclass(frozen=True)
class Interval:
    """Estimates and the ends of their 95% intervals, float arrays of one shape."""

    value: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def error_interval(
    model: LabelNoiseModel, scores: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]]
) -> Interval:
    """`model.error` of each class, float (C,), with the sampling error of the rows that it was fitted to.

    From the empirical Fisher information of weight, bias and error rates together, `sum_i g_i g_i'` of the scores
    `dL_i/dlogit_c = r_ic - p_ic` and `dL_i/de_c = r_ic (1[c != y_i] - error_c)`, plus the penalties' curvature.
    """
    probability, joint = model.class_probability(scores), model.joint(scores, labels)
    residual = joint - probability
    by_error = -joint * model.error
    rows = np.arange(len(labels))
    by_error += joint
    by_error[rows, labels] -= joint[rows, labels]
    by_weight = np.einsum("nc,knc->nk", residual, scores)
    gradient = np.concatenate([by_weight, residual, by_error], axis=1)
    classes = len(model.error)
    penalty = np.concatenate([np.full(len(model.weight), 1e-9), np.ones(2 * classes)])
    information = gradient.T @ gradient + np.diag(penalty)
    information[-classes:, -classes:] -= 1.0 / classes
    information += 1e-9 * np.eye(len(information)) * np.trace(information) / len(information)
    variance = np.diagonal(np.linalg.inv(information))[-classes:]
    return _logit_interval(model.error, np.sqrt(np.maximum(variance, 0.0)))


def pair_interval(
    model: LabelNoiseModel, scores: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]]
) -> Interval:
    """P(given = j | true = c), float (C, C), with the sampling error of each entry alone.

    The value is the share of label j among the rows that the model takes for class c, which chance moves less from the
    truth than the penalty moves `model.pairs`. From `dL_i/dlogit T_cj = r_ic (1[y_i = j] - T_cj)`, whose squares add up
    to the information on an entry. A quarter of a row is added, so that an entry without any has a wide interval.
    """
    joint = model.joint(scores, labels)
    counts, labeled = np.full_like(model.pairs, 0.5), np.zeros_like(model.pairs)
    np.add.at(counts.T, labels, joint)
    np.add.at(labeled.T, labels, joint**2)
    matrix = counts / (counts.sum(axis=1, keepdims=True) - 0.5 * (counts.shape[1] - 2))
    information = labeled * (1.0 - matrix) ** 2 + (labeled.sum(axis=1, keepdims=True) - labeled) * matrix**2
    return _logit_interval(matrix, 1.0 / np.sqrt(information + 0.25))


def _logit_interval(value: NDArray[np.float64], deviation: NDArray[np.float64]) -> Interval:
    inside = np.clip(value, 1e-12, 1.0 - 1e-12)
    logit = np.log(inside) - np.log1p(-inside)
    return Interval(value, _sigmoid(logit - SIGMAS * deviation), _sigmoid(logit + SIGMAS * deviation))


def fit_label_noise(scores: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]]) -> LabelNoiseModel:
    """The model with the largest penalized likelihood. scores: float (K, N, C); labels: ints (N,) in 0..C-1.

    Raises DataError for fewer than two classes or no row.
    """
    if scores.ndim != 3 or scores.shape[2] < 2 or not len(labels):
        got = f"shape {scores.shape} for {len(labels)} labels"
        raise DataError(expected_got("scores of shape (K, N, C), C >= 2, N >= 1", got, "pass one block per score"))
    objective = _Objective(scores, np.asarray(labels, np.int64))
    found = minimize(
        objective, objective.start(), jac=True, method="L-BFGS-B", options={"maxiter": _EVALUATIONS, "maxcor": 20}
    )
    return objective.model(found.x)


class _Objective:
    """Penalized negative log-likelihood per row and its gradient, of the parameters in one vector."""

    def __init__(self, scores: NDArray[np.floating[Any]], labels: NDArray[np.int64]) -> None:
        order = np.argsort(labels, kind="stable")
        self.scores, self.labels = np.ascontiguousarray(scores[:, order]), labels[order]
        self.num_blocks, self.num_rows, self.num_classes = scores.shape
        self.present, self.first = np.unique(self.labels, return_index=True)
        spread = self.scores.std(axis=(1, 2))
        self.unit = 1.0 / np.where(spread > 0, spread, 1.0)
        seen = np.zeros((self.num_classes, self.num_classes), np.bool_)
        if self.num_classes <= _MOST_PAIRS:
            seen[self._top(), self.labels] = True
        np.fill_diagonal(seen, False)
        self.seen = np.flatnonzero(seen)

    def start(self) -> NDArray[np.float64]:
        """Scores in units of their spread, well apart; errors and pairs as often as labels differ from the top class.

        From scores that are less apart the search may end where every error is taken for doubt.
        """
        counts = np.zeros((self.num_classes, self.num_classes))
        np.add.at(counts, (self._top(), self.labels), 1.0)
        total = counts.sum(axis=1)
        wrong = (total - np.diagonal(counts) + _START_ROWS * _START_ERROR) / (total + _START_ROWS)
        pairs = np.log1p(counts)
        pairs -= pairs.mean(axis=1, keepdims=True)
        weight = np.full(self.num_blocks, _START_WEIGHT / self.num_blocks)
        error = np.log(wrong) - np.log1p(-wrong)
        return np.concatenate([weight, np.zeros(self.num_classes), error, pairs.reshape(-1)[self.seen]])

    def _top(self) -> NDArray[np.int64]:
        """The class of the largest score, blocks in units of their spread."""
        top: NDArray[np.int64] = np.einsum("k,knc->nc", self.unit, self.scores).argmax(axis=1)
        return top

    def model(self, parameters: NDArray[np.float64]) -> LabelNoiseModel:
        """The model of a vector of parameters."""
        weight, bias, e, q = self._split(parameters)
        return LabelNoiseModel(weight * self.unit, bias, _sigmoid(e), _pair_rows(q))

    def _split(self, parameters: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        k, c = self.num_blocks, self.num_classes
        q = np.zeros(c * c)
        q[self.seen] = parameters[k + 2 * c :]
        return parameters[:k], parameters[k : k + c], parameters[k + c : k + 2 * c], q.reshape(c, c)

    def __call__(self, parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Value and gradient at a vector of parameters."""
        weight, bias, e, q = self._split(parameters)
        model = self.model(parameters)
        probability = model.class_probability(self.scores)
        matrix = transition(model.error, model.pairs)
        joint = probability * matrix.T[self.labels]
        likelihood = np.maximum(joint.sum(axis=1, keepdims=True), _TINY)
        joint /= likelihood
        away = e - e.mean()
        listed = q.reshape(-1)[self.seen]
        tails = np.log1p((listed / PAIR_WIDTH) ** 2).sum()
        loss = -np.log(likelihood).sum() + 0.5 * ((bias**2).sum() + (away**2).sum()) + PAIR_WEIGHT * tails
        loss += 0.5 * ((weight / _LARGE_WEIGHT) ** 2).sum()
        # expected number of rows of class c with label y
        counts = np.zeros((self.num_classes, self.num_classes))
        counts[:, self.present] = np.add.reduceat(joint, self.first, axis=0).T
        right = np.diagonal(counts).copy()
        np.fill_diagonal(counts, 0.0)
        wrong = counts.sum(axis=1)
        residual = joint - probability
        by_weight = np.einsum("nc,knc->k", residual, self.scores) * self.unit
        by_error = wrong - model.error * (wrong + right)
        by_pair = (counts - wrong[:, None] * model.pairs).reshape(-1)[self.seen]
        by_tail = 2.0 * PAIR_WEIGHT * listed / (PAIR_WIDTH**2 + listed**2)
        gradient = np.concatenate(
            [weight / _LARGE_WEIGHT**2 - by_weight, bias - residual.sum(axis=0), away - by_error, by_tail - by_pair]
        )
        return float(loss / self.num_rows), gradient / self.num_rows


def _pair_rows(q: NDArray[np.float64]) -> NDArray[np.float64]:
    """Softmax of each row without its diagonal."""
    masked = q.copy()
    np.fill_diagonal(masked, -np.inf)
    return _softmax(masked)


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    power = np.exp(logits - logits.max(axis=1, keepdims=True))
    normal: NDArray[np.float64] = power / power.sum(axis=1, keepdims=True)
    return normal


def _sigmoid(value: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1.0 / (1.0 + np.exp(-value))
