"""Classes as one column of zeros and ones each, as many competitions write them: read as one column of labels."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dynacor_ray.core.errors import DataError, expected_got
from dynacor_ray.sources.base import SourceOptions
from dynacor_ray.sources.column_types import is_label_type, is_number
from dynacor_ray.sources.columns import could_be_labels, find_columns, is_label_name
from dynacor_ray.sources.row_files import RowFile, RowReader

LABEL = "label"
"""Name of the column that is made."""
_LOOKED_AT = 4096


def one_hot_columns(schema: pa.Schema, options: SourceOptions, where: str) -> tuple[str, ...]:
    """Columns that may be one-hot classes, by names and types: no column is one of labels, and all others are numbers.

    Returns:
        Their names in order, or none.
    """
    if options.label_column is not None:
        return ()
    try:
        used = find_columns(schema.append(pa.field(LABEL, pa.string())), options, where).names()
    except DataError:  # which is told of where the columns are looked for
        return ()
    if any(map(is_label_name, schema.names)):
        return ()
    left = [field for field in schema if field.name not in used and could_be_labels(field.name)]
    left = [field for field in left if is_label_type(field.type)]
    is_one_hot = len(left) > 1 and all(pa.types.is_boolean(field.type) or is_number(field.type) for field in left)
    return tuple(field.name for field in left) if is_one_hot else ()


def are_one_hot(rows: pa.Table, names: tuple[str, ...], where: str) -> bool:
    """Whether columns hold zeros and ones only.

    Raises:
        DataError: they do, but some row has several ones.
    """
    ones = _matrix(rows, names)
    if not np.isin(ones, (0, 1)).all() or not ones.any():
        return False
    several = np.flatnonzero(ones.sum(axis=1) > 1)
    if len(several):
        shown = ", ".join(name for name, one in zip(names, ones[several[0]], strict=True) if one)
        got = f"{len(several):,} of {rows.num_rows:,} with several, such as {shown}"
        remedy = "keep rows of one class, or give a column of labels; several labels per row cannot be searched"
        raise DataError(expected_got(f"one class per row in {names[0]} to {names[-1]} of {where}", got, remedy))
    return True


def labels_of(rows: pa.Table, names: tuple[str, ...]) -> pa.StringArray:
    """The column that has the only one in each row (N,); null where there is none, or another number."""
    ones = _matrix(rows, names)
    is_clear = np.isin(ones, (0, 1)).all(axis=1) & (ones.sum(axis=1) == 1)
    found = np.array(names, dtype=object)[ones.argmax(axis=1)]
    return pa.array(found, pa.string(), mask=~is_clear)


def _matrix(rows: pa.Table, names: tuple[str, ...]) -> NDArray[np.float64]:
    """float64 (N, C); NaN where missing."""
    columns = [rows[name].cast(pa.float64(), safe=False).to_numpy() for name in names]
    return np.stack([np.asarray(column, np.float64) for column in columns], axis=1)


def with_labels(files: list[RowFile], options: SourceOptions) -> list[RowFile]:
    """Files with a column of labels in place of one-hot classes, where they have such; else as they are.

    Raises:
        DataError: among the first rows some have several classes.
    """
    names = one_hot_columns(files[0].schema, options, files[0].name)
    if not names or not are_one_hot(files[0].head(list(names), _LOOKED_AT), names, files[0].name):
        return files
    return [_with_label(file, names) for file in files]


def _with_label(file: RowFile, names: tuple[str, ...]) -> RowFile:
    reader = OneHotRows(place=file.place, name=file.name, inner=file.reader, classes=names)
    schema = file.schema.append(pa.field(LABEL, pa.string()))
    note = f"{len(names):,} columns of 0 and 1, {names[0]} to {names[-1]}, are the classes."
    return replace(file, reader=reader, schema=schema, notes=(*file.notes, note))


@dataclass(frozen=True, kw_only=True)
class OneHotRows(RowReader):
    """Rows with a column of labels that others make.

    Attributes:
        inner: reads the columns of the file itself.
        classes: the one-hot columns.
    """

    inner: RowReader
    classes: tuple[str, ...]

    def only(self, groups: tuple[int, ...]) -> RowReader:
        """See `RowReader.only`."""
        return replace(self, groups=groups, inner=self.inner.only(groups))

    def batches(self, columns: list[str], max_rows: int) -> Generator[pa.RecordBatch, None, None]:
        """See `RowReader.batches`."""
        if LABEL not in columns:
            yield from self.inner.batches(columns, max_rows)
            return
        own = list(dict.fromkeys([*(name for name in columns if name != LABEL), *self.classes]))
        for batch in self.inner.batches(own, max_rows):
            labels = labels_of(pa.Table.from_batches([batch]), self.classes)
            arrays = [labels if name == LABEL else batch.column(name) for name in columns]
            yield pa.RecordBatch.from_arrays(arrays, names=columns)
