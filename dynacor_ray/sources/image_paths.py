"""Where the images of a table lie: paths as they are written, below another folder, or with an ending to add."""

from __future__ import annotations

import itertools
import os
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs

from dynacor_ray.core.errors import DataError, StorageError, expected_got
from dynacor_ray.core.storage import Location, locate
from dynacor_ray.sources.base import SourceOptions
from dynacor_ray.sources.image_files import is_image_name
from dynacor_ray.sources.reach import is_own, refusal

CHAIN = "chain of protocols"
_WITH_QUERY = ("s3", "gs", "gcs", "abfs", "abfss")
"""Schemes whose query says how to reach the store."""
_SAMPLE = 16
_FOLDERS = 64
_PARTS = 8
_LONGEST_PATH = 1024
_SUFFIXES = (".jpg", ".png", ".jpeg", ".JPG", ".tif", ".webp", ".bmp", ".gif", ".JPEG", ".PNG", ".tiff")


def place_of(uri: str | None, folder: Location, remote: bool | None = True) -> tuple[Location | None, str | None]:
    """Location of an image: a URI, an absolute local path, or a path relative to the table's folder.

    fsspec's chains of protocols are refused: some write what they read to a local disk, others unpack archives.

    Returns:
        (location, None), or (None, reason).
    """
    if not uri:
        return None, "missing path"
    if "\0" in uri:
        return None, "path with a null character"
    if "://" in uri:
        scheme, _, rest = uri.partition("://")
        host, _, path = rest.partition("/")
        if "::" in scheme + host:
            return None, CHAIN
        if refused := refusal(uri, folder, remote):
            return None, refused
        try:
            if scheme in _WITH_QUERY:
                path, mark, query = path.partition("?")
                return _locate_host(f"{scheme}://{host}{mark}{query}") / path, None
            far = remote is None and not is_own(uri, folder)
            return (_locate_host(f"{scheme}://{host}", far) / path if host and path else locate(uri, far)), None
        except StorageError:
            return None, "unknown or unreachable storage"
    if uri.startswith("/"):
        return (None, refused) if (refused := refusal(uri, folder, remote)) else (locate(uri), None)
    return folder / uri, None


def folder_of(place: Location) -> Location:
    """Where relative paths of a table start: a folder of parquet files itself, or the folder of the file."""
    if place.is_dir():
        return place
    return place.parent


@lru_cache(maxsize=64)
def _locate_host(uri: str, far: bool = False) -> Location:
    """Bucket or host of many URIs, connected to once."""
    return locate(uri, far)


@dataclass(frozen=True)
class PathRule:
    """How a path in a table becomes one that leads to an image.

    Attributes:
        prefix: folder in front, relative to the table's or absolute, with its slash.
        suffix: ending to add.
        strip: leading parts to drop, as of a path on another machine.
        from_windows: whether back-slashes stand for slashes.
        from_url: whether they are encoded as in an address, with %20 for a blank.
        other_case: whether their endings are written in the other case, .JPG for .jpg, as not all systems tell apart.
        places: name of an image -> its path, where they are spread over several folders.
        hint: what to do, where no path of a sample leads to a file.
    """

    prefix: str = ""
    suffix: str = ""
    strip: int = 0
    from_windows: bool = False
    from_url: bool = False
    other_case: bool = False
    places: Mapping[str, str] = field(default_factory=dict)
    hint: str = ""

    def apply(self, uris: pa.StringArray) -> pa.StringArray:
        """The paths, changed; URIs stay as they are."""
        paths = pc.replace_substring(uris, "\\", "/") if self.from_windows else uris
        if self.from_url:
            paths = pa.array([path and unquote(path) for path in paths.to_pylist()], pa.string())
        if self.other_case:
            paths = pa.array([path and _other_case(path) for path in paths.to_pylist()], pa.string())
        if self.places:
            named = (path and path + self.suffix for path in paths.to_pylist())
            return pa.array([path and self.places.get(path, path) for path in named], pa.string())
        if self.strip:
            paths = pc.replace_substring_regex(paths, f"^([^/]*/){{{self.strip}}}", "")
        absolute = pc.starts_with(paths, "/")
        prefix = pc.if_else(absolute, "", self.prefix)
        paths = pc.binary_join_element_wise(prefix, paths, self.suffix, "")
        return pc.if_else(pc.match_substring(uris, "://"), uris, paths)

    def told(self) -> str:
        """The rule in a sentence; empty if paths are used as they are."""
        folders = sorted({posixpath.dirname(path) for path in self.places.values()})
        said = [f"looked for by name in {len(folders)} folders, such as {folders[0]!r}"] if folders else []
        said += [f"looked for below {self.prefix!r}"] if self.prefix else []
        said += [f"given the ending {self.suffix!r}"] if self.suffix else []
        said += [f"used without their first {self.strip} parts"] if self.strip else []
        said += ["read with / for \\"] if self.from_windows else []
        said += ["decoded, as %20 is a blank in an address"] if self.from_url else []
        said += ["used with their endings in the other case, as .JPG for .jpg"] if self.other_case else []
        return f"Paths are {', '.join(said)}." if said else ""


def _other_case(path: str) -> str:
    stem, ending = posixpath.splitext(path)
    return stem + ending.swapcase()


def find_rule(uris: pa.StringArray, folder: Location, options: SourceOptions) -> PathRule:
    """How the paths of a table lead to images: as they are, else by the one change with which they do.

    Args:
        uris: paths of all rows.
        folder: the table's.
        options: root and suffix that the user named.

    Raises:
        DataError: no path of a sample leads to a file below the named root, or two folders have them.
    """
    known = uris.drop_null()
    known = known.filter(pc.invert(pc.match_substring(known, "://")))
    if not len(known):
        return PathRule()
    sample = known.take(pa.array(np.unique(np.linspace(0, len(known) - 1, _SAMPLE).astype(int))))
    named = PathRule(_as_prefix(options.image_root), options.image_suffix or "")
    if _found(named, sample, folder):
        return named
    from_windows = any("\\" in path for path in sample.to_pylist()) and not any("/" in p for p in sample.to_pylist())
    base = replace(named, from_windows=from_windows)
    prefixes = [named.prefix] if options.image_root is not None else ["", *_folders(folder)]
    bare = not any(map(is_image_name, sample.to_pylist()))
    suffixes = [named.suffix] if options.image_suffix is not None else ["", *(_SUFFIXES if bare else ())]
    cases = [False] if bare else [False, True]
    most = max(path.count("\\" if from_windows else "/") for path in sample.to_pylist())
    for strip in range(min(most, _PARTS) + 1):
        for suffix, other_case in itertools.product(suffixes, cases):
            changed = replace(base, suffix=suffix, strip=strip, other_case=other_case)
            rules = [replace(changed, prefix=prefix) for prefix in prefixes]
            fitting = [rule for rule in rules if rule != named and _found(rule, sample, folder)]
            if len(fitting) > 1 and fitting[0].prefix:
                if (spread := _spread(sample, folder, prefixes, suffixes)) is not None:
                    return spread
                got = " and ".join(repr(rule.prefix.rstrip("/")) for rule in fitting)
                raise DataError(expected_got(f"one folder in {folder} with the images", got, "choose --image-root"))
            if fitting:
                return fitting[0]
    if options.image_root is None and (spread := _spread(sample, folder, prefixes, suffixes)) is not None:
        return spread
    decoded = replace(base, from_url=True)
    if any("%" in path for path in sample.to_pylist()) and _found(decoded, sample, folder):
        return decoded
    place, reason = place_of(named.apply(sample)[0].as_py(), folder)
    shown = sample[0].as_py()
    tried = f"no file at {place if place is not None else reason} for {shown!r}"
    if len(shown) > _LONGEST_PATH:
        tried = f"no path but a text of {len(shown):,} characters, {shown[:40]!r}..."
    remedy = "say where the images are with --image-root, and with --image-suffix which ending the names lack"
    if options.image_root is not None:
        raise DataError(expected_got("images below --image-root", tried, remedy))
    return replace(named, hint=f"{remedy} ({tried})")


def _as_prefix(root: str | None) -> str:
    """A named root as a prefix: relative ones start at the working directory, as any other path of the command."""
    if root is None:
        return ""
    return (root if "://" in root else os.path.abspath(root)).rstrip("/") + "/"


def _folders(folder: Location) -> Iterator[str]:
    """The folders beside the table, and one level below, as prefixes."""
    level = [""]
    for _ in range(2):
        inner = []
        for above in level:
            infos = folder.filesystem.get_file_info(pafs.FileSelector((folder / above).path, allow_not_found=True))
            names = sorted(i.base_name for i in infos if not i.is_file and not i.base_name.startswith("."))
            inner += [f"{above}{name}/" for name in names[:_FOLDERS]]
        yield from inner[:_FOLDERS]
        level = inner[:_FOLDERS]


def _spread(
    sample: pa.StringArray, folder: Location, prefixes: Sequence[str], suffixes: Sequence[str]
) -> PathRule | None:
    """The rule for names that lie in several folders, each name in one; None where fewer than half are found."""
    if any("/" in path or "\\" in path for path in sample.to_pylist()):
        return None
    places: dict[str, str] = {}
    for prefix in filter(None, prefixes):
        for name in filter(is_image_name, (folder / prefix).names()):
            places[name] = "" if name in places else prefix + name
    places = {name: path for name, path in places.items() if path}
    for suffix in suffixes:
        if len(sample) <= 2 * sum(path + suffix in places for path in sample.to_pylist()):
            return PathRule(suffix=suffix, places=places)
    return None


def _found(rule: PathRule, sample: pa.StringArray, folder: Location) -> bool:
    """Whether at least half of the paths lead to a file; a few may be missing. Looks no further than it must."""
    places = [place_of(path, folder)[0] for path in rule.apply(sample).to_pylist()]
    wanted, found = 1 if rule == PathRule() else (len(places) + 1) // 2, 0
    for left, place in zip(range(len(places), 0, -1), places, strict=True):
        if found + left < wanted:
            return False
        if place is not None:
            found += os.path.isfile(place.path) if place.is_local else bool(place.info().is_file)
        if found >= wanted:
            return True
    return False
