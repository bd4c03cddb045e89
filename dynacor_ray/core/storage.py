"""Reading and writing files: a local path or any URI that pyarrow or fsspec knows. No Ray here."""

from __future__ import annotations

import errno
import functools
import io
import itertools
import json
import lzma
import os
import posixpath
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ParamSpec, TypeVar
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from dynacor_ray.core.errors import StorageError, expected_got
from dynacor_ray.core.fences import as_it_is_now, check_change, lock_around, of_another
from dynacor_ray.core.redaction import MASK, redact, redacted

_P = ParamSpec("_P")
_T = TypeVar("_T")
ATTEMPTS = 4
PART = ".part"
"""End of the names of files that are being written."""
FIRST_WAIT = 0.5
"""Seconds before the second attempt; each further wait is twice as long."""
_TRANSIENT = frozenset(
    {
        *(errno.EIO, errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.EPIPE, errno.ESTALE, errno.ETIMEDOUT),
        *(errno.ECONNABORTED, errno.ECONNREFUSED, errno.ECONNRESET, errno.ENETDOWN, errno.ENETUNREACH),
        *(errno.EHOSTDOWN, errno.EHOSTUNREACH),
    }
)
_PERMANENT = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError)
_REFUSED = re.compile(
    "ACCESS_DENIED|NO_SUCH|NOT_FOUND|INVALID_|SIGNATURE|UNAUTHENTICATED|PERMISSION",
    re.IGNORECASE,
)
"""Errors without a number that a retry cannot change: answers of object stores."""
_DAMAGED = re.compile(
    "PARQUET|THRIFT|CORRUPT|DECOMPRESS|SNAPPY|ZSTD|UNEXPECTED END OF STREAM|PAGE HEADER|REP / DEF|COLUMN TYPE"
    "|FLATBUFFER|IPC (STREAM|MESSAGE)|RECORD BATCH|BUFFER_INDEX",
    re.IGNORECASE,
)
"""Errors without a number that tell of the content of a file."""


def is_transient(error: BaseException) -> bool:
    """Whether a storage error may be gone a moment later: a failing network or disk, not a refusal."""
    cause = error.__cause__ if isinstance(error, StorageError) else error
    if not isinstance(cause, OSError) or isinstance(cause, (StorageError, *_PERMANENT)):
        return False
    if cause.errno:
        return cause.errno in _TRANSIENT
    return not (_REFUSED.search(str(cause)) or _DAMAGED.search(str(cause)))


def is_damage(error: OSError, place: Location) -> bool:
    """Whether an error of reading is about the content of the file, not about its storage.

    Arrow gives a number to errors of a local file system only, and texts to all others.
    """
    if error.errno or isinstance(error, (StorageError, *_PERMANENT)):
        return False
    return place.is_local or bool(_DAMAGED.search(str(error)))


def retry_transient(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """The function with up to ATTEMPTS calls while storage fails transiently. It must be repeatable."""

    @functools.wraps(function)
    def wrapper(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        for attempt in range(ATTEMPTS - 1):
            try:
                return function(*args, **kwargs)
            except OSError as error:
                if not is_transient(error):
                    raise
                time.sleep(FIRST_WAIT * 2**attempt)
        return function(*args, **kwargs)

    return wrapper


def transient_messages() -> list[str]:
    """Messages of transient errors, for those who retry by text, as Ray Data does."""
    return [os.strerror(number) for number in sorted(_TRANSIENT)]


MAX_JSON_BYTES = 512 << 20
"""Far more than a manifest of a hundred million rows; the boxes of COCO 2017 have 448 MB."""
_JSON_MEMORY = 2 << 30
_MAX_RATIO, _UNPACKED_BYTES = 100, 256 << 20
"""A compressed file that becomes more than both, times its size and in all, is taken for a bomb."""
_COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".lz4", ".br")
_READ_BYTES = 64 << 20


_IS_URI = re.compile(r"[A-Za-z][\w+.-]*://")


@dataclass(frozen=True)
class Location:
    """A directory or file on some file system; picklable, joined with `/` like a path.

    Attributes:
        filesystem: Where it lies.
        path: Its path there; an object of that file system needs no parsing of a URI again.
        uri: What the user wrote, or that of a child; may hold secrets, unlike `str(location)`.
        lock: Path of the file without which nothing is changed here: the lock of the driver that sent this place to
            this process; empty where there is none.
    """

    filesystem: pafs.FileSystem
    path: str
    uri: str = field(repr=False)
    lock: str = field(default="", repr=False, compare=False)

    def __reduce__(self) -> tuple[Callable[..., Location], tuple[Any, ...]]:
        lock = self.lock or lock_around(self.filesystem, self.path)
        return _received, (self.filesystem, self.path, self.uri, lock)

    def __truediv__(self, name: str) -> Location:
        return self._at(lambda path: posixpath.join(path, name))

    def __str__(self) -> str:
        return redact(self.uri)

    def __fspath__(self) -> str:
        """What `open` or pandas take: the path of a local file, else the URI."""
        return self.path if self.is_local else self.uri

    @property
    def parent(self) -> Location:
        """The folder it lies in."""
        return self._at(posixpath.dirname)

    def beside(self, ending: str) -> Location:
        """A neighbor whose name ends with some more text."""
        return self._at(lambda path: path + ending)

    def _at(self, move: Callable[[str], str]) -> Location:
        """Another place on the same file system; the query of a URI stays behind the path."""
        return Location(self.filesystem, _move(self.path, move), _move(self.uri, move), self.lock)

    @property
    def is_local(self) -> bool:
        """Whether the path is on this machine."""
        return isinstance(self.filesystem, pafs.LocalFileSystem)

    @property
    def fresh(self) -> pafs.FileSystem:
        """The file system as it is now, whatever was listed before."""
        return as_it_is_now(self.filesystem, self.path)

    @retry_transient
    def info(self) -> pafs.FileInfo:
        """Type, size and modification time; the type is NotFound if nothing exists."""
        with storage_errors("read", self):
            return self.fresh.get_file_info(self.path)

    def exists(self) -> bool:
        """Whether a file or directory exists."""
        return bool(self.info().type != pafs.FileType.NotFound)

    def is_dir(self) -> bool:
        """Whether a directory exists."""
        return bool(self.info().type == pafs.FileType.Directory)

    @retry_transient
    def make_dir(self) -> Location:
        """Create the directory and its parents; returns itself."""
        with storage_errors("write", self):
            self.filesystem.create_dir(self.path, recursive=True)
        return self

    @retry_transient
    def delete(self) -> None:
        """Remove the file or the whole directory, if there is one."""
        with storage_errors("write", self):
            check_change(self.filesystem, self.path, self.lock)
            kind = self.fresh.get_file_info(self.path).type
            if kind == pafs.FileType.Directory:
                self.filesystem.delete_dir(self.path)
            elif kind != pafs.FileType.NotFound:
                self.filesystem.delete_file(self.path)

    @retry_transient
    def names(self) -> list[str]:
        """Sorted names of the entries directly inside the directory; empty if it does not exist."""
        selector = pafs.FileSelector(self.path, allow_not_found=True)
        with storage_errors("read", self):
            return sorted(info.base_name for info in self.fresh.get_file_info(selector))

    def remove_half_written(self) -> None:
        """Remove what `atomic_replace` left below the directory when its process was killed; nobody may write there."""
        for info in self._below():
            if info.base_name.endswith(PART):
                (self / info.path.strip("/")[len(self.path.strip("/")) + 1 :]).delete()

    @retry_transient
    def _below(self) -> list[pafs.FileInfo]:
        with storage_errors("read", self):
            found = self.fresh.get_file_info(pafs.FileSelector(self.path, recursive=True, allow_not_found=True))
            return list(found)

    @contextmanager
    def stream(self) -> Iterator[pa.NativeFile]:
        """The file, open for reading from its start. Raises StorageError for a pipe, which would block forever."""
        if self.is_local and self.info().type not in (pafs.FileType.File, pafs.FileType.NotFound):
            raise StorageError(expected_got(f"a regular file at {self}", "something else", "check the path"))
        with storage_errors("read", self), self.fresh.open_input_stream(self.path) as stream:
            if not self.path.lower().endswith(_COMPRESSED):
                yield stream
                return
            most = most_unpacked(self.info().size or 0)
            try:
                # the only compression that Arrow does not unpack by itself
                with lzma.LZMAFile(stream) if self.path.lower().endswith(".xz") else stream as unpacked:
                    yield pa.PythonFile(_Bounded(unpacked, most, str(self)), "r")
            except (lzma.LZMAError, EOFError) as error:
                raise StorageError(expected_got(f"to read {self}", f"'{error}'", "write the file again")) from error

    def read_bytes(self, most: int | None = None) -> bytes:
        """The whole content of the file. Raises StorageError when it has more than `most` bytes.

        Another process may replace it meanwhile: an object store then sends as many bytes as the old one had, and of
        two requests one may be answered from the old and one from the new. So it is asked once for all, and again where
        the size has changed.
        """
        for _ in range(ATTEMPTS):
            size, content = self._read(most)
            if self.is_local or self.info().size == size:
                break
        return content

    @retry_transient
    def _read(self, most: int | None) -> tuple[int | None, bytes]:
        """Size of the file before it was read, and its content."""
        with self._sized() as (stream, size):
            content, step = b"", max(_READ_BYTES, min(size or 0, most or size or 0))
            while block := stream.read(step):
                content += block
                if most is not None and len(content) > most:
                    got = f"more than {most >> 20:,} MiB"
                    raise StorageError(expected_got(f"{self} to be small", got, "check what it is"))
            return size, content

    @contextmanager
    def _sized(self) -> Iterator[tuple[pa.NativeFile, int | None]]:
        """The file, open, and its size. Arrow's own drivers of stores ask for that in any case, and once is enough."""
        tells_size = not self.is_local and not isinstance(self.filesystem, pafs.PyFileSystem)
        if tells_size and not self.path.lower().endswith(_COMPRESSED):
            with storage_errors("read", self), self.filesystem.open_input_file(self.path) as file:
                yield file, file.size()
        else:
            size = self.info().size
            with self.stream() as stream:
                yield stream, size

    def write_bytes(self, data: bytes) -> None:
        """Write the file atomically: a reader never sees half of it."""

        def write(part: Location) -> None:
            with part.filesystem.open_output_stream(part.path) as stream:
                stream.write(data)

        self.write_atomically(write)

    def read_json(self) -> Any:
        """The parsed content of a JSON file. Raises StorageError when it is damaged or larger than MAX_JSON_BYTES."""
        try:
            return parse_json(self.read_bytes(MAX_JSON_BYTES))
        except (ValueError, RecursionError) as error:
            raise StorageError(expected_got(f"JSON in {self}", f"'{error}'", "remove the damaged file")) from error

    def write_json(self, value: Any) -> None:
        """Write an indented JSON file atomically."""
        self.write_bytes((json.dumps(value, indent=2, allow_nan=False) + "\n").encode())

    @retry_transient
    def read_table(self, columns: list[str] | None = None) -> pa.Table:
        """Read a parquet file, or some of its columns."""
        with self.parquet() as file:
            return file.read(columns)

    @contextmanager
    def parquet(self) -> Iterator[pq.ParquetFile]:
        """The parquet file, open for reading. Raises StorageError when it is missing or damaged.

        What else goes wrong in the block is raised as it is: after an error of Arrow the file is read through, and
        only one that cannot be read is damaged.
        """
        try:
            with storage_errors("read", self), pq.ParquetFile(self.path, filesystem=self.fresh) as file:
                yield file
        except pa.ArrowInvalid as error:
            if self._is_parquet():
                raise
            remedy = "remove it and run again"
            raise StorageError(expected_got(f"to read {self}", f"a damaged file ({error})", remedy)) from error

    def _is_parquet(self) -> bool:
        """Whether a file can be read to its end."""
        try:
            with pq.ParquetFile(self.path, filesystem=self.filesystem) as file:
                for _ in file.iter_batches():
                    pass
        except (pa.ArrowInvalid, OSError):
            return False
        return True

    @retry_transient
    def head(self, count: int) -> pa.Table:
        """The first `count` rows of a parquet file; the rest is not read."""
        with self.parquet() as file:
            return pa.Table.from_batches(itertools.islice(file.iter_batches(max(count, 1)), 1), file.schema_arrow)

    def write_table(self, table: pa.Table, **options: Any) -> None:
        """Write a parquet file atomically."""
        self.write_atomically(lambda part: pq.write_table(table, part.path, filesystem=part.filesystem, **options))

    @retry_transient
    def write_atomically(self, write: Callable[[Location], None]) -> None:
        """Call `write` with a temporary location, then move that here. `write` must be repeatable."""
        with self.atomic_replace() as part:
            write(part)

    @contextmanager
    def atomic_replace(self) -> Iterator[Location]:
        """A temporary location beside this one; moved here on success, removed on failure. Parents are created."""
        with storage_errors("write", self), self.temporary() as part:
            yield part
            part.move_to(self)

    @contextmanager
    def temporary(self) -> Iterator[Location]:
        """A place beside this one, to be moved from there; what is there after a failure is removed."""
        part = self.beside(f".{uuid.uuid4().hex[:8]}{PART}")
        self.filesystem.create_dir(self.parent.path, recursive=True)
        try:
            yield part
        except BaseException:
            if self.filesystem.get_file_info(part.path).type != pafs.FileType.NotFound:
                self.filesystem.delete_file(part.path)
            raise

    def move_to(self, there: Location) -> None:
        """Put this file in place of another one on the same file system, at once."""
        check_change(there.filesystem, there.path, there.lock)
        there.filesystem.create_dir(there.parent.path, recursive=True)
        check_change(there.filesystem, there.path, there.lock)  # again: a process may have been stopped in between
        there.filesystem.move(self.path, there.path)


class _Bounded(io.RawIOBase):
    """What is unpacked while it is read, up to `most` bytes."""

    def __init__(self, source: Any, most: int, name: str) -> None:
        self._source, self._left, self._most, self._name = source, most, most, name

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        found = bytes(self._source.read(size if size >= 0 else self._left + 1))
        self._left -= len(found)
        if self._left < 0:
            got, remedy = f"more than {self._most >> 20:,} MiB", "if you trust it, unpack it yourself"
            raise StorageError(expected_got(f"{self._name} to be no decompression bomb", got, remedy))
        return found


def most_unpacked(size: int) -> int:
    """Bytes that so many packed ones may become; what is packed tighter is taken for a bomb."""
    return max(_UNPACKED_BYTES, _MAX_RATIO * size)


def parse_json(content: bytes) -> Any:
    """The value of a JSON text. Raises ValueError or RecursionError when it is damaged, or would fill the memory."""
    values = 72 * (content.count(b"[") + content.count(b"{")) + 32 * content.count(b",")
    if values > _JSON_MEMORY:
        raise ValueError(f"more than {_JSON_MEMORY >> 20:,} MiB of values")
    return json.loads(content)


def _received(filesystem: pafs.FileSystem, path: str, uri: str, lock: str) -> Location:
    """A place that was sent by this or another process."""
    return Location(filesystem, path, uri, of_another(lock))


def _move(text: str, move: Callable[[str], str]) -> str:
    """A path or URI with another path."""
    if not _IS_URI.match(text):
        return move(text)
    path, mark, query = text.partition("?")
    return move(path) + mark + query


_CREDENTIALS: dict[tuple[str, str], tuple[str, str]] = {}
"""(scheme and host, query) of each URI with secrets that this process was given: redacted -> in full."""


def locate(uri: str, far: bool = False) -> Location:
    """Resolve a local path or a URI (`s3://`, `gs://`, or any protocol of fsspec).

    far: whether a web server must not lead to this machine or its link, by a redirect or by its name.
    A URI from a file of an earlier run has `***` for its secrets; they are put back where this process was told them.

    Raises:
        StorageError: the protocol is unknown, its driver is not installed, or the store does not answer; or the
            secrets of the URI are not known.
    """
    if not _IS_URI.match(uri):
        return _local(uri)
    if uri.startswith("file://"):
        return _local(unquote(re.sub(r"^file://(localhost(?=/|$))?", "", uri)) or "/")
    uri = _with_credentials(uri)
    try:
        filesystem, path = pafs.FileSystem.from_uri(uri)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        filesystem, path = _from_fsspec(uri, far) if far else _from_fsspec(uri)
    except OSError as error:
        remedy = "check the address, the network and your credentials"
        raise StorageError(expected_got(f"a store at {uri}", f"'{error}'", remedy)) from redacted(error)
    return Location(filesystem, path.rstrip("/"), _move(uri, lambda text: text.rstrip("/")))


def _with_credentials(uri: str) -> str:
    """The URI with its secrets, which are kept for redacted URIs of the same store."""
    shown = redact(uri)
    (root, path, query), (shown_root, _, shown_query) = _parts(uri), _parts(shown)
    if shown != uri:
        _CREDENTIALS[shown_root, shown_query] = root, query
    elif MASK in root + query:
        if (root, query) not in _CREDENTIALS:
            remedy = "keep credentials in the environment or the store's own files, not in addresses"
            raise StorageError(expected_got(f"the credentials of {uri}", "none, as they are not stored", remedy))
        root, query = _CREDENTIALS[root, query]
    return root + path + query


def _parts(uri: str) -> tuple[str, str, str]:
    """Scheme and host, path, and query of a URI."""
    base, mark, query = uri.partition("?")
    start = base.rpartition("@")[2] if "@" in base else base.partition("://")[2]
    path = start.partition("/")[1] + start.partition("/")[2]
    return base[: len(base) - len(path)], path, mark + query


def _local(path: str) -> Location:
    full = Path(path).expanduser().absolute().as_posix()
    return Location(pafs.LocalFileSystem(), full, full)


def _from_fsspec(uri: str, far: bool = False) -> tuple[pafs.FileSystem, str]:
    import fsspec

    options: dict[str, Any] = {}
    try:
        if uri.startswith(("http://", "https://")):
            from dynacor_ray.core.http_files import BoundedResponse, far_client

            options["client_kwargs"] = {"response_class": BoundedResponse}
            options |= {"get_client": far_client} if far else {}
        filesystem, path = fsspec.core.url_to_fs(uri, **options)
    except Exception as error:  # a driver raises what it likes when the URI lacks what it needs
        known = ", ".join(sorted(fsspec.available_protocols())[:12])
        remedy = f"install the fsspec driver of the protocol, or use a local path ({error}; known: {known}, ...)"
        message = expected_got("a path or a URI with an installed driver", repr(uri), remedy)
        raise StorageError(message) from redacted(error)
    return pafs.PyFileSystem(pafs.FSSpecHandler(filesystem)), path


@contextmanager
def storage_errors(action: str, place: Location) -> Iterator[None]:
    """Turn an operating-system error into a StorageError that names the location and says what to do."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        number = error.errno or (errno.ENOENT if isinstance(error, FileNotFoundError) else None)
        remedy = "check path and rights"
        if number in (errno.ENOSPC, errno.EDQUOT):
            remedy = "free some space or choose another place"
        elif action == "write" and number in (errno.EROFS, errno.EACCES, errno.EPERM):
            remedy = "check path and rights, or choose another place"
        if action == "read" and is_damage(error, place):
            remedy = "remove it and run again"
        elif is_transient(error):
            remedy = "run the same command again when the storage answers; it goes on where it was"
        reason = os.strerror(number) if number else str(error)
        raise StorageError(expected_got(f"to {action} {place}", f"'{reason}'", remedy)) from redacted(error)


def require_space(place: Location, needed_bytes: int) -> None:
    """Check the free space of a local disk; remote stores are not asked. Raises StorageError when it is too small."""
    if not place.is_local:
        return
    folder = Path(place.path)
    with storage_errors("write", place):
        while not folder.exists():
            folder = folder.parent
        free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        expected = f"{needed_bytes / 1e9:.2f} GB of free space for {place}"
        raise StorageError(expected_got(expected, f"{free / 1e9:.2f} GB", "free some space or choose another place"))
