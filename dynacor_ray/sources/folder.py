"""A folder of images with one sub-folder per class."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.fs as pafs

from dynacor_ray.core.errors import DataError, expected_got
from dynacor_ray.core.hashing import digest
from dynacor_ray.core.storage import Location, locate, storage_errors
from dynacor_ray.sources.base import Shard, Source, SourceOptions
from dynacor_ray.sources.columns import check_class_names, label_codes
from dynacor_ray.sources.image_files import (
    EXTENSIONS,
    MISSING,
    OUTSIDE,
    cut,
    is_image_name,
    is_inside,
    raw_images,
    read_below,
)


@dataclass(frozen=True)
class FolderFile:
    """One image of a folder.

    Attributes:
        path: below the root, with `/`.
        error: why it cannot be read, None if it can.
        size: bytes, part of its version.
        mtime_ns: modification time, part of its version.
    """

    path: str
    error: str | None
    size: int | None
    mtime_ns: int | None

    @property
    def label(self) -> str | None:
        """First-level directory; None for a link in its place, which must not become a class."""
        folder, slash, _ = self.path.partition("/")
        return folder if slash else None


@dataclass(frozen=True)
class FolderShard(Shard):
    """Some files of the folder."""

    root: Location
    files: tuple[FolderFile, ...]

    def read_labels(self) -> pa.StringArray:
        """See `Shard.read_labels`."""
        return pa.array([file.label for file in self.files], pa.string())

    def read(self) -> pa.Table:
        """See `Shard.read`."""
        uris = [file.path for file in self.files]
        images, errors = read_below(self.root, uris, [file.error for file in self.files])
        return raw_images(self.first_row, uris, self.read_labels(), errors, images)


class FolderSource(Source):
    """root/<class>/**/*.jpg and so on. Files at the root itself, hidden ones and other extensions are no rows."""

    name = "folder"
    kind = "image"
    root: Location
    files: list[FolderFile]
    """In the order of the rows."""

    def __init__(self, data: str, options: SourceOptions) -> None:
        """List the images below `data`, a path or URI. Raises DataError when no class folder has any."""
        self.uri = data
        self.root = locate(data)
        self._classes = None if options.classes is None else check_class_names(options.classes, "--classes")
        with storage_errors("read", self.root):
            files = _scan_local(self.root.path) if self.root.is_local else _scan(self.root)
            self.files = sorted(files, key=lambda file: file.path)
        if not self.files:
            expected = f"images ({', '.join(sorted(EXTENSIONS))}) in one sub-folder per class of {data}"
            raise DataError(expected_got(expected, "none", "check the path, and move the images into class folders"))
        self.num_rows = len(self.files)
        self.class_names = self._classes
        self.label_codes = None if self._classes is None else label_codes(self._classes)

    def fingerprint(self) -> str:
        """See `Source.fingerprint`."""
        files = [[file.path, file.error, file.size, file.mtime_ns] for file in self.files]
        return digest([self.name, str(self.root), files, self._classes])

    def shards(self, max_rows: int) -> list[Shard]:
        """See `Source.shards`."""

        def make(first: int, count: int) -> Shard:
            return FolderShard(first, count, self.root, tuple(self.files[first : first + count]))

        return cut(self.num_rows, max_rows, make)


def _scan(root: Location) -> Iterator[FolderFile]:
    """Images below the class folders of any file system."""
    for info in root.filesystem.get_file_info(pafs.FileSelector(root.path, recursive=True)):
        path = info.path[len(root.path) :].lstrip("/")
        hidden = any(part.startswith(".") for part in path.split("/"))
        if info.is_file and "/" in path and not hidden and is_image_name(path):
            yield FolderFile(path, None, info.size, info.mtime_ns)


def _scan_local(root: str) -> Iterator[FolderFile]:
    """Images below the class folders of a local root. Links to folders are not followed: they may form cycles."""
    real = os.path.realpath(root)
    folders = [""]
    while folders:
        folder = folders.pop()
        with os.scandir(os.path.join(root, folder)) as entries:
            for entry in entries:
                path = f"{folder}/{entry.name}" if folder else entry.name
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(path)
                elif (folder or entry.is_dir()) and (entry.is_dir() or is_image_name(path)):
                    yield _local_file(path, entry, real)


def _local_file(path: str, entry: os.DirEntry[str], root: str) -> FolderFile:
    """A file or link as a row; whatever prevents reading it later is its error."""
    try:
        path.encode()
    except UnicodeEncodeError:
        readable = os.fsencode(path).decode(errors="replace")
        return FolderFile(readable, "file name is not UTF-8", None, None)
    if entry.is_symlink() and not is_inside(entry.path, root):
        return FolderFile(path, OUTSIDE, None, None)
    if entry.is_dir():
        return FolderFile(path, "link to a folder; such links are not followed", None, None)
    try:
        stat = entry.stat()
    except OSError:
        return FolderFile(path, MISSING, None, None)
    return FolderFile(path, None, stat.st_size, stat.st_mtime_ns)
