"""A CSV or parquet table of image paths and labels."""

from __future__ import annotations

import posixpath
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from dynacor_ray.core.errors import DataError, StorageError, expected_got, first_line
from dynacor_ray.core.hashing import digest
from dynacor_ray.core.schema import INSTANCE_ID, RAW_ERROR, RAW_LABEL, TRUE_LABEL, URI
from dynacor_ray.core.storage import Location, locate, storage_errors
from dynacor_ray.sources.base import Shard, Source, SourceOptions
from dynacor_ray.sources.columns import Columns, declared_classes, find_columns, label_strings, raw_columns
from dynacor_ray.sources.image_files import cut, file_stamp, raw_images, read_rows
from dynacor_ray.sources.parquet import ParquetFile, read_footers, same_columns
from dynacor_ray.sources.reach import refusal

CHAIN = "chain of protocols"
_WITH_QUERY = ("s3", "gs", "gcs", "abfs", "abfss")
"""Schemes whose query says how to reach the store."""
DELIMITERS = {".csv": ",", ".tsv": "\t"}


@dataclass(frozen=True)
class TableShard(Shard):
    """Some rows of the table.

    Attributes:
        folder: where relative paths start.
        rows: uri, label, error and, where known, instance_id and truth.
        remote: the option `remote`.
    """

    folder: Location
    rows: pa.Table
    remote: bool | None

    def read_labels(self) -> pa.StringArray:
        """See `Shard.read_labels`."""
        return _flat(self.rows[RAW_LABEL])

    def read(self) -> pa.Table:
        """See `Shard.read`."""
        uris, errors = self.rows[URI].to_pylist(), self.rows[RAW_ERROR].to_pylist()
        places: list[Location | None] = []
        for row, uri in enumerate(uris):
            place, error = (None, errors[row]) if errors[row] is not None else place_of(uri, self.folder, self.remote)
            places.append(place)
            errors[row] = error
        images, errors = read_rows(places, errors)
        extra = {"truths": TRUE_LABEL, "instance_ids": INSTANCE_ID}
        given = {key: _flat(self.rows[name]) for key, name in extra.items() if name in self.rows.column_names}
        return raw_images(self.first_row, uris, self.read_labels(), errors, images, **given)


def _flat(column: pa.ChunkedArray[Any]) -> pa.Array[Any]:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def place_of(uri: str | None, folder: Location, remote: bool | None = True) -> tuple[Location | None, str | None]:
    """Location of an image: a URI, an absolute local path, or a path relative to the table's folder.

    fsspec's chains of protocols are refused: some write what they read to a local disk, others unpack archives.

    Returns:
        (location, None), or (None, reason).
    """
    if not uri:
        return None, "missing path"
    if "\0" in uri:
        return None, "path with a null character"
    if "://" in uri:
        scheme, _, rest = uri.partition("://")
        host, _, path = rest.partition("/")
        if "::" in scheme + host:
            return None, CHAIN
        if refused := refusal(uri, folder, remote):
            return None, refused
        try:
            if scheme in _WITH_QUERY:
                path, mark, query = path.partition("?")
                return _locate_host(f"{scheme}://{host}{mark}{query}") / path, None
            return (_locate_host(f"{scheme}://{host}") / path if host and path else locate(uri)), None
        except StorageError:
            return None, "unknown or unreachable storage"
    if uri.startswith("/"):
        return (None, refused) if (refused := refusal(uri, folder, remote)) else (locate(uri), None)
    return folder / uri, None


@lru_cache(maxsize=64)
def _locate_host(uri: str) -> Location:
    """Bucket or host of many URIs, connected to once."""
    return locate(uri)


class TableSource(Source):
    """A table of paths or URIs and labels. Its rows, not the images, are held in memory."""

    name = "table"
    kind = "image"

    def __init__(self, data: str, options: SourceOptions, files: list[ParquetFile] | None = None) -> None:
        """Read the table.

        Args:
            data: path or URI of a .csv, .tsv or .parquet file.
            options: columns and classes that the user named.
            files: parquet footers, if read already.

        Raises:
            DataError: the table cannot be parsed, or columns are missing or ambiguous.
        """
        self.uri, self._options = data, options
        self._place = locate(data)
        self._folder = folder_of(self._place)
        if posixpath.splitext(self._place.path)[1].lower() in DELIMITERS:
            rows, columns, declared = _read_csv(self._place, options)
            stamps = [tuple(file_stamp("", self._place.info()))]
        else:
            files = read_footers(data) if files is None else files
            rows, columns, declared = _read_parquet(files, options)
            stamps = [file.stamp for file in files]
        self._rows, self._columns, self._stamps = rows, columns, stamps
        self.num_rows = rows.num_rows
        self.class_names, self.label_codes = declared
        self.has_instance_ids = columns.instance_id is not None
        self.has_truth = columns.truth is not None

    def fingerprint(self) -> str:
        """See `Source.fingerprint`; covers the table, not the images that it names."""
        return digest([self.name, self._stamps, asdict(self._columns), self._options.classes])

    def shards(self, max_rows: int) -> list[Shard]:
        """See `Source.shards`."""

        def make(first: int, count: int) -> Shard:
            rows = self._rows.take(pa.array(np.arange(first, first + count)))  # a copy: slices pickle as the whole
            return TableShard(first, count, self._folder, rows, self._options.remote)

        return cut(self.num_rows, max_rows, make)


def folder_of(place: Location) -> Location:
    """Where relative paths of a table start: a folder of parquet files itself, or the folder of the file."""
    if place.is_dir():
        return place
    return place.parent


Declared = tuple[tuple[str, ...] | None, dict[str, int] | None]


def _read_csv(place: Location, options: SourceOptions) -> tuple[pa.Table, Columns, Declared]:
    """The rows of a CSV table. A line with too many or too few fields becomes a row with an error, at the end."""
    name = posixpath.basename(place.path)
    broken: list[str] = []

    def quarantine(row: pacsv.InvalidRow) -> str:
        broken.append(f"line with {row.actual_columns} instead of {row.expected_columns} columns")
        return "skip"

    delimiter = DELIMITERS[posixpath.splitext(place.path)[1].lower()]
    parse = pacsv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=quarantine)
    with storage_errors("read", place):
        try:
            with place.stream() as stream:
                names = pacsv.open_csv(stream, parse_options=parse).schema.names
            texts = pa.schema([(column, pa.int64() if column == INSTANCE_ID else pa.string()) for column in names])
            columns = find_columns(texts, options, name)
            convert = pacsv.ConvertOptions(
                include_columns=columns.names(), column_types={column.name: column.type for column in texts}
            )
            broken.clear()
            with place.stream() as stream:
                table = pacsv.read_csv(
                    stream, pacsv.ReadOptions(use_threads=False), parse_options=parse, convert_options=convert
                )
        except (pa.ArrowInvalid, UnicodeDecodeError) as error:
            got = f"'{first_line(error)}'"
            raise DataError(expected_got(f"{name} to be a table in UTF-8", got, "correct the file")) from error
    declared = declared_classes(texts, columns, options, name)
    return _with_broken(_rows(table, columns, declared), broken), columns, declared


def _read_parquet(files: list[ParquetFile], options: SourceOptions) -> tuple[pa.Table, Columns, Declared]:
    columns = find_columns(files[0].schema, options, files[0].name)
    declared = declared_classes(files[0].schema, columns, options, files[0].name)
    parts = []
    for file in files:
        same_columns(file, columns, files[0].name)
        parts.append(_rows(file.place.read_table(columns.names()), columns, declared))
    return pa.concat_tables(parts), columns, declared


def _rows(table: pa.Table, columns: Columns, declared: Declared) -> pa.Table:
    """uri, label, error and, where known, instance_id and truth of every row of the table."""
    assert columns.uri is not None
    uris = {URI: label_strings(table[columns.uri], negative_is_missing=False)}
    return pa.table(uris | raw_columns(table, columns, declared[0] is not None))


def _with_broken(rows: pa.Table, reasons: list[str]) -> pa.Table:
    """Append one row per line that could not be parsed: no label, and the reason as its error."""
    if not reasons:
        return rows
    extra = {name: pa.nulls(len(reasons), rows.schema.field(name).type) for name in rows.column_names}
    extra[RAW_ERROR] = pa.array(reasons, pa.string())
    if INSTANCE_ID in extra:
        start = (pc.max(rows[INSTANCE_ID]).as_py() or 0) + 1 if rows.num_rows else 0
        extra[INSTANCE_ID] = pa.array(range(start, start + len(reasons)), pa.int64())
    return pa.concat_tables([rows, pa.table(extra)])
