"""Roles of the columns of a table, by the user's options or by names and types. Reads no file."""

from __future__ import annotations

import fnmatch
import glob
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from dynacor_ray.core.errors import ConfigError, DataError, expected_got
from dynacor_ray.core.schema import INSTANCE_ID, TRUE_LABEL
from dynacor_ray.sources.base import COLUMN_OPTIONS, SourceOptions
from dynacor_ray.sources.column_hints import holds_images, odd_value
from dynacor_ray.sources.column_types import (
    flat_vectors,
    is_feature_type,
    is_image_type,
    is_label_type,
    is_list,
    is_name_type,
    is_number,
    is_real,
    is_string_type,
    is_vector_type,
    joined_parts,
    plain,
)

LABEL_COLUMNS = ("given_label", "label", "labels", "class", "target", "y", "noisy_label", "choice")
_LIKELY_LABEL_COLUMNS = (
    *("category", "category_name", "class_name", "class_label", "label_name", "species"),
    *("class_id", "label_id", "category_id", "class_index", "target_name", "diagnosis"),
)
"""Names of columns that hold labels where none of LABEL_COLUMNS is there; a note says so."""
IMAGE_COLUMNS = ("image", "img", "images")
FEATURE_COLUMNS = ("feature", "features", "embedding", "embeddings", "vector", "vectors", "pixels")
URI_COLUMNS = (
    *("uri", "path", "image_path", "file", "filename", "file_name", "filepath", "file_path", "filepaths"),
    *("img_path", "image_file", "image_name", "image_uri", "url", "image_url"),
)
ID_COLUMNS = ("image_id", "img_id", "id", "id_code")
"""Names of columns that hold the name of a file, or of a row, where no better column does."""
_INDEX_COLUMNS = ("__index_level_0__", "index")
"""Names of the columns that pandas makes of an index."""
_UNNAMED = re.compile(r"column_\d+|Unnamed: \d+|__index_level_\d+__|index")
"""Names of the columns that number the rows, as pandas writes them."""
_MADE_UP = re.compile(r"column_\d+")
"""Names of the columns of a text without any."""
_NO_LABELS = frozenset(
    {*ID_COLUMNS, "split", "set", "subset", "fold", "partition", "width", "height", "size", "source", "caption"}
)
"""Names of columns that are not taken for labels because no other column is left."""
_NO_FEATURES = frozenset({*ID_COLUMNS, "split", "set", "subset", "fold", "partition"})
"""Names of columns of numbers that measure nothing."""
_WORD_ENDS = re.compile(r"(?<=[a-z])(?=[A-Z])|[\s-]+")
_NUMBERED = re.compile(r"(.*?)(\d{1,18})")
_LEAST_NUMBERED = 4
_SHOWN = 20
_TypeTest = Callable[[pa.DataType], bool]


@dataclass(frozen=True)
class Columns:
    """The columns in use.

    Attributes:
        label: given labels.
        payload: images or feature vectors; None when the table only names image files in `uri`.
        kind: what the payload holds.
        parts: columns of numbers that together are the payload, instead of one.
        uri: origin of a row.
        truth: true labels.
        instance_id: ids of the table's own.
    """

    label: str
    payload: str | None
    kind: Literal["image", "feature"]
    uri: str | None
    truth: str | None
    instance_id: str | None
    parts: tuple[str, ...] = ()

    def names(self) -> list[str]:
        """All of them, each once."""
        names = [self.label, self.payload, self.uri, self.truth, self.instance_id, *self.parts]
        return list(dict.fromkeys(name for name in names if name is not None))

    def payload_of(self, table: pa.Table) -> Any:
        """The images, or a list of numbers per row, of a table with these columns; (N,), of a plain type."""
        if self.payload is None:
            return joined_parts(table, self.parts)
        column = plain(table[self.payload])
        return flat_vectors(column) if self.kind == "feature" else column

    def notes(self, options: SourceOptions) -> list[str]:
        """What was taken for what where `options` do not say it."""
        said = []
        if self.parts:
            said.append(f"{len(self.parts):,} columns, {self.parts[0]} to {self.parts[-1]}, are the features.")
        if options.label_column is None and not is_label_name(self.label):
            said.append(f"Column {self.label!r} taken for the labels.")
        paths = None if self.payload or self.parts or options.uri_column else self.uri
        if paths and plain_name(paths) not in (*URI_COLUMNS, *IMAGE_COLUMNS, *ID_COLUMNS):
            said.append(f"Column {paths!r} taken for the paths of images.")
        return said

    def explicit(self) -> SourceOptions:
        """Options that name each of these columns, to check whether another file has them too."""
        return SourceOptions(
            label_column=self.label,
            image_column=self.payload if self.kind == "image" else None,
            feature_column=self.payload if self.kind == "feature" else None,
            uri_column=self.uri,
            truth_column=self.truth,
            feature_columns=tuple(map(glob.escape, self.parts)) or None,
        )


def find_columns(schema: pa.Schema, options: SourceOptions, where: str) -> Columns:
    """Assign a role to each column, by the options or else by names and types.

    Args:
        schema: columns of the table.
        options: columns that the user named.
        where: the file, for messages.

    Raises:
        DataError: a column is missing, ambiguous or of an unusable type; the message lists those present.
        ConfigError: both an image and a feature column are named.
    """
    try:
        distinct = set(schema.names)
    except UnicodeDecodeError as error:
        raise DataError(expected_got(f"column names of {where} as UTF-8", "other bytes", "write it again")) from error
    if len(distinct) < len(schema.names):
        raise DataError(expected_got(f"distinct column names in {where}", _present(schema), "rename the repeated ones"))
    for option in COLUMN_OPTIONS:
        name = getattr(options, option)
        if name is not None and name not in schema.names:
            remedy = f"correct --{option.replace('_', '-')}"
            raise DataError(expected_got(f"a column {name!r} in {where}", _present(schema), remedy))
    truth = options.truth_column or (TRUE_LABEL if TRUE_LABEL in schema.names else None)
    is_text = INSTANCE_ID in schema.names and is_string_type(schema.field(INSTANCE_ID).type)
    instance_id = INSTANCE_ID if INSTANCE_ID in schema.names and not is_text else None
    if instance_id:
        expected = f"integers in column {INSTANCE_ID!r} of {where}"
        _require_type(schema, INSTANCE_ID, pa.types.is_integer, expected, "convert or rename the column")
    labels = {options.label_column, truth, *_named_labels(schema)}
    parts = options.feature_columns and _matching(schema, options.feature_columns, labels, where)
    payload, kind = (None, "feature") if parts else _find_payload(schema, options, where)
    if payload is None and not parts and options.uri_column is None and not _path_columns(schema):
        parts = _numbered(schema, options.label_column, where)
        if not parts and not _image_names(schema):
            parts = _measured(schema, options.label_column, truth)
    uri = _find_uri(schema, options, where, required=payload is None and not parts)
    used = {payload, uri, truth, instance_id, *(parts or ())}
    left = [name for name in schema.names if name not in used and name != INSTANCE_ID]
    label = options.label_column or _find_label(schema, where, left)
    for name in (label, truth):
        if name is not None and not is_label_type(schema.field(name).type):
            raise _not_labels(name, schema.field(name).type)
    parts = tuple(name for name in parts or () if name not in (label, truth, instance_id))
    return Columns(label, payload, "feature" if parts else kind, uri, truth, instance_id, parts)


def _find_label(schema: pa.Schema, where: str, left: list[str]) -> str:
    """The one column with a known name, else the only one that is left. Raises DataError when it is not clear."""
    known = _named_labels(schema)
    for name in known:
        if not is_label_type(schema.field(name).type) and len(known) == 1:
            raise _not_labels(name, schema.field(name).type)
    known = [name for name in known if is_label_type(schema.field(name).type)]
    left = [name for name in left if could_be_labels(name)]
    left = [name for name in left if is_label_type(schema.field(name).type) and not is_real(schema.field(name).type)]
    candidates = known or left
    if len(candidates) == 1:
        return candidates[0]
    raise _no_one_label(schema, where)


def _no_one_label(schema: pa.Schema, where: str) -> DataError:
    expected, remedy = (
        f"exactly one label column ({', '.join(LABEL_COLUMNS)}) in {where}",
        "name it with --label-column",
    )
    if schema.names and all(map(_MADE_UP.fullmatch, schema.names)):
        remedy += f", such as {schema.names[0]}: there is no line with names, so columns are counted"
    return DataError(expected_got(expected, _present(schema), remedy))


def _named_labels(schema: pa.Schema) -> list[str]:
    """The columns named for labels; of several none of fractions, such as the y beside an x and a label."""
    named = _named(schema, LABEL_COLUMNS) or _named(schema, _LIKELY_LABEL_COLUMNS)
    return [name for name in named if len(named) == 1 or not is_real(schema.field(name).type)] or named


def _not_labels(name: str, kind: pa.DataType) -> DataError:
    several = ", several per row" if is_list(kind) else ""
    remedy = "give one label per row, or name another column with --label-column"
    return DataError(
        expected_got("labels that are strings or integers", f"column {name!r} of type {kind}{several}", remedy)
    )


def _matching(
    schema: pa.Schema, patterns: Sequence[str], labels: Collection[str | None], where: str
) -> tuple[str, ...]:
    """Columns of numbers that match any pattern. Raises DataError when there is none, or one holds something else.

    labels: Columns that may be those of labels, which are no features where they are text.
    """
    found = tuple(name for name in schema.names if any(fnmatch.fnmatchcase(name, one) for one in patterns))
    found = tuple(name for name in found if name not in labels or is_number(schema.field(name).type))
    wrong = [name for name in found if not is_number(schema.field(name).type)]
    if not found or wrong:
        got = f"column {wrong[0]!r} of type {schema.field(wrong[0]).type}" if wrong else _present(schema)
        expected = f"columns of numbers that match {' '.join(patterns)} in {where}"
        raise DataError(expected_got(expected, got, "correct --feature-columns"))
    return found


def _numbered(schema: pa.Schema, label: str | None, where: str) -> tuple[str, ...]:
    """Columns of numbers called NAME0, NAME1, ... or NAME1, NAME2, ...: the one such row of four or more.

    label: a column of the row that is none of them. Raises DataError when a few others hold something else.
    """
    rows: dict[str, dict[int, str]] = {}
    for name in schema.names:
        match = _NUMBERED.fullmatch(name)
        if match:
            rows.setdefault(match.group(1), {})[int(match.group(2))] = name
    full = [row for row in rows.values() if len(row) >= _LEAST_NUMBERED and sorted(row) in _counts(len(row))]
    found = []
    for row in full:
        names = [row[number] for number in sorted(row) if row[number] != label]
        wrong = [name for name in names if not is_number(schema.field(name).type)]
        if wrong and len(wrong) * 2 < len(names):
            odd = odd_value(schema.field(wrong[0]))
            got = f"column {wrong[0]!r} " + (f"with {odd!r}" if odd else f"of type {schema.field(wrong[0]).type}")
            remedy = "correct it, name it with --label-column, or the features with --feature-columns"
            raise DataError(expected_got(f"numbers in {names[0]} to {names[-1]} of {where}", got, remedy))
        found += [] if wrong else [tuple(names)]
    return found[0] if len(found) == 1 else ()


def _measured(schema: pa.Schema, label: str | None, truth: str | None) -> tuple[str, ...]:
    """All columns of numbers in a table of measurements: two or more beside a column of labels, and nothing else.

    Labels are those of `label` or of a usual name, else the only text. Without such a name, or beside numbers that may
    name files, two columns must hold fractions: whole numbers may be ids, or classes in columns of 0 and 1.
    """
    named = [name for name in _named_labels(schema) if is_label_type(schema.field(name).type)]
    texts = [field.name for field in schema if is_string_type(field.type) and field.name != truth]
    labels = [label] if label is not None else named or texts
    ids = [name for name in _named(schema, ID_COLUMNS) if name not in labels]
    if len(labels) != 1 or any(is_string_type(schema.field(name).type) for name in ids):
        return ()
    others = [field for field in schema if is_number(field.type) and field.name not in (*labels, truth, INSTANCE_ID)]
    found = [one for one in others if not _UNNAMED.fullmatch(one.name) and plain_name(one.name) not in _NO_FEATURES]
    is_sure = bool(label is not None or named) and not ids
    is_enough = len(found) > 1 and (is_sure or sum(is_real(one.type) for one in found) > 1)
    return tuple(one.name for one in found) if is_enough else ()


def _counts(length: int) -> tuple[list[int], list[int]]:
    return list(range(length)), list(range(1, length + 1))


def could_be_labels(name: str) -> bool:
    """Whether a column of this name may hold labels where no name says so, as one that numbers the rows does not."""
    return not _UNNAMED.fullmatch(name) and plain_name(name) not in _NO_LABELS


def is_label_name(name: str) -> bool:
    """Whether a column of this name holds labels, by its name alone."""
    return plain_name(name) in LABEL_COLUMNS


def plain_name(name: str) -> str:
    """A name of a column as it is compared.

    >>> plain_name("ClassId "), plain_name("Image-Path"), plain_name("file name")
    ('class_id', 'image_path', 'file_name')
    """
    return _WORD_ENDS.sub("_", name.strip()).casefold()


def _present(schema: pa.Schema) -> str:
    more = f" and {len(schema.names) - _SHOWN:,} more" if len(schema.names) > _SHOWN else ""
    return "the columns " + ", ".join(schema.names[:_SHOWN]) + more if schema.names else "no columns"


def _require_type(schema: pa.Schema, name: str, fits: _TypeTest, expected: str, remedy: str) -> None:
    kind = schema.field(name).type
    if not fits(kind):
        raise DataError(expected_got(expected, f"type {kind}", remedy))


def _named(schema: pa.Schema, names: Sequence[str]) -> list[str]:
    """The columns with one of these names, in the order of the names; case, blanks and hyphens do not count.

    A name that is spelled exactly so goes before others that are the same otherwise.
    """
    exact = [name for name in names if name in schema.names]
    if exact:
        return exact
    plain_names = {name: plain_name(name) for name in schema.names}
    return [column for name in names for column, spelled in plain_names.items() if spelled == name]


def _fitting(schema: pa.Schema, names: Sequence[str], fits: _TypeTest) -> list[str]:
    """The columns with one of these names that have a fitting type."""
    return [name for name in _named(schema, names) if fits(schema.field(name).type)]


def _find_payload(
    schema: pa.Schema, options: SourceOptions, where: str
) -> tuple[str | None, Literal["image", "feature"]]:
    if options.image_column is not None and options.feature_column is not None:
        raise ConfigError(expected_got("an image column or a feature column", "both", "name only one of the two"))
    if options.image_column is not None:
        expected = f"image bytes in column {options.image_column!r}"
        remedy = "name another column, or the column of paths with --uri-column"
        _require_type(schema, options.image_column, is_image_type, expected, remedy)
        return options.image_column, "image"
    if options.feature_column is not None:
        expected = f"vectors of floats in column {options.feature_column!r}"
        _require_type(schema, options.feature_column, is_vector_type, expected, "name another column")
        return options.feature_column, "feature"
    for names, fits, kind in _PAYLOADS:  # a known name before any guess by type
        found = _one(_fitting(schema, names, fits), kind, where)
        if found is not None:
            return found, kind
    if options.uri_column is not None or _path_columns(schema):
        return None, "image"
    for name in _named(schema, FEATURE_COLUMNS):
        expected = f"vectors of numbers in column {name!r} of {where}"
        remedy = "store them as lists in parquet, or a number per column in CSV; or rename the column"
        _require_type(schema, name, is_vector_type, expected, remedy)
    for name in _named(schema, IMAGE_COLUMNS) if options.feature_column is None else ():
        if is_list(schema.field(name).type):
            expected = f"encoded images, as files hold them, in column {name!r} of {where}"
            _require_type(schema, name, is_image_type, expected, "write them as PNG or JPEG, or pixels as .npz")
    for _, fits, kind in _PAYLOADS:
        by_type = is_feature_type if kind == "feature" else fits
        candidates = [field.name for field in schema if by_type(field.type) and field.name != options.label_column]
        unknown = [name for name in candidates if name not in _named_labels(schema)]
        found = _one(unknown, kind, where)
        if found is not None:
            return found, kind
    return None, "image"


_PAYLOADS: tuple[tuple[Sequence[str], _TypeTest, Literal["image", "feature"]], ...] = (
    (IMAGE_COLUMNS, is_image_type, "image"),
    (FEATURE_COLUMNS, is_vector_type, "feature"),
)


def _one(candidates: list[str], role: str, where: str) -> str | None:
    """The one candidate, or None if there is none. Raises DataError for several."""
    if len(candidates) > 1:
        got = ", ".join(candidates)
        raise DataError(expected_got(f"one {role} column in {where}", got, f"choose one with --{role}-column"))
    return candidates[0] if candidates else None


def _path_columns(schema: pa.Schema) -> list[str]:
    """Columns of paths by their names: those of paths, else text in a column named for images."""
    return _fitting(schema, URI_COLUMNS, is_string_type) or _fitting(schema, IMAGE_COLUMNS, is_string_type)


def _image_names(schema: pa.Schema) -> list[str]:
    """Columns that hold names of image files by what was seen of them, whatever they are called."""
    return [field.name for field in schema if holds_images(field)]


def _find_uri(schema: pa.Schema, options: SourceOptions, where: str, *, required: bool) -> str | None:
    if options.uri_column is not None:
        expected = f"text in column {options.uri_column!r}"
        _require_type(schema, options.uri_column, is_name_type, expected, "name another column")
        return options.uri_column
    candidates = _path_columns(schema)
    if not required:
        # ids that are text name the rows, which are numbered by position
        candidates = candidates or _fitting(schema, (INSTANCE_ID, *_INDEX_COLUMNS), is_string_type)
        candidates = candidates or _image_names(schema) or _fitting(schema, ID_COLUMNS, is_name_type)
        return candidates[0] if candidates else None
    candidates = candidates or _image_names(schema) or _fitting(schema, ID_COLUMNS, is_name_type)[:1]
    if len(candidates) == 1:
        return candidates[0]
    if options.label_column is None and not _named_labels(schema) and sum(is_real(field.type) for field in schema) > 1:
        raise _no_one_label(schema, where)  # of a table of measurements it is the labels that are not found
    expected = f"one column of images, feature vectors or image paths in {where}"
    remedy = (
        "name it with --image-column, --feature-column or --uri-column, or columns of numbers with --feature-columns"
    )
    raise DataError(expected_got(expected, _present(schema), remedy))
