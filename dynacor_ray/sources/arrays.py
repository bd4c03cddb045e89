"""NumPy files: `.npz` with features and labels, or `.npy` files beside each other. Rows are read by their bytes."""

from __future__ import annotations

import io
import math
import posixpath
import re
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dynacor_ray.core.errors import DataError, expected_got, first_line
from dynacor_ray.core.hashing import digest
from dynacor_ray.core.schema import FEATURE, RAW_ERROR, RAW_LABEL, RAW_ROW, URI
from dynacor_ray.core.storage import Location, is_damage, locate, most_unpacked, storage_errors
from dynacor_ray.sources.base import Shard, Source, SourceOptions
from dynacor_ray.sources.class_names import named_classes
from dynacor_ray.sources.image_files import file_stamp, raw_images, some_rows
from dynacor_ray.sources.in_memory import encoded, pixels_of
from dynacor_ray.sources.label_values import label_strings
from dynacor_ray.sources.piece_memory import Held
from dynacor_ray.sources.python_labels import label_column

ARRAY_FILES = (".npy", ".npz")
_LABELS = re.compile(r"(?:(?P<split>\w+)_)?(given_labels?|labels?|y|targets?|classes)(?:_(?P<after>\w+))?")
_FEATURES = re.compile(r"(?:(?P<split>\w+)_)?(features?|embeddings?|x|data|images?)(?:_(?P<after>\w+))?")
_LABEL_BYTES = 1 << 29


@contextmanager
def _reading(place: Location) -> Iterator[pa.NativeFile]:
    """An open file; what goes wrong with its content in the block becomes a DataError."""
    with storage_errors("read", place):
        try:
            with place.filesystem.open_input_file(place.path) as file:
                yield file
        except (DataError, MemoryError):
            raise
        except Exception as error:  # NumPy, zipfile and Arrow raise any type on damaged bytes
            if isinstance(error, OSError) and not is_damage(error, place):
                raise
            kind = "a .npz" if place.path.lower().endswith(".npz") else "an array of NumPy"
            got = f"'{first_line(error)}'"
            raise DataError(expected_got(f"{place} to be {kind}", got, "write the file again")) from error


@dataclass(frozen=True)
class StoredArray:
    """An array in a file.

    Attributes:
        place: the file.
        member: its name in a `.npz`, None in a `.npy`.
        shape: its shape.
        dtype: its type, as NumPy spells it.
        offset: where its first value is, in the file or, where `is_packed`, in the member.
        is_packed: whether the member is compressed.
        by_column: whether its values stand column by column (Fortran order), as those of a data frame do.
    """

    place: Location
    member: str | None
    shape: tuple[int, ...]
    dtype: str
    offset: int
    is_packed: bool
    by_column: bool = False

    @property
    def name(self) -> str:
        """How it is called."""
        return posixpath.splitext(self.member or posixpath.basename(self.place.path))[0]

    def rows(self, first: int, count: int) -> NDArray[Any]:
        """Some rows; (count, ...)."""
        kind, columns = np.dtype(self.dtype), math.prod(self.shape[1:])
        Held(self.place).add(count * kind.itemsize * columns)
        with _reading(self.place) as file, ExitStack() as stack:
            stream: Any = file
            if self.is_packed:
                archive = stack.enter_context(zipfile.ZipFile(file))
                stream = stack.enter_context(archive.open(self.member or ""))
            data = bytearray()
            for column in range(columns if self.by_column else 1):
                skipped = column * self.shape[0] + first if self.by_column else first * columns
                stream.seek(self.offset + skipped * kind.itemsize)
                data += stream.read(count * kind.itemsize * (1 if self.by_column else columns))
            if len(data) < count * kind.itemsize * columns:
                raise ValueError(f"{self.name} ends before its last row")
        order: Literal["F", "C"] = "F" if self.by_column else "C"
        return np.frombuffer(bytes(data), kind).reshape((count, *self.shape[1:]), order=order)


@dataclass(frozen=True)
class ArrayShard(Shard):
    """Some rows of an array, with their labels."""

    array: StoredArray
    labels: pa.StringArray
    kind: Literal["image", "feature"]

    def read_labels(self) -> pa.StringArray:
        """See `Shard.read_labels`."""
        return self.labels

    def read(self) -> pa.Table:
        """See `Shard.read`."""
        values = self.array.rows(self.first_row, self.num_rows)
        rows = np.arange(self.first_row, self.first_row + self.num_rows)
        uris = [f"{self.array.name}#{row}" for row in rows]
        errors: list[str | None] = [None] * self.num_rows
        if self.kind == "image":
            images = []
            for row, image in enumerate(values):
                content, errors[row] = encoded(image)
                images.append(content)
            return raw_images(self.first_row, uris, self.labels, errors, images)
        with np.errstate(over="ignore"):
            flat = np.ascontiguousarray(values.reshape(self.num_rows, -1), dtype=np.float32)
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), flat.shape[1])
        known = {RAW_ROW: pa.array(rows), URI: pa.array(uris), RAW_LABEL: self.labels}
        return pa.table(known | {RAW_ERROR: pa.array(errors, pa.string()), FEATURE: vectors})


class ArraySource(Source):
    """An array of features (N, ...), or of images (`_holds_images`), and one of labels (N,)."""

    name = "numpy"

    def __init__(self, data: str, options: SourceOptions) -> None:
        """Find both arrays in a `.npz`, or in the `.npy` files of one folder.

        Raises:
            DataError: it is not clear which arrays are meant, or they do not fit.
        """
        self.uri, place = data, locate(data)
        arrays = _stored(place)
        self._array, labels = _pair(arrays, place, options)
        shape, self.num_rows = self._array.shape, self._array.shape[0]
        self.kind = "image" if self.num_rows and _holds_images(self._array) else "feature"
        self._options = options
        self.class_names, self.label_codes = named_classes(options)
        self._labels = _label_text(labels, options.classes is not None)
        self.notes = (f"{self._array.name} of shape {shape} taken for {self.kind}s, {labels.name} for labels.",)
        self._stamps = [file_stamp(array.name, array.place.info()) for array in (self._array, labels)]

    def fingerprint(self) -> str:
        """See `Source.fingerprint`."""
        return digest([self.name, self.uri, self._stamps, self._options.classes, self._options.split])

    def _shard(self, first: int, count: int) -> Shard:
        return ArrayShard(first, count, self._array, some_rows(self._labels, first, count), self.kind)


def _holds_images(array: StoredArray) -> bool:
    """Whether rows are images: uint8 (H, W), or (H, W, C) or (C, H, W) of uint8 or of floats in 0..1."""
    is_flat, kind = len(array.shape) == 3, np.dtype(array.dtype)
    if len(array.shape) not in (3, 4) or not (kind == np.uint8 or (kind.kind == "f" and not is_flat)):
        return False
    try:
        pixels_of(array.rows(0, 1)[0])
    except ValueError:
        return False
    return True


def _label_text(labels: StoredArray, is_declared: bool) -> pa.StringArray:
    kind = np.dtype(labels.dtype)
    if kind.kind == "V" or kind.itemsize * math.prod(labels.shape) > _LABEL_BYTES:
        got = f"{labels.name} of type {kind} and shape {labels.shape}"
        raise DataError(expected_got("labels that are integers or text", got, "convert them"))
    values = labels.rows(0, labels.shape[0])
    if len(labels.shape) == 2 and labels.shape[1] > 1:
        return label_strings(label_column(values, labels.shape[0]), is_declared=is_declared)  # one-hot
    values = values.reshape(-1)
    native = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
    text = pa.array(values.tolist()) if values.dtype.kind in "SU" else pa.array(native)
    return label_strings(pa.chunked_array([text]), is_declared=is_declared)


def _stored(place: Location) -> list[StoredArray]:
    """The arrays of a `.npz`, or of all `.npy` in the folder of the file, or in this folder."""
    if place.path.lower().endswith(".npz"):
        return _members(place)
    folder = place
    if not place.is_dir():
        folder = place.parent
    files = [folder / name for name in folder.names() if name.lower().endswith(".npy")]
    return [array for array in map(_single, files) if array is not None]


def _single(place: Location) -> StoredArray | None:
    with _reading(place) as file:
        return _header(place, bytes(file.read(4096)), None, 0, False)


def _members(place: Location) -> list[StoredArray]:
    found = []
    with _reading(place) as file:
        archive = zipfile.ZipFile(file)
        for info in archive.infolist():
            if info.file_size > (most := most_unpacked(info.compress_size)):
                got, remedy = f"more than {most >> 20:,} MiB", "if you trust it, save its arrays as .npy"
                raise DataError(expected_got(f"{info.filename} in {place} to be no decompression bomb", got, remedy))
            with archive.open(info) as member:
                head = member.read(4096)
            packed, start = info.compress_type != zipfile.ZIP_STORED, 0
            if not packed:
                file.seek(info.header_offset + 26)
                start = info.header_offset + 30 + sum(np.frombuffer(file.read(4), "<u2").tolist())
            found.append(_header(place, head, info.filename, start, packed))
    return [array for array in found if array is not None]


def _header(place: Location, head: bytes, member: str | None, start: int, packed: bool) -> StoredArray | None:
    """What the head of a `.npy` says; None for a single value. Arrays of Python objects, type "O", are never read."""
    stream = io.BytesIO(head)
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, is_fortran, kind = read(stream)
    if not shape and not kind.hasobject:
        return None
    type_name = "|O" if kind.hasobject else kind.str
    return StoredArray(place, member, tuple(shape), type_name, start + stream.tell(), packed, bool(is_fortran))


def _pair(arrays: list[StoredArray], place: Location, options: SourceOptions) -> tuple[StoredArray, StoredArray]:
    """The arrays of features or images and of labels: by their shapes, of several by their names."""
    if not place.is_dir() and place.path.lower().endswith(".npy"):
        own = posixpath.splitext(posixpath.basename(place.path))[0]
        arrays = [array for array in arrays if array.name == own or len(array.shape) == 1 or array.shape[1:] == (1,)]
    of_objects = [array.name for array in arrays if np.dtype(array.dtype).hasobject]
    arrays = [array for array in arrays if array.name not in of_objects]
    flat = [array for array in arrays if len(array.shape) == 1 or array.shape[1:] == (1,)]
    deep = [array for array in arrays if array not in flat and np.dtype(array.dtype).kind in "fiub"]
    if options.split is not None:
        flat, deep = ([array for array in group if options.split in array.name.split("_")] for group in (flat, deep))
    one_hot = [array for array in deep if len(array.shape) == 2 and _LABELS.fullmatch(array.name.lower())]
    if one_hot and not flat:
        flat, deep = one_hot, [array for array in deep if array not in one_hot]
    pairs = [(x, y) for x in deep for y in flat if x.shape[0] == y.shape[0]]
    for left in (pairs, [(x, y) for x, y in pairs if _by_name(x.name, y.name)]):
        if len(left) == 1:
            return left[0]
    shown = ", ".join(f"{array.name} {array.shape} {np.dtype(array.dtype)}" for array in arrays[:8]) or "none"
    expected = f"one array of features or images and one of as many labels in {place}"
    remedy = "name them features and labels in one .npz; --split takes x_NAME and y_NAME"
    if of_objects:
        shown += f", and Python objects in {', '.join(of_objects[:8])}"
        remedy = f"write numbers or text, such as {of_objects[0]}.astype(str)"
    raise DataError(expected_got(expected, f"the arrays {shown}", remedy))


def _by_name(features: str, labels: str) -> bool:
    """Whether two arrays go together by their names, such as x_train and y_train."""
    x, y = _FEATURES.fullmatch(features.lower()), _LABELS.fullmatch(labels.lower())
    return bool(x and y and x.group("split", "after") == y.group("split", "after"))
