"""From what the user typed to an opened source."""

from __future__ import annotations

import functools
import posixpath
from collections.abc import Callable
from dataclasses import fields

import pyarrow.fs as pafs

from dynacor_ray.core.errors import ConfigError, DataError, expected_got
from dynacor_ray.core.storage import Location, locate, storage_errors
from dynacor_ray.sources.arrays import ARRAY_FILES, ArraySource
from dynacor_ray.sources.base import COLUMN_OPTIONS, Source, SourceOptions
from dynacor_ray.sources.cifar import DATA_SETS, CifarSource, present_data_sets
from dynacor_ray.sources.clothing1m import Clothing1MSource, is_clothing1m
from dynacor_ray.sources.columns import find_columns
from dynacor_ray.sources.demo import DemoSource
from dynacor_ray.sources.folder import FolderSource
from dynacor_ray.sources.image_files import is_image_name
from dynacor_ray.sources.parquet import ParquetSource, read_footers
from dynacor_ray.sources.row_files import ARROW, open_text_rows, text_schema
from dynacor_ray.sources.table import JSON_LINES, TableSource
from dynacor_ray.sources.text_format import TEXT_TABLES, find_format, table_ending

UNDERSTOOD = (
    "'demo', a .parquet file, a folder of .parquet files, a .csv or .tsv table of image paths and labels, "
    "a folder with one sub-folder of images per class, the root of Clothing1M, or cifar10:ROOT or cifar100:ROOT"
)

TABLES = (*TEXT_TABLES, *JSON_LINES)
_PLACES = ("image_root", "image_suffix")
_SAMPLES = ("balanced_sample", "include_double_labeled")
_USED: dict[str, tuple[str, ...]] = {
    "parquet": (*COLUMN_OPTIONS, "feature_columns", "classes", "split"),
    "table": ("label_column", "uri_column", "truth_column", "classes", "split", *_PLACES),
    "folder": ("classes", "split", "follow_links"),
    "numpy": ("classes", "split"),
    "clothing1m": _SAMPLES,
    **dict.fromkeys(DATA_SETS, ("label_column",)),
    "demo": (),
}
"""Options of `SourceOptions` that apply to each kind of data; the seed always does."""


def _open_clothing1m(root: str, options: SourceOptions) -> Source:
    _existing(root)
    return Clothing1MSource(root, options)


SOURCES: dict[str, Callable[[str, SourceOptions], Source]] = {
    "clothing1m": _open_clothing1m,
    **{name: functools.partial(CifarSource, name) for name in DATA_SETS},
}
"""Prefix -> what opens `PREFIX:ROOT`. An added row makes `detect` understand more (see `dynacor_ray.sources`)."""


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
    given = sorted(field.name for field in fields(options) if getattr(options, field.name) not in (None, False))
    unused = [option for option in given if option != "seed" and option not in _USED.get(name, given)]
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
    if any(name.endswith((".parquet", *ARROW)) for name in files):
        return _recognize_parquet(data, options)
    if any(info.type == pafs.FileType.Directory for info in infos):
        return "folder", lambda: FolderSource(data, options)
    remedy = "check the path"
    if any(map(is_image_name, files)):
        remedy = "move the images into one sub-folder per class, or give a .csv of uri,label"
    elif any(table_ending(name) in TABLES for name in files):
        remedy = "give the path of the table itself"
    got = f"the files {', '.join(files[:5])}{', ...' if len(files) > 5 else ''}" if files else "an empty folder"
    raise DataError(expected_got(f"{UNDERSTOOD} at {data}", got, remedy))


def _recognize_file(data: str, place: Location, options: SourceOptions) -> tuple[str, Callable[[], Source]]:
    extension = table_ending(place.path)
    if extension in TEXT_TABLES:
        return _recognize_text(data, place, options)
    if extension in JSON_LINES:
        return "table", lambda: TableSource(data, options)
    if extension in (".parquet", *ARROW):
        return _recognize_parquet(data, options)
    if extension in ARRAY_FILES:
        return "numpy", lambda: ArraySource(data, options)
    remedy = "convert the data, or give another path"
    raise DataError(expected_got(UNDERSTOOD, f"a file of type {extension or 'unknown'!r} ({data})", remedy))


def _recognize_text(data: str, place: Location, options: SourceOptions) -> tuple[str, Callable[[], Source]]:
    """A table of paths, or with columns of numbers that are features."""
    schema = text_schema(place, find_format(place))
    parts = find_columns(schema, options, posixpath.basename(place.path)).parts
    if parts:
        return "parquet", lambda: ParquetSource(data, options, [open_text_rows(place, parts)])
    return "table", lambda: TableSource(data, options)


def _recognize_parquet(data: str, options: SourceOptions) -> tuple[str, Callable[[], Source]]:
    """Parquet with a payload, or a table of paths; the footers are read once for both."""
    footers = read_footers(data, options.split)
    footers.sort(key=lambda file: file.num_rows == 0)  # empty partitions may lack columns: they say nothing
    columns = find_columns(footers[0].schema, options, footers[0].name)
    if columns.payload is None and not columns.parts:
        return "table", lambda: TableSource(data, options, footers)
    return "parquet", lambda: ParquetSource(data, options, footers)
