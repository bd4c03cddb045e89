"""The images below a folder, and what else is there: other endings, thumbnails, links. Reads no file."""

from __future__ import annotations

import os
import posixpath
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow.fs as pafs

from dynacor_ray.core.errors import DataError, expected_got
from dynacor_ray.core.storage import Location
from dynacor_ray.sources.image_files import MISSING, OUTSIDE, UNREAD_EXTENSIONS, is_image_name, is_inside

SYSTEM_FOLDERS = frozenset(
    {"@eadir", "#recycle", "@recycle", "__macosx", "lost+found", "$recycle.bin", "system volume information"}
)
"""What network drives and file managers put beside the data, lower case; hidden folders besides."""
_SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini"})


@dataclass(frozen=True)
class FolderFile:
    """One image of a folder.

    Attributes:
        path: below the root, with `/`.
        error: why it cannot be read, None if it can.
        size: bytes, part of its version.
        mtime_ns: modification time, part of its version.
        depth: folders above that of the class: 0, or 1 below a split.
    """

    path: str
    error: str | None
    size: int | None
    mtime_ns: int | None
    depth: int = 0

    @property
    def label(self) -> str:
        """The folder that stands for the class."""
        return self.path.split("/")[self.depth]


@dataclass
class Scan:
    """What lies below a folder.

    Attributes:
        files: the images in folders, in order of their paths.
        at_root: images directly in the root.
        folders: all folders below the root that are looked into.
        others: how many files that are no images, by folder and ending.
        system: how many folders of a system, by name.
        loops: links that lead back to a folder that is read already.
    """

    files: list[FolderFile] = field(default_factory=list)
    at_root: int = 0
    folders: set[str] = field(default_factory=set)
    others: Counter[tuple[str, str]] = field(default_factory=Counter)
    system: Counter[str] = field(default_factory=Counter)
    loops: list[str] = field(default_factory=list)

    def endings(self, below: str = "") -> str:
        """The files that are no images, counted by ending, in words."""
        found = Counter[str]()
        for (folder, ending), count in self.others.items():
            if not below or f"{folder}/".startswith(f"{below}/"):
                found[ending or "no ending"] += count
        ordered = sorted(found.items(), key=lambda item: (-item[1], item[0]))
        return ", ".join(f"{count:,} x {ending}" for ending, count in ordered[:8])


def scan_folder(root: Location, follow_links: bool = False) -> Scan:
    """All images below a folder, on any file system.

    Args:
        root: the folder.
        follow_links: whether links of a local folder may lead out of it.

    Raises:
        DataError: a link to a folder leads out of the root, or nowhere, so that a class would be missing.
    """
    scan = Scan()
    found = _Walk(root.path, scan, follow_links).files() if root.is_local else _remote(root, scan)
    scan.files = sorted(found, key=lambda file: file.path)
    return scan


def _sort(scan: Scan, path: str) -> bool:
    """Whether a file is a row; counts it where it is none."""
    folder, name = posixpath.split(path)
    ending = posixpath.splitext(name)[1].lower()
    is_image = is_image_name(name)
    if folder and (is_image or ending in UNREAD_EXTENSIONS):
        return True
    if is_image:
        scan.at_root += 1
    elif name.lower() not in _SYSTEM_FILES:
        scan.others[folder, ending] += 1
    return False


def _unread(path: str) -> str | None:
    ending = posixpath.splitext(path)[1].lower()
    return f"images of type {ending} are not read" if ending in UNREAD_EXTENSIONS else None


def _remote(root: Location, scan: Scan) -> Iterator[FolderFile]:
    for info in root.filesystem.get_file_info(pafs.FileSelector(root.path, recursive=True)):
        path = info.path[len(root.path) :].lstrip("/")
        parts = path.split("/")
        system = [part for part in parts if part.lower() in SYSTEM_FOLDERS]
        if system:
            if not info.is_file and parts[-1] == system[0]:
                scan.system[system[0]] += 1
        elif not any(part.startswith(".") for part in parts):
            if not info.is_file:
                scan.folders.add(path)
            elif _sort(scan, path):
                scan.folders.update("/".join(parts[:end]) for end in range(1, len(parts)))
                yield FolderFile(path, _unread(path), info.size, info.mtime_ns)


class _Walk:
    """A walk through a local folder. A link to a folder is followed once at most: links may form circles."""

    def __init__(self, root: str, scan: Scan, follow_links: bool) -> None:
        self.root, self.scan, self.follow = root, scan, follow_links
        self.real = os.path.realpath(root)
        self.linked = set[str]()

    def files(self) -> Iterator[FolderFile]:
        folders: list[tuple[str, tuple[str, ...]]] = [("", (self.real,))]
        while folders:
            folder, above = folders.pop()
            with os.scandir(os.path.join(self.root, folder)) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    path = f"{folder}/{entry.name}" if folder else entry.name
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir():
                        if self._enters(path, entry, above):
                            self.scan.folders.add(path)
                            folders.append((path, (*above, os.path.realpath(entry.path))))
                    elif _sort(self.scan, path):
                        yield self._file(path, entry)
                    elif entry.is_symlink() and not folder and not os.path.exists(entry.path):
                        raise _lost_link(path, "nothing", "restore what it points to, or remove it")

    def _enters(self, path: str, entry: os.DirEntry[str], above: tuple[str, ...]) -> bool:
        """Whether to go into a folder."""
        if entry.name.lower() in SYSTEM_FOLDERS:
            self.scan.system[entry.name] += 1
            return False
        if not entry.is_symlink():
            return True
        real = os.path.realpath(entry.path)
        if not self.follow and not is_inside(real, self.real):
            raise _lost_link(path, "a folder outside of the data", "pass --follow-links to read it, or remove the link")
        if real in self.linked or real in above:
            self.scan.loops.append(path)
            return False
        self.linked.add(real)
        return True

    def _file(self, path: str, entry: os.DirEntry[str]) -> FolderFile:
        """A file or link as a row; whatever prevents reading it later is its error."""
        try:
            path.encode()
        except UnicodeEncodeError:
            readable = os.fsencode(path).decode(errors="replace")
            return FolderFile(readable, "file name is not UTF-8", None, None)
        if not self.follow and entry.is_symlink() and not is_inside(entry.path, self.real):
            return FolderFile(path, f"{OUTSIDE}; --follow-links reads it", None, None)
        try:
            stat = entry.stat()
        except OSError:
            return FolderFile(path, MISSING, None, None)
        return FolderFile(path, _unread(path), stat.st_size, stat.st_mtime_ns)


def _lost_link(path: str, target: str, remedy: str) -> DataError:
    return DataError(expected_got("folders of images", f"the link {path!r} to {target}", remedy))
