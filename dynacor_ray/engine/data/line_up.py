"""Bring the features of packed files into line: what that takes is read from a sample, far rows by a second pass."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add

import numpy as np
import pyarrow as pa

from dynacor_ray.core import schema
from dynacor_ray.core.errors import DataError, expected_got
from dynacor_ray.core.manifest import FeatureStats, LinedUpFeatures
from dynacor_ray.core.rng import Purpose, keyed_uniform
from dynacor_ray.core.robust_scaling import SAMPLE_ROWS, RobustScaling
from dynacor_ray.core.storage import Location, retry_transient
from dynacor_ray.engine.runtime.parallel_map import parallel_map
from dynacor_ray.engine.runtime.tasks import map_threads

EXAMPLES = 100
"""Most far rows that are named."""
DRIVER_FILES = 16
"""At most so many files are looked through in this process: a Ray pass would cost more."""
_BLOCK_BYTES = 16 << 20


def sample_of(ids: np.ndarray, features: np.ndarray, num_rows: int) -> np.ndarray:
    """The rows of a block that belong to the sample of about SAMPLE_ROWS of `num_rows`, whatever the blocks are.

    ids: int64 (n,); features: float32 (n, D).
    """
    chosen: np.ndarray = features[keyed_uniform(0, Purpose.FEATURE_SAMPLE, ids) < SAMPLE_ROWS / max(num_rows, 1)]
    return chosen


def line_up(
    files: Sequence[tuple[Location, FeatureStats, float]], sample: np.ndarray
) -> tuple[RobustScaling | None, LinedUpFeatures | None]:
    """What a sample says of the columns, and how the features must be brought into line.

    Args:
        files: Those with all features, the sums over each of them as it is, and how far its rows reach from their mean
            (`reach_of`): where none of them can be far, a file is not read again.
        sample: Rows of all files, float32 (n, D).

    Returns:
        None for an empty sample; None where no column needs scaling and no row is far.

    Raises:
        DataError: All rows are equal.
    """
    if not len(sample):
        return None, None
    scaling = RobustScaling.of(sample)
    whole = reduce(add, [stats for _, stats, _ in files])
    if len(scaling.constant_columns) == len(scaling.weights) and whole.count > 1 and whole.is_constant:
        raise equal_rows(whole.count)

    def measure(item: tuple[Location, FeatureStats]) -> tuple[FeatureStats, int, list[int]]:
        return _measure(*item, scaling)

    near = [stats for _, stats, reach in files if not scaling.may_be_far(stats.mean, reach)]
    doubtful = [(place, stats) for place, stats, reach in files if scaling.may_be_far(stats.mean, reach)]
    found = list((map_threads if len(doubtful) <= DRIVER_FILES else parallel_map)(measure, doubtful))
    found += [(stats, 0, []) for stats in near]
    far = sum(count for _, count, _ in found)
    if not far and not scaling.scales:
        return scaling, None
    examples = sorted(number for _, _, ids in found for number in ids)[:EXAMPLES]
    stats = reduce(add, sorted((one for one, _, _ in found), key=lambda one: (one.squares, one.count)))
    return scaling, LinedUpFeatures(scaling, stats, far, tuple(examples))


def equal_rows(count: int) -> DataError:
    """What is wrong with so many rows that are all equal."""
    remedy = "look at how the features were made, and at which columns were read"
    return DataError(
        expected_got("features that differ between the rows", f"the same numbers in all {count:,}", remedy)
    )


@retry_transient
def _measure(place: Location, plain: FeatureStats, scaling: RobustScaling) -> tuple[FeatureStats, int, list[int]]:
    """Sums of a file's vectors in line, how many were far, and ids of some of those."""
    with place.parquet() as file:
        by_key = schema.KEY in file.schema_arrow.names
        table = file.read([schema.KEY if by_key else schema.INSTANCE_ID, schema.FEATURE])
    features, number = schema.matrix(table[schema.FEATURE]), table[0].to_numpy()
    ids = number >> 1 if by_key else number
    step = max(1, _BLOCK_BYTES // (8 * features.shape[1]))
    blocks = [features[start : start + step] for start in range(0, len(features), step)]
    is_far = np.concatenate([scaling.distances(block) > scaling.limit for block in blocks] or [np.zeros(0, bool)])
    far = np.sort(ids[is_far])
    if not len(far) and not scaling.scales:
        return plain, 0, []
    return reduce(add, [FeatureStats.of(scaling.apply(block)) for block in blocks]), len(far), far[:EXAMPLES].tolist()


def in_line(block: pa.Table, lined_up: LinedUpFeatures | None) -> pa.Table:
    """The block with its column `feature` in line."""
    if lined_up is None:
        return block
    features = lined_up.scaling.apply(schema.matrix(block[schema.FEATURE]))
    return block.set_column(block.column_names.index(schema.FEATURE), schema.FEATURE, schema.feature_column(features))


def feature_warnings(
    scaling: RobustScaling | None, lined_up: LinedUpFeatures | None, num_rows: int, names: Sequence[str] = ()
) -> list[str]:
    """Sentences about columns in other units, columns without information, and far rows.

    names: Of the columns; without them they go by number, from 0.
    """
    if scaling is None:
        return []
    sentences, columns = [], len(scaling.weights)
    undone = "; --variant uses them as they are"
    if scaling.mixed:
        sentences.append(f"The {columns:,} feature columns are in different units: all are scaled to one{undone}.")
    elif scaling.far_columns:
        sentences.append(
            f"{len(scaling.far_columns):,} of {columns:,} feature columns are in other units than the rest, such as a "
            f"time or a row number, and are scaled to theirs{undone}: {_listed(_columns(scaling.far_columns, names))}."
        )
    if scaling.constant_columns and num_rows > 1:
        shown = _listed(_columns(scaling.constant_columns, names))
        sentences.append(
            f"{len(scaling.constant_columns):,} of {columns:,} feature columns have the same value in "
            f"{'all rows' if num_rows <= SAMPLE_ROWS else 'a sample of the rows'}: {shown}."
        )
    if lined_up is not None and lined_up.far_rows:
        sentences.append(
            f"{lined_up.far_rows:,} of {num_rows:,} feature vectors are far from all others and are moved closer"
            f"{undone}; look at instance_id {_listed(lined_up.far_examples, lined_up.far_rows)}."
        )
    return sentences


def _columns(numbers: Sequence[int], names: Sequence[str]) -> list[str]:
    return [repr(names[number]) if names else str(number) for number in numbers]


def _listed(numbers: Sequence[int | str], count: int | None = None, most: int = 10) -> str:
    more = (len(numbers) if count is None else count) - most
    return ", ".join(map(str, numbers[:most])) + (f" and {more:,} more" if more > 0 else "")
