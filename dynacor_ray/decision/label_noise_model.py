"""A model of the label noise: which class a row shows, how often each class is mislabeled, and as what (ours).

Let `s(x)` be class scores that have not seen the row's own label (`leave_one_out_ridge`). A row's class c is drawn from
`p_c = softmax(weight scaled s(x) + bias)_c`, its given label y from `T[c, y]`, where `T[c, c] = 1 - error_c` and
`T[c, j] = error_c pairs[c, j]`. A label that rows of any class have by mistake, such as a default that nobody changed,
has one parameter. How all are found is in `label_noise_fit`.

Scores of least squares are no logits: the more alike two classes are, or the rarer one of them, the less of their
difference is left. With one weight for all classes, labels of such classes look wrong. So these scores are calibrated
before they are weighed: by matrix scaling, or, where not all classes of a row are kept, by vector scaling (Guo et al.
2017). The score of c becomes `sum_j scaling_jc s_j` or `scaling_c s_c`. A network's logits need none. Vector scaling
has no weight for groups of alike classes; one more score has it (`alike_classes`).

Every row has K classes that it may show, of which the first is its given label: all C where they are few, else the most
probable ones and some that stand for the others (`likely_classes`). So nothing has the size of N x C, nor, of more than
16 classes, of C x C.

Errors that follow from what a row shows are no class pairs. To such a model they are doubt, but then it is too sure of
what the surest rows are labeled (`unexplained`).

From the fit every row has the joint `P(true = c | x, y)`; what follows from that is in `expected_f1`.

Cost: a softmax per row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, special

from dynacor_ray.decision.likely_classes import stands_for
from dynacor_ray.decision.noise_rate import SIGMAS

REGRESSIONS = 2
"""Blocks of scores, the first ones, that are of least squares."""
SUREST = 0.3
"""Share of the rows, surest first, whose labels must be as the model says."""
LEAST_EVIDENCE = 5.0
"""Nats, e.g. of 1,000 rows whose labels are right in 55% rather than 50% of two classes."""
_AT_BOUND = 0.95
"""Share of 1 - 1/C from which the mean error rate is at its bound."""
_TINY = 1e-300


@dataclass(frozen=True)
class ClassPairs:
    """P(given = j | true = c, wrong) of pairs of different classes, of which most follow from the label alone.

    code: int64 (P,), increasing: c * C + j of the pairs with a value of their own; share: float64 (P,), their values;
    rest, popularity: float64 (C,), > 0: every other pair has `rest_c popularity_j`.
    """

    code: NDArray[np.int64]
    share: NDArray[np.float64]
    rest: NDArray[np.float64]
    popularity: NDArray[np.float64]

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
        place = self.places(true, given)
        value = np.concatenate([self.share, self.rest])[place]
        return np.where(place < len(self.code), value, value * self.popularity[given])


@dataclass(frozen=True)
class LabelNoiseModel:
    """A fitted model. weight: float (B,), one per block of scores, >= 0; bias, error: float (C,).

    scaling: of the scores of regressions, float (C,), > 0, or (C, C) from class to class; error: P(label is wrong |
    true class), in [0, 1 - 1/C]; evidence: nats by which it explains the labels of the rows that it was fitted to
    better than the frequencies of the classes do, less the penalties.
    """

    weight: NDArray[np.float64]
    scaling: NDArray[np.float64]
    bias: NDArray[np.float64]
    error: NDArray[np.float64]
    pairs: ClassPairs
    evidence: float = np.inf

    @property
    def labels_tell(self) -> bool:
        """Whether scores and labels have to do with each other: if not, nothing can be said of any label."""
        bound = 1.0 - 1.0 / len(self.error)
        return self.evidence >= LEAST_EVIDENCE and float(self.error.mean(axis=0)) < _AT_BOUND * bound

    @property
    def scales_by_matrix(self) -> bool:
        """Whether scores are scaled from class to class, which takes all C of a row."""
        return self.scaling.ndim == 2

    def class_probability(
        self, scores: NDArray[np.floating[Any]], classes: NDArray[np.integer[Any]] | None
    ) -> NDArray[np.float64]:
        """P(true = c | x), without the label. float (B, N, K), ints (N, K) -> float64 (N, K), rows sum to 1.

        classes: None for all, in their order (matrix scaling only). A class that stands for others has their
        probability as well, here and in `joint`.
        """
        number = np.log(stands_for(scores.shape[2], len(self.bias)))
        regression, others = (
            np.einsum("b,bnk->nk", self.weight[part], scores[part])
            for part in (slice(REGRESSIONS), slice(REGRESSIONS, None))
        )
        bias = self.bias if classes is None else self.bias[classes]
        return _softmax(self._scaled(regression, classes) + others + (bias + number))

    def _scaled(self, scores: NDArray[np.float64], classes: NDArray[np.integer[Any]] | None) -> NDArray[np.float64]:
        if classes is None:
            return np.asarray(scores @ self.scaling)
        if not self.scales_by_matrix:
            return np.asarray(scores * self.scaling[classes])
        ordered = np.empty_like(scores)
        np.put_along_axis(ordered, classes, scores, axis=1)
        return np.take_along_axis(ordered @ self.scaling, classes, axis=1)

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
    rate = Interval(value, special.expit(logit - SIGMAS * deviation), special.expit(logit + SIGMAS * deviation))
    return PairRates(pairs.true, pairs.given, rate)


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    power = np.exp(logits - logits.max(axis=1, keepdims=True))
    normal: NDArray[np.float64] = power / power.sum(axis=1, keepdims=True)
    return normal
