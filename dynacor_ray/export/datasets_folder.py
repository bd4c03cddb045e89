"""Rows as a folder that Hugging Face's `datasets` loads, with the images and the names of the classes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dynacor_ray.core import schema
from dynacor_ray.core.errors import StorageError, expected_got
from dynacor_ray.core.storage import Location
from dynacor_ray.export.images import image_files, packed_bytes
from dynacor_ray.runs.records import RunSummary

ROWS = "data/train-00000-of-00001.parquet"
_IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_CLASSES = (schema.GIVEN_LABEL, schema.PREDICTED_LABEL)
_DTYPES = {"double": "float64", "float": "float32"}


def write_datasets_folder(run: Location, summary: RunSummary, rows: Iterator[pa.Table], out: Location) -> int:
    """Write the new folder `out` for `datasets.load_dataset(out)`; returns the number of rows in it.

    Labels are a ClassLabel with the names of all classes. Images that are local files stand there by their path, others
    as bytes; an image that is gone is null.

    Args:
        run: directory of the run.
        summary: content of its `summary.json`.
        rows: tables with the columns of `issues.parquet`, classes by name.
        out: a folder that does not exist yet.

    Raises:
        StorageError: `out` exists.
    """
    if out.exists():
        raise StorageError(expected_got("a new folder for datasets", f"{out}, which exists", "choose another"))
    count, with_images = 0, summary.data.kind == "image"
    with (out / ROWS).atomic_replace() as part:
        first = _typed(next(rows), summary.class_names)
        if with_images:
            first = first.add_column(0, schema.IMAGE, pa.array([], _IMAGE_TYPE))
        kept = first.schema.with_metadata(_metadata(first.schema, summary.class_names))
        with pq.ParquetWriter(part.path, kept, filesystem=part.filesystem) as writer:
            for named in rows:
                table = _typed(named, summary.class_names)
                if with_images:
                    table = table.add_column(0, schema.IMAGE, _images(run, summary, table))
                writer.write_table(table.cast(kept))
                count += table.num_rows
    return count


def _typed(table: pa.Table, names: list[str]) -> pa.Table:
    """The table with the classes as numbers of a ClassLabel."""
    for name in _CLASSES:
        codes = pc.index_in(table[name], value_set=pa.array(names, pa.string())).cast(pa.int64())
        table = table.set_column(table.schema.get_field_index(name), name, codes)
    return table


def _metadata(columns: pa.Schema, names: list[str]) -> dict[str, str]:
    """What `datasets` keeps in a parquet file about its columns."""

    def feature(field: pa.Field[Any]) -> dict[str, Any]:
        if field.name == schema.IMAGE:
            return {"_type": "Image"}
        if field.name in _CLASSES:
            return {"names": names, "_type": "ClassLabel"}
        return {"dtype": _DTYPES.get(str(field.type), str(field.type)), "_type": "Value"}

    return {"huggingface": json.dumps({"info": {"features": {field.name: feature(field) for field in columns}}})}


def _images(run: Location, summary: RunSummary, table: pa.Table) -> pa.Array[Any]:
    ids: list[int] = table[schema.INSTANCE_ID].to_pylist()
    paths = image_files(run, summary.data, dict(zip(ids, table[schema.URI].to_pylist(), strict=True)))
    packed = packed_bytes(run, summary.data, [row for row in ids if row not in paths])
    known = [row if row in paths or row in packed else None for row in ids]
    images = [None if row is None else {"bytes": packed.get(row), "path": paths.get(row)} for row in known]
    return pa.array(images, _IMAGE_TYPE)
