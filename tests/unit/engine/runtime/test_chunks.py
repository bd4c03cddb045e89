"""Rows in this process as Ray Data hands them out: pieces, or batches of one size, in another order each time."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest

from dynacor_ray.engine.runtime.chunks import LocalRows, chunk_order


def pieces(sizes: list[int]) -> LocalRows:
    ends = np.cumsum([0, *sizes])

    def read(piece: int) -> Iterator[pa.Table]:
        yield pa.table({"key": np.arange(ends[piece], ends[piece + 1])})

    return LocalRows([functools.partial(read, piece) for piece in range(len(sizes))], shuffled=False)


@pytest.mark.parametrize("size", [1, 4, 7, 100])
def test_batches_have_one_size_and_lose_no_row(size: int) -> None:
    tables = list(pieces([3, 0, 9, 1, 5]).iter_batches(size))
    assert [table.num_rows for table in tables] == [size] * (18 // size) + [18 % size] * (18 % size > 0)
    assert pa.concat_tables(tables)["key"].to_pylist() == list(range(18))
    assert [table.num_rows for table in pieces([3, 2]).iter_batches(None)] == [3, 2]


def test_pieces_are_shuffled_anew_each_time() -> None:
    reads = [functools.partial(iter, [pa.table({"key": [piece]})]) for piece in range(6)]
    rows = LocalRows(reads, shuffled=True)
    seen = [pa.concat_tables(rows.iter_batches(None))["key"].to_pylist() for _ in range(2)]
    assert seen == [chunk_order(6, passes).tolist() for passes in range(2)]
    assert seen[0] != seen[1]
