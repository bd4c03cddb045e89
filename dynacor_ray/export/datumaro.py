"""Rows as a data set that Datumaro imports: its own format, `annotations/default.json` beside `images/default/`.

The given label of each row is its annotation, with the results of the run as attributes. Datumaro reads no images
outside of the folder, so that all are copied there.
"""

from __future__ import annotations

import json
import os
import posixpath
import shutil
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from dynacor_ray.core import schema
from dynacor_ray.core.storage import Location
from dynacor_ray.export.images import local_images, new_image_set
from dynacor_ray.runs.records import RunSummary

ANNOTATIONS, IMAGES = "annotations/default.json", "images/default"
_IMAGE_TYPE = 2
"""Datumaro's number of the media type "image"."""


def write_dataset(run: Location, summary: RunSummary, rows: Iterator[pa.Table], out: Location) -> int:
    """Write the new folder `out`; returns the number of rows in it. Arguments and errors as of FiftyOne's."""
    names = [{"name": name, "parent": "", "attributes": []} for name in summary.class_names]
    codes = {name: code for code, name in enumerate(summary.class_names)}
    categories = {"label": {"labels": names, "label_groups": [], "attributes": []}}
    head = {"dm_format_version": "1.0", "media_type": _IMAGE_TYPE, "infos": {}, "categories": categories}
    count, place = 0, out / ANNOTATIONS
    with new_image_set("Datumaro", summary.data, out, IMAGES) as images:
        place.parent.make_dir()
        with place.filesystem.open_output_stream(place.path) as stream:
            stream.write(f'{json.dumps(head)[:-1]}, "items": ['.encode())
            for table in rows:
                files = local_images(run, summary.data, table, images)
                for row in table.to_pylist():
                    file = _copied(files[row[schema.INSTANCE_ID]], row[schema.INSTANCE_ID], images)
                    stream.write(f"{',' if count else ''}\n{json.dumps(_item(row, file, codes))}".encode())
                    count += 1
            stream.write(b"\n]}\n")
    return count


def _copied(path: str, instance_id: int, images: Location) -> str:
    """The name below `images` of an image, which is copied unless it was written there."""
    if posixpath.dirname(path) == images.path:
        return posixpath.basename(path)
    name = f"{instance_id}{os.path.splitext(path)[1]}"
    shutil.copyfile(path, (images / name).path)
    return name


def _item(row: dict[str, Any], file: str, codes: dict[str, int]) -> dict[str, Any]:
    """One image and its label; Datumaro keeps no attribute without a value."""
    found = {name: row[name] for name in schema.issues_schema().names if name != schema.GIVEN_LABEL}
    attributes = {name: value for name, value in found.items() if value is not None and value == value}
    label = {"id": 0, "type": "label", "attributes": attributes, "group": 0, "label_id": codes[row[schema.GIVEN_LABEL]]}
    return {"id": str(row[schema.INSTANCE_ID]), "annotations": [label], "attr": {}, "image": {"path": file}}
