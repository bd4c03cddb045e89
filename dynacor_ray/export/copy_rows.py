"""Copies of parquet files, CSV tables and image folders without some rows, or with other labels."""

from __future__ import annotations

import io
import os
import posixpath
import shutil
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dynacor_ray.core.arrays import sorted_positions
from dynacor_ray.core.errors import DataError, expected_got
from dynacor_ray.core.storage import Location, storage_errors
from dynacor_ray.core.text_tables import raw_records, with_field
from dynacor_ray.sources.base import SourceOptions
from dynacor_ray.sources.columns import Columns, find_columns
from dynacor_ray.sources.folder import FolderSource
from dynacor_ray.sources.folder_scan import FolderFile
from dynacor_ray.sources.json_tables import JSON_TABLES, is_project_table
from dynacor_ray.sources.label_values import is_integer_text, label_strings
from dynacor_ray.sources.one_hot import one_hot_columns
from dynacor_ray.sources.parquet import read_footers, with_hinted_schema
from dynacor_ray.sources.row_files import ParquetRows
from dynacor_ray.sources.text_format import TEXT_TABLES, find_format, table_ending
from dynacor_ray.sources.text_rows import text_schema, with_points

Action = Literal["drop", "relabel"]
CHANGED = "the table that the run read: the labels of its rows are others now"
_BATCH = 512


@dataclass(frozen=True)
class RowChanges:
    """Rows to change.

    Attributes:
        action: "drop" or "relabel".
        ids: int64 (n,), increasing.
        uris: strings (n,).
        given: int32 (n,), class before.
        new: int32 (n,), class after.
        quality: float64 (n,), label quality.
        names: class names.
        codes: label in the data -> class index.
    """

    action: Action
    ids: NDArray[np.int64]
    uris: pa.Array[Any]
    given: NDArray[np.int32]
    new: NDArray[np.int32]
    quality: NDArray[np.float64]
    names: list[str]
    codes: dict[str, int]

    def find(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Position of each id among the changes, -1 where it is not changed."""
        return sorted_positions(self.ids, ids)

    def check(self, texts: list[str | None], positions: NDArray[np.int64] | list[int]) -> None:
        """Raise DataError unless the labels in the data are those that the run saw."""
        for text, code in zip(texts, self.given[positions].tolist(), strict=True):
            if self.codes.get(text or "") != code:
                got = f"{text!r} instead of {self.names[code]!r}"
                raise DataError(expected_got(CHANGED, got, "run detect again"))

    def new_label(self, position: int, as_integer: bool) -> str:
        """The new label as it is written in the data: by name, or as an integer."""
        code = int(self.new[position])
        name = self.names[code]
        if not as_integer or is_integer_text(name):
            return name
        return next(text for text, other in self.codes.items() if other == code and is_integer_text(text))


def copy_table(data: Location, out: Location, options: SourceOptions, changes: RowChanges) -> int:
    """Copy a table with its changes; returns the number of rows changed."""
    if table_ending(data.path) in TEXT_TABLES:
        if is_project_table(find_format(data).names):
            raise _not_copied("an export of Label Studio")
        return _copy_csv(data, out, options, changes)
    if table_ending(data.path) in JSON_TABLES:
        raise _not_copied("JSON")
    files, first, changed = read_footers(data.uri, options.split), 0, 0
    if not all(isinstance(file.reader, ParquetRows) for file in files):
        raise _not_copied("Arrow files, or labels in names of folders")
    if one_hot_columns(files[0].schema, options, files[0].name):
        raise _not_copied("one-hot classes")
    columns = find_columns(with_hinted_schema(files)[0].schema, options, files[0].name)
    for file in files:
        changed += _copy_parquet(file.place, out / file.name if data.is_dir() else out, first, columns, changes)
        first += file.num_rows
    return changed


def _not_copied(got: str) -> DataError:
    return DataError(expected_got("a table in text or parquet files", got, "use dynacor export to .csv instead"))


def copy_folder(source: FolderSource, out: Location, changes: RowChanges, hard_links: bool) -> dict[int, str | None]:
    """Copy the images of a folder; returns the new path of each changed one, None for those left out."""
    moved: dict[int, str | None] = {}
    taken = {file.path for file in source.files}
    positions = changes.find(np.arange(len(source.files))).tolist()
    put = _put if source.root.is_local and out.is_local else _put_elsewhere
    try:
        for row, (file, position) in enumerate(zip(source.files, positions, strict=True)):
            path: str | None = file.path
            if position >= 0:
                changes.check([file.label], [position])
                path = moved[row] = None if changes.action == "drop" else _moved(file, position, changes, taken)
            if path is not None and file.error is None:
                put(source.root / file.path, out / path, hard_links)
    except BaseException:
        out.delete()
        raise
    return moved


def _moved(file: FolderFile, position: int, changes: RowChanges, taken: set[str]) -> str:
    """Path of an image in another class's folder of the same split, under a name that no other image has there."""
    above, rest = file.path.split("/")[: file.depth], "/".join(file.path.split("/")[file.depth + 1 :])
    stem, ending = posixpath.splitext(rest)
    folder = "/".join([*above, changes.new_label(position, is_integer_text(file.label))])
    new_path, number = f"{folder}/{rest}", 1
    while new_path in taken:
        number += 1
        new_path = f"{folder}/{stem}-{number}{ending}"
    taken.add(new_path)
    return new_path


def _put(source: Location, out: Location, hard_link: bool) -> None:
    """Copy or link a local file. Of a link its target, which the source has checked to be inside its root."""
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


def _copy_parquet(source: Location, out: Location, first: int, columns: Columns, changes: RowChanges) -> int:
    changed = 0
    with (
        source.parquet() as file,
        out.atomic_replace() as part,
        pq.ParquetWriter(part.path, file.schema_arrow, filesystem=part.filesystem) as writer,
    ):
        for batch in file.iter_batches(_BATCH):
            table = pa.Table.from_batches([batch], file.schema_arrow)
            ids = np.arange(first, first + table.num_rows)
            if columns.instance_id is not None:
                ids = table[columns.instance_id].to_numpy()
            first += table.num_rows
            positions = changes.find(ids)
            touched = np.flatnonzero(positions >= 0)
            changed += len(touched)
            given = label_strings(table[columns.label].take(touched), is_declared=True).to_pylist()
            changes.check(given, positions[touched])
            if changes.action == "drop":
                writer.write_table(table.filter(pa.array(positions < 0)))
            else:
                writer.write_table(_relabeled(table, columns.label, positions, changes))
    return changed


def _relabeled(table: pa.Table, label: str, positions: NDArray[np.int64], changes: RowChanges) -> pa.Table:
    """The table with new labels where `positions`, int64 (n,), is not -1; the column keeps its type."""
    place = table.schema.get_field_index(label)
    field = table.schema.field(place)
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    texts = [None if at < 0 else changes.new_label(at, numeric) for at in positions.tolist()]
    new = pa.array(texts, pa.string())
    typed = new.cast(pa.int64()).cast(kind) if numeric else new.cast(kind)
    merged = pc.if_else(pa.array(positions >= 0), typed, table[label].cast(kind).combine_chunks())
    if pa.types.is_dictionary(field.type):
        merged = merged.dictionary_encode().cast(field.type)
    return table.set_column(place, field, merged)


def _copy_csv(source: Location, out: Location, options: SourceOptions, changes: RowChanges) -> int:
    """Copy a table in text record by record, in its own encoding: what is not changed stays as it is.

    Broken lines and repeated headers stay, too.
    """
    changed, form = 0, find_format(source)
    with (
        source.stream() as raw,
        out.atomic_replace() as part,
        part.filesystem.open_output_stream(part.path) as stream,
        io.TextIOWrapper(stream, encoding=form.encoding, newline="") as sink,
    ):
        lines = io.TextIOWrapper(raw, encoding=form.encoding, newline="")
        for _ in range(form.skip):
            sink.write(lines.readline())
        records = raw_records(lines, form.delimiter, form.quote)
        head = list(form.names)
        if form.has_header:
            sink.write(next(records)[1])
        kinds, name = text_schema(source, form), posixpath.basename(source.path)
        if one_hot_columns(kinds, options, name):
            raise _not_copied("one-hot classes")
        columns = find_columns(kinds, options, name)
        label, row = head.index(columns.label), 0
        for fields, text in records:
            position = -1
            if len(fields) == len(head):
                key = row if columns.instance_id is None else int(fields[head.index(columns.instance_id)])
                position = int(changes.find(np.array([key]))[0])
            row += bool(fields)
            if position >= 0:
                cell = with_points(pa.table({columns.label: [fields[label]]}), form)[columns.label]
                given = label_strings(cell, is_declared=True)[0].as_py()
                changes.check([given], [position])
                changed += 1
                if changes.action == "drop":
                    continue
                text = with_field(
                    text, label, changes.new_label(position, is_integer_text(given or "")), form.delimiter
                )
            sink.write(text)
    return changed
