"""Where the image of a row is: a file of its own on this machine, or the packed copy that the run read."""

from __future__ import annotations

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


def _local_path(uri: str | None, folder: Location) -> str | None:
    place = place_of(uri, folder)[0]
    return place.path if place is not None and place.is_local and place.exists() and not place.is_dir() else None
