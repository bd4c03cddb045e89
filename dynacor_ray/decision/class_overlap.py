"""How far classes overlap, by where the rows lie instead of by their labels (ours).

A label noise model takes for doubt whatever labels it cannot predict. That is right where classes overlap, and wrong
where errors follow from what a row shows, as a weak annotator's do: rows of clear classes then have doubtful labels.
The rows themselves tell the two apart. Of classes that overlap many rows lie in between, of clear ones few.

So the model's probabilities p are taken for a first guess of which row is of which class, and a mixture of Gaussian
classes with one covariance is fitted to `log p`, whatever the labels, by STEPS of expectation maximization: linear
discriminant analysis by probabilities in place of labels. If p is the posterior of classes that overlap, it stays as it
is: one step of EM from the truth leads back to it. If labels blurred p, it becomes sharp again. What is left of its
doubt is the overlap.

Real classes have longer tails than Gaussian ones. So the overlap is too small, of clean images by a half, and cannot
be believed alone (`noise_decision`). To be sharp for want of rows would be the same fault: a row is left out of the
mean of its class.

Where not all classes of a row are kept, classes overlap with few others, those that are alike. So a class is read with
those that have NEAR of the probability of its rows, at most MOST_NEAR: of other rows, whose probability of these
classes says nothing, the one covariance would be too small. Of more than NEIGHBORHOODS classes that many are drawn.

One covariance fits no classes that lie along a curve, as those of few features or of ages do: each spreads where the
next one lies, and together they spread everywhere. Pairs of such classes overlap all the same. Where pairs overlap more
than CURVED times as much as all together, what they have beyond that is added.

Cost: STEPS times (rows x classes squared) of a neighborhood, on at most PROBED / K rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from dynacor_ray.decision.likely_classes import stands_for

PROBED = 200_000
"""Most rows times classes of each that are read."""
STEPS, NEIGHBORHOODS = 5, 48
NEAR, MOST_NEAR, CURVED = 0.99, 16, 3.0
_LEAST_LOG, _TINY, _RIDGE = -80.0, 1e-300, 1e-6
_MOST_OWN = 0.5
"""Most of a class that is one row, as far as leaving it out goes."""


def overlap(probability: NDArray[np.float64], classes: NDArray[np.integer[Any]], num_classes: int) -> float:
    """Mean over the rows of 1 - P of the most probable class, from the density of the rows alone, in [0, 1].

    probability: float64 (N, K), of the true class without the label, rows sum to 1, N >= 1; a class that stands for
    others has theirs as well. classes: ints (N, K), different in each row.
    """
    step = -(-classes.size // PROBED)
    assigned, classes = probability[::step], classes[::step]
    single = assigned / stands_for(classes.shape[1], num_classes)
    logs = np.log(np.maximum(single, np.exp(_LEAST_LOG)))
    top = classes[np.arange(len(classes)), single.argmax(axis=1)]
    by_top = np.split(np.argsort(top, kind="stable"), np.bincount(top, minlength=num_classes).cumsum()[:-1])
    near = {one: _near(classes[by_top[one]], assigned[by_top[one]], one, num_classes) for one in _drawn(by_top)}
    pairs = np.concatenate([_by_pairs(others, by_top, logs, classes) for others in near.values()])
    if classes.shape[1] == num_classes:
        doubts = _doubts(np.take_along_axis(logs, np.argsort(classes, axis=1), axis=1))
    else:
        doubts = np.concatenate([_together(others, by_top, logs, classes) for others in near.values()])
    joint = float(doubts.mean(axis=0))
    return max(joint, float(pairs.mean(axis=0)) - CURVED * joint)


def _drawn(by_top: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Classes that are read, the likelier the more rows they have. by_top: the rows of each class."""
    rows = np.array([len(one) for one in by_top])
    some = np.flatnonzero(rows)
    if len(some) <= NEIGHBORHOODS:
        return some
    return np.random.default_rng(0).choice(some, NEIGHBORHOODS, replace=False, p=rows[some] / rows.sum())


def _near(
    classes: NDArray[np.integer[Any]], assigned: NDArray[np.float64], one: int, num_classes: int
) -> NDArray[np.int64]:
    """The classes that a class is read with, itself first. classes, assigned: (n, K), of its rows."""
    mass = np.bincount(classes.ravel(), assigned.ravel(), num_classes)
    order = np.argsort(-mass, kind="stable")
    count = int(np.searchsorted(mass[order].cumsum(), NEAR * mass.sum())) + 1
    others = order[: min(count, MOST_NEAR)]
    return np.concatenate([[one], others[others != one]])


def _together(
    near: NDArray[np.int64],
    by_top: list[NDArray[np.int64]],
    logs: NDArray[np.float64],
    classes: NDArray[np.integer[Any]],
) -> NDArray[np.float64]:
    """Doubts of the rows of the first class of some, among these."""
    rows = np.concatenate([by_top[one] for one in near])
    return _doubts(_logs_of(near, logs[rows], classes[rows]))[: len(by_top[near[0]])]


def _by_pairs(
    near: NDArray[np.int64],
    by_top: list[NDArray[np.int64]],
    logs: NDArray[np.float64],
    classes: NDArray[np.integer[Any]],
) -> NDArray[np.float64]:
    """Doubts of the rows of the first class of some, from its odds against each of the others alone."""
    own = len(by_top[near[0]])
    against = np.zeros(own)
    for other in near[1:]:
        rows = np.concatenate([by_top[near[0]], by_top[other]])
        this, that = classes[rows] == near[0], classes[rows] == other
        both = np.flatnonzero(this.any(axis=1) & that.any(axis=1))
        kept = rows[both]
        if len(kept):
            found = _sharpened(np.stack([logs[kept, one[both].argmax(axis=1)] for one in (this, that)], axis=1))
            mine = both < own
            against[both[mine]] += found[mine, 1] / np.maximum(found[mine, 0], _TINY)
    return 1.0 - 1.0 / (1.0 + against)


def _logs_of(
    near: NDArray[np.int64], logs: NDArray[np.float64], classes: NDArray[np.integer[Any]]
) -> NDArray[np.float64]:
    """log p of some classes, float64 (n, k).

    Of those that a row does not keep it is below the least of the kept ones, by an exponential variable of the mean gap
    between these, the largest apart. With the least itself, rows of trained scores spread too little: of seven sets of
    clean classes that are alike 11% of the labels were flagged, not 4%.
    """
    found = np.full((len(logs), len(near)), np.nan)
    order = np.argsort(near)
    place = order[np.minimum(np.searchsorted(near, classes, sorter=order), len(near) - 1)]
    row, kept = np.nonzero(near[place] == classes)
    found[row, place[row, kept]] = logs[row, kept]
    ranked = np.sort(found, axis=1)  # those that are not known come last
    known = np.isfinite(found).sum(axis=1, keepdims=True)
    second = np.take_along_axis(ranked, np.maximum(known - 2, 0), axis=1)
    gap = (second - ranked[:, :1]) / np.maximum(known - 2, 1)
    drawn = np.random.default_rng(0).exponential(size=found.shape)
    return np.where(np.isnan(found), ranked[:, :1] - gap * drawn, found)


def _doubts(logs: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 - P of the most probable of k classes, by their density, float64 (n,). logs: float64 (n, k), log p."""
    doubts: NDArray[np.float64] = 1.0 - _sharpened(logs).max(axis=1)
    return doubts


def _sharpened(logs: NDArray[np.float64]) -> NDArray[np.float64]:
    """P of k classes by their density, float64 (n, k). logs: float64 (n, k), log p."""
    assigned: NDArray[np.float64] = special.softmax(logs, axis=1)
    place = logs[:, 1:] - logs[:, :1]
    for _ in range(STEPS if logs.shape[1] > 1 else 0):
        distance, weight = _distances(place, assigned)
        assigned = special.softmax(np.log(np.maximum(weight, _TINY)) - 0.5 * distance, axis=1)
    return assigned


def _distances(
    place: NDArray[np.float64], assigned: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Squared Mahalanobis distances to the means of classes that do not have the row, (n, k), and their shares, (k,).

    place: float64 (n, k - 1); assigned: float64 (n, k), rows sum to 1.
    """
    rows, dimensions = place.shape
    place = place - place.mean(axis=0)
    weight = assigned.sum(axis=0)
    mean = (assigned.T @ place) / np.maximum(weight, _RIDGE)[:, None]
    free = max(rows - int((weight > _RIDGE).sum()), rows / 2)
    scatter = (place.T @ place - (mean.T * weight) @ mean) / free
    scatter += np.eye(dimensions) * (_RIDGE * (1.0 + np.trace(scatter) / dimensions))
    # in coordinates in which the covariance is that of a standard normal
    factor = np.linalg.cholesky(scatter)
    scaled, center = np.linalg.solve(factor, place.T).T, np.linalg.solve(factor, mean.T).T
    distance = np.stack([((scaled - one) ** 2).sum(axis=1) for one in center], axis=1)
    own = np.minimum(assigned / np.maximum(weight, _RIDGE), _MOST_OWN)
    return distance / (1.0 - own) ** 2, weight / rows
