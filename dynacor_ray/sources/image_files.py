"""Reading many image files, where one invalid file never stops the rest; cutting sources; versions of files."""

from __future__ import annotations

import fnmatch
import io
import os
import posixpath
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
from numpy.typing import NDArray
from PIL import Image

from dynacor_ray.core.errors import DataError, expected_got
from dynacor_ray.core.schema import IMAGE, INSTANCE_ID, RAW_ERROR, RAW_LABEL, RAW_ROW, TRUE_LABEL, URI
from dynacor_ray.core.storage import Location, retry_transient
from dynacor_ray.sources.piece_memory import Held, LargeRowsError

EXTENSIONS = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".avif", ".bmp", ".dib", ".gif", ".tif", ".tiff"),
        *(".jp2", ".j2k", ".jpf", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm", ".mpo"),
    }
)
"""Endings of image files that are read."""
UNREAD_EXTENSIONS = frozenset(
    {
        *(".heic", ".heif", ".svg", ".psd", ".jxl", ".eps", ".tga", ".exr", ".hdr", ".ico", ".pcx", ".dcm", ".dicom"),
        *(".raw", ".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".raf"),
    }
)
"""Endings of image files that are not: in place of an image each is an unusable row."""
MAX_FILE_BYTES = 256 << 20
LFS_HEAD = b"version https://git-lfs.github.com/spec/"
LFS_REMEDY = "run git lfs pull in the repository"
OUTSIDE = "points outside the data root"
MISSING = "missing file"

_T = TypeVar("_T")
_Rows = TypeVar("_Rows", pa.Table, pa.StringArray)
_THREADS = 8
_CREDENTIALS = re.compile(r"(?<=://)[^/@]*@")


def is_pattern(data: str) -> bool:
    """Whether a path or URI, apart from its (masked) password, stands for the files of a folder with such names."""
    return "*" in _CREDENTIALS.sub("", data)


def matching(place: Location) -> list[Location]:
    """The files of a folder whose names fit the last part of a pattern, in order; of a plain path itself.

    Raises:
        DataError: there is none, or a folder above is a pattern, too.
    """
    folder, name = place.parent, posixpath.basename(place.path)
    if not is_pattern(place.path) or place.exists():
        return [place]
    if is_pattern(folder.path):
        remedy = "name the folder: all files of rows below it are read"
        raise DataError(expected_got("* in the last part of a path only", str(place), remedy))
    found = [folder / other for other in folder.names() if fnmatch.fnmatchcase(other, name) and other[0] not in "._"]
    if not found:
        raise DataError(expected_got(f"files {name} in {folder}", "none", "check the pattern"))
    return found


def is_image_name(name: str) -> bool:
    """Whether the extension is that of an image."""
    return os.path.splitext(name)[1].lower() in EXTENSIONS


def read_file(place: Location, root: str | None = None, held: Held | None = None) -> tuple[bytes | None, str | None]:
    """Read one file.

    Args:
        place: the file.
        root: real path that a local file must not leave through a link; None when it may lie anywhere.
        held: where its bytes are counted before they are read.

    Returns:
        (content, None), or (None, reason) when the file cannot be read.
    """
    if root is not None and place.is_local and not is_inside(place.path, root):
        return None, OUTSIDE
    try:
        return _read(place, held)
    except LargeRowsError:
        raise
    except FileNotFoundError:
        return None, MISSING
    except PermissionError:
        return None, "permission denied"
    except (OSError, ValueError) as error:
        return None, f"unreadable file ({type(error).__name__})"


@retry_transient
def _read(place: Location, held: Held | None) -> tuple[bytes | None, str | None]:
    if place.is_local:  # a pipe or a device would block for ever
        kind = place.filesystem.get_file_info(place.path).type
        if kind == pafs.FileType.NotFound:
            return None, MISSING
        if kind != pafs.FileType.File:
            return None, "not a regular file"
    with place.filesystem.open_input_file(place.path) as file:
        size = file.size()
        if size > MAX_FILE_BYTES:
            return None, too_large(size)
        if held is not None:
            held.add(size)
        content = bytes(file.read())
    return (None, f"pointer of Git LFS, not the file; {LFS_REMEDY}") if is_pointer(content) else (content, None)


def too_large(size: int) -> str:
    """Why a file of more than `MAX_FILE_BYTES` is not read."""
    return f"file has {size >> 20:,} MiB; the limit is {MAX_FILE_BYTES >> 20} MiB"


def is_pointer(content: bytes) -> bool:
    """Whether a file is what Git LFS keeps in place of a large one until it is pulled."""
    return len(content) < 1024 and content.startswith(LFS_HEAD)


def is_inside(path: str, root: str) -> bool:
    """Whether a local path, links followed, lies inside `root`, itself a real path."""
    real = os.path.realpath(path)
    return real == root or real.startswith(root.rstrip("/") + "/")


def read_rows(
    places: Sequence[Location | None], errors: Sequence[str | None], root: str | None = None
) -> tuple[list[bytes | None], list[str | None]]:
    """Read several files at once, except those that have an error already.

    Returns:
        Contents and errors, both in order.

    Raises:
        DataError: all together do not fit into memory, as where a table names one large file many times.
    """
    held = Held(next((place.parent for place in places if place is not None), ""))

    def one(place: Location | None, error: str | None) -> tuple[bytes | None, str | None]:
        return (None, error) if error is not None or place is None else read_file(place, root, held)

    with ThreadPoolExecutor(_THREADS) as pool:
        results = list(pool.map(one, places, errors))
    return [content for content, _ in results], [error for _, error in results]


def read_below(
    root: Location, paths: Sequence[str], errors: Sequence[str | None], follow_links: bool = False
) -> tuple[list[bytes | None], list[str | None]]:
    """`read_rows` of paths relative to a root that no link may leave, unless links are followed."""
    places = [root / path if error is None else None for path, error in zip(paths, errors, strict=True)]
    return read_rows(places, errors, os.path.realpath(root.path) if root.is_local and not follow_links else None)


def png(pixels: NDArray[np.uint8]) -> bytes:
    """An image as PNG. uint8 (H, W) or (H, W, 3)."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


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


def some_rows(rows: _Rows, first: int, count: int) -> _Rows:
    """Some rows of an Arrow table or array as a copy, since a slice pickles as the whole."""
    return rows.take(pa.array(np.arange(first, first + count)))


def file_stamp(name: str, info: pafs.FileInfo) -> list[Any]:
    """The version of a file: name, size and modification time."""
    return [name, info.size, info.mtime_ns]
