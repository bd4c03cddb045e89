"""Rows as a data set that FiftyOne imports: its on-disk format `FiftyOneImageClassificationDataset`.

`labels.json` holds the given label of each row, with the label quality as its confidence and all other results as
attributes. `data.json` says where the images are. Images that are no local files of their own go into `images/`.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from PIL import Image

from dynacor_ray.core import schema
from dynacor_ray.core.errors import DataError, StorageError, expected_got
from dynacor_ray.core.storage import Location
from dynacor_ray.export.images import image_files, packed_bytes
from dynacor_ray.runs.records import DataSummary, RunSummary

LABELS, DATA, IMAGES = "labels.json", "data.json", "images"


def write_dataset(run: Location, summary: RunSummary, rows: Iterator[pa.Table], out: Location) -> int:
    """Write the new folder `out`; returns the number of rows in it.

    Args:
        run: directory of the run.
        summary: content of its `summary.json`.
        rows: tables with the columns of `issues.parquet`, classes by name.
        out: a folder that does not exist yet.

    Raises:
        DataError: the data have no images, or an image is gone.
        StorageError: `out` exists or is not on this machine, whose files FiftyOne reads.
    """
    if summary.data.kind != "image":
        raise DataError(expected_got("images to show in FiftyOne", "feature vectors", "export to .csv or .parquet"))
    if not out.is_local:
        raise StorageError(expected_got("a folder on this machine for FiftyOne", str(out), "choose one"))
    if out.exists():
        raise StorageError(expected_got("a new folder for FiftyOne", f"{out}, which exists", "choose another"))
    try:
        return _write(run, summary, rows, (out / IMAGES).make_dir())
    except BaseException:
        out.delete()
        raise


def _write(run: Location, summary: RunSummary, rows: Iterator[pa.Table], images: Location) -> int:
    folder = images.parent
    classes = json.dumps(summary.class_names)
    count = 0
    with (
        folder.filesystem.open_output_stream((folder / LABELS).path) as labels,
        folder.filesystem.open_output_stream((folder / DATA).path) as places,
    ):
        labels.write(f'{{"classes": {classes},\n"labels": {{'.encode())
        places.write(b"{")
        for table in rows:
            files = _files(run, summary.data, table, images)
            for row in table.to_pylist():
                key, comma = json.dumps(str(row[schema.INSTANCE_ID])), "," if count else ""
                labels.write(f"{comma}\n{key}: {json.dumps(_label(row))}".encode())
                places.write(f"{comma}\n{key}: {json.dumps(files[row[schema.INSTANCE_ID]])}".encode())
                count += 1
        labels.write(b"\n}}\n")
        places.write(b"\n}\n")
    return count


def _label(row: dict[str, Any]) -> dict[str, Any]:
    """The given label and the results of its row."""
    attributes = {name: row[name] for name in schema.issues_schema().names if name != schema.GIVEN_LABEL}
    return {"label": row[schema.GIVEN_LABEL], "confidence": row[schema.LABEL_QUALITY], "attributes": attributes}


def _files(run: Location, data: DataSummary, table: pa.Table, images: Location) -> dict[int, str]:
    """Local path of each row's image; one without a file is written into `images`. Raises DataError if one is gone."""
    ids: list[int] = table[schema.INSTANCE_ID].to_pylist()
    paths = image_files(run, data, dict(zip(ids, table[schema.URI].to_pylist(), strict=True)))
    for instance_id, content in packed_bytes(run, data, [row for row in ids if row not in paths]).items():
        with Image.open(io.BytesIO(content)) as image:  # reads the header only
            place = images / f"{instance_id}.{(image.format or 'image').lower()}"
        place.write_bytes(content)
        paths[instance_id] = place.path
    lost = next((i for i in ids if i not in paths), None)
    if lost is not None:
        got = f"none for instance_id {lost}: the packed images that the run read are gone"
        raise DataError(expected_got("an image of every row", got, "pass --data with their place, to pack them again"))
    return paths
