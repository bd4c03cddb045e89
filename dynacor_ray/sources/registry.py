"""From what the user typed to an opened source."""

from __future__ import annotations

import functools
import glob
import posixpath
import re
from collections.abc import Callable
from dataclasses import fields, replace

import pyarrow as pa
import pyarrow.fs as pafs

from dynacor_ray.core.errors import ConfigError, DataError, DynacorError, closest, expected_got, first_line
from dynacor_ray.core.redaction import redact
from dynacor_ray.core.storage import Location, locate, storage_errors
from dynacor_ray.sources.arrays import ARRAY_FILES, ArraySource
from dynacor_ray.sources.base import COLUMN_OPTIONS, Source, SourceOptions
from dynacor_ray.sources.box_files import find_coco, is_coco_file, is_voc, is_yolo
from dynacor_ray.sources.boxes import BoxSource
from dynacor_ray.sources.cifar import DATA_SETS, CifarSource, present_data_sets
from dynacor_ray.sources.clothing1m import Clothing1MSource, Clothing1MTestSource, is_clothing1m
from dynacor_ray.sources.columns import find_columns
from dynacor_ray.sources.demo import DemoSource
from dynacor_ray.sources.folder import FolderSource
from dynacor_ray.sources.folder_kinds import find_metadata, has_rows_below
from dynacor_ray.sources.image_files import is_image_name, is_pattern, matching
from dynacor_ray.sources.in_memory import MEMORY, gone
from dynacor_ray.sources.json_tables import JSON_LINES, JSON_TABLES, is_project_table
from dynacor_ray.sources.one_hot import LABEL, one_hot_columns, with_labels
from dynacor_ray.sources.parquet import ParquetSource, read_footers, with_hinted_schema
from dynacor_ray.sources.row_files import ROW_FILES, RowFile, is_row_file
from dynacor_ray.sources.table import TableSource
from dynacor_ray.sources.text_format import COMPRESSIONS, TEXT_TABLES, find_format, table_ending
from dynacor_ray.sources.text_rows import open_text_rows, text_schema
from dynacor_ray.sources.webdataset import WebDatasetSource

UNDERSTOOD = (
    "'demo', a folder with one sub-folder of images per class, a table (.csv, .tsv, .txt, .jsonl, .json, .parquet) of "
    "image paths and labels or with features, a project of Label Studio (.json, .csv), .npy or .npz, Arrow files, "
    "webdataset's .tar, boxes of COCO, YOLO or Pascal VOC, the root of Clothing1M, or cifar10:ROOT or cifar100:ROOT"
)

TABLES = (*TEXT_TABLES, *JSON_LINES)
_IN_PYTHON = "load it in Python and pass the arrays: dynacor_ray.detect(features, labels)"
_REMEDIES = {
    **dict.fromkeys((".zip", ".7z", ".rar", ".tgz", *COMPRESSIONS), "unpack it, and pass what is in it"),
    **dict.fromkeys((".xlsx", ".xls", ".ods"), "save it as CSV"),
    **dict.fromkeys((".pkl", ".pickle", ".pt", ".pth", ".h5", ".hdf5", ".mat", ".joblib"), _IN_PYTHON),
    **dict.fromkeys((".svm", ".libsvm", ".svmlight", ".arff", ".tfrecord", ".record"), _IN_PYTHON),
    **dict.fromkeys((".pq", ".parq"), "call it .parquet"),
    **dict.fromkeys((".yaml", ".yml"), "pass the folder that holds images/ and labels/"),
    ".xml": "pass the folder that holds the images and their annotations",
}
"""What to do with a file of another kind, by its ending."""
_LOOKED_AT = 32
_PLACES = ("image_root", "image_suffix", "remote")
_SAMPLES = ("balanced_sample", "include_double_labeled")
_USED: dict[str, tuple[str, ...]] = {
    "parquet": (*COLUMN_OPTIONS, "feature_columns", "classes", "split", "remote"),
    "table": ("label_column", "uri_column", "truth_column", "classes", "split", *_PLACES),
    "metadata": ("label_column", "uri_column", "truth_column", "classes", "split", *_PLACES),
    "folder": ("classes", "split", "follow_links"),
    **dict.fromkeys(("numpy", "webdataset", "coco", "yolo", "voc"), ("classes", "split")),
    "clothing1m": _SAMPLES,
    "clothing1m_test": (),
    **dict.fromkeys([*DATA_SETS, *(f"{name}_test" for name in DATA_SETS)], ("label_column",)),
    "demo": (),
}
"""Options of `SourceOptions` that apply to each kind of data; the seed always does."""


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
    given = sorted(field.name for field in fields(options) if getattr(options, field.name) not in (None, False))
    unused = [option for option in given if option != "seed" and option not in _USED.get(name, given)]
    if unused:
        flags = ", ".join(f"--{option.replace('_', '-')}" for option in unused)
        raise ConfigError(expected_got(f"options that apply to data of kind '{name}'", flags, "leave them out"))
    source = make()
    if source.num_rows == 0:
        raise _without_rows(data)
    return source


def _without_rows(data: str) -> DataError:
    remedy = "check the path and how the data was written"
    return DataError(expected_got(f"labeled rows in {data}", "0 rows", remedy))


def _recognize(data: str, options: SourceOptions) -> tuple[str, Callable[[], Source]]:
    """Kind of the data and what opens it."""
    if data == "demo":
        return "demo", lambda: DemoSource(options)
    name, colon, root = data.partition(":")
    if colon and name == MEMORY:
        raise gone(data)
    if colon and name in SOURCES:
        return name, lambda: SOURCES[name](root, options)
    if is_pattern(data) and not locate(data).exists():
        return _recognize_pattern(data, options)
    place = _existing(data)
    return _recognize_folder(data, place, options) if place.is_dir() else _recognize_file(data, place, options)


def _existing(data: str) -> Location:
    place = locate(data)
    try:
        if data and place.exists():
            return place
    except Exception as error:  # a driver of fsspec raises what it likes when the address lacks what it needs
        if isinstance(error, DynacorError) or "://" not in data:
            raise
        expected = f"an address that its driver can look up, {redact(data)}"
        raise DataError(expected_got(expected, f"'{first_line(error)}'", "check the address and the network")) from None
    path = place.path.rstrip("/")
    beside = Location(place.filesystem, posixpath.dirname(path), posixpath.dirname(place.uri.rstrip("/")))
    near = closest(posixpath.basename(path), beside.names() if data else [])
    prefix, colon, root = data.partition(":")
    word = closest(prefix, SOURCES) if colon else closest(posixpath.basename(data), ["demo"])
    if near or word:
        meant = str(beside / near) if near else f"{word}{colon}{root}"
        raise DataError(expected_got("data to look at", f"no such path {data!r}", f"perhaps {meant} is meant"))
    raise DataError(expected_got("data to look at", f"no such path {data!r}", "check the path"))


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
    files = sorted(info.base_name for info in infos if info.is_file)
    folders = sorted(info.base_name for info in infos if info.type == pafs.FileType.Directory)
    tools = {
        "coco": find_coco(place, [*files, *folders]),
        "yolo": is_yolo(place, [*files, *folders]),
        "voc": is_voc(place, [*files, *folders]),
    }
    form = next((form for form, is_one in tools.items() if is_one), None)
    if form is not None:
        return form, lambda: BoxSource(data, options, form)
    if not folders and any(name.lower().endswith(".tar") for name in files):
        return "webdataset", lambda: WebDatasetSource(data, options)
    if any(map(is_row_file, files)):
        return _recognize_parquet(data, options)
    listed = find_metadata(place, files, folders, options.split)
    if listed:
        return "metadata", lambda: _metadata(data, listed, options)
    if not folders and any(name.lower().endswith(".npy") for name in files):
        return "numpy", lambda: ArraySource(data, options)
    if folders and has_rows_below(place, folders):
        return _recognize_parquet(data, options)
    tables = [name for name in files if table_ending(name) in TABLES and not name.lower().startswith("readme")]
    tables = tables or [name for name in files if name.lower().endswith(".json")]
    if folders:
        return "folder", lambda: _open_folder(data, options, lambda: tables or _tables_below(place, folders))
    remedy, expected = "check the path", f"{UNDERSTOOD} at {data}"
    if tables:
        expected = f"one table, or folders of images, at {data}"
        remedy = f"give the path of the table itself: --data {data.rstrip('/')}/{_likeliest(tables)}"
        if len(tables) > 1:
            remedy += f", or of several of the same columns: --data '{data.rstrip('/')}/*{table_ending(tables[0])}'"
    elif any(map(is_image_name, files)):
        expected = f"labels of the images in {data}"
        remedy = "move the images into one sub-folder per class, or give a .csv of path,label"
    got = f"the files {', '.join(files[:5])}{', ...' if len(files) > 5 else ''}" if files else "an empty folder"
    raise DataError(expected_got(expected, got, remedy))


def _tables_below(place: Location, folders: list[str]) -> list[str]:
    """Tables in text that lie in folders, with their paths below `place`."""
    try:
        names = [f"{folder}/{name}" for folder in folders[:_LOOKED_AT] for name in (place / folder).names()]
    except UnicodeDecodeError:  # pyarrow's, of a file name
        return []
    return [name for name in names if table_ending(name) in TABLES and "readme" not in name.lower()]


def _likeliest(tables: list[str]) -> str:
    """The table that has the labels, by its name: not a list of what to predict."""
    return min(tables, key=lambda name: (not re.search("train|label|class|annot", name, re.IGNORECASE), name))


def _open_folder(data: str, options: SourceOptions, find_tables: Callable[[], list[str]]) -> Source:
    """An image folder; where it has no classes, the error names the table beside the images."""
    try:
        return FolderSource(data, options)
    except DataError as error:
        tables = find_tables()
        if not tables or "pass --data" in str(error):
            raise
        table = f"{data.rstrip('/')}/{_likeliest(tables)}"
        remedy = "the table with the labels" if len(tables) == 1 else "a table with the labels, such as"
        raise DataError(
            f"{str(error).rstrip('.')}; or pass {remedy}{',' * (len(tables) == 1)} --data {table}."
        ) from error


def _metadata(data: str, listed: str, options: SourceOptions) -> Source:
    """A list of labels beside images; the data are the folder, not the list alone, and paths are told from there."""
    source = TableSource(f"{data.rstrip('/')}/{listed}", replace(options, split=None), root=data)
    source.name, source.uri = "metadata", data
    return source


def _recognize_file(data: str, place: Location, options: SourceOptions) -> tuple[str, Callable[[], Source]]:
    extension = table_ending(place.path)
    if extension == ".tar" and place.path.lower().endswith(COMPRESSIONS):
        extension = posixpath.splitext(place.path)[1].lower()
    if extension == ".json" and is_coco_file(place):
        return "coco", lambda: BoxSource(data, options, "coco")
    if extension in (".yaml", ".yml") and is_yolo(place.parent, place.parent.names()):
        return "yolo", lambda: BoxSource(posixpath.dirname(data), options, "yolo")
    if extension in (*TEXT_TABLES, *JSON_TABLES, ".tar"):
        _require_no_split(data, options)
    if extension in TEXT_TABLES:
        return _recognize_text(data, [place], options)
    if extension in ROW_FILES:
        return _recognize_parquet(data, options)
    if extension == ".tar":
        return "webdataset", lambda: WebDatasetSource(data, options)
    if extension in JSON_TABLES:
        return "table", lambda: TableSource(data, options)
    if extension in ARRAY_FILES:
        return "numpy", lambda: ArraySource(data, options)
    known = _REMEDIES.get(extension)
    expected = "data of a kind that is understood" if known else UNDERSTOOD
    remedy = known or "convert the data, or give another path"
    raise DataError(expected_got(expected, f"a file of type {extension or 'unknown'!r} ({data})", remedy))


def _require_no_split(data: str, options: SourceOptions) -> None:
    if options.split is not None:
        remedy = "leave it out, name the files of the split, or write its rows to a file of their own"
        raise ConfigError(expected_got("folders or files of splits for --split", data, remedy))


def _recognize_pattern(data: str, options: SourceOptions) -> tuple[str, Callable[[], Source]]:
    """Files of rows, or tables in text, of one folder."""
    places = matching(locate(data))
    endings = sorted({table_ending(place.path) for place in places})
    if len(endings) == 1 and endings[0] in TEXT_TABLES:
        _require_no_split(data, options)
        return _recognize_text(data, places, options)
    if set(endings) <= set(ROW_FILES):
        return _recognize_parquet(data, options)
    is_images = all(is_image_name(place.path) for place in places)
    remedy = 'pass the labels in Python, detect("photos/*.jpg", labels), or a .csv of path,label' if is_images else ""
    got = f"{len(places):,} of type {', '.join(endings)}"
    expected = f"tables in text, or parquet or Arrow files, as {data}"
    raise DataError(expected_got(expected, got, remedy or "name files of one kind"))


def _recognize_text(data: str, places: list[Location], options: SourceOptions) -> tuple[str, Callable[[], Source]]:
    """Tables of paths, or with columns of numbers: features, or one-hot classes."""
    form, name = find_format(places[0]), posixpath.basename(places[0].path)
    if not form.has_rows and len(places) == 1:
        raise _without_rows(data)
    if is_project_table(form.names) and len(places) == 1:
        return "table", lambda: TableSource(data, options, is_project=True)
    schema = text_schema(places[0], form)
    one_hot = one_hot_columns(schema, options, name)
    known = schema if not one_hot else schema.append(pa.field(LABEL, pa.string()))
    columns = find_columns(known, options, name)
    parts = columns.parts
    if parts and columns.uri is not None:  # as text, a column of numbers that names rows could name files
        options = replace(options, feature_columns=tuple(map(glob.escape, parts)))
    if parts or one_hot:
        return _recognize_rows(data, options, [open_text_rows(place, [*parts, *one_hot]) for place in places])
    return "table", lambda: TableSource(data, options)


def _recognize_parquet(data: str, options: SourceOptions) -> tuple[str, Callable[[], Source]]:
    footers = read_footers(data, options.split)
    footers.sort(key=lambda file: file.num_rows == 0)  # empty partitions may lack columns: they say nothing
    return _recognize_rows(data, options, footers)


def _recognize_rows(data: str, options: SourceOptions, files: list[RowFile]) -> tuple[str, Callable[[], Source]]:
    """Files with a payload, or a table of paths; what is known of them is read once for both."""
    files = with_hinted_schema(with_labels(files, options))
    columns = find_columns(files[0].schema, options, files[0].name)
    if columns.payload is None and not columns.parts:
        return "table", lambda: TableSource(data, options, files)
    return "parquet", lambda: ParquetSource(data, options, files)
