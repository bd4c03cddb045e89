"""Rows as a data set that FiftyOne imports: its on-disk format `FiftyOneImageClassificationDataset`.

`labels.json` holds the given label of each row, with the label quality as its confidence and all other results as
attributes. `data.json` says where the images are. Images that are no local files of their own go into `images/`.
"""

from __future__ import annotations

import io
import json
import posixpath
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from PIL import Image

from dynacor_ray.core import schema
from dynacor_ray.core.errors import DataError, StorageError, expected_got
from dynacor_ray.core.storage import Location, locate
from dynacor_ray.report.build import packed_images
from dynacor_ray.report.thumbnails import read_images
from dynacor_ray.runs.records import DataSummary, RunSummary
from dynacor_ray.sources.image_paths import folder_of, place_of

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
    folder = Location(images.filesystem, posixpath.dirname(images.path), posixpath.dirname(images.uri))
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
    ids, uris = table[schema.INSTANCE_ID].to_pylist(), table[schema.URI].to_pylist()
    root = locate(data.uri) if data.source in ("folder", "table", "metadata") else None
    folder = folder_of(root) if root is not None and data.source != "folder" else root
    paths = {i: path for i, uri in zip(ids, uris, strict=True) if (path := _local_path(uri, folder)) is not None}
    missing = [i for i in ids if i not in paths]
    packed = packed_images(run, data) if missing else None
    if packed is not None:
        for instance_id, content in read_images(packed, missing, 1 << 50):
            with Image.open(io.BytesIO(content)) as image:  # reads the header only
                place = images / f"{instance_id}.{(image.format or 'image').lower()}"
            place.write_bytes(content)
            paths[instance_id] = place.path
    lost = next((i for i in ids if i not in paths), None)
    if lost is not None:
        got = f"none for instance_id {lost}: the packed images that the run read are gone"
        raise DataError(expected_got("an image of every row", got, "run the same dynacor detect to pack them"))
    return paths


def _local_path(uri: str | None, folder: Location | None) -> str | None:
    """Path of a row's image on this machine. folder: where relative paths start; None when images have no files."""
    place = place_of(uri, folder)[0] if folder is not None else None
    return place.path if place is not None and place.is_local and place.exists() and not place.is_dir() else None
