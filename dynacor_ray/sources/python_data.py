"""From what a Python user holds to an opened source."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from dynacor_ray.core import schema
from dynacor_ray.core.errors import ConfigError, DataError, expected_got, first_line
from dynacor_ray.sources.base import Source, SourceOptions
from dynacor_ray.sources.class_names import check_class_names, declared_classes, label_codes
from dynacor_ray.sources.columns import find_columns
from dynacor_ray.sources.in_memory import (
    ArrowRows,
    FrameSource,
    HuggingFaceRows,
    MapItems,
    MemorySource,
    as_array,
    pixels_of,
)
from dynacor_ray.sources.label_values import label_strings
from dynacor_ray.sources.one_hot import LABEL, are_one_hot, labels_of, one_hot_columns

HELD = (
    "an array or tensor of features (N, D) or images (N, H, W[, C]), a list of paths or images, a data frame or Arrow "
    "table, a Hugging Face Dataset, or a data set of (image, label)"
)
_FRAME = "the table"


def open_python(data: Any, labels: Any, options: SourceOptions, split: str | None = None) -> Source:
    """Open data that a Python process holds.

    Args:
        data: See `HELD`; a text is a pattern of image paths, such as "photos/*.jpg", in order of their names.
        labels: One label per row: list, array, tensor or column; of tables the name of their column, or None.
        options: Columns and classes that the user asked for.
        split: Which part of a Hugging Face `DatasetDict`.

    Raises:
        DataError: Data or labels are of another kind or shape, or their lengths differ.
        ConfigError: A split is needed or unknown.
    """
    if type(data).__module__.startswith("ray.data"):  # its rows are spread over a cluster
        remedy = "write it with data.write_parquet(folder), and pass the folder"
        raise DataError(expected_got(HELD, "a data set of Ray", remedy))
    data = as_array(_split_of(data, split))
    index = getattr(data, "index", None) if _is_pandas(data) else None
    _check_same_index(index, labels)
    if _is_hugging_face(data) or _is_table(data, labels):
        source = _open_table(data, labels, options, index)
    else:
        source = _open_items(data, labels, options, index)
    if source.num_rows == 0:
        raise DataError(expected_got("labeled rows", "0 rows", "check how the data were made"))
    return source


def _split_of(data: Any, split: str | None) -> Any:
    """The part of a dictionary of data sets that is asked for, or its only one."""
    if not isinstance(data, Mapping):
        if split is not None:
            raise ConfigError(expected_got("a DatasetDict for split=", type(data).__name__, "leave split= out"))
        return data
    names = [str(name) for name in data]
    if split is None and len(names) == 1:
        split = names[0]
    if split not in data:
        got = "none" if split is None else repr(split)
        raise ConfigError(expected_got(f"split= to be one of {', '.join(names)}", got, "pass one of them"))
    return data[split]


def _is_pandas(data: Any) -> bool:
    return type(data).__module__.partition(".")[0] == "pandas" and hasattr(data, "iloc")


def _is_hugging_face(data: Any) -> bool:
    return hasattr(data, "_fingerprint") and hasattr(data, "with_format")


def _is_table(data: Any, labels: Any) -> bool:
    """Whether data are a table with roles of columns; not a pandas frame of numbers alone, whose labels lie beside."""
    if not (hasattr(data, "__arrow_c_stream__") or (_is_pandas(data) and data.ndim == 2)):
        return False
    if not _is_pandas(data):
        return True
    numbers = all(getattr(kind, "kind", "O") in "biuf" for kind in getattr(data, "dtypes", [None]))
    return bool(data.ndim == 2 and not (numbers and labels is not None and not isinstance(labels, str)))


def _check_same_index(index: Any, labels: Any) -> None:
    """Labels of pandas are matched by position: another index would be another order. Raises DataError."""
    if index is not None and _is_pandas(labels) and len(labels) == len(index) and not index.equals(labels.index):
        remedy = "pass labels.loc[data.index], or labels.to_numpy() where the order is the same"
        raise DataError(expected_got("labels with the index of the data", "another index", remedy))


def _open_table(data: Any, labels: Any, options: SourceOptions, index: Any) -> Source:
    if isinstance(labels, str):
        if options.label_column not in (None, labels):
            raise ConfigError(expected_got("one label column", f"{labels} and {options.label_column}", "name it once"))
        options, labels = _with(options, label_column=labels), None
    if _is_hugging_face(data):
        if not hasattr(data, "__len__"):
            raise DataError(expected_got("a data set with a length", "a stream", "load it without streaming=True"))
        if labels is not None:
            remedy = "pass dataset.add_column('my_label', labels) and label_column='my_label'"
            raise DataError(expected_got("labels as a column of the Dataset", "labels beside it", remedy))
        rows: HuggingFaceRows | ArrowRows = HuggingFaceRows(data, 0, len(data))
        columns_of, count = data.features.arrow_schema, len(data)
    else:
        table = _as_arrow(data)
        if labels is not None:
            name = options.label_column or LABEL
            table = table.drop_columns([name]) if name in table.column_names else table
            table = table.append_column(name, _label_column(labels, table.num_rows))
            options = _with(options, label_column=name)
        one_hot = one_hot_columns(table.schema, options, _FRAME)
        if one_hot and are_one_hot(table, one_hot, _FRAME):
            table = table.append_column(LABEL, labels_of(table, one_hot))
        columns_of, count = table.schema, table.num_rows
    columns = find_columns(columns_of, options, _FRAME)
    declared = declared_classes(columns_of, columns, options, _FRAME)
    if not _is_hugging_face(data):
        rows = ArrowRows(table.select(columns.names()))
    ids = None if columns.instance_id is None else rows.load([columns.instance_id])[columns.instance_id].to_numpy()
    return FrameSource(rows, count, columns, declared, _index_table(index, ids))


def _with(options: SourceOptions, **changes: Any) -> SourceOptions:
    return SourceOptions(**vars(options) | changes)


def _as_arrow(data: Any) -> pa.Table:
    """A frame as an Arrow table; columns that Arrow shares with it are not copied."""
    try:
        return pa.Table.from_pandas(data, preserve_index=False) if _is_pandas(data) else pa.table(data)
    except (pa.ArrowException, TypeError, ValueError) as error:
        remedy = "pass images as a list: detect(list(frame['image']), frame['label'])"
        raise DataError(expected_got("columns that Arrow understands", f"'{first_line(error)}'", remedy)) from error


def _open_items(data: Any, labels: Any, options: SourceOptions, index: Any) -> Source:
    if _is_pandas(data):
        data = data.to_numpy()
    if isinstance(data, str):
        data = sorted(glob.glob(data, recursive=True)) or data
    if hasattr(data, "toarray"):
        raise DataError(expected_got("dense features", "a sparse matrix", "pass data.toarray()"))
    names: Sequence[str] | None = None
    if isinstance(data, np.ndarray) and data.ndim != 1:
        kind = _kind_of_array(data)
    elif isinstance(data, (list, tuple, np.ndarray)):
        kind, data = _kind_of_list(list(data))
    elif hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, (str, bytes)):
        names = [str(name) for name in getattr(data, "classes", None) or ()]
        labels = _labels_of_map(data) if labels is None else labels
        kind, data = "image", MapItems(data, 0, len(data))
        kind, data = _features_of_map(data) or (kind, data)
    else:
        raise DataError(expected_got(HELD, f"{type(data).__module__}.{type(data).__qualname__}", "convert it"))
    if labels is None or isinstance(labels, str):
        raise DataError(expected_got("labels of the rows", repr(labels), "pass detect(data, labels)"))
    given = _label_column(labels, len(data))
    declared = options.classes or names or None
    codes = None
    if declared is not None:
        declared = check_class_names(declared, "class_names")
        codes = label_codes(declared, index_first=pa.types.is_integer(given.type))
    uris = None if index is None else [str(name) for name in index]
    if isinstance(data, list) and data and isinstance(data[0], str):
        uris = data
    text = label_strings(given, is_declared=declared is not None)
    source = MemorySource(kind, data, text, uris, _index_table(index, None))
    source.class_names, source.label_codes = declared, codes
    return source


def _kind_of_array(data: np.ndarray[Any, Any]) -> Any:
    """What an array of two or more dimensions holds. Raises DataError when it is neither features nor images."""
    shape = "x".join(map(str, data.shape))
    if data.ndim == 2 and data.dtype.kind in "biuf" and data.shape[1]:
        return "feature"
    remedy = "pass features as data.reshape(len(data), -1), or images as uint8"
    if data.ndim not in (3, 4) or (data.ndim == 3 and data.dtype.kind == "f"):
        got = f"{data.dtype} of {shape}"
        raise DataError(expected_got("features (N, D) of numbers or images (N, H, W[, C]) of uint8", got, remedy))
    if len(data):
        try:
            pixels_of(data[0])
        except ValueError as error:
            expected = "images (N, H, W[, C]) or (N, C, H, W): integers in 0..255 or floats in 0..1"
            raise DataError(expected_got(expected, f"{data.dtype} of {shape}, {error}", remedy)) from error
    return "image"


def _kind_of_list(items: list[Any]) -> tuple[Any, Any]:
    """What the items of a list are: ("image", paths, images or arrays), or ("feature", an array)."""
    first = next((item for item in items if item is not None), None)
    if isinstance(first, (str, os.PathLike)):
        return "image", [None if path is None else _absolute(os.fspath(path)) for path in items]
    if isinstance(first, (bytes, Image.Image)) or np.ndim(as_array(first)) in (2, 3):
        return "image", items
    try:
        features = np.asarray([as_array(item) for item in items], np.float32)
    except (ValueError, TypeError) as error:
        expected = "paths, images, or vectors of numbers of one length"
        raise DataError(expected_got(expected, f"'{first_line(error)}'", "check the list")) from error
    if features.ndim != 2:
        raise DataError(expected_got(HELD, f"a list of {type(first).__name__}", "check the list"))
    return "feature", features


def _absolute(path: str) -> str:
    return path if "://" in path else str(Path(path).absolute())


def _labels_of_map(data: Any) -> Any:
    """The labels that a data set keeps beside its images (`targets`, `labels`), else those of its items."""
    for name in ("targets", "labels"):
        known = getattr(data, name, None)
        if known is not None and len(known) == len(data):
            return known
    try:
        return [
            as_array(label) if np.ndim(as_array(label)) else label
            for _, label in map(data.__getitem__, range(len(data)))
        ]
    except (TypeError, ValueError) as error:
        remedy = "pass a list of images and a list of labels"
        raise DataError(expected_got("items of (image, label)", f"'{first_line(error)}'", remedy)) from error


def _features_of_map(items: MapItems) -> tuple[Any, Any] | None:
    """The features as an array, where the data set holds vectors instead of images."""
    first = next(iter(items), None)
    if np.ndim(as_array(first)) != 1 or isinstance(first, (str, bytes)):
        return None
    return "feature", np.stack([np.asarray(as_array(item), np.float32) for item in items])


def _label_column(labels: Any, num_rows: int) -> pa.ChunkedArray[Any]:
    """Labels of any kind as a column. Raises DataError when they are no column, or not one per row."""
    labels = as_array(labels)
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
        if hasattr(labels, "__arrow_c_stream__") and not _is_pandas(labels):
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
    if pa.types.is_nested(kind) or pa.types.is_binary(kind):
        raise DataError(expected_got("labels that are text or integers", f"type {kind}", "pass one label per row"))
    if len(column) != num_rows:
        remedy = "pass both in the same order"
        raise DataError(expected_got(f"{num_rows:,} labels, one per row", f"{len(column):,}", remedy))
    return column


def _index_table(index: Any, ids: Any) -> pa.Table | None:
    """instance_id of each row beside the frame's index, which pandas restores with its names and types.

    index: None where there is no frame. ids: The table's own, or None for the positions.
    """
    if index is None:
        return None
    import pandas as pd

    rows = {schema.INSTANCE_ID: np.arange(len(index)) if ids is None else ids}
    return pa.Table.from_pandas(pd.DataFrame(rows, index=index), preserve_index=True)
