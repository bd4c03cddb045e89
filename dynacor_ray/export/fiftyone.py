"""Rows as a data set that FiftyOne imports: its on-disk format `FiftyOneImageClassificationDataset`.

`labels.json` holds the given label of each row, with the label quality as its confidence and all other results as
attributes. `data.json` says where the images are. Images that are no local files of their own go into `images/`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from dynacor_ray.core import schema
from dynacor_ray.core.storage import Location
from dynacor_ray.export.images import local_images, new_image_set
from dynacor_ray.runs.records import RunSummary

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
    count = 0
    with (
        new_image_set("FiftyOne", summary.data, out, IMAGES) as images,
        out.filesystem.open_output_stream((out / LABELS).path) as labels,
        out.filesystem.open_output_stream((out / DATA).path) as places,
    ):
        labels.write(f'{{"classes": {json.dumps(summary.class_names)},\n"labels": {{'.encode())
        places.write(b"{")
        for table in rows:
            files = local_images(run, summary.data, table, images)
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
