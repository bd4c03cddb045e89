"""Copies parquet, CSV tables and image folders without some rows, or with other labels."""

from __future__ import annotations

import csv
import io
import os
import posixpath
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dynacor_ray.core import schema
from dynacor_ray.core.errors import DataError, expected_got
from dynacor_ray.core.storage import Location, storage_errors
from dynacor_ray.sources.base import SourceOptions
from dynacor_ray.sources.columns import Columns, find_columns, is_integer_text, label_strings
from dynacor_ray.sources.folder import FolderSource
from dynacor_ray.sources.parquet import read_footers
from dynacor_ray.sources.table import DELIMITERS

Action = Literal["drop", "relabel"]


_BATCH = 512


_CHANGED = "the table that the run read: the labels of its rows are others now"


@dataclass(frozen=True)
class _Changes:
    """Rows to change. ids: int64 (n,), increasing; uris; given, new: class codes int32 (n,); quality: float64 (n,)."""

    ids: NDArray[np.int64]
    uris: pa.Array[Any]
    given: NDArray[np.int32]
    new: NDArray[np.int32]
    quality: NDArray[np.float64]

    def find(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Place in `ids` of self for each id, -1 where it is not changed."""
        if len(self.ids) == 0:
            return np.full(len(ids), -1)
        at = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        return np.where(self.ids[at] == ids, at, -1)


@dataclass(frozen=True)
class _Labels:
    """Between labels as they stand in the data and class codes."""

    names: list[str]
    codes: dict[str, int]

    def check(self, texts: list[str | None], given: NDArray[np.int32]) -> None:
        """Raise DataError unless the labels are those that the run saw."""
        for text, code in zip(texts, given.tolist(), strict=True):
            if self.codes.get(text or "") != code:
                got = f"{text!r} instead of {self.names[code]!r}"
                raise DataError(expected_got(_CHANGED, got, "run detect again"))

    def written(self, code: int, as_integer: bool) -> str:
        """A class as the data have it: by its name, or as an integer."""
        name = self.names[code]
        if not as_integer or is_integer_text(name):
            return name
        return next(text for text, other in self.codes.items() if other == code and is_integer_text(text))


def _copy(
    data: Location, out: Location, options: SourceOptions, changes: _Changes, labels: _Labels, action: Action
) -> int:
    """Copy the table with its changes; returns how many rows were changed."""
    ending = posixpath.splitext(data.path)[1].lower()
    if ending in DELIMITERS:
        return _copy_csv(data, out, DELIMITERS[ending], options, changes, labels, action)
    files, first, seen = read_footers(data.uri), 0, 0
    columns = find_columns(files[0].schema, options, files[0].name)
    for file in files:
        place = out / file.name if data.is_dir() else out
        seen += _copy_parquet(file.place, place, first, columns, changes, labels, action)
        first += file.num_rows
    return seen


def _copy_folder(
    source: FolderSource, out: Location, changes: _Changes, labels: _Labels, action: Action, hard_links: bool
) -> dict[int, str | None]:
    """Copy the images file by file; returns the new path of each that was changed, None for those left out."""
    moved: dict[int, str | None] = {}
    taken = {file.path for file in source.files}
    places = changes.find(np.arange(len(source.files))).tolist()
    put = _put if source.root.is_local and out.is_local else _put_elsewhere
    try:
        for row, (file, at) in enumerate(zip(source.files, places, strict=True)):
            path: str | None = file.path
            if at >= 0:
                labels.check([file.label], changes.given[at : at + 1])
                path = moved[row] = None if action == "drop" else _moved(file.path, int(changes.new[at]), labels, taken)
            if path is not None and file.error is None:
                put(source.root / file.path, out / path, hard_links)
    except BaseException:
        out.delete()
        raise
    return moved


def _moved(path: str, code: int, labels: _Labels, taken: set[str]) -> str:
    """Path of an image in another class's folder, under a name that no other image has there."""
    given, _, rest = path.partition("/")
    stem, ending = posixpath.splitext(rest)
    folder = labels.written(code, is_integer_text(given))
    found, number = f"{folder}/{rest}", 1
    while found in taken:
        number += 1
        found = f"{folder}/{stem}-{number}{ending}"
    taken.add(found)
    return found


def _put(source: Location, out: Location, hard_link: bool) -> None:
    """Copy or link a local file; of a link, what it leads to, which the source has seen to be inside its root."""
    with storage_errors("write", out):
        os.makedirs(os.path.dirname(out.path), exist_ok=True)
        real = os.path.realpath(source.path)
        if hard_link:
            os.link(real, out.path)
        else:
            shutil.copy2(real, out.path)


def _put_elsewhere(source: Location, out: Location, _: bool) -> None:
    out.filesystem.create_dir(posixpath.dirname(out.path), recursive=True)
    with storage_errors("write", out):
        pafs.copy_files(
            source.path, out.path, source_filesystem=source.filesystem, destination_filesystem=out.filesystem
        )


def _copy_parquet(
    source: Location,
    out: Location,
    first: int,
    columns: Columns,
    changes: _Changes,
    labels: _Labels,
    action: Action,
) -> int:
    seen = 0
    with source.parquet() as file, out.atomic_replace() as part:
        wanted = file.schema_arrow
        with pq.ParquetWriter(part.path, wanted, filesystem=part.filesystem) as writer:
            for batch in file.iter_batches(_BATCH):
                table = pa.Table.from_batches([batch], wanted)
                ids = np.arange(first, first + table.num_rows)
                if columns.instance_id is not None:
                    ids = table[columns.instance_id].to_numpy()
                first += table.num_rows
                at = changes.find(ids)
                touched = np.flatnonzero(at >= 0)
                seen += len(touched)
                given = label_strings(table[columns.label].take(touched), negative_is_missing=False).to_pylist()
                labels.check(given, changes.given[at[touched]])
                if action == "drop":
                    writer.write_table(table.filter(pa.array(at < 0)))
                else:
                    codes = np.where(at >= 0, changes.new[at], -1) if len(changes.ids) else at
                    writer.write_table(_relabeled(table, columns.label, codes, labels))
    return seen


def _relabeled(table: pa.Table, label: str, codes: NDArray[np.int64], labels: _Labels) -> pa.Table:
    """The table with other labels where `codes`, int (n,), is not -1; the column keeps its type."""
    place = table.schema.get_field_index(label)
    field = table.schema.field(place)
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    texts = not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))
    new = [None if code < 0 else labels.written(code, not texts) for code in codes.tolist()]
    known = pa.array(new, pa.string())
    typed = known.cast(pa.int64()).cast(kind) if not texts else known.cast(kind)
    old = table[label].cast(kind).combine_chunks()
    merged = pc.if_else(pa.array(codes >= 0), typed, old)
    if pa.types.is_dictionary(field.type):
        merged = merged.dictionary_encode().cast(field.type)
    return table.set_column(place, field, merged)


def _copy_csv(
    source: Location,
    out: Location,
    delimiter: str,
    options: SourceOptions,
    changes: _Changes,
    labels: _Labels,
    action: Action,
) -> int:
    """Copy a CSV line by line; lines with another number of fields are no rows and stay as they are."""
    seen = 0
    with (
        storage_errors("read", source),
        source.filesystem.open_input_stream(source.path) as raw,
        out.atomic_replace() as part,
        part.filesystem.open_output_stream(part.path) as sink,
    ):
        lines = csv.reader(io.TextIOWrapper(raw, encoding="utf-8-sig", newline=""), delimiter=delimiter)
        head = next(lines)
        texts = pa.schema([(name, pa.int64() if name == schema.INSTANCE_ID else pa.string()) for name in head])
        columns = find_columns(texts, options, posixpath.basename(source.path))
        write = _line_writer(sink, delimiter)
        write(head)
        for place, line in _numbered(lines, len(head)):
            at = -1
            if place is not None:
                key = place if columns.instance_id is None else int(line[head.index(columns.instance_id)])
                at = int(changes.find(np.array([key]))[0])
            if at >= 0:
                label = head.index(columns.label)
                labels.check([line[label].strip()], changes.given[at : at + 1])
                seen += 1
                if action == "drop":
                    continue
                as_integer = is_integer_text(line[label].strip())
                line = [*line[:label], labels.written(int(changes.new[at]), as_integer), *line[label + 1 :]]
            write(line)
    return seen


def _numbered(lines: Iterator[list[str]], width: int) -> Iterator[tuple[int | None, list[str]]]:
    """Lines with their number among the rows; None for a line that is no row. Empty lines are left out."""
    row = 0
    for line in lines:
        if len(line) == width:
            yield row, line
            row += 1
        elif line:
            yield None, line


def _line_writer(sink: Any, delimiter: str) -> Callable[[list[str]], None]:
    """Writes one line to a binary stream."""

    def write(line: list[str]) -> None:
        text = io.StringIO()
        csv.writer(text, delimiter=delimiter, lineterminator="\n").writerow(line)
        sink.write(text.getvalue().encode())

    return write
