"""Corrupted copies with labels known to be wrong (Kim et al., CVPR 2024, §4.2; Proposition 1, Eq. 12-14).

Membership and the new label are pure functions of (seed, instance_id). The set is therefore the same for any order of
rows, block layout or number of workers, and the set for a small gamma is contained in the set for a larger one.

Deviations from the paper:

- The paper draws exactly `gamma * N` instances. Here each instance is drawn independently, so N need not be known
  and the share is `gamma` in expectation.
- `copy_pool = 0.9` gives the released code's behavior: copies come only from a fixed 90% of the data.
- The engine, not this module, augments the copy's payload.

Cost: none of its own; applied on the fly in the pass that reads the data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dynacor_ray.core import schema
from dynacor_ray.core.errors import ConfigError, DataError, expected_got, require_two_classes
from dynacor_ray.core.rng import Purpose, keyed_choice, keyed_uniform

LABEL = "label"
"""Column of the label to train on: the given label of an original, the corrupted label of a copy."""


@dataclass(frozen=True, kw_only=True)
class CorruptionConfig:
    """Which instances get a corrupted copy (§4.2).

    Attributes:
        gamma: expected share of instances with a copy, in (0, 1].
        seed: any integer; identifies the random set.
        copy_pool: share of the data that copies may come from, in [gamma, 1]; 1 in the paper, 0.9 in the released code.
    """

    gamma: float = 0.1
    seed: int = 0
    copy_pool: float = 1.0


def is_selected(ids: NDArray[np.int64], config: CorruptionConfig) -> NDArray[np.bool_]:
    """Which instances get a corrupted copy (§4.2); nested in gamma.

    With `copy_pool < 1` the pool is drawn by a stream of its own, and membership is thinned inside it so that the
    overall share stays gamma.

    Args:
        ids: int64 (N,).
        config: gamma, seed and pool.

    Returns:
        bool (N,).
    """
    member = keyed_uniform(config.seed, Purpose.CORRUPTION_MEMBER, ids) < config.gamma / config.copy_pool
    if config.copy_pool == 1.0:
        return member
    in_pool: NDArray[np.bool_] = keyed_uniform(config.seed, Purpose.COPY_POOL, ids) < config.copy_pool
    return member & in_pool


def corrupted_label(
    given: NDArray[np.integer[Any]], ids: NDArray[np.int64], num_classes: int, seed: int
) -> NDArray[np.int32]:
    """A label drawn uniformly from the other C-1 classes, per instance (§4.2).

    Args:
        given: integers (N,) in 0..C-1.
        ids: int64 (N,).
        num_classes: C >= 2.
        seed: seed of the corruption.

    Returns:
        int32 (N,), never equal to `given`.

    Raises:
        ConfigError: C < 2.
        DataError: a label out of range.
    """
    require_two_classes(num_classes)
    given = np.asarray(given, dtype=np.int64)
    invalid = np.flatnonzero((given < 0) | (given >= num_classes))
    if invalid.size:
        got = f"label {given[invalid[0]]} of instance {ids[invalid[0]]}"
        remedy = "encode the labels, or correct num_classes"
        raise DataError(expected_got(f"labels in 0..{num_classes - 1}", got, remedy))
    step = 1 + keyed_choice(seed, Purpose.CORRUPTION_LABEL, ids, num_classes - 1)
    return ((given + step) % num_classes).astype(np.int32)


def corrupt(table: pa.Table, config: CorruptionConfig, num_classes: int) -> pa.Table:
    """Training rows of one block: every original, then the corrupted copies of its selected instances (§4.2).

    Applied to blocks of any size it gives the same set of rows.

    Args:
        table: N rows with `instance_id`, `given_label` and any payload columns.
        config: which instances to copy.
        num_classes: C >= 2.

    Returns:
        `key` int64, `label` int32 and the payload columns in their order: the N originals in the order given, then the
        copies in the same order.

    Raises:
        DataError: an instance_id has no key.
    """
    ids = table[schema.INSTANCE_ID].to_numpy().astype(np.int64)
    if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) <= schema.MAX_INSTANCE_ID:
        got = f"a range of {ids.min()}..{ids.max()}"
        raise DataError(expected_got(f"instance_id in 0..{schema.MAX_INSTANCE_ID}", got, "number the instances from 0"))
    given = table[schema.GIVEN_LABEL].to_numpy().astype(np.int32)
    selected = is_selected(ids, config)
    payload = table.drop_columns([schema.INSTANCE_ID, schema.GIVEN_LABEL])
    originals = _rows(schema.encode_key(ids, False), given, payload)
    label = corrupted_label(given[selected], ids[selected], num_classes, config.seed)
    # filter, not take: take joins the chunks of a binary column first, which fails beyond 2 GiB of images
    copies = _rows(schema.encode_key(ids[selected], True), label, payload.filter(pa.array(selected)))
    return pa.concat_tables([originals, copies])


def expected_noise_rates(eta: float, gamma: float, num_classes: int) -> tuple[float, float]:
    """Noise rate of the corrupted set, `1 - eta/(C-1)` (Eq. 12, 13), and of both sets together (Eq. 14).

    Args:
        eta: noise rate of the given labels, in [0, 1].
        gamma: copies per original, in (0, 1].
        num_classes: C >= 2.

    Returns:
        Two floats in [0, 1].

    Raises:
        ConfigError: a value out of range.

    >>> expected_noise_rates(eta=0.2, gamma=0.5, num_classes=5)
    (0.95, 0.45)
    """
    if not 0.0 <= eta <= 1.0:
        raise ConfigError(expected_got("a noise rate in [0, 1]", repr(eta), "pass a share, not a percentage"))
    require_two_classes(num_classes)
    corrupted = 1.0 - eta / (num_classes - 1)
    return corrupted, (eta + gamma * corrupted) / (1.0 + gamma)


def _rows(key: NDArray[np.int64], label: NDArray[np.int32], payload: pa.Table) -> pa.Table:
    fields = [pa.field(schema.KEY, pa.int64()), pa.field(LABEL, pa.int32()), *payload.schema]
    columns = [pa.array(key), pa.array(label), *payload.columns]
    return pa.Table.from_arrays(columns, schema=pa.schema(fields, metadata=payload.schema.metadata))
