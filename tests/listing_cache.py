"""A store whose driver keeps what it listed, as those of fsspec do by default: what others change it does not see."""

from __future__ import annotations

from typing import Any

import pyarrow.fs as pafs
from fsspec import AbstractFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from dynacor_ray.core.storage import Location


class ListingCache(MemoryFileSystem):
    """The memory of this process behind a cache of listings, which each instance has of its own."""

    protocol = "listed"
    cachable = False
    find, isfile, isdir = AbstractFileSystem.find, AbstractFileSystem.isfile, AbstractFileSystem.isdir

    def ls(self, path: str, detail: bool = True, **options: Any) -> Any:
        path = self._strip_protocol(path)
        if path not in self.dircache:
            self.dircache[path] = super().ls(path, detail=True, **options)
        return self.dircache[path] if detail else [entry["name"] for entry in self.dircache[path]]

    def info(self, path: str, **options: Any) -> Any:
        path = self._strip_protocol(path)
        listed = self.dircache.get(self._parent(path))
        if listed is None:
            return super().info(path, **options)
        found = [entry for entry in listed if entry["name"] == path]
        if not found:
            raise FileNotFoundError(path)
        return found[0]

    def invalidate_cache(self, path: str | None = None) -> None:
        if path is None:
            self.dircache.clear()
            return
        path = self._strip_protocol(path)
        while path not in ("", "/"):
            self.dircache.pop(path, None)
            path = self._parent(path)
        self.dircache.pop(path, None)

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        if mode != "rb":
            self.invalidate_cache(path)
        return super()._open(path, mode, **options)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        self.invalidate_cache(path)
        super().makedirs(path, exist_ok)

    def mkdir(self, path: str, create_parents: bool = True, **options: Any) -> None:
        self.invalidate_cache(path)
        super().mkdir(path, create_parents, **options)

    def cp_file(self, path1: str, path2: str, **options: Any) -> None:
        self.invalidate_cache(path2)
        super().cp_file(path1, path2, **options)

    def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> None:
        self.dircache.clear()
        super().rm(path, recursive, maxdepth)


def listed_store(path: str) -> Location:
    """A place in that store, with a cache of its own, as another process has it."""
    return Location(pafs.PyFileSystem(pafs.FSSpecHandler(ListingCache())), f"/{path}", f"listed://{path}")
