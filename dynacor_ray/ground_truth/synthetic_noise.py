"""Synthetic label noise for experiments (Kim et al., CVPR 2024, App. A, §5.1).

The given label of an instance is a pure function of (seed, instance_id, true_label): the same for any order of rows or
block layout, and the wrong labels at a low rate are among those at a higher one.

Deviations from the paper:

- Every instance is flipped independently with the rate as its probability, so the realized rate differs from `rate`
  by about sqrt(rate (1 - rate) / N).
- The asymmetric map may be given; "class + 1" is the default (the paper's and the released code's for every data set).
- Instance-dependent noise takes any features, not only pixels, and a result must state which.

Cost: two hashes per instance. For instance-dependent noise also two products (N, D) x (D, C), one class at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from dynacor_ray.core.errors import ConfigError, DataError, expected_got, require_two_classes
from dynacor_ray.core.rng import Purpose, derive_seed, keyed_choice, keyed_uniform

_RATE_SPREAD = 0.1


def symmetric(
    true_labels: NDArray[np.integer[Any]], ids: NDArray[np.int64], rate: float, num_classes: int, seed: int
) -> NDArray[np.int32]:
    """Symmetric noise (§5.1, App. A): with probability `rate` a uniformly chosen other class.

    Args:
        true_labels: integers (N,) in 0..C-1.
        ids: int64 (N,).
        rate: in [0, 1].
        num_classes: C >= 2.
        seed: any integer.

    Returns:
        Given labels, int32 (N,), a new array.

    Raises:
        ConfigError: rate or C out of range.
        DataError: a label out of range.
    """
    labels = checked_labels(true_labels, rate, num_classes)
    step = 1 + keyed_choice(seed, Purpose.NOISE_LABEL, ids, num_classes - 1)
    return flip(labels, (labels + step) % num_classes, ids, rate, seed)


def asymmetric(
    true_labels: NDArray[np.integer[Any]],
    ids: NDArray[np.int64],
    rate: float,
    num_classes: int,
    seed: int,
    class_map: Sequence[int] | None = None,
) -> NDArray[np.int32]:
    """Asymmetric noise (§5.1, App. A): with probability `rate` the class `class_map[true_label]`.

    Arguments, result and errors as in `symmetric`. `class_map` has C classes in 0..C-1, by default `(i + 1) mod C`; a
    class mapped to itself stays clean.
    """
    labels = checked_labels(true_labels, rate, num_classes)
    target = np.asarray((np.arange(num_classes) + 1) % num_classes if class_map is None else class_map, dtype=np.int64)
    return flip(labels, target[labels], ids, rate, seed)


def instance_dependent(
    true_labels: NDArray[np.integer[Any]],
    ids: NDArray[np.int64],
    rate: float,
    num_classes: int,
    seed: int,
    features: NDArray[np.floating[Any]],
) -> NDArray[np.int32]:
    """Instance-dependent noise (§5.1, App. A; Xia et al. 2020): the wrong class depends on the input.

    Each instance has a rate q ~ TruncNormal(rate, 0.1) on [0, 1]. A wrong label is drawn from the softmax of `x W_y`
    without the true class y, where W_y is a standard-normal (D, C) projection of class y. Truncation makes the mean of
    q exceed `rate` below 0.2 (0.08 at 0). Projections depend on (seed, C, D) only, so blocks may be done one by one.

    Arguments, result and errors as in `symmetric`. `features` are float (N, D), pixels or embeddings: their scale
    decides how peaked the softmax is, and labels made from different features are not comparable. Raises DataError for
    features of another length or with NaN.
    """
    labels = checked_labels(true_labels, rate, num_classes)
    features = checked_features(features, labels)
    own_rate = _truncated_normal(keyed_uniform(seed, Purpose.NOISE_RATE, ids), rate)
    flipped = keyed_uniform(seed, Purpose.NOISE_MEMBER, ids) < own_rate
    draw = keyed_uniform(seed, Purpose.NOISE_LABEL, ids)
    given = labels.copy()
    for true_class in range(num_classes):
        rows = np.flatnonzero(flipped & (labels == true_class))
        stream = np.random.PCG64(derive_seed(seed, int(Purpose.NOISE_LABEL), true_class))
        projection = np.random.Generator(stream).standard_normal((features.shape[1], num_classes))
        given[rows] = _drawn_class(features[rows] @ projection, true_class, draw[rows])
    return given.astype(np.int32)


def by_class(
    true_labels: NDArray[np.integer[Any]],
    ids: NDArray[np.int64],
    rates: Sequence[float],
    num_classes: int,
    seed: int,
) -> NDArray[np.int32]:
    """Given labels where each true class has a rate of its own: a uniformly chosen other class at that rate (ours).

    rates: R values in [0, 1], stretched over the classes in their order: class c has `rates[c * R // C]`. The rest as
    in `symmetric`.
    """
    for rate in rates:
        labels = checked_labels(true_labels, rate, num_classes)
    own = np.asarray(rates, np.float64)[labels * len(rates) // num_classes]
    step = 1 + keyed_choice(seed, Purpose.NOISE_LABEL, ids, num_classes - 1)
    return flip(labels, (labels + step) % num_classes, ids, own, seed)


def ramp(
    true_labels: NDArray[np.integer[Any]], ids: NDArray[np.int64], rate: float, num_classes: int, seed: int
) -> NDArray[np.int32]:
    """`by_class` with rates that grow evenly from 0 in the first class to `rate` in the last (ours)."""
    return by_class(true_labels, ids, np.linspace(0.0, rate, num_classes).tolist(), num_classes, seed)


def one_sided(
    true_labels: NDArray[np.integer[Any]],
    ids: NDArray[np.int64],
    rate: float,
    num_classes: int,
    seed: int,
    true: int = 0,
    given: int = 1,
) -> NDArray[np.int32]:
    """Given labels where one class is taken for another at `rate` and nothing else is wrong (ours).

    true, given: these two. The rest as in `symmetric`. Raises ConfigError also where they are not two of the classes.
    """
    if true == given or not 0 <= min(true, given) <= max(true, given) < num_classes:
        expected = f"two classes in 0..{num_classes - 1}"
        raise ConfigError(expected_got(expected, f"{true}, {given}", "name two that exist"))
    target = np.arange(num_classes)
    target[true] = given
    return asymmetric(true_labels, ids, rate, num_classes, seed, target.tolist())


def default_label(
    true_labels: NDArray[np.integer[Any]],
    ids: NDArray[np.int64],
    rate: float,
    num_classes: int,
    seed: int,
    given: int = 0,
) -> NDArray[np.int32]:
    """Given labels where rows of any class have one label at `rate`, as where a form was left at its default (ours).

    given: that label. The rest as in `symmetric`. Raises ConfigError also where it is none of the classes.
    """
    if not 0 <= given < num_classes:
        raise ConfigError(expected_got(f"a default label in 0..{num_classes - 1}", str(given), "name one that exists"))
    return asymmetric(true_labels, ids, rate, num_classes, seed, [given] * num_classes)


def junk_features(
    features: NDArray[np.floating[Any]], ids: NDArray[np.int64], rate: float, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Features of which a share `rate` shows no class, and which those are: float32 (N, D), bool (N,) (ours).

    A junk row is drawn from a normal distribution with every column's mean and spread, which no class has.
    """
    is_junk = keyed_uniform(seed, Purpose.NOISE_MEMBER, ids) < rate
    rows = np.array(features, dtype=np.float32)
    mean, spread = rows.mean(axis=0), rows.std(axis=0)
    for row in np.flatnonzero(is_junk):
        stream = np.random.Generator(np.random.PCG64(derive_seed(seed, int(Purpose.NOISE_RATE), int(ids[row]))))
        rows[row] = mean + spread * stream.standard_normal(rows.shape[1])
    return rows, is_junk


def _truncated_normal(uniform: NDArray[np.float64], mean: float) -> NDArray[np.float64]:
    """Normal(mean, 0.1) restricted to [0, 1], by its inverse distribution function. (N,) in [0, 1) -> (N,)."""
    low, high = ndtr(-mean / _RATE_SPREAD), ndtr((1.0 - mean) / _RATE_SPREAD)
    values: NDArray[np.float64] = mean + _RATE_SPREAD * ndtri(low + uniform * (high - low))
    return np.clip(values, 0.0, 1.0)


def _drawn_class(scores: NDArray[np.floating[Any]], excluded: int, draw: NDArray[np.float64]) -> NDArray[np.int64]:
    """A class from the softmax of scores (n, C) without one class, by the inverse of its cumulative sum; (n,)."""
    scores = scores.astype(np.float64)
    scores[:, excluded] = -np.inf
    weight = np.exp(scores - scores.max(axis=1, keepdims=True))
    cumulative = np.cumsum(weight, axis=1)
    # `draw` is below 1, and a class of weight 0 adds nothing to the sum: it is never the first to exceed the draw
    chosen: NDArray[np.int64] = np.argmax(cumulative > (draw * cumulative[:, -1])[:, None], axis=1)
    return chosen


def flip(
    labels: NDArray[np.int64],
    wrong: NDArray[np.int64],
    ids: NDArray[np.int64],
    rate: float | NDArray[np.float64],
    seed: int,
) -> NDArray[np.int32]:
    """The wrong label with probability `rate`, which may be one per row; int32 (N,). Arguments int64 (N,)."""
    flipped = keyed_uniform(seed, Purpose.NOISE_MEMBER, ids) < rate
    return np.where(flipped, wrong, labels).astype(np.int32)


def checked_features(features: NDArray[np.floating[Any]], labels: NDArray[np.int64]) -> NDArray[np.floating[Any]]:
    """The features, float (N, D). Raises DataError for another length than the labels', or with NaN."""
    if features.ndim != 2 or len(features) != len(labels) or not np.isfinite(features).all():
        expected = f"finite features of shape ({len(labels)}, D)"
        raise DataError(expected_got(expected, f"shape {features.shape}", "pass one vector per label, without NaN"))
    return features


def checked_labels(labels: NDArray[np.integer[Any]], rate: float, num_classes: int) -> NDArray[np.int64]:
    """The labels, int64 (N,). Raises ConfigError for a rate or C, DataError for a label that is out of range."""
    if not 0.0 <= rate <= 1.0:
        raise ConfigError(expected_got("a noise rate in [0, 1]", repr(rate), "pass a share, not a percentage"))
    require_two_classes(num_classes)
    values = np.asarray(labels, dtype=np.int64)
    if values.size and not 0 <= int(values.min()) <= int(values.max()) < num_classes:
        got = f"a range of {values.min()}..{values.max()}"
        remedy = "encode the labels, or correct num_classes"
        raise DataError(expected_got(f"labels in 0..{num_classes - 1}", got, remedy))
    return values
