"""Rows that are read piece by piece, and how one process reads them. No Ray here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pyarrow as pa

from dynacor_ray.engine.runtime.tasks import map_threads

Read = Callable[[], Iterator[pa.Table]]
"""Reads one piece, small enough to be read whole."""


def chunk_order(count: int, passes: int) -> np.ndarray:
    """The order in which pieces are read where it is not that of the data. passes: how often they were read before."""
    return np.random.Generator(np.random.PCG64(passes)).permutation(count)


class LocalRows:
    """All rows, handed out in this process as Ray Data hands out a shard.

    shuffled: the pieces come in another order each time.
    """

    def __init__(self, reads: Sequence[Read], shuffled: bool) -> None:
        self._reads, self._shuffled, self._passes = list(reads), shuffled, 0

    def iter_batches(
        self, batch_size: int | None, batch_format: str = "pyarrow", prefetch_batches: int = 1
    ) -> Iterator[pa.Table]:
        """Tables of `batch_size` rows, the last with what is left; None: the pieces as they are."""
        tables = self._tables()
        return tables if batch_size is None else _cut(tables, batch_size)

    def _tables(self) -> Iterator[pa.Table]:
        reads = self._reads
        if self._shuffled:
            reads = [reads[index] for index in chunk_order(len(reads), self._passes)]
        self._passes += 1
        for tables in map_threads(lambda read: list(read()), reads):
            yield from tables


def _cut(tables: Iterator[pa.Table], size: int) -> Iterator[pa.Table]:
    kept, rows = list[pa.Table](), 0
    for table in tables:
        kept.append(table)
        rows += table.num_rows
        if rows >= size:
            joined = pa.concat_tables(kept)
            whole = rows - rows % size
            for start in range(0, whole, size):
                yield joined.slice(start, size).combine_chunks()
            kept, rows = [joined.slice(whole)], rows - whole
    if rows:
        yield pa.concat_tables(kept).combine_chunks()
