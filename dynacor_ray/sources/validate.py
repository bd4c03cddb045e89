"""From labels to class indices and from raw rows to valid ones; every invalid row is quarantined. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dynacor_ray.core import schema
from dynacor_ray.core.errors import DataError, expected_got
from dynacor_ray.core.image_decoding import ImageError, ImageInfo, probe
from dynacor_ray.core.schema import MAX_INSTANCE_ID
from dynacor_ray.sources.base import Source
from dynacor_ray.sources.label_values import is_integer_text

MAX_CLASS_NAME = 500
_MISSING, _UNKNOWN = -1, -2
_SHOWN = 5
_FRACTION = re.compile(r"-?\d*\.\d+(e-?\d+)?")
_BESIDE_LETTERS = re.compile(r"(?<=[^\W\d_])[\s_-]+|[\s_-]+(?=[^\W\d_])")
"""Blanks and hyphens beside a letter; those of numbers count."""
_LEADING_ZEROS = re.compile(r"^0+(?=\d+$)")


@dataclass(frozen=True)
class LabelVocabulary:
    """The classes of a data set.

    Attributes:
        names: class names in order of their index.
        codes: label in the data -> class index.
    """

    names: tuple[str, ...]
    codes: dict[str, int]


@dataclass(frozen=True)
class Validated:
    """The rows of one shard after checking.

    Attributes:
        rows: valid rows, as in `dataset/`.
        quarantine: invalid rows with their reason.
        truth: true labels of the valid rows, where known and one of the classes; None if the source has none.
        max_side: longest side of any image in pixels, None without images.
        gray: whether no image has more than one channel.
    """

    rows: pa.Table
    quarantine: pa.Table
    truth: pa.Table | None
    max_side: int | None
    gray: bool


def build_vocabulary(counts: Mapping[str, int], source: Source) -> LabelVocabulary:
    """The declared classes, else the labels of the data: integers by value, others by name.

    Args:
        counts: rows per label in the data.
        source: what the labels belong to.

    Raises:
        DataError: fewer than two classes, or so many that the column cannot be a label.
    """
    if source.class_names is not None:
        codes = source.label_codes or {name: code for code, name in enumerate(source.class_names)}
        _check_classes(source.class_names, is_declared=True)
        return LabelVocabulary(tuple(source.class_names), dict(codes))
    labels = [label for label, count in counts.items() if count > 0]
    numeric = all(map(is_integer_text, labels))
    names = tuple(sorted(labels, key=lambda label: (int(label), label)) if numeric else sorted(labels))
    _check_classes(names, is_declared=False)
    total = sum(counts.values())
    if len(names) * 2 > total:
        what, remedy = "an id column", "name the right column with --label-column"
        if _are_fractions(names):
            what, remedy = f"a quantity, such as {names[0]}", f"{remedy}, or cut the quantity into classes"
        got = f"{len(names):,} distinct labels in {total:,} rows, which looks like {what}"
        raise DataError(expected_got("several rows per class", got, remedy))
    return LabelVocabulary(names, {name: code for code, name in enumerate(names)})


def _check_classes(names: Sequence[str], *, is_declared: bool) -> None:
    if len(names) < 2:
        got = f"one, {names[0]!r}" if names else "none"
        missing = "" if is_declared else "; negative numbers and words such as nan count as missing"
        remedy = f"check the label column, or declare classes with --classes{missing}"
        raise DataError(expected_got("at least two classes", got, remedy))
    longest = max(map(len, names))
    if longest > MAX_CLASS_NAME:
        expected, got = f"class names of at most {MAX_CLASS_NAME} characters", f"one of {longest:,}"
        raise DataError(expected_got(expected, got, "name the right column with --label-column"))


def vocabulary_warnings(counts: Mapping[str, int], vocabulary: LabelVocabulary) -> list[str]:
    """One sentence per kind of doubt about the classes, with examples. counts: rows per class name or label."""
    totals = Counter[int]()
    for label, count in counts.items():
        if label in vocabulary.codes:
            totals[vocabulary.codes[label]] += count
    empty = [name for code, name in enumerate(vocabulary.names) if totals[code] == 0]
    single = [name for code, name in enumerate(vocabulary.names) if totals[code] == 1]
    sentences = []
    if empty:
        is_are = "Class {} is declared, but no instance has this label" if len(empty) == 1 else ""
        text = is_are or "{} are declared, but no instance has one of these labels"
        sentences.append(text.format(_classes(empty)) + ".")
    if single:
        text = "Class {} has one instance" if len(single) == 1 else "{} have one instance each"
        sentences.append(f"{text.format(_classes(single))}, which cannot be checked.")
    if len(vocabulary.names) > _SHOWN and _are_fractions(vocabulary.names):
        of = f"{len(vocabulary.names):,} labels such as {vocabulary.names[0]}"
        sentences.append(f"Fractions are the labels ({of}): each counts as a class; cut a quantity into a few classes.")
    return sentences + _spelling(vocabulary.names) + _several(vocabulary.names) + _two_lists(vocabulary.names)


def _are_fractions(names: Sequence[str]) -> bool:
    """Whether most labels are numbers with decimals, as those of a regression."""
    return 2 * sum(bool(_FRACTION.fullmatch(name)) for name in names) > len(names)


def _classes(names: Sequence[str]) -> str:
    """One class by name, or how many they are, with examples."""
    if len(names) == 1:
        return repr(names[0])
    return f"{len(names):,} classes ({_examples(list(map(repr, names)))})"


def _examples(texts: Sequence[str]) -> str:
    return ", ".join(texts[:_SHOWN]) + (", ..." if len(texts) > _SHOWN else "")


def _spelling(names: Sequence[str]) -> list[str]:
    """A sentence about classes whose names are the same but for case, blanks, zeros, or the form of characters."""
    alike: dict[str, list[str]] = {}
    for name in names:
        plain = _LEADING_ZEROS.sub("", unicodedata.normalize("NFKC", name).casefold())
        alike.setdefault(_BESIDE_LETTERS.sub("", plain), []).append(name)
    groups = ["/".join(group) for group in alike.values() if len(group) > 1]
    if not groups:
        return []
    how = "in case, blanks, hyphens or leading zeros"
    return [f"Classes differ only {how}: {_examples(groups)}; correct the labels if they are one."]


def _two_lists(names: Sequence[str]) -> list[str]:
    """A sentence about names of which some are numbers and others words, as where files with two lists were joined."""
    numbers, words = ([name for name in names if is_integer_text(name) is kind] for kind in (True, False))
    if not numbers or not words or all(len(name) == 1 for name in words):  # digits and letters are one list
        return []
    told = f"Classes are numbers ({_examples(numbers)}) beside words ({_examples(words)})"
    return [f"{told}; correct the labels if they come from two lists."]


def _several(names: Sequence[str]) -> list[str]:
    """A sentence about class names that look like several labels in one cell.

    Their parts recur in others, or are classes of their own.
    """
    for mark in "|;,":
        joined = [name for name in names if mark in name]
        parts = {part.strip() for name in joined for part in name.split(mark)}
        composed = [name for name in joined if {part.strip() for part in name.split(mark)} <= set(names)]
        recur = len(joined) * 2 > len(names) and len(joined) > 2 and len(parts) < 2 * len(joined)
        if recur or len(composed) > 1:
            how = f"Classes look like several labels in one cell, such as {joined[0]!r}"
            return [f"{how}; each combination counts as a class of its own."]
    return []


def validate_rows(
    raw: pa.Table, kind: str, vocabulary: LabelVocabulary, feature_dim: int | None, feature_names: Sequence[str] = ()
) -> Validated:
    """Encode labels, verify every payload, and quarantine invalid rows with their reason.

    A row with several faults is reported with the first: its error, its label, its payload.

    Args:
        raw: rows as `Shard.read` returns them.
        kind: "image" or "feature".
        vocabulary: the classes.
        feature_dim: length of every feature vector, None for images.
        feature_names: of its columns, for reasons; empty where they have none.

    Raises:
        DataError: the table's own instance ids are missing or out of range.
    """
    ids = _ids(raw)
    faults = _Faults(raw.num_rows)
    faults.note(pc.is_valid(raw[schema.RAW_ERROR]), lambda rows: raw[schema.RAW_ERROR].take(pa.array(rows)).to_pylist())
    codes = _encode(raw[schema.RAW_LABEL], vocabulary)
    faults.note(codes == _MISSING, lambda rows: ["missing label"] * len(rows))
    faults.note(codes == _UNKNOWN, lambda rows: _unknown_labels(raw, rows, vocabulary))
    images: list[ImageInfo] = []
    if kind == "image":
        images = _probe_images(raw[schema.IMAGE], faults)
        payload = _images(raw[schema.IMAGE], faults.good)
    else:
        assert feature_dim is not None
        payload = _features(raw[schema.FEATURE], faults, feature_dim, feature_names)
    good = faults.good
    uris = raw[schema.URI].filter(pa.array(good)).cast(pa.string())
    columns = [pa.array(ids[good]), uris, pa.array(codes[good]), payload]
    rows = pa.Table.from_arrays(columns, schema=schema.dataset_schema(feature_dim if kind == "feature" else None))
    max_side = max((max(image.width, image.height) for image in images), default=None)
    gray = all(image.channels == 1 for image in images)
    return Validated(rows, _quarantine(raw, faults), _truth(raw, ids, good, vocabulary), max_side, gray)


def check_unique_ids(ids: NDArray[np.int64]) -> None:
    """Raise DataError when an id, of int64 (N,), occurs more than once."""
    ordered = np.sort(ids)
    repeated = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    if len(repeated):
        shown = ", ".join(map(str, repeated[:_SHOWN])) + (", ..." if len(repeated) > _SHOWN else "")
        got = f"{len(repeated):,} repeated ({shown})"
        remedy = f"make them unique, or rename the column {schema.INSTANCE_ID!r} to have rows numbered"
        raise DataError(expected_got(f"distinct values of {schema.INSTANCE_ID}", got, remedy))


def feature_dim_of(raw: pa.Table) -> int:
    """The most common length of the feature vectors; of equally common lengths the greater.

    Raises:
        DataError: no row has a vector with at least one value.
    """
    column = raw[schema.FEATURE]
    counts = pc.value_counts(pc.list_value_length(column).drop_null().combine_chunks()).to_pylist()
    lengths = {int(item["values"]): int(item["counts"]) for item in counts if item["values"]}
    if not lengths:
        raise DataError(expected_got("feature vectors with at least one value", "none", "check the feature column"))
    return max(lengths, key=lambda length: (lengths[length], length))


def check_quarantine(quarantined: int, num_rows: int, limit: float, reasons: Mapping[str, int], hint: str = "") -> None:
    """Check that not too many rows are invalid.

    Args:
        quarantined: invalid rows.
        num_rows: all rows, these included.
        limit: largest allowed share, in [0, 1].
        reasons: rows per reason.
        hint: what to do, if the source knows.

    Raises:
        DataError: too many are invalid; the message lists the most frequent reasons.
    """
    if quarantined == 0 or (quarantined <= limit * num_rows and quarantined < num_rows):
        return
    shown = ", ".join(f"{count:,} x {reason}" for reason, count in Counter(reasons).most_common(_SHOWN))
    got = f"{quarantined:,} of {num_rows:,} ({quarantined / num_rows:.1%}): {shown}"
    remedy = hint or ("fix them or raise --max-invalid-share" if quarantined < num_rows else "fix them: no row is left")
    raise DataError(expected_got(f"at most {100 * limit:.4g}% of the rows to be unusable", got, remedy))


def reason_kind(reason: str) -> str:
    """A reason without the details of its row, so that equal faults can be counted together.

    >>> reason_kind("label 'cot' is not among the 10 classes")
    'label is not among the 10 classes'
    >>> reason_kind("broken image: bad header checksum in 'IHDR'")
    'broken image'
    """
    known = re.fullmatch(r"label '.*' (is not among the \d+ classes)", reason, re.DOTALL)
    return f"label {known.group(1)}" if known else reason.split(":", 1)[0]


def _ids(raw: pa.Table) -> NDArray[np.int64]:
    """The table's own instance ids, else the row numbers; int64 (N,)."""
    if schema.INSTANCE_ID not in raw.column_names:
        return np.asarray(raw[schema.RAW_ROW].to_numpy())
    column = raw[schema.INSTANCE_ID]
    ids = pc.fill_null(column, -1).cast(pa.int64()).to_numpy()
    invalid = np.flatnonzero((ids < 0) | (ids > MAX_INSTANCE_ID))
    if len(invalid):
        rows = raw.select([schema.INSTANCE_ID, schema.RAW_ROW]).take(pa.array(invalid[:_SHOWN])).to_pylist()
        values = [(row[schema.INSTANCE_ID], row[schema.RAW_ROW]) for row in rows]
        shown = ", ".join(f"{'null' if value is None else value} in row {row}" for value, row in values)
        remedy = f"correct them, or rename the column {schema.INSTANCE_ID!r} to have rows numbered"
        raise DataError(expected_got(f"{schema.INSTANCE_ID} in 0..{MAX_INSTANCE_ID}", shown, remedy))
    return np.asarray(ids)


class _Faults:
    """Which rows are valid so far, and the first fault of every other one."""

    def __init__(self, num_rows: int) -> None:
        self.good: NDArray[np.bool_] = np.ones(num_rows, dtype=np.bool_)
        self.reasons: dict[int, str] = {}

    def note(self, bad: Any, explanations: Callable[[NDArray[np.int64]], list[str]]) -> None:
        """Quarantine rows.

        Args:
            bad: mask (N,).
            explanations: row numbers -> their reasons, called with the rows that had no fault before.
        """
        mask = np.asarray(bad.to_numpy() if isinstance(bad, pa.ChunkedArray) else bad, dtype=np.bool_)
        rows = np.flatnonzero(mask & self.good)
        if len(rows):
            self.good[rows] = False
            self.reasons.update(zip(rows.tolist(), explanations(rows), strict=True))


def _encode(labels: pa.ChunkedArray[Any], vocabulary: LabelVocabulary) -> NDArray[np.int32]:
    """Class index per row, int32 (N,); _MISSING where null and _UNKNOWN where not in the vocabulary."""
    parts = [np.empty(0, dtype=np.int32)]
    for chunk in labels.chunks:
        encoded = chunk.dictionary_encode()
        table = [vocabulary.codes.get(label, _UNKNOWN) for label in encoded.dictionary.to_pylist()]
        positions = pc.fill_null(encoded.indices, len(table)).to_numpy(zero_copy_only=False)
        parts.append(np.array([*table, _MISSING], dtype=np.int32)[positions])
    return np.concatenate(parts)


def _unknown_labels(raw: pa.Table, rows: NDArray[np.int64], vocabulary: LabelVocabulary) -> list[str]:
    labels = raw[schema.RAW_LABEL].take(pa.array(rows)).to_pylist()
    return [f"label {_quoted(label)} is not among the {len(vocabulary.names)} classes" for label in labels]


def _quoted(label: str) -> str:
    return f"'{label if len(label) <= 40 else label[:37] + '...'}'"


def _probe_images(images: pa.ChunkedArray[Any], faults: _Faults) -> list[ImageInfo]:
    """Sizes of the valid images; the others get their reason."""
    infos, broken = [], {}
    for row in np.flatnonzero(faults.good).tolist():
        data = images[row].as_py()
        try:
            if data is None:
                raise ImageError("missing image")
            infos.append(probe(data))
        except ImageError as error:
            broken[row] = str(error)
    bad = np.zeros(len(images), dtype=np.bool_)
    bad[list(broken)] = True
    faults.note(bad, lambda rows: [broken[row] for row in rows.tolist()])
    return infos


def _images(images: pa.ChunkedArray[Any], good: NDArray[np.bool_]) -> pa.ChunkedArray[Any]:
    """The valid images as plain binary, in chunks that 32-bit offsets can hold."""
    kept = images if good.all() else images.filter(pa.array(good))
    if kept.type == pa.binary():
        return kept
    chunks = [pa.array(chunk.to_pylist(), pa.binary()) for chunk in kept.chunks]
    flat = [part for chunk in chunks for part in (chunk.chunks if isinstance(chunk, pa.ChunkedArray) else [chunk])]
    return pa.chunked_array(flat, pa.binary())


def _features(column: pa.ChunkedArray[Any], faults: _Faults, dim: int, names: Sequence[str]) -> pa.Array[Any]:
    """The valid vectors as a column of `schema.feature_field`; the others get their reason. No loop over valid rows."""
    faults.note(pc.is_null(column), lambda rows: ["missing feature"] * len(rows))
    lengths = pc.fill_null(pc.list_value_length(column), dim).to_numpy()
    faults.note(
        lengths != dim, lambda rows: [f"feature has {n} values, expected {dim}" for n in lengths[rows].tolist()]
    )
    parts = [np.empty((0, dim), dtype=np.float32)] if not column.num_chunks else []
    start = 0
    for chunk in column.chunks:
        here = faults.good[start : start + len(chunk)]
        parts.append(_matrix(chunk if here.all() else chunk.filter(pa.array(here)), dim))
        start += len(chunk)
    values = np.concatenate(parts) if len(parts) != 1 else parts[0]
    finite = _finite_rows(values)
    if not finite.all():
        bad = np.zeros(len(faults.good), dtype=np.bool_)
        bad[np.flatnonzero(faults.good)[~finite]] = True
        column = np.unique(np.argmin(np.isfinite(values[~finite]), axis=1))  # the first of each row
        one = repr(names[column[0]]) if names else f"{column[0]} (from 0)"
        where = f"feature column {one}" if len(column) == 1 else "feature"
        faults.note(bad, lambda rows: [f"{where} has NaN or infinite values"] * len(rows))
        values = values[finite]
    return schema.feature_column(values)


def _matrix(chunk: pa.Array[Any], dim: int) -> NDArray[np.float32]:
    """Lists without nulls, all of length `dim`, as float32 (N, dim); null values become NaN."""
    flat = chunk.flatten().to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):  # a double too large for float32 becomes infinite, hence invalid
        return np.asarray(flat, dtype=np.float32).reshape(-1, dim)


def _finite_rows(values: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which rows of (N, D) have only finite values; bool (N,)."""
    step = max(1, (1 << 18) // max(1, values.shape[1]))
    parts = [np.isfinite(values[i : i + step]).all(axis=1) for i in range(0, len(values), step)]
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.bool_)


def _quarantine(raw: pa.Table, faults: _Faults) -> pa.Table:
    bad = pa.array(~faults.good)
    reasons = [faults.reasons[row] for row in np.flatnonzero(~faults.good).tolist()]
    columns = [
        raw[schema.RAW_ROW].filter(bad),
        raw[schema.URI].filter(bad).cast(pa.string()),
        pa.array(reasons, pa.string()),
    ]
    return pa.Table.from_arrays(columns, schema=schema.quarantine_schema())


def _truth(
    raw: pa.Table, ids: NDArray[np.int64], good: NDArray[np.bool_], vocabulary: LabelVocabulary
) -> pa.Table | None:
    """True labels of the valid rows, where known and one of the classes."""
    if schema.TRUE_LABEL not in raw.column_names:
        return None
    codes = _encode(raw[schema.TRUE_LABEL], vocabulary)
    known = good & (codes >= 0)
    columns = [pa.array(ids[known]), pa.array(codes[known])]
    return pa.Table.from_arrays(columns, schema=schema.truth_schema())
