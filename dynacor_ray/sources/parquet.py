"""Parquet files with labels and either encoded images or feature vectors."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs

from dynacor_ray.core.errors import DataError, expected_got
from dynacor_ray.core.hashing import digest
from dynacor_ray.core.schema import RAW_ERROR, RAW_ROW, URI
from dynacor_ray.core.storage import Location, locate, retry_transient, storage_errors
from dynacor_ray.sources.base import Shard, Source, SourceOptions
from dynacor_ray.sources.class_names import declared_classes
from dynacor_ray.sources.column_hints import HINTED_ROWS, with_hints
from dynacor_ray.sources.column_types import is_image_type, is_label_type, is_string_type
from dynacor_ray.sources.columns import Columns, find_columns
from dynacor_ray.sources.folder import read_together
from dynacor_ray.sources.image_files import cut, matching, read_rows
from dynacor_ray.sources.image_paths import folder_of, place_of
from dynacor_ray.sources.label_values import label_strings, raw_columns, text_strings
from dynacor_ray.sources.piece_memory import Held
from dynacor_ray.sources.row_files import RowFile, RowReader, is_row_file, open_row_file

_BATCH_ROWS = {"image": 256, "feature": 4096}  # a batch of images must stay well below 2 GiB
_THREADS = 16
_ONE_DATA_SET = "keep only files of one data set"


@dataclass(frozen=True)
class ParquetShard(Shard):
    """Rows of one file.

    Attributes:
        reader: of the groups to read.
        skip: rows of the first of them to skip.
        first_in_file: number of its first row in the file.
        columns: roles of the columns.
        is_declared: whether classes are declared, so that no label means "missing".
        folder: where paths of images that are not in the file start.
        remote: the option `remote`.
    """

    reader: RowReader
    skip: int
    first_in_file: int
    columns: Columns
    is_declared: bool
    folder: Location
    remote: bool | None = None

    def read_labels(self) -> pa.StringArray:
        """See `Shard.read_labels`."""
        labels = self._load([self.columns.label])[self.columns.label]
        return label_strings(labels, is_declared=self.is_declared)

    def read(self) -> pa.Table:
        """See `Shard.read`."""
        table, columns = self._load(self.columns.names()), self.columns
        payload = columns.payload_of(table)
        raw: dict[str, Any] = {
            RAW_ROW: pa.array(np.arange(self.first_row, self.first_row + self.num_rows, dtype=np.int64)),
            URI: self._uris(table),
            columns.kind: payload,
        }
        raw |= raw_columns(table, columns, self.is_declared)
        if pa.types.is_struct(payload.type):
            raw[columns.kind], raw[RAW_ERROR] = self._images(payload, raw[RAW_ERROR])
        return pa.table(raw)

    def _images(self, structs: pa.ChunkedArray[Any], errors: pa.Array[Any]) -> tuple[Any, Any]:
        """Images and errors of Hugging Face's structs: the bytes, or what lies at the path where there are none."""
        images = pc.struct_field(structs, "bytes")
        if structs.type.get_field_index("path") < 0 or not images.null_count:
            return images, errors
        paths = text_strings(pc.struct_field(structs, "path")).to_pylist()
        found, told = images.to_pylist(), errors.to_pylist()
        places = [
            place_of(path, self.folder, self.remote)[0] if path and not data else None
            for data, path in zip(found, paths, strict=True)
        ]
        read, failed = read_rows(places, told)
        images = pa.chunked_array([pa.array([old or new for old, new in zip(found, read, strict=True)], pa.binary())])
        return images, pa.array(failed, pa.string())

    def _uris(self, table: pa.Table) -> Any:
        """The table's own uris; where it has none, file name and row number."""
        rows = pa.array(np.arange(self.first_in_file, self.first_in_file + self.num_rows))
        places = pc.binary_join_element_wise(self.reader.name, rows.cast(pa.string()), "#")
        if self.columns.uri is None:
            return places
        return pc.coalesce(text_strings(table[self.columns.uri]), places)

    @retry_transient
    def _load(self, names: list[str]) -> pa.Table:
        with closing(self.reader.batches(names, _BATCH_ROWS[self.columns.kind])) as batches:
            rows = list(_within_memory(_window(batches, self.skip, self.num_rows), self.reader.name))
        found = sum(batch.num_rows for batch in rows)
        if found < self.num_rows:
            name, remedy = self.reader.name, "write the file again"
            raise DataError(expected_got(f"the {self.num_rows:,} rows that {name} says to hold", f"{found:,}", remedy))
        return pa.Table.from_batches(rows)


def _within_memory(batches: Iterator[pa.RecordBatch], name: str) -> Iterator[pa.RecordBatch]:
    """The batches. Raises DataError when they do not fit into memory."""
    held = Held(name)
    for batch in batches:
        held.add(batch.nbytes)
        yield batch


def _window(batches: Iterator[pa.RecordBatch], skip: int, count: int) -> Iterator[pa.RecordBatch]:
    """Rows skip .. skip + count - 1 of a stream of batches, read no further than needed."""
    for batch in batches:
        here = batch.slice(skip, count)
        skip = max(0, skip - batch.num_rows)
        count -= here.num_rows
        if here.num_rows:
            yield here
        if count == 0:
            return


def with_hinted_schema(files: list[RowFile]) -> list[RowFile]:
    """The files, the first with what its first rows tell of columns of text where none holds images or vectors."""
    known = files[0].schema
    texts = [field.name for field in known if is_string_type(field.type)]
    if not texts or not all(is_label_type(field.type) and not is_image_type(field.type) for field in known):
        return files
    return [replace(files[0], schema=with_hints(known, files[0].head(texts, HINTED_ROWS))), *files[1:]]


def read_footers(data: str, split: str | None = None) -> list[RowFile]:
    """Footers of one parquet or Arrow file, or of all below a directory in order of their paths; no hidden files.

    Args:
        data: path or URI, or a pattern of names in one folder.
        split: only files of this split, as in `train-00000-of-00001.parquet`, `train/x.parquet` or `split=train/`.

    Raises:
        DataError: there is none, or one cannot be read.
    """
    root = locate(data)
    info = root.info()
    if info.type == pafs.FileType.Directory:
        all_below = pafs.FileSelector(root.path, recursive=True)
        with storage_errors("read", root):
            infos = list(_walk(root)) if root.is_local else root.filesystem.get_file_info(all_below)
        named = sorted((item.path[len(root.path) :].lstrip("/"), item) for item in infos if item.is_file)
        files = [(name, root / name, item) for name, item in named if _is_data(name)]
    else:
        known = [(place, place.info()) for place in matching(root)]
        files = [(info.base_name, place, info) for place, info in known if info.type == pafs.FileType.File]
    if not files:
        raise DataError(expected_got(f"parquet files in {data}", "none", "check the path"))
    if split is not None:
        names = [name for name, _, _ in files]
        files = [file for file in files if split in _splits_of(file[0])]
        if not files:
            got = f"the files {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"
            raise DataError(expected_got(f"files of a split {split!r} in {data}", got, "leave out --split"))
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(lambda file: open_row_file(*file), files))


def _splits_of(name: str) -> set[str]:
    """The splits that a file may belong to by its name.

    >>> sorted(_splits_of("split=test/train-00000-of-00001.parquet"))
    ['test', 'train']
    """
    *folders, file = name.split("/")
    return {part.removeprefix("split=") for part in folders} | {re.split(r"[-.]", file)[0]}


def _walk(root: Location) -> Iterator[pafs.FileInfo]:
    """All files below a local folder. Links are followed, as caches of data sets consist of them, but no folder twice.

    Two links back to their own folder would otherwise be walked 2^40 times.
    """
    seen = set[str]()
    for folder, inner, files in os.walk(root.path, followlinks=True):
        inner.sort()
        real = os.path.realpath(folder)
        if real in seen:
            inner.clear()
        else:
            seen.add(real)
            yield from root.filesystem.get_file_info([os.path.join(folder, name) for name in files])


def _is_data(name: str) -> bool:
    return is_row_file(name) and not any(part.startswith((".", "_")) for part in name.split("/"))


def same_columns(file: RowFile, columns: Columns, first: str) -> Columns:
    """The columns of another file, which must have those in use. Raises DataError when one does not fit."""
    absent = [name for name in columns.names() if name not in file.schema.names]
    if absent:
        got = f"{file.name} without {', '.join(absent)}"
        raise DataError(expected_got(f"the columns of {first} in every file", got, _ONE_DATA_SET))
    return find_columns(file.schema, columns.explicit(), file.name)


class ParquetSource(Source):
    """A parquet file, or all parquet files below a directory. Opening it reads the footers only."""

    name = "parquet"

    def __init__(self, data: str, options: SourceOptions, files: list[RowFile] | None = None) -> None:
        """Read the footers, unless `files` has them already, and find the columns.

        Raises:
            DataError: columns are missing or ambiguous, or the files do not agree.
        """
        self.uri, self._options = data, options
        self._files = read_footers(data, options.split) if files is None else files
        first = self._files[0]
        columns = find_columns(first.schema, options, first.name)
        if columns.payload is None and not columns.parts:
            got = "the columns " + ", ".join(first.schema.names)
            raise DataError(expected_got(f"images or feature vectors in {first.name}", got, "name their column"))
        self._columns = columns
        self.kind = columns.kind
        self.num_rows = sum(file.num_rows for file in self._files)
        self.class_names, self.label_codes = declared_classes(first.schema, columns, options, first.name)
        self.has_instance_ids = columns.instance_id is not None
        self.has_truth = columns.truth is not None
        self.feature_names = self._columns.parts
        self.notes = self._said()
        for file in self._files[1:]:
            if file.num_rows:  # an empty one may lack columns, or have them without types
                self._check_agrees(file)

    def _said(self) -> tuple[str, ...]:
        said = [*self._files[0].notes, *self._columns.notes(self._options)]
        return (*said, *read_together(file.name for file in self._files if is_row_file(file.name)))

    def _check_agrees(self, file: RowFile) -> None:
        """Check that `file` has the same columns and classes as the first one."""
        first = self._files[0].name
        columns = same_columns(file, self._columns, first)
        classes = declared_classes(file.schema, columns, self._options, file.name)[0]
        if columns.kind != self.kind or classes != self.class_names:
            what = "classes" if columns.kind == self.kind else "kind of data"
            got = f"others in {file.name}"
            raise DataError(expected_got(f"the {what} of {first} in every file", got, _ONE_DATA_SET))

    def fingerprint(self) -> str:
        """See `Source.fingerprint`."""
        return digest([self.name, [file.stamp for file in self._files], asdict(self._columns), self._options.classes])

    def shards(self, max_rows: int) -> list[Shard]:
        """See `Source.shards`. A shard lies in one file; large row groups are cut, small ones joined."""
        shards: list[Shard] = []
        row, folder, remote = 0, folder_of(locate(self.uri)), self._options.remote
        for file in self._files:
            in_file = 0
            for groups, skip, count in _pieces(file.group_rows, max_rows):
                reader, is_declared = file.reader.only(groups), self.class_names is not None
                shard = ParquetShard(row, count, reader, skip, in_file, self._columns, is_declared, folder, remote)
                shards.append(shard)
                row, in_file = row + count, in_file + count
        return shards


def _pieces(group_rows: tuple[int, ...], max_rows: int) -> list[tuple[tuple[int, ...], int, int]]:
    """Cut the row groups of a file into (groups, rows to skip in the first, rows) of at most `max_rows` rows each."""
    pieces: list[tuple[tuple[int, ...], int, int]] = []
    joined, held = list[int](), 0
    for group, rows in enumerate(group_rows):
        if joined and held + rows > max_rows:
            pieces.append((tuple(joined), 0, held))
            joined, held = [], 0
        if rows > max_rows:
            pieces += cut(rows, max_rows, lambda first, count, group=group: ((group,), first, count))  # type: ignore[misc]
        elif rows:
            joined.append(group)
            held += rows
    if joined:
        pieces.append((tuple(joined), 0, held))
    return pieces
