"""What is left behind and nobody needs: empty folders of a run that was refused, and files of runs that died.

Of files in a folder that others share, the run that left them removes them, or any when they are old.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow.fs as pafs

from dynacor_ray.core.errors import StorageError
from dynacor_ray.core.storage import Location, retry_transient, storage_errors

PARTIAL_SECONDS = 24 * 3600.0
"""Age from which an unfinished file counts as left behind: no file takes a day to write."""


@contextmanager
def no_empty_folders(place: Location) -> Iterator[None]:
    """However the block ends, a local folder that was not there before is gone if it holds no file; so are those above.

    Folders of an object store need no removal. One that another process writes into at this moment is not empty.
    """
    folder = Path(place.path)
    made = [one for one in (folder, *folder.parents) if not one.exists()] if place.is_local else []
    try:
        yield
    finally:
        if made:
            inner = [Path(path) for path, _, _ in os.walk(folder, topdown=False)]
            for one in [*inner, *made[1:]]:
                with suppress(OSError):
                    one.rmdir()


def remove_leftovers(
    folder: Location, names: Iterable[str], seconds: float = PARTIAL_SECONDS, mine: str = ""
) -> list[str]:
    """Remove those entries of a folder that nobody is at work with any more; returns their names.

    Those are the ones whose names begin with `mine`, which only this run writes, and the others once nothing changed
    in them for so long. By the clock of the store, which is that of its files: no two clocks are compared. Where a
    store does not say when files change, or this run has no right to remove them, they stay.
    """
    removed = list[str]()
    with suppress(StorageError):
        names = list(names)
        for name in [name for name in names if mine and name.startswith(mine)]:
            (folder / name).delete()
            removed.append(name)
        changed = {name: _changed(folder / name) for name in names if name not in removed}
        known = {name: at for name, at in changed.items() if at is not None}
        now = _now(folder) if known else None
        for name, at in known.items():
            if now is not None and now - at > seconds * 1e9:
                (folder / name).delete()
                removed.append(name)
    return removed


def _now(folder: Location) -> int | None:
    """The time of the store, in nanoseconds, by a file that is written and removed again."""
    place = folder / f"clock-{uuid.uuid4().hex[:8]}.part"
    place.write_bytes(b"")
    now: int | None = place.info().mtime_ns
    place.delete()
    return now


@retry_transient
def _changed(place: Location) -> int | None:
    """When a file, or anything in a folder, changed last; None where that is not known."""
    infos = [place.info()]
    with storage_errors("read", place):
        if infos[0].type == pafs.FileType.Directory:
            inside = place.filesystem.get_file_info(pafs.FileSelector(place.path, recursive=True))
            # Folders of an object store have no time.
            infos = [info for info in (*infos, *inside) if info.type == pafs.FileType.File or info.mtime_ns]
    times = [info.mtime_ns for info in infos]
    return None if not times or None in times else max(times)
