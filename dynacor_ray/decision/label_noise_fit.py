"""The parameters of a label noise model, by the largest penalized likelihood of the given labels (ours).

Penalties keep few rows from saying much. With N rows, of `label_noise_model`'s p and T,

    sum_i log sum_c p_ic T[c, y_i] - 1/2 |bias|^2 - 1/2 sum_c (e_c - mean e)^2 - w sum_cj log(1 + (q_cj / s)^2)
        - w sum_j log(1 + (r_j / s)^2) - 1/2 |weight / 20|^2 - 1/2 |log scale / SCALE_SPREAD|^2
        - sum_jc log(1 + (mix_jc / MIX_WIDTH)^2),

with `error = (1 - 1/C) sigmoid(e)` and rows c of `pairs` softmax of `q_cj + r_j`: error rates are shrunk to one rate,
pairs to the uniform distribution, the more the fewer rows a class has. `w = PAIR_WEIGHT log(C - 1)`, as it takes
log(C - 1) nats to name one of C - 1 classes. A pair (c, j) is no parameter if no row labeled j ranks c first. A label
that rows of any class have by mistake, such as a default that nobody changed, is one r, where as many q as there are
classes would be more than a few rows of each explain. Scores of regressions are ranked less the frequency of the label,
which is what they give a default label on rows of any class.

A scaled score is `scale_c (s_c + sum_j mix_jc s_j)`, or `scale_c s_c` with more than 16 classes. Few entries of mix are
needed, for classes that are alike. With all of them free, errors that follow from what a row shows would be taken for
what classes look like.

Few rows, or overlapping classes, have several optima: where labels are wrong and classes far apart, or nearly all are
right and classes overlap. They are looked for from three starts, on a part of many rows, and the likeliest is taken, by
half of the penalties: the whole price of class pairs, some 20 nats each, would be more than many of them explain.

No weight is negative, no entry of mix beyond 1/2 of the class's own score, and no error rate above 1 - 1/C, where
labels are drawn regardless of the class. Beyond these bounds labels would speak against their classes. Where features
know nothing that would fit best: a class mean without the row's own label lies a little away from it, so a score that
leaves the row out is the lowest for its own label.

Where another reading says how many labels are wrong, `refit` takes it for one more term, `-N (f error - rate)^2` with f
the frequencies of the labels: what was doubt becomes errors, and classes keep their differences as far as labels show
them. Matrix scaling is given up for it, since what it learned may be such errors; vector scaling is kept.

The gradient is exact: with `r_ic` the joint, `dL/dlogit_ic = r_ic - p_ic`, and the sums of r by pair of class and label
are what the error rates and pairs need.

Cost: 80 evaluations of a softmax over (N, K) of a sample, and some 500 over at most PROBED values.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from dynacor_ray.core.errors import DataError, expected_got
from dynacor_ray.decision.label_noise_model import REGRESSIONS, ClassPairs, LabelNoiseModel

SCALE_SPREAD, MIX_WIDTH = 0.5, 0.07
"""Standard deviation of log scale, and width of the penalty on mix, which has the form of that on pairs."""
PAIR_WEIGHT, PAIR_WIDTH = 1.5, 0.5
"""w / log(C - 1) and s of the penalty on pairs, which is that of a Student distribution: chance hardly moves them from
the uniform distribution, and a class that is really taken for another goes as far as it must."""
PROBED = 200_000
"""Most rows times classes on which several optima are looked for."""
_ITERATIONS, _FINAL_ITERATIONS = 150, 80
"""Where most searches end, within half a nat of the optimum, and that which goes on from the optimum of a part."""
_START_WEIGHT, _START_ERROR, _START_ROWS, _MOST_START_ERROR = 8.0, 0.1, 10.0, 0.97
_STEADY = 4.0
"""w of the pairs at first."""
_DOUBT_WEIGHT, _DOUBT_LOGIT, _DOUBT_PAIRS = 3.0, -4.0, 0.3
"""A start with overlapping classes and few errors."""
_MOST_LOGIT, _MOST_POPULARITY, _MOST_MIX = 50.0, 15.0, 0.5
_TINY = 1e-300
_LARGE_WEIGHT = 20.0
"""Of scores in units of their spread: keeps the log odds finite where the scores separate all classes."""


def fit_label_noise(
    scores: NDArray[np.floating[Any]], classes: NDArray[np.integer[Any]], num_classes: int
) -> LabelNoiseModel:
    """The model with the largest penalized likelihood.

    scores: float (B, N, K); classes: ints (N, K) in 0..C-1, different in each row, the given label first.

    Raises DataError for fewer than two classes or no row.
    """
    if scores.ndim != 3 or scores.shape[2] < 2 or not len(classes):
        got = f"shape {scores.shape} for {len(classes)} rows"
        raise DataError(expected_got("scores of shape (B, N, K), K >= 2, N >= 1", got, "pass one block per score"))
    likely = np.asarray(classes, np.int64)
    step = -(-likely.size // PROBED)
    probe = _Objective(scores[:, ::step], likely[::step], num_classes)
    start = probe.start()
    starts = (start, probe.steady(start), probe.doubtful(start))
    found = min((probe.best(one) for one in starts), key=lambda one: one[1] + probe.surprise(one[0]))
    objective = probe
    if step > 1:
        objective = _Objective(scores, likely, num_classes)
        start = objective.start()
        shared = len(start) - len(objective.code)  # all but the pairs, of which there are more
        start[:shared] = found[0][:shared]
        _, pairs, of_part = np.intersect1d(objective.code, probe.code, assume_unique=True, return_indices=True)
        start[shared + pairs] = found[0][shared + of_part]
        found = objective.best(start, _FINAL_ITERATIONS)
    return replace(objective.model(found[0]), evidence=objective.evidence(found[1]))


def refit(
    model: LabelNoiseModel, scores: NDArray[np.floating[Any]], classes: NDArray[np.integer[Any]], rate: float
) -> LabelNoiseModel:
    """The model next to one that was fitted to the same scores, where `rate` of the labels are said to be wrong.

    rate: above 0, below 1 - 1/C; other arguments as of `fit_label_noise`. At most PROBED values are read.
    """
    step = -(-classes.size // PROBED)
    objective = _Objective(scores[:, ::step], np.asarray(classes[::step], np.int64), len(model.bias), rate)
    found, _ = objective.best(objective.near(model, rate))
    return replace(objective.model(found), evidence=model.evidence)


class _Objective:
    """Penalized negative log-likelihood per row and its gradient, of the parameters in one vector.

    rate: of wrong labels as another reading has it; None for none.
    """

    def __init__(
        self,
        scores: NDArray[np.floating[Any]],
        classes: NDArray[np.int64],
        num_classes: int,
        rate: float | None = None,
    ) -> None:
        self.labels = classes[:, 0]
        self.num_blocks, self.num_rows, kept = scores.shape
        self.num_classes, self.rate = num_classes, rate
        self.frequency = np.bincount(self.labels, minlength=num_classes) / self.num_rows
        self.most_error = 1.0 - 1.0 / num_classes
        self.pair_weight = PAIR_WEIGHT * float(np.log(num_classes - 1))
        spread = scores.std(axis=(1, 2))
        self.unit = 1.0 / np.where(spread > 0, spread, 1.0)
        likely = np.einsum("b,bnk->nk", self.unit, scores) - self.unit[:REGRESSIONS].sum() * self.frequency[classes]
        best = likely.argmax(axis=1)
        self.top = classes[np.arange(self.num_rows), best]
        differs = self.top != self.labels
        code, self.times = np.unique(self.top[differs] * num_classes + self.labels[differs], return_counts=True)
        unknown = ClassPairs(code, np.empty(0), np.empty(num_classes), np.empty(num_classes))
        self.code, self.true, self.given = code, unknown.true, unknown.given
        self.unlisted = num_classes - 1 - np.bincount(self.true, minlength=num_classes)
        # every (row, class) is one of a listed pair, of the class's other pairs, or of its right labels
        cell = unknown.places(classes, classes[:, :1])
        cell[:, 0] = len(code) + num_classes + self.labels
        self.scores, self.classes, self.cell = scores, classes, cell
        self.in_order = kept == num_classes
        self.scaling_shape = (num_classes, num_classes) if self.in_order else (num_classes,)
        if self.in_order:
            order = np.argsort(classes, axis=1)
            self.scores = np.take_along_axis(scores, order[None], axis=2)
            self.cell = np.take_along_axis(cell, order, axis=1)

    def start(self) -> NDArray[np.float64]:
        """Scores in units of their spread, well apart; errors and pairs as often as labels differ from the top class.

        From scores that are less apart the search may end where every error is taken for doubt.
        """
        total = np.bincount(self.top, minlength=self.num_classes)
        differ = np.bincount(self.true, self.times, self.num_classes)
        wrong = (differ + _START_ROWS * _START_ERROR) / (total + _START_ROWS)
        pairs = np.log1p(self.times)
        pairs -= (np.bincount(self.true, pairs, self.num_classes) / self.num_classes)[self.true]
        weight = np.full(self.num_blocks, _START_WEIGHT / self.num_blocks)
        wrong = np.minimum(wrong / self.most_error, _MOST_START_ERROR)
        error = np.log(wrong) - np.log1p(-wrong)
        scaling, none = np.zeros(int(np.prod(self.scaling_shape))), np.zeros(self.num_classes)
        return np.concatenate([weight, scaling, none, error, none, pairs])

    def near(self, model: LabelNoiseModel, rate: float) -> NDArray[np.float64]:
        """A model's parameters, with this error rate in every class and no matrix scaling."""
        popularity = np.log(model.pairs.popularity)
        pairs = np.log(model.pairs.at(self.true, self.given) / model.pairs.rest[self.true]) - popularity[self.given]
        share = min(rate / self.most_error, _MOST_START_ERROR)
        error = np.full(self.num_classes, np.log(share) - np.log1p(-share))
        scaling = np.zeros(self.scaling_shape) if self.in_order else np.log(model.scaling)
        return np.concatenate([model.weight / self.unit, scaling.ravel(), model.bias, error, popularity, pairs])

    def steady(self, start: NDArray[np.float64]) -> NDArray[np.float64]:
        """The optimum next to a start where pairs are held: freed at once, some run away with all rows of a class."""
        own = self.pair_weight
        self.pair_weight = max(own, _STEADY)
        parameters, _ = self.best(start)
        self.pair_weight = own
        return parameters

    def doubtful(self, start: NDArray[np.float64]) -> NDArray[np.float64]:
        """The same, with scores closer together and few errors."""
        doubtful = start.copy()
        weight, _, _, e, _, q = self._split(doubtful)  # views
        weight[:], e[:] = _DOUBT_WEIGHT / self.num_blocks, _DOUBT_LOGIT
        q *= _DOUBT_PAIRS
        return doubtful

    def best(self, start: NDArray[np.float64], iterations: int = _ITERATIONS) -> tuple[NDArray[np.float64], float]:
        """The parameters of the optimum next to some, and its value."""
        from scipy.optimize import minimize  # half a second, which a training that comes first need not wait for

        most = np.full(len(start), _MOST_LOGIT)
        weight, scaling, _, _, r, _ = self._split(most)  # views
        scaling[:], r[:] = _MOST_MIX, _MOST_POPULARITY
        _diagonal(scaling.reshape(self.scaling_shape))[:] = _MOST_LOGIT
        if self.rate is not None and self.in_order:
            scaling[:] = 0.0
        least = -most
        least[: len(weight)], weight[:] = 0.0, np.inf
        bounds = np.column_stack([least, most])
        options = {"maxiter": iterations, "maxcor": 20}
        found = minimize(self, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
        return found.x, float(found.fun)

    def surprise(self, parameters: NDArray[np.float64]) -> float:
        """Negative log-likelihood per row, without penalties."""
        _, joint = self._joint(self.model(parameters))
        return float(-np.log(np.maximum(joint.sum(axis=1), _TINY)).mean(axis=0))

    def evidence(self, value: float) -> float:
        """That of the model whose value of this function is given."""
        counts = np.bincount(self.labels)
        by_frequency = special.xlogy(counts, counts / self.num_rows).sum()
        return float(-by_frequency - value * self.num_rows)

    def model(self, parameters: NDArray[np.float64]) -> LabelNoiseModel:
        """The model of a vector of parameters."""
        weight, scaling, bias, e, r, q = self._split(parameters)
        popularity, power = np.exp(r), np.exp(q)
        own = power * popularity[self.given]
        # a pair that is not listed has q = 0
        others = popularity.sum() - popularity - np.bincount(self.true, popularity[self.given], self.num_classes)
        # not below what rounding may leave of few unpopular labels beside a popular one
        others = np.where(self.unlisted > 0, np.maximum(others, self.unlisted * popularity.min()), 0.0)
        total = np.bincount(self.true, own, self.num_classes) + others
        pairs = ClassPairs(self.code, own / total[self.true], 1.0 / total, popularity)
        scaling = scaling.reshape(self.scaling_shape).copy()
        scale = np.exp(_diagonal(scaling))
        _diagonal(scaling)[:] = 1.0
        scaling *= scale
        return LabelNoiseModel(weight * self.unit, scaling, bias, self.most_error * special.expit(e), pairs)

    def _split(self, parameters: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        scaled, c = self.num_blocks + int(np.prod(self.scaling_shape)), self.num_classes
        return tuple(np.split(parameters, [self.num_blocks, *(scaled + times * c for times in range(4))]))

    def _joint(self, model: LabelNoiseModel) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """P(true = c) and P(true = c, given label) of every row, float64 (N, K) each."""
        probability = model.class_probability(self.scores, None if self.in_order else self.classes)
        error, pairs = model.error, model.pairs
        popularity = pairs.popularity  # of the label of the row
        own = error[self.true] * pairs.share / popularity[self.given]
        chance = np.concatenate([own, error * pairs.rest, (1.0 - error) / popularity])
        return probability, probability * chance[self.cell] * popularity[self.labels, None]

    def _by_class(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sums over the rows, float64 (N, K) -> (C,)."""
        if self.in_order:
            return np.asarray(values.sum(axis=0))
        return np.bincount(self.classes.ravel(), values.ravel(), self.num_classes).astype(np.float64)

    def _by_scores(
        self, model: LabelNoiseModel, by_logit: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The gradient for the weights and the scaling, float64 (B,) and (C,) or (C, C)."""
        regressions = self.scores[:REGRESSIONS]
        weighed = np.einsum("b,bnk->nk", model.weight[:REGRESSIONS], regressions)
        if self.in_order:
            by_entry, by_score = weighed.T @ by_logit, by_logit @ model.scaling.T
            by_scaling = by_entry * _diagonal(model.scaling)
            _diagonal(by_scaling)[:] = (by_entry * model.scaling).sum(axis=0)
        else:
            by_score = by_logit * model.scaling[self.classes]
            by_scaling = self._by_class(weighed * by_score)
        by_weight = [np.einsum("nk,bnk->b", by_score, regressions)]
        by_weight += [np.einsum("nk,bnk->b", by_logit, self.scores[REGRESSIONS:])]
        return np.concatenate(by_weight) * self.unit, by_scaling

    def __call__(self, parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Value and gradient at a vector of parameters."""
        weight, scaling, bias, e, r, q = self._split(parameters)
        model, listed, c = self.model(parameters), len(self.code), self.num_classes
        probability, joint = self._joint(model)
        likelihood = np.maximum(joint.sum(axis=1, keepdims=True), _TINY)
        joint /= likelihood
        away = e - e.mean()
        tails = np.log1p((np.concatenate([r, q]) / PAIR_WIDTH) ** 2).sum()
        loss = -np.log(likelihood).sum() + 0.5 * ((bias**2).sum() + (away**2).sum()) + self.pair_weight * tails
        penalty, by_penalty = _scaling_penalty(scaling.reshape(self.scaling_shape))
        loss += 0.5 * ((weight / _LARGE_WEIGHT) ** 2).sum() + penalty
        too_many = 0.0 if self.rate is None else float(self.frequency @ model.error) - self.rate
        loss += self.num_rows * too_many**2
        # expected numbers of rows
        counts = np.bincount(self.cell.ravel(), joint.ravel(), listed + 2 * c)
        of_pair, right = counts[:listed], counts[listed + c :]
        wrong = counts[listed : listed + c] + np.bincount(self.true, of_pair, c)
        expected = self._by_class(probability)
        by_weight, by_scaling = self._by_scores(model, joint - probability)
        # error' = error (1 - sigmoid(e))
        for_rate = 2.0 * self.num_rows * too_many * self.frequency
        by_error = wrong - model.error * (right / (1.0 - model.error) + for_rate)
        by_error *= 1.0 - model.error / self.most_error
        by_pair = of_pair - wrong[self.true] * model.pairs.share
        popularity, others = model.pairs.popularity, wrong * model.pairs.rest * (self.unlisted > 0)
        expected_of = popularity * (others.sum() - others)
        expected_of += np.bincount(
            self.given, wrong[self.true] * model.pairs.share - others[self.true] * popularity[self.given], c
        )
        by_label = self.frequency * self.num_rows - right - expected_of
        by_tail = [2.0 * self.pair_weight * one / (PAIR_WIDTH**2 + one**2) for one in (r, q)]
        by_bias = wrong + right - expected
        gradient = np.concatenate(
            [
                weight / _LARGE_WEIGHT**2 - by_weight,
                (by_penalty - by_scaling).ravel(),
                bias - by_bias,
                away - by_error,
                by_tail[0] - by_label,
                by_tail[1] - by_pair,
            ]
        )
        return float(loss / self.num_rows), gradient / self.num_rows


def _scaling_penalty(scaling: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """That of log scale, on the diagonal, and mix, beside it, with its gradient."""
    mix, log_scale = scaling.copy(), _diagonal(scaling)
    _diagonal(mix)[:] = 0.0
    gradient = 2.0 * mix / (MIX_WIDTH**2 + mix**2)
    _diagonal(gradient)[:] = log_scale / SCALE_SPREAD**2
    return 0.5 * ((log_scale / SCALE_SPREAD) ** 2).sum() + np.log1p((mix / MIX_WIDTH) ** 2).sum(), gradient


def _diagonal(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """A view of the diagonal of a matrix; all of a vector."""
    return values if values.ndim == 1 else np.einsum("ii->i", values)
