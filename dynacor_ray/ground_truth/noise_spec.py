"""Label noise by name, as an experiment asks for it (Kim et al., CVPR 2024, §5.1, App. A).

`given`, `symmetric:0.6`, `asymmetric:0.3`, `instance_dependent:0.4`, `by_class:0.4,0.1,0`, `ramp:0.4`,
`one_sided:0.3:4:9`, `default_label:0.25:0`, `hard_rows:0.2`, `weak_annotator:0.5`: what the labels of an experiment are
made of.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dynacor_ray.core import schema
from dynacor_ray.core.errors import ConfigError, DataError, expected_got
from dynacor_ray.ground_truth import fitted_noise, synthetic_noise

GIVEN, INSTANCE_DEPENDENT = "given", "instance_dependent"
HARD_ROWS, WEAK_ANNOTATOR = "hard_rows", "weak_annotator"
_BY_CLASS = "by_class"
_NAMED = {"one_sided": ("two classes", 2), "default_label": ("one class", 1)}
"""How many classes a kind may name after its rate."""
_MAKERS: dict[str, Callable[..., NDArray[np.int32]]] = {
    "symmetric": synthetic_noise.symmetric,
    "asymmetric": synthetic_noise.asymmetric,
    INSTANCE_DEPENDENT: synthetic_noise.instance_dependent,
    _BY_CLASS: synthetic_noise.by_class,
    "ramp": synthetic_noise.ramp,
    "one_sided": synthetic_noise.one_sided,
    "default_label": synthetic_noise.default_label,
    HARD_ROWS: fitted_noise.hard_rows,
    WEAK_ANNOTATOR: fitted_noise.weak_annotator,
}
KINDS = (GIVEN, *_MAKERS)
FEATURE_NORM = 10.0
"""Length of the centered features that noise is drawn from; it decides how peaked the draw is."""
_SAID = {
    GIVEN: "the data's own labels",
    "symmetric": "true labels",
    "asymmetric": "true labels; class i becomes (i + 1) mod C",
    _BY_CLASS: "true labels; the rates in the order of the classes",
    "ramp": "true labels; the rate grows from 0 in the first class to this in the last",
    "one_sided": "true labels; one class is taken for another",
    "default_label": "true labels; any class is given one label",
}


@dataclass(frozen=True)
class Noise:
    """A kind of noise (§5.1) and its rates.

    Attributes:
        kind: one of KINDS.
        rates: in [0, 1], one for most kinds, one or more for `by_class`, none for the labels as given.
        classes: for `one_sided`, the true class and the class it is taken for; for `default_label`, the label.
    """

    kind: str
    rates: tuple[float, ...] = ()
    classes: tuple[int, ...] = ()

    def __str__(self) -> str:
        rates = [",".join(repr(rate) for rate in self.rates)] if self.rates else []
        return ":".join([self.kind, *rates, *(str(one) for one in self.classes)])

    @property
    def needs_features(self) -> bool:
        """Whether `given_labels` asks for features, or for a sketch that is made of them."""
        return self.kind == INSTANCE_DEPENDENT or self.needs_sketch

    @property
    def needs_sketch(self) -> bool:
        """Whether something is fitted to all instances, so that labels are made of all sketches in one call."""
        return self.kind in (HARD_ROWS, WEAK_ANNOTATOR)

    def made_from(self, features: str) -> str:
        """What the labels are made from, for a result to name: columns made from other things cannot be compared.

        features: What the features are, if it needs any.
        """
        if self.needs_features:
            return f"true labels and {features}, centered and scaled to length {FEATURE_NORM:g}"
        return _SAID[self.kind]


def parse_noise(text: str) -> Noise:
    """A kind of noise as it is spelled above (§5.1), where classes may be left out.

    Raises ConfigError for anything else.
    """
    example = "pass e.g. given, symmetric:0.6, instance_dependent:0.4, by_class:0.4,0.1,0 or one_sided:0.3:4:9"
    kind, *parts = text.split(":")
    if kind not in KINDS or (kind == GIVEN) != (not parts):
        raise ConfigError(expected_got(f"a noise kind among {', '.join(KINDS)}, with :RATE", repr(text), example))
    if kind == GIVEN:
        return Noise(GIVEN)
    try:
        rates, classes = tuple(float(rate) for rate in parts[0].split(",")), tuple(int(one) for one in parts[1:])
    except ValueError:
        rates, classes = (), ()
    one_rate = kind == _BY_CLASS or len(rates) == 1
    if not (rates and one_rate and all(0.0 <= rate <= 1.0 for rate in rates)):
        raise ConfigError(expected_got("a noise rate in [0, 1]", repr(text), example))
    named, count = _NAMED.get(kind, ("no class", 0))
    if len(parts) > 1 and len(classes) != count:
        raise ConfigError(expected_got(f"{named} after the rate of {kind}", repr(text), example))
    return Noise(kind, rates, classes)


def true_labels(truth: pa.Table, num_rows: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ids in increasing order and their true labels, int64 (N,) each.

    Args:
        truth: `schema.truth_schema()`.
        num_rows: N.

    Raises:
        DataError: a true label is missing; noise is made from all of them.
    """
    ids, labels = known_labels(truth)
    if len(ids) != num_rows:
        got = f"{num_rows - len(ids):,} of {num_rows:,} without, or with a class that no label names"
        raise DataError(expected_got("a true label for every row to make noise from", got, "use --label-noise given"))
    return ids, labels.astype(np.int64)


def known_labels(truth: pa.Table) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Ids in increasing order and true labels, int64 (n,) and int32 (n,), of the rows whose true label is known.

    truth: `schema.truth_schema()`.
    """
    known = truth.filter(truth[schema.TRUE_LABEL].is_valid()).sort_by(schema.INSTANCE_ID)
    return known[schema.INSTANCE_ID].to_numpy(), known[schema.TRUE_LABEL].to_numpy()


def given_labels(
    noise: Noise,
    truth: NDArray[np.int64],
    ids: NDArray[np.int64],
    num_classes: int,
    seed: int,
    features: NDArray[np.floating[Any]] | None = None,
) -> NDArray[np.int32]:
    """Given labels of an experiment (App. A), for any part of the instances.

    Args:
        noise: any kind but `given`.
        truth: int64 (N,), true labels.
        ids: int64 (N,).
        num_classes: C >= 2.
        seed: any integer.
        features: float (N, D), centered, where `noise.needs_features`; scaled here to length FEATURE_NORM. All rows at
            once where `noise.needs_sketch`; with `make_labels` it is done block by block.

    Returns:
        int32 (N,).

    Raises:
        ConfigError: the kind is `given`, or features are missing.
    """
    if noise.kind == GIVEN or (noise.needs_features and features is None):
        got = f"{noise} without features"
        raise ConfigError(expected_got("a noise that is made from true labels", got, "pass features, or another kind"))
    if features is None or not noise.needs_features:
        return make_labels(noise, truth, ids, num_classes, seed)
    seen = scaled_features(features)
    if noise.kind == HARD_ROWS:
        means = fitted_noise.ClassSums.of(seen, truth, num_classes).means()
        seen = fitted_noise.difficulty(seen, truth, means)
    elif noise.kind == WEAK_ANNOTATOR:
        seen = fitted_noise.glance(seen, seed)
    return make_labels(noise, truth, ids, num_classes, seed, seen)


def scaled_features(features: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Features that noise is made from. float (n, D), centered -> the same at length FEATURE_NORM, but for zeros."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    scaled: NDArray[np.floating[Any]] = features * (FEATURE_NORM / np.where(length > 0, length, 1.0))
    return scaled


def make_labels(
    noise: Noise, truth: NDArray[np.int64], ids: NDArray[np.int64], num_classes: int, seed: int, *seen: NDArray[Any]
) -> NDArray[np.int32]:
    """`given_labels` from what the kind sees: scaled features, a sketch of all instances, or nothing; int32 (N,).

    A sketch is (N, n), of `fitted_noise.difficulty` or `fitted_noise.glance`.
    """
    rate = noise.rates if noise.kind == _BY_CLASS else noise.rates[0]
    return _MAKERS[noise.kind](truth, ids, rate, num_classes, seed, *seen, *noise.classes)
