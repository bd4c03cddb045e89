"""Roles of the columns of a table, and labels of any type as strings. Reads no file."""

from __future__ import annotations

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
URI_COLUMNS = ("uri", "path", "image_path", "file", "filename", "file_name")

_INTEGER = re.compile(r"-?[0-9]+")
_NEGATIVE = r"^-[0-9]+$"
_SHOWN = 50
_TypeTest = Callable[[pa.DataType], bool]


@dataclass(frozen=True)
class Columns:
    """The columns in use.

    Attributes:
        label: given labels.
        payload: images or feature vectors; None when the table only names image files in `uri`.
        kind: what the payload holds.
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

    def names(self) -> list[str]:
        """All of them, each once."""
        names = [self.label, self.payload, self.uri, self.truth, self.instance_id]
        return list(dict.fromkeys(name for name in names if name is not None))

    def explicit(self) -> SourceOptions:
        """Options that name each of these columns, to check whether another file has them too."""
        return SourceOptions(
            label_column=self.label,
            image_column=self.payload if self.kind == "image" else None,
            feature_column=self.payload if self.kind == "feature" else None,
            uri_column=self.uri,
            truth_column=self.truth,
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
    if len(set(schema.names)) < len(schema.names):
        raise DataError(expected_got(f"distinct column names in {where}", _present(schema), "rename the repeated ones"))
    for option in COLUMN_OPTIONS:
        name = getattr(options, option)
        if name is not None and name not in schema.names:
            remedy = f"correct --{option.replace('_', '-')}"
            raise DataError(expected_got(f"a column {name!r} in {where}", _present(schema), remedy))
    truth = options.truth_column or (TRUE_LABEL if TRUE_LABEL in schema.names else None)
    label = options.label_column or _only(schema, LABEL_COLUMNS, "label", where, is_label_type)
    for name in (label, truth):
        if name is not None and not is_label_type(schema.field(name).type):
            got = f"column {name!r} of type {schema.field(name).type}"
            remedy = "convert them or name another column"
            raise DataError(expected_got("labels that are strings or integers", got, remedy))
    instance_id = INSTANCE_ID if INSTANCE_ID in schema.names else None
    if instance_id:
        expected = f"integers in column {INSTANCE_ID!r} of {where}"
        _require_type(schema, INSTANCE_ID, pa.types.is_integer, expected, "convert or rename the column")
    payload, kind = _find_payload(schema, options, where)
    uri = _find_uri(schema, options, where, required=payload is None)
    return Columns(label, payload, kind, uri, truth, instance_id)


def is_label_type(kind: pa.DataType) -> bool:
    """Whether values of this type can be labels."""
    if pa.types.is_dictionary(kind):
        return is_label_type(kind.value_type)
    tests = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_boolean, pa.types.is_null)
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
    """Whether values are vectors of floats; tensor extension types count by their storage."""
    return _is_list(kind) and pa.types.is_floating(storage_type(kind).value_type)


def _is_vector_type(kind: pa.DataType) -> bool:
    return is_feature_type(kind) or (_is_list(kind) and pa.types.is_integer(storage_type(kind).value_type))


def _is_list(kind: pa.DataType) -> bool:
    kind = storage_type(kind)
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def storage_type(kind: pa.DataType) -> pa.DataType:
    """The plain type beneath an extension type, such as Ray's tensors."""
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def plain(column: pa.ChunkedArray[Any]) -> pa.ChunkedArray[Any]:
    """The column without an extension type around it."""
    if not isinstance(column.type, pa.BaseExtensionType):
        return column
    return pa.chunked_array([chunk.storage for chunk in column.chunks], column.type.storage_type)


def label_strings(column: pa.ChunkedArray[Any], *, negative_is_missing: bool) -> pa.StringArray:
    """Labels of any usable type as trimmed strings, null where missing (null, NaN, empty).

    Integral floats become integers, booleans 0 and 1.

    Args:
        column: labels (N,).
        negative_is_missing: whether negative integers, which many data sets use for "no label", become null.

    Returns:
        A string array (N,).
    """
    values = _combined(column)
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_boolean(values.type):
        values = values.cast(pa.int8())
    if pa.types.is_floating(values.type) or pa.types.is_decimal(values.type):
        text = _float_strings(values)
    else:
        text = _utf8(values.cast(pa.string()))
    text = pc.utf8_trim_whitespace(text)
    missing = pc.equal(text, "")
    if negative_is_missing:
        missing = pc.or_(missing, pc.match_substring_regex(text, _NEGATIVE))
    return pc.if_else(missing, pa.scalar(None, pa.string()), text)


def raw_columns(table: pa.Table, columns: Columns, is_declared: bool) -> dict[str, pa.Array[Any]]:
    """Label, error and, where known, truth and instance id of every row, as in `Shard.read`; no row has an error.

    is_declared: whether classes are declared, so that no integer means a missing label.
    """

    def labels(name: str) -> pa.StringArray:
        return label_strings(table[name], negative_is_missing=not is_declared)

    raw = {RAW_LABEL: labels(columns.label), RAW_ERROR: pa.nulls(table.num_rows, pa.string())}
    if columns.truth is not None:
        raw[TRUE_LABEL] = labels(columns.truth)
    if columns.instance_id is not None:
        raw[INSTANCE_ID] = table[columns.instance_id].cast(pa.int64(), safe=False)
    return raw


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


def _fitting(schema: pa.Schema, names: Sequence[str], fits: _TypeTest) -> list[str]:
    """The names that are columns of a fitting type."""
    return [name for name in names if name in schema.names and fits(schema.field(name).type)]


def _only(schema: pa.Schema, known: Sequence[str], role: str, where: str, fits: _TypeTest) -> str:
    """The one column with a name known for this role. Raises DataError when there is none, or several."""
    candidates = _fitting(schema, known, fits)
    if len(candidates) == 1:
        return candidates[0]
    expected = f"exactly one {role} column ({', '.join(known)}) in {where}"
    raise DataError(expected_got(expected, _present(schema), f"name it with --{role}-column"))


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
    image = _guess(schema, IMAGE_COLUMNS, "image", is_image_type, where)
    if image is not None:
        return image, "image"
    return _guess(schema, FEATURE_COLUMNS, "feature", is_feature_type, where), "feature"


def _guess(schema: pa.Schema, known: Sequence[str], role: str, fits: _TypeTest, where: str) -> str | None:
    """A column of a known name and a fitting type, else the only column of a fitting type, else None."""
    candidates = _fitting(schema, known, fits) or _fitting(schema, schema.names, fits)
    if len(candidates) > 1:
        got = ", ".join(candidates)
        raise DataError(expected_got(f"one {role} column in {where}", got, f"choose one with --{role}-column"))
    return candidates[0] if candidates else None


def _find_uri(schema: pa.Schema, options: SourceOptions, where: str, *, required: bool) -> str | None:
    if options.uri_column is not None:
        expected = f"text in column {options.uri_column!r}"
        _require_type(schema, options.uri_column, is_string_type, expected, "name another column")
        return options.uri_column
    candidates = _fitting(schema, (*URI_COLUMNS, *IMAGE_COLUMNS), is_string_type)
    if not required:
        return candidates[0] if candidates else None
    if len(candidates) == 1:
        return candidates[0]
    expected = f"one column of images, feature vectors or image paths in {where}"
    remedy = "name it with --image-column, --feature-column or --uri-column"
    raise DataError(expected_got(expected, _present(schema), remedy))
