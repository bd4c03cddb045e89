"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009): 50,000 training images of 32x32 pixels, optionally with human labels.

Given labels are the archive's own, or those of CIFAR-10N and CIFAR-100N (`--label-column worse_label` and so on) from
`CIFAR-10_human.pt` or `CIFAR-100_human.pt` in the root or its `data/`. The archive's own labels (the fine ones of
CIFAR-100) are the truth in both cases. Rows are in the order of the training batches, which is that of CIFAR-N.

Files are read by torchvision. Its reader unpickles them, which could execute anything, but compares MD5 sums first:
only the published files pass, so what is unpickled is known. An archive is unpacked into the root, and downloaded
into it when the root has neither archive nor unpacked files.
"""

from __future__ import annotations

import os
import posixpath
import warnings
from bisect import bisect_right
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dynacor_ray.core.errors import ConfigError, DataError, expected_got
from dynacor_ray.core.hashing import digest
from dynacor_ray.core.storage import Location, locate, storage_errors
from dynacor_ray.sources.base import Shard, Source, SourceOptions
from dynacor_ray.sources.cifar_human_labels import CLEAN, read_human_labels
from dynacor_ray.sources.class_names import label_codes
from dynacor_ray.sources.image_files import file_stamp, is_inside, png, raw_images


@dataclass(frozen=True)
class Published:
    """How a data set is published.

    Attributes:
        reader: name of torchvision's class.
        title: name of the data set.
        folder: name of the unpacked folder.
        archive: name of the archive.
        human_file: name of the file of human labels.
        kinds: kinds of human labels in it.
    """

    reader: str
    title: str
    folder: str
    archive: str
    human_file: str
    kinds: tuple[str, ...]


DATA_SETS = {
    "cifar10": Published(
        reader="CIFAR10",
        title="CIFAR-10",
        folder="cifar-10-batches-py",
        archive="cifar-10-python.tar.gz",
        human_file="CIFAR-10_human.pt",
        kinds=("aggre_label", "random_label1", "random_label2", "random_label3", "worse_label"),
    ),
    "cifar100": Published(
        reader="CIFAR100",
        title="CIFAR-100",
        folder="cifar-100-python",
        archive="cifar-100-python.tar.gz",
        human_file="CIFAR-100_human.pt",
        kinds=("noisy_label",),
    ),
}


@dataclass(frozen=True, eq=False)
class CifarShard(Shard):
    """Some of the images and their labels; pixels are read late.

    Attributes:
        name: "cifar10" or "cifar100".
        root: path of the folder.
        starts: first row of every batch file.
        given: int32 (num_rows,).
        truths: int32 (num_rows,).
        train: whether it is of the training images, not of the test images.
    """

    name: str
    root: str
    starts: tuple[int, ...]
    given: NDArray[np.int32]
    truths: NDArray[np.int32]
    train: bool = True

    def read_labels(self) -> pa.StringArray:
        """See `Shard.read_labels`."""
        return pa.array(self.given).cast(pa.string())

    def read(self) -> pa.Table:
        """See `Shard.read`. Raises DataError when a batch file has changed since the source was opened."""
        rows = range(self.first_row, self.first_row + self.num_rows)
        uris = [f"{self.name}/{'train' if self.train else 'test'}/{row:05d}" for row in rows]
        contents = [self._png(row) for row in rows]
        truths = pa.array(self.truths).cast(pa.string())
        return raw_images(self.first_row, uris, self.read_labels(), [None] * len(uris), contents, truths)

    def _png(self, row: int) -> bytes:
        index = bisect_right(self.starts, row) - 1
        return png(_batch(self.name, self.root, index, self.train).data[row - self.starts[index]])


class CifarSource(Source):
    """The training images of CIFAR-10 or CIFAR-100, with the published labels or human ones; or the test images."""

    kind = "image"
    has_truth = True

    def __init__(self, name: str, data: str, options: SourceOptions, train: bool = True) -> None:
        """Open the data set; files that are missing are unpacked or downloaded.

        Args:
            name: "cifar10" or "cifar100".
            data: path of the folder.
            options: only `label_column` counts.
            train: whether the training images are wanted, not the test images.

        Raises:
            ConfigError: unknown kind of human labels.
            DataError: files are missing and cannot be downloaded, are not the published ones, or do not belong
                together.
            StorageError: a file cannot be read or unpacked.
        """
        self.name, self.uri = name if train else f"{name}_test", data
        self._data_set, self._train, self._published = name, train, DATA_SETS[name]
        self._label_kind = options.label_column if train else None  # people labeled the training images
        if self._label_kind not in (None, *self._published.kinds):
            valid = ", ".join(self._published.kinds)
            remedy = f"pass one of these, or leave it out for the labels of {self._published.title} itself"
            raise ConfigError(expected_got(f"--label-column among {valid}", repr(self._label_kind), remedy))
        self._root = _local_folder(data, self._published)
        self._human_file = None if self._label_kind is None else _find_human_file(self._root, self._published)
        _complete(name, self._root, train)
        self._stamps = self._file_stamps()
        labels = []
        for index in range(len(_files(_reader(name), train))):
            batch = _batch(name, self._root.path, index, train)
            labels.append(np.array(batch.targets, dtype=np.int32))
            self.class_names = tuple(batch.classes)
        self._starts = tuple(accumulate(map(len, labels[:-1]), initial=0))
        self._truths = np.concatenate(labels)
        self.num_rows = len(self._truths)
        assert self.class_names is not None
        self.label_codes = label_codes(self.class_names, index_first=True)
        self._given = self._truths
        if self._human_file is not None and self._label_kind is not None:
            self._given = self._human_labels(self._human_file, self._label_kind, len(self.class_names))

    def _human_labels(self, place: Location, kind: str, num_classes: int) -> NDArray[np.int32]:
        """Labels of one kind, int32 (N,), after checking that the clean ones beside them are the archive's."""
        given, true = read_human_labels(place, kind, num_classes)
        if len(given) != self.num_rows:
            remedy = f"use {self._published.human_file} as published"
            got = f"{len(given):,}"
            raise DataError(expected_got(f"{self.num_rows:,} labels in {place}, one per training image", got, remedy))
        different = np.flatnonzero(true != self._truths)
        if len(different):
            got = f"{len(different):,} that differ, the first one at row {different[0]:,}"
            remedy = "use the file made for the order of the original batches (another one is made for TensorFlow)"
            raise DataError(expected_got(f"{CLEAN} of {place} equal to the labels of the archive", got, remedy))
        return given

    def _file_stamps(self) -> list[list[Any]]:
        """Versions of the files in use, taken before they are read."""
        reader, folder = _reader(self._data_set), self._root / self._published.folder
        names = [*(name for name, _ in _files(reader, self._train)), reader.meta["filename"]]
        human = [] if self._human_file is None else [file_stamp(str(self._human_file), self._human_file.info())]
        return [file_stamp(name, (folder / name).info()) for name in names] + human

    def fingerprint(self) -> str:
        """See `Source.fingerprint`; covers the batches, and the human labels where they are used."""
        return digest([self.name, self._stamps, self._label_kind])

    def _shard(self, first: int, count: int) -> Shard:
        rows = slice(first, first + count)
        given, truths = self._given[rows], self._truths[rows]
        return CifarShard(first, count, self._data_set, self._root.path, self._starts, given, truths, self._train)


def present_data_sets(names: Collection[str]) -> list[str]:
    """Which of "cifar10" and "cifar100" a folder with these entries holds, unpacked or as an archive.

    >>> present_data_sets(["cifar-10-batches-py", "notes.txt"])
    ['cifar10']
    """
    return [name for name, published in DATA_SETS.items() if {published.folder, published.archive} & set(names)]


def _torchvision() -> Any:
    from torchvision import datasets

    return datasets


def _reader(name: str) -> Any:
    """torchvision's class for a data set; its attributes list the files with their MD5 sums."""
    return getattr(_torchvision(), DATA_SETS[name].reader)


def _files(reader: Any, train: bool) -> list[list[str]]:
    """Names of the batch files, each with its MD5 sum."""
    files: list[list[str]] = reader.train_list if train else reader.test_list
    return files


@lru_cache(maxsize=1)
def _batch(name: str, root: str, index: int, train: bool = True) -> Any:
    """One batch as torchvision reads it: pixels uint8 (n, 32, 32, 3), labels and class names.

    The last one stays in memory, which is safe: its MD5 sum guarantees its content.

    Raises:
        DataError: the file is missing or not the published one.
        StorageError: it cannot be read.
    """
    reader, published = _reader(name), DATA_SETS[name]
    batch = _files(reader, train)[index]
    # A reader of this batch only: it checks and loads the files on its two lists, and the class names.
    lists = {"train_list": [batch] if train else [], "test_list": [] if train else [batch]}
    part = type(reader.__name__, (reader,), lists)
    try:
        with storage_errors("read", locate(root)), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about how the Python 2 of 2009 wrote arrays
            return part(root, train=train, download=False)
    except RuntimeError as error:
        expected = f"{published.folder}/{batch[0]} and {reader.meta['filename']} in {root} as published"
        remedy = f"delete {published.folder}, and put {published.archive} in its place or unpack it there"
        raise DataError(expected_got(expected, "missing or damaged files (other MD5 sums)", remedy)) from error


def _local_folder(data: str, published: Published) -> Location:
    """The root. Raises DataError when it is no local folder."""
    root = locate(data)
    if not root.is_local:
        remedy = f"copy {published.archive} into a folder that all nodes see"
        raise DataError(expected_got(f"a local folder for {published.title}", str(root), remedy))
    if not data or not root.is_dir():
        remedy = f"check the path, or make the folder: {published.archive} is then downloaded into it"
        raise DataError(expected_got(f"a folder for {published.title}", f"no folder {data!r}", remedy))
    return root


def _complete(name: str, root: Location, train: bool) -> None:
    """Unpack the archive where unpacked files are missing, and download it first where it is missing too.

    Raises:
        DataError: the archive is damaged or unavailable.
        StorageError: the root cannot be written.
    """
    reader, published, utils = _reader(name), DATA_SETS[name], _torchvision().utils
    files = [*(batch for batch, _ in _files(reader, train)), reader.meta["filename"]]
    if all((root / published.folder / file).exists() for file in files):
        return
    archive = root / published.archive
    if not archive.exists():
        _download(archive, published, reader)
    with storage_errors("read", archive):
        intact = utils.check_integrity(archive.path, reader.tgz_md5)
    if not intact:
        got = f"a damaged file (its MD5 sum is not {reader.tgz_md5})"
        raise DataError(expected_got(f"{archive} as published", got, "delete it, and copy or download it again"))
    folder = root / published.folder
    if not is_inside(folder.path, os.path.realpath(root.path)):
        got = f"a link to {os.path.realpath(folder.path)}"
        raise DataError(expected_got(f"to unpack {published.archive} below {root}", got, f"remove the link {folder}"))
    with storage_errors("write", root):
        utils.extract_archive(archive.path, root.path)


def _download(archive: Location, published: Published, reader: Any) -> None:
    """Fetch the archive, whole or not at all. Raises DataError when that fails."""
    folder = posixpath.dirname(archive.path)
    with archive.atomic_replace() as part:
        try:
            _torchvision().utils.download_url(reader.url, folder, posixpath.basename(part.path), reader.tgz_md5)
        except (OSError, RuntimeError) as error:
            got = f"neither, and {reader.url} cannot be downloaded ({error})"
            remedy = f"put {published.archive} into {folder}"
            raise DataError(
                expected_got(f"{published.folder}/ or {published.archive} in {folder}", got, remedy)
            ) from error


def _find_human_file(root: Location, published: Published) -> Location:
    """The file of human labels, in the root or in its `data/`. Raises DataError when there is none."""
    for place in (root / published.human_file, root / "data" / published.human_file):
        if place.exists():
            return place
    remedy = f"put it there (data/{published.human_file} of github.com/UCSC-REAL/cifar-10-100n)"
    raise DataError(expected_got(f"{published.human_file} in {root} or in its data/", "no such file", remedy))
