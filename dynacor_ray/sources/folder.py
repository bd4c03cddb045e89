"""A folder of images with one sub-folder per class, also below splits such as train and val."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

from dynacor_ray.core.errors import DataError, counted, expected_got
from dynacor_ray.core.hashing import digest
from dynacor_ray.core.storage import Location, locate, storage_errors
from dynacor_ray.sources.base import Shard, Source, SourceOptions
from dynacor_ray.sources.class_names import named_classes
from dynacor_ray.sources.folder_scan import FolderFile, Scan, scan_folder
from dynacor_ray.sources.image_files import raw_images, read_below

_SPLIT = re.compile(
    r"(train(ing|val)?|val(id|idation)?|test(ing)?|dev|eval(uation)?)([-_ ]?(set|data|images|\d+))?", re.IGNORECASE
)
_SHOWN = 5


def is_split_name(name: str) -> bool:
    """Whether a folder of this name is a split rather than a class.

    >>> [is_split_name(name) for name in ("train", "val2017", "Test_set", "trainers", "cat")]
    [True, True, True, False, False]
    """
    return _SPLIT.fullmatch(name) is not None


def read_together(paths: Iterable[str]) -> list[str]:
    """A sentence where files of several splits are read, by the names of their folders or their own first words.

    >>> read_together(["data/test-00000-of-00001.parquet", "data/train-00000-of-00001.parquet"])
    ['The splits test, train are read together; --split takes one.']
    """
    words = ([word for word in re.split(r"[/=._-]", path) if is_split_name(word)] for path in paths)
    splits = sorted({found[0] for found in words if found})
    return [f"The splits {', '.join(splits)} are read together; --split takes one."] if len(splits) > 1 else []


@dataclass(frozen=True)
class FolderShard(Shard):
    """Some files of the folder."""

    root: Location
    files: tuple[FolderFile, ...]
    follow_links: bool

    def read_labels(self) -> pa.StringArray:
        """See `Shard.read_labels`."""
        return pa.array([file.label for file in self.files], pa.string())

    def read(self) -> pa.Table:
        """See `Shard.read`."""
        uris = [file.path for file in self.files]
        images, errors = read_below(self.root, uris, [file.error for file in self.files], self.follow_links)
        return raw_images(self.first_row, uris, self.read_labels(), errors, images)


class FolderSource(Source):
    """root/<class>/**/*.jpg or root/<split>/<class>/**/*.jpg. Files at the root itself and hidden ones are no rows."""

    name = "folder"
    kind = "image"
    root: Location
    files: list[FolderFile]
    """In the order of the rows."""

    def __init__(self, data: str, options: SourceOptions) -> None:
        """List the images below `data`, a path or URI.

        Raises:
            DataError: there are no folders of classes with images, or it is not clear which they are.
        """
        self.uri, self._options = data, options
        self.root = locate(data)
        self.class_names, self.label_codes = named_classes(options)
        with storage_errors("read", self.root):
            scan = scan_folder(self.root, options.follow_links)
        self.files, notes, warnings = _with_classes(scan, data, options.split)
        classes = Counter(file.label for file in self.files)
        if len(classes) < 2 and self.class_names is None:
            raise _one_class(scan, data, classes, self.files)
        self.notes = (*notes, *_no_rows(scan))
        self.warnings = (*warnings, *_without_rows(scan, self.files, data))
        self.num_rows = len(self.files)

    def fingerprint(self) -> str:
        """See `Source.fingerprint`."""
        files = [[file.path, file.error, file.size, file.mtime_ns] for file in self.files]
        return digest([self.name, files, self.class_names])

    def _shard(self, first: int, count: int) -> Shard:
        files = tuple(self.files[first : first + count])
        return FolderShard(first, count, self.root, files, self._options.follow_links)


def _with_classes(scan: Scan, data: str, split: str | None) -> tuple[list[FolderFile], list[str], list[str]]:
    """The images that are rows, each with the depth of its class; notes and warnings about it."""
    tops = sorted({file.path.split("/")[0] for file in scan.files})
    if split is not None:
        if split not in tops:
            raise DataError(
                expected_got(f"a split {split!r} in {data}", f"the folders {_listed(tops)}", "name one of these")
            )
        chosen = [split]
    elif tops and all(map(is_split_name, tops)):
        chosen = tops
    else:
        _require_no_splits(scan.files, data)
        return scan.files, _inner_folders(scan.files), []
    inside = [file for file in scan.files if file.path.split("/")[0] in chosen]
    unnamed = _unnamed_classes(inside)
    deep = (file for file in inside if file.path.count("/") > 1 and "/".join(file.path.split("/")[:2]) not in unnamed)
    files = [dataclasses.replace(file, depth=1) for file in deep]
    if not files:
        got = f"images directly in {_listed(chosen)}"
        remedy = "move them into one sub-folder per class, or give a .csv of path,label"
        raise DataError(expected_got(f"one sub-folder per class in each split of {data}", got, remedy))
    notes, warnings = [], []
    if split is None:
        notes.append(
            f"{_listed(tops)} taken for {'a split' if len(tops) == 1 else 'splits'}, the folders below for classes; "
            f"--split {_likeliest(tops)} takes one only."
        )
    if len(files) < len(inside):
        flat = sorted({file.path.split("/")[0] for file in inside if file.path.count("/") == 1} | unnamed)
        warnings.append(
            f"Left out: {counted(len(inside) - len(files), 'image')} directly in {_listed(flat)}, without a class."
        )
    return files, notes, warnings


def _unnamed_classes(files: list[FolderFile]) -> set[str]:
    """Folders that are alone in their split and no class of another one, as val/images/ beside train/ with classes."""
    inside = _folders_inside(files)
    classes = {name for names in inside.values() if len(names) > 1 for name in names}
    alone = {(top, *names) for top, names in inside.items() if len(names) == 1}
    return {f"{top}/{name}" for top, name in alone if classes and name not in classes}


def _likeliest(splits: list[str]) -> str:
    """The split that somebody who takes one takes."""
    return next((name for name in splits if name.lower().startswith("train")), splits[0])


def _folders_inside(files: list[FolderFile]) -> dict[str, set[str]]:
    """First folder of each image -> the folders directly inside that hold images."""
    inside: dict[str, set[str]] = {}
    for file in files:
        top, *folders = file.path.split("/")[:-1]
        inside.setdefault(top, set()).update(folders[:1])
    return inside


def _require_no_splits(files: list[FolderFile], data: str) -> None:
    """Raise DataError where folders of splits stand beside others: they would be taken for classes."""
    inside = _folders_inside(files)
    splits = {name: inner for name, inner in inside.items() if is_split_name(name) and len(inner) > 1}
    others = sorted(inside.keys() - splits.keys())
    held = Counter(name for inner in splits.values() for name in inner)
    if not held.keys().isdisjoint(others) or any(count > 1 for count in held.values()):
        got = f"the splits {_listed(sorted(splits))} beside {_listed(others)}"
        remedy = f"take one with --split {_likeliest(sorted(splits))}, or move the others elsewhere"
        raise DataError(expected_got(f"folders of classes, or of splits, in {data}", got, remedy))


def _inner_folders(files: list[FolderFile]) -> list[str]:
    """A sentence where every class consists of folders of its own, which may be the classes."""
    inside = _folders_inside(files)
    inner = [f"{name}/{below}" for name in sorted(inside) for below in sorted(inside[name])]
    names = {name for below in inside.values() for name in below}
    is_flat = any(file.path.count("/") == 1 for file in files) or any(len(below) < 2 for below in inside.values())
    if is_flat or len(inside) < 2 or len(names) < len(inner):
        return []
    told = f"The classes are {_listed(sorted(inside))}, and their images lie in folders of their own, {_listed(inner)}"
    return [f"{told}: if these are the classes, move them into one folder, or pass a .csv of path,label."]


def _without_rows(scan: Scan, files: list[FolderFile], data: str) -> list[str]:
    """Sentences about classes without an image, images without a class, and folders that may be classes instead."""
    warnings = []
    depth = files[0].depth if files else 0
    warnings += _same_inside(files, data) if not depth else []
    filled = {"/".join(file.path.split("/")[: depth + 1]) for file in files}
    empty = sorted(
        folder
        for folder in scan.folders
        if folder.count("/") == depth and folder not in filled and (not depth or _has_sibling(folder, filled))
    )
    if empty:
        shown = [f"{folder!r}{f' ({kinds})' if (kinds := scan.endings(folder)) else ''}" for folder in empty[:_SHOWN]]
        more = f" and {len(empty) - _SHOWN:,} more" if len(empty) > _SHOWN else ""
        warnings.append(f"No class, since without an image: {', '.join(shown)}{more}.")
    if scan.at_root:
        warnings.append(f"Left out: {counted(scan.at_root, 'image')} beside the class folders.")
    return warnings


def _same_inside(files: list[FolderFile], data: str) -> list[str]:
    """A sentence where all class folders hold folders of the same names, which may be the classes."""
    inside = _folders_inside(files)
    outer, inner = sorted(inside), sorted(next(iter(inside.values()), ()))
    if len(outer) < 2 or len(inner) < 2 or any(set(inner) != names for names in inside.values()):
        return []
    if all(map(is_split_name, inner)):
        return []
    told = f"The classes are {_listed(outer)}, and each of them holds the folders {_listed(inner)}"
    return [f"{told}: if the classes are the inner ones, pass --data {data.rstrip('/')}/{outer[0]}."]


def _no_rows(scan: Scan) -> list[str]:
    """Sentences about what is not meant to be a row."""
    notes = []
    if scan.others:
        notes.append(f"Left out, since no images by their names: {scan.endings()}.")
    if scan.system:
        kinds = ", ".join(f"{count:,} x {name}" for name, count in scan.system.most_common(_SHOWN))
        notes.append(f"Left out, as folders of thumbnails or of a system: {kinds}.")
    if scan.loops:
        notes.append(f"Left out, as links to folders that are read already: {_listed(sorted(scan.loops))}.")
    return notes


def _has_sibling(folder: str, filled: set[str]) -> bool:
    parent = folder.rpartition("/")[0]
    return any(other.rpartition("/")[0] == parent for other in filled)


def _one_class(scan: Scan, data: str, classes: Counter[str], files: list[FolderFile]) -> DataError:
    """The error for fewer than two folders with images; names the folder that was probably meant."""
    expected = f"images in one sub-folder per class of {data}"
    if not classes:
        kinds = scan.endings()
        got = f"none{f' ({kinds})' if kinds else ''}"
        return DataError(expected_got(expected, got, "check the path, and move the images into class folders"))
    expected = f"two or more folders of images in {data}"
    got = f"one, {next(iter(classes))!r}"
    folder = "/".join(files[0].path.split("/")[: files[0].depth + 1])
    while True:
        inner = sorted({file.path[len(folder) + 1 :].split("/")[0] for file in files if _is_below(file.path, folder)})
        if len(inner) != 1:
            break
        folder = f"{folder}/{inner[0]}"
    if len(inner) > 1:
        what = "data are probably in" if all(map(is_split_name, inner)) else "classes are probably"
        remedy = f"the {what} {_listed(inner)}: pass --data {data.rstrip('/')}/{folder}"
    else:
        remedy = "move the images into one sub-folder per class, or give a .csv of path,label"
    return DataError(expected_got(expected, got, remedy))


def _is_below(path: str, folder: str) -> bool:
    """Whether an image lies in a sub-folder of a folder, not in it directly."""
    return path.startswith(f"{folder}/") and "/" in path[len(folder) + 1 :]


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(map(repr, names[:_SHOWN])) + more
