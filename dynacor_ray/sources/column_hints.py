"""What the first values of text columns tell where their names do not: files of images, or numbers but for a few."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from dynacor_ray.sources.column_types import is_string_type, valid_text, without_dictionary
from dynacor_ray.sources.image_files import is_image_name

HINTED_ROWS = 1024
"""How many rows are looked at, at most."""
_IMAGES, _ODD = b"dynacor_images", b"dynacor_odd"
_NUMBER = r"^\s*[-+]?(\d+[.,]?\d*|[.,]\d+)([eE][-+]?\d+)?\s*$"


def with_hints(schema: pa.Schema, rows: pa.Table) -> pa.Schema:
    """The schema, with what was seen in the metadata of fields.

    Args:
        schema: all columns.
        rows: some rows; of its columns those of text are looked at.
    """
    try:
        names = rows.column_names
    except UnicodeDecodeError:  # `find_columns` says so
        return schema
    for place, field in enumerate(schema):
        if names.count(field.name) != 1 or not is_string_type(field.type):
            continue
        column = without_dictionary(rows[field.name].slice(0, HINTED_ROWS)).drop_null()
        seen = _seen(valid_text(column.combine_chunks()))
        if seen:
            schema = schema.set(place, field.with_metadata({**(field.metadata or {}), **seen}))
    return schema


def _seen(column: pa.StringArray) -> dict[bytes, bytes]:
    if not len(column):
        return {}
    if all(map(is_image_name, map(str.strip, column.to_pylist()))):
        return {_IMAGES: b""}
    odd = column.filter(pc.invert(pc.match_substring_regex(column, _NUMBER)))
    return {_ODD: odd[0].as_py().encode()} if 0 < 2 * len(odd) < len(column) else {}


def holds_images(field: pa.Field) -> bool:
    """Whether all values that were looked at are names of image files."""
    return _IMAGES in (field.metadata or {})


def odd_value(field: pa.Field) -> str | None:
    """The first value that is no number in a column of numbers; None where there is none, or most are none."""
    value = (field.metadata or {}).get(_ODD)
    return None if value is None else value.decode()
