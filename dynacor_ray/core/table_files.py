"""Tables in one parquet file, or, when large, in a folder of several with the name of the file: `issues/`, `dynamics/`.

An object store puts a file in place by a copy, and copies at most 5 GB at once. A folder counts once its list names the
files; those of an attempt that died are in no list, and are removed by the next one.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dynacor_ray.core.errors import StorageError, expected_got
from dynacor_ray.core.storage import Location, retry_transient, storage_errors

MOST_BYTES = 4 << 30
"""Size from which a file is followed by another one."""
BATCH = 65_536
"""Rows of a batch that is read, unless another number is asked for."""
LIST = "_parts.json"
"""The files of a folder, in order. Readers of a whole folder, such as pandas, pass over such a name."""
_ROWS = 1 << 20
"""Rows that are written at once: those of a row group."""
_STREAMS = 16
_NAME = re.compile(r"\d{5}-[0-9a-f]{8}\.parquet")


def table_files(place: Location) -> list[Location]:
    """The files of a table, in order: `place` itself, or those in the folder.

    Raises:
        StorageError: the list is damaged.
    """
    folder = _folder(place)
    if place.exists() or not (folder / LIST).exists():
        return [place]
    held = (folder / LIST).read_json()
    names = held.get("files") if isinstance(held, dict) else None
    if not isinstance(names, list) or not names or not all(_NAME.fullmatch(str(name)) for name in names):
        raise StorageError(expected_got(f"names of files in {folder / LIST}", "something else", "make the run again"))
    return [folder / name for name in names]


def has_table(place: Location) -> bool:
    """Whether a table is there in either form."""
    return place.exists() or (_folder(place) / LIST).exists()


def read_files(files: Sequence[Location], columns: list[str] | None = None) -> pa.Table:
    """The rows of several files with the same columns, read in parallel streams, in the order of the files."""
    with ThreadPoolExecutor(_STREAMS) as pool:
        return pa.concat_tables(pool.map(lambda file: file.read_table(columns), files))


def read_rows(place: Location, columns: list[str] | None = None) -> pa.Table:
    """All rows of a table, or some of its columns."""
    return read_files(table_files(place), columns)


def first_rows(place: Location, count: int) -> pa.Table:
    """The first `count` rows; no more than one file is read."""
    return table_files(place)[0].head(count)


@retry_transient
def columns_of(place: Location) -> pa.Schema:
    """Names and types of the columns."""
    with table_files(place)[0].parquet() as file:
        return file.schema_arrow


def batches(
    place: Location, columns: list[str] | None = None, size: int | None = None
) -> Iterator[tuple[int, pa.Table]]:
    """Batches of a table with the number of their first row."""
    first = 0
    for one in table_files(place):
        with one.parquet() as file:
            for batch in file.iter_batches(size or BATCH, columns=columns):
                yield first, pa.Table.from_batches([batch])
                first += batch.num_rows


@retry_transient
def rows_at(place: Location, places: NDArray[np.int64], columns: list[str] | None = None) -> pa.Table:
    """The rows at some positions, increasing; row groups without any are not read."""
    first, tables = 0, list[pa.Table]()
    for one in table_files(place):
        with one.parquet() as file:
            known = file.schema_arrow
            tables.append((known if columns is None else pa.schema([known.field(n) for n in columns])).empty_table())
            for index in range(file.num_row_groups):
                last = first + file.metadata.row_group(index).num_rows
                here = places[(places >= first) & (places < last)] - first
                if len(here):
                    tables.append(file.read_row_group(index, columns=columns).take(pa.array(here)))
                first = last
    return pa.concat_tables(tables)


@retry_transient
def write_rows(place: Location, wanted: pa.Schema, tables: Iterable[pa.Table]) -> None:
    """Write a table, whole or not at all; what was there before, in either form, is gone.

    Args:
        place: the file; its folder, where there is more than `MOST_BYTES`.
        wanted: the columns that are taken from each table, and their types.
        tables: the rows, one table at a time; can be read again where storage fails for a moment.
    """
    folder, attempt, names = _folder(place), uuid.uuid4().hex[:8], list[str]()
    rest = _slices(tables, wanted)
    coming = next(rest, None)
    with storage_errors("write", place):
        while coming is not None or not names:
            with place.temporary() as part:
                coming = _fill(part, wanted, coming, rest)
                if coming is None and not names:
                    (folder / LIST).delete()
                    part.move_to(place)
                    folder.delete()
                    return
                names.append(f"{len(names):05d}-{attempt}.parquet")
                part.move_to(folder / names[-1])
    place.delete()
    (folder / LIST).write_json({"files": names})
    for name in set(folder.names()) - {LIST, *names}:
        (folder / name).delete()


def _fill(part: Location, wanted: pa.Schema, coming: pa.Table | None, rest: Iterator[pa.Table]) -> pa.Table | None:
    """Write `coming` and more to a file until it is large; returns what is for the next one, None at the end."""
    with (
        part.filesystem.open_output_stream(part.path) as stream,
        pq.ParquetWriter(stream, wanted) as writer,
    ):
        while coming is not None:
            writer.write_table(coming)
            coming = next(rest, None)
            if stream.tell() > MOST_BYTES:
                break
    return coming


def _slices(tables: Iterable[pa.Table], wanted: pa.Schema) -> Iterator[pa.Table]:
    for table in tables:
        chosen = table.select(wanted.names).cast(wanted)
        yield from (chosen.slice(start, _ROWS) for start in range(0, len(chosen), _ROWS))


def _folder(place: Location) -> Location:
    """`issues/` for `issues.parquet`."""
    return place.parent / place.path.rpartition("/")[2].removesuffix(".parquet")
