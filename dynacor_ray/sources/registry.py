"""From what the user typed to an opened source."""

from __future__ import annotations

import functools
import posixpath
from collections.abc import Callable

import pyarrow.fs as pafs

from dynacor_ray.core.errors import ConfigError, DataError, expected_got
from dynacor_ray.core.storage import Location, locate, storage_errors
from dynacor_ray.sources.base import COLUMN_OPTIONS, Source, SourceOptions
from dynacor_ray.sources.cifar import DATA_SETS, CifarSource, present_data_sets
from dynacor_ray.sources.clothing1m import Clothing1MSource, Clothing1MTestSource, is_clothing1m
from dynacor_ray.sources.columns import find_columns
from dynacor_ray.sources.demo import DemoSource
from dynacor_ray.sources.folder import FolderSource
from dynacor_ray.sources.image_files import is_image_name
from dynacor_ray.sources.in_memory import MEMORY, gone
from dynacor_ray.sources.parquet import ParquetSource, read_footers
from dynacor_ray.sources.table import DELIMITERS, TableSource

UNDERSTOOD = (
    "'demo', a .parquet file, a folder of .parquet files, a .csv or .tsv table of image paths and labels, "
    "a folder with one sub-folder of images per class, the root of Clothing1M, or cifar10:ROOT or cifar100:ROOT"
)

_SAMPLE_OPTIONS = ("balanced_sample", "include_double_labeled")
_CIFAR_OPTIONS = (
    *_SAMPLE_OPTIONS,
    *(option for option in COLUMN_OPTIONS if option != "label_column"),
    "classes",
    "remote",
)
_IGNORED: dict[str, tuple[str, ...]] = {
    "parquet": (*_SAMPLE_OPTIONS, "remote"),
    "table": (*_SAMPLE_OPTIONS, "image_column", "feature_column"),
    "folder": (*_SAMPLE_OPTIONS, *COLUMN_OPTIONS, "remote"),
    "clothing1m": (*COLUMN_OPTIONS, "classes", "remote"),
    "clothing1m_test": (*_SAMPLE_OPTIONS, *COLUMN_OPTIONS, "classes", "remote"),
    **dict.fromkeys([*DATA_SETS, *(f"{name}_test" for name in DATA_SETS)], _CIFAR_OPTIONS),
    "demo": (*_SAMPLE_OPTIONS, *COLUMN_OPTIONS, "classes", "remote"),
}


def _open_clothing1m(kind: type[Source], root: str, options: SourceOptions) -> Source:
    _existing(root)
    return kind(root, options)  # type: ignore[call-arg]  # a source has no common constructor


SOURCES: dict[str, Callable[[str, SourceOptions], Source]] = {
    "clothing1m": functools.partial(_open_clothing1m, Clothing1MSource),
    "clothing1m_test": functools.partial(_open_clothing1m, Clothing1MTestSource),
    **{name: functools.partial(CifarSource, name) for name in DATA_SETS},
    **{f"{name}_test": functools.partial(CifarSource, name, train=False) for name in DATA_SETS},
}
"""Prefix -> what opens `PREFIX:ROOT`. An added row makes `detect` understand more (see `dynacor_ray.sources`)."""


def from_anywhere(data: str) -> str:
    """The same data for every working directory: a local path made absolute, also behind a prefix."""
    prefix, colon, root = data.partition(":")
    if data == "demo" or "://" in data or prefix == MEMORY:
        return data
    if colon and prefix in SOURCES:
        return f"{prefix}:{locate(root).uri}" if root and "://" not in root else data
    return locate(data).uri if data else data


def open_source(data: str, options: SourceOptions) -> Source:
    """Open a source.

    Args:
        data: "demo", `PREFIX:ROOT` with a prefix of SOURCES, or a path or URI whose content tells what it is.
        options: columns, classes and samples that the user asked for.

    Raises:
        DataError: there is nothing, nothing that is understood, or no row.
        ConfigError: an option does not apply to this kind of data.
        StorageError: the location cannot be read.
    """
    name, make = _recognize(data, options)
    unused = [option for option in _IGNORED.get(name, ()) if getattr(options, option) not in (None, False)]
    if unused:
        flags = ", ".join(f"--{option.replace('_', '-')}" for option in unused)
        raise ConfigError(expected_got(f"options that apply to data of kind '{name}'", flags, "leave them out"))
    source = make()
    if source.num_rows == 0:
        remedy = "check the path and how the data was written"
        raise DataError(expected_got(f"labeled rows in {data}", "0 rows", remedy))
    return source


def _recognize(data: str, options: SourceOptions) -> tuple[str, Callable[[], Source]]:
    """Kind of the data and what opens it."""
    if data == "demo":
        return "demo", lambda: DemoSource(options)
    name, colon, root = data.partition(":")
    if colon and name == MEMORY:
        raise gone(data)
    if colon and name in SOURCES:
        return name, lambda: SOURCES[name](root, options)
    place = _existing(data)
    return _recognize_folder(data, place, options) if place.is_dir() else _recognize_file(data, place, options)


def _existing(data: str) -> Location:
    place = locate(data)
    if not data or not place.exists():
        expected = f"data to look at ({UNDERSTOOD})"
        raise DataError(expected_got(expected, f"no such path {data!r}", "check the path"))
    return place


def _recognize_folder(data: str, place: Location, options: SourceOptions) -> tuple[str, Callable[[], Source]]:
    if is_clothing1m(place):
        return "clothing1m", lambda: Clothing1MSource(data, options)
    selector = pafs.FileSelector(place.path)
    with storage_errors("read", place):
        infos = [info for info in place.filesystem.get_file_info(selector) if not info.base_name.startswith(".")]
    present = present_data_sets([info.base_name for info in infos])
    if len(present) > 1:
        remedy = f"say {' or '.join(f'--data {name}:{data}' for name in present)}"
        raise DataError(expected_got(f"one data set in {data}", " and ".join(present), remedy))
    if present:
        return present[0], lambda: CifarSource(present[0], data, options)
    files = sorted(info.base_name for info in infos if info.type == pafs.FileType.File)
    if any(name.endswith(".parquet") for name in files):
        return _recognize_parquet(data, options)
    if any(info.type == pafs.FileType.Directory for info in infos):
        return "folder", lambda: FolderSource(data, options)
    remedy = "check the path"
    if any(map(is_image_name, files)):
        remedy = "move the images into one sub-folder per class, or give a .csv of uri,label"
    elif any(posixpath.splitext(name)[1].lower() in DELIMITERS for name in files):
        remedy = "give the path of the table itself"
    got = f"the files {', '.join(files[:5])}{', ...' if len(files) > 5 else ''}" if files else "an empty folder"
    raise DataError(expected_got(f"{UNDERSTOOD} at {data}", got, remedy))


def _recognize_file(data: str, place: Location, options: SourceOptions) -> tuple[str, Callable[[], Source]]:
    extension = posixpath.splitext(place.path)[1].lower()
    if extension in DELIMITERS:
        return "table", lambda: TableSource(data, options)
    if extension == ".parquet":
        return _recognize_parquet(data, options)
    remedy = "convert the data, or give another path"
    raise DataError(expected_got(UNDERSTOOD, f"a file of type {extension or 'unknown'!r} ({data})", remedy))


def _recognize_parquet(data: str, options: SourceOptions) -> tuple[str, Callable[[], Source]]:
    """Parquet with a payload, or a table of paths; the footers are read once for both."""
    footers = read_footers(data)
    if find_columns(footers[0].schema, options, footers[0].name).payload is None:
        return "table", lambda: TableSource(data, options, footers)
    return "parquet", lambda: ParquetSource(data, options, footers)
