"""Roles of the columns of a table, and labels of any type as strings. Reads no file."""

from __future__ import annotations

import fnmatch
import glob
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dynacor_ray.core.errors import ConfigError, DataError, expected_got
from dynacor_ray.core.schema import INSTANCE_ID, RAW_ERROR, RAW_LABEL, TRUE_LABEL
from dynacor_ray.sources.base import COLUMN_OPTIONS, SourceOptions

LABEL_COLUMNS = ("given_label", "label", "labels", "class", "target", "y", "noisy_label")
IMAGE_COLUMNS = ("image", "img", "images")
FEATURE_COLUMNS = ("feature", "features", "embedding", "embeddings")
URI_COLUMNS = (
    *("uri", "path", "image_path", "file", "filename", "file_name", "filepath", "file_path", "filepaths"),
    *("img_path", "image_file", "image_name", "image_uri", "url", "image_url"),
)
ID_COLUMNS = ("image_id", "img_id", "id")
"""Names of columns that hold the name of a file where no better column does."""

_INTEGER = re.compile(r"-?[0-9]{1,1000}")
_NEGATIVE = r"^-[0-9]+$"
_WHOLE = r"^(-?[0-9]+)\.0+$"
_NULL_WORDS = ("nan", "NaN", "NAN", "NULL", "null", "None", "<NA>", "NaT", "N/A", "n/a", "#N/A")
"""What programs write for a missing value. No "none" and no "NA", which are classes of some data."""
_UNNAMED = re.compile(r"column_\d+|Unnamed: \d+|__index_level_\d+__|index")
"""Names of the columns that number the rows, as pandas writes them."""
_NO_LABELS = frozenset(
    {*ID_COLUMNS, "split", "set", "subset", "fold", "partition", "width", "height", "size", "source", "caption"}
)
"""Names of columns that are not taken for labels because no other column is left."""
_NUMBERED = re.compile(r"(.*?)(\d{1,18})")
_LEAST_NUMBERED = 4
_SHOWN = 50
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
    instance_id = INSTANCE_ID if INSTANCE_ID in schema.names else None
    if instance_id:
        expected = f"integers in column {INSTANCE_ID!r} of {where}"
        _require_type(schema, INSTANCE_ID, pa.types.is_integer, expected, "convert or rename the column")
    parts = options.feature_columns and _matching(schema, options.feature_columns, where)
    payload, kind = (None, "feature") if parts else _find_payload(schema, options, where)
    if payload is None and not parts and options.uri_column is None and not _path_columns(schema):
        parts = _numbered(schema, where)
    uri = _find_uri(schema, options, where, required=payload is None and not parts)
    used = {payload, uri, truth, instance_id, *(parts or ())}
    label = options.label_column or _find_label(schema, where, [name for name in schema.names if name not in used])
    for name in (label, truth):
        if name is not None and not is_label_type(schema.field(name).type):
            raise _not_labels(name, schema.field(name).type)
    parts = tuple(name for name in parts or () if name not in (label, truth, instance_id))
    return Columns(label, payload, "feature" if parts else kind, uri, truth, instance_id, parts)


def _find_label(schema: pa.Schema, where: str, left: list[str]) -> str:
    """The one column with a known name, else the only one that is left. Raises DataError when it is not clear."""
    known = _named(schema, LABEL_COLUMNS)
    for name in known:
        if not is_label_type(schema.field(name).type) and len(known) == 1:
            raise _not_labels(name, schema.field(name).type)
    known = [name for name in known if is_label_type(schema.field(name).type)]
    left = [name for name in left if not _UNNAMED.fullmatch(name) and _plain_name(name) not in _NO_LABELS]
    left = [name for name in left if is_label_type(schema.field(name).type) and not _is_real(schema.field(name).type)]
    candidates = known or left
    if len(candidates) == 1:
        return candidates[0]
    expected = f"exactly one label column ({', '.join(LABEL_COLUMNS)}) in {where}"
    raise DataError(expected_got(expected, _present(schema), "name it with --label-column"))


def _not_labels(name: str, kind: pa.DataType) -> DataError:
    several = ", several per row" if _is_list(kind) else ""
    remedy = "give one label per row, or name another column with --label-column"
    return DataError(
        expected_got("labels that are strings or integers", f"column {name!r} of type {kind}{several}", remedy)
    )


def _matching(schema: pa.Schema, patterns: Sequence[str], where: str) -> tuple[str, ...]:
    """Columns of numbers that match any pattern. Raises DataError when there is none, or one holds something else."""
    found = tuple(name for name in schema.names if any(fnmatch.fnmatchcase(name, one) for one in patterns))
    wrong = [name for name in found if not _is_number(schema.field(name).type)]
    if not found or wrong:
        got = f"column {wrong[0]!r} of type {schema.field(wrong[0]).type}" if wrong else _present(schema)
        expected = f"columns of numbers that match {' '.join(patterns)} in {where}"
        raise DataError(expected_got(expected, got, "correct --feature-columns"))
    return found


def _numbered(schema: pa.Schema, where: str) -> tuple[str, ...]:
    """Columns of numbers called NAME0, NAME1, ... or NAME1, NAME2, ...: the one such row of four or more.

    Raises DataError when a few columns of the row hold something else.
    """
    rows: dict[str, dict[int, str]] = {}
    for name in schema.names:
        match = _NUMBERED.fullmatch(name)
        if match:
            rows.setdefault(match.group(1), {})[int(match.group(2))] = name
    full = [row for row in rows.values() if len(row) >= _LEAST_NUMBERED and sorted(row) in _counts(len(row))]
    found = []
    for row in full:
        names = [row[number] for number in sorted(row)]
        wrong = [name for name in names if not _is_number(schema.field(name).type)]
        if wrong and len(wrong) * 2 < len(names):
            got = f"column {wrong[0]!r} of type {schema.field(wrong[0]).type}"
            remedy = "correct it, or name the columns with --feature-columns"
            raise DataError(expected_got(f"numbers in {names[0]} to {names[-1]} of {where}", got, remedy))
        found += [] if wrong else [tuple(names)]
    return found[0] if len(found) == 1 else ()


def _counts(length: int) -> tuple[list[int], list[int]]:
    return list(range(length)), list(range(1, length + 1))


def _is_real(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or _is_real(kind)


def is_label_name(name: str) -> bool:
    """Whether a column of this name holds labels, by its name alone."""
    return _plain_name(name) in LABEL_COLUMNS


def _plain_name(name: str) -> str:
    return re.sub(r"[\s-]+", "_", name.strip().casefold())


def is_label_type(kind: pa.DataType) -> bool:
    """Whether values of this type can be labels."""
    if pa.types.is_dictionary(kind):
        return is_label_type(kind.value_type)
    tests = (
        *(pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_boolean, pa.types.is_null),
        *(pa.types.is_binary, pa.types.is_large_binary),  # text as NumPy's bytes_ write it
    )
    return is_string_type(kind) or any(test(kind) for test in tests)


def is_string_type(kind: pa.DataType) -> bool:
    """Whether values of this type are text, dictionary-encoded or not."""
    if pa.types.is_dictionary(kind):
        return is_string_type(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def is_image_type(kind: pa.DataType) -> bool:
    """Whether values can be encoded images: binary, or Hugging Face's struct with a field `bytes`."""
    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and is_image_type(kind.field(index).type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def is_feature_type(kind: pa.DataType) -> bool:
    """Whether values are vectors of floats; tensor extension types count by their storage, lists in lists flat."""
    return _is_list(kind) and pa.types.is_floating(_innermost(kind))


def _is_vector_type(kind: pa.DataType) -> bool:
    return is_feature_type(kind) or (_is_list(kind) and pa.types.is_integer(_innermost(kind)))


def _innermost(kind: pa.DataType) -> pa.DataType:
    while _is_list(kind):
        kind = storage_type(kind).value_type
    return kind


def _is_list(kind: pa.DataType) -> bool:
    kind = storage_type(kind)
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def flat_vectors(column: pa.ChunkedArray[Any]) -> pa.ChunkedArray[Any]:
    """Lists in lists, such as a matrix per row, as one list per row; (N,) of lists."""
    while _is_list(column.type) and _is_list(column.type.value_type):
        column = pa.chunked_array([_flat(chunk) for chunk in column.chunks], pa.large_list(_value_type(column.type)))
    return column


def _value_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type.value_type


def _flat(outer: pa.Array[Any]) -> pa.Array[Any]:
    """A list array of lists as a list array of what these hold; a null stays one."""
    inner = outer.flatten()
    ends = np.concatenate([[0], np.cumsum(pc.fill_null(pc.list_value_length(inner), 0).to_numpy(zero_copy_only=False))])
    steps = np.concatenate(
        [[0], np.cumsum(pc.fill_null(pc.list_value_length(outer), 0).to_numpy(zero_copy_only=False))]
    )
    offsets, nulls = pa.array(ends[steps], pa.int64()), pc.is_null(outer)
    return pa.LargeListArray.from_arrays(offsets, inner.flatten(), mask=nulls if outer.null_count else None)


def joined_parts(table: pa.Table, parts: Sequence[str]) -> pa.FixedSizeListArray:
    """Columns of numbers as one vector per row; a missing number becomes NaN."""
    columns = [table[name].cast(pa.float64(), safe=False).to_numpy() for name in parts]
    values = np.empty((table.num_rows, len(parts)), dtype=np.float32)
    with np.errstate(over="ignore"):
        for place, column in enumerate(columns):
            values[:, place] = column
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), len(parts))


def storage_type(kind: pa.DataType) -> pa.DataType:
    """The plain type beneath an extension type, such as Ray's tensors."""
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def plain(column: pa.ChunkedArray[Any]) -> pa.ChunkedArray[Any]:
    """The column without an extension type around it."""
    if not isinstance(column.type, pa.BaseExtensionType):
        return column
    return pa.chunked_array([chunk.storage for chunk in column.chunks], column.type.storage_type)


def label_strings(column: pa.ChunkedArray[Any], *, is_declared: bool) -> pa.StringArray:
    """Labels of any usable type as trimmed strings, null where missing (null, NaN, empty).

    The same for every format: whole floats become integers (also "1.0"), booleans False and True, bytes text. Where
    classes are not declared, words such as NULL or nan and negative integers, which many data sets use for "no label",
    are missing, too.

    Args:
        column: labels (N,).
        is_declared: whether classes are declared, so that any text may be one.

    Returns:
        A string array (N,).
    """
    text = pc.replace_substring_regex(text_strings(column), _WHOLE, r"\1")
    return text if is_declared else pc.if_else(_stands_for_missing(text), pa.scalar(None, pa.string()), text)


def _stands_for_missing(text: pa.StringArray) -> pa.BooleanArray:
    return pc.or_(pc.match_substring_regex(text, _NEGATIVE), pc.is_in(text, pa.array(_NULL_WORDS)))


def text_strings(column: pa.ChunkedArray[Any]) -> pa.StringArray:
    """Values of any type that labels may have as trimmed strings (N,); null where null, NaN or empty."""
    values = _combined(column)
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_boolean(values.type):
        text = pc.if_else(values, "True", "False")
    elif pa.types.is_floating(values.type) or pa.types.is_decimal(values.type):
        text = _float_strings(values)
    elif pa.types.is_binary(values.type) or pa.types.is_large_binary(values.type):
        text = pa.array([None if v is None else v.decode(errors="replace") for v in values.to_pylist()], pa.string())
    else:
        text = _utf8(values.cast(pa.string()))
    text = pc.utf8_trim_whitespace(text)
    return pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)


def raw_columns(table: pa.Table, columns: Columns, is_declared: bool) -> dict[str, pa.Array[Any]]:
    """Label, error and, where known, truth and instance id of every row, as in `Shard.read`.

    The error says which label was taken for a missing one.
    is_declared: whether classes are declared, so that no word or integer means a missing label.
    """

    def labels(name: str) -> pa.StringArray:
        return label_strings(table[name], is_declared=is_declared)

    raw = {RAW_LABEL: labels(columns.label), RAW_ERROR: pa.nulls(table.num_rows, pa.string())}
    if not is_declared and raw[RAW_LABEL].null_count:
        raw[RAW_ERROR] = _label_errors(raw[RAW_LABEL], table[columns.label])
    if columns.truth is not None:
        raw[TRUE_LABEL] = labels(columns.truth)
    if columns.instance_id is not None:
        raw[INSTANCE_ID] = table[columns.instance_id].cast(pa.int64(), safe=False)
    return raw


def _label_errors(labels: pa.StringArray, column: pa.ChunkedArray[Any]) -> pa.StringArray:
    """For labels that stand for a missing one, what they were; else null."""
    text = pc.replace_substring_regex(text_strings(column), _WHOLE, r"\1")
    said = pc.binary_join_element_wise("label '", text, "' taken for a missing one", "")
    hidden = pc.and_(pc.is_null(labels), pc.is_valid(text))
    return pc.if_else(hidden, said, pa.scalar(None, pa.string()))


def _combined(column: pa.ChunkedArray[Any]) -> pa.Array[Any]:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    combined = column.combine_chunks()
    return pa.concat_arrays(combined.chunks) if isinstance(combined, pa.ChunkedArray) else combined


def _utf8(text: pa.StringArray) -> pa.StringArray:
    """Strings that are valid UTF-8, which a file may claim wrongly; invalid bytes become U+FFFD."""
    try:
        text.validate(full=True)
    except pa.ArrowInvalid:
        raw = text.cast(pa.binary()).to_pylist()
        return pa.array([None if item is None else item.decode(errors="replace") for item in raw], pa.string())
    return text


def _float_strings(values: pa.Array[Any]) -> pa.StringArray:
    numbers = values.cast(pa.float64()).to_numpy(zero_copy_only=False)
    integral = np.isfinite(numbers) & (np.abs(np.nan_to_num(numbers)) < 2.0**53) & (numbers == np.floor(numbers))
    whole = pa.array(np.where(integral, numbers, 0).astype(np.int64)).cast(pa.string())
    text = pc.if_else(pa.array(integral), whole, pa.array(numbers).cast(pa.string()))
    return pc.if_else(pa.array(np.isnan(numbers)), pa.scalar(None, pa.string()), text)


def is_integer_text(label: str) -> bool:
    """Whether a label is an integer in decimal digits."""
    return _INTEGER.fullmatch(label) is not None


def check_class_names(names: Sequence[str], where: str) -> tuple[str, ...]:
    """Class names as a tuple. Raises ConfigError when a name is empty or repeated."""
    trimmed = tuple(name.strip() for name in names)
    repeated = sorted({name for name in trimmed if trimmed.count(name) > 1}) if len(set(trimmed)) < len(trimmed) else []
    if repeated or not all(trimmed):
        got = f"repeated {', '.join(map(repr, repeated))}" if repeated else "an empty name"
        remedy = "correct the list of classes"
        raise ConfigError(expected_got(f"distinct, non-empty class names in {where}", got, remedy))
    return trimmed


def label_codes(names: Sequence[str], *, index_first: bool = False) -> dict[str, int]:
    """Label in the data -> class index. A label may be a name or an index.

    Where a name looks like an index the name wins, unless `index_first` (integer labels whose names come with the
    data). If all names are integers they are the labels themselves, and indices are not accepted.

    >>> label_codes(["cat", "dog"])
    {'0': 0, '1': 1, 'cat': 0, 'dog': 1}
    >>> label_codes(["3", "7"])
    {'3': 0, '7': 1}
    """
    by_name = {name: code for code, name in enumerate(names)}
    by_index = {str(code): code for code in range(len(names))}
    if index_first:
        return by_name | by_index
    return by_name if all(is_integer_text(name) for name in names) else by_index | by_name


def declared_classes(
    schema: pa.Schema, columns: Columns, options: SourceOptions, where: str
) -> tuple[tuple[str, ...] | None, dict[str, int] | None]:
    """Class names and label codes from the options or the file's metadata; (None, None) if neither has them."""
    if options.classes is not None:
        names = check_class_names(options.classes, "--classes")
        return names, label_codes(names)
    listed = metadata_class_names(schema, columns.label, where)
    if listed is None:
        return None, None
    names = check_class_names(listed, where)
    return names, label_codes(names, index_first=pa.types.is_integer(schema.field(columns.label).type))


def metadata_class_names(schema: pa.Schema, label: str, where: str) -> list[str] | None:
    """Class names in the metadata of a parquet file: key `class_names`, or Hugging Face's ClassLabel; else None.

    Raises:
        DataError: `class_names` is not a JSON list of strings.
    """
    metadata = schema.metadata or {}
    if b"class_names" in metadata:
        names = _json(metadata[b"class_names"])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            got = repr(metadata[b"class_names"][:60])
            raise DataError(expected_got(f"a JSON list of strings as class_names of {where}", got, "pass --classes"))
        return names
    value = _json(metadata.get(b"huggingface", b"null"))
    for step in ("info", "features", label, "names"):
        value = value.get(step) if isinstance(value, dict) else None
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return value
    return None


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


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
    plain_names = {name: _plain_name(name) for name in schema.names}
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
        _require_type(schema, options.feature_column, _is_vector_type, expected, "name another column")
        return options.feature_column, "feature"
    for names, fits, kind in _PAYLOADS:  # a known name before any guess by type
        found = _one(_fitting(schema, names, fits), kind, where)
        if found is not None:
            return found, kind
    if options.uri_column is not None or _path_columns(schema):
        return None, "image"
    for name in _named(schema, FEATURE_COLUMNS):
        expected = f"vectors of numbers in column {name!r} of {where}"
        remedy = "store them as lists, or rename the column"
        _require_type(schema, name, _is_vector_type, expected, remedy)
    for _, fits, kind in _PAYLOADS:
        by_type = is_feature_type if kind == "feature" else fits
        candidates = [field.name for field in schema if by_type(field.type) and field.name != options.label_column]
        unknown = [name for name in candidates if name not in _named(schema, LABEL_COLUMNS)]
        found = _one(unknown, kind, where)
        if found is not None:
            return found, kind
    return None, "image"


_PAYLOADS: tuple[tuple[Sequence[str], _TypeTest, Literal["image", "feature"]], ...] = (
    (IMAGE_COLUMNS, is_image_type, "image"),
    (FEATURE_COLUMNS, _is_vector_type, "feature"),
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


def _find_uri(schema: pa.Schema, options: SourceOptions, where: str, *, required: bool) -> str | None:
    if options.uri_column is not None:
        expected = f"text in column {options.uri_column!r}"
        _require_type(schema, options.uri_column, _is_name_type, expected, "name another column")
        return options.uri_column
    candidates = _path_columns(schema)
    if not required:
        return candidates[0] if candidates else None
    candidates = candidates or _fitting(schema, ID_COLUMNS, _is_name_type)[:1]
    if len(candidates) == 1:
        return candidates[0]
    expected = f"one column of images, feature vectors or image paths in {where}"
    remedy = (
        "name it with --image-column, --feature-column or --uri-column, or columns of numbers with --feature-columns"
    )
    raise DataError(expected_got(expected, _present(schema), remedy))


def _is_name_type(kind: pa.DataType) -> bool:
    return is_string_type(kind) or pa.types.is_integer(kind)
