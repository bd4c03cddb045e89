"""Labels that a Python process holds as a column."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from dynacor_ray.core.errors import DataError, expected_got, first_line
from dynacor_ray.sources.column_types import is_label_type
from dynacor_ray.sources.in_memory import as_array


def is_pandas(data: Any) -> bool:
    """Whether data are a frame or a series of pandas."""
    return type(data).__module__.partition(".")[0] == "pandas" and hasattr(data, "iloc")


def label_column(labels: Any, num_rows: int) -> pa.ChunkedArray[Any]:
    """Labels of any kind as a column. Raises DataError when they are no column, or not one per row."""
    labels = as_array(labels)
    if isinstance(labels, Mapping):
        raise DataError(expected_got("labels as a list or column", "a dictionary", "pass list(labels.values())"))
    if isinstance(labels, np.ndarray) and not labels.dtype.isnative:
        labels = labels.astype(labels.dtype.newbyteorder("="))
    if isinstance(labels, np.ndarray) and labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if isinstance(labels, np.ndarray) and labels.ndim == 2 and labels.dtype.kind in "biuf":
        if not (np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) == 1).all()):
            got = f"{labels.shape} with other rows than one 1 and zeros"
            raise DataError(expected_got("labels of shape (N,), or one-hot", got, "pass one class per row"))
        labels = labels.argmax(axis=1)
    if isinstance(labels, np.ndarray) and labels.ndim != 1:
        raise DataError(expected_got("labels of shape (N,)", f"{labels.shape}", "pass one class per row"))
    try:
        if hasattr(labels, "__arrow_c_stream__") and not is_pandas(labels):
            column = pa.chunked_array(labels)
        else:
            items = (
                [as_array(item).item() if np.ndim(item) == 0 and hasattr(item, "item") else item for item in labels]
                if isinstance(labels, (list, tuple))
                else labels
            )
            made = pa.array(items, from_pandas=True)
            column = made if isinstance(made, pa.ChunkedArray) else pa.chunked_array([made])
    except (pa.ArrowException, TypeError, ValueError) as error:
        got = f"'{first_line(error)}'"
        raise DataError(expected_got("labels that are all text or all integers", got, "convert them")) from error
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not is_label_type(kind):
        raise DataError(expected_got("labels that are text or integers", f"type {kind}", "pass one label per row"))
    if len(column) != num_rows:
        remedy = "pass both in the same order"
        raise DataError(expected_got(f"{num_rows:,} labels, one per row", f"{len(column):,}", remedy))
    return column
