"""Arrays, lists and data sets of (image, label) that a Python process holds, opened as a source."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from dynacor_ray.core.errors import DataError, expected_got, first_line
from dynacor_ray.sources.base import SourceOptions
from dynacor_ray.sources.class_names import check_class_names, label_codes
from dynacor_ray.sources.columns import LABEL_COLUMNS
from dynacor_ray.sources.image_files import is_image_name
from dynacor_ray.sources.in_memory import MapItems, MemorySource, as_array, pixels_of
from dynacor_ray.sources.label_values import label_strings
from dynacor_ray.sources.python_labels import is_pandas, label_column

HELD = (
    "an array or tensor of features (N, D) or images (N, H, W[, C]), a list of paths or images, a data frame or Arrow "
    "table, a Hugging Face Dataset, a data set of Ray Data, or a data set of (image, label)"
)
_CONVERTED = {
    "collect": "data.collect()",  # polars' lazy frame
    "to_table": "data.to_table()",  # pyarrow's data set
    "fetch_arrow_table": "data.fetch_arrow_table()",  # what DuckDB has executed
    "batch_sampler": "loader.dataset",  # torch's loader
}
"""How to pass what is no table or list yet, by what it has."""
_ENCODED = (bytes, bytearray, memoryview)


def open_items(data: Any, labels: Any, options: SourceOptions, row_index: pa.Table | None) -> MemorySource:
    """Open what is no table. Arguments as of `open_python`; row_index: as in `Source`."""
    index = data.index if is_pandas(data) else None
    if index is not None:
        data = _numbers(data)
    if isinstance(data, str):
        data = _matching(data)
    if hasattr(data, "toarray"):
        raise DataError(expected_got("dense features", "a sparse matrix", "pass data.toarray()"))
    names: Sequence[str] | None = None
    if isinstance(data, np.ndarray) and data.ndim != 1:
        data = data.astype(np.float32) if _holds_numbers(data) else data
        kind = _kind_of_array(data)
    elif isinstance(data, (list, tuple, np.ndarray)) and not (labels is None and isinstance(first_item(data), tuple)):
        kind, data = _kind_of_list(list(data))
    elif hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, (str, *_ENCODED)):
        names = _classes_of(data)
        labels = _labels_of_map(data) if labels is None else labels
        kind, data = "image", MapItems(data, 0, len(data))
        kind, data = _features_of_map(data) or (kind, data)
    else:
        remedy = "pass a list of its items and one of their labels" if hasattr(data, "__iter__") else "convert it"
        for name, hint in _CONVERTED.items():
            remedy = f"pass {hint}" if hasattr(data, name) else remedy
        raise DataError(expected_got(HELD, f"{type(data).__module__}.{type(data).__qualname__}", remedy))
    if labels is None or isinstance(labels, str):
        raise DataError(expected_got("labels of the rows", repr(labels), "pass detect(data, labels)"))
    given = label_column(labels, len(data))
    declared = options.classes or names or None
    codes = None
    if declared is not None:
        declared = check_class_names(declared, "class_names")
        codes = label_codes(declared, index_first=pa.types.is_integer(given.type))
    uris = None if index is None else [str(name) for name in index]
    if isinstance(data, list) and data and isinstance(data[0], str):
        uris = data
    text = label_strings(given, is_declared=declared is not None)
    source = MemorySource(kind, data, text, uris, row_index)
    source.class_names, source.label_codes = declared, codes
    return source


def _numbers(data: Any) -> np.ndarray[Any, Any]:
    """The values of a frame or series; a missing number of pandas' own types becomes NaN."""
    if data.ndim == 2 and not all(isinstance(kind, np.dtype) for kind in data.dtypes):
        missing: np.ndarray[Any, Any] = data.to_numpy(np.float64, na_value=np.nan)
        return missing
    values: np.ndarray[Any, Any] = data.to_numpy()
    return values


def _holds_numbers(data: np.ndarray[Any, Any]) -> bool:
    """Whether an array of objects holds numbers alone."""
    return data.dtype == object and all(isinstance(value, (int, float, np.number)) for value in data.flat)


def _matching(pattern: str) -> list[str]:
    found = sorted(glob.glob(os.path.expanduser(pattern), recursive=True))
    if not found:
        raise DataError(expected_got(f"images that fit {pattern!r}", "none", "check the path"))
    if not any(map(is_image_name, found)):
        remedy = "leave the labels out, as in detect(path), where the file has them; else load it"
        raise DataError(expected_got(f"images that fit {pattern!r}, beside labels", os.path.basename(found[0]), remedy))
    return found


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


def first_item(items: Any) -> Any:
    """The first that is not missing; None where all are."""
    return next((item for item in items if item is not None), None)


def dimensions(item: Any) -> int | None:
    """Of an array, tensor or list of numbers; None for anything else."""
    if isinstance(item, (str, *_ENCODED, Mapping, os.PathLike, Image.Image)):
        return None
    try:
        values = np.asarray(as_array(item))
    except ValueError:
        return None
    return values.ndim if values.dtype.kind in "biuf" else None


def _kind_of_list(items: list[Any]) -> tuple[Any, Any]:
    """What the items of a list are: ("image", paths, images or arrays), or ("feature", an array)."""
    first = first_item(items)
    if isinstance(first, (str, os.PathLike)):
        return "image", [None if path is None else _absolute(os.fspath(path)) for path in items]
    if isinstance(first, (*_ENCODED, Image.Image)) or dimensions(first) in (2, 3):
        return "image", [bytes(item) if isinstance(item, (bytearray, memoryview)) else item for item in items]
    if dimensions(first) != 1:
        kind = type(first).__name__
        raise DataError(expected_got(HELD, f"a list of {kind}", "pass paths, images, or vectors of numbers"))
    try:
        return "feature", np.asarray([as_array(item) for item in items], np.float32)
    except (ValueError, TypeError) as error:
        expected = "paths, images, or vectors of numbers of one length"
        raise DataError(expected_got(expected, f"'{first_line(error)}'", "check the list")) from error


def _absolute(path: str) -> str:
    return path if "://" in path else str(Path(path).expanduser().absolute())


def _classes_of(data: Any) -> list[str] | None:
    """The classes that a data set names, or the one that it is a part of, or all that it consists of."""
    known = getattr(data, "classes", None)
    if known is not None:
        return [str(name) for name in known]
    inner = [_classes_of(part) for part in _parts_of(data)]
    return inner[0] if inner and all(names == inner[0] for names in inner) else None


def _parts_of(data: Any) -> list[Any]:
    """What torch's `Subset` is of, or its `ConcatDataset` consists of."""
    return [data.dataset] if hasattr(data, "dataset") else list(getattr(data, "datasets", ()))


def _kept_labels(data: Any) -> Any:
    """The labels that a data set keeps beside its images (`targets`, `labels`), so that no image is read for them."""
    for name in ("targets", "labels"):
        known = getattr(data, name, None)
        if known is not None and len(known) == len(data):
            return known
    inner = [_kept_labels(part) for part in _parts_of(data)]
    if not inner or any(labels is None for labels in inner):
        return None
    labels = np.concatenate([np.asarray(as_array(labels)) for labels in inner])
    rows = getattr(data, "indices", None)
    labels = labels if rows is None else labels[np.asarray(as_array(rows), np.int64)]
    return labels if len(labels) == len(data) else None


def _labels_of_map(data: Any) -> Any:
    """The labels that a data set keeps, else those of its items."""
    known = _kept_labels(data)
    return list(_labels_of_items(data)) if known is None else known


def _labels_of_items(data: Any) -> Iterator[Any]:
    remedy = "pass a list of images and a list of labels"
    for row in range(len(data)):
        item = data[row]
        if isinstance(item, Mapping):
            name = next((name for name in LABEL_COLUMNS if name in item), None)
            if name is None:
                expected = f"a label ({', '.join(LABEL_COLUMNS)}) in each item"
                raise DataError(expected_got(expected, f"the keys {', '.join(map(str, item))}", remedy))
            item = None, item[name]
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            got = f"{type(item).__name__}" + (f" of {len(item)}" if isinstance(item, (tuple, list)) else "")
            raise DataError(expected_got("items of (image, label)", got, remedy))
        label = as_array(item[1])
        yield label if np.ndim(label) else item[1]


def _features_of_map(items: MapItems) -> tuple[Any, Any] | None:
    """The features as an array, where the data set holds vectors instead of images."""
    if dimensions(next(iter(items), None)) != 1:
        return None
    return "feature", np.stack([np.asarray(as_array(item), np.float32) for item in items])
