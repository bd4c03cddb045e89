"""Names of the classes, as the user or the metadata of a file declare them, and which labels stand for them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from dynacor_ray.core.errors import ConfigError, DataError, expected_got
from dynacor_ray.sources.base import SourceOptions
from dynacor_ray.sources.columns import Columns
from dynacor_ray.sources.label_values import is_integer_text

Declared = tuple[tuple[str, ...] | None, dict[str, int] | None]
"""Class names in order, and label in the data -> class index; None each where the labels found are the classes."""


def check_class_names(names: Sequence[str], where: str) -> tuple[str, ...]:
    """Class names as a tuple. Raises ConfigError when a name is empty or repeated."""
    trimmed = tuple(name.strip() for name in names)
    repeated = sorted({name for name in trimmed if trimmed.count(name) > 1}) if len(set(trimmed)) < len(trimmed) else []
    if repeated or not all(trimmed):
        got = f"repeated {', '.join(map(repr, repeated))}" if repeated else "an empty name"
        remedy = "correct the list of classes"
        raise ConfigError(expected_got(f"distinct, non-empty class names in {where}", got, remedy))
    return trimmed


def names_in_order(names: Sequence[str] | Mapping[Any, Any]) -> Sequence[str]:
    """Names of classes by their numbers. Raises ConfigError where the numbers are others than 0, 1, 2, ...

    >>> names_in_order({1: "dog", 0: "cat"}), names_in_order({"cat": 0, "dog": 1}), names_in_order(["cat", "dog"])
    (['cat', 'dog'], ['cat', 'dog'], ['cat', 'dog'])
    """
    if not isinstance(names, Mapping):
        return names
    pairs = [(code, name) for name, code in names.items()]
    if not all(is_integer_text(str(code)) for code, _ in pairs):
        pairs = list(names.items())
    by_code = {str(code): name for code, name in pairs}
    if by_code.keys() != set(map(str, range(len(names)))):
        expected = f"class_names with the numbers 0 to {len(names) - 1}"
        raise ConfigError(expected_got(expected, repr(dict(names))[:80], "pass a list of the names in order"))
    return [by_code[str(code)] for code in range(len(names))]


def label_codes(names: Sequence[str], *, index_first: bool = False) -> dict[str, int]:
    """Label in the data -> class index. A label may be a name or an index.

    Where a name looks like an index the name wins, unless `index_first` (integer labels whose names come with the
    data). If all names are integers they are the labels themselves, and indices are not accepted.

    >>> label_codes(["cat", "dog"])
    {'0': 0, '1': 1, 'cat': 0, 'dog': 1}
    >>> label_codes(["3", "7"])
    {'3': 0, '7': 1}
    """
    by_name = {name: code for code, name in enumerate(names)}
    by_index = {str(code): code for code in range(len(names))}
    if index_first:
        return by_name | by_index
    return by_name if all(is_integer_text(name) for name in names) else by_index | by_name


def named_classes(options: SourceOptions) -> Declared:
    """Class names and label codes from the options; (None, None) if they have none."""
    if options.classes is None:
        return None, None
    names = check_class_names(options.classes, "--classes")
    return names, label_codes(names)


def declared_classes(schema: pa.Schema, columns: Columns, options: SourceOptions, where: str) -> Declared:
    """Class names and label codes from the options or the file's metadata; (None, None) if neither has them."""
    if options.classes is not None:
        return named_classes(options)
    listed = metadata_class_names(schema, columns.label, where)
    if listed is None:
        return None, None
    names = check_class_names(listed, where)
    return names, label_codes(names, index_first=pa.types.is_integer(schema.field(columns.label).type))


def metadata_class_names(schema: pa.Schema, label: str, where: str) -> list[str] | None:
    """Class names in the metadata of a parquet file: key `class_names`, or Hugging Face's ClassLabel; else None.

    Raises:
        DataError: `class_names` is not a JSON list of strings.
    """
    metadata = schema.metadata or {}
    if b"class_names" in metadata:
        names = _json(metadata[b"class_names"])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            got = repr(metadata[b"class_names"][:60])
            raise DataError(expected_got(f"a JSON list of strings as class_names of {where}", got, "pass --classes"))
        return names
    value = _json(metadata.get(b"huggingface", b"null"))
    for step in ("info", "features", label, "names"):
        value = value.get(step) if isinstance(value, dict) else None
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return value
    return None


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None
