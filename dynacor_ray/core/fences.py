"""Changes that a driver makes in its run directory are checked: one that was taken over changes nothing any more.

The driver itself is told by a function. Other processes, such as Ray's workers, got their places from the driver, and
with them the path of its lock file, which whoever takes over removes before anything else: a fencing token.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pyarrow.fs as pafs

from dynacor_ray.core.errors import RunDirectoryError, expected_got


@dataclass(frozen=True)
class _Fence:
    """folder: in which changes are checked; lock: the file that whoever takes over removes; both on `filesystem`."""

    filesystem: pafs.FileSystem
    folder: str
    lock: str
    check: Callable[[], None]

    def is_around(self, filesystem: pafs.FileSystem, path: str) -> bool:
        return f"{path}/".startswith(f"{self.folder}/") and filesystem.equals(self.filesystem)


_FENCES: dict[object, _Fence] = {}
_OWN: set[str] = set()
"""Locks of this process: what it checks by a function, it need not look for."""


@contextmanager
def fenced(filesystem: pafs.FileSystem, folder: str, lock: str, check: Callable[[], None]) -> Iterator[None]:
    """Call `check` before each change of a folder or below it by this process; what it raises prevents the change."""
    key = object()
    _OWN.add(lock)
    _FENCES[key] = _Fence(filesystem, folder, lock, check)
    try:
        yield
    finally:
        del _FENCES[key]


def lock_around(filesystem: pafs.FileSystem, path: str) -> str:
    """Path of the lock by which this process may change a place; empty for none."""
    return next((fence.lock for fence in list(_FENCES.values()) if fence.is_around(filesystem, path)), "")


def of_another(lock: str) -> str:
    """The lock, where it is that of another process; empty else."""
    return "" if lock in _OWN else lock


def check_change(filesystem: pafs.FileSystem, path: str, lock: str) -> None:
    """Raise RunDirectoryError where a place must not be changed.

    lock: path of the lock by which another process let this one change it; empty for none.
    """
    for fence in list(_FENCES.values()):
        if fence.is_around(filesystem, path):
            fence.check()
    if lock and as_it_is_now(filesystem, lock).get_file_info(lock).type == pafs.FileType.NotFound:
        remedy = "let the one that took over finish, or run the same command again"
        got = "none: the driver ended, or another one took over"
        raise RunDirectoryError(expected_got(f"the driver of this worker to hold {path} ({lock})", got, remedy))


def as_it_is_now(filesystem: pafs.FileSystem, path: str) -> pafs.FileSystem:
    """The file system without the listings around a path that drivers of fsspec keep: another process may change it."""
    if isinstance(filesystem, pafs.PyFileSystem) and isinstance(filesystem.handler, pafs.FSSpecHandler):
        for listed in (path, posixpath.dirname(path)):
            filesystem.handler.fs.invalidate_cache(listed)
    return filesystem
