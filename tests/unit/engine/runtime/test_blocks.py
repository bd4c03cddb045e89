"""Blocks in memory: made when they are read, sorted across blocks."""

from __future__ import annotations

import pyarrow as pa
import pytest

from dynacor_ray.engine.runtime.blocks import blocks_of
from dynacor_ray.engine.runtime.tasks import Shared

TABLES = [pa.table({"a": [3, 1], "b": [0, 0]}), pa.table({"a": [2, 1], "b": [0, -1]})]


def test_blocks_are_mapped_each_time_they_are_read_unless_materialized() -> None:
    calls = []

    def add(block: pa.Table, amount: int) -> pa.Table:
        calls.append(block.num_rows)
        return block.set_column(0, "a", pa.array([value + amount for value in block["a"].to_pylist()]))

    mapped = blocks_of([Shared(table) for table in TABLES]).map(add, 10)
    assert calls == []
    for _ in range(2):
        assert [block["a"].to_pylist() for block in mapped] == [[13, 11], [12, 11]]
    assert len(calls) == 4
    made = mapped.materialize()
    assert [list(made), len(calls)] == [list(made), 6]


def test_rows_are_sorted_across_blocks() -> None:
    rows = pa.concat_tables(blocks_of([Shared(table) for table in TABLES]).sort(["a", "b"]))
    assert rows.to_pydict() == {"a": [1, 1, 2, 3], "b": [-1, 0, 0, 0]}


def test_what_fails_in_a_block_is_raised() -> None:
    def fail(block: pa.Table, _: None) -> pa.Table:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(blocks_of([Shared(TABLES[0])]).map(fail))
