"""What all options share: their types, checked and converted, and how they are spelled."""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Sequence
from typing import Any

from dynacor_ray.core.errors import ConfigError, expected_got


def check_lists(options: dict[str, Any]) -> dict[str, tuple[Any, ...]]:
    """Lists given from Python as tuples; raises ConfigError for a single value."""
    plain = {name: values.tolist() if hasattr(values, "tolist") else values for name, values in options.items()}
    for name, values in plain.items():
        if isinstance(values, str) or not isinstance(values, Sequence):
            raise ConfigError(expected_got(f"{name} to be a list", repr(values), f"pass e.g. {name}=[{values!r}]"))
    return {name: tuple(values) for name, values in plain.items()}


_MEANING = {
    str: "text",
    bool: "True or False",
    int: "a whole number",
    float: "a finite number",
    tuple[str, ...]: "a list of texts",
    tuple[float, ...]: "a list of numbers",
}


def _as_type(value: Any, kind: Any) -> Any:
    """`value` as `kind`, or None when it is something else."""
    if kind is str:
        path = os.fspath(value) if isinstance(value, os.PathLike) else value
        return path if isinstance(path, str) else None
    is_bool = type(value) is bool
    if kind is bool:
        return value if is_bool else None
    if kind is int:
        return int(value) if isinstance(value, numbers.Integral) and not is_bool else None
    if kind is float:
        return float(value) if isinstance(value, numbers.Real) and not is_bool and math.isfinite(value) else None
    items = value if isinstance(value, (list, tuple)) else [None]
    typed = [_as_type(item, str if kind == tuple[str, ...] else float) for item in items]
    return None if None in typed else tuple(typed)


def flag(name: str) -> str:
    """How an option is spelled on the command line."""
    return "--" + name.replace("_", "-")
