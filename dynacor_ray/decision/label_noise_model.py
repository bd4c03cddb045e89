"""A model of the label noise: which class a row shows, how often each class is mislabeled, and as what (ours).

Let `s(x)` be class scores that have not seen the row's own label (`leave_one_out_ridge`). A row's class c is drawn from
`p_c = softmax(weight s(x) + bias)_c`, its given label y from `T[c, y]`, where `T[c, c] = 1 - error_c` and
`T[c, j] = error_c pairs[c, j]`. The parameters are those of the largest penalized likelihood of the given labels,

    sum_i log sum_c p_ic T[c, y_i] - 1/2 |bias|^2 - 1/2 sum_c (e_c - mean e)^2 - w sum_cj log(1 + (q_cj / s)^2)
        - 1/2 |weight / 20|^2,

with `error = (1 - 1/C) sigmoid(e)` and the rows of `pairs` softmax of q: error rates are shrunk to one rate, pairs to
the uniform distribution, the more the fewer rows a class has. `w = PAIR_WEIGHT log(C - 1)`, as it takes log(C - 1) nats
to name one of C - 1 classes. A pair (c, j) is no parameter if no row labeled j ranks c first.

Few rows, or overlapping classes, have several optima: where labels are wrong and classes far apart, or nearly all are
right and classes overlap. They are looked for from three starts, on a part of many rows, and the likeliest is taken, by
half of the penalties: the whole price of class pairs, some 20 nats each, would be more than many of them explain.

No weight is negative, and no error rate above 1 - 1/C, where labels are drawn regardless of the class. Beyond these
bounds a label would speak against its class. Where features know nothing that would fit best: a class mean without the
row's own label lies a little away from it, so a score that leaves the row out is the lowest for its own label.

Every row has K classes that it may show, of which the first is its given label: all C where they are few, else the most
probable ones and some that stand for the others (`likely_classes`). So nothing has the size of N x C or C x C.

Errors that follow from what a row shows are no class pairs. To such a model they are doubt, but then it is too sure of
what the surest rows are labeled (`unexplained`). Where another reading says how many labels are wrong, `refit` takes it
for one more term, `-N (f error - rate)^2` with f the frequencies of the labels: what was doubt becomes errors, and
classes keep their differences as far as labels show them.

From the fit every row has the joint `P(true = c | x, y)`; what follows from that is in `expected_f1`. The gradient
is exact: with `r_ic` the joint, `dL/dlogit_ic = r_ic - p_ic`, and the sums of r by pair of class and label are what the
error rates and pairs need.

Cost: about 60 evaluations of a softmax over (N, K) of a sample, and four times as many over at most PROBED values; a
softmax per row to apply.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, special

from dynacor_ray.core.errors import DataError, expected_got
from dynacor_ray.decision.likely_classes import stands_for
from dynacor_ray.decision.noise_rate import SIGMAS

PAIR_WEIGHT, PAIR_WIDTH = 1.5, 0.5
"""w / log(C - 1) and s of the penalty on pairs, which is that of a Student distribution: chance hardly moves them from
the uniform distribution, and a class that is really taken for another goes as far as it must."""
PROBED = 200_000
"""Most rows times classes on which several optima are looked for."""
_EVALUATIONS = 150
_START_WEIGHT, _START_ERROR, _START_ROWS, _MOST_START_ERROR = 8.0, 0.1, 10.0, 0.97
_STEADY = 4.0
"""w of the pairs at first."""
_DOUBT_WEIGHT, _DOUBT_LOGIT, _DOUBT_PAIRS = 3.0, -4.0, 0.3
"""A start with overlapping classes and few errors."""
_TINY = 1e-300
LEAST_EVIDENCE = 5.0
"""Nats, e.g. of 1,000 rows whose labels are right in 55% rather than 50% of two classes."""
_AT_BOUND = 0.95
"""Share of 1 - 1/C from which the mean error rate is at its bound."""
_MOST_LOGIT = 50.0
SUREST = 0.3
"""Share of the rows, surest first, whose labels must be as the model says."""
_LARGE_WEIGHT = 20.0
"""Of scores in units of their spread: keeps the log odds finite where the scores separate all classes."""


@dataclass(frozen=True)
class ClassPairs:
    """P(given = j | true = c, wrong) of pairs of different classes, of which most are alike.

    code: int64 (P,), increasing: c * C + j of the pairs with a value of their own; share: float64 (P,), their values;
    rest: float64 (C,), the value of every other j of each c.
    """

    code: NDArray[np.int64]
    share: NDArray[np.float64]
    rest: NDArray[np.float64]

    @property
    def true(self) -> NDArray[np.int64]:
        """c of each code, int64 (P,)."""
        return self.code // len(self.rest)

    @property
    def given(self) -> NDArray[np.int64]:
        """j of each code, int64 (P,)."""
        return self.code % len(self.rest)

    def places(self, true: NDArray[np.integer[Any]], given: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """Where pairs are among the codes, P + c for one that is not there. ints of shapes that broadcast."""
        code = true.astype(np.int64) * len(self.rest) + given
        at = np.searchsorted(self.code, code)
        known = self.code[np.minimum(at, len(self.code) - 1)] == code if len(self.code) else np.zeros_like(at, np.bool_)
        return np.where(known, at, len(self.code) + true)

    def at(self, true: NDArray[np.integer[Any]], given: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
        """The value of pairs of different classes. ints of shapes that broadcast -> float64."""
        return np.concatenate([self.share, self.rest])[self.places(true, given)]


@dataclass(frozen=True)
class LabelNoiseModel:
    """A fitted model. weight: float (B,), one per block of scores, >= 0; bias, error: float (C,).

    error: P(label is wrong | true class), in [0, 1 - 1/C]; evidence: nats by which it explains the labels of the rows
    that it was fitted to better than the frequencies of the classes do, less the penalties.
    """

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    error: NDArray[np.float64]
    pairs: ClassPairs
    evidence: float = np.inf

    @property
    def labels_tell(self) -> bool:
        """Whether scores and labels have to do with each other: if not, nothing can be said of any label."""
        bound = 1.0 - 1.0 / len(self.error)
        return self.evidence >= LEAST_EVIDENCE and float(self.error.mean(axis=0)) < _AT_BOUND * bound

    def class_probability(
        self, scores: NDArray[np.floating[Any]], classes: NDArray[np.integer[Any]]
    ) -> NDArray[np.float64]:
        """P(true = c | x), without the label. float (B, N, K), ints (N, K) -> float64 (N, K), rows sum to 1.

        A class that stands for others has their probability as well, here and in `joint`.
        """
        number = np.log(stands_for(classes.shape[1], len(self.bias)))
        return _softmax(np.einsum("b,bnk->nk", self.weight, scores) + (self.bias[classes] + number))

    def unexplained(self, scores: NDArray[np.floating[Any]], classes: NDArray[np.integer[Any]]) -> float:
        """By what share fewer of the surest rows have their most probable label than the model says, in [0, 1].

        Less a standard error, 0 where it is right. Arguments as of `joint`, without twins.
        """
        probability = self.class_probability(scores, classes)
        rows = np.arange(len(classes))
        top = np.argmax(probability / stands_for(classes.shape[1], len(self.bias)), axis=1)
        chance = self.transition(classes, classes[rows, top][:, None])
        said = (probability * chance).sum(axis=1)
        surest = np.argsort(-said, kind="stable")[: max(1, int(SUREST * len(rows)))]
        share, expected = float((top[surest] == 0).mean(axis=0)), float(said[surest].mean(axis=0))
        error = np.sqrt(max(share * (1.0 - share), 1.0 / len(surest)) / len(surest))
        return float(max(0.0, expected - share - error) / expected)

    def transition(self, true: NDArray[np.integer[Any]], given: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
        """T[c, y] = P(given = y | true = c). ints of shapes that broadcast -> float64."""
        error = self.error[true]
        chance: NDArray[np.float64] = np.where(true == given, 1.0 - error, error * self.pairs.at(true, given))
        return chance

    def joint(
        self,
        scores: NDArray[np.floating[Any]],
        classes: NDArray[np.integer[Any]],
        twins: sparse.csr_array | None = None,
    ) -> NDArray[np.float64]:
        """P(true = c | x, given = y): float64 (N, K), rows sum to 1.

        scores: float (B, N, K); classes: ints (N, K), different in each row, the given label first; twins: (N, C), how
        often each label was given to others of the same x, independently of this one.
        """
        joint = self.class_probability(scores, classes) * self.transition(classes, classes[:, :1])
        if twins is not None:
            told = self._told(classes, twins)
            joint = np.maximum(joint, _TINY) * np.exp(told - told.max(axis=1, keepdims=True))
        normal: NDArray[np.float64] = joint / joint.sum(axis=1, keepdims=True)
        return normal

    def _told(self, classes: NDArray[np.integer[Any]], twins: sparse.csr_array) -> NDArray[np.float64]:
        """log P(labels of the twins | true = c), float64 (N, K)."""
        cells = twins.tocoo()
        row, label = cells.coords
        told = np.zeros(classes.shape)
        chance = np.log(np.maximum(self.transition(classes[row], label[:, None]), _TINY))
        np.add.at(told, row, cells.data[:, None] * chance)
        return told

    def twins_differ(
        self, scores: NDArray[np.floating[Any]], classes: NDArray[np.integer[Any]], twins: sparse.csr_array
    ) -> float:
        """Nats by which a true class for each of equal rows explains their labels better than one for all of them.

        Equal images show one thing. Of people who are alike in a few answers some are of one class and some of another.
        Arguments as of `joint`.
        """
        sizes = 1.0 + twins.sum(axis=1)
        some = sizes > 1.0
        scores, classes, sizes = scores[:, some], classes[some], sizes[some]
        joint = self.class_probability(scores, classes) * self.transition(classes, classes[:, :1])
        alone = np.log(np.maximum(joint.sum(axis=1), _TINY))
        together = special.logsumexp(np.log(np.maximum(joint, _TINY)) + self._told(classes, twins[some]), axis=1)
        return float((alone - together / sizes).sum())

    def log_odds(
        self,
        scores: NDArray[np.floating[Any]],
        classes: NDArray[np.integer[Any]],
        twins: sparse.csr_array | None = None,
    ) -> NDArray[np.float64]:
        """log P(wrong) / P(right) of each row, float64 (N,); arguments as of `joint`."""
        joint = self.joint(scores, classes, twins)
        odds: NDArray[np.float64] = np.log(np.maximum(joint[:, 1:].sum(axis=1), _TINY))
        return odds - np.log(np.maximum(joint[:, 0], _TINY))


@dataclass(frozen=True)
class Interval:
    """Estimates and the ends of their 95% intervals, float arrays of one shape."""

    value: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


@dataclass(frozen=True)
class PairRates:
    """P(given | true) of pairs of different classes. true, given: int64 (P,); rate: arrays (P,)."""

    true: NDArray[np.int64]
    given: NDArray[np.int64]
    rate: Interval


def pair_rates(
    model: LabelNoiseModel, scores: NDArray[np.floating[Any]], classes: NDArray[np.integer[Any]]
) -> PairRates:
    """P(given = j | true = c) of the pairs with a value of their own, with the sampling error of each alone.

    The value is the share of label j among the rows that the model takes for class c, which chance moves less from the
    truth than the penalty moves `model.pairs`. From `dL_i/dlogit T_cj = r_ic (1[y_i = j] - T_cj)`, whose squares add up
    to the information on an entry. A quarter of a row is added, so that an entry without any has a wide interval.
    """
    joint, pairs = model.joint(scores, classes), model.pairs
    place = pairs.places(classes, classes[:, :1]).ravel()
    size = len(pairs.code) + len(pairs.rest)
    of_pair = [np.bincount(place, one.ravel(), size)[: len(pairs.code)] for one in (joint, joint**2)]
    of_class = [np.bincount(classes.ravel(), one.ravel(), len(pairs.rest))[pairs.true] for one in (joint, joint**2)]
    value = (of_pair[0] + 0.5) / (of_class[0] + 1.0)
    information = of_pair[1] * (1.0 - value) ** 2 + (of_class[1] - of_pair[1]) * value**2
    inside, deviation = np.clip(value, 1e-12, 1.0 - 1e-12), 1.0 / np.sqrt(information + 0.25)
    logit = np.log(inside) - np.log1p(-inside)
    rate = Interval(value, _sigmoid(logit - SIGMAS * deviation), _sigmoid(logit + SIGMAS * deviation))
    return PairRates(pairs.true, pairs.given, rate)


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
        shared = len(scores) + 2 * num_classes  # all but the pairs, which differ
        start[:shared] = found[0][:shared]
        found = objective.best(start)
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
        self.scores, self.classes, self.labels = scores, classes, classes[:, 0]
        self.num_blocks, self.num_rows, _ = scores.shape
        self.num_classes, self.rate = num_classes, rate
        self.frequency = np.bincount(self.labels, minlength=num_classes) / self.num_rows
        self.most_error = 1.0 - 1.0 / num_classes
        self.pair_weight = PAIR_WEIGHT * float(np.log(num_classes - 1))
        spread = scores.std(axis=(1, 2))
        self.unit = 1.0 / np.where(spread > 0, spread, 1.0)
        best = np.einsum("b,bnk->nk", self.unit, scores).argmax(axis=1)
        self.top = classes[np.arange(self.num_rows), best]
        differs = self.top != self.labels
        code, self.times = np.unique(self.top[differs] * num_classes + self.labels[differs], return_counts=True)
        unknown = ClassPairs(code, np.empty(0), np.empty(num_classes))
        self.code, self.true = code, unknown.true
        # every (row, class) is one of a listed pair, of the class's other pairs, or of its right labels
        cell = unknown.places(classes, classes[:, :1])
        cell[:, 0] = len(code) + num_classes + self.labels
        self.cell = cell

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
        return np.concatenate([weight, np.zeros(self.num_classes), error, pairs])

    def near(self, model: LabelNoiseModel, rate: float) -> NDArray[np.float64]:
        """A model's parameters, with this error rate in every class."""
        pairs = np.log(model.pairs.at(self.true, self.code % self.num_classes) / model.pairs.rest[self.true])
        share = min(rate / self.most_error, _MOST_START_ERROR)
        error = np.full(self.num_classes, np.log(share) - np.log1p(-share))
        return np.concatenate([model.weight / self.unit, model.bias, error, pairs])

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
        weight, _, e, q = self._split(doubtful)  # views
        weight[:], e[:] = _DOUBT_WEIGHT / self.num_blocks, _DOUBT_LOGIT
        q *= _DOUBT_PAIRS
        return doubtful

    def best(self, start: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
        """The parameters of the optimum next to some, and its value."""
        from scipy.optimize import minimize  # half a second, which a training that comes first need not wait for

        blocks = self.num_blocks
        bounds = [(0.0, None)] * blocks + [(-_MOST_LOGIT, _MOST_LOGIT)] * (len(start) - blocks)
        options = {"maxiter": _EVALUATIONS, "maxcor": 20}
        found = minimize(self, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
        return found.x, float(found.fun)

    def surprise(self, parameters: NDArray[np.float64]) -> float:
        """Negative log-likelihood per row, without penalties."""
        model = self.model(parameters)
        joint = model.class_probability(self.scores, self.classes) * model.transition(
            self.classes, self.labels[:, None]
        )
        return float(-np.log(np.maximum(joint.sum(axis=1), _TINY)).mean(axis=0))

    def evidence(self, value: float) -> float:
        """That of the model whose value of this function is given."""
        counts = np.bincount(self.labels)
        by_frequency = special.xlogy(counts, counts / self.num_rows).sum()
        return float(-by_frequency - value * self.num_rows)

    def model(self, parameters: NDArray[np.float64]) -> LabelNoiseModel:
        """The model of a vector of parameters."""
        weight, bias, e, q = self._split(parameters)
        power = np.exp(q)
        listed = np.bincount(self.true, minlength=self.num_classes)
        # a pair that is not listed has q = 0
        total = np.bincount(self.true, power, self.num_classes) + (self.num_classes - 1 - listed)
        pairs = ClassPairs(self.code, power / total[self.true], 1.0 / total)
        return LabelNoiseModel(weight * self.unit, bias, self.most_error * _sigmoid(e), pairs)

    def _split(self, parameters: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        b, c = self.num_blocks, self.num_classes
        return parameters[:b], parameters[b : b + c], parameters[b + c : b + 2 * c], parameters[b + 2 * c :]

    def __call__(self, parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Value and gradient at a vector of parameters."""
        weight, bias, e, q = self._split(parameters)
        model, listed, c = self.model(parameters), len(self.code), self.num_classes
        probability = model.class_probability(self.scores, self.classes)
        chance = [model.error[self.true] * model.pairs.share, model.error * model.pairs.rest, 1.0 - model.error]
        joint = probability * np.concatenate(chance)[self.cell]
        likelihood = np.maximum(joint.sum(axis=1, keepdims=True), _TINY)
        joint /= likelihood
        away = e - e.mean()
        tails = np.log1p((q / PAIR_WIDTH) ** 2).sum()
        loss = -np.log(likelihood).sum() + 0.5 * ((bias**2).sum() + (away**2).sum()) + self.pair_weight * tails
        loss += 0.5 * ((weight / _LARGE_WEIGHT) ** 2).sum()
        too_many = 0.0 if self.rate is None else float(self.frequency @ model.error) - self.rate
        loss += self.num_rows * too_many**2
        # expected numbers of rows
        counts = np.bincount(self.cell.ravel(), joint.ravel(), listed + 2 * c)
        of_pair, right = counts[:listed], counts[listed + c :]
        wrong = counts[listed : listed + c] + np.bincount(self.true, of_pair, c)
        expected = np.bincount(self.classes.ravel(), probability.ravel(), c)
        by_weight = np.einsum("nk,bnk->b", joint - probability, self.scores) * self.unit
        # error' = error (1 - sigmoid(e))
        for_rate = 2.0 * self.num_rows * too_many * self.frequency
        by_error = wrong - model.error * (right / (1.0 - model.error) + for_rate)
        by_error *= 1.0 - model.error / self.most_error
        by_pair = of_pair - wrong[self.true] * model.pairs.share
        by_tail = 2.0 * self.pair_weight * q / (PAIR_WIDTH**2 + q**2)
        by_bias = wrong + right - expected
        gradient = np.concatenate(
            [weight / _LARGE_WEIGHT**2 - by_weight, bias - by_bias, away - by_error, by_tail - by_pair]
        )
        return float(loss / self.num_rows), gradient / self.num_rows


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    power = np.exp(logits - logits.max(axis=1, keepdims=True))
    normal: NDArray[np.float64] = power / power.sum(axis=1, keepdims=True)
    return normal


def _sigmoid(value: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1.0 / (1.0 + np.exp(-value))
