"""Data that a Python process holds as sources: arrays, images, tables, map-style data sets. No copy of the whole."""

from __future__ import annotations

import hashlib
import io
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image

from dynacor_ray.core import schema
from dynacor_ray.core.errors import DataError, expected_got
from dynacor_ray.core.hashing import digest
from dynacor_ray.core.storage import locate
from dynacor_ray.sources.base import Kind, Shard, Source
from dynacor_ray.sources.class_names import Declared
from dynacor_ray.sources.column_types import joined_parts, plain
from dynacor_ray.sources.columns import Columns
from dynacor_ray.sources.image_files import MISSING, cut, raw_images, read_file, some_rows
from dynacor_ray.sources.label_values import label_strings, raw_columns, text_strings

MEMORY = "in-memory"
"""Kind of these sources, and the prefix of their names."""
_HASHED_ROWS = 4096
_SAMPLED_ITEMS = 64
_PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})
_ONE_AT_A_TIME = threading.Lock()


def as_array(value: Any) -> Any:
    """A torch tensor as an array that shares its memory, where it is on the CPU; anything else as it is."""
    if type(value).__module__.partition(".")[0] != "torch" or not hasattr(value, "detach"):
        return value
    tensor = value.detach().cpu()
    return (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()


def pixels_of(image: NDArray[Any]) -> NDArray[np.uint8]:
    """One image as uint8 (H, W), (H, W, 3) or (H, W, 4).

    Args:
        image: (H, W), (H, W, C) or (C, H, W) with C of 1, 3 or 4 (first: 1 or 3); integers in 0..255, booleans, or
            floats in [0, 1].

    Raises:
        ValueError: It has another shape, or other values.
    """
    if image.ndim == 3 and image.shape[2] not in (1, 3) and image.shape[0] in (1, 3):
        image = image.transpose(1, 2, 0)
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    if not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (3, 4))) or not image.size:
        raise ValueError(f"not an image: shape {image.shape}")
    if image.dtype == np.uint8:
        return image
    highest = 1 if image.dtype.kind in "bf" else 255
    if image.dtype.kind not in "biuf" or not (image.min() >= 0 and image.max() <= highest):
        raise ValueError(f"not an image: {image.dtype} values outside of 0..{highest}")
    return np.round(image * (255.0 if highest == 1 else 1.0)).astype(np.uint8)


def encoded(item: Any) -> tuple[bytes | None, str | None]:
    """An image as the bytes of an image file.

    Args:
        item: Bytes of a file, a path or URI, a PIL image, an array or tensor (`pixels_of`), or None.

    Returns:
        (content, None), or (None, reason).
    """
    if item is None:
        return None, "missing image"
    if isinstance(item, bytes):
        return item, None
    if isinstance(item, (str, os.PathLike)):
        return read_file(locate(os.fspath(item))) if os.fspath(item) else (None, MISSING)
    if not isinstance(item, Image.Image):
        try:
            item = Image.fromarray(np.ascontiguousarray(pixels_of(np.asarray(as_array(item)))))
        except (ValueError, TypeError) as error:
            return None, str(error)
    buffer = io.BytesIO()
    try:
        (item if item.mode in _PNG_MODES else item.convert("RGB")).save(buffer, "PNG")
    except (OSError, ValueError) as error:
        return None, f"broken image: {error}"
    return buffer.getvalue(), None


@dataclass(frozen=True)
class MemoryShard(Shard):
    """Some of the rows.

    Attributes:
        kind: What an item is.
        items: The rows: array (num_rows, D), or a sequence of images as `encoded` takes them.
        labels: Their labels as text.
        uris: Their names.
    """

    kind: Kind
    items: Any
    labels: pa.StringArray
    uris: Sequence[str]

    def read_labels(self) -> pa.StringArray:
        """See `Shard.read_labels`."""
        return self.labels

    def read(self) -> pa.Table:
        """See `Shard.read`."""
        if self.kind == "image":
            done = [encoded(item) for item in self.items]
            return raw_images(self.first_row, self.uris, self.labels, [e for _, e in done], [data for data, _ in done])
        with np.errstate(over="ignore"):  # a double too large for float32 becomes infinite, hence invalid
            features = np.ascontiguousarray(self.items, np.float32)
        return pa.table(
            {
                schema.RAW_ROW: np.arange(self.first_row, self.first_row + self.num_rows),
                schema.URI: pa.array(self.uris, pa.string()),
                schema.RAW_LABEL: self.labels,
                schema.RAW_ERROR: pa.nulls(self.num_rows, pa.string()),
                schema.FEATURE: schema.fixed_size_list(features),
            }
        )


@dataclass(frozen=True)
class MapItems:
    """Images of a map-style data set, whose items are (image, label); read when asked for, one at a time.

    Many data sets share an open file among their items, and are not made for threads.
    """

    dataset: Any
    first: int
    last: int

    def __len__(self) -> int:
        return self.last - self.first

    def __iter__(self) -> Iterator[Any]:
        for row in range(self.first, self.last):
            with _ONE_AT_A_TIME:
                yield self.dataset[row][0]

    def __getitem__(self, rows: slice) -> MapItems:
        first, last, _ = rows.indices(len(self))
        return MapItems(self.dataset, self.first + first, self.first + last)


class MemorySource(Source):
    """Features or images, and one label of each."""

    name = MEMORY

    def __init__(
        self,
        kind: Kind,
        items: Any,
        labels: pa.StringArray,
        uris: Sequence[str] | None = None,
        row_index: pa.Table | None = None,
    ) -> None:
        """Take what is held, without a copy.

        Args:
            kind: What an item is.
            items: Array (N, D) or (N, ...), a list, or `MapItems`.
            labels: (N,), null where missing.
            uris: Names of the rows. Default: their positions.
            row_index: As in `Source`.
        """
        self.kind, self.num_rows, self.class_names = kind, len(items), None
        self._items, self._labels, self._uris, self.row_index = items, labels, uris, row_index
        parts = [_hash_table(pa.table({"label": labels})), _hash_items(items), _hash_index(row_index)]
        self._fingerprint = digest([MEMORY, kind, *parts])
        shape = items.shape if isinstance(items, np.ndarray) else (len(items),)
        self.uri = f"{MEMORY}:{kind}s-{'x'.join(map(str, shape))}-{self._fingerprint[:8]}"

    def fingerprint(self) -> str:
        """See `Source.fingerprint`. Covers labels and arrays; of files their paths, of a data set some of its items."""
        return self._fingerprint

    def shards(self, max_rows: int) -> list[Shard]:
        """See `Source.shards`."""

        def make(first: int, count: int) -> Shard:
            last = first + count
            uris = self._uris[first:last] if self._uris is not None else [str(row) for row in range(first, last)]
            labels = some_rows(self._labels, first, count)
            return MemoryShard(first, count, self.kind, self._items[first:last], labels, uris)

        return cut(self.num_rows, max_rows, make)


def _hash_index(row_index: pa.Table | None) -> str | None:
    return None if row_index is None else _hash_table(row_index)


def _hash_items(items: Any) -> str:
    if isinstance(items, np.ndarray):
        state = hashlib.blake2b(f"{items.dtype} {items.shape}".encode(), digest_size=16)
        for first in range(0, len(items), _HASHED_ROWS):
            state.update(np.ascontiguousarray(items[first : first + _HASHED_ROWS]).view(np.uint8).data)
        return state.hexdigest()
    if isinstance(items, MapItems):
        state = hashlib.blake2b(type(items.dataset).__qualname__.encode(), digest_size=16)
        rows = sorted({len(items) * step // _SAMPLED_ITEMS for step in range(_SAMPLED_ITEMS)} if len(items) else ())
        chosen = [image for row in rows for image in items[row : row + 1]]
    else:
        state, chosen = hashlib.blake2b(digest_size=16), items
    for item in chosen:
        state.update(_content(item))
    return state.hexdigest()


def _content(item: Any) -> bytes:
    """What tells one image from another: the path of a file, else its pixels."""
    if isinstance(item, (str, os.PathLike)):
        return os.fspath(item).encode() + b"\0"
    if isinstance(item, Image.Image):
        return f"{item.mode} {item.size}".encode() + item.tobytes()
    return item if isinstance(item, bytes) else np.ascontiguousarray(as_array(item)).tobytes()


class _Sink(io.RawIOBase):
    """A file that keeps only the hash of what is written to it."""

    def __init__(self) -> None:
        self.state = hashlib.blake2b(digest_size=16)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.state.update(data)
        return len(data)


def _hash_table(table: pa.Table) -> str:
    sink = _Sink()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        for batch in table.to_batches(_HASHED_ROWS):
            stream.write_batch(batch)
    return sink.state.hexdigest()


class ArrowRows:
    """Rows of an Arrow table, which travel without the others."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __reduce__(self) -> tuple[Callable[[bytes], ArrowRows], tuple[bytes]]:
        sink = io.BytesIO()
        with pa.ipc.new_stream(sink, self._table.schema) as stream:
            stream.write_table(self._table)
        return _arrow_rows, (sink.getvalue(),)

    def load(self, names: list[str]) -> pa.Table:
        """The rows of some columns."""
        return self._table.select(names)

    def cut(self, first: int, count: int) -> ArrowRows:
        """Some of the rows, without a copy."""
        return ArrowRows(self._table.slice(first, count))

    def fingerprint(self) -> str:
        """Hex digest of the content."""
        return _hash_table(self._table)


def _arrow_rows(data: bytes) -> ArrowRows:
    return ArrowRows(pa.ipc.open_stream(data).read_all())


@dataclass(frozen=True)
class HuggingFaceRows:
    """Rows of a Hugging Face `Dataset`, which stay in its memory-mapped files until they are read."""

    dataset: Any
    first: int
    count: int

    def load(self, names: list[str]) -> pa.Table:
        """The rows of some columns."""
        columns = self.dataset.select_columns(names).with_format("arrow")
        table: pa.Table = columns[self.first : self.first + self.count]
        return table.select(names)

    def cut(self, first: int, count: int) -> HuggingFaceRows:
        """Some of the rows."""
        return HuggingFaceRows(self.dataset, self.first + first, count)

    def fingerprint(self) -> str:
        """The data set's own, which changes with every step that made it."""
        return str(self.dataset._fingerprint)


@dataclass(frozen=True)
class FrameShard(Shard):
    """Some rows of a table in memory.

    Attributes:
        rows: The rows.
        columns: Roles of the columns.
        is_declared: Whether classes are declared, so that no label means "missing".
    """

    rows: ArrowRows | HuggingFaceRows
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
            whole = joined_parts(table, columns.parts) if columns.payload is None else plain(table[columns.payload])
            return pa.table(raw | {schema.FEATURE: whole})
        done = [encoded(item) for item in self._images(table)]
        raw[schema.RAW_ERROR] = pa.array([error for _, error in done], pa.string())
        return pa.table(raw | {schema.IMAGE: pa.array([data for data, _ in done], pa.binary())})

    def _images(self, table: pa.Table) -> list[Any]:
        """Bytes of each image, or where they are to be read."""
        name = self.columns.payload or self.columns.uri
        assert name is not None
        values: list[Any] = plain(table[name]).to_pylist()
        if not pa.types.is_struct(plain(table[name]).type):
            return values
        return [value and (value.get("bytes") or value.get("path")) for value in values]


class FrameSource(Source):
    """A table in memory with labels, and images, feature vectors or paths of images."""

    name = MEMORY

    def __init__(
        self,
        rows: ArrowRows | HuggingFaceRows,
        num_rows: int,
        columns: Columns,
        declared: Declared,
        row_index: pa.Table | None = None,
    ) -> None:
        """Take the rows. columns: their roles; declared: class names and label codes; row_index: as in `Source`."""
        self.kind, self.num_rows = columns.kind, num_rows
        self.class_names, self.label_codes = declared
        self.has_instance_ids = columns.instance_id is not None
        self.has_truth = columns.truth is not None
        self._rows, self._columns, self.row_index = rows, columns, row_index
        parts = [rows.fingerprint(), _hash_index(row_index), asdict(columns), self.class_names]
        self._fingerprint = digest([MEMORY, *parts])
        self.uri = f"{MEMORY}:table-{num_rows}-{self._fingerprint[:8]}"

    def fingerprint(self) -> str:
        """See `Source.fingerprint`."""
        return self._fingerprint

    def shards(self, max_rows: int) -> list[Shard]:
        """See `Source.shards`."""
        declared = self.class_names is not None

        def make(first: int, count: int) -> Shard:
            return FrameShard(first, count, self._rows.cut(first, count), self._columns, declared)

        return cut(self.num_rows, max_rows, make)


def gone(data: str) -> DataError:
    """The error for the name of data that were in the memory of a process."""
    remedy = "pass the data themselves to dynacor_ray.detect, or save them as parquet"
    return DataError(expected_got("data that a file holds", f"{data}, which were in memory", remedy))
