"""Files of rows that are read piece by piece: parquet, and Arrow as `save_to_disk` writes it."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.ipc as ipc
import pyarrow.parquet as pq

from dynacor_ray.core.errors import DataError, expected_got, first_line
from dynacor_ray.core.storage import Location, is_damage, retry_transient, storage_errors
from dynacor_ray.sources.arrow_messages import largest_batch
from dynacor_ray.sources.image_files import LFS_REMEDY, file_stamp, is_pointer
from dynacor_ray.sources.piece_memory import wait_for_turn

ARROW = (".arrow", ".feather")
ROW_FILES = (".parquet", *ARROW)
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
_BUFFER_BYTES = 8 << 20
_BATCH_BYTES, _MOST_UNPACKED = 256 << 20, 1 << 30
MAX_COLUMNS = 100_000
_FEW_ROWS, _ROWS_PER_BYTE = 10_000_000, 16
"""Beyond both, the rows cannot hold an image, a path or a vector each."""
_PLAUSIBLE_RATIO = 8
"""Encoded images and features do not compress by more than this factor."""
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8}
"""Bytes of a number by its type in a parquet file."""


def is_row_file(name: str) -> bool:
    """Whether a file of this name holds rows, in either case."""
    return name.lower().endswith(ROW_FILES)


@dataclass(frozen=True)
class RowReader(ABC):
    """Reads some groups of rows of one file; picklable.

    Attributes:
        place: the file.
        name: its name in uris and messages.
        groups: numbers of the groups that are read.
    """

    place: Location
    name: str
    groups: tuple[int, ...] = ()

    def only(self, groups: tuple[int, ...]) -> RowReader:
        """The reader of some groups."""
        return replace(self, groups=groups)

    def batches_of_all(self, groups: int, columns: list[str], max_rows: int) -> Generator[pa.RecordBatch, None, None]:
        """The rows of the whole file, which has so many groups."""
        return self.only(tuple(range(groups))).batches(columns, max_rows)

    @abstractmethod
    def batches(self, columns: list[str], max_rows: int) -> Generator[pa.RecordBatch, None, None]:
        """The rows of the groups in order, in batches of about `max_rows` at most."""


@dataclass(frozen=True)
class RowFile:
    """What is known of one file without reading its data.

    Attributes:
        reader: reads it.
        schema: columns.
        group_rows: rows per group.
        stamp: name, size and time of change.
        notes: what was taken for what in it.
    """

    reader: RowReader
    schema: pa.Schema
    group_rows: tuple[int, ...]
    stamp: tuple[Any, ...]
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Its name in uris and messages."""
        return self.reader.name

    @property
    def place(self) -> Location:
        """Where it is."""
        return self.reader.place

    @property
    def num_rows(self) -> int:
        """Rows of all groups."""
        return sum(self.group_rows)

    def read(self, columns: list[str]) -> pa.Table:
        """Some columns of all rows."""
        return self._table(columns, self.reader.batches_of_all(len(self.group_rows), columns, 1 << 16))

    def head(self, columns: list[str], count: int) -> pa.Table:
        """Some columns of about the first rows."""
        with closing(self.reader.batches_of_all(len(self.group_rows), columns, count)) as batches:
            return self._table(columns, itertools.islice(batches, 1))

    def _table(self, columns: list[str], batches: Iterable[pa.RecordBatch]) -> pa.Table:
        schema = pa.schema([self.schema.field(name) for name in columns])
        return pa.Table.from_batches([batch.select(columns) for batch in batches], schema)


@retry_transient
def open_row_file(name: str, place: Location, info: pafs.FileInfo) -> RowFile:
    """Open a parquet or Arrow file by its ending. Raises DataError when it cannot be read."""
    stamp = tuple(file_stamp(name, info))
    if name.lower().endswith(ARROW):
        with _arrow(place, name, check=True) as (schema, batches, unpacked):
            rows = tuple(batch.num_rows for batch in batches)
        return _with_hive_columns(RowFile(ArrowRows(place, name, unpacked=unpacked), schema, rows, stamp))
    with _parquet(place, name) as file:
        if file.metadata.num_columns > MAX_COLUMNS:
            got = f"{file.metadata.num_columns:,}"
            raise DataError(expected_got(f"at most {MAX_COLUMNS:,} columns in {name}", got, "leave others out"))
        groups = tuple(file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups))
        if sum(groups) > max(_FEW_ROWS, _ROWS_PER_BYTE * (info.size or 0)):
            got, remedy = f"{sum(groups):,} in {info.size:,} bytes", "check where it is from: nearly all must be alike"
            raise DataError(expected_got(f"rows that differ in {name}", got, remedy))
        return _with_hive_columns(RowFile(ParquetRows(place, name), file.schema_arrow, groups, stamp))


def _with_hive_columns(file: RowFile) -> RowFile:
    """The file with the columns that its folders hold, as in `label=cat/part-0.parquet`."""
    parts = [part.split("=", 1) for part in file.name.split("/")[:-1] if "=" in part]
    known = {key: None if value == _HIVE_NULL else unquote(value) for key, value in parts}
    values = {key: value for key, value in known.items() if key not in file.schema.names}
    if not values or not file.schema.names:
        return file
    schema = file.schema
    for key in values:
        schema = schema.append(pa.field(key, pa.string()))
    reader = HiveRows(
        place=file.place,
        name=file.name,
        inner=file.reader,
        values=tuple(values.items()),
        any_column=file.schema.names[0],
    )
    return replace(file, reader=reader, schema=schema)


@dataclass(frozen=True, kw_only=True)
class HiveRows(RowReader):
    """Rows with columns that have one value in the whole file.

    Attributes:
        inner: reads the columns of the file itself.
        values: the others.
        any_column: one of the file, to count rows by.
    """

    inner: RowReader
    values: tuple[tuple[str, str | None], ...]
    any_column: str

    def only(self, groups: tuple[int, ...]) -> RowReader:
        """See `RowReader.only`."""
        return replace(self, groups=groups, inner=self.inner.only(groups))

    def batches(self, columns: list[str], max_rows: int) -> Generator[pa.RecordBatch, None, None]:
        """See `RowReader.batches`."""
        values = dict(self.values)
        own = [name for name in columns if name not in values] or [self.any_column]
        for batch in self.inner.batches(own, max_rows):
            fixed = {name: pa.array([value] * batch.num_rows, pa.string()) for name, value in self.values}
            arrays = [fixed[name] if name in values else batch.column(name) for name in columns]
            yield pa.RecordBatch.from_arrays(arrays, names=columns)


@dataclass(frozen=True)
class ParquetRows(RowReader):
    """Row groups of a parquet file."""

    def batches(self, columns: list[str], max_rows: int) -> Generator[pa.RecordBatch, None, None]:
        """See `RowReader.batches`."""
        with _parquet(self.place, self.name) as file:
            for group in self.groups:  # raises where the group is damaged; asked for its columns, Arrow aborts
                next(file.iter_batches(1, row_groups=[group], columns=columns), None)
            count = min(max_rows, _safe_rows(file, self.groups, columns))
            yield from file.iter_batches(count, row_groups=list(self.groups), columns=columns)


def _numbers(kind: pa.DataType) -> int | None:
    """How many numbers each row of a column has, where its type says so."""
    if pa.types.is_fixed_size_list(kind):
        return int(kind.list_size)
    return 1 if pa.types.is_primitive(kind) else None


def _safe_rows(file: pq.ParquetFile, row_groups: tuple[int, ...], names: list[str]) -> int:
    """Rows of a batch that stay within `_BATCH_BYTES`, where a dictionary may repeat a huge value at no cost."""
    largest, metadata = 1, file.metadata
    lengths = {field.name: _numbers(field.type) for field in file.schema_arrow}
    leaves = [leaf for leaf in range(metadata.num_columns) if metadata.schema.column(leaf).path.split(".")[0] in names]
    for group in map(metadata.row_group, row_groups):
        for chunk in map(group.column, leaves):
            width, length = _WIDTHS.get(chunk.physical_type), lengths.get(chunk.path_in_schema.split(".")[0])
            if width and length and chunk.num_values == length * group.num_rows:
                largest = max(largest, width * length)
            elif chunk.has_dictionary_page:
                packed, plain = chunk.total_compressed_size, chunk.total_uncompressed_size
                is_bomb = plain > _PLAUSIBLE_RATIO * packed
                dictionary = max(chunk.data_page_offset - (chunk.dictionary_page_offset or 0), 0)
                largest = max(largest, plain if is_bomb else _PLAUSIBLE_RATIO * min(dictionary, packed))
    return max(1, _BATCH_BYTES // largest)


@contextmanager
def _parquet(place: Location, name: str) -> Iterator[pq.ParquetFile]:
    """An open parquet file; errors of reading it become a DataError or StorageError that names it."""
    with storage_errors("read", place):
        try:
            options = {"buffer_size": _BUFFER_BYTES, "pre_buffer": False}
            with pq.ParquetFile(place.path, filesystem=place.filesystem, **options) as file:
                yield file
        except DataError:
            raise
        except (pa.ArrowException, ValueError, OSError) as error:  # a custom type may refuse its description
            if isinstance(error, OSError) and not is_damage(error, place):
                raise
            raise _unreadable(place, name, "parquet", error) from error


def _unreadable(place: Location, name: str, kind: str, error: Exception) -> DataError:
    got, remedy = f"'{first_line(error)}'", "write the file again"
    if (place.info().size or 0) < 1024 and is_pointer(place.read_bytes()):
        got, remedy = "a pointer of Git LFS, not the file", LFS_REMEDY
    return DataError(expected_got(f"{name} to be a readable {kind} file", got, remedy))


@dataclass(frozen=True)
class ArrowRows(RowReader):
    """Record batches of an Arrow stream or file; local ones are mapped into memory, so that skipping is free.

    Attributes:
        unpacked: most bytes that a packed batch becomes; 0 where none is packed.
    """

    unpacked: int = 0

    def batches(self, columns: list[str], max_rows: int) -> Generator[pa.RecordBatch, None, None]:
        """See `RowReader.batches`."""
        wanted = set(self.groups)
        wait_for_turn(self.unpacked)
        with _arrow(self.place, self.name) as (_, batches, _):
            for number, batch in enumerate(batches):
                if number in wanted:
                    rows = batch.select(columns)
                    rows.validate(full=True)  # Arrow trusts the offsets in a file
                    yield from (rows.slice(start, max_rows) for start in range(0, rows.num_rows, max_rows))
                if number >= max(wanted, default=-1):
                    return


@contextmanager
def _arrow(
    place: Location, name: str, check: bool = False
) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch], int]]:
    """Schema and batches of a file in either form, and the most bytes that one takes once it is unpacked.

    check: whether that is looked for, and refused where it fits no memory; else it is 0.
    """
    with storage_errors("read", place):
        try:
            source = pa.memory_map(place.path) if place.is_local else place.filesystem.open_input_file(place.path)
            with source:
                size = largest_batch(source) if check else 0
                if size > _MOST_UNPACKED:
                    got, remedy = f"one of {size >> 20:,} MiB", "write it in smaller batches"
                    raise DataError(expected_got(f"batches of {name} that fit into memory", got, remedy))
                source.seek(0)
                is_file = source.read(6) == b"ARROW1"
                source.seek(0)
                if is_file:
                    file = ipc.open_file(source)
                    yield file.schema, map(file.get_batch, range(file.num_record_batches)), size
                else:
                    stream = ipc.open_stream(source)
                    yield stream.schema, iter(stream), size
        except DataError:
            raise
        except (pa.ArrowException, ValueError, OSError) as error:
            if isinstance(error, OSError) and not is_damage(error, place):
                raise
            raise _unreadable(place, name, "Arrow", error) from error
