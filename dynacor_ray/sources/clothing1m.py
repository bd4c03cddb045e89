"""Clothing1M (Xiao et al., CVPR 2015): a million web images of clothes with noisy labels in 14 classes.

The root holds `noisy_train_key_list.txt`, `noisy_label_kv.txt` and others, maybe below `annotations/`, and the images
below `images/` or directly. Its terms forbid passing the images on, so reports show no thumbnails.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from dynacor_ray.core.errors import ConfigError, DataError, expected_got
from dynacor_ray.core.hashing import digest
from dynacor_ray.core.rng import Purpose, keyed_hash
from dynacor_ray.core.storage import Location, locate
from dynacor_ray.sources.base import Shard, Source, SourceOptions
from dynacor_ray.sources.class_names import label_codes
from dynacor_ray.sources.image_files import OUTSIDE, file_stamp, raw_images, read_below

CLASS_NAMES = (
    "T-shirt",
    "Shirt",
    "Knitwear",
    "Chiffon",
    "Sweater",
    "Hoodie",
    "Windbreaker",
    "Jacket",
    "Down Coat",
    "Suit",
    "Shawl",
    "Dress",
    "Vest",
    "Underwear",
)
NOISY_KEYS = "noisy_train_key_list.txt"
NOISY_LABELS = "noisy_label_kv.txt"
CLEAN_TEST = "clean_test_key_list.txt"
CLEAN_KEYS = ("clean_train_key_list.txt", "clean_val_key_list.txt", CLEAN_TEST)
CLEAN_LABELS = "clean_label_kv.txt"
NAMES = "category_names_eng.txt"

_LEVEL = "images/"
_ABSOLUTE = re.compile(r"/|~|[A-Za-z]:|[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True)
class Entry:
    """One image of the key list.

    Attributes:
        key: as listed.
        label: the given label, None if missing.
        error: why it must not be read, None if it may.
        truth: the clean label, where asked for.
    """

    key: str
    label: str | None
    error: str | None
    truth: str | None = None


@dataclass(frozen=True)
class Clothing1MShard(Shard):
    """Some entries of the key list.

    Attributes:
        root: root of the data set.
        drops_level: whether the images lie in the root without the folder `images/`.
        entries: one per row.
        has_truth: whether clean labels are included.
    """

    root: Location
    drops_level: bool
    entries: tuple[Entry, ...]
    has_truth: bool

    def read_labels(self) -> pa.StringArray:
        """See `Shard.read_labels`."""
        return pa.array([entry.label for entry in self.entries], pa.string())

    def read(self) -> pa.Table:
        """See `Shard.read`."""
        keys = [entry.key for entry in self.entries]
        paths = [key.removeprefix(_LEVEL) if self.drops_level else key for key in keys]
        images, errors = read_below(self.root, paths, [entry.error for entry in self.entries])
        truths = [entry.truth for entry in self.entries] if self.has_truth else None
        return raw_images(self.first_row, keys, self.read_labels(), errors, images, truths)


class Clothing1MSource(Source):
    """The noisy training images, or a class-balanced sample of them, optionally with the double-labeled ones."""

    name = "clothing1m"
    kind = "image"
    allows_thumbnails = False

    def __init__(self, data: str, options: SourceOptions) -> None:
        """Read the lists. Raises DataError when a text file is missing or a class is too small."""
        self.uri, self._options = data, options
        self._root = locate(data)
        self._texts = find_texts(self._root)
        self.class_names = _read_names(self._texts / NAMES)
        self.label_codes = label_codes(self.class_names, index_first=True)
        entries = self._read_entries(options)
        self._entries = tuple(entries)
        self._drops_level = not (self._root / _LEVEL.rstrip("/")).is_dir()
        self.num_rows = len(entries)
        self.has_truth = options.include_double_labeled

    def _read_entries(self, options: SourceOptions) -> list[Entry]:
        """The images that are asked for."""
        assert self.class_names is not None
        noisy = _read_labels(self._texts / NOISY_LABELS)
        entries = _entries(_read_lines(self._texts / NOISY_KEYS), noisy)
        if options.balanced_sample is not None:
            entries = balanced_sample(entries, self.class_names, options.balanced_sample, options.seed)
        if options.include_double_labeled:
            entries = self._with_double_labeled(entries, noisy)
        return entries

    def _with_double_labeled(self, entries: list[Entry], noisy: dict[str, str]) -> list[Entry]:
        """Append the images with both labels; only these have the clean label as truth."""
        clean = _read_labels(self._texts / CLEAN_LABELS)
        lists = [self._texts / name for name in CLEAN_KEYS]
        keys = [key for place in lists if place.exists() for key in _read_lines(place)]
        both = [key for key in dict.fromkeys(keys) if key in noisy and key in clean]
        if not both:
            got = f"none in {', '.join(CLEAN_KEYS)}"
            remedy = "unpack all text files, or leave out --include-double-labeled"
            raise DataError(expected_got(f"images with a noisy and a clean label in {self._texts}", got, remedy))
        listed = {entry.key for entry in entries}
        entries = entries + _entries([key for key in both if key not in listed], noisy)
        doubly = set(both)
        return [replace(entry, truth=clean[entry.key]) if entry.key in doubly else entry for entry in entries]

    def fingerprint(self) -> str:
        """See `Source.fingerprint`; covers the text files and the choice of images, not the images."""
        names = (NOISY_KEYS, NOISY_LABELS, NAMES, CLEAN_LABELS, *CLEAN_KEYS)
        stamps = [file_stamp(name, (self._texts / name).info()) for name in names]
        options = self._options
        sample = None if options.balanced_sample is None else [options.balanced_sample, options.seed]
        return digest([self.name, stamps, sample, options.include_double_labeled])

    def _shard(self, first: int, count: int) -> Shard:
        entries = self._entries[first : first + count]
        return Clothing1MShard(first, count, self._root, self._drops_level, entries, self.has_truth)


class Clothing1MTestSource(Clothing1MSource):
    """The test images with their clean labels, for `dynacor train --test`."""

    name = "clothing1m_test"

    def _read_entries(self, options: SourceOptions) -> list[Entry]:
        """Those of `clean_test_key_list.txt`."""
        keys = self._texts / CLEAN_TEST
        if not keys.exists():
            raise DataError(expected_got(f"{CLEAN_TEST} in {self._texts}", "no such file", "unpack it there"))
        return _entries(_read_lines(keys), _read_labels(self._texts / CLEAN_LABELS))


def is_clothing1m(root: Location) -> bool:
    """Whether the directory holds the list of noisy training images."""
    return any((folder / NOISY_KEYS).exists() for folder in (root, root / "annotations"))


def find_texts(root: Location) -> Location:
    """Directory of the text files: the root or its `annotations/`. Raises DataError when one is missing."""
    for folder in (root, root / "annotations"):
        if (folder / NOISY_KEYS).exists():
            if not (folder / NOISY_LABELS).exists():
                raise DataError(expected_got(f"{NOISY_LABELS} beside {NOISY_KEYS}", "no such file", "unpack it there"))
            return folder
    expected = f"{NOISY_KEYS} in {root} or in its annotations/"
    raise DataError(expected_got(expected, "no such file", "give the folder into which Clothing1M was unpacked"))


def key_error(key: str) -> str | None:
    """Why a key must not be read: by its text it leaves the root. None if it stays below."""
    parts = key.split("/")
    if _ABSOLUTE.match(key) or ".." in parts or "\\" in key or "\0" in key:
        return OUTSIDE
    return None


def balanced_sample(entries: list[Entry], names: tuple[str, ...], size: int, seed: int) -> list[Entry]:
    """A sample with equally many entries of every class, in their old order; the first classes get the remainder.

    Within a class the entries with the smallest hash of (seed, key) are taken: a sample does not depend on the order of
    the list, and a smaller one is contained in a larger one. Entries without a usable label or key are not sampled.

    Args:
        entries: the key list.
        names: the classes.
        size: number of entries to take.
        seed: any integer.

    Raises:
        ConfigError: `size` is below one per class.
        DataError: a class is too small.
    """
    if size < len(names):
        remedy = "raise --balanced-sample"
        raise ConfigError(expected_got(f"a balanced sample of at least {len(names)}", str(size), remedy))
    codes = label_codes(names, index_first=True)
    labels = np.array([-1 if e.error or e.label is None else codes.get(e.label, -1) for e in entries], dtype=np.int64)
    hashes = keyed_hash(seed, Purpose.CLASS_SAMPLE, np.array([stable_id(e.key) for e in entries], dtype=np.int64))
    quota = [size // len(names) + (code < size % len(names)) for code in range(len(names))]
    available = np.bincount(labels[labels >= 0], minlength=len(names))
    short = [code for code in range(len(names)) if available[code] < quota[code]]
    if short:
        expected = f"at least {max(quota):,} images of each class for the balanced sample"
        got = ", ".join(f"{names[code]} has {available[code]:,}" for code in short)
        remedy = f"pass --balanced-sample of at most {int(available.min()) * len(names)}"
        raise DataError(expected_got(expected, got, remedy))
    chosen: list[int] = []
    for code, count in enumerate(quota):
        members = np.flatnonzero(labels == code)
        chosen += members[np.argsort(hashes[members], kind="stable")[:count]].tolist()
    return [entries[row] for row in sorted(chosen)]


def stable_id(key: str) -> int:
    """A 63-bit integer that depends on the key alone."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") >> 1


def _entries(keys: list[str], labels: dict[str, str]) -> list[Entry]:
    """One entry per listed key. A repeated key is an error of that row."""
    counts: Counter[str] = Counter()
    entries = []
    for key in keys:
        error = key_error(key) or ("key is listed twice" if counts[key] else None)
        counts[key] += 1
        entries.append(Entry(key, labels.get(key), error))
    return entries


_TEXT_BYTES = 256 << 20
"""Six times the largest of the data set."""


def _read_lines(place: Location) -> list[str]:
    """Non-empty lines of a text file, without line ends."""
    text = place.read_bytes(_TEXT_BYTES).decode("utf-8-sig", errors="replace")
    return [line for line in (raw.rstrip("\r") for raw in text.split("\n")) if line.strip()]


def _read_labels(place: Location) -> dict[str, str]:
    """key -> label. A line is split at its last space, since keys contain commas and may contain spaces."""
    if not place.exists():
        remedy = "unpack it there, or leave out --include-double-labeled"
        raise DataError(expected_got(f"{posixpath.basename(place.path)} in {place}", "no such file", remedy))
    pairs = (line.rstrip().rpartition(" ") for line in _read_lines(place))
    return {key: label for key, space, label in pairs if space}


def _read_names(place: Location) -> tuple[str, ...]:
    """The 14 class names of the file, or those of the paper when there is none."""
    if not place.exists():
        return CLASS_NAMES
    names = tuple(line.strip() for line in _read_lines(place))
    if len(set(names)) != len(CLASS_NAMES) or len(names) != len(CLASS_NAMES):
        expected = f"{len(CLASS_NAMES)} distinct class names in {place}"
        remedy = "restore the file, or delete it for the usual names"
        raise DataError(expected_got(expected, str(len(set(names))), remedy))
    return names
