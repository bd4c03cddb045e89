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
mean of its class, and of many classes DIMENSIONS random directions of `log p` are read. Of more than 16 classes the
unlikely ones of a row are taken to be equally so: of Gaussian classes that are all as far apart from one another half
of the overlap is missed, of images none.

Cost: STEPS times (rows x K x DIMENSIONS) on at most PROBED / K rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, special

from dynacor_ray.decision.likely_classes import DRAWN, stands_for

PROBED = 200_000
"""Most rows times classes of each that are read."""
STEPS, DIMENSIONS = 5, 63
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
    number = stands_for(classes.shape[1], num_classes)
    place = _positions(assigned / number, classes, num_classes)
    for _ in range(STEPS):
        distance, weight = _distances(place, assigned, classes, num_classes)
        logit = np.log(np.maximum(number * weight, _TINY)) - 0.5 * distance
        assigned = np.exp(logit - special.logsumexp(logit, axis=1, keepdims=True))
    return float(1.0 - (assigned / number).max(axis=1).mean(axis=0))


def _positions(
    probability: NDArray[np.float64], classes: NDArray[np.integer[Any]], num_classes: int
) -> NDArray[np.float64]:
    """log p of every row, relative to those of its unlikely classes, in random directions: float64 (N, D).

    With all C classes these are as many as log p has dimensions, and nothing is lost.
    """
    logs = np.log(np.maximum(probability, np.exp(_LEAST_LOG)))
    unlikely = logs if classes.shape[1] == num_classes else logs[:, -DRAWN:]
    dimensions = min(DIMENSIONS, num_classes - 1)
    directions = np.random.default_rng(0).standard_normal((num_classes, dimensions))
    place = _spread(logs - unlikely.mean(axis=1, keepdims=True), classes, num_classes) @ directions
    centered: NDArray[np.float64] = place - place.mean(axis=0)
    return centered


def _distances(
    place: NDArray[np.float64],
    assigned: NDArray[np.float64],
    classes: NDArray[np.integer[Any]],
    num_classes: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Squared Mahalanobis distances to the means of classes that do not have the row, and shares of these: (N, K)."""
    rows, dimensions = place.shape
    of_class = _spread(assigned, classes, num_classes)
    weight = np.asarray(of_class.sum(axis=0))
    mean = (of_class.T @ place) / np.maximum(weight, _RIDGE)[:, None]
    free = max(rows - int((weight > _RIDGE).sum()), rows / 2)
    scatter = (place.T @ place - (mean.T * weight) @ mean) / free
    scatter += np.eye(dimensions) * (_RIDGE * (1.0 + np.trace(scatter) / dimensions))
    # in coordinates in which the covariance is that of a standard normal
    factor = np.linalg.cholesky(scatter)
    scaled, center = np.linalg.solve(factor, place.T).T, np.linalg.solve(factor, mean.T).T
    distance = np.stack([((scaled - center[one]) ** 2).sum(axis=1) for one in classes.T], axis=1)
    own = np.minimum(assigned / np.maximum(weight[classes], _RIDGE), _MOST_OWN)
    return distance / (1.0 - own) ** 2, weight[classes] / rows


def _spread(values: NDArray[np.float64], classes: NDArray[np.integer[Any]], num_classes: int) -> sparse.csr_array:
    rows, kept = values.shape
    ends = np.arange(0, rows * kept + 1, kept)
    return sparse.csr_array((values.ravel(), classes.ravel(), ends), shape=(rows, num_classes))
