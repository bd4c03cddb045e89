"""A CSV or parquet table of image paths and labels."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from dynacor_ray.core.errors import DataError, counted, expected_got, first_line
from dynacor_ray.core.hashing import digest
from dynacor_ray.core.schema import INSTANCE_ID, RAW_ERROR, RAW_LABEL, TRUE_LABEL, URI
from dynacor_ray.core.storage import Location, locate, storage_errors
from dynacor_ray.sources.base import Shard, Source, SourceOptions
from dynacor_ray.sources.class_names import Declared, declared_classes
from dynacor_ray.sources.column_hints import with_hints
from dynacor_ray.sources.columns import Columns, find_columns, plain_name
from dynacor_ray.sources.image_files import file_stamp, matching, raw_images, read_rows, some_rows
from dynacor_ray.sources.image_paths import PathRule, find_rule, folder_of, place_of
from dynacor_ray.sources.json_tables import JSON_TABLES, JsonTable, original_names, read_json_table, read_project_table
from dynacor_ray.sources.label_values import raw_columns, text_strings
from dynacor_ray.sources.parquet import same_columns
from dynacor_ray.sources.row_files import RowFile
from dynacor_ray.sources.text_format import find_format, table_ending
from dynacor_ray.sources.text_rows import text_schema, with_points

_BOXES = (("xmin", "ymin", "xmax", "ymax"), ("x1", "y1", "x2", "y2"), ("bbox",), ("boundingbox",))
"""Names of the columns of a box, without prefixes, case and hyphens."""


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
        return self.rows[RAW_LABEL].combine_chunks()

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
        given = {key: self.rows[name].combine_chunks() for key, name in extra.items() if name in self.rows.column_names}
        return raw_images(self.first_row, uris, self.read_labels(), errors, images, **given)


class TableSource(Source):
    """A table of paths or URIs and labels. Its rows, not the images, are held in memory."""

    name = "table"
    kind = "image"

    def __init__(
        self,
        data: str,
        options: SourceOptions,
        files: list[RowFile] | None = None,
        root: str | None = None,
        is_project: bool = False,
    ) -> None:
        """Read the table.

        Args:
            data: path or URI of a table in text or JSON, a pattern of tables in text, or where `files` lie.
            options: columns and classes that the user named, and where the images lie.
            files: what is known of files of rows.
            root: a folder above the table from which paths are told, instead of the table's own.
            is_project: whether a table in text is an export of Label Studio.

        Raises:
            DataError: the table cannot be parsed, columns are missing or ambiguous, or its paths lead nowhere.
        """
        self.uri, self._options = data, options
        self._place = locate(data)
        self._folder = folder_of(self._place)
        ending = table_ending(self._place.path)
        notes: list[str] = []
        if files is not None:
            rows, columns, declared = _read_parquet(files, options)
            stamps, notes = [file.stamp for file in files], list(files[0].notes)
            names = files[0].schema.names
        elif ending in JSON_TABLES or is_project:
            held = read_project_table(self._place) if is_project else read_json_table(self._place)
            rows, columns, declared = _of_json(held, posixpath.basename(self._place.path), options)
            if held.is_project and find_rule(rows[URI].combine_chunks(), self._folder, options).hint:
                rows = rows.set_column(0, URI, original_names(rows[URI].combine_chunks()))
            self.warnings, names = held.warnings, held.table.column_names
            stamps = [tuple(file_stamp("", self._place.info()))]
        else:
            texts = matching(self._place)
            rows, columns, declared, notes = _read_texts(texts, options)
            names = list(find_format(texts[0]).names)
            stamps = [tuple(file_stamp("", text.info())) for text in texts]
        notes += _check_boxes(rows, names, data)
        if rows.num_rows:
            rule = find_rule(rows[URI].combine_chunks(), self._folder, options)
            rows = rows.set_column(0, URI, rule.apply(rows[URI].combine_chunks()))
            notes += [rule.told()]
            self.hint = rule.hint
        if root is not None:
            above = posixpath.relpath(self._folder.path, locate(root).path)
            self._folder = locate(root)
            rule = PathRule(prefix="" if above == "." else f"{above}/")
            rows = rows.set_column(0, URI, rule.apply(rows[URI].combine_chunks()))
        notes += columns.notes(options)
        self.notes = tuple(filter(None, notes))
        self._rows, self._columns, self._stamps = rows, columns, stamps
        self.num_rows = rows.num_rows
        self.class_names, self.label_codes = declared
        self.has_instance_ids = columns.instance_id is not None
        self.has_truth = columns.truth is not None

    def fingerprint(self) -> str:
        """See `Source.fingerprint`; covers the table, not the images that it names."""
        chosen = [self._options.classes, self._options.image_root, self._options.image_suffix]
        return digest([self.name, str(self._folder), self._stamps, asdict(self._columns), *chosen])

    def _shard(self, first: int, count: int) -> Shard:
        rows = some_rows(self._rows, first, count)
        return TableShard(first, count, self._folder, rows, self._options.remote)


def _check_boxes(rows: pa.Table, names: Sequence[str], data: str) -> list[str]:
    """A sentence where rows are boxes of pictures, which are read as whole pictures.

    Raises DataError where the whole picture would stand for each of several classes.
    """
    plain = {plain_name(name).rpartition(".")[2].replace("_", ""): name for name in names}
    sides = next(([plain[side] for side in box] for box in _BOXES if plain.keys() >= set(box)), None)
    if sides is None:
        return []
    classes = rows.select([URI, RAW_LABEL]).group_by(URI).aggregate([(RAW_LABEL, "count_distinct")])
    several = pc.sum(pc.greater(classes[f"{RAW_LABEL}_count_distinct"], 1)).as_py() or 0
    remedy = "write the boxes as COCO, YOLO or Pascal VOC, where each is searched by its part of the image"
    if several:
        got = f"{counted(several, 'image')} with boxes ({', '.join(sides)}) of several classes"
        raise DataError(expected_got(f"one class per image in {data}", got, remedy))
    return [f"Boxes ({', '.join(sides)}) are left aside, and whole images are searched; to search boxes, {remedy}."]


def _read_texts(places: list[Location], options: SourceOptions) -> tuple[pa.Table, Columns, Declared, list[str]]:
    """The rows of tables in text with the same columns, one after the other."""
    found = [_read_text(place, options) for place in places]
    (first, columns, declared, notes), *others = found
    for place, (_, other, _, _) in zip(places[1:], others, strict=True):
        if other != columns:
            got = f"others in {posixpath.basename(place.path)}"
            expected = f"the columns of {posixpath.basename(places[0].path)} in every file"
            raise DataError(expected_got(expected, got, "keep only files of one data set"))
    return pa.concat_tables([first, *(rows for rows, _, _, _ in others)]), columns, declared, notes


def _read_text(place: Location, options: SourceOptions) -> tuple[pa.Table, Columns, Declared, list[str]]:
    """The rows of a table in text. A line with too many or too few fields is a row with an error, at its place."""
    name = posixpath.basename(place.path)
    broken: dict[int, str] = {}
    found = find_format(place)
    read = found.read_options()

    def quarantine(row: pacsv.InvalidRow) -> str:
        broken[row.number - 1 - read.skip_rows] = (
            f"line with {row.actual_columns} instead of {row.expected_columns} columns"
        )
        return "skip"

    kinds = text_schema(place, found)
    columns = find_columns(kinds, options, name)
    types = {column: pa.int64() if column == INSTANCE_ID else pa.string() for column in found.names}
    convert = pacsv.ConvertOptions(include_columns=columns.names(), column_types=types)
    parse = found.parse_options(invalid_row_handler=quarantine)
    with storage_errors("read", place):
        try:
            with place.stream() as stream:
                table = pacsv.read_csv(stream, read, parse_options=parse, convert_options=convert)
        except (pa.ArrowInvalid, UnicodeDecodeError) as error:
            got = f"'{first_line(error)}'"
            if "error to int64" in got:
                expected, remedy = (
                    f"integers in column {INSTANCE_ID!r} of {name}",
                    "rename the column to number the rows",
                )
                raise DataError(expected_got(expected, got, remedy)) from error
            raise DataError(expected_got(f"{name} to be a table in text", got, "correct the file")) from error
    table, declared = with_points(table, found), declared_classes(kinds, columns, options, name)
    rows = _with_repeated_header(_rows(table, columns, declared), columns)
    return _with_broken(rows, broken), columns, declared, [found.note]


def _of_json(held: JsonTable, name: str, options: SourceOptions) -> tuple[pa.Table, Columns, Declared]:
    """The rows of a table in JSON."""
    table = held.table
    columns = find_columns(with_hints(table.schema, table), options, name)
    if columns.kind == "feature" or columns.payload is not None:
        remedy = "write features as parquet or CSV, or name the column of paths with --uri-column"
        got = f"column {columns.payload!r}" if columns.payload else f"{columns.parts[0]} to {columns.parts[-1]}"
        raise DataError(expected_got(f"paths of images in {name}", got, remedy))
    declared = declared_classes(table.schema, columns, options, name)
    return _rows(table, columns, declared), columns, declared


def _read_parquet(files: list[RowFile], options: SourceOptions) -> tuple[pa.Table, Columns, Declared]:
    columns = find_columns(files[0].schema, options, files[0].name)
    declared = declared_classes(files[0].schema, columns, options, files[0].name)
    parts = []
    for file in [file for file in files if file.num_rows] or files[:1]:
        same_columns(file, columns, files[0].name)
        parts.append(_rows(file.read(columns.names()), columns, declared))
    return pa.concat_tables(parts), columns, declared


def _rows(table: pa.Table, columns: Columns, declared: Declared) -> pa.Table:
    """uri, label, error and, where known, instance_id and truth of every row of the table."""
    assert columns.uri is not None
    return pa.table({URI: text_strings(table[columns.uri])} | raw_columns(table, columns, declared[0] is not None))


def _with_repeated_header(rows: pa.Table, columns: Columns) -> pa.Table:
    """The rows; one that repeats the header, as where files were joined, gets an error."""
    uri, label = columns.uri or "", columns.label
    repeated = pc.fill_null(pc.and_(pc.equal(rows[URI], uri), pc.equal(rows[RAW_LABEL], label)), False)
    if not pc.any(repeated).as_py():
        return rows
    errors = pc.if_else(repeated, "repeated header", rows[RAW_ERROR])
    labels = pc.if_else(repeated, pa.scalar(None, pa.string()), rows[RAW_LABEL])
    names = rows.column_names
    rows = rows.set_column(names.index(RAW_ERROR), RAW_ERROR, errors)
    return rows.set_column(names.index(RAW_LABEL), RAW_LABEL, labels)


def _with_broken(rows: pa.Table, broken: dict[int, str]) -> pa.Table:
    """One more row at the place of each line that could not be parsed: no label, and the reason as its error."""
    if not broken:
        return rows
    reasons = list(broken.values())
    extra = {name: pa.nulls(len(reasons), rows.schema.field(name).type) for name in rows.column_names}
    extra[RAW_ERROR] = pa.array(reasons, pa.string())
    if INSTANCE_ID in extra:
        start = (pc.max(rows[INSTANCE_ID]).as_py() or 0) + 1 if rows.num_rows else 0
        extra[INSTANCE_ID] = pa.array(range(start, start + len(reasons)), pa.int64())
    total = rows.num_rows + len(reasons)
    places = np.fromiter(broken, np.int64, len(broken))
    sound = np.delete(np.arange(total), places)
    order = np.empty(total, dtype=np.int64)
    order[sound], order[places] = np.arange(rows.num_rows), np.arange(rows.num_rows, total)
    return pa.concat_tables([rows, pa.table(extra)]).take(pa.array(order))
