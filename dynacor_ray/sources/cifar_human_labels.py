"""Human label noise: the labels of CIFAR-10N and CIFAR-100N (Wei et al., ICLR 2022), read as published.

A file is a dictionary of integer arrays written by `torch.save`: `CIFAR-10_human.pt` with `clean_label`, `aggre_label`
(about 9 % wrong), `worse_label` (40 %) and `random_label1..3` (17-18 %); `CIFAR-100_human.pt` with `clean_label` and
`noisy_label` (40 %). All follow the order of the data set's training batches, as torchvision reads them.

Such a file is a pickle, which could execute anything. Nothing in it is executed here: torch's restricted unpickler gets
an allow-list of what an integer array consists of, under numpy's old and new module name, and refuses the rest.

Cost: one read of a file of a few megabytes.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynacor_ray.core.errors import DataError, expected_got
from dynacor_ray.core.storage import Location, locate
from dynacor_ray.models.weights import describe_pickle, load_without_code

CLEAN = "clean_label"
"""Key of the labels that the others are compared with."""

_MAX_BYTES = 64 << 20
_CODES = ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")


def read_human_labels(path: Location | str, kind: str, num_classes: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Read labels of one kind, and the clean ones beside them.

    Args:
        path: a file as published.
        kind: a key of it, e.g. "worse_label".
        num_classes: C, 10 or 100.

    Returns:
        The human labels and the clean ones, int32 (N,) in 0..C-1 each, in the order of the data.

    Raises:
        DataError: the file is missing, damaged or holds anything but data; it has no such key; or its labels are not
            integers in 0..C-1, one per clean label.
        StorageError: the file cannot be read.
    """
    place = locate(path) if isinstance(path, str) else path
    content = _load(place)
    if not isinstance(content, dict):
        raise _unfit(place, f"a {type(content).__name__}")
    for key in (kind, CLEAN):
        if key not in content:
            present = ", ".join(sorted(map(str, content))) or "none"
            raise DataError(expected_got(f"a key {key!r} in {place}", f"the keys {present}", "name one of these"))
    given, true = (_labels(content[key], key, num_classes, place) for key in (kind, CLEAN))
    if len(given) != len(true):
        got = f"{len(given):,} and {len(true):,}"
        remedy = "download the file again"
        raise DataError(expected_got(f"as many {kind} as {CLEAN} in {place}", got, remedy))
    return given, true


def _load(place: Location) -> Any:
    """The content of the file, which must be nothing but data."""
    info = place.info()
    if not info.is_file:
        raise DataError(expected_got(f"a file of human labels at {place}", "no such file", "check the path"))
    if info.size is not None and info.size > _MAX_BYTES:
        raise _unfit(place, f"a file of {info.size >> 20:,} MiB")
    data = io.BytesIO(place.read_bytes())
    unpacked = _unpacked_bytes(data)
    if unpacked > _MAX_BYTES:
        raise _unfit(place, f"a file that unpacks to {unpacked >> 20:,} MiB")
    try:
        return load_without_code(data, _allowed())
    except pickle.UnpicklingError as error:
        raise _unfit(place, describe_pickle(error)) from error
    except Exception as error:  # a damaged file may stumble over anything
        raise _unfit(place, f"a file that cannot be read ({type(error).__name__})") from error


def _unpacked_bytes(data: io.BytesIO) -> int:
    """Unpacked size of the members of a zip archive, torch's present format; 0 for the older format."""
    try:
        with zipfile.ZipFile(data) as archive:
            return sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return 0  # no archive, or one that torch cannot read either
    finally:
        data.seek(0)


def _allowed() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """Parts of a pickled integer array: the function that rebuilds it, its class, and those of its types."""
    rebuild = np.empty(0).__reduce__()[0]
    assert callable(rebuild)
    names = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
    return [*((rebuild, name) for name in names), np.ndarray, np.dtype, *(type(np.dtype(code)) for code in _CODES)]


def _labels(values: Any, key: str, num_classes: int, place: Location) -> NDArray[np.int32]:
    """The values of one key as int32 (N,); a single column counts as flat."""
    try:
        labels = np.asarray(values)
    except Exception as error:  # for example rows of different lengths
        raise _unfit(place, f"no array as {key}") from error
    # A view may claim more values than its file has bytes: its shape is checked before any value is read.
    if (
        labels.dtype.kind not in "iu"
        or not 0 < labels.size <= _MAX_BYTES
        or labels.shape not in {(labels.size,), (labels.size, 1)}
    ):
        raise _unfit(place, f"{key} of type {labels.dtype} and shape {labels.shape}")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        remedy = f"use the file that was made for the data set of {num_classes} classes"
        raise DataError(expected_got(f"{key} in 0..{num_classes - 1} in {place}", f"a range of {low}..{high}", remedy))
    return labels.reshape(-1).astype(np.int32)


def _unfit(place: Location, got: str) -> DataError:
    remedy = "download it again from its authors (github.com/UCSC-REAL/cifar-10-100n); code in it is never executed"
    return DataError(expected_got(f"integer arrays by name and nothing else in {place}", got, remedy))
