"""From what a Python user holds to an opened source."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from dynacor_ray.core import schema
from dynacor_ray.core.errors import ConfigError, DataError, expected_got, first_line
from dynacor_ray.sources.base import Source, SourceOptions
from dynacor_ray.sources.class_names import declared_classes
from dynacor_ray.sources.column_hints import with_hints
from dynacor_ray.sources.columns import LABEL_COLUMNS, find_columns
from dynacor_ray.sources.frames import ArrowRows, FrameSource, HuggingFaceTable, StoredTable
from dynacor_ray.sources.in_memory import as_array, encoded
from dynacor_ray.sources.one_hot import LABEL, are_one_hot, labels_of, one_hot_columns
from dynacor_ray.sources.python_items import dimensions, first_item, open_items
from dynacor_ray.sources.python_labels import is_pandas, label_column

_FRAME = "the table"
_NO_ROWS = "labeled rows", "0 rows", "check how the data were made"


def open_python(data: Any, labels: Any, options: SourceOptions, split: str | None = None) -> Source:
    """Open data that a Python process holds.

    Args:
        data: See `python_items.HELD`, or a `StoredTable`; a text is a pattern of image paths, such as "photos/*.jpg",
            in order of their names.
        labels: One label per row: list, array, tensor or column; of tables the name of their column, or None.
        options: Columns and classes that the user asked for.
        split: Which part of a Hugging Face `DatasetDict`.

    Raises:
        DataError: Data or labels are of another kind or shape, or their lengths differ.
        ConfigError: A split is needed or unknown.
    """
    data = _listed_rows(as_array(_split_of(data, split)))
    if hasattr(data, "features") and hasattr(data, "with_format"):
        if not hasattr(data, "__len__"):
            raise DataError(expected_got("a data set with a length", "a stream", "load it without streaming=True"))
        data = HuggingFaceTable(data)
    index = data.index if is_pandas(data) else None
    if index is not None and data.ndim == 2:
        data = _plain_columns(data)
    _check_same_index(index, labels)
    if isinstance(data, np.ndarray) and data.dtype.names:
        data = _as_arrow(lambda: pa.table({name: np.ascontiguousarray(data[name]) for name in data.dtype.names}))
    if isinstance(data, StoredTable):
        source: Source = _open_stored(data, labels, options)
    elif _is_table(data, labels):
        source = _open_table(data, labels, options, index)
    else:
        source = open_items(data, labels, options, _index_table(index, None))
    if source.num_rows == 0:
        raise DataError(expected_got(*_NO_ROWS))
    return source


def _plain_columns(frame: Any) -> Any:
    """A frame without sparse columns; numbers, paths and images that are held as objects as Arrow has them."""
    sparse = [name for name, kind in frame.dtypes.items() if hasattr(kind, "fill_value")]
    frame = frame.astype({name: frame.dtypes[name].subtype for name in sparse}).infer_objects()
    if not frame.columns.is_unique:
        return frame
    plain = frame.copy(deep=False)
    for name in (name for name, kind in frame.dtypes.items() if getattr(kind, "kind", "") == "O"):
        first = first_item(frame[name])
        if _plain_value(first) is not first:
            plain[name] = [_plain_value(value) for value in frame[name]]
    return plain


def _plain_value(value: Any) -> Any:
    """A path as text, an image as the bytes of a file, a tensor as an array: as Arrow has them; others as they are."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    value = as_array(value)
    if isinstance(value, Image.Image) or (isinstance(value, np.ndarray) and value.ndim in (2, 3)):
        return encoded(value)[0] or value
    return value


def _split_of(data: Any, split: str | None) -> Any:
    """The part of a dictionary of data sets that is asked for, or its only one."""
    if not isinstance(data, Mapping):
        if split is not None:
            raise ConfigError(expected_got("a DatasetDict for split=", type(data).__name__, "leave split= out"))
        return data
    names = [str(name) for name in data]
    if any(isinstance(as_array(part), (np.ndarray, list, tuple)) for part in data.values()):
        given = next((name for name in LABEL_COLUMNS if name in names), names[-1])
        rows = next((name for name in names if name != given), names[0])
        remedy = f"pass two of them, as in detect(data[{rows!r}], data[{given!r}])"
        raise DataError(expected_got("features or images, and labels", f"a dictionary of {', '.join(names)}", remedy))
    if split is None and len(names) == 1:
        split = names[0]
    if split not in data:
        got = "none" if split is None else repr(split)
        raise ConfigError(expected_got(f"split= to be one of {', '.join(names)}", got, "pass one of them"))
    return data[split]


def _listed_rows(data: Any) -> Any:
    """A list of records, or of vectors of which some are missing or of another length, as a table; else the data."""
    if not isinstance(data, (list, tuple)):
        return data
    first = first_item(data)
    if isinstance(first, Mapping):
        rows = [row and {name: _plain_value(value) for name, value in row.items()} for row in data]
        return _as_arrow(lambda: pa.Table.from_pylist(rows))
    if dimensions(first) != 1 or isinstance(first, tuple):
        return data
    vectors = [None if item is None else as_array(item) for item in data]
    if len({None if vector is None else np.shape(vector) for vector in vectors}) == 1:
        return data
    return _as_arrow(lambda: pa.table({schema.FEATURE: pa.array(vectors, pa.list_(pa.float32()))}))


def _is_table(data: Any, labels: Any) -> bool:
    """Whether data are a table with roles of columns; not a pandas frame of numbers alone, whose labels lie beside."""
    if not is_pandas(data):
        return hasattr(data, "__arrow_c_stream__")
    numbers = data.ndim == 2 and all(getattr(kind, "kind", "O") in "biuf" for kind in data.dtypes)
    return bool(data.ndim == 2 and not (numbers and labels is not None and not isinstance(labels, str)))


def _check_same_index(index: Any, labels: Any) -> None:
    """Labels of pandas are matched by position: another index would be another order. Raises DataError."""
    if index is not None and is_pandas(labels) and len(labels) == len(index) and not index.equals(labels.index):
        remedy = "pass labels.loc[data.index], or labels.to_numpy() where the order is the same"
        raise DataError(expected_got("labels with the index of the data", "another index", remedy))


def _naming_labels(labels: Any, options: SourceOptions) -> tuple[Any, SourceOptions]:
    """The labels beside a table, and the options with the column that they name instead."""
    if not isinstance(labels, str):
        return labels, options
    if options.label_column not in (None, labels):
        raise ConfigError(expected_got("one label column", f"{labels} and {options.label_column}", "name it once"))
    return None, _with(options, label_column=labels)


def _open_stored(data: StoredTable, labels: Any, options: SourceOptions) -> Source:
    labels, options = _naming_labels(labels, options)
    if labels is not None:
        remedy = f"pass {data.add_column} and label_column='my_label'"
        raise DataError(expected_got("labels as a column of the data set", "labels beside it", remedy))
    columns = find_columns(data.schema, options, _FRAME)
    declared = declared_classes(data.schema, columns, options, _FRAME)
    return FrameSource(data.rows(columns.names()), columns, declared, notes=tuple(columns.notes(options)))


def _open_table(data: Any, labels: Any, options: SourceOptions, index: Any) -> Source:
    labels, options = _naming_labels(labels, options)
    if is_pandas(data) and not data.columns.is_unique:
        got = ", ".join(map(str, data.columns[data.columns.duplicated()].unique()))
        raise DataError(expected_got(f"distinct column names in {_FRAME}", f"several {got}", "rename them"))
    table = _as_arrow(lambda: pa.Table.from_pandas(data, preserve_index=False) if is_pandas(data) else pa.table(data))
    if labels is not None:
        name = options.label_column or LABEL
        table = table.drop_columns([name]) if name in table.column_names else table
        table = table.append_column(name, label_column(labels, table.num_rows))
        options = _with(options, label_column=name)
    one_hot = one_hot_columns(table.schema, options, _FRAME)
    if one_hot and are_one_hot(table, one_hot, _FRAME):
        table = table.append_column(LABEL, labels_of(table, one_hot))
    columns = find_columns(with_hints(table.schema, table), options, _FRAME)
    if _names_rows(index) and columns.uri is None and schema.URI not in table.column_names:
        table = table.append_column(schema.URI, pa.array([str(name) for name in index]))
        columns = replace(columns, uri=schema.URI)
    declared = declared_classes(table.schema, columns, options, _FRAME)
    rows = ArrowRows(table.select(columns.names()))
    own = None if index is None or columns.instance_id is None else table[columns.instance_id].to_numpy()
    return FrameSource(rows, columns, declared, _index_table(index, own), tuple(columns.notes(options)))


def _with(options: SourceOptions, **changes: Any) -> SourceOptions:
    return SourceOptions(**vars(options) | changes)


def _as_arrow(make: Any) -> pa.Table:
    """A frame or list as an Arrow table; columns that Arrow shares with it are not copied."""
    try:
        table: pa.Table = make()
    except (pa.ArrowException, TypeError, ValueError) as error:
        remedy = "give each column one type; pass images as a list: detect(list(frame['image']), frame['label'])"
        raise DataError(expected_got("columns that Arrow understands", f"'{first_line(error)}'", remedy)) from error
    return table


def _names_rows(index: Any) -> bool:
    """Whether the index of a frame says more than the positions."""
    if index is None or index.nlevels > 1 or getattr(index.dtype, "kind", "O") not in "iu":
        return index is not None
    return not np.array_equal(index, np.arange(len(index)))


def _index_table(index: Any, ids: Any) -> pa.Table | None:
    """instance_id of each row beside the frame's index, which pandas restores with its names and types.

    index: None where there is no frame. ids: The table's own, or None for the positions.
    Raises DataError when its values are of several types.
    """
    if index is None:
        return None
    import pandas as pd

    rows = {schema.INSTANCE_ID: np.arange(len(index)) if ids is None else ids}
    try:
        return pa.Table.from_pandas(pd.DataFrame(rows, index=index), preserve_index=True)
    except (pa.ArrowException, TypeError, ValueError) as error:
        remedy = "pass frame.reset_index(drop=True), or frame.set_axis(frame.index.astype(str))"
        raise DataError(expected_got("an index of one type", f"'{first_line(error)}'", remedy)) from error
