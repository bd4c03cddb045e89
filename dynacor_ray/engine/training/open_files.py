"""Parquet files that are read range by range, each opened once: the opening costs more than a range of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dynacor_ray.core.storage import Location, retry_transient, storage_errors

MOST_OPEN = 800
"""Files that are kept open; further ones are opened for each range. Systems allow a process 1,024 or more."""

ReadBetween = Callable[[Location, list[str], int, int], pa.Table]
"""Rows of a parquet file whose first column of those named is in low..high: (place, columns, low, high)."""


@dataclass(frozen=True)
class _Opened:
    file: pq.ParquetFile
    bounds: list[tuple[int, int]]
    """Least and largest value of each row group."""


class _OpenFiles:
    def __init__(self, stack: ExitStack) -> None:
        self._stack, self._open = stack, dict[str, _Opened]()

    @retry_transient
    def read(self, place: Location, columns: list[str], low: int, high: int) -> pa.Table:
        with storage_errors("read", place):
            try:
                opened = self._opened(place, columns[0])
                here = [i for i, (first, last) in enumerate(opened.bounds) if first <= high and last >= low]
                table = opened.file.read_row_groups(here, columns).select(columns)
            except OSError:
                self._open.pop(place.path, None)  # another attempt opens it anew
                raise
        inside = (pc.field(columns[0]) >= low) & (pc.field(columns[0]) <= high)
        return table.filter(inside)

    def _opened(self, place: Location, column: str) -> _Opened:
        known = self._open.get(place.path)
        if known is not None:
            return known
        file = pq.ParquetFile(place.path, filesystem=place.fresh)
        opened = _Opened(file, _bounds(file.metadata, column))
        if len(self._open) < MOST_OPEN:
            self._stack.enter_context(file)
            self._open[place.path] = opened
        return opened


@contextmanager
def open_files() -> Iterator[ReadBetween]:
    """Reads rows of files, and keeps the files open until the end of the block.

    Raises StorageError for a file that cannot be read.
    """
    with ExitStack() as stack:
        yield _OpenFiles(stack).read


def _bounds(metadata: pq.FileMetaData, column: str) -> list[tuple[int, int]]:
    at = metadata.schema.names.index(column)
    groups = [metadata.row_group(i).column(at).statistics for i in range(metadata.num_row_groups)]
    return [(one.min, one.max) for one in groups]
