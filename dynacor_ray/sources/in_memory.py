"""Arrays, images and map-style data sets of a Python process as sources. No copy of the whole."""

from __future__ import annotations

import hashlib
import io
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from dynacor_ray.core import schema
from dynacor_ray.core.errors import DataError, expected_got, first_line
from dynacor_ray.core.hashing import digest
from dynacor_ray.core.storage import locate
from dynacor_ray.sources.base import Kind, Shard, Source
from dynacor_ray.sources.columns import FEATURE_COLUMNS, IMAGE_COLUMNS
from dynacor_ray.sources.image_files import MISSING, raw_images, read_file, some_rows

MEMORY = "in-memory"
"""Kind of these sources, and the prefix of their names."""
_HASHED_ROWS = 4096
_SAMPLED_ITEMS = 64
_PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})
_FLOATS = frozenset({"torch.float16", "torch.float32", "torch.float64"})
_ONE_AT_A_TIME = threading.Lock()


def as_array(value: Any) -> Any:
    """A torch tensor as an array that shares its memory, where it is on the CPU; anything else as it is.

    What a masked array hides becomes NaN.

    Raises DataError for a tensor that NumPy has no form for, such as a sparse one.
    """
    if isinstance(value, np.ma.MaskedArray):
        kind = value.dtype if value.dtype.kind == "f" else np.float64
        return np.ma.filled(value.astype(kind), np.nan) if np.ma.is_masked(value) else value.data
    if type(value).__module__.partition(".")[0] != "torch" or not hasattr(value, "detach"):
        return value
    tensor = value.detach()
    try:
        if tensor.is_floating_point() and str(tensor.dtype) not in _FLOATS:  # bfloat16 and those of 8 bits
            tensor = tensor.float()
        return tensor.cpu().numpy()
    except (TypeError, RuntimeError) as error:
        got = f"'{first_line(error)}'"
        raise DataError(
            expected_got("a dense tensor of real numbers", got, "convert it, e.g. by to_dense()")
        ) from error


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
        raise ValueError(f"{image.dtype} values outside of 0..{highest} are no pixels, as after a normalization")
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
                yield _payload_of(self.dataset[row])

    def __getitem__(self, rows: slice) -> MapItems:
        first, last, _ = rows.indices(len(self))
        return MapItems(self.dataset, self.first + first, self.first + last)


def _payload_of(item: Any) -> Any:
    """The image or feature of an item: the first of a pair, or what has a usual name; else the item itself."""
    if isinstance(item, Mapping):
        known = (*IMAGE_COLUMNS, "pixel_values", *FEATURE_COLUMNS)
        name = next((name for name in known if name in item), None)
        if name is None:
            got = f"the keys {', '.join(map(str, item))}"
            expected = f"an image or feature ({', '.join(known)}) in each item"
            raise DataError(expected_got(expected, got, "pass a list of images and a list of labels"))
        return item[name]
    return item[0] if isinstance(item, (tuple, list)) else item


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
        parts = [hash_table(pa.table({"label": labels})), _hash_items(items), hash_index(row_index)]
        self._fingerprint = digest([MEMORY, kind, *parts])
        shape = items.shape if isinstance(items, np.ndarray) else (len(items),)
        self.uri = f"{MEMORY}:{kind}s-{'x'.join(map(str, shape))}-{self._fingerprint[:8]}"

    def fingerprint(self) -> str:
        """See `Source.fingerprint`. Covers labels and arrays; of files their paths, of a data set some of its items."""
        return self._fingerprint

    def _shard(self, first: int, count: int) -> Shard:
        last = first + count
        uris = self._uris[first:last] if self._uris is not None else [str(row) for row in range(first, last)]
        labels = some_rows(self._labels, first, count)
        return MemoryShard(first, count, self.kind, self._items[first:last], labels, uris)


def hash_index(row_index: pa.Table | None) -> str | None:
    """Hex digest of `Source.row_index`."""
    return None if row_index is None else hash_table(row_index)


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


def hash_table(table: pa.Table) -> str:
    """Hex digest of the content of a table."""
    sink = _Sink()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        for batch in table.to_batches(_HASHED_ROWS):
            stream.write_batch(batch)
    return sink.state.hexdigest()


def gone(data: str) -> DataError:
    """The error for the name of data that were in the memory of a process."""
    remedy = "pass the data themselves to dynacor_ray.detect, or save them as parquet"
    return DataError(expected_got("data that a file holds", f"{data}, which were in memory", remedy))
