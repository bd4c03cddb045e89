"""Reading many image files, one bad file never stopping the rest; and digests of what a source consists of."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs

from dynacor_ray.core.schema import IMAGE, INSTANCE_ID, RAW_ERROR, RAW_LABEL, RAW_ROW, TRUE_LABEL, URI
from dynacor_ray.core.storage import Location, retry_transient

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})
MAX_FILE_BYTES = 256 << 20
OUTSIDE = "points outside the data root"
MISSING = "missing file"

_T = TypeVar("_T")
_THREADS = 8


def is_image_name(name: str) -> bool:
    """Whether the extension claims an image."""
    return os.path.splitext(name)[1].lower() in EXTENSIONS


def read_file(place: Location, root: str | None = None) -> tuple[bytes | None, str | None]:
    """(content, None), or (None, reason) when the file cannot be had.

    root: real path that a local file may not leave through a link; None when it may lie anywhere.
    """
    if root is not None and place.is_local and not is_inside(place.path, root):
        return None, OUTSIDE
    try:
        return _read(place)
    except FileNotFoundError:
        return None, MISSING
    except PermissionError:
        return None, "permission denied"
    except (OSError, ValueError) as error:
        return None, f"unreadable file ({type(error).__name__})"


@retry_transient
def _read(place: Location) -> tuple[bytes | None, str | None]:
    if place.is_local:  # a pipe or a device would block for ever
        kind = place.filesystem.get_file_info(place.path).type
        if kind == pafs.FileType.NotFound:
            return None, MISSING
        if kind != pafs.FileType.File:
            return None, "not a regular file"
    with place.filesystem.open_input_file(place.path) as file:
        size = file.size()
        if size > MAX_FILE_BYTES:
            return None, f"file has {size >> 20:,} MiB; the limit is {MAX_FILE_BYTES >> 20} MiB"
        return bytes(file.read()), None


def is_inside(path: str, root: str) -> bool:
    """Whether a local path, links followed, lies inside `root`, itself a real path."""
    real = os.path.realpath(path)
    return real == root or real.startswith(root.rstrip("/") + "/")


def read_rows(
    places: Sequence[Location | None], errors: Sequence[str | None], root: str | None = None
) -> tuple[list[bytes | None], list[str | None]]:
    """Read every place without an error yet, several at once; returns contents and errors, both in order."""

    def one(place: Location | None, error: str | None) -> tuple[bytes | None, str | None]:
        return (None, error) if error is not None or place is None else read_file(place, root)

    with ThreadPoolExecutor(_THREADS) as pool:
        found = list(pool.map(one, places, errors))
    return [content for content, _ in found], [error for _, error in found]


def raw_images(
    first_row: int,
    uris: Sequence[str | None],
    labels: pa.Array[Any] | Sequence[str | None],
    errors: Sequence[str | None],
    images: Sequence[bytes | None],
    truths: pa.Array[Any] | Sequence[str | None] | None = None,
    instance_ids: pa.Array[Any] | None = None,
) -> pa.Table:
    """The raw rows of image files as `Shard.read` returns them; all arguments have the shard's length."""
    columns: dict[str, Any] = {
        RAW_ROW: pa.array(np.arange(first_row, first_row + len(uris), dtype=np.int64)),
        URI: pa.array(uris, pa.string()),
        RAW_LABEL: pa.array(labels, pa.string()),
        RAW_ERROR: pa.array(errors, pa.string()),
        IMAGE: pa.array(images, pa.binary()),
    }
    if truths is not None:
        columns[TRUE_LABEL] = pa.array(truths, pa.string())
    if instance_ids is not None:
        columns[INSTANCE_ID] = instance_ids
    return pa.table(columns)


def cut(rows: int, max_rows: int, make: Callable[[int, int], _T]) -> list[_T]:
    """Cut 0..rows-1 into equal pieces of at most `max_rows` rows; `make(first, count)` builds each piece."""
    pieces = max(1, -(-rows // max(1, max_rows)))
    edges = [rows * piece // pieces for piece in range(pieces + 1)]
    return [make(first, last - first) for first, last in pairwise(edges) if last > first]


def file_stamp(name: str, info: pafs.FileInfo) -> list[Any]:
    """What identifies one version of a file: its name, size and time of change."""
    return [name, info.size, info.mtime_ns]
