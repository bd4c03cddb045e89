"""Labels of any type as text, the same from every format, and which of them stand for a missing one."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dynacor_ray.core.schema import INSTANCE_ID, RAW_ERROR, RAW_LABEL, TRUE_LABEL
from dynacor_ray.sources.column_types import valid_text, without_dictionary
from dynacor_ray.sources.columns import Columns

_INTEGER = re.compile(r"-?[0-9]{1,1000}")
_NEGATIVE = r"^-0*[1-9][0-9]*$"
_WHOLE = r"^(-?[0-9]+)\.0+$"
_NULL_WORDS = ("nan", "NaN", "NAN", "NULL", "null", "None", "<NA>", "NaT", "N/A", "n/a", "#N/A")
"""What programs write for a missing value. No "none" and no "NA", which are classes of some data."""


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
    text = _whole(text_strings(column))
    if is_declared:
        return text
    stands_for_missing = pc.or_(pc.match_substring_regex(text, _NEGATIVE), pc.is_in(text, pa.array(_NULL_WORDS)))
    return pc.if_else(stands_for_missing, pa.scalar(None, pa.string()), text)


def _whole(text: pa.StringArray) -> pa.StringArray:
    """Whole numbers without decimals or the sign of a zero: 1.0 is 1, -0.0 is 0."""
    return pc.replace_substring_regex(pc.replace_substring_regex(text, _WHOLE, r"\1"), r"^-0$", "0")


def text_strings(column: pa.ChunkedArray[Any]) -> pa.StringArray:
    """Values of any type that labels may have as trimmed strings (N,); null where null, NaN or empty."""
    values = _combined(column)
    if pa.types.is_boolean(values.type):
        text = pc.if_else(values, "True", "False")
    elif pa.types.is_floating(values.type) or pa.types.is_decimal(values.type):
        text = _float_strings(values)
    elif pa.types.is_binary(values.type) or pa.types.is_large_binary(values.type):
        text = pa.array([None if v is None else v.decode(errors="replace") for v in values.to_pylist()], pa.string())
    else:
        text = valid_text(values)
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
    text = _whole(text_strings(column))
    said = pc.binary_join_element_wise("label '", text, "' taken for a missing one", "")
    hidden = pc.and_(pc.is_null(labels), pc.is_valid(text))
    return pc.if_else(hidden, said, pa.scalar(None, pa.string()))


def _combined(column: pa.ChunkedArray[Any]) -> pa.Array[Any]:
    combined = without_dictionary(column).combine_chunks()
    return pa.concat_arrays(combined.chunks) if isinstance(combined, pa.ChunkedArray) else combined


def _float_strings(values: pa.Array[Any]) -> pa.StringArray:
    numbers = values.cast(pa.float64()).to_numpy(zero_copy_only=False)
    integral = np.isfinite(numbers) & (np.abs(np.nan_to_num(numbers)) < 2.0**53) & (numbers == np.floor(numbers))
    whole = pa.array(np.where(integral, numbers, 0).astype(np.int64)).cast(pa.string())
    text = pc.if_else(pa.array(integral), whole, pa.array(numbers).cast(pa.string()))
    return pc.if_else(pa.array(np.isnan(numbers)), pa.scalar(None, pa.string()), text)


def is_integer_text(label: str) -> bool:
    """Whether a label is an integer in decimal digits."""
    return _INTEGER.fullmatch(label) is not None
