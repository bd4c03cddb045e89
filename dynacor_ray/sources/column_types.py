"""What columns of a table can hold, by their types, and vectors of any form as plain ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def is_real(kind: pa.DataType) -> bool:
    """Whether values are floats or decimals."""
    return bool(pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def is_number(kind: pa.DataType) -> bool:
    """Whether values are integers, floats or decimals."""
    return pa.types.is_integer(kind) or is_real(kind)


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


def valid_text(values: pa.Array[Any]) -> pa.StringArray:
    """Values of any type as strings in valid UTF-8, which a file may claim wrongly; invalid bytes become U+FFFD."""
    try:
        text = values.cast(pa.string())  # which looks at the bytes of some types only
        text.validate(full=True)
    except pa.ArrowInvalid:
        views, large = pa.types.is_string_view(values.type), pa.types.is_large_string(values.type)
        raw = values.cast(pa.binary_view() if views else pa.large_binary() if large else pa.binary()).to_pylist()
        return pa.array([None if item is None else item.decode(errors="replace") for item in raw], pa.string())
    return text


def is_image_type(kind: pa.DataType) -> bool:
    """Whether values can be encoded images: binary, or Hugging Face's struct with a field `bytes`."""
    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and is_image_type(kind.field(index).type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def is_feature_type(kind: pa.DataType) -> bool:
    """Whether values are vectors of floats; tensor extension types count by their storage, lists in lists flat."""
    return is_list(kind) and pa.types.is_floating(_innermost(kind))


def is_vector_type(kind: pa.DataType) -> bool:
    """Whether values are vectors of floats or integers."""
    return is_feature_type(kind) or (is_list(kind) and pa.types.is_integer(_innermost(kind)))


def _innermost(kind: pa.DataType) -> pa.DataType:
    while is_list(kind):
        kind = storage_type(kind).value_type
    return kind


def is_list(kind: pa.DataType) -> bool:
    """Whether values are lists of any kind, also beneath an extension type."""
    kind = storage_type(kind)
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def flat_vectors(column: pa.ChunkedArray[Any]) -> pa.ChunkedArray[Any]:
    """Lists in lists, such as a matrix per row, as one list per row; (N,) of lists."""
    while is_list(column.type) and is_list(column.type.value_type):
        column = pa.chunked_array(
            [_flat(chunk) for chunk in column.chunks], pa.large_list(column.type.value_type.value_type)
        )
    return column


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
    """Columns of numbers as one vector per row; a missing number becomes NaN. Holds one column besides."""
    values = np.empty((table.num_rows, len(parts)), dtype=np.float32)
    with np.errstate(over="ignore"):
        for place, name in enumerate(parts):
            values[:, place] = table[name].cast(pa.float64(), safe=False).to_numpy()
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), len(parts))


def storage_type(kind: pa.DataType) -> pa.DataType:
    """The plain type beneath an extension type, such as Ray's tensors."""
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def plain(column: pa.ChunkedArray[Any]) -> pa.ChunkedArray[Any]:
    """The column without an extension type around it."""
    if not isinstance(column.type, pa.BaseExtensionType):
        return column
    return pa.chunked_array([chunk.storage for chunk in column.chunks], column.type.storage_type)


def without_dictionary(column: pa.ChunkedArray[Any]) -> pa.ChunkedArray[Any]:
    """The values of categories, such as pandas' and polars', as a plain column."""
    if not pa.types.is_dictionary(column.type):
        return column
    kind = column.type.value_type
    kind = pa.large_string() if pa.types.is_string_view(kind) else kind  # of which Arrow can take no values
    return pa.chunked_array([chunk.dictionary.cast(kind).take(chunk.indices) for chunk in column.chunks], kind)


def is_name_type(kind: pa.DataType) -> bool:
    """Whether values can name a file: text or integers."""
    return is_string_type(kind) or pa.types.is_integer(kind)
