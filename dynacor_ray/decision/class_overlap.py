"""How far classes overlap, by where the rows lie instead of by their labels (ours).

A label noise model takes for doubt whatever labels it cannot predict. That is right where classes overlap, and wrong
where errors follow from what a row shows, as a weak annotator's do: rows of clear classes then have doubtful labels.
The rows themselves tell the two apart. Of classes that overlap many rows lie in between, of clear ones few.

So the model's probabilities p are taken for a first guess of which row is of which class, and a mixture of Gaussian
classes with one covariance is fitted to `log p`, whatever the labels, by expectation maximization: linear discriminant
analysis by probabilities in place of labels. If p is the posterior of classes that overlap, it stays as it is: one step
of EM from the truth leads back to it. If labels blurred p, it becomes sharp again. What is left of its doubt is the
overlap. To be sharp for want of rows would be a fault: a row is left out of the mean of its class.

One covariance fits no classes of images, nor those that lie along a curve, as of few features or of ages: each spreads
where the next one lies, and together they spread everywhere. So the same is done with each pair of classes alone, by
their log odds, and the larger overlap counts. Of clean images it is a seventh too small (CIFAR-10: 0.20, and 0.06 of
all together, where 0.24 of the labels cannot be predicted), as real classes have longer tails than Gaussian ones. Of
many Gaussian classes pairs miss what more than two have in common.

All together few STEPS are made: in many dimensions more would lead to where few rows happen to lie. A pair has one
dimension only. Of two classes 40% of whose labels are wrong p is so blurred that EM hardly moves in a hundred steps.
So two classes start sharp, each row in its likelier one; from there SHARP_STEPS lead to classes that overlap as well.
Where errors are spread evenly, p is flat at both ends, and what overlaps is read too small. Pairs of more classes start
from p: those along a line, which no gap parts, would stay as sharp as they start.

Where not all classes of a row are kept, classes overlap with few others, those that are alike. So a class is read with
those that have NEAR of the probability of its rows, at most MOST_NEAR: of other rows, whose probability of these
classes says nothing, the one covariance would be too small. Of more than NEIGHBORHOODS classes that many are drawn.

Cost: STEPS times (rows x classes squared) of a neighborhood, and PAIR_STEPS times (rows x classes), on at most
PROBED / K rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from dynacor_ray.decision.likely_classes import stands_for

PROBED = 200_000
"""Most rows times classes of each that are read."""
STEPS, PAIR_STEPS, SHARP_STEPS, NEIGHBORHOODS = 5, 10, 50, 48
NEAR, MOST_NEAR = 0.99, 16
_LEAST_LOG, _TINY, _RIDGE = -80.0, 1e-300, 1e-6
_LEAST_ROWS = 1e-3
"""Rows of a class below which it is empty."""
_MOST_OWN = 0.5
"""Most of a class that is one row, as far as leaving it out goes."""


def overlap(probability: NDArray[np.float64], classes: NDArray[np.integer[Any]], num_classes: int) -> float:
    """Mean probability that a row is not of its likeliest class, from the density of the rows alone, in [0, 1].

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
    pairs = float(_by_pairs(near, by_top, logs, classes, num_classes == 2).mean(axis=0))
    if num_classes == 2:
        return pairs
    if classes.shape[1] == num_classes:
        doubts = _doubts(np.take_along_axis(logs, np.argsort(classes, axis=1), axis=1))
    else:
        doubts = np.concatenate([_together(others, by_top, logs, classes) for others in near.values()])
    return max(float(doubts.mean(axis=0)), pairs)


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
    near: dict[int, NDArray[np.int64]],
    by_top: list[NDArray[np.int64]],
    logs: NDArray[np.float64],
    classes: NDArray[np.integer[Any]],
    starts_sharp: bool,
) -> NDArray[np.float64]:
    """P that a row is not of the class that p says, of the rows of the classes that are read.

    From its odds in each pair of near ones alone. Where density says another class than p, that is above one half: the
    label will differ from the prediction. starts_sharp: whether each row starts in its likelier class.
    """
    against = np.zeros(len(logs))
    for one, other in sorted({(min(a, b), max(a, b)) for a, others in near.items() for b in others if a != b}):
        rows = np.concatenate([by_top[one], by_top[other]])
        is_one, is_other = classes[rows] == one, classes[rows] == other
        both = is_one.any(axis=1) & is_other.any(axis=1)
        rows, is_one, is_other = rows[both], is_one[both], is_other[both]
        if len(rows):
            log_odds = logs[rows, is_one.argmax(axis=1)] - logs[rows, is_other.argmax(axis=1)]
            if starts_sharp:
                found = _pair_log_odds(log_odds, (log_odds > 0).astype(np.float64), SHARP_STEPS)
            else:
                found = _pair_log_odds(log_odds, special.expit(log_odds), PAIR_STEPS)
            against[rows] += np.exp(np.where(log_odds > 0, -found, found))
    read = np.concatenate([by_top[one] for one in near])
    doubts: NDArray[np.float64] = 1.0 - 1.0 / (1.0 + against[read])
    return doubts


def _pair_log_odds(place: NDArray[np.float64], first: NDArray[np.float64], steps: int) -> NDArray[np.float64]:
    """Log odds of two Gaussian classes of one variance, float64 (n,), bounded.

    place: float64 (n,), where the rows lie; first: float64 (n,) in [0, 1], P of the first class to start from.
    """
    rows, found = len(place), place
    for _ in range(steps):
        shares = np.stack([first, 1.0 - first])
        weight = shares.sum(axis=1)
        if weight.min() < _LEAST_ROWS:
            break
        mean = shares @ place / weight
        squares = (place - mean[:, None]) ** 2
        variance = max((shares * squares).sum() / max(rows - 2, rows / 2), _RIDGE)
        own = np.minimum(shares / weight[:, None], _MOST_OWN)
        distance = squares / (variance * (1.0 - own) ** 2)
        found = np.log(weight[0] / weight[1]) - 0.5 * (distance[0] - distance[1])
        first = special.expit(found)
    bounded: NDArray[np.float64] = np.clip(found, _LEAST_LOG, -_LEAST_LOG)
    return bounded


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
    assigned: NDArray[np.float64] = special.softmax(logs, axis=1)
    place = logs[:, 1:] - logs[:, :1]
    for _ in range(STEPS if logs.shape[1] > 1 else 0):
        distance, weight = _distances(place, assigned)
        assigned = special.softmax(np.log(np.maximum(weight, _TINY)) - 0.5 * distance, axis=1)
    doubts: NDArray[np.float64] = 1.0 - assigned.max(axis=1)
    return doubts


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
