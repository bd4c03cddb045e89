"""A data set of Ray Data as a table: its tasks write the columns in use as files, from which it is packed."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dynacor_ray.core.errors import DataError, StorageError, expected_got
from dynacor_ray.core.hashing import digest
from dynacor_ray.core.storage import Location, retry_transient
from dynacor_ray.engine.data.find_duplicates import row_hashes
from dynacor_ray.engine.runtime.blocks import tables_of
from dynacor_ray.engine.runtime.parallel_map import one_column, results
from dynacor_ray.engine.runtime.session import silence_ray
from dynacor_ray.sources.column_types import plain, without_dictionary
from dynacor_ray.sources.frames import Rows, StoredTable
from dynacor_ray.sources.in_memory import encoded

_BASE = np.uint64(0x9E3779B97F4A7C15)
"""An odd number, so that no power of it is lost to the 64 bits."""
_GROUP_ROWS = 512


def is_ray_data(data: Any) -> bool:
    """Whether data are a data set of Ray Data."""
    return type(data).__module__.startswith("ray.data") and hasattr(data, "map_batches")


@dataclass(frozen=True)
class StagedFile:
    """Rows that one task wrote.

    Attributes:
        name: The file.
        rows: How many.
        hashes: `rows_hash` of them.
    """

    name: str
    rows: int
    hashes: tuple[int, int]


@dataclass(frozen=True)
class StagedRows(Rows):
    """Rows in files, one after the other."""

    folder: Location
    files: tuple[StagedFile, ...]
    first: int
    num_rows: int

    def load(self, names: list[str]) -> pa.Table:
        """See `Rows.load`."""
        tables, start = [], 0
        for file in self.files:
            first, last = max(self.first - start, 0), min(self.first + self.num_rows - start, file.rows)
            if first < last:
                tables.append(_window(self.folder / file.name, names, first, last))
            start += file.rows
        return pa.concat_tables(tables, promote_options="permissive")

    def cut(self, first: int, count: int) -> StagedRows:
        """See `Rows.cut`. Keeps the files that have some of them."""
        first, start, skipped = self.first + first, 0, 0
        kept = list[StagedFile]()
        for file in self.files:
            if start + file.rows > first and start < first + count:
                kept.append(file)
            elif not kept:
                skipped += file.rows
            start += file.rows
        return StagedRows(self.folder, tuple(kept), first - skipped, count)

    def fingerprint(self) -> str:
        """Hex digest of the rows in their order, whatever the blocks that they came in."""
        return digest(["rows", self.num_rows, joined_hashes([(file.rows, file.hashes) for file in self.files])])


@retry_transient
def _window(place: Location, names: list[str], first: int, last: int) -> pa.Table:
    """Rows first .. last - 1 of a file."""
    with place.parquet() as file:
        groups = range(first // _GROUP_ROWS, -(-last // _GROUP_ROWS))
        table = file.read_row_groups(list(groups), columns=names)
    return table.slice(first - groups[0] * _GROUP_ROWS, last - first)


class RayTable(StoredTable):
    """A data set of Ray Data. Its rows are never in the driver; see `staged`."""

    add_column = "dataset.zip(labels)"

    def __init__(self, dataset: Any, folder: Location) -> None:
        """Look at the first row. Raises DataError when there is none."""
        self._dataset, self._folder = dataset, folder
        first = next(tables_of(dataset.limit(1)), None)
        if first is None:
            raise DataError(expected_got("labeled rows", "0 rows", "check how the data set was made"))
        self.schema = _plain_table(first).schema

    def rows(self, names: list[str]) -> StagedRows:
        """See `StoredTable.rows`. Runs the data set once, in its own order.

        Raises StorageError when this process does not see what the tasks wrote.
        """
        folder = self._folder.make_dir()

        def write(block: pa.Table) -> pa.Table:
            return one_column([_write(block, names, folder)] if block.num_rows else [])

        with _ordered(self._dataset) as dataset:
            files = tuple(results(dataset.map_batches(write, batch_format="pyarrow", batch_size=None)))
        if not {file.name for file in files} <= set(folder.names()):
            got = f"{folder}, which is another folder on each"
            raise StorageError(expected_got("a folder that all nodes see", got, "name one on NFS or s3:// by cache="))
        return StagedRows(folder, files, 0, sum(file.rows for file in files))


@contextmanager
def staged(dataset: Any, folder: Location) -> Iterator[RayTable]:
    """A data set as a table for the time of the block; its files in `folder` are removed at the end."""
    silence_ray()
    try:
        yield RayTable(dataset, folder)
    finally:
        folder.delete()


@contextmanager
def _ordered(dataset: Any) -> Iterator[Any]:
    """The data set, which gives its blocks in order for a while."""
    options = dataset.context.execution_options
    before, options.preserve_order = options.preserve_order, True
    try:
        yield dataset
    finally:
        options.preserve_order = before


def _write(block: pa.Table, names: list[str], folder: Location) -> StagedFile:
    absent = [name for name in names if name not in block.column_names]
    if absent:
        got = f"a block without {', '.join(absent)}"
        raise DataError(expected_got("the columns of the first row in every block", got, "make them alike"))
    rows, name = _plain_table(block.select(names)), f"{uuid.uuid4().hex}.parquet"
    (folder / name).write_table(rows, row_group_size=_GROUP_ROWS, compression="none", use_dictionary=False)
    return StagedFile(name, rows.num_rows, rows_hash(rows))


def _plain_table(block: pa.Table) -> pa.Table:
    """The block without extension types: pictures as image files, other tensors as lists of numbers."""
    columns = {}
    for name in block.column_names:
        column = block[name]
        columns[name] = _images(column) if _are_pictures(column.type) else plain(column)
    return pa.table(columns)


def _are_pictures(kind: pa.DataType) -> bool:
    """Whether values are tensors uint8 of two or three dimensions, of one size or several."""
    if not hasattr(kind, "shape") or not isinstance(kind, pa.BaseExtensionType):
        return False
    inner = kind.storage_type.field("data").type if pa.types.is_struct(kind.storage_type) else kind.storage_type
    return len(kind.shape) in (2, 3) and bool(pa.types.is_uint8(inner.value_type))


def _images(column: pa.ChunkedArray[Any]) -> pa.ChunkedArray[Any]:
    items = [encoded(np.asarray(item))[0] for chunk in column.chunks for item in chunk.to_numpy(zero_copy_only=False)]
    return pa.chunked_array([pa.array(items, pa.binary())])


def rows_hash(rows: pa.Table) -> tuple[int, int]:
    """Hash of rows in their order: sum of h(row) b^(n - 1 - place) modulo 2^64, for both halves of 128-bit h.

    Hashes of two tables give that of one after the other (`joined_hashes`), so that blocks do not count.
    """
    columns = [_cells(rows[name]) for name in rows.column_names]
    lines = [b"".join(len(cell).to_bytes(8, "little") + cell for cell in cells) for cells in zip(*columns, strict=True)]
    hashes = row_hashes(lines)
    powers = np.full(len(hashes), _BASE)
    powers[:1] = 1
    with np.errstate(over="ignore"):
        high, low = (hashes * np.cumprod(powers)[::-1, None]).sum(axis=0, dtype=np.uint64).tolist()
    return high, low


def joined_hashes(parts: Sequence[tuple[int, tuple[int, int]]]) -> tuple[int, int]:
    """`rows_hash` of tables one after the other, by their numbers of rows and own hashes."""
    high = low = 0
    for count, (more_high, more_low) in parts:
        factor = pow(int(_BASE), count, 1 << 64)
        high, low = (high * factor + more_high) % (1 << 64), (low * factor + more_low) % (1 << 64)
    return high, low


def _cells(column: pa.ChunkedArray[Any]) -> list[bytes]:
    """What stands in each row, as bytes that differ where the values do; b"" for null."""
    kind = column.type
    if pa.types.is_struct(kind):
        parts = [_cells(pc.struct_field(column, place)) for place in range(kind.num_fields)]
        return [b"\0".join(cells) for cells in zip(*parts, strict=True)]
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return [value or b"" for value in column.to_pylist()]
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return [cell for chunk in column.chunks for cell in _list_cells(chunk)]
    return [b"" if value is None else str(value).encode() for value in without_dictionary(column).to_pylist()]


def _list_cells(chunk: pa.Array[Any]) -> Iterator[bytes]:
    values = chunk.flatten()
    ends = np.cumsum(pc.fill_null(pc.list_value_length(chunk), 0).to_numpy(zero_copy_only=False)).tolist()
    numbers = values.to_numpy(zero_copy_only=False) if pa.types.is_primitive(values.type) else None
    start = 0
    for end in ends:
        yield numbers[start:end].tobytes() if numbers is not None else repr(values[start:end].to_pylist()).encode()
        start = end
