"""Label noise by name, as an experiment asks for it (Kim et al., CVPR 2024, §5.1, App. A).

`given`, `symmetric:0.6`, `asymmetric:0.3` or `instance_dependent:0.4`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dynacor_ray.core import schema
from dynacor_ray.core.errors import ConfigError, DataError, expected_got
from dynacor_ray.ground_truth.synthetic_noise import asymmetric, instance_dependent, symmetric

GIVEN, INSTANCE_DEPENDENT = "given", "instance_dependent"
KINDS = (GIVEN, "symmetric", "asymmetric", INSTANCE_DEPENDENT)
FEATURE_NORM = 10.0
"""Length of the centered features that instance-dependent noise is drawn from; it decides how peaked the draw is."""


@dataclass(frozen=True)
class Noise:
    """A kind of noise and its rate.

    Attributes:
        kind: one of KINDS.
        rate: in [0, 1], None for the labels as given.
    """

    kind: str
    rate: float | None = None

    def __str__(self) -> str:
        return self.kind if self.rate is None else f"{self.kind}:{self.rate!r}"

    @property
    def needs_features(self) -> bool:
        """Whether `given_labels` needs features."""
        return self.kind == INSTANCE_DEPENDENT

    @property
    def made_from(self) -> str:
        """Origin of the labels, for a result to state: results on labels of different origin are not comparable."""
        if self.kind == GIVEN:
            return "the data's own labels"
        if self.needs_features:
            return f"true labels and encoder features, centered and scaled to length {FEATURE_NORM:g}"
        return "true labels; asymmetric: class i becomes (i + 1) mod C" if self.kind == "asymmetric" else "true labels"


def parse_noise(text: str) -> Noise:
    """Parse `given` or `KIND:RATE`. Raises ConfigError for anything else."""
    kind, _, rate = text.partition(":")
    example = "pass e.g. given, symmetric:0.6, asymmetric:0.3 or instance_dependent:0.4"
    if kind not in KINDS or (kind == GIVEN) != (rate == ""):
        raise ConfigError(expected_got(f"a noise kind among {', '.join(KINDS)}, with :RATE", repr(text), example))
    if kind == GIVEN:
        return Noise(GIVEN)
    try:
        value = float(rate)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 1.0:
        raise ConfigError(expected_got("a noise rate in [0, 1]", repr(text), example))
    return Noise(kind, value)


def true_labels(truth: pa.Table, num_rows: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ids in increasing order and their true labels, int64 (N,) each.

    Args:
        truth: `schema.truth_schema()`.
        num_rows: N.

    Raises:
        DataError: a true label is missing; noise is made from all of them.
    """
    known = truth.filter(truth[schema.TRUE_LABEL].is_valid())
    if known.num_rows != num_rows:
        got = f"{num_rows - known.num_rows:,} of {num_rows:,} without, or with a class that no label names"
        raise DataError(expected_got("a true label for every row to make noise from", got, "use --label-noise given"))
    ids, labels = known[schema.INSTANCE_ID].to_numpy(), known[schema.TRUE_LABEL].to_numpy()
    order = np.argsort(ids, kind="stable")
    return ids[order].astype(np.int64), labels[order].astype(np.int64)


def known_truth(truth: pa.Table) -> NDArray[np.int64]:
    """Ids whose true label is known, int64 (n,). truth: `schema.truth_schema()`."""
    ids: NDArray[np.int64] = truth.filter(truth[schema.TRUE_LABEL].is_valid())[schema.INSTANCE_ID].to_numpy()
    return ids


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
        features: float (N, D), centered, for instance-dependent noise; scaled here to length FEATURE_NORM.

    Returns:
        int32 (N,).

    Raises:
        ConfigError: the kind is `given`, or features are missing.
    """
    rate = noise.rate or 0.0
    if noise.kind == "symmetric":
        return symmetric(truth, ids, rate, num_classes, seed)
    if noise.kind == "asymmetric":
        return asymmetric(truth, ids, rate, num_classes, seed)
    if features is None or not noise.needs_features:
        got = f"{noise} without features"
        raise ConfigError(expected_got("a noise that is made from true labels", got, "pass features, or another kind"))
    length = np.linalg.norm(features, axis=1, keepdims=True)
    scaled = features * (FEATURE_NORM / np.where(length > 0, length, 1.0))
    return instance_dependent(truth, ids, rate, num_classes, seed, scaled)
