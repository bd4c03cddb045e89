"""Write a cleaned copy of a table or image folder: flagged rows dropped or relabelled, never in place, all logged."""

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
import pyarrow.csv as pacsv
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dynacor_ray import rundir, schema
from dynacor_ray.errors import DataError, StorageError, explain
from dynacor_ray.exports import without_formulas
from dynacor_ray.reports import finished_run
from dynacor_ray.rundir import ISSUES, SUMMARY
from dynacor_ray.sources.base import SourceOptions
from dynacor_ray.sources.columns import Columns, find_columns, is_integer_text, label_strings
from dynacor_ray.sources.folder import FolderSource
from dynacor_ray.sources.parquet import read_footers
from dynacor_ray.sources.registry import open_source
from dynacor_ray.sources.table import DELIMITERS, folder_of
from dynacor_ray.storage import Location, locate, storage_errors

Action = Literal["drop", "relabel"]
LOG = ".changes.csv"
_BATCH = 512
_CHANGED = "the table that the run read: the labels of its rows are others now"


@dataclass(frozen=True)
class Cleaned:
    """What was done. left: flagged rows that stayed as they were, since a person said so or no other class is known."""

    changed: int
    left: int
    log: Location


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


def apply_run(
    run: Location, out: Location, action: Action, marks: dict[int, str] | None = None, hard_links: bool = False
) -> Cleaned:
    """Write a copy of the run's data to `out` without its flagged rows, or with them under their suggested class.

    The data must be parquet (file or folder), a CSV table or an image folder, unchanged since the run. All other rows
    and columns stay as they are; of a folder, all images in class folders are copied, but for those that the run could
    not open by their names. marks: rows that a person marked right or unsure stay, too. hard_links: of an image folder,
    names for the same files instead of copies. Beside `out` a log lists every change (`.changes.csv`). Raises DataError
    for other data, StorageError when `out` exists or cannot hold links.
    """
    run = finished_run(run)
    summary = (run / SUMMARY).read_json()
    config, kind = summary["config"], summary["data"]["source"]
    if kind not in ("parquet", "table", "folder"):
        expected, got = "parquet, a table or an image folder", f"data of kind '{kind}'"
        raise DataError(explain(expected, got, "use dynacor export to .csv instead"))
    if out.exists():
        raise StorageError(explain("a new place for the cleaned copy", f"{out}, which exists", "choose another"))
    options = SourceOptions.of(config)
    source = open_source(config["data"], options)
    if source.fingerprint() != rundir.fingerprint(run):
        raise DataError(explain("the data that the run read", "other files or times of change", "run detect again"))
    data = locate(config["data"])
    if f"{out.path}/".startswith(f"{data.path}/"):
        raise StorageError(explain(f"a place outside of {data}", str(out), "a copy in it would be taken for data"))
    if kind == "table":
        _check_paths(run, data, out)
    if hard_links and not (kind == "folder" and data.is_local and out.is_local):
        got = f"{kind} data from {data} to {out}"
        raise StorageError(explain("an image folder on this machine for --hard-links", got, "leave the option out"))
    names = [row["class"] for row in summary["classes"]]
    changes, left = _changes(run, action, marks or {})
    labels = _Labels(names, source.label_codes or {name: code for code, name in enumerate(names)})
    if isinstance(source, FolderSource):
        moved = _copy_folder(source, out, changes, labels, action, hard_links)
        seen = len(moved)
    else:
        moved, seen = {}, _copy(data, out, options, changes, labels, action)
    if seen != len(changes.ids):
        got = f"{seen:,} of the {len(changes.ids):,} rows to change"
        raise DataError(explain(_CHANGED.partition(":")[0], got, "run detect again"))
    log = Location(out.filesystem, out.path + LOG, out.uri + LOG)
    _write_log(log, changes, names, action, moved)
    return Cleaned(len(changes.ids), left, log)


def _check_paths(run: Location, data: Location, out: Location) -> None:
    """Relative image paths of a table start at its folder: a copy elsewhere would lead nowhere."""
    folder = folder_of(data)
    if not data.is_dir() and folder.path == posixpath.dirname(out.path):
        return
    uris = (run / ISSUES).head(1000)[schema.URI].to_pylist()
    relative = next((uri for uri in uris if uri and "://" not in uri and not uri.startswith("/")), None)
    if relative is not None:
        got = f"{out}, while the table holds relative paths such as {relative!r}"
        if data.is_dir():
            remedy = "use dynacor export to .csv instead"
            raise StorageError(explain("absolute paths or URIs in a folder of tables", got, remedy))
        raise StorageError(explain("a place beside the table", got, f"write into {folder}"))


def _changes(run: Location, action: Action, marks: dict[int, str]) -> tuple[_Changes, int]:
    """The rows to change, and how many flagged rows stay."""
    columns = [schema.INSTANCE_ID, schema.URI, schema.GIVEN_LABEL, schema.PREDICTED_LABEL, schema.LABEL_QUALITY]
    parts = [pa.table({name: pa.array([], schema.issues_schema().field(name).type) for name in columns})]
    with (run / ISSUES).parquet() as file:
        for batch in file.iter_batches(columns=[*columns, schema.IS_LABEL_ISSUE]):
            table = pa.Table.from_batches([batch])
            parts.append(table.filter(table[schema.IS_LABEL_ISSUE]).select(columns))
    rows = pa.concat_tables(parts).sort_by(schema.INSTANCE_ID)
    ids, given, new, quality = (rows[name].to_numpy() for name in columns if name != schema.URI)
    keep = np.isin(ids, [instance_id for instance_id, mark in marks.items() if mark != "wrong"])
    if action == "relabel":
        keep |= given == new
    uris = rows[schema.URI].combine_chunks().filter(pa.array(~keep))
    return _Changes(ids[~keep], uris, given[~keep], new[~keep], quality[~keep]), int(keep.sum())


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
                raise DataError(explain(_CHANGED, got, "run detect again"))

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
    with source.parquet() as file, out.replacing() as part:
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
                    writer.write_table(_relabelled(table, columns.label, codes, labels))
    return seen


def _relabelled(table: pa.Table, label: str, codes: NDArray[np.int64], labels: _Labels) -> pa.Table:
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
        out.replacing() as part,
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


def _write_log(
    place: Location, changes: _Changes, names: list[str], action: Action, moved: dict[int, str | None]
) -> None:
    """List every change. moved: new paths of images by instance_id, if any have one."""
    known = pa.array(names, pa.string())
    count = len(changes.ids)
    new = known.take(pa.array(changes.new)) if action == "relabel" else pa.nulls(count, pa.string())
    table = pa.table(
        {
            schema.INSTANCE_ID: pa.array(changes.ids),
            "action": pa.array([action] * count, pa.string()),
            schema.GIVEN_LABEL: known.take(pa.array(changes.given)),
            "new_label": new,
            schema.LABEL_QUALITY: pa.array(changes.quality),
            schema.URI: changes.uris,
            "new_uri": pa.array([moved.get(instance_id) for instance_id in changes.ids.tolist()], pa.string()),
        }
    )
    with place.replacing() as part, part.filesystem.open_output_stream(part.path) as stream:
        pacsv.write_csv(without_formulas(table), stream)
