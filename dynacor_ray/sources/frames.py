"""Tables that a Python process holds, or that only stand for rows elsewhere, as sources. No copy of the whole."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dynacor_ray.core import schema
from dynacor_ray.core.hashing import digest
from dynacor_ray.sources.base import Shard, Source
from dynacor_ray.sources.class_names import Declared
from dynacor_ray.sources.columns import Columns
from dynacor_ray.sources.in_memory import MEMORY, encoded, hash_index, hash_table
from dynacor_ray.sources.label_values import label_strings, raw_columns, text_strings


class Rows(ABC):
    """Rows of some columns, to be loaded where they are needed; picklable."""

    num_rows: int

    @abstractmethod
    def load(self, names: list[str]) -> pa.Table:
        """The rows of some columns."""

    @abstractmethod
    def cut(self, first: int, count: int) -> Rows:
        """Some of the rows, without a copy."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Hex digest of the content."""


class StoredTable(ABC):
    """A table whose rows stay where they are until some of its columns are asked for."""

    schema: pa.Schema
    add_column: str
    """How its user adds a column `my_label`, as code."""

    @abstractmethod
    def rows(self, names: list[str]) -> Rows:
        """All rows of some columns, in order."""


class ArrowRows(Rows):
    """Rows of an Arrow table, which travel without the others."""

    def __init__(self, table: pa.Table) -> None:
        self._table, self.num_rows = table, table.num_rows

    def __reduce__(self) -> tuple[Callable[[bytes], ArrowRows], tuple[bytes]]:
        sink = io.BytesIO()
        with pa.ipc.new_stream(sink, self._table.schema) as stream:
            stream.write_table(self._table)
        return _arrow_rows, (sink.getvalue(),)

    def load(self, names: list[str]) -> pa.Table:
        """See `Rows.load`."""
        return self._table.select(names)

    def cut(self, first: int, count: int) -> ArrowRows:
        """See `Rows.cut`."""
        return ArrowRows(self._table.slice(first, count))

    def fingerprint(self) -> str:
        """See `Rows.fingerprint`."""
        return hash_table(self._table)


def _arrow_rows(data: bytes) -> ArrowRows:
    return ArrowRows(pa.ipc.open_stream(data).read_all())


@dataclass(frozen=True)
class HuggingFaceRows(Rows):
    """Rows of a Hugging Face `Dataset`, which stay in its memory-mapped files until they are read."""

    dataset: Any
    first: int
    num_rows: int

    def load(self, names: list[str]) -> pa.Table:
        """See `Rows.load`."""
        columns = self.dataset.select_columns(names).with_format("arrow")
        table: pa.Table = columns[self.first : self.first + self.num_rows]
        return table.select(names)

    def cut(self, first: int, count: int) -> HuggingFaceRows:
        """See `Rows.cut`."""
        return HuggingFaceRows(self.dataset, self.first + first, count)

    def fingerprint(self) -> str:
        """The data set's own, which changes with every step that made it."""
        return str(self.dataset._fingerprint)


class HuggingFaceTable(StoredTable):
    """A Hugging Face `Dataset`."""

    add_column = "dataset.add_column('my_label', labels)"

    def __init__(self, dataset: Any) -> None:
        self._dataset, self.schema = dataset, dataset.features.arrow_schema

    def rows(self, names: list[str]) -> HuggingFaceRows:
        """See `StoredTable.rows`."""
        return HuggingFaceRows(self._dataset, 0, len(self._dataset))


@dataclass(frozen=True)
class FrameShard(Shard):
    """Some rows of a table in memory.

    Attributes:
        rows: The rows.
        columns: Roles of the columns.
        is_declared: Whether classes are declared, so that no label means "missing".
    """

    rows: Rows
    columns: Columns
    is_declared: bool

    def read_labels(self) -> pa.StringArray:
        """See `Shard.read_labels`."""
        labels = self.rows.load([self.columns.label])[self.columns.label]
        return label_strings(labels, is_declared=self.is_declared)

    def read(self) -> pa.Table:
        """See `Shard.read`."""
        table, columns = self.rows.load(self.columns.names()), self.columns
        numbers = pa.array(np.arange(self.first_row, self.first_row + self.num_rows))
        uris = numbers.cast(pa.string())
        if columns.uri is not None:
            uris = pc.coalesce(text_strings(table[columns.uri]), uris)
        raw: dict[str, Any] = {schema.RAW_ROW: numbers, schema.URI: uris}
        raw |= raw_columns(table, columns, self.is_declared)
        if columns.kind == "feature":
            return pa.table(raw | {schema.FEATURE: columns.payload_of(table)})
        done = [encoded(item) for item in self._images(table)]
        raw[schema.RAW_ERROR] = pa.array([error for _, error in done], pa.string())
        return pa.table(raw | {schema.IMAGE: pa.array([data for data, _ in done], pa.binary())})

    def _images(self, table: pa.Table) -> list[Any]:
        """Bytes of each image, or where they are to be read."""
        if self.columns.payload is None:
            paths: list[Any] = text_strings(table[self.columns.uri]).to_pylist()
            return paths
        images = self.columns.payload_of(table)
        values: list[Any] = images.to_pylist()
        if not pa.types.is_struct(images.type):
            return values
        return [value and (value.get("bytes") or value.get("path")) for value in values]


class FrameSource(Source):
    """A table in memory with labels, and images, feature vectors or paths of images."""

    name = MEMORY

    def __init__(
        self,
        rows: Rows,
        columns: Columns,
        declared: Declared,
        row_index: pa.Table | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        """Take the rows. columns: their roles; declared: class names and label codes; others: as in `Source`."""
        self.kind, self.num_rows, self.notes = columns.kind, rows.num_rows, notes
        self.class_names, self.label_codes = declared
        self.has_instance_ids = columns.instance_id is not None
        self.has_truth = columns.truth is not None
        self.feature_names = columns.parts
        self._rows, self._columns, self.row_index = rows, columns, row_index
        parts = [rows.fingerprint(), hash_index(row_index), asdict(columns), self.class_names]
        self._fingerprint = digest([MEMORY, *parts])
        self.uri = f"{MEMORY}:table-{self.num_rows}-{self._fingerprint[:8]}"

    def fingerprint(self) -> str:
        """See `Source.fingerprint`."""
        return self._fingerprint

    def _shard(self, first: int, count: int) -> Shard:
        declared = self.class_names is not None
        return FrameShard(first, count, self._rows.cut(first, count), self._columns, declared)
