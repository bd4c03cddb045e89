"""Webdataset: tar files whose members of one key are a sample, `000012.jpg` and `000012.cls` or `000012.json`."""

from __future__ import annotations

import json
import posixpath
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from dynacor_ray.core.errors import DataError, counted, expected_got, first_line
from dynacor_ray.core.hashing import digest
from dynacor_ray.core.schema import RAW_ERROR, RAW_LABEL, URI
from dynacor_ray.core.storage import Location, locate, storage_errors
from dynacor_ray.sources.base import Shard, Source, SourceOptions
from dynacor_ray.sources.class_names import named_classes
from dynacor_ray.sources.columns import LABEL_COLUMNS
from dynacor_ray.sources.folder import read_together
from dynacor_ray.sources.image_files import MAX_FILE_BYTES, file_stamp, is_image_name, raw_images, some_rows, too_large
from dynacor_ray.sources.label_values import label_strings
from dynacor_ray.sources.piece_memory import Held

_LABEL_ENDINGS = frozenset({"cls", "cls.txt", "label", "label.txt", "class"})
_LABEL_KEYS = (*LABEL_COLUMNS, "cls", "class_name", "label_name")
_LABEL_BYTES = 1 << 20
_FILE, _OFFSET, _SIZE, _TEXT = "file", "offset", "size", "text"


@dataclass(frozen=True)
class TarShard(Shard):
    """Some samples.

    Attributes:
        files: the tar files.
        rows: uri, label, error, and of each image the number of its file, its offset and its size.
    """

    files: tuple[Location, ...]
    rows: pa.Table

    def read_labels(self) -> pa.StringArray:
        """See `Shard.read_labels`."""
        return self.rows[RAW_LABEL].combine_chunks()

    def read(self) -> pa.Table:
        """See `Shard.read`."""
        images: list[bytes | None] = [None] * self.num_rows
        uris, errors = self.rows[URI].to_pylist(), self.rows[RAW_ERROR].to_pylist()
        numbers, offsets, sizes = (self.rows[name].to_pylist() for name in (_FILE, _OFFSET, _SIZE))
        held = Held(self.files[0].parent)
        for number in sorted(set(numbers)):
            place = self.files[number]
            with storage_errors("read", place), place.filesystem.open_input_file(place.path) as file:
                for row in np.flatnonzero(np.array(numbers) == number).tolist():
                    if sizes[row] > MAX_FILE_BYTES:
                        errors[row] = errors[row] or too_large(sizes[row])
                    elif sizes[row] >= 0:
                        file.seek(offsets[row])
                        images[row] = content = bytes(file.read(sizes[row]))
                        held.add(len(content))
        return raw_images(self.first_row, uris, self.read_labels(), errors, images)


class WebDatasetSource(Source):
    """One tar file, or all of a folder in order of their names. Their members are listed, not unpacked."""

    name = "webdataset"
    kind = "image"

    def __init__(self, data: str, options: SourceOptions) -> None:
        """List the samples and read their labels. Raises DataError when a tar is damaged or holds no labeled image."""
        self.uri, self._options, place = data, options, locate(data)
        names = [name for name in place.names() if name.lower().endswith(".tar")] if place.is_dir() else [""]
        if options.split is not None and place.is_dir():
            present, names = names, [name for name in names if name.startswith(options.split)]
            if not names:
                got = f"the files {', '.join(present[:5])}{', ...' if len(present) > 5 else ''}"
                raise DataError(expected_got(f"files of a split {options.split!r} in {data}", got, "correct --split"))
        self._files = tuple(place / name if name else place for name in names)
        samples = [sample for number, file in enumerate(self._files) for sample in _samples(number, file)]
        self.class_names, self.label_codes = named_classes(options)
        if not any(sample[_TEXT] is not None for sample in samples):
            expected = (
                f"samples of an image and a label (.cls, or a .json with {', '.join(LABEL_COLUMNS[:3])}) in {data}"
            )
            remedy = "unpack the file, if its folders are the classes"
            raise DataError(expected_got(expected, f"{counted(len(samples), 'image')} without labels", remedy))
        table = pa.Table.from_pylist(samples)
        labels = label_strings(table[_TEXT], is_declared=options.classes is not None)
        self._rows = table.drop_columns([_TEXT]).append_column(RAW_LABEL, labels)
        self.num_rows = table.num_rows
        self.notes = tuple(read_together(names))

    def fingerprint(self) -> str:
        """See `Source.fingerprint`."""
        stamps = [file_stamp(str(file), file.info()) for file in self._files]
        return digest([self.name, stamps, self._options.classes])

    def _shard(self, first: int, count: int) -> Shard:
        return TarShard(first, count, self._files, some_rows(self._rows, first, count))


def _samples(number: int, place: Location) -> Iterator[dict[str, Any]]:
    """The samples of one tar file that have an image, in order."""
    name, found = posixpath.basename(place.path), dict[str, dict[str, Any]]()
    with storage_errors("read", place), place.filesystem.open_input_file(place.path) as file:
        try:
            with tarfile.open(fileobj=_SmallReads(file), mode="r:") as archive:  # type: ignore[call-overload]
                for member in archive:
                    folder, base = posixpath.split(member.name)
                    key, _, ending = base.partition(".")
                    if not member.isfile() or not key:
                        continue
                    fresh = {URI: None, RAW_ERROR: None, _FILE: number, _OFFSET: 0, _SIZE: -1, _TEXT: None}
                    sample = found.setdefault(posixpath.join(folder, key), fresh)
                    if is_image_name(base):
                        sample |= {URI: f"{name}#{member.name}", _OFFSET: member.offset_data, _SIZE: member.size}
                    elif member.size <= _LABEL_BYTES and ending.lower() in (*_LABEL_ENDINGS, "json"):
                        text = _label(archive.extractfile(member), ending.lower())
                        sample[_TEXT] = text if sample[_TEXT] is None else sample[_TEXT]
        except tarfile.TarError as error:
            got = f"'{first_line(error)}'"
            raise DataError(expected_got(f"{name} to be a tar file", got, "write or unpack it again")) from error
    return iter([sample for sample in found.values() if sample[URI] is not None])


class _SmallReads:
    """A file of which only headers and labels are read: a name of gigabytes, as a header may claim, is none."""

    def __init__(self, file: pa.NativeFile) -> None:
        self._file, self.seek, self.tell = file, file.seek, file.tell

    def read(self, size: int) -> bytes:
        """Some bytes. Raises tarfile.ReadError for more than a label may have."""
        if size > _LABEL_BYTES:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return bytes(self._file.read(size))


def _label(file: Any, ending: str) -> str | None:
    """The label that a member holds."""
    text = file.read().decode(errors="replace").strip()
    if ending != "json":
        return str(text)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    keys = [key for key in _LABEL_KEYS if isinstance(value, dict) and isinstance(value.get(key), (str, int, float))]
    return str(value[keys[0]]) if keys else None
