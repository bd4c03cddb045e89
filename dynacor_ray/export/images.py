"""Where the image of a row is: a file of its own on this machine, or the packed copy that the run read."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
from PIL import Image

from dynacor_ray.core import schema
from dynacor_ray.core.errors import DataError, StorageError, expected_got
from dynacor_ray.core.storage import Location, locate
from dynacor_ray.report.build import packed_images
from dynacor_ray.report.thumbnails import read_images
from dynacor_ray.runs.records import DataSummary
from dynacor_ray.sources.image_paths import folder_of, place_of


def image_files(run: Location, data: DataSummary, uris: dict[int, str | None]) -> dict[int, str]:
    """Local path of each image that is a file of its own, by instance_id. uris: of the rows, by instance_id."""
    if data.source not in ("folder", "table", "metadata"):
        return {}
    root = locate(data.uri)
    folder = root if data.source == "folder" else folder_of(root)
    return {row: path for row, uri in uris.items() if (path := _local_path(uri, folder)) is not None}


def packed_bytes(run: Location, data: DataSummary, ids: list[int]) -> dict[int, bytes]:
    """The packed images of some rows by instance_id, as far as they are still there."""
    packed = packed_images(run, data) if ids else None
    return {} if packed is None else dict(read_images(packed, ids, 1 << 50))


@contextmanager
def new_image_set(tool: str, data: DataSummary, out: Location, images: str) -> Iterator[Location]:
    """Checks before a folder of images is written for a tool; the folder is removed where the block fails.

    Yields:
        Where images go that are no local files of their own: `images` below the folder.

    Raises:
        DataError: the data have no images.
        StorageError: `out` exists or is not on this machine, whose files the tool reads.
    """
    if data.kind != "image":
        raise DataError(expected_got(f"images to show in {tool}", "feature vectors", "export to .csv or .parquet"))
    if not out.is_local:
        raise StorageError(expected_got(f"a folder on this machine for {tool}", str(out), "choose one"))
    if out.exists():
        raise StorageError(expected_got(f"a new folder for {tool}", f"{out}, which exists", "choose another"))
    try:
        yield (out / images).make_dir()
    except BaseException:
        out.delete()
        raise


def local_images(run: Location, data: DataSummary, table: pa.Table, images: Location) -> dict[int, str]:
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


def _local_path(uri: str | None, folder: Location) -> str | None:
    place = place_of(uri, folder)[0]
    return place.path if place is not None and place.is_local and place.exists() and not place.is_dir() else None
